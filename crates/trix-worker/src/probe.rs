//! The probe child: a process that looks at one share, and may hang as long as that does.
//!
//! A call into a dead share can hold a thread for ever, beyond any signal; a process with
//! such a thread cannot even end. So the worker never touches a root by its path. The child
//! does, and hands the descriptor of a root that it found good to the worker: a dead mount's
//! path is an empty local folder, and writes by path would fill the node's own disk.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use trix_model::ShareName;
use trix_slot::wire::{self, WireError};
use trix_storage::{Capabilities, Expect, MoveMethod, Share, ShareRole, ShareState, WritableShare};
use uuid::Uuid;

use crate::shares::Handle;

/// A look that was not answered within its deadline is waited for so many times more
/// before the share counts as hung.
const PATIENCE: u32 = 2;
/// After a kill, so long until the process is gone; one in a dead share never is.
const REAPING: Duration = Duration::from_millis(200);

/// Starts probe children.
#[derive(Clone, Debug)]
pub struct Prober {
    program: PathBuf,
    args: Vec<String>,
}

impl Prober {
    /// Starts `program args…`, which must do nothing but [`probe_main`].
    pub fn new(program: PathBuf, args: &[&str]) -> Prober {
        Prober { program, args: args.iter().map(|&a| a.to_owned()).collect() }
    }

    /// Starts this very program with `args`, even if its file was replaced meanwhile.
    pub fn this_program(args: &[&str]) -> Prober {
        Prober::new("/proc/self/exe".into(), args)
    }

    pub(crate) fn start(&self) -> std::io::Result<ProbeChild> {
        let (ours, theirs) = UnixStream::pair()?;
        // Its standard error is ours: what it says there concerns whoever reads our log.
        let child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(ProbeChild { child, line: ours })
    }
}

/// One look at a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    pub name: ShareName,
    pub root: PathBuf,
    pub role: ShareRole,
    /// The marker that it must have. `None`: a writable share tells its own, or gets one.
    pub marker: Option<Uuid>,
    pub min_free: u64,
    /// Opens the root anew: the asker has no handle any more.
    pub open: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "share", rename_all = "snake_case")]
enum Seen {
    /// Usable. If it was opened by this look, its descriptor follows.
    Usable {
        opened: bool,
        marker: Option<Uuid>,
        /// How files get their names; `None` for a source.
        moves: Option<MoveMethod>,
    },
    Unusable {
        reason: String,
    },
}

/// A share as a look found it.
#[derive(Debug)]
pub(crate) struct Found {
    /// The descriptor of its root, if it was opened by this look.
    pub root: Option<OwnedFd>,
    pub marker: Option<Uuid>,
    pub moves: Option<MoveMethod>,
}

/// The worker's side of a child. Dropped, the child is killed.
#[derive(Debug)]
pub(crate) struct ProbeChild {
    child: Child,
    line: UnixStream,
}

/// Why a look found no usable share.
#[derive(Debug)]
pub(crate) enum NoShare {
    /// The child says why.
    Unusable(String),
    /// The child does not answer, or is gone: it is of no use any more.
    Silent(String),
}

impl ProbeChild {
    /// Has it look, and waits for the answer: `deadline`, and twice more.
    pub fn look(&mut self, look: &Look, deadline: Duration) -> Result<Found, NoShare> {
        let lost = |e: WireError| NoShare::Silent(format!("its probe ended: {e}"));
        wire::send(&self.line, look).map_err(lost)?;
        if !self.await_answer(deadline, &look.name)? {
            let waited = deadline * (1 + PATIENCE);
            return Err(NoShare::Silent(format!(
                "it does not answer: a probe has hung for {:.1} s",
                waited.as_secs_f32()
            )));
        }
        match wire::receive(&self.line).map_err(lost)? {
            Seen::Unusable { reason } => Err(NoShare::Unusable(reason)),
            Seen::Usable { opened, marker, moves } => {
                let wanted = usize::from(opened);
                let mut fds = wire::receive_descriptors(&self.line, wanted).map_err(lost)?;
                Ok(Found { root: fds.pop(), marker, moves })
            }
        }
    }

