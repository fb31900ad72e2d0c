//! Which stage a task is.

use trix_model::Failure;
use trix_plan::task::{MadeOutput, Output, TaskResult, TaskSpec};

use crate::io::{Control, TaskIo};
use crate::packetfile::Written;
use crate::{audio, copy, encode, intake, mux, stills, verify};

/// Raised by hand when code of this crate or of trix-av changes what it
/// writes, so that older artifacts are not taken for new ones.
const ENGINE_REVISION: u32 = 2;

/// What decides the bytes of artifacts beside plan and source: versions and
/// flags of encoders and of libav, the CPU level that they are held to, and
/// our own revision.
pub fn engine_id() -> String {
    format!(
        "trix-engine/{ENGINE_REVISION} {} {}",
        trix_encode::engine_id(trix_encode::CpuLevel::best()),
        trix_av::versions()
    )
}

/// Runs one task: makes those of its outputs that are `wanted`.
///
/// `Copy` and `Publish` parse no media and are the worker's own; asking for
/// them here is a bug.
pub fn run_task(
    spec: &TaskSpec,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    match spec {
        TaskSpec::Intake(t) => intake::run(t, wanted, io, control),
        TaskSpec::EncodeChunk(t) => encode::run(t, wanted, io, control),
        TaskSpec::EncodeAudio(t) => audio::run(t, wanted, io, control),
        TaskSpec::CopyVideo(t) => copy::video(t, wanted, io, control),
        TaskSpec::Stills(t) => stills::run(t, wanted, io, control),
        TaskSpec::Mux(t) => mux::run(t, wanted, io, control),
        TaskSpec::Verify(t) => verify::run(t, wanted, io, control),
        TaskSpec::Copy(_) | TaskSpec::Publish(_) | TaskSpec::Retract(_) => {
            Err(Failure::bug(format!("a {} task was given to the engine", spec.kind())))
        }
    }
}

/// The wanted output of that name, if it is wanted at all.
pub(crate) fn find<'a>(wanted: &'a [Output], name: &str) -> Option<&'a Output> {
    wanted.iter().find(|o| o.name == name)
}

/// The only output of a task that has just one.
pub(crate) fn only<'a>(wanted: &'a [Output], name: &str) -> Result<&'a Output, Failure> {
    find(wanted, name).ok_or_else(|| Failure::bug(format!("a task runs without wanting {name}")))
}

/// An output with what was written for it.
pub(crate) fn made(output: &Output, written: Written) -> MadeOutput {
    MadeOutput {
        name: output.name.clone(),
        key: output.key,
        digest: written.digest,
        size: written.size,
    }
}
