//! What becomes of a task after each class of failure.

use std::time::Duration;

use trix_db::Outcome;
use trix_model::state::{AttemptState, JobState, TaskState};
use trix_model::{ErrorClass, ErrorOrigin, Failure};

use crate::support::*;

#[tokio::test]
async fn a_transient_failure_waits_in_up_time_and_tries_again_without_end() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let max = w.db.times().backoff_max;
    for n in 1..=12 {
        let c = a.claim(1).await.remove(0);
        assert_eq!(c.attempt.epoch.0, n);
        a.end(c.attempt, failed(ErrorClass::Transient, "share_unavailable")).await;
        let t = w.task(job, "intake").await;
        assert_eq!(t.state, TaskState::Ready);
        assert!(t.delay_ms <= max.as_millis() as u64);
        assert_eq!(t.failure.unwrap().code, "share_unavailable");
        w.advance(Duration::from_millis(t.delay_ms)).await;
    }
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, ok(&c)).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);
}

#[tokio::test]
async fn a_delayed_task_is_not_claimed_before_its_time() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    // Full jitter may draw a delay of nothing: so until one is drawn.
    let delay = loop {
        let c = a.claim(1).await.remove(0);
        a.end(c.attempt, failed(ErrorClass::Transient, "share_unavailable")).await;
        let delay = w.task(job, "intake").await.delay_ms;
        if delay > 1 {
            break delay;
        }
        w.advance(Duration::from_millis(delay)).await;
    };
    w.advance(Duration::from_millis(delay - 1)).await;
    assert!(a.claim(1).await.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("delayed"));
    w.advance(Duration::from_millis(1)).await;
    assert_eq!(a.claim(1).await.len(), 1);
}

#[tokio::test]
async fn a_transient_failure_ends_with_its_budget() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, failed(ErrorClass::Transient, "share_unavailable")).await;
    // Ticks of the gap's length would be many: the clock is set instead.
    let budget = w.db.times().transient_budget.as_millis() as i64 + 1000;
    let sql = "with l as (update leader set up_ms = up_ms + 4330000 returning up_ms) select to_jsonb(up_ms) from l";
    assert!(budget < 4_330_000);
    value(w.test.url(), sql).await;
    w.advance(Duration::from_millis(1)).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, failed(ErrorClass::Transient, "share_unavailable")).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Failed);
    assert_eq!(w.job(job).await.failure.unwrap().code, "share_unavailable");
}

#[tokio::test]
async fn a_deterministic_failure_fails_once_and_its_job_with_it() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    let mut claims = a.claim(2).await;
    let (first, second) = (claims.remove(0), claims.remove(0));
    a.end(first.attempt, failed(ErrorClass::Deterministic, "unsupported")).await;
    assert_eq!(w.state(job).await, JobState::Failed);
    assert_eq!(w.task(job, "encode/0000").await.state, TaskState::Failed);
    // What runs goes on, and counts.
    a.end(second.attempt, ok(&second)).await;
    assert_eq!(w.task(job, "encode/0001").await.state, TaskState::Done);
    assert!(a.claim(4).await.is_empty());
    assert_eq!(w.db.attempts(job).await.unwrap().len(), 3);

    // An operator's retry keeps what is done.
    assert_eq!(w.db.retry(job).await.unwrap(), JobState::Running);
    assert_eq!(a.run_all(&w.db).await, ["encode/0000", "mux/r", "verify/r", "publish/output"]);
    let row = w.job(job).await;
    assert_eq!((row.state, row.failure), (JobState::Succeeded, None));
}

#[tokio::test]
async fn a_crash_is_tried_once_more_elsewhere_and_then_quarantined() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let job = w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, failed(ErrorClass::Crash, "signal")).await;
    assert!(a.claim(1).await.is_empty(), "another node can take it");
    let c = b.claim(1).await.remove(0);
    b.end(c.attempt, failed(ErrorClass::Crash, "signal")).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Quarantined);
    assert_eq!(w.state(job).await, JobState::Failed);
    assert_eq!(w.db.retry(job).await.unwrap(), JobState::Running);
    assert_eq!(a.claim(1).await[0].attempt.epoch.0, 3, "epochs only rise");
}

