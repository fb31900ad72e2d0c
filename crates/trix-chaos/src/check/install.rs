//! The invariants of an installation: its database, its output folders, and what its
//! clients wrote down. One function an invariant; the harnesses call [`check`] after every
//! run, and [`Report`] says of each invariant whether it was looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use trix_db::events::Event;
use trix_db::inspect::{RawEvent, RawPublication};
use trix_db::{Db, DbError};
use trix_model::state::{JobState, PublicationState};
use trix_model::{AttemptId, Digest};
use trix_storage::share::MARKER;

use super::rules::{self, LEAP};
use super::{Violation, stream::Stream};
use crate::model::Tables;
use crate::model::publish::folder;

/// A destination share as it is mounted here.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// Its name.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
}

/// What clients and harnesses wrote down. All of it is optional: an invariant whose record
/// is missing is reported as not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journals {
    /// Submits that were answered with success: principal, key, job.
    pub submits: Option<Vec<Submitted>>,
    /// The numbers that each event consumer saw, in its order, after dropping repeated ones.
    pub consumers: Option<Vec<Vec<i64>>>,
    /// sha256 of published files in a run without faults, by share and path.
    pub golden: Option<BTreeMap<String, Digest>>,
    /// Source trees as they were: by path of this machine, the digest of [`tree_digest`].
    pub sources: Option<BTreeMap<PathBuf, Digest>>,
    /// Files of histories that restores from backups have cut off, by share and path: they
    /// stand where they stood, whoever knows of them.
    pub left_by_restores: BTreeMap<String, Digest>,
    /// Bare mount points, which must hold nothing while nothing is mounted.
    pub bare: Option<Vec<PathBuf>>,
    /// Secrets that must not appear in events.
    pub canaries: Option<Vec<String>>,
    /// Mutating calls of the api that were accepted.
    pub mutations: Option<u64>,
    /// All is healed and had time to come to rest.
    pub at_rest: bool,
}

/// A submit that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Under which key.
    pub key: String,
    /// The job that the answer named.
    pub job: i64,
}

/// Whether an invariant was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// At so many things.
    At(u64),
    /// Not; why.
    No(&'static str),
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each invariant, in order.
    pub looked: Vec<(&'static str, &'static str, Looked)>,
    /// What does not hold.
    pub violations: Vec<Violation>,
}

/// Why a check could not be made.
#[derive(Debug)]
pub enum CheckError {
    /// The database.
    Db(DbError),
    /// A folder.
    Folder(PathBuf, std::io::Error),
}

impl std::fmt::Display for CheckError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CheckError::Db(_) => f.write_str("reading the database"),
            CheckError::Folder(path, _) => write!(f, "reading {}", path.display()),
        }
    }
}

impl std::error::Error for CheckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CheckError::Db(e) => Some(e),
            CheckError::Folder(_, e) => Some(e),
        }
    }
}

impl From<DbError> for CheckError {
    fn from(e: DbError) -> CheckError {
        CheckError::Db(e)
    }
}

/// Everything that was read for a check.
struct Seen<'a> {
    t: Tables,
    events: Vec<Event>,
    stream: Stream,
    shares: &'a [Mounted],
    journals: &'a Journals,
    /// Visible files of each share: path, size, sha256.
    visible: BTreeMap<(String, String), (u64, Digest)>,
    audit_break: Option<i64>,
    audit_rows: u64,
    out: Vec<Violation>,
}

