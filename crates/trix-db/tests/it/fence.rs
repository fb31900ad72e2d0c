//! Who may write about a task, and who is too late.

use std::time::Duration;

use trix_db::{DbError, Outcome, SyncReply, Verdict, WorkerStore};
use trix_model::state::{AttemptState, JobState, TaskState, WorkerState};

use crate::support::*;

#[tokio::test]
async fn a_silent_worker_is_marked_and_its_late_result_is_refused_and_recorded() {
    let mut w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let job = w.submit("film", plan0("film")).await;
    let old = a.claim(1).await.remove(0);

    let lost = w.db.times().lost;
    w.advance(lost * 3).await;
    b.beat().await;
    let marked = w.leader.mark_lost().await.unwrap();
    assert_eq!(marked.len(), 1, "only the silent one");
    assert_eq!((marked[0].worker, marked[0].attempts), (a.me.worker, 1));
    assert!(marked[0].silent_ms > lost.as_millis() as i64);
    assert!(w.leader.mark_lost().await.unwrap().is_empty());

    let again = b.claim(1).await.remove(0);
    assert_eq!((again.attempt.task, again.attempt.epoch.0), (old.attempt.task, 2));

    let mut late = a.request(4);
    late.results = vec![result(old.attempt, ok(&old))];
    assert!(matches!(w.db.sync(late).await.unwrap(), SyncReply::Marked { .. }));
    b.end(again.attempt, ok(&again)).await;

    let attempts = w.db.attempts(job).await.unwrap();
    let states: Vec<_> = attempts.iter().map(|a| a.state).collect();
    assert_eq!(states, [AttemptState::Lost, AttemptState::Succeeded]);
    let events = w.events().await;
    let refused: Vec<_> = events.iter().filter(|e| e.kind == "result.refused").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].job, Some(job));
    let lost_at = events.iter().position(|e| e.kind == "worker.lost").unwrap();
    assert!(lost_at < events.iter().position(|e| e.kind == "result.refused").unwrap());
}

#[tokio::test]
async fn nobody_is_marked_during_the_grace_after_an_outage_or_a_takeover() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let lost = w.db.times().lost;
    let gap = w.db.times().tick_gap;
    w.advance(lost * 3).await;
    a.beat().await;
    // The database was away for long: that time is no age, and a grace begins.
    let before = w.seat.tick(Duration::from_millis(1)).await.unwrap();
    let after = w.seat.tick(lost * 10).await.unwrap();
    assert_eq!(before.up_ms, after.up_ms);
    let grace = w.db.times().grace(lost * 10);
    assert_eq!(after.grace_until_up_ms, after.up_ms + grace.as_millis() as i64);
    w.advance(grace - Duration::from_millis(10)).await;
    assert!(grace > lost * 2, "the worker is old enough, only the grace protects it");
    assert!(w.leader.mark_lost().await.unwrap().is_empty());
    w.advance(gap).await;
    assert_eq!(w.leader.mark_lost().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_handed_out_again() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    let first = a.claim(1).await;
    let second = a.beat().await;
    assert_eq!(second.claims, first);
    assert_eq!(second.running, [first[0].attempt]);
}

#[tokio::test]
async fn a_result_whose_answer_was_lost_is_a_duplicate() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    for expected in [Verdict::Accepted, Verdict::Duplicate] {
        let v = a.end(c.attempt, ok(&c)).await.verdicts;
        assert_eq!((v.len(), v[0].attempt, v[0].verdict), (1, c.attempt, expected));
    }
}

#[tokio::test]
async fn the_result_of_another_workers_attempt_is_refused() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let job = w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    assert_eq!(b.end(c.attempt, ok(&c)).await.verdicts[0].verdict, Verdict::Refused);
    let wrong_epoch = attempt(c.attempt.task, 7);
    assert_eq!(a.end(wrong_epoch, ok(&c)).await.verdicts[0].verdict, Verdict::Refused);
    let unknown = attempt(trix_model::TaskId(999_999), 1);
    assert_eq!(a.end(unknown, ok(&c)).await.verdicts[0].verdict, Verdict::Refused);
    assert_eq!(w.task(job, "intake").await.state, TaskState::Running);
    assert_eq!(w.events().await.iter().filter(|e| e.kind == "result.refused").count(), 3);
}

#[tokio::test]
async fn a_worker_needs_its_own_secret() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let b = w.worker("b").await;
    let mut forged = a.clone();
    forged.me.token = b.me.token.clone();
    let denied = |r: Result<_, DbError>| assert!(matches!(r, Err(DbError::Denied { .. })));
    denied(w.db.sync(forged.request(1)).await.map(drop));
    denied(w.db.leave(forged.me.clone()).await);
    denied(w.db.supersede(forged.me.clone(), b.me.worker).await.map(drop));
    let mut node = trix_db::RegisterRequest {
        node: "a".into(),
        node_token: "guess".into(),
        boot_id: String::new(),
        pid: 1,
        version: String::new(),
        engine: ENGINE.into(),
        capacity: a.capacity,
        shares_ok: vec![],
    };
    denied(w.db.register(node.clone()).await.map(drop));
    node.node = "unknown".into();
    denied(w.db.register(node).await.map(drop));
    // A worker that a restored database does not know registers again.
    let mut unknown = a.clone();
    unknown.me.worker.0 = 999_999;
    assert!(matches!(w.db.sync(unknown.request(1)).await.unwrap(), SyncReply::Marked { .. }));
}