#[tokio::test]
async fn a_crash_on_the_only_node_is_tried_there_again() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, failed(ErrorClass::Crash, "signal")).await;
    assert_eq!(a.claim(1).await.len(), 1);
}

#[tokio::test]
async fn a_resource_failure_asks_for_more_and_gives_up_after_three() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let mut ram = 1u64 << 20;
    for _ in 0..3 {
        let c = a.claim(1).await.remove(0);
        assert_eq!(c.cost.ram, ram);
        a.end(c.attempt, failed(ErrorClass::Resource, "out_of_memory")).await;
        ram = ram * 3 / 2;
    }
    let c = a.claim(1).await.remove(0);
    assert_eq!(c.cost.ram, ram);
    a.end(c.attempt, failed(ErrorClass::Resource, "out_of_memory")).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Failed);
}

#[tokio::test]
async fn a_source_that_reads_differently_twice_is_unstable() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let unstable = || {
        Outcome::Failed(Failure::new(
            ErrorClass::Transient,
            ErrorOrigin::Source,
            "source_unstable",
            "same size and time, other hash",
        ))
    };
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, unstable()).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Ready);
    w.advance(w.db.times().backoff_min).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, unstable()).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Failed);
}

#[tokio::test]
async fn three_nodes_lost_over_one_task_quarantine_it() {
    let mut w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    for (n, node) in ["a", "b", "c"].into_iter().enumerate() {
        let worker = w.worker(node).await;
        assert_eq!(worker.claim(1).await.len(), 1);
        let lost = w.db.times().lost;
        w.advance(lost * 3).await;
        assert_eq!(w.leader.mark_lost().await.unwrap().len(), 1);
        let expected = if n < 2 { TaskState::Ready } else { TaskState::Quarantined };
        assert_eq!(w.task(job, "intake").await.state, expected);
    }
    let attempts = w.db.attempts(job).await.unwrap();
    assert!(attempts.iter().all(|a| a.state == AttemptState::Lost));
}

#[tokio::test]
async fn cancelling_kills_what_runs_and_nothing_else_is_started() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    let running = a.claim(1).await.remove(0);
    assert_eq!(w.db.cancel(job).await.unwrap(), JobState::Cancelling);
    assert_eq!(w.db.cancel(job).await.unwrap(), JobState::Cancelling, "twice is harmless");
    let r = a.sync(a.request(4)).await;
    assert_eq!(r.cancels, [running.attempt]);
    a.end(running.attempt, Outcome::Cancelled).await;
    assert_eq!(w.state(job).await, JobState::Cancelled);
    let states: Vec<_> = w.db.tasks(job).await.unwrap().into_iter().map(|t| t.state).collect();
    assert_eq!(states[0], TaskState::Done);
    assert!(states[1..].iter().all(|s| *s == TaskState::Cancelled));
    assert!(w.db.retry(job).await.is_err(), "a cancelled job stays cancelled");
    assert!(a.claim(4).await.is_empty());
}

#[tokio::test]
async fn cancelling_a_job_of_which_nothing_runs_ends_it_at_once() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    assert_eq!(w.db.cancel(job).await.unwrap(), JobState::Cancelled);
}

#[tokio::test]
async fn a_paused_job_hands_out_nothing_until_it_is_resumed() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    let c = a.claim(1).await.remove(0);
    assert_eq!(w.db.pause(job).await.unwrap(), JobState::Paused);
    a.end(c.attempt, ok(&c)).await;
    assert!(a.claim(4).await.is_empty());
    assert_eq!(w.db.resume(job).await.unwrap(), JobState::Running);
    assert_eq!(a.run_all(&w.db).await.len(), 4);
    assert_eq!(w.state(job).await, JobState::Succeeded);
}
