//! Traces of the world against the real PostgreSQL: the same calls, in the same order, by
//! the real `trix-db`, with equal answers after each and equal tables.
//!
//! One thing is the database's to decide, and the model follows it: **a delay after a
//! failure** is random. The model takes over what was drawn, as far as it lies within the
//! back-off of that failure, and all that were drawn together must look drawn evenly.
//! Everything else must be equal, down to the order in which a claim takes its tasks.
//!
//! Between the calls of a trace come some that nobody honest makes ([`with_forgeries`]):
//! a world has no rogue worker, and the fence is there for one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use trix_db::inspect::{Inspector, RawEvent};
use trix_db::leader::{Leader, Seat};
use trix_db::{Credentials, Db, DbError, Outcome, ProtocolTimes, SyncReply, WorkerStore};
use trix_model::{Epoch, WorkerId};
use trix_testkit::pg::{TestCluster, TestDb};

use crate::breaks::{SQL_BREAKS, SqlBreak};
use crate::check::{Violation, rules, stream::Stream};
use crate::model::{Answer, Call, Model, Refusal, Tables};
use crate::rng::Rng;
use crate::world::{NODES, Setup, World, times};

/// Where a database and the model part, or where a rule does not hold in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The trace's seed.
    pub seed: u64,
    /// Number of the call after which it was seen, from 0.
    pub call: usize,
    /// The call.
    pub what: String,
    /// All that is wrong: violated rules first.
    pub found: Vec<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, call {}: {}", self.seed, self.call, self.what)?;
        self.found.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What came of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Traces.
    pub traces: u64,
    /// Calls whose answers were compared.
    pub calls: u64,
    /// Times that all tables were compared.
    pub looks: u64,
    /// Calls that a replay cannot make: ticks of a session that is over.
    pub skipped: u64,
    /// Delays that were taken over.
    pub delays: u64,
    /// Each of them as a part of the most that it could have been, added up.
    pub drawn: f64,
    /// By the name of the call.
    pub by_call: BTreeMap<&'static str, u64>,
    /// The first difference, if there was one.
    pub difference: Option<Difference>,
}

impl Replayed {
    fn add(&mut self, one: Replayed) {
        self.traces += one.traces;
        self.calls += one.calls;
        self.looks += one.looks;
        self.skipped += one.skipped;
        self.delays += one.delays;
        self.drawn += one.drawn;
        for (name, n) in one.by_call {
            *self.by_call.entry(name).or_default() += n;
        }
        // Of two lanes the lower seed, so that the same replay tells the same.
        let seed = |d: &Option<Difference>| d.as_ref().map_or(u64::MAX, |d| d.seed);
        if seed(&one.difference) < seed(&self.difference) {
            self.difference = one.difference;
        }
    }

    /// Whether the delays that the database drew are spread as jitter is: their mean is half
    /// of what they could be. With 200 of them it is within 0.1 of that but once in 10⁶ runs.
    pub fn jitter_is_even(&self) -> bool {
        self.delays < 200 || (self.drawn / self.delays as f64 - 0.5).abs() < 0.1
    }
}

/// What replays are run with.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first seed.
    pub first: u64,
    /// How many traces.
    pub traces: u64,
    /// Steps with faults of each world.
    pub steps: u64,
    /// The most calls that are taken of a trace.
    pub calls: usize,
    /// The tables are compared after every so many calls, and at the end. Where they differ
    /// the trace is replayed once more with a look after each call.
    pub every: usize,
}

/// Replays traces on a cluster of its own, on all cores; ends at the first difference.
pub fn run(plan: Plan, broken: Option<SqlBreak>) -> Result<Replayed> {
    let cluster = runtime()?.block_on(TestCluster::start())?;
    on(&cluster.admin_url(), plan, broken)
}

