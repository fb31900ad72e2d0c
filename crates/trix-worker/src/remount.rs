//! The mount helper: a small process with root's rights that mounts shares anew.
//!
//! A worker has no such rights. It names a share; the helper knows a fixed list of shares with
//! their mount points, and what to mount there stands in the machine's fstab. So the most that
//! an asker can do is to have a mount of that list made again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use trix_model::ShareName;
use trix_slot::wire::{self, WireError};
use trix_storage::Mount;

/// A mount that takes longer than this is given up; its next try may be the better one.
const MOUNT_PATIENCE: Duration = Duration::from_secs(30);
/// Mounts may lie over each other at one point; more than this is no accident.
const MOST_LAYERS: usize = 8;
const LOOK: Duration = Duration::from_millis(20);

/// What may be mounted anew, and for whom.
#[derive(Clone, Debug)]
pub struct MountList {
    /// Mount points by the shares that lie there.
    pub points: BTreeMap<ShareName, PathBuf>,
    /// The table that says what to mount at them.
    pub fstab: PathBuf,
    /// The user who may ask, beside root.
    pub uid: u32,
}

/// Why a share was not mounted anew.
#[derive(Debug, thiserror::Error)]
pub enum RemountError {
    /// The helper cannot be reached.
    #[error("the mount helper does not answer")]
    Helper(#[source] WireError),
    /// It refused or failed.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    share: ShareName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "mount", rename_all = "snake_case")]
enum Answer {
    Done,
    Failed { reason: String },
}

/// Has the helper at `socket` mount a share anew; returns when that is done.
pub(crate) fn ask(socket: &Path, share: &ShareName) -> Result<(), RemountError> {
    let answer = UnixStream::connect(socket).map_err(WireError::from).and_then(|line| {
        // The helper bounds what it does; this is for one that stands still itself.
        line.set_read_timeout(Some(MOUNT_PATIENCE * 3))?;
        wire::send(&line, &Ask { share: share.clone() })?;
        wire::receive(&line)
    });
    match answer.map_err(RemountError::Helper)? {
        Answer::Done => Ok(()),
        Answer::Failed { reason } => Err(RemountError::Refused(reason)),
    }
}

/// The helper's main: answers until the process ends. Each asker has a thread of its own, so
/// that a server that does not answer keeps no other share waiting.
pub fn serve(list: &MountList, listener: &UnixListener) -> io::Result<()> {
    let busy: BTreeMap<ShareName, Mutex<()>> =
        list.points.keys().map(|name| (name.clone(), Mutex::new(()))).collect();
    let shared = Arc::new((list.clone(), busy));
    loop {
        let (line, _) = listener.accept()?;
        let shared = shared.clone();
        std::thread::Builder::new().name("remount".into()).spawn(move || {
            let (list, busy) = &*shared;
            if let Err(e) = answer(&line, list, busy) {
                tracing::warn!("an asker went away: {}", trix_model::with_causes(&e));
            }
        })?;
    }
}

fn answer(
    line: &UnixStream,
    list: &MountList,
    busy: &BTreeMap<ShareName, Mutex<()>>,
) -> Result<(), WireError> {
    line.set_read_timeout(Some(Duration::from_secs(5)))?;
    let asker = rustix::net::sockopt::socket_peercred(line).map_err(io::Error::from)?;
    let uid = asker.uid.as_raw();
    if uid != 0 && uid != list.uid {
        let reason = format!("user {uid} may not ask the mount helper");
        return wire::send(line, &Answer::Failed { reason });
    }
    let Ask { share } = wire::receive(line)?;
    let outcome = match (list.points.get(&share), busy.get(&share)) {
        (Some(point), Some(turn)) => match turn.try_lock() {
            Ok(_turn) => remount(point, &list.fstab),
            Err(_) => Err("it is being mounted".to_owned()),
        },
        _ => Err(format!("share {share} is not in the mount helper's list")),
    };
    match &outcome {
        Ok(()) => tracing::info!(%share, uid, "mounted anew"),
        Err(reason) => tracing::warn!(%share, uid, %reason, "not mounted anew"),
    }
    let answer = match outcome {
        Ok(()) => Answer::Done,
        Err(reason) => Answer::Failed { reason },
    };
    wire::send(line, &answer)
}

/// Takes away what is mounted at `point`, dead or not, and mounts what `fstab` says.
fn remount(point: &Path, fstab: &Path) -> Result<(), String> {
    for _ in 0..MOST_LAYERS {
        let Some(mount) = mounted(point)? else { break };
        // Whoever waits for a dead FUSE server gets an error, and the mount can go.
        if mount.is_fuse() {
            let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.minor);
            if let Err(e) = std::fs::write(&abort, "1") {
                tracing::warn!(%abort, error = %e, "aborting a FUSE connection");
            }
        }
        let mut unmount = Command::new("umount");
        // Without these it looks at the dead mount, and hangs as everybody else does.
        run(unmount.args(["--no-canonicalize", "--lazy"]).arg(point))?;
    }
    if mounted(point)?.is_some() {
        return Err(format!("{} stays mounted", point.display()));
    }
    run(Command::new("mount").arg("--fstab").arg(fstab).arg(point))?;
    match mounted(point)? {
        Some(_) => Ok(()),
        None => Err(format!("mount succeeded and nothing is mounted at {}", point.display())),
    }
}

fn mounted(point: &Path) -> Result<Option<Mount>, String> {
    Mount::at(point).map_err(|e| format!("reading the table of mounts: {e}"))
}

/// Runs a program of the system to its end or the end of patience.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: io::Error| format!("running {name}: {e}");
    let mut child = command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() > MOUNT_PATIENCE => {
                child.kill().map_err(failed)?;
                return Err(format!("{name} took over {} s", MOUNT_PATIENCE.as_secs()));
            }
            None => std::thread::sleep(LOOK),
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = child.stderr.take().map_or_else(String::new, first_words);
    Err(format!("{name} ended with {status}: {}", said.trim()))
}

/// What is in the pipe now: a server that `mount` left behind may keep it open for ever.
fn first_words(mut pipe: impl io::Read + AsFd) -> String {
    let mut words = vec![0; 1000];
    let got = match rustix::io::ioctl_fionbio(&pipe, true) {
        Ok(()) => pipe.read(&mut words).unwrap_or(0),
        Err(_) => 0,
    };
    String::from_utf8_lossy(&words[..got]).into_owned()
}
