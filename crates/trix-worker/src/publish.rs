//! Tasks that parse no media: copy, publish and retract, over the share's handle.
//!
//! They run in the worker because the fence stands in their middle: the database
//! decides who owns a version before anything becomes visible.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use trix_db::{
    Claim, Credentials, DbError, Manifest, ManifestFile, Publication as Row, WorkerStore,
};
use trix_model::digest::SourceHashes;
use trix_model::state::PublicationState;
use trix_model::{AttemptId, Failure, MediaDescription, Progress, RelPath, SharePath};
use trix_plan::task::{
    CopySource, Publish, PublishFile, PublishFrom, Retract, SourceRef, StagedFile,
};
use trix_slot::TEE_NAME;
use trix_storage::publish::MANIFEST;
use trix_storage::{
    Draft, Fence, FileProof, Item, ItemFrom, Known, Prepared, Publication, Publisher, Receipt,
    Request, SourceProof, StorageError, WritableShare, copy_source, sweep_stages,
};

use crate::attempt::{Context, End, Stop, new_stage, open_artifacts};

/// Copies a source, bit by bit, into a stage on its destination share.
pub fn copy(
    context: &Context,
    claim: &Claim,
    task: &CopySource,
    stop: &Stop,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Value, End> {
    let (share, _) = context.shares.write(&task.share)?;
    let source = context.shares.read(&task.source.location.share)?;
    let file = source.open_source(&task.source)?;
    let stage = new_stage(context, share.dir(), claim)?;
    let name: RelPath = TEE_NAME.parse().map_err(StorageError::Path)?;
    let mut meter = Meter::new("copy", task.source.size, told);
    let copied = (|| {
        let copy = stage.create_file(&name)?;
        let hashes = copy_source(file, &task.source, copy, |done| {
            meter.at(done);
            stop.check()
        })?;
        if hashes.sha256 != task.sha256 {
            return Err(StorageError::Unstable {
                object: task.source.location.to_string(),
                expected: task.sha256,
                found: hashes.sha256,
            });
        }
        let location = SharePath::new(task.share.clone(), stage.path_of(&name)?);
        Ok((StagedFile { location, size: hashes.size, sha256: hashes.sha256 }, hashes))
    })();
    match copied {
        Ok((staged, hashes)) => {
            let mut detail = json(&staged)?;
            detail["hashes"] = json(&hashes)?;
            detail["source"] = json(&task.source)?;
            Ok(detail)
        }
        Err(e) => {
            // The share may be the reason; the janitor is the next to try.
            if let Err(e) = stage.remove() {
                tracing::warn!(attempt = %claim.attempt, "leaving a stage: {}", e.with_causes());
            }
            Err(e.into())
        }
    }
}

/// Publishes files at their destination.
pub fn publish(
    context: &Context,
    claim: &Claim,
    task: &Publish,
    me: &Credentials,
    stop: &Stop,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Value, End> {
    let (share, method) = context.shares.write(&task.share)?;
    let mut fence = DatabaseFence::new(context, me, claim.attempt, stop);
    let publisher = Publisher::new(&share, method, context.stage_name(claim.attempt));
    if let Some(row) = &claim.roll_forward {
        if row.state == PublicationState::Published {
            return Ok(json(&receipt_of(&share, row)?)?);
        }
        if let Some(prepared) = prepared_before(context, claim, task, &share, row)? {
            fence.begin_move()?;
            match publisher.roll_forward(&prepared, &mut fence) {
                // Staged anew below, under the same version.
                Err(StorageError::StageLost { .. }) => {}
                done => {
                    let receipt = settle(context, done, &share, claim, &mut fence)?;
                    drop_staged(claim, task, &share);
                    return Ok(receipt);
                }
            }
        }
    }
    let request = request(context, claim, task, &share)?;
    let mut meter = Meter::new("publish", 0, told);
    let done = publisher.publish(request, &mut fence, &mut |done, total| {
        meter.total = total;
        meter.at(done);
        stop.check()
    });
    let receipt = settle(context, done, &share, claim, &mut fence)?;
    drop_staged(claim, task, &share);
    Ok(receipt)
}

/// Takes a published version out of sight, and tells the database. The files go first:
/// until the database knows, a repetition finds them gone and only tells it.
pub fn retract(
    context: &Context,
    claim: &Claim,
    task: &Retract,
    me: &Credentials,
    stop: &Stop,
) -> Result<Value, End> {
    let (share, _) = context.shares.write(&task.share)?;
    stop.check()?;
    let folder = trix_storage::publish::retract(&share, &task.target, task.version)?;
    let fence = DatabaseFence::new(context, me, claim.attempt, stop);
    fence.ask(|store| store.retracted(me.clone(), claim.attempt))?;
    Ok(serde_json::json!({ "retired": SharePath::new(task.share.clone(), folder) }))
}

/// Removes the stages of other tasks whose file is published now: it was moved, or the
/// very same one stood at its place before.
fn drop_staged(claim: &Claim, task: &Publish, share: &WritableShare) {
    for file in &task.files {
        let PublishFrom::Staged { task: by, .. } = &file.from else { continue };
        let Ok(staged) = staged_by(claim, by) else { continue };
        let path = &staged.location.path;
        let removed =
            (share.dir().unlink(path)).and_then(|_| share.dir().remove_dir(&path.parent()));
        if let Err(e) = removed {
            // There is something else in it, or the share went away: the janitor's.
            tracing::debug!(attempt = %claim.attempt, "a stage stays: {}", e.with_causes());
        }
    }
}

/// What became of a publication.
fn settle(
    context: &Context,
    done: Result<Receipt, StorageError>,
    share: &WritableShare,
    claim: &Claim,
    fence: &mut DatabaseFence<'_>,
) -> Result<Value, End> {
    let receipt = match done {
        Ok(receipt) => receipt,
        // The database said that the very same files are published already.
        Err(_) if let Some(row) = fence.finished.take() => receipt_of(share, &row)?,
        Err(e) => {
            if matches!(e, StorageError::Conflict { .. }) && fence.owned {
                fence.conflict(e.with_causes())?;
            }
            return Err(e.into());
        }
    };
    // Earlier attempts of this task staged the same files.
    drop_stages(context, share, claim);
    Ok(json(&receipt)?)
}

/// Removes this task's own stages; a failure leaves them to the janitor.
fn drop_stages(context: &Context, share: &WritableShare, claim: &Claim) {
    let cluster = context.cluster();
    let own = |entry: &trix_storage::StageEntry| {
        entry
            .attempt_of(cluster)
            .is_some_and(|a| a.task == claim.attempt.task && a.epoch <= claim.attempt.epoch)
    };
    if let Err(e) = sweep_stages(share.dir(), own) {
        tracing::warn!(attempt = %claim.attempt, "leaving stages: {}", e.with_causes());
    }
}

fn json(value: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|e| Failure::bug(format!("writing a result: {e}")))
}

/// What the results of intake and copy say, of what is needed here.
#[derive(Deserialize)]
struct Needed {
    media: Option<MediaDescription>,
    hashes: Option<SourceHashes>,
    source: Option<SourceRef>,
    staged: Option<StagedFile>,
}

impl Needed {
    fn of(claim: &Claim, task: &str) -> Option<Needed> {
        serde_json::from_value(claim.needs.get(task)?.clone()).ok()
    }

    /// That a staged file is the delivery, bit by bit.
    fn proof(self) -> Option<SourceProof> {
        let (source, hashes) = (self.source?, self.hashes?);
        Some(SourceProof { location: source.location, mtime_ns: source.mtime_ns, hashes })
    }
}

/// Where a needed task staged its file: intake says it in `staged`, copy is nothing else.
fn staged_by(claim: &Claim, task: &str) -> Result<StagedFile, Failure> {
    let direct = || serde_json::from_value(claim.needs.get(task).cloned().unwrap_or_default()).ok();
    Needed::of(claim, task).and_then(|n| n.staged).or_else(direct).ok_or_else(|| {
        let message = format!("task {task} staged nothing that could be published");
        Failure::new(
            trix_model::ErrorClass::Transient,
            trix_model::ErrorOrigin::Share,
            "stage_lost",
            message,
        )
    })
}

fn proof(claim: &Claim, task: &str) -> Option<SourceProof> {
    Needed::of(claim, task)?.proof()
}

fn media(claim: &Claim) -> Option<MediaDescription> {
    claim.needs.keys().find_map(|task| Needed::of(claim, task)?.media)
}

/// The title as people call it: the last part of its folder.
fn title(task: &Publish) -> String {
    task.target.file_name().to_owned()
}

fn request(
    context: &Context,
    claim: &Claim,
    task: &Publish,
    share: &WritableShare,
) -> Result<Request, End> {
    let mut artifacts = match claim.inputs.is_empty() {
        true => Vec::new(),
        false => open_artifacts(&context.shares.cache()?, claim)?,
    };
    let mut items = Vec::new();
    for file in &task.files {
        let (from, known, source) = match &file.from {
            PublishFrom::Artifact { key } => {
                let at = (artifacts.iter().position(|(artifact, _)| artifact.key == *key))
                    .ok_or_else(|| {
                        Failure::bug(format!("artifact {key} is not among the inputs"))
                    })?;
                let (artifact, opened) = artifacts.swap_remove(at);
                let known = Known {
                    size: Some(artifact.size),
                    sha256: None,
                    blake3: Some(artifact.digest),
                };
                (ItemFrom::File(opened), known, None)
            }
            PublishFrom::Staged { task: by, sha256 } => {
                let staged = staged_by(claim, by)?;
                let from = staged_item(claim, share, task, file, &staged)?;
                let known = Known { size: Some(staged.size), sha256: Some(*sha256), blake3: None };
                (from, known, proof(claim, by))
            }
        };
        items.push(Item { name: file.name.clone(), from, known, source });
    }
    Ok(Request {
        role: task.role.clone(),
        title: title(task),
        target: task.target.clone(),
        job: Some(claim.job),
        engine: context.engine.clone(),
        media: if task.role == "archive" { media(claim) } else { None },
        items,
    })
}

/// A staged file, or, when it was moved already, the file at its place.
fn staged_item(
    claim: &Claim,
    share: &WritableShare,
    task: &Publish,
    file: &PublishFile,
    staged: &StagedFile,
) -> Result<ItemFrom, End> {
    if share.stat(&staged.location.path)?.is_some() {
        return Ok(ItemFrom::Staged(staged.location.path.clone()));
    }
    // An earlier attempt moved it.
    if let Some(row) = &claim.roll_forward {
        let moved = place(task, file, row.version)?;
        return Ok(ItemFrom::File(share.open_read(&moved)?));
    }
    match moved_before(share, task, file, staged)? {
        Some(moved) => Ok(ItemFrom::File(share.open_read(&moved)?)),
        None => Ok(ItemFrom::Staged(staged.location.path.clone())),
    }
}

/// Where a file stands in a version.
fn place(task: &Publish, file: &PublishFile, version: u32) -> Result<RelPath, StorageError> {
    Ok(task.target.join(&format!("v{version}"))?.join(file.name.as_str())?)
}

/// The place of a staged file that was published although the database knows of no
/// publication: that was in a history which it lost when it was restored from a backup.
/// Whatever stands there is taken by its bytes alone.
fn moved_before(
    share: &WritableShare,
    task: &Publish,
    file: &PublishFile,
    staged: &StagedFile,
) -> Result<Option<RelPath>, StorageError> {
    for version in 1u32.. {
        let folder = task.target.join(&format!("v{version}"))?;
        if share.stat(&folder)?.is_none() {
            break;
        }
        let moved = place(task, file, version)?;
        if share.stat(&moved)?.is_none_or(|stat| stat.size != staged.size) {
            continue;
        }
        let mut there = share.open_read(&moved)?;
        let object = there.object().to_owned();
        let found = trix_storage::fixity::publish_digests_of(&mut there, &object)?;
        if found.sha256 == staged.sha256 {
            return Ok(Some(moved));
        }
    }
    Ok(None)
}

/// Puts together what an earlier attempt of this task prepared: the database has the
/// files, the plan has the rest, and its stage is found by the task's number.
fn prepared_before(
    context: &Context,
    claim: &Claim,
    task: &Publish,
    share: &WritableShare,
    row: &Row,
) -> Result<Option<Prepared>, End> {
    let mut files = Vec::new();
    if row.manifest.files.len() != task.files.len() {
        return Ok(None);
    }
    for (file, planned) in row.manifest.files.iter().zip(&task.files) {
        let Some(blake3) = file.blake3 else { return Ok(None) };
        let source = match &planned.from {
            PublishFrom::Staged { task: by, .. } => proof(claim, by),
            PublishFrom::Artifact { .. } => None,
        };
        let (name, size, sha256) = (file.name.clone(), file.size, file.sha256);
        files.push(FileProof { name, size, sha256, blake3, source });
    }
    let mut stages = trix_storage::stage::stages(share.dir())?;
    let cluster = context.cluster();
    stages.retain(|s| s.attempt_of(cluster).is_some_and(|a| a.task == claim.attempt.task));
    let mut staged = Vec::new();
    for file in &task.files {
        staged.push(match &file.from {
            PublishFrom::Staged { task: by, .. } => staged_by(claim, by)?.location.path,
            PublishFrom::Artifact { .. } => {
                let mut places = Vec::new();
                for stage in &stages {
                    let path = format!(".trix/stage/{}/files/{}", stage.name, file.name);
                    places.push(path.parse::<RelPath>().map_err(StorageError::Path)?);
                }
                let mut found = None;
                for place in places {
                    if share.stat(&place)?.is_some() {
                        found = Some(place);
                    }
                }
                // Without a stage it is in place already, or has to be staged anew.
                match found {
                    Some(place) => place,
                    None => {
                        let stage = context.stage_name(claim.attempt);
                        format!(".trix/stage/{stage}/files/{}", file.name)
                            .parse()
                            .map_err(StorageError::Path)?
                    }
                }
            }
        });
    }
    let publication = Publication {
        role: task.role.clone(),
        title: title(task),
        share: task.share.clone(),
        target: task.target.clone(),
        job: Some(claim.job),
        engine: context.engine.clone(),
        files,
        media: if task.role == "archive" { media(claim) } else { None },
    };
    Ok(Some(Prepared { draft: Draft { publication, staged }, version: row.version }))
}

/// The receipt of a version that is published: its manifest is the proof.
fn receipt_of(share: &WritableShare, row: &Row) -> Result<Receipt, End> {
    let manifest = &row.manifest;
    let folder =
        (manifest.target.join(&format!("v{}", row.version))).map_err(StorageError::Path)?;
    let path = folder.join(MANIFEST).map_err(StorageError::Path)?;
    let published = trix_storage::Manifest::read(share, &folder)?;
    let mut file = share.open_read(&path)?;
    let object = file.object().to_owned();
    let digests = trix_storage::fixity::publish_digests_of(&mut file, &object)?;
    Ok(Receipt {
        share: manifest.share.clone(),
        folder,
        version: row.version,
        manifest_sha256: digests.sha256,
        files: published.publication.files,
    })
}

/// The fence of the service: the database owns the versions.
struct DatabaseFence<'a> {
    store: Arc<dyn WorkerStore>,
    runtime: &'a tokio::runtime::Handle,
    me: &'a Credentials,
    attempt: AttemptId,
    stop: &'a Stop,
    pause: Duration,
    /// The version is this attempt's.
    owned: bool,
    /// The same files are published already; nothing is to be moved.
    finished: Option<Row>,
}

