//! What an attempt does on its node. Tasks in slots read, take their time, and link what
//! they made; a publication goes through the steps of the worker's publisher, with the
//! fence between them: stage → prepare → begin move → each file → manifest → published.

use trix_db::{Claim, Credentials, DbError, Manifest, ManifestFile, Outcome, Publication, Usage};
use trix_model::state::PublicationState;
use trix_model::{AttemptId, Digest, ErrorClass, ErrorOrigin, Failure, Key};
use trix_plan::task::{MadeOutput, Publish, PublishFrom, TaskResult, TaskSpec};
use trix_worker::core::Event;

use super::plans::{self, OUTPUT};
use super::share::{Content, Placed};
use super::{Caller, Item, World};
use crate::breaks::Break;
use crate::model::publish::folder;
use crate::model::{Answer, Call, Refusal};

/// How a task behaves wherever it runs; decided by its name and the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It works.
    Good,
    /// Its input cannot be decoded.
    Deterministic,
    /// It kills its slot.
    Crash,
    /// It kills its slot once.
    CrashOnce,
    /// It fails now and then, until the world is healed.
    Flaky,
    /// It needs more memory than it was planned with.
    Hungry,
    /// It says that all is well and leaves out an output.
    Incomplete,
}

/// Where a publication stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A task in a slot.
    Slot,
    /// A publication begins.
    Begin,
    /// Copying into the stage.
    Stage,
    /// Waiting for the fence; the call is repeated until the database answers.
    Ask(Ask),
    /// The n-th file is moved.
    Place(usize),
    /// The manifest is written.
    Manifest,
    /// It ended; only its thread is left.
    Over,
}

/// What is asked of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Prepare,
    BeginMove,
    Published,
    Conflict,
}

/// An attempt under way.
#[derive(Clone, Debug)]
pub struct Attempt {
    claim: Claim,
    me: Credentials,
    step: Step,
    /// It was told to stop.
    pub stopped: bool,
    /// Its worker does not wait for it any more.
    pub abandoned: bool,
    /// Which of its steps is due; others are of the past.
    due: u64,
    /// Publication: the version's row.
    row: Option<Publication>,
    /// Publication: where its files are staged.
    stage: AttemptId,
    /// The files are staged by this attempt.
    staged: bool,
}

impl Attempt {
    /// One that has just been claimed.
    pub fn new(claim: Claim, me: Credentials) -> Attempt {
        let step = match claim.spec {
            TaskSpec::Publish(_) => Step::Begin,
            _ => Step::Slot,
        };
        let stage = claim.attempt;
        Attempt {
            claim,
            me,
            step,
            stopped: false,
            abandoned: false,
            due: 0,
            row: None,
            stage,
            staged: false,
        }
    }

    /// True when it runs on a thread of the worker, not in a process of its own.
    pub fn in_worker(&self) -> bool {
        matches!(self.claim.spec, TaskSpec::Publish(_))
    }
}

fn transient(code: &str) -> Failure {
    Failure::new(ErrorClass::Transient, ErrorOrigin::Node, code, code)
}

/// The failure that the worker makes of a refusal by the fence.
fn refused(r: &Refusal) -> Failure {
    let operation = "asking the fence";
    let message = String::new();
    Failure::from(match r {
        Refusal::Refused => DbError::Refused { operation, message },
        Refusal::Denied => DbError::Denied { operation, message },
        Refusal::NotFound => DbError::NotFound { operation, message },
        Refusal::NotLeader => DbError::NotLeader { operation },
        Refusal::Conflict(code) => DbError::Conflict { operation, code: code.clone(), message },
    })
}

/// The bytes of a version's manifest, by what decides them.
fn manifest_content(m: &Manifest, version: u32) -> Content {
    let mut d = [0xeeu8; 32];
    for (i, f) in m.files.iter().enumerate() {
        for (j, b) in f.sha256.0.iter().enumerate() {
            d[(i * 7 + j) % 32] = d[(i * 7 + j) % 32].wrapping_mul(33) ^ b;
        }
    }
    d[0] ^= version as u8;
    Content(Digest(d))
}

