//! The handle to the database: a pool that is rebuilt when it is stuck, and a
//! deadline on every call.
//!
//! Every statement takes one jsonb parameter and gives rows of one jsonb column,
//! so that there is one way in, one way out, and one place that checks them all
//! (see `sql.rs`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Json;
use sqlx::{ConnectOptions, PgConnection, PgPool, Row};

use crate::access::Audit;
use crate::error::DbError;
use crate::sql::Statement;
use crate::times::ProtocolTimes;

/// After so many calls in a row that got no connection the pool is thrown away:
/// a permit can leak for good when a returned connection stalls (sqlx#4349).
const REBUILD_AFTER: u32 = 3;

/// A deadlock rolls one transaction back whole, so it is simply run again.
const DEADLOCK_TRIES: u32 = 5;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// The database. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
    /// Goes along with every call as `audit`; see [`Db::audited`].
    audit: Option<Arc<Audit>>,
}

struct Inner {
    options: PgConnectOptions,
    times: ProtocolTimes,
    connections: u32,
    /// The pool and how many there were before it.
    pool: RwLock<(u64, PgPool)>,
    timeouts: AtomicU32,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("database", &self.inner.options.get_database()).finish()
    }
}

/// Opens the database at `url` and looks whether it answers.
pub async fn connect(url: &str, times: ProtocolTimes) -> Result<Db, DbError> {
    let db = Db::open(url, times)?;
    db.ping().await?;
    Ok(db)
}

impl Db {
    /// A handle to the database at `url` (`postgresql://…`, also with
    /// `?host=/socket/folder`). Nothing is connected yet: a service starts while
    /// the database is away, and keeps knocking. Call it inside a tokio runtime.
    pub fn open(url: &str, times: ProtocolTimes) -> Result<Db, DbError> {
        Db::with_connections(url, times, 8)
    }

