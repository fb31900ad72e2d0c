//! The worker's mind: events in, actions out. **It does no input or output and
//! knows no clock**; time is handed in as the duration since the worker started.
//!
//! What stands here is reliability.md 3.8: what a worker does when the database,
//! a share or its own standing in the cluster goes away and comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trix_db::{
    Accepted, AttemptProgress, AttemptResult, Claim, Credentials, Outcome, ProtocolTimes,
    Registered, Resources, SyncReply, SyncRequest, Usage, Verdict, WorkHint,
};
use trix_model::{AttemptId, Failure, Progress, ShareName, WorkerId};
use trix_plan::task::{Cost, TaskSpec};

/// Results sent in one sync; what is left goes with the next, which follows at once.
const RESULTS_A_SYNC: usize = 50;

/// Attempts asked for in one sync.
const CLAIMS_A_SYNC: u32 = 64;

/// Log lines of an attempt kept while they cannot be sent; the database keeps as many.
const LINES: usize = 200;

/// Of the workers with room about so many ask for each task that became ready. With
/// more, a thousand idle nodes would ask for one task; with fewer, those that ask might
/// all lack its share or its engine, and it would wait for a beat.
const ASKERS_A_TASK: f64 = 8.0;

/// Askers spread over so long for each worker of the cluster, up to a hundred of them:
/// the database sees one after the other.
const HINT_SPREAD: Duration = Duration::from_millis(1);

/// A hint that brought nothing makes the next ones wait for this part of the short beat.
const HINT_REST: u32 = 20;

/// Clusters below so many workers use the short beat.
const SMALL_CLUSTER: u32 = 100;

/// What a worker is in its cluster; kept in the state folder, so that the next
/// process on this node can hand in what this one finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who it is.
    pub registered: Registered,
    /// An earlier incarnation that is still to be superseded.
    pub supersede: Option<WorkerId>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The call to the database came back.
    Called(Result<Reply, CallError>),
    /// An attempt told how far it is.
    Progress(AttemptId, Progress),
    /// An attempt printed a line.
    Line(AttemptId, String),
    /// An attempt's thread ended.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// With what.
        outcome: Outcome,
        /// What it took.
        usage: Usage,
    },
    /// A share is usable.
    ShareOk(ShareName),
    /// A share is not usable; why.
    ShareLost(ShareName, String),
    /// The database has something to ask for, perhaps.
    Hint(WorkHint),
    /// The process is to end.
    Drain,
}

/// An answer of the database.
#[derive(Debug)]
pub enum Reply {
    /// To [`Call::Register`].
    Registered(Registered),
    /// To [`Call::Supersede`].
    Superseded,
    /// To [`Call::Sync`].
    Synced(SyncReply),
    /// To [`Call::Leave`].
    Left,
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The database is away; whether the call took effect is unknown.
    Away(String),
    /// The node or the worker is not let in.
    Denied(String),
    /// The database answered with an error that is somebody's mistake.
    Broken(String),
}

/// A call to the database. One is under way at a time.
#[derive(Debug)]
pub enum Call {
    /// Become a new incarnation.
    Register {
        /// Shares that are usable.
        shares_ok: Vec<ShareName>,
    },
    /// Put an earlier incarnation to rest.
    Supersede(Credentials, WorkerId),
    /// The protocol.
    Sync(Box<SyncRequest>),
    /// End this incarnation.
    Leave(Credentials),
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Ask the database; the answer is [`Event::Called`].
    Call(Call),
    /// Run an attempt on a thread of its own.
    Start(Box<Claim>),
    /// End an attempt at once; it answers with [`Event::Ended`].
    Kill(AttemptId, Why),
    /// An attempt did not end when it was killed: its thread hangs and is left to itself.
    Abandon(AttemptId),
    /// Write a result to the outbox, durably, before anything later in the list.
    Keep(AttemptResult),
    /// Remove a result from the outbox: it was settled.
    Forget(AttemptId),
    /// Delete these attempts' stages.
    DropStages(Vec<AttemptId>),
    /// Write who the worker is to the state folder, durably.
    Remember(Identity),
    /// The worker is done.
    Exit(Result<(), String>),
}