/// Where a file of a version stands.
fn place_of(m: &Manifest, version: u32, name: &str) -> String {
    format!("{}/{name}", folder(m.target.as_str(), i64::from(version)))
}

impl World {
    /// What the manifest of a published version must be, and where.
    pub(super) fn manifest_of(m: &Manifest, version: i64) -> (String, Content) {
        let version = version as u32;
        (place_of(m, version, "manifest.json"), manifest_content(m, version))
    }

    /// How a task behaves.
    pub(super) fn nature(&self, claim: &Claim) -> Nature {
        let mut h = self.nature_seed ^ (claim.job.0 as u64).wrapping_mul(0x9e37_79b9);
        for b in claim.name.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        if matches!(claim.spec, TaskSpec::Publish(_)) {
            return Nature::Good;
        }
        match (h >> 17) % 100 {
            0..=2 => Nature::Deterministic,
            3..=4 => Nature::Crash,
            5..=8 => Nature::CrashOnce,
            9..=18 => Nature::Flaky,
            19..=22 => Nature::Hungry,
            23..=24 => Nature::Incomplete,
            _ => Nature::Good,
        }
    }

    pub(super) fn attempt_later(&mut self, node: usize, a: AttemptId, ms: u64) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        attempt.due += 1;
        let due = attempt.due;
        let generation = self.nodes[node].generation;
        self.at(ms, Item::Attempt { node, generation, attempt: a, due });
    }

    pub(super) fn attempt_mut(&mut self, node: usize, a: AttemptId) -> Option<&mut Attempt> {
        self.nodes[node].process.as_mut()?.attempts.get_mut(&a)
    }

    /// The next step of an attempt.
    pub(super) fn attempt_step(&mut self, node: usize, a: AttemptId, due: u64) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        if attempt.due != due {
            return;
        }
        let step = attempt.step.clone();
        match step {
            Step::Slot => self.slot_ends(node, a),
            Step::Begin => self.publication_begins(node, a),
            Step::Stage => self.stage(node, a),
            Step::Ask(ask) => self.ask(node, a, ask),
            Step::Place(n) => self.place(node, a, n),
            Step::Manifest => self.manifest(node, a),
            Step::Over => {}
        }
    }

    fn end_attempt(&mut self, node: usize, a: AttemptId, outcome: Outcome) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        attempt.step = Step::Over;
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.attempts.remove(&a);
        }
        self.tell(node, Event::Ended { attempt: a, outcome, usage: Usage::default() });
    }

    fn fail(&mut self, node: usize, a: AttemptId, failure: Failure) {
        self.end_attempt(node, a, Outcome::Failed(failure));
    }

    fn goto(&mut self, node: usize, a: AttemptId, step: Step) {
        if let Some(attempt) = self.attempt_mut(node, a) {
            attempt.step = step;
        }
        let ms = self.rng.between(1, 60);
        self.attempt_later(node, a, ms);
    }

    fn claim_of(&mut self, node: usize, a: AttemptId) -> Option<Claim> {
        self.attempt_mut(node, a).map(|attempt| attempt.claim.clone())
    }

    /// Artifacts that an attempt reads and that are not there.
    fn missing(&self, claim: &Claim) -> Vec<Key> {
        let gone = |i: &&trix_db::ArtifactRef| self.cache.get(&i.key) != Some(i.digest);
        claim.inputs.iter().filter(gone).map(|i| i.key).collect()
    }

    fn slot_ends(&mut self, node: usize, a: AttemptId) {
        let Some(claim) = self.claim_of(node, a) else { return };
        if self.attempt_mut(node, a).is_some_and(|x| x.stopped) {
            return self.fail(node, a, transient("released"));
        }
        let missing = self.missing(&claim);
        if !missing.is_empty() {
            return self.end_attempt(node, a, Outcome::MissingInputs(missing));
        }
        let epoch = a.epoch.0;
        let engine = |class, code: &str| Failure::new(class, ErrorOrigin::Engine, code, code);
        let failure = match self.nature(&claim) {
            Nature::Deterministic => Some(engine(ErrorClass::Deterministic, "cannot_decode")),
            Nature::Crash => Some(engine(ErrorClass::Crash, "signal")),
            Nature::CrashOnce if epoch == 1 => Some(engine(ErrorClass::Crash, "signal")),
            Nature::Flaky if !self.healed && self.rng.one_in(2) => Some(transient("hiccup")),
            Nature::Hungry if claim.cost.ram < 150 => {
                Some(engine(ErrorClass::Resource, "out_of_memory"))
            }
            _ => None,
        };
        if let Some(failure) = failure {
            return self.fail(node, a, failure);
        }
        let mut outputs = Vec::new();
        for o in &claim.missing {
            let digest = self.cache.link(o.key, plans::golden(&o.key));
            outputs.push(MadeOutput { name: o.name.clone(), key: o.key, digest, size: 9 });
        }
        if self.nature(&claim) == Nature::Incomplete {
            outputs.pop();
        }
        self.end_attempt(node, a, Outcome::Ok(TaskResult { outputs, detail: None }));
    }

    fn publish_of(claim: &Claim) -> Option<&Publish> {
        match &claim.spec {
            TaskSpec::Publish(p) => Some(p),
            _ => None,
        }
    }

    fn manifest_wanted(claim: &Claim) -> Option<Manifest> {
        let p = World::publish_of(claim)?;
        let files = p.files.iter().map(|f| {
            let PublishFrom::Artifact { key } = f.from else {
                unreachable!("the plans of a world stage nothing")
            };
            ManifestFile {
                name: f.name.clone(),
                size: 9,
                sha256: plans::golden(&key),
                blake3: None,
            }
        });
        Some(Manifest {
            share: p.share.clone(),
            target: p.target.clone(),
            role: p.role.clone(),
            files: files.collect(),
        })
    }

    fn share_is_away(&self, node: usize) -> bool {
        !self.nodes[node].usable.contains(OUTPUT)
    }

    fn publication_begins(&mut self, node: usize, a: AttemptId) {
        let Some(claim) = self.claim_of(node, a) else { return };
        if let Some(row) = claim.roll_forward.clone() {
            if row.state == PublicationState::Published {
                return self.publication_ends(node, a);
            }
            let stages = self.output.stages_of(a.task);
            let stage = stages.last().copied().unwrap_or(a);
            if let Some(attempt) = self.attempt_mut(node, a) {
                (attempt.row, attempt.stage) = (Some(row), stage);
            }
            return self.goto(node, a, Step::Ask(Ask::BeginMove));
        }
        self.goto(node, a, Step::Stage);
    }

    fn stage(&mut self, node: usize, a: AttemptId) {
        let Some(claim) = self.claim_of(node, a) else { return };
        if self.attempt_mut(node, a).is_some_and(|x| x.stopped) {
            self.output.drop_stages([a]);
            return self.fail(node, a, transient("released"));
        }
        if self.share_is_away(node) {
            return self.fail(node, a, Failure::share("away"));
        }
        let missing = self.missing(&claim);
        if !missing.is_empty() {
            return self.end_attempt(node, a, Outcome::MissingInputs(missing));
        }
        let Some(m) = World::manifest_wanted(&claim) else { return };
        let files = m.files.iter().map(|f| (f.name.to_string(), Content(f.sha256)));
        self.output.stages.insert(a, files.collect());
        if let Some(attempt) = self.attempt_mut(node, a) {
            (attempt.stage, attempt.staged) = (a, true);
        }
        if self.broken == Some(Break::PublishFirst) {
            for f in &m.files {
                let to = place_of(&m, 1, f.name.as_str());
                self.output.link(a, f.name.as_str(), &to, Content(f.sha256));
            }
        }
        self.goto(node, a, Step::Ask(Ask::Prepare));
    }

    /// Asks the fence, unless the attempt was told to stop.
    fn ask(&mut self, node: usize, a: AttemptId, ask: Ask) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        if attempt.stopped {
            return self.fail(node, a, transient("released"));
        }
        let me = attempt.me.clone();
        let call = match ask {
            Ask::Prepare => {
                let Some(m) = World::manifest_wanted(&attempt.claim) else { return };
                Call::Prepare(me, a, Box::new(m))
            }
            Ask::BeginMove => Call::BeginMove(me, a),
            Ask::Published => Call::Published(me, a),
            Ask::Conflict => Call::Conflict(me, a),
        };
        self.send(Caller::Attempt(node, a), call);
    }

    /// The fence answered, or the database is away.
    pub(super) fn fence_answers(
        &mut self,
        node: usize,
        a: AttemptId,
        answer: Option<Result<Answer, Refusal>>,
    ) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        let Step::Ask(ask) = attempt.step else { return };
        let answer = match answer {
            // A publication that waits is better than one that is staged again.
            None => return self.attempt_later(node, a, 200),
            Some(Err(r)) => return self.fail(node, a, refused(&r)),
            Some(Ok(answer)) => answer,
        };
        match (ask, answer) {
            (Ask::Prepare, Answer::Publication(row)) => {
                let state = row.state;
                attempt.row = Some(*row);
                match state {
                    PublicationState::Prepared | PublicationState::Moving => {
                        self.goto(node, a, Step::Ask(Ask::BeginMove));
                    }
                    PublicationState::Published => self.publication_ends(node, a),
                    _ => self.fail(node, a, Failure::request("publish_conflict", "conflict")),
                }
            }
            (Ask::BeginMove, _) if self.broken == Some(Break::ManifestFirst) => {
                self.goto(node, a, Step::Manifest);
            }
            (Ask::BeginMove, _) => self.goto(node, a, Step::Place(0)),
            (Ask::Published, _) => self.publication_ends(node, a),
            (Ask::Conflict, _) => {
                self.fail(node, a, Failure::request("publish_conflict", "a name is taken"));
            }
            (Ask::Prepare, _) => {}
        }
    }

    fn place(&mut self, node: usize, a: AttemptId, n: usize) {
        let Some(attempt) = self.attempt_mut(node, a) else { return };
        let (Some(row), stage, staged) = (attempt.row.clone(), attempt.stage, attempt.staged)
        else {
            return;
        };
        if self.share_is_away(node) {
            return self.fail(node, a, Failure::share("away"));
        }
        let Some(f) = row.manifest.files.get(n) else {
            let manifest_is_there = self.broken == Some(Break::ManifestFirst);
            let next = if manifest_is_there { Step::Ask(Ask::Published) } else { Step::Manifest };
            return self.goto(node, a, next);
        };
        let to = place_of(&row.manifest, row.version, f.name.as_str());
        let content = Content(f.sha256);
        let placed = match self.broken {
            Some(Break::ReplaceByRename) => {
                self.output.rename(stage, f.name.as_str(), &to, content)
            }
            _ => self.output.link(stage, f.name.as_str(), &to, content),
        };
        match placed {
            Placed::There => self.goto(node, a, Step::Place(n + 1)),
            Placed::Taken => self.goto(node, a, Step::Ask(Ask::Conflict)),
            // Staged anew, under the same version.
            Placed::Lost if !staged => self.goto(node, a, Step::Stage),
            Placed::Lost => self.fail(node, a, transient("stage_lost")),
        }
    }

    fn manifest(&mut self, node: usize, a: AttemptId) {
        let Some(row) = self.attempt_mut(node, a).and_then(|x| x.row.clone()) else { return };
        if self.share_is_away(node) {
            return self.fail(node, a, Failure::share("away"));
        }
        let (to, content) = World::manifest_of(&row.manifest, i64::from(row.version));
        let next = match self.output.create(&to, content) {
            Placed::There if self.broken == Some(Break::ManifestFirst) => Step::Place(0),
            Placed::There | Placed::Lost => Step::Ask(Ask::Published),
            Placed::Taken => Step::Ask(Ask::Conflict),
        };
        self.goto(node, a, next);
    }

    fn publication_ends(&mut self, node: usize, a: AttemptId) {
        let own: Vec<AttemptId> =
            (self.output.stages_of(a.task).into_iter()).filter(|s| s.epoch <= a.epoch).collect();
        self.output.drop_stages(own);
        self.end_attempt(node, a, Outcome::Ok(TaskResult { outputs: vec![], detail: None }));
    }
}
