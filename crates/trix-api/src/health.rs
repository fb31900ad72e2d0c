//! Whether the database answers.
//!
//! One task per process knocks on the database once a tick, for ever. While it is
//! away, requests are answered at once with 503 and a reason, instead of each
//! waiting for its own deadline.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trix_db::{Db, DbError};

use crate::problem::Problem;

/// Longest wait for the answer to a knock: together with the tick this keeps the
/// time until clients hear `degraded` below 3 s.
const KNOCK: Duration = Duration::from_secs(2);

/// The database as it was seen last.
#[derive(Clone, Debug)]
pub struct Health {
    /// False while it is away.
    pub ok: bool,
    /// Since when it is so.
    pub since: OffsetDateTime,
    /// Why it is away, in words.
    pub reason: String,
}

impl Health {
    /// The state before the first knock: away, because nothing is known.
    pub fn unknown() -> Health {
        Health {
            ok: false,
            since: OffsetDateTime::now_utc(),
            reason: "the database was not reached yet".to_owned(),
        }
    }

    /// The answer while it is away.
    pub fn problem(&self) -> Problem {
        Problem::unavailable(
            "database_unavailable",
            format!("the database is away: {}", self.reason),
            2,
        )
    }
}

/// Knocks until the token is cancelled.
pub async fn watch(db: Db, state: watch::Sender<Health>, cancel: CancellationToken) {
    let tick = db.times().tick;
    loop {
        let result = tokio::select! {
            () = cancel.cancelled() => return,
            r = knock(&db) => r,
        };
        let was = state.borrow().ok;
        match result {
            Ok(()) if !was => {
                tracing::info!("the database answers");
                set(&state, true, String::new());
            }
            Ok(()) => {}
            Err(reason) if was => {
                tracing::warn!(reason, "the database is away");
                set(&state, false, reason);
            }
            Err(reason) => {
                state.send_if_modified(|h| {
                    let changed = h.reason != reason;
                    h.reason = reason;
                    changed
                });
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(tick) => {}
        }
    }
}

async fn knock(db: &Db) -> Result<(), String> {
    match tokio::time::timeout(KNOCK, db.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(reason(&e)),
        Err(_) => Err(format!("it did not answer within {} s", KNOCK.as_secs())),
    }
}

fn set(state: &watch::Sender<Health>, ok: bool, reason: String) {
    state.send_replace(Health { ok, since: OffsetDateTime::now_utc(), reason });
}

/// The innermost cause, which is what a person can act on.
fn reason(e: &DbError) -> String {
    let mut last: &dyn std::error::Error = e;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