/// Reads an installation and asks every invariant that can be asked.
pub async fn check(db: &Db, shares: &[Mounted], journals: &Journals) -> Result<Report, CheckError> {
    let snapshot = db.snapshot().await?;
    let mut events = Vec::new();
    let mut after = snapshot.oldest - 1;
    // Events that were numbered since are not of this moment.
    while after < snapshot.head {
        let more = db.events(after, None, 5000).await?;
        let Some(last) = more.last() else { break };
        after = last.seq;
        events.extend(more.into_iter().filter(|e| e.seq <= snapshot.head));
    }
    let log = events.iter().map(raw).collect();
    let mut visible = BTreeMap::new();
    for share in shares {
        for (path, seen) in files(&share.root)? {
            visible.insert((share.name.clone(), path), seen);
        }
    }
    let mut seen = Seen {
        t: Tables::of(snapshot, log),
        events,
        stream: Stream::default(),
        shares,
        journals,
        visible,
        audit_break: db.audit_verify().await?,
        audit_rows: audit_rows(db).await?,
        out: Vec::new(),
    };
    seen.fold();
    let mut report = Report::default();
    let mut add = |rule, what, looked| report.looked.push((rule, what, looked));
    add("I1", "answered submits exist, and jobs can end", seen.i1());
    add("I2", "one job per key", seen.i2());
    add("I3", "one running attempt per task", seen.i3());
    add("I4", "epochs without holes", seen.i4());
    add("I5", "done means one success or a cache hit", seen.i5());
    add("I6", "no result after its worker's end", seen.i6());
    add("I7", "versions unique and contiguous, one current", seen.i7());
    add("I8", "folders are what the database says", seen.i8());
    add("I9", "a manifest stands only over whole files", seen.i9());
    add("I10", "published bytes are golden", seen.i10());
    add("I11", "sources and bare mount points untouched", seen.i11()?);
    add("I12", "events without holes tell the tables", seen.i12());
    add("I13", "consumers saw every event once, in order", seen.i13());
    add("I14", "what runs fits into its worker", seen.i14());
    add("I15", "at rest after healing", seen.i15());
    add("I16", "no debris of ended attempts", seen.i16()?);
    add("I17", "retry classes", seen.i17());
    add("I18", "leader epochs rise", seen.i18());
    add("I19", "nobody was marked too early", seen.i19());
    add("I20", "the audit trail verifies", seen.i20());
    add("I21", "nothing was passed over too long", Looked::No("needs the claims of a load run"));
    add("I22", "no canary leaked into events", seen.i22());
    add("I23", "no path outside the share roots", Looked::No("needs the recording file system"));
    report.violations = seen.out;
    Ok(report)
}

fn raw(e: &Event) -> RawEvent {
    RawEvent {
        job_id: e.job.map(|j| j.0),
        task_id: e.task.map(|t| t.0),
        kind: e.kind.clone(),
        body: e.body.clone(),
    }
}

async fn audit_rows(db: &Db) -> Result<u64, DbError> {
    let newest = db.audit_trail(None, 1).await?;
    Ok(newest.first().map_or(0, |row| row.seq as u64))
}

