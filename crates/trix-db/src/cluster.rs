//! A private PostgreSQL: initialised, started and stopped from the system's binaries.
//!
//! The data, the socket and the log lie in one folder. It listens on no TCP port. The
//! socket's folder is open to its owner alone, which is why the server trusts whoever
//! gets there. Started as root, the server runs as an unprivileged user, because
//! PostgreSQL refuses root.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// The longest path that a unix socket's address holds, without its end.
const SOCKET_PATH_MAX: usize = 107;

/// The socket's name within its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// The superuser and owner of everything in a private cluster.
const USER: &str = "trix";

/// What can go wrong with a private PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No server is installed.
    #[error(
        "no PostgreSQL server was found below /usr/lib/postgresql; install the package postgresql"
    )]
    NoBinaries,
    /// The data was written by another major version.
    #[error("{} was made by PostgreSQL {found}, but only {installed} is installed", data.display())]
    OtherVersion {
        /// The data folder.
        data: PathBuf,
        /// Version of the data.
        found: String,
        /// Version of the newest server.
        installed: u32,
    },
    /// The server's user cannot get into a folder above the data.
    #[error(
        "user {user} cannot enter {}: PostgreSQL refuses to run as root, so every folder above \
         its data must be enterable by that user (chmod o+x, or another state folder)",
        folder.display()
    )]
    NotEnterable {
        /// The folder.
        folder: PathBuf,
        /// The user.
        user: String,
    },
    /// The folder's path is too long for a socket.
    #[error("{} is too long: with the socket's name it must be below 107 bytes", folder.display())]
    PathTooLong {
        /// The socket's folder.
        folder: PathBuf,
    },
    /// Root needs somebody to run the server as.
    #[error("there is neither a user postgres nor nobody to run PostgreSQL as")]
    NoUser,
    /// An operation on files or processes failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server did not do what it was told in time.
    #[error("{operation} PostgreSQL in {}: {reason}; the end of its log:\n{log}", folder.display())]
    Server {
        /// What was tried.
        operation: &'static str,
        /// The cluster's folder.
        folder: PathBuf,
        /// What was seen.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
}

/// How a cluster is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterOptions {
    /// For tests: no fsync. Processes may still be killed, the machine may not crash.
    pub volatile: bool,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, everything is written.
    Fast,
    /// As in a crash of the server: the next start recovers.
    Immediate,
}

/// A private PostgreSQL. Dropping the handle leaves the server as it is.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    options: ClusterOptions,
    owner: Option<Owner>,
    child: Option<Child>,
}

/// Whom the server runs as when we are root.
#[derive(Clone, Debug)]
struct Owner {
    name: String,
    uid: u32,
    gid: u32,
}

/// The newest installed server's folder of programs, and its major version.
pub fn newest_binaries() -> Result<(PathBuf, u32), ClusterError> {
    let root = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(root).into_iter().flatten().flatten().filter_map(|e| {
        let version: u32 = e.file_name().to_str()?.parse().ok()?;
        let bin = e.path().join("bin");
        (bin.join("postgres").exists() && bin.join("initdb").exists()).then_some((bin, version))
    });
    versions.max_by_key(|(_, version)| *version).ok_or(ClusterError::NoBinaries)
}

