//! The worker's side: spawn a slot, feed it, watch it, and say how it ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use trix_model::{ErrorClass, ErrorOrigin, Failure, Progress, with_causes};
use trix_plan::task::TaskResult;

use crate::cgroup::{Group, Groups};
use crate::process::{LOOK, Process};
use crate::sandbox::calls::REFUSED;
use crate::wire::{
    Boxed, Frames, Hello, InputName, KnownAnswer, Limits, Order, Policy, SlotJob, SlotMessage,
    WIRE_VERSION, WireError, receive, send, send_descriptors,
};

/// Log lines kept of a slot: its last ones.
pub const LOG_LINES: usize = 200;

/// Log lines that the report of an end without a result repeats.
const LAST_WORDS: usize = 3;

/// Longest log line in bytes; longer ones are cut, because a hostile file can
/// make a library print anything.
const LOG_LINE_BYTES: usize = 2000;

/// How long a fresh process may take to say hello, on the busiest machine.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// Starts slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    args: Vec<String>,
    policy: Policy,
    groups: Option<Arc<Groups>>,
    name_refused: bool,
}

/// Why no slot came to work.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program could not be started.
    #[error("starting the slot {program}")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It started and did not say hello.
    #[error("the slot {program} did not say hello; its last words: {words:?}")]
    NoHello {
        /// Which program.
        program: PathBuf,
        /// The last log line.
        words: String,
        /// Why.
        #[source]
        cause: WireError,
    },
    /// It speaks another version of the wire.
    #[error("the slot {program} speaks wire version {theirs}, this worker {WIRE_VERSION}")]
    WireVersion {
        /// Which program.
        program: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// It could not give the known answer at all.
    #[error("the slot {program} failed its self-test: {failure}")]
    SelfTest {
        /// Which program.
        program: PathBuf,
        /// Its words.
        failure: Failure,
    },
    /// It could not close its box at all.
    #[error("the slot {program} could not close its box: {failure}")]
    Sandbox {
        /// Which program.
        program: PathBuf,
        /// Its words.
        failure: Failure,
    },
}

/// Whom the slots of this process become: nobody, if it is root. A process that is not root
/// has no other user to give them.
pub fn slot_user() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then_some((65534, 65534))
}

impl From<&LaunchError> for Failure {
    fn from(e: &LaunchError) -> Failure {
        let code = match e {
            LaunchError::WireVersion { .. } => "slot_version",
            LaunchError::Sandbox { .. } => "sandbox",
            _ => "slot_spawn",
        };
        Failure::new(ErrorClass::Transient, ErrorOrigin::Node, code, with_causes(e))
    }
}

/// The descriptors of a job, in the worker's hands.
#[derive(Debug)]
pub struct SlotIo {
    /// Inputs with their names; they become [`SlotJob::inputs`].
    pub inputs: Vec<(InputName, File)>,
    /// Stage directory of the attempt on the cache share.
    pub cache_stage: OwnedFd,
    /// Stage directory of the attempt on the tee's share.
    pub tee_stage: Option<OwnedFd>,
}

/// What a running slot reports.
#[derive(Debug)]
pub enum Report<'a> {
    /// The box is closed.
    Boxed(&'a Boxed),
    /// How far it is.
    Progress(&'a Progress),
    /// One line that it or a library printed.
    Log(&'a str),
}

/// How an attempt in a slot ended.
#[derive(Debug)]
pub struct Ended {
    /// With what.
    pub outcome: Outcome,
    /// What it took.
    pub usage: Usage,
    /// What the box enforced; `None` when it did not get there.
    pub boxed: Option<Boxed>,
    /// The last progress that was told.
    pub progress: Progress,
    /// Its last log lines.
    pub log: Vec<String>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done(TaskResult),
    /// It failed, by its own word or by how its process ended.
    Failed(Failure),
    /// [`Control::cancel`] was called.
    Cancelled,
}

/// What an attempt took of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds of processor time, user and system.
    pub cpu_ms: u64,
    /// Milliseconds from spawn to exit.
    pub wall_ms: u64,
    /// Largest resident memory in bytes.
    pub peak_ram: u64,
}

/// Reaches into a running slot from any thread.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: Process,
    /// Why it was killed by us: one of the `KILLED_…` values.
    killed: AtomicU8,
}

