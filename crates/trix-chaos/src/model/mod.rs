//! The protocol in memory: the functions of the migrations over [`Tables`], one
//! transaction a call.
//!
//! ```text
//! tables   the rows                                      shared with the checker
//! moves    states, readiness, loss, plans                0004, 0020, 0021
//! worker   register, sync, supersede, leave              0005
//! claim    who gets what, in which order                 0021
//! publish  prepare, move, published, conflict            0006, 0040
//! jobs     submit, cancel, retry, pause, drain           0007
//! leader   takeover, tick, mark, plan, repair, forget    0008, 0023
//! tend     parking, virtual time, ageing                 0020, 0023, 0052
//! ```
//!
//! **It is not a second opinion on what would be good.** It says what the SQL does, and
//! [`crate::replay`] compares the two call by call. What it leaves out are columns that
//! decide nothing: times of the wall clock, logs, progress, findings, results' details; and
//! what a world never asks for: holds, reservations, slots of shares, cordons.

mod claim;
mod jobs;
mod leader;
mod moves;
pub mod publish;
pub mod tables;
mod tend;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use trix_db::inspect::{FailureCode, RawEvent, RawLeader, RawNode};
use trix_db::jobs::{Submit, Submitted};
use trix_db::leader::{JobToPlan, LostWorker, Repaired, Tick};
use trix_db::{
    Credentials, Manifest, ProtocolTimes, Publication, RegisterRequest, Registered, SyncReply,
    SyncRequest,
};
use trix_model::state::JobState;
use trix_model::{AttemptId, Failure, JobId, Key, WorkerId};
use trix_plan::task::{Plan, TaskSpec};
use uuid::Uuid;

use crate::breaks::Break;
use crate::rng::Rng;
pub use tables::Tables;

/// One call to the database.
#[derive(Clone)]
pub enum Call {
    /// `register_v1`
    Register(Box<RegisterRequest>),
    /// `sync_v1`
    Sync(Box<SyncRequest>),
    /// `supersede_v1`
    Supersede(Credentials, WorkerId),
    /// `leave_v1`
    Leave(Credentials),
    /// `prepare_v1`
    Prepare(Credentials, AttemptId, Box<Manifest>),
    /// `begin_move_v1`
    BeginMove(Credentials, AttemptId),
    /// `published_v1`
    Published(Credentials, AttemptId),
    /// `conflict_v1`
    Conflict(Credentials, AttemptId),
    /// `submit_v1`
    Submit(Box<Submit>),
    /// `cancel_v1`
    Cancel(JobId),
    /// `retry_v1`
    Retry(JobId),
    /// `pause_v1`
    Pause(JobId),
    /// `resume_v1`
    Resume(JobId),
    /// `set_band_v1`
    SetBand(JobId, u8),
    /// `drain_v1`
    Drain(WorkerId),
    /// `emit_v1`
    Emit(String),
    /// `sequence_events_v1`
    Sequence,
    /// `takeover_v1`, by a dispatcher to whom the database did not answer for so long.
    Takeover(String, Duration),
    /// `tick_v1`, so long after the last one that succeeded.
    Tick(i64, Duration),
    /// `mark_lost_v1`
    MarkLost(i64),
    /// `jobs_to_plan_v1`
    JobsToPlan(i64, u32),
    /// `append_plan_v1`
    AppendPlan(i64, JobId, Box<Plan>),
    /// `fail_job_v1`
    FailJob(i64, JobId, Box<Failure>),
    /// `cache_hits_v1`
    CacheHits(i64),
    /// `repair_v1`
    Repair(i64),
    /// `finish_cancels_v1`
    FinishCancels(i64),
    /// `block_reasons_v1`
    BlockReasons(i64),
    /// `forget_artifact_v1`
    Forget(i64, Key),
    /// `tend_v1`
    Tend(i64),
    /// `age_v1`
    Age(i64),
}

