//! The synthetic slot: a real slot process, real sandbox, real shares, made-up work.
//!
//! Each output is [`content`] of its key, written slowly in pieces; inputs are compared
//! with the content of theirs, so that a wrong artifact is noticed by whoever reads it.
//! The process takes its attempt for its name, by which the harness knows what it kills.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sha2::Digest as _;
use trix_model::{AttemptId, Digest, Failure, Key, Progress, SharePath};
use trix_plan::task::{
    Intake, MadeOutput, Output, StagedFile, TaskResult, TaskSpec, Verify, VerifyReport,
};
use trix_slot::{InputName, KnownAnswer, OpenedIo, SlotJob, slot_main};
use trix_storage::dir::{SourceFile, StageFile};
use trix_storage::fixity::OncePass;

use super::film::{Film, content, work_ms};

/// The engine whose bytes this slot makes.
pub const ENGINE: &str = "trix-chaos/1";

/// Work that depends on no film takes about this long.
const SMALL_MS: u64 = 60;

/// A piece of work, after which progress is told.
const PIECE: Duration = Duration::from_millis(10);

/// Runs the one attempt that comes over the socket on standard input.
pub fn run() -> ExitCode {
    slot_main(ENGINE, attempt, answer)
}

/// This slot computes nothing that a bad machine could get wrong.
fn answer() -> Result<KnownAnswer, Failure> {
    let right = Digest([1; 32]);
    Ok(KnownAnswer { given: right, expected: right })
}

/// The name of an attempt's process; the kernel keeps 15 bytes of it.
pub fn process_name(attempt: AttemptId) -> String {
    format!("s{}-{}", attempt.task, attempt.epoch)
}

/// The attempt behind a process's name.
pub fn attempt_of(name: &str) -> Option<AttemptId> {
    let (task, epoch) = name.strip_prefix('s')?.split_once('-')?;
    Some(AttemptId { task: task.parse().ok()?, epoch: epoch.parse().ok()? })
}

fn attempt(
    job: SlotJob,
    io: OpenedIo,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    if let Ok(name) = CString::new(process_name(job.attempt)) {
        // A kernel that refuses leaves a process that cannot be told apart: no harm.
        let _ = rustix::thread::set_name(&name);
    }
    match &job.spec {
        TaskSpec::Intake(task) => intake(task, &job, &io, told),
        TaskSpec::Verify(task) => verify(task, &job, &io, told),
        spec if spec.parses_media() => {
            let usual = film(&io)?.map_or(SMALL_MS, |film| film.work_ms);
            check_inputs(&job.spec, &io)?;
            let mut outputs = Vec::new();
            for output in &job.outputs {
                work(spec.kind(), usual / job.outputs.len() as u64, output, told);
                outputs.push(write(output, &content(&output.key), &io)?);
            }
            Ok(TaskResult { outputs, detail: None })
        }
        spec => Err(Failure::bug(format!("a {} task was given to a slot", spec.kind()))),
    }
}

fn film(io: &OpenedIo) -> Result<Option<Film>, Failure> {
    let Some(mut source) = again(io, InputName::Source)? else { return Ok(None) };
    let film =
        Film::read(&mut source).map_err(|e| Failure::share(format!("reading the film: {e}")))?;
    film.map(Some).ok_or_else(|| Failure::source("no_film", "the source is no film of the harness"))
}

/// The opened input from its start, if there is such an input.
fn again(io: &OpenedIo, name: InputName) -> Result<Option<File>, Failure> {
    let Some(file) = io.inputs.get(&name) else { return Ok(None) };
    let reopened = file.try_clone().and_then(|mut file| {
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    });
    reopened.map(Some).map_err(|e| Failure::share(format!("opening {name:?} once more: {e}")))
}

