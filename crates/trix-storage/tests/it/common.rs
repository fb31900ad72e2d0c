//! Folders, fences and observers that the tests share.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::Digest as _;
use tempfile::TempDir;
use trix_model::{Digest, Failure, RelPath, ShareName};
use trix_storage::publish::Draft;
use trix_storage::{
    Fence, Item, ItemFrom, Known, Prepared, Receipt, Request, Share, Stage, StageName,
    WritableShare,
};

/// A folder in memory where the machine has one, because the fault tests sync thousands of times.
pub fn temp() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }
}

pub fn name(text: &str) -> ShareName {
    text.parse().unwrap()
}

pub fn rel(text: &str) -> RelPath {
    text.parse().unwrap()
}

pub fn stage_name(text: &str) -> StageName {
    StageName::new(text).unwrap()
}

pub fn share(root: &Path) -> Share {
    Share::open(name("in"), root).unwrap()
}

pub fn writable(root: &Path) -> WritableShare {
    WritableShare::open(name("out"), root).unwrap()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

pub fn blake3(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Bytes that look like nothing and are the same every time.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// Writes a file into a stage and returns its path beneath the root.
pub fn stage_file(stage: &Stage, file: &str, bytes: &[u8]) -> RelPath {
    let mut f = stage.create_file(&rel(file)).unwrap();
    f.write_all(bytes).unwrap();
    f.sync().unwrap();
    stage.path_of(&rel(file)).unwrap()
}

/// All files beneath a folder that a reader of the share sees: path → bytes.
pub fn visible(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().as_encoded_bytes().starts_with(b".trix") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Names in `.trix/stage`.
pub fn stages_left(root: &Path) -> Vec<String> {
    match std::fs::read_dir(root.join(".trix/stage")) {
        Ok(entries) => {
            entries.map(|e| e.unwrap().file_name().to_str().unwrap().to_owned()).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// What the database does for a publish task, in memory. Clones share the rows.
#[derive(Clone, Debug, Default)]
pub struct MemoryFence {
    pub rows: Arc<Mutex<Vec<Prepared>>>,
    pub receipts: Arc<Mutex<Vec<Receipt>>>,
    /// The next call of that name (`prepare`, `published`) fails, after it was done if `.1`.
    pub fail: Arc<Mutex<Option<(&'static str, bool)>>>,
    /// The row that belongs to this task, if it prepared one.
    pub mine: Arc<Mutex<Option<usize>>>,
}

impl MemoryFence {
    fn fails(&self, call: &str, done: bool) -> Result<(), Failure> {
        let mut fail = self.fail.lock().unwrap();
        if fail.is_some_and(|(name, after)| name == call && after == done) {
            *fail = None;
            return Err(Failure::new(
                trix_model::ErrorClass::Transient,
                trix_model::ErrorOrigin::Node,
                "database_away",
                "the answer was lost",
            ));
        }
        Ok(())
    }

    /// A fence of another task over the same rows.
    pub fn other_task(&self) -> MemoryFence {
        MemoryFence { mine: Arc::default(), ..self.clone() }
    }
}

impl Fence for MemoryFence {
    fn begun(&mut self) -> Result<Option<Prepared>, Failure> {
        Ok(self.mine.lock().unwrap().map(|i| self.rows.lock().unwrap()[i].clone()))
    }

    fn prepare(&mut self, draft: &Draft) -> Result<Prepared, Failure> {
        self.fails("prepare", false)?;
        let mut rows = self.rows.lock().unwrap();
        let target = &draft.publication.target;
        let known = rows.iter().position(|r| r.draft.publication == draft.publication);
        let at = known.unwrap_or_else(|| {
            let version =
                1 + rows.iter().filter(|r| r.draft.publication.target == *target).count() as u32;
            rows.push(Prepared { draft: draft.clone(), version });
            rows.len() - 1
        });
        *self.mine.lock().unwrap() = Some(at);
        let row = rows[at].clone();
        drop(rows);
        self.fails("prepare", true)?;
        Ok(row)
    }

    fn published(&mut self, receipt: &Receipt) -> Result<(), Failure> {
        self.fails("published", false)?;
        let mut receipts = self.receipts.lock().unwrap();
        if !receipts.contains(receipt) {
            receipts.push(receipt.clone());
        }
        drop(receipts);
        self.fails("published", true)
    }
}

/// A request for `target` with the given files, each from a file of `from`.
pub fn request(from: &Share, target: &str, files: &[(&str, &str)]) -> Request {
    Request {
        role: "output".to_owned(),
        title: "Имя «с кавычками» 🎬".to_owned(),
        target: rel(target),
        job: Some(trix_model::JobId(7)),
        engine: "test-engine".to_owned(),
        media: None,
        items: files
            .iter()
            .map(|(name, source)| Item {
                name: rel(name),
                from: ItemFrom::File(from.open_read(&rel(source)).unwrap()),
                known: Known::default(),
                source: None,
            })
            .collect(),
    }
}

pub fn quiet(_done: u64, _total: u64) -> Result<(), Failure> {
    Ok(())
}

/// True if the tests run as root; says so with a SKIP line otherwise.
pub fn root_or_skip(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    println!("SKIP {test}: mounting needs root");
    false
}

/// A small tmpfs, unmounted when it is dropped.
pub struct SmallFs {
    folder: TempDir,
}

impl SmallFs {
    /// `None`, with a SKIP line, where mounting is refused.
    pub fn mount(test: &str, bytes: u64) -> Option<SmallFs> {
        if !root_or_skip(test) {
            return None;
        }
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes}"))
            .args(["trix-test"])
            .arg(folder.path())
            .output()
            .unwrap();
        if !done.status.success() {
            println!("SKIP {test}: {}", String::from_utf8_lossy(&done.stderr).trim());
            return None;
        }
        Some(SmallFs { folder })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn unmount(&self) {
        let done = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        // May be unmounted already; then this changes nothing.
        let _ = std::process::Command::new("umount").arg("-lq").arg(self.folder.path()).output();
    }
}

/// Does something just before each call of a kind on an object.
pub struct Before<F> {
    pub op: &'static str,
    /// How the object's name ends.
    pub object: &'static str,
    pub act: F,
}

impl<F> std::fmt::Debug for Before<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "before {} {}", self.op, self.object)
    }
}

impl<F: Fn() + Send + Sync> trix_storage::ops::Ops for Before<F> {
    fn run(
        &self,
        op: &'static str,
        object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if op == self.op && object.ends_with(self.object) {
            (self.act)();
        }
        call()
    }
}
