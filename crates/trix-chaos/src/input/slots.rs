//! Attempts in real slots, as a worker starts them, and what must hold of each.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trix_model::{AttemptId, Epoch, ErrorClass, ErrorOrigin, Failure, Key, TaskId};
use trix_plan::task::{Cost, Output, SourceRef, TaskResult, TaskSpec};
use trix_slot::{
    InputName, Launcher, Limits, Outcome, SlotIo, SlotJob, Usage, slot_user, stage_name,
};

/// A worker's stall limit.
const STALL: Duration = Duration::from_secs(120);

/// What an attempt may take at most; more is a defect, whatever came of it.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// From spawn to exit. On a loaded machine waiting counts too, so the processor's time is
    /// what is judged, and this only ends what would never end.
    pub wall: Duration,
    /// Processor time.
    pub cpu: Duration,
    /// Bytes resident.
    pub ram: u64,
    /// Bytes left in the stage.
    pub disk: u64,
}

/// Starts slots of one `trix-media`.
#[derive(Debug)]
pub struct Slots {
    launcher: Launcher,
    engine: String,
    folder: PathBuf,
    next: AtomicU64,
    /// Process groups that were started; each must be gone at the end.
    first_children: usize,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Attempt {
    /// With what; `None` when it was still running at [`Caps::wall`].
    pub outcome: Option<Result<TaskResult, Failure>>,
    /// What it took.
    pub usage: Usage,
    /// Its process.
    pub pid: u32,
    /// Its stage, with what it wrote.
    pub stage: PathBuf,
    /// What must not be and is.
    pub defects: Vec<String>,
}

/// An open input of an attempt.
pub type Opened = (InputName, File);

impl Slots {
    /// Takes the program and asks for its engine. `folder` takes stages.
    pub fn new(media: &Path, folder: &Path) -> Result<Slots> {
        Slots::with_launcher(Launcher::new(media), folder)
    }

    /// Like [`Slots::new`], with a launcher that may start the program through another.
    pub fn with_launcher(launcher: Launcher, folder: &Path) -> Result<Slots> {
        let engine = launcher.hello().context("asking trix-media for its engine")?.engine;
        fs::create_dir_all(folder).context("making a folder for stages")?;
        Ok(Slots {
            launcher,
            engine,
            folder: folder.to_owned(),
            next: AtomicU64::new(1),
            first_children: children()?.len(),
        })
    }

    /// Engine id of the slots.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Runs one task to its end.
    pub fn run(
        &self,
        spec: &TaskSpec,
        outputs: &[Output],
        cost: &Cost,
        inputs: Vec<Opened>,
        caps: &Caps,
    ) -> Result<Attempt> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let stage = self.folder.join(format!("stage-{n}"));
        fs::create_dir(&stage).context("making a stage")?;
        let user = slot_user();
        if let Some((uid, gid)) = user {
            chown(&stage, Some(uid), Some(gid)).context("giving the stage away")?;
        }
        let job = SlotJob {
            attempt: AttemptId { task: TaskId(n as i64), epoch: Epoch(1) },
            task: format!("{}/{n}", spec.kind()),
            spec: spec.clone(),
            outputs: outputs.to_vec(),
            inputs: Vec::new(),
            tee: None,
            // As trix-worker sets them.
            limits: Limits::of(spec, cost, STALL, user),
            worker_pid: 0,
        };
        let directory: OwnedFd = File::open(&stage).context("opening a stage")?.into();
        let io = SlotIo { inputs, cache_stage: directory, tee_stage: None };
        let running = self.launcher.start().context("starting a slot")?;
        let (pid, control) = (running.pid(), running.control());
        let (done, wait) = channel::<()>();
        let wall = caps.wall;
        let watch = std::thread::spawn(move || {
            let late = wait.recv_timeout(wall) == Err(RecvTimeoutError::Timeout);
            if late {
                control.cancel();
            }
        });
        let ended = running.run(job, io, &self.engine, STALL, &mut |_| ());
        drop(done);
        ensure!(watch.join().is_ok(), "the thread that watches an attempt panicked");
        let mut defects = Vec::new();
        let outcome = match ended.outcome {
            Outcome::Done(result) => Some(Ok(result)),
            Outcome::Failed(failure) => {
                defects.extend(wrong(&failure));
                Some(Err(failure))
            }
            Outcome::Cancelled => {
                defects.push(format!("still running after {} s", wall.as_secs()));
                None
            }
        };
        if ended.usage.cpu_ms > caps.cpu.as_millis() as u64 {
            defects.push(format!("{} s of processor", ended.usage.cpu_ms / 1000));
        }
        if ended.usage.peak_ram > caps.ram {
            defects.push(format!("{} MiB resident", ended.usage.peak_ram >> 20));
        }
        let left = tree_size(&stage)?;
        if left > caps.disk {
            defects.push(format!("{} MiB in its stage", left >> 20));
        }
        Ok(Attempt { outcome, usage: ended.usage, pid, stage, defects })
    }

