//! Throw-away PostgreSQL.
//!
//! [`TestDb`] is a migrated database of one's own: a clone of a template on the server
//! that `TRIX_TEST_DATABASE_URL` names, else the only database of a private cluster.
//! [`TestCluster`] is always a private cluster, with the controls that fault tests need.
//! Private clusters are copies of a prepared one, which takes a tenth of the time of
//! an initdb; they lie in 0755 folders below `/var/tmp`, and vanish with their test
//! even if that is killed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use trix_db::cluster::{Cluster, ClusterOptions, Stop};
use trix_db::{Db, ProtocolTimes};

/// The database of a private cluster that tests use.
const DATABASE: &str = "trix";

/// Where throw-away clusters lie: short, because a socket's path is bounded.
const ROOT: &str = "/var/tmp";

/// A migrated database that nobody else uses.
pub struct TestDb {
    url: String,
    /// Address of the server and name of the clone, which is dropped at the end.
    clone: Option<(String, String)>,
    /// Ends the private cluster when this is dropped.
    _cluster: Option<TestCluster>,
}

/// A private cluster with one migrated database.
pub struct TestCluster {
    cluster: Cluster,
    guard: Guard,
}

/// Ends a cluster and removes its folder when the test's process dies, however that
/// happens: a shell that waits for the end of its standard input.
struct Guard {
    shell: Child,
}

impl TestDb {
    /// A database of one's own.
    pub async fn new() -> Result<TestDb> {
        match std::env::var("TRIX_TEST_DATABASE_URL") {
            Ok(admin) => TestDb::on(&admin).await,
            Err(_) => {
                let cluster = TestCluster::start().await?;
                let url = cluster.url();
                Ok(TestDb { url, clone: None, _cluster: Some(cluster) })
            }
        }
    }

    /// A database of one's own on the server at `admin`.
    pub async fn on(admin: &str) -> Result<TestDb> {
        TestDb::clone_of_template(admin.to_owned()).await
    }

    /// Takes something out of a function of the migrations: its source is read, `from` is
    /// replaced by `to` in it, and it is made anew. Fails when the source does not have
    /// `from` exactly once, so that a test of a broken function never tests a whole one.
    pub async fn break_function(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let mut c = PgConnection::connect(&self.url).await.context("connecting")?;
        let source: String =
            sqlx::query_scalar("select pg_get_functiondef(oid) from pg_proc where proname = $1")
                .bind(name)
                .fetch_one(&mut c)
                .await
                .with_context(|| format!("reading function {name}"))?;
        let found = source.matches(from).count();
        if found != 1 {
            bail!("function {name} has {found} times {from:?}, and must have it once");
        }
        exec(&mut c, source.replacen(from, to, 1)).await?;
        Ok(c.close().await?)
    }

    /// Runs statements that no function of the product would: a planted violation.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut c = PgConnection::connect(&self.url).await.context("connecting")?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut c)
            .await
            .context(sql.to_owned())?;
        Ok(c.close().await?)
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A handle with the usual times of tests: a twentieth of the real ones.
    pub fn db(&self) -> Db {
        self.db_with(test_times())
    }

    /// A handle with other times.
    pub fn db_with(&self, times: ProtocolTimes) -> Db {
        Db::open(&self.url, times).expect("the testkit's own address")
    }

    async fn clone_of_template(admin: String) -> Result<TestDb> {
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let template = format!("trix_template_{}", migrations_hash());
        let name = format!("trix_test_{}_{n}", std::process::id());
        let mut c = PgConnection::connect(&admin).await.context("connecting to the test server")?;
        // One process makes the template, the others wait for it.
        sqlx::query("select pg_advisory_lock(hashtext('trix testkit'))").execute(&mut c).await?;
        let there: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(&template)
                .fetch_one(&mut c)
                .await?;
        if !there {
            let making = format!("{template}_making");
            exec(&mut c, format!("drop database if exists {making} with (force)")).await?;
            exec(&mut c, format!("create database {making}")).await?;
            migrate(&with_database(&admin, &making)?).await?;
            exec(&mut c, format!("alter database {making} rename to {template}")).await?;
        }
        exec(&mut c, format!("drop database if exists {name} with (force)")).await?;
        exec(&mut c, format!("create database {name} template {template}")).await?;
        c.close().await?;
        let url = with_database(&admin, &name)?;
        Ok(TestDb { url, clone: Some((admin, name)), _cluster: None })
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Some((admin, name)) = self.clone.take() else { return };
        // A thread of its own, because a runtime may already run on this one.
        let dropped = std::thread::spawn(move || -> Result<()> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut c = PgConnection::connect(&admin).await?;
                exec(&mut c, format!("drop database if exists {name} with (force)")).await?;
                Ok(c.close().await?)
            })
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("a test database was left behind: {dropped:?}");
        }
    }
}

