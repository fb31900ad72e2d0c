//! The rules of reliability.md 3.8, one by one, and then all at once at random.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trix_db::{
    Accepted, AttemptResult, Claim, Credentials, Outcome, ProtocolTimes, Registered, Resources,
    ResultVerdict, SyncReply, SyncRequest, Usage, Verdict, WorkHint,
};
use trix_model::{
    AttemptId, Epoch, ErrorClass, JobId, Key, Progress, ShareName, SharePath, TaskId, WorkerId,
};
use trix_plan::task::{Cost, EncodeAudio, Output, SourceRef, TaskResult, TaskSpec};
use uuid::Uuid;

use super::{Action, Call, CallError, Core, CoreConfig, Event, Identity, Reply, Why};

const CORES: u32 = 4;

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn share(name: &str) -> ShareName {
    name.parse().unwrap()
}

fn attempt(task: i64) -> AttemptId {
    AttemptId { task: TaskId(task), epoch: Epoch(1) }
}

fn config() -> CoreConfig {
    CoreConfig {
        times: ProtocolTimes::default(),
        capacity: Resources { mcpu: CORES * 1000, ram: 8 << 30, scratch: 8 << 30 },
        engine: "engine".into(),
        cache: share("cache"),
        drain_limit: s(30),
    }
}

fn claim(id: AttemptId) -> Claim {
    let location: SharePath = "in:film.mov".parse().unwrap();
    Claim {
        attempt: id,
        job: JobId(1),
        name: format!("audio/{}", id.task),
        spec: TaskSpec::EncodeAudio(EncodeAudio {
            source: SourceRef { location, size: 1, mtime_ns: 1 },
            index: Key([1; 32]),
            stream: 1,
            settings: trix_plan::encoder::AudioSettings {
                codec: trix_plan::encoder::AudioCodec::Aac,
                bit_rate: None,
                channels: None,
                sample_rate: None,
            },
            zero_pts: 0,
            time_base: "1/1000".parse().unwrap(),
        }),
        cost: Cost { mcpu: 1000, ram: 1 << 20, scratch: 1 << 20, estimate_ms: 1 },
        outputs: vec![Output { name: "audio".into(), key: Key([2; 32]) }],
        missing: vec![Output { name: "audio".into(), key: Key([2; 32]) }],
        inputs: Vec::new(),
        needs: BTreeMap::new(),
        roll_forward: None,
    }
}

fn done() -> Outcome {
    Outcome::Ok(TaskResult { outputs: Vec::new(), detail: None })
}

fn registered(worker: i64) -> Registered {
    Registered {
        me: Credentials { worker: WorkerId(worker), token: "secret".into() },
        incarnation: Uuid::nil(),
        ping_seq: 1,
        cluster: Uuid::nil(),
    }
}

fn accepted(core: &Bench, claims: &[AttemptId]) -> Accepted {
    let held = core.core.held.keys().copied();
    Accepted {
        incarnation: Uuid::nil(),
        ping_seq: 1,
        workers: 1,
        drain: false,
        running: held.chain(claims.iter().copied()).collect(),
        cancels: Vec::new(),
        claims: claims.iter().map(|id| claim(*id)).collect(),
        verdicts: Vec::new(),
    }
}