/// Why an attempt is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its job is cancelled.
    Cancelled,
    /// The worker has to end.
    Released,
    /// A share that it needs went away.
    ShareGone(ShareName, String),
    /// It is not this worker's any more; nobody wants its result.
    NotMine,
}

#[derive(Debug)]
enum Phase {
    /// Handing in what an earlier process finished, under its name.
    Replaying(Registered),
    /// Becoming a new incarnation.
    Registering { supersede: Option<WorkerId> },
    /// At work.
    Active(Identity),
    /// Marked: everything that runs is being killed.
    Clearing,
    /// Ending: the cluster is told.
    Leaving(Identity),
    /// Ended.
    Gone,
}

#[derive(Debug)]
struct Held {
    cost: Cost,
    shares: BTreeSet<ShareName>,
    progress: Progress,
    lines: VecDeque<String>,
    killed: Option<(Why, Duration)>,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    times: ProtocolTimes,
    capacity: Resources,
    engine: String,
    cache: ShareName,
    drain_limit: Duration,
    phase: Phase,
    held: BTreeMap<AttemptId, Held>,
    pending: BTreeMap<AttemptId, AttemptResult>,
    shares_ok: BTreeSet<ShareName>,
    /// Killing must be over by then.
    drain: Option<Duration>,
    /// The cluster asked for a drain.
    told_to_drain: bool,
    calling: bool,
    next_call: Duration,
    failures: u32,
    /// The last call may or may not have taken effect.
    unsure: bool,
    /// Lines that are under way; they come back if the call fails.
    sent_lines: Vec<(AttemptId, VecDeque<String>)>,
    sent_results: Vec<AttemptId>,
    asked: u32,
    batch: usize,
    workers: u32,
    /// A hint came while a call was under way, which may have looked too early.
    hinted: Option<Duration>,
    /// The next call, or the one under way, follows a hint.
    by_hint: bool,
    /// Hints of ready tasks are not followed before this.
    hints_after: Duration,
    ping: (i64, Duration),
    ping_silent: bool,
    abandoned: u64,
    /// Stages of attempts that were held when the worker was marked.
    debris: BTreeSet<AttemptId>,
}

/// What the core needs to know of its node.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The protocol's times.
    pub times: ProtocolTimes,
    /// What the node gives.
    pub capacity: Resources,
    /// Engine id of the slots.
    pub engine: String,
    /// The cache share.
    pub cache: ShareName,
    /// How long running attempts may go on after [`Event::Drain`].
    pub drain_limit: Duration,
}

impl Core {
    /// A worker that starts. `earlier` and `outbox` are what an earlier process on
    /// this node left behind.
    pub fn new(config: CoreConfig, earlier: Option<Identity>, outbox: Vec<AttemptResult>) -> Core {
        let phase = match earlier {
            Some(Identity { registered, .. }) if !outbox.is_empty() => Phase::Replaying(registered),
            // If that one still had an earlier one to put to rest, the marking time has
            // done it by now.
            Some(Identity { registered, .. }) => {
                Phase::Registering { supersede: Some(registered.me.worker) }
            }
            None => Phase::Registering { supersede: None },
        };
        Core {
            times: config.times,
            capacity: config.capacity,
            engine: config.engine,
            cache: config.cache,
            drain_limit: config.drain_limit,
            phase,
            held: BTreeMap::new(),
            pending: outbox.into_iter().map(|r| (r.attempt, r)).collect(),
            shares_ok: BTreeSet::new(),
            drain: None,
            told_to_drain: false,
            calling: false,
            next_call: Duration::ZERO,
            failures: 0,
            unsure: false,
            sent_lines: Vec::new(),
            sent_results: Vec::new(),
            asked: 0,
            batch: RESULTS_A_SYNC,
            workers: 1,
            hinted: None,
            by_hint: false,
            hints_after: Duration::ZERO,
            ping: (-1, Duration::ZERO),
            ping_silent: false,
            abandoned: 0,
            debris: BTreeSet::new(),
        }
    }

