//! A folder held as a handle: every path is resolved beneath it, without links and with no
//! way out.
//!
//! The handle is taken while the mount is known to be good. When the mount dies, the path of
//! its mount point becomes an empty local folder, and writes by path would fill the node's own
//! disk; the handle fails instead (`ENOTCONN` was measured for sshfs).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat as RawStat,
};
use rustix::io::Errno;
use trix_model::RelPath;

use crate::error::{Result, StorageError};
use crate::ops::{Direct, Ops};

/// Files and folders are created with these modes, less the process's umask: what is
/// published is meant to be read by others (a web server, an editor's workstation).
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

/// `openat2` gives `EAGAIN` when a rename ran beside it; so many times it is tried again.
const OPEN_TRIES: u32 = 32;

/// A folder as a handle. Clones share the handle.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    label: Arc<str>,
    ops: Arc<dyn Ops>,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link; never followed.
    Link,
    /// Device, pipe or socket.
    Other,
}

/// Size, time and kind of a file, from its handle or its folder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970. sshfs gives whole seconds only.
    pub mtime_ns: i64,
    /// Device, for telling whether two handles are on one mount.
    pub dev: u64,
    /// Inode; synthetic on some network file systems, so never compared over time.
    pub ino: u64,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that an unprivileged writer may still use.
    pub free: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// One entry of a folder, as browsing shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Its name. Bytes that are not UTF-8 and control characters are shown as `\xNN`.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Why it cannot be ingested; `None` if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// A regular file opened for reading, with size and time of the same handle.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    object: String,
    stat: Stat,
    ops: Arc<dyn Ops>,
}

/// A new file being written: exists under its stage's name only, and is nobody else's.
#[derive(Debug)]
pub struct StageFile {
    file: File,
    object: String,
    ops: Arc<dyn Ops>,
}