    /// [`Db::open`] with an upper bound of `connections`.
    pub fn with_connections(
        url: &str,
        times: ProtocolTimes,
        connections: u32,
    ) -> Result<Db, DbError> {
        // The driver takes any scheme for its own.
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            let why = "it must begin with postgresql://";
            return Err(DbError::Address(sqlx::Error::Configuration(why.into())));
        }
        let options: PgConnectOptions = url.parse().map_err(DbError::Address)?;
        // The server gives up a statement on its own a little after the client
        // has, so that no abandoned statement holds locks. The keepalives let the
        // server notice a peer that was cut off silently (7.4 s instead of 2 h).
        let options = options.application_name("trix").disable_statement_logging().options([
            ("statement_timeout", format!("{}ms", times.statement.as_millis())),
            ("idle_in_transaction_session_timeout", format!("{}ms", times.answer.as_millis())),
            ("tcp_keepalives_idle", "2".into()),
            ("tcp_keepalives_interval", "1".into()),
            ("tcp_keepalives_count", "3".into()),
            ("tcp_user_timeout", "6000".into()),
            ("client_connection_check_interval", "2000".into()),
            ("timezone", "UTC".into()),
        ]);
        let pool = RwLock::new((0, new_pool(&options, &times, connections)));
        let timeouts = AtomicU32::new(0);
        let inner = Inner { options, times, connections, pool, timeouts };
        Ok(Db { inner: Arc::new(inner), audit: None })
    }

    /// Number of the newest migration that this program brings.
    pub fn newest_schema() -> i64 {
        MIGRATOR.iter().map(|step| step.version).max().unwrap_or(0)
    }

    /// A handle whose every change writes its row of the audit trail in its own
    /// transaction. For one change: what only reads takes no notice.
    pub fn audited(&self, by: Audit) -> Db {
        Db { inner: self.inner.clone(), audit: Some(Arc::new(by)) }
    }

    /// The protocol's times that this handle was opened with.
    pub fn times(&self) -> &ProtocolTimes {
        &self.inner.times
    }

    /// Looks whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.exec(&crate::sql::PING, &Value::Null).await
    }

    /// Brings the schema up to date. Several may call it at once: one does it.
    pub async fn migrate(&self) -> Result<(), DbError> {
        let mut c = self.bare("bringing the schema up to date", Some(Duration::ZERO)).await?;
        MIGRATOR.run(&mut c).await.map_err(DbError::Migrate)
    }

    /// A connection outside the pool. `statement` overrides the server's
    /// statement timeout; zero means none.
    pub(crate) async fn bare(
        &self,
        operation: &'static str,
        statement: Option<Duration>,
    ) -> Result<PgConnection, DbError> {
        let mut options = self.inner.options.clone();
        if let Some(d) = statement {
            options = options.options([("statement_timeout", format!("{}ms", d.as_millis()))]);
        }
        let after = self.inner.times.connect;
        match tokio::time::timeout(after, options.connect()).await {
            Ok(c) => c.map_err(|e| DbError::from_sqlx(operation, e)),
            Err(_) => Err(DbError::Deadline { operation, after }),
        }
    }

    /// Options and pool for a listener; see [`crate::events::Hints`].
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.inner.options
    }

    /// Runs a statement and reads each row as a `T`.
    pub(crate) async fn all<T: DeserializeOwned>(
        &self,
        statement: &'static Statement,
        args: &impl Serialize,
    ) -> Result<Vec<T>, DbError> {
        let operation = statement.operation;
        let decode = |source| DbError::Decode { operation, source };
        let mut args = serde_json::to_value(args).map_err(decode)?;
        if let (Some(by), Value::Object(args)) = (&self.audit, &mut args) {
            args.insert("audit".into(), serde_json::to_value(by.as_ref()).map_err(decode)?);
        }
        scrub(&mut args);
        let mut tries = 0;
        let rows = loop {
            tries += 1;
            match self.rows(statement, &args).await {
                Err(e) if e.is_deadlock() && tries < DEADLOCK_TRIES => {
                    tracing::debug!(operation, tries, "a deadlock; running it again");
                }
                r => break r?,
            }
        };
        rows.into_iter().map(|v| serde_json::from_value(v).map_err(decode)).collect()
    }

    /// Runs a statement that gives exactly one row.
    pub(crate) async fn one<T: DeserializeOwned>(
        &self,
        statement: &'static Statement,
        args: &impl Serialize,
    ) -> Result<T, DbError> {
        self.optional(statement, args).await?.ok_or_else(|| DbError::NotFound {
            operation: statement.operation,
            message: "there is no such row".into(),
        })
    }

    /// Runs a statement that gives one row or none.
    pub(crate) async fn optional<T: DeserializeOwned>(
        &self,
        statement: &'static Statement,
        args: &impl Serialize,
    ) -> Result<Option<T>, DbError> {
        Ok(self.all(statement, args).await?.pop())
    }

    /// Runs a statement whose answer does not matter.
    pub(crate) async fn exec(
        &self,
        statement: &'static Statement,
        args: &impl Serialize,
    ) -> Result<(), DbError> {
        self.all::<Value>(statement, args).await.map(drop)
    }

    /// Runs a statement on a connection of the pool under the deadline. A
    /// connection whose call ran late is dropped, not returned: nobody knows what
    /// it is still doing.
    async fn rows(
        &self,
        statement: &'static Statement,
        args: &Value,
    ) -> Result<Vec<Value>, DbError> {
        let operation = statement.operation;
        let (generation, pool) = self.pool();
        let mut c = match pool.acquire().await {
            Ok(c) => c,
            Err(e) => {
                if matches!(e, sqlx::Error::PoolTimedOut) {
                    self.no_connection(generation);
                }
                return Err(DbError::from_sqlx(operation, e));
            }
        };
        self.inner.timeouts.store(0, Ordering::Relaxed);
        let after = self.inner.times.statement;
        match tokio::time::timeout(after, run(&mut c, statement, args)).await {
            Ok(Err(e)) => {
                if e.is_unavailable() {
                    drop(c.detach());
                }
                Err(e)
            }
            Ok(rows) => rows,
            Err(_) => {
                drop(c.detach());
                Err(DbError::Deadline { operation, after })
            }
        }
    }

    fn pool(&self) -> (u64, PgPool) {
        self.inner.pool.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Counts calls that got no connection in time and replaces the pool when
    /// there were too many in a row.
    fn no_connection(&self, generation: u64) {
        if self.inner.timeouts.fetch_add(1, Ordering::Relaxed) + 1 < REBUILD_AFTER {
            return;
        }
        let mut current = self.inner.pool.write().unwrap_or_else(|p| p.into_inner());
        if current.0 == generation {
            tracing::warn!("rebuilding the pool of connections: {REBUILD_AFTER} calls got none");
            let fresh = new_pool(&self.inner.options, &self.inner.times, self.inner.connections);
            *current = (generation + 1, fresh);
            self.inner.timeouts.store(0, Ordering::Relaxed);
        }
    }
}

/// Runs a statement on a given connection.
pub(crate) async fn run(
    c: &mut PgConnection,
    statement: &'static Statement,
    args: &Value,
) -> Result<Vec<Value>, DbError> {
    let error = |e| DbError::from_sqlx(statement.operation, e);
    let rows = sqlx::query(statement.text).bind(Json(args)).fetch_all(c).await.map_err(error)?;
    rows.iter().map(|r| r.try_get::<Json<Value>, _>(0).map(|j| j.0).map_err(error)).collect()
}

fn new_pool(options: &PgConnectOptions, times: &ProtocolTimes, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(times.connect)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options.clone())
}

/// jsonb cannot hold U+0000, and hostile metadata and log lines can: it becomes U+FFFD.
fn scrub(v: &mut Value) {
    match v {
        Value::String(s) if s.contains('\0') => *s = s.replace('\0', "\u{fffd}"),
        Value::Array(a) => a.iter_mut().for_each(scrub),
        Value::Object(o) => {
            if o.keys().any(|k| k.contains('\0')) {
                *o = std::mem::take(o)
                    .into_iter()
                    .map(|(k, v)| (k.replace('\0', "\u{fffd}"), v))
                    .collect();
            }
            o.values_mut().for_each(scrub);
        }
        _ => {}
    }
}

/// Names the schema that [`Db::migrate`] makes: changes when any migration does.
pub fn migrations_hash() -> String {
    use sha2::{Digest, Sha256};
    let mut h = Sha256::new();
    MIGRATOR.iter().for_each(|m| h.update(&m.checksum));
    h.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}
