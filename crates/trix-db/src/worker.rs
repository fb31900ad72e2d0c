//! What a worker asks of the database: the protocol.
//!
//! [`WorkerStore`] is the one border. `sync` is *the* call: one transaction in
//! the order beat → fenced results → claim. Every write names the worker's
//! incarnation and the attempt; what does not match is refused.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trix_model::{
    AttemptId, Digest, Failure, JobId, Key, Progress, RelPath, ShareName, WorkerId,
    path::fold,
    state::{NodeState, PublicationState},
};
use trix_plan::task::{Cost, Output, TaskResult, TaskSpec};
use uuid::Uuid;

use crate::error::DbError;
use crate::handle::Db;
use crate::hints::WorkHint;
use crate::sql;

/// A future that a store gives back; boxed, so that a worker takes any store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbError>> + Send + 'a>>;

/// All that a worker may ask of the database.
pub trait WorkerStore: Send + Sync + 'static {
    /// Makes a new incarnation of the node's worker.
    fn register(&self, request: RegisterRequest) -> StoreFuture<'_, Registered>;

    /// Beat, results, claim, in one transaction.
    fn sync(&self, request: SyncRequest) -> StoreFuture<'_, SyncReply>;

    /// Marks the node's earlier incarnation `old` as gone and requeues what it ran.
    /// `me` must be an active worker of the same node. Gives the number of
    /// attempts that were requeued; 0 when `old` was final already.
    fn supersede(&self, me: Credentials, old: WorkerId) -> StoreFuture<'_, u64>;

    /// Ends this incarnation cleanly; attempts that still run are released.
    fn leave(&self, me: Credentials) -> StoreFuture<'_, ()>;

    /// Claims the version of a publication under the fence. From here on it is
    /// only rolled forward. Asking again for the same task gives the same answer.
    fn prepare_publication(
        &self,
        me: Credentials,
        attempt: AttemptId,
        manifest: Manifest,
    ) -> StoreFuture<'_, Publication>;

    /// The first file is about to appear.
    fn begin_move(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()>;

    /// All files and the manifest are in place and were read back.
    /// Repeating it is harmless.
    fn published(&self, me: Credentials, attempt: AttemptId, receipt: Value)
    -> StoreFuture<'_, ()>;

    /// Something else stands at one of the names: the publication stops for good.
    fn publication_conflict(
        &self,
        me: Credentials,
        attempt: AttemptId,
        message: String,
    ) -> StoreFuture<'_, ()>;

    /// Tells what the known-answer self-test gave and what it should have given. Gives the
    /// node's state: two right answers in a row open a node that the leader closed, a wrong
    /// one closes it.
    fn self_test(
        &self,
        me: Credentials,
        given: Digest,
        expected: Digest,
    ) -> StoreFuture<'_, NodeState>;

    /// The version that the attempt retracts is out of sight. Repeating it is harmless.
    fn retracted(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()>;

    /// Tells `on` the hints for workers, for as long as the future lives. A store without
    /// hints never calls it: a worker asks at its beat all the same.
    fn follow_work(&self, on: OnWorkHint) -> Pin<Box<dyn Future<Output = Infallible> + Send + '_>> {
        drop(on);
        Box::pin(std::future::pending())
    }
}

/// Takes a hint; see [`WorkerStore::follow_work`].
pub type OnWorkHint = Box<dyn FnMut(WorkHint) + Send>;

/// Who a worker is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The incarnation.
    pub worker: WorkerId,
    /// Its secret; the database holds only a hash.
    pub token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// What a node has, or has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub mcpu: u32,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of scratch.
    pub scratch: u64,
}

/// See [`WorkerStore::register`].
#[derive(Clone, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Name of the enrolled node.
    pub node: String,
    /// The node's secret, from [`crate::Db::enrol_node`].
    pub node_token: String,
    /// Identifies the boot of the machine.
    pub boot_id: String,
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Engine id of its slots.
    pub engine: String,
    /// All that the node gives to tasks.
    pub capacity: Resources,
    /// Shares whose probe says ok.
    pub shares_ok: Vec<ShareName>,
}

