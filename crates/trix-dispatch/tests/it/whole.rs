//! Whole jobs while things fail.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use trix_model::state::{AttemptState, JobState};
use trix_testkit::pg::{TestCluster, TestDb};

use crate::support::*;

fn film() -> serde_json::Value {
    serde_json::to_value(intake(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_job_is_planned_run_and_published_by_itself() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let d = Dispatcher::start(&db, "one");
    let worker = Worker::start(&db, "a", film()).await;
    let job = submit(&db, "film").await;
    let row = until(&db, job, succeeded).await;
    assert!(row.planned && row.counts.done > 6, "{:?}", row.counts);
    let publications = db.publications(job).await.unwrap();
    assert!(publications.len() >= 3, "archive, output and preview");
    assert!(publications.iter().all(|p| p.current));
    // The log reaches the end of the job, numbered by the dispatcher.
    let mut last = vec![];
    for _ in 0..200 {
        last = db.events(0, Some(job), 5000).await.unwrap();
        if last.last().is_some_and(|e| e.body["to"] == "succeeded") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last.last().unwrap().body["to"], "succeeded");
    // The same title again runs only what publishes, and publishes nothing new.
    let ended = worker.ended.load(Ordering::Relaxed);
    let again = submit(&db, "film-again").await;
    let row = until(&db, again, succeeded).await;
    assert!(row.counts.done > row.counts.cached);
    assert!(worker.ended.load(Ordering::Relaxed) > ended);
    worker.kill().await;
    d.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_picture_fails_its_job_with_the_reason() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let d = Dispatcher::start(&db, "one");
    let worker = Worker::start(&db, "a", serde_json::to_value(blind()).unwrap()).await;
    let job = submit(&db, "blind").await;
    let row = until(&db, job, is_final).await;
    assert_eq!(row.state, JobState::Failed);
    assert_eq!(row.failure.unwrap().code, "no_video");
    // A result that this version cannot read is our mistake, and says so.
    worker.kill().await;
    let worker = Worker::start(&db, "b", json!({ "media": 5 })).await;
    let job = submit(&db, "garbled").await;
    let row = until(&db, job, is_final).await;
    assert_eq!(row.failure.unwrap().code, "bug");
    worker.kill().await;
    d.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_tasks_are_given_to_another() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let d = Dispatcher::start(&db, "one");
    let first = Worker::start(&db, "a", film()).await;
    first.hold.store(true, Ordering::Relaxed);
    let dead = first.me.worker;
    let job = submit(&db, "film").await;
    until(&db, job, |r| r.counts.running == 1).await;
    first.kill().await;
    let second = Worker::start(&db, "b", film()).await;
    until(&db, job, succeeded).await;
    let attempts = db.attempts(job).await.unwrap();
    let lost: Vec<_> = attempts.iter().filter(|a| a.state == AttemptState::Lost).collect();
    assert_eq!((lost.len(), lost[0].worker), (1, dead));
    assert_eq!(second.marked.load(Ordering::Relaxed), 0);
    second.kill().await;
    d.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_the_deadline_marks_nobody() {
    let mut cluster = TestCluster::start().await.unwrap();
    let db = cluster.db();
    let d = Dispatcher::start(&db, "one");
    let worker = Worker::start(&db, "a", film()).await;
    worker.hold.store(true, Ordering::Relaxed);
    let job = submit(&db, "film").await;
    until(&db, job, |r| r.counts.running == 1).await;
    let lost = db.times().lost;
    tokio::time::sleep(lost).await;
    cluster.crash().unwrap();
    tokio::time::sleep(lost * 3).await;
    cluster.restart().unwrap();
    worker.hold.store(false, Ordering::Relaxed);
    until(&db, job, succeeded).await;
    assert_eq!(worker.marked.load(Ordering::Relaxed), 0);
    let attempts = db.attempts(job).await.unwrap();
    assert!(attempts.iter().all(|a| a.state == AttemptState::Succeeded && a.epoch.0 == 1));
    worker.kill().await;
    d.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_dispatchers_the_second_takes_over() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let one = Dispatcher::start(&db, "one");
    let two = Dispatcher::start(&db, "two");
    let worker = Worker::start(&db, "a", film()).await;
    let job = submit(&db, "first").await;
    until(&db, job, succeeded).await;
    one.end().await;
    let job = submit(&db, "second").await;
    until(&db, job, succeeded).await;
    two.end().await;
    let three = Dispatcher::start(&db, "three");
    let job = submit(&db, "third").await;
    until(&db, job, succeeded).await;
    while db.sequence_events().await.unwrap().count > 0 {}
    let events = db.events(0, None, 5000).await.unwrap();
    let epochs: Vec<i64> = events
        .iter()
        .filter(|e| e.kind == "leader.takeover")
        .map(|e| e.body["epoch"].as_i64().unwrap())
        .collect();
    assert!(epochs.len() >= 2 && epochs.windows(2).all(|w| w[1] == w[0] + 1), "{epochs:?}");
    worker.kill().await;
    three.end().await;
}
