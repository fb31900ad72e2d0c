//! A whole plan in this process: the form of `trix encode` and of the library.
//!
//! Attempts are threads here, tasks are taken longest first as what they need
//! gets done, and outputs lie in the cache under their keys. So a run that was
//! killed goes on where it was, and a second run encodes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use trix_model::{ErrorOrigin, Failure, Key, Progress, RelPath, ShareName, SharePath};
use trix_plan::planner::{Delivery, plan0, plan1};
use trix_plan::profile::Profile;
use trix_plan::task::{IntakeResult, Output, Plan, ResultFile, SourceRef, Task, TaskSpec};
use trix_storage::cache::Cache;
use trix_storage::dir::SourceFile;
use trix_storage::stage::{Stage, StageName};

use crate::io::{Control, TaskIo, stopped};
use crate::run::{engine_id, run_task};

/// The share's name that stands for this machine's root folder in a local plan.
const LOCAL: &str = "local";

/// Threads beyond this make no decoder quicker.
const MAX_THREADS: u32 = 16;

/// What happens during a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Intake is done and the rest is planned.
    Planned {
        /// The plan behind intake.
        plan: &'a Plan,
        /// What intake found.
        intake: &'a IntakeResult,
    },
    /// An attempt began.
    Started {
        /// Name of the task.
        task: &'a str,
    },
    /// An attempt is so far.
    Progress {
        /// Name of the task.
        task: &'a str,
        /// How far.
        progress: Progress,
    },
    /// A task is done.
    Done {
        /// Name of the task.
        task: &'a str,
        /// All its outputs were in the cache already.
        cached: bool,
    },
}

/// A run: what to do, where, and how many attempts at once.
pub struct Run<'a> {
    /// The source file.
    pub source: &'a Path,
    /// What to make of it.
    pub profile: &'a Profile,
    /// Title for tags and names.
    pub title: &'a str,
    /// Where artifacts lie.
    pub cache: &'a Cache,
    /// Attempts at once.
    pub slots: usize,
    /// Called for every event, from any thread.
    pub events: &'a (dyn Fn(Event<'_>) + Sync),
    /// Set to stop: attempts end within a frame and their stages are removed.
    pub stop: &'a AtomicBool,
}

/// What a run made.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What intake found.
    pub intake: IntakeResult,
    /// The plan behind intake.
    pub plan: Plan,
    /// Tasks that ran; the others were in the cache.
    pub ran: Vec<String>,
}

