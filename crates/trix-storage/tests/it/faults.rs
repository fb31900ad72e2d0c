//! Publication interrupted at each system call (reliability.md, M6).
//!
//! Every run fails one call: with an error and without being done, with an error after it was
//! done, or so that nothing is done from there on (the process died). After each: what was
//! visible before is untouched; what is visible is whole; a manifest means that all its files
//! are there. Then another attempt finishes, and one more changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use trix_model::{ErrorClass, Failure};
use trix_storage::ops::Ops;
use trix_storage::publish::verify_published;
use trix_storage::{
    Fence, FolderFence, Item, ItemFrom, MoveMethod, Publisher, Receipt, Request, Share, Stage,
    StorageError, WritableShare, sweep_stages,
};

use crate::common::*;
use crate::publish::{METHODS, archive_request_for};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The call fails and was not done.
    Error,
    /// The call was done and its answer lost.
    DoneThenError,
    /// Nothing is done from this call on.
    Stop,
}

/// Fails the n-th call, counted from 0.
#[derive(Debug)]
pub struct FailAt {
    pub at: u64,
    pub mode: Mode,
    pub calls: AtomicU64,
}

impl FailAt {
    pub fn new(at: u64, mode: Mode) -> Arc<FailAt> {
        Arc::new(FailAt { at, mode, calls: AtomicU64::new(0) })
    }

    fn hit(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.at
    }
}

impl Ops for FailAt {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        let failure = || Err(Errno::IO.into());
        match self.mode {
            Mode::Stop if n >= self.at => failure(),
            Mode::Error if n == self.at => failure(),
            Mode::DoneThenError if n == self.at => call().and_then(|()| failure()),
            _ => call(),
        }
    }
}

/// One destination with a version published before, and two files to publish as the next:
/// one from an artifact, one staged by another task.
struct Scene {
    t: tempfile::TempDir,
    from: Share,
    staged: Vec<u8>,
    old: BTreeMap<String, Vec<u8>>,
    rows: MemoryFence,
    in_folder: bool,
}

const TARGET: &str = "title/film";

impl Scene {
    fn new(in_folder: bool) -> Scene {
        let t = temp();
        for folder in ["src", "out"] {
            std::fs::create_dir(t.path().join(folder)).unwrap();
        }
        std::fs::write(t.path().join("src/a"), noise(1, 5000)).unwrap();
        std::fs::write(t.path().join("src/old"), "old").unwrap();
        let from = share(&t.path().join("src"));
        let rows = MemoryFence::default();
        let mut scene =
            Scene { t, from, staged: noise(2, 6000), old: BTreeMap::new(), rows, in_folder };
        let out = scene.out();
        let old = request(&scene.from, TARGET, &[("a.mp4", "old")]);
        let publisher = Publisher::new(&out, MoveMethod::Link, stage_name("1-1"));
        let mut fence = scene.fence(&out, &scene.rows.other_task());
        publisher.publish(old, &mut *fence, &mut quiet).unwrap();
        drop(fence);
        scene.old = visible(&scene.root());
        assert_eq!(scene.old.len(), 2);
        scene
    }

    fn root(&self) -> std::path::PathBuf {
        self.t.path().join("out")
    }

    fn out(&self) -> WritableShare {
        writable(&self.root())
    }