impl Seen<'_> {
    /// Runs the events through the stream once; its violations are sorted by rule later.
    fn fold(&mut self) {
        let lost_ms = self.t.time("lost_ms");
        let mut stream = Stream::default();
        if self.t.oldest == 1 {
            for e in self.t.events() {
                stream.take(e, lost_ms, &mut self.out);
            }
            stream.agrees(&self.t, &mut self.out);
        }
        self.stream = stream;
    }

    /// What the stream said of a rule; nothing where the log does not begin at 1.
    fn of_stream(&self, n: u64) -> Looked {
        match self.t.oldest {
            1 => Looked::At(n),
            _ => Looked::No("the log's beginning was dropped by its retention"),
        }
    }

    fn i1(&mut self) -> Looked {
        rules::counts(&self.t, &mut self.out);
        let Some(submits) = &self.journals.submits else {
            return Looked::At(self.t.tasks.len() as u64);
        };
        for s in submits {
            match self.t.jobs.get(&s.job) {
                Some(j) if j.submit_key == s.key => {}
                Some(j) => {
                    let what =
                        format!("job {} has the key {:?}, not {:?}", s.job, j.submit_key, s.key);
                    self.out.push(Violation::new("I1", what));
                }
                None => {
                    let what = format!("submit {:?} was answered with job {}", s.key, s.job);
                    self.out.push(Violation::new("I1", format!("{what}, which is not there")));
                }
            }
        }
        Looked::At(submits.len() as u64)
    }

    fn i2(&mut self) -> Looked {
        rules::one_job_a_key(&self.t, &mut self.out);
        let mut replies: BTreeMap<&str, i64> = BTreeMap::new();
        for s in self.journals.submits.iter().flatten() {
            let first = *replies.entry(&s.key).or_insert(s.job);
            if first != s.job {
                let what = format!("submit {:?} was answered with {first} and {}", s.key, s.job);
                self.out.push(Violation::new("I2", what));
            }
        }
        Looked::At(self.t.jobs.len() as u64)
    }

    fn i3(&mut self) -> Looked {
        rules::one_running_attempt(&self.t, &mut self.out);
        Looked::At(self.t.tasks.len() as u64)
    }

    fn i4(&mut self) -> Looked {
        rules::epochs_without_holes(&self.t, &mut self.out);
        // Of the leaps that the rule lets pass there is one for each adoption.
        let adopted = self.adoptions();
        for task in self.t.tasks.values() {
            let leaps = (task.epoch - self.t.attempts_of(task.id).count() as i64) / LEAP;
            if self.t.oldest == 1 && leaps > adopted {
                let (id, epoch) = (task.id, task.epoch);
                let what = format!("task {id} has epoch {epoch} after {adopted} adoptions");
                self.out.push(Violation::new("I4", what));
            }
        }
        Looked::At(self.t.attempts.len() as u64)
    }

    fn i5(&mut self) -> Looked {
        rules::done_means_one_success(&self.t, &mut self.out);
        Looked::At(self.t.tasks.len() as u64)
    }

    fn i6(&mut self) -> Looked {
        self.of_stream(self.stream.events)
    }

    fn i7(&mut self) -> Looked {
        rules::versions(&self.t, &mut self.out);
        Looked::At(self.t.publications.len() as u64)
    }

    /// How often the database was restored and adopted, as far as its log goes back.
    fn adoptions(&self) -> i64 {
        self.t.events().filter(|e| e.kind == "adopted").count() as i64
    }

    /// What a lost history left under a name.
    fn left(&self, name: &(String, String)) -> Option<Digest> {
        self.journals.left_by_restores.get(&format!("{}:{}", name.0, name.1)).copied()
    }

    /// True when a publication's share is mounted here.
    fn mounted(shares: &[Mounted], p: &RawPublication) -> bool {
        shares.iter().any(|s| s.name == p.share)
    }

    /// Where a publication's manifest stands.
    fn manifest_path(p: &RawPublication) -> String {
        format!("{}/manifest.json", folder(&p.target, p.version))
    }

    fn i8(&mut self) -> Looked {
        if self.shares.is_empty() {
            return Looked::No("no share was named");
        }
        let mut due: BTreeMap<(String, String), Option<(u64, Digest)>> = BTreeMap::new();
        let mut n = 0;
        for p in self.t.publications.values().filter(|p| Seen::mounted(self.shares, p)) {
            use PublicationState as P;
            // A conflict may have stopped in the middle; what was retracted is gone.
            let (may, must) = match p.state {
                P::Prepared | P::Retracted => (false, false),
                P::Moving | P::Conflict => (true, false),
                P::Published => (true, true),
            };
            if !may {
                continue;
            }
            due.insert((p.share.clone(), Seen::manifest_path(p)), None);
            for f in self.t.files.iter().filter(|f| f.publication_id == p.id) {
                n += 1;
                let name = (p.share.clone(), f.path.clone());
                // What was in a conflict's way is not its own.
                if p.state == P::Conflict && self.left(&name).is_some() {
                    continue;
                }
                let want = (f.size as u64, f.sha256);
                let found = self.visible.get(&name);
                if must && found != Some(&want) {
                    let what = format!("{}:{} is published and is {found:?}", p.share, f.path);
                    self.out.push(Violation::new("I8", what));
                }
                due.insert(name, Some(want));
            }
            let manifest = (p.share.clone(), Seen::manifest_path(p));
            if must && !self.visible.contains_key(&manifest) {
                let what = format!("{}:{} is missing", p.share, manifest.1);
                self.out.push(Violation::new("I8", what));
            }
        }
        for (name, found) in &self.visible {
            let wrong = match due.get(name) {
                _ if self.left(name).is_some_and(|before| before != found.1) => {
                    Some("it is not what a lost history left")
                }
                None if self.left(name).is_some() => None,
                None => Some("nobody published it"),
                Some(Some(want)) if want != found => Some("it is not what was published"),
                Some(_) => None,
            };
            if let Some(why) = wrong {
                let what = format!("{}:{} is visible: {why}", name.0, name.1);
                self.out.push(Violation::new("I8", what));
            }
        }
        Looked::At(n + self.visible.len() as u64)
    }

    fn i9(&mut self) -> Looked {
        if self.shares.is_empty() {
            return Looked::No("no share was named");
        }
        let mut n = 0;
        for p in self.t.publications.values().filter(|p| Seen::mounted(self.shares, p)) {
            let manifest = Seen::manifest_path(p);
            let name = (p.share.clone(), manifest.clone());
            let others = p.state == PublicationState::Conflict && self.left(&name).is_some();
            if others || !self.visible.contains_key(&name) {
                continue;
            }
            n += 1;
            for f in self.t.files.iter().filter(|f| f.publication_id == p.id) {
                let found = self.visible.get(&(p.share.clone(), f.path.clone()));
                if found != Some(&(f.size as u64, f.sha256)) {
                    let what = format!("{}:{manifest} stands over a wrong {}", p.share, f.path);
                    self.out.push(Violation::new("I9", what));
                }
            }
        }
        Looked::At(n)
    }

    fn i10(&mut self) -> Looked {
        let Some(golden) = &self.journals.golden else {
            return Looked::No("no golden run was given");
        };
        for f in &self.t.files {
            let published = (self.t.publications.get(&f.publication_id))
                .is_some_and(|p| p.state == PublicationState::Published);
            let name = format!("{}:{}", f.share, f.path);
            if published && golden.get(&name).is_some_and(|want| *want != f.sha256) {
                self.out.push(Violation::new("I10", format!("{name} is not golden")));
            }
        }
        Looked::At(golden.len() as u64)
    }

    fn i11(&mut self) -> Result<Looked, CheckError> {
        let (sources, bare) = (&self.journals.sources, &self.journals.bare);
        if sources.is_none() && bare.is_none() {
            return Ok(Looked::No("no source tree was recorded"));
        }
        let mut n = 0;
        for (path, before) in sources.iter().flatten() {
            n += 1;
            if tree_digest(path)? != *before {
                let what = format!("the source tree {} was changed", path.display());
                self.out.push(Violation::new("I11", what));
            }
        }
        for path in bare.iter().flatten() {
            n += 1;
            let mut there = fs::read_dir(path).map_err(|e| CheckError::Folder(path.clone(), e))?;
            if there.next().is_some() {
                let what =
                    format!("something was written to the bare mount point {}", path.display());
                self.out.push(Violation::new("I11", what));
            }
        }
        Ok(Looked::At(n))
    }

    fn i12(&mut self) -> Looked {
        let mut next = self.t.oldest;
        // Whoever adopts a restored database leaps over the numbers that it may have lost.
        let mut leaps = self.adoptions();
        for e in &self.events {
            if e.seq == next + LEAP && leaps > 0 {
                leaps -= 1;
                next = e.seq;
            }
            if e.seq != next {
                let what = format!("event {} follows {}", e.seq, next - 1);
                self.out.push(Violation::new("I12", what));
            }
            next = e.seq + 1;
        }
        if next != self.t.head + 1 {
            let what = format!("the head is {} and the last event {}", self.t.head, next - 1);
            self.out.push(Violation::new("I12", what));
        }
        Looked::At(self.events.len() as u64)
    }

    fn i13(&mut self) -> Looked {
        let Some(consumers) = &self.journals.consumers else {
            return Looked::No("no consumer's journal was given");
        };
        let mut n = 0;
        for (c, seen) in consumers.iter().enumerate() {
            n += seen.len() as u64;
            let broken = seen.windows(2).find(|w| w[1] != w[0] + 1);
            if let Some(w) = broken {
                let what = format!("consumer {c} saw {} after {}", w[1], w[0]);
                self.out.push(Violation::new("I13", what));
            }
            if self.journals.at_rest && seen.last().is_some_and(|last| *last != self.t.head) {
                let what = format!("consumer {c} ended before {}", self.t.head);
                self.out.push(Violation::new("I13", what));
            }
        }
        Looked::At(n)
    }

    fn i14(&mut self) -> Looked {
        rules::capacity(&self.t, &mut self.out);
        Looked::At(self.t.running().count() as u64)
    }

    fn i15(&mut self) -> Looked {
        if !self.journals.at_rest {
            return Looked::No("the installation is not said to be at rest");
        }
        rules::quiescent(&self.t, &mut self.out);
        Looked::At(self.t.jobs.len() as u64)
    }

    /// Stage folders of attempts whose job is over for good.
    fn i16(&mut self) -> Result<Looked, CheckError> {
        if self.shares.is_empty() || !self.journals.at_rest {
            return Ok(Looked::No("no share was named, or it is not said to be at rest"));
        }
        let mut n = 0;
        for share in self.shares {
            let stages = share.root.join(".trix/stage");
            let listed = match fs::read_dir(&stages) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                listed => listed.map_err(|e| CheckError::Folder(stages.clone(), e))?,
            };
            for entry in listed {
                let entry = entry.map_err(|e| CheckError::Folder(stages.clone(), e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                n += 1;
                let task = attempt_of(&name).and_then(|a| self.t.tasks.get(&a.task.0));
                let job = task.and_then(|t| self.t.jobs.get(&t.job_id));
                let over = |s: JobState| matches!(s, JobState::Succeeded | JobState::Cancelled);
                if job.is_none_or(|j| over(j.state)) {
                    let what = format!("{}:.trix/stage/{name} is left over", share.name);
                    self.out.push(Violation::new("I16", what));
                }
            }
        }
        Ok(Looked::At(n))
    }

    fn i17(&mut self) -> Looked {
        rules::retry_classes(&self.t, &mut self.out);
        Looked::At(self.t.tasks.len() as u64)
    }

    fn i18(&mut self) -> Looked {
        self.of_stream(self.t.leader.epoch as u64)
    }

    fn i19(&mut self) -> Looked {
        self.of_stream(self.stream.marked)
    }

    fn i20(&mut self) -> Looked {
        if let Some(seq) = self.audit_break {
            self.out
                .push(Violation::new("I20", format!("audit entry {seq} does not fit the chain")));
        }
        if let Some(n) = self.journals.mutations
            && n != self.audit_rows
        {
            let what = format!("{n} mutating calls were accepted, {} are audited", self.audit_rows);
            self.out.push(Violation::new("I20", what));
        }
        Looked::At(self.audit_rows)
    }

    fn i22(&mut self) -> Looked {
        let Some(canaries) = &self.journals.canaries else {
            return Looked::No("no canary was given");
        };
        for e in self.t.events() {
            let text = e.body.to_string();
            if canaries.iter().any(|c| text.contains(c.as_str())) {
                self.out.push(Violation::new("I22", format!("an event {} holds a secret", e.kind)));
            }
        }
        Looked::At(canaries.len() as u64)
    }
}

