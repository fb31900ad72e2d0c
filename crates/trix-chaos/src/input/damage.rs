//! Row B1: damaged copies of clips of every container and codec.

use std::fs;
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::Site;
use super::corpus::{self, Clip};
use super::mutate::mutate;
use super::report::Counts;
use super::run::{self, Extent, lock};
use super::seed::Random;
use super::slots::{Baseline, Slots};
use super::trial::Bench;

const ROW: &str = "B1";

/// Each n-th input is tried twice and must get the same answer twice.
const TWICE: u64 = 16;

/// Runs the row. `every` takes each n-th clip alone.
pub fn run(site: &Site, seed: u64, extent: &Extent, every: usize) -> Result<Counts> {
    let clips = corpus::make(&site.folder.join("clips"), every)?;
    let slots = Slots::new(&site.media, &site.folder.join("stages"))?;
    let bench = Bench::new(&slots)?;
    let unharmed = fine(site, &bench, &clips)?;
    let baseline = Baseline::take()?;
    let mut counts = run::all(extent, &|n, counts| one(site, &bench, &clips, seed, n, counts))?;
    let after = baseline.grown(128 << 20)?.into_iter().chain(slots.orphans()?);
    counts.defects(extent.from + extent.count, "after all", after.chain(unharmed));
    Ok(counts)
}

/// Every clip must be taken or refused for what it is as long as it is whole: a corpus that is
/// refused at the door would prove nothing.
fn fine(site: &Site, bench: &Bench<'_>, clips: &[Clip]) -> Result<Vec<String>> {
    let mut defects = Vec::new();
    for clip in clips {
        let path = site.folder.join("clips").join(&clip.name);
        let trial = bench.try_file(&path)?;
        defects.extend(trial.defects.into_iter().map(|d| format!("{} whole: {d}", clip.name)));
        let sound = clip.name.starts_with("sound.");
        match trial.failure {
            Some(f) if !(sound && f.code == "no_video") => {
                defects.push(format!("{} whole: {} ({})", clip.name, f.message, f.code));
            }
            _ => {}
        }
    }
    Ok(defects)
}

fn one(
    site: &Site,
    bench: &Bench<'_>,
    clips: &[Clip],
    seed: u64,
    n: u64,
    counts: &Mutex<Counts>,
) -> Result<()> {
    let mutant = mutate(clips, &mut Random::of(seed, ROW, n));
    let path = site.folder.join(format!("{ROW}-{n}"));
    fs::write(&path, &mutant.bytes).context("writing an input")?;
    let mut trial = bench.try_file(&path)?;
    if n.is_multiple_of(TWICE) {
        let second = bench.try_file(&path)?;
        if second.verdict != trial.verdict {
            let what = format!("first {:?}, then {:?}", trial.verdict, second.verdict);
            trial.defects.push(what);
        }
    }
    if !trial.defects.is_empty() {
        site.keep(ROW, n, &path)?;
    }
    fs::remove_file(&path).context("removing an input")?;
    let mut counts = lock(counts);
    counts.add(&trial.verdict);
    counts.took(&trial.usage);
    counts.defects(n, &mutant.how, trial.defects);
    Ok(())
}