    fn fence<'a>(&self, out: &'a WritableShare, rows: &MemoryFence) -> Box<dyn Fence + 'a> {
        if self.in_folder { Box::new(FolderFence::new(out)) } else { Box::new(rows.clone()) }
    }

    /// What the task asks for. The staged file is made anew if it is nowhere, as its task would.
    fn request(&self) -> Request {
        let path = rel(".trix/stage/5-1/tee.mov");
        let out = self.out();
        let placed = self.root().join("title/film/v2/tee.mov");
        if out.stat(&path).unwrap().is_none() && (self.in_folder || !placed.exists()) {
            let stage = Stage::open_or_create(out.dir(), &stage_name("5-1")).unwrap();
            stage_file(&stage, "tee.mov", &self.staged);
        }
        let mut request = request(&self.from, TARGET, &[("sub/a.mp4", "a")]);
        let mut archive = archive_request_for(path, &self.staged);
        let item: Item = archive.items.remove(0);
        assert!(matches!(item.from, ItemFrom::Staged(_)));
        request.items.push(Item { name: rel("tee.mov"), ..item });
        request
    }

    fn attempt(
        &self,
        out: &WritableShare,
        method: MoveMethod,
        epoch: u64,
    ) -> Result<Receipt, StorageError> {
        let request = self.request();
        let publisher = Publisher::new(out, method, stage_name(&format!("9-{epoch}")));
        publisher.publish(request, &mut *self.fence(out, &self.rows), &mut quiet)
    }

    /// The invariants that hold at every moment, whatever happened.
    fn check(&self, what: &str) {
        let a = std::fs::read(self.t.path().join("src/a")).unwrap();
        assert_eq!(a, noise(1, 5000), "{what}: the source changed");
        let seen = visible(&self.root());
        let mut new = BTreeMap::new();
        for (path, bytes) in &seen {
            if path.starts_with("title/film/v2/") {
                new.insert(path.clone(), bytes.clone());
            } else {
                assert_eq!(self.old.get(path), Some(bytes), "{what}: {path}");
            }
        }
        for path in self.old.keys() {
            assert!(seen.contains_key(path), "{what}: {path} is gone");
        }
        let wanted = BTreeMap::from([
            ("title/film/v2/sub/a.mp4".to_owned(), a),
            ("title/film/v2/tee.mov".to_owned(), self.staged.clone()),
        ]);
        let manifest = new.remove("title/film/v2/manifest.json");
        for (path, bytes) in &new {
            assert_eq!(wanted.get(path), Some(bytes), "{what}: {path} is partial or foreign");
        }
        if manifest.is_some() {
            assert_eq!(new, wanted, "{what}: a manifest, and not all files");
            verify_published(&self.out(), &rel("title/film/v2")).unwrap();
        }
    }

    /// Another attempt finishes; one more changes nothing; then there is no debris.
    fn recover(&self, method: MoveMethod, what: &str) {
        let out = self.out();
        let receipt =
            self.attempt(&out, method, 2).unwrap_or_else(|e| panic!("{what}: {}", e.with_causes()));
        assert_eq!(receipt.version, 2, "{what}");
        self.check(what);
        let seen = visible(&self.root());
        assert!(seen.contains_key("title/film/v2/manifest.json"), "{what}");
        let again = self.attempt(&out, method, 3).unwrap();
        assert_eq!(again, receipt, "{what}: the redo");
        assert_eq!(visible(&self.root()), seen, "{what}: the redo changed something");
        // Own stages of finished attempts are gone; those of dead ones are the janitor's.
        let left = stages_left(&self.root());
        let of_the_dead = |s: &String| s == "9-1" || s == "5-1" || s.starts_with("small-");
        assert!(left.iter().all(of_the_dead), "{what}: {left:?}");
        sweep_stages(out.dir(), |_| true).unwrap();
        assert!(stages_left(&self.root()).is_empty());
        let moving = self.root().join(".trix/moving");
        let markers = if moving.exists() { std::fs::read_dir(&moving).unwrap().count() } else { 0 };
        assert_eq!(markers, 0, "{what}: markers are left");
        if !self.in_folder {
            let receipts = self.rows.receipts.lock().unwrap();
            assert_eq!(receipts.iter().filter(|r| r.version == 2).count(), 1, "{what}");
        }
    }
}

fn calls_of_a_good_run(method: MoveMethod, in_folder: bool) -> u64 {
    let scene = Scene::new(in_folder);
    let ops = FailAt::new(u64::MAX, Mode::Error);
    scene.attempt(&scene.out().with_ops(ops.clone()), method, 1).unwrap();
    scene.check("good run");
    ops.calls.load(Ordering::SeqCst)
}

fn interrupt_everywhere(method: MoveMethod, in_folder: bool) {
    let calls = calls_of_a_good_run(method, in_folder);
    assert!(calls > 50, "only {calls} calls were counted: the hook is not in the way");
    let mut failed = 0;
    for mode in [Mode::Error, Mode::DoneThenError, Mode::Stop] {
        for at in 0..calls {
            let what = format!("{method:?}, {mode:?} at call {at}");
            let scene = Scene::new(in_folder);
            let ops = FailAt::new(at, mode);
            let result = scene.attempt(&scene.out().with_ops(ops.clone()), method, 1);
            assert!(ops.hit(), "{what}: never reached");
            scene.check(&what);
            match result {
                Err(e) => {
                    failed += 1;
                    let failure = Failure::from(e);
                    assert_eq!(failure.class, ErrorClass::Transient, "{what}: {failure:?}");
                }
                // Only clearing away may fail without failing the publication.
                Ok(receipt) => assert_eq!(receipt.version, 2, "{what}"),
            }
            scene.recover(method, &what);
        }
    }
    println!("{method:?}, fence in folder: {in_folder}: {calls} calls x 3, {failed} failed");
    assert!(failed > calls, "hardly any injected fault made the publication fail");
}

#[test]
fn interrupted_at_each_call_when_files_are_linked() {
    interrupt_everywhere(METHODS[0], false);
}

#[test]
fn interrupted_at_each_call_when_files_are_renamed_without_replacing() {
    interrupt_everywhere(METHODS[1], false);
}

#[test]
fn interrupted_at_each_call_when_files_are_renamed_under_a_marker() {
    interrupt_everywhere(METHODS[2], false);
}

#[test]
fn interrupted_at_each_call_with_the_fence_in_the_folder() {
    for method in METHODS {
        interrupt_everywhere(method, true);
    }
}

