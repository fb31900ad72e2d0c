//! Publication over a real sshfs, and what is left when its server dies.
//!
//! sshfs speaks over a socket pair to an sftp server that this test starts and kills.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trix_model::{ErrorClass, Failure};
use trix_storage::ops::Ops;
use trix_storage::publish::verify_published;
use trix_storage::{
    Cache, Capabilities, Expect, FolderFence, MoveMethod, Publisher, ShareState, StorageError,
};

use crate::common::*;

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

struct SshFs {
    server: Arc<Mutex<Child>>,
    client: Child,
    mount: PathBuf,
    folder: tempfile::TempDir,
}

impl SshFs {
    fn mount(test: &str) -> Option<SshFs> {
        if !root_or_skip(test) {
            return None;
        }
        let has = |p: &str| Path::new(p).exists();
        if !has(SFTP_SERVER) || !has("/usr/bin/sshfs") || !has("/dev/fuse") {
            println!("SKIP {test}: sshfs, an sftp server or /dev/fuse is missing");
            return None;
        }
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (mount, served) = (folder.path().join("mount"), folder.path().join("served"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::create_dir(&served).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ends = |s: UnixStream| {
            let copy: OwnedFd = s.try_clone().unwrap().into();
            (Stdio::from(OwnedFd::from(s)), Stdio::from(copy))
        };
        let (stdin, stdout) = ends(theirs);
        let server = Command::new(SFTP_SERVER).stdin(stdin).stdout(stdout).spawn().unwrap();
        let (stdin, stdout) = ends(ours);
        let client = Command::new("sshfs")
            .args(["-f", "-o", "passive"])
            .arg(format!(":{}", served.display()))
            .arg(&mount)
            .stdin(stdin)
            .stdout(stdout)
            .spawn()
            .unwrap();
        let mut fs = SshFs { server: Arc::new(Mutex::new(server)), client, mount, folder };
        while !fs.is_mounted() {
            if let Some(ended) = fs.client.try_wait().unwrap() {
                println!("SKIP {test}: sshfs ended with {ended}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(fs)
    }

    fn is_mounted(&self) -> bool {
        let mount = share(&self.mount).mount();
        mount.is_ok_and(|m| m.fs_type == "fuse.sshfs")
    }

    fn served(&self) -> PathBuf {
        self.folder.path().join("served")
    }

    /// Ends the server and waits until the mount is gone.
    fn kill_server(server: &Mutex<Child>) {
        let mut server = server.lock().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

impl Drop for SshFs {
    fn drop(&mut self) {
        // Each of these may be gone already, which is then as wanted.
        let _ = Command::new("umount").arg("-lq").arg(&self.mount).output();
        let _ = self.server.lock().map(|mut s| (s.kill(), s.wait()));
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn source() -> (tempfile::TempDir, trix_storage::Share) {
    let t = temp();
    std::fs::write(t.path().join("a"), noise(1, 3 << 20)).unwrap();
    std::fs::write(t.path().join("b"), noise(2, 100_000)).unwrap();
    let from = share(t.path());
    (t, from)
}

const FILES: [(&str, &str); 2] = [("имя 🎬.mp4", "a"), ("audio/b.mp4", "b")];

#[test]
fn publishing_and_caching_work_over_sshfs() {
    let Some(fs) = SshFs::mount("sshfs_publish") else { return };
    let (_t, from) = source();
    let out = writable(&fs.mount);
    let uuid = out.ensure_marker().unwrap();
    let probe = out.probe(&Expect { marker: Some(uuid), ..Expect::default() });
    assert_eq!((probe.state, probe.reason.as_str()), (ShareState::Ok, ""));
    let can = Capabilities::probe(&out).unwrap();
    assert_eq!(can.move_method, MoveMethod::Link);
    let mut fence = FolderFence::new(&out);
    let publisher = Publisher::new(&out, can.move_method, stage_name("7-1"));
    let ask = || request(&from, "title/film", &FILES);
    let receipt = publisher.publish(ask(), &mut fence, &mut quiet).unwrap();
    assert_eq!(publisher.publish(ask(), &mut fence, &mut quiet).unwrap(), receipt);
    verify_published(&out, &receipt.folder).unwrap();
    let seen = visible(&fs.served());
    assert_eq!(seen.len(), 3);
    assert_eq!(seen["title/film/v1/имя 🎬.mp4"], noise(1, 3 << 20));

    let cache = Cache::on_share(&out, 1 << 30).unwrap();
    let key = trix_model::Key([7; 32]);
    for (attempt, was_there) in [("8-1", false), ("8-2", true)] {
        let stage = cache.stage(&stage_name(attempt)).unwrap();
        stage_file(&stage, "out", b"artifact");
        let done = cache.commit(&stage, &rel("out"), &key, blake3(b"artifact"), None).unwrap();
        assert_eq!(done.was_there, was_there);
        stage.remove().unwrap();
    }
    assert!(cache.get_verified(&key, None).unwrap().is_some());
    assert!(stages_left(&fs.served()).is_empty());
}

/// Kills the server just before the n-th call.
#[derive(Debug)]
struct KillServerAt {
    at: u64,
    calls: std::sync::atomic::AtomicU64,
    server: Arc<Mutex<Child>>,
}

impl Ops for KillServerAt {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == self.at {
            SshFs::kill_server(&self.server);
        }
        call()
    }
}

#[test]
fn a_server_that_dies_while_publishing_leaves_nothing_on_the_bare_mount_point() {
    let (_t, from) = source();
    // Spread over staging, re-reading, moving and the manifest.
    for at in [3, 12, 20, 40, 70, 90, 100, 120] {
        let Some(fs) = SshFs::mount("sshfs_server_dies") else { return };
        let good = writable(&fs.mount);
        let uuid = good.ensure_marker().unwrap();
        let calls = std::sync::atomic::AtomicU64::new(0);
        let ops = Arc::new(KillServerAt { at, calls, server: fs.server.clone() });
        let out = good.with_ops(ops);
        let e = Publisher::new(&out, MoveMethod::Link, stage_name("7-1"))
            .publish(request(&from, "film", &FILES), &mut FolderFence::new(&out), &mut quiet)
            .unwrap_err();
        let failure = match e {
            StorageError::Refused(failure) => failure,
            e => Failure::from(e),
        };
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("share_unavailable", ErrorClass::Transient),
            "killed at call {at}: {failure:?}"
        );
        // The handle fails for good; the path is a bare folder, and stays empty.
        let expect = Expect { marker: Some(uuid), ..Expect::default() };
        let mut state = good.probe(&expect).state;
        for _ in 0..500 {
            if !fs.is_mounted() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            state = good.probe(&expect).state;
        }
        assert!(!fs.is_mounted(), "sshfs is still mounted");
        assert_eq!(state, ShareState::Gone);
        assert!(good.stage(&stage_name("7-2")).is_err());
        assert_eq!(std::fs::read_dir(&fs.mount).unwrap().count(), 0, "killed at call {at}");
        // What the server has is whole, and finishing from there works.
        for (path, bytes) in visible(&fs.served()) {
            let whole = [noise(1, 3 << 20), noise(2, 100_000)].contains(&bytes);
            assert!(whole || path.ends_with("manifest.json"), "killed at {at}: {path}");
        }
        let later = writable(&fs.served());
        let receipt = Publisher::new(&later, MoveMethod::Link, stage_name("7-2"))
            .publish(request(&from, "film", &FILES), &mut FolderFence::new(&later), &mut quiet)
            .unwrap();
        verify_published(&later, &receipt.folder).unwrap();
    }
}
