//! Shares: named folders, usually mounts, held as handles.
//!
//! A [`Share`] can only be read; source shares are opened as such and there is no way to write
//! to them. A [`WritableShare`] is one of role output, preview or cache.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use trix_model::{RelPath, ShareName, SharePath};
use trix_plan::task::SourceRef;
use uuid::Uuid;

use crate::dir::{Dir, Entry, SourceFile, Space, Stat};
use crate::error::{Result, StorageError, is_share_away};
use crate::ops::Ops;
use crate::stage::{Stage, StageName};

/// File at a share's root that says which share it is.
pub const MARKER: &str = ".trix-share";
const MARKER_LIMIT: u64 = 4096;

/// What a share is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareRole {
    /// Deliveries; never written to.
    Source,
    /// Archive copies and renditions.
    Output,
    /// Posters, thumbnails, proxies.
    Preview,
    /// Artifacts.
    Cache,
}

/// How a share is. `Slow` and `Hung` are verdicts of whoever holds the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// All is well.
    Ok,
    /// Answers, but late.
    Slow,
    /// Does not answer.
    Hung,
    /// The mount or its server is away, or the handle is of an earlier mount: open it again.
    Gone,
    /// Another folder stands there: no marker, another's marker, another mount, bad options.
    Wrong,
    /// Cannot be written to.
    #[serde(rename = "ro")]
    ReadOnly,
    /// No room.
    Full,
}

/// A share that is only read.
#[derive(Clone, Debug)]
pub struct Share {
    name: ShareName,
    root: PathBuf,
    dir: Dir,
}

/// A share that may be written to; reads like a [`Share`].
#[derive(Clone, Debug)]
pub struct WritableShare(Share);

/// What must be true of a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The marker's uuid; `None` for read-only sources without one.
    pub marker: Option<Uuid>,
    /// File-system type and source of the mount, for shares without a marker.
    pub mount: Option<(String, String)>,
    /// Fewer bytes free than this is `Full`.
    pub min_free: u64,
}

/// A mount as the kernel's table shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `ext4`, `cifs`, `fuse.sshfs`, `nfs4`.
    pub fs_type: String,
    /// `//server/share`, `user@host:/dir`, `/dev/sdb1`.
    pub source: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// Options of the mount and of the file system, separated by commas.
    pub options: String,
    /// Minor number of its device, by which the kernel names a FUSE connection.
    pub minor: u32,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The verdict.
    pub state: ShareState,
    /// The error number behind it, if any.
    pub errno: Option<i32>,
    /// In words; empty if all is well.
    pub reason: String,
    /// Room, if it could be asked.
    pub space: Option<Space>,
    /// The mount, if it could be found.
    pub mount: Option<Mount>,
}

impl Share {
    /// Opens a share's root. Nothing is checked but that it is a folder: call [`Share::probe`]
    /// before the first use.
    pub fn open(name: ShareName, root: &Path) -> Result<Share> {
        let dir = Dir::open(root, &format!("{name}:"))?;
        Ok(Share { name, root: root.to_owned(), dir })
    }

    /// Takes over a root's descriptor, as a probe child or a slot receives it.
    pub fn from_fd(name: ShareName, root: &Path, fd: OwnedFd) -> Result<Share> {
        let dir = Dir::from_fd(fd, &format!("{name}:"))?;
        Ok(Share { name, root: root.to_owned(), dir })
    }

    /// Its name.
    pub fn name(&self) -> &ShareName {
        &self.name
    }

    /// Where its root was opened on this node.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `share:path`, as the database and messages name it.
    pub fn location(&self, path: &RelPath) -> SharePath {
        SharePath::new(self.name.clone(), path.clone())
    }

    /// Opens a regular file for reading. Links, and everything that is no file, are refused.
    pub fn open_read(&self, path: &RelPath) -> Result<SourceFile> {
        self.dir.open_read(path)
    }

