//! What worker and slot say to each other: length-prefixed JSON over a stream
//! socket pair, descriptors beside it.
//!
//! The order is fixed. Slot: [`Hello`]. Worker: [`Order`], and with work the descriptors
//! of its inputs and stages in batches, each carried by one byte. Slot:
//! [`SlotMessage::Boxed`], [`SlotMessage::Progress`] at least once a second,
//! [`SlotMessage::Result`] once; then it exits. The worker says nothing more:
//! it ends a slot by killing it.
//!
//! A stream, not SEQPACKET: a packet is bounded by the socket's buffer (about
//! 200 KiB), and the planning index of a long film is larger than that.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trix_model::{AttemptId, Digest, Failure, Key, Progress, SharePath};
use trix_plan::task::{Cost, Output, TaskResult, TaskSpec};

/// Version of everything in this module. Worker and slot must agree on it.
pub const WIRE_VERSION: u32 = 3;

/// Largest message in bytes. The largest honest one is an intake's result with
/// its planning index, some megabytes for a day of video.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Descriptors a batch. The kernel takes at most 253.
const FD_BATCH: usize = 128;

/// Name of the tee's file in its stage directory.
pub const TEE_NAME: &str = "source";

/// The slot's first words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of trix that the slot's binary was built from; told, not compared.
    pub trix: String,
    /// [`WIRE_VERSION`] of the slot.
    pub wire: u32,
    /// Engine id whose bytes this slot makes.
    pub engine: String,
}

/// What an opened input is. Files have no other name in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputName {
    /// The task's source, read-only.
    Source,
    /// The n-th checksum file of an intake, counted from 0.
    Sidecar(u32),
    /// The artifact with this key.
    Artifact(Key),
}

/// The worker's one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Close the box, tell what it enforces, and end.
    Trial {
        /// As for a job.
        limits: Limits,
        /// As for a job.
        worker_pid: u32,
    },
    /// Give the known answer, in a closed box, and end.
    SelfTest {
        /// As for a job.
        limits: Limits,
        /// As for a job.
        worker_pid: u32,
    },
    /// Run an attempt.
    Work {
        /// Which.
        job: Box<SlotJob>,
        /// What the box must enforce.
        policy: Policy,
        /// Name every refused system call in the log; without it only deadly ones are.
        name_refused: bool,
    },
}

/// One attempt, as the slot gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotJob {
    /// Which attempt it is.
    pub attempt: AttemptId,
    /// The task's name in its job, for log lines.
    pub task: String,
    /// What to do.
    pub spec: TaskSpec,
    /// The outputs to make: those of the task whose keys have no artifact yet.
    /// Each is written to the cache stage as the file that [`stage_name`] names.
    pub outputs: Vec<Output>,
    /// Inputs in the order of their descriptors.
    pub inputs: Vec<InputName>,
    /// Where the tee's stage directory lies, if one is passed: the file in it is
    /// [`TEE_NAME`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<SharePath>,
    /// What the slot may take.
    pub limits: Limits,
    /// Process id of the worker, as the slot's parent must have it.
    pub worker_pid: u32,
}

/// What a slot may take of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of data segments and private mappings (`RLIMIT_DATA`); counts 8 MiB
    /// for each thread's stack.
    pub data: u64,
    /// Bytes of memory in all, where the worker has a memory group to hold it to.
    pub memory: u64,
    /// Largest file in bytes that it may write (`RLIMIT_FSIZE`).
    pub file_size: u64,
    /// Seconds of processor time, of all its threads together, from one change of its progress
    /// to the next (`RLIMIT_CPU`, whose soft limit moves on with the progress).
    pub cpu: u64,
    /// User and group to become when the worker is root. `None`: keep the user
    /// without its capabilities, because a share refused to give the stage away.
    pub user: Option<(u32, u32)>,
}

impl Limits {
    /// Backstops against a run-away, well above what the plan expects of the task. `stall` is the
    /// longest time without changed progress that the worker waits.
    pub fn of(spec: &TaskSpec, cost: &Cost, stall: Duration, user: Option<(u32, u32)>) -> Limits {
        let memory = cost.ram.saturating_mul(2).saturating_add(1 << 30);
        let cpu = match spec {
            // A header of some kilobytes can keep a demuxer busy for hours, and honest ones are
            // read in no time; behind the header progress is told all the way. The time for the
            // whole file is for what no demuxer asked for and is read in one go at the end.
            TaskSpec::Intake(_) => 20 + cost.estimate_ms.saturating_mul(4) / 1000,
            // A setting can make one frame take as long as it likes, so here it is what all
            // threads can use up before the stall ends them.
            _ => (stall.as_secs() + 1) * u64::from(cost.mcpu.div_ceil(1000).max(1)),
        };
        Limits {
            data: memory,
            memory,
            file_size: (cost.scratch.saturating_mul(4))
                .max(spec.source().map_or(0, |s| s.size))
                .saturating_add(4 << 30),
            cpu,
            user,
        }
    }
}

