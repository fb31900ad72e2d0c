//! The slot's main: hello, job, box, work, result, exit.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use trix_model::{ErrorClass, ErrorOrigin, Failure, Progress, with_causes};
use trix_plan::task::{Output, TaskResult, TaskSpec};

use crate::sandbox::{self, BoxError, Plan};
use crate::wire::{
    self, Boxed, Hello, InputName, KnownAnswer, Limits, Order, Policy, SlotJob, SlotMessage,
    WIRE_VERSION, WireError, receive, receive_descriptors,
};

/// How often a slot says how far it is.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What a slot got open. **A slot opens nothing by path**, but files beneath its stages.
#[derive(Debug)]
pub struct OpenedIo {
    /// Inputs by name, read-only.
    pub inputs: BTreeMap<InputName, File>,
    /// Directory of this attempt on the cache share; outputs go there under
    /// [`wire::stage_name`].
    pub cache_stage: OwnedFd,
    /// Directory of this attempt on the archive share, when the task tees its
    /// source; the file in it is [`wire::TEE_NAME`].
    pub tee_stage: Option<OwnedFd>,
    /// Files that were made before the box, by name, where no name can be opened in it;
    /// each is given out once.
    ready: Option<Mutex<BTreeMap<String, File>>>,
}

impl OpenedIo {
    /// A new file for an output, readable and writable, in the cache stage.
    pub fn create_output(&self, output: &Output) -> io::Result<File> {
        self.create(&self.cache_stage, &wire::stage_name(output))
    }

    /// The tee's file, new, readable and writable; `None` when no tee is wanted.
    pub fn create_tee(&self) -> Option<io::Result<File>> {
        self.tee_stage.as_ref().map(|stage| self.create(stage, wire::TEE_NAME))
    }

    fn create(&self, stage: &OwnedFd, name: &str) -> io::Result<File> {
        match &self.ready {
            None => create(stage, name),
            Some(ready) => (ready.lock().unwrap_or_else(|e| e.into_inner()).remove(name))
                .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists)),
        }
    }
}

fn create(stage: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(stage, name, flags, Mode::from_raw_mode(0o644))?.into())
}

/// Runs one attempt and says its result; the process ends behind it.
///
/// `engine` is the engine id whose bytes `runner` makes. `runner` gets the job,
/// what is open, and a function that takes its progress, from any thread and as
/// often as it likes. A panic in it becomes a failure of class crash. `answer` is the
/// known-answer self-test, for a slot that gets no job.
///
/// Stdin must be the worker's socket: started by hand it says so and gives 2.
pub fn slot_main<R, A>(engine: &str, runner: R, answer: A) -> ExitCode
where
    R: FnOnce(SlotJob, OpenedIo, &(dyn Fn(Progress) + Sync)) -> Result<TaskResult, Failure>,
    A: FnOnce() -> Result<KnownAnswer, Failure>,
{
    match serve(engine, runner, answer) {
        // No destructor runs: a codec that hangs or crashes in its own clean-up
        // would spoil an attempt whose result is already told.
        Ok(()) => exit_now(0),
        Err(WireError::Closed) => exit_now(3),
        Err(e) => {
            eprintln!(
                "trix-media slot: {}\nThis command is started by a worker and talks to it on stdin.",
                with_causes(&e)
            );
            ExitCode::from(2)
        }
    }
}

fn serve<R, A>(engine: &str, runner: R, answer: A) -> Result<(), WireError>
where
    R: FnOnce(SlotJob, OpenedIo, &(dyn Fn(Progress) + Sync)) -> Result<TaskResult, Failure>,
    A: FnOnce() -> Result<KnownAnswer, Failure>,
{
    let socket = stdin_socket()?;
    let trix = env!("CARGO_PKG_VERSION").to_owned();
    wire::send(&socket, &Hello { trix, wire: WIRE_VERSION, engine: engine.to_owned() })?;
    let (job, policy, name_refused) = match receive(&socket)? {
        Order::Trial { limits, worker_pid } => {
            return close_around_nothing(&mut line_of(socket), &limits, worker_pid).map(drop);
        }
        Order::SelfTest { limits, worker_pid } => {
            let mut line = line_of(socket);
            if !close_around_nothing(&mut line, &limits, worker_pid)? {
                return Ok(());
            }
            let given = catch_unwind(AssertUnwindSafe(answer));
            return wire::send(
                &mut line,
                &match given.unwrap_or_else(|panic| Err(panicked(&*panic))) {
                    Ok(answer) => SlotMessage::Tested { answer },
                    Err(failure) => SlotMessage::Failed { failure },
                },
            );
        }
        Order::Work { job, policy, name_refused } => (*job, policy, name_refused),
    };
    let wanted = job.inputs.len() + 1 + usize::from(job.tee.is_some());
    let mut fds = receive_descriptors(&socket, wanted)?;
    let mut line = line_of(socket);
    let mut stages = fds.split_off(job.inputs.len()).into_iter();
    let mut io = OpenedIo {
        inputs: job.inputs.iter().copied().zip(fds.into_iter().map(File::from)).collect(),
        cache_stage: stages.next().ok_or(WireError::Descriptors { wanted, got: wanted - 1 })?,
        tee_stage: stages.next(),
        ready: None,
    };

    let plan = Plan {
        limits: &job.limits,
        worker_pid: job.worker_pid,
        inputs: io.inputs.values().map(AsRawFd::as_raw_fd).collect(),
        stages: [io.cache_stage.as_fd()]
            .into_iter()
            .chain(io.tee_stage.iter().map(AsFd::as_fd))
            .collect(),
        charsets: matches!(job.spec, TaskSpec::Intake(_)),
        name_refused,
    };
    let mut ready = None;
    let mut last_files = || {
        let mut files = BTreeMap::new();
        for output in &job.outputs {
            let name = wire::stage_name(output);
            files.insert(name.clone(), create(&io.cache_stage, &name)?);
        }
        if let Some(stage) = &io.tee_stage {
            files.insert(wire::TEE_NAME.to_owned(), create(stage, wire::TEE_NAME)?);
        }
        ready = Some(Mutex::new(files));
        Ok(())
    };
    let closed = sandbox::close(&plan, &mut last_files);
    if !say_closed(&mut line, closed, policy)? {
        return Ok(());
    }
    io.ready = ready;

    let cpu = job.limits.cpu;
    let said = Arc::new(Teller { line: Mutex::new(line), latest: Mutex::default() });
    let beat = said.clone();
    std::thread::Builder::new()
        .name("heartbeat".into())
        .stack_size(128 << 10)
        .spawn(move || beat.beat(cpu))
        .map_err(WireError::Io)?;

    let report = |progress: Progress| {
        let new_phase = {
            let mut latest = said.latest();
            let new_phase = latest.phase != progress.phase;
            *latest = progress;
            new_phase
        };
        // At once, so that the report of a crash names the phase that it came in. A worker
        // that does not listen any more is noticed by the heartbeat.
        if new_phase {
            let _ = said.progress();
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| runner(job, io, &report)))
        .unwrap_or_else(|panic| Err(panicked(&*panic)));
    // The last word on progress comes before the result, so that the numbers
    // of a finished attempt are whole.
    said.progress()?;
    said.tell(&match outcome {
        Ok(result) => SlotMessage::Done { result },
        Err(failure) => SlotMessage::Failed { failure },
    })
}

