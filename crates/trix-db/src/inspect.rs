//! The tables as they are, for whoever checks them: `trix-chaos` judges the rules of
//! the protocol over these rows, and compares its model with them.
//!
//! **Nothing here decides anything.** Large columns (a task's spec, a result's planning
//! index) are left out, so that a campaign of thousands of tasks can be read at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Acquire, PgConnection};
use trix_model::state::{AttemptState, JobState, PublicationState, TaskState, WorkerState};
use trix_model::{Digest, ErrorClass, Key};

use crate::error::DbError;
use crate::handle::{Db, run};
use crate::sql::{self, Statement};
use crate::worker::Manifest;

/// All tables of the protocol at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The leader's row.
    pub leader: RawLeader,
    /// Nodes by id.
    pub nodes: Vec<RawNode>,
    /// Every incarnation that ever was, by id.
    pub workers: Vec<RawWorker>,
    /// Jobs by id.
    pub jobs: Vec<RawJob>,
    /// Tasks by id.
    pub tasks: Vec<RawTask>,
    /// What needs what.
    pub deps: Vec<RawDep>,
    /// What tasks make, by task and number.
    pub outputs: Vec<RawOutput>,
    /// What tasks read.
    pub inputs: Vec<RawInput>,
    /// Attempts by task and epoch.
    pub attempts: Vec<RawAttempt>,
    /// Artifacts by key.
    pub artifacts: Vec<RawArtifact>,
    /// Publications by id.
    pub publications: Vec<RawPublication>,
    /// Their files.
    pub files: Vec<RawFile>,
    /// Events that no sequencer has numbered, in order.
    pub unnumbered: Vec<RawEvent>,
    /// The highest number of the log.
    pub head: i64,
    /// The lowest that is kept.
    pub oldest: i64,
}

/// The leader's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawLeader {
    /// Rises with every takeover.
    pub epoch: i64,
    /// Who leads.
    pub holder: String,
    /// Milliseconds during which the database was up.
    pub up_ms: i64,
    /// The ping.
    pub ping_seq: i64,
    /// Nobody is marked before this.
    pub grace_until_up_ms: i64,
    /// The protocol's times that the leader wrote.
    pub times: BTreeMap<String, i64>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawNode {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// `ok`, `cordoned`, `drained`.
    pub state: String,
}

/// One incarnation of a node's worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawWorker {
    /// Its id.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
    /// Its state.
    pub state: WorkerState,
    /// Engine of its slots.
    pub engine: String,
    /// The ping that it answered last.
    pub pong_seq: i64,
    /// The up-clock when it did.
    pub pong_up_ms: i64,
    /// What it has.
    pub cap_mcpu: i64,
    /// What it has.
    pub cap_ram: i64,
    /// What it has.
    pub cap_scratch: i64,
    /// What it says is left.
    pub free_mcpu: i64,
    /// What it says is left.
    pub free_ram: i64,
    /// What it says is left.
    pub free_scratch: i64,
    /// Shares that are usable there.
    pub shares_ok: Vec<String>,
}

/// Class and code of a failure: what decisions are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCode {
    /// Its class; plans that failed have one too.
    pub class: ErrorClass,
    /// Its code.
    pub code: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawJob {
    /// Its id.
    pub id: i64,
    /// Who submitted it.
    pub principal_id: i64,
    /// Under which key.
    pub submit_key: String,
    /// Digest of the request's body.
    pub request_hash: Digest,
    /// Engine.
    pub engine: String,
    /// State.
    pub state: JobState,
    /// Strict class.
    pub band: i64,
    /// Plan 1 was appended.
    pub planned: bool,
    /// Why it failed.
    pub failure: Option<FailureCode>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawTask {
    /// Its id.
    pub id: i64,
    /// Its job.
    pub job_id: i64,
    /// Its name in the job.
    pub name: String,
    /// 0 or 1.
    pub plan: i64,
    /// Kind in one word.
    pub kind: String,
    /// Engine.
    pub engine: String,
    /// State.
    pub state: TaskState,
    /// False while nobody needs what it makes.
    pub needed: bool,
    /// Strict class.
    pub band: i64,
    /// Order within the class.
    pub rank: i64,
    /// Tasks that it waits for.
    pub deps_left: i64,
    /// Not to be claimed before.
    pub not_before_up_ms: i64,
    /// An operator's hold.
    pub held_by: Option<String>,
    /// A publication is to be finished.
    pub roll_forward: bool,
    /// Claims so far.
    pub epoch: i64,
    /// What it takes.
    pub need_mcpu: i64,
    /// What it takes.
    pub need_ram: i64,
    /// What it takes.
    pub need_scratch: i64,
    /// Shares that must be usable.
    pub need_shares: Vec<String>,
    /// Nodes where it failed.
    pub avoid_nodes: Vec<i64>,
    /// Failures by class, and other counts.
    pub fail_counts: BTreeMap<String, i64>,
    /// The up-clock at the first claim.
    pub first_try_up_ms: Option<i64>,
    /// Why it is not claimed.
    pub block_reason: Option<String>,
    /// All outputs were found in the cache.
    pub cache_hit: bool,
    /// The last failure.
    pub failure: Option<FailureCode>,
    /// Its publication.
    pub publication_id: Option<i64>,
}

/// A task needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RawDep {
    /// Who needs.
    pub task_id: i64,
    /// Whom.
    pub needs_id: i64,
}

/// A task makes an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawOutput {
    /// The task.
    pub task_id: i64,
    /// Which of its outputs, from 1.
    pub n: i64,
    /// Name.
    pub name: String,
    /// Key.
    pub key: Key,
}