/// A core, its clock, and what it wants done.
struct Bench {
    core: Core,
    now: Duration,
    actions: Vec<Action>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(None, Vec::new())
    }

    fn with(earlier: Option<Identity>, outbox: Vec<AttemptResult>) -> Bench {
        let core = Core::new(config(), earlier, outbox);
        let mut bench = Bench { core, now: Duration::ZERO, actions: Vec::new() };
        bench.tick(Duration::ZERO);
        bench
    }

    /// A worker that is registered, has both shares, and runs `claims`.
    fn at_work(claims: &[i64]) -> Bench {
        let mut bench = Bench::new();
        assert!(matches!(bench.call(), Call::Register { .. }));
        bench.on(Event::Called(Ok(Reply::Registered(registered(7)))));
        let request = bench.sync();
        assert!(request.results.is_empty());
        assert_eq!(request.want, 0, "without its cache it can do nothing");
        let claims: Vec<AttemptId> = claims.iter().map(|n| attempt(*n)).collect();
        bench.on(Event::ShareOk(share("in")));
        bench.on(Event::ShareOk(share("cache")));
        let reply = accepted(&bench, &claims);
        bench.answer(reply);
        for id in claims {
            assert!(bench.take(|a| matches!(a, Action::Start(c) if c.attempt == id)).is_some());
        }
        bench
    }

    fn on(&mut self, event: Event) {
        self.actions.extend(self.core.on(event, self.now, 1.0));
    }

    fn hint(&mut self, hint: WorkHint, jitter: f64) {
        self.actions.extend(self.core.on(Event::Hint(hint), self.now, jitter));
    }

    fn tick(&mut self, by: Duration) {
        self.now += by;
        self.actions.extend(self.core.tick(self.now));
    }

    /// Lets time pass until the core has a call to make.
    fn call(&mut self) -> Call {
        for _ in 0..100 {
            if let Some(Action::Call(call)) = self.take(|a| matches!(a, Action::Call(_))) {
                return call;
            }
            let wake = self.core.wake();
            let before = format!("{:?}", self.core);
            self.tick(wake.saturating_sub(self.now));
            assert_ne!(before, format!("{:?}", self.core), "a wake at {wake:?} for nothing");
        }
        panic!("no call; {:?}", self.core);
    }

    fn sync(&mut self) -> SyncRequest {
        match self.call() {
            Call::Sync(request) => *request,
            other => panic!("{other:?} where a sync was due"),
        }
    }

    fn answer(&mut self, reply: Accepted) {
        self.on(Event::Called(Ok(Reply::Synced(SyncReply::Accepted(reply)))));
    }

    fn accept(&mut self, request: &SyncRequest) {
        let mut reply = accepted(self, &[]);
        reply.verdicts = (request.results.iter())
            .map(|r| ResultVerdict { attempt: r.attempt, verdict: Verdict::Accepted })
            .collect();
        self.answer(reply);
    }

    fn marked(&mut self) {
        let reply = SyncReply::Marked { incarnation: Uuid::nil() };
        self.on(Event::Called(Ok(Reply::Synced(reply))));
    }

    fn away(&mut self) {
        self.on(Event::Called(Err(CallError::Away("cut".into()))));
    }

    fn ended(&mut self, task: i64, outcome: Outcome) {
        self.on(Event::Ended { attempt: attempt(task), outcome, usage: Usage::default() });
    }

    fn take(&mut self, is: impl Fn(&Action) -> bool) -> Option<Action> {
        let at = self.actions.iter().position(is)?;
        Some(self.actions.remove(at))
    }

    fn killed(&mut self, task: i64) -> Option<Why> {
        match self.take(|a| matches!(a, Action::Kill(id, _) if *id == attempt(task)))? {
            Action::Kill(_, why) => Some(why),
            _ => None,
        }
    }

    fn exit(&mut self) -> Option<Result<(), String>> {
        match self.take(|a| matches!(a, Action::Exit(_)))? {
            Action::Exit(how) => Some(how),
            _ => None,
        }
    }
}

#[test]
fn a_result_is_kept_before_it_is_sent_and_forgotten_when_it_was_accepted() {
    let mut bench = Bench::at_work(&[1, 2]);
    bench.on(Event::Line(attempt(1), "last words".into()));
    bench.ended(1, done());
    let kept = bench.actions.iter().position(|a| matches!(a, Action::Keep(_))).unwrap();
    let sent = bench.actions.iter().position(|a| matches!(a, Action::Call(_))).unwrap();
    assert!(kept < sent, "{:?}", bench.actions);
    let request = bench.sync();
    assert_eq!(request.results[0].log, ["last words"]);
    assert_eq!(request.progress.len(), 1);
    // Its core is free for the claim in the same call.
    assert_eq!(request.free.mcpu, (CORES - 1) * 1000);
    assert!(request.want > 0);
    bench.accept(&request);
    assert!(bench.take(|a| matches!(a, Action::Forget(id) if *id == attempt(1))).is_some());
    assert!(bench.sync().results.is_empty());
}

