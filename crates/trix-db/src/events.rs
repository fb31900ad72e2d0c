//! The event log: a gap-free sequence in commit-visible order.
//!
//! Writers put events into `event_in` within their own transactions; a sequencer
//! (any process, one at a time) numbers them. A reader that remembers the last
//! number it saw therefore misses none.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use time::OffsetDateTime;
use time::serde::rfc3339;
use trix_model::{JobId, TaskId};
use uuid::Uuid;

use crate::error::DbError;
use crate::handle::Db;
use crate::sql;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: 1, 2, 3 … without holes.
    pub seq: i64,
    /// When it was written; for display only.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// About which job.
    pub job: Option<JobId>,
    /// About which task.
    pub task: Option<TaskId>,
    /// What: `job.state`, `task.state`, `attempt.started`, `worker.lost`, …
    pub kind: String,
    /// More.
    pub body: Value,
}

/// Where the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHead {
    /// The cluster; numbers of another incarnation mean nothing.
    pub incarnation: Uuid,
    /// The highest number.
    pub head: i64,
    /// The lowest number that is still kept.
    pub oldest: i64,
}

/// What one run of the sequencer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequenced {
    /// Events numbered now.
    pub count: u32,
    /// The highest number.
    pub head: i64,
    /// True when one of them may give the dispatcher something to do at once.
    pub wake: bool,
}

/// Most events that one run of the sequencer numbers.
pub const SEQUENCER_BATCH: u32 = 500;

/// Wakes a reader early. Only a hint: it may be late, doubled or lost, polling stays.
pub struct Hints {
    listener: PgListener,
}

impl Hints {
    /// Waits for a hint, at most `timeout`. True when one came. An error means
    /// that the connection is gone: look at the truth, and call [`Db::hints`] again.
    pub async fn wait(&mut self, timeout: std::time::Duration) -> Result<bool, DbError> {
        const OPERATION: &str = "waiting for a hint";
        match tokio::time::timeout(timeout, self.listener.try_recv()).await {
            Err(_) => Ok(false),
            Ok(Ok(Some(_))) => Ok(true),
            Ok(Ok(None)) => {
                Err(DbError::Unavailable { operation: OPERATION, source: sqlx::Error::PoolClosed })
            }
            Ok(Err(e)) => Err(DbError::from_sqlx(OPERATION, e)),
        }
    }
}

impl Db {
    /// Events behind number `after`, in order, at most `limit` (1 to 5000); of one
    /// job if given. Read [`Db::event_head`] to learn whether `after` is still kept.
    pub async fn events(
        &self,
        after: i64,
        job: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, DbError> {
        self.all(&sql::EVENTS, &json!({ "after": after, "job": job, "limit": limit })).await
    }

    /// Where the log stands.
    pub async fn event_head(&self) -> Result<EventHead, DbError> {
        self.one(&sql::EVENT_HEAD, &Value::Null).await
    }

    /// The cluster's id, which stays when a restore changes the incarnation.
    pub async fn cluster_id(&self) -> Result<Uuid, DbError> {
        self.one(&sql::CLUSTER_ID, &Value::Null).await
    }

    /// Numbers waiting events. When another process is at it, does nothing.
    pub async fn sequence_events(&self) -> Result<Sequenced, DbError> {
        self.one(&sql::SEQUENCE, &json!({ "limit": SEQUENCER_BATCH })).await
    }

    /// Writes an event that belongs to no other change, e.g. `api.started`.
    pub async fn emit(&self, kind: &str, job: Option<JobId>, body: &Value) -> Result<(), DbError> {
        self.exec(&sql::EMIT, &json!({ "kind": kind, "job": job, "body": body })).await
    }

    /// A listener that is woken after events were numbered.
    pub async fn hints(&self) -> Result<Hints, DbError> {
        Ok(Hints { listener: self.listen("trix_events").await? })
    }
}