impl Run<'_> {
    /// Runs intake, plans, and runs the plan.
    ///
    /// # Errors
    /// The first failure of any task; the others are stopped and waited for.
    pub fn run(&self) -> Result<Summary, Failure> {
        self.sweep()?;
        let (intake, source, mut ran) = self.intake()?;
        let plan =
            plan1(self.profile, &intake, &source, &engine_id(), self.title, Delivery::Folder)?;
        (self.events)(Event::Planned { plan: &plan, intake: &intake });
        ran.extend(self.run_tasks(&plan.tasks)?);
        Ok(Summary { intake, plan, ran })
    }

    /// Runs intake alone and plans: `trix plan`.
    ///
    /// # Errors
    /// What is wrong with the source or the profile.
    pub fn plan(&self) -> Result<(IntakeResult, Plan), Failure> {
        let (intake, source, _) = self.intake()?;
        let plan =
            plan1(self.profile, &intake, &source, &engine_id(), self.title, Delivery::Folder)?;
        Ok((intake, plan))
    }

    /// Removes the stages of runs whose process is gone.
    fn sweep(&self) -> Result<(), Failure> {
        let gone = |name: &str| {
            let pid = name.split('-').next().and_then(|p| p.parse::<u32>().ok());
            pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        };
        self.cache.sweep_stages(|stage| gone(&stage.name))?;
        Ok(())
    }

    fn intake(&self) -> Result<(IntakeResult, SourceRef, Vec<String>), Failure> {
        let source = source_ref(self.source)?;
        let plan = plan0(&source, &[], self.profile, &engine_id(), Delivery::Folder)?;
        let ran = self.run_tasks(&plan.tasks)?;
        let key = plan
            .tasks
            .iter()
            .flat_map(|t| &t.outputs)
            .find(|o| o.name == "result")
            .map(|o| o.key)
            .ok_or_else(|| Failure::bug("intake is not planned to give a result"))?;
        let mut bytes = Vec::new();
        LocalIo { run: self, stage: None, threads: &ONE }
            .artifact(&key)?
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::share(format!("reading intake's result: {e}")))?;
        let intake = serde_json::from_slice(&bytes)
            .map_err(|e| Failure::bug(format!("intake's result does not parse: {e}")))?;
        Ok((intake, source, ran))
    }

    /// Runs all tasks in the order of their needs on `slots` threads.
    fn run_tasks(&self, tasks: &[Task]) -> Result<Vec<String>, Failure> {
        let known: BTreeSet<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
        let board = Board {
            state: Mutex::new(BoardState {
                waiting: tasks.iter().collect(),
                done: BTreeSet::new(),
                running: 0,
                ran: Vec::new(),
                failure: None,
            }),
            changed: Condvar::new(),
            threads: AtomicU32::new(1),
            known,
            slots: self.slots.max(1),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.slots.clamp(1, tasks.len().max(1)) {
                scope.spawn(|| self.work(&board));
            }
        });
        let state = board.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        match state.failure {
            Some(failure) => Err(failure),
            None if self.stop.load(Ordering::Relaxed) => Err(stopped()),
            None if state.waiting.is_empty() => Ok(state.ran),
            None => Err(Failure::bug("a plan has tasks that need each other")),
        }
    }

    fn work(&self, board: &Board<'_>) {
        let stopped = || self.stop.load(Ordering::Relaxed) || board.lock().failure.is_some();
        while let Some(task) = board.take(self.stop) {
            let result = self.run_one(task, &board.threads, &stopped);
            board.put(task, result);
        }
    }

    /// One task: from the cache, or by an attempt whose outputs go there.
    fn run_one(
        &self,
        task: &Task,
        threads: &AtomicU32,
        stopped: &dyn Fn() -> bool,
    ) -> Result<bool, Failure> {
        // Read and compared here, once a run, so that a damaged artifact is made again instead of
        // failing whoever would read it later.
        let whole = |o: &&Output| matches!(self.cache.get_verified(&o.key, None), Ok(Some(_)));
        let missing: Vec<_> = task.outputs.iter().filter(|o| !whole(o)).cloned().collect();
        if missing.is_empty() {
            for output in &task.outputs {
                self.cache.touch(&output.key)?;
            }
            (self.events)(Event::Done { task: &task.name, cached: true });
            return Ok(false);
        }
        (self.events)(Event::Started { task: &task.name });
        let stage = self.cache.stage(&stage_name(task)?)?;
        let io = LocalIo { run: self, stage: Some(&stage), threads };
        let result = self.attempt(task, &missing, &io, &stage, stopped);
        // Whatever was not committed goes; a stage of a killed run is swept at the next start.
        stage.remove()?;
        result?;
        (self.events)(Event::Done { task: &task.name, cached: false });
        Ok(true)
    }

    fn attempt(
        &self,
        task: &Task,
        missing: &[Output],
        io: &LocalIo<'_>,
        stage: &Stage,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let report = |progress: Progress| {
            (self.events)(Event::Progress { task: &task.name, progress });
        };
        let result = run_task(&task.spec, missing, io, &Control::new(&report, stopped))?;
        for made in &result.outputs {
            self.cache.commit(stage, &stage_file(&made.key)?, &made.key, made.digest, None)?;
        }
        Ok(())
    }

    /// Opens a finished file of the run.
    ///
    /// # Errors
    /// When the artifact is gone or damaged.
    pub fn open_result(&self, file: &ResultFile) -> Result<File, Failure> {
        LocalIo { run: self, stage: None, threads: &ONE }.artifact(&file.key)
    }
}

/// What reads a finished file beside the tasks may use.
static ONE: AtomicU32 = AtomicU32::new(1);

/// Tasks that wait, run and are done.
struct Board<'a> {
    state: Mutex<BoardState<'a>>,
    changed: Condvar,
    /// What each running task may use: its own slot, and its part of those that idle.
    threads: AtomicU32,
    /// Tasks of this plan; what else a task needs was done before.
    known: BTreeSet<&'a str>,
    /// Attempts at once.
    slots: usize,
}

struct BoardState<'a> {
    waiting: Vec<&'a Task>,
    done: BTreeSet<&'a str>,
    running: usize,
    ran: Vec<String>,
    failure: Option<Failure>,
}

impl BoardState<'_> {
    fn is_ready(&self, task: &Task, known: &BTreeSet<&str>) -> bool {
        let is_done = |n: &String| !known.contains(n.as_str()) || self.done.contains(n.as_str());
        task.needs.iter().all(is_done)
    }
}

impl<'a> Board<'a> {
    fn lock(&self) -> MutexGuard<'_, BoardState<'a>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A slot for which no task is ready would idle: at the end of a run that is all but one,
    /// while the last chunk is encoded or the longest file verified. Their cores go to those
    /// that run.
    fn share_idle(&self, state: &BoardState<'_>) {
        let ready = state.waiting.iter().filter(|t| state.is_ready(t, &self.known)).count();
        let idle = self.slots.saturating_sub(state.running + ready);
        let threads = u32::try_from(1 + idle / state.running.max(1)).unwrap_or(MAX_THREADS);
        self.threads.store(threads.min(MAX_THREADS), Ordering::Relaxed);
    }

