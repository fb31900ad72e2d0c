//! Jobs as the api sees them: submit, look, cancel, retry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use trix_model::state::{AttemptState, JobState, PublicationState, TaskState};
use trix_model::{
    AttemptId, Digest, Epoch, Failure, Finding, JobId, Key, NodeId, Progress, ShareName, SharePath,
    TaskId, WorkerId,
};
use trix_plan::task::{Plan, Task};

use crate::error::DbError;
use crate::handle::Db;
use crate::sql;
use crate::worker::{ArtifactRef, Manifest, Usage};

/// See [`crate::Db::submit`].
#[derive(Clone, Debug)]
pub struct Submit {
    /// Who submits.
    pub principal: i64,
    /// The idempotency key, unique per principal.
    pub key: String,
    /// Digest of the request's body: the same key with another one is refused.
    pub request_hash: Digest,
    /// What was asked, as JSON; the dispatcher plans from it.
    pub request: Value,
    /// Name of the title; made when new.
    pub title: String,
    /// Which version of which profile.
    pub profile: i64,
    /// The title's files.
    pub sources: Vec<SharePath>,
    /// Strict class, 0 to 9; higher goes first. 5 is usual.
    pub band: u8,
    /// Plan 0.
    pub plan: Plan,
}

/// What a submit gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// False when an earlier submit with the same key and body made it.
    pub created: bool,
}

/// A job in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Name of the title.
    pub title: String,
    /// Name of the profile.
    pub profile: String,
    /// Which version of it.
    pub profile_id: i64,
    /// State.
    pub state: JobState,
    /// Strict class, 0 to 9.
    pub band: u8,
    /// Who submitted it.
    pub principal: String,
    /// The title's files.
    pub sources: Vec<SharePath>,
    /// Engine that the plan is pinned to.
    pub engine: String,
    /// True once plan 1 was appended.
    pub planned: bool,
    /// When it was submitted.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its first task began.
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it became final.
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Tasks by state, and the weights for a progress bar.
    pub counts: TaskCounts,
    /// Its publication for the interface (poster, thumbnails, proxy), once there is one.
    pub preview: Option<i64>,
}

/// How many tasks of a job are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// All tasks.
    pub total: u32,
    /// Waiting for others.
    pub waiting: u32,
    /// May be claimed.
    pub ready: u32,
    /// Running now.
    pub running: u32,
    /// Done, skipped included.
    pub done: u32,
    /// Of `done`, found in the cache.
    pub cached: u32,
    /// Failed or quarantined.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Sum of the estimates, milliseconds of one core.
    pub estimate_ms: u64,
    /// Of `estimate_ms`, what is done, running tasks by their progress.
    pub done_ms: u64,
}

/// One task of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its id.
    pub id: TaskId,
    /// Its job.
    pub job: JobId,
    /// Its name in the job.
    pub name: String,
    /// Its kind in one word.
    pub kind: String,
    /// State.
    pub state: TaskState,
    /// False when all that would use its outputs was found in the cache.
    pub needed: bool,
    /// Number of claims so far.
    pub epoch: Epoch,
    /// Tasks that it still waits for.
    pub deps_left: u32,
    /// True when all its outputs were found in the cache.
    pub cache_hit: bool,
    /// True when a prepared publication waits to be finished.
    pub roll_forward: bool,
    /// Why it is not claimed, in one word, when the system knows.
    pub block_reason: Option<String>,
    /// Milliseconds of database-up time until it may be claimed; 0 when at once.
    pub delay_ms: u64,
    /// The estimate, milliseconds of one core.
    pub estimate_ms: u64,
    /// The last failure.
    pub failure: Option<Failure>,
    /// Snapshot of the running attempt.
    pub progress: Option<Progress>,
    /// Names of the tasks that it needs.
    pub needs: Vec<String>,
    /// When the last attempt began.
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it became final.
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Node of the last attempt.
    pub node: Option<String>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The task.
    pub task: TaskId,
    /// The task's name.
    pub name: String,
    /// Which try.
    pub epoch: Epoch,
    /// State.
    pub state: AttemptState,
    /// Where it ran.
    pub node: String,
    /// Which incarnation ran it.
    pub worker: WorkerId,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
    /// True when what it made is lost.
    pub result_lost: bool,
    /// Begin.
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    /// End.
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// What it used.
    pub usage: Option<Usage>,
    /// Snapshot while it runs.
    pub progress: Option<Progress>,
}

/// A statement of quality control, with the task that made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindingRow {
    /// The task's name.
    pub task: String,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

/// A publication of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublicationRow {
    /// Its id.
    pub id: i64,
    /// The task that made it.
    pub task: TaskId,
    /// Version beneath the target.
    pub version: u32,
    /// State.
    pub state: PublicationState,
    /// True for the version that counts.
    pub current: bool,
    /// The files.
    pub manifest: Manifest,
    /// The worker's receipt.
    pub receipt: Option<Value>,
    /// When it became visible.
    #[serde(with = "rfc3339::option")]
    pub published_at: Option<OffsetDateTime>,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JobFilter {
    /// Only jobs with a smaller id: the cursor of the next page.
    pub before: Option<JobId>,
    /// Only these states; empty for all.
    pub states: Vec<JobState>,
    /// Only jobs whose title or first source's path contains this, case ignored.
    pub text: Option<String>,
    /// At most so many; 1 to 501, so that a page of 500 can look one ahead.
    pub limit: u32,
}

