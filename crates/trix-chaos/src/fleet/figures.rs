//! The arithmetic of the figures: percentiles, medians, planned starts, busy slots.

use std::time::Duration;

use serde::Serialize;

use crate::rng::Rng;

/// How long something took, each time.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

/// What is said of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 90 % took no longer.
    pub p90_ms: f64,
    /// 99 % took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// All of another's.
    pub fn extend(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// `None` when there are none.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let ms = |percent| Some(nearest_rank(&sorted, percent)?.as_secs_f64() * 1000.0);
        Some(Summary {
            n: sorted.len(),
            p50_ms: ms(50)?,
            p90_ms: ms(90)?,
            p99_ms: ms(99)?,
            max_ms: ms(100)?,
        })
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Latencies {
        Latencies(all.into_iter().collect())
    }
}

/// The smallest value that at least `percent` of all do not exceed: one that was measured,
/// never one between two.
fn nearest_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The median; of an even number the mean of the middle two. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// Half of what lies between the smallest and the largest, as a share of the median.
pub fn spread(values: &[f64]) -> Option<f64> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some((most - least) / 2.0 / median(values)?)
}

/// The starts of an open load, as times since its begin: they come at random and on average
/// so many a second, whether or not what came before is served. Who counts from the send
/// instead forgets all that had to wait behind a slow one.
#[derive(Clone, Debug)]
pub struct OpenLoad {
    rng: Rng,
    rate: f64,
    at: f64,
}

impl OpenLoad {
    /// `rate` starts a second.
    pub fn new(rate: f64, seed: u64) -> OpenLoad {
        OpenLoad { rng: Rng::new(seed), rate, at: 0.0 }
    }
}

impl Iterator for OpenLoad {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // The unit is below 1, so the logarithm is finite.
        self.at -= (1.0 - self.rng.unit()).ln() / self.rate;
        Some(Duration::from_secs_f64(self.at))
    }
}

/// Counts busy slots over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    busy: u64,
    last: Duration,
    busy_seconds: f64,
    from: Duration,
}

impl Meter {
    /// A slot became busy.
    pub fn begin(&mut self, now: Duration) {
        self.count(now);
        self.busy += 1;
    }

    /// A slot became free.
    pub fn end(&mut self, now: Duration) {
        self.count(now);
        self.busy -= 1;
    }

    /// Slots that are busy.
    pub fn busy(&self) -> u64 {
        self.busy
    }

    /// Forgets what was counted before.
    pub fn restart(&mut self, now: Duration) {
        self.last = now;
        self.from = now;
        self.busy_seconds = 0.0;
    }

    /// Which part of the slots was busy on average since the last restart.
    pub fn utilisation(&mut self, now: Duration, slots: u64) -> f64 {
        self.count(now);
        self.busy_seconds / (slots as f64 * (now - self.from).as_secs_f64())
    }

    fn count(&mut self, now: Duration) {
        self.busy_seconds += self.busy as f64 * now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Latencies = (1..=100).rev().map(MS).collect();
        let s = hundred.summary().unwrap();
        assert_eq!((s.n, s.p50_ms, s.p90_ms, s.p99_ms, s.max_ms), (100, 50.0, 90.0, 99.0, 100.0));
        let few: Latencies = [10, 20, 1000].map(MS).into_iter().collect();
        let s = few.summary().unwrap();
        assert_eq!((s.p50_ms, s.p99_ms, s.max_ms), (20.0, 1000.0, 1000.0));
        assert_eq!(Latencies::default().summary(), None);
        let mut both = hundred;
        both.extend(few);
        both.add(MS(5000));
        assert_eq!(both.summary().unwrap().max_ms, 5000.0);
        assert_eq!(both.summary().unwrap().n, 104);
    }

    #[test]
    fn the_median_and_the_spread_are_those_of_scripts_bench() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[90.0, 100.0, 130.0]), Some(0.2));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn an_open_load_has_its_rate_and_rises_and_is_the_same_for_one_seed() {
        let load: Vec<Duration> = OpenLoad::new(200.0, 7).take(20_000).collect();
        assert!(load.is_sorted());
        let rate = load.len() as f64 / load[load.len() - 1].as_secs_f64();
        assert!((190.0..210.0).contains(&rate), "{rate} a second");
        assert!(OpenLoad::new(200.0, 7).take(20_000).eq(load.iter().copied()));
        assert!(!OpenLoad::new(200.0, 8).take(20_000).eq(load.iter().copied()));
        // Random gaps, not a metronome: about 1/e of them are longer than the mean.
        let long = load.windows(2).filter(|w| w[1] - w[0] > MS(5)).count();
        assert!((6500..8200).contains(&long), "{long} of 20,000");
    }

    #[test]
    fn utilisation_is_the_busy_part_of_all_slots_since_the_restart() {
        let mut meter = Meter::default();
        meter.begin(MS(0));
        meter.restart(MS(1000));
        meter.begin(MS(2000));
        meter.end(MS(3000));
        assert_eq!(meter.busy(), 1);
        // One slot of two for a second, both for a second, one for two more.
        assert_eq!(meter.utilisation(MS(5000), 2), 5.0 / 8.0);
        assert_eq!(meter.utilisation(MS(5000), 4), 5.0 / 16.0);
    }
}
