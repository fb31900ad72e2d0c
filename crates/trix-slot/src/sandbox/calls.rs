//! seccomp: which system calls a slot may make.
//!
//! Three filters, because each can give but two answers, installed in the order of
//! the size of their harm: the allow-list would refuse its own successors.
//!
//! | filter | answer |
//! |---|---|
//! | [`HOSTILE`], and `clone` of anything but a thread | the process ends by SIGSYS, after it has named the call |
//! | `clone3` | ENOSYS: the C library then uses `clone`, whose flags a filter can see |
//! | all that is not on the allow-list | EPERM |
//!
//! A call that ends the process is one that none of our libraries makes by itself. Sockets
//! are not among them: demuxers and desktop libraries try them innocently, and a finding is
//! better than a crash.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Begins the line in which a slot names a call that it was refused.
pub(crate) const REFUSED: &str = "trix: refused the system call ";

/// A system call with its name.
type Call = (&'static str, libc::c_long);

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// What no library of ours calls and an exploit would.
const HOSTILE: &[&[Call]] = &[
    // Another program or another process.
    calls![SYS_execve SYS_execveat SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev
        SYS_pidfd_getfd SYS_kcmp],
    #[cfg(target_arch = "x86_64")]
    calls![SYS_fork SYS_vfork SYS_iopl SYS_ioperm SYS_modify_ldt],
    // Another view of the machine.
    calls![SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_unshare SYS_setns SYS_open_tree
        SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr
        SYS_open_by_handle_at],
    // Large parts of the kernel that exploits like.
    calls![SYS_bpf SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_keyctl
        SYS_add_key SYS_request_key SYS_perf_event_open SYS_userfaultfd],
    // The kernel itself.
    calls![SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load
        SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_settimeofday SYS_clock_settime],
    // Another user.
    calls![SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid
        SYS_setfsuid SYS_setfsgid SYS_setgroups SYS_capset],
];

/// What works on open descriptors, memory, threads and time.
const PLAIN: &[&[Call]] = &[
    calls![SYS_read SYS_write SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_preadv SYS_pwritev
        SYS_lseek SYS_close SYS_dup SYS_fstat SYS_newfstatat SYS_statx SYS_ftruncate SYS_fallocate
        SYS_fadvise64 SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_copy_file_range
        SYS_pipe2 SYS_eventfd2 SYS_ppoll SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait],
    calls![SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_membarrier],
    calls![SYS_futex SYS_set_robust_list SYS_rseq SYS_gettid SYS_exit SYS_exit_group
        SYS_sched_yield SYS_sched_getaffinity SYS_sched_getparam SYS_sched_getscheduler
        SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_getpriority SYS_get_mempolicy],
    calls![SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack SYS_restart_syscall],
    calls![SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday],
    calls![SYS_getpid SYS_getppid SYS_getpgid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
        SYS_getrandom SYS_getrusage SYS_uname SYS_sysinfo SYS_getcwd],
    #[cfg(target_arch = "x86_64")]
    calls![SYS_poll SYS_epoll_wait SYS_getpgrp SYS_getrlimit SYS_time],
];

/// What names files: only where Landlock holds it to the stages.
const PATHS: &[&[Call]] = &[
    calls![SYS_openat SYS_openat2 SYS_mkdirat SYS_unlinkat SYS_renameat2 SYS_getdents64
        SYS_faccessat SYS_faccessat2 SYS_readlinkat],
    #[cfg(target_arch = "x86_64")]
    calls![SYS_open SYS_mkdir SYS_rmdir SYS_unlink SYS_rename SYS_renameat SYS_access
        SYS_readlink SYS_stat SYS_lstat],
];

/// How the filters are to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    /// Landlock holds names of files to the stages; without it they are all refused.
    pub paths: bool,
    /// Every refused call is named on standard error, as hostile ones always are.
    pub name_refused: bool,
}

/// Installs the filters for this thread and all that it starts.
pub(super) fn install(filters: Filters) -> io::Result<()> {
    let pid = std::process::id();
    handle_refusals()?;
    let refusal = if filters.name_refused {
        SeccompAction::Trap
    } else {
        SeccompAction::Errno(libc::EPERM as u32)
    };
    let hostile = program(hostile()?, SeccompAction::Allow, SeccompAction::Trap)?;
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = program(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let allowed = program(allowed(filters.paths, pid)?, refusal, SeccompAction::Allow)?;
    apply(&hostile, libc::SECCOMP_FILTER_FLAG_LOG)?;
    apply(&clone3, 0)?;
    apply(&allowed, 0)
}

/// Calls and under which conditions; none: under every one.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn plain(lists: &[&[Call]]) -> Rules {
    lists.iter().flat_map(|list| list.iter()).map(|(_, number)| (*number, Vec::new())).collect()
}

