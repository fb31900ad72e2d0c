//! A process that the harness started: signals, its end, what it took.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// One process with its log. Dropped, it is killed.
pub struct Process {
    child: Child,
    log: PathBuf,
    stopped: bool,
}

impl Process {
    /// Starts a command; what it prints is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let to = (File::options().create(true).append(true).open(log))
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(to.try_clone().context("opening the log once more")?)
            .stderr(to)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Process { child, log: log.to_owned(), stopped: false })
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("looking after a process")
    }

    /// SIGKILL. False when it had ended by itself.
    pub fn kill(&mut self) -> Result<bool> {
        if self.ended()?.is_some() {
            return Ok(false);
        }
        self.child.kill().context("killing a process")?;
        self.child.wait().context("waiting for a killed process")?;
        Ok(true)
    }

    /// SIGSTOP: it stands where it is.
    pub fn pause(&mut self) -> Result<()> {
        kill_process(self.pid(), Signal::STOP).context("stopping a process")?;
        self.stopped = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        if std::mem::take(&mut self.stopped) {
            kill_process(self.pid(), Signal::CONT).context("continuing a process")?;
        }
        Ok(())
    }

    /// True while it is stopped.
    pub fn is_paused(&self) -> bool {
        self.stopped
    }

    /// SIGTERM, and its end.
    pub fn end(mut self, patience: Duration) -> Result<ExitStatus> {
        self.resume()?;
        if self.ended()?.is_none() {
            kill_process(self.pid(), Signal::TERM).context("asking a process to end")?;
        }
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                bail!("it does not end within {patience:?}:\n{}", self.tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is ours and nobody waits for it any more; one that has ended needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A living process as the system shows it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its id.
    pub pid: Pid,
    /// Its name, which slots choose themselves.
    pub name: String,
    /// Its arguments, joined by spaces.
    pub line: String,
    /// Nanoseconds of processor time that it has had.
    pub cpu_ns: u64,
}

/// All living processes; those that only wait to be reaped are dead.
pub fn all() -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| see(e.file_name().to_str()?.parse().ok()?)).collect()
}

/// One process; `None` when it has ended.
pub fn see(pid: i32) -> Option<Seen> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = read("stat")?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    if matches!(rest.trim_start().chars().next()?, 'Z' | 'X') {
        return None;
    }
    let line = read("cmdline")?.replace('\0', " ").trim().to_owned();
    let cpu_ns = read("schedstat")
        .and_then(|s| s.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    Some(Seen { pid: Pid::from_raw(pid)?, name: name.to_owned(), line, cpu_ns })
}
