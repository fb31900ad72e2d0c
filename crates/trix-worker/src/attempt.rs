//! One attempt, on a thread of its own: open the inputs, run the slot, keep what
//! it made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use rustix::fs::{AtFlags, Gid, Uid, chownat};
use rustix::io::Errno;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use trix_db::{Claim, Credentials, Outcome, ProtocolTimes, Usage, WorkerStore};
use trix_model::{AttemptId, ErrorClass, ErrorOrigin, Failure, Progress, ShareName};
use trix_plan::task::{MadeOutput, Output, SourceRef, TaskResult, TaskSpec};
use trix_slot::{InputName, Launcher, Limits, Report, SlotIo, SlotJob, TEE_NAME, stage_name};
use trix_storage::{Cache, ClusterTag, Dir, Stage, StageName, StorageError, blake3_of};

use crate::core::Event;
use crate::publish;
use crate::shares::Shares;

/// What all attempts of a worker share.
pub struct Context {
    /// The node's shares.
    pub shares: Shares,
    /// Starts slots.
    pub launcher: Launcher,
    /// Engine id of the slots.
    pub engine: String,
    /// The protocol's times.
    pub times: ProtocolTimes,
    /// User and group of the slots when the worker is root.
    pub slot_user: Option<(u32, u32)>,
    /// Where publications are fenced.
    pub store: Arc<dyn WorkerStore>,
    /// Runs the store's futures for attempts, which are threads.
    pub runtime: Handle,
    /// Takes what happens.
    pub events: UnboundedSender<Event>,
    /// The cluster that the worker is registered with. It changes only between two
    /// registrations, when nothing runs.
    pub cluster: RwLock<ClusterTag>,
}

impl Context {
    /// Name of an attempt's stage on any share.
    pub fn stage_name(&self, attempt: AttemptId) -> StageName {
        StageName::of(self.cluster(), attempt)
    }

    /// Whose stages are this worker's.
    pub fn cluster(&self) -> ClusterTag {
        *self.cluster.read().unwrap_or_else(|e| e.into_inner())
    }
}

/// Ends a running attempt from outside.
#[derive(Debug, Default)]
pub struct Stop {
    stopped: AtomicBool,
    slot: Mutex<Option<trix_slot::Control>>,
}

impl Stop {
    /// Kills the slot, or tells the attempt's thread to give up at its next step.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(slot) = &*self.slot.lock().unwrap_or_else(|e| e.into_inner()) {
            slot.cancel();
        }
    }

    /// Fails when the attempt was told to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = "the attempt was told to stop";
        Err(Failure::new(ErrorClass::Transient, ErrorOrigin::Node, "released", message))
    }

    /// From here on a stop reaches this slot.
    fn watch(&self, slot: trix_slot::Control) {
        *self.slot.lock().unwrap_or_else(|e| e.into_inner()) = Some(slot.clone());
        // A stop that came just before found no slot to kill.
        if self.check().is_err() {
            slot.cancel();
        }
    }
}

/// Starts an attempt. Its end is [`Event::Ended`].
pub fn start(context: Arc<Context>, claim: Claim, me: Credentials) -> std::io::Result<Arc<Stop>> {
    let stop = Arc::new(Stop::default());
    let for_thread = stop.clone();
    std::thread::Builder::new().name(format!("attempt-{}", claim.attempt)).spawn(move || {
        let attempt = claim.attempt;
        let begun = Instant::now();
        let work = AssertUnwindSafe(|| run(&context, &claim, &me, &for_thread));
        let (outcome, mut usage) = catch_unwind(work).unwrap_or_else(|_| {
            let failure = Failure::bug("the worker's thread of this attempt panicked");
            (Outcome::Failed(failure), Usage::default())
        });
        usage.wall_ms = begun.elapsed().as_millis() as u64;
        if let Outcome::Failed(failure) = &outcome {
            tracing::warn!(
                %attempt, task = %claim.name, class = ?failure.class, code = %failure.code,
                "attempt failed: {failure}"
            );
            if failure.origin == ErrorOrigin::Share {
                context.shares.doubt(&shares_of(&claim.spec));
            }
        }
        // Nobody listens only when the worker has ended.
        let _ = context.events.send(Event::Ended { attempt, outcome, usage });
    })?;
    Ok(stop)
}