impl<'a> DatabaseFence<'a> {
    fn new(
        context: &'a Context,
        me: &'a Credentials,
        attempt: AttemptId,
        stop: &'a Stop,
    ) -> DatabaseFence<'a> {
        DatabaseFence {
            store: context.store.clone(),
            runtime: &context.runtime,
            me,
            attempt,
            stop,
            pause: context.times.reconnect_min,
            owned: false,
            finished: None,
        }
    }

    /// Asks until the database answers: a publication that waits is better than one
    /// that is staged again. A stop ends it.
    fn ask<T>(
        &self,
        call: impl Fn(&dyn WorkerStore) -> trix_db::worker::StoreFuture<'_, T>,
    ) -> Result<T, Failure> {
        loop {
            self.stop.check()?;
            match self.runtime.block_on(call(&*self.store)) {
                Err(e) if is_away(&e) => std::thread::sleep(self.pause),
                other => return other.map_err(Failure::from),
            }
        }
    }

    fn begin_move(&mut self) -> Result<(), Failure> {
        self.owned = true;
        self.ask(|store| store.begin_move(self.me.clone(), self.attempt))
    }

    fn conflict(&self, message: String) -> Result<(), Failure> {
        self.ask(|store| store.publication_conflict(self.me.clone(), self.attempt, message.clone()))
    }
}