/// A job of which something runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningJob {
    /// Which.
    pub job: JobId,
    /// All its tasks by state.
    pub counts: TaskCounts,
    /// What runs of it.
    pub attempts: Vec<RunningAttempt>,
}

/// See [`RunningJob`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningAttempt {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// How far it is, once its worker has told.
    pub progress: Option<Progress>,
}

/// The state of the whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// Identity of the database's history; a restore changes it.
    pub incarnation: uuid::Uuid,
    /// Number of the newest migration.
    pub schema_version: i64,
    /// Number of the newest event.
    pub event_head: i64,
    /// Who leads, or led last; `None` before anybody has.
    pub leader: Option<LeaderRow>,
    /// Jobs by state.
    pub jobs: BTreeMap<String, i64>,
    /// Tasks of jobs under way by state.
    pub tasks: BTreeMap<String, i64>,
    /// Workers by state, ended ones included.
    pub workers: BTreeMap<String, i64>,
}

/// The leading dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRow {
    /// Number of takeovers so far.
    pub epoch: i64,
    /// Who it is, for people.
    pub holder: String,
    /// When it took over.
    #[serde(with = "rfc3339")]
    pub since: OffsetDateTime,
    /// Milliseconds that the database was up under a leader.
    pub up_ms: i64,
    /// True while somebody holds the seat.
    pub alive: bool,
}

/// A node, with its newest worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it gets work.
    pub state: trix_model::state::NodeState,
    /// Why it gets none.
    pub cordon_reason: Option<String>,
    /// `operator` or `leader`.
    pub cordoned_by: Option<String>,
    /// The newest incarnation.
    pub worker: Option<WorkerRow>,
}

/// One incarnation of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// Name of its node.
    pub node: String,
    /// `active`, `draining`, `lost`, `gone`.
    pub state: trix_model::state::WorkerState,
    /// True when it was silent for longer than `suspect`; a view, never stored.
    pub suspect: bool,
    /// Milliseconds of database-up time since its last beat.
    pub age_ms: i64,
    /// Version of its program.
    pub version: String,
    /// Engine id of its slots.
    pub engine: String,
    /// Process id.
    pub pid: u32,
    /// What it has.
    pub capacity: crate::worker::Resources,
    /// What it has left.
    pub free: crate::worker::Resources,
    /// Shares whose probe says ok there.
    pub shares_ok: Vec<String>,
    /// Attempts that run.
    pub running: u32,
    /// Begin.
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    /// Last beat, for display only.
    #[serde(with = "rfc3339")]
    pub last_seen: OffsetDateTime,
}

/// A task as the database's `append_tasks` takes it.
#[derive(Serialize)]
pub(crate) struct TaskInsert<'a> {
    #[serde(flatten)]
    task: &'a Task,
    kind: &'static str,
    /// Shares that must be ok where it runs.
    shares: Vec<&'a ShareName>,
    /// Artifacts that it reads.
    inputs: Vec<Key>,
}

/// The tasks of a plan as the database takes them.
pub(crate) fn inserts(plan: &Plan) -> Vec<TaskInsert<'_>> {
    plan.tasks
        .iter()
        .map(|task| {
            let mut shares = task.spec.written_shares();
            shares.extend(task.spec.source().map(|s| &s.location.share));
            shares.sort();
            shares.dedup();
            let mut inputs = task.spec.input_keys();
            inputs.sort();
            inputs.dedup();
            TaskInsert { task, kind: task.spec.kind(), shares, inputs }
        })
        .collect()
}

impl Db {
    /// Writes a job with its plan 0. The same key with the same body gives the
    /// same job; with another body it is refused with the code `submit_key_reused`.
    /// The job exists once this returns; after an unavailable database the caller
    /// repeats safely.
    pub async fn submit(&self, s: &Submit) -> Result<Submitted, DbError> {
        let args = json!({
            "principal": s.principal, "key": s.key, "request_hash": s.request_hash,
            "request": s.request, "title": s.title, "profile": s.profile,
            "sources": s.sources, "band": s.band, "engine": s.plan.engine,
            "tasks": inserts(&s.plan),
        });
        self.one(&sql::SUBMIT, &args).await
    }