/// A new incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Who the worker is from now on.
    #[serde(flatten)]
    pub me: Credentials,
    /// The cluster that it registered with; a change means the same as being marked.
    pub incarnation: Uuid,
    /// The leader's ping.
    pub ping_seq: i64,
    /// The cluster's id, which stays when the incarnation changes: stages on shares are
    /// named after it. Identities that were kept before it existed have none.
    #[serde(default)]
    pub cluster: Uuid,
}

/// See [`WorkerStore::sync`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Who asks.
    #[serde(flatten)]
    pub me: Credentials,
    /// Every attempt that the worker holds and sends no result of here, with how
    /// far it is and its log lines since the last sync. What the database counts
    /// as running and this list and `results` do not name, it claims anew: that
    /// is how a claim whose answer was lost reaches the worker.
    pub progress: Vec<AttemptProgress>,
    /// Attempts that ended. Repeated until a verdict comes back.
    pub results: Vec<AttemptResult>,
    /// What is left on the node, results of this call already counted as ended.
    pub free: Resources,
    /// Shares whose probe says ok.
    pub shares_ok: Vec<ShareName>,
    /// Engine id of the slots.
    pub engine: String,
    /// Upper bound of new attempts; 0 for a beat that claims nothing.
    pub want: u32,
}

/// See [`SyncRequest::progress`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptProgress {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// Its latest snapshot.
    pub progress: Progress,
    /// Log lines since the last sync; the database keeps the last 200.
    #[serde(default)]
    pub lines: Vec<String>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptResult {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// How it ended.
    pub outcome: Outcome,
    /// Log lines that were not sent yet.
    #[serde(default)]
    pub log: Vec<String>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All outputs are linked into the cache.
    Ok(TaskResult),
    /// It failed; the class decides what happens next.
    Failed(Failure),
    /// Artifacts that it reads are gone or damaged: whoever made them runs again,
    /// and this task after them.
    MissingInputs(Vec<Key>),
    /// It was killed because the job is cancelled.
    Cancelled,
    /// It was given up so that the worker can end; another one takes it at once.
    Released,
}

/// What an attempt used of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds of CPU.
    pub cpu_ms: u64,
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// Highest resident memory, bytes.
    pub max_rss: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// Answer to a sync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SyncReply {
    /// The worker is alive for the cluster.
    Accepted(Accepted),
    /// The worker was marked, superseded or is unknown: it kills its work, drops
    /// its results and registers again. Results sent along were recorded as refused.
    Marked {
        /// The cluster that says so.
        incarnation: Uuid,
    },
}

/// See [`SyncReply::Accepted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The cluster; a change means the same as being marked.
    pub incarnation: Uuid,
    /// The leader's ping.
    pub ping_seq: i64,
    /// Active workers of the cluster; under 100 the beat is the short one.
    pub workers: u32,
    /// Claim no more, end when idle.
    pub drain: bool,
    /// All attempts that the database thinks this worker runs, those claimed
    /// here included.
    pub running: Vec<AttemptId>,
    /// Attempts to kill because their job is cancelled.
    pub cancels: Vec<AttemptId>,
    /// New attempts, and those of a lost answer; see [`SyncRequest::progress`].
    pub claims: Vec<Claim>,
    /// One verdict per result sent.
    pub verdicts: Vec<ResultVerdict>,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultVerdict {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// The verdict.
    pub verdict: Verdict,
}

/// See [`ResultVerdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Committed now.
    Accepted,
    /// Was committed by an earlier sync whose answer got lost.
    Duplicate,
    /// Not this worker's attempt any more; dropped and recorded.
    Refused,
}

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// Of which job.
    pub job: JobId,
    /// The task's name in the job.
    pub name: String,
    /// What to do.
    pub spec: TaskSpec,
    /// What it takes of the node.
    pub cost: Cost,
    /// All outputs of the task.
    pub outputs: Vec<Output>,
    /// The outputs that have no artifact yet: only these are made.
    pub missing: Vec<Output>,
    /// Artifacts that it reads.
    pub inputs: Vec<ArtifactRef>,
    /// For tasks that the worker runs itself (publish, copy): the results'
    /// details of the tasks that it needs, by name; the planning index is left out.
    #[serde(default)]
    pub needs: BTreeMap<String, Value>,
    /// A publication that an earlier attempt prepared: roll it forward.
    #[serde(default)]
    pub roll_forward: Option<Publication>,
}

