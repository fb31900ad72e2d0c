//! `trix-media slot`: gives the engine what a worker opened.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::process::ExitCode;

use trix_engine::{Control, TaskIo, engine_id, known_answer, run_task};
use trix_model::{Failure, Key, Progress, ShareName, SharePath};
use trix_plan::task::{Output, SourceRef, TaskResult, TaskSpec};
use trix_slot::{InputName, KnownAnswer, OpenedIo, SlotJob, slot_main};

/// Runs the one attempt that comes over the socket on standard input.
pub fn run() -> ExitCode {
    slot_main(&engine_id(), attempt, answer)
}

/// The self-test, for a slot without a job.
pub fn answer() -> Result<KnownAnswer, Failure> {
    let (given, expected) = known_answer()?;
    Ok(KnownAnswer { given, expected })
}

fn attempt(
    job: SlotJob,
    opened: OpenedIo,
    report: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    let io = SlotIo { job: &job, opened: &opened };
    let report = |progress: Progress| report(progress);
    // A worker stops a slot by killing it, so there is nothing to look at here.
    run_task(&job.spec, &job.outputs, &io, &Control::new(&report, &|| false))
}

/// Descriptors under the names that tasks use.
struct SlotIo<'a> {
    job: &'a SlotJob,
    opened: &'a OpenedIo,
}

impl SlotIo<'_> {
    fn open(&self, name: InputName) -> Result<File, Failure> {
        let file = self
            .opened
            .inputs
            .get(&name)
            .ok_or_else(|| Failure::bug(format!("the worker opened no {name:?}")))?;
        let again = || {
            let mut file = file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            std::io::Result::Ok(file)
        };
        again().map_err(|e| Failure::share(format!("opening {name:?} once more: {e}")))
    }
}

impl TaskIo for SlotIo<'_> {
    fn source(&self, _source: &SourceRef) -> Result<File, Failure> {
        // The worker compared size and time when it opened the file.
        self.open(InputName::Source)
    }

    fn sidecar(&self, location: &SharePath) -> Result<File, Failure> {
        let TaskSpec::Intake(intake) = &self.job.spec else {
            return Err(Failure::bug("a checksum file is read by another task than intake"));
        };
        let n = intake.sidecars.iter().position(|s| s.location == *location);
        let n = n.ok_or_else(|| Failure::bug(format!("{location} is no sidecar of the job")))?;
        self.open(InputName::Sidecar(n as u32))
    }

    fn artifact(&self, key: &Key) -> Result<File, Failure> {
        self.open(InputName::Artifact(*key))
    }

    fn create(&self, output: &Output) -> Result<File, Failure> {
        self.opened
            .create_output(output)
            .map_err(|e| Failure::share(format!("creating the output {}: {e}", output.name)))
    }

    fn tee(&self, share: &ShareName) -> Result<(File, SharePath), Failure> {
        let location = self.job.tee.clone();
        match (self.opened.create_tee(), location) {
            (Some(Ok(file)), Some(location)) => Ok((file, location)),
            (Some(Err(e)), _) => Err(Failure::share(format!("creating the tee on {share}: {e}"))),
            _ => Err(Failure::bug(format!("the worker opened no stage on the share {share}"))),
        }
    }
}
