//! Nodes without machines: the worker's real mind, the real calls, and slots that only wait.
//!
//! One task drives the cores of all nodes, in the order of their timers. **No slot is
//! started and no file written**: what a real worker keeps in its state folder is kept by
//! nobody here. A node talks to the database as a real one does, one call at a time, but
//! all nodes share one pool of connections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use trix_db::{Claim, Db, DbError, Outcome, ProtocolTimes, Usage, WorkHint, WorkerStore};
use trix_model::{AttemptId, Progress};
use trix_worker::core::{Action, Call, CallError, Core, CoreConfig, Event, Reply};

use super::figures::{Latencies, Meter};
use super::films::{ENGINE, Films, capacity, register_request, share, shares};
use crate::rng::Rng;

/// How nodes learn of new work before their beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Each over a connection of its own, as real ones do.
    Each,
    /// All over one: a thousand would be more than the server lets in.
    Shared,
}

/// How long a node takes for an attempt, at the fleet's pace.
pub type Work = Box<dyn FnMut(usize, &Claim) -> Duration + Send>;

/// What a fleet consists of.
pub struct Order {
    /// The database.
    pub db: Db,
    /// The protocol's times.
    pub times: ProtocolTimes,
    /// Nodes.
    pub nodes: u32,
    /// Slots of each.
    pub slots: u32,
    /// How they learn of work.
    pub listen: Listen,
    /// How long a node takes for an attempt.
    pub work: Work,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Nodes that are registered.
    pub registered: u64,
    /// Attempts that began.
    pub started: u64,
    /// Attempts that ended.
    pub ended: u64,
    /// Results that the database answered.
    pub settled: u64,
    /// When it answered the latest.
    pub last_settled: Duration,
    /// Attempts that were killed: none, when all is well.
    pub killed: u64,
    /// Results that were refused: none, when all is well.
    pub refused: u64,
    /// Calls that failed: none, when all is well.
    pub failed_calls: u64,
    /// How long syncs took, from the request to the answer.
    pub syncs: Latencies,
    /// Busy slots.
    pub meter: Meter,
}

/// A fleet at work.
pub struct Fleet {
    order: Order,
    films: Films,
    secrets: Vec<String>,
    nodes: Vec<Node>,
    timers: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    timers_set: u64,
    send: UnboundedSender<Heard>,
    inbox: UnboundedReceiver<Heard>,
    _listeners: JoinSet<()>,
    rng: Rng,
    begun: Instant,
    /// What was seen.
    pub tally: Tally,
}

struct Node {
    core: Core,
    held: BTreeMap<AttemptId, Running>,
    /// The timer that counts, and when it is due; earlier ones are overtaken.
    wake: (u64, Duration),
    told: Duration,
}

struct Running {
    outcome: Outcome,
    began: Duration,
    takes: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A node joins.
    Join(usize),
    /// A node's core wants to be looked at.
    Wake(usize, u64),
    /// An attempt is over.
    End(usize, AttemptId),
}

enum Heard {
    /// A call of a node came back.
    Answer(usize, Result<Reply, CallError>, Option<Duration>),
    /// The database has something for a node, or for all.
    Hint(Option<usize>, WorkHint),
}