fn hostile() -> io::Result<Rules> {
    let mut rules = plain(HOSTILE);
    // A process of its own, by the call that also makes threads.
    rules.insert(libc::SYS_clone, vec![when(&[without(0, libc::CLONE_THREAD)])?]);
    Ok(rules)
}

fn allowed(paths: bool, pid: u32) -> io::Result<Rules> {
    let mut rules = plain(PLAIN);
    if paths {
        rules.extend(plain(PATHS));
    }
    let thread = libc::CLONE_THREAD as u64;
    let namespaces = (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u64;
    let any = |argument, values: &[u64]| -> io::Result<Vec<SeccompRule>> {
        values.iter().map(|value| when(&[is(argument, *value)])).collect()
    };
    let only_thread = Condition(0, Narrow, SeccompCmpOp::MaskedEq(thread | namespaces), thread);
    rules.insert(libc::SYS_clone, vec![when(&[only_thread])?]);
    // Answered by the filter before this one: of two refusals the newer filter's is seen.
    rules.insert(libc::SYS_clone3, Vec::new());
    // No new code: what runs was mapped by the loader. None of our codecs makes code at
    // run time, and without this a broken decoder cannot either.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![when(&[without(2, libc::PROT_EXEC)])?]);
    }
    // Every signal but the one that names refused calls.
    let other = Condition(0, Narrow, SeccompCmpOp::Ne, libc::SIGSYS as u64);
    rules.insert(libc::SYS_rt_sigaction, vec![when(&[other])?]);
    // Signals to itself: an abort.
    rules.insert(libc::SYS_tgkill, any(0, &[pid.into()])?);
    rules.insert(
        libc::SYS_prctl,
        any(
            0,
            &[
                libc::PR_SET_NAME as u64,
                libc::PR_GET_NAME as u64,
                libc::PR_GET_DUMPABLE as u64,
                libc::PR_GET_PDEATHSIG as u64,
            ],
        )?,
    );
    rules.insert(
        libc::SYS_fcntl,
        any(
            1,
            &[
                libc::F_GETFD as u64,
                libc::F_SETFD as u64,
                libc::F_GETFL as u64,
                libc::F_DUPFD_CLOEXEC as u64,
            ],
        )?,
    );
    // Reading a limit of itself; a new limit is a pointer that is not null. Only that of the
    // processor moves on with the progress: who has taken a slot over can tell progress too.
    let no_new = Condition(2, Wide, SeccompCmpOp::Eq, 0);
    rules.insert(
        libc::SYS_prlimit64,
        vec![when(&[is(0, 0), no_new])?, when(&[is(0, 0), is(1, libc::RLIMIT_CPU.into())])?],
    );
    Ok(rules)
}

/// Number of the argument, how much of it is compared, how, and with what.
#[derive(Clone)]
struct Condition(u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// Flags and numbers have 32 bits for the kernel too; pointers are compared whole.
use SeccompCmpArgLen::{Dword as Narrow, Qword as Wide};

fn is(argument: u8, value: u64) -> Condition {
    Condition(argument, Narrow, SeccompCmpOp::Eq, value)
}

fn without(argument: u8, flag: libc::c_int) -> Condition {
    Condition(argument, Narrow, SeccompCmpOp::MaskedEq(flag as u64), 0)
}

/// When all of these hold.
fn when(conditions: &[Condition]) -> io::Result<SeccompRule> {
    let conditions = conditions.iter().cloned();
    let conditions: Result<Vec<_>, _> = conditions
        .map(|Condition(n, width, op, value)| SeccompCondition::new(n, width, op, value))
        .collect();
    SeccompRule::new(conditions.map_err(io::Error::other)?).map_err(io::Error::other)
}

fn program(rules: Rules, other: SeccompAction, listed: SeccompAction) -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, other, listed, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

fn apply(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    // `sock_fprog` of linux/filter.h.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the program is a live array of `len` instructions, which the kernel copies
    // and does not write; seccompiler's `sock_filter` has the layout of the kernel's.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Catches SIGSYS, which a filter raises in place of the call.
///
/// The handler is what makes a report possible that names the call; a plain kill tells
/// nothing. It costs little: the call is not made either way, the filter lets nobody
/// install another handler, and no code can be changed.
fn handle_refusals() -> io::Result<()> {
    // SAFETY: all-zero is a valid `sigaction`, and its mask is set up before it is read;
    // the handler has the prototype that SA_SIGINFO asks for.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigemptyset(&mut action.sa_mask);
        action.sa_sigaction = refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `siginfo_t` of a SIGSYS on 64 bits; the libc crate does not show this part.
#[repr(C)]
struct SysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *mut libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

/// Names the call; ends the process for a hostile one, answers EPERM to another.
/// Everything in here may be done inside a signal handler: no lock, no allocation.
extern "C" fn refused(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands over a whole `siginfo_t`, 128 bytes, of which this is the
    // part that a SIGSYS fills.
    let number = libc::c_long::from(unsafe { (*info.cast::<SysInfo>()).call });
    let mut line = Line::default();
    line.push(REFUSED.as_bytes());
    line.push_number(number);
    if let Some(name) = name(number) {
        line.push(b" (");
        line.push(name.as_bytes());
        line.push(b")");
    }
    line.push(b"\n");
    // SAFETY: the buffer is live and as long as said. A line that cannot be written is lost.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
    if is_hostile(number) {
        // SIGSYS is blocked while its handler runs, and one that a filter raises while it
        // is blocked ends the process with the default action: so a hostile call ends it.
        // SAFETY: the call is never made; every one of its arguments would be refused.
        unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) };
        // SAFETY: an integer; not reached where the filters are in force.
        unsafe { libc::_exit(128 + libc::SIGSYS) };
    }
    // SAFETY: for a handler with SA_SIGINFO the third argument is this thread's context,
    // which is restored from there when the handler returns.
    unsafe { answer(&mut *context.cast::<libc::ucontext_t>(), -libc::EPERM) };
}

#[cfg(target_arch = "x86_64")]
fn answer(context: &mut libc::ucontext_t, value: libc::c_int) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = value.into();
}

