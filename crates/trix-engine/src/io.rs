//! What an engine is given: opened files, and a way to report and to be stopped.
//!
//! **trix-engine opens no path.** A slot hands over descriptors that the worker
//! opened; the in-process form hands over files of its own cache.

use std::fs::File;
use std::io::Read;

use trix_model::index::{FrameTable, StreamIndex};
use trix_model::{
    ErrorClass, ErrorOrigin, Failure, Key, PacketIndex, Progress, ShareName, SharePath,
};
use trix_plan::task::{Output, SourceRef};

/// Opens what a task reads and creates what it writes.
pub trait TaskIo: Sync {
    /// The source, as it was when the job was submitted; a change is `source_changed`.
    fn source(&self, source: &SourceRef) -> Result<File, Failure>;

    /// A checksum file beside the source.
    fn sidecar(&self, location: &SharePath) -> Result<File, Failure>;

    /// An artifact of the cache.
    fn artifact(&self, key: &Key) -> Result<File, Failure>;

    /// A new file for an output, readable and writable, in the attempt's stage.
    fn create(&self, output: &Output) -> Result<File, Failure>;

    /// The new file of intake's tee, in the attempt's stage on the archive's share, and where it
    /// lies.
    fn tee(&self, share: &ShareName) -> Result<(File, SharePath), Failure>;

    /// Threads that a stage may use now where their number changes no byte of what it writes:
    /// more than one while cores would idle otherwise. Asked anew from time to time.
    fn threads(&self) -> u32 {
        1
    }
}

/// How an attempt reports and is stopped.
pub struct Control<'a> {
    progress: &'a dyn Fn(Progress),
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Control<'a> {
    /// Reports to `progress` and stops when `stop` says so.
    pub fn new(progress: &'a dyn Fn(Progress), stop: &'a dyn Fn() -> bool) -> Control<'a> {
        Control { progress, stop }
    }

    /// Reports how far the attempt is, and fails when it was told to stop. Called once per
    /// frame or buffer, so that a stop takes effect within one.
    pub fn at(&self, phase: &str, done: u64, total: u64, frames: u64) -> Result<(), Failure> {
        if (self.stop)() {
            return Err(stopped());
        }
        (self.progress)(Progress { phase: phase.to_owned(), done, total, frames });
        Ok(())
    }
}

/// The failure of an attempt that was told to stop.
pub fn stopped() -> Failure {
    Failure::new(
        ErrorClass::Transient,
        ErrorOrigin::Node,
        "released",
        "the attempt was told to stop",
    )
}

/// Reads a packet index out of the cache.
pub(crate) fn read_index(io: &dyn TaskIo, key: &Key) -> Result<PacketIndex, Failure> {
    let mut bytes = Vec::new();
    io.artifact(key)?
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::share(format!("reading the packet index: {e}")))?;
    PacketIndex::from_bytes(&bytes).map_err(|e| {
        Failure::new(ErrorClass::Transient, ErrorOrigin::Share, "artifact_damaged", e.to_string())
            .about(key)
    })
}

/// One stream's part of a packet index.
pub(crate) fn stream_index(index: &PacketIndex, stream: u32) -> Result<&StreamIndex, Failure> {
    index
        .stream(stream)
        .ok_or_else(|| Failure::bug(format!("the packet index has no stream {stream}")))
}

/// The presented frames of a video stream.
pub(crate) fn frame_table(stream: &StreamIndex) -> Result<&FrameTable, Failure> {
    stream.frames.as_ref().ok_or_else(|| {
        Failure::bug(format!("the packet index has no frames of stream {}", stream.stream))
    })
}

/// A write to the attempt's stage failed: no room is a matter of resources,
/// anything else of the share.
pub(crate) fn write_failure(name: &str, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let message = format!("writing the output {name}: {error}");
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        return Failure::new(ErrorClass::Resource, ErrorOrigin::Share, "no_space", message);
    }
    Failure::share(message)
}