fn shares_of(spec: &TaskSpec) -> Vec<ShareName> {
    let source = spec.source().map(|s| &s.location.share);
    source.into_iter().chain(spec.written_shares()).cloned().collect()
}

fn run(context: &Context, claim: &Claim, me: &Credentials, stop: &Stop) -> (Outcome, Usage) {
    let told = |progress: Progress| {
        let _ = context.events.send(Event::Progress(claim.attempt, progress));
    };
    let plain = |result: Result<Value, End>| match result {
        Ok(detail) => Outcome::Ok(TaskResult { outputs: Vec::new(), detail: Some(detail) }),
        Err(end) => end.into(),
    };
    match &claim.spec {
        TaskSpec::Copy(task) => {
            (plain(publish::copy(context, claim, task, stop, &told)), Usage::default())
        }
        TaskSpec::Publish(task) => {
            (plain(publish::publish(context, claim, task, me, stop, &told)), Usage::default())
        }
        TaskSpec::Retract(task) => {
            (plain(publish::retract(context, claim, task, me, stop)), Usage::default())
        }
        _ => in_slot(context, claim, stop),
    }
}

/// How an attempt ends early.
pub enum End {
    /// It failed.
    Failed(Failure),
    /// Artifacts that it reads are gone or damaged.
    Missing(Vec<trix_model::Key>),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

impl From<StorageError> for End {
    fn from(e: StorageError) -> End {
        End::Failed(e.into())
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Outcome {
        match end {
            End::Failed(failure) => Outcome::Failed(failure),
            End::Missing(keys) => Outcome::MissingInputs(keys),
        }
    }
}

/// A new stage for this attempt. One that exists is of an earlier start of the same
/// attempt that never came to work: nobody else may use its name.
pub fn new_stage(context: &Context, root: &Dir, claim: &Claim) -> Result<Stage, StorageError> {
    let name = context.stage_name(claim.attempt);
    match Stage::create(root, &name) {
        Err(StorageError::Conflict { .. }) => {
            Stage::open(root, &name)?.remove()?;
            Stage::create(root, &name)
        }
        other => other,
    }
}

/// Opens artifacts after reading and comparing them; all that are gone or damaged
/// are named at once, so that their makers run side by side.
pub fn open_artifacts(
    cache: &Cache,
    claim: &Claim,
) -> Result<Vec<(trix_db::ArtifactRef, trix_storage::SourceFile)>, End> {
    let (mut opened, mut missing) = (Vec::new(), Vec::new());
    for artifact in &claim.inputs {
        match cache.get_verified(&artifact.key, Some(artifact.digest))? {
            Some(found) => {
                cache.touch(&artifact.key)?;
                opened.push((*artifact, found.into_file()));
            }
            None => missing.push(artifact.key),
        }
    }
    if missing.is_empty() { Ok(opened) } else { Err(End::Missing(missing)) }
}

fn in_slot(context: &Context, claim: &Claim, stop: &Stop) -> (Outcome, Usage) {
    let mut usage = Usage::default();
    let outcome = match work_in_slot(context, claim, stop, &mut usage) {
        Ok(result) => Outcome::Ok(result),
        Err(end) => end.into(),
    };
    let outcome = match (outcome, claim.spec.source()) {
        // What a changed source makes of a decoder says nothing about the source
        // that the job was planned with, and neither does a success.
        (Outcome::Ok(_) | Outcome::Failed(_), Some(source))
            if let Some(changed) = changed(context, source) =>
        {
            Outcome::Failed(changed)
        }
        (outcome, _) => outcome,
    };
    (outcome, usage)
}

fn changed(context: &Context, source: &SourceRef) -> Option<Failure> {
    let share = context.shares.read(&source.location.share).ok()?;
    match share.open_source(source) {
        Err(e @ StorageError::Changed { .. }) => Some(e.into()),
        _ => None,
    }
}

fn work_in_slot(
    context: &Context,
    claim: &Claim,
    stop: &Stop,
    usage: &mut Usage,
) -> Result<TaskResult, End> {
    let cache = context.shares.cache()?;

    // Warm: an attempt whose result was refused or lost left its outputs here.
    let mut made = Vec::new();
    let mut wanted = Vec::new();
    for output in &claim.missing {
        match cache.get_verified(&output.key, None)? {
            Some(found) => made.push((output, found)),
            None => wanted.push(output.clone()),
        }
    }
    let mut outputs: Vec<MadeOutput> = made
        .iter()
        .filter_map(|(output, found)| Some(made_of(output, found.digest()?, found.size())))
        .collect();
    if wanted.is_empty()
        && let Some(detail) = kept_detail(&claim.spec, &claim.outputs, &cache)?
    {
        tracing::info!(attempt = %claim.attempt, task = %claim.name, "its outputs are in the cache");
        return Ok(TaskResult { outputs, detail: with_source(&claim.spec, detail) });
    }
    if wanted.is_empty() || has_detail(&claim.spec) {
        // The result beside the outputs has to be made, and comes from the whole run.
        wanted = claim.outputs.clone();
        outputs.clear();
    }
    stop.check()?;

    let inputs = open_inputs(context, claim, &cache)?;
    let cache_stage = new_stage(context, cache.dir(), claim)?;
    let tee = match &claim.spec {
        TaskSpec::Intake(task) => match &task.tee {
            Some(share) => {
                let root = context.shares.write(share)?.0;
                Some((share.clone(), new_stage(context, root.dir(), claim)?))
            }
            None => None,
        },
        _ => None,
    };
    let done = slot(context, claim, stop, usage, wanted, inputs, &cache_stage, tee.as_ref())
        .and_then(|(wanted, result)| {
            for output in &wanted {
                outputs.push(commit(context, &cache, &cache_stage, output, &result)?);
            }
            Ok(TaskResult { outputs, detail: with_source(&claim.spec, result.detail) })
        });
    // What was linked into the cache stays there; the rest is of no use to anyone.
    if let Err(e) = cache_stage.remove() {
        tracing::warn!(attempt = %claim.attempt, "leaving a stage for the janitor: {}", e.with_causes());
    }
    if done.is_err()
        && let Some((_, stage)) = tee
        && let Err(e) = stage.remove()
    {
        tracing::warn!(attempt = %claim.attempt, "leaving a stage for the janitor: {}", e.with_causes());
    }
    done
}

fn made_of(output: &Output, digest: trix_model::Digest, size: u64) -> MadeOutput {
    MadeOutput { name: output.name.clone(), key: output.key, digest, size }
}

/// Tasks whose result says more than their outputs.
fn has_detail(spec: &TaskSpec) -> bool {
    matches!(spec, TaskSpec::Intake(_) | TaskSpec::Verify(_))
}

/// The result of a task whose outputs all exist; `None` when only a run can tell it.
fn kept_detail(
    spec: &TaskSpec,
    outputs: &[Output],
    cache: &Cache,
) -> Result<Option<Option<Value>>, StorageError> {
    /// A result is JSON with a planning index in it at most.
    const LIMIT: u64 = 64 << 20;
    let name = match spec {
        TaskSpec::Intake(_) => "result",
        TaskSpec::Verify(_) => "report",
        _ => return Ok(Some(None)),
    };
    let Some(output) = outputs.iter().find(|o| o.name == name) else { return Ok(None) };
    if cache.get_verified(&output.key, None)?.is_none() {
        return Ok(None);
    }
    let bytes = cache.dir().read_small(&cache.path_of(&output.key)?, LIMIT)?;
    Ok(serde_json::from_slice(&bytes).ok().map(Some))
}

/// Says in intake's result which file it is about, with its time: the archive's
/// manifest proves it with that.
fn with_source(spec: &TaskSpec, mut detail: Option<Value>) -> Option<Value> {
    if let (TaskSpec::Intake(task), Some(Value::Object(detail))) = (spec, &mut detail) {
        detail.insert("source".to_owned(), serde_json::json!(task.source));
    }
    detail
}

fn open_inputs(
    context: &Context,
    claim: &Claim,
    cache: &Cache,
) -> Result<Vec<(InputName, std::fs::File)>, End> {
    let mut inputs = Vec::new();
    if let Some(source) = claim.spec.source() {
        let share = context.shares.read(&source.location.share)?;
        inputs.push((InputName::Source, share.open_source(source)?.into_fd().into()));
    }
    if let TaskSpec::Intake(task) = &claim.spec {
        for (n, sidecar) in task.sidecars.iter().enumerate() {
            let share = context.shares.read(&sidecar.location.share)?;
            match share.open_read(&sidecar.location.path) {
                Ok(file) => inputs.push((InputName::Sidecar(n as u32), file.into_fd().into())),
                // A sidecar that is gone or is no file is a finding of intake.
                Err(e) if !e.is_share_away() => {
                    tracing::info!(attempt = %claim.attempt, "sidecar: {}", e.with_causes());
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    for (artifact, file) in open_artifacts(cache, claim)? {
        inputs.push((InputName::Artifact(artifact.key), file.into_fd().into()));
    }
    Ok(inputs)
}

#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one attempt; a struct would have one use"
)]
fn slot(
    context: &Context,
    claim: &Claim,
    stop: &Stop,
    usage: &mut Usage,
    wanted: Vec<Output>,
    inputs: Vec<(InputName, std::fs::File)>,
    cache_stage: &Stage,
    tee: Option<&(ShareName, Stage)>,
) -> Result<(Vec<Output>, TaskResult), End> {
    let stages: Vec<&Dir> =
        [cache_stage.dir()].into_iter().chain(tee.map(|(_, stage)| stage.dir())).collect();
    let tee_location =
        tee.map(|(share, stage)| trix_model::SharePath::new(share.clone(), stage.path().clone()));
    let user = give_away(&stages, context.slot_user);
    let mut limits = Limits::of(&claim.spec, &claim.cost, context.times.stall, user);
    // x265 hangs where an allocation fails: where a memory group ends it first, this one is out
    // of its way.
    if context.launcher.holds_memory() {
        limits.data = limits.data.saturating_mul(2);
    }
    let job = SlotJob {
        attempt: claim.attempt,
        task: claim.name.clone(),
        spec: claim.spec.clone(),
        outputs: wanted.clone(),
        inputs: Vec::new(),
        tee: tee_location.clone(),
        limits,
        worker_pid: 0,
    };
    let fd_of = |dir: &Dir| {
        std::os::fd::AsFd::as_fd(dir).try_clone_to_owned().map_err(|e| {
            let message = format!("duplicating a stage's descriptor: {e}");
            Failure::new(ErrorClass::Resource, ErrorOrigin::Node, "node_limit", message)
        })
    };
    let io = SlotIo {
        inputs,
        cache_stage: fd_of(cache_stage.dir())?,
        tee_stage: tee.map(|(_, stage)| fd_of(stage.dir())).transpose()?,
    };

    let running = context.launcher.start().map_err(|e| Failure::from(&e))?;
    stop.watch(running.control());
    let attempt = claim.attempt;
    tracing::debug!(%attempt, task = %claim.name, pid = running.pid(), "slot started");
    let ended = running.run(job, io, &context.engine, context.times.stall, &mut |report| {
        // Nobody listens only when the worker has ended.
        let _ = match report {
            Report::Progress(p) => context.events.send(Event::Progress(attempt, p.clone())),
            Report::Log(line) => context.events.send(Event::Line(attempt, line.to_owned())),
            Report::Boxed(boxed) => {
                for missing in &boxed.missing {
                    tracing::debug!(%attempt, measure = ?missing.measure, reason = %missing.reason, "not boxed");
                }
                Ok(())
            }
        };
    });
    usage.cpu_ms = ended.usage.cpu_ms;
    usage.max_rss = ended.usage.peak_ram;
    let mut result = match ended.outcome {
        trix_slot::Outcome::Done(result) => result,
        trix_slot::Outcome::Failed(failure) => return Err(failure.into()),
        trix_slot::Outcome::Cancelled => {
            stop.check()?;
            return Err(Failure::bug("a slot was cancelled and its attempt was not").into());
        }
    };
    // Where the tee lies is the worker's word: the slot has seen hostile bytes.
    if let Some(staged) = result.detail.as_mut().and_then(|d| d.get_mut("staged"))
        && !staged.is_null()
    {
        match &tee_location {
            Some(stage) => {
                let file = stage.path.join(TEE_NAME).map_err(|e| Failure::bug(e.to_string()))?;
                let location = trix_model::SharePath::new(stage.share.clone(), file);
                staged["location"] = location.to_string().into();
            }
            None => *staged = Value::Null,
        }
    }
    if let Some((_, stage)) = tee {
        take_back(stage.dir(), TEE_NAME);
    }
    Ok((wanted, result))
}

/// Gives the stages to the slots' user. A share that has no owners, or another idea of
/// them, refuses (CIFS, sshfs): then the slot keeps the worker's user, without its
/// capabilities, and all stages must stay the worker's.
fn give_away(stages: &[&Dir], user: Option<(u32, u32)>) -> Option<(u32, u32)> {
    let (uid, gid) = user.filter(|_| rustix::process::geteuid().is_root())?;
    let owner = |dir: &Dir, uid: u32, gid: u32| {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(dir, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
    };
    for (n, dir) in stages.iter().enumerate() {
        if let Err(e) = owner(dir, uid, gid) {
            tracing::debug!(error = %e, "a share keeps its owner; the slot keeps the worker's user");
            for dir in &stages[..n] {
                if let Err(e) = owner(dir, 0, 0) {
                    tracing::warn!(error = %e, "taking a stage back");
                }
            }
            return None;
        }
    }
    Some((uid, gid))
}

/// Makes a file of a stage the worker's own again, so that no later slot of the same
/// user could change it. Shares without owners refuse, and need it not.
fn take_back(stage: &Dir, name: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = (Some(Uid::ROOT), Some(Gid::ROOT));
    match chownat(stage, name, root.0, root.1, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) | Err(Errno::NOENT | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {}
        Err(e) => tracing::warn!(error = %e, name, "taking a staged file back"),
    }
}

/// Links an output into the cache, after comparing it with what the slot said of it.
fn commit(
    context: &Context,
    cache: &Cache,
    stage: &Stage,
    output: &Output,
    result: &TaskResult,
) -> Result<MadeOutput, End> {
    let crash = |code: &str, message: String| {
        End::Failed(
            Failure::new(ErrorClass::Crash, ErrorOrigin::Engine, code, message).about(output.key),
        )
    };
    let said = (result.outputs.iter())
        .find(|made| made.key == output.key)
        .ok_or_else(|| crash("output_missing", format!("the slot did not make {}", output.name)))?;
    let name = (stage_name(output).parse())
        .map_err(|e: trix_model::PathError| Failure::bug(format!("naming an output: {e}")))?;
    take_back(stage.dir(), &stage_name(output));
    let mut file = stage.open_read(&name)?;
    let object = file.object().to_owned();
    let (digest, size) = blake3_of(&mut file, &object)?;
    if (digest, size) != (said.digest, said.size) {
        let message = format!(
            "{} has {size} bytes with BLAKE3 {digest}; the slot said {} bytes with {}",
            output.name, said.size, said.digest
        );
        return Err(crash("output_differs", message));
    }
    let committed = cache.commit(stage, &name, &output.key, digest, None)?;
    if committed.digest != digest {
        tracing::warn!(
            key = %output.key, ours = %digest, first = %committed.digest, engine = %context.engine,
            "two results of one key differ; the first stands"
        );
    }
    Ok(made_of(output, committed.digest, committed.size))
}
