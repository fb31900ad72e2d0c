//! A share over sshfs whose server freezes or dies, and the helper that mounts it anew.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use trix_db::ProtocolTimes;
use trix_model::state::TaskState;
use trix_testkit::pg::TestDb;
use trix_worker::MountList;

use crate::support::{Site, times};

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Looks are short here, because these tests are about one that is not answered.
fn impatient() -> ProtocolTimes {
    ProtocolTimes { mount_deadline: Duration::from_secs(1), ..times() }
}

/// An SFTP server on this machine's loopback: a process for each connection.
struct Server {
    address: SocketAddr,
    processes: Arc<Mutex<Vec<Child>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let processes = Arc::new(Mutex::new(Vec::new()));
        let all = processes.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                let copy: OwnedFd = connection.try_clone().unwrap().into();
                let server = Command::new(SFTP_SERVER)
                    .stdin(Stdio::from(OwnedFd::from(connection)))
                    .stdout(Stdio::from(copy))
                    .spawn()
                    .unwrap();
                all.lock().unwrap_or_else(PoisonError::into_inner).push(server);
            }
        });
        Server { address, processes }
    }

    /// To all processes that serve now.
    fn signal(&self, signal: Signal) {
        for server in self.processes.lock().unwrap().iter() {
            kill_process(Pid::from_child(server), signal).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for server in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The share `out` of a site, over sshfs.
struct Mounted {
    point: PathBuf,
    served: PathBuf,
    fstab: PathBuf,
    server: Server,
}

impl Mounted {
    fn new(test: &str, site: &mut Site) -> Option<Mounted> {
        let missing =
            [SFTP_SERVER, "/usr/bin/sshfs", "/dev/fuse"].iter().any(|p| !Path::new(p).exists());
        if missing || !rustix::process::geteuid().is_root() {
            println!("SKIP {test}: it needs root, sshfs, an sftp server and /dev/fuse");
            return None;
        }
        let server = Server::start();
        let (point, served) = (site.path("out"), site.path("served"));
        let fstab = site.path("fstab");
        std::fs::create_dir(&served).unwrap();
        let line = format!(
            "127.0.0.1:{} {} fuse.sshfs directport={} 0 0\n",
            served.display(),
            point.display(),
            server.address.port()
        );
        std::fs::write(&fstab, line).unwrap();
        let status = Command::new("mount").arg("--fstab").args([&fstab, &point]).status().unwrap();
        assert!(status.success(), "{status}");

        let socket = site.path("mounts.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let points = [("out".parse().unwrap(), point.clone())].into();
        let list = MountList { points, fstab: fstab.clone(), uid: 0 };
        std::thread::spawn(move || trix_worker::serve_mounts(&list, &listener));
        site.mount_helper = Some(socket);
        Some(Mounted { point, served, fstab, server })
    }

    /// What lies beneath the mount, on this machine's own disk.
    fn bare(&self) -> Vec<String> {
        let status = Command::new("umount").arg("--lazy").arg(&self.point).status().unwrap();
        assert!(status.success(), "{status}");
        let entries = std::fs::read_dir(&self.point).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.server.signal(Signal::CONT);
        // Gone already when the test came to its end.
        let _ = Command::new("umount").arg("-lq").arg(&self.point).output();
        let _ = std::fs::remove_file(&self.fstab);
    }
}

async fn away(site: &Site) {
    site.until("the worker has noticed", || async {
        Some(site.db.workers(false).await.ok()?.first()?.shares_ok == ["cache", "in"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_freezes_is_given_up_and_mounted_anew() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::with_times(database.url(), impatient()).await;
    let test = "a_share_that_freezes_is_given_up_and_mounted_anew";
    let Some(mounted) = Mounted::new(test, &mut site) else { return };
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-1500"], true).await;
    site.running(job, "audio/0/slow-1500").await;
    // Every call into the share hangs from now on, and no signal ends it.
    mounted.server.signal(Signal::STOP);
    away(&site).await;
    site.done(job).await;
    assert!(mounted.served.join("titles/film/v1/film.mp4").exists());
    worker.term();
    assert_eq!(mounted.bare(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_whose_server_dies_is_mounted_anew_and_nothing_is_written_meanwhile() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::with_times(database.url(), impatient()).await;
    let test = "a_share_whose_server_dies_is_mounted_anew_and_nothing_is_written_meanwhile";
    let Some(mounted) = Mounted::new(test, &mut site) else { return };
    let worker = site.worker("one", 2000).await;
    let marker = std::fs::read(mounted.served.join(".trix-share"));
    let job = site.submit("film", &["audio/0/slow-1500"], true).await;
    site.running(job, "audio/0/slow-1500").await;
    mounted.server.signal(Signal::KILL);
    site.done(job).await;
    if let Ok(marker) = marker {
        assert_eq!(std::fs::read(mounted.served.join(".trix-share")).unwrap(), marker);
    }
    assert!(mounted.served.join("titles/film/v1/film.mp4").exists());
    worker.term();
    assert_eq!(mounted.bare(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_helper_a_frozen_share_keeps_no_worker_from_its_end() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::with_times(database.url(), impatient()).await;
    let test = "without_a_helper_a_frozen_share_keeps_no_worker_from_its_end";
    let Some(mounted) = Mounted::new(test, &mut site) else { return };
    site.mount_helper = None;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0"], false).await;
    site.done(job).await;
    mounted.server.signal(Signal::STOP);
    away(&site).await;
    // Other shares work on.
    let job = site.submit("another", &["audio/0"], false).await;
    site.done(job).await;
    site.state(job, "audio/0", TaskState::Done).await;
    worker.term();
}
