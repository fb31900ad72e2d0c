//! Publication: the only thing that makes anything visible on a destination.
//!
//! Stage → sync → re-read through a fresh open and compare → prepare under the fence → move to
//! write-once names without replacing → manifest last → re-read it → published under the fence.
//! No step relies on atomic replacement: on CIFS, renaming over a file that a reader has open
//! can delete it on the server. A name that exists is either the same bytes (then this was done
//! before) or a conflict; nothing is ever overwritten. Every step may be repeated, by anyone.

use std::io::Write;
use std::str::FromStr;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use trix_model::digest::SourceHashes;
use trix_model::path::fold;
use trix_model::{Digest, Failure, JobId, MediaDescription, RelPath, ShareName, SharePath};
use uuid::Uuid;

use crate::dir::{Dir, SourceFile};
use crate::error::{Result, StorageError};
use crate::fixity::{PublishDigests, PublishHasher, drain, publish_digests_of};
use crate::names::refuse_collisions;
use crate::share::WritableShare;
use crate::stage::{Stage, StageName, is_staged, refuse_own};

/// Name of the manifest beneath a version's folder.
pub const MANIFEST: &str = "manifest.json";
/// Schema of the manifest.
pub const MANIFEST_SCHEMA: &str = "trix.manifest/1";
/// Two movers of one publication may clear each other's markers; so often it is tried again.
const MARKER_TRIES: u32 = 16;
/// Manifests are read whole; a larger one is not ours.
const MANIFEST_LIMIT: u64 = 64 << 20;

/// How a file gets its final name without replacing one; found by [`Capabilities::probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveMethod {
    /// `link`, then `unlink` of the staged name: sshfs, CIFS on Samba, all local file systems.
    Link,
    /// `renameat2` with no-replace: servers without hard links.
    RenameNoReplace,
    /// An exclusive marker, a look, and a plain rename: file systems with neither.
    MarkerRename,
}

/// What a share can do, found by trying at enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// How to move.
    pub move_method: MoveMethod,
    /// `Case` and `case` are two files.
    pub case_sensitive: bool,
}

/// One file as it is published, with all that proves it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProof {
    /// Name beneath the version's folder.
    pub name: RelPath,
    /// Bytes.
    pub size: u64,
    /// sha256.
    pub sha256: Digest,
    /// BLAKE3.
    pub blake3: Digest,
    /// The delivery that it is a bit-exact copy of; archive copies have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceProof>,
}

/// The delivered file as intake read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProof {
    /// Where it was delivered.
    pub location: SharePath,
    /// Its modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// sha256, md5, xxh3-128 and size.
    pub hashes: SourceHashes,
}

/// What is published, without its version: the same plan gives the same one, so that a repeated
/// attempt is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// `archive`, `output` or `preview`.
    pub role: String,
    /// The title, as people call it.
    pub title: String,
    /// Destination share.
    pub share: ShareName,
    /// Folder of the title on it.
    pub target: RelPath,
    /// The job, in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Engine that made the files.
    pub engine: String,
    /// The files, in the order of their appearance.
    pub files: Vec<FileProof>,
    /// Description of the delivered media; archive copies have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaDescription>,
}

/// A publication whose files are staged and compared. It is what the database keeps, and all
/// that anyone needs to finish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// What is published.
    pub publication: Publication,
    /// Where each of its files is staged, beneath the share's root, in the same order.
    pub staged: Vec<RelPath>,
}

/// A publication that owns its version. From here it is only rolled forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The draft that was prepared.
    pub draft: Draft,
    /// Its version, from 1.
    pub version: u32,
}

/// `manifest.json`: the last file to appear, and the proof of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: String,
    /// Version of the target.
    pub version: u32,
    /// What was published.
    #[serde(flatten)]
    pub publication: Publication,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Share.
    pub share: ShareName,
    /// The version's folder beneath its root.
    pub folder: RelPath,
    /// Version.
    pub version: u32,
    /// sha256 of `manifest.json`.
    pub manifest_sha256: Digest,
    /// Files beneath `folder`.
    pub files: Vec<FileProof>,
}