/// A task reads an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RawInput {
    /// The task.
    pub task_id: i64,
    /// Key.
    pub key: Key,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawAttempt {
    /// The task.
    pub task_id: i64,
    /// Which try.
    pub epoch: i64,
    /// Who tried.
    pub worker_id: i64,
    /// Where.
    pub node_id: i64,
    /// State.
    pub state: AttemptState,
    /// What it made is gone.
    pub result_lost: bool,
    /// Why it did not succeed.
    pub failure: Option<FailureCode>,
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawArtifact {
    /// Key.
    pub key: Key,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: i64,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawPublication {
    /// Its id.
    pub id: i64,
    /// Where to.
    pub share: String,
    /// Folder of the title.
    pub target: String,
    /// From 1.
    pub version: i64,
    /// Who prepared it.
    pub task_id: i64,
    /// In which try.
    pub epoch: i64,
    /// Who moved it last.
    pub mover_epoch: i64,
    /// State.
    pub state: PublicationState,
    /// The version that counts.
    pub current: bool,
    /// Its files.
    pub manifest: Manifest,
}

/// A file of a publication.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RawFile {
    /// Whose.
    pub publication_id: i64,
    /// Share.
    pub share: String,
    /// Path beneath its root.
    pub path: String,
    /// Its name as case-insensitive shares see it.
    pub folded_path: String,
    /// Bytes.
    pub size: i64,
    /// sha256.
    pub sha256: Digest,
}

/// An event without its number and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawEvent {
    /// About which job.
    pub job_id: Option<i64>,
    /// About which task.
    pub task_id: Option<i64>,
    /// What.
    pub kind: String,
    /// More.
    pub body: Value,
}

/// Reads the tables again and again over one connection, in one round trip each: for
/// small databases that are compared after every call.
pub struct Inspector {
    c: PgConnection,
    all: String,
}

impl Inspector {
    /// All tables at one moment.
    pub async fn snapshot(&mut self) -> Result<Snapshot, DbError> {
        const OPERATION: &str = "reading all tables";
        let decode = |source| DbError::Decode { operation: OPERATION, source };
        let row = sqlx::query_scalar(sqlx::AssertSqlSafe(self.all.as_str()))
            .bind(sqlx::types::Json(Value::Null))
            .fetch_one(&mut self.c);
        let row: sqlx::types::Json<Vec<Value>> =
            row.await.map_err(|e| DbError::from_sqlx(OPERATION, e))?;
        let mut tables = row.0.into_iter();
        Snapshot::from_tables(&mut || tables.next().unwrap_or_default()).map_err(decode)
    }
}

impl Snapshot {
    /// From what [`TABLES`] give, in their order.
    fn from_tables(next: &mut dyn FnMut() -> Value) -> Result<Snapshot, serde_json::Error> {
        fn rows<T: serde::de::DeserializeOwned>(v: Value) -> Result<T, serde_json::Error> {
            serde_json::from_value(v)
        }
        let mut leader: Vec<RawLeader> = rows(next())?;
        let mut head: Vec<(i64, i64)> = rows(next())?;
        let (head, oldest) = head.pop().unwrap_or((0, 1));
        Ok(Snapshot {
            leader: leader.pop().unwrap_or_default(),
            head,
            oldest,
            nodes: rows(next())?,
            workers: rows(next())?,
            jobs: rows(next())?,
            tasks: rows(next())?,
            deps: rows(next())?,
            outputs: rows(next())?,
            inputs: rows(next())?,
            attempts: rows(next())?,
            artifacts: rows(next())?,
            publications: rows(next())?,
            files: rows(next())?,
            unnumbered: rows(next())?,
        })
    }
}

/// What a snapshot is read with, in the order of [`Snapshot::from_tables`].
const TABLES: &[&Statement] = &[
    &sql::RAW_LEADER,
    &sql::RAW_HEAD,
    &sql::RAW_NODES,
    &sql::RAW_WORKERS,
    &sql::RAW_JOBS,
    &sql::RAW_TASKS,
    &sql::RAW_DEPS,
    &sql::RAW_OUTPUTS,
    &sql::RAW_INPUTS,
    &sql::RAW_ATTEMPTS,
    &sql::RAW_ARTIFACTS,
    &sql::RAW_PUBLICATIONS,
    &sql::RAW_FILES,
    &sql::RAW_EVENTS,
];

impl Db {
    /// A connection of one's own that reads the tables.
    pub async fn inspector(&self) -> Result<Inspector, DbError> {
        let c = self.bare("reading all tables", Some(std::time::Duration::ZERO)).await?;
        let parts: Vec<String> = (TABLES.iter())
            .map(|s| format!("(select coalesce(jsonb_agg(x), '[]') from ({}) q(x))", s.text))
            .collect();
        Ok(Inspector { c, all: format!("select jsonb_build_array({})", parts.join(", ")) })
    }

    /// All tables at one moment.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        const OPERATION: &str = "reading all tables";
        let error = |e| DbError::from_sqlx(OPERATION, e);
        let mut c = self.bare(OPERATION, Some(std::time::Duration::ZERO)).await?;
        let mut t = c.begin().await.map_err(error)?;
        sqlx::query(sql::ONE_MOMENT).execute(&mut *t).await.map_err(error)?;
        let mut tables = Vec::new();
        for statement in TABLES {
            tables.push(Value::Array(run(&mut t, statement, &Value::Null).await?));
        }
        t.commit().await.map_err(error)?;
        let mut tables = tables.into_iter();
        let decode = |source| DbError::Decode { operation: OPERATION, source };
        Snapshot::from_tables(&mut || tables.next().unwrap_or_default()).map_err(decode)
    }
}
