//! The worker's state folder: a lock, who it is, and the outbox.
//!
//! | file | holds |
//! |---|---|
//! | `worker.lock` | locked while a worker process lives, which proves that an earlier one is dead |
//! | `worker.json` | the incarnation and its secret |
//! | `shares.json` | the markers that writable shares had when they were first used |
//! | `outbox/<task>-<epoch>.json` | results that no database has confirmed yet |
//! | `running/<task>-<epoch>` | attempts at work; what is left of them after a crash has stages to remove |

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trix_db::AttemptResult;
use trix_model::{AttemptId, ShareName};
use uuid::Uuid;

use crate::core::Identity;

/// A failed operation on the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another worker of this node lives.
    #[error("another worker uses the state folder {0}")]
    InUse(PathBuf),
    /// A file operation failed.
    #[error("{op} {path}")]
    Io {
        /// What was done.
        op: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io { op, path: path.to_owned(), source }
}

/// The folder, locked.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder if need be and locks it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        for folder in ["outbox", "running"].map(|name| path.join(name)) {
            (DirBuilder::new().recursive(true).mode(0o700).create(&folder))
                .map_err(io_error("making", &folder))?;
        }
        let lock_path = path.join("worker.lock");
        let lock = (OpenOptions::new().create(true).truncate(false).write(true).mode(0o600))
            .open(&lock_path)
            .map_err(io_error("opening", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(e)) => Err(io_error("locking", &lock_path)(e)),
        }
    }

    /// Who the last worker on this node was.
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        self.read("worker.json")
    }

    /// Writes who this worker is.
    pub fn remember(&self, identity: &Identity) -> Result<(), StateError> {
        self.write("worker.json", identity)
    }

    /// Markers of shares by name.
    pub fn markers(&self) -> Result<BTreeMap<ShareName, Uuid>, StateError> {
        Ok(self.read("shares.json")?.unwrap_or_default())
    }

    /// Writes the markers.
    pub fn remember_markers(&self, markers: &BTreeMap<ShareName, Uuid>) -> Result<(), StateError> {
        self.write("shares.json", markers)
    }

    /// Results that were kept and not forgotten.
    pub fn outbox(&self) -> Result<Vec<AttemptResult>, StateError> {
        let folder = self.path.join("outbox");
        let mut results = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(io_error("listing", &folder))? {
            let name = entry.map_err(io_error("listing", &folder))?.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".json") {
                results.extend(self.read(&format!("outbox/{name}"))?);
            } else if name.ends_with(".new") {
                // Torn by the end of the process that wrote it: it was never reported.
                let path = folder.join(&*name);
                std::fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        Ok(results)
    }

    /// Keeps a result until [`StateDir::forget`].
    pub fn keep(&self, result: &AttemptResult) -> Result<(), StateError> {
        self.write(&outbox_name(result.attempt), result)
    }

    /// Forgets a result. One that was not kept is fine.
    pub fn forget(&self, attempt: AttemptId) -> Result<(), StateError> {
        let path = self.path.join(outbox_name(attempt));
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Notes that an attempt begins. Not durable: a crash of the machine is left to the janitor.
    pub fn begin(&self, attempt: AttemptId) -> Result<(), StateError> {
        let path = self.path.join(format!("running/{attempt}"));
        File::create(&path).map(drop).map_err(io_error("making", &path))
    }

    /// Notes that an attempt has ended.
    pub fn end(&self, attempt: AttemptId) -> Result<(), StateError> {
        let path = self.path.join(format!("running/{attempt}"));
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Attempts that began and did not end, in an earlier process.
    pub fn torn(&self) -> Result<Vec<AttemptId>, StateError> {
        let folder = self.path.join("running");
        let mut torn = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(io_error("listing", &folder))? {
            let name = entry.map_err(io_error("listing", &folder))?.file_name();
            torn.extend(name.to_str().and_then(|name| {
                let (task, epoch) = name.split_once('-')?;
                Some(AttemptId { task: task.parse().ok()?, epoch: epoch.parse().ok()? })
            }));
        }
        Ok(torn)
    }

    /// `None` if there is none. A file that cannot be understood (written by another version,
    /// or damaged) is put aside, not obeyed.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("reading", &path)(e)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "not understood; put aside");
                let aside = path.with_extension("bad");
                std::fs::rename(&path, &aside).map_err(io_error("putting aside", &path))?;
                Ok(None)
            }
        }
    }

    /// Whole or not at all, and durable when it returns.
    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.path.join(name);
        let new = path.with_extension("new");
        let bytes = serde_json::to_vec(value).map_err(io::Error::from);
        let written = bytes.and_then(|bytes| {
            let mut file = (OpenOptions::new().create(true).truncate(true).write(true).mode(0o600))
                .open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(io_error("writing", &new))?;
        std::fs::rename(&new, &path).map_err(io_error("renaming to", &path))?;
        let folder = path.parent().unwrap_or(&self.path);
        File::open(folder).and_then(|f| f.sync_all()).map_err(io_error("syncing", folder))
    }
}

fn outbox_name(attempt: AttemptId) -> String {
    format!("outbox/{attempt}.json")
}

#[cfg(test)]
mod tests {
    use trix_db::{Outcome, Usage};
    use trix_model::{Epoch, TaskId};

    use super::*;

    fn result(task: i64) -> AttemptResult {
        let attempt = AttemptId { task: TaskId(task), epoch: Epoch(1) };
        AttemptResult {
            attempt,
            outcome: Outcome::Cancelled,
            log: vec!["a line".into()],
            usage: Usage::default(),
        }
    }

    #[test]
    fn results_survive_the_process_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert!(matches!(StateDir::open(folder.path()), Err(StateError::InUse(_))));
        state.keep(&result(1)).unwrap();
        state.keep(&result(2)).unwrap();
        state.forget(result(1).attempt).unwrap();
        state.forget(result(3).attempt).unwrap();
        drop(state);
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.outbox().unwrap(), [result(2)]);
    }

    #[test]
    fn attempts_that_did_not_end_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (one, two) = (result(1).attempt, result(2).attempt);
        state.begin(one).unwrap();
        state.begin(two).unwrap();
        state.end(one).unwrap();
        state.end(one).unwrap();
        assert_eq!(state.torn().unwrap(), [two]);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("outbox/1-1.json"), "{").unwrap();
        std::fs::write(folder.path().join("outbox/2-1.new"), "{").unwrap();
        state.keep(&result(3)).unwrap();
        assert_eq!(state.outbox().unwrap(), [result(3)]);
        assert!(folder.path().join("outbox/1-1.bad").exists());
        assert!(!folder.path().join("outbox/2-1.new").exists());
    }
}
