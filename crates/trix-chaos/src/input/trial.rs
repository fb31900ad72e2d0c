//! One hostile file on the way that every delivery goes: intake in a slot, the plan, and one
//! short chunk in a slot.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use trix_model::{ErrorClass, Failure};
use trix_plan::planner::{Delivery, plan0, plan1};
use trix_plan::profile::{Profile, SingleFile};
use trix_plan::task::{IntakeResult, SourceRef, Task, TaskSpec};
use trix_slot::{InputName, Usage};

use super::report::Verdict;
use super::slots::{Attempt, Caps, Slots, source_ref};

/// Frames of the chunk that is encoded of a file that intake takes.
const FRAMES: u32 = 12;

/// What an attempt at a hostile file may take: the row's promise of 30 s and 1 GiB.
pub const CAPS: Caps = Caps {
    wall: Duration::from_secs(180),
    cpu: Duration::from_secs(30),
    ram: 1 << 30,
    disk: 256 << 20,
};

/// What came of one file.
#[derive(Debug)]
pub struct Trial {
    /// In one word.
    pub verdict: Verdict,
    /// What its attempts took, together.
    pub usage: Usage,
    /// What must not be.
    pub defects: Vec<String>,
    /// The failure behind the verdict.
    pub failure: Option<Failure>,
}

/// Puts files through slots.
#[derive(Debug)]
pub struct Bench<'a> {
    slots: &'a Slots,
    profile: Profile,
    /// What its attempts may take.
    pub caps: Caps,
}

impl<'a> Bench<'a> {
    /// With x264 at its fastest.
    pub fn new(slots: &'a Slots) -> Result<Bench<'a>> {
        let profile = Profile::single(&SingleFile {
            video: "x264-8".to_owned(),
            preset: Some("ultrafast".to_owned()),
            audio: "none".to_owned(),
            ..SingleFile::default()
        });
        Ok(Bench { slots, profile: profile.context("the profile of the trials")?, caps: CAPS })
    }

    /// Intake, plan, one chunk. The file must be as it was afterwards.
    pub fn try_file(&self, path: &Path) -> Result<Trial> {
        self.try_named(path, "input.mov")
    }

    /// The same under another name on the share.
    pub fn try_named(&self, path: &Path, name: &str) -> Result<Trial> {
        let before = identity(path)?;
        let mut trial = self.steps(path, name)?;
        if identity(path)? != before {
            trial.defects.push("the source was changed".to_owned());
        }
        Ok(trial)
    }

    fn steps(&self, path: &Path, name: &str) -> Result<Trial> {
        let mut source = source_ref(path)?;
        source.location.path = name.parse().context("naming an input")?;
        let (mut trial, taken) = self.intake(path, &source)?;
        let Some((intake, index)) = taken else { return Ok(trial) };
        // The planner is ours and pure: whatever intake says of a hostile file, it must answer.
        let planned = catch_unwind(AssertUnwindSafe(|| {
            plan1(&self.profile, &intake, &source, self.slots.engine(), "A", Delivery::Folder)
        }));
        let plan = match planned {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => {
                trial.failed(error.into());
                return Ok(trial);
            }
            Err(_) => {
                trial.defects.push("the planner panicked".to_owned());
                return Ok(trial);
            }
        };
        let chunk = plan.tasks.into_iter().find_map(|task| match task.spec {
            TaskSpec::EncodeChunk(chunk) => Some((chunk, task.outputs, task.cost)),
            _ => None,
        });
        let Some((mut chunk, outputs, cost)) = chunk else { return Ok(trial) };
        chunk.range.count = chunk.range.count.min(FRAMES);
        for rendition in &mut chunk.renditions {
            rendition.run_over = rendition.run_over.min(FRAMES);
        }
        let inputs =
            vec![(InputName::Source, open(path)?), (InputName::Artifact(chunk.index), index)];
        let spec = TaskSpec::EncodeChunk(chunk);
        let attempt = self.slots.run(&spec, &outputs, &cost, inputs, &self.caps)?;
        trial.took(&attempt, "encoding");
        attempt.remove()?;
        Ok(trial)
    }

    /// Intake alone; with its result and its index when it takes the file.
    pub fn intake(
        &self,
        path: &Path,
        source: &SourceRef,
    ) -> Result<(Trial, Option<(IntakeResult, File)>)> {
        let plan = plan0(source, &[], &self.profile, self.slots.engine(), Delivery::Folder)?;
        let task: &Task = plan.tasks.first().context("plan 0 is empty")?;
        let inputs = vec![(InputName::Source, open(path)?)];
        let attempt = self.slots.run(&task.spec, &task.outputs, &task.cost, inputs, &self.caps)?;
        let mut trial = Trial::new();
        trial.took(&attempt, "intake");
        let taken = match &attempt.outcome {
            Some(Ok(result)) => {
                let detail = result.detail.clone().context("intake told no result")?;
                let intake = serde_json::from_value(detail).context("reading intake's result")?;
                let index = task.outputs.iter().find(|o| o.name == "index");
                Some((intake, attempt.open(index.context("plan 0 has no index")?)?))
            }
            _ => None,
        };
        attempt.remove()?;
        Ok((trial, taken))
    }
}

impl Trial {
    fn new() -> Trial {
        let usage = Usage::default();
        Trial { verdict: Verdict::Ok, usage, defects: Vec::new(), failure: None }
    }

    fn took(&mut self, attempt: &Attempt, step: &str) {
        self.usage.cpu_ms = self.usage.cpu_ms.max(attempt.usage.cpu_ms);
        self.usage.peak_ram = self.usage.peak_ram.max(attempt.usage.peak_ram);
        self.defects.extend(attempt.defects.iter().map(|d| format!("{step}: {d}")));
        match &attempt.outcome {
            Some(Ok(_)) => {}
            Some(Err(failure)) => self.failed(failure.clone()),
            None => self.verdict = Verdict::Crash("endless".to_owned()),
        }
    }

    fn failed(&mut self, failure: Failure) {
        let code = match (failure.code.as_str(), failure.message.split_once("(SIG")) {
            // A signal is told by its name.
            ("crashed", Some((_, rest))) => format!("SIG{}", rest.split(')').next().unwrap_or("")),
            (code, _) => code.to_owned(),
        };
        self.verdict = match failure.class {
            ErrorClass::Crash | ErrorClass::Resource => Verdict::Crash(code),
            ErrorClass::Deterministic | ErrorClass::Transient => Verdict::Refused(code),
        };
        self.failure = Some(failure);
    }
}

/// Opens as a worker opens a source: to be read only.
fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// What tells that a file was neither written to nor replaced.
fn identity(path: &Path) -> Result<(u64, i64, i64, Option<blake3::Hash>)> {
    use std::os::unix::fs::MetadataExt;
    /// Large ones are sparse, and their times say enough.
    const HASHED: u64 = 8 << 20;
    let meta = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let hash = match meta.size() {
        ..=HASHED => Some(blake3::hash(&fs::read(path).context("reading an input back")?)),
        _ => None,
    };
    Ok((meta.ino(), meta.mtime(), meta.mtime_nsec(), hash))
}