    /// Opens a source as it was when the job was planned; [`StorageError::Changed`] if its size
    /// or time differ.
    pub fn open_source(&self, source: &SourceRef) -> Result<SourceFile> {
        let file = self.open_read(&source.location.path)?;
        check_unchanged(file.object(), source, file.size(), file.mtime_ns())?;
        Ok(file)
    }

    /// What a path would be as a source: its size and time now.
    pub fn source_ref(&self, path: &RelPath) -> Result<SourceRef> {
        let file = self.open_read(path)?;
        Ok(SourceRef {
            location: self.location(path),
            size: file.size(),
            mtime_ns: file.mtime_ns(),
        })
    }

    /// The entries of a folder, sorted by name, without trix's own.
    pub fn list(&self, path: &RelPath) -> Result<Vec<Entry>> {
        self.dir.list(path)
    }

    /// Kind, size and time; `None` if there is nothing of that name.
    pub fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
        self.dir.stat(path)
    }

    /// A small file as a whole, such as a sidecar.
    pub fn read_small(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>> {
        self.dir.read_small(path, limit)
    }

    /// Room on its file system.
    pub fn space(&self) -> Result<Space> {
        self.dir.space()
    }

    /// The uuid in its marker; `None` if it has none.
    pub fn marker(&self) -> Result<Option<Uuid>> {
        let text = match self.dir.read_small(&MARKER.parse()?, MARKER_LIMIT) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        let uuid = std::str::from_utf8(&text).ok().and_then(|t| Uuid::parse_str(t.trim()).ok());
        uuid.map(Some).ok_or_else(|| self.wrong(format!("its {MARKER} holds no uuid")))
    }

    /// Fails unless the marker is this one.
    pub fn verify_marker(&self, expected: Uuid) -> Result<()> {
        match self.marker()? {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(self.wrong(format!("its marker is {found} instead of {expected}"))),
            None => Err(self.wrong(format!("it has no {MARKER}; is the share mounted?"))),
        }
    }

    /// The mount that the handle is on.
    pub fn mount(&self) -> Result<Mount> {
        let failed = |e: std::io::Error| {
            StorageError::io("finding the mount of", self.dir.object(&RelPath::root()), e)
        };
        let statx =
            rustix::fs::statx(self.dir.as_fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
                .map_err(|e| failed(e.into()))?;
        let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
        parse_mountinfo(&table, statx.stx_mnt_id)
            .ok_or_else(|| failed(std::io::Error::other("its mount is not in the mount table")))
    }

    /// Looks whether the share is the one expected and usable. May hang for ever on a dead
    /// share: run it in a process or thread that may be given up.
    pub fn probe(&self, expect: &Expect) -> Probe {
        let mut report = Probe {
            state: ShareState::Ok,
            errno: None,
            reason: String::new(),
            space: None,
            mount: None,
        };
        if let Err(e) = self.look(expect, &mut report) {
            report.fail(&e);
        }
        report
    }

    fn look(&self, expect: &Expect, report: &mut Probe) -> Result<()> {
        let root = RelPath::root();
        let held = self
            .dir
            .stat(&root)?
            .ok_or(StorageError::NotFound { object: self.dir.object(&root) })?;
        let fresh = Dir::open(&self.root, &format!("{}:", self.name))?;
        let by_path =
            fresh.stat(&root)?.ok_or(StorageError::NotFound { object: self.dir.object(&root) })?;
        report.space = Some(self.dir.space()?);
        // Before the mount is asked for: a mount that was taken away is in no table.
        if held.dev != by_path.dev {
            report.set(
                ShareState::Gone,
                format!("{} is another mount now than the handle's", self.root.display()),
            );
            return Ok(());
        }
        let mount = self.mount()?;
        report.mount = Some(mount.clone());
        if matches!(mount.fs_type.as_str(), "cifs" | "smb3")
            && !mount.options.split(',').any(|o| o == "iocharset=utf8")
        {
            report.set(
                ShareState::Wrong,
                "it is mounted without iocharset=utf8, so names would be garbled on the server"
                    .to_owned(),
            );
            return Ok(());
        }
        if let Some((fs_type, source)) = &expect.mount
            && (*fs_type != mount.fs_type || *source != mount.source)
        {
            report.set(
                ShareState::Wrong,
                format!(
                    "{} {} is mounted instead of {fs_type} {source}",
                    mount.fs_type, mount.source
                ),
            );
            return Ok(());
        }
        if let Some(marker) = expect.marker {
            self.verify_marker(marker)?;
        }
        Ok(())
    }

    fn wrong(&self, reason: String) -> StorageError {
        StorageError::WrongShare { share: self.name.to_string(), root: self.root.clone(), reason }
    }
}

impl AsFd for Share {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl WritableShare {
    /// Opens a share that may be written to.
    pub fn open(name: ShareName, root: &Path) -> Result<WritableShare> {
        Share::open(name, root).map(WritableShare)
    }

    /// Takes over a root's descriptor.
    pub fn from_fd(name: ShareName, root: &Path, fd: OwnedFd) -> Result<WritableShare> {
        Share::from_fd(name, root, fd).map(WritableShare)
    }

    /// The same share with its system calls going through `ops`.
    pub fn with_ops(&self, ops: Arc<dyn Ops>) -> WritableShare {
        WritableShare(Share { dir: self.0.dir.with_ops(ops), ..self.0.clone() })
    }

    /// Its root as a folder handle that can be written through.
    pub fn dir(&self) -> &Dir {
        &self.0.dir
    }

    /// Makes a new stage. The name must be new.
    pub fn stage(&self, name: &StageName) -> Result<Stage> {
        Stage::create(&self.0.dir, name)
    }

    /// The marker's uuid; a share without one gets one. Two nodes that enrol a share at once
    /// agree on the marker of whoever linked first.
    pub fn ensure_marker(&self) -> Result<Uuid> {
        if let Some(found) = self.marker()? {
            return Ok(found);
        }
        let uuid = Uuid::new_v4();
        let dir = self.dir();
        match crate::publish::write_new(dir, &MARKER.parse()?, format!("{uuid}\n").as_bytes()) {
            Ok(()) => dir.sync_dir(&RelPath::root())?,
            Err(StorageError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
        self.marker()?.ok_or_else(|| self.wrong(format!("its {MARKER} vanished")))
    }

    /// As [`Share::probe`], and a small file is created, synced and removed.
    pub fn probe(&self, expect: &Expect) -> Probe {
        let mut report = self.0.probe(expect);
        if report.state != ShareState::Ok {
            return report;
        }
        if let Some(space) = report.space {
            if space.read_only {
                report.set(ShareState::ReadOnly, "it is mounted read-only".to_owned());
                return report;
            }
            if space.free < expect.min_free.max(1) {
                report.set(ShareState::Full, format!("{} bytes are free", space.free));
                return report;
            }
        }
        if let Err(e) = self.try_write() {
            report.fail(&e);
        }
        report
    }

    fn try_write(&self) -> Result<()> {
        let folder: RelPath = ".trix/probe".parse()?;
        let dir = self.dir();
        dir.make_dirs(&folder)?;
        let path = folder.join(&Uuid::new_v4().to_string())?;
        let mut file = dir.create(&path)?;
        let written = std::io::Write::write_all(&mut file, b"trix probe\n")
            .map_err(|e| StorageError::io("writing", dir.object(&path), e))
            .and_then(|()| file.sync());
        drop(file);
        dir.unlink(&path)?;
        written
    }
}

impl Deref for WritableShare {
    type Target = Share;
    fn deref(&self) -> &Share {
        &self.0
    }
}

impl Probe {
    fn set(&mut self, state: ShareState, reason: String) {
        self.state = state;
        self.reason = reason;
    }

    fn fail(&mut self, e: &StorageError) {
        use rustix::io::Errno;
        let errno = e.errno();
        let state = match errno {
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => ShareState::ReadOnly,
            Some(Errno::NOSPC | Errno::DQUOT) => ShareState::Full,
            Some(n) if is_share_away(n) => ShareState::Gone,
            _ if e.is_not_found() => ShareState::Gone,
            _ => ShareState::Wrong,
        };
        self.errno = errno.map(Errno::raw_os_error);
        self.set(state, e.with_causes());
    }
}

/// Fails if a source has another size or time than when the job was planned.
///
/// Nodes see one file through different file systems: sshfs shows whole seconds and cifs
/// hundreds of nanoseconds. Times are therefore compared as finely as both sides show them.
pub fn check_unchanged(object: &str, source: &SourceRef, size: u64, mtime_ns: i64) -> Result<()> {
    if source.size == size && same_time(source.mtime_ns, mtime_ns) {
        return Ok(());
    }
    let show = |size: u64, ns: i64| format!("{size} bytes, modified at {ns} ns");
    Err(StorageError::Changed {
        object: object.to_owned(),
        was: show(source.size, source.mtime_ns),
        now: show(size, mtime_ns),
    })
}

fn same_time(a: i64, b: i64) -> bool {
    const SECOND: i64 = 1_000_000_000;
    let (fine_a, fine_b) = (a.rem_euclid(SECOND), b.rem_euclid(SECOND));
    a.div_euclid(SECOND) == b.div_euclid(SECOND)
        && (fine_a == 0 || fine_b == 0 || fine_a / 100 == fine_b / 100)
}

fn parse_mountinfo(table: &str, mount_id: u64) -> Option<Mount> {
    let is_it =
        |line: &&str| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount_id);
    table.lines().find(is_it).and_then(parse_mount)
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.splitn(3, ' ');
    let fs_type = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let options = format!("{},{}", left.get(5)?, right.next().unwrap_or(""));
    let minor = left.get(2)?.split_once(':')?.1.parse().ok()?;
    Some(Mount { fs_type, source, mount_point: unescape(left.get(4)?), options, minor })
}

impl Mount {
    /// The topmost mount at a mount point, without touching it: `None` if nothing is there.
    pub fn at(point: &Path) -> std::io::Result<Option<Mount>> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(topmost(&table, point))
    }

    /// True of sshfs and all others whose server is a process.
    pub fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type.starts_with("fuse.")
    }
}

/// Mounts that lie over another come later in the table.
fn topmost(table: &str, point: &Path) -> Option<Mount> {
    table.lines().rev().filter_map(parse_mount).find(|m| Path::new(&m.mount_point) == point)
}

/// The table writes blanks and the like as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'\\')
            .then(|| text.get(i + 1..i + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl ShareRole {
    /// The role in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            ShareRole::Source => "source",
            ShareRole::Output => "output",
            ShareRole::Preview => "preview",
            ShareRole::Cache => "cache",
        }
    }

    /// True for all but sources.
    pub const fn is_writable(self) -> bool {
        !matches!(self, ShareRole::Source)
    }
}

impl fmt::Display for ShareRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ShareRole {
    type Err = String;
    fn from_str(s: &str) -> Result<ShareRole, String> {
        [ShareRole::Source, ShareRole::Output, ShareRole::Preview, ShareRole::Cache]
            .into_iter()
            .find(|role| role.as_str() == s)
            .ok_or_else(|| format!("role {s:?}: source, output, preview or cache"))
    }
}

impl ShareState {
    /// The state in one word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            ShareState::Ok => "ok",
            ShareState::Slow => "slow",
            ShareState::Hung => "hung",
            ShareState::Gone => "gone",
            ShareState::Wrong => "wrong",
            ShareState::ReadOnly => "ro",
            ShareState::Full => "full",
        }
    }
}