impl Fleet {
    /// Enrols the nodes. They join one after the other over the length of a beat.
    pub async fn new(order: Order, films: Films, seed: u64) -> Result<Fleet> {
        let (send, inbox) = unbounded_channel();
        let mut secrets = Vec::new();
        let mut nodes = Vec::new();
        let mut timers = BinaryHeap::new();
        for n in 0..order.nodes as usize {
            secrets.push(order.db.enrol_node(&name(n)).await?.secret);
            let config = CoreConfig {
                times: order.times,
                capacity: capacity(order.slots),
                engine: ENGINE.into(),
                cache: share("cache"),
                drain_limit: Duration::ZERO,
            };
            let core = Core::new(config, None, Vec::new());
            nodes.push(Node {
                core,
                held: BTreeMap::new(),
                wake: (0, Duration::MAX),
                told: Duration::ZERO,
            });
            let at = order.times.beat.mul_f64(n as f64 / f64::from(order.nodes));
            timers.push(Reverse((at, n as u64, Due::Join(n))));
        }
        let mut listeners = JoinSet::new();
        let ears: Vec<Option<usize>> = match order.listen {
            Listen::Each => (0..nodes.len()).map(Some).collect(),
            Listen::Shared => vec![None],
        };
        for ear in ears {
            let (db, send) = (order.db.clone(), send.clone());
            listeners.spawn(async move {
                // Nobody hears the last hints of a fleet that is over.
                db.follow_work(move |hint| drop(send.send(Heard::Hint(ear, hint)))).await;
            });
        }
        Ok(Fleet {
            films,
            secrets,
            timers_set: nodes.len() as u64,
            nodes,
            timers,
            send,
            inbox,
            _listeners: listeners,
            rng: Rng::new(seed),
            begun: Instant::now(),
            tally: Tally::default(),
            order,
        })
    }

    /// All slots.
    pub fn slots(&self) -> u64 {
        u64::from(self.order.nodes) * u64::from(self.order.slots)
    }

    /// Time since the first node joined.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Runs until there is enough.
    pub async fn run(&mut self, mut enough: impl FnMut(&Tally, Duration) -> bool) -> Result<()> {
        loop {
            // Answers before timers: a core whose answer waits would ask again for nothing.
            while let Ok(heard) = self.inbox.try_recv() {
                self.hear(heard)?;
            }
            let now = self.now();
            if enough(&self.tally, now) {
                return Ok(());
            }
            let next = self.timers.peek().map(|Reverse((at, ..))| *at);
            match next {
                Some(at) if at <= now => {
                    if let Some(Reverse((_, _, due))) = self.timers.pop() {
                        self.fire(due)?;
                    }
                }
                _ => {
                    let wait = next.map_or(Duration::from_secs(1), |at| at - now);
                    tokio::select! {
                        Some(heard) = self.inbox.recv() => self.hear(heard)?,
                        () = tokio::time::sleep(wait.min(Duration::from_secs(1))) => {}
                    }
                }
            }
            // The calls and the hints run on the same threads.
            tokio::task::yield_now().await;
        }
    }