impl Dir {
    /// Opens a folder by path. Links in `path` itself are followed: it comes from the node's
    /// configuration or from the person at the command line, not from a share.
    pub fn open(path: &Path, label: &str) -> Result<Dir> {
        let object = || path.display().to_string();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|e| StorageError::path_op("opening folder", object(), e.into()))?;
        Dir::from_fd(fd, label)
    }

    /// Takes over a descriptor of a folder, for example one that a worker gave to a slot.
    /// Fails with [`StorageError::Unsupported`] on kernels without `openat2`.
    pub fn from_fd(fd: OwnedFd, label: &str) -> Result<Dir> {
        let dir = Dir { fd: Arc::new(fd), label: label.into(), ops: Arc::new(Direct) };
        match dir.open_at(&RelPath::root(), OFlags::PATH | OFlags::DIRECTORY, "opening folder") {
            Ok(_) => Ok(dir),
            // Container engines with an old filter answer unknown calls so; a folder that is
            // open already refuses nobody.
            Err(e) if e.errno() == Some(Errno::PERM) => {
                Err(StorageError::Unsupported { what: "openat2" })
            }
            Err(e) => Err(e),
        }
    }

    /// The same folder with all its system calls going through `ops`.
    pub fn with_ops(&self, ops: Arc<dyn Ops>) -> Dir {
        Dir { ops, ..self.clone() }
    }

    /// How a path beneath this folder is named in messages.
    pub fn object(&self, path: &RelPath) -> String {
        format!("{}{path}", self.label)
    }

    /// An existing folder beneath this one.
    pub fn sub(&self, path: &RelPath) -> Result<Dir> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, "opening folder")?;
        let label = if path.is_root() {
            self.label.clone()
        } else {
            format!("{}{path}/", self.label).into()
        };
        Ok(Dir { fd: Arc::new(fd), label, ops: self.ops.clone() })
    }

    /// Kind, size and time of an entry; `None` if there is none. A link is reported, not followed.
    pub fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
        let attempt = if path.is_root() {
            self.call("stat", path, || rustix::fs::fstat(self.fd.as_fd()))
        } else {
            let (parent, name) = match self.parent(path) {
                Ok(found) => found,
                Err(e) if e.is_not_found() => return Ok(None),
                Err(e) => return Err(e),
            };
            self.call("stat", path, || rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW))
        };
        match attempt {
            Ok(raw) => Ok(Some(Stat::of(&raw))),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(None),
            Err(e) => Err(StorageError::path_op("looking at", self.object(path), e)),
        }
    }

    /// Opens a regular file for reading. Nothing else is opened: a pipe would hang, a device
    /// would act.
    pub fn open_read(&self, path: &RelPath) -> Result<SourceFile> {
        let object = self.object(path);
        let refuse_other = |stat: &Stat| match stat.kind {
            EntryKind::File => Ok(()),
            EntryKind::Link => Err(StorageError::Escape { object: object.clone() }),
            EntryKind::Dir => {
                Err(StorageError::NotRegular { object: object.clone(), found: "a folder" })
            }
            EntryKind::Other => Err(StorageError::NotRegular {
                object: object.clone(),
                found: "a device, pipe or socket",
            }),
        };
        // Looked at before it is opened, and again through the handle, since it may be swapped
        // between the two. O_NONBLOCK keeps a pipe that was swapped in from hanging us.
        match self.stat(path)? {
            None => return Err(StorageError::NotFound { object }),
            Some(stat) => refuse_other(&stat)?,
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_at(path, flags, "opening")?;
        let raw = self
            .call("stat", path, || rustix::fs::fstat(&fd))
            .map_err(|e| StorageError::path_op("looking at", object.clone(), e))?;
        let stat = Stat::of(&raw);
        refuse_other(&stat)?;
        Ok(SourceFile { file: File::from(fd), object, stat, ops: self.ops.clone() })
    }

    /// A small file as a whole; larger than `limit` bytes is an error.
    pub fn read_small(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>> {
        let mut file = self.open_read(path)?;
        if file.size() > limit {
            return Err(StorageError::TooLarge {
                object: self.object(path),
                size: file.size(),
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(file.size() as usize);
        (&mut file)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| StorageError::io("reading", self.object(path), e))?;
        Ok(bytes)
    }

    /// The entries of a folder, sorted by name, without our own (`.trix…`).
    pub fn list(&self, path: &RelPath) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, stat) in self.list_raw(path)? {
            if name.starts_with(b".trix") {
                continue;
            }
            entries.push(Entry::new(&name, &stat));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// All entries but `.` and `..` with their kinds; entries that vanish meanwhile are left out.
    pub(crate) fn list_raw(&self, path: &RelPath) -> Result<Vec<(Vec<u8>, Stat)>> {
        let failed = |e: io::Error| StorageError::path_op("listing", self.object(path), e);
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, "opening folder")?;
        let mut found = Vec::new();
        self.call("list", path, || {
            found.clear();
            let mut dir = rustix::fs::Dir::read_from(&fd)?;
            while let Some(entry) = dir.read() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(raw) => found.push((name.to_vec(), Stat::of(&raw))),
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })
        .map_err(failed)?;
        Ok(found)
    }

    /// Creates a new file; [`StorageError::Conflict`] if the name is taken.
    pub fn create(&self, path: &RelPath) -> Result<StageFile> {
        let object = self.object(path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = self
            .call("create", path, || self.openat2(path, flags, FILE_MODE))
            .map_err(|e| self.taken("creating", object.clone(), e))?;
        Ok(StageFile { file: File::from(fd), object, ops: self.ops.clone() })
    }

    /// Makes a folder and those above it; those that exist are fine.
    pub fn make_dirs(&self, path: &RelPath) -> Result<()> {
        let mut made = RelPath::root();
        for component in path.as_str().split('/').filter(|c| !c.is_empty()) {
            made = made.join(component)?;
            match self.make_dir(&made) {
                Ok(()) => self.sync_dir(&made.parent())?,
                Err(StorageError::Conflict { .. }) => match self.stat(&made)?.map(|s| s.kind) {
                    Some(EntryKind::Dir) => {}
                    Some(EntryKind::Link) => {
                        return Err(StorageError::Escape { object: self.object(&made) });
                    }
                    _ => {
                        return Err(StorageError::Conflict {
                            object: self.object(&made),
                            reason: "a folder was to be made and a file is there".to_owned(),
                        });
                    }
                },
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes one new folder; [`StorageError::Conflict`] if the name is taken.
    pub fn make_dir(&self, path: &RelPath) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        self.call("mkdir", path, || rustix::fs::mkdirat(&parent, name, DIR_MODE))
            .map_err(|e| self.taken("making folder", self.object(path), e))
    }

    /// Gives `from` a second name in `to_dir`, never replacing one;
    /// [`StorageError::Conflict`] if the name is taken.
    pub fn link(&self, from: &RelPath, to_dir: &Dir, to: &RelPath) -> Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = to_dir.parent(to)?;
        to_dir
            .call("link", to, || {
                rustix::fs::linkat(&from_parent, from_name, &to_parent, to_name, AtFlags::empty())
            })
            .map_err(|e| to_dir.taken("linking", to_dir.object(to), e))
    }

    /// Renames, never replacing; [`StorageError::Conflict`] if the name is taken. File systems
    /// without the flag answer `EINVAL` (sshfs).
    pub fn rename_no_replace(&self, from: &RelPath, to_dir: &Dir, to: &RelPath) -> Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = to_dir.parent(to)?;
        to_dir
            .call("rename_noreplace", to, || {
                rustix::fs::renameat_with(
                    &from_parent,
                    from_name,
                    &to_parent,
                    to_name,
                    RenameFlags::NOREPLACE,
                )
            })
            .map_err(|e| to_dir.taken("renaming to", to_dir.object(to), e))
    }

    /// Plain rename, which replaces a file of the same name. On CIFS that can destroy a file
    /// that a reader has open, so only callers that know the name to be free use it.
    pub(crate) fn rename(&self, from: &RelPath, to_dir: &Dir, to: &RelPath) -> Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = to_dir.parent(to)?;
        to_dir
            .call("rename", to, || {
                rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)
            })
            .map_err(|e| to_dir.taken("renaming to", to_dir.object(to), e))
    }

    /// Removes a file's name. `false` if there was none.
    pub fn unlink(&self, path: &RelPath) -> Result<bool> {
        self.unlink_with("unlink", path, AtFlags::empty())
    }

    /// Removes an empty folder. `false` if there was none.
    pub fn remove_dir(&self, path: &RelPath) -> Result<bool> {
        self.unlink_with("rmdir", path, AtFlags::REMOVEDIR)
    }

    /// Removes a folder with all that is in it. Links are removed, not followed.
    /// What is gone already is fine.
    pub fn remove_tree(&self, path: &RelPath) -> Result<()> {
        let entries = match self.list_raw(path) {
            Ok(entries) => entries,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        if entries.is_empty() {
            return self.remove_dir(path).map(drop);
        }
        // Names that are no RelPath (not UTF-8) are removed too, so this works on raw names.
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, "opening folder")?;
        for (name, stat) in entries {
            if stat.kind == EntryKind::Dir {
                let sub = match open_beneath(
                    fd.as_fd(),
                    name.as_slice(),
                    OFlags::PATH | OFlags::DIRECTORY,
                    Mode::empty(),
                ) {
                    Ok(sub) => sub,
                    Err(Errno::NOENT) => continue,
                    Err(e) => {
                        return Err(StorageError::path_op(
                            "opening folder",
                            self.object(path),
                            e.into(),
                        ));
                    }
                };
                let sub = Dir {
                    fd: Arc::new(sub),
                    label: format!("{}{path}/{}/", self.label, name.escape_ascii()).into(),
                    ops: self.ops.clone(),
                };
                sub.empty()?;
                self.gone(self.call("rmdir", path, || {
                    rustix::fs::unlinkat(&fd, name.as_slice(), AtFlags::REMOVEDIR)
                }))
                .map_err(|e| StorageError::path_op("removing", self.object(path), e))?;
            } else {
                self.gone(self.call("unlink", path, || {
                    rustix::fs::unlinkat(&fd, name.as_slice(), AtFlags::empty())
                }))
                .map_err(|e| StorageError::path_op("removing", self.object(path), e))?;
            }
        }
        self.remove_dir(path).map(drop)
    }

    fn empty(&self) -> Result<()> {
        for (name, stat) in self.list_raw(&RelPath::root())? {
            let root = RelPath::root();
            if stat.kind == EntryKind::Dir {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                match open_beneath(self.fd.as_fd(), name.as_slice(), flags, Mode::empty()) {
                    Ok(fd) => Dir {
                        fd: Arc::new(fd),
                        label: format!("{}{}/", self.label, name.escape_ascii()).into(),
                        ops: self.ops.clone(),
                    }
                    .empty()?,
                    Err(Errno::NOENT) => continue,
                    Err(e) => {
                        let object = self.object(&root);
                        return Err(StorageError::path_op("opening folder", object, e.into()));
                    }
                }
            }
            let flags =
                if stat.kind == EntryKind::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            self.gone(
                self.call("unlink", &root, || {
                    rustix::fs::unlinkat(&*self.fd, name.as_slice(), flags)
                }),
            )
            .map_err(|e| StorageError::path_op("removing", self.object(&root), e))?;
        }
        Ok(())
    }

    fn gone(&self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn unlink_with(&self, op: &'static str, path: &RelPath, flags: AtFlags) -> Result<bool> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(e) if e.is_not_found() => return Ok(false),
            Err(e) => return Err(e),
        };
        match self.call(op, path, || rustix::fs::unlinkat(&parent, name, flags)) {
            Ok(()) => Ok(true),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(false),
            Err(e) => Err(StorageError::path_op("removing", self.object(path), e)),
        }
    }

    /// Makes a folder's entries durable.
    pub fn sync_dir(&self, path: &RelPath) -> Result<()> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, "opening folder")?;
        let result = self.call("fsync_dir", path, || rustix::fs::fsync(&fd));
        match result {
            // Some network file systems have no fsync for folders; their servers decide.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => Ok(()),
            other => {
                other.map_err(|e| StorageError::path_op("syncing folder", self.object(path), e))
            }
        }
    }

    /// Makes a file's bytes durable that someone else wrote.
    pub fn sync_file(&self, file: &SourceFile) -> Result<()> {
        self.ops
            .run("fsync", &file.object, &mut || file.file.sync_all())
            .map_err(|e| StorageError::io("syncing", file.object.clone(), e))
    }

    /// Sets a file's times to the server's or node's now.
    pub fn touch(&self, path: &RelPath) -> Result<()> {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let (parent, name) = self.parent(path)?;
        self.call("touch", path, || {
            rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        })
        .map_err(|e| StorageError::path_op("touching", self.object(path), e))
    }

    /// Room on the file system.
    pub fn space(&self) -> Result<Space> {
        let root = RelPath::root();
        let mut found = None;
        self.call("statfs", &root, || {
            found = Some(rustix::fs::fstatvfs(&*self.fd)?);
            Ok(())
        })
        .map_err(|e| StorageError::path_op("asking for the room on", self.object(&root), e))?;
        let vfs = found.ok_or_else(|| {
            StorageError::io("asking for the room on", self.object(&root), io::Error::other("none"))
        })?;
        Ok(Space {
            total: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            free: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            read_only: vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    fn open_at(&self, path: &RelPath, flags: OFlags, op: &'static str) -> Result<OwnedFd> {
        self.call("open", path, || self.openat2(path, flags, Mode::empty()))
            .map_err(|e| StorageError::path_op(op, self.object(path), e))
    }

    fn openat2(&self, path: &RelPath, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let name = if path.is_root() { "." } else { path.as_str() };
        open_beneath(self.fd.as_fd(), name.as_bytes(), flags, mode)
    }

    /// The folder that holds `path`, opened, and the last component.
    fn parent<'p>(&self, path: &'p RelPath) -> Result<(OwnedFd, &'p str)> {
        if path.is_root() {
            return Err(StorageError::io(
                "changing",
                self.object(path),
                io::Error::new(io::ErrorKind::InvalidInput, "it is the root of a share"),
            ));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_at(&path.parent(), flags, "opening folder")?, path.file_name()))
    }

    fn taken(&self, op: &'static str, object: String, e: io::Error) -> StorageError {
        match Errno::from_io_error(&e) {
            Some(Errno::EXIST | Errno::NOTEMPTY) => {
                StorageError::Conflict { object, reason: "the name is taken".to_owned() }
            }
            _ => StorageError::path_op(op, object, e),
        }
    }

    fn call<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        mut run: impl FnMut() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let mut value = None;
        self.ops.run(op, &self.object(path), &mut || {
            value = Some(rustix::io::retry_on_intr(&mut run)?);
            Ok(())
        })?;
        value.ok_or_else(|| io::Error::other(format!("{op} was reported done but not run")))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_beneath(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = OPEN_TRIES;
    loop {
        match rustix::fs::openat2(dir, name, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) if tries > 0 => tries -= 1,
            other => return other,
        }
    }
}

