//! The database goes away in the middle, in all the ways it can.

use std::time::{Duration, Instant};

use trix_db::leader::Seat;
use trix_db::{Db, DbError, Verdict, WorkerStore};
use trix_model::state::JobState;
use trix_testkit::pg::TestCluster;

use crate::support::*;

/// A cluster of one's own with a submitted job and its worker.
async fn cluster_with_job() -> (TestCluster, Db, Fake, trix_model::JobId) {
    let cluster = TestCluster::start().await.unwrap();
    let db = cluster.db();
    let principal =
        db.create_principal("anna", trix_db::access::Role::Operator, None).await.unwrap();
    let profile = db.put_profile("p", digest(1), "", true).await.unwrap();
    let submit = trix_db::jobs::Submit {
        principal: principal.id,
        key: "k".into(),
        request_hash: digest(1),
        request: serde_json::Value::Null,
        title: "film".into(),
        profile: profile.id,
        sources: vec![],
        band: 5,
        plan: plan0("film"),
    };
    let job = db.submit(&submit).await.unwrap().job;
    let secret = db.enrol_node("a").await.unwrap().secret;
    let fake = Fake::register(&db, "a", &secret, 4000).await;
    (cluster, db, fake, job)
}

/// Repeats until the database answers.
async fn until_back<T, F: Future<Output = Result<T, DbError>>>(call: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(v) => return v,
            Err(e) if e.is_unavailable() && begun.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[tokio::test]
async fn a_result_survives_a_crash_of_the_database_and_is_committed_once() {
    let (mut cluster, db, fake, job) = cluster_with_job().await;
    let c = fake.claim(1).await.remove(0);
    cluster.crash().unwrap();
    let mut r = fake.request(0);
    r.results = vec![result(c.attempt, ok(&c))];
    let e = db.sync(r.clone()).await.unwrap_err();
    assert!(e.is_unavailable(), "{e:?}");
    assert_eq!(trix_model::Failure::from(e).code, "database_unavailable");
    cluster.restart().unwrap();
    let reply = until_back(|| db.sync(r.clone())).await;
    let trix_db::SyncReply::Accepted(a) = reply else { panic!("{reply:?}") };
    assert!(matches!(a.verdicts[0].verdict, Verdict::Accepted | Verdict::Duplicate));
    assert_eq!(db.attempts(job).await.unwrap().len(), 1);
    assert_eq!(db.job(job).await.unwrap().unwrap().state, JobState::Inspecting);
}

#[tokio::test]
async fn a_killed_database_comes_back_and_lost_nothing_that_was_answered() {
    let (mut cluster, db, fake, job) = cluster_with_job().await;
    let c = fake.claim(1).await.remove(0);
    fake.end(c.attempt, ok(&c)).await;
    cluster.kill();
    assert!(db.ping().await.is_err());
    cluster.restart().unwrap();
    until_back(|| db.ping()).await;
    let tasks = db.tasks(job).await.unwrap();
    assert_eq!(tasks[0].state, trix_model::state::TaskState::Done);
}

#[tokio::test]
async fn a_database_that_hangs_costs_no_more_than_the_deadlines() {
    let (cluster, db, _, _) = cluster_with_job().await;
    cluster.pause_all();
    for _ in 0..6 {
        let e = db.ping().await.unwrap_err();
        assert!(e.is_unavailable(), "{e:?}");
    }
    cluster.resume_all();
    // More calls than the pool has connections: no permit leaked.
    for _ in 0..20 {
        until_back(|| db.ping()).await;
    }
}

#[tokio::test]
async fn the_seat_is_free_again_when_its_session_is_gone() {
    let (mut cluster, db, _, _) = cluster_with_job().await;
    let mut seat = Seat::try_take(&db, "one", Duration::ZERO).await.unwrap().unwrap();
    cluster.crash().unwrap();
    assert!(seat.tick(Duration::from_millis(1)).await.unwrap_err().is_unavailable());
    cluster.restart().unwrap();
    let outage = Duration::from_secs(100);
    let again = until_back(|| Seat::try_take(&db, "two", outage)).await.unwrap();
    assert_eq!(again.epoch(), seat.epoch() + 1);
    let mut again = again;
    let t = again.tick(Duration::from_millis(1)).await.unwrap();
    let grace = db.times().grace(outage).as_millis() as i64;
    assert!(t.grace_until_up_ms >= grace, "{t:?}");
}

#[tokio::test]
async fn a_service_starts_while_the_database_is_away() {
    let (mut cluster, _, _, _) = cluster_with_job().await;
    cluster.stop().unwrap();
    let db = cluster.db();
    assert!(db.ping().await.unwrap_err().is_unavailable());
    assert!(db.migrate().await.unwrap_err().is_unavailable());
    cluster.restart().unwrap();
    until_back(|| db.migrate()).await;
    until_back(|| db.ping()).await;
}
