//! What the worker says of a slot that does not end well.

use std::time::Duration;

use trix_model::{ErrorClass, Failure};
use trix_slot::{Ended, Outcome};

use crate::support::Bench;

fn failure(ended: &Ended) -> &Failure {
    match &ended.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?} where a failure was due; log {:?}", ended.log),
    }
}

#[track_caller]
fn fails(task: &str, class: ErrorClass, code: &str, words: &str) {
    let ended = Bench::new().run(task);
    let failure = failure(&ended);
    assert_eq!((failure.class, failure.code.as_str()), (class, code), "{failure:?}");
    assert!(failure.message.contains(words), "{:?} lacks {words:?}", failure.message);
}

#[test]
fn a_segmentation_fault_is_a_crash_that_names_signal_phase_and_last_words() {
    fails("segfault", ErrorClass::Crash, "crashed", "SIGSEGV");
    fails("segfault", ErrorClass::Crash, "crashed", "toy: segfault on stderr");
}

#[test]
fn an_abort_and_a_full_stack_are_crashes() {
    fails("abort", ErrorClass::Crash, "crashed", "SIGABRT");
    fails("overflow", ErrorClass::Crash, "crashed", "stack");
}

#[test]
fn a_panic_is_a_crash_with_its_words() {
    fails("panic", ErrorClass::Crash, "panic", "the toy panics");
}

#[test]
fn an_exit_without_a_result_is_a_crash() {
    fails("exit-5", ErrorClass::Crash, "exited", "exited with 5");
    fails("exit-0", ErrorClass::Crash, "exited", "exited with 0");
}

#[test]
fn an_orderly_refusal_comes_as_it_was_said() {
    fails("fail", ErrorClass::Deterministic, "no_video", "the toy refuses");
}

#[test]
fn nonsense_on_the_wire_is_a_crash() {
    fails("nonsense", ErrorClass::Crash, "wire", "nonsense");
}

#[test]
fn memory_above_the_limit_is_a_lack_of_resources() {
    fails("allocate-600", ErrorClass::Resource, "out_of_memory", "memory");
}

#[test]
fn a_file_above_the_limit_is_a_lack_of_resources() {
    fails("large-80", ErrorClass::Resource, "output_too_large", "");
}

#[test]
fn a_slot_without_changed_progress_is_killed_although_its_heart_beats() {
    let mut bench = Bench::new();
    bench.stall = Duration::from_millis(1500);
    let mut beats = 0;
    let ended = bench.run_with("spin", &mut |report| {
        beats += u32::from(matches!(report, trix_slot::Report::Progress(_)));
    });
    let failure = failure(&ended);
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Crash, "stalled"));
    assert!(failure.message.contains("in phase encode at 7 of 9"), "{}", failure.message);
    assert!(beats >= 2, "{beats} heartbeats in one and a half seconds");
    assert!(ended.usage.cpu_ms > 100, "{:?}", ended.usage);
}

#[test]
fn processor_time_without_progress_ends_a_slot_by_a_signal_of_its_own() {
    let mut bench = Bench::new();
    bench.limits.cpu = 1;
    let ended = bench.run("spin");
    let spun = failure(&ended);
    assert_eq!((spun.class, spun.code.as_str()), (ErrorClass::Crash, "cpu_limit"), "{spun:?}");
    let words = "took 1 s of processor time without progress, in phase encode at 7 of 9";
    assert!(spun.message.contains(words), "{}", spun.message);
    assert!((1000..10_000).contains(&ended.usage.cpu_ms), "{:?}", ended.usage);
}

#[test]
fn processor_time_with_progress_has_no_end() {
    let mut bench = Bench::new();
    bench.limits.cpu = 1;
    let ended = bench.run("burn-30");
    assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?} {:?}", ended.outcome, ended.log);
    assert!(ended.usage.cpu_ms >= 3000, "{:?}", ended.usage);
}

#[test]
fn another_engine_than_the_job_is_pinned_to_is_refused() {
    let bench = Bench::new();
    let slot = trix_slot::Launcher::new(crate::support::toy()).start().unwrap();
    let ended = slot.run(bench.job("x"), bench.io(), "other", bench.stall, &mut |_| ());
    assert_eq!(failure(&ended).code, "engine_mismatch");
    assert_eq!(std::fs::read_dir(bench.stage.path()).unwrap().count(), 0);
}

#[test]
fn a_program_that_is_no_slot_is_named() {
    let error = trix_slot::Launcher::new("/bin/true").hello().unwrap_err();
    assert!(error.to_string().contains("/bin/true"), "{error}");
    let error = trix_slot::Launcher::new("/nowhere/trix-media").hello().unwrap_err();
    assert!(error.to_string().contains("/nowhere/trix-media"), "{error}");
}
