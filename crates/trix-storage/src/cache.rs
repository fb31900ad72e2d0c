//! The artifact cache: results of tasks under their keys.
//!
//! `objects/<2 hex>/<key>` holds the bytes and `<key>.b3` beside it their BLAKE3 and size. An
//! object appears by `link` and is never changed. Several processes and nodes may use one cache.
//! The object's name decides who was first. The record comes after it, so a committer announces
//! its digest before it links (`<key>.<digest>.new`): whoever finds an object without record, and
//! with a digest that was announced, knows that it is whole.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use trix_model::{Digest, Key, RelPath};
use uuid::Uuid;

use crate::dir::{Dir, EntryKind, SourceFile};
use crate::error::{Result, StorageError};
use crate::fixity::blake3_of;
use crate::publish::place_new;
use crate::share::WritableShare;
use crate::stage::{Stage, StageEntry, StageName, sweep_stages};

const OBJECTS: &str = "objects";
const RECORD_LIMIT: u64 = 4096;
/// A committer that meets a damaged object removes it and links its own; another process may
/// link between the two. So often it tries again.
const COMMIT_TRIES: u32 = 16;

/// An artifact cache beneath a folder.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: Dir,
    max_object: u64,
}

/// An artifact opened for reading.
#[derive(Debug)]
pub struct CacheFile {
    key: Key,
    digest: Option<Digest>,
    file: SourceFile,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Digest of the artifact that now stands under the key. If it is not the one that was to be
    /// committed, another result was first: an event to look into.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// It was there already; ours was dropped.
    pub was_there: bool,
}

/// An artifact in a listing: key, bytes, last use in nanoseconds since 1970.
pub type Listed = (Key, u64, i64);

/// What lies beneath `objects/`.
#[derive(Default)]
struct Scan {
    artifacts: Vec<Listed>,
    /// Paths and times of what is neither artifact nor record.
    strays: Vec<(RelPath, i64)>,
}

/// What pruning may remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRule {
    /// Bytes that may stay.
    pub limit: u64,
    /// Keys that an unfinished task needs.
    pub pinned: BTreeSet<Key>,
    /// Objects used at or after this time (nanoseconds since 1970) stay; 0 spares none. What
    /// committers that died left beside the objects before this time goes.
    pub keep_used_since_ns: i64,
}

/// What pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Removed objects and their sizes, least recently used first.
    pub removed: Vec<(Key, u64)>,
    /// Bytes that stayed.
    pub kept: u64,
}

impl Cache {
    /// A cache on a share. `max_object` is in bytes; larger objects are refused.
    pub fn on_share(share: &WritableShare, max_object: u64) -> Result<Cache> {
        Cache::in_dir(share.dir().clone(), max_object)
    }

    /// A cache in a plain folder, which is made if need be: the in-process form.
    pub fn open(path: &Path, max_object: u64) -> Result<Cache> {
        std::fs::create_dir_all(path).map_err(|e| {
            StorageError::io("making the cache's folder", path.display().to_string(), e)
        })?;
        Cache::in_dir(Dir::open(path, "cache:")?, max_object)
    }

    /// A cache beneath a folder's handle.
    pub fn in_dir(dir: Dir, max_object: u64) -> Result<Cache> {
        dir.make_dirs(&OBJECTS.parse()?)?;
        Ok(Cache { dir, max_object })
    }

    /// Its root.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Whether an object of so many bytes is taken.
    pub fn fits(&self, size: u64) -> bool {
        size <= self.max_object
    }

    /// Where an object lies beneath the root.
    pub fn path_of(&self, key: &Key) -> Result<RelPath> {
        let name = key.to_string();
        Ok(OBJECTS.parse::<RelPath>()?.join(&name[..2])?.join(&name)?)
    }

    fn record_of(&self, key: &Key) -> Result<RelPath> {
        let path = self.path_of(key)?;
        Ok(path.parent().join(&format!("{key}.b3"))?)
    }