    /// False when nothing came in all the time that there is.
    fn await_answer(&self, deadline: Duration, name: &ShareName) -> Result<bool, NoShare> {
        let lost = |e: rustix::io::Errno| NoShare::Silent(format!("waiting for its probe: {e}"));
        let wait = Timespec::try_from(deadline)
            .map_err(|_| NoShare::Silent("the probe's deadline is too long".to_owned()))?;
        for missed in 0..=PATIENCE {
            let mut fds = [PollFd::new(&self.line, PollFlags::IN)];
            if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&wait))).map_err(lost)? > 0 {
                return Ok(true);
            }
            tracing::warn!(share = %name, missed = missed + 1, "a probe misses its deadline");
        }
        Ok(false)
    }

    /// Kills it. Gives the process back that does not end: it hangs in the kernel, and is
    /// reaped when the share lets go of it.
    pub fn end(mut self) -> Option<Child> {
        if let Err(e) = self.child.kill() {
            tracing::warn!(pid = self.child.id(), error = %e, "killing a probe");
        }
        std::thread::sleep(REAPING);
        match self.child.try_wait() {
            Ok(Some(_)) => None,
            Ok(None) => Some(self.child),
            Err(e) => {
                tracing::warn!(pid = self.child.id(), error = %e, "reaping a probe");
                None
            }
        }
    }
}

/// The child's main: answers looks on standard input, which is a socket, until that closes.
pub fn probe_main() -> ExitCode {
    let served = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(WireError::from)
        .and_then(|line| serve(&UnixStream::from(line)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("trix: the probe of a share: {}", trix_model::with_causes(&e));
            ExitCode::FAILURE
        }
    }
}

fn serve(line: &UnixStream) -> Result<(), WireError> {
    let mut kept = None;
    loop {
        let look: Look = match wire::receive(line) {
            Ok(look) => look,
            Err(WireError::Closed) => return Ok(()),
            Err(e) => return Err(e),
        };
        if look.open {
            kept = None;
        }
        let opened = kept.is_none();
        // A share that is not usable any more is let go of: its mount may be another one soon.
        match look.at(kept.take()) {
            Ok((handle, marker)) => {
                let moves = handle.moves();
                wire::send(line, &Seen::Usable { opened, marker, moves })?;
                if opened {
                    wire::send_descriptors(line, &[handle.root()])?;
                }
                kept = Some(handle);
            }
            Err(reason) => wire::send(line, &Seen::Unusable { reason })?,
        }
    }
}

impl Look {
    /// Looks at the share by the handle `kept` of an earlier look, or opens it.
    fn at(&self, kept: Option<Handle>) -> Result<(Handle, Option<Uuid>), String> {
        let told = |e: trix_storage::StorageError| e.with_causes();
        let expect = |marker| Expect { marker, mount: None, min_free: self.min_free };
        let (handle, probe, marker) = match (kept, self.role) {
            (Some(Handle::Write(share, moves)), _) => {
                let marker = self.marker_of(&share)?;
                let probe = share.probe(&expect(Some(marker)));
                (Handle::Write(share, moves), probe, Some(marker))
            }
            (Some(Handle::Read(share)), _) => {
                let probe = share.probe(&expect(self.marker));
                (Handle::Read(share), probe, self.marker)
            }
            (None, ShareRole::Source) => {
                let share = Share::open(self.name.clone(), &self.root).map_err(told)?;
                let probe = share.probe(&expect(self.marker));
                (Handle::Read(share), probe, self.marker)
            }
            (None, _) => {
                let share = WritableShare::open(self.name.clone(), &self.root).map_err(told)?;
                // Before anything is written, even by the trial below: is it the right folder?
                let marker = self.marker_of(&share)?;
                let moves = Capabilities::probe(&share).map_err(told)?.move_method;
                let probe = share.probe(&expect(Some(marker)));
                (Handle::Write(share, moves), probe, Some(marker))
            }
        };
        match probe.state {
            ShareState::Ok | ShareState::Slow => Ok((handle, marker)),
            _ => Err(probe.reason),
        }
    }

