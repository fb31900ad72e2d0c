//! Starting roles: all in one process with `trix up`, or one by one.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trix_api::{ApiConfig, Server};
use trix_db::access::Role;
use trix_db::cluster::{Cluster, ClusterOptions, Stop, ensure_database};
use trix_db::{Db, DbError, ProtocolTimes, Resources};
use trix_dispatch::DispatchConfig;
use trix_model::ShareName;
use trix_slot::Launcher;
use trix_storage::share::{Root, Roots};
use trix_worker::{MountList, Prober, ShareMount, WorkerConfig};

use super::client::{base, token_path};
use crate::config::Config;
use crate::handover::media_binary;

/// The database within a private server.
const DATABASE: &str = "trix";
/// The principal behind the token of this machine's commands.
const CLI_PRINCIPAL: &str = "command-line";
/// Looks after the private server so often.
const WATCH: Duration = Duration::from_millis(200);

/// How the worker starts this program as the probe of a share.
pub const PROBE_COMMAND: &str = "probe-share";

/// A role by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// REST, events, interface.
    Api,
    /// The reconciler.
    Dispatcher,
    /// Runs tasks.
    Worker,
}

/// `trix up`: all roles on a private PostgreSQL, or on the server that is named.
pub async fn up(config: &Config) -> anyhow::Result<()> {
    log();
    let state = make_state(config)?;
    let cluster = if config.database.url.is_empty() {
        let cluster = tokio::task::spawn_blocking(move || start_private(&state))
            .await
            .context("starting the private PostgreSQL")??;
        Some(cluster)
    } else {
        None
    };
    let url = database_url(config)?;
    if let Some(cluster) = &cluster {
        ensure_database(&cluster.url("postgres"), DATABASE).await?;
    }
    let stop = CancellationToken::new();
    let db = Db::open(&url, times(config))?;
    await_database(&db, &stop).await?;

    let mut roles = JoinSet::new();
    let api = bind_api(config, &db, &stop).await?;
    roles.spawn(run_api(api));
    let (c, d, s) = (config.clone(), db.clone(), stop.clone());
    roles.spawn(async move { dispatcher(&c, &d, s).await });
    let (c, d, s) = (config.clone(), db.clone(), stop.clone());
    roles.spawn(async move { worker(&c, &d, s).await });
    let ended = CancellationToken::new();
    let watch = cluster.map(|cluster| {
        let ended = ended.clone();
        tokio::task::spawn_blocking(move || watch_private(cluster, &ended))
    });
    let result = run_until_signal(roles, &stop).await;
    ended.cancel();
    if let Some(watch) = watch {
        watch.await.context("stopping the private PostgreSQL")??;
    }
    result
}

/// One role on the configured server.
pub async fn role(config: &Config, name: RoleName) -> anyhow::Result<()> {
    log();
    make_state(config)?;
    let stop = CancellationToken::new();
    let db = Db::open(&database_url(config)?, times(config))?;
    let mut roles = JoinSet::new();
    let (c, d, s) = (config.clone(), db.clone(), stop.clone());
    match name {
        RoleName::Api => {
            let api = bind_api(config, &db, &stop).await?;
            roles.spawn(run_api(api));
        }
        RoleName::Dispatcher => {
            roles.spawn(async move { dispatcher(&c, &d, s).await });
        }
        RoleName::Worker => {
            roles.spawn(async move { worker(&c, &d, s).await });
        }
    }
    run_until_signal(roles, &stop).await
}

/// `trix migrate`
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let db = Db::open(&database_url(config)?, times(config))?;
    db.migrate().await.context("migrating the database")
}

/// `trix db adopt`: says what the database was and what it is now.
pub async fn adopt(config: &Config) -> anyhow::Result<()> {
    let db = Db::open(&database_url(config)?, times(config))?;
    let before = db.overview().await.context("looking at the database")?;
    // Whoever leads would go on with numbers that are over.
    if let Some(leader) = before.leader.as_ref().filter(|l| l.alive) {
        bail!("the dispatcher {} leads this database; stop all services first", leader.holder);
    }
    let incarnation = db.adopt().await.context("adopting the database")?;
    let after = db.overview().await.context("looking at the database")?;
    println!("cluster {} is now {incarnation}", before.incarnation);
    println!("events go on after {} instead of {}", after.event_head, before.event_head);
    println!("workers that it knew as alive are gone; their tasks are ready again");
    Ok(())
}

/// `trix mount-helper`: mounts shares anew for the worker, until it is ended.
pub fn mount_helper(config: &Config) -> anyhow::Result<()> {
    log();
    let socket = mount_socket(config).context("mounts.socket is empty (see trix.toml)")?;
    let points = config.shares.iter().filter(|s| s.remount);
    let list = MountList {
        points: points.map(|s| (s.name.clone(), s.root.clone())).collect(),
        fstab: config.mounts.fstab.clone(),
        uid: config.mounts.uid,
    };
    if list.points.is_empty() {
        bail!("no [[share]] has remount = true (see trix.toml)");
    }
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    // What an earlier helper left; a living one would hold the name in vain from now on.
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("removing {}", socket.display()));
        }
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(socket)
        .with_context(|| format!("listening on {}", socket.display()))?;
    // Who may ask is decided by the asker's user and not by the file's mode.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    let names: Vec<&str> = list.points.keys().map(ShareName::as_str).collect();
    tracing::info!(shares = names.join(", "), uid = list.uid, "the mount helper listens");
    trix_worker::serve_mounts(&list, &listener).context("the mount helper")
}