    /// Opens an artifact; `None` if there is none, or only one whose size belies its record.
    /// `expect` is the digest that the database has, if there is one; it takes the place of the
    /// record. The bytes are compared by [`CacheFile::verify`], or by whoever reads them.
    pub fn get(&self, key: &Key, expect: Option<Digest>) -> Result<Option<CacheFile>> {
        let file = match self.dir.open_read(&self.path_of(key)?) {
            Ok(file) => file,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        let record = self.read_record(key)?;
        if let Some((digest, size)) = record
            && expect.is_none_or(|e| e == digest)
            && size != file.size()
        {
            return Ok(None);
        }
        let digest = expect.or(record.map(|(digest, _)| digest));
        Ok(Some(CacheFile { key: *key, digest, file }))
    }

    /// Opens an artifact whose bytes were read and compared. `None` if there is none, if it is
    /// damaged, or if nothing says what its digest should be.
    pub fn get_verified(&self, key: &Key, expect: Option<Digest>) -> Result<Option<CacheFile>> {
        let Some(mut found) = self.get(key, expect)? else { return Ok(None) };
        if found.digest.is_none() {
            return Ok(None);
        }
        match found.verify() {
            Ok(_) => Ok(Some(found)),
            Err(StorageError::Damaged { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a stage in the cache. The name must be new.
    pub fn stage(&self, name: &StageName) -> Result<Stage> {
        Stage::create(&self.dir, name)
    }

    /// Removes the stages that `remove` says yes to; see [`sweep_stages`].
    pub fn sweep_stages(&self, remove: impl FnMut(&StageEntry) -> bool) -> Result<Vec<String>> {
        sweep_stages(&self.dir, remove)
    }

    /// Makes a staged file the artifact of a key. `digest` is the BLAKE3 of its bytes, taken as
    /// they were written; `recorded` the digest that the database has for the key, if it has one.
    ///
    /// If the name is taken, the object there is read. Whole: ours is dropped and its digest is
    /// the answer. Damaged: it is replaced by ours, unless the database names another digest
    /// than ours for it, which is [`StorageError::Damaged`].
    pub fn commit(
        &self,
        stage: &Stage,
        name: &RelPath,
        key: &Key,
        digest: Digest,
        recorded: Option<Digest>,
    ) -> Result<Committed> {
        let staged = stage.path_of(name)?;
        let ours = self.dir.open_read(&staged)?;
        let size = ours.size();
        if !self.fits(size) {
            return Err(StorageError::TooLarge {
                object: key.to_string(),
                size,
                limit: self.max_object,
            });
        }
        // The slot that wrote the file may have ended without syncing it.
        self.dir.sync_file(&ours)?;
        drop(ours);
        let object = self.path_of(key)?;
        self.dir.make_dirs(&object.parent())?;
        self.announce(key, digest)?;
        let done = self.commit_announced(&staged, key, digest, size, recorded);
        self.dir.unlink(&self.announcement(key, digest)?)?;
        let done = done.map_err(swept)?;
        self.dir.unlink(&staged)?;
        Ok(done)
    }

    fn commit_announced(
        &self,
        staged: &RelPath,
        key: &Key,
        digest: Digest,
        size: u64,
        recorded: Option<Digest>,
    ) -> Result<Committed> {
        let object = self.path_of(key)?;
        for _ in 0..COMMIT_TRIES {
            match place_new(&self.dir, staged, &object) {
                Ok(()) => {
                    self.dir.sync_dir(&object.parent())?;
                    self.write_record(key, digest, size)?;
                    return Ok(Committed { digest, size, was_there: false });
                }
                Err(StorageError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
            let (found, found_size) = match self.digest_of_object(&object) {
                Ok(found) => found,
                // Pruned or replaced since.
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            };
            let record = self.read_record(key)?;
            let whole = found == digest
                || recorded.or(record.map(|(digest, _)| digest)) == Some(found)
                || self.dir.stat(&self.announcement(key, found)?)?.is_some();
            if whole {
                if record != Some((found, found_size)) {
                    self.write_record(key, found, found_size)?;
                }
                return Ok(Committed { digest: found, size: found_size, was_there: true });
            }
            if let Some(recorded) = recorded
                && recorded != digest
            {
                return Err(StorageError::Damaged {
                    object: self.dir.object(&object),
                    reason: format!(
                        "its BLAKE3 is {found}, the database says {recorded}, and the new result has {digest}"
                    ),
                });
            }
            tracing::warn!(%key, %found, ours = %digest, "replacing a damaged artifact");
            self.take_away(&object, found)?;
        }
        Err(StorageError::Conflict {
            object: self.dir.object(&object),
            reason: "others keep taking the name".to_owned(),
        })
    }

    /// Removes a damaged object. Another process may have put a whole one in its place since it
    /// was read: it is taken aside first, and goes back if it is not the one that was meant.
    fn take_away(&self, object: &RelPath, damaged: Digest) -> Result<()> {
        let aside = object.parent().join(&format!("{}.aside", Uuid::new_v4()))?;
        match self.dir.rename(object, &self.dir, &aside) {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        }
        if self.digest_of_object(&aside)?.0 != damaged {
            match place_new(&self.dir, &aside, object) {
                Ok(()) | Err(StorageError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        self.dir.unlink(&aside).map(drop)
    }

    fn announcement(&self, key: &Key, digest: Digest) -> Result<RelPath> {
        Ok(self.path_of(key)?.parent().join(&format!("{key}.{digest}.new"))?)
    }

    fn announce(&self, key: &Key, digest: Digest) -> Result<()> {
        match self.dir.create(&self.announcement(key, digest)?) {
            // There already: another process is committing the same bytes, or one died at it.
            Ok(_) | Err(StorageError::Conflict { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Marks an artifact as used now. `false` if it is gone.
    pub fn touch(&self, key: &Key) -> Result<bool> {
        match self.dir.touch(&self.path_of(key)?) {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes an artifact, for example one that was found damaged. `false` if it was gone.
    pub fn remove(&self, key: &Key) -> Result<bool> {
        // The object first: a record without object is nothing, an object without record is read.
        let was_there = self.dir.unlink(&self.path_of(key)?)?;
        self.dir.unlink(&self.record_of(key)?)?;
        Ok(was_there)
    }

    /// Keys, sizes and last uses (nanoseconds since 1970) of all artifacts.
    pub fn list(&self) -> Result<Vec<Listed>> {
        Ok(self.scan()?.artifacts)
    }

    fn scan(&self) -> Result<Scan> {
        let objects: RelPath = OBJECTS.parse()?;
        let mut scan = Scan::default();
        for (folder, stat) in self.dir.list_raw(&objects)? {
            let Some(folder) = String::from_utf8(folder).ok().filter(|f| f.len() == 2) else {
                continue;
            };
            if stat.kind != EntryKind::Dir {
                continue;
            }
            let folder = objects.join(&folder)?;
            for (name, stat) in self.dir.list_raw(&folder)? {
                let Ok(name) = String::from_utf8(name) else { continue };
                if stat.kind != EntryKind::File {
                    continue;
                }
                if let Ok(key) = name.parse::<Key>() {
                    scan.artifacts.push((key, stat.size, stat.mtime_ns));
                } else if name.strip_suffix(".b3").is_none_or(|k| k.parse::<Key>().is_err())
                    && let Ok(path) = folder.join(&name)
                {
                    scan.strays.push((path, stat.mtime_ns));
                }
            }
        }
        Ok(scan)
    }

    /// Removes the least recently used artifacts until no more than `rule.limit` bytes are left.
    pub fn prune(&self, rule: &PruneRule) -> Result<Pruned> {
        let Scan { artifacts: mut all, strays } = self.scan()?;
        for (path, made) in strays {
            if made < rule.keep_used_since_ns {
                self.dir.unlink(&path)?;
            }
        }
        all.sort_by_key(|(key, _, used)| (*used, *key));
        let mut pruned = Pruned { removed: Vec::new(), kept: all.iter().map(|o| o.1).sum() };
        for (key, size, used) in all {
            if pruned.kept <= rule.limit {
                break;
            }
            let spared = rule.keep_used_since_ns != 0 && used >= rule.keep_used_since_ns;
            if spared || rule.pinned.contains(&key) {
                continue;
            }
            if self.remove(&key)? {
                pruned.removed.push((key, size));
            }
            pruned.kept -= size;
        }
        Ok(pruned)
    }

    /// What a cache that has its file system to itself may hold: four fifths of it.
    pub fn share_limit(&self) -> Result<u64> {
        Ok(self.dir.space()?.total / 5 * 4)
    }

    fn digest_of_object(&self, path: &RelPath) -> Result<(Digest, u64)> {
        let mut file = self.dir.open_read(path)?;
        file.advise_uncached();
        blake3_of(&mut file, &self.dir.object(path))
    }

    fn read_record(&self, key: &Key) -> Result<Option<(Digest, u64)>> {
        let bytes = match self.dir.read_small(&self.record_of(key)?, RECORD_LIMIT) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        // A torn record is no record: the object is then read.
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
            let (digest, size) = text.strip_suffix('\n')?.split_once(' ')?;
            Some((digest.parse().ok()?, size.parse().ok()?))
        });
        Ok(parsed)
    }

    fn write_record(&self, key: &Key, digest: Digest, size: u64) -> Result<()> {
        let record = self.record_of(key)?;
        let scratch = record.parent().join(&format!("{key}.{}", Uuid::new_v4()))?;
        let mut file = self.dir.create(&scratch)?;
        file.write_all(format!("{digest} {size}\n").as_bytes())
            .map_err(|e| StorageError::io("writing", self.dir.object(&scratch), e))?;
        file.sync()?;
        drop(file);
        // Records are advice, so replacing an older one is fine.
        self.dir.rename(&scratch, &self.dir, &record)?;
        self.dir.sync_dir(&record.parent())
    }
}

/// A file of ours that vanishes while it is being committed was swept away with the rest of
/// the cache. That says nothing about the source: the work is to be done again.
fn swept(e: StorageError) -> StorageError {
    match e {
        StorageError::NotFound { object } => {
            let gone = std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "it was removed while it was being committed",
            );
            StorageError::io("committing to the cache", object, gone)
        }
        other => other,
    }
}

impl CacheFile {
    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What its BLAKE3 should be, if that is known.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Reads all of it and compares; [`StorageError::Damaged`] if it differs. The digest.
    /// The position is at the beginning afterwards.
    pub fn verify(&mut self) -> Result<Digest> {
        let object = self.file.object().to_owned();
        let rewind = |file: &mut SourceFile| {
            file.seek(SeekFrom::Start(0)).map_err(|e| StorageError::io("rewinding", &object, e))
        };
        rewind(&mut self.file)?;
        let (found, _) = blake3_of(&mut self.file, &object)?;
        rewind(&mut self.file)?;
        match self.digest {
            Some(wanted) if wanted != found => Err(StorageError::Damaged {
                object,
                reason: format!("its BLAKE3 is {found} and should be {wanted}"),
            }),
            _ => Ok(found),
        }
    }

    /// The opened file.
    pub fn into_file(self) -> SourceFile {
        self.file
    }
}

impl Read for CacheFile {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for CacheFile {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(pos)
    }
}
