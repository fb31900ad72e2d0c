//! A whole installation in a folder of its own: a private PostgreSQL, workers,
//! dispatchers and apis as real processes of the real binary, with synthetic slots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use trix_db::ProtocolTimes;
use trix_db::cluster::{Cluster, ClusterOptions, Stop, ensure_database};
use trix_model::AttemptId;

use super::nas::Nas;
use super::net::{self, Cut, Net};
use super::process::{self, Process, Seen};
use super::{clock, slot};

/// The longest wait for anything that must come: far more than a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The database of every site.
pub const DATABASE: &str = "trix";

/// The shares of every site.
pub const SHARES: [(&str, &str); 5] = [
    ("incoming", "source"),
    ("archive", "output"),
    ("output", "output"),
    ("preview", "preview"),
    ("cache", "cache"),
];

/// Those that publications go to.
const DESTINATIONS: [&str; 3] = ["archive", "output", "preview"];

/// A process of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The n-th node's worker.
    Worker(u8),
    /// The n-th dispatcher.
    Dispatcher(u8),
    /// The n-th api.
    Api(u8),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Worker(n) => write!(f, "worker-{n}"),
            Role::Dispatcher(n) => write!(f, "dispatcher-{n}"),
            Role::Api(n) => write!(f, "api-{n}"),
        }
    }
}

/// What a site consists of.
#[derive(Clone, Copy, Debug)]
pub struct SiteOptions {
    /// Workers, each on a node and in a network of its own.
    pub workers: u8,
    /// Dispatchers, each in a network of its own.
    pub dispatchers: u8,
    /// Apis, all on this machine.
    pub apis: u8,
    /// Factor on the protocol's times.
    pub scale: f64,
    /// What each worker gives to tasks, in thousandths of cores.
    pub mcpu: u32,
    /// Processes get a clock that can be set.
    pub clocks: bool,
    /// The server writes what copying it while it runs needs.
    pub backups: bool,
    /// Destinations are network mounts.
    pub nas: bool,
}

impl Default for SiteOptions {
    fn default() -> SiteOptions {
        SiteOptions {
            workers: 4,
            dispatchers: 2,
            apis: 2,
            scale: 0.1,
            mcpu: 3000,
            clocks: false,
            backups: false,
            nas: false,
        }
    }
}

/// An installation.
pub struct Site {
    folder: tempfile::TempDir,
    options: SiteOptions,
    ports: Vec<u16>,
    url: String,
    pool: PgPool,
    cluster: Mutex<Cluster>,
    net: Option<Mutex<Net>>,
    nas: Option<Mutex<Nas>>,
    roles: Mutex<BTreeMap<Role, Process>>,
    begun: Instant,
    keep: AtomicBool,
}