impl std::fmt::Debug for Call {
    /// One line, without secrets and specs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name();
        match self {
            Call::Register(r) => write!(f, "{name} {}", r.node),
            Call::Sync(r) => {
                let results: Vec<String> = (r.results.iter())
                    .map(|x| format!("{}:{}", x.attempt, worker::outcome_name(&x.outcome)))
                    .collect();
                let held: Vec<String> = r.progress.iter().map(|p| p.attempt.to_string()).collect();
                write!(f, "{name} of worker {} want {}", r.me.worker, r.want)?;
                write!(f, " holds [{}] ended [{}]", held.join(" "), results.join(" "))
            }
            Call::Supersede(me, old) => write!(f, "{name} {old} by {}", me.worker),
            Call::Leave(me) => write!(f, "{name} of worker {}", me.worker),
            Call::Prepare(me, a, _)
            | Call::BeginMove(me, a)
            | Call::Published(me, a)
            | Call::Conflict(me, a) => write!(f, "{name} {a} of worker {}", me.worker),
            Call::Submit(s) => write!(f, "{name} {} {}", s.key, s.request_hash),
            Call::Cancel(j) | Call::Retry(j) | Call::Pause(j) | Call::Resume(j) => {
                write!(f, "{name} job {j}")
            }
            Call::SetBand(j, band) => write!(f, "{name} job {j} {band}"),
            Call::Drain(w) => write!(f, "{name} worker {w}"),
            Call::Emit(kind) => write!(f, "{name} {kind}"),
            Call::Sequence => f.write_str(name),
            Call::Takeover(holder, outage) => write!(f, "{name} by {holder} after {outage:?}"),
            Call::Tick(e, since) => write!(f, "{name} of {e} after {since:?}"),
            Call::AppendPlan(e, j, _) | Call::FailJob(e, j, _) => {
                write!(f, "{name} job {j} of {e}")
            }
            Call::MarkLost(e)
            | Call::JobsToPlan(e, _)
            | Call::CacheHits(e)
            | Call::Repair(e)
            | Call::FinishCancels(e)
            | Call::BlockReasons(e)
            | Call::Tend(e)
            | Call::Age(e) => write!(f, "{name} of {e}"),
            Call::Forget(e, key) => write!(f, "{name} {key} of {e}"),
        }
    }
}

impl Call {
    /// What it is, in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Call::Register(_) => "register",
            Call::Sync(_) => "sync",
            Call::Supersede(..) => "supersede",
            Call::Leave(_) => "leave",
            Call::Prepare(..) => "prepare",
            Call::BeginMove(..) => "begin move",
            Call::Published(..) => "published",
            Call::Conflict(..) => "conflict",
            Call::Submit(_) => "submit",
            Call::Cancel(_) => "cancel",
            Call::Retry(_) => "retry",
            Call::Pause(_) => "pause",
            Call::Resume(_) => "resume",
            Call::SetBand(..) => "set band",
            Call::Drain(_) => "drain",
            Call::Emit(_) => "emit",
            Call::Sequence => "sequence",
            Call::Takeover(..) => "takeover",
            Call::Tick(..) => "tick",
            Call::MarkLost(_) => "mark lost",
            Call::JobsToPlan(..) => "jobs to plan",
            Call::AppendPlan(..) => "append plan",
            Call::FailJob(..) => "fail job",
            Call::CacheHits(_) => "cache hits",
            Call::Repair(_) => "repair",
            Call::FinishCancels(_) => "finish cancels",
            Call::BlockReasons(_) => "block reasons",
            Call::Forget(..) => "forget",
            Call::Tend(_) => "tend",
            Call::Age(_) => "age",
        }
    }
}

impl Call {
    /// Who makes it, where a worker does.
    pub fn credentials(&mut self) -> Option<&mut Credentials> {
        match self {
            Call::Sync(r) => Some(&mut r.me),
            Call::Supersede(me, _)
            | Call::Leave(me)
            | Call::Prepare(me, ..)
            | Call::BeginMove(me, _)
            | Call::Published(me, _)
            | Call::Conflict(me, _) => Some(me),
            _ => None,
        }
    }