    fn hear(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Answer(n, answer, sync) => {
                match (&answer, sync) {
                    (Ok(Reply::Registered(_)), _) => self.tally.registered += 1,
                    (Ok(_), Some(took)) => self.tally.syncs.add(took),
                    (Ok(_), None) => {}
                    (Err(e), _) => {
                        self.tally.failed_calls += 1;
                        eprintln!("{}: {e:?}", name(n));
                    }
                }
                self.tell(n, Event::Called(answer))
            }
            Heard::Hint(Some(n), hint) => self.tell(n, Event::Hint(hint)),
            Heard::Hint(None, hint) => {
                (0..self.nodes.len()).try_for_each(|n| self.tell(n, Event::Hint(hint.clone())))
            }
        }
    }

    fn fire(&mut self, due: Due) -> Result<()> {
        match due {
            Due::Join(n) => {
                shares().into_iter().try_for_each(|s| self.tell(n, Event::ShareOk(s)))?;
                self.tick(n)
            }
            Due::Wake(n, number) if number == self.nodes[n].wake.0 => {
                self.nodes[n].wake.1 = Duration::MAX;
                self.tick(n)
            }
            Due::Wake(..) => Ok(()),
            Due::End(n, attempt) => {
                let Some(done) = self.nodes[n].held.remove(&attempt) else { return Ok(()) };
                self.tally.ended += 1;
                self.tally.meter.end(self.begun.elapsed());
                self.tell_progress(n)?;
                let ms = done.takes.as_millis() as u64;
                let usage = Usage { cpu_ms: ms, wall_ms: ms, ..Usage::default() };
                self.tell(n, Event::Ended { attempt, outcome: done.outcome, usage })
            }
        }
    }

    fn tick(&mut self, n: usize) -> Result<()> {
        self.tell_progress(n)?;
        let now = self.now();
        let actions = self.nodes[n].core.tick(now);
        self.act(n, actions)
    }

    fn tell(&mut self, n: usize, event: Event) -> Result<()> {
        let (now, jitter) = (self.now(), self.rng.unit());
        let actions = self.nodes[n].core.on(event, now, jitter);
        self.act(n, actions)
    }

    /// Slots say once a second how far they are. Nobody looks in between, so it is told when
    /// the core may be about to call.
    fn tell_progress(&mut self, n: usize) -> Result<()> {
        let (now, every) = (self.now(), self.order.times.beat_small);
        if now < self.nodes[n].told + every {
            return Ok(());
        }
        self.nodes[n].told = now;
        let told: Vec<(AttemptId, Progress)> = (self.nodes[n].held.iter())
            .map(|(attempt, a)| {
                let total = 240;
                let part = (now - a.began).as_secs_f64() / a.takes.as_secs_f64().max(1e-9);
                let done = (part.min(1.0) * total as f64) as u64;
                (*attempt, Progress { phase: "encode".into(), done, total, frames: 5 * done })
            })
            .collect();
        told.into_iter().try_for_each(|(attempt, p)| self.tell(n, Event::Progress(attempt, p)))
    }

    fn act(&mut self, n: usize, actions: Vec<Action>) -> Result<()> {
        let now = self.now();
        for action in actions {
            match action {
                Action::Call(call) => self.call(n, call),
                Action::Start(claim) => {
                    let takes = (self.order.work)(n, &claim);
                    let outcome = self.films.ok(&claim);
                    let running = Running { outcome, began: now, takes };
                    self.nodes[n].held.insert(claim.attempt, running);
                    self.tally.started += 1;
                    self.tally.meter.begin(now);
                    self.set(now + takes, Due::End(n, claim.attempt));
                }
                Action::Kill(attempt, _) => {
                    self.tally.killed += 1;
                    self.set(now, Due::End(n, attempt));
                }
                Action::Forget(_) => {
                    self.tally.settled += 1;
                    self.tally.last_settled = now;
                }
                Action::DropStages(attempts) => self.tally.refused += attempts.len() as u64,
                Action::Keep(_) | Action::Remember(_) => {}
                Action::Abandon(attempt) => bail!("{} hung with {attempt}", name(n)),
                Action::Exit(how) => bail!("{} ended: {how:?}", name(n)),
            }
        }
        let node = &mut self.nodes[n];
        let at = node.core.wake();
        if at != node.wake.1 {
            node.wake = (node.wake.0 + 1, at);
            let number = node.wake.0;
            if at < Duration::MAX {
                self.set(at, Due::Wake(n, number));
            }
        }
        Ok(())
    }

    fn set(&mut self, at: Duration, due: Due) {
        self.timers_set += 1;
        self.timers.push(Reverse((at, self.timers_set, due)));
    }

    fn call(&mut self, n: usize, call: Call) {
        let (db, send) = (self.order.db.clone(), self.send.clone());
        let (secret, slots) = (self.secrets[n].clone(), self.order.slots);
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut took = None;
            let answer = match call {
                Call::Register { .. } => {
                    let request = register_request(&name(n), &secret, capacity(slots));
                    db.register(request).await.map(Reply::Registered)
                }
                Call::Sync(request) => {
                    let reply = db.sync(*request).await;
                    took = Some(begun.elapsed());
                    reply.map(Reply::Synced)
                }
                Call::Supersede(me, old) => db.supersede(me, old).await.map(|_| Reply::Superseded),
                Call::Leave(me) => db.leave(me).await.map(|()| Reply::Left),
            };
            // A fleet that is over does not want to know.
            drop(send.send(Heard::Answer(n, answer.map_err(call_error), took)));
        });
    }
}

fn name(n: usize) -> String {
    format!("node-{n:04}")
}

fn call_error(e: DbError) -> CallError {
    match e {
        e if e.is_unavailable() => CallError::Away(e.to_string()),
        DbError::Denied { .. } => CallError::Denied(e.to_string()),
        e => CallError::Broken(e.to_string()),
    }
}