    /// The marker that a writable share has, which is the one that it must have.
    fn marker_of(&self, share: &WritableShare) -> Result<Uuid, String> {
        match self.marker {
            Some(marker) => share.verify_marker(marker).map(|()| marker),
            None => share.ensure_marker(),
        }
        .map_err(|e| e.with_causes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn look(root: &std::path::Path, role: ShareRole) -> Look {
        let name = "share".parse().unwrap();
        Look { name, root: root.to_owned(), role, marker: None, min_free: 0, open: false }
    }

    /// Asks a child that is a thread here.
    fn ask(line: &UnixStream, look: &Look) -> (Seen, Vec<OwnedFd>) {
        wire::send(line, look).unwrap();
        let seen: Seen = wire::receive(line).unwrap();
        let wanted = usize::from(matches!(seen, Seen::Usable { opened: true, .. }));
        (seen, wire::receive_descriptors(line, wanted).unwrap())
    }

    #[test]
    fn a_root_is_handed_over_once_and_anew_when_it_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let child = std::thread::spawn(move || serve(&there));
        let mut look = look(&root, ShareRole::Output);

        let (first, fds) = ask(&here, &look);
        let Seen::Usable { opened: true, marker: Some(marker), moves: Some(_) } = first else {
            panic!("{first:?}");
        };
        let share =
            WritableShare::from_fd(look.name.clone(), &root, fds.into_iter().next().unwrap());
        share.unwrap().verify_marker(marker).unwrap();

        look.marker = Some(marker);
        let (second, fds) = ask(&here, &look);
        assert!(matches!(second, Seen::Usable { opened: false, .. }) && fds.is_empty());

        // Another folder stands there now, as when a mount is gone.
        std::fs::rename(&root, folder.path().join("away")).unwrap();
        std::fs::create_dir(&root).unwrap();
        look.open = true;
        let (third, _) = ask(&here, &look);
        let Seen::Unusable { reason } = third else { panic!("{third:?}") };
        assert!(reason.contains(".trix-share"), "{reason}");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing was written there");

        std::fs::remove_dir(&root).unwrap();
        std::fs::rename(folder.path().join("away"), &root).unwrap();
        look.open = false;
        let (fourth, fds) = ask(&here, &look);
        assert!(matches!(fourth, Seen::Usable { opened: true, .. }) && fds.len() == 1);

        drop(here);
        child.join().unwrap().unwrap();
    }

    #[test]
    fn a_source_is_only_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        std::thread::spawn(move || serve(&there));
        let (seen, _) = ask(&here, &look(folder.path(), ShareRole::Source));
        assert_eq!(seen, Seen::Usable { opened: true, marker: None, moves: None });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let (gone, _) =
            ask(&here, &Look { open: true, ..look("/nowhere".as_ref(), ShareRole::Source) });
        assert!(matches!(gone, Seen::Unusable { .. }), "{gone:?}");
    }

    #[test]
    fn a_child_that_does_not_answer_is_given_up_after_its_deadlines() {
        // `sleep` reads nothing, as a process that hangs in a dead share.
        let mut child = Prober::new("/bin/sleep".into(), &["60"]).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let look = look(folder.path(), ShareRole::Source);
        match child.look(&look, Duration::from_millis(20)) {
            Err(NoShare::Silent(reason)) => assert!(reason.contains("does not answer"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(child.end().is_none(), "it is killed and reaped");
    }

    #[test]
    fn a_child_that_ends_is_told_from_a_share_that_is_away() {
        let mut child = Prober::new("/bin/true".into(), &[]).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let answer = child.look(&look(folder.path(), ShareRole::Source), Duration::from_secs(20));
        assert!(matches!(answer, Err(NoShare::Silent(_))), "{answer:?}");
    }
}