    /// What an earlier submit with this principal and key made, so that a repetition
    /// is answered before anything is looked at. Another body is refused like by
    /// [`Db::submit`].
    pub async fn submitted(
        &self,
        principal: i64,
        key: &str,
        request_hash: Digest,
    ) -> Result<Option<Submitted>, DbError> {
        #[derive(Deserialize)]
        struct Earlier {
            job: JobId,
            same: bool,
        }
        let args = json!({ "principal": principal, "key": key, "request_hash": request_hash });
        match self.optional::<Earlier>(&sql::SUBMITTED, &args).await? {
            None => Ok(None),
            Some(Earlier { job, same: true }) => Ok(Some(Submitted { job, created: false })),
            Some(Earlier { job, same: false }) => Err(DbError::Conflict {
                operation: sql::SUBMITTED.operation,
                code: "submit_key_reused".into(),
                message: format!("the idempotency key was used for job {job} with another request"),
            }),
        }
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, DbError> {
        let statement = if filter.text.is_some() { &sql::JOBS_WITH_TEXT } else { &sql::JOBS };
        self.all(statement, filter).await
    }

    /// All jobs by state.
    pub async fn job_counts(&self) -> Result<BTreeMap<String, i64>, DbError> {
        self.one(&sql::JOB_COUNTS, &Value::Null).await
    }

    /// Jobs of which something runs, with the progress of their attempts.
    pub async fn running(&self) -> Result<Vec<RunningJob>, DbError> {
        self.all(&sql::RUNNING, &Value::Null).await
    }

    /// The state of the whole.
    pub async fn overview(&self) -> Result<Overview, DbError> {
        self.one(&sql::OVERVIEW, &Value::Null).await
    }

    /// One publication.
    pub async fn publication(&self, id: i64) -> Result<Option<PublicationRow>, DbError> {
        self.optional(&sql::PUBLICATION, &json!({ "publication": id })).await
    }

    /// One job.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>, DbError> {
        self.optional(&sql::JOB, &json!({ "job": job })).await
    }

    /// The tasks of a job in the plan's order.
    pub async fn tasks(&self, job: JobId) -> Result<Vec<TaskRow>, DbError> {
        self.all(&sql::TASKS, &json!({ "job": job })).await
    }

    /// The attempts of a job by task and epoch.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRow>, DbError> {
        self.all(&sql::ATTEMPTS, &json!({ "job": job })).await
    }

    /// The last 200 log lines of an attempt.
    pub async fn attempt_log(&self, attempt: AttemptId) -> Result<Vec<String>, DbError> {
        Ok(self.optional(&sql::LOG, &attempt).await?.unwrap_or_default())
    }

    /// The findings of a job.
    pub async fn findings(&self, job: JobId) -> Result<Vec<FindingRow>, DbError> {
        self.all(&sql::FINDINGS, &json!({ "job": job })).await
    }

    /// The publications of a job, with those that an earlier job made and this
    /// one found to be the same.
    pub async fn publications(&self, job: JobId) -> Result<Vec<PublicationRow>, DbError> {
        self.all(&sql::PUBLICATIONS, &json!({ "job": job })).await
    }

    /// The kind-specific detail of a done task's result (`Null` while there is
    /// none), or `None` when the job has no such task.
    pub async fn task_detail(&self, job: JobId, name: &str) -> Result<Option<Value>, DbError> {
        self.optional(&sql::TASK_DETAIL, &json!({ "job": job, "name": name })).await
    }

    /// The artifacts that exist of `keys`, in any order.
    pub async fn artifacts(&self, keys: &[Key]) -> Result<Vec<ArtifactRef>, DbError> {
        self.all(&sql::ARTIFACTS, &json!({ "keys": keys })).await
    }

    /// Cancels a job. Tasks that run are killed by their workers; a publication
    /// that was prepared is still rolled forward. Cancelling twice is harmless.
    pub async fn cancel(&self, job: JobId) -> Result<JobState, DbError> {
        self.one(&sql::CANCEL, &json!({ "job": job })).await
    }

    /// Takes up a failed job again; what is done stays done.
    pub async fn retry(&self, job: JobId) -> Result<JobState, DbError> {
        self.one(&sql::RETRY, &json!({ "job": job })).await
    }

    /// Hands out no more tasks of a running job; what runs goes on.
    pub async fn pause(&self, job: JobId) -> Result<JobState, DbError> {
        self.one(&sql::PAUSE, &json!({ "job": job })).await
    }

    /// Undoes [`Db::pause`].
    pub async fn resume(&self, job: JobId) -> Result<JobState, DbError> {
        self.one(&sql::RESUME, &json!({ "job": job })).await
    }

    /// Changes the strict class of a job's queued work, 0 to 9.
    pub async fn set_band(&self, job: JobId, band: u8) -> Result<(), DbError> {
        self.exec(&sql::SET_BAND, &json!({ "job": job, "band": band })).await
    }

    /// All nodes with their newest worker.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, DbError> {
        self.all(&sql::NODES, &Value::Null).await
    }

    /// Workers: those that live, or `all` that ever were.
    pub async fn workers(&self, all: bool) -> Result<Vec<WorkerRow>, DbError> {
        self.all(&sql::WORKERS, &json!({ "all": all })).await
    }

    /// Tells a worker to claim no more and to end when idle.
    pub async fn drain(&self, worker: WorkerId) -> Result<(), DbError> {
        self.exec(&sql::DRAIN, &json!({ "worker": worker })).await
    }
}
