//! Traces of the world against the real PostgreSQL: the same calls, in the same order, by
//! the real `trix-db`, with equal answers and equal tables after each.
//!
//! Two things are the database's to decide, and the model follows it:
//! * **A delay** after a failure is random: the model checks that it lies within the
//!   back-off and takes it over.
//! * **Which ready tasks a claim takes, and in which order.** The model makes the choice of
//!   migration 0005 (band, rank, id). When the database chose otherwise, the model checks
//!   that each choice was legal (ready, fits, not avoided, not held, not before its time,
//!   no twin) and takes it over. `rank` is the database's alone.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trix_db::inspect::{Inspector, RawEvent};
use trix_db::leader::{Leader, Seat};
use trix_db::{Credentials, Db, DbError, ProtocolTimes, SyncReply, WorkerStore};
use trix_testkit::pg::{TestCluster, TestDb};

use crate::check::{Violation, rules, stream::Stream};
use crate::model::{Answer, Call, Model, Refusal, Tables};
use crate::rng::Rng;
use crate::world::{NODES, Setup, World, times};

/// A part of the real SQL that is taken out.
#[derive(Clone, Copy, Debug)]
pub struct SqlBreak {
    /// Its name.
    pub name: &'static str,
    /// The function.
    pub function: &'static str,
    /// What it has.
    pub from: &'static str,
    /// What it gets.
    pub to: &'static str,
}

/// What came of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Traces.
    pub traces: u64,
    /// Calls that were compared.
    pub calls: u64,
    /// Calls that a replay cannot make: ticks of a session that is over.
    pub skipped: u64,
    /// Claims in which the database chose otherwise, legally.
    pub followed: u64,
    /// Delays that were taken over.
    pub delays: u64,
    /// By the name of the call.
    pub by_call: BTreeMap<&'static str, u64>,
    /// The first difference, if there was one.
    pub difference: Option<String>,
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
}

/// Replays traces on a cluster of its own, on all cores; ends at the first difference.
pub async fn run(plan: Plan, broken: Option<SqlBreak>) -> Result<Replayed> {
    let cluster = TestCluster::start().await?;
    on(&cluster.admin_url(), plan, broken).await
}

/// Replays traces on the server at `admin`.
pub async fn on(admin: &str, plan: Plan, broken: Option<SqlBreak>) -> Result<Replayed> {
    let next = AtomicU64::new(plan.first);
    let total = Mutex::new(Replayed::default());
    let lanes = std::thread::available_parallelism().map_or(1, |n| n.get());
    let lane = || async {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failed = lock(&total).difference.is_some();
            if seed >= plan.first + plan.traces || failed {
                return Ok::<_, anyhow::Error>(());
            }
            let test = TestDb::on(admin).await?;
            if let Some(b) = broken {
                test.break_function(b.function, b.from, b.to).await.context(b.name)?;
            }
            let setup = Setup { seed, steps: plan.steps, broken: None, trace: false, record: true };
            let mut calls = World::run(&setup).calls;
            calls.truncate(plan.calls);
            let one = trace(&test, seed, &calls).await?;
            let mut total = lock(&total);
            total.traces += 1;
            total.calls += one.calls;
            total.skipped += one.skipped;
            total.followed += one.followed;
            total.delays += one.delays;
            for (name, n) in one.by_call {
                *total.by_call.entry(name).or_default() += n;
            }
            if total.difference.is_none() {
                total.difference = one.difference;
            }
        }
    };
    let mut running = Vec::new();
    for _ in 0..lanes {
        running.push(lane());
    }
    for ended in join_all(running).await {
        ended?;
    }
    let total = lock(&total).clone();
    Ok(total)
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Polls futures side by side; they wait for the database nearly all of the time.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waits = false;
        for (f, done) in &mut futures {
            if done.is_none() {
                match f.as_mut().poll(cx) {
                    std::task::Poll::Ready(v) => *done = Some(v),
                    std::task::Poll::Pending => waits = true,
                }
            }
        }
        if waits { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, done)| done).collect()
}

/// The real database behind [`Call`]s.
struct Real {
    db: Db,
    inspector: Inspector,
    secrets: BTreeMap<i64, String>,
    nodes: BTreeMap<String, String>,
    seat: Option<Seat>,
    leaders: BTreeMap<i64, Leader>,
    /// Events that were numbered, as far as they were read.
    log: Vec<RawEvent>,
}