impl Cluster {
    /// Opens the cluster in `folder`, and initialises it if there is none. The folder
    /// is made if it is missing; its parents must be enterable by the server's user.
    pub fn open(folder: &Path, options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let (binaries, installed) = newest_binaries()?;
        let owner = Owner::needed()?;
        fs::create_dir_all(folder).map_err(io_error("making", folder))?;
        let folder = folder.canonicalize().map_err(io_error("resolving", folder))?;
        let cluster = Cluster { folder, binaries, options, owner, child: None };
        let socket = cluster.socket_folder().join(SOCKET);
        if socket.as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(ClusterError::PathTooLong { folder: cluster.socket_folder() });
        }
        if let Some(owner) = &cluster.owner {
            owner.can_enter(&cluster.folder)?;
        }
        let version = cluster.data().join("PG_VERSION");
        if !version.exists() {
            cluster.initialise()?;
        }
        let found = fs::read_to_string(&version).map_err(io_error("reading", &version))?;
        if found.trim() != installed.to_string() {
            return Err(ClusterError::OtherVersion {
                data: cluster.data(),
                found: found.trim().to_owned(),
                installed,
            });
        }
        Ok(cluster)
    }

    /// The cluster's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the socket, which is the `host` of a connection.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Address of a database of this cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}@localhost/{database}?host={}", self.socket_folder().display())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    fn initialise(&self) -> Result<(), ClusterError> {
        // Made beside and renamed, so that a killed initdb is never taken for a cluster.
        let fresh = self.folder.join("data.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(io_error("removing", &fresh))?;
        }
        for (dir, mode) in [(&fresh, 0o700), (&self.socket_folder(), 0o700)] {
            fs::create_dir_all(dir).map_err(io_error("making", dir))?;
            self.give(dir, mode)?;
        }
        let log = self.open_log()?;
        let mut initdb = self.command("initdb");
        initdb.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"]);
        initdb.args(["--locale", "C.UTF-8", "--no-instructions"]);
        if self.options.volatile {
            initdb.arg("--no-sync");
        }
        initdb.arg("--pgdata").arg(&fresh);
        let log2 = log.try_clone().map_err(io_error("opening", &self.log()))?;
        let status = initdb
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log2)
            .status()
            .map_err(io_error("starting", &self.binaries.join("initdb")))?;
        if !status.success() {
            return Err(self.failed("initialising", format!("initdb ended with {status}")));
        }
        let conf = fresh.join("postgresql.auto.conf");
        let mut f =
            fs::OpenOptions::new().append(true).open(&conf).map_err(io_error("opening", &conf))?;
        f.write_all(SETTINGS.as_bytes()).map_err(io_error("writing", &conf))?;
        if self.options.volatile {
            f.write_all(VOLATILE.as_bytes()).map_err(io_error("writing", &conf))?;
        }
        fs::rename(&fresh, self.data()).map_err(io_error("renaming", &fresh))
    }

    /// Starts the server and waits until it answers. A server that runs already, left
    /// by a process that was killed, is taken over.
    pub fn start(&mut self) -> Result<(), ClusterError> {
        if self.pid().is_some() && self.is_ready() {
            return Ok(());
        }
        // One that ended by itself is reaped here.
        if let Some(mut c) = self.child.take() {
            c.try_wait().map_err(io_error("waiting for", &self.folder))?;
        }
        let run = self.socket_folder();
        fs::create_dir_all(&run).map_err(io_error("making", &run))?;
        self.give(&run, 0o700)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // After kill -9 the orphaned backends hold the shared memory for some
            // seconds and the server refuses to start: so it is tried again.
            match self.try_start(deadline)? {
                Ok(()) => return Ok(()),
                Err(reason) if Instant::now() >= deadline => {
                    return Err(self.failed("starting", reason));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn try_start(&mut self, deadline: Instant) -> Result<Result<(), String>, ClusterError> {
        let log = self.open_log()?;
        let log2 = log.try_clone().map_err(io_error("opening", &self.log()))?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.socket_folder());
        // A process group of its own: the terminal's Ctrl-C ends the services first.
        postgres.process_group(0).stdin(Stdio::null()).stdout(log).stderr(log2);
        let mut child =
            postgres.spawn().map_err(io_error("starting", &self.binaries.join("postgres")))?;
        let pid = child.id();
        while Instant::now() < deadline {
            let ended = child.try_wait().map_err(io_error("waiting for", &self.data()))?;
            if let Some(status) = ended {
                return Ok(Err(format!("it ended with {status}")));
            }
            if self.pid().is_some_and(|p| p.as_raw_nonzero().get() as u32 == pid) && self.is_ready()
            {
                self.child = Some(child);
                return Ok(Ok(()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        self.kill();
        Ok(Err("it was not ready within a minute".into()))
    }

    /// Stops the server and waits until it is gone. Harmless when it does not run.
    pub fn stop(&mut self, how: Stop) -> Result<(), ClusterError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        // ESRCH means that it is gone already.
        let _ = rustix::process::kill_process(pid, signal);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let gone = match &mut self.child {
                Some(c) => c.try_wait().map_err(io_error("waiting for", &self.folder))?.is_some(),
                // One that ended but that nobody has waited for is no server any more.
                None => self.pid() != Some(pid),
            };
            if gone {
                self.child = None;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(self.failed("stopping", "it did not end within a minute".into()))
    }

    /// Kills the server and all its sessions at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid().or_else(|| self.child_pid()) {
            // The server leads a process group, its backends have groups of their own:
            // they notice the death of the server by themselves within seconds.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if let Some(mut c) = self.child.take() {
            let _ = c.wait();
        }
    }

    /// Stops the server's main process where it stands (SIGSTOP): new connections hang.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Undoes [`Cluster::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn child_pid(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|c| Pid::from_raw(c.id() as i32))
    }

    /// The server's process id, if it is alive.
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        // A pid file of before a reboot may name anybody: it must be our program.
        let exe = fs::read_link(format!("/proc/{pid}/exe", pid = pid.as_raw_nonzero())).ok()?;
        (exe.file_name()?.to_str()?.trim_end_matches(" (deleted)") == "postgres").then_some(pid)
    }

    fn is_ready(&self) -> bool {
        fs::read_to_string(self.data().join("postmaster.pid"))
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|l| l.trim() == "ready"))
    }

    fn command(&self, program: &str) -> Command {
        let mut c = Command::new(self.binaries.join(program));
        // Nothing of our environment may steer the server; its messages are English.
        c.env_clear().env("LC_MESSAGES", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
        if let Some(o) = &self.owner {
            // The standard library drops the supplementary groups when root sets a uid.
            c.uid(o.uid).gid(o.gid);
        }
        c
    }

    fn give(&self, dir: &Path, mode: u32) -> Result<(), ClusterError> {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
            .map_err(io_error("setting the mode of", dir))?;
        if let Some(o) = &self.owner {
            chown(dir, Some(o.uid), Some(o.gid)).map_err(io_error("giving away", dir))?;
        }
        Ok(())
    }

    fn open_log(&self) -> Result<fs::File, ClusterError> {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(io_error("opening", &self.log()))
    }

    fn failed(&self, operation: &'static str, reason: String) -> ClusterError {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(10)..].join("\n");
        ClusterError::Server { operation, folder: self.folder.clone(), reason, log }
    }
}