pub(super) fn mount_socket(config: &Config) -> Option<&Path> {
    let socket = config.mounts.socket.as_path();
    (!socket.as_os_str().is_empty()).then_some(socket)
}

/// `trix login-link`
pub async fn login_link(config: &Config, name: Option<&str>) -> anyhow::Result<()> {
    let db = Db::open(&database_url(config)?, times(config))?;
    let origin = config.api.origins.first().cloned().unwrap_or_else(|| {
        // Browsers take secure cookies over plain http from localhost only.
        base(config).replace("127.0.0.1", "localhost")
    });
    println!("{}", trix_api::login_link(&db, name, &origin).await?);
    Ok(())
}

/// `trix enrol`: lets a node in and prints its token.
pub async fn enrol(config: &Config, node: &str) -> anyhow::Result<()> {
    let db = Db::open(&database_url(config)?, times(config))?;
    println!("{}", db.enrol_node(node).await?.secret);
    Ok(())
}

/// Roots of all shares on this machine.
pub fn roots(config: &Config) -> Roots {
    Roots::new(
        config.shares.iter().map(|s| (s.name.clone(), Root { root: s.root.clone(), role: s.role })),
    )
}

pub(super) fn times(config: &Config) -> ProtocolTimes {
    ProtocolTimes::default().scaled(config.times.scale)
}

/// The configured URL, else that of the private server in the state folder.
pub(super) fn database_url(config: &Config) -> anyhow::Result<String> {
    if !config.database.url.is_empty() {
        return Ok(config.database.url.clone());
    }
    let folder = private_folder(&config.state());
    if !folder.exists() {
        bail!(
            "database.url is empty and there is no private server in {}; `trix up` makes one",
            folder.display()
        );
    }
    Ok(Cluster::open(&folder, ClusterOptions::default())?.url(DATABASE))
}

fn private_folder(state: &Path) -> PathBuf {
    state.join("postgresql")
}

fn start_private(state: &Path) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::open(&private_folder(state), ClusterOptions::default())?;
    cluster.start()?;
    tracing::info!(folder = %cluster.folder().display(), "the private PostgreSQL runs");
    Ok(cluster)
}

/// Starts the private server again when it ended by itself; stops it when the roles are gone.
fn watch_private(mut cluster: Cluster, ended: &CancellationToken) -> anyhow::Result<()> {
    while !ended.is_cancelled() {
        if cluster.pid().is_none() {
            tracing::error!("the private PostgreSQL is gone; starting it again");
            if let Err(error) = cluster.start() {
                // Orphans of a killed server hold its memory for seconds.
                tracing::warn!(%error, "starting the private PostgreSQL; trying again");
            }
        }
        std::thread::sleep(WATCH);
    }
    Ok(cluster.stop(Stop::Fast)?)
}

async fn await_database(db: &Db, stop: &CancellationToken) -> anyhow::Result<()> {
    loop {
        match db.migrate().await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_unavailable() && !stop.is_cancelled() => {
                tracing::warn!(%error, "the database is away; trying again");
                tokio::time::sleep(db.times().reconnect_max / 10).await;
            }
            Err(error) => return Err(error).context("migrating the database"),
        }
    }
}

async fn bind_api(config: &Config, db: &Db, stop: &CancellationToken) -> anyhow::Result<Server> {
    let api = ApiConfig {
        listen: config.api.listen,
        shares: roots(config),
        insecure_http: config.api.insecure_http,
        public_origins: config.api.origins.clone(),
        ..ApiConfig::new(db.clone(), config.state())
    };
    let server = Server::bind(api, stop.clone()).await.context("starting the api")?;
    write_cli_token(config, db, stop.clone());
    Ok(server)
}

async fn run_api(server: Server) -> anyhow::Result<()> {
    tracing::info!(address = %server.address(), "the api answers");
    server.run().await.context("the api")
}

