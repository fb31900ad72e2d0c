//! Why something waits or failed, as facts. Sentences are made of them elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use trix_model::state::{AttemptState, JobState, NodeState, TaskState, WorkerState};
use trix_model::{Epoch, Failure, JobId, TaskId, WorkerId};

use crate::error::DbError;
use crate::handle::Db;
use crate::operate::Slots;
use crate::sql;
use crate::worker::Usage;

/// A stop that keeps something from being handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldFact {
    /// `all`, `kind` or `node`.
    pub scope: String,
    /// Which kind or node; empty for all.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// Another task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFact {
    /// Which.
    pub task: TaskId,
    /// Its name in the job.
    pub name: String,
    /// Its state.
    pub state: TaskState,
}

/// What a task needs of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Engine; empty when any will do.
    pub engine: String,
    /// Thousandths of a core.
    pub mcpu: u64,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of scratch.
    pub scratch: u64,
    /// Thousandths of a graphics processor.
    pub gpu: u64,
    /// Capabilities by name.
    pub caps: Vec<String>,
    /// Shares that must be ok there.
    pub shares: Vec<String>,
}

/// A living worker, and what the task cannot do with there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFact {
    /// Which.
    pub worker: WorkerId,
    /// Its node.
    pub node: String,
    /// Why the node is closed.
    pub cordon_reason: Option<String>,
    /// `draining`, `cordoned`, `drained`, `paused`, `silent`, `engine`, `caps`, `gpu`,
    /// `mcpu`, `ram`, `scratch`, `avoided`, `reserved`, `share:NAME`, and `busy` when only
    /// room is missing. Empty when the task could be claimed there now.
    pub misses: Vec<String>,
}

/// How one attempt went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFact {
    /// Which try.
    pub epoch: Epoch,
    /// Its state.
    pub state: AttemptState,
    /// Where.
    pub node: String,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskExplanation {
    /// Which.
    pub task: TaskId,
    /// Its name in the job.
    pub name: String,
    /// Its kind in one word.
    pub kind: String,
    /// Its job.
    pub job: JobId,
    /// Its state.
    pub state: TaskState,
    /// The state of its job.
    pub job_state: JobState,
    /// False when all that would use its outputs was found in the cache.
    pub needed: bool,
    /// Number of claims so far.
    pub epoch: Epoch,
    /// True when a prepared publication waits to be finished.
    pub roll_forward: bool,
    /// Strict class, with what ageing added.
    pub band: u8,
    /// Virtual finish time within the band; lower goes first.
    pub rank: i64,
    /// The leader's word at its last survey.
    pub block_reason: Option<String>,
    /// Tasks that it waits for.
    pub waits_for: Vec<TaskFact>,
    /// Milliseconds of database-up time until it may be claimed.
    pub delay_ms: i64,
    /// Milliseconds of database-up time since it is ready.
    pub waited_ms: i64,
    /// Who holds the task itself.
    pub held_by: Option<String>,
    /// Stops that it falls under.
    pub holds: Vec<HoldFact>,
    /// Tasks with the same needs that go first; counted to 1000.
    pub ahead: u32,
    /// What it needs of a node.
    pub needs: Needs,
    /// Limits of the shares that it uses.
    pub slots: Vec<Slots>,
    /// A running task that makes the same.
    pub twin: Option<TaskId>,
    /// A worker that is reserved for it.
    pub reserved_on: Option<WorkerId>,
    /// All living workers.
    pub workers: Vec<WorkerFact>,
    /// True while a dispatcher leads.
    pub leader: bool,
    /// The last failure.
    pub failure: Option<Failure>,
    /// The last ten attempts in their order.
    pub attempts: Vec<AttemptFact>,
}

impl TaskExplanation {
    /// What no living worker has: each of these alone keeps the task waiting.
    pub fn unmet(&self) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.workers.iter().flat_map(|w| w.misses.iter().map(String::as_str)).collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|miss| self.workers.iter().all(|w| w.misses.iter().any(|m| m == miss)));
        all
    }
}

/// Ready tasks that wait for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The leader's word; `None` when nothing but room is missing.
    pub reason: Option<String>,
    /// How many.
    pub tasks: u32,
    /// One of them.
    pub first: TaskId,
}

/// The attempt that a job's failure began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCause {
    /// The task.
    pub task: TaskId,
    /// Its name in the job.
    pub name: String,
    /// `failed` or `quarantined`.
    pub state: TaskState,
    /// Which try.
    pub epoch: Option<Epoch>,
    /// Where.
    pub node: Option<String>,
    /// Why.
    pub failure: Option<Failure>,
}

