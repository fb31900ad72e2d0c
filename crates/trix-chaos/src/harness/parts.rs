//! Runs of rows as parts: small JSON files, of which one table is made, and which add up to a
//! campaign while the code is the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::Ended;

/// What a part's faults were thrown at: the migrations and the crates of the protocol.
const SOURCES: [&str; 7] = [
    "migrations",
    "crates/trix-model/src",
    "crates/trix-db/src",
    "crates/trix-worker/src",
    "crates/trix-dispatch/src",
    "crates/trix-slot/src",
    "crates/trix-storage/src",
];

/// What hostile input meets beside them: libav and the encoders as the slot uses them.
const MEDIA: [&str; 4] = [
    "crates/trix-av/src",
    "crates/trix-encode/src",
    "crates/trix-engine/src",
    "crates/trix-plan/src",
];

/// Rows of hostile input.
const HOSTILE: [&str; 5] = ["B1", "B3", "B4", "B5", "X2"];

/// One run of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// BLAKE3 over the sources that it ran against.
    pub sources: String,
    /// Factor on the protocol's times.
    pub scale: f64,
    /// Name of the row.
    pub row: String,
    /// How long it took, with its healing and the look at what was left.
    pub seconds: f64,
    /// What came out.
    pub ended: Ended,
}

/// BLAKE3 over the migrations and the protocol's crates beneath `root`, by name and content;
/// for rows of hostile input also over what decodes and encodes.
pub fn sources_hash(root: &Path, row: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let media: &[&str] = if HOSTILE.contains(&row) { &MEDIA } else { &[] };
    for folder in SOURCES.iter().chain(media) {
        let folder = root.join(folder);
        let files = super::audit::files(&folder);
        anyhow::ensure!(!files.is_empty(), "there are no sources in {}", folder.display());
        for file in files {
            let bytes = std::fs::read(folder.join(&file))
                .with_context(|| format!("reading {file} of {}", folder.display()))?;
            hasher.update(&(file.len() as u64).to_le_bytes()).update(file.as_bytes());
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Writes a part into a folder; its name says row and seed.
pub fn keep(folder: &Path, part: &Part) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let seed = match &part.ended {
        Ended::Ran(report) => report.seed.to_string(),
        Ended::Skipped(_) => "skipped".to_owned(),
        Ended::Broken(_) => "broken".to_owned(),
    };
    let name = format!("run-{}-{:.8}-{seed}.json", part.row, part.sources);
    let path = folder.join(name.to_lowercase());
    let mut text = serde_json::to_string_pretty(part)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// All parts of a folder. Parts of other harnesses lie in it, too, under other names.
pub fn all(folder: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for file in super::audit::files(folder)
        .into_iter()
        .filter(|f| f.starts_with("run-") && f.ends_with(".json"))
    {
        let text = std::fs::read_to_string(folder.join(&file))?;
        parts
            .push(serde_json::from_str(&text).with_context(|| format!("reading the part {file}"))?);
    }
    Ok(parts)
}

/// What a campaign has come to.
#[derive(Debug, Default, PartialEq)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Tasks done.
    pub tasks: u64,
    /// Violations.
    pub violations: u64,
}

/// Sums of the parts that ran against these sources, by row, and the number of those that ran
/// against others. `sources` gives the hash of a row.
pub fn add_up(
    parts: &[Part],
    mut sources: impl FnMut(&str) -> Result<String>,
) -> Result<(BTreeMap<String, Sum>, usize)> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut stale = 0;
    for part in parts {
        let Ended::Ran(report) = &part.ended else { continue };
        if part.sources != sources(&part.row)? {
            stale += 1;
            continue;
        }
        let sum = sums.entry(part.row.clone()).or_default();
        sum.runs += 1;
        sum.tasks += report.tasks;
        sum.violations += report.violations.len() as u64;
        for (kind, n) in &report.faults {
            *sum.faults.entry(kind.clone()).or_default() += n;
        }
    }
    Ok((sums, stale))
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    #[test]
    fn parts_of_the_same_sources_add_up_and_others_are_stale() {
        let folder = tempfile::tempdir().unwrap();
        let keep_one = |row: &str, sources: &str, ended| {
            let (row, sources) = (row.to_owned(), sources.to_owned());
            keep(folder.path(), &Part { sources, scale: 0.1, row, seconds: 1.5, ended }).unwrap();
        };
        for (seed, sources) in [(1, "aaaaaaaaaa"), (2, "aaaaaaaaaa"), (3, "bbbbbbbbbb")] {
            let mut report = Report::new("R1", seed);
            report.tasks = 10;
            report.faults.insert("kill".into(), 3);
            keep_one("R1", sources, Ended::Ran(report));
        }
        keep_one("R2", "aaaaaaaaaa", Ended::Skipped("no root".into()));
        std::fs::write(folder.path().join("input-b1-2.json"), "{}").unwrap();
        let parts = all(folder.path()).unwrap();
        assert_eq!(parts.len(), 4);
        let (sums, stale) = add_up(&parts, |_| Ok("aaaaaaaaaa".to_owned())).unwrap();
        assert_eq!((stale, sums.len()), (1, 1));
        let faults = BTreeMap::from([("kill".to_owned(), 6)]);
        assert_eq!(sums["R1"], Sum { runs: 2, faults, tasks: 20, violations: 0 });
    }

    #[test]
    fn the_hash_covers_the_real_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let protocol = sources_hash(&root, "R1").unwrap();
        assert_eq!(protocol.len(), 32);
        assert_ne!(protocol, sources_hash(&root, "B1").unwrap());
        assert!(sources_hash(Path::new("/nonexistent"), "R1").is_err());
    }
}