#[test]
fn while_the_database_is_away_work_goes_on_and_nothing_is_lost() {
    let mut bench = Bench::at_work(&[1, 2]);
    let first = bench.sync();
    bench.on(Event::Line(attempt(2), "before".into()));
    bench.away();
    let mut pauses = Vec::new();
    for n in 0..20 {
        let before = bench.now;
        let request = bench.sync();
        pauses.push(bench.now - before);
        if n == 3 {
            bench.ended(1, done());
        }
        assert_eq!(request.results.len(), usize::from(n > 3));
        bench.away();
    }
    assert!(bench.take(|a| matches!(a, Action::Kill(..))).is_none());
    assert!(pauses.windows(2).all(|p| p[0] <= p[1] + Duration::from_millis(1)), "{pauses:?}");
    assert!(pauses.iter().all(|p| *p <= s(10)), "{pauses:?}");
    assert!(bench.now > s(60), "only {:?} passed", bench.now);
    bench.on(Event::Line(attempt(2), "after".into()));
    let request = bench.sync();
    assert_eq!(request.results[0].attempt, attempt(1));
    assert_eq!(request.progress[0].lines, ["before", "after"]);
    bench.accept(&request);
    assert!(bench.sync().results.is_empty());
    drop(first);
}

#[test]
fn a_marked_worker_kills_everything_drops_its_results_and_registers_anew() {
    let mut bench = Bench::at_work(&[1, 2, 3]);
    bench.ended(3, done());
    let request = bench.sync();
    assert_eq!(request.results.len(), 1);
    bench.marked();
    assert_eq!(bench.killed(1), Some(Why::NotMine));
    assert_eq!(bench.killed(2), Some(Why::NotMine));
    assert!(bench.take(|a| matches!(a, Action::Forget(id) if *id == attempt(3))).is_some());
    bench.ended(1, done());
    // Not before the last child is dead.
    assert!(bench.take(|a| matches!(a, Action::Call(_))).is_none());
    bench.ended(2, Outcome::Released);
    let all = [attempt(1), attempt(2), attempt(3)];
    assert!(bench.take(|a| matches!(a, Action::DropStages(x) if x[..] == all)).is_some());
    bench.actions.retain(|a| !matches!(a, Action::Keep(_)));
    assert!(matches!(bench.call(), Call::Register { .. }));
    bench.on(Event::Called(Ok(Reply::Registered(registered(8)))));
    let request = bench.sync();
    assert_eq!(request.me.worker, WorkerId(8));
    assert!(request.results.is_empty() && request.progress.is_empty());
    assert!(bench.take(|a| matches!(a, Action::Keep(_))).is_none());
}

#[test]
fn another_incarnation_of_the_database_is_the_same_as_being_marked() {
    let mut bench = Bench::at_work(&[1]);
    bench.sync();
    let reply = Accepted { incarnation: Uuid::max(), ..accepted(&bench, &[]) };
    bench.answer(reply);
    assert_eq!(bench.killed(1), Some(Why::NotMine));
}

#[test]
fn a_thread_that_hangs_is_left_to_itself() {
    let mut bench = Bench::at_work(&[1]);
    bench.on(Event::ShareLost(share("in"), "ENOTCONN".into()));
    assert!(matches!(bench.killed(1), Some(Why::ShareGone(..))));
    bench.tick(s(2));
    assert!(bench.take(|a| matches!(a, Action::Abandon(id) if *id == attempt(1))).is_some());
    assert_eq!(bench.core.abandoned(), 1);
    let request = bench.sync();
    assert!(!request.shares_ok.contains(&share("in")));
    let Outcome::Failed(failure) = &request.results[0].outcome else { panic!("{request:?}") };
    assert_eq!((failure.class, &*failure.code), (ErrorClass::Transient, "share_unavailable"));
    // Should it come back after all, nobody listens.
    bench.ended(1, done());
    assert_eq!(bench.core.pending.len(), 1);
}

#[test]
fn a_share_that_goes_away_ends_only_what_needs_it() {
    let mut bench = Bench::at_work(&[1]);
    bench.on(Event::ShareLost(share("other"), "away".into()));
    assert_eq!(bench.killed(1), None);
    bench.on(Event::ShareLost(share("cache"), "away".into()));
    assert!(matches!(bench.killed(1), Some(Why::ShareGone(..))));
    // It was done in the same moment: then it is done.
    bench.ended(1, done());
    assert!(matches!(bench.sync().results[0].outcome, Outcome::Ok(_)));
}