/// Decides who owns which version: the database in the service, [`FolderFence`] in one process.
/// Each answer may be lost, so each call may come twice and must then say the same.
pub trait Fence {
    /// A publication that this task prepared before, in this or an earlier epoch.
    fn begun(&mut self) -> Result<Option<Prepared>, Failure> {
        Ok(None)
    }

    /// Takes the next version of the target for the draft, and refuses if this attempt is no
    /// longer the task's or if the names are taken. A publication equal to one that is prepared
    /// or published already gets that one's version.
    fn prepare(&mut self, draft: &Draft) -> Result<Prepared, Failure>;

    /// Records that all files and the manifest are in place.
    fn published(&mut self, receipt: &Receipt) -> Result<(), Failure>;
}

/// What is known of a file before it is staged. What is known is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Bytes.
    pub size: Option<u64>,
    /// sha256, from verification or intake.
    pub sha256: Option<Digest>,
    /// BLAKE3, the artifact's digest.
    pub blake3: Option<Digest>,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub enum ItemFrom {
    /// An opened artifact (or any file), which is copied into the stage.
    File(SourceFile),
    /// A file that another task staged on the same share, beneath its root.
    Staged(RelPath),
}

/// A file to publish.
#[derive(Debug)]
pub struct Item {
    /// Name beneath the version's folder.
    pub name: RelPath,
    /// Its bytes.
    pub from: ItemFrom,
    /// What they must be.
    pub known: Known,
    /// For bit-exact copies: the delivery.
    pub source: Option<SourceProof>,
}

/// All that one publish task asks for.
#[derive(Debug)]
pub struct Request {
    /// `archive`, `output` or `preview`.
    pub role: String,
    /// The title, as people call it.
    pub title: String,
    /// Folder of the title; versions go beneath it as `v1`, `v2`, ….
    pub target: RelPath,
    /// The job, in the service.
    pub job: Option<JobId>,
    /// Engine that made the files.
    pub engine: String,
    /// Description of the delivered media, for archive copies.
    pub media: Option<MediaDescription>,
    /// Files in the order of their appearance.
    pub items: Vec<Item>,
}

/// Bytes done and in all, while files are staged and compared. An error ends the publication,
/// which is possible until it is prepared; from then on nobody is asked.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), Failure>;

/// One publisher: a destination share, how to move there, and a stage of its own.
#[derive(Debug)]
pub struct Publisher<'a> {
    share: &'a WritableShare,
    method: MoveMethod,
    stage: StageName,
}

impl Draft {
    /// sha256 over the publication: equal publications have equal hashes.
    pub fn hash(&self) -> Result<Digest> {
        let bytes = to_json(&self.publication, "the publication")?;
        Ok(Digest(sha2::Sha256::digest(&bytes).into()))
    }
}

impl Publication {
    /// The folder of a version beneath the share's root.
    pub fn folder(&self, version: u32) -> Result<RelPath> {
        Ok(self.target.join(&format!("v{version}"))?)
    }
}

impl Manifest {
    /// The manifest's bytes: indented JSON, the same for the same publication.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        to_json(self, MANIFEST)
    }

    /// Reads the manifest of a published version.
    pub fn read(share: &crate::share::Share, folder: &RelPath) -> Result<Manifest> {
        let path = folder.join(MANIFEST)?;
        let bytes = share.read_small(&path, MANIFEST_LIMIT)?;
        serde_json::from_slice(&bytes).map_err(|source| StorageError::Document {
            object: share.location(&path).to_string(),
            source,
        })
    }
}

