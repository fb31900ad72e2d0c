//! The service role that reconciles: plans, readiness, lost workers, retries, chores.
//!
//! It takes no input. A hint of the database or a timer wakes it, it reads the truth, acts, and
//! repeats; recovery is the same path as normal work. Any number may run: the
//! one that holds the seat leads, the others number events and wait for the seat.
//!
//! ```text
//! sequencer   numbers events                      every dispatcher
//! lead        takes the seat, ticks               the one that holds the seat
//! pass        what one look at the truth does      pure: the order of the steps
//! reconcile   marks, plans, resolves, mends       the leader
//! chores      retention, prune                    the leader, at their own pace
//! ```

mod chores;
mod lead;
pub mod pass;
mod plan;
mod reconcile;
mod sequencer;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trix_db::Db;
use trix_db::leader::Retention;
use trix_model::ShareName;
use trix_storage::Roots;

pub use plan::plan;

/// What a dispatcher needs.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// The database.
    pub db: Db,
    /// Shares of this machine; the cache is pruned where it is mounted.
    pub roots: Roots,
    /// The cache's share.
    pub cache: ShareName,
    /// Bytes that the cache may hold; `None` for four fifths of its file system.
    pub cache_limit: Option<u64>,
    /// How long history is kept.
    pub retention: Retention,
    /// How often the cache is looked at.
    pub prune_every: Duration,
    /// How often history is dropped.
    pub retire_every: Duration,
    /// Who this is, for people who look at the leader's row.
    pub holder: String,
}

impl DispatchConfig {
    /// With the usual retention and paces.
    pub fn new(db: Db, roots: Roots, cache: ShareName) -> DispatchConfig {
        DispatchConfig {
            db,
            roots,
            cache,
            cache_limit: None,
            retention: Retention::default(),
            prune_every: Duration::from_secs(60),
            retire_every: Duration::from_secs(3600),
            holder: format!("{}", std::process::id()),
        }
    }

    /// With an upper bound of the cache in bytes; it never holds more than four
    /// fifths of its file system.
    pub fn with_cache_limit(self, bytes: u64) -> DispatchConfig {
        DispatchConfig { cache_limit: Some(bytes), ..self }
    }
}

/// Why a dispatcher ended. A database that is away is no reason: it keeps knocking.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// One of its parts panicked: our mistake.
    #[error("the dispatcher's {part} ended unexpectedly")]
    Part {
        /// Which part.
        part: &'static str,
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Runs a dispatcher until `stop` is cancelled.
pub async fn run(config: DispatchConfig, stop: CancellationToken) -> Result<(), DispatchError> {
    // If one part panics the other must not go on alone as if all were well.
    let stop = stop.child_token();
    let hint = std::sync::Arc::new(tokio::sync::Notify::new());
    let (db, s, h) = (config.db.clone(), stop.clone(), hint.clone());
    let mut sequencer = tokio::spawn(async move { sequencer::run(&db, &h, &s).await });
    let s = stop.clone();
    let mut lead = tokio::spawn(async move {
        // Whoever numbers an event need not be the one who leads: the database tells all.
        tokio::select! {
            () = lead::run(&config, &hint, &s) => {}
            never = config.db.follow_lead(|| hint.notify_one()) => match never {},
        }
    });
    let failed = |part: &'static str| move |source| DispatchError::Part { part, source };
    tokio::select! {
        ended = &mut sequencer => {
            stop.cancel();
            ended.map_err(failed("sequencer")).and(lead.await.map_err(failed("lead")))
        }
        ended = &mut lead => {
            stop.cancel();
            ended.map_err(failed("lead")).and(sequencer.await.map_err(failed("sequencer")))
        }
    }
}