#[test]
fn a_claim_for_a_share_that_just_went_away_fails_at_once() {
    let mut bench = Bench::at_work(&[]);
    bench.sync();
    bench.on(Event::ShareLost(share("in"), "away".into()));
    let reply = accepted(&bench, &[attempt(5)]);
    bench.answer(reply);
    assert!(bench.take(|a| matches!(a, Action::Start(_))).is_none());
    let request = bench.sync();
    assert!(
        matches!(&request.results[0].outcome, Outcome::Failed(f) if f.code == "share_unavailable")
    );
}

#[test]
fn a_cancelled_attempt_is_killed_and_said_to_be_cancelled() {
    let mut bench = Bench::at_work(&[1, 2]);
    bench.sync();
    let reply = Accepted { cancels: vec![attempt(1)], ..accepted(&bench, &[]) };
    bench.answer(reply);
    assert_eq!(bench.killed(1), Some(Why::Cancelled));
    bench.ended(1, done());
    assert_eq!(bench.sync().results[0].outcome, Outcome::Cancelled);
    assert_eq!(bench.killed(2), None);
}

#[test]
fn what_the_database_gave_to_somebody_else_is_killed_and_not_reported() {
    let mut bench = Bench::at_work(&[1, 2]);
    bench.sync();
    let reply = Accepted { running: vec![attempt(2)], ..accepted(&bench, &[]) };
    bench.answer(reply);
    assert_eq!(bench.killed(1), Some(Why::NotMine));
    bench.ended(1, done());
    assert!(bench.sync().results.is_empty());
}

#[test]
fn an_attempt_that_is_handed_out_again_is_not_started_twice() {
    let mut bench = Bench::at_work(&[1]);
    bench.sync();
    let reply = accepted(&bench, &[attempt(1), attempt(2)]);
    bench.answer(reply);
    assert!(matches!(bench.take(|a| matches!(a, Action::Start(_))),
        Some(Action::Start(c)) if c.attempt == attempt(2)));
    assert!(bench.take(|a| matches!(a, Action::Start(_))).is_none());
}

#[test]
fn a_silent_dispatcher_stops_nothing() {
    let mut bench = Bench::at_work(&[1]);
    for _ in 0..60 {
        let request = bench.sync();
        assert!(request.want > 0);
        bench.accept(&request);
    }
    assert!(bench.now > s(30));
    assert_eq!(bench.killed(1), None);
}

#[test]
fn a_drain_finishes_what_it_can_releases_the_rest_and_leaves() {
    let mut bench = Bench::at_work(&[1, 2]);
    let request = bench.sync();
    bench.on(Event::Drain);
    // A claim that was under way when the end began goes back at once.
    let reply = accepted(&bench, &[attempt(3)]);
    bench.answer(reply);
    assert!(bench.take(|a| matches!(a, Action::Start(_))).is_none());
    drop(request);
    let request = bench.sync();
    assert_eq!(request.want, 0);
    assert_eq!(request.results[0].outcome, Outcome::Released);
    bench.accept(&request);
    bench.ended(1, done());
    let request = bench.sync();
    assert!(matches!(request.results[0].outcome, Outcome::Ok(_)));
    bench.accept(&request);
    while bench.now < s(30) {
        let request = bench.sync();
        assert_eq!(request.want, 0);
        bench.accept(&request);
    }
    bench.tick(s(1));
    assert_eq!(bench.killed(2), Some(Why::Released));
    bench.ended(2, Outcome::Released);
    loop {
        match bench.call() {
            Call::Sync(request) => bench.accept(&request),
            Call::Leave(me) => break assert_eq!(me.worker, WorkerId(7)),
            other => panic!("{other:?}"),
        }
    }
    bench.on(Event::Called(Ok(Reply::Left)));
    assert_eq!(bench.exit(), Some(Ok(())));
}

#[test]
fn a_drain_without_a_database_ends_and_keeps_the_results_for_the_next_process() {
    let mut bench = Bench::at_work(&[1]);
    bench.sync();
    bench.on(Event::Drain);
    bench.ended(1, done());
    let mut exit = None;
    while exit.is_none() && bench.now < s(120) {
        if bench.take(|a| matches!(a, Action::Call(_))).is_some() || bench.core.calling {
            bench.away();
        }
        bench.tick(Duration::from_millis(500));
        exit = bench.exit();
    }
    assert_eq!(exit, Some(Ok(())));
    assert!(bench.now >= s(40), "it gave the database no chance: {:?}", bench.now);
    assert!(bench.take(|a| matches!(a, Action::Forget(_))).is_none());
}