#[test]
fn a_fence_that_fails_or_whose_answer_is_lost_is_asked_again() {
    for method in METHODS {
        for fail in
            [("prepare", false), ("prepare", true), ("published", false), ("published", true)]
        {
            let what = format!("{method:?} {fail:?}");
            let scene = Scene::new(false);
            *scene.rows.fail.lock().unwrap() = Some(fail);
            let e = scene.attempt(&scene.out(), method, 1).unwrap_err();
            assert_eq!(Failure::from(e).code, "database_away", "{what}");
            scene.check(&what);
            assert_eq!(
                scene.root().join("title/film/v2/manifest.json").exists(),
                fail.0 == "published",
                "{what}"
            );
            scene.recover(method, &what);
        }
    }
}

/// Lets another attempt run from beginning to end just before the n-th call of this one: a
/// worker that was stopped, was taken for lost, and goes on as if nothing had been.
#[derive(Debug)]
struct OvertakenAt {
    at: u64,
    calls: AtomicU64,
    root: std::path::PathBuf,
    rows: MemoryFence,
    method: MoveMethod,
}

impl Ops for OvertakenAt {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            overtake(&self.root, &self.rows, self.method);
        }
        call()
    }
}

/// What the dispatcher does with a prepared publication: someone rolls it forward.
fn overtake(root: &Path, rows: &MemoryFence, method: MoveMethod) {
    let out = writable(root);
    if let Some(prepared) = rows.clone().begun().unwrap() {
        Publisher::new(&out, method, stage_name("9-2"))
            .roll_forward(&prepared, &mut rows.clone())
            .unwrap();
    }
}

#[test]
fn a_mover_that_is_overtaken_at_any_call_does_no_harm() {
    for method in METHODS {
        let calls = calls_of_a_good_run(method, false);
        for at in 0..calls {
            let what = format!("{method:?}, overtaken at call {at}");
            let scene = Scene::new(false);
            let ops = Arc::new(OvertakenAt {
                at,
                calls: AtomicU64::new(0),
                root: scene.root(),
                rows: scene.rows.clone(),
                method,
            });
            let result = scene.attempt(&scene.out().with_ops(ops), method, 1);
            scene.check(&what);
            if let Err(e) = result {
                // The files were moved from under it: to be repeated, never final.
                let failure = Failure::from(e);
                assert_eq!(failure.class, ErrorClass::Transient, "{what}: {failure:?}");
            }
            scene.recover(method, &what);
        }
    }
}

#[test]
fn two_movers_at_once_publish_once() {
    for method in METHODS {
        for round in 0..20 {
            let scene = Scene::new(false);
            *scene.rows.fail.lock().unwrap() = Some(("prepare", true));
            scene.attempt(&scene.out(), method, 1).unwrap_err();
            let prepared = scene.rows.clone().begun().unwrap().unwrap();
            let barrier = std::sync::Barrier::new(2);
            let results: Vec<_> = std::thread::scope(|s| {
                let (scene, prepared, barrier) = (&scene, &prepared, &barrier);
                let movers: Vec<_> = (2..4)
                    .map(|epoch| {
                        s.spawn(move || {
                            let out = scene.out();
                            let name = stage_name(&format!("9-{epoch}"));
                            barrier.wait();
                            Publisher::new(&out, method, name)
                                .roll_forward(prepared, &mut scene.rows.clone())
                        })
                    })
                    .collect();
                movers.into_iter().map(|m| m.join().unwrap()).collect()
            });
            let what = format!("{method:?}, round {round}: {results:?}");
            assert!(results.iter().any(Result::is_ok), "{what}");
            scene.check(&what);
            scene.recover(method, &what);
        }
    }
}

#[test]
fn every_errno_of_a_share_that_is_away_ends_as_share_unavailable() {
    #[derive(Debug)]
    struct Away(Errno);
    impl Ops for Away {
        fn run(
            &self,
            op: &'static str,
            _object: &str,
            call: &mut dyn FnMut() -> std::io::Result<()>,
        ) -> std::io::Result<()> {
            if op == "link" { Err(self.0.into()) } else { call() }
        }
    }
    for errno in [
        Errno::IO,
        Errno::NOTCONN,
        Errno::STALE,
        Errno::HOSTDOWN,
        Errno::CONNABORTED,
        Errno::TIMEDOUT,
    ] {
        let scene = Scene::new(false);
        let out = scene.out().with_ops(Arc::new(Away(errno)));
        let e = scene.attempt(&out, MoveMethod::Link, 1).unwrap_err();
        assert!(e.is_share_away(), "{e:?}");
        let failure = Failure::from(e);
        assert_eq!(
            (failure.code.as_str(), failure.class, failure.origin),
            ("share_unavailable", ErrorClass::Transient, trix_model::ErrorOrigin::Share)
        );
        assert!(failure.message.contains("out:title/film/v2"), "{}", failure.message);
    }
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        let scene = Scene::new(false);
        let out = scene.out().with_ops(Arc::new(Away(errno)));
        let failure = Failure::from(scene.attempt(&out, MoveMethod::Link, 1).unwrap_err());
        assert_eq!((failure.code.as_str(), failure.class), ("no_space", ErrorClass::Resource));
    }
}