impl TestCluster {
    /// Starts a private cluster with a migrated database.
    pub async fn start() -> Result<TestCluster> {
        let prepared = prepared().await?;
        let folder = fresh_folder()?;
        let guard = Guard::new(&folder)?;
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(prepared.join("data"))
            .arg(&folder)
            .status()
            .context("starting cp")?;
        if !copied.success() {
            bail!("copying the prepared cluster {} failed", prepared.display());
        }
        let mut cluster = Cluster::open(&folder, VOLATILE)?;
        cluster.start()?;
        Ok(TestCluster { cluster, guard })
    }

    /// Starts a private cluster whose commits are as durable as in production, for
    /// measurements. It is empty but for the server's own databases.
    pub async fn start_durable() -> Result<TestCluster> {
        let folder = fresh_folder()?;
        let guard = Guard::new(&folder)?;
        let mut cluster = Cluster::open(&folder, ClusterOptions::default())?;
        cluster.start()?;
        Ok(TestCluster { cluster, guard })
    }

    /// Address of its database.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// Address of a database of it by name.
    pub fn url_of(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    /// Address of the server's own database, for `TRIX_TEST_DATABASE_URL`.
    pub fn admin_url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// A handle with the usual times of tests.
    pub fn db(&self) -> Db {
        Db::open(&self.url(), test_times()).expect("the testkit's own address")
    }

    /// Stops the server in an orderly way.
    pub fn stop(&mut self) -> Result<()> {
        Ok(self.cluster.stop(Stop::Fast)?)
    }

    /// Stops it as in a crash, without waiting for anything.
    pub fn crash(&mut self) -> Result<()> {
        Ok(self.cluster.stop(Stop::Immediate)?)
    }

    /// Kills the server's main process (SIGKILL).
    pub fn kill(&mut self) {
        self.cluster.kill();
    }

    /// Starts it again.
    pub fn restart(&mut self) -> Result<()> {
        Ok(self.cluster.start()?)
    }

    /// SIGSTOP: connections hang instead of being refused.
    pub fn pause(&self) {
        self.cluster.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.cluster.resume();
    }

    /// SIGSTOP to the server and to all its sessions: whoever is connected hangs too.
    pub fn pause_all(&self) {
        self.pause();
        self.signal_sessions(rustix::process::Signal::STOP);
    }

    /// Undoes [`TestCluster::pause_all`].
    pub fn resume_all(&self) {
        self.signal_sessions(rustix::process::Signal::CONT);
        self.resume();
    }

    fn signal_sessions(&self, signal: rustix::process::Signal) {
        // The server's main process is not meant, and comes last.
        let mut processes = self.processes();
        processes.pop();
        for pid in processes {
            // A session that has just ended is no trouble.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The processes of its sessions and helpers, and the server's main process as the
    /// last; none when it does not run.
    pub fn processes(&self) -> Vec<rustix::process::Pid> {
        let Some(server) = self.cluster.pid() else { return Vec::new() };
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| {
            let pid = e.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(e.path().join("stat")).ok()?;
            // Behind the name in parentheses: state, then the parent's id.
            let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            (parent == server.as_raw_nonzero().get()).then_some(pid)
        });
        let children = children.filter_map(rustix::process::Pid::from_raw);
        children.chain([server]).collect()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.resume_all();
        if let Err(e) = self.cluster.stop(Stop::Immediate) {
            eprintln!("ending a test cluster: {e}");
        }
        self.guard.release();
    }
}

impl Guard {
    fn new(folder: &Path) -> Result<Guard> {
        // The pid is read at the end, from the file that the server keeps: only a
        // process whose program is postgres and whose folder is this one is killed.
        const SCRIPT: &str = r#"
            read -r _ || true
            pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null || true)
            if [ -n "$pid" ] && grep -qz -- "$0/data" "/proc/$pid/cmdline" 2>/dev/null; then
                kill -CONT "$pid" 2>/dev/null; kill -QUIT "$pid" 2>/dev/null
                for _ in 1 2 3 4 5 6 7 8 9 10; do
                    kill -0 "$pid" 2>/dev/null || break
                    sleep 0.2
                done
            fi
            rm -rf -- "$0"
        "#;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCRIPT).arg(folder);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C goes to the terminal's process group: the guard must outlive the test.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        Ok(Guard { shell: shell.spawn().context("starting the cluster's guard")? })
    }

    fn release(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Runs `command` with `TRIX_TEST_DATABASE_URL` set to a fresh cluster, and gives its
/// exit code.
pub async fn with_postgres(command: &mut Command) -> Result<i32> {
    let cluster = TestCluster::start().await?;
    let status = command
        .env("TRIX_TEST_DATABASE_URL", cluster.admin_url())
        .status()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    Ok(status.code().unwrap_or(1))
}

/// The times that tests use unless they say otherwise: a twentieth of the real ones.
pub fn test_times() -> ProtocolTimes {
    ProtocolTimes::default().scaled(0.05)
}

const VOLATILE: ClusterOptions = ClusterOptions { volatile: true };

/// A stopped cluster with a migrated database, made once per schema and user.
async fn prepared() -> Result<PathBuf> {
    let root = PathBuf::from(format!(
        "{ROOT}/trix-testkit-{}-{}",
        rustix::process::geteuid().as_raw(),
        migrations_hash()
    ));
    if root.join("ready").exists() {
        return Ok(root);
    }
    make_folder(&root)?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(root.join("lock"))
        .context("opening the prepared cluster's lock")?;
    lock.lock().context("locking the prepared cluster")?;
    if root.join("ready").exists() {
        return Ok(root);
    }
    for left in ["data", "data.new"] {
        let left = root.join(left);
        if left.exists() {
            fs::remove_dir_all(&left)?;
        }
    }
    let mut cluster = Cluster::open(&root, VOLATILE)?;
    cluster.start()?;
    trix_db::cluster::ensure_database(&cluster.url("postgres"), DATABASE).await?;
    migrate(&cluster.url(DATABASE)).await?;
    cluster.stop(Stop::Fast)?;
    fs::File::create(root.join("ready"))?.write_all(b"ready\n")?;
    remove_old(&root);
    Ok(root)
}

/// Removes prepared clusters of other schemas that nobody used for a week. One that
/// cannot be removed costs room, nothing else.
fn remove_old(current: &Path) {
    let prefix = format!("trix-testkit-{}-", rustix::process::geteuid().as_raw());
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix));
        let old = fs::metadata(path.join("ready"))
            .and_then(|m| m.modified())
            .is_ok_and(|t| t.elapsed().is_ok_and(|d| d.as_secs() > 7 * 24 * 3600));
        if ours && old && path != current {
            let _ = fs::remove_dir_all(path);
        }
    }
}

async fn migrate(url: &str) -> Result<()> {
    // Not at a test's pace: the first run compiles nothing, but it may find a busy machine.
    let db = Db::open(url, ProtocolTimes::default())?;
    Ok(db.migrate().await?)
}

fn migrations_hash() -> String {
    trix_db::migrations_hash()
}

fn fresh_folder() -> Result<PathBuf> {
    let mut random = [0u8; 6];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
    let folder = PathBuf::from(format!("{ROOT}/trix-pg-{name}"));
    make_folder(&folder)?;
    Ok(folder)
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("setting the mode of {}", folder.display()))
}

/// `url` with another database in it.
fn with_database(url: &str, database: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a database address without ://")?;
    let (before, query) = rest.split_once('?').map_or((rest, None), |(b, q)| (b, Some(q)));
    let host = before.split_once('/').map_or(before, |(h, _)| h);
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    Ok(format!("{scheme}://{host}/{database}{query}"))
}

async fn exec(c: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::query(AssertSqlSafe(sql.clone())).execute(c).await.with_context(|| sql)?;
    Ok(())
}
