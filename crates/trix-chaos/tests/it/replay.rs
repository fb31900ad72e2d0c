//! Traces of the model against the real PostgreSQL.

use trix_chaos::replay::{Plan, SQL_BREAKS, on, trace};
use trix_chaos::world::{Setup, World};
use trix_testkit::pg::{TestCluster, TestDb};

#[tokio::test]
async fn three_traces_give_equal_answers_and_equal_tables() {
    let cluster = TestCluster::start().await.unwrap();
    let plan = Plan { first: 0, traces: 3, steps: 400, calls: 120 };
    let done = on(&cluster.admin_url(), plan, None).await.unwrap();
    assert_eq!(done.difference, None);
    assert_eq!(done.traces, 3);
    assert!(done.calls > 250, "{done:?}");
    for call in ["sync", "register", "submit", "tick", "mark lost", "append plan", "sequence"] {
        assert!(done.by_call.contains_key(call), "no {call} in {:?}", done.by_call);
    }
}

#[tokio::test]
async fn a_break_that_does_not_fit_its_function_is_refused() {
    let test = TestDb::new().await.unwrap();
    let wrong = test.break_function("leads", "there is no such text", "").await;
    assert!(wrong.unwrap_err().to_string().contains("0 times"));
}

#[tokio::test]
async fn every_break_of_the_sql_fits_its_function() {
    let test = TestDb::new().await.unwrap();
    for b in SQL_BREAKS {
        // One after the other over the same database: each finds its own text.
        if let Err(e) = test.break_function(b.function, b.from, b.to).await {
            // Two breaks of one line exclude each other; anything else is a mistake.
            let twice = SQL_BREAKS.iter().filter(|o| o.function == b.function).count() > 1;
            assert!(twice, "{}: {e}", b.name);
        }
    }
}

#[tokio::test]
async fn a_whole_trace_is_replayed_to_its_end() {
    let test = TestDb::new().await.unwrap();
    let setup = Setup { seed: 3, steps: 200, broken: None, trace: false, record: true };
    let run = World::run(&setup);
    let done = trace(&test, 3, &run.calls).await.unwrap();
    assert_eq!(done.difference, None);
    assert_eq!(done.calls + done.skipped, run.calls.len() as u64);
    assert!(done.by_call.contains_key("published"), "{:?}", done.by_call);
}
