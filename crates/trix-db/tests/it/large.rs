//! Plans of thousands of tasks: a film of three hours has some 300.

use std::time::Instant;

use trix_db::ProtocolTimes;
use trix_model::state::{JobState, TaskState};
use trix_plan::task::*;
use trix_testkit::pg::TestDb;

use crate::support::*;

/// A plan of `n` chunks, a mux that reads them all, its verification and publication.
fn film(n: u32) -> Plan {
    let mut plan = plan1("film");
    let chunk = plan.tasks[0].clone();
    let mut rest = plan.tasks.split_off(2);
    plan.tasks.clear();
    let mut keys = Vec::new();
    for i in 0..n {
        let mut task = chunk.clone();
        task.name = format!("encode/{i:05}");
        task.outputs[0].key = key(&format!("c{i} of the film"));
        keys.push(task.outputs[0].key);
        plan.tasks.push(task);
    }
    if let TaskSpec::Mux(mux) = &mut rest[0].spec {
        mux.video.as_mut().unwrap().chunks = keys;
    }
    rest[0].needs = plan.tasks.iter().map(|t| t.name.clone()).collect();
    plan.tasks.append(&mut rest);
    plan
}

/// With the real deadline of a statement, which makes this fail when it is passed.
#[tokio::test]
async fn a_plan_of_4000_tasks_is_appended_within_one_statements_deadline() {
    const TASKS: u32 = 4_000;
    let test = TestDb::new().await.unwrap();
    let db = test.db_with(ProtocolTimes::default());
    let w = World::over(test, db).await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    a.run_all(&w.db).await;
    let plan = film(TASKS - 3);
    let begun = Instant::now();
    assert!(w.leader.append_plan(job, &plan).await.unwrap());
    println!("appending a plan of {TASKS} tasks took {:.2} s", begun.elapsed().as_secs_f64());

    let row = w.job(job).await;
    assert_eq!(row.state, JobState::Running);
    assert_eq!((row.counts.total, row.counts.ready, row.counts.waiting), (TASKS + 1, TASKS - 3, 3));
    let mux = w.task(job, "mux/r").await;
    assert_eq!((mux.state, mux.deps_left), (TaskState::Waiting, TASKS - 3));
    assert_eq!(w.leader.repair().await.unwrap(), trix_db::leader::Repaired::default());

    // Every one of them has its event, and the second submit finds all that was made: its
    // intake is over before it was ever ready.
    let claims = a.claim(2).await;
    assert_eq!(names(&claims), ["encode/00000", "encode/00001"]);
    for c in &claims {
        a.end(c.attempt, ok(c)).await;
    }
    let again = w.submit("again", plan0("film")).await;
    let begun = Instant::now();
    assert!(w.leader.append_plan(again, &plan).await.unwrap());
    println!("and once more {:.2} s", begun.elapsed().as_secs_f64());
    let row = w.job(again).await;
    assert_eq!((row.counts.cached, row.counts.ready), (3, TASKS - 5));
    let events = value(
        w.test.url(),
        "select to_jsonb(count(*)) from event_in where kind = 'task.state' and body->>'to' = 'ready'",
    )
    .await;
    assert_eq!(events, serde_json::json!(1 + (TASKS - 3) + (TASKS - 5)));
}