#[cfg(target_arch = "aarch64")]
fn answer(context: &mut libc::ucontext_t, value: libc::c_int) {
    context.uc_mcontext.regs[0] = value as i64 as u64;
}

fn is_hostile(number: libc::c_long) -> bool {
    number == libc::SYS_clone || HOSTILE.iter().any(|list| list.iter().any(|c| c.1 == number))
}

/// Names of calls that are refused and that a library or an exploit is likely to make.
const REFUSABLE: &[Call] = calls![SYS_clone SYS_clone3 SYS_socket SYS_socketpair SYS_connect
    SYS_bind SYS_listen SYS_accept4 SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_kill
    SYS_tkill SYS_tgkill SYS_ioctl SYS_fcntl SYS_prctl SYS_memfd_create SYS_fchmod SYS_fchmodat
    SYS_fchownat SYS_pidfd_open SYS_pidfd_send_signal SYS_mmap SYS_mprotect SYS_rt_sigaction
    SYS_sched_setaffinity SYS_sched_setscheduler SYS_setpriority SYS_set_mempolicy SYS_mbind
    SYS_mlock SYS_mlockall SYS_prlimit64 SYS_seccomp SYS_openat SYS_linkat SYS_symlinkat
    SYS_mknodat SYS_dup3 SYS_sendfile SYS_splice SYS_setpgid SYS_setsid SYS_personality
    SYS_landlock_create_ruleset SYS_timer_create SYS_timerfd_create SYS_inotify_init1
    SYS_sched_setattr SYS_sched_getattr SYS_set_tid_address SYS_msync SYS_mincore];

fn name(number: libc::c_long) -> Option<&'static str> {
    let lists = HOSTILE.iter().chain(PATHS).copied().chain([REFUSABLE]);
    let (name, _) = lists.flatten().find(|call| call.1 == number)?;
    name.strip_prefix("SYS_")
}

/// A line that is put together without memory of its own.
struct Line {
    bytes: [u8; 96],
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; 96], length: 0 }
    }
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn push_number(&mut self, number: libc::c_long) {
        let mut digits = [0; 20];
        let mut rest = number.unsigned_abs();
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_hostile_and_allowed() {
        let mut both = hostile().unwrap();
        let allowed = allowed(true, 1).unwrap();
        // Threads are allowed, processes are not: the one call on both lists.
        both.remove(&libc::SYS_clone);
        assert!(both.keys().all(|call| !allowed.contains_key(call)));
        assert!(!allowed.contains_key(&libc::SYS_socket));
    }

    #[test]
    fn without_landlock_no_call_that_opens_a_name_is_allowed() {
        let plain = allowed(false, 1).unwrap();
        for (name, number) in PATHS.iter().copied().flatten() {
            assert!(!plain.contains_key(number), "{name}");
        }
        assert!(allowed(true, 1).unwrap().contains_key(&libc::SYS_openat));
    }

    #[test]
    fn a_refused_call_is_named_in_its_line() {
        let mut line = Line::default();
        line.push_number(0);
        line.push(b" ");
        line.push_number(425);
        assert_eq!(&line.bytes[..line.length], b"0 425");
        line.push(&[b'x'; 200]);
        assert_eq!(line.length, line.bytes.len());
        assert_eq!(name(libc::SYS_execve), Some("execve"));
        assert_eq!(name(libc::SYS_socket), Some("socket"));
        assert_eq!(name(9999), None);
    }
}