/// What a slot says after its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum SlotMessage {
    /// The box is closed; work begins.
    Boxed {
        /// What is really enforced.
        boxed: Boxed,
    },
    /// How far it is; sent at least once a second even if nothing has changed.
    Progress {
        /// The latest value.
        progress: Progress,
    },
    /// The known answer, as this machine gives it.
    Tested {
        /// What it gives, and what it should give.
        answer: KnownAnswer,
    },
    /// The task ended well.
    Done {
        /// What it made.
        result: TaskResult,
    },
    /// The task failed in an orderly way.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What a self-test gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAnswer {
    /// Digest of what this machine made.
    pub given: Digest,
    /// Digest of what a machine makes that is well.
    pub expected: Digest,
}

impl KnownAnswer {
    /// True of a machine that is well, as far as this can tell.
    pub fn is_right(&self) -> bool {
        self.given == self.expected
    }
}

/// What a slot's box really enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boxed {
    /// User that the slot runs as.
    pub uid: u32,
    /// Measures that are in force.
    pub enforced: Vec<Measure>,
    /// Measures that are in force with something lacking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partly: Vec<Missing>,
    /// Measures that this machine refused, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Interface of Landlock that the kernel has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<u32>,
}

/// One measure of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// A network namespace with nothing in it.
    EmptyNetwork,
    /// First in line when memory runs out.
    OomFirst,
    /// A user other than the worker's.
    OwnUser,
    /// No capability in any set.
    NoCapabilities,
    /// A process group of its own.
    OwnGroup,
    /// Dies with the worker.
    DiesWithWorker,
    /// No descriptor but those of the job.
    OnlyJobDescriptors,
    /// Limits for core, files, file size, locked memory and data.
    Limits,
    /// No privilege by exec.
    NoNewPrivileges,
    /// Not readable by others of the same user, no core.
    NotDumpable,
    /// Names of character sets can be converted as outside of the box.
    CharacterSets,
    /// No file by name but beneath the stages (Landlock).
    OnlyStageFiles,
    /// No system call but those that the work needs (seccomp).
    FewSystemCalls,
    /// A memory group with a limit of its own (cgroup); the worker's measure.
    MemoryGroup,
    /// A limit on threads (cgroup); the worker's measure.
    ThreadGroup,
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Measure::EmptyNetwork => "empty network namespace",
            Measure::OomFirst => "first to go when memory runs out",
            Measure::OwnUser => "a user of its own",
            Measure::NoCapabilities => "no capabilities",
            Measure::OwnGroup => "process group of its own",
            Measure::DiesWithWorker => "dies with its worker",
            Measure::OnlyJobDescriptors => "only the job's descriptors",
            Measure::Limits => "resource limits",
            Measure::NoNewPrivileges => "no new privileges",
            Measure::NotDumpable => "not dumpable",
            Measure::CharacterSets => "character sets of DVB",
            Measure::OnlyStageFiles => "only files of its stages (Landlock)",
            Measure::FewSystemCalls => "few system calls (seccomp)",
            Measure::MemoryGroup => "memory group (cgroup)",
            Measure::ThreadGroup => "limit on threads (cgroup)",
        })
    }
}

/// A measure that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub measure: Measure,
    /// Why, in words.
    pub reason: String,
    /// What the kernel answered, if it was the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.measure, self.reason)
    }
}

/// What a worker demands of the box before it lets media into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// What the kernel lacks is told, and the rest has to do.
    #[default]
    BestEffort,
    /// Without one of the [`Policy::DEMANDED`] measures nothing runs.
    Strict,
}

impl Policy {
    /// What keeps broken code from reaching the network, files, and the kernel's rarer
    /// parts. Not among them: a user of its own, which a worker that is not root cannot
    /// give, nor can a share without owners; and memory groups, behind which limits stand.
    /// A measure that is in force in part counts: what older interfaces of Landlock lack,
    /// the system-call filter refuses.
    pub const DEMANDED: [Measure; 4] = [
        Measure::EmptyNetwork,
        Measure::NoCapabilities,
        Measure::OnlyStageFiles,
        Measure::FewSystemCalls,
    ];

    /// What this policy demands and the box lacks, in words; `None`: work may begin.
    pub fn objection(self, boxed: &Boxed) -> Option<String> {
        let demanded = |m: &&Missing| Policy::DEMANDED.contains(&m.measure);
        let lacking: Vec<String> =
            boxed.missing.iter().filter(demanded).map(|m| m.to_string()).collect();
        (self == Policy::Strict && !lacking.is_empty()).then(|| {
            format!(
                "the sandbox is strict, and this machine does not offer: {}",
                lacking.join("; ")
            )
        })
    }
}