/// Replays traces on the server at `admin`: a thread a core, each with one connection for the
/// calls, one for the looks and one for the seat.
pub fn on(admin: &str, plan: Plan, broken: Option<SqlBreak>) -> Result<Replayed> {
    let next = AtomicU64::new(plan.first);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Replayed::default());
    let lane = || -> Result<()> {
        let runtime = runtime()?;
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= plan.first + plan.traces {
                break;
            }
            let one = runtime.block_on(one(admin, plan, broken, seed)).inspect_err(|_| {
                stop.store(true, Ordering::Relaxed);
            })?;
            stop.fetch_or(one.difference.is_some(), Ordering::Relaxed);
            total.lock().unwrap_or_else(|e| e.into_inner()).add(one);
        }
        Ok(())
    };
    std::thread::scope(|s| {
        let lanes = std::thread::available_parallelism().map_or(1, |n| n.get());
        let lanes: Vec<_> = (0..lanes).map(|_| s.spawn(lane)).collect();
        for lane in lanes {
            lane.join().map_err(|_| anyhow!("a thread of the replay panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(total.into_inner().unwrap_or_else(|e| e.into_inner()))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// One trace on a database of its own; where it differs, once more with a look at each call.
async fn one(admin: &str, plan: Plan, broken: Option<SqlBreak>, seed: u64) -> Result<Replayed> {
    let setup = Setup { seed, steps: plan.steps, broken: None, trace: false, record: true };
    let mut calls = with_forgeries(seed, &World::run(&setup).calls);
    calls.truncate(plan.calls);
    let replayed = async |every| {
        let test = TestDb::on(admin).await?;
        if let Some(b) = broken {
            test.break_function(b.function, b.from, b.to).await.context(b.name)?;
        }
        replay(&test, seed, &calls, every).await
    };
    let mut done = replayed(plan.every).await?;
    if done.difference.is_some() && plan.every > 1 {
        // Delays are drawn anew: should the second run not part, the first still has.
        done.difference = replayed(1).await?.difference.or(done.difference);
    }
    Ok(done)
}

/// The calls of a trace, and between them what nobody honest sends: results and publications
/// under another worker's name, with a wrong secret, of another epoch; results once more; a
/// leader that was overtaken. All of it must be refused, or change nothing. And a worker may
/// end at the worst moment, when it has just prepared a publication.
pub fn with_forgeries(seed: u64, calls: &[Call]) -> Vec<Call> {
    let mut rng = Rng::new(seed ^ 0xf0e9);
    let mut workers = 0;
    let mut all = Vec::new();
    for call in calls {
        workers += u64::from(matches!(call, Call::Register(_)));
        // Before the real one, while there is still something to be had.
        all.extend(forgery(&mut rng, call, workers));
        all.push(call.clone());
        if let Call::Sync(r) = call
            && !r.results.is_empty()
            && rng.one_in(8)
        {
            all.push(Call::Sync(Box::new(trix_db::SyncRequest { want: 0, ..(**r).clone() })));
        }
        if let Call::Prepare(me, ..) = call
            && rng.one_in(8)
        {
            all.push(Call::Leave(me.clone()));
        }
    }
    all
}

fn forgery(rng: &mut Rng, call: &Call, workers: u64) -> Option<Call> {
    let mut forged = call.clone();
    if let Call::Sync(r) = &mut forged {
        // It takes nothing: what a stranger claims, the world's workers would never run.
        r.want = 0;
        r.progress.clear();
    }
    if let Some(epoch) = forged.leader_epoch() {
        *epoch -= 1;
        return (*epoch > 0 && rng.one_in(12)).then_some(forged);
    }
    let ends = matches!(&forged, Call::Sync(r) if !r.results.is_empty());
    let attempt = forged.attempt().is_some();
    match rng.below(24) {
        0 => {
            forged.credentials()?.token = "a guess".to_owned();
            Some(forged)
        }
        1..=3 if ends || attempt => {
            let own = forged.credentials()?.worker.0;
            let other = rng.between(1, workers.max(1)) as i64;
            *forged.credentials()? = Model::credentials(WorkerId(other));
            (other != own).then_some(forged)
        }
        4 if attempt => {
            let a = forged.attempt()?;
            a.epoch = Epoch(a.epoch.0 + 1);
            Some(forged)
        }
        _ => None,
    }
}

/// The real database behind [`Call`]s.
struct Real {
    db: Db,
    inspector: Inspector,
    secrets: BTreeMap<i64, String>,
    nodes: BTreeMap<String, String>,
    seat: Option<Seat>,
    leaders: BTreeMap<i64, Leader>,
    /// Numbered events of before the trace.
    setup: i64,
    /// Those of the trace, as far as they were read.
    log: Vec<RawEvent>,
}

impl Real {
    async fn new(test: &TestDb) -> Result<Real> {
        // At its own pace: only the times that the leader writes are the world's.
        let patient = ProtocolTimes::default();
        let t = ProtocolTimes { statement: patient.statement, connect: patient.connect, ..times() };
        let db = Db::with_connections(test.url(), t, 1)?;
        let mut nodes = BTreeMap::new();
        for name in NODES {
            nodes.insert(name.to_owned(), db.enrol_node(name).await?.secret);
        }
        db.create_principal("client", trix_db::access::Role::Service, None).await?;
        let hash = trix_model::Digest([7; 32]);
        db.put_profile("profile", hash, "name = 'profile'", true).await?;
        // What setting up wrote is not part of the trace: it is numbered and left behind.
        while db.sequence_events().await?.count > 0 {}
        let setup = db.event_head().await?.head;
        let inspector = db.inspector().await?;
        let (secrets, leaders, log) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Ok(Real { db, inspector, secrets, nodes, seat: None, leaders, setup, log })
    }

    /// The real secret in place of the model's; a forged one stays what it is.
    fn me(&self, me: &Credentials) -> Credentials {
        let own = *me == Model::credentials(me.worker);
        let token = self.secrets.get(&me.worker.0).filter(|_| own).cloned();
        Credentials { worker: me.worker, token: token.unwrap_or_else(|| me.token.clone()) }
    }

    /// Makes a call; `None` for what a replay cannot do.
    async fn call(&mut self, call: &Call) -> Result<Option<Result<Answer, Refusal>>> {
        let answer = self.ask(call).await;
        Ok(Some(match answer {
            Ok(None) => return Ok(None),
            Ok(Some(answer)) => Ok(answer),
            Err(e) => Err(refusal(e)?),
        }))
    }

    fn leader(&self, epoch: i64) -> Result<&Leader, DbError> {
        let operation = "replaying";
        self.leaders.get(&epoch).ok_or(DbError::NotLeader { operation })
    }

    async fn ask(&mut self, call: &Call) -> Result<Option<Answer>, DbError> {
        let db = &self.db;
        Ok(Some(match call {
            Call::Register(r) => {
                let mut r = (**r).clone();
                r.node_token = self.nodes.get(&r.node).cloned().unwrap_or_default();
                let registered = db.register(r).await?;
                let me = &registered.me;
                self.secrets.insert(me.worker.0, me.token.clone());
                Answer::Registered(registered)
            }
            Call::Sync(r) => {
                let mut r = (**r).clone();
                r.me = self.me(&r.me);
                Answer::Synced(Box::new(db.sync(r).await?))
            }
            Call::Supersede(me, old) => Answer::Count(db.supersede(self.me(me), *old).await?),
            Call::Leave(me) => {
                db.leave(self.me(me)).await?;
                Answer::Done
            }
            Call::Prepare(me, a, m) => {
                let p = db.prepare_publication(self.me(me), *a, (**m).clone()).await?;
                Answer::Publication(Box::new(p))
            }
            Call::BeginMove(me, a) => {
                db.begin_move(self.me(me), *a).await?;
                Answer::Done
            }
            Call::Published(me, a) => {
                db.published(self.me(me), *a, json!({})).await?;
                Answer::Done
            }
            Call::Conflict(me, a) => {
                db.publication_conflict(self.me(me), *a, "taken".into()).await?;
                Answer::Done
            }
            Call::Submit(s) => Answer::Submitted(db.submit(s).await?),
            Call::Cancel(j) => Answer::Job(db.cancel(*j).await?),
            Call::Retry(j) => Answer::Job(db.retry(*j).await?),
            Call::Pause(j) => Answer::Job(db.pause(*j).await?),
            Call::Resume(j) => Answer::Job(db.resume(*j).await?),
            Call::SetBand(j, band) => {
                db.set_band(*j, *band).await?;
                Answer::Done
            }
            Call::Drain(w) => {
                db.drain(*w).await?;
                Answer::Done
            }
            Call::Emit(kind) => {
                db.emit(kind, None, &json!({})).await?;
                Answer::Done
            }
            Call::Sequence => Answer::Sequenced(db.sequence_events().await?.count),
            Call::Takeover(holder, outage) => Answer::Leads(self.take_over(holder, *outage).await?),
            Call::Tick(epoch, since) => match &mut self.seat {
                Some(seat) if seat.epoch() == *epoch => Answer::Ticked(seat.tick(*since).await?),
                // That session is over: nothing can be sent on it.
                _ => return Ok(None),
            },
            Call::MarkLost(e) => Answer::Lost(self.leader(*e)?.mark_lost().await?),
            Call::JobsToPlan(e, n) => Answer::ToPlan(self.leader(*e)?.jobs_to_plan(*n).await?),
            Call::AppendPlan(e, j, plan) => {
                Answer::Flag(self.leader(*e)?.append_plan(*j, plan).await?)
            }
            Call::FailJob(e, j, failure) => {
                self.leader(*e)?.fail_job(*j, failure).await?;
                Answer::Done
            }
            Call::CacheHits(e) => Answer::Count(self.leader(*e)?.cache_hits().await?.into()),
            Call::Repair(e) => Answer::Repaired(self.leader(*e)?.repair().await?),
            Call::FinishCancels(e) => {
                Answer::Count(self.leader(*e)?.finish_cancels().await?.into())
            }
            Call::BlockReasons(e) => Answer::Count(self.leader(*e)?.block_reasons().await?.into()),
            Call::Forget(e, key) => Answer::Flag(self.leader(*e)?.forget_artifact(*key).await?),
            Call::Tend(e) => Answer::Count(self.leader(*e)?.tend().await?.into()),
            Call::Age(e) => Answer::Count(self.leader(*e)?.age().await?.into()),
        }))
    }

    async fn take_over(&mut self, holder: &str, outage: Duration) -> Result<i64, DbError> {
        if let Some(seat) = self.seat.take() {
            seat.leave().await?;
        }
        loop {
            // The server ends the session a moment after it was closed.
            if let Some(seat) = Seat::try_take(&self.db, holder, outage).await? {
                let epoch = seat.epoch();
                self.leaders.insert(epoch, seat.leader());
                self.seat = Some(seat);
                return Ok(epoch);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The tables at this moment, and the events that were numbered since the last look.
    async fn tables(&mut self) -> Result<Tables> {
        let mut s = self.inspector.snapshot().await?;
        s.head -= self.setup;
        while (self.log.len() as i64) < s.head {
            let more = self.db.events(self.setup + self.log.len() as i64, None, 5000).await?;
            if more.is_empty() {
                // A head without its events: they differ from the model's.
                break;
            }
            self.log.extend(more.into_iter().map(|e| RawEvent {
                job_id: e.job.map(|j| j.0),
                task_id: e.task.map(|t| t.0),
                kind: e.kind,
                body: e.body,
            }));
        }
        Ok(Tables::of(s, Vec::new()))
    }
}

fn refusal(e: DbError) -> Result<Refusal> {
    Ok(match e {
        DbError::Denied { .. } => Refusal::Denied,
        DbError::Refused { .. } => Refusal::Refused,
        DbError::NotFound { .. } => Refusal::NotFound,
        DbError::Conflict { code, .. } => Refusal::Conflict(code),
        DbError::NotLeader { .. } => Refusal::NotLeader,
        e => return Err(e.into()),
    })
}

/// What is compared of an answer.
fn comparable(answer: &Result<Answer, Refusal>) -> Value {
    match answer {
        Err(r) => json!({ "refused": format!("{r:?}") }),
        Ok(Answer::Registered(r)) => json!({ "worker": r.me.worker, "ping": r.ping_seq }),
        Ok(Answer::Synced(reply)) => match &**reply {
            SyncReply::Marked { .. } => json!("marked"),
            SyncReply::Accepted(a) => {
                let claims = a.claims.iter().map(|c| {
                    json!({ "attempt": c.attempt, "name": c.name, "spec": c.spec,
                        "outputs": c.outputs, "missing": c.missing, "inputs": c.inputs,
                        "roll_forward": c.roll_forward })
                });
                json!({ "ping": a.ping_seq, "workers": a.workers, "drain": a.drain,
                    "running": a.running, "cancels": a.cancels, "verdicts": a.verdicts,
                    "claims": claims.collect::<Vec<_>>() })
            }
        },
        Ok(Answer::ToPlan(jobs)) => {
            json!(jobs.iter().map(|j| (j.job, &j.title)).collect::<Vec<_>>())
        }
        Ok(other) => json!(format!("{other:?}")),
    }
}

/// Replays one trace, with a look at all tables after each call.
pub async fn trace(test: &TestDb, seed: u64, calls: &[Call]) -> Result<Replayed> {
    replay(test, seed, calls, 1).await
}

async fn replay(test: &TestDb, seed: u64, calls: &[Call], every: usize) -> Result<Replayed> {
    let mut real = Real::new(test).await?;
    let mut both = Both::new(seed);
    let mut done = Replayed { traces: 1, ..Replayed::default() };
    for (n, call) in calls.iter().enumerate() {
        let found = match real.call(call).await {
            Ok(None) => {
                done.skipped += 1;
                continue;
            }
            // No refusal: the functions themselves went wrong.
            Err(e) => vec![format!("the database fails: {e:#}")],
            Ok(Some(answer)) => {
                done.calls += 1;
                *done.by_call.entry(call.name()).or_default() += 1;
                if draws(call) || (n + 1).is_multiple_of(every) {
                    done.looks += 1;
                    let tables = real.tables().await?;
                    let differ = both.call(call, &answer, delays(&tables));
                    let mut found = both.look(&tables, &real.log);
                    found.extend(differ);
                    found
                } else {
                    both.call(call, &answer, BTreeMap::new()).into_iter().collect()
                }
            }
        };
        if !found.is_empty() {
            done.difference = Some(Difference { seed, call: n, what: format!("{call:?}"), found });
            break;
        }
    }
    if done.difference.is_none() {
        done.looks += 1;
        let found = both.look(&real.tables().await?, &real.log);
        let (call, what) = (calls.len(), "the end".to_owned());
        done.difference = (!found.is_empty()).then_some(Difference { seed, call, what, found });
    }
    done.delays = both.model.delays.len() as u64;
    done.drawn = both.model.delays.iter().map(|(d, most)| *d as f64 / *most.max(&1) as f64).sum();
    if let Some(seat) = real.seat.take() {
        seat.leave().await?;
    }
    Ok(done)
}

/// True for calls within which the database draws delays.
fn draws(call: &Call) -> bool {
    let Call::Sync(r) = call else { return false };
    r.results.iter().any(|x| matches!(x.outcome, Outcome::Failed(_) | Outcome::MissingInputs(_)))
}

/// The model beside the database, and what the events have said so far.
struct Both {
    model: Model,
    stream: Stream,
    /// Numbered events that were found equal.
    equal: usize,
    /// Events that the stream has seen.
    streamed: usize,
}

impl Both {
    fn new(seed: u64) -> Both {
        let model = Model::new(&NODES, times(), Rng::new(seed));
        Both { model, stream: Stream::default(), equal: 0, streamed: 0 }
    }

    /// Makes the call on the model, which takes over what the database drew, and compares the
    /// answers.
    fn call(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Refusal>,
        drawn: BTreeMap<i64, i64>,
    ) -> Option<String> {
        self.model.drawn = Some(drawn);
        let wanted = comparable(&self.model.call(call));
        self.model.fresh.clear();
        let answer = comparable(answer);
        (wanted != answer).then(|| format!("the model answers {wanted}, the database {answer}"))
    }

    /// Compares the tables; `log` holds the database's numbered events. Not the model alone:
    /// the rules are asked of the database's own rows, and come first.
    fn look(&mut self, found: &Tables, log: &[RawEvent]) -> Vec<String> {
        let mut broken = Vec::new();
        rules::all(found, &mut broken);
        let lost_ms = found.time("lost_ms");
        for e in log.iter().chain(&found.unnumbered).skip(self.streamed) {
            self.stream.take(e, lost_ms, &mut broken);
            self.streamed += 1;
        }
        self.stream.agrees(found, &mut broken);
        let mut out: Vec<String> = broken.iter().map(Violation::to_string).collect();
        out.extend(differences(&self.model.t, found));
        out.extend(self.events_differ(found, log));
        out
    }

    fn events_differ(&mut self, found: &Tables, log: &[RawEvent]) -> Option<String> {
        let t = &self.model.t;
        let mut model = t.log[self.equal..].iter().chain(&t.unnumbered);
        let mut database = log[self.equal..].iter().chain(&found.unnumbered);
        loop {
            match (model.next(), database.next()) {
                (None, None) => break,
                (Some(a), Some(b)) if same_event(a, b) => {}
                (a, b) => {
                    let differ = "events differ: the model has";
                    return Some(format!("{differ} {a:?}, the database {b:?}"));
                }
            }
        }
        self.equal = t.log.len().min(log.len());
        None
    }
}

/// The delays of tasks that wait for their time, as a call that drew them leaves them.
fn delays(found: &Tables) -> BTreeMap<i64, i64> {
    (found.tasks.values())
        .filter(|t| t.not_before_up_ms > 0)
        .map(|t| (t.id, t.not_before_up_ms - found.leader.up_ms))
        .collect()
}

/// Where two sets of tables differ, in words. Events are not looked at.
pub fn differences(model: &Tables, found: &Tables) -> Vec<String> {
    let mut out = Vec::new();
    let mut one = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
        out.push(format!("{what}: the model has {a:?}, the database {b:?}"));
    };
    macro_rules! rows {
        ($($table:ident)*) => {$(
            if model.$table != found.$table {
                let keys = model.$table.keys().chain(found.$table.keys());
                let keys: std::collections::BTreeSet<_> = keys.collect();
                for key in keys {
                    let (a, b) = (model.$table.get(key), found.$table.get(key));
                    if a != b {
                        one(concat!(stringify!($table), " differ"), &a, &b);
                    }
                }
            }
        )*};
    }
    macro_rules! wholes {
        ($($table:ident)*) => {$(
            if model.$table != found.$table {
                one(stringify!($table), &model.$table, &found.$table);
            }
        )*};
    }
    rows!(workers jobs tasks outputs inputs attempts artifacts publications);
    wholes!(leader needs files head);
    out
}

/// The database's event says at least what the model's says.
fn same_event(a: &RawEvent, b: &RawEvent) -> bool {
    let body = a.body.as_object().into_iter().flatten();
    (&a.kind, a.job_id, a.task_id) == (&b.kind, b.job_id, b.task_id)
        && body.clone().all(|(k, v)| b.body.get(k) == Some(v))
}

/// Replays traces over each broken function until the difference shows.
pub fn sql_bites(plan: Plan) -> Result<Vec<(SqlBreak, Replayed)>> {
    let cluster = runtime()?.block_on(TestCluster::start())?;
    let admin = cluster.admin_url();
    SQL_BREAKS.iter().map(|b| Ok((*b, on(&admin, plan, Some(*b))?))).collect()
}