const NOT_KILLED: u8 = 0;
const KILLED_CANCEL: u8 = 1;
const KILLED_STALL: u8 = 2;
const KILLED_WIRE: u8 = 3;

impl Control {
    /// Kills the slot; it is gone within milliseconds and ends as [`Outcome::Cancelled`].
    pub fn cancel(&self) {
        self.kill(KILLED_CANCEL);
    }

    fn kill(&self, why: u8) {
        // The first reason stands.
        let _ = self.0.killed.compare_exchange(NOT_KILLED, why, Ordering::SeqCst, Ordering::SeqCst);
        self.0.process.kill();
    }
}

/// A slot process that is ours to feed and to reap. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Running {
    control: Control,
    socket: UnixStream,
    log: LogPipe,
    launcher: Launcher,
    started: Instant,
    oom_kills: Option<u64>,
    group: Option<Group>,
}

impl Launcher {
    /// Starts slots as `program slot`. `program` must be an absolute path:
    /// the environment is cleared, and so is the search path.
    pub fn new(program: impl AsRef<Path>) -> Launcher {
        Launcher {
            program: program.as_ref().to_owned(),
            args: vec!["slot".to_owned()],
            policy: Policy::default(),
            groups: None,
            name_refused: false,
        }
    }

    /// Other arguments than `slot`.
    pub fn with_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Launcher {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// What a box must enforce before media comes into it.
    pub fn with_policy(mut self, policy: Policy) -> Launcher {
        self.policy = policy;
        self
    }

    /// Gives each slot groups of its own, as far as there are any.
    pub fn with_groups(mut self, groups: Arc<Groups>) -> Launcher {
        self.groups = Some(groups);
        self
    }

    /// Has slots name every system call that they are refused in their log. For looking
    /// into what a library does: the filter answers more slowly.
    pub fn naming_refused_calls(mut self) -> Launcher {
        self.name_refused = true;
        self
    }

    /// What a box must enforce.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// True when each slot is held to [`Limits::memory`] by a group of its own.
    pub fn holds_memory(&self) -> bool {
        self.groups.as_ref().is_some_and(|groups| groups.holds_memory())
    }

    /// Asks the program for its version and engine, by a slot that gets no job. Blocks.
    pub fn hello(&self) -> Result<Hello, LaunchError> {
        self.start()?.greet()
    }

    /// Has a slot close its box around nothing and tell what it enforces, as `user` if
    /// this process is root. Blocks.
    pub fn trial(&self, user: Option<(u32, u32)>) -> Result<(Hello, Boxed), LaunchError> {
        let mut slot = self.start()?;
        let hello = slot.greet()?;
        let mut boxed =
            slot.order_box(user, |limits, worker_pid| Order::Trial { limits, worker_pid })?;
        if let Some(group) = &slot.group {
            group.tell(&mut boxed);
        }
        Ok((hello, boxed))
    }

    /// Has a slot give the known answer in its box, as `user` if this process is root.
    /// Blocks for as long as that takes, and that is a second.
    pub fn self_test(&self, user: Option<(u32, u32)>) -> Result<KnownAnswer, LaunchError> {
        let mut slot = self.start()?;
        slot.greet()?;
        slot.order_box(user, |limits, worker_pid| Order::SelfTest { limits, worker_pid })?;
        match receive(&slot.socket) {
            Ok(SlotMessage::Tested { answer }) => Ok(answer),
            Ok(SlotMessage::Failed { failure }) => {
                Err(LaunchError::SelfTest { program: self.program.clone(), failure })
            }
            Ok(other) => Err(slot.off_script("a self-test", &other)),
            Err(cause) => Err(slot.silent(cause)),
        }
    }

    /// Starts the process. Blocks for about a millisecond.
    pub fn start(&self) -> Result<Running, LaunchError> {
        let spawn_error = |cause| LaunchError::Spawn { program: self.program.clone(), cause };
        if !self.program.is_absolute() {
            return Err(spawn_error(io::Error::other("the path is not absolute")));
        }
        let (socket, theirs) = UnixStream::pair().map_err(spawn_error)?;
        let (log, log_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| spawn_error(e.into()))?;
        rustix::io::ioctl_fionbio(&log, true).map_err(|e| spawn_error(e.into()))?;
        let second = log_end.try_clone().map_err(spawn_error)?;
        // Nothing here may need `pre_exec`, `uid` or a search path: with one of
        // them std forks, which takes 25 ms from a worker of 1 GB instead of 0.2.
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(second))
            .stderr(Stdio::from(log_end));
        let oom_kills = oom_kills();
        let started = Instant::now();
        let process = Process::of(on_spawn_thread(command).map_err(spawn_error)?);
        let killed = AtomicU8::new(NOT_KILLED);
        Ok(Running {
            control: Control(Arc::new(Inner { process, killed })),
            socket,
            log: LogPipe::new(log),
            launcher: self.clone(),
            started,
            oom_kills,
            group: None,
        })
    }
}

