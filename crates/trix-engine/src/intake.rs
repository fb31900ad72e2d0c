//! One read of the source: checksums, description, packet index, and the tee
//! for the archive copy.
//!
//! The demuxer pulls; every byte that it reads for the first time goes through
//! the checksums and into the tee on the way, and what it skips is read at the
//! end. So a film on a slow share is read once.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use trix_av::{Indexed, Input};
use trix_model::{Failure, MediaDescription, PlanningIndex, Severity};
use trix_plan::task::{Intake, IntakeResult, Output, Sidecar, StagedFile, TaskResult};
use trix_storage::dir::{SourceFile, StageFile};
use trix_storage::fixity::{self, OncePass};

use crate::io::{Control, TaskIo};
use crate::packetfile::HashingWriter;
use crate::run::{find, made};

pub fn run(
    task: &Intake,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let name = task.source.location.path.file_name().to_owned();
    let source = SourceFile::from_fd(OwnedFd::from(io.source(&task.source)?), &name)?;
    let (tee, staged) = match &task.tee {
        Some(share) => {
            let (file, location) = io.tee(share)?;
            (Some(StageFile::from_file(file, &location.to_string())), Some(location))
        }
        None => (None, None),
    };

    let size = source.size();
    let once = OncePass::new(source, tee);
    let (media, Indexed { index, mut findings }, once) = inspect(once, size, control)?;
    let hashes = once.finish(&task.source)?;
    control.at("read", size, size, 0)?;

    for sidecar in &task.sidecars {
        findings.push(compare(sidecar, &name, &hashes, io));
    }
    if let Some(worst) = findings.iter().find(|f| f.severity == Severity::Error) {
        // Nothing is made of a damaged delivery: it has to be delivered again.
        return Err(Failure::source(worst.code.clone(), worst.message.clone()).about(&name));
    }
    let planning = PlanningIndex::from_index(&index, media.main_video().map(|(s, _)| s.index))
        .map_err(|e| Failure::bug(e.to_string()))?;
    let mut result = IntakeResult {
        media,
        hashes,
        planning_index: planning.to_base64(),
        findings,
        staged: None,
    };

    let mut outputs = Vec::new();
    if let Some(output) = find(wanted, "index") {
        outputs.push(write(output, &index.to_bytes(), io)?);
    }
    if let Some(output) = find(wanted, "result") {
        let json = serde_json::to_vec(&result).map_err(|e| Failure::bug(e.to_string()))?;
        outputs.push(write(output, &json, io)?);
    }
    result.staged = staged.map(|location| StagedFile {
        location,
        size: result.hashes.size,
        sha256: result.hashes.sha256,
    });
    let detail = serde_json::to_value(&result).map_err(|e| Failure::bug(e.to_string()))?;
    Ok(TaskResult { outputs, detail: Some(detail) })
}

/// Describes and indexes what the reader gives, and hands the reader back.
fn inspect<'a>(
    once: OncePass<'a>,
    size: u64,
    control: &Control<'_>,
) -> Result<(MediaDescription, Indexed, OncePass<'a>), Failure> {
    let mut input = Input::open_reader(once)?;
    let media = trix_av::describe(&mut input)?;
    let mut stop = None;
    let indexed = trix_av::build_index(&mut input, &mut |position| {
        stop = control.at("read", position.min(size), size, 0).err();
        stop.is_none()
    });
    if let Some(stop) = stop {
        return Err(stop);
    }
    let indexed = indexed?;
    let once = input.into_reader().ok_or_else(|| Failure::bug("the reader is still shared"))?;
    Ok((media, indexed, once))
}

fn compare(
    sidecar: &Sidecar,
    source: &str,
    hashes: &trix_model::digest::SourceHashes,
    io: &dyn TaskIo,
) -> trix_model::Finding {
    let name = sidecar.location.path.file_name();
    let mut bytes = Vec::new();
    let read = io.sidecar(&sidecar.location).and_then(|file| {
        file.take(fixity::SIDECAR_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::share(e.to_string()))
    });
    match read {
        Err(failure) => fixity::unreadable_sidecar(name, &failure.message),
        Ok(n) if n as u64 > fixity::SIDECAR_LIMIT => {
            fixity::unreadable_sidecar(name, "it is larger than any checksum file")
        }
        Ok(_) => fixity::compare_sidecar(sidecar.algorithm, name, &bytes, source, hashes),
    }
}

/// Writes a small artifact.
pub(crate) fn write(
    output: &Output,
    bytes: &[u8],
    io: &dyn TaskIo,
) -> Result<trix_plan::task::MadeOutput, Failure> {
    let mut file = HashingWriter::new(io.create(output)?);
    let written = file.write_all(bytes).and_then(|()| file.finish());
    Ok(made(output, written.map_err(|e| crate::io::write_failure(&output.name, &e))?))
}