#[tokio::test]
async fn a_restarted_worker_takes_over_from_its_predecessor_at_once() {
    let w = World::new().await;
    let secret = w.db.enrol_node("a").await.unwrap().secret;
    let old = Fake::register(&w.db, "a", &secret, 4000).await;
    let job = w.submit("film", plan0("film")).await;
    old.claim(1).await;
    let new = Fake::register(&w.db, "a", &secret, 4000).await;
    assert_eq!(w.db.supersede(new.me.clone(), old.me.worker).await.unwrap(), 1);
    assert_eq!(w.db.supersede(new.me.clone(), old.me.worker).await.unwrap(), 0);
    assert!(matches!(w.db.sync(old.request(1)).await.unwrap(), SyncReply::Marked { .. }));
    let c = new.claim(1).await.remove(0);
    assert_eq!(c.attempt.epoch.0, 2);
    // Nobody supersedes a worker of another node.
    let other = w.worker("b").await;
    assert_eq!(w.db.supersede(other.me.clone(), new.me.worker).await.unwrap(), 0);
    new.end(c.attempt, ok(&c)).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);
}

#[tokio::test]
async fn a_worker_that_leaves_releases_what_it_runs() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let job = w.submit("film", plan0("film")).await;
    a.claim(1).await;
    w.db.drain(a.me.worker).await.unwrap();
    let r = a.sync(a.request(1)).await;
    assert!(r.drain);
    w.db.leave(a.me.clone()).await.unwrap();
    w.db.leave(a.me.clone()).await.unwrap();
    let workers = w.db.workers(true).await.unwrap();
    assert_eq!(workers.iter().find(|x| x.id == a.me.worker).unwrap().state, WorkerState::Gone);
    let c = b.claim(1).await.remove(0);
    b.end(c.attempt, ok(&c)).await;
    assert_eq!(w.state(job).await, JobState::Inspecting);
}

#[tokio::test]
async fn a_draining_worker_claims_nothing() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    w.db.drain(a.me.worker).await.unwrap();
    assert!(a.claim(4).await.is_empty());
    assert!(matches!(w.db.drain(trix_model::WorkerId(77)).await, Err(DbError::NotFound { .. })));
}

#[tokio::test]
async fn a_worker_lost_with_a_cancelled_task_lets_the_job_end() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    a.claim(1).await;
    assert_eq!(w.db.cancel(job).await.unwrap(), JobState::Cancelling);
    let lost = w.db.times().lost;
    w.advance(lost * 3).await;
    assert_eq!(w.leader.mark_lost().await.unwrap().len(), 1);
    assert_eq!(w.state(job).await, JobState::Cancelled);
}

#[tokio::test]
async fn a_leader_that_stands_still_is_overtaken_although_it_holds_the_lock() {
    use trix_db::leader::Seat;
    let mut w = World::new().await;
    let zero = Duration::ZERO;
    let seen = Seat::ping(&w.db).await.unwrap();
    w.seat.tick(zero).await.unwrap();
    assert!(Seat::overtake(&w.db, "second", zero, seen).await.unwrap().is_none(), "it ticks");

    let seen = Seat::ping(&w.db).await.unwrap();
    let mut second = Seat::overtake(&w.db, "second", zero, seen).await.unwrap().expect("it stands");
    assert!(Seat::overtake(&w.db, "third", zero, seen).await.unwrap().is_none(), "one is enough");
    assert!(matches!(w.seat.tick(zero).await, Err(DbError::NotLeader { .. })));
    assert!(matches!(w.leader.mark_lost().await, Err(DbError::NotLeader { .. })));
    second.tick(zero).await.unwrap();

    // The first is gone: a tick of the second takes the lock, and nobody slips in.
    w.seat.leave().await.unwrap();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        second.tick(zero).await.unwrap();
    }
    assert!(Seat::try_take(&w.db, "third", zero).await.unwrap().is_none());
    second.tick(zero).await.unwrap();
}

#[tokio::test]
async fn an_overtaken_leader_can_do_nothing() {
    let w = World::new().await;
    assert!(
        trix_db::leader::Seat::try_take(&w.db, "second", Duration::ZERO).await.unwrap().is_none()
    );
    let old = w.leader.clone();
    w.seat.leave().await.unwrap();
    let mut second = None;
    for _ in 0..100 {
        second = trix_db::leader::Seat::try_take(&w.db, "second", Duration::ZERO).await.unwrap();
        if second.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = second.expect("the seat became free");
    assert_eq!(second.epoch(), old.epoch() + 1);
    assert!(matches!(old.mark_lost().await, Err(DbError::NotLeader { .. })));
    assert!(matches!(old.jobs_to_plan(1).await, Err(DbError::NotLeader { .. })));
    assert!(matches!(old.repair().await, Err(DbError::NotLeader { .. })));
    second.leader().repair().await.unwrap();
}

#[tokio::test]
async fn an_outcome_of_every_kind_leaves_nothing_running() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    for (i, outcome) in [Outcome::Cancelled, Outcome::Released].into_iter().enumerate() {
        let job = w.submit(&format!("film{i}"), plan0(&format!("film{i}"))).await;
        let c = a.claim(1).await.remove(0);
        let r = a.end(c.attempt, outcome).await;
        assert_eq!(r.verdicts[0].verdict, Verdict::Accepted);
        assert!(r.running.is_empty());
        assert_eq!(w.task(job, "intake").await.state, TaskState::Ready);
        let c = a.claim(1).await.remove(0);
        a.end(c.attempt, ok(&c)).await;
    }
    w.advance(Duration::from_millis(1)).await;
}
