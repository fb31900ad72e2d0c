//! What can go wrong with the database, and whether to try again.

use std::time::Duration;

use trix_model::{ErrorClass, ErrorOrigin, Failure, with_causes};

/// A failed operation on the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The database cannot be reached, or went away; whether a write happened is unknown.
    #[error("{operation}: the database is not available")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The database did not answer in time; whether a write happened is unknown.
    #[error("{operation}: the database did not answer within {} ms", after.as_millis())]
    Deadline {
        /// What was tried.
        operation: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// A token is unknown, revoked or expired, or belongs to someone else.
    #[error("{operation}: {message}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// One sentence.
        message: String,
    },
    /// There is no such thing.
    #[error("{operation}: {message}")]
    NotFound {
        /// What was tried.
        operation: &'static str,
        /// One sentence that names it.
        message: String,
    },
    /// What was asked contradicts what is there.
    #[error("{operation}: {message}")]
    Conflict {
        /// What was tried.
        operation: &'static str,
        /// Stable code in snake_case.
        code: String,
        /// One sentence.
        message: String,
    },
    /// The fence: the worker was marked, or the attempt is not its own any more.
    #[error("{operation}: refused, {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// One sentence.
        message: String,
    },
    /// Another leader took over.
    #[error("{operation}: another dispatcher leads")]
    NotLeader {
        /// What was tried.
        operation: &'static str,
    },
    /// A statement failed; this is a mistake of ours or of the server's set-up.
    #[error("{operation}: a statement failed")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// What the database holds is not what this version of the program writes.
    #[error("{operation}: reading the answer")]
    Decode {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The schema could not be brought up to date.
    #[error("bringing the schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database's address cannot be understood.
    #[error("reading the database's address")]
    Address(#[source] sqlx::Error),
}

impl DbError {
    /// True when trying again later can help and the database is to blame.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, DbError::Unavailable { .. } | DbError::Deadline { .. })
    }

    /// Sorts an error of the driver.
    pub(crate) fn from_sqlx(operation: &'static str, source: sqlx::Error) -> DbError {
        let sqlx::Error::Database(db) = &source else {
            return match source {
                sqlx::Error::RowNotFound => {
                    DbError::NotFound { operation, message: "there is no such row".into() }
                }
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_) => DbError::Unavailable { operation, source },
                source => DbError::Sql { operation, source },
            };
        };
        // Our functions raise `TXnnn`: the message is a stable code, the detail a sentence.
        let code = db.code().unwrap_or_default();
        let detail = || {
            db.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .and_then(|e| e.detail())
                .unwrap_or(db.message())
                .to_owned()
        };
        match &*code {
            "TX401" => DbError::Denied { operation, message: detail() },
            "TX403" => DbError::Refused { operation, message: detail() },
            "TX404" => DbError::NotFound { operation, message: detail() },
            "TX409" => {
                DbError::Conflict { operation, code: db.message().to_owned(), message: detail() }
            }
            "TX410" => DbError::NotLeader { operation },
            // Connection errors, shutdown, start-up, out of resources, read-only after a failover.
            c if c.starts_with("08") || c.starts_with("53") || c.starts_with("57P") => {
                DbError::Unavailable { operation, source }
            }
            // A statement that ran into the server's statement_timeout, a read-only server.
            "57014" | "25006" => DbError::Unavailable { operation, source },
            _ => DbError::Sql { operation, source },
        }
    }

    /// True for a deadlock or a serialisation failure: nothing happened, so the
    /// same transaction is tried again at once.
    pub(crate) fn is_deadlock(&self) -> bool {
        let DbError::Sql { source: sqlx::Error::Database(db), .. } = self else { return false };
        matches!(db.code().as_deref(), Some("40P01" | "40001"))
    }
}

impl From<DbError> for Failure {
    fn from(e: DbError) -> Failure {
        use DbError as E;
        let message = with_causes(&e);
        match e {
            E::Unavailable { .. } | E::Deadline { .. } => Failure::new(
                ErrorClass::Transient,
                ErrorOrigin::Node,
                "database_unavailable",
                message,
            ),
            E::Refused { .. } => {
                Failure::new(ErrorClass::Transient, ErrorOrigin::Node, "refused", message)
            }
            E::NotLeader { .. } => {
                Failure::new(ErrorClass::Transient, ErrorOrigin::Node, "not_leader", message)
            }
            E::Denied { .. } => Failure::request("denied", message),
            E::NotFound { .. } => Failure::request("not_found", message),
            E::Conflict { code, .. } => Failure::request(code, message),
            E::Address(_) => Failure::request("database_address", message),
            E::Sql { .. } | E::Decode { .. } | E::Migrate(_) => Failure::bug(message),
        }
    }
}