/// Lays the token of this machine's commands into the state folder, as soon as
/// the database is there.
fn write_cli_token(config: &Config, db: &Db, stop: CancellationToken) {
    let (path, db) = (token_path(config), db.clone());
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            match cli_token(&path, &db).await {
                Ok(()) => return,
                Err(error) => tracing::warn!("writing {}: {error:#}", path.display()),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

async fn cli_token(path: &Path, db: &Db) -> anyhow::Result<()> {
    if let Ok(token) = std::fs::read_to_string(path) {
        match db.check_token(token.trim()).await {
            Ok(_) => return Ok(()),
            // It is of another database, or was revoked.
            Err(DbError::Denied { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let known = db.principals().await?.into_iter().find(|p| p.name == CLI_PRINCIPAL);
    let id = match known {
        Some(principal) => principal.id,
        None => db.create_principal(CLI_PRINCIPAL, Role::Service, None).await?.id,
    };
    let secret = db.create_token(id, "commands of this machine", None).await?;
    write_secret(path, &secret.secret)
}

/// Writes a file that only its owner can read; it is never there half.
fn write_secret(path: &Path, secret: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    Ok(())
}

async fn dispatcher(config: &Config, db: &Db, stop: CancellationToken) -> anyhow::Result<()> {
    let dispatch = DispatchConfig::new(db.clone(), roots(config), config.cache.share.clone())
        .with_cache_limit(config.cache.max_gib << 30);
    trix_dispatch::run(dispatch, stop).await.context("the dispatcher")
}

async fn worker(config: &Config, db: &Db, stop: CancellationToken) -> anyhow::Result<()> {
    let node = config.node_name();
    let node_token = node_token(config, db, &node, &stop).await?;
    let media = media_binary()?;
    let media =
        std::fs::canonicalize(&media).with_context(|| format!("resolving {}", media.display()))?;
    let worker = WorkerConfig {
        node,
        node_token,
        state: config.state().join("worker"),
        shares: config
            .shares
            .iter()
            .map(|s| ShareMount {
                name: s.name.clone(),
                root: s.root.clone(),
                role: s.role,
                marker: None,
                remount: s.remount,
            })
            .collect(),
        cache: config.cache.share.clone(),
        max_object: config.cache.max_gib << 30,
        capacity: capacity(config)?,
        launcher: Launcher::new(media).with_policy(config.worker.sandbox),
        prober: Prober::this_program(&[PROBE_COMMAND]),
        mount_helper: mount_socket(config).map(Path::to_owned),
        slot_user: trix_slot::slot_user(),
        store: Arc::new(db.clone()),
        times: times(config),
        drain_limit: Duration::from_secs(config.worker.drain_s),
    };
    trix_worker::run(worker, stop).await.context("the worker")
}

/// The node's secret from the state folder; enrols the node when there is none,
/// which only the database's owner may. Other machines get theirs by `trix enrol`.
async fn node_token(
    config: &Config,
    db: &Db,
    node: &str,
    stop: &CancellationToken,
) -> anyhow::Result<String> {
    let path = config.state().join("node-token");
    if let Ok(token) = std::fs::read_to_string(&path) {
        return Ok(token.trim().to_owned());
    }
    loop {
        match db.enrol_node(node).await {
            Ok(secret) => {
                write_secret(&path, &secret.secret)
                    .with_context(|| format!("writing {}", path.display()))?;
                return Ok(secret.secret);
            }
            Err(error) if error.is_unavailable() && !stop.is_cancelled() => {
                tracing::warn!(%error, "the database is away; trying again");
                tokio::time::sleep(db.times().reconnect_max / 10).await;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "enrolling node {node}; or put the output of `trix enrol {node}` into {}",
                        path.display()
                    )
                });
            }
        }
    }
}

/// As configured, else all cores and three quarters of the memory.
fn capacity(config: &Config) -> anyhow::Result<Resources> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let mcpu = if config.worker.mcpu > 0 { config.worker.mcpu } else { cores * 1000 };
    let ram = if config.worker.ram_mib > 0 {
        config.worker.ram_mib << 20
    } else {
        rustix::system::sysinfo().totalram as u64 / 4 * 3
    };
    let cache = config.shares.iter().find(|s| s.name == config.cache.share).with_context(|| {
        format!("no [[share]] is named {:?}, the cache", config.cache.share.as_str())
    })?;
    let room = rustix::fs::statvfs(&cache.root)
        .with_context(|| format!("looking at the cache {}", cache.root.display()))?;
    Ok(Resources { mcpu, ram, scratch: room.f_bavail.saturating_mul(room.f_frsize) })
}

/// Waits for a signal or for a role that ends by itself, then stops all.
async fn run_until_signal(
    mut roles: JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut first = Ok(());
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = tokio::signal::ctrl_c() => tracing::info!("Ctrl-C: stopping"),
        Some(ended) = roles.join_next() => first = flatten(ended),
    }
    stop.cancel();
    while let Some(ended) = roles.join_next().await {
        let ended = flatten(ended);
        if first.is_ok() {
            first = ended;
        }
    }
    first
}

fn flatten(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    ended.unwrap_or_else(|e| Err(anyhow::Error::new(e).context("a role ended")))
}

/// Makes the state folder; the private server's user must be able to enter it.
fn make_state(config: &Config) -> anyhow::Result<PathBuf> {
    let state = config.state();
    std::fs::create_dir_all(&state)
        .with_context(|| format!("making the state folder {}", state.display()))?;
    Ok(state)
}

/// JSON lines on standard error, or text on a terminal; `RUST_LOG` filters.
fn log() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