fn intake(
    task: &Intake,
    job: &SlotJob,
    io: &OpenedIo,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    let film = film(io)?.ok_or_else(|| Failure::bug("intake got no source"))?;
    let source = again(io, InputName::Source)?.ok_or_else(|| Failure::bug("no source"))?;
    let source = SourceFile::from_fd(OwnedFd::from(source), task.source.location.path.file_name())?;
    let tee = io.create_tee().transpose().map_err(|e| Failure::share(format!("the tee: {e}")))?;
    let staged = job.tee.clone();
    let tee = tee.map(|file| StageFile::from_file(file, "tee"));
    let hashes = OncePass::new(source, tee).finish(&task.source)?;
    let mut result = film.intake(hashes);

    let mut outputs = Vec::new();
    for output in &job.outputs {
        work("read", SMALL_MS, output, told);
        let bytes = if output.name == "result" { json(&result)? } else { content(&output.key) };
        outputs.push(write(output, &bytes, io)?);
    }
    result.staged = staged.map(|location: SharePath| StagedFile {
        location,
        size: result.hashes.size,
        sha256: result.hashes.sha256,
    });
    let detail = serde_json::to_value(&result).map_err(|e| Failure::bug(e.to_string()))?;
    Ok(TaskResult { outputs, detail: Some(detail) })
}

fn verify(
    task: &Verify,
    job: &SlotJob,
    io: &OpenedIo,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    check_inputs(&job.spec, io)?;
    let file = content(&task.file);
    let report = VerifyReport {
        frames: task.expect.video.as_ref().map_or(0, |v| v.frames),
        samples: vec![1; task.expect.audio.len()],
        size: file.len() as u64,
        sha256: Digest(sha2::Sha256::digest(&file).into()),
    };
    let mut outputs = Vec::new();
    for output in &job.outputs {
        work("verify", SMALL_MS, output, told);
        outputs.push(write(output, &json(&report)?, io)?);
    }
    let detail = serde_json::to_value(&report).map_err(|e| Failure::bug(e.to_string()))?;
    Ok(TaskResult { outputs, detail: Some(detail) })
}

/// Every input that is an artifact must hold the content of its key. The packet index is
/// one, too: only results that are JSON are not, and nobody reads those.
fn check_inputs(spec: &TaskSpec, io: &OpenedIo) -> Result<(), Failure> {
    for key in spec.input_keys() {
        let mut file = again(io, InputName::Artifact(key))?
            .ok_or_else(|| Failure::bug(format!("the artifact {key} was not opened")))?;
        let mut found = Vec::new();
        file.read_to_end(&mut found)
            .map_err(|e| Failure::share(format!("reading the artifact {key}: {e}")))?;
        if found != content(&key) {
            return Err(Failure::bug(format!("the artifact {key} holds other bytes than it must")));
        }
    }
    Ok(())
}

/// Takes its time: a fifth of it on the processor.
fn work(phase: &str, usual: u64, output: &Output, told: &(dyn Fn(Progress) + Sync)) {
    let pieces = (work_ms(usual, &output.key) / PIECE.as_millis() as u64).max(1);
    for done in 1..=pieces {
        let begun = Instant::now();
        while begun.elapsed() < PIECE / 5 {
            std::hint::spin_loop();
        }
        std::thread::sleep(PIECE - PIECE / 5);
        told(Progress { phase: phase.to_owned(), done, total: pieces, frames: done });
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| Failure::bug(e.to_string()))
}

fn write(output: &Output, bytes: &[u8], io: &OpenedIo) -> Result<MadeOutput, Failure> {
    let written = io.create_output(output).and_then(|mut file| {
        // In two pieces, so that a kill finds half a file now and then.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        file.write_all(head)?;
        std::thread::sleep(Duration::from_millis(2));
        file.write_all(tail)
    });
    written.map_err(|e| Failure::share(format!("writing the output {}: {e}", output.name)))?;
    let digest = Digest(*blake3::hash(bytes).as_bytes());
    Ok(MadeOutput { name: output.name.clone(), key: output.key, digest, size: bytes.len() as u64 })
}

/// The sha256 that the file with a key must have once it is published.
pub fn golden_sha256(key: &Key) -> Digest {
    Digest(sha2::Sha256::digest(content(key)).into())
}
