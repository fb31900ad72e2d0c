//! Why something waits or failed, as facts.

use trix_db::operate::Scope;
use trix_db::{Outcome, WorkerStore};
use trix_model::state::{JobState, TaskState};
use trix_model::{ErrorClass, TaskId};

use crate::support::*;

/// What no worker has that the task needs.
async fn unmet(w: &World, task: TaskId) -> Vec<String> {
    let e = w.db.explain_task(task).await.unwrap();
    e.unmet().into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_constraint_that_no_worker_meets_is_named() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    let task = w.task(job, "intake").await.id;
    let e = w.db.explain_task(task).await.unwrap();
    assert!(e.workers.is_empty() && e.unmet().is_empty());
    assert_eq!((e.state, e.leader), (TaskState::Ready, true));
    let a = w.worker("a").await;
    assert_eq!(unmet(&w, task).await, [""; 0], "it could be claimed at once");
    let mut r = a.request(0);
    r.shares_ok.retain(|s| s.as_str() != "in");
    a.sync(r).await;
    assert_eq!(unmet(&w, task).await, ["share:in"]);
    let mut r = a.request(0);
    r.engine = "other".into();
    a.sync(r).await;
    assert_eq!(unmet(&w, task).await, ["engine"]);
    a.beat().await;
    for (needs, word) in [
        ("need_mcpu = 5000", "mcpu"),
        ("need_ram = 1::bigint << 40", "ram"),
        ("need_scratch = 1::bigint << 50", "scratch"),
        ("need_gpu = 1", "gpu"),
        ("need_caps = array['x']", "caps"),
        ("avoid_nodes = array[1::bigint]", "avoided"),
    ] {
        let set = format!("update task set {needs}");
        let was = "update task set need_mcpu = 1000, need_ram = 1, need_scratch = 1, need_gpu = 0,
            need_caps = '{}', avoid_nodes = '{}'";
        run_sql(&w, &set).await;
        assert!(unmet(&w, task).await.iter().any(|m| m == word), "{word}");
        run_sql(&w, was).await;
    }
    w.db.cordon("a", "a new disk").await.unwrap();
    assert_eq!(unmet(&w, task).await, ["cordoned"]);
    let e = w.db.explain_task(task).await.unwrap();
    assert_eq!(e.workers[0].cordon_reason.as_deref(), Some("a new disk"));
    w.db.uncordon("a").await.unwrap();
    w.db.hold(&Scope::Node("a".into()), "").await.unwrap();
    assert_eq!(unmet(&w, task).await, ["paused"]);
    w.db.lift(&Scope::Node("a".into())).await.unwrap();
    w.db.hold(&Scope::Kind("intake".into()), "a bad release").await.unwrap();
    let e = w.db.explain_task(task).await.unwrap();
    assert_eq!((e.holds[0].scope.as_str(), e.holds[0].reason.as_str()), ("kind", "a bad release"));
    w.db.lift(&Scope::Kind("intake".into())).await.unwrap();
    w.db.drain(a.me.worker).await.unwrap();
    assert_eq!(unmet(&w, task).await, ["draining"]);
}

async fn run_sql(w: &World, sql: &str) {
    use sqlx::{AssertSqlSafe, Connection};
    let mut c = sqlx::PgConnection::connect(w.test.url()).await.unwrap();
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut c).await.unwrap();
}