impl Stat {
    // The types of these fields differ between processor architectures.
    #[allow(clippy::unnecessary_cast)]
    fn of(raw: &RawStat) -> Stat {
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Dir,
            FileType::Symlink => EntryKind::Link,
            _ => EntryKind::Other,
        };
        Stat {
            kind,
            size: if kind == EntryKind::File { raw.st_size as u64 } else { 0 },
            mtime_ns: (raw.st_mtime as i64)
                .saturating_mul(1_000_000_000)
                .saturating_add(raw.st_mtime_nsec as i64),
            dev: raw.st_dev as u64,
            ino: raw.st_ino as u64,
        }
    }
}

impl Entry {
    fn new(name: &[u8], stat: &Stat) -> Entry {
        let (shown, bad_name) = match std::str::from_utf8(name) {
            Ok(text) if !text.chars().any(char::is_control) => (text.to_owned(), None),
            Ok(text) => (
                text.chars()
                    .map(|c| {
                        if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
                    })
                    .collect(),
                Some("its name has a control character"),
            ),
            Err(_) => (name.escape_ascii().to_string(), Some("its name is not UTF-8")),
        };
        let bad_kind = match stat.kind {
            EntryKind::File | EntryKind::Dir => None,
            EntryKind::Link => Some("it is a symbolic link, which is never followed"),
            EntryKind::Other => Some("it is a device, pipe or socket"),
        };
        Entry {
            name: shown,
            kind: stat.kind,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            unusable: bad_name.or(bad_kind).map(str::to_owned),
        }
    }
}

