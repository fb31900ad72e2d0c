//! Workers die, stop and lose what they made.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use trix_model::state::{AttemptState, TaskState};
use trix_testkit::pg::TestDb;

use crate::support::{Site, all_dead};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_killed_in_the_middle_and_the_job_finishes_elsewhere() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let first = site.worker("one", 2000).await;
    let job =
        site.submit("film", &["audio/0", "audio/1/slow-3000", "audio/2/slow-3000"], true).await;
    site.running(job, "audio/1/slow-3000").await;
    site.state(job, "audio/0", TaskState::Done).await;
    let second = site.worker("two", 2000).await;
    let slots = first.slots();
    assert!(!slots.is_empty());
    first.kill();
    all_dead(&slots);
    site.done(job).await;
    let attempts = site.attempts(job, "audio/1/slow-3000").await;
    assert_eq!(attempts[0].state, AttemptState::Lost, "{attempts:?}");
    let last = attempts.last().unwrap();
    assert_eq!((last.state, &*last.node), (AttemptState::Succeeded, "two"));
    // What was done stays done.
    assert_eq!(site.attempts(job, "audio/0").await.len(), 1);
    assert_eq!(site.names("out/titles/film"), ["v1"]);
    second.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_that_comes_back_takes_its_own_place() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let first = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-3000"], true).await;
    site.running(job, "audio/0/slow-3000").await;
    first.kill();
    let _again = site.worker("one", 2000).await;
    site.done(job).await;
    let attempts = site.attempts(job, "audio/0/slow-3000").await;
    // Not the silence of the old process, but the word of the new one.
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "superseded", "{attempts:?}");
    assert_eq!(attempts.len(), 2);
    // The stage that the killed process left is gone as well.
    site.no_debris();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_workers_result_is_refused_and_it_registers_again() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0/slow-1500"], true).await;
    site.running(job, "audio/0/slow-1500").await;
    let before = site.active("one").await.unwrap();
    // The worker stops; its slot goes on and finishes into a void.
    worker.signal(Signal::STOP);
    site.state(job, "audio/0/slow-1500", TaskState::Ready).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    worker.signal(Signal::CONT);
    site.done(job).await;
    let attempts = site.attempts(job, "audio/0/slow-1500").await;
    assert_eq!(attempts[0].state, AttemptState::Lost, "{attempts:?}");
    assert_eq!(attempts[0].worker, before);
    assert_eq!(attempts[1].state, AttemptState::Succeeded);
    let after = site.active("one").await.unwrap();
    assert!(after > before, "it still is {before}");
    assert_eq!(attempts[1].worker, after);
    assert_eq!(site.names("out/titles/film"), ["v1"]);
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_wiped_in_the_middle_and_the_job_finishes() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0", "audio/1", "audio/2/slow-2500"], true).await;
    site.state(job, "audio/0", TaskState::Done).await;
    site.state(job, "audio/1", TaskState::Done).await;
    site.running(job, "audio/2/slow-2500").await;
    let objects = site.path("cache/objects");
    for folder in site.names("cache/objects") {
        std::fs::remove_dir_all(objects.join(folder)).unwrap();
    }
    site.done(job).await;
    for lost in ["audio/0", "audio/1"] {
        let attempts = site.attempts(job, lost).await;
        assert!(attempts[0].result_lost, "{attempts:?}");
        // The second try may find that what it reads is gone as well.
        assert!((2..=3).contains(&attempts.len()), "{attempts:?}");
        let last = attempts.last().unwrap();
        assert!(last.state == AttemptState::Succeeded && !last.result_lost, "{attempts:?}");
    }
    // It ran while the cache was wiped, and its own bytes were not in it yet.
    assert_eq!(site.attempts(job, "audio/2/slow-2500").await.len(), 1);
    assert_eq!(site.names("out/titles/film/v1"), ["film.mp4", "manifest.json"]);
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_made_again() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0", "audio/1/slow-2000"], true).await;
    site.state(job, "audio/0", TaskState::Done).await;
    site.running(job, "audio/1/slow-2000").await;
    let mut hit = 0;
    for file in crate::support::files(&site.path("cache/objects")) {
        let bytes = std::fs::read(&file).unwrap();
        if file.extension().is_none() && bytes.ends_with(b"\n") {
            std::fs::write(&file, [&bytes[..bytes.len() - 1], b"X"].concat()).unwrap();
            hit += 1;
        }
    }
    assert!(hit >= 2, "only {hit} artifacts were there");
    site.done(job).await;
    let attempts = site.attempts(job, "audio/0").await;
    assert!(attempts.len() > 1 && attempts[0].result_lost, "{attempts:?}");
    let made = blake3::hash(&std::fs::read(site.path("out/titles/film/v1/film.mp4")).unwrap());
    assert_eq!(made, site.golden(&["audio/0", "audio/1/slow-2000"]).await);
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_goes_away_stops_only_what_needs_it_and_comes_back() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-2000"], true).await;
    site.running(job, "audio/0/slow-2000").await;
    std::fs::rename(site.path("in"), site.path("gone")).unwrap();
    site.state(job, "audio/0/slow-2000", TaskState::Ready).await;
    let attempts = site.attempts(job, "audio/0/slow-2000").await;
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "share_unavailable", "{attempts:?}");
    let shares = site.db.workers(false).await.unwrap()[0].shares_ok.clone();
    assert_eq!(shares, ["cache", "out"]);
    std::fs::rename(site.path("gone"), site.path("in")).unwrap();
    site.done(job).await;
    worker.term();
}

/// Runs a program that changes mounts; false where that is not allowed.
fn mount(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_mount_point_is_never_written_to() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let root = site.path("out");
    let path = root.to_str().unwrap();
    if !mount("mount", &["-t", "tmpfs", "trix-test", path]) {
        println!("SKIP a_bare_mount_point_is_never_written_to: mounting is not allowed");
        return;
    }
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-1500"], true).await;
    site.running(job, "audio/0/slow-1500").await;
    let marker = std::fs::read(root.join(".trix-share")).unwrap();
    // The mount dies; its path becomes an empty local folder.
    assert!(mount("umount", &["-l", path]));
    site.until("the worker has noticed", || async {
        Some(site.db.workers(false).await.ok()?[0].shares_ok == ["cache", "in"])
    })
    .await;
    site.state(job, "publish/output", TaskState::Ready).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.names("out"), Vec::<String>::new());
    // Another share in its place is not it.
    assert!(mount("mount", &["-t", "tmpfs", "trix-test", path]));
    std::fs::write(root.join(".trix-share"), format!("{}\n", uuid::Uuid::nil())).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.names("out"), [".trix-share"]);
    std::fs::write(root.join(".trix-share"), marker).unwrap();
    site.done(job).await;
    assert_eq!(site.names("out/titles/film"), ["v1"]);
    worker.term();
    assert!(mount("umount", &["-l", path]));
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_a_lost_attempt_left_in_the_cache_are_not_made_again() {
    let first = TestDb::new().await.unwrap();
    let second = TestDb::new().await.unwrap();
    let mut site = Site::new(first.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0", "audio/1"], false).await;
    site.done(job).await;
    worker.term();
    // A database that knows nothing of them: the files speak for themselves.
    let mut site = site.on_another(second.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0", "audio/1"], false).await;
    site.done(job).await;
    for name in ["audio/0", "audio/1"] {
        let attempts = site.attempts(job, name).await;
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].usage.unwrap().cpu_ms, 0, "{attempts:?}");
    }
    worker.term();
}
