//! Campaigns in parts: small JSON files that add up while the code is the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::Report;

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

/// One run of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// BLAKE3 over the sources that it ran against.
    pub sources: String,
    /// Factor on the protocol's times.
    pub scale: f64,
    /// What came out.
    pub report: Report,
}

/// BLAKE3 over the migrations and the protocol's crates beneath `root`, by name and content.
pub fn sources_hash(root: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for folder in SOURCES {
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
    let name = format!("run-{}-{:.8}-{}.json", part.report.row, part.sources, part.report.seed);
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

/// Sums of the parts with this hash, by row, and the number of those with another.
pub fn add_up(parts: &[Part], sources: &str) -> (BTreeMap<String, Sum>, usize) {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut stale = 0;
    for part in parts {
        if part.sources != sources {
            stale += 1;
            continue;
        }
        let sum = sums.entry(part.report.row.clone()).or_default();
        sum.runs += 1;
        sum.tasks += part.report.tasks;
        sum.violations += part.report.violations.len() as u64;
        for (kind, n) in &part.report.faults {
            *sum.faults.entry(kind.clone()).or_default() += n;
        }
    }
    (sums, stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_same_sources_add_up_and_others_are_stale() {
        let folder = tempfile::tempdir().unwrap();
        for (seed, sources) in [(1, "aaaaaaaaaa"), (2, "aaaaaaaaaa"), (3, "bbbbbbbbbb")] {
            let mut report = Report::new("R1", seed);
            report.tasks = 10;
            report.faults.insert("kill".into(), 3);
            let part = Part { sources: sources.into(), scale: 0.1, report };
            keep(folder.path(), &part).unwrap();
        }
        std::fs::write(folder.path().join("input-b1-2.json"), "{}").unwrap();
        let (sums, stale) = add_up(&all(folder.path()).unwrap(), "aaaaaaaaaa");
        assert_eq!(stale, 1);
        let faults = BTreeMap::from([("kill".to_owned(), 6)]);
        assert_eq!(sums["R1"], Sum { runs: 2, faults, tasks: 20, violations: 0 });
    }

    #[test]
    fn the_hash_covers_the_real_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(sources_hash(&root).unwrap().len(), 32);
        assert!(sources_hash(Path::new("/nonexistent")).is_err());
    }
}
