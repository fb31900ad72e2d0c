//! Recorded chunk times: what the slots of a virtual fleet wait for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A record, as `scripts/bench --fleet` writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// What was encoded, where, and how.
    pub made_by: String,
    /// Wall time of each chunk in seconds, each alone on its core.
    pub seconds: Vec<f64>,
}

impl Recorded {
    /// Reads a record.
    pub fn read(path: &Path) -> Result<Recorded> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading chunk times from {}", path.display()))?;
        Recorded::parse(&text).with_context(|| format!("chunk times of {}", path.display()))
    }

    fn parse(text: &str) -> Result<Recorded> {
        let recorded: Recorded = serde_json::from_str(text)?;
        ensure!(!recorded.seconds.is_empty(), "there is no chunk in it");
        let good = |s: &f64| s.is_finite() && *s > 0.0;
        let bad = recorded.seconds.iter().find(|s| !good(s));
        ensure!(bad.is_none(), "a chunk takes more than 0 seconds, not {bad:?}");
        Ok(recorded)
    }

    /// The mean in seconds.
    pub fn mean(&self) -> f64 {
        self.seconds.iter().sum::<f64>() / self.seconds.len() as f64
    }

    /// One of them, at a pace.
    pub fn pick(&self, pace: f64, rng: &mut Rng) -> Duration {
        Duration::from_secs_f64(rng.pick(&self.seconds) / pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_nonsense_is_refused() {
        let good = r#"{"made_by": "trix", "seconds": [10.5, 30.5]}"#;
        let recorded = Recorded::parse(good).unwrap();
        assert_eq!(recorded.mean(), 20.5);
        for (bad, says) in [
            (r#"{"made_by": "trix", "seconds": []}"#, "no chunk"),
            (r#"{"made_by": "trix", "seconds": [1, 0]}"#, "not Some(0.0)"),
            (r#"{"made_by": "trix", "seconds": [-1]}"#, "not Some(-1.0)"),
            (r#"{"seconds": [1]}"#, "made_by"),
            (r#"{"made_by": "trix", "seconds": [1], "more": 1}"#, "unknown field"),
        ] {
            let said = Recorded::parse(bad).unwrap_err().to_string();
            assert!(said.contains(says), "{bad}: {said}");
        }
    }

    #[test]
    fn a_pace_makes_every_chunk_as_many_times_shorter() {
        let one = Recorded { made_by: "trix".into(), seconds: vec![12.0] };
        let mut rng = Rng::new(1);
        assert_eq!(one.pick(4.0, &mut rng), Duration::from_secs(3));
        assert_eq!(one.pick(0.5, &mut rng), Duration::from_secs(24));
    }
}