    /// No process may be left when nothing runs.
    pub fn orphans(&self) -> Result<Vec<String>> {
        let now = children()?;
        Ok(if now.len() > self.first_children {
            vec![format!("processes left behind: {now:?}")]
        } else {
            Vec::new()
        })
    }
}

impl Attempt {
    /// Opens an output that it made.
    pub fn open(&self, output: &Output) -> Result<File> {
        File::open(self.stage.join(stage_name(output))).context("opening an output")
    }

    /// Removes its stage.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.stage).context("removing a stage")
    }
}

/// What is wrong with a failure as an answer to a hostile input.
fn wrong(failure: &Failure) -> Option<String> {
    let what = format!("{} ({})", failure.message, failure.code);
    match (failure.class, failure.origin) {
        (_, ErrorOrigin::Bug) => Some(format!("our own mistake: {what}")),
        // It would be tried again and again.
        (ErrorClass::Transient, _) => Some(format!("called transient: {what}")),
        _ => None,
    }
}

/// The source as a job names it.
pub fn source_ref(path: &Path) -> Result<SourceRef> {
    let meta = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(SourceRef {
        location: "source:input.mov".parse().context("naming the source")?,
        size: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    })
}

/// An output whose key is its name's hash: nothing here is cached, so any key does.
pub fn output(name: &str) -> Output {
    Output { name: name.to_owned(), key: Key(*blake3::hash(name.as_bytes()).as_bytes()) }
}

fn tree_size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).context("listing a stage")? {
        let entry = entry.context("listing a stage")?;
        let meta = entry.metadata().context("looking at a staged file")?;
        sum += if meta.is_dir() { tree_size(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

/// Children of this process by any of its threads.
fn children() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task").context("listing threads")? {
        let path = thread.context("listing threads")?.path().join("children");
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(path) else { continue };
        found.extend(text.split_whitespace().map(str::to_owned));
    }
    Ok(found)
}

/// What of this process must not grow with the number of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    descriptors: usize,
    resident: u64,
}

impl Baseline {
    /// As it is now.
    pub fn take() -> Result<Baseline> {
        let descriptors = fs::read_dir("/proc/self/fd").context("listing descriptors")?.count();
        let status = fs::read_to_string("/proc/self/status").context("reading the own status")?;
        let resident: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
            .context("the status has no VmRSS as proc(5) says")?;
        Ok(Baseline { descriptors, resident: resident << 10 })
    }

    /// What grew since; memory by more than `slack`, which is room for the report, for what the
    /// row makes its inputs of, and for what the allocator keeps of it.
    pub fn grown(&self, slack: u64) -> Result<Vec<String>> {
        let now = Baseline::take()?;
        let mut defects = Vec::new();
        if now.descriptors > self.descriptors {
            defects.push(format!("{} descriptors, before {}", now.descriptors, self.descriptors));
        }
        if now.resident > self.resident + slack {
            defects.push(format!(
                "{} MiB resident, before {}",
                now.resident >> 20,
                self.resident >> 20
            ));
        }
        Ok(defects)
    }
}

/// Duplicates an open file for one more attempt.
pub fn again(file: &File) -> Result<File> {
    Ok(file.as_fd().try_clone_to_owned().context("duplicating an input")?.into())
}