fn to_json(value: &impl Serialize, object: &str) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| StorageError::Document { object: object.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl<'a> Publisher<'a> {
    /// `stage` is this attempt's; it is made when it is needed and removed when all is published.
    pub fn new(share: &'a WritableShare, method: MoveMethod, stage: StageName) -> Publisher<'a> {
        Publisher { share, method, stage }
    }

    /// Publishes. If the task prepared a publication before, that one is rolled forward instead,
    /// and staged again only if its stage is gone.
    pub fn publish(
        &self,
        request: Request,
        fence: &mut dyn Fence,
        progress: OnProgress<'_>,
    ) -> Result<Receipt> {
        if let Some(prepared) = fence.begun().map_err(StorageError::Refused)? {
            match self.roll_forward(&prepared, fence) {
                Err(StorageError::StageLost { .. }) => {}
                other => return other,
            }
        }
        let draft = match self.stage_all(request, progress) {
            Ok(draft) => draft,
            Err(e) => {
                self.drop_stage();
                return Err(e);
            }
        };
        // From here the stage stays whatever happens: the answer of `prepare` may be lost, and
        // then someone else rolls this stage forward.
        let mut prepared = fence.prepare(&draft).map_err(StorageError::Refused)?;
        // An equal publication of another attempt may be staged elsewhere, or be moved already;
        // this stage has the same bytes and is certainly there.
        if prepared.draft.publication != draft.publication {
            return Err(StorageError::Conflict {
                object: self.share.dir().object(&draft.publication.folder(prepared.version)?),
                reason: "the fence gave the version of another publication".to_owned(),
            });
        }
        prepared.draft = draft;
        self.roll_forward(&prepared, fence)
    }

    /// Finishes a prepared publication: moves what is not moved, writes the manifest, reports.
    /// The stage may be of another attempt. [`StorageError::StageLost`] if a file is neither
    /// staged nor in place.
    pub fn roll_forward(&self, prepared: &Prepared, fence: &mut dyn Fence) -> Result<Receipt> {
        let Prepared { draft, version } = prepared;
        let publication = &draft.publication;
        let dir = self.share.dir();
        let folder = publication.folder(*version)?;
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            version: *version,
            publication: publication.clone(),
        };
        let manifest_bytes = manifest.to_bytes()?;
        let manifest_sha256 = Digest(sha2::Sha256::digest(&manifest_bytes).into());
        let owner = format!("{manifest_sha256}");

        if draft.staged.len() != publication.files.len() {
            return Err(StorageError::Conflict {
                object: dir.object(&folder),
                reason: "the draft names another number of staged files than of files".to_owned(),
            });
        }
        // Moving takes a name away, so nothing is moved that could be visible.
        draft.staged.iter().try_for_each(|path| self.refuse_unstaged(path))?;
        dir.make_dirs(&folder)?;
        let mut folders = vec![folder.clone()];
        for (proof, staged) in publication.files.iter().zip(&draft.staged) {
            let to = folder.join(proof.name.as_str())?;
            let parent = to.parent();
            if !folders.contains(&parent) {
                dir.make_dirs(&parent)?;
                folders.push(parent);
            }
            self.place(staged, &to, proof, &owner)?;
        }
        for made in folders.iter().rev() {
            dir.sync_dir(made)?;
        }

        let to = folder.join(MANIFEST)?;
        self.place_manifest(&manifest_bytes, &to, &owner)?;
        // Up to the root: an attempt that died may have made the folders and not synced them.
        let mut above = folder.clone();
        loop {
            dir.sync_dir(&above)?;
            if above.is_root() {
                break;
            }
            above = above.parent();
        }

        let receipt = Receipt {
            share: publication.share.clone(),
            folder,
            version: *version,
            manifest_sha256,
            files: publication.files.clone(),
        };
        fence.published(&receipt).map_err(StorageError::Refused)?;
        self.clear_up(&receipt, &owner);
        Ok(receipt)
    }

    /// Steps 1 and 2: copies into the stage, syncs, re-reads, compares.
    fn stage_all(&self, request: Request, progress: OnProgress<'_>) -> Result<Draft> {
        let dir = self.share.dir();
        let names: Vec<&str> = request.items.iter().map(|i| i.name.as_str()).collect();
        refuse_collisions(names.iter().copied().chain([MANIFEST]))?;
        refuse_own(&request.target)?;
        let mut copies = 0u64;
        let mut total = 0u64;
        for item in &request.items {
            refuse_own(&item.name)?;
            if item.name.is_root() {
                return Err(trix_model::PathError::Component(String::new()).into());
            }
            let size = match &item.from {
                ItemFrom::File(file) => {
                    copies += file.size();
                    2 * file.size()
                }
                ItemFrom::Staged(path) => {
                    self.refuse_unstaged(path)?;
                    match dir.stat(path)? {
                        Some(stat) => stat.size,
                        None => return Err(StorageError::StageLost { object: dir.object(path) }),
                    }
                }
            };
            total += size;
        }
        let free = dir.space()?.free;
        if free < copies {
            return Err(StorageError::NoSpace {
                object: dir.object(&RelPath::root()),
                need: copies,
                free,
            });
        }

        let mut done = 0u64;
        let mut advance = |bytes: usize| {
            done += bytes as u64;
            progress(done, total).map_err(StorageError::Refused)
        };
        let mut stage = None;
        let mut files = Vec::new();
        let mut staged = Vec::new();
        for item in request.items {
            let (path, copied) = match item.from {
                ItemFrom::Staged(path) => (path, None),
                ItemFrom::File(mut file) => {
                    let stage = match &stage {
                        Some(stage) => stage,
                        None => stage.insert(self.open_stage()?),
                    };
                    let inner = "files".parse::<RelPath>()?.join(item.name.as_str())?;
                    let digests = copy_in(stage, &mut file, &inner, &mut advance)?;
                    check_known(file.object(), &item.known, &digests)?;
                    (stage.path_of(&inner)?, Some(digests))
                }
            };
            let digests = reread(dir, &path, &mut advance)?;
            check_known(&dir.object(&path), &item.known, &digests)?;
            if let Some(copied) = copied
                && copied != digests
            {
                return Err(StorageError::Damaged {
                    object: dir.object(&path),
                    reason: format!(
                        "sha256 {} was written and {} is read back",
                        copied.sha256, digests.sha256
                    ),
                });
            }
            if let Some(source) = &item.source
                && source.hashes.sha256 != digests.sha256
            {
                return Err(StorageError::Damaged {
                    object: dir.object(&path),
                    reason: format!(
                        "its sha256 is {} and the delivery's {}",
                        digests.sha256, source.hashes.sha256
                    ),
                });
            }
            files.push(FileProof {
                name: item.name,
                size: digests.size,
                sha256: digests.sha256,
                blake3: digests.blake3,
                source: item.source,
            });
            staged.push(path);
        }
        Ok(Draft {
            publication: Publication {
                role: request.role,
                title: request.title,
                share: self.share.name().clone(),
                target: request.target,
                job: request.job,
                engine: request.engine,
                files,
                media: request.media,
            },
            staged,
        })
    }

    fn refuse_unstaged(&self, path: &RelPath) -> Result<()> {
        if is_staged(path) {
            return Ok(());
        }
        Err(StorageError::Conflict {
            object: self.share.dir().object(path),
            reason: "it was given as a staged file and lies in no stage".to_owned(),
        })
    }

    fn open_stage(&self) -> Result<Stage> {
        Stage::open_or_create(self.share.dir(), &self.stage)
    }

    /// Step 4 for one file.
    fn place(&self, staged: &RelPath, to: &RelPath, proof: &FileProof, owner: &str) -> Result<()> {
        let dir = self.share.dir();
        if dir.stat(to)?.is_none() {
            match move_new(dir, self.method, staged, to, owner) {
                Ok(()) => {
                    // After `link` the staged name is left; after a rename there is none.
                    dir.unlink(staged)?;
                    return Ok(());
                }
                // Another mover, or this one before its answer was lost, was here.
                Err(StorageError::Conflict { .. }) => {}
                Err(e) if e.is_not_found() => {
                    if dir.stat(to)?.is_none() {
                        return Err(StorageError::StageLost { object: dir.object(staged) });
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let mut there = dir.open_read(to)?;
        there.advise_uncached();
        let conflict =
            |reason: String| Err(StorageError::Conflict { object: dir.object(to), reason });
        if there.size() != proof.size {
            return conflict(format!("it has {} bytes instead of {}", there.size(), proof.size));
        }
        let found = publish_digests_of(&mut there, &dir.object(to))?;
        if (found.size, found.sha256) != (proof.size, proof.sha256) {
            return conflict(format!("its sha256 is {} instead of {}", found.sha256, proof.sha256));
        }
        dir.unlink(staged)?;
        Ok(())
    }

    /// Step 5: the manifest, last, and re-read.
    fn place_manifest(&self, bytes: &[u8], to: &RelPath, owner: &str) -> Result<()> {
        let dir = self.share.dir();
        if dir.stat(to)?.is_none() {
            let stage = self.open_stage()?;
            let name: RelPath = MANIFEST.parse()?;
            stage.dir().unlink(&name)?;
            let mut file = stage.create_file(&name)?;
            file.write_all(bytes)
                .map_err(|e| StorageError::io("writing", file.object().to_owned(), e))?;
            file.sync()?;
            file.advise_uncached();
            drop(file);
            let staged = stage.path_of(&name)?;
            // Compared before it is shown, as the files were: a manifest that is torn and
            // visible could not be mended without overwriting.
            compare_manifest(dir, &staged, bytes)?;
            match move_new(dir, self.method, &staged, to, owner) {
                Ok(()) | Err(StorageError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
            dir.unlink(&staged)?;
        }
        compare_manifest(dir, to, bytes)
    }

    /// What is left of the stage and of markers goes. It is no failure of the publication if
    /// something stays: the janitor takes it.
    fn clear_up(&self, receipt: &Receipt, owner: &str) {
        if self.method == MoveMethod::MarkerRename {
            let names = receipt.files.iter().map(|f| f.name.as_str()).chain([MANIFEST]);
            let cleared = names.into_iter().try_for_each(|name| {
                clear_marker(self.share.dir(), &receipt.folder.join(name)?, owner)
            });
            self.warn("a marker", cleared);
        }
        self.drop_stage();
    }

    fn drop_stage(&self) {
        let removed = match Stage::open(self.share.dir(), &self.stage) {
            Ok(stage) => stage.remove(),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        };
        self.warn("a stage", removed);
    }

    fn warn(&self, what: &str, removed: Result<()>) {
        if let Err(e) = removed {
            tracing::warn!(
                share = %self.share.name(),
                stage = %self.stage,
                error = %e.with_causes(),
                "{what} could not be removed; it is left to the janitor"
            );
        }
    }
}

fn compare_manifest(dir: &Dir, path: &RelPath, bytes: &[u8]) -> Result<()> {
    let found = dir.read_small(path, MANIFEST_LIMIT)?;
    if found == bytes {
        return Ok(());
    }
    Err(StorageError::Conflict {
        object: dir.object(path),
        reason: "it is the manifest of another publication".to_owned(),
    })
}

fn copy_in(
    stage: &Stage,
    file: &mut SourceFile,
    name: &RelPath,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<PublishDigests> {
    // A leftover of this very attempt, if any: nobody else writes here.
    stage.dir().unlink(name)?;
    let mut copy = stage.create_file(name)?;
    let mut hasher = PublishHasher::new();
    file.advise_sequential();
    let object = file.object().to_owned();
    drain(file, &object, |bytes| {
        hasher.update(bytes);
        copy.write_all(bytes)
            .map_err(|e| StorageError::io("writing", copy.object().to_owned(), e))?;
        advance(bytes.len())
    })?;
    copy.sync()?;
    copy.advise_uncached();
    Ok(hasher.finish())
}

fn reread(
    dir: &Dir,
    path: &RelPath,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<PublishDigests> {
    let mut file = match dir.open_read(path) {
        Err(e) if e.is_not_found() => {
            return Err(StorageError::StageLost { object: dir.object(path) });
        }
        other => other?,
    };
    file.advise_uncached();
    let object = file.object().to_owned();
    let mut hasher = PublishHasher::new();
    drain(&mut file, &object, |bytes| {
        hasher.update(bytes);
        advance(bytes.len())
    })?;
    Ok(hasher.finish())
}

fn check_known(object: &str, known: &Known, found: &PublishDigests) -> Result<()> {
    let differs = |what: &str, wanted: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        Err(StorageError::Damaged {
            object: object.to_owned(),
            reason: format!("its {what} is {is} and should be {wanted}"),
        })
    };
    match known {
        Known { size: Some(n), .. } if *n != found.size => differs("size", n, &found.size),
        Known { sha256: Some(d), .. } if *d != found.sha256 => differs("sha256", d, &found.sha256),
        Known { blake3: Some(d), .. } if *d != found.blake3 => differs("BLAKE3", d, &found.blake3),
        _ => Ok(()),
    }
}

/// Gives `from` the new name `to`; [`StorageError::Conflict`] if that is taken. With
/// [`MoveMethod::Link`] the old name stays.
fn move_new(
    dir: &Dir,
    method: MoveMethod,
    from: &RelPath,
    to: &RelPath,
    owner: &str,
) -> Result<()> {
    match method {
        MoveMethod::Link => match dir.link(from, dir, to) {
            // A share that links may still refuse to link this file: another's, with
            // `fs.protected_hardlinks`, or one with too many names.
            Err(e) if lacks(&e) => dir.rename_no_replace(from, dir, to),
            other => other,
        },
        MoveMethod::RenameNoReplace => dir.rename_no_replace(from, dir, to),
        MoveMethod::MarkerRename => marker_rename(dir, from, to, owner),
    }
}

/// The marker's folder is named after the destination and the marker after the publication, so
/// that a marker left by a crash never stops the same publication from being finished, and
/// there is no moment at which it exists without saying whose it is. The caller clears it.
fn marker_rename(dir: &Dir, from: &RelPath, to: &RelPath, owner: &str) -> Result<()> {
    let folder = marker_folder(to)?;
    let taken = || {
        let reason = "the name is taken".to_owned();
        Err(StorageError::Conflict { object: dir.object(to), reason })
    };
    for _ in 0..MARKER_TRIES {
        dir.make_dirs(&folder)?;
        match dir.create(&folder.join(owner)?) {
            Ok(_) | Err(StorageError::Conflict { .. }) => {}
            // Another mover of this publication has just cleared the folder.
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        }
        match dir.list_raw(&folder) {
            Ok(markers) if markers.iter().any(|(name, _)| name != owner.as_bytes()) => {
                clear_marker(dir, to, owner)?;
                return taken();
            }
            Ok(_) => {}
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        }
        return if dir.stat(to)?.is_some() { taken() } else { dir.rename(from, dir, to) };
    }
    taken()
}

fn marker_folder(to: &RelPath) -> Result<RelPath> {
    let name = blake3::hash(fold(to.as_str()).as_bytes()).to_hex();
    Ok(format!(".trix/moving/{name}").parse()?)
}

fn clear_marker(dir: &Dir, to: &RelPath, owner: &str) -> Result<()> {
    let folder = marker_folder(to)?;
    dir.unlink(&folder.join(owner)?)?;
    match dir.remove_dir(&folder) {
        // Markers of others are in it.
        Err(e) if matches!(e.errno(), Some(Errno::NOTEMPTY | Errno::EXIST)) => Ok(()),
        other => other.map(drop),
    }
}

/// Gives `from` the new name `to` by whatever the file system has; [`StorageError::Conflict`]
/// if that is taken. `from` may or may not be left.
pub fn place_new(dir: &Dir, from: &RelPath, to: &RelPath) -> Result<()> {
    match dir.link(from, dir, to) {
        Err(e) if lacks(&e) => {}
        other => return other,
    }
    match dir.rename_no_replace(from, dir, to) {
        Err(e) if lacks(&e) => {
            let owner = Uuid::new_v4().to_string();
            let moved = marker_rename(dir, from, to, &owner);
            clear_marker(dir, to, &owner)?;
            moved
        }
        other => other,
    }
}

/// Writes a small file of our own, whole or not at all; [`StorageError::Conflict`] if the name
/// is taken. What a crash leaves is a stage, for the janitor.
pub(crate) fn write_new(dir: &Dir, to: &RelPath, bytes: &[u8]) -> Result<()> {
    let stage = Stage::create(dir, &StageName::new(&format!("small-{}", Uuid::new_v4()))?)?;
    let place = || {
        let name: RelPath = "file".parse()?;
        let mut file = stage.create_file(&name)?;
        file.write_all(bytes)
            .map_err(|e| StorageError::io("writing", file.object().to_owned(), e))?;
        file.sync()?;
        drop(file);
        place_new(dir, &stage.path_of(&name)?, to)
    };
    let placed = place();
    let removed = stage.remove();
    placed.and(removed)
}

/// Puts a staged file in the place of `to`, replacing what is there. For single files that a
/// person asked to have overwritten, on local file systems; publications never do this.
pub fn place_replacing(dir: &Dir, from: &RelPath, to: &RelPath) -> Result<()> {
    dir.rename(from, dir, to)?;
    dir.sync_dir(&to.parent())
}

fn lacks(e: &StorageError) -> bool {
    matches!(
        e.errno(),
        Some(
            Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::PERM
                | Errno::INVAL
                | Errno::MLINK
                | Errno::NOTTY
        )
    )
}

impl Capabilities {
    /// Tries on the share, in a folder of its own that is removed again.
    pub fn probe(share: &WritableShare) -> Result<Capabilities> {
        let dir = share.dir();
        let base: RelPath = format!(".trix/probe/{}", Uuid::new_v4()).parse()?;
        dir.make_dirs(&base)?;
        let found = Capabilities::try_in(dir, &base);
        dir.remove_tree(&base)?;
        found
    }

    fn try_in(dir: &Dir, base: &RelPath) -> Result<Capabilities> {
        let path = |name: &str| base.join(name);
        for name in ["from", "taken", "case"] {
            dir.create(&path(name)?)?;
        }
        let case_sensitive = dir.stat(&path("CASE")?)?.is_none();
        // A method counts only if it both works and refuses a taken name.
        let refuses = |r: Result<()>| matches!(r, Err(StorageError::Conflict { .. }));
        let (from, taken, free) = (path("from")?, path("taken")?, path("free")?);
        let works = |r: Result<()>| match r {
            Ok(()) => Ok(true),
            Err(e) if e.is_share_away() || e.is_not_found() => Err(e),
            Err(_) => Ok(false),
        };
        if refuses(dir.link(&from, dir, &taken)) && works(dir.link(&from, dir, &free))? {
            return Ok(Capabilities { move_method: MoveMethod::Link, case_sensitive });
        }
        if refuses(dir.rename_no_replace(&from, dir, &taken))
            && works(dir.rename_no_replace(&from, dir, &free))?
        {
            return Ok(Capabilities { move_method: MoveMethod::RenameNoReplace, case_sensitive });
        }
        Ok(Capabilities { move_method: MoveMethod::MarkerRename, case_sensitive })
    }
}

/// Takes a published version out of sight: its folder goes to `.trix/retired/` as a whole.
/// The folder that it has now; repeating it is fine.
pub fn retract(share: &WritableShare, target: &RelPath, version: u32) -> Result<RelPath> {
    let dir = share.dir();
    let from = target.join(&format!("v{version}"))?;
    let to = retired(target, version)?;
    match (dir.stat(&from)?, dir.stat(&to)?) {
        (None, Some(_)) => Ok(to),
        (None, None) => Err(StorageError::NotFound { object: dir.object(&from) }),
        (Some(_), Some(_)) => Err(StorageError::Conflict {
            object: dir.object(&to),
            reason: "this version was retracted before and is visible again".to_owned(),
        }),
        (Some(_), None) => {
            dir.make_dirs(&to.parent())?;
            // Plain rename: it never replaces a folder that has something in it.
            dir.rename(&from, dir, &to)?;
            dir.sync_dir(&from.parent())?;
            dir.sync_dir(&to.parent())?;
            Ok(to)
        }
    }
}

/// Deletes a retracted version for good. Its empty folder stays, so that the version's number is
/// never given again.
pub fn purge_retired(share: &WritableShare, target: &RelPath, version: u32) -> Result<()> {
    let dir = share.dir();
    let folder = retired(target, version)?;
    if dir.stat(&folder)?.is_none() {
        return Err(StorageError::NotFound { object: dir.object(&folder) });
    }
    dir.remove_tree(&folder)?;
    dir.make_dirs(&folder)
}

/// Re-reads a published version against its manifest: the manifest, or the first difference.
pub fn verify_published(share: &WritableShare, folder: &RelPath) -> Result<Manifest> {
    let manifest = Manifest::read(share, folder)?;
    for proof in &manifest.publication.files {
        let path = folder.join(proof.name.as_str())?;
        let mut file = share.open_read(&path)?;
        let object = file.object().to_owned();
        let found = publish_digests_of(&mut file, &object)?;
        let known = Known {
            size: Some(proof.size),
            sha256: Some(proof.sha256),
            blake3: Some(proof.blake3),
        };
        check_known(&object, &known, &found)?;
    }
    Ok(manifest)
}

/// The fence of the in-process form: versions are taken by files in
/// `.trix/publications/` of the destination, which are linked without replacing. Several
/// processes may publish to one folder.
#[derive(Debug)]
pub struct FolderFence<'a> {
    share: &'a WritableShare,
}

impl<'a> FolderFence<'a> {
    /// For one destination.
    pub fn new(share: &'a WritableShare) -> FolderFence<'a> {
        FolderFence { share }
    }

    fn take(&self, draft: &Draft) -> Result<Prepared> {
        let dir = self.share.dir();
        let target = &draft.publication.target;
        let folder: RelPath = format!(
            ".trix/publications/{}",
            blake3::hash(fold(target.as_str()).as_bytes()).to_hex()
        )
        .parse()?;
        dir.make_dirs(&folder)?;
        loop {
            let mut highest = 0;
            for (name, _) in dir.list_raw(&folder)? {
                let Some(version) = version_of(&name, b".json") else { continue };
                highest = highest.max(version);
                let path = folder.join(&format!("v{version}.json"))?;
                let bytes = dir.read_small(&path, MANIFEST_LIMIT)?;
                let prepared: Prepared = serde_json::from_slice(&bytes).map_err(|source| {
                    StorageError::Document { object: dir.object(&path), source }
                })?;
                if prepared.draft.publication == draft.publication
                    && dir.stat(&retired(target, version)?)?.is_none()
                {
                    return Ok(prepared);
                }
            }
            // Versions whose record is gone still own their folders, retired ones too.
            for seen in [target.clone(), RelPath::from_str(".trix/retired")?.join(target.as_str())?]
            {
                match dir.list_raw(&seen) {
                    Ok(entries) => {
                        for (name, _) in entries {
                            highest = highest.max(version_of(&name, b"").unwrap_or(0));
                        }
                    }
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e),
                }
            }
            let prepared = Prepared { draft: draft.clone(), version: highest + 1 };
            let record = folder.join(&format!("v{}.json", prepared.version))?;
            let placed = write_new(dir, &record, &to_json(&prepared, "the publication")?);
            match placed {
                Ok(()) => {
                    dir.sync_dir(&folder)?;
                    return Ok(prepared);
                }
                // Another process took this version meanwhile.
                Err(StorageError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

fn retired(target: &RelPath, version: u32) -> Result<RelPath> {
    Ok(RelPath::from_str(".trix/retired")?.join(target.as_str())?.join(&format!("v{version}"))?)
}

fn version_of(name: &[u8], suffix: &[u8]) -> Option<u32> {
    let digits = name.strip_prefix(b"v")?.strip_suffix(suffix)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Fence for FolderFence<'_> {
    fn prepare(&mut self, draft: &Draft) -> Result<Prepared, Failure> {
        self.take(draft).map_err(Failure::from)
    }

    fn published(&mut self, _receipt: &Receipt) -> Result<(), Failure> {
        // The manifest in place is the record.
        Ok(())
    }
}