impl fmt::Display for ShareState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a share lies on this node, from the node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Absolute path of its root.
    pub root: PathBuf,
    /// What it is for.
    pub role: ShareRole,
}

/// All shares of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roots(BTreeMap<ShareName, Root>);

impl Roots {
    /// From names and roots.
    pub fn new(roots: impl IntoIterator<Item = (ShareName, Root)>) -> Roots {
        Roots(roots.into_iter().collect())
    }

    /// Names and roots in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&ShareName, &Root)> {
        self.0.iter()
    }

    /// Where a share lies.
    pub fn get(&self, name: &ShareName) -> Result<&Root> {
        self.0.get(name).ok_or_else(|| StorageError::UnknownShare(name.to_string()))
    }

    /// Opens a share for reading.
    pub fn open(&self, name: &ShareName) -> Result<Share> {
        Share::open(name.clone(), &self.get(name)?.root)
    }

    /// Opens a share for writing; source shares are refused.
    pub fn open_writable(&self, name: &ShareName) -> Result<WritableShare> {
        let root = self.get(name)?;
        if !root.role.is_writable() {
            return Err(StorageError::NotWritable {
                share: name.to_string(),
                role: root.role.to_string(),
            });
        }
        WritableShare::open(name.clone(), &root.root)
    }

    /// Which share a path of this machine lies in: the longest root wins. The path is taken as
    /// written first, and with its links resolved if that fits no root.
    pub fn resolve_abs(&self, path: &Path) -> Result<SharePath> {
        let outside = |hint: String| StorageError::OutsideShares { path: path.to_owned(), hint };
        if !path.is_absolute() {
            return Err(outside("give an absolute path".to_owned()));
        }
        let plain =
            |p: &Path| p.components().all(|c| !matches!(c, std::path::Component::ParentDir));
        let written = if plain(path) { self.longest(path, |r| Some(r.to_owned())) } else { None };
        let found = match written {
            Some(found) => found,
            None => {
                let real = std::fs::canonicalize(path).map_err(|e| {
                    StorageError::path_op("resolving", path.display().to_string(), e)
                })?;
                self.longest(&real, |r| std::fs::canonicalize(r).ok()).ok_or_else(|| {
                    let roots: Vec<String> = self
                        .0
                        .iter()
                        .map(|(name, r)| format!("{name} = {}", r.root.display()))
                        .collect();
                    outside(if roots.is_empty() {
                        "no share is configured".to_owned()
                    } else {
                        format!("move the file below one of: {}", roots.join(", "))
                    })
                })?
            }
        };
        let (name, rest) = found;
        let text = rest.to_str().ok_or_else(|| outside("its name is not UTF-8".to_owned()))?;
        Ok(SharePath::new(name, text.parse()?))
    }

    fn longest(
        &self,
        path: &Path,
        real: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Option<(ShareName, PathBuf)> {
        self.0
            .iter()
            .filter_map(|(name, r)| {
                let root = real(&r.root)?;
                // Rebuilt from components, so that doubled slashes and `.` go.
                let rest: PathBuf = path.strip_prefix(&root).ok()?.components().collect();
                Some((root.components().count(), name.clone(), rest))
            })
            .max_by_key(|(depth, ..)| *depth)
            .map(|(_, name, rest)| (name, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table = "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            40 22 0:35 / /mnt/a\\040b rw,nosuid - cifs //nas/Filme\\040neu rw,vers=3.1.1,iocharset=utf8\n";
        let mount = parse_mountinfo(table, 40).unwrap();
        assert_eq!(mount.mount_point, "/mnt/a b");
        assert_eq!(mount.source, "//nas/Filme neu");
        assert_eq!(mount.fs_type, "cifs");
        assert!(mount.options.split(',').any(|o| o == "iocharset=utf8"));
        assert!(mount.options.split(',').any(|o| o == "nosuid"));
        assert_eq!(parse_mountinfo(table, 41), None);
    }

    #[test]
    fn times_are_compared_as_finely_as_both_mounts_show_them() {
        assert!(same_time(5_000_000_000, 5_123_456_789));
        assert!(same_time(5_123_456_700, 5_123_456_789));
        assert!(!same_time(5_123_456_600, 5_123_456_789));
        assert!(!same_time(5_999_999_999, 6_000_000_000));
        assert!(same_time(-1_000_000_000, -999_999_999));
    }
}