    /// The attempt that it is made for, where the fence asks.
    pub fn attempt(&mut self) -> Option<&mut AttemptId> {
        match self {
            Call::Prepare(_, a, _)
            | Call::BeginMove(_, a)
            | Call::Published(_, a)
            | Call::Conflict(_, a) => Some(a),
            _ => None,
        }
    }

    /// The epoch of the leader who makes it; a tick belongs to its session.
    pub fn leader_epoch(&mut self) -> Option<&mut i64> {
        match self {
            Call::MarkLost(e)
            | Call::JobsToPlan(e, _)
            | Call::AppendPlan(e, ..)
            | Call::FailJob(e, ..)
            | Call::CacheHits(e)
            | Call::Repair(e)
            | Call::FinishCancels(e)
            | Call::BlockReasons(e)
            | Call::Forget(e, _)
            | Call::Tend(e)
            | Call::Age(e) => Some(e),
            _ => None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// To register.
    Registered(Registered),
    /// To sync.
    Synced(Box<SyncReply>),
    /// To supersede, and where something was counted.
    Count(u64),
    /// To prepare.
    Publication(Box<Publication>),
    /// To submit.
    Submitted(Submitted),
    /// To an operator.
    Job(JobState),
    /// To a sequencer: how many were numbered.
    Sequenced(u32),
    /// To a takeover: the epoch.
    Leads(i64),
    /// To a tick.
    Ticked(Tick),
    /// To mark lost.
    Lost(Vec<LostWorker>),
    /// To jobs to plan.
    ToPlan(Vec<JobToPlan>),
    /// Yes or no.
    Flag(bool),
    /// To repair.
    Repaired(Repaired),
}

/// Why a call was not granted; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// TX401
    Denied,
    /// TX403
    Refused,
    /// TX404
    NotFound,
    /// TX409 with its code
    Conflict(String),
    /// TX410
    NotLeader,
}

/// The rows, and what the functions need beside them.
#[derive(Clone, Debug)]
pub struct Model {
    /// The rows.
    pub t: Tables,
    /// The protocol's times.
    pub times: ProtocolTimes,
    /// What was taken out, if anything.
    pub broken: Option<Break>,
    /// Milliseconds by the wall clock of the database's machine, for the break that uses it.
    pub wall_ms: i64,
    /// The delays that a database drew, by task, where the model is to take them over; see
    /// [`crate::replay`].
    pub drawn: Option<BTreeMap<i64, i64>>,
    /// What the model took over of them since whoever watches looked: each delay, and the
    /// most that it could have been.
    pub delays: Vec<(i64, i64)>,
    /// A row that decides something may have changed since the checker looked.
    pub touched: bool,
    /// Events that were written since whoever watches took them.
    pub fresh: Vec<RawEvent>,
    /// Arrival numbers of the events that wait, in order.
    waiting_ids: Vec<i64>,
    /// The number of each event of the log.
    pub seqs: Vec<i64>,
    rng: Rng,
    incarnation: Uuid,
    specs: BTreeMap<i64, TaskSpec>,
    estimates: BTreeMap<i64, u64>,
    plans: BTreeMap<i64, Vec<trix_plan::task::Task>>,
    titles: BTreeMap<i64, String>,
    /// Order of moments; stands for `clock_timestamp()`.
    moment: u64,
    started: BTreeMap<(i64, i64), u64>,
    made: BTreeMap<Key, u64>,
    last_seen: BTreeMap<i64, i64>,
    silent_before: Vec<i64>,
    /// Sources that each worker's machine has read of late, the latest last.
    hot: BTreeMap<i64, Vec<String>>,
    /// Up to which virtual time the work of each job is planned.
    rank_ends: BTreeMap<i64, i64>,
    /// What only orders the queue, see `tend`.
    queue: tend::Queue,
    ids: Ids,
}

/// Identity columns: a number is used up even when its transaction is rolled back.
#[derive(Clone, Debug, Default)]
struct Ids {
    event: i64,
    job: i64,
    task: i64,
    worker: i64,
    publication: i64,
}

/// Result of a function.
pub type Granted<T> = Result<T, Refusal>;

impl Model {
    /// A new database with these nodes.
    pub fn new(nodes: &[&str], times: ProtocolTimes, rng: Rng) -> Model {
        let nodes = nodes.iter().zip(1..).map(|(name, id)| {
            (id, RawNode { id, name: (*name).to_owned(), state: "ok".to_owned() })
        });
        // What the schema has until a leader writes its own.
        let leader =
            RawLeader { times: leader_times(&ProtocolTimes::default()), ..RawLeader::default() };
        let t = Tables { nodes: nodes.collect(), leader, oldest: 1, ..Tables::default() };
        Model {
            t,
            times,
            broken: None,
            wall_ms: 0,
            drawn: None,
            delays: Vec::new(),
            touched: true,
            fresh: Vec::new(),
            waiting_ids: Vec::new(),
            seqs: Vec::new(),
            rng,
            incarnation: Uuid::from_u128(1),
            specs: BTreeMap::new(),
            estimates: BTreeMap::new(),
            plans: BTreeMap::new(),
            titles: BTreeMap::new(),
            moment: 0,
            started: BTreeMap::new(),
            made: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            silent_before: Vec::new(),
            hot: BTreeMap::new(),
            rank_ends: BTreeMap::new(),
            queue: tend::Queue::default(),
            ids: Ids::default(),
        }
    }