/// The socket as what is only written to: with plain writes, because in the box the
/// calls of sockets are refused.
fn line_of(socket: UnixStream) -> File {
    File::from(OwnedFd::from(socket))
}

/// Closes the box around no file at all, and says what came of it.
fn close_around_nothing(
    line: &mut File,
    limits: &Limits,
    worker_pid: u32,
) -> Result<bool, WireError> {
    let plan = Plan {
        limits,
        worker_pid,
        inputs: Vec::new(),
        stages: Vec::new(),
        charsets: true,
        name_refused: false,
    };
    let closed = sandbox::close(&plan, &mut || Ok(()));
    say_closed(line, closed, Policy::BestEffort)
}

/// Says how the box came out; true when work may begin.
fn say_closed(
    line: &mut File,
    closed: Result<Boxed, BoxError>,
    policy: Policy,
) -> Result<bool, WireError> {
    let refuse = |line: &mut File, code: &str, message: String| {
        let failure = Failure::new(ErrorClass::Transient, ErrorOrigin::Node, code, message);
        wire::send(line, &SlotMessage::Failed { failure }).map(|()| false)
    };
    let boxed = match closed {
        Ok(boxed) => boxed,
        Err(e) => return refuse(line, "sandbox", with_causes(&e)),
    };
    let objection = policy.objection(&boxed);
    wire::send(&mut *line, &SlotMessage::Boxed { boxed })?;
    match objection {
        Some(objection) => refuse(line, "sandbox_weak", objection),
        None => Ok(true),
    }
}

/// The socket, and the newest progress. Two locks, so that work never waits for
/// a worker that reads slowly.
struct Teller {
    line: Mutex<File>,
    latest: Mutex<Progress>,
}

impl Teller {
    fn latest(&self) -> std::sync::MutexGuard<'_, Progress> {
        // A poisoned lock only means that a thread died while it held plain numbers.
        self.latest.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn tell(&self, message: &SlotMessage) -> Result<(), WireError> {
        // One writer at a time: a message must not be cut by another.
        let mut line = self.line.lock().unwrap_or_else(|e| e.into_inner());
        wire::send(&mut *line, message)
    }

    fn progress(&self) -> Result<(), WireError> {
        let progress = self.latest().clone();
        self.tell(&SlotMessage::Progress { progress })
    }

    /// Tells the progress again and again, and moves the limit of processor time on whenever it
    /// has changed.
    fn beat(&self, cpu: u64) {
        let mut seen = Progress::default();
        loop {
            std::thread::sleep(HEARTBEAT);
            let latest = self.latest().clone();
            if latest != seen {
                seen = latest;
                // Without it the attempt ends before its time, and this line tells why.
                if let Err(e) = sandbox::allow_cpu(cpu) {
                    eprintln!("trix: moving the limit of processor time on: {e}");
                }
            }
            if self.progress().is_err() {
                // Nobody listens any more: the worker is gone.
                exit_now(3);
            }
        }
    }
}

fn stdin_socket() -> Result<UnixStream, WireError> {
    let stdin = std::io::stdin();
    let kind = rustix::net::sockopt::socket_type(stdin.as_fd()).map_err(io::Error::from)?;
    if kind != rustix::net::SocketType::STREAM {
        return Err(WireError::Io(io::Error::other("stdin is no stream socket")));
    }
    // SAFETY: descriptor 0 is open (the call above succeeded), it is this
    // process's from exec on, and nothing else here reads stdin.
    Ok(unsafe { UnixStream::from_raw_fd(0) })
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned());
    Failure::new(
        ErrorClass::Crash,
        ErrorOrigin::Bug,
        "panic",
        format!("the task panicked: {words}"),
    )
}

fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