/// Spawns on the one thread that lives as long as the process: the parent-death
/// signal comes when the *thread* that spawned ends, so a thread of a pool would
/// take its slots with it.
fn on_spawn_thread(command: Command) -> io::Result<Pid> {
    type Request = (Command, Sender<io::Result<Pid>>);
    static THREAD: OnceLock<Sender<Request>> = OnceLock::new();
    let gone = || io::Error::other("the thread that spawns slots is gone");
    let thread = THREAD.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        let work = move || {
            for (mut command, reply) in requests {
                // A requester that stopped waiting gets its slot killed by
                // the closed socket.
                let spawned = command.spawn().map(|child| Pid::from_child(&child));
                let _ = reply.send(spawned);
            }
        };
        if let Err(e) = std::thread::Builder::new().name("slot-spawn".into()).spawn(work) {
            tracing::error!(error = %e, "no thread for spawning slots");
        }
        sender
    });
    let (reply, answer) = channel();
    thread.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

impl Running {
    /// Its process id, for log lines.
    pub fn pid(&self) -> u32 {
        self.control.0.process.pid().as_raw_nonzero().get() as u32
    }

    /// A handle that cancels from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    fn greet(&mut self) -> Result<Hello, LaunchError> {
        let patience = self.socket.set_read_timeout(Some(HELLO_PATIENCE)).map_err(WireError::Io);
        let hello = patience.and_then(|()| receive::<Hello>(&self.socket));
        let hello = hello.map_err(|cause| self.silent(cause))?;
        if hello.wire != WIRE_VERSION {
            let program = self.launcher.program.clone();
            return Err(LaunchError::WireVersion { program, theirs: hello.wire });
        }
        Ok(hello)
    }

    /// Gives an order that has no job, and takes the word on the box that comes first.
    fn order_box(
        &mut self,
        user: Option<(u32, u32)>,
        order: impl FnOnce(Limits, u32) -> Order,
    ) -> Result<Boxed, LaunchError> {
        let limits = Limits { data: 1 << 30, memory: 1 << 30, file_size: 0, cpu: 60, user };
        self.enter_group(&limits);
        let order = order(limits, std::process::id());
        match send(&self.socket, &order).and_then(|()| receive(&self.socket)) {
            Ok(SlotMessage::Boxed { boxed }) => Ok(boxed),
            Ok(SlotMessage::Failed { failure }) => {
                Err(LaunchError::Sandbox { program: self.launcher.program.clone(), failure })
            }
            Ok(other) => Err(self.off_script("an order of a box", &other)),
            Err(cause) => Err(self.silent(cause)),
        }
    }

    fn off_script(&mut self, order: &str, said: &SlotMessage) -> LaunchError {
        self.silent(WireError::Io(io::Error::other(format!("it answered {order} with {said:?}"))))
    }

    /// The slot did not answer as it should.
    fn silent(&mut self, cause: WireError) -> LaunchError {
        self.log.drain(&mut |_| ());
        let words = self.log.lines.back().cloned().unwrap_or_default();
        LaunchError::NoHello { program: self.launcher.program.clone(), words, cause }
    }

    /// Before the job: what a group counts begins where the slot enters it.
    fn enter_group(&mut self, limits: &Limits) {
        let groups = self.launcher.groups.clone();
        self.group = groups.map(|groups| groups.make(self.pid(), limits));
    }

    /// Gives the slot its job and watches it to its end. Blocks until its process
    /// is reaped: call it on a thread of its own.
    ///
    /// `job.inputs` and `job.worker_pid` are filled in here. `engine` is what the
    /// job is pinned to. `stall` is the longest time without *changed* progress:
    /// a heartbeat proves only that one thread of the slot lives.
    pub fn run(
        mut self,
        mut job: SlotJob,
        io: SlotIo,
        engine: &str,
        stall: Duration,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Ended {
        let cpu = job.limits.cpu;
        job.worker_pid = std::process::id();
        job.inputs = io.inputs.iter().map(|(name, _)| *name).collect();
        let mut seen = Seen::default();
        let told = match self.hand_over(job, io, engine) {
            Ok(()) => self.watch(stall, &mut seen, on),
            Err(failure) => {
                self.control.kill(KILLED_WIRE);
                Some(Err(failure))
            }
        };
        let control = self.control.clone();
        let (status, usage) = self.reap();
        self.log.drain(&mut |line| on(Report::Log(line)));
        self.log.finish(&mut |line| on(Report::Log(line)));
        let log: Vec<String> = std::mem::take(&mut self.log.lines).into();
        let outcome = match (control.0.killed.load(Ordering::SeqCst), told) {
            (KILLED_CANCEL, _) => Outcome::Cancelled,
            (_, Some(Ok(result))) => Outcome::Done(result),
            (_, Some(Err(failure))) => Outcome::Failed(failure),
            (why, None) => {
                let exit = Exit { status, why, oom: self.ran_out_of_memory(), cpu };
                Outcome::Failed(classify(&exit, &seen.progress, &log, stall))
            }
        };
        Ended { outcome, usage, boxed: seen.boxed, progress: seen.progress, log }
    }

    fn hand_over(&mut self, job: SlotJob, io: SlotIo, engine: &str) -> Result<(), Failure> {
        let hello = self.greet().map_err(|e| Failure::from(&e))?;
        if hello.engine != engine {
            return Err(Failure::new(
                ErrorClass::Transient,
                ErrorOrigin::Node,
                "engine_mismatch",
                format!("the job is pinned to engine {engine}, the slot is {}", hello.engine),
            ));
        }
        self.enter_group(&job.limits);
        let order = Order::Work {
            job: Box::new(job),
            policy: self.launcher.policy,
            name_refused: self.launcher.name_refused,
        };
        let fds: Vec<BorrowedFd<'_>> = (io.inputs.iter().map(|(_, file)| file.as_fd()))
            .chain([io.cache_stage.as_fd()])
            .chain(io.tee_stage.iter().map(AsFd::as_fd))
            .collect();
        let sent = (self.socket.set_write_timeout(Some(HELLO_PATIENCE)).map_err(WireError::Io))
            .and_then(|()| send(&self.socket, &order))
            .and_then(|()| send_descriptors(&self.socket, &fds))
            .and_then(|()| self.socket.set_nonblocking(true).map_err(WireError::Io));
        match sent {
            // A slot that died while it was fed tells more by its exit.
            Ok(()) | Err(WireError::Closed) => Ok(()),
            Err(e) => Err(Failure::new(
                ErrorClass::Transient,
                ErrorOrigin::Node,
                "slot_spawn",
                format!("handing over the job: {}", with_causes(&e)),
            )),
        }
    }

    /// Reads what comes until the process has ended and all it said is read.
    fn watch(
        &mut self,
        stall: Duration,
        seen: &mut Seen,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Option<Result<TaskResult, Failure>> {
        let control = self.control.clone();
        let process = &control.0.process;
        let mut frames = Frames::default();
        let mut last_change = Instant::now();
        let (mut socket_open, mut log_open) = (true, true);
        loop {
            let left = stall.saturating_sub(last_change.elapsed());
            if left.is_zero() {
                self.control.kill(KILLED_STALL);
            }
            let longest = if process.pidfd().is_some() { Duration::from_millis(900) } else { LOOK };
            let wait = left.clamp(Duration::from_millis(10), longest);
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let ended = {
                let mut fds = Vec::with_capacity(3);
                if socket_open {
                    fds.push(PollFd::new(&self.socket, PollFlags::IN));
                }
                if log_open {
                    fds.push(PollFd::new(&self.log.pipe, PollFlags::IN));
                }
                if let Some(pidfd) = process.pidfd() {
                    fds.push(PollFd::new(pidfd, PollFlags::IN));
                }
                match poll(&mut fds, Some(&timeout)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => process.has_ended(),
                    Err(e) => {
                        // Out of memory in the kernel: the wait below is the way on.
                        tracing::warn!(error = %e, pid = self.pid(), "polling a slot");
                        std::thread::sleep(wait);
                        false
                    }
                }
            };
            log_open = log_open && self.log.drain(&mut |line| on(Report::Log(line)));
            if socket_open {
                socket_open = read_available(&self.socket, &mut frames);
            }
            loop {
                match frames.take::<SlotMessage>() {
                    Ok(None) => break,
                    Ok(Some(SlotMessage::Boxed { mut boxed })) => {
                        if let Some(group) = &self.group {
                            group.tell(&mut boxed);
                        }
                        on(Report::Boxed(&boxed));
                        seen.boxed = Some(boxed);
                    }
                    Ok(Some(SlotMessage::Progress { progress })) => {
                        if progress != seen.progress {
                            last_change = Instant::now();
                        }
                        on(Report::Progress(&progress));
                        seen.progress = progress;
                    }
                    Ok(Some(SlotMessage::Done { result })) => return Some(Ok(result)),
                    Ok(Some(SlotMessage::Failed { failure })) => return Some(Err(failure)),
                    Ok(Some(SlotMessage::Tested { .. })) => {
                        on(Report::Log("trix: it answers a self-test that nobody ordered"));
                        self.control.kill(KILLED_WIRE);
                        socket_open = false;
                        break;
                    }
                    Err(e) => {
                        on(Report::Log(&format!("trix: {}", with_causes(&e))));
                        self.control.kill(KILLED_WIRE);
                        socket_open = false;
                        break;
                    }
                }
            }
            if ended {
                return None;
            }
        }
    }

    /// Waits for the process, which has told its result or ended, and takes its account.
    fn reap(&mut self) -> (i32, Usage) {
        // It exits right after its result. One that does not is not waited for:
        // its result is whole, and nothing behind it is wanted.
        let process = &self.control.0.process;
        process.wait_for_end(Duration::from_secs(2));
        let Some((status, usage)) = process.reap() else { return (0, Usage::default()) };
        let ms = |t: libc::timeval| t.tv_sec as u64 * 1000 + t.tv_usec as u64 / 1000;
        let usage = Usage {
            cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
            wall_ms: self.started.elapsed().as_millis() as u64,
            peak_ram: usage.ru_maxrss as u64 * 1024,
        };
        (status, usage)
    }

    /// Whether a kill was the kernel's for want of memory. A group's own count is exact.
    /// Without one the machine's count may blame it for a kill that came from elsewhere
    /// in the same seconds; that costs a retry with more memory.
    fn ran_out_of_memory(&self) -> bool {
        if let Some(kills) = self.group.as_ref().and_then(Group::oom_kills) {
            return kills > 0;
        }
        oom_kills().zip(self.oom_kills).is_some_and(|(now, before)| now > before)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left to do when it was reaped before.
        self.control.0.process.reap();
    }
}

/// Reads what is there; false at the end.
fn read_available(mut socket: &UnixStream, frames: &mut Frames) -> bool {
    let mut buffer = [0; 16 << 10];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => frames.push(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

/// What a slot said so far.
#[derive(Default)]
struct Seen {
    boxed: Option<Boxed>,
    progress: Progress,
}

/// The pipe that takes stdout and stderr of a slot, cut into lines.
#[derive(Debug)]
struct LogPipe {
    pipe: OwnedFd,
    partial: Vec<u8>,
    lines: VecDeque<String>,
}

impl LogPipe {
    fn new(pipe: OwnedFd) -> LogPipe {
        LogPipe { pipe, partial: Vec::new(), lines: VecDeque::new() }
    }

    /// Reads what is there; false at the end.
    fn drain(&mut self, on: &mut dyn FnMut(&str)) -> bool {
        let mut buffer = [0u8; 4096];
        // Bounded, so that a slot that prints without end cannot hold its
        // watcher here.
        for _ in 0..64 {
            match rustix::io::read(&self.pipe, &mut buffer[..]) {
                Ok(0) => return false,
                Ok(n) => {
                    for &byte in &buffer[..n] {
                        if byte == b'\n' {
                            self.finish(on);
                        } else if self.partial.len() < LOG_LINE_BYTES {
                            self.partial.push(byte);
                        }
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Ends the line.
    fn finish(&mut self, on: &mut dyn FnMut(&str)) {
        let bytes = std::mem::take(&mut self.partial);
        // Names from hostile files end up here: no control character goes on.
        let line: String = String::from_utf8_lossy(&bytes)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        if line.is_empty() {
            return;
        }
        on(&line);
        if self.lines.len() == LOG_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// How a process ended without a result.
struct Exit {
    status: i32,
    why: u8,
    oom: bool,
    /// Its limit of processor time.
    cpu: u64,
}

/// What a process says that aborts for want of memory.
const NO_MEMORY: [&str; 2] = ["memory allocation of", "std::bad_alloc"];

/// What an end without a result means.
fn classify(exit: &Exit, progress: &Progress, log: &[String], stall: Duration) -> Failure {
    let place = if progress.phase.is_empty() {
        "before it told any progress".to_owned()
    } else {
        let frame = match progress.frames {
            0 => String::new(),
            frames => format!(", behind frame {frames}"),
        };
        format!("in phase {} at {} of {}{frame}", progress.phase, progress.done, progress.total)
    };
    let last = &log[log.len().saturating_sub(LAST_WORDS)..];
    let words = match last {
        [] => String::new(),
        lines => format!("; its last words: {}", lines.join(" | ")),
    };
    let failure = |class, origin, code: &str, what: String| {
        Failure::new(class, origin, code, format!("the slot {what} {place}{words}"))
            .about(&progress.phase)
    };
    use ErrorClass::{Crash, Resource};
    use ErrorOrigin::{Engine, Node};
    if exit.why == KILLED_STALL {
        let what = format!("was killed: no progress for {} s,", stall.as_secs_f32());
        return failure(Crash, Engine, "stalled", what);
    }
    if exit.why == KILLED_WIRE {
        return failure(Crash, Engine, "wire", "was killed: it sent nonsense".to_owned());
    }
    if !libc::WIFSIGNALED(exit.status) {
        let code = libc::WEXITSTATUS(exit.status);
        return failure(Crash, Engine, "exited", format!("exited with {code} and no result"));
    }
    let signal = libc::WTERMSIG(exit.status);
    let name = signal_name(signal);
    match signal {
        libc::SIGKILL if exit.oom => {
            let what = "was killed by the kernel for want of memory".to_owned();
            failure(Resource, Node, "out_of_memory", what)
        }
        libc::SIGSYS => {
            let call = log.iter().rev().find_map(|line| line.strip_prefix(REFUSED));
            let what = match call {
                Some(call) => format!("was ended by {name} for the system call {call}"),
                None => format!("was ended by {name}, a system call that is forbidden"),
            };
            failure(Crash, Engine, "forbidden_call", what)
        }
        // The allocators of Rust and of C++ say so before they abort; there is no other
        // trace of it.
        libc::SIGABRT if log.iter().any(|l| NO_MEMORY.iter().any(|words| l.contains(words))) => {
            failure(Resource, Node, "out_of_memory", "had its memory limit reached".to_owned())
        }
        libc::SIGXFSZ => {
            failure(Resource, Node, "output_too_large", "wrote past its file limit".to_owned())
        }
        libc::SIGXCPU => {
            let what = format!("took {} s of processor time without progress,", exit.cpu);
            failure(Crash, Engine, "cpu_limit", what)
        }
        libc::SIGKILL => failure(Crash, Node, "killed", format!("was killed by {name}")),
        _ => failure(Crash, Engine, "crashed", format!("was ended by {name}")),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        other => return format!("signal {other}"),
    };
    format!("signal {signal} ({name})")
}

/// Processes that the kernel killed for want of memory since it started, of the
/// whole machine and its memory groups; `None` where it does not count them.
fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: i32, why: u8, oom: bool, log: &[&str]) -> (ErrorClass, String) {
        let log: Vec<String> = log.iter().map(|l| (*l).to_owned()).collect();
        let progress = Progress { phase: "encode".into(), done: 7, total: 9, frames: 7 };
        let exit = Exit { status, why, oom, cpu: 20 };
        let failure = classify(&exit, &progress, &log, Duration::from_secs(120));
        assert!(failure.message.contains("in phase encode at 7 of 9"), "{}", failure.message);
        (failure.class, failure.code)
    }

    #[test]
    fn every_end_has_its_class() {
        use ErrorClass::{Crash, Resource};
        let is = |class, code: &str| (class, code.to_owned());
        assert_eq!(classified(libc::SIGSEGV, NOT_KILLED, false, &[]), is(Crash, "crashed"));
        assert_eq!(classified(libc::SIGSYS, NOT_KILLED, false, &[]), is(Crash, "forbidden_call"));
        assert_eq!(classified(libc::SIGKILL, NOT_KILLED, false, &[]), is(Crash, "killed"));
        assert_eq!(classified(libc::SIGKILL, NOT_KILLED, true, &[]), is(Resource, "out_of_memory"));
        assert_eq!(classified(libc::SIGKILL, KILLED_STALL, true, &[]), is(Crash, "stalled"));
        assert_eq!(classified(libc::SIGXCPU, NOT_KILLED, false, &[]), is(Crash, "cpu_limit"));
        assert_eq!(classified(0, NOT_KILLED, false, &[]), is(Crash, "exited"));
        assert_eq!(classified(3 << 8, NOT_KILLED, false, &[]), is(Crash, "exited"));
        assert_eq!(classified(libc::SIGABRT, NOT_KILLED, false, &["x"]), is(Crash, "crashed"));
        assert_eq!(
            classified(libc::SIGABRT, NOT_KILLED, false, &["memory allocation of 9 bytes failed"]),
            is(Resource, "out_of_memory")
        );
        let cpp = "terminate called after throwing an instance of 'std::bad_alloc'";
        assert_eq!(
            classified(libc::SIGABRT, NOT_KILLED, false, &[cpp]),
            is(Resource, "out_of_memory")
        );
    }

    #[test]
    fn a_report_names_phase_frame_signal_and_the_last_lines() {
        let log: Vec<String> = (1..=9).map(|n| format!("line {n}")).collect();
        let progress = Progress { phase: "encode".into(), done: 7, total: 9, frames: 7 };
        let exit = Exit { status: libc::SIGSEGV, why: NOT_KILLED, oom: false, cpu: 20 };
        let failure = classify(&exit, &progress, &log, Duration::from_secs(1));
        assert_eq!(
            failure.message,
            "the slot was ended by signal 11 (SIGSEGV) in phase encode at 7 of 9, behind frame 7; \
             its last words: line 7 | line 8 | line 9"
        );
    }

    #[test]
    fn a_forbidden_call_is_named_as_the_slot_named_it() {
        let log = vec![format!("{REFUSED}59 (execve)")];
        let exit = Exit { status: libc::SIGSYS, why: NOT_KILLED, oom: false, cpu: 20 };
        let failure = classify(&exit, &Progress::default(), &log, Duration::from_secs(1));
        assert!(failure.message.contains("for the system call 59 (execve)"), "{failure}");
    }
}
