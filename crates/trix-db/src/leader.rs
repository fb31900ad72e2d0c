//! What only the leading dispatcher does.
//!
//! Liveness is a session's advisory lock ([`Seat`]); safety is the leader's epoch,
//! which every function here checks: a leader that was overtaken gets
//! [`DbError::NotLeader`] and stops.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use trix_model::path::fold;
use trix_model::{Failure, JobId, Key, TaskId, WorkerId};
use trix_plan::task::{Plan, TaskSpec};

use crate::error::DbError;
use crate::handle::{Db, run};
use crate::sql::{self, Statement};
use crate::worker::ArtifactRef;

/// The leader's seat: a session that holds the advisory lock and runs nothing
/// but ticks, so that the server frees the lock soon after the holder is cut off.
pub struct Seat {
    db: Db,
    session: PgConnection,
    epoch: i64,
    /// False while one that was overtaken still holds the lock.
    locked: bool,
}

/// The right to act as the leader; cheap to clone.
#[derive(Clone, Debug)]
pub struct Leader {
    pub(crate) db: Db,
    pub(crate) epoch: i64,
}

/// The leader's clock after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Milliseconds during which the database was up.
    pub up_ms: i64,
    /// The ping that workers answer.
    pub ping_seq: i64,
    /// Nobody is marked before this.
    pub grace_until_up_ms: i64,
}

/// A worker that was marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWorker {
    /// Which.
    pub worker: WorkerId,
    /// On which node.
    pub node: String,
    /// Milliseconds of database-up time since its last beat.
    pub silent_ms: i64,
    /// Attempts that were taken from it.
    pub attempts: u32,
}

/// A job whose intake is done and which has no plan 1 yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobToPlan {
    /// Which.
    pub job: JobId,
    /// Name of the title.
    pub title: String,
    /// What was asked.
    pub request: Value,
    /// Name of the profile.
    pub profile: String,
    /// Text of the profile's version.
    pub profile_body: String,
    /// Engine that plan 0 was made for.
    pub engine: String,
    /// The tasks of plan 0.
    pub tasks: Vec<PlannedTask>,
}

/// A done task of plan 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedTask {
    /// The task as it was planned.
    #[serde(flatten)]
    pub task: trix_plan::task::Task,
    /// True when its result came from the cache, so nothing was staged for this job.
    pub cache_hit: bool,
    /// Its result's detail.
    pub detail: Value,
}

/// What the repair of readiness found; all zero when the functions work as they should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// Tasks whose count of open dependencies was wrong.
    pub counts: u32,
    /// Waiting tasks that were ready.
    pub readied: u32,
    /// Jobs whose tasks were all done.
    pub finished: u32,
}

/// How long things are kept, in wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events.
    pub events: Duration,
    /// Attempts with their logs, counted from the end of their job.
    pub attempts: Duration,
    /// Ended sessions, used links, revoked tokens.
    pub access: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Retention { events: days(30), attempts: days(180), access: days(30) }
    }
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Partitions of the event log.
    pub event_partitions: u32,
    /// Partitions of the attempts.
    pub attempt_partitions: u32,
    /// Rows of sessions, links and tokens.
    pub access_rows: u32,
}

impl Seat {
    /// Takes the seat if it is free. A takeover raises the epoch and starts a grace
    /// during which nobody is marked; `outage` is for how long the database did not
    /// answer the caller before, which makes the grace longer.
    pub async fn try_take(
        db: &Db,
        holder: &str,
        outage: Duration,
    ) -> Result<Option<Seat>, DbError> {
        let mut session = db.bare(sql::LEAD_LOCK.operation, None).await?;
        let got: bool = on(&mut session, db, &sql::LEAD_LOCK, &Value::Null).await?;
        if !got {
            return Ok(None);
        }
        let epoch =
            on(&mut session, db, &sql::TAKEOVER, &takeover(db, holder, outage, None)).await?;
        Ok(Some(Seat { db: db.clone(), session, epoch, locked: true }))
    }