    /// Runs one transaction.
    pub fn call(&mut self, call: &Call) -> Granted<Answer> {
        self.touched = true;
        match call {
            Call::Register(r) => self.register(r).map(Answer::Registered),
            Call::Sync(r) => self.sync(r).map(|a| Answer::Synced(Box::new(a))),
            Call::Supersede(me, old) => self.supersede(me, old.0).map(Answer::Count),
            Call::Leave(me) => self.leave(me).map(|()| Answer::Done),
            Call::Prepare(me, a, m) => {
                self.prepare(me, *a, m).map(|p| Answer::Publication(Box::new(p)))
            }
            Call::BeginMove(me, a) => self.begin_move(me, *a).map(|()| Answer::Done),
            Call::Published(me, a) => self.published(me, *a).map(|()| Answer::Done),
            Call::Conflict(me, a) => self.conflict(me, *a).map(|()| Answer::Done),
            Call::Submit(s) => self.submit(s).map(Answer::Submitted),
            Call::Cancel(j) => self.cancel(j.0).map(Answer::Job),
            Call::Retry(j) => self.retry(j.0).map(Answer::Job),
            Call::Pause(j) => self.pause(j.0).map(Answer::Job),
            Call::Resume(j) => self.resume(j.0).map(Answer::Job),
            Call::SetBand(j, band) => self.set_band(j.0, *band).map(|()| Answer::Done),
            Call::Drain(w) => self.drain(w.0).map(|()| Answer::Done),
            Call::Emit(kind) => {
                self.emit(kind, None, None, json!({}));
                Ok(Answer::Done)
            }
            Call::Sequence => Ok(Answer::Sequenced(self.sequence())),
            Call::Takeover(holder, outage) => Ok(Answer::Leads(self.takeover(holder, *outage))),
            Call::Tick(epoch, since) => self.tick(*epoch, *since).map(Answer::Ticked),
            Call::MarkLost(epoch) => self.mark_lost(*epoch).map(Answer::Lost),
            Call::JobsToPlan(epoch, n) => self.jobs_to_plan(*epoch, *n).map(Answer::ToPlan),
            Call::AppendPlan(epoch, j, plan) => {
                self.append_plan(*epoch, j.0, plan).map(Answer::Flag)
            }
            Call::FailJob(epoch, j, failure) => {
                self.fail_job(*epoch, j.0, failure).map(|()| Answer::Done)
            }
            Call::CacheHits(epoch) => self.cache_hits(*epoch).map(Answer::Count),
            Call::Repair(epoch) => self.repair(*epoch).map(Answer::Repaired),
            Call::FinishCancels(epoch) => self.finish_cancels(*epoch).map(Answer::Count),
            Call::BlockReasons(epoch) => self.block_reasons(*epoch).map(Answer::Count),
            Call::Forget(epoch, key) => self.forget(*epoch, key).map(Answer::Flag),
            Call::Tend(epoch) => self.tend(*epoch).map(Answer::Count),
            Call::Age(epoch) => self.age(*epoch).map(Answer::Count),
        }
    }