fn earlier(results: &[i64]) -> (Option<Identity>, Vec<AttemptResult>) {
    let results = results
        .iter()
        .map(|n| AttemptResult {
            attempt: attempt(*n),
            outcome: done(),
            log: Vec::new(),
            usage: Usage::default(),
        })
        .collect();
    (Some(Identity { registered: registered(6), supersede: None }), results)
}

#[test]
fn a_restarted_worker_hands_in_the_old_results_then_supersedes_itself() {
    let (identity, outbox) = earlier(&[1]);
    let mut bench = Bench::with(identity, outbox);
    let request = bench.sync();
    assert_eq!((request.me.worker, request.results.len(), request.want), (WorkerId(6), 1, 0));
    bench.accept(&request);
    assert!(bench.take(|a| matches!(a, Action::Forget(_))).is_some());
    assert!(matches!(bench.call(), Call::Register { .. }));
    bench.on(Event::Called(Ok(Reply::Registered(registered(7)))));
    let remembered = bench.take(|a| matches!(a, Action::Remember(_)));
    assert!(matches!(remembered, Some(Action::Remember(i)) if i.supersede == Some(WorkerId(6))));
    assert!(matches!(bench.call(), Call::Supersede(me, WorkerId(6)) if me.worker == WorkerId(7)));
    bench.away();
    assert!(matches!(bench.call(), Call::Supersede(..)));
    bench.on(Event::Called(Ok(Reply::Superseded)));
    assert!(matches!(bench.take(|a| matches!(a, Action::Remember(_))),
        Some(Action::Remember(i)) if i.supersede.is_none()));
    assert_eq!(bench.sync().me.worker, WorkerId(7));
}

#[test]
fn a_restarted_worker_that_was_marked_drops_the_old_results() {
    let (identity, outbox) = earlier(&[1, 2]);
    let mut bench = Bench::with(identity, outbox);
    bench.sync();
    bench.marked();
    assert!(bench.take(|a| matches!(a, Action::Forget(id) if *id == attempt(1))).is_some());
    assert!(bench.take(|a| matches!(a, Action::Forget(id) if *id == attempt(2))).is_some());
    assert!(matches!(bench.call(), Call::Register { .. }));
    bench.on(Event::Called(Ok(Reply::Registered(registered(7)))));
    assert!(bench.sync().results.is_empty());
}

#[test]
fn a_worker_that_was_marked_before_it_superseded_the_earlier_one_learns_it() {
    let (identity, results) = earlier(&[]);
    let mut bench = Bench::with(identity, results);
    assert!(matches!(bench.call(), Call::Register { .. }));
    bench.on(Event::Called(Ok(Reply::Registered(registered(7)))));
    assert!(matches!(bench.call(), Call::Supersede(_, WorkerId(6))));
    // The database was away for so long that 7 was marked; its supersede is refused.
    bench.on(Event::Called(Err(CallError::Broken("worker 7 was marked".into()))));
    bench.tick(s(10));
    let asked = bench.sync();
    assert_eq!(asked.me.worker, WorkerId(7));
    bench.marked();
    assert!(matches!(bench.call(), Call::Register { .. }));
}

#[test]
fn a_refused_node_ends_with_the_reason() {
    let mut bench = Bench::new();
    bench.call();
    bench.on(Event::Called(Err(CallError::Denied("unknown node".into()))));
    assert_eq!(bench.exit(), Some(Err("unknown node".into())));
}

#[test]
fn one_result_that_the_database_cannot_take_does_not_stop_the_others() {
    let mut bench = Bench::at_work(&[1, 2, 3]);
    for n in [1, 2, 3] {
        bench.ended(n, done());
    }
    let mut settled = BTreeMap::new();
    for _ in 0..20 {
        let request = bench.sync();
        let bad =
            |r: &AttemptResult| r.attempt == attempt(2) && matches!(r.outcome, Outcome::Ok(_));
        if request.results.iter().any(bad) {
            bench.on(Event::Called(Err(CallError::Broken("22P05".into()))));
            continue;
        }
        settled.extend(request.results.iter().map(|r| (r.attempt, r.outcome.clone())));
        bench.accept(&request);
    }
    assert_eq!(settled[&attempt(1)], done());
    assert_eq!(settled[&attempt(3)], done());
    assert!(matches!(&settled[&attempt(2)], Outcome::Failed(f) if f.code == "bug"));
}