    /// Takes the seat from a holder that stands still with the lock in its hand, as a stopped
    /// process does. `ping` is what [`Seat::ping`] said all the while; gives `None` when the
    /// holder has moved since.
    pub async fn overtake(
        db: &Db,
        holder: &str,
        outage: Duration,
        ping: i64,
    ) -> Result<Option<Seat>, DbError> {
        let mut session = db.bare(sql::TAKEOVER.operation, None).await?;
        let args = takeover(db, holder, outage, Some(ping));
        let epoch: Option<i64> = on(&mut session, db, &sql::TAKEOVER, &args).await?;
        Ok(epoch.map(|epoch| Seat { db: db.clone(), session, epoch, locked: false }))
    }

    /// What rises with each tick and each takeover.
    pub async fn ping(db: &Db) -> Result<i64, DbError> {
        db.one(&sql::LEADER_PING, &Value::Null).await
    }

    /// The right to act.
    pub fn leader(&self) -> Leader {
        Leader { db: self.db.clone(), epoch: self.epoch }
    }

    /// Its epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// One tick. `since_last` is the time since the last *successful* tick by a
    /// monotonic clock: it counts as up-time when it is short, otherwise the
    /// database was away and a grace begins.
    pub async fn tick(&mut self, since_last: Duration) -> Result<Tick, DbError> {
        let (up, grace) = self.db.times().counted(since_last);
        let args = json!({ "epoch": self.epoch, "up": ms(up), "grace_ms": grace.map(ms) });
        if !self.locked {
            // Held by nobody, it would let the next who tries take over from a leader that
            // is well. It can still be quicker than this: then the seat changes hands once more.
            self.locked = on(&mut self.session, &self.db, &sql::LEAD_LOCK, &Value::Null).await?;
        }
        on(&mut self.session, &self.db, &sql::TICK, &args).await
    }

    /// Gives the seat up at once.
    pub async fn leave(self) -> Result<(), DbError> {
        let closed = tokio::time::timeout(self.db.times().connect, self.session.close()).await;
        match closed {
            Ok(r) => r.map_err(|e| DbError::from_sqlx("giving up the lead", e)),
            // The server ends the session when the socket closes.
            Err(_) => Ok(()),
        }
    }
}

/// Where a plan publishes, as `append_plan_v1` compares it.
fn targets(plan: &Plan) -> Vec<Value> {
    (plan.tasks.iter())
        .filter_map(|task| match &task.spec {
            TaskSpec::Publish(publish) => Some(publish),
            _ => None,
        })
        .map(|p| json!({ "share": p.share, "target": p.target, "folded": fold(p.target.as_str()) }))
        .collect()
}

impl Leader {
    /// Its epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Marks workers that are silent for longer than `lost`, outside every grace,
    /// and gives their tasks back.
    pub async fn mark_lost(&self) -> Result<Vec<LostWorker>, DbError> {
        self.db.all(&sql::MARK_LOST, &json!({ "epoch": self.epoch })).await
    }

    /// Jobs that wait for their plan 1.
    pub async fn jobs_to_plan(&self, limit: u32) -> Result<Vec<JobToPlan>, DbError> {
        self.db.all(&sql::TO_PLAN, &json!({ "epoch": self.epoch, "limit": limit })).await
    }

    /// Appends plan 1; tasks whose outputs all exist are done at once. False when
    /// the job has one already or is not open any more. A target that some file system takes
    /// for that of another title is refused as a conflict, `name_taken`.
    pub async fn append_plan(&self, job: JobId, plan: &Plan) -> Result<bool, DbError> {
        let args = json!({
            "epoch": self.epoch, "job": job, "engine": plan.engine,
            "tasks": crate::jobs::inserts(plan), "targets": targets(plan),
        });
        self.db.one(&sql::APPEND_PLAN, &args).await
    }

    /// Fails a job that cannot be planned.
    pub async fn fail_job(&self, job: JobId, failure: &Failure) -> Result<(), DbError> {
        let args = json!({ "epoch": self.epoch, "job": job, "failure": failure });
        self.db.exec(&sql::FAIL_JOB, &args).await
    }

