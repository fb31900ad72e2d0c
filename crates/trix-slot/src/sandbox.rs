//! The box that a slot closes around itself before it looks at any media.
//!
//! The steps stand in the order of their dependence: a namespace and the
//! out-of-memory score need privileges and files that later steps take away,
//! a change of user clears the parent-death signal, and so on. What a machine
//! refuses is reported, never silently left out.
//!
//! | file | what |
//! |---|---|
//! | `charsets` | converters that are opened while files can still be read |
//! | `files` | Landlock: only files beneath the stages |
//! | `calls` | seccomp: only the system calls that the work needs |

pub(crate) mod calls;
mod charsets;
mod files;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::wire::{Boxed, Limits, Measure, Missing};
use calls::Filters;
use files::Files;

/// Descriptors that a slot may have beside its inputs: three standard ones, two
/// stages, and what it opens in them.
const OWN_FILES: u64 = 64;

/// A step without which no work may begin.
#[derive(Debug, thiserror::Error)]
#[error("closing the slot's box: {step}")]
pub struct BoxError {
    step: &'static str,
    #[source]
    cause: io::Error,
}

/// How the box of one attempt is to be.
pub struct Plan<'a> {
    /// What the slot may take.
    pub limits: &'a Limits,
    /// Who its parent must be.
    pub worker_pid: u32,
    /// Descriptors to keep beside 0, 1 and 2, without the stages.
    pub inputs: Vec<RawFd>,
    /// Directories beneath which files may be made.
    pub stages: Vec<BorrowedFd<'a>>,
    /// The work converts names of character sets.
    pub charsets: bool,
    /// Name every refused system call in the log.
    pub name_refused: bool,
}