    fn is_broken(&self, b: Break) -> bool {
        self.broken == Some(b)
    }

    fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn emit(&mut self, kind: &str, job: Option<i64>, task: Option<i64>, body: Value) {
        let id = self.begin_event();
        let event = RawEvent { job_id: job, task_id: task, kind: kind.into(), body };
        self.commit_event(id, event);
    }

    /// A transaction writes an event and takes its arrival number; nobody sees it yet.
    pub fn begin_event(&mut self) -> i64 {
        self.ids.event += 1;
        self.ids.event
    }

    /// The transaction commits, perhaps after others that took their numbers later.
    pub fn commit_event(&mut self, id: i64, event: RawEvent) {
        self.fresh.push(event.clone());
        let at = self.waiting_ids.partition_point(|other| *other < id);
        self.waiting_ids.insert(at, id);
        self.t.unnumbered.insert(at, event);
    }

    fn sequence(&mut self) -> u32 {
        let n = self.t.unnumbered.len().min(trix_db::events::SEQUENCER_BATCH as usize);
        self.t.log.extend(self.t.unnumbered.drain(..n));
        for id in self.waiting_ids.drain(..n) {
            self.t.head = match self.broken {
                Some(Break::NaiveSequence) => self.t.head.max(id),
                _ => self.t.head + 1,
            };
            self.seqs.push(if self.broken == Some(Break::NaiveSequence) {
                id
            } else {
                self.t.head
            });
        }
        n as u32
    }

    /// A sequencer's transaction that is rolled back. Its numbers are nobody's.
    pub fn sequence_in_vain(&mut self) {
        if self.is_broken(Break::SequencerHoles) {
            self.t.head += self.t.unnumbered.len() as i64;
        }
    }

    /// Arrival numbers of events that are visible and not numbered yet.
    pub fn arrivals(&self) -> &[i64] {
        &self.waiting_ids
    }

    /// Back-off of a task with full jitter: from 0 to `cap`, rounded as the database rounds.
    /// What a database drew is taken over as far as it lies within: beyond, the model keeps
    /// to the limit, and the two differ.
    fn backoff(&mut self, task: i64, cap: f64) -> i64 {
        let most = cap.round() as i64;
        match &self.drawn {
            None => (self.rng.unit() * cap).round() as i64,
            Some(drawn) => {
                let delay = drawn.get(&task).copied().unwrap_or(0).clamp(0, most);
                self.delays.push((delay, most));
                delay
            }
        }
    }
}

/// The times that a leader writes at its takeover.
pub fn leader_times(t: &ProtocolTimes) -> BTreeMap<String, i64> {
    let ms = |d: Duration| d.as_millis() as i64;
    [
        ("suspect_ms", t.suspect),
        ("lost_ms", t.lost),
        ("backoff_min_ms", t.backoff_min),
        ("backoff_max_ms", t.backoff_max),
        ("transient_budget_ms", t.transient_budget),
        ("ageing_ms", t.ageing),
        ("reserve_ms", t.reserve),
        ("suspicion_ms", t.suspicion),
    ]
    .map(|(name, d)| (name.to_owned(), ms(d)))
    .into()
}

/// Adds the fields of `more` to an event's body.
fn with(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

fn code_of(f: &Failure) -> FailureCode {
    FailureCode { class: f.class, code: f.code.clone() }
}

fn transient(code: &str) -> FailureCode {
    FailureCode { class: trix_model::ErrorClass::Transient, code: code.into() }
}

/// The class as the database counts it.
fn class_name(class: trix_model::ErrorClass) -> &'static str {
    use trix_model::ErrorClass as C;
    match class {
        C::Transient => "transient",
        C::Resource => "resource",
        C::Deterministic => "deterministic",
        C::Crash => "crash",
    }
}
