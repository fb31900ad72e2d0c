//! A slot whose work is to break out: the task's name says by what. It reports the
//! errno of the attempt, or what it came to.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::ptr::null;

use libc::{c_long, syscall};
use serde_json::json;
use trix_model::{Failure, Progress};
use trix_plan::task::TaskResult;
use trix_slot::{KnownAnswer, OpenedIo, SlotJob, slot_main};

fn main() -> ExitCode {
    slot_main("toy", work, answer)
}

fn answer() -> Result<KnownAnswer, Failure> {
    Err(Failure::bug("it has no answer"))
}

fn work(
    job: SlotJob,
    io: OpenedIo,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    progress(Progress { phase: "break out".into(), ..Progress::default() });
    let attempt = attempts()
        .remove(job.task.as_str())
        .ok_or_else(|| Failure::bug(format!("there is no attempt {}", job.task)))?;
    let source = io.inputs.values().next().map_or(-1, AsRawFd::as_raw_fd);
    let came = attempt(source, io.cache_stage.as_raw_fd());
    let detail = match came {
        -1 => json!({ "errno": std::io::Error::last_os_error().raw_os_error() }),
        value => json!({ "came": value }),
    };
    Ok(TaskResult { outputs: Vec::new(), detail: Some(detail) })
}

/// Gets the source's descriptor and the stage's; gives -1 with errno, or more.
type Attempt = fn(RawFd, RawFd) -> c_long;

const NOTHING: *const u8 = null();

