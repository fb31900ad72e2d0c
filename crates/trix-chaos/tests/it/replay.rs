//! Traces of the model against the real PostgreSQL.

use trix_chaos::breaks::SQL_BREAKS;
use trix_chaos::model::Call;
use trix_chaos::replay::{Plan, on, run, trace, with_forgeries};
use trix_chaos::world::{Setup, World};
use trix_testkit::pg::{TestCluster, TestDb};

#[test]
fn whole_traces_give_equal_answers_and_equal_tables() {
    let plan = Plan { first: 0, traces: 8, steps: 400, calls: usize::MAX, every: 8 };
    let done = run(plan, None).unwrap();
    assert_eq!(done.difference, None);
    assert_eq!(done.traces, 8);
    for call in [
        "sync",
        "register",
        "submit",
        "tick",
        "mark lost",
        "append plan",
        "cache hits",
        "block reasons",
        "prepare",
        "published",
        "supersede",
        "sequence",
    ] {
        assert!(done.by_call.contains_key(call), "no {call} in {:?}", done.by_call);
    }
    assert!(done.calls > 1000 && done.looks > 100 && done.delays > 0, "{done:?}");
}

#[tokio::test]
async fn a_trace_is_replayed_with_a_look_after_each_call() {
    let test = TestDb::new().await.unwrap();
    let setup = Setup { seed: 3, steps: 200, broken: None, trace: false, record: true };
    let run = World::run(&setup);
    let done = trace(&test, 3, &run.calls).await.unwrap();
    assert_eq!(done.difference, None);
    assert_eq!(done.calls + done.skipped, run.calls.len() as u64);
    assert!(done.by_call.contains_key("published"), "{:?}", done.by_call);
}

#[test]
fn forgeries_come_between_the_calls_and_take_none_away() {
    let setup = Setup { seed: 3, steps: 400, broken: None, trace: false, record: true };
    let calls = World::run(&setup).calls;
    let with = with_forgeries(3, &calls);
    let shown = |calls: &[Call]| calls.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>();
    // The trace is still there, in its order.
    let mut rest = shown(&with).into_iter();
    assert!(shown(&calls).iter().all(|c| rest.any(|w| w == *c)));
    let guesses = with.iter().filter(|c| (*c).clone().credentials().is_some_and(is_guess));
    assert!(guesses.count() > 0 && with.len() > calls.len() + 10, "{}", with.len());
    assert_eq!(shown(&with), shown(&with_forgeries(3, &calls)));
}

fn is_guess(me: &mut trix_db::Credentials) -> bool {
    me.token == "a guess"
}

#[tokio::test]
async fn a_break_that_does_not_fit_its_function_is_refused() {
    let test = TestDb::new().await.unwrap();
    let wrong = test.break_function("leads", "there is no such text", "").await;
    assert!(wrong.unwrap_err().to_string().contains("0 times"));
}

#[tokio::test]
async fn every_break_of_the_sql_fits_its_function() {
    let cluster = TestCluster::start().await.unwrap();
    for b in SQL_BREAKS {
        let test = TestDb::on(&cluster.admin_url()).await.unwrap();
        let fits = test.break_function(b.function, b.from, b.to).await;
        fits.unwrap_or_else(|e| panic!("{}: {e:#}", b.name));
    }
}

#[test]
fn breaks_of_the_sql_are_missed_at_once() {
    // The quick ones; `trix-chaos bites` runs all of them.
    let cluster = runtime().block_on(TestCluster::start()).unwrap();
    let plan = Plan { first: 0, traces: 10, steps: 400, calls: usize::MAX, every: 8 };
    for (name, says) in [
        ("sql-no-fence", "the model answers"),
        ("sql-no-secret", "the model answers"),
        ("sql-wall-clock-age", "I19"),
        ("sql-lowest-class-first", "differ"),
        ("sql-sequencer-holes", "head"),
    ] {
        let b = SQL_BREAKS.iter().find(|b| b.name == name).unwrap();
        let done = on(&cluster.admin_url(), plan, Some(*b)).unwrap();
        let found = done.difference.unwrap_or_else(|| panic!("{name} is not caught")).found;
        assert!(found.iter().any(|f| f.contains(says)), "{name}: {found:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
