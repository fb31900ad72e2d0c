//! Random numbers that are the same for ever: input `n` of a row depends on the
//! campaign's seed, the row and `n` alone, on every machine and with every
//! version of every crate. (The crate `rand` promises that for none of its usual
//! generators.)

use crate::rng::Rng;

/// The stream of one input.
#[derive(Clone, Debug)]
pub struct Random(Rng);

impl Random {
    /// The generator of input `n` of `row`.
    pub fn of(seed: u64, row: &str, n: u64) -> Random {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&n.to_le_bytes()).update(row.as_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Random(Rng::at(u64::from_le_bytes(bytes)))
    }

    /// Any 64 bits.
    pub fn any(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `end`, which must not be 0. The bias of the remainder is below 2^-32 for
    /// everything that is asked here.
    pub fn below(&mut self, end: usize) -> usize {
        (self.any() % end as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.abs_diff(low);
        let step = if span == u64::MAX { self.any() } else { self.any() % (span + 1) };
        low.wrapping_add_unsigned(step)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these texts.
    pub fn pick_str<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn an_input_is_the_same_for_ever() {
        let mut random = Random::of(1, "B1", 7);
        let first = random.any();
        assert_eq!(Random::of(1, "B1", 7).any(), first);
        assert_ne!(Random::of(1, "B1", 8).any(), first);
        assert_ne!(Random::of(1, "B3", 7).any(), first);
        assert_ne!(Random::of(2, "B1", 7).any(), first);
        assert!((0..1000).all(|_| (-3..=4).contains(&random.between(-3, 4))));
        random.between(i64::MIN, i64::MAX);
    }
}