impl Site {
    /// Makes the folder, the server and the networks, and starts every role.
    pub async fn start(options: SiteOptions) -> Result<Site> {
        let folder = tempfile::Builder::new().prefix("trix-chaos-").tempdir_in("/var/tmp")?;
        let root = folder.path().to_owned();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755))?;
        for (name, _) in SHARES {
            std::fs::create_dir(root.join(name))?;
            std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o755))?;
        }
        let nas = match options.nas {
            true if !net::is_inside() => bail!("mounts need a namespace of one's own"),
            true => Some(Mutex::new(Nas::start(&root, &DESTINATIONS)?)),
            false => None,
        };
        let mut net = if net::is_inside() { Some(Net::new()?) } else { None };
        if let Some(net) = &mut net {
            let workers = (1..=options.workers).map(Role::Worker);
            for role in workers.chain((1..=options.dispatchers).map(Role::Dispatcher)) {
                net.add(&role.to_string())?;
            }
        }
        let password = uuid::Uuid::new_v4().simple().to_string();
        let mut cluster = fresh_server(&root.join("pg"), &options)?;
        listen(cluster.folder(), net.is_some())?;
        cluster.start()?;
        let local = cluster.url(DATABASE);
        ensure_database(&cluster.url("postgres"), DATABASE).await?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(30))
            .connect_lazy(&local)?;
        let url = if net.is_some() {
            let statement = format!("alter role trix password '{password}'");
            sqlx::query(AssertSqlSafe(statement)).execute(&pool).await?;
            format!("postgresql://trix:{password}@{}:5432/{DATABASE}", net::SERVER)
        } else {
            local
        };
        let ports = (0..options.apis).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let site = Site {
            folder,
            options,
            ports,
            url,
            pool,
            cluster: Mutex::new(cluster),
            net: net.map(Mutex::new),
            nas,
            roles: Mutex::new(BTreeMap::new()),
            begun: Instant::now(),
            keep: AtomicBool::new(false),
        };
        std::fs::write(site.config(), site.configuration())?;
        site.trix(&["migrate", "--database-url", &site.url])?;
        for role in site.all_roles() {
            site.start_role(role)?;
        }
        site.ready().await?;
        Ok(site)
    }

    fn configuration(&self) -> String {
        let root = self.folder.path().display();
        let mut text = format!(
            "[worker]\nmcpu = {}\nram_mib = 65536\ndrain_s = 1\n[cache]\nmax_gib = 64\n\
             [times]\nscale = {}\n",
            self.options.mcpu, self.options.scale
        );
        for (name, role) in SHARES {
            text += &format!(
                "[[share]]\nname = \"{name}\"\nrole = \"{role}\"\nroot = \"{root}/{name}\"\n"
            );
        }
        text
    }

    /// Every role, started or not.
    pub fn all_roles(&self) -> Vec<Role> {
        let o = self.options;
        let workers = (1..=o.workers).map(Role::Worker);
        let dispatchers = (1..=o.dispatchers).map(Role::Dispatcher);
        workers.chain(dispatchers).chain((1..=o.apis).map(Role::Api)).collect()
    }

    /// What it was started with.
    pub fn options(&self) -> &SiteOptions {
        &self.options
    }

    /// The protocol's times of this site.
    pub fn times(&self) -> ProtocolTimes {
        ProtocolTimes::default().scaled(self.options.scale)
    }

    /// Milliseconds since the site was begun.
    pub fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Root of a share.
    pub fn share(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves the folder where it is when the site ends.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("trix.toml")
    }

    /// The log of a role.
    pub fn log(&self, role: Role) -> PathBuf {
        self.folder.path().join(format!("{role}.log"))
    }

    /// Address of an api, counted from 1.
    pub fn api(&self, n: u8) -> String {
        format!("http://127.0.0.1:{}", self.ports[usize::from(n) - 1])
    }

    /// The token of the commands, which the first api lays down.
    pub fn token(&self) -> Result<String> {
        let path = self.folder.path().join("state-api-1/cli-token");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Runs a command of `trix` to its end and gives what it printed.
    pub fn trix(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(trix_binary()?);
        command.arg("--config").arg(self.config()).args(arguments);
        done(command).with_context(|| format!("trix {}", arguments.join(" ")))
    }

    /// URL of the database as roles use it.
    pub fn url(&self) -> &str {
        &self.url
    }

    // --- roles ---------------------------------------------------------------

    /// Starts a role that does not run.
    pub fn start_role(&self, role: Role) -> Result<()> {
        let mut roles = lock(&self.roles);
        if let Some(process) = roles.get_mut(&role)
            && process.ended()?.is_none()
        {
            return Ok(());
        }
        let process = Process::start(self.command(role)?, &self.log(role))?;
        roles.insert(role, process);
        Ok(())
    }

    fn command(&self, role: Role) -> Result<Command> {
        let (trix, name) = (trix_binary()?, role.to_string());
        let namespace = match (&self.net, role) {
            (None, _) | (_, Role::Api(_)) => None,
            (Some(net), _) => lock(net).namespace(&name),
        };
        let mut command = match namespace {
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={namespace}")).arg(trix);
                command
            }
            None => Command::new(trix),
        };
        let kind = match role {
            Role::Worker(_) => "worker",
            Role::Dispatcher(_) => "dispatcher",
            Role::Api(n) => {
                let listen = self.api(n).replace("http://", "");
                command.env("TRIX_CONF_API__LISTEN", listen);
                "api"
            }
        };
        command
            .arg("--config")
            .arg(self.config())
            .args([kind, "--database-url", &self.url])
            .env("TRIX_CONF_NODE__NAME", &name)
            .env("TRIX_CONF_NODE__STATE", self.folder.path().join(format!("state-{name}")))
            .env("TRIX_MEDIA_BIN", std::env::current_exe().context("finding this program")?)
            .env("RUST_LOG", "info,sqlx=warn,trix_api=warn");
        if self.options.clocks {
            clock::give(&mut command, &self.clock(role))?;
        }
        Ok(command)
    }

    /// The file that sets a role's clock.
    pub fn clock(&self, role: Role) -> PathBuf {
        self.folder.path().join(format!("{role}.clock"))
    }

    /// Does something with a role's process. `None` when it does not run.
    pub fn with<T>(
        &self,
        role: Role,
        work: impl FnOnce(&mut Process) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut roles = lock(&self.roles);
        let Some(process) = roles.get_mut(&role) else { return Ok(None) };
        if process.ended()?.is_some() {
            return Ok(None);
        }
        work(process).map(Some)
    }

    /// Kills a role. `None` when it did not run; else the attempts whose slots died with it.
    pub fn kill_role(&self, role: Role) -> Result<Option<Vec<Seen>>> {
        self.with(role, |process| {
            let slots = match role {
                Role::Worker(_) => {
                    // Stopped, it starts nothing between the look and the kill.
                    process.pause()?;
                    children(process.pid().as_raw_nonzero().get())
                }
                _ => Vec::new(),
            };
            process.kill()?;
            Ok(slots)
        })
    }

    /// Slots that are at work now, by attempt.
    pub fn slots(&self) -> Vec<(AttemptId, Seen)> {
        let all = process::all().into_iter();
        all.filter_map(|p| Some((slot::attempt_of(&p.name)?, p))).collect()
    }

    /// SIGKILL to one slot.
    pub fn kill_slot(&self, slot: &Seen) -> bool {
        kill_process(slot.pid, Signal::KILL).is_ok()
    }

    // --- the database --------------------------------------------------------

    /// Rows of a query, as JSON, over a connection of the harness's own.
    pub async fn rows(&self, query: &str) -> Result<Vec<Value>> {
        let query = format!("select to_jsonb(q) from ({query}) q");
        sqlx::query_scalar(AssertSqlSafe(query.clone()))
            .fetch_all(&self.pool)
            .await
            .with_context(|| format!("asking: {query}"))
    }

    /// One number.
    pub async fn number(&self, query: &str) -> Result<i64> {
        let query = format!("select ({query})::bigint");
        sqlx::query_scalar(AssertSqlSafe(query.clone()))
            .fetch_one(&self.pool)
            .await
            .with_context(|| format!("asking: {query}"))
    }

    /// The pool of the harness.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Does something with the server; blocks.
    pub fn server<T>(&self, work: impl FnOnce(&mut Cluster) -> T) -> T {
        tokio::task::block_in_place(|| work(&mut lock(&self.cluster)))
    }

    /// Stops all of the server's processes where they stand: connections stay open, and
    /// nobody answers on them.
    pub fn freeze_server(&self) {
        self.server(|cluster| cluster.pause());
        for process in server_processes() {
            // It may have ended by itself meanwhile.
            let _ = kill_process(process.pid, Signal::STOP);
        }
    }

    /// Starts the server if it does not run, and lets it go on if it is stopped.
    pub fn server_up(&self) -> Result<()> {
        for process in server_processes() {
            let _ = kill_process(process.pid, Signal::CONT);
        }
        self.server(|cluster| {
            cluster.resume();
            if cluster.pid().is_none() { cluster.start() } else { Ok(()) }
        })
        .context("starting PostgreSQL again")
    }

    // --- the network ---------------------------------------------------------

    /// True when links can be broken.
    pub fn has_net(&self) -> bool {
        self.net.is_some()
    }

    /// Breaks or mends links.
    pub fn net<T>(&self, work: impl FnOnce(&mut Net) -> Result<T>) -> Result<T> {
        let net = self.net.as_ref().context("this site has no networks of its own")?;
        tokio::task::block_in_place(|| work(&mut lock(net)))
    }

    /// Breaks the link of a role.
    pub fn cut(&self, role: Role, cut: Cut) -> Result<()> {
        self.net(|net| net.cut(&role.to_string(), cut))
    }

    /// Mends the link of a role.
    pub fn mend(&self, role: Role) -> Result<()> {
        self.net(|net| net.heal(&role.to_string()))
    }

    /// True when destinations are network mounts.
    pub fn has_nas(&self) -> bool {
        self.nas.is_some()
    }

    /// Does something with the network mounts.
    pub fn nas<T>(&self, work: impl FnOnce(&mut Nas) -> Result<T>) -> Result<T> {
        let nas = self.nas.as_ref().context("this site has no network mounts")?;
        tokio::task::block_in_place(|| work(&mut lock(nas)))
    }

    // --- healing -------------------------------------------------------------

    /// Ends every fault: links, server, stopped and missing processes.
    pub async fn heal(&self) -> Result<()> {
        if self.net.is_some() {
            self.net(|net| net.heal_all())?;
        }
        self.server_up()?;
        if self.has_nas() {
            let bare = self.nas(|nas| nas.heal(false))?;
            anyhow::ensure!(bare.is_empty(), "on bare mount points lie {bare:?}");
        }
        for role in self.all_roles() {
            self.with(role, Process::resume)?;
            self.start_role(role)?;
        }
        self.ready().await
    }

    /// Waits until the apis would take jobs and all workers are there.
    pub async fn ready(&self) -> Result<()> {
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build()?;
        let begun = Instant::now();
        loop {
            let why = match self.not_ready(&http).await {
                None => return Ok(()),
                Some(why) => why,
            };
            if begun.elapsed() > PATIENCE {
                bail!("the site does not become ready: {why}");
            }
            for role in self.all_roles() {
                let ended = match lock(&self.roles).get_mut(&role) {
                    Some(process) => process.ended()?.map(|status| (status, process.tail())),
                    None => None,
                };
                if let Some((status, tail)) = ended {
                    bail!("{role} ended by itself with {status}:\n{tail}");
                }
            }
            pause().await;
        }
    }

    async fn not_ready(&self, http: &reqwest::Client) -> Option<String> {
        for n in 1..=self.options.apis {
            match http.get(format!("{}/readyz", self.api(n))).send().await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => return Some(format!("api {n} answers {}", answer.status())),
                Err(e) => return Some(format!("api {n}: {e}")),
            }
        }
        if let Err(e) = self.token() {
            return Some(format!("{e:#}"));
        }
        let query = "select count(distinct w.node_id) from worker w join node n on n.id = w.node_id \
            where n.name like 'worker-%' and w.state = 'active' and w.shares_ok @> array['incoming', 'archive', 'output', 'preview', 'cache']";
        match self.number(query).await {
            Ok(n) if n == i64::from(self.options.workers) => None,
            Ok(n) => Some(format!("{n} workers are active")),
            Err(e) => Some(format!("{e:#}")),
        }
    }

    /// Ends every role in order and gives what did not go as it should.
    pub async fn end_roles(&self) -> Vec<String> {
        let roles: Vec<_> = std::mem::take(&mut *lock(&self.roles)).into_iter().collect();
        let mut wrong = Vec::new();
        for (role, process) in roles {
            match tokio::task::block_in_place(|| process.end(Duration::from_secs(60))) {
                Ok(status) if status.success() => {}
                Ok(status) => wrong.push(format!("{role} ended with {status}")),
                Err(e) => wrong.push(format!("{role}: {e:#}")),
            }
        }
        wrong
    }

    /// All living processes of this site but the server's.
    pub fn processes(&self) -> Vec<Seen> {
        let root = self.folder.path().display().to_string();
        let own: BTreeSet<u32> = [std::process::id()].into();
        let all = process::all().into_iter();
        all.filter(|p| !own.contains(&(p.pid.as_raw_nonzero().get() as u32)))
            .filter(|p| slot::attempt_of(&p.name).is_some() || p.line.contains(&root))
            .filter(|p| !p.line.contains("/bin/postgres"))
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.folder.disable_cleanup(self.keep.load(Ordering::Relaxed));
        lock(&self.roles).clear();
        // Before the folder goes: its mount points lead to what the server serves.
        if let Some(Err(e)) = self.nas.as_ref().map(|nas| lock(nas).end()) {
            eprintln!("taking the mounts away: {e:#}");
        }
        let mut cluster = lock(&self.cluster);
        cluster.resume();
        if let Err(e) = cluster.stop(Stop::Immediate) {
            eprintln!("stopping PostgreSQL: {e}");
        }
    }
}