    /// Ends tasks as done whose outputs another job made meanwhile.
    pub async fn cache_hits(&self) -> Result<u32, DbError> {
        self.db.one(&sql::CACHE_HITS, &json!({ "epoch": self.epoch })).await
    }

    /// Counts dependencies anew and mends what is wrong.
    pub async fn repair(&self) -> Result<Repaired, DbError> {
        self.db.one(&sql::REPAIR, &json!({ "epoch": self.epoch })).await
    }

    /// Ends cancelled jobs of which nothing runs any more.
    pub async fn finish_cancels(&self) -> Result<u32, DbError> {
        self.db.one(&sql::FINISH_CANCELS, &json!({ "epoch": self.epoch })).await
    }

    /// Writes why ready tasks are not claimed (`paused`, `paused_all`, `paused_kind`, `held`,
    /// `delayed`, `no_worker`, `engine`, `share:NAME`, `caps`, `gpu`, `resources`, `no_node`,
    /// `slots:NAME:MODE`) and clears it where it is mended. Gives the number of changes.
    pub async fn block_reasons(&self) -> Result<u32, DbError> {
        self.db.one(&sql::EXPLAIN_BLOCKS, &json!({ "epoch": self.epoch })).await
    }

    /// Drops what is older than its retention.
    pub async fn retire(&self, keep: &Retention) -> Result<Retired, DbError> {
        let args = json!({
            "epoch": self.epoch, "events_s": keep.events.as_secs(),
            "attempts_s": keep.attempts.as_secs(), "access_s": keep.access.as_secs(),
        });
        self.db.one(&sql::RETIRE, &args).await
    }

    /// Those of this cluster's tasks whose jobs succeeded or were cancelled: nothing that they
    /// staged is read again. Jobs that failed may be retried. A task that is not known was
    /// made in a history that a restored database has lost, and will never be known.
    pub async fn ended_tasks(&self, tasks: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        self.db.all(&sql::ENDED_TASKS, &json!({ "tasks": tasks })).await
    }

    /// Artifacts that no unfinished task needs, least recently used first.
    pub async fn prunable(&self, limit: u32) -> Result<Vec<ArtifactRef>, DbError> {
        self.db.all(&sql::PRUNABLE, &json!({ "limit": limit })).await
    }

    /// Forgets an artifact before its file is removed. False when it is needed by now.
    pub async fn forget_artifact(&self, key: Key) -> Result<bool, DbError> {
        self.db.one(&sql::FORGET, &json!({ "epoch": self.epoch, "key": key })).await
    }
}

fn ms(d: Duration) -> u64 {
    d.as_millis() as u64
}

/// Runs a statement on the seat's session under the deadline.
/// The arguments of a takeover.
fn takeover(db: &Db, holder: &str, outage: Duration, still: Option<i64>) -> Value {
    let t = db.times();
    json!({
        "holder": holder,
        "still": still,
        "grace_ms": ms(t.grace(outage)),
        "times": {
            "suspect_ms": ms(t.suspect), "lost_ms": ms(t.lost),
            "backoff_min_ms": ms(t.backoff_min), "backoff_max_ms": ms(t.backoff_max),
            "transient_budget_ms": ms(t.transient_budget),
            "ageing_ms": ms(t.ageing), "reserve_ms": ms(t.reserve),
            "suspicion_ms": ms(t.suspicion),
        },
    })
}

async fn on<T: serde::de::DeserializeOwned>(
    session: &mut PgConnection,
    db: &Db,
    statement: &'static Statement,
    args: &Value,
) -> Result<T, DbError> {
    let operation = statement.operation;
    let after = db.times().statement;
    let rows = tokio::time::timeout(after, run(session, statement, args))
        .await
        .map_err(|_| DbError::Deadline { operation, after })??;
    let row = rows.into_iter().next().unwrap_or(Value::Null);
    serde_json::from_value(row).map_err(|source| DbError::Decode { operation, source })
}