fn attempt_of(stage: &str) -> Option<AttemptId> {
    let (task, epoch) = stage.split_once('-')?;
    Some(AttemptId { task: task.parse().ok()?, epoch: epoch.parse().ok()? })
}

/// Visible files beneath a root: all but our own folder, and the share's marker.
fn files(root: &Path) -> Result<BTreeMap<String, (u64, Digest)>, CheckError> {
    let mut found = BTreeMap::new();
    let mut look = vec![root.to_owned()];
    while let Some(dir) = look.pop() {
        let failed = |e| CheckError::Folder(dir.clone(), e);
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if name == ".trix" || name == MARKER {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                look.push(path);
            } else {
                found.insert(name, file_digest(&path)?);
            }
        }
    }
    Ok(found)
}

fn file_digest(path: &Path) -> Result<(u64, Digest), CheckError> {
    let failed = |e| CheckError::Folder(path.to_owned(), e);
    let mut file = fs::File::open(path).map_err(failed)?;
    let (mut hash, mut size, mut buffer) = (sha2::Sha256::new(), 0, vec![0u8; 1 << 16]);
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok((size, Digest(hash.finalize().into())));
        }
        size += n as u64;
        hash.update(&buffer[..n]);
    }
}

/// One digest over a tree: names, sizes, whole seconds of modification, contents.
pub fn tree_digest(root: &Path) -> Result<Digest, CheckError> {
    let mut hash = sha2::Sha256::new();
    let names: BTreeSet<String> = files(root)?.into_keys().collect();
    for name in names {
        let path = root.join(&name);
        let failed = |e| CheckError::Folder(path.clone(), e);
        let modified = fs::metadata(&path).and_then(|m| m.modified()).map_err(failed)?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let (size, digest) = file_digest(&path)?;
        hash.update(format!("{name}\0{size}\0{}\0{digest}\n", since.as_secs()));
    }
    Ok(Digest(hash.finalize().into()))
}