/// A new server that listens nowhere yet; networks of a site may log in with a password.
pub fn fresh_server(folder: &Path, options: &SiteOptions) -> Result<Cluster> {
    let cluster = Cluster::open(folder, ClusterOptions { volatile: true })?;
    if net::is_inside() {
        append(&folder.join("data/pg_hba.conf"), "host all all 10.213.0.0/16 scram-sha-256\n")?;
    }
    if options.backups {
        let settings = "wal_level = replica\nmax_wal_senders = 4\n";
        append(&folder.join("data/postgresql.auto.conf"), settings)?;
    }
    Ok(cluster)
}

/// Says whether the server in `folder` listens for the networks of a site from its next start
/// on. Its socket is there either way.
pub fn listen(folder: &Path, on: bool) -> Result<()> {
    let addresses = if on { net::SERVER } else { "" };
    append(
        &folder.join("data/postgresql.auto.conf"),
        &format!("listen_addresses = '{addresses}'\n"),
    )
}

/// Runs a command to its end and gives what it printed.
pub fn done(mut command: Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let out = command.output().with_context(|| format!("starting {name}"))?;
    if !out.status.success() {
        bail!("{name} ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::File::options().append(true).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("adding to {}", path.display()))
}

/// The `trix` to test: `TRIX_BIN`, else the one beside this program.
pub fn trix_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRIX_BIN").filter(|v| !v.is_empty()) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name("trix");
    if !beside.exists() {
        bail!(
            "{} does not exist: cargo build -p trix-cli, or name it in TRIX_BIN",
            beside.display()
        );
    }
    Ok(beside)
}

/// The processes of PostgreSQL. In a namespace of the harness's own there is no other server;
/// elsewhere the whole machine's would be meant, so none is.
fn server_processes() -> Vec<Seen> {
    if !net::is_inside() {
        return Vec::new();
    }
    process::all().into_iter().filter(|p| p.name == "postgres").collect()
}

/// Slots whose parent is `pid`.
fn children(pid: i32) -> Vec<Seen> {
    let path = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    let pids: Vec<i32> =
        lists.flat_map(|l| l.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    pids.into_iter().filter_map(process::see).collect()
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A lock whose holder never panics half-way through a change.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Between two looks.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
