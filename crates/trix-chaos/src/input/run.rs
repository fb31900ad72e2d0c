//! Runs a row's inputs, some at a time, until the count or the time is up.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::Counts;

/// Attempts at once.
const AT_ONCE: usize = 2;

/// How far a row is to go.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Number of the first input; later ones follow from it.
    pub from: u64,
    /// Inputs at most.
    pub count: u64,
    /// No input is begun behind this.
    pub until: Option<Instant>,
}

/// A piece of a campaign on disk, so that several runs add up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Row.
    pub row: String,
    /// Seed of its inputs.
    pub seed: u64,
    /// BLAKE3 of the program `trix-media` that ran it: parts of another one are stale.
    pub program: String,
    /// Milliseconds that it took.
    pub wall_ms: u64,
    /// What it counted.
    pub counts: Counts,
}

impl Part {
    /// Where a row's part lies.
    fn path(folder: &Path, row: &str, seed: u64) -> PathBuf {
        folder.join(format!("input-{row}-{seed}.json"))
    }

    /// Reads a part that ran on the same program; says so when there is one of another.
    pub fn read(folder: &Path, row: &str, seed: u64, program: &str) -> Result<Option<Part>> {
        let path = Part::path(folder, row, seed);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        let part: Part = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no part of a campaign", path.display()))?;
        if part.program != program {
            println!(
                "{row}: the part of {} inputs is of another program; stale",
                part.counts.inputs
            );
            return Ok(None);
        }
        Ok(Some(part))
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = Part::path(folder, &self.row, self.seed);
        let draft = path.with_extension("draft");
        let mut bytes = serde_json::to_vec_pretty(self).context("writing a part")?;
        bytes.push(b'\n');
        fs::write(&draft, bytes).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("naming {}", path.display()))
    }
}

/// Calls `one` for every input, on a few threads. The first error ends all.
pub fn all(
    extent: &Extent,
    one: &(dyn Fn(u64, &Mutex<Counts>) -> Result<()> + Sync),
) -> Result<Counts> {
    let counts = Mutex::new(Counts::default());
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let late = extent.until.is_some_and(|until| Instant::now() >= until);
            if n >= extent.count || late || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let result = one(extent.from + n, &counts);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
                return result.with_context(|| format!("input {}", extent.from + n));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(into(counts))
}

/// The counts of a row that is done.
pub fn into(counts: Mutex<Counts>) -> Counts {
    counts.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The counts, whatever happened to another thread.
pub fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// When a row of so many minutes ends.
pub fn deadline(minutes: Option<f64>) -> Option<Instant> {
    minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0))
}