    /// Attempts whose threads hung and were left to themselves.
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// Takes an event and says what is to be done. `jitter` is a random number
    /// from 0 to 1 for the pauses between tries.
    pub fn on(&mut self, event: Event, now: Duration, jitter: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Called(answer) => {
                self.calling = false;
                match answer {
                    Ok(reply) => {
                        if self.failures > 0 {
                            tracing::info!(tries = self.failures, "the database answers again");
                        }
                        self.failures = 0;
                        self.on_reply(reply, now, &mut actions);
                    }
                    Err(error) => self.on_error(error, now, jitter, &mut actions),
                }
            }
            Event::Progress(attempt, progress) => {
                if let Some(held) = self.held.get_mut(&attempt) {
                    held.progress = progress;
                }
            }
            Event::Line(attempt, line) => {
                if let Some(held) = self.held.get_mut(&attempt) {
                    push_line(&mut held.lines, line);
                }
            }
            Event::Ended { attempt, outcome, usage } => {
                self.on_ended(attempt, outcome, usage, now, &mut actions);
            }
            Event::ShareOk(share) => {
                if self.shares_ok.insert(share) {
                    // Work may wait for just this share.
                    self.call_soon(now);
                }
            }
            Event::ShareLost(share, reason) => {
                self.shares_ok.remove(&share);
                let hit: Vec<AttemptId> = (self.held.iter())
                    .filter(|(_, held)| held.shares.contains(&share))
                    .map(|(attempt, _)| *attempt)
                    .collect();
                for attempt in hit {
                    let why = Why::ShareGone(share.clone(), reason.clone());
                    self.kill(attempt, why, now, &mut actions);
                }
            }
            Event::Hint(hint) => self.on_hint(hint, now, jitter),
            Event::Drain => {
                if self.drain.is_none() {
                    self.drain = Some(now + self.drain_limit);
                    self.call_soon(now);
                }
            }
        }
        self.settle(now, &mut actions);
        actions
    }

    /// What is due by now; call it at [`Core::wake`] at the latest.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let overdue: Vec<AttemptId> = (self.held.iter())
            .filter(|(_, held)| {
                held.killed.as_ref().is_some_and(|(_, at)| now >= *at + self.times.cancel_kill)
            })
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in overdue {
            self.abandoned += 1;
            actions.push(Action::Abandon(attempt));
            // The reason for the kill says what it ended as.
            let outcome = Outcome::Released;
            self.on_ended(attempt, outcome, Usage::default(), now, &mut actions);
        }
        if self.drain.is_some_and(|limit| now >= limit) {
            let all: Vec<AttemptId> = self.held.keys().copied().collect();
            for attempt in all {
                self.kill(attempt, Why::Released, now, &mut actions);
            }
        }
        if self.watches_ping() && now >= self.ping.1 + self.times.ping_silent {
            // Every accepted sync has looked at this worker's row: it is not marked.
            tracing::warn!(
                "the dispatcher has not pinged for a while; going on, for nobody marked us"
            );
            self.ping_silent = true;
        }
        self.settle(now, &mut actions);
        actions
    }

    /// When [`Core::tick`] has something to do. Never a time at which nothing would
    /// happen: the caller would spin.
    pub fn wake(&self) -> Duration {
        let mut wake = Duration::MAX;
        if !self.calling && !matches!(self.phase, Phase::Clearing | Phase::Gone) {
            wake = self.next_call;
        }
        for held in self.held.values() {
            match (&held.killed, self.drain) {
                (Some((_, at)), _) => wake = wake.min(*at + self.times.cancel_kill),
                (None, Some(limit)) => wake = wake.min(limit),
                (None, None) => {}
            }
        }
        if self.watches_ping() {
            wake = wake.min(self.ping.1 + self.times.ping_silent);
        }
        wake
    }

    fn watches_ping(&self) -> bool {
        matches!(self.phase, Phase::Active(_)) && !self.ping_silent && self.failures == 0
    }

    fn call_soon(&mut self, now: Duration) {
        // While the database is away its own pace counts.
        if self.failures == 0 {
            self.next_call = self.next_call.min(now);
        }
    }

    /// Asks early when there may be something for this worker. Nothing rests on it.
    fn on_hint(&mut self, hint: WorkHint, now: Duration, jitter: f64) {
        let Phase::Active(identity) = &self.phase else { return };
        if self.failures > 0 {
            return;
        }
        let at = match hint {
            WorkHint::Cancel(workers) => {
                let me = identity.registered.me.worker;
                if self.held.is_empty() || workers.is_some_and(|all| !all.contains(&me)) {
                    return;
                }
                now
            }
            WorkHint::Ready(tasks) => {
                if self.ending() || self.want() == 0 {
                    return;
                }
                let workers = self.workers.max(1);
                let part = (ASKERS_A_TASK * f64::from(tasks) / f64::from(workers)).min(1.0);
                if jitter > part {
                    return;
                }
                let spread = HINT_SPREAD * workers.min(SMALL_CLUSTER);
                (now + spread.mul_f64(jitter / part)).max(self.hints_after)
            }
        };
        if self.calling {
            self.hinted = Some(self.hinted.map_or(at, |before| before.min(at)));
        } else if at < self.next_call {
            self.next_call = at;
            self.by_hint = true;
        }
    }

    fn kill(&mut self, attempt: AttemptId, why: Why, now: Duration, actions: &mut Vec<Action>) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        match &mut held.killed {
            // What is not ours any more is not reported, whatever else ends it.
            Some((before, _)) if why == Why::NotMine => *before = why,
            Some(_) => {}
            None => {
                held.killed = Some((why.clone(), now));
                actions.push(Action::Kill(attempt, why));
            }
        }
    }

    fn on_ended(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        usage: Usage,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        // An abandoned thread that came back after all.
        let Some(held) = self.held.remove(&attempt) else { return };
        let done = matches!(outcome, Outcome::Ok(_));
        let outcome = match held.killed {
            None => outcome,
            Some((Why::NotMine, _)) => {
                actions.push(Action::DropStages(vec![attempt]));
                return;
            }
            Some((Why::Cancelled, _)) => Outcome::Cancelled,
            // It was quicker than the kill: nothing is wasted.
            Some(_) if done => outcome,
            Some((Why::Released, _)) => Outcome::Released,
            Some((Why::ShareGone(share, reason), _)) => Outcome::Failed(
                Failure::share(format!("share {share} went away: {reason}")).about(share),
            ),
        };
        let result = AttemptResult { attempt, outcome, log: held.lines.into(), usage };
        actions.push(Action::Keep(result.clone()));
        self.pending.insert(attempt, result);
        self.call_soon(now);
    }

    fn on_reply(&mut self, reply: Reply, now: Duration, actions: &mut Vec<Action>) {
        match (reply, std::mem::replace(&mut self.phase, Phase::Gone)) {
            (Reply::Registered(registered), Phase::Registering { supersede }) => {
                self.ping = (registered.ping_seq, now);
                self.ping_silent = false;
                let identity = Identity { registered, supersede };
                tracing::info!(worker = %identity.registered.me.worker, "registered");
                actions.push(Action::Remember(identity.clone()));
                self.phase = Phase::Active(identity);
                self.next_call = now;
            }
            (Reply::Superseded, Phase::Active(mut identity)) => {
                identity.supersede = None;
                actions.push(Action::Remember(identity.clone()));
                self.phase = Phase::Active(identity);
                self.next_call = now;
            }
            (Reply::Synced(reply), Phase::Replaying(old)) => match reply {
                SyncReply::Accepted(a) if a.incarnation == old.incarnation => {
                    self.take_verdicts(&a, actions);
                    self.phase = if self.pending.is_empty() {
                        Phase::Registering { supersede: Some(old.me.worker) }
                    } else {
                        Phase::Replaying(old)
                    };
                    self.next_call = now;
                }
                _ => {
                    tracing::warn!(
                        worker = %old.me.worker, results = self.pending.len(),
                        "the earlier process was marked; its results are dropped"
                    );
                    self.drop_pending(actions);
                    self.phase = Phase::Registering { supersede: None };
                    self.next_call = now;
                }
            },
            (Reply::Synced(reply), Phase::Active(identity)) => match reply {
                SyncReply::Accepted(a) if a.incarnation == identity.registered.incarnation => {
                    self.phase = Phase::Active(identity);
                    self.on_accepted(a, now, actions);
                }
                SyncReply::Accepted(_) => {
                    self.on_marked("the database is another cluster now", now, actions)
                }
                SyncReply::Marked { .. } => {
                    self.on_marked("this worker was marked lost", now, actions)
                }
            },
            (Reply::Left, _) => actions.push(Action::Exit(Ok(()))),
            (reply, phase) => {
                // An answer that the phase has overtaken; nothing follows from it.
                tracing::debug!(?reply, ?phase, "a late answer");
                self.phase = phase;
            }
        }
    }

    fn on_accepted(&mut self, a: Accepted, now: Duration, actions: &mut Vec<Action>) {
        self.take_verdicts(&a, actions);
        self.sent_lines.clear();
        self.workers = a.workers;
        if a.ping_seq != self.ping.0 {
            if self.ping_silent {
                tracing::info!("the dispatcher pings again");
            }
            self.ping = (a.ping_seq, now);
            self.ping_silent = false;
        }
        if a.drain && !self.told_to_drain {
            tracing::info!("told to drain");
        }
        self.told_to_drain = a.drain;
        for attempt in a.cancels {
            self.kill(attempt, Why::Cancelled, now, actions);
        }
        let running: BTreeSet<AttemptId> = a.running.into_iter().collect();
        let lost: Vec<AttemptId> =
            self.held.keys().filter(|attempt| !running.contains(attempt)).copied().collect();
        for attempt in lost {
            tracing::warn!(%attempt, "not ours any more");
            self.kill(attempt, Why::NotMine, now, actions);
        }
        let got = a.claims.len();
        for claim in a.claims {
            self.start(claim, now, actions);
        }
        let beat =
            if self.workers < SMALL_CLUSTER { self.times.beat_small } else { self.times.beat };
        let more = got > 0 && got as u32 >= self.asked && self.asked > 0;
        let more = more || std::mem::take(&mut self.unsure);
        let soon = more || !self.pending.is_empty();
        self.next_call = if soon { now } else { now + beat };
        if std::mem::take(&mut self.by_hint) && got == 0 {
            self.hints_after = now + self.times.beat_small / HINT_REST;
        }
        if let Some(at) = self.hinted.take()
            && at < self.next_call
        {
            self.next_call = at;
            self.by_hint = true;
        }
    }

    fn take_verdicts(&mut self, a: &Accepted, actions: &mut Vec<Action>) {
        for v in &a.verdicts {
            if v.verdict == Verdict::Refused {
                tracing::warn!(attempt = %v.attempt, "the result was refused: the attempt is not ours");
                actions.push(Action::DropStages(vec![v.attempt]));
            }
            self.pending.remove(&v.attempt);
            actions.push(Action::Forget(v.attempt));
        }
        self.batch = RESULTS_A_SYNC;
    }

    fn start(&mut self, claim: Claim, now: Duration, actions: &mut Vec<Action>) {
        let attempt = claim.attempt;
        if self.held.contains_key(&attempt) || self.pending.contains_key(&attempt) {
            return;
        }
        let held = Held {
            cost: claim.cost,
            shares: self.shares_of(&claim),
            progress: Progress::default(),
            lines: VecDeque::new(),
            killed: None,
        };
        let gone = held.shares.iter().find(|share| !self.shares_ok.contains(*share)).cloned();
        self.held.insert(attempt, held);
        if self.ending() {
            // Claimed by a sync that was under way when the end began.
            self.on_ended(attempt, Outcome::Released, Usage::default(), now, actions);
        } else if let Some(share) = gone {
            let failure = Failure::share(format!("share {share} is away from this node"));
            let outcome = Outcome::Failed(failure.about(share));
            self.on_ended(attempt, outcome, Usage::default(), now, actions);
        } else {
            actions.push(Action::Start(Box::new(claim)));
        }
    }

    /// Every share that an attempt touches.
    fn shares_of(&self, claim: &Claim) -> BTreeSet<ShareName> {
        let mut shares = BTreeSet::new();
        shares.extend(claim.spec.source().map(|s| s.location.share.clone()));
        shares.extend(claim.spec.written_shares().into_iter().cloned());
        if let TaskSpec::Intake(t) = &claim.spec {
            shares.extend(t.sidecars.iter().map(|s| s.location.share.clone()));
        }
        if !claim.outputs.is_empty() || !claim.inputs.is_empty() {
            shares.insert(self.cache.clone());
        }
        shares
    }

    fn on_marked(&mut self, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        tracing::warn!(
            running = self.held.len(),
            results = self.pending.len(),
            "{reason}: killing its work, dropping its results, registering again"
        );
        self.phase = Phase::Clearing;
        self.debris.extend(self.held.keys().chain(self.pending.keys()).copied());
        let all: Vec<AttemptId> = self.held.keys().copied().collect();
        for attempt in all {
            self.kill(attempt, Why::NotMine, now, actions);
        }
        self.drop_pending(actions);
        self.sent_lines.clear();
        self.told_to_drain = false;
    }

    fn drop_pending(&mut self, actions: &mut Vec<Action>) {
        let dropped = std::mem::take(&mut self.pending);
        actions.push(Action::DropStages(dropped.keys().copied().collect()));
        actions.extend(dropped.into_keys().map(Action::Forget));
    }

    fn on_error(
        &mut self,
        error: CallError,
        now: Duration,
        jitter: f64,
        actions: &mut Vec<Action>,
    ) {
        for (attempt, mut lines) in std::mem::take(&mut self.sent_lines) {
            if let Some(held) = self.held.get_mut(&attempt) {
                lines.append(&mut held.lines);
                while lines.len() > LINES {
                    lines.pop_front();
                }
                held.lines = lines;
            }
        }
        match error {
            CallError::Away(reason) => {
                if self.failures == 0 {
                    tracing::warn!(%reason, "the database is away; running work goes on");
                }
            }
            CallError::Denied(reason) => match self.phase {
                Phase::Active(_) => self.on_marked(&reason, now, actions),
                Phase::Replaying(_) => {
                    self.drop_pending(actions);
                    self.phase = Phase::Registering { supersede: None };
                }
                Phase::Registering { .. } | Phase::Leaving(_) => {
                    actions.push(Action::Exit(Err(reason)));
                    self.phase = Phase::Gone;
                    return;
                }
                Phase::Clearing | Phase::Gone => {}
            },
            CallError::Broken(reason) => {
                tracing::error!(%reason, "the database refused a call");
                match &mut self.phase {
                    // Refused because this incarnation was marked itself, or by a mistake:
                    // the sync tells which, and only a sync does. The marking time puts the
                    // earlier incarnation to rest.
                    Phase::Active(identity) if identity.supersede.is_some() => {
                        identity.supersede = None;
                        actions.push(Action::Remember(identity.clone()));
                    }
                    _ => self.blame_a_result(&reason, actions),
                }
            }
        }
        self.unsure = true;
        self.hinted = None;
        self.by_hint = false;
        self.failures = self.failures.saturating_add(1);
        let full = self.times.reconnect_min.saturating_mul(1 << self.failures.min(16));
        let pause = full.min(self.times.reconnect_max).mul_f64(jitter.clamp(0.0, 1.0));
        self.next_call = now + pause.max(self.times.reconnect_min.mul_f64(0.1));
    }

    /// One result that the database cannot take must not stop the beat for ever:
    /// results then go one by one, and the one at fault becomes a failure.
    fn blame_a_result(&mut self, reason: &str, actions: &mut Vec<Action>) {
        if self.sent_results.len() > 1 {
            self.batch = 1;
        } else if let [attempt] = self.sent_results[..]
            && let Some(result) = self.pending.get_mut(&attempt)
        {
            let failure = Failure::bug(format!("the database could not take the result: {reason}"));
            result.outcome = Outcome::Failed(failure);
            result.log.clear();
            actions.push(Action::Keep(result.clone()));
        }
    }

    fn ending(&self) -> bool {
        self.drain.is_some() || self.told_to_drain
    }

    /// Moves on where nothing more is waited for, and asks the database when it is time.
    fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Clearing) && self.held.is_empty() {
            let debris = std::mem::take(&mut self.debris);
            actions.push(Action::DropStages(debris.into_iter().collect()));
            self.phase = Phase::Registering { supersede: None };
            self.failures = 0;
            self.next_call = now;
        }
        if self.ending() && self.held.is_empty() && !self.calling {
            match std::mem::replace(&mut self.phase, Phase::Gone) {
                Phase::Active(identity) if self.pending.is_empty() => {
                    self.phase = Phase::Leaving(identity);
                    self.next_call = self.next_call.min(now);
                }
                // Nothing was begun, so nobody has to be told.
                Phase::Registering { supersede: None } if self.drain.is_some() => {
                    actions.push(Action::Exit(Ok(())));
                }
                phase => self.phase = phase,
            }
            // The database is away. Results stay in the outbox for the next
            // process, and the cluster notices the silence.
            let patience = self.times.answer;
            if self.drain.is_some_and(|limit| now >= limit + patience) && self.failures > 0 {
                actions.push(Action::Exit(Ok(())));
                self.phase = Phase::Gone;
            }
        }
        if !self.calling
            && now >= self.next_call
            && let Some(call) = self.next()
        {
            self.calling = true;
            actions.push(Action::Call(call));
        }
    }

    fn next(&mut self) -> Option<Call> {
        let shares_ok: Vec<ShareName> = self.shares_ok.iter().cloned().collect();
        match &self.phase {
            Phase::Registering { .. } => Some(Call::Register { shares_ok }),
            Phase::Replaying(old) => {
                let me = old.me.clone();
                Some(Call::Sync(Box::new(self.request(me, 0))))
            }
            Phase::Active(Identity { registered, supersede: Some(old) }) => {
                Some(Call::Supersede(registered.me.clone(), *old))
            }
            Phase::Active(identity) => {
                let me = identity.registered.me.clone();
                // After a call without an answer the first is a plain beat: a claim may
                // have been made by the lost one, and asking again would take twice
                // what fits.
                let want = if self.ending() || self.unsure { 0 } else { self.want() };
                Some(Call::Sync(Box::new(self.request(me, want))))
            }
            Phase::Leaving(identity) => Some(Call::Leave(identity.registered.me.clone())),
            Phase::Clearing | Phase::Gone => None,
        }
    }

    fn want(&self) -> u32 {
        // Nearly every task reads or writes the cache, and the database does not
        // know which share it is.
        if !self.shares_ok.contains(&self.cache) {
            return 0;
        }
        // A quarter of a core is the least that tasks are planned with; the
        // database itself fits needs to what is free.
        self.free().mcpu.div_ceil(250).min(CLAIMS_A_SYNC)
    }

    fn free(&self) -> Resources {
        self.held.values().fold(self.capacity, |free, held| Resources {
            mcpu: free.mcpu.saturating_sub(held.cost.mcpu),
            ram: free.ram.saturating_sub(held.cost.ram),
            scratch: free.scratch.saturating_sub(held.cost.scratch),
        })
    }

    fn request(&mut self, me: Credentials, want: u32) -> SyncRequest {
        let progress = self
            .held
            .iter_mut()
            .map(|(attempt, held)| {
                let lines = std::mem::take(&mut held.lines);
                let progress = AttemptProgress {
                    attempt: *attempt,
                    progress: held.progress.clone(),
                    lines: lines.iter().cloned().collect(),
                };
                self.sent_lines.push((*attempt, lines));
                progress
            })
            .collect();
        let results: Vec<AttemptResult> = self.pending.values().take(self.batch).cloned().collect();
        self.sent_results = results.iter().map(|r| r.attempt).collect();
        // What ended and is not sent with this call must not look as if it were
        // neither running nor ended: the database would hand it out again.
        let mut progress: Vec<AttemptProgress> = progress;
        progress.extend(self.pending.keys().skip(self.batch).map(|attempt| AttemptProgress {
            attempt: *attempt,
            progress: Progress::default(),
            lines: Vec::new(),
        }));
        self.asked = want;
        SyncRequest {
            me,
            progress,
            results,
            free: self.free(),
            shares_ok: self.shares_ok.iter().cloned().collect(),
            engine: self.engine.clone(),
            want,
        }
    }
}

fn push_line(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}

#[cfg(test)]
mod tests;