impl Real {
    async fn new(test: &TestDb) -> Result<Real> {
        // At its own pace: only the times that the leader writes are the world's.
        let patient = ProtocolTimes::default();
        let t = ProtocolTimes { statement: patient.statement, connect: patient.connect, ..times() };
        let db = test.db_with(t);
        let mut nodes = BTreeMap::new();
        for name in NODES {
            nodes.insert(name.to_owned(), db.enrol_node(name).await?.secret);
        }
        db.create_principal("client", trix_db::access::Role::Service, None).await?;
        let hash = trix_model::Digest([7; 32]);
        db.put_profile("profile", hash, "name = 'profile'", true).await?;
        // What setting up wrote is not part of the trace: it is numbered and left behind.
        while db.sequence_events().await?.count > 0 {}
        let inspector = db.inspector().await?;
        let (secrets, leaders) = (BTreeMap::new(), BTreeMap::new());
        Ok(Real { db, inspector, secrets, nodes, seat: None, leaders, log: Vec::new() })
    }

    fn me(&self, me: &Credentials) -> Credentials {
        let token = self.secrets.get(&me.worker.0).cloned();
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

    /// The tables; `setup` events come before the trace and are left out.
    async fn tables(&mut self, setup: i64) -> Result<Tables> {
        let mut s = self.inspector.snapshot().await?;
        while setup + (self.log.len() as i64) < s.head {
            let after = setup + self.log.len() as i64;
            for e in self.db.events(after, None, 5000).await? {
                self.log.push(RawEvent {
                    job_id: e.job.map(|j| j.0),
                    task_id: e.task.map(|t| t.0),
                    kind: e.kind,
                    body: e.body,
                });
            }
        }
        s.head -= setup;
        Ok(Tables::of(s, self.log.clone()))
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

/// Replays one trace.
pub async fn trace(test: &TestDb, seed: u64, calls: &[Call]) -> Result<Replayed> {
    let mut real = Real::new(test).await?;
    let mut model = Model::new(&NODES, times(), Rng::new(seed));
    let setup = real.db.event_head().await?.head;
    let mut done = Replayed::default();
    let mut stream = Stream::default();
    let mut read = 0;
    for (n, call) in calls.iter().enumerate() {
        let Some(answer) = real.call(call).await.with_context(|| format!("{call:?}"))? else {
            done.skipped += 1;
            continue;
        };
        let found = real.tables(setup).await?;
        // Not the model alone: the rules are asked of the database's own rows.
        let mut broken = Vec::new();
        rules::all(&found, &mut broken);
        let events: Vec<&RawEvent> = found.events().skip(read).collect();
        let lost_ms = found.time("lost_ms");
        events.iter().for_each(|e| stream.take(e, lost_ms, &mut broken));

        let before = model.clone();
        let mut wanted = model.call(call);
        if comparable(&wanted) != comparable(&answer) && matches!(call, Call::Sync(_)) {
            let mut other = before;
            other.follow = Some(taken(&events));
            let again = other.call(call);
            other.follow = None;
            if comparable(&again) == comparable(&answer) {
                done.followed += 1;
                (model, wanted) = (other, again);
            }
        }
        model.fresh.clear();
        read += events.len();
        done.calls += 1;
        *done.by_call.entry(call.name()).or_default() += 1;
        done.delays += follow_delays(&mut model.t, &found);
        let mut differ = differences(&model.t, &found);
        let (wanted, answer) = (comparable(&wanted), comparable(&answer));
        if wanted != answer {
            differ.push(format!("the model answers {wanted}, the database {answer}"));
        }
        differ.extend(broken.iter().map(Violation::to_string));
        if !differ.is_empty() {
            let at = format!("trace {seed}, call {n}: {call:?}");
            done.difference = Some(format!("{at}\n  {}", differ.join("\n  ")));
            break;
        }
    }
    done.traces = 1;
    if let Some(seat) = real.seat.take() {
        seat.leave().await?;
    }
    Ok(done)
}

/// The tasks that a sync took or found in the cache, in its order.
fn taken(events: &[&RawEvent]) -> Vec<i64> {
    let took = |e: &&&RawEvent| e.kind == "task.state" && e.body["from"] == "ready";
    events.iter().filter(took).filter_map(|e| e.task_id).collect()
}

/// Takes over the delays that the database drew, where they lie within the back-off.
fn follow_delays(model: &mut Tables, found: &Tables) -> u64 {
    let (up, most) = (model.leader.up_ms, model.time("backoff_max_ms"));
    let mut n = 0;
    for (id, t) in &mut model.tasks {
        let Some(real) = found.tasks.get(id) else { continue };
        t.rank = real.rank;
        let drawn = t.not_before_up_ms != real.not_before_up_ms && t.not_before_up_ms >= up;
        if drawn && (up..=up + most).contains(&real.not_before_up_ms) {
            t.not_before_up_ms = real.not_before_up_ms;
            n += 1;
        }
    }
    n
}

/// Where two sets of tables differ, in words.
pub fn differences(model: &Tables, found: &Tables) -> Vec<String> {
    let mut out = Vec::new();
    let mut one = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
        out.push(format!("{what}: the model has {a:?}, the database {b:?}"));
    };
    macro_rules! rows {
        ($($table:ident)*) => {$(
            let keys = model.$table.keys().chain(found.$table.keys());
            let keys: std::collections::BTreeSet<_> = keys.collect();
            for key in keys {
                let (a, b) = (model.$table.get(key), found.$table.get(key));
                if a != b {
                    one(concat!(stringify!($table), " differ"), &a, &b);
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
    let (mut a, mut b) = (model.events(), found.events());
    loop {
        match (a.next(), b.next()) {
            (None, None) => break,
            (Some(a), Some(b)) if same_event(a, b) => {}
            (a, b) => {
                one("events differ", &a, &b);
                break;
            }
        }
    }
    out
}

/// The database's event says at least what the model's says.
fn same_event(a: &RawEvent, b: &RawEvent) -> bool {
    let body = a.body.as_object().into_iter().flatten();
    (&a.kind, a.job_id, a.task_id) == (&b.kind, b.job_id, b.task_id)
        && body.clone().all(|(k, v)| b.body.get(k) == Some(v))
}

/// Safeguards of the real SQL, each taken out of one function.
pub const SQL_BREAKS: &[SqlBreak] = &[
    SqlBreak {
        name: "sql-no-worker-check",
        function: "commit_result",
        from: "tried.task_id is null or tried.worker_id <> w.id or tried.state = 'lost'",
        to: "tried.task_id is null",
    },
    SqlBreak {
        name: "sql-lost-counts-as-running",
        function: "commit_result",
        from: "if tried.state <> 'running' then return 'duplicate'; end if;",
        to: "if tried.state not in ('running', 'lost') then return 'duplicate'; end if;",
    },
    SqlBreak {
        name: "sql-epoch-reset",
        function: "retry_job",
        from: "update task set fail_counts = '{}',",
        to: "update task set epoch = 0, fail_counts = '{}',",
    },
    SqlBreak {
        name: "sql-marked-workers-sync",
        function: "sync_v1",
        from: "where worker.id = (a->>'worker')::bigint and worker.state in ('active', 'draining')",
        to: "where worker.id = (a->>'worker')::bigint",
    },
    SqlBreak {
        name: "sql-no-grace",
        function: "mark_lost_v1",
        from: "if l.up_ms <= l.grace_until_up_ms then return; end if;",
        to: "",
    },
    SqlBreak {
        name: "sql-hasty-mark",
        function: "mark_lost_v1",
        from: "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint",
        to: "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint / 8",
    },
    SqlBreak {
        name: "sql-wall-clock-age",
        function: "mark_lost_v1",
        from: "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint",
        to: "and extract(epoch from clock_timestamp() - last_seen) * 1000000 > 1",
    },
    SqlBreak {
        name: "sql-stale-leader",
        function: "leads",
        from: "select * into l from leader where epoch = e for share;",
        to: "select * into l from leader for share;",
    },
    SqlBreak {
        name: "sql-sequencer-holes",
        function: "sequence_events_v1",
        from: "update event_head set head = head + taken;",
        to: "update event_head set head = head + taken + 1;",
    },
    SqlBreak {
        name: "sql-ready-twice",
        function: "task_done",
        from: "update task set deps_left = deps_left - 1",
        to: "update task set deps_left = deps_left - 2",
    },
    SqlBreak {
        name: "sql-done-without-artifact",
        function: "commit_result",
        from: "if exists (select from output o where o.task_id = t.id\n                and not exists (select from artifact f where f.key = o.key)) then",
        to: "if false then",
    },
    SqlBreak {
        name: "sql-transient-poison",
        function: "judge",
        from: "if class = 'transient' then",
        to: "if class = 'nothing' then",
    },
    SqlBreak {
        name: "sql-deterministic-retry",
        function: "judge",
        from: "    else\n        perform fail_task(t, 'fail', failure, why);\n    end if;\nend",
        to: "    else\n        perform give_back(t, 0, null, why);\n    end if;\nend",
    },
    SqlBreak {
        name: "sql-forget-roll-forward",
        function: "give_back",
        from: "update task set roll_forward = open_publication,",
        to: "update task set roll_forward = false,",
    },
    SqlBreak {
        name: "sql-two-current",
        function: "published_v1",
        from: "update publication set current = true, receipt",
        to: "update publication set current = false, receipt",
    },
    SqlBreak {
        name: "sql-no-fence",
        function: "fenced",
        from: "if not found or t.epoch <> (a->>'epoch')::bigint then",
        to: "if false then",
    },
];

/// Replays traces over each broken function until the difference shows.
pub async fn sql_bites(plan: Plan) -> Result<Vec<(SqlBreak, Replayed)>> {
    let cluster = TestCluster::start().await?;
    let mut bites = Vec::new();
    for b in SQL_BREAKS {
        bites.push((*b, on(&cluster.admin_url(), plan, Some(*b)).await?));
    }
    Ok(bites)
}