#[test]
fn results_beyond_one_call_are_named_as_held_until_they_are_sent() {
    let many: Vec<i64> = (1..=60).collect();
    let mut bench = Bench::at_work(&many);
    for n in &many {
        bench.ended(*n, done());
    }
    let first = bench.sync();
    bench.accept(&first);
    let mut all: BTreeSet<AttemptId> = first.results.iter().map(|r| r.attempt).collect();
    while all.len() < 60 {
        let request = bench.sync();
        let named: BTreeSet<AttemptId> = (request.results.iter().map(|r| r.attempt))
            .chain(request.progress.iter().map(|p| p.attempt))
            .collect();
        assert_eq!(named.len() + all.len(), 60);
        all.extend(request.results.iter().map(|r| r.attempt));
        bench.accept(&request);
    }
}

/// xorshift64*: the seed is printed, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }
}

/// The database in small: who runs what, and what was committed.
#[derive(Default)]
struct Model {
    workers: i64,
    active: Option<i64>,
    /// Task → (epoch, worker that runs it).
    running: BTreeMap<i64, (i64, i64)>,
    epochs: BTreeMap<i64, i64>,
    done: BTreeMap<i64, AttemptId>,
    tasks: i64,
}

impl Model {
    fn mark(&mut self) {
        if let Some(worker) = self.active.take() {
            self.running.retain(|_, (_, by)| *by != worker);
        }
    }

    fn apply(&mut self, call: &Call) -> Reply {
        match call {
            Call::Register { .. } => {
                self.workers += 1;
                self.active = Some(self.workers);
                Reply::Registered(registered(self.workers))
            }
            Call::Supersede(_, old) => {
                self.running.retain(|_, (_, by)| *by != old.0);
                Reply::Superseded
            }
            Call::Leave(_) => Reply::Left,
            Call::Sync(request) => Reply::Synced(self.sync(request)),
        }
    }

    fn sync(&mut self, request: &SyncRequest) -> SyncReply {
        let worker = request.me.worker.0;
        if self.active != Some(worker) {
            return SyncReply::Marked { incarnation: Uuid::nil() };
        }
        let mut verdicts = Vec::new();
        for r in &request.results {
            let (task, epoch) = (r.attempt.task.0, r.attempt.epoch.0);
            let verdict = if self.done.get(&task) == Some(&r.attempt) {
                Verdict::Duplicate
            } else if self.running.get(&task) == Some(&(epoch, worker)) {
                self.running.remove(&task);
                if matches!(r.outcome, Outcome::Ok(_)) {
                    assert!(self.done.insert(task, r.attempt).is_none(), "task {task} done twice");
                }
                Verdict::Accepted
            } else {
                Verdict::Refused
            };
            verdicts.push(ResultVerdict { attempt: r.attempt, verdict });
        }
        let mut claims = Vec::new();
        for task in 1..=self.tasks {
            let open = !self.done.contains_key(&task) && !self.running.contains_key(&task);
            if open && (claims.len() as u32) < request.want.min(request.free.mcpu / 1000) {
                let epoch = self.epochs.entry(task).or_insert(0);
                *epoch += 1;
                self.running.insert(task, (*epoch, worker));
                claims.push(AttemptId { task: TaskId(task), epoch: Epoch(*epoch) });
            }
        }
        let mine: Vec<AttemptId> = (self.running.iter())
            .filter(|(_, (_, by))| *by == worker)
            .map(|(task, (epoch, _))| AttemptId { task: TaskId(*task), epoch: Epoch(*epoch) })
            .collect();
        let known: BTreeSet<AttemptId> = (request.progress.iter().map(|p| p.attempt))
            .chain(request.results.iter().map(|r| r.attempt))
            .chain(claims.iter().copied())
            .collect();
        // A claim whose answer got lost.
        claims.extend(mine.iter().filter(|id| !known.contains(id)));
        SyncReply::Accepted(Accepted {
            incarnation: Uuid::nil(),
            ping_seq: 1,
            workers: 1,
            drain: false,
            running: mine,
            cancels: Vec::new(),
            claims: claims.into_iter().map(claim).collect(),
            verdicts,
        })
    }
}

