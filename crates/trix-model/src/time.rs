//! Exact time: rationals and ticks. Floats never hold time.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A positive-denominator rational number, always in lowest terms.
///
/// It stands for a time base (`1/90000`), a frame rate (`24000/1001`) or an
/// aspect ratio. Serialised as the string `"num/den"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    num: i64,
    den: i64,
}

impl Rational {
    /// One.
    pub const ONE: Rational = Rational { num: 1, den: 1 };
    /// A millionth: the time base that libav calls `AV_TIME_BASE_Q`.
    pub const MICROSECOND: Rational = Rational { num: 1, den: 1_000_000 };
    /// Zero.
    pub const ZERO: Rational = Rational { num: 0, den: 1 };

    /// `num / den` in lowest terms, or `None` when `den` is zero or the
    /// reduced value does not fit.
    pub fn new(num: i64, den: i64) -> Option<Rational> {
        if den == 0 {
            return None;
        }
        let g = gcd(num.unsigned_abs(), den.unsigned_abs()).max(1) as i128;
        let sign = if den < 0 { -1 } else { 1 };
        Some(Rational {
            num: i64::try_from(sign * num as i128 / g).ok()?,
            den: i64::try_from(sign * den as i128 / g).ok()?,
        })
    }

    /// The numerator.
    pub const fn num(self) -> i64 {
        self.num
    }

    /// The denominator, always positive.
    pub const fn den(self) -> i64 {
        self.den
    }

    /// `1 / self`, or `None` for zero.
    pub fn inverse(self) -> Option<Rational> {
        Rational::new(self.den, self.num)
    }

    /// True for values above zero.
    pub const fn is_positive(self) -> bool {
        self.num > 0
    }

    /// `self * n` rounded to the nearest integer, halves away from zero.
    pub fn times(self, n: i64) -> i64 {
        mul_div(n, self.num, self.den, Rounding::Nearest)
    }

    /// For display only: never compute times with it.
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }
}

/// Which way a value between two ticks goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// To the nearest, halves away from zero (libav's `AV_ROUND_NEAR_INF`).
    Nearest,
}

/// `value * num / den` through 128 bits; saturates at the ends of `i64`.
pub fn mul_div(value: i64, num: i64, den: i64, rounding: Rounding) -> i64 {
    assert!(den != 0, "a time base has a denominator of zero");
    let (mut p, mut d) = (value as i128 * num as i128, den as i128);
    if d < 0 {
        p = -p;
        d = -d;
    }
    let q = match rounding {
        Rounding::Down => p.div_euclid(d),
        Rounding::Up => -((-p).div_euclid(d)),
        Rounding::Nearest if p >= 0 => (p + d / 2).div_euclid(d),
        Rounding::Nearest => -((-p + d / 2).div_euclid(d)),
    };
    q.clamp(i64::MIN as i128, i64::MAX as i128) as i64
}

/// `ticks` counted in `from` expressed in `to` (both are seconds per tick).
pub fn rescale(ticks: i64, from: Rational, to: Rational, rounding: Rounding) -> i64 {
    let (mut num, mut den) = (from.num as i128 * to.den as i128, from.den as i128 * to.num as i128);
    let g = gcd_u128(num.unsigned_abs(), den.unsigned_abs()).max(1) as i128;
    num /= g;
    den /= g;
    match (i64::try_from(num), i64::try_from(den)) {
        (Ok(n), Ok(d)) => mul_div(ticks, n, d, rounding),
        // Bases whose ratio does not fit 64 bits do not occur in files that a
        // demuxer accepts (both parts are 32-bit there); saturate.
        _ => {
            if ticks >= 0 {
                i64::MAX
            } else {
                i64::MIN
            }
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn gcd_u128(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd_u128(b, a % b) }
}

impl PartialOrd for Rational {
    fn partial_cmp(&self, other: &Rational) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rational {
    fn cmp(&self, other: &Rational) -> Ordering {
        (self.num as i128 * other.den as i128).cmp(&(other.num as i128 * self.den as i128))
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl fmt::Debug for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Rational {
    type Err = String;
    fn from_str(s: &str) -> Result<Rational, String> {
        let bad = || format!("{s:?} is not a fraction like 24000/1001");
        let (n, d) = s.split_once('/').unwrap_or((s, "1"));
        Rational::new(n.trim().parse().map_err(|_| bad())?, d.trim().parse().map_err(|_| bad())?)
            .ok_or_else(bad)
    }
}

impl Serialize for Rational {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rational {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Rational, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_is_exact_and_rounds_halves_away_from_zero() {
        let film = Rational::new(1001, 24000).unwrap();
        let mpeg = Rational::new(1, 90000).unwrap();
        assert_eq!(rescale(1, film, mpeg, Rounding::Nearest), 3754);
        assert_eq!(rescale(2, film, mpeg, Rounding::Nearest), 7508);
        assert_eq!(rescale(-1, film, mpeg, Rounding::Nearest), -3754);
        assert_eq!(mul_div(1, 1, 2, Rounding::Down), 0);
        assert_eq!(mul_div(-1, 1, 2, Rounding::Down), -1);
        assert_eq!(mul_div(-1, 1, 2, Rounding::Up), 0);
        assert_eq!(mul_div(i64::MAX, 2, 1, Rounding::Down), i64::MAX);
    }

    #[test]
    fn fractions_are_reduced_and_round_trip_as_text() {
        let r = Rational::new(48000, -2002).unwrap();
        assert_eq!(r.to_string(), "-24000/1001");
        assert_eq!("-24000/1001".parse::<Rational>().unwrap(), r);
        assert!(Rational::new(1, 0).is_none());
    }
}
