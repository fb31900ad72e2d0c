//! One read of the source: checksums, description, packet index, and the tee
//! for the archive copy.
//!
//! The demuxer pulls; every byte that it reads for the first time goes through
//! the checksums and into the tee on the way, and what it skips is read at the
//! end. So a film on a slow share is read once.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use trix_av::{Indexed, Input};
use trix_model::index::IndexError;
use trix_model::{Failure, MediaDescription, PacketIndex, PlanningIndex, Severity};
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
    let video = media.main_video().map(|(s, _)| s.index);
    let planning = planning(&index, video).map_err(|failure| failure.about(&name))?;
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

/// What planning needs of an index that was just made.
fn planning(index: &PacketIndex, video: Option<u32>) -> Result<PlanningIndex, Failure> {
    PlanningIndex::from_index(index, video).map_err(|e| match e {
        IndexError::NoFrames(_) => e.into(),
        // Nobody but this attempt has had it in hand: a cache did not damage it, and another
        // attempt makes the same.
        _ => Failure::bug(e.to_string()),
    })
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

#[cfg(test)]
mod tests {
    use trix_model::digest::Digest128;
    use trix_model::index::{
        AccessPoint, FrameSource, FrameTable, PACKET_INDEX_VERSION, PACKET_KEY, PacketEntry,
        StreamIndex,
    };
    use trix_model::{ErrorClass, ErrorOrigin, Rational};

    use super::*;

    /// One picture.
    fn index(frames: Option<FrameTable>) -> PacketIndex {
        let hash = Digest128([0; 16]);
        let packet = PacketEntry {
            pts: Some(0),
            dts: Some(0),
            duration: 1,
            pos: 0,
            size: 1,
            flags: PACKET_KEY,
            hash,
        };
        let stream = StreamIndex {
            stream: 0,
            time_base: Rational::ONE,
            parameters: hash,
            packets: vec![packet],
            frames,
        };
        PacketIndex { version: PACKET_INDEX_VERSION, streams: vec![stream] }
    }

    fn table(packet: u32) -> FrameTable {
        let access = vec![AccessPoint { frame: 0, packet }];
        FrameTable { source: FrameSource::Packets, pts: vec![0], end: 1, access }
    }

    #[test]
    fn a_picture_without_frames_is_the_file_s_fault_and_a_wrong_index_is_ours() {
        assert_eq!(planning(&index(Some(table(0))), Some(0)).unwrap().frames(), 1);

        let failure = planning(&index(None), Some(0)).unwrap_err();
        assert_eq!(failure.code, "no_frames");
        let (class, origin) = (failure.class, failure.origin);
        assert_eq!((class, origin), (ErrorClass::Deterministic, ErrorOrigin::Source));

        // Not a damaged artifact, which would be tried again and again.
        let failure = planning(&index(Some(table(9))), Some(0)).unwrap_err();
        let (class, origin) = (failure.class, failure.origin);
        assert_eq!((class, origin), (ErrorClass::Deterministic, ErrorOrigin::Bug));
    }
}