/// Loses calls before and after they took effect, marks the worker, restarts it, loses
/// shares, lets attempts fail, hang and end; then heals and demands that all is done.
fn at_random(seed: u64) {
    let mut dice = Dice(seed | 1);
    let mut model = Model { tasks: 12, ..Model::default() };
    let mut bench = Bench::new();
    bench.on(Event::ShareOk(share("in")));
    bench.on(Event::ShareOk(share("cache")));
    let mut threads: BTreeSet<AttemptId> = BTreeSet::new();
    let mut started: BTreeSet<AttemptId> = BTreeSet::new();
    let mut outbox: BTreeMap<AttemptId, AttemptResult> = BTreeMap::new();
    let mut identity: Option<Identity> = None;
    let mut call: Option<Call> = None;
    for step in 0..4000u32 {
        for action in std::mem::take(&mut bench.actions) {
            match action {
                Action::Call(c) => assert!(call.replace(c).is_none(), "two calls at once"),
                Action::Start(c) => {
                    assert!(started.insert(c.attempt), "{} started twice", c.attempt);
                    threads.insert(c.attempt);
                    let busy = bench.core.held.len() as u32;
                    assert!(busy <= CORES, "{busy} attempts on {CORES} cores");
                }
                Action::Kill(id, why) => {
                    // One in eight hangs.
                    if dice.roll(8) > 0 && threads.remove(&id) {
                        let _ = why;
                        let usage = Usage::default();
                        bench.on(Event::Ended { attempt: id, outcome: Outcome::Released, usage });
                    }
                }
                Action::Abandon(id) => {
                    threads.remove(&id);
                }
                Action::Keep(result) => {
                    outbox.insert(result.attempt, result);
                }
                Action::Forget(id) => {
                    outbox.remove(&id);
                }
                Action::Remember(i) => identity = Some(i),
                Action::DropStages(_) => {}
                Action::Exit(how) => panic!("ended: {how:?}"),
            }
        }
        let calm = step > 2500;
        if calm {
            // The leader marks incarnations that nobody speaks for any more.
            let active = model.active;
            model.running.retain(|_, (_, by)| Some(*by) == active);
            bench.on(Event::ShareOk(share("in")));
        }
        match dice.roll(if calm { 6 } else { 12 }) {
            0..=2 => {
                if let Some(c) = call.take() {
                    // Lost on the way there, lost on the way back, or answered.
                    let fate = if calm { 2 } else { dice.roll(6) };
                    if fate != 0 {
                        let reply = model.apply(&c);
                        if fate != 1 {
                            bench.on(Event::Called(Ok(reply)));
                            continue;
                        }
                    }
                    bench.away();
                }
            }
            3 | 4 => {
                if let Some(id) = threads.iter().nth(dice.roll(4) as usize).copied() {
                    threads.remove(&id);
                    let outcome = if dice.roll(4) > 0 {
                        done()
                    } else {
                        Outcome::Failed(trix_model::Failure::share("away"))
                    };
                    bench.on(Event::Ended { attempt: id, outcome, usage: Usage::default() });
                }
            }
            5..=8 => {
                let by = Duration::from_millis(dice.roll(1500));
                bench.tick(by);
            }
            9 if dice.roll(20) == 0 => model.mark(),
            10 if dice.roll(20) == 0 => {
                // Killed, and started again: what it held is gone but for its state folder.
                threads.clear();
                call = None;
                started.retain(|id| !model.running.contains_key(&id.task.0));
                bench = Bench::with(identity.clone(), outbox.values().cloned().collect());
                bench.on(Event::ShareOk(share("in")));
                bench.on(Event::ShareOk(share("cache")));
            }
            11 if dice.roll(10) == 0 => {
                let lost = dice.roll(2) == 0;
                bench.on(if lost {
                    Event::ShareLost(share("in"), "away".into())
                } else {
                    Event::ShareOk(share("in"))
                });
            }
            _ => bench.on(Event::Progress(attempt(1), Progress::default())),
        }
    }
    assert_eq!(model.done.len() as i64, model.tasks, "seed {seed}: {:?}", bench.core);
    assert!(outbox.len() <= 1, "seed {seed}: {outbox:?}");
}

