//! A child process that is ours to kill and to reap, with a pidfd or without.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

/// How often a child is looked at where the kernel gives no pidfd.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Without a pidfd (a kernel or a container that refuses the call) the number is all
/// there is. It is the child's until it is reaped, so killing and reaping exclude each
/// other, and nobody else in this process reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    reaped: Mutex<bool>,
}

impl Process {
    /// Takes over a child that nobody else will wait for.
    pub(crate) fn of(pid: Pid) -> Process {
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        if let Err(error) = &pidfd {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| {
                tracing::warn!(%error, "no pidfd; slots are watched by their number");
            });
        }
        Process { pid, pidfd: pidfd.ok(), reaped: Mutex::new(false) }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Becomes readable when the child ends.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Kills it, unless it is gone already.
    pub(crate) fn kill(&self) {
        // The one error is "no such process": it has just ended by itself.
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            return;
        }
        let reaped = self.reaped.lock().unwrap_or_else(|e| e.into_inner());
        if !*reaped {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// True when it has ended; it is not reaped by this.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that there is no such child any more.
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Waits for its end, no longer than `patience`.
    pub(crate) fn wait_for_end(&self, patience: Duration) {
        if let Some(pidfd) = &self.pidfd {
            let timeout = Timespec {
                tv_sec: patience.as_secs() as i64,
                tv_nsec: patience.subsec_nanos().into(),
            };
            let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout));
            return;
        }
        let until = Instant::now() + patience;
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }

    /// Kills what is left of it and of its process group, waits, and takes its account.
    /// `None` when it was reaped before.
    pub(crate) fn reap(&self) -> Option<(i32, libc::rusage)> {
        // Behind it the number may be anybody's. There is one reaper, the slot's owner.
        if *self.reaped.lock().unwrap_or_else(|e| e.into_inner()) {
            return None;
        }
        self.kill();
        // The group's number is its own: the process is not reaped yet.
        let _ = kill_process_group(self.pid, Signal::KILL);
        // Waits without reaping, so that the lock below is never held for long.
        let left = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(self.pid), left), Err(rustix::io::Errno::INTR)) {}
        let mut reaped = self.reaped.lock().unwrap_or_else(|e| e.into_inner());
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        let pid = self.pid.as_raw_nonzero().get();
        loop {
            // SAFETY: both pointers are to live values of the right type; the pid is
            // our child and not reaped, which the flag behind the lock says.
            let got = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
            if got == pid {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                tracing::error!(%error, pid, "waiting for a slot");
                break;
            }
        }
        *reaped = true;
        // SAFETY: all-zero is a valid `rusage`, and the kernel has filled it.
        Some((status, unsafe { usage.assume_init() }))
    }
}
