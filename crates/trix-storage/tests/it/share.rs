//! Shares: what is opened, what is refused, and what happens when the mount goes.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trix_model::{AttemptId, Epoch, ErrorClass, Failure, RelPath, TaskId};
use trix_storage::ops::Ops;
use trix_storage::{
    EntryKind, Expect, Root, Roots, ShareRole, ShareState, Stage, StageName, StorageError,
    WritableShare,
};

use crate::common::*;

fn read(share: &trix_storage::Share, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    share.open_read(&rel(path)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn names_with_spaces_quotes_cyrillic_and_emoji_are_read_and_listed() {
    let t = temp();
    let odd = ["имя фильма.mov", "it's \"quoted\".mov", "🎬 é.mov", "-rf *.mov", "a\\b.mov"];
    for file in odd {
        std::fs::write(t.path().join(file), file).unwrap();
    }
    let share = share(t.path());
    for file in odd {
        assert_eq!(read(&share, file), file.as_bytes());
    }
    let listed = share.list(&RelPath::root()).unwrap();
    assert_eq!(listed.len(), odd.len());
    for entry in &listed {
        assert!(odd.contains(&entry.name.as_str()));
        assert_eq!((entry.kind, &entry.unusable), (EntryKind::File, &None));
        assert_eq!(entry.size, entry.name.len() as u64);
    }
}

#[test]
fn listing_hides_our_own_and_says_why_an_entry_is_unusable() {
    let t = temp();
    std::fs::write(t.path().join(".trix-share"), "x").unwrap();
    std::fs::create_dir(t.path().join(".trix")).unwrap();
    std::fs::create_dir(t.path().join("folder")).unwrap();
    std::fs::write(t.path().join("new\nline.mov"), "x").unwrap();
    std::fs::write(t.path().join(std::ffi::OsStr::from_bytes(b"koi8-\xc6\xc9.mov")), "x").unwrap();
    symlink("/etc/passwd", t.path().join("link.mov")).unwrap();
    let pipe = t.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let listed = share(t.path()).list(&RelPath::root()).unwrap();
    let names: Vec<(&str, bool)> =
        listed.iter().map(|e| (e.name.as_str(), e.unusable.is_some())).collect();
    assert_eq!(
        names,
        [
            ("folder", false),
            ("koi8-\\xc6\\xc9.mov", true),
            ("link.mov", true),
            ("new\\nline.mov", true),
            ("pipe", true),
        ]
    );
    assert_eq!(listed[2].kind, EntryKind::Link);
}

#[test]
fn links_ways_out_and_things_that_are_no_files_are_refused() {
    let t = temp();
    let root = t.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(t.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("file-link")).unwrap();
    symlink("..", root.join("dir-link")).unwrap();
    symlink(t.path(), root.join("abs-link")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    // Links that stay inside are refused as well: they could be turned at any time.
    std::fs::write(root.join("sub/film.mov"), "film").unwrap();
    symlink("sub", root.join("inner-dir")).unwrap();
    symlink("sub/film.mov", root.join("inner-file")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let share = share(&root);
    for path in [
        "file-link",
        "dir-link/secret",
        "abs-link/secret",
        "magic/etc/passwd",
        "inner-file",
        "inner-dir/film.mov",
    ] {
        let e = share.open_read(&rel(path)).unwrap_err();
        assert!(matches!(e, StorageError::Escape { .. }), "{path}: {e:?}");
        let failure = Failure::from(e);
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("path_refused", ErrorClass::Deterministic)
        );
        assert!(failure.object.starts_with("in:"), "{failure:?}");
    }
    assert!(matches!(share.list(&rel("dir-link")), Err(StorageError::Escape { .. })));
    for (path, code) in [("pipe", "not_a_file"), ("sub", "not_a_file"), ("absent", "not_found")] {
        let failure = Failure::from(share.open_read(&rel(path)).unwrap_err());
        assert_eq!(failure.code, code, "{path}");
    }
    assert!("../secret".parse::<RelPath>().is_err());
}

/// Puts a link in the place of the file at the moment between the look and the open.
#[derive(Debug)]
struct SwapAtOpen {
    file: std::path::PathBuf,
    target: std::path::PathBuf,
    swapped: AtomicBool,
}

impl Ops for SwapAtOpen {
    fn run(
        &self,
        op: &'static str,
        object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if op == "open"
            && object.ends_with("film.mov")
            && !self.swapped.swap(true, Ordering::SeqCst)
        {
            std::fs::remove_file(&self.file).unwrap();
            symlink(&self.target, &self.file).unwrap();
        }
        call()
    }
}

#[test]
fn a_file_swapped_for_a_link_between_look_and_open_is_refused() {
    let t = temp();
    let root = t.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("film.mov"), "film").unwrap();
    std::fs::write(t.path().join("secret"), "secret").unwrap();
    let ops = Arc::new(SwapAtOpen {
        file: root.join("film.mov"),
        target: t.path().join("secret"),
        swapped: AtomicBool::new(false),
    });
    let share = writable(&root).with_ops(ops.clone());
    let e = share.open_read(&rel("film.mov")).unwrap_err();
    assert!(matches!(e, StorageError::Escape { .. }), "{e:?}");
    assert!(ops.swapped.load(Ordering::SeqCst));
}

#[test]
fn a_folder_that_is_swapped_for_a_link_again_and_again_never_leads_out() {
    let t = temp();
    let root = t.path().join("root");
    std::fs::create_dir_all(root.join("real")).unwrap();
    std::fs::write(root.join("real/film.mov"), "inside").unwrap();
    std::fs::create_dir(t.path().join("outside")).unwrap();
    std::fs::write(t.path().join("outside/film.mov"), "outside").unwrap();
    symlink(t.path().join("outside"), root.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (root, stop) = (root.clone(), stop.clone());
        std::thread::spawn(move || {
            // `dir` is by turns the folder and the link.
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(root.join("real"), root.join("dir")).unwrap();
                std::fs::rename(root.join("dir"), root.join("real")).unwrap();
                std::fs::rename(root.join("link"), root.join("dir")).unwrap();
                std::fs::rename(root.join("dir"), root.join("link")).unwrap();
            }
        })
    };
    let share = share(&root);
    let mut inside = 0;
    for _ in 0..20_000 {
        if let Ok(mut file) = share.open_read(&rel("dir/film.mov")) {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
            inside += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(inside > 0, "the race never let a read through, so it showed nothing");
}

#[test]
fn folders_are_not_made_through_a_planted_link() {
    let t = temp();
    let root = t.path().join("root");
    let outside = t.path().join("outside");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    symlink(&outside, root.join(".trix")).unwrap();
    let out = writable(&root);
    let e = Stage::create(out.dir(), &stage_name("1-1")).unwrap_err();
    assert!(matches!(e, StorageError::Escape { .. }), "{e:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_new_file_never_lands_in_one_that_was_planted_under_its_name() {
    let t = temp();
    let root = t.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(t.path().join("victim"), "precious").unwrap();
    let out = writable(&root);
    let stage = out.stage(&stage_name("1-1")).unwrap();
    let planted = root.join(".trix/stage/1-1");
    std::fs::hard_link(t.path().join("victim"), planted.join("hard.mp4")).unwrap();
    symlink(t.path().join("victim"), planted.join("soft.mp4")).unwrap();
    for file in ["hard.mp4", "soft.mp4"] {
        assert!(stage.create_file(&rel(file)).is_err(), "{file}");
    }
    assert_eq!(std::fs::read(t.path().join("victim")).unwrap(), b"precious");
}

#[test]
fn removing_a_stage_does_not_follow_links_out_of_it() {
    let t = temp();
    let root = t.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let outside = t.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("keep"), "keep").unwrap();
    let out = writable(&root);
    let stage = out.stage(&stage_name("1-1")).unwrap();
    stage_file(&stage, "a/b/c.mp4", b"x");
    let folder = root.join(".trix/stage/1-1");
    symlink(&outside, folder.join("a/out")).unwrap();
    std::fs::write(folder.join(std::ffi::OsStr::from_bytes(b"a/\xff\xfe")), "x").unwrap();
    stage.remove().unwrap();
    assert!(!folder.exists());
    assert_eq!(std::fs::read(outside.join("keep")).unwrap(), b"keep");
}

#[test]
fn a_source_that_changed_since_the_plan_is_told_from_one_that_did_not() {
    let t = temp();
    let path = t.path().join("film.mov");
    std::fs::write(&path, "film").unwrap();
    let share = share(t.path());
    let planned = share.source_ref(&rel("film.mov")).unwrap();
    assert_eq!((planned.size, planned.location.to_string().as_str()), (4, "in:film.mov"));
    share.open_source(&planned).unwrap();
    let other_time = trix_plan::task::SourceRef { mtime_ns: 5, ..planned.clone() };
    std::fs::write(&path, "longer").unwrap();
    for source in [planned, other_time] {
        let failure = Failure::from(share.open_source(&source).unwrap_err());
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("source_changed", ErrorClass::Deterministic)
        );
    }
}

#[test]
fn a_share_is_known_by_its_marker() {
    let t = temp();
    let out = writable(t.path());
    let missing = Expect { marker: Some(uuid::Uuid::new_v4()), ..Expect::default() };
    let bare = out.probe(&missing);
    assert_eq!(bare.state, ShareState::Wrong, "{bare:?}");
    let uuid = out.ensure_marker().unwrap();
    assert_eq!(out.ensure_marker().unwrap(), uuid);
    let good = out.probe(&Expect { marker: Some(uuid), ..Expect::default() });
    assert_eq!((good.state, good.reason.as_str()), (ShareState::Ok, ""));
    assert!(good.space.unwrap().total > 0);
    assert!(!good.mount.unwrap().fs_type.is_empty());
    assert_eq!(out.probe(&missing).state, ShareState::Wrong);
    std::fs::write(t.path().join(".trix-share"), "not a uuid").unwrap();
    assert_eq!(out.probe(&Expect::default()).state, ShareState::Ok);
    assert_eq!(out.probe(&missing).state, ShareState::Wrong);
    let full = Expect { min_free: u64::MAX, ..Expect::default() };
    assert_eq!(out.probe(&full).state, ShareState::Full);
    // No debris of the probes.
    assert_eq!(std::fs::read_dir(t.path().join(".trix/probe")).unwrap().count(), 0);
}

#[test]
fn a_mount_without_marker_is_known_by_its_source() {
    let t = temp();
    let share = share(t.path());
    let mount = share.mount().unwrap();
    let same = Expect { mount: Some((mount.fs_type.clone(), mount.source)), ..Expect::default() };
    assert_eq!(share.probe(&same).state, ShareState::Ok);
    let other = Expect { mount: Some((mount.fs_type, "//nas/x".to_owned())), ..Expect::default() };
    assert_eq!(share.probe(&other).state, ShareState::Wrong);
}

#[test]
fn when_the_mount_goes_nothing_is_written_to_the_bare_folder_and_the_probe_says_gone() {
    let Some(fs) = SmallFs::mount("bare_mount_point", 1 << 20) else { return };
    let out = writable(&fs.path());
    let uuid = out.ensure_marker().unwrap();
    let expect = Expect { marker: Some(uuid), ..Expect::default() };
    assert_eq!(out.probe(&expect).state, ShareState::Ok);
    let stage = out.stage(&stage_name("1-1")).unwrap();
    fs.unmount();
    assert_eq!(out.probe(&expect).state, ShareState::Gone);
    // A lazily unmounted tmpfs still takes writes by handle: they must not be in the bare folder.
    stage_file(&stage, "late.mp4", b"late");
    assert_eq!(std::fs::read_dir(fs.path()).unwrap().count(), 0);
    // Opened anew by path it is the bare folder, which has no marker.
    assert_eq!(writable(&fs.path()).probe(&expect).state, ShareState::Wrong);
}

#[test]
fn a_read_only_mount_is_told() {
    let Some(fs) = SmallFs::mount("read_only_mount", 1 << 20) else { return };
    let out = writable(&fs.path());
    let done = std::process::Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(fs.path())
        .output()
        .unwrap();
    assert!(done.status.success());
    assert_eq!(out.probe(&Expect::default()).state, ShareState::ReadOnly);
    let e = out.stage(&stage_name("1-1")).unwrap_err();
    assert_eq!(Failure::from(e).code, "share_unavailable");
}

fn roots(t: &Path) -> Roots {
    let root = |p: &str, role| Root { root: t.join(p), role };
    Roots::new([
        (name("in"), root("in", ShareRole::Source)),
        (name("in-new"), root("in/new", ShareRole::Source)),
        (name("out"), root("out", ShareRole::Output)),
    ])
}

#[test]
fn a_path_of_the_machine_is_put_on_the_share_with_the_longest_root() {
    let t = temp();
    std::fs::create_dir_all(t.path().join("in/new/sub")).unwrap();
    std::fs::create_dir_all(t.path().join("out")).unwrap();
    std::fs::write(t.path().join("in/new/sub/имя 🎬.mov"), "x").unwrap();
    symlink(t.path().join("in/new"), t.path().join("shortcut")).unwrap();
    let roots = roots(t.path());
    let at = |p: &str| roots.resolve_abs(&t.path().join(p)).map(|s| s.to_string());
    assert_eq!(at("in/a.mov").unwrap(), "in:a.mov");
    assert_eq!(at("in//new/./sub/b.mov").unwrap(), "in-new:sub/b.mov");
    assert_eq!(at("in").unwrap(), "in:");
    assert_eq!(at("shortcut/sub/имя 🎬.mov").unwrap(), "in-new:sub/имя 🎬.mov");
    assert_eq!(at("in/new/../new/sub/имя 🎬.mov").unwrap(), "in-new:sub/имя 🎬.mov");
    // A folder whose name merely begins like a root is not in it.
    std::fs::write(t.path().join("input.mov"), "x").unwrap();
    let e = at("input.mov").unwrap_err();
    let StorageError::OutsideShares { hint, .. } = &e else { panic!("{e:?}") };
    assert!(hint.contains("in-new = "), "{hint}");
    assert_eq!(Failure::from(e).code, "outside_shares");
    assert!(roots.resolve_abs(Path::new("relative.mov")).is_err());
}

#[test]
fn a_source_share_is_not_opened_for_writing() {
    let t = temp();
    for folder in ["in/new", "out"] {
        std::fs::create_dir_all(t.path().join(folder)).unwrap();
    }
    let roots = roots(t.path());
    assert!(roots.open(&name("in")).is_ok());
    assert!(roots.open_writable(&name("out")).is_ok());
    let e = roots.open_writable(&name("in")).unwrap_err();
    assert!(matches!(e, StorageError::NotWritable { .. }), "{e:?}");
    assert!(matches!(roots.open(&name("absent")), Err(StorageError::UnknownShare(_))));
}

#[test]
fn only_stages_that_the_caller_gives_up_are_swept() {
    let t = temp();
    let out: WritableShare = writable(t.path());
    let ours = trix_storage::ClusterTag::from(uuid::Uuid::from_u128(0x0a << 96));
    let theirs = trix_storage::ClusterTag::from(uuid::Uuid::from_u128(0x0b << 96));
    let attempt = |epoch| AttemptId { task: TaskId(12), epoch: Epoch(epoch) };
    let name = |cluster, epoch| StageName::of(cluster, attempt(epoch));
    assert_eq!(name(ours, 1).as_str(), "0000000a-12-1");
    let others = ["12-1", "run-abc", "0000000a-12", "0000000g-12-1"];
    let others: Vec<_> = others.into_iter().map(stage_name).collect();
    for stage in [name(ours, 1), name(ours, 2), name(theirs, 1)].iter().chain(&others) {
        stage_file(&out.stage(stage).unwrap(), "a/b", b"123");
    }
    let mut seen = Vec::new();
    let removed = trix_storage::sweep_stages(out.dir(), |entry| {
        seen.push((entry.attempt_of(ours).map(|a| a.epoch.0), entry.size));
        entry.attempt_of(ours).is_some_and(|a| a.epoch.0 == 1)
    })
    .unwrap();
    assert_eq!(removed, [name(ours, 1).as_str()], "not that of the same task of others");
    seen.sort();
    let unknown = (None, 3);
    let mine = [(Some(1), 3), (Some(2), 3)];
    assert_eq!(seen, [[unknown; 5].as_slice(), &mine].concat());
    assert!(out.stage(&name(ours, 2)).is_err(), "a stage has one writer ever");
    assert!(out.stage(&name(ours, 1)).is_ok());
}