#[test]
fn whatever_gets_lost_every_task_is_done_once() {
    let from = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64);
    for n in 0..300 {
        let seed = from.wrapping_add(n * 7919);
        println!("seed {seed}");
        at_random(seed);
    }
}

/// The core's next call, as far from now as it is.
fn due(bench: &Bench) -> Duration {
    if bench.actions.iter().any(|a| matches!(a, Action::Call(_))) {
        return Duration::ZERO;
    }
    bench.core.wake().saturating_sub(bench.now)
}

#[test]
fn a_hint_of_work_makes_a_worker_with_room_ask_at_once() {
    let mut bench = Bench::at_work(&[]);
    assert_eq!(due(&bench), s(1));
    bench.hint(WorkHint::Ready(1), 0.5);
    assert!(due(&bench) <= Duration::from_millis(1));
    assert_eq!(bench.sync().want, CORES * 4);
    // It brought nothing, so the next hint waits a little; the one after work does not.
    let reply = accepted(&bench, &[]);
    bench.answer(reply);
    bench.hint(WorkHint::Ready(1), 0.0);
    assert_eq!(due(&bench), Duration::from_millis(50));
    bench.sync();
    let reply = accepted(&bench, &[attempt(1)]);
    bench.answer(reply);
    bench.hint(WorkHint::Ready(1), 0.0);
    assert_eq!(due(&bench), Duration::ZERO);
}

#[test]
fn a_hint_during_a_call_is_looked_after_when_the_call_is_over() {
    let mut bench = Bench::at_work(&[]);
    bench.tick(s(1));
    bench.sync();
    bench.hint(WorkHint::Ready(1), 0.0);
    // The call may have looked before the task was there.
    let reply = accepted(&bench, &[]);
    bench.answer(reply);
    assert_eq!(due(&bench), Duration::ZERO);
}

#[test]
fn a_worker_without_room_or_without_its_database_takes_no_hint() {
    let mut bench = Bench::at_work(&[1, 2, 3, 4]);
    let before = due(&bench);
    bench.hint(WorkHint::Ready(9), 0.0);
    assert_eq!(due(&bench), before);
    let mut bench = Bench::at_work(&[]);
    bench.tick(s(1));
    bench.sync();
    bench.away();
    let before = due(&bench);
    bench.hint(WorkHint::Ready(9), 0.0);
    assert_eq!(due(&bench), before, "the pace of its tries is what counts");
}

#[test]
fn of_a_thousand_idle_workers_a_few_ask_for_one_task_and_all_for_a_film() {
    let askers = |tasks: u32| {
        let hint = |n: u32| {
            let mut bench = Bench::at_work(&[]);
            bench.tick(s(1));
            bench.sync();
            let mut reply = accepted(&bench, &[]);
            reply.workers = 1000;
            bench.answer(reply);
            let beat = due(&bench);
            let jitter = f64::from(n) / 1000.0;
            bench.hint(WorkHint::Ready(tasks), jitter);
            let asks = due(&bench) < beat;
            assert!(!asks || due(&bench) <= Duration::from_millis(100));
            asks
        };
        (0..1000).filter(|n| hint(*n)).count()
    };
    assert_eq!(askers(1), 9);
    assert_eq!(askers(500), 1000);
}

#[test]
fn a_kick_brings_the_cancel_to_the_workers_that_it_names() {
    let mut bench = Bench::at_work(&[1]);
    let beat = due(&bench);
    bench.hint(WorkHint::Cancel(Some(vec![WorkerId(8)])), 0.9);
    assert_eq!(due(&bench), beat, "it is another one's");
    bench.hint(WorkHint::Cancel(Some(vec![WorkerId(7)])), 0.9);
    assert_eq!(due(&bench), Duration::ZERO);
    bench.sync();
    let mut reply = accepted(&bench, &[]);
    reply.cancels = vec![attempt(1)];
    bench.answer(reply);
    assert_eq!(bench.killed(1), Some(Why::Cancelled));
}
