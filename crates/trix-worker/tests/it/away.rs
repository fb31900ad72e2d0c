//! The database goes away and comes back.

use std::time::Duration;

use trix_model::state::{AttemptState, JobState};
use trix_testkit::pg::TestCluster;

use crate::support::{Site, alive};

const TASKS: &[&str] = &["audio/0/slow-3000", "audio/1/slow-3000", "audio/2"];

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_stopped_and_started_and_nothing_is_repeated() {
    let mut cluster = TestCluster::start().await.unwrap();
    let mut site = Site::new(&cluster.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", TASKS, true).await;
    site.running(job, TASKS[0]).await;
    site.running(job, TASKS[1]).await;
    let slots = worker.slots();
    cluster.stop().unwrap();
    // Longer than the time after which a silent worker is marked.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(slots.iter().all(|pid| alive(*pid)), "a slot was ended");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = site.names("state-one/outbox");
    assert_eq!(kept.len(), 2, "{kept:?}");
    cluster.restart().unwrap();
    site.done(job).await;
    site.nothing_repeated(job).await;
    assert_eq!(site.names("state-one/outbox"), Vec::<String>::new());
    assert_eq!(site.db.workers(true).await.unwrap().len(), 1, "it registered again");
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_or_is_killed_stops_no_work() {
    let mut cluster = TestCluster::start().await.unwrap();
    let mut site = Site::new(&cluster.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", TASKS, true).await;
    site.running(job, TASKS[0]).await;
    cluster.pause();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.resume();
    cluster.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.restart().unwrap();
    site.done(job).await;
    site.nothing_repeated(job).await;
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn results_kept_by_a_killed_worker_are_handed_in_by_its_successor() {
    let mut cluster = TestCluster::start().await.unwrap();
    let mut site = Site::new(&cluster.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-2000"], true).await;
    site.running(job, "audio/0/slow-2000").await;
    let before = site.active("one").await.unwrap();
    cluster.stop().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(site.names("state-one/outbox").len(), 1);
    worker.kill();
    let worker = site.worker("one", 2000).await;
    cluster.restart().unwrap();
    site.done(job).await;
    let attempts = site.attempts(job, "audio/0/slow-2000").await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!((attempts[0].state, attempts[0].worker), (AttemptState::Succeeded, before));
    let after = site.active("one").await.unwrap();
    assert!(after > before);
    assert_eq!(site.db.job(job).await.unwrap().unwrap().state, JobState::Succeeded);
    worker.term();
}