/// An artifact that a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Its key, which is its name in the cache.
    pub key: Key,
    /// BLAKE3 of its content; checked on read.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What a publication consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Destination share.
    pub share: ShareName,
    /// Folder of the title beneath the share; versions go below as `v1`, `v2`, …
    pub target: RelPath,
    /// `archive`, `output` or `preview`.
    pub role: String,
    /// The files, in the order of their appearance.
    pub files: Vec<ManifestFile>,
}

/// One file of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name beneath the version's folder.
    pub name: RelPath,
    /// Bytes.
    pub size: u64,
    /// sha256 of the content.
    pub sha256: Digest,
    /// BLAKE3 of the content, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Digest>,
}

/// A publication as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its id.
    pub id: i64,
    /// Version beneath the target, from 1.
    pub version: u32,
    /// `prepared` and `moving` are rolled forward; `published` means that nothing
    /// is left to do, because an earlier attempt got that far or because the
    /// target's current version has the very same files.
    pub state: PublicationState,
    /// The files.
    pub manifest: Manifest,
}

/// An attempt of a worker, as the functions about publications take it.
#[derive(Serialize)]
struct OfAttempt<'a, T> {
    #[serde(flatten)]
    me: &'a Credentials,
    #[serde(flatten)]
    attempt: AttemptId,
    #[serde(flatten)]
    more: T,
}

/// A manifest with what the database compares.
#[derive(Serialize)]
struct PrepareManifest {
    manifest: Manifest,
    /// The target and, per file, the name as [`fold`] gives them: what counts as one path.
    folded_target: String,
    folded: Vec<String>,
}

impl WorkerStore for Db {
    fn register(&self, request: RegisterRequest) -> StoreFuture<'_, Registered> {
        Box::pin(async move { self.one(&sql::REGISTER, &request).await })
    }

    fn sync(&self, request: SyncRequest) -> StoreFuture<'_, SyncReply> {
        Box::pin(async move { self.one(&sql::SYNC, &request).await })
    }

    fn supersede(&self, me: Credentials, old: WorkerId) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let args = json!({ "worker": me.worker, "token": me.token, "old": old });
            self.one(&sql::SUPERSEDE, &args).await
        })
    }

    fn leave(&self, me: Credentials) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.exec(&sql::LEAVE, &me).await })
    }

    fn prepare_publication(
        &self,
        me: Credentials,
        attempt: AttemptId,
        manifest: Manifest,
    ) -> StoreFuture<'_, Publication> {
        Box::pin(async move {
            let folded = manifest.files.iter().map(|f| fold(f.name.as_str())).collect();
            let folded_target = fold(manifest.target.as_str());
            let more = PrepareManifest { manifest, folded_target, folded };
            self.one(&sql::PREPARE, &OfAttempt { me: &me, attempt, more }).await
        })
    }

    fn begin_move(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.exec(&sql::BEGIN_MOVE, &OfAttempt { me: &me, attempt, more: json!({}) }).await
        })
    }

    fn published(
        &self,
        me: Credentials,
        attempt: AttemptId,
        receipt: Value,
    ) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let more = json!({ "receipt": receipt });
            self.exec(&sql::PUBLISHED, &OfAttempt { me: &me, attempt, more }).await
        })
    }

    fn publication_conflict(
        &self,
        me: Credentials,
        attempt: AttemptId,
        message: String,
    ) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let more = json!({ "message": message });
            self.exec(&sql::CONFLICT, &OfAttempt { me: &me, attempt, more }).await
        })
    }

    fn retracted(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.exec(&sql::RETRACTED, &OfAttempt { me: &me, attempt, more: json!({}) }).await
        })
    }

    fn self_test(
        &self,
        me: Credentials,
        given: Digest,
        expected: Digest,
    ) -> StoreFuture<'_, NodeState> {
        Box::pin(async move {
            let args = json!({
                "worker": me.worker, "token": me.token, "digest": given, "expected": expected,
            });
            self.one(&sql::SELF_TEST, &args).await
        })
    }

    fn follow_work(&self, on: OnWorkHint) -> Pin<Box<dyn Future<Output = Infallible> + Send + '_>> {
        Box::pin(Db::follow_work(self, on))
    }
}
