//! Network shares of one's own: sshfs mounts whose other end is OpenSSH's sftp server, over a
//! pipe instead of a connection. Sessions are killed and stopped, the client is killed, the
//! server is away.
//!
//! The mounts lie in the mount namespace that the harness has for itself, where the processes
//! of the site see them too. Nothing here looks at a path of a mount that may hang.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, kill_process};

use super::process::{self, Process, Seen};
use super::site::done;

const SERVER: &str = "/usr/lib/openssh/sftp-server";

/// The longest wait for a mount.
const MOUNTED: Duration = Duration::from_secs(60);

/// Why there can be none here.
pub fn missing() -> Option<String> {
    if !super::has_tool("sshfs") {
        return Some("sshfs is not installed".to_owned());
    }
    if !Path::new(SERVER).exists() {
        return Some(format!("{SERVER} is not installed"));
    }
    (!Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".to_owned())
}

/// The server's folders and the mounts of them.
pub struct Nas {
    /// Folder of the site, in which the mount points are.
    root: PathBuf,
    clients: BTreeMap<&'static str, Process>,
}

impl Nas {
    /// Serves and mounts `shares`, whose mount points are there and empty.
    pub fn start(root: &Path, shares: &[&'static str]) -> Result<Nas> {
        let mut nas = Nas { root: root.to_owned(), clients: BTreeMap::new() };
        std::fs::create_dir(nas.server())?;
        for share in shares {
            let folder = nas.server().join(share);
            std::fs::create_dir(&folder)?;
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
            // While the server is away no session begins. By its folder a session is known.
            let (down, folder) = (nas.down(), folder.display());
            let script =
                format!("#!/bin/sh\ntest ! -e {} && exec {SERVER} -d {folder}\n", down.display());
            let session = nas.session(share);
            std::fs::write(&session, script)?;
            std::fs::set_permissions(&session, std::fs::Permissions::from_mode(0o755))?;
            nas.mount(share, false)?;
        }
        Ok(nas)
    }

    fn server(&self) -> PathBuf {
        self.root.join("nas")
    }

    /// What sshfs runs instead of ssh.
    fn session(&self, share: &str) -> PathBuf {
        self.root.join(format!("nas-session-{share}"))
    }

    fn down(&self) -> PathBuf {
        self.root.join("nas-down")
    }

    /// Its shares.
    pub fn shares(&self) -> Vec<&'static str> {
        self.clients.keys().copied().collect()
    }

    /// Mounts a share, which is not mounted. With `reconnect` the client begins a session anew
    /// by itself when one was lost.
    fn mount(&mut self, share: &'static str, reconnect: bool) -> Result<()> {
        let mut sshfs = Command::new("sshfs");
        sshfs.arg(format!("nas:{}", self.server().join(share).display()));
        // Slots run as users of their own.
        sshfs.arg(self.root.join(share)).args(["-f", "-o", "allow_other", "-o"]);
        sshfs.arg(format!("ssh_command={}", self.session(share).display()));
        if reconnect {
            sshfs.args(["-o", "reconnect"]);
        }
        let log = self.root.join(format!("nas-{share}.log"));
        let mut client = Process::start(sshfs, &log)?;
        let begun = Instant::now();
        while !self.is_mounted(share)? {
            if let Some(status) = client.ended()? {
                bail!("sshfs of {share} ended with {status}:\n{}", client.tail());
            }
            if begun.elapsed() > MOUNTED {
                bail!("sshfs does not mount {share}:\n{}", client.tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.clients.insert(share, client);
        Ok(())
    }

    fn is_mounted(&self, share: &str) -> Result<bool> {
        let point = self.root.join(share).display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(point.as_str())))
    }

    /// The process at the other end of a share's mount. It is nobody's child: sshfs forks twice.
    fn served_by(&self, share: &str) -> Vec<Seen> {
        let line = format!("{SERVER} -d {}", self.server().join(share).display());
        process::all().into_iter().filter(|p| p.line == line).collect()
    }

    /// Sends a signal to the other end of a share. False when there is none.
    pub fn signal_session(&self, share: &str, signal: Signal) -> bool {
        let sessions = self.served_by(share);
        // One that ended meanwhile needs no signal.
        sessions.iter().filter(|s| kill_process(s.pid, signal).is_ok()).count() > 0
    }

    /// Kills the client of a share: its mount stays, and answers nobody.
    pub fn kill_client(&mut self, share: &str) -> Result<bool> {
        match self.clients.get_mut(share) {
            Some(client) => client.kill(),
            None => Ok(false),
        }
    }

    /// The server goes away with all its sessions.
    pub fn server_away(&self) -> Result<()> {
        std::fs::write(self.down(), "").context("taking the server away")?;
        for share in self.shares() {
            self.signal_session(share, Signal::KILL);
        }
        Ok(())
    }

    /// Mends everything and mounts again what is not mounted, as a mount helper would. Gives
    /// what lay on the mount points while nothing was mounted there.
    pub fn heal(&mut self, reconnect: bool) -> Result<Vec<String>> {
        match std::fs::remove_file(self.down()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let mut bare = Vec::new();
        for share in self.shares() {
            self.signal_session(share, Signal::CONT);
            let alive = match self.clients.get_mut(share) {
                Some(client) => client.ended()?.is_none(),
                None => false,
            };
            if alive && self.is_mounted(share)? {
                continue;
            }
            bare.extend(self.detach(share)?);
            self.mount(share, reconnect)?;
        }
        Ok(bare)
    }

    /// Takes a mount away, hung or not, and gives what lies on the bare mount point.
    fn detach(&mut self, share: &str) -> Result<Vec<String>> {
        if let Some(client) = self.clients.get_mut(share) {
            client.kill()?;
        }
        self.signal_session(share, Signal::KILL);
        while self.is_mounted(share)? {
            let mut umount = Command::new("umount");
            umount.arg("-l").arg(self.root.join(share));
            done(umount)?;
        }
        let found = super::audit::files(&self.root.join(share)).into_iter();
        Ok(found.map(|file| format!("{share}:{file}")).collect())
    }

    /// Takes all mounts away, and gives what lies on the bare mount points.
    pub fn end(&mut self) -> Result<Vec<String>> {
        let mut bare = Vec::new();
        for share in self.shares() {
            bare.extend(self.detach(share)?);
        }
        Ok(bare)
    }
}
