//! Stages: folders of one writer, seen by nobody, where files are made before they are shown.

use std::fmt;

use trix_model::{AttemptId, RelPath};
use uuid::Uuid;

use crate::dir::{Dir, EntryKind, SourceFile, StageFile};
use crate::error::{Result, StorageError};

/// Our own folder on writable shares and in caches.
pub(crate) const OWN: &str = ".trix";
const STAGES: &str = ".trix/stage";

/// Which cluster a stage belongs to: several may use one share, and their tasks have the
/// same numbers. It is the beginning of the cluster's id, which outlives restores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTag(u32);

/// Name of a stage: `<cluster>-<task>-<epoch>` in the service, anything unique in one
/// process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName(String);

/// A stage that is being written to, or read by whoever rolls its publication forward.
#[derive(Clone, Debug)]
pub struct Stage {
    root: Dir,
    path: RelPath,
    dir: Dir,
}

/// A stage as the janitor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageEntry {
    /// Its folder's name.
    pub name: String,
    /// The cluster and the attempt that it belongs to, if it is named like one.
    pub owner: Option<(ClusterTag, AttemptId)>,
    /// Newest modification time in it, nanoseconds since 1970.
    pub newest_mtime_ns: i64,
    /// Bytes in it.
    pub size: u64,
}

impl StageName {
    /// A name of ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot.
    pub fn new(name: &str) -> Result<StageName> {
        let ok = (1..=200).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if ok {
            Ok(StageName(name.to_owned()))
        } else {
            Err(trix_model::PathError::Component(name.to_owned()).into())
        }
    }

    /// The stage of an attempt of a cluster.
    pub fn of(cluster: ClusterTag, attempt: AttemptId) -> StageName {
        StageName(format!("{cluster}-{attempt}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for ClusterTag {
    fn from(id: Uuid) -> ClusterTag {
        ClusterTag(id.as_fields().0)
    }
}

impl fmt::Display for ClusterTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl StageEntry {
    /// The attempt of `cluster` that it belongs to; `None` for what is somebody else's.
    pub fn attempt_of(&self, cluster: ClusterTag) -> Option<AttemptId> {
        self.owner.filter(|(owner, _)| *owner == cluster).map(|(_, attempt)| attempt)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Stage {
    /// Makes a new stage beneath a share's or cache's root. A stage has one writer ever:
    /// a name that exists is a [`StorageError::Conflict`].
    pub fn create(root: &Dir, name: &StageName) -> Result<Stage> {
        let stages: RelPath = STAGES.parse()?;
        root.make_dirs(&stages)?;
        root.make_dir(&stages.join(name.as_str())?)?;
        Stage::open(root, name)
    }

    /// Opens the stage of that name, or makes it. For the one attempt that owns the name.
    pub fn open_or_create(root: &Dir, name: &StageName) -> Result<Stage> {
        match Stage::open(root, name) {
            Err(e) if e.is_not_found() => Stage::create(root, name),
            other => other,
        }
    }

    /// Opens a stage that exists, for example that of an earlier epoch.
    pub fn open(root: &Dir, name: &StageName) -> Result<Stage> {
        let path = STAGES.parse::<RelPath>()?.join(name.as_str())?;
        let dir = root.sub(&path)?;
        Ok(Stage { root: root.clone(), path, dir })
    }

    /// Its folder beneath the root: `.trix/stage/<name>`.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// The path of one of its files beneath the root.
    pub fn path_of(&self, name: &RelPath) -> Result<RelPath> {
        Ok(self.path.join(name.as_str())?)
    }

    /// Its folder as a handle: what a slot receives.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The root that it stands beneath.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Creates a file, and the folders above it.
    pub fn create_file(&self, name: &RelPath) -> Result<StageFile> {
        self.dir.make_dirs(&name.parent())?;
        self.dir.create(name)
    }

    /// Opens one of its files through a fresh open.
    pub fn open_read(&self, name: &RelPath) -> Result<SourceFile> {
        self.dir.open_read(name)
    }

    /// Removes it with all that is in it.
    pub fn remove(self) -> Result<()> {
        self.root.remove_tree(&self.path)
    }
}

/// All stages beneath a root.
pub fn stages(root: &Dir) -> Result<Vec<StageEntry>> {
    let base: RelPath = STAGES.parse()?;
    let mut found = Vec::new();
    let entries = match root.list_raw(&base) {
        Ok(entries) => entries,
        Err(e) if e.is_not_found() => return Ok(found),
        Err(e) => return Err(e),
    };
    for (name, stat) in entries {
        // Only names that a StageName can have: nothing else there is ours.
        let Some(name) = String::from_utf8(name).ok().filter(|n| StageName::new(n).is_ok()) else {
            continue;
        };
        if stat.kind != EntryKind::Dir {
            continue;
        }
        let mut entry =
            StageEntry { owner: owner_of(&name), name, newest_mtime_ns: stat.mtime_ns, size: 0 };
        measure(root, &base.join(&entry.name)?, &mut entry)?;
        found.push(entry);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes the stages that `remove` says yes to and gives their names. The rule (attempt ended
/// a day ago, no unfinished job needs a file of it) is the caller's, and so is the clock.
pub fn sweep_stages(
    root: &Dir,
    mut remove: impl FnMut(&StageEntry) -> bool,
) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for entry in stages(root)? {
        if remove(&entry) {
            root.remove_tree(&STAGES.parse::<RelPath>()?.join(&entry.name)?)?;
            removed.push(entry.name);
        }
    }
    Ok(removed)
}

fn owner_of(name: &str) -> Option<(ClusterTag, AttemptId)> {
    let (cluster, attempt) = name.split_once('-').filter(|(cluster, _)| cluster.len() == 8)?;
    let (task, epoch) = attempt.split_once('-')?;
    let attempt = AttemptId { task: task.parse().ok()?, epoch: epoch.parse().ok()? };
    Some((ClusterTag(u32::from_str_radix(cluster, 16).ok()?), attempt))
}

fn measure(root: &Dir, path: &RelPath, into: &mut StageEntry) -> Result<()> {
    let entries = match root.list_raw(path) {
        Ok(entries) => entries,
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(e),
    };
    for (name, stat) in entries {
        into.newest_mtime_ns = into.newest_mtime_ns.max(stat.mtime_ns);
        into.size += stat.size;
        if stat.kind == EntryKind::Dir
            && let Ok(name) = String::from_utf8(name)
            && let Ok(sub) = path.join(&name)
        {
            measure(root, &sub, into)?;
        }
    }
    Ok(())
}

/// True for paths of files in a stage.
pub(crate) fn is_staged(path: &RelPath) -> bool {
    let inner = path.as_str().strip_prefix(STAGES).and_then(|rest| rest.strip_prefix('/'));
    inner.is_some_and(|rest| rest.contains('/'))
}

/// Guards against names of ours among files to publish.
pub(crate) fn refuse_own(path: &RelPath) -> Result<()> {
    if path.as_str().split('/').any(|c| c.starts_with(OWN)) {
        return Err(StorageError::Conflict {
            object: path.to_string(),
            reason: "names that begin with .trix are trix's own".to_owned(),
        });
    }
    Ok(())
}