    /// The longest task whose needs are done, or `None` when there will be none.
    fn take(&self, stop: &AtomicBool) -> Option<&'a Task> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() || stop.load(Ordering::Relaxed) {
                return None;
            }
            let longest = state
                .waiting
                .iter()
                .enumerate()
                .filter(|(_, t)| state.is_ready(t, &self.known))
                // Of equals the first of the film, so that a progress bar fills from its start.
                .max_by_key(|(n, t)| (t.cost.estimate_ms, std::cmp::Reverse(*n)))
                .map(|(n, _)| n);
            if let Some(n) = longest {
                state.running += 1;
                let task = state.waiting.remove(n);
                self.share_idle(&state);
                return Some(task);
            }
            if state.waiting.is_empty() || state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn put(&self, task: &'a Task, result: Result<bool, Failure>) {
        let mut state = self.lock();
        state.running -= 1;
        match result {
            Ok(ran) => {
                state.done.insert(&task.name);
                if ran {
                    state.ran.push(task.name.clone());
                }
            }
            // The first failure is the cause; those after it were told to stop.
            Err(failure) => {
                state.failure.get_or_insert(failure);
            }
        }
        self.share_idle(&state);
        drop(state);
        self.changed.notify_all();
    }
}

/// Files of this machine: the source by its path, artifacts from the cache.
struct LocalIo<'a> {
    run: &'a Run<'a>,
    stage: Option<&'a Stage>,
    threads: &'a AtomicU32,
}

impl TaskIo for LocalIo<'_> {
    fn source(&self, source: &SourceRef) -> Result<File, Failure> {
        let now = source_ref(self.run.source)?;
        if now.size != source.size || now.mtime_ns != source.mtime_ns {
            return Err(Failure::source(
                "source_changed",
                "the source changed its size or time while it was being worked on",
            )
            .about(self.run.source.display()));
        }
        File::open(self.run.source).map_err(|e| cannot_open(self.run.source, &e))
    }

    fn sidecar(&self, location: &SharePath) -> Result<File, Failure> {
        let path = Path::new("/").join(location.path.as_str());
        File::open(&path).map_err(|e| cannot_open(&path, &e))
    }

    fn artifact(&self, key: &Key) -> Result<File, Failure> {
        let gone = || {
            Failure::new(
                trix_model::ErrorClass::Transient,
                ErrorOrigin::Share,
                "artifact_missing",
                "an artifact is gone from the cache; run again to make it anew",
            )
            .about(key)
        };
        let found = self.run.cache.get(key, None)?.ok_or_else(gone)?;
        duplicate(&found.into_file())
    }

    fn create(&self, output: &Output) -> Result<File, Failure> {
        let stage = self.stage.ok_or_else(|| Failure::bug("an output without an attempt"))?;
        let file = stage.create_file(&stage_file(&output.key)?)?;
        file.as_file()
            .try_clone()
            .map_err(|e| Failure::share(format!("opening the output {}: {e}", output.name)))
    }

    fn tee(&self, share: &ShareName) -> Result<(File, SharePath), Failure> {
        Err(Failure::bug(format!("a local plan stages on the share {share}")))
    }

    fn threads(&self) -> u32 {
        self.threads.load(Ordering::Relaxed)
    }
}

fn duplicate(file: &SourceFile) -> Result<File, Failure> {
    file.as_fd()
        .try_clone_to_owned()
        .map(|fd: OwnedFd| File::from(fd))
        .map_err(|e| Failure::share(format!("opening {}: {e}", file.object())))
}

/// An output's file in a stage is named by its key.
fn stage_file(key: &Key) -> Result<RelPath, Failure> {
    key.to_string().parse().map_err(|e| Failure::bug(format!("a key as a name: {e}")))
}

fn stage_name(task: &Task) -> Result<StageName, Failure> {
    let name = format!("{}-{}", std::process::id(), task.name.replace('/', "_"));
    Ok(StageName::new(&name)?)
}

/// The source as a plan names it, with size and time of now.
fn source_ref(path: &Path) -> Result<SourceRef, Failure> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).map_err(|e| cannot_open(path, &e))?;
    if !meta.is_file() {
        return Err(
            Failure::source("not_a_file", "the source is no regular file").about(path.display())
        );
    }
    let absolute: PathBuf = std::path::absolute(path).map_err(|e| cannot_open(path, &e))?;
    let text = absolute.to_str().ok_or_else(|| {
        Failure::request("bad_name", "the source's path is not UTF-8").about(path.display())
    })?;
    let parse = || -> Result<SharePath, trix_model::PathError> {
        Ok(SharePath::new(LOCAL.parse()?, normal(text).parse()?))
    };
    let location =
        parse().map_err(|e| Failure::request("bad_name", e.to_string()).about(path.display()))?;
    Ok(SourceRef {
        location,
        size: meta.len(),
        mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
    })
}

/// An absolute path without its leading slash, and without `.` and `..`.
fn normal(absolute: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in absolute.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => "not_found",
        std::io::ErrorKind::PermissionDenied => "not_allowed",
        _ => return Failure::share(format!("opening the source: {error}")).about(path.display()),
    };
    Failure::source(code, format!("opening the source: {error}")).about(path.display())
}

/// How many of a plan's frames are encoded, over all renditions: for progress bars.
pub fn frames_to_encode(plan: &Plan) -> BTreeMap<&str, u64> {
    plan.tasks
        .iter()
        .filter_map(|t| match &t.spec {
            TaskSpec::EncodeChunk(c) => {
                Some((t.name.as_str(), u64::from(c.range.count) * t.outputs.len() as u64))
            }
            _ => None,
        })
        .collect()
}