#[tokio::test]
async fn a_task_tells_what_it_waits_for_and_who_is_before_it() {
    let mut w = World::new().await;
    let a = w.worker_with("a", 1000).await;
    let job = w.planned("film", &a, plan1("film")).await;
    let mux = w.db.explain_task(w.task(job, "mux/r").await.id).await.unwrap();
    let waits: Vec<_> = mux.waits_for.iter().map(|t| t.name.as_str()).collect();
    assert_eq!((mux.state, waits), (TaskState::Waiting, vec!["encode/0000", "encode/0001"]));
    let second = w.task(job, "encode/0001").await.id;
    assert_eq!(w.db.explain_task(second).await.unwrap().ahead, 1);
    let c = a.claim(1).await.remove(0);
    let e = w.db.explain_task(second).await.unwrap();
    assert_eq!((e.ahead, e.unmet()), (0, vec!["busy"]));
    // A twin: the same film for another job, whose chunk is made already.
    let twin = w.submit("twin", plan0("film")).await;
    assert!(w.leader.append_plan(twin, &plan1("film")).await.unwrap());
    let e = w.db.explain_task(w.task(twin, "encode/0000").await.id).await.unwrap();
    assert_eq!(e.twin, Some(c.attempt.task));
    // A failure that waits for its next try.
    a.end(c.attempt, failed(ErrorClass::Transient, "share_unavailable")).await;
    run_sql(&w, "update task set not_before_up_ms = 1 << 30 where failure is not null").await;
    let e = w.db.explain_task(c.attempt.task).await.unwrap();
    assert!(e.delay_ms > 0);
    assert_eq!(e.attempts[0].failure.as_ref().unwrap().code, "share_unavailable");
    let e = w.db.explain_job(job).await.unwrap();
    assert_eq!(e.retrying[0].name, "encode/0000");
    w.advance(w.db.times().suspect * 2).await;
    let e = w.db.explain_task(second).await.unwrap();
    assert_eq!(e.unmet(), ["silent"]);
    assert!(w.db.explain_node("a").await.unwrap().worker.unwrap().suspect);
    w.seat.leave().await.unwrap();
}

#[tokio::test]
async fn a_job_names_what_failed_first() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    let e = w.db.explain_job(job).await.unwrap();
    assert_eq!((e.state, e.root, e.workers), (JobState::Running, None, 1));
    assert_eq!((e.tasks[&TaskState::Ready], e.tasks[&TaskState::Done]), (2, 1));
    assert_eq!(e.blocked.iter().map(|b| b.tasks).sum::<u32>(), 2);
    let claims = a.claim(2).await;
    a.end(claims[1].attempt, failed(ErrorClass::Deterministic, "unsupported")).await;
    a.end(claims[0].attempt, failed(ErrorClass::Deterministic, "later")).await;
    let root = w.db.explain_job(job).await.unwrap().root.unwrap();
    assert_eq!((root.name.as_str(), root.node.as_deref()), ("encode/0001", Some("a")));
    assert_eq!(root.failure.unwrap().code, "unsupported");
}

#[tokio::test]
async fn a_quarantined_task_comes_with_all_that_is_known_of_it() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let job = w.planned("film", &a, plan1("film")).await;
    for worker in [&a, &b] {
        let c = worker.claim(1).await.remove(0);
        assert_eq!(c.name, "encode/0000");
        worker.end(c.attempt, failed(ErrorClass::Crash, "signal")).await;
    }
    let task = w.task(job, "encode/0000").await;
    assert_eq!(task.state, TaskState::Quarantined);
    let bundle = w.db.quarantine_bundle(task.id).await.unwrap();
    assert_eq!(bundle.spec["kind"], "encode_chunk");
    assert_eq!(bundle.source.unwrap()["sha256"], digest(3).to_string());
    let nodes: Vec<_> = bundle.attempts.iter().map(|x| x.node.as_str()).collect();
    assert_eq!(nodes, ["a", "b"]);
    assert_eq!(bundle.attempts[0].log, ["the end\u{fffd}"]);
    assert_eq!(bundle.attempts[1].failure.as_ref().unwrap().code, "signal");
    // Only an operator takes it up again.
    w.db.retry(job).await.unwrap();
    assert_eq!(w.task(job, "encode/0000").await.state, TaskState::Ready);
}

#[tokio::test]
async fn a_node_tells_its_state_its_room_and_what_is_missing() {
    let w = World::new().await;
    let a = w.worker("a").await;
    run_sql(&w, "insert into share (name, role, kind) values ('far', 'source', 'nfs')").await;
    w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    let worker = w.db.explain_node("a").await.unwrap().worker.unwrap();
    assert_eq!((worker.id, worker.running, worker.free.mcpu), (a.me.worker, 1, 3000));
    assert_eq!(worker.shares_missing, ["far"]);
    a.end(c.attempt, Outcome::Released).await;
    w.db.leave(a.me.clone()).await.unwrap();
    let worker = w.db.explain_node("a").await.unwrap().worker.unwrap();
    assert_eq!(worker.state, trix_model::state::WorkerState::Gone);
    assert!(w.db.explain_node("nowhere").await.is_err());
    assert!(w.db.explain_task(TaskId(99)).await.is_err());
}