/// SAFETY of all of them: a call that were made after all would harm nobody but this
/// process and its test; pointers are null or to constants that live for ever.
fn attempts() -> BTreeMap<&'static str, Attempt> {
    fn open(at: RawFd, path: &CStr, flags: libc::c_int) -> c_long {
        // SAFETY: as above.
        unsafe { libc::openat(at, path.as_ptr(), flags, 0o644).into() }
    }
    fn socket(family: libc::c_int, kind: libc::c_int) -> c_long {
        // SAFETY: as above.
        unsafe { libc::socket(family, kind, 0).into() }
    }
    macro_rules! call {
        ($number:expr $(, $argument:expr)*) => {
            // SAFETY: as above.
            |_, _| unsafe { syscall($number $(, $argument)*) }
        };
    }
    const NEW: libc::c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL;
    let list: Vec<(&str, Attempt)> = vec![
        ("read a file", |_, _| open(libc::AT_FDCWD, c"/etc/passwd", libc::O_RDONLY)),
        ("list a folder", |_, _| open(libc::AT_FDCWD, c"/", libc::O_DIRECTORY)),
        ("look at itself", |_, _| open(libc::AT_FDCWD, c"/proc/self/maps", libc::O_RDONLY)),
        ("create a file", |_, _| open(libc::AT_FDCWD, c"/tmp/trix-broke-out", NEW)),
        ("write beside the stage", |_, stage| open(stage, c"../trix-broke-out", NEW)),
        // SAFETY: as above.
        ("write the source", |source, _| unsafe {
            libc::write(source, NOTHING.cast(), 0) as c_long
        }),
        ("open the source for writing", |source, _| {
            let path =
                std::ffi::CString::new(format!("/proc/self/fd/{source}")).unwrap_or_default();
            open(libc::AT_FDCWD, &path, libc::O_RDWR)
        }),
        // SAFETY: as above.
        ("cut the source", |source, _| unsafe { libc::ftruncate(source, 0).into() }),
        ("link out of the stage", |_, stage| {
            // SAFETY: as above.
            unsafe { libc::linkat(stage, c"a".as_ptr(), stage, c"b".as_ptr(), 0).into() }
        }),
        ("plant a symlink", |_, stage| {
            // SAFETY: as above.
            unsafe { libc::symlinkat(c"/etc".as_ptr(), stage, c"etc".as_ptr()).into() }
        }),
        // SAFETY: as above.
        ("chmod", |_, stage| unsafe { libc::fchmod(stage, 0o777).into() }),
        ("tcp", |_, _| socket(libc::AF_INET, libc::SOCK_STREAM)),
        ("udp", |_, _| socket(libc::AF_INET6, libc::SOCK_DGRAM)),
        ("unix socket", |_, _| socket(libc::AF_UNIX, libc::SOCK_STREAM)),
        ("netlink", |_, _| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
        ("execve", call!(libc::SYS_execve, c"/bin/true".as_ptr(), NOTHING, NOTHING)),
        (
            "execveat",
            call!(libc::SYS_execveat, 0, c"".as_ptr(), NOTHING, NOTHING, libc::AT_EMPTY_PATH),
        ),
        // SAFETY: as above; a child would end at once.
        ("fork", |_, _| unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(0);
            }
            pid.into()
        }),
        ("clone3 a process", call!(libc::SYS_clone3, NOTHING, 0)),
        (
            "clone into a namespace",
            call!(
                libc::SYS_clone,
                libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_NEWNET,
                NOTHING,
                NOTHING,
                NOTHING,
                0
            ),
        ),
        ("ptrace", call!(libc::SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), 0, 0)),
        (
            "process_vm_readv",
            call!(libc::SYS_process_vm_readv, libc::getppid(), NOTHING, 0, NOTHING, 0, 0),
        ),
        (
            "process_vm_writev",
            call!(libc::SYS_process_vm_writev, libc::getppid(), NOTHING, 0, NOTHING, 0, 0),
        ),
        // SAFETY: as above.
        ("kill the worker", |_, _| unsafe { libc::kill(libc::getppid(), libc::SIGTERM).into() }),
        // SAFETY: as above; signal 0 only asks.
        ("kill process 1", |_, _| unsafe { libc::kill(1, 0).into() }),
        (
            "signal the worker's thread",
            call!(libc::SYS_tgkill, libc::getppid(), libc::getppid(), 0),
        ),
        ("pidfd_open", call!(libc::SYS_pidfd_open, libc::getppid(), 0)),
        (
            "mount",
            call!(
                libc::SYS_mount,
                c"none".as_ptr(),
                c"/tmp".as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                NOTHING
            ),
        ),
        ("unshare", call!(libc::SYS_unshare, libc::CLONE_NEWUSER)),
        ("setns", call!(libc::SYS_setns, 0, 0)),
        ("chroot", call!(libc::SYS_chroot, c"/tmp".as_ptr())),
        ("bpf", call!(libc::SYS_bpf, 0, NOTHING, 0)),
        ("io_uring_setup", call!(libc::SYS_io_uring_setup, 8, NOTHING)),
        ("keyctl", call!(libc::SYS_keyctl, 0, 0)),
        ("add_key", call!(libc::SYS_add_key, NOTHING, NOTHING, NOTHING, 0, 0)),
        ("userfaultfd", call!(libc::SYS_userfaultfd, 0)),
        ("perf_event_open", call!(libc::SYS_perf_event_open, NOTHING, 0, -1, -1, 0)),
        ("init_module", call!(libc::SYS_init_module, NOTHING, 0, NOTHING)),
        ("kexec_load", call!(libc::SYS_kexec_load, 0, 0, NOTHING, 0)),
        ("open_by_handle_at", call!(libc::SYS_open_by_handle_at, 0, NOTHING, 0)),
        ("setuid", call!(libc::SYS_setuid, 0)),
        ("capset", call!(libc::SYS_capset, NOTHING, NOTHING)),
        ("memfd_create", call!(libc::SYS_memfd_create, c"x".as_ptr(), 0)),
        (
            "map code",
            call!(
                libc::SYS_mmap,
                NOTHING,
                4096,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0
            ),
        ),
        (
            "make memory code",
            call!(libc::SYS_mprotect, NOTHING, 4096, libc::PROT_READ | libc::PROT_EXEC),
        ),
        ("handle SIGSYS", call!(libc::SYS_rt_sigaction, libc::SIGSYS, NOTHING, NOTHING, 8)),
        ("another filter", call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, NOTHING)),
        ("be dumpable", call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)),
        ("outlive the worker", call!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0)),
        ("raise a limit", |_, _| {
            let limit = libc::rlimit { rlim_cur: 1 << 40, rlim_max: 1 << 40 };
            // SAFETY: as above.
            unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit).into() }
        }),
        // SAFETY: as above.
        ("leave the group", |_, _| unsafe { libc::setsid().into() }),
        ("type into a terminal", call!(libc::SYS_ioctl, 1, libc::TIOCSTI, c"x".as_ptr())),
    ];
    list.into_iter().collect()
}
