//! The shares of a world: a cache of artifacts, and a destination on which nothing is ever
//! replaced.

use std::collections::{BTreeMap, BTreeSet};

use trix_model::{AttemptId, Digest, Key};

/// The cache share: artifacts by key, with the digest of what lies there.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    files: BTreeMap<Key, Digest>,
}

impl Cache {
    /// Links a result under its key; what was there first stays. Gives what stands there now.
    pub fn link(&mut self, key: Key, digest: Digest) -> Digest {
        *self.files.entry(key).or_insert(digest)
    }

    /// What stands under a key.
    pub fn get(&self, key: &Key) -> Option<Digest> {
        self.files.get(key).copied()
    }

    /// Removes a file, as a lost disk or a prune does.
    pub fn remove(&mut self, key: &Key) {
        self.files.remove(key);
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Key> {
        self.files.keys().copied().collect()
    }
}

/// What a name on the destination holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(pub Digest);

/// How a staged file got its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It stands there now, or stood there before.
    There,
    /// Something else stands there.
    Taken,
    /// It is neither staged nor in place.
    Lost,
}

/// The destination share.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// Visible files by path.
    pub files: BTreeMap<String, Content>,
    /// Files that somebody else put there.
    pub foreign: BTreeMap<String, Content>,
    /// Staged files of each attempt, by name.
    pub stages: BTreeMap<AttemptId, BTreeMap<String, Content>>,
}

impl Folder {
    /// Moves a staged file to its place without replacing anything: `link`, then `unlink`.
    pub fn link(&mut self, stage: AttemptId, name: &str, to: &str, content: Content) -> Placed {
        let staged = self.stages.get(&stage).and_then(|s| s.get(name)).copied();
        match (self.files.get(to), staged) {
            (Some(there), _) if *there == content => Placed::There,
            (Some(_), _) => Placed::Taken,
            (None, None) => Placed::Lost,
            (None, Some(staged)) => {
                self.files.insert(to.to_owned(), staged);
                if let Some(files) = self.stages.get_mut(&stage) {
                    files.remove(name);
                }
                Placed::There
            }
        }
    }

    /// What a rename would do: whatever stood there is gone.
    pub fn rename(&mut self, stage: AttemptId, name: &str, to: &str, content: Content) -> Placed {
        let staged = self.stages.get_mut(&stage).and_then(|s| s.remove(name));
        match staged {
            Some(staged) => {
                self.files.insert(to.to_owned(), staged);
                Placed::There
            }
            None if self.files.get(to) == Some(&content) => Placed::There,
            None => Placed::Lost,
        }
    }

    /// Writes a small file whole, if nothing stands there.
    pub fn create(&mut self, to: &str, content: Content) -> Placed {
        match self.files.get(to) {
            Some(there) if *there != content => Placed::Taken,
            _ => {
                self.files.insert(to.to_owned(), content);
                Placed::There
            }
        }
    }

    /// Stages of a task, oldest first.
    pub fn stages_of(&self, task: trix_model::TaskId) -> Vec<AttemptId> {
        self.stages.keys().filter(|a| a.task == task).copied().collect()
    }

    /// Removes the stages of these attempts.
    pub fn drop_stages(&mut self, attempts: impl IntoIterator<Item = AttemptId>) {
        for a in attempts {
            self.stages.remove(&a);
        }
    }

    /// Puts a file there that is nobody's publication.
    pub fn plant(&mut self, path: &str, content: Content) {
        if !self.files.contains_key(path) {
            self.files.insert(path.to_owned(), content);
            self.foreign.insert(path.to_owned(), content);
        }
    }

    /// Names that are visible, beside what others put there.
    pub fn ours(&self) -> impl Iterator<Item = (&String, &Content)> {
        self.files.iter().filter(|(path, _)| !self.foreign.contains_key(*path))
    }
}

/// The set of shares that a node can use.
pub type Usable = BTreeSet<String>;
