//! The simulator over the model and the real core.

use trix_chaos::campaign;
use trix_chaos::world::{Setup, World};

#[test]
fn two_hundred_seeds_hold_every_rule() {
    let done = campaign::run(0, 200, 500, None, false);
    let shown: Vec<String> =
        done.failed.iter().map(|r| format!("seed {}: {:?}", r.seed, r.violations)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    // Else it proves nothing: everything must have happened.
    let c = done.counts;
    assert_eq!(done.seeds, 200);
    assert!(c.steps >= 200 * 500, "{c:?}");
    assert!(c.marked > 20 && c.faults > 1000 && c.messages > 1000 && c.published > 200, "{c:?}");
}

#[test]
fn seeds_that_once_found_something_hold() {
    let seeds = campaign::regressions();
    assert!(!seeds.is_empty());
    for (seed, steps) in seeds {
        let run = World::run(&campaign::setup(seed, steps, None));
        assert!(run.violations.is_empty(), "seed {seed}: {:?}", run.violations);
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let setup = Setup { seed: 5, steps: 400, broken: None, trace: true, record: true };
    let (a, b) = (World::run(&setup), World::run(&setup));
    assert_eq!(a.trace, b.trace);
    assert_eq!(format!("{:?}", a.calls), format!("{:?}", b.calls));
    assert!(a.calls.len() > 50);
}