/// Name of an output's file in the cache stage: the key in hexadecimal.
pub fn stage_name(output: &Output) -> String {
    output.key.to_string()
}

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side closed the socket.
    #[error("the other side closed the socket")]
    Closed,
    /// The socket failed.
    #[error("the socket between worker and slot failed")]
    Io(#[source] io::Error),
    /// The message is no JSON of the expected shape.
    #[error("a message between worker and slot is not understood")]
    Json(#[source] serde_json::Error),
    /// A message of an impossible length.
    #[error("a message of {0} bytes; at most {MAX_MESSAGE} are allowed")]
    TooLong(usize),
    /// Descriptors got lost.
    #[error("{got} descriptors came where {wanted} were announced")]
    Descriptors {
        /// Announced.
        wanted: usize,
        /// Came.
        got: usize,
    },
}

impl From<io::Error> for WireError {
    fn from(e: io::Error) -> WireError {
        match e.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => WireError::Closed,
            _ => WireError::Io(e),
        }
    }
}

/// Appends `message` to `out` in wire form: length as 4 little-endian bytes, JSON.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *out, message).map_err(WireError::Json)?;
    let length = out.len() - start - 4;
    if length > MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Writes one message.
pub fn send(mut line: impl Write, message: &impl Serialize) -> Result<(), WireError> {
    let mut frame = Vec::new();
    encode(message, &mut frame)?;
    Ok(line.write_all(&frame)?)
}

/// Reads exactly one message and not one byte more, because a descriptor that
/// comes with the next byte would be lost in a plain read.
pub fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> Result<T, WireError> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(WireError::Json)
}

/// Collects bytes as they come and cuts them into messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes bytes from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(WireError::TooLong(length));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.bytes[4..4 + length]).map_err(WireError::Json);
        self.bytes.drain(..4 + length);
        message.map(Some)
    }
}

/// Sends descriptors, in batches, each with one byte of data to carry it.
pub fn send_descriptors(socket: &UnixStream, fds: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    for batch in fds.chunks(FD_BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(WireError::Io(io::Error::other("the control buffer is too small")));
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(socket, &[IoSlice::new(b"D")], &mut control, SendFlags::NOSIGNAL)
        })
        .map_err(io::Error::from)?;
    }
    Ok(())
}

/// Receives `wanted` descriptors, close-on-exec.
pub fn receive_descriptors(socket: &UnixStream, wanted: usize) -> Result<Vec<OwnedFd>, WireError> {
    let mut fds = Vec::with_capacity(wanted);
    while fds.len() < wanted {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 1];
        let got = rustix::io::retry_on_intr(|| {
            recvmsg(
                socket.as_fd(),
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(io::Error::from)?;
        if got.bytes == 0 {
            return Err(WireError::Closed);
        }
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // A batch is cut short by the kernel when the receiver's table is full.
        if fds.len() - before != (wanted - before).min(FD_BATCH) {
            return Err(WireError::Descriptors { wanted, got: fds.len() });
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_out_of_any_pieces() {
        let mut bytes = Vec::new();
        for n in 0..3u64 {
            let progress = Progress { phase: "x".into(), done: n, total: 3, frames: 0 };
            encode(&SlotMessage::Progress { progress }, &mut bytes).unwrap();
        }
        for piece in 1..bytes.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for part in bytes.chunks(piece) {
                frames.push(part);
                while let Some(SlotMessage::Progress { progress }) = frames.take().unwrap() {
                    seen.push(progress.done);
                }
            }
            assert_eq!(seen, [0, 1, 2]);
        }
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        assert!(matches!(frames.take::<SlotMessage>(), Err(WireError::TooLong(_))));
    }

    #[test]
    fn more_descriptors_than_one_batch_arrive_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..300u64)
            .map(|n| {
                let (read, write) = rustix::pipe::pipe().unwrap();
                rustix::io::write(&write, &n.to_le_bytes()).unwrap();
                read
            })
            .collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&here, &"before").unwrap();
        send_descriptors(&here, &borrowed).unwrap();
        send(&here, &"after").unwrap();
        assert_eq!(receive::<String>(&there).unwrap(), "before");
        for (n, fd) in receive_descriptors(&there, 300).unwrap().into_iter().enumerate() {
            let mut bytes = [0; 8];
            rustix::io::read(&fd, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), n as u64);
        }
        assert_eq!(receive::<String>(&there).unwrap(), "after");
    }
}
