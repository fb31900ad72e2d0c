//! The checker bites.

use trix_chaos::breaks::Break;
use trix_chaos::campaign;
use trix_chaos::world::times;

#[test]
fn safeguards_that_are_taken_out_are_missed_at_once() {
    // The quick ones; `trix-chaos bites` runs all of them.
    for (broken, rules) in [
        (Break::DoubleClaim, &["I3"][..]),
        (Break::OverCapacity, &["I14"]),
        (Break::DoubleSubmit, &["I2"]),
        (Break::NaiveSequence, &["I12"]),
        (Break::NoGrace, &["I19"]),
        (Break::DeterministicRetry, &["I17"]),
        (Break::DoneWithoutArtifact, &["I5"]),
        (Break::PublishFirst, &["I8"]),
        (Break::ManifestFirst, &["I9"]),
        (Break::EpochReset, &["I4", "I3"]),
        (Break::TwoCurrent, &["I7"]),
        (Break::NaiveReader, &["I13"]),
    ] {
        let done = campaign::run(0, 300, 600, Some(broken), true);
        let caught = done.failed.first().map(|run| run.violations[0].rule);
        assert!(caught.is_some_and(|r| rules.contains(&r)), "{}: {caught:?}", broken.name());
    }
}

#[test]
fn the_smallest_run_shows_the_same_rule_with_fewer_steps() {
    let done = campaign::run(0, 300, 600, Some(Break::OverCapacity), true);
    let run = &done.failed[0];
    let small = campaign::smallest(run, 600, Some(Break::OverCapacity));
    assert_eq!(small.violations[0].rule, run.violations[0].rule);
    assert!(!small.trace.is_empty() && small.counts.steps <= run.counts.steps);
}

#[test]
fn a_world_keeps_the_order_of_the_protocols_times() {
    let t = times();
    assert!(t.tick < t.tick_gap && t.tick_gap < t.lost && t.suspect < t.lost);
    assert!(t.statement < t.lost && t.ping_silent < t.lost && t.lost < t.grace_max);
}