fn is_away(e: &DbError) -> bool {
    e.is_unavailable()
}

impl Fence for DatabaseFence<'_> {
    fn prepare(&mut self, draft: &Draft) -> Result<Prepared, Failure> {
        let publication = &draft.publication;
        let manifest = Manifest {
            share: publication.share.clone(),
            target: publication.target.clone(),
            role: publication.role.clone(),
            files: (publication.files.iter())
                .map(|file| ManifestFile {
                    name: file.name.clone(),
                    size: file.size,
                    sha256: file.sha256,
                    blake3: Some(file.blake3),
                })
                .collect(),
        };
        let row = self.ask(|store| {
            store.prepare_publication(self.me.clone(), self.attempt, manifest.clone())
        })?;
        match row.state {
            PublicationState::Prepared | PublicationState::Moving => {
                self.begin_move()?;
                Ok(Prepared { draft: draft.clone(), version: row.version })
            }
            PublicationState::Published => {
                let failure = Failure::bug("published already");
                self.finished = Some(row);
                Err(failure)
            }
            state => Err(Failure::new(
                trix_model::ErrorClass::Deterministic,
                trix_model::ErrorOrigin::Share,
                "publish_conflict",
                format!("the publication is {state}"),
            )
            .about(&publication.target)),
        }
    }

    fn published(&mut self, receipt: &Receipt) -> Result<(), Failure> {
        let receipt = json(receipt)?;
        self.ask(|store| store.published(self.me.clone(), self.attempt, receipt.clone()))
    }
}

/// Tells progress in bytes, at most four times a second.
struct Meter<'a> {
    phase: &'static str,
    total: u64,
    last: Option<std::time::Instant>,
    told: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Meter<'a> {
    fn new(phase: &'static str, total: u64, told: &'a (dyn Fn(Progress) + Sync)) -> Meter<'a> {
        Meter { phase, total, last: None, told }
    }

    fn at(&mut self, done: u64) {
        const PACE: Duration = Duration::from_millis(250);
        if done < self.total && self.last.is_some_and(|last| last.elapsed() < PACE) {
            return;
        }
        self.last = Some(std::time::Instant::now());
        (self.told)(Progress { phase: self.phase.into(), done, total: self.total, frames: 0 });
    }
}