/// Closes the box. `last_files` is called where Landlock is missing, before system calls
/// that name files are refused: it opens what the work is to write.
///
/// Must be called while the process has one thread: user, capabilities, namespaces and
/// filters are properties of a thread, and threads started later inherit them.
pub fn close(
    plan: &Plan<'_>,
    last_files: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Boxed, BoxError> {
    let (limits, worker_pid) = (plan.limits, plan.worker_pid);
    let keep: Vec<RawFd> =
        (plan.inputs.iter().copied()).chain(plan.stages.iter().map(AsRawFd::as_raw_fd)).collect();
    let mut boxed = Boxed::default();
    let root = rustix::process::geteuid().is_root();

    // 1. Network. Needs privileges, or a user namespace to have them in.
    boxed.optional(Measure::EmptyNetwork, empty_network(root));

    // 2. Out-of-memory score. Before the change of user: behind it the file in
    //    procfs belongs to root, because the process is no longer dumpable.
    boxed.optional(Measure::OomFirst, std::fs::write("/proc/self/oom_score_adj", "500"));

    // 3. User and capabilities. Before the parent-death signal, which a change
    //    of user silently clears.
    match limits.user.filter(|_| root) {
        Some((uid, gid)) => boxed.optional(Measure::OwnUser, become_user(uid, gid)),
        None if root => boxed.lacks(Measure::OwnUser, "the stage's share keeps its owner"),
        None => boxed.lacks(Measure::OwnUser, "the worker is not root"),
    }
    boxed.optional(Measure::NoCapabilities, drop_capabilities());
    boxed.uid = rustix::process::geteuid().as_raw();

    // 4. Process group. The launcher already asked for it; a slot that was
    //    started another way gets it here.
    boxed.required(Measure::OwnGroup, "leaving the worker's process group", own_group())?;

    // 5. Parent death: first the signal, then the look. The other way round a
    //    worker that dies in between leaves an orphan.
    boxed.required(
        Measure::DiesWithWorker,
        "tying its life to the worker",
        die_with(worker_pid),
    )?;

    // 6. Signals, for they may be inherited as ignored.
    reset_signals().map_err(|cause| BoxError { step: "resetting signals", cause })?;

    // 7. Descriptors.
    boxed.required(Measure::OnlyJobDescriptors, "closing descriptors", close_all_but(&keep))?;

    // 8. Limits.
    boxed.required(Measure::Limits, "setting limits", set_limits(limits, keep.len() as u64))?;

    // 9. No way back.
    let privileges = rustix::thread::set_no_new_privs(true).map_err(io::Error::from);
    boxed.required(Measure::NoNewPrivileges, "giving up new privileges", privileges)?;
    let dumpable =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    boxed.required(Measure::NotDumpable, "forbidding dumps", dumpable.map_err(io::Error::from))?;

    // 10. Character sets: the last files that are read from the machine. Some
    //     milliseconds, so only for work that shows names to people.
    if plan.charsets {
        if charsets::keep_open() {
            boxed.enforced.push(Measure::CharacterSets);
        } else {
            boxed.lacks(Measure::CharacterSets, "the C library's converters are not installed");
        }
    }

    // 11. Files. Needs no privileges, but that nothing above is left to read.
    let landlock = files::restrict(&plan.stages);
    let held = !matches!(landlock, Files::Missing { .. });
    boxed.landlock(landlock);
    if !held {
        last_files().map_err(|cause| BoxError { step: "opening the outputs", cause })?;
    }

    // 12. System calls, last: what stands above needs many that are refused here.
    let filters = Filters { paths: held, name_refused: plan.name_refused };
    boxed.optional(Measure::FewSystemCalls, calls::install(filters));
    Ok(boxed)
}

impl Boxed {
    fn lacks(&mut self, measure: Measure, reason: impl ToString) {
        self.missing.push(Missing { measure, reason: reason.to_string(), errno: None });
    }

    fn landlock(&mut self, files: Files) {
        let measure = Measure::OnlyStageFiles;
        match files {
            Files::Whole { abi } => {
                self.landlock = Some(abi);
                self.enforced.push(measure);
            }
            Files::Partly { abi, lacks } => {
                self.landlock = Some(abi);
                self.partly.push(Missing { measure, reason: lacks, errno: None });
            }
            Files::Missing { reason, errno } => {
                self.missing.push(Missing { measure, reason, errno });
            }
        }
    }

    fn optional(&mut self, measure: Measure, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.enforced.push(measure),
            Err(e) => {
                let errno = e.raw_os_error();
                self.missing.push(Missing { measure, reason: e.to_string(), errno });
            }
        }
    }

    fn required(
        &mut self,
        measure: Measure,
        step: &'static str,
        outcome: io::Result<()>,
    ) -> Result<(), BoxError> {
        outcome.map_err(|cause| BoxError { step, cause })?;
        self.enforced.push(measure);
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_network(root: bool) -> io::Result<()> {
    if root {
        // SAFETY: no pointer is passed; the process has one thread (see `close`).
        return check(unsafe { libc::unshare(libc::CLONE_NEWNET) });
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as above.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    // The user stays what it is, so that owners of files read as before.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: a count of zero makes the kernel ignore the list's pointer.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: plain integers; group first, because a user without privileges
    // could not change it any more.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

fn drop_capabilities() -> io::Result<()> {
    /// `struct __user_cap_header_struct` and two `struct __user_cap_data_struct` of linux/capability.h.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    // The bounding set needs CAP_SETPCAP; without it there is nothing to drop
    // it with, and no exec to gain anything by.
    for capability in 0..64 {
        // SAFETY: plain integers; an unknown capability is EINVAL.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    // SAFETY: plain integers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [[0u32; 3]; 2];
    // SAFETY: both pointers are to live values of the layout that version 3 has:
    // a header, and two times (effective, permitted, inheritable).
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    check(result as libc::c_int)
}

fn own_group() -> io::Result<()> {
    if rustix::process::getpgrp() == rustix::process::getpid() {
        return Ok(());
    }
    Ok(rustix::process::setpgid(None, None)?)
}

fn die_with(worker_pid: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent as u32 != worker_pid {
        return Err(io::Error::other(format!(
            "the parent is process {parent}, not the worker {worker_pid}"
        )));
    }
    Ok(())
}

fn reset_signals() -> io::Result<()> {
    for signal in 1..libc::SIGRTMIN() {
        let action = match signal {
            libc::SIGKILL | libc::SIGSTOP => continue,
            // A broken pipe and a file above its limit are errors of a write.
            libc::SIGPIPE | libc::SIGXFSZ => libc::SIG_IGN,
            // Rust's handlers print "stack overflow" before they die of it.
            libc::SIGSEGV | libc::SIGBUS => continue,
            _ => libc::SIG_DFL,
        };
        // SAFETY: no handler function is installed, only the two standard actions.
        // The two numbers behind SIGSYS belong to the C library, which refuses them.
        if unsafe { libc::signal(signal, action) } == libc::SIG_ERR && signal <= libc::SIGSYS {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()))
    }
}

fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first as u32, fd as u32 - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first as u32, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the descriptors in the range are owned by nothing in this process:
    // the job's are excluded by the caller, and the slot opens none before.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    for fd in first..=last.min(open.unwrap_or(1 << 20).min(1 << 20) as u32) {
        // SAFETY: as above; a number without a file is EBADF and no harm.
        unsafe { libc::close(fd as RawFd) };
    }
    Ok(())
}

fn set_limits(limits: &Limits, inputs: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = [
        (Resource::Core, 0),
        // Twice, because a task may open each input once more through its descriptor.
        (Resource::Nofile, OWN_FILES + 2 * inputs),
        (Resource::Fsize, limits.file_size),
        (Resource::Memlock, 0),
        (Resource::Data, limits.data),
    ];
    for (resource, value) in wanted {
        // A limit that is already lower stays: a hard limit never rises here.
        let value = getrlimit(resource).maximum.map_or(value, |hard| hard.min(value));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    allow_cpu(limits.cpu)
}

/// Lets this process take so many seconds of processor time from now on, and up to one more
/// because the limit counts whole ones; SIGXCPU ends it behind them. The hard limit stays where
/// it is: it could never be moved on.
pub(crate) fn allow_cpu(seconds: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    let soft = u64::try_from(used).unwrap_or(0).saturating_add(1).saturating_add(seconds);
    let hard = getrlimit(Resource::Cpu).maximum;
    let current = Some(hard.map_or(soft, |hard| hard.min(soft)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum: hard })?)
}