impl SourceFile {
    /// Bytes, when it was opened.
    pub fn size(&self) -> u64 {
        self.stat.size
    }

    /// Modification time when it was opened, in nanoseconds since 1970.
    pub fn mtime_ns(&self) -> i64 {
        self.stat.mtime_ns
    }

    /// How it is named in messages.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Size and time now, of the same handle.
    pub fn stat_now(&self) -> Result<Stat> {
        let mut found = None;
        self.ops
            .run("stat", &self.object, &mut || {
                found = Some(Stat::of(&rustix::fs::fstat(&self.file)?));
                Ok(())
            })
            .map_err(|e| StorageError::io("looking at", self.object.clone(), e))?;
        found.ok_or_else(|| {
            StorageError::io("looking at", self.object.clone(), io::Error::other("nothing came"))
        })
    }

    /// Reads up to `buf.len()` bytes at `offset` without moving the position.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut got = 0;
        self.ops.run("read", &self.object, &mut || {
            got = self.file.read_at(buf, offset)?;
            Ok(())
        })?;
        Ok(got)
    }

    /// Reads `buf.len()` bytes at `offset`; fewer only at the end of the file.
    pub fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut got = 0;
        while got < buf.len() {
            match self.read_at(&mut buf[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(got)
    }

    /// Tells the kernel that the file will be read once from front to back.
    pub fn advise_sequential(&self) {
        // Advice only: file systems that have none answer with an error that changes nothing.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Sequential);
    }

    /// Drops cached pages, so that the next read comes from the share where that is possible.
    pub fn advise_uncached(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// The descriptor, for handing to a slot.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// Takes over a descriptor of a regular file, as a slot receives it.
    pub fn from_fd(fd: OwnedFd, object: &str) -> Result<SourceFile> {
        let raw = rustix::fs::fstat(&fd)
            .map_err(|e| StorageError::io("looking at", object.to_owned(), e.into()))?;
        let stat = Stat::of(&raw);
        if stat.kind != EntryKind::File {
            return Err(StorageError::NotRegular { object: object.to_owned(), found: "not one" });
        }
        let ops = Arc::new(Direct);
        Ok(SourceFile { file: File::from(fd), object: object.to_owned(), stat, ops })
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for SourceFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        let file = &mut self.file;
        self.ops.run("read", &self.object, &mut || {
            got = file.read(buf)?;
            Ok(())
        })?;
        Ok(got)
    }
}

impl Seek for SourceFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.file.seek(pos)
    }
}

