//! Several processes on one folder, and one that is killed.
//!
//! The children are this test program, called with the ignored test `child` and told by
//! variables what to do.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trix_model::Key;
use trix_storage::ops::Ops;
use trix_storage::publish::verify_published;
use trix_storage::{Cache, FolderFence, MoveMethod, Publisher};

use crate::common::*;

fn start(job: &str, root: &Path, args: &[(&str, String)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "processes::child", "--nocapture"])
        .env("TRIX_CHILD_JOB", job)
        .env("TRIX_CHILD_ROOT", root)
        .envs(args.iter().map(|(k, v)| (format!("TRIX_CHILD_{k}"), v.as_str())))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn arg(name: &str) -> String {
    std::env::var(format!("TRIX_CHILD_{name}")).unwrap()
}

#[test]
#[ignore = "run by the other tests as a process of its own"]
fn child() {
    let root = std::path::PathBuf::from(arg("ROOT"));
    match arg("JOB").as_str() {
        "commit" => commit_many(&root, &arg("ID"), arg("SAME") == "yes"),
        "publish" => publish_or_die(&root, &arg("ID"), arg("KILL_AT").parse().unwrap()),
        other => panic!("no job {other}"),
    }
}

const KEYS: u8 = 40;

fn commit_many(root: &Path, id: &str, same: bool) {
    let cache = Cache::open(root, 1 << 30).unwrap();
    // All begin at once.
    std::fs::write(root.join(format!("ready-{id}")), "").unwrap();
    while !root.join("go").exists() {
        std::thread::yield_now();
    }
    for n in 0..KEYS {
        let seed =
            if same { u64::from(n) } else { id.parse::<u64>().unwrap() * 1000 + u64::from(n) };
        let bytes = noise(seed, 20_000);
        let stage = cache.stage(&stage_name(&format!("{n}-{id}"))).unwrap();
        stage_file(&stage, "out", &bytes);
        let done = cache.commit(&stage, &rel("out"), &Key([n; 32]), blake3(&bytes), None).unwrap();
        assert!(done.was_there || done.digest == blake3(&bytes));
        // What the answer says is what a reader gets.
        let found = cache.get_verified(&Key([n; 32]), Some(done.digest)).unwrap();
        assert!(found.is_some(), "key {n} is not what the commit said");
        stage.remove().unwrap();
    }
}

#[test]
fn processes_that_commit_the_same_keys_agree_on_one_whole_artifact_each() {
    for same in ["yes", "no"] {
        let t = temp();
        let ids = ["1", "2", "3"];
        let children: Vec<Child> = ids
            .iter()
            .map(|id| {
                let args = [("ID", (*id).to_owned()), ("SAME", same.to_owned())];
                start("commit", t.path(), &args)
            })
            .collect();
        while !ids.iter().all(|id| t.path().join(format!("ready-{id}")).exists()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::fs::write(t.path().join("go"), "").unwrap();
        for mut c in children {
            assert!(c.wait().unwrap().success());
        }
        let cache = Cache::open(t.path(), 1 << 30).unwrap();
        assert_eq!(cache.list().unwrap().len(), usize::from(KEYS));
        for n in 0..KEYS {
            assert!(cache.get_verified(&Key([n; 32]), None).unwrap().is_some(), "key {n}");
        }
        assert!(stages_left(t.path()).is_empty());
    }
}

/// Kills its own process just before the n-th call.
#[derive(Debug)]
struct KillAt {
    at: u64,
    calls: AtomicU64,
}

impl Ops for KillAt {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
        call()
    }
}

fn publish_or_die(root: &Path, stage: &str, kill_at: u64) {
    let from = share(&root.join("src"));
    let ops = Arc::new(KillAt { at: kill_at, calls: AtomicU64::new(0) });
    let out = writable(&root.join("out")).with_ops(ops);
    let request = request(&from, "film", &[("a.mp4", "a"), ("b.mp4", "b")]);
    let receipt = Publisher::new(&out, MoveMethod::Link, stage_name(stage))
        .publish(request, &mut FolderFence::new(&out), &mut quiet)
        .unwrap();
    assert_eq!(receipt.version, 1);
}

#[test]
fn a_publisher_killed_at_any_call_leaves_nothing_partial_and_the_next_one_finishes() {
    let mut killed = 0;
    for kill_at in 0.. {
        let t = temp();
        for folder in ["src", "out"] {
            std::fs::create_dir(t.path().join(folder)).unwrap();
        }
        for (n, file) in ["a", "b"].into_iter().enumerate() {
            std::fs::write(t.path().join("src").join(file), noise(n as u64, 30_000)).unwrap();
        }
        let run = |stage: &str, kill_at: u64| {
            let args = [("ID", stage.to_owned()), ("KILL_AT", kill_at.to_string())];
            start("publish", t.path(), &args).wait().unwrap()
        };
        let ended = run("run-1", kill_at);
        for (path, bytes) in visible(&t.path().join("out")) {
            let whole = [noise(0, 30_000), noise(1, 30_000)].contains(&bytes);
            assert!(whole || path.ends_with("manifest.json"), "killed at {kill_at}: {path}");
        }
        let out = writable(&t.path().join("out"));
        if out.stat(&rel("film/v1/manifest.json")).unwrap().is_some() {
            verify_published(&out, &rel("film/v1")).unwrap();
        }
        if ended.success() {
            break;
        }
        killed += 1;
        assert!(run("run-2", u64::MAX).success(), "after a kill at call {kill_at}");
        verify_published(&out, &rel("film/v1")).unwrap();
        assert_eq!(visible(&t.path().join("out")).len(), 3, "killed at {kill_at}");
    }
    println!("killed at {killed} calls");
    assert!(killed > 50, "only {killed} kills: the hook is not in the way");
}