/// A task that failed and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrying {
    /// Which.
    pub task: TaskId,
    /// Its name in the job.
    pub name: String,
    /// The last failure.
    pub failure: Failure,
}

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExplanation {
    /// Which.
    pub job: JobId,
    /// Its state.
    pub state: JobState,
    /// True once plan 1 was appended.
    pub planned: bool,
    /// Strict class.
    pub band: u8,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Needed tasks by state.
    pub tasks: BTreeMap<TaskState, u32>,
    /// Ready tasks by the reason for which they wait, the most frequent first.
    pub blocked: Vec<Blocked>,
    /// What failed first.
    pub root: Option<RootCause>,
    /// Tasks that failed and wait for their next try; at most 20.
    pub retrying: Vec<Retrying>,
    /// Stops that its ready tasks fall under.
    pub holds: Vec<HoldFact>,
    /// Active workers of the cluster.
    pub workers: u32,
    /// True while a dispatcher leads.
    pub leader: bool,
}

/// What a worker has left when what the database gave it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Thousandths of a core.
    pub mcpu: i64,
    /// Bytes of memory.
    pub ram: i64,
    /// Bytes of scratch.
    pub scratch: i64,
    /// Thousandths of a graphics processor.
    pub gpu: i64,
}

/// The newest worker of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWorker {
    /// Which.
    pub id: WorkerId,
    /// Its state.
    pub state: WorkerState,
    /// Milliseconds of database-up time since its last beat.
    pub age_ms: i64,
    /// True when it was silent for longer than `suspect`.
    pub suspect: bool,
    /// Engine of its slots.
    pub engine: String,
    /// Shares whose probe says ok there.
    pub shares_ok: Vec<String>,
    /// Shares that are known and not ok there.
    pub shares_missing: Vec<String>,
    /// What it has left.
    pub free: Room,
    /// Attempts that run.
    pub running: u32,
    /// The task that it is reserved for.
    pub reserved_task: Option<TaskId>,
    /// For how long others may slip in.
    pub backfill_ms: Option<i64>,
}

/// How attempts ended on a node of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// All.
    pub ended: u32,
    /// Those that speak against the node.
    pub suspect: u32,
    /// Different tasks among the latter.
    pub tasks: u32,
}

/// Why a node does what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeExplanation {
    /// Its name.
    pub node: String,
    /// Its state.
    pub state: NodeState,
    /// Why it is closed.
    pub cordon_reason: Option<String>,
    /// `operator` or `leader`.
    pub cordoned_by: Option<String>,
    /// Self-tests that passed in a row.
    pub self_tests: u32,
    /// Capabilities by name.
    pub caps: Vec<String>,
    /// Thousandths of graphics processors.
    pub gpu: u64,
    /// Stops that it falls under.
    pub holds: Vec<HoldFact>,
    /// Its newest worker.
    pub worker: Option<NodeWorker>,
    /// What the leader judges it by.
    pub record: NodeRecord,
    /// True while a dispatcher leads.
    pub leader: bool,
}

/// All that a person needs to look into a task that kills workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QuarantineBundle {
    /// Which.
    pub task: TaskId,
    /// Its name in the job.
    pub name: String,
    /// Its kind in one word.
    pub kind: String,
    /// Its job.
    pub job: JobId,
    /// Its state.
    pub state: TaskState,
    /// Engine that it is pinned to.
    pub engine: String,
    /// What it was to do, from the plan.
    pub spec: Value,
    /// Failures by class.
    pub fail_counts: Value,
    /// What it asked for.
    pub needs: Value,
    /// The file that it reads, with its hash, once intake knew it.
    pub source: Option<Value>,
    /// All attempts in their order.
    pub attempts: Vec<BundleAttempt>,
}

/// One attempt of a [`QuarantineBundle`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleAttempt {
    /// Which try.
    pub epoch: Epoch,
    /// Its state.
    pub state: AttemptState,
    /// Where.
    pub node: String,
    /// By which incarnation.
    pub worker: WorkerId,
    /// Version of that worker's program.
    pub version: String,
    /// Why it ended; phase and signal are in its message.
    pub failure: Option<Failure>,
    /// What it used.
    pub usage: Option<Usage>,
    /// Begin.
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    /// End.
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// The last 200 lines.
    pub log: Vec<String>,
}

impl Db {
    /// Why a task waits or failed.
    pub async fn explain_task(&self, task: TaskId) -> Result<TaskExplanation, DbError> {
        self.one(&sql::EXPLAIN_TASK, &json!({ "task": task })).await
    }

    /// Why a job waits or failed.
    pub async fn explain_job(&self, job: JobId) -> Result<JobExplanation, DbError> {
        self.one(&sql::EXPLAIN_JOB, &json!({ "job": job })).await
    }

    /// Why a node gets no work, or what it does.
    pub async fn explain_node(&self, node: &str) -> Result<NodeExplanation, DbError> {
        self.one(&sql::EXPLAIN_NODE, &json!({ "node": node })).await
    }

    /// What is known of a task that was quarantined.
    pub async fn quarantine_bundle(&self, task: TaskId) -> Result<QuarantineBundle, DbError> {
        self.one(&sql::QUARANTINE_BUNDLE, &json!({ "task": task })).await
    }
}
