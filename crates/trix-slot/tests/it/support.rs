//! Starts the toy slot that `examples/toy_slot.rs` is.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use trix_model::digest::Key;
use trix_model::{AttemptId, Epoch, TaskId};
use trix_plan::task::{Output, TaskSpec, Verify};
use trix_slot::{Ended, InputName, Launcher, Limits, Report, SlotIo, SlotJob};

/// The slot with the toy in it.
pub fn toy() -> PathBuf {
    example("toy_slot")
}

/// Cargo builds the examples of a package with its tests, beside them.
pub fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built; run the tests of the whole package", path.display());
    path
}

/// A stage, and what a toy job needs beside it.
pub struct Bench {
    pub stage: TempDir,
    pub limits: Limits,
    pub stall: Duration,
    pub inputs: Vec<(InputName, std::fs::File)>,
}

impl Bench {
    pub fn new() -> Bench {
        let stage = TempDir::new_in("/var/tmp").unwrap();
        let root = rustix::process::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(stage.path(), Some(65534), Some(65534)).unwrap();
        }
        let limits = Limits {
            data: 512 << 20,
            memory: 1 << 30,
            file_size: 64 << 20,
            cpu: 60,
            user: root.then_some((65534, 65534)),
        };
        // Beside the stage, not in it: what lies in the stage may be written.
        let mut source = tempfile::tempfile_in("/var/tmp").unwrap();
        std::io::Write::write_all(&mut source, b"the source").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&source));
        let source = std::fs::File::open(path).unwrap();
        Bench {
            stage,
            limits,
            stall: Duration::from_secs(60),
            inputs: vec![(InputName::Source, source)],
        }
    }

    pub fn job(&self, task: &str) -> SlotJob {
        let expect = trix_plan::task::Expectation { video: None, audio: Vec::new() };
        SlotJob {
            attempt: AttemptId { task: TaskId(1), epoch: Epoch(1) },
            task: task.to_owned(),
            spec: TaskSpec::Verify(Verify { file: Key([1; 32]), expect }),
            outputs: vec![Output { name: "report".into(), key: Key([2; 32]) }],
            inputs: Vec::new(),
            tee: None,
            limits: self.limits,
            worker_pid: 0,
        }
    }

    pub fn io(&self) -> SlotIo {
        let inputs =
            self.inputs.iter().map(|(name, file)| (*name, file.try_clone().unwrap())).collect();
        let stage: OwnedFd = std::fs::File::open(self.stage.path()).unwrap().into();
        SlotIo { inputs, cache_stage: stage, tee_stage: None }
    }

    pub fn run(&self, task: &str) -> Ended {
        self.run_with(task, &mut |_| ())
    }

    pub fn run_with(&self, task: &str, on: &mut dyn FnMut(Report<'_>)) -> Ended {
        let slot = Launcher::new(toy()).start().unwrap();
        slot.run(self.job(task), self.io(), "toy", self.stall, on)
    }
}
