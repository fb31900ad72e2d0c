//! Many seeds on all cores, and the smallest run that still shows what went wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::breaks::Break;
use crate::world::{Counts, Run, Setup, World};

/// Seeds whose violations are shown.
const SHOWN: usize = 5;

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Seeds that were run.
    pub seeds: u64,
    /// Their numbers together.
    pub counts: Counts,
    /// How many seeds had violations.
    pub violated: u64,
    /// Seeds with violations, lowest first; only the first few are kept.
    pub failed: Vec<Run>,
}

/// Runs `seeds` seeds from `first`. With `until_failed` it ends soon after the first seed
/// with a violation.
pub fn run(
    first: u64,
    seeds: u64,
    steps: u64,
    broken: Option<Break>,
    until_failed: bool,
) -> Campaign {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Campaign::default());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                let mut own = Campaign::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let run = World::run(&setup(seed, steps, broken));
                    own.seeds += 1;
                    own.counts.add(&run.counts);
                    if !run.violations.is_empty() {
                        own.violated += 1;
                        own.failed.push(run);
                        stop.fetch_or(until_failed, Ordering::Relaxed);
                    }
                }
                let mut all = all.lock().unwrap_or_else(|e| e.into_inner());
                all.seeds += own.seeds;
                all.counts.add(&own.counts);
                all.violated += own.violated;
                all.failed.extend(own.failed);
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(|e| e.into_inner());
    all.failed.sort_by_key(|run| run.seed);
    all.failed.truncate(SHOWN);
    all
}

/// One seed without a trace.
pub fn setup(seed: u64, steps: u64, broken: Option<Break>) -> Setup {
    Setup { seed, steps, broken, trace: false, record: false }
}

/// The same seed with fewer and fewer steps of faults, while it shows the same rule: what
/// comes after is healing, so the trace that is left is short.
pub fn smallest(run: &Run, steps: u64, broken: Option<Break>) -> Run {
    let rule = run.violations.first().map(|v| v.rule);
    let shows = |steps: u64| {
        let run = World::run(&Setup { trace: true, ..setup(run.seed, steps, broken) });
        (run.violations.first().map(|v| v.rule) == rule).then_some(run)
    };
    let (mut low, mut high, mut best) = (0, steps, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match shows(middle) {
            Some(run) => (high, best) = (middle, Some(run)),
            None => low = middle + 1,
        }
    }
    best.or_else(|| shows(steps)).unwrap_or_else(|| run.clone())
}

/// What a break came to.
#[derive(Debug)]
pub struct Bite {
    /// What was taken out.
    pub broken: Break,
    /// The lowest seed that showed it, and how, if any did.
    pub caught: Option<Run>,
    /// Seeds that were run.
    pub seeds: u64,
}

/// Runs every break until it is caught, for `seeds` seeds at most.
pub fn bites(seeds: u64, steps: u64) -> Vec<Bite> {
    (Break::ALL.iter())
        .map(|b| {
            let mut campaign = run(0, seeds, steps, Some(*b), true);
            let caught = (!campaign.failed.is_empty()).then(|| campaign.failed.remove(0));
            Bite { broken: *b, caught, seeds: campaign.seeds }
        })
        .collect()
}

/// The seeds that once found something: `seed steps  # what`.
pub fn regressions() -> Vec<(u64, u64)> {
    include_str!("../regressions.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace().map(|w| w.parse().ok());
            Some((words.next()??, words.next()??))
        })
        .collect()
}