impl StageFile {
    /// Takes over a new file that is open for reading and writing, for example one that a slot
    /// created in its stage.
    pub fn from_file(file: File, object: &str) -> StageFile {
        StageFile { file, object: object.to_owned(), ops: Arc::new(Direct) }
    }

    /// How it is named in messages.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Makes the bytes durable. Call it before the file is linked anywhere.
    pub fn sync(&self) -> Result<()> {
        self.ops
            .run("fsync", &self.object, &mut || self.file.sync_all())
            .map_err(|e| StorageError::io("syncing", self.object.clone(), e))
    }

    /// Bytes written so far.
    pub fn size(&self) -> Result<u64> {
        let meta = self.file.metadata();
        Ok(meta.map_err(|e| StorageError::io("looking at", self.object.clone(), e))?.len())
    }

    /// Drops cached pages of what was synced, so that a fresh open re-reads the share.
    pub(crate) fn advise_uncached(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Reads at `offset` from what was written; muxers that move the index to the front need it.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// The bare file, for a library that writes by itself. Sync it through [`StageFile::sync`] before.
    pub fn as_file(&self) -> &File {
        &self.file
    }
}

impl AsFd for StageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Write for StageFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut put = 0;
        let file = &mut self.file;
        self.ops.run("write", &self.object, &mut || {
            put = file.write(buf)?;
            Ok(())
        })?;
        Ok(put)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for StageFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for StageFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.file.seek(pos)
    }
}