/// Makes the database `name` of the server at `admin_url` if it is missing.
pub async fn ensure_database(admin_url: &str, name: &str) -> Result<(), crate::DbError> {
    // A copy of a template takes a while on a busy machine.
    let after = Duration::from_secs(30);
    let made = tokio::time::timeout(after, make_database(admin_url, name)).await;
    made.unwrap_or(Err(crate::DbError::Deadline { operation: OPERATION, after }))
}

const OPERATION: &str = "making a database";

async fn make_database(admin_url: &str, name: &str) -> Result<(), crate::DbError> {
    use sqlx::{AssertSqlSafe, Connection, PgConnection};
    let error = |e| crate::DbError::from_sqlx(OPERATION, e);
    let mut c = PgConnection::connect(admin_url).await.map_err(error)?;
    let there: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut c)
            .await
            .map_err(error)?;
    if !there {
        let quoted = name.replace('"', "\"\"");
        let made = sqlx::query(AssertSqlSafe(format!("create database \"{quoted}\"")))
            .execute(&mut c)
            .await;
        match made {
            Ok(_) => {}
            // Somebody else was faster: 42P04 says so, 23505 when it was very close.
            Err(sqlx::Error::Database(e))
                if matches!(e.code().as_deref(), Some("42P04" | "23505")) => {}
            Err(e) => return Err(error(e)),
        }
    }
    c.close().await.map_err(error)
}

impl Owner {
    /// Whom to run the server as: `None` when we are not root.
    fn needed() -> Result<Option<Owner>, ClusterError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = Path::new("/etc/passwd");
        let text = fs::read_to_string(passwd).map_err(io_error("reading", passwd))?;
        let find = |name: &str| {
            text.lines().find_map(|l| {
                let f: Vec<&str> = l.split(':').collect();
                (f.len() > 3 && f[0] == name)
                    .then(|| {
                        Some(Owner {
                            name: name.into(),
                            uid: f[2].parse().ok()?,
                            gid: f[3].parse().ok()?,
                        })
                    })
                    .flatten()
            })
        };
        find("postgres").or_else(|| find("nobody")).map(Some).ok_or(ClusterError::NoUser)
    }

    /// Every folder from the root down to `folder` must let the user through.
    fn can_enter(&self, folder: &Path) -> Result<(), ClusterError> {
        for dir in folder.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let m = fs::metadata(dir).map_err(io_error("looking at", dir))?;
            let bit = if m.uid() == self.uid {
                0o100
            } else if m.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if m.mode() & bit == 0 {
                return Err(ClusterError::NotEnterable {
                    folder: dir.to_owned(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Io { operation, path, source }
}

/// Settings of every private cluster. The keepalives and the check interval free the
/// lock of a leader that was cut off silently (reliability.md 3.15).
const SETTINGS: &str = "
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = '128MB'
max_wal_size = '1GB'
log_min_messages = warning
log_checkpoints = off
log_timezone = 'UTC'
timezone = 'UTC'
jit = off
";

const VOLATILE: &str = "
fsync = off
full_page_writes = off
shared_buffers = '32MB'
wal_level = minimal
max_wal_senders = 0
";
