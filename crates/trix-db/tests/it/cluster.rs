//! A private PostgreSQL: where it may lie, and how it outlives its starter.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use trix_db::cluster::{Cluster, ClusterError, ClusterOptions, Stop, ensure_database};
use trix_db::{Db, ProtocolTimes};

const VOLATILE: ClusterOptions = ClusterOptions { volatile: true };

/// A folder that the server's user can enter.
fn folder(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("trix-c-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    dir
}

#[tokio::test]
async fn a_cluster_is_made_once_and_keeps_its_databases() {
    let dir = folder(0o755);
    let mut cluster = Cluster::open(dir.path(), VOLATILE).unwrap();
    assert!(cluster.pid().is_none());
    cluster.start().unwrap();
    ensure_database(&cluster.url("postgres"), "trix \"odd\"").await.unwrap();
    ensure_database(&cluster.url("postgres"), "trix").await.unwrap();
    ensure_database(&cluster.url("postgres"), "trix").await.unwrap();
    let db = Db::open(&cluster.url("trix"), ProtocolTimes::default()).unwrap();
    db.migrate().await.unwrap();
    let pid = cluster.pid().unwrap();

    // Another process, after ours was killed, finds it running and takes it over.
    drop(cluster);
    let mut second = Cluster::open(dir.path(), VOLATILE).unwrap();
    second.start().unwrap();
    assert_eq!(second.pid(), Some(pid));
    second.stop(Stop::Fast).unwrap();
    second.stop(Stop::Fast).unwrap();
    assert!(second.pid().is_none());
    assert!(db.ping().await.unwrap_err().is_unavailable());
    second.start().unwrap();
    db.ping().await.unwrap();
    // SIGKILL leaves orphans that hold the memory: the start waits for them.
    second.kill();
    second.start().unwrap();
    second.stop(Stop::Immediate).unwrap();
}

#[test]
fn the_socket_and_the_data_are_for_their_owner_alone() {
    let dir = folder(0o755);
    let cluster = Cluster::open(dir.path(), VOLATILE).unwrap();
    for private in [cluster.socket_folder(), dir.path().join("data")] {
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o077, 0, "{private:?}");
    }
}

#[test]
fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP a_folder_that_the_servers_user_cannot_enter_is_named: not root");
        return;
    }
    let dir = folder(0o700);
    let inner = dir.path().join("state");
    match Cluster::open(&inner, VOLATILE) {
        Err(e @ ClusterError::NotEnterable { .. }) => {
            let text = e.to_string();
            assert!(text.contains(&dir.path().display().to_string()), "{text}");
            assert!(text.contains("chmod o+x"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!inner.join("data").exists());
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let dir = folder(0o755);
    let long = dir.path().join("x".repeat(90));
    assert!(matches!(Cluster::open(&long, VOLATILE), Err(ClusterError::PathTooLong { .. })));
    assert!(!long.join("data").exists());
}

#[test]
fn data_of_another_version_is_refused() {
    let dir = folder(0o755);
    drop(Cluster::open(dir.path(), VOLATILE).unwrap());
    fs::write(dir.path().join("data/PG_VERSION"), "9\n").unwrap();
    assert!(matches!(Cluster::open(dir.path(), VOLATILE), Err(ClusterError::OtherVersion { .. })));
}
