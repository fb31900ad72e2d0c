//! A world under one seed: workers, dispatchers, clients and shares around the model, and
//! all that goes wrong between them.
//!
//! ```text
//! node        worker processes around the real core, and their state folders
//! attempt     what an attempt does; the publisher's steps
//! dispatcher  the seat, the real pass, the sequencer
//! clients     submits with journals, operators, readers of events
//! share       the cache, and the destination on which nothing is replaced
//! faults      what goes wrong
//! judge       what the world knows better than its database
//! ```
//!
//! Time is a number. The next thing that happens is the first in the queue; things of the
//! same millisecond happen in the order in which they were caused.

mod attempt;
mod clients;
mod dispatcher;
mod faults;
mod judge;
mod node;
pub mod plans;
mod share;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trix_db::ProtocolTimes;
use trix_model::{AttemptId, Key};
use trix_worker::core::Event;

use crate::breaks::Break;
use crate::check::Violation;
use crate::check::stream::Stream;
use crate::model::{Answer, Call, Model, Refusal};
use crate::rng::Rng;
use clients::{Client, Reader};
use dispatcher::{Dispatcher, Turn};
use node::Node;
use share::{Cache, Folder};

/// Names of the nodes.
pub const NODES: [&str; 3] = ["north", "east", "south"];

/// Lines of a trace that are kept.
const TRACE: usize = 120;

/// The most that is done after healing before a world counts as stuck.
const PATIENCE_STEPS: u64 = 40_000;

/// How a world is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Steps with faults; healing and coming to rest are extra.
    pub steps: u64,
    /// What is taken out.
    pub broken: Option<Break>,
    /// Keep the last lines of what happened.
    pub trace: bool,
    /// Keep every call that reached the database.
    pub record: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Numbers.
    pub counts: Counts,
    /// What did not hold, and when it was seen first.
    pub violations: Vec<Violation>,
    /// When the first was seen.
    pub at: String,
    /// The last lines of what happened, if asked for.
    pub trace: Vec<String>,
    /// The calls that reached the database, if asked for.
    pub calls: Vec<Call>,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps.
    pub steps: u64,
    /// Faults beside those of single messages.
    pub faults: u64,
    /// Messages that were lost, late, doubled or without an answer.
    pub messages: u64,
    /// Calls that reached the database.
    pub calls: u64,
    /// Events.
    pub events: u64,
    /// Workers that were marked lost.
    pub marked: u64,
    /// Results that were refused.
    pub refused: u64,
    /// Attempts.
    pub attempts: u64,
    /// Jobs that ended.
    pub jobs: u64,
    /// Versions that were published.
    pub published: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, o: &Counts) {
        self.steps += o.steps;
        self.faults += o.faults;
        self.messages += o.messages;
        self.calls += o.calls;
        self.events += o.events;
        self.marked += o.marked;
        self.refused += o.refused;
        self.attempts += o.attempts;
        self.jobs += o.jobs;
        self.published += o.published;
    }
}

/// Who called the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Worker(usize),
    Attempt(usize, AttemptId),
    Seat(usize),
    Leader(usize),
    Prune(usize, Key),
    Sequencer(usize),
    Client(usize),
    Stranger(usize),
    Operator,
}

impl Caller {
    fn is_of_node(&self, n: usize) -> bool {
        matches!(self, Caller::Worker(m) | Caller::Attempt(m, _) if *m == n)
    }

    fn is_of_dispatcher(&self, d: usize) -> bool {
        use Caller as C;
        matches!(self, C::Seat(e) | C::Leader(e) | C::Prune(e, _) | C::Sequencer(e) if *e == d)
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Item {
    /// A call reaches the database.
    Arrive {
        caller: Caller,
        number: u64,
        call: Box<Call>,
        answer: bool,
    },
    /// An answer reaches the caller; none is a deadline or a broken connection.
    Answer {
        caller: Caller,
        number: u64,
        answer: Option<Box<Result<Answer, Refusal>>>,
    },
    Wake {
        node: usize,
        generation: u64,
        wake: u64,
    },
    Tell {
        node: usize,
        generation: u64,
        event: Box<Event>,
    },
    Attempt {
        node: usize,
        generation: u64,
        attempt: AttemptId,
        due: u64,
    },
    Dispatcher {
        d: usize,
        generation: u64,
        turn: Turn,
    },
    Client(usize),
    Operator,
    Reader(usize),
    SlowWriter,
    SlowCommit(i64),
    Fault,
    StartWorker(usize),
    ResumeWorker(usize),
    HealNode(usize),
    HealShare(usize),
    StartDispatcher(usize),
    ResumeDispatcher(usize),
    HealDispatcher(usize),
    FreeSeat(u64),
    DatabaseUp,
}

/// Everything.
pub struct World {
    rng: Rng,
    nature_seed: u64,
    times: ProtocolTimes,
    now: u64,
    queue: BTreeMap<(u64, u64), Item>,
    caused: u64,
    model: Model,
    broken: Option<Break>,
    nodes: Vec<Node>,
    dispatchers: Vec<Dispatcher>,
    clients: Vec<Client>,
    readers: Vec<Reader>,
    cache: Cache,
    output: Folder,
    /// Calls that wait for an answer.
    outstanding: BTreeMap<Caller, u64>,
    /// Who holds the advisory lock, in which session.
    seat: Option<(usize, u64)>,
    sessions: u64,
    db_up: bool,
    db_hangs_until: u64,
    down_since: u64,
    down_total: u64,
    healed: bool,
    steps: u64,
    /// When the database last heard of each worker, in true milliseconds of uptime.
    heard_up: BTreeMap<i64, u64>,
    /// Nobody may be marked before, by the checker's own reckoning.
    grace_due: i64,
    stream: Stream,
    arrived: BTreeSet<i64>,
    found: Vec<Violation>,
    violation_at: Option<String>,
    trace: Option<VecDeque<String>>,
    calls: Option<Vec<Call>>,
    counts: Counts,
}

/// The protocol's times in a world: the same proportions, but a worker is lost after six
/// seconds, so that a few hundred steps see one lost and found.
pub fn times() -> ProtocolTimes {
    let ms = Duration::from_millis;
    ProtocolTimes {
        lost: ms(6000),
        suspect: ms(3000),
        grace_max: ms(20_000),
        ping_silent: ms(4000),
        statement: ms(1500),
        answer: ms(2000),
        reconnect_max: ms(2000),
        backoff_min: ms(400),
        backoff_max: ms(4000),
        transient_budget: ms(300_000),
        ageing: ms(2000),
        ..ProtocolTimes::default()
    }
}

impl World {
    /// A world that has not begun.
    pub fn new(setup: &Setup) -> World {
        let mut rng = Rng::new(setup.seed);
        let times = times();
        let mut model = Model::new(&NODES, times, rng.fork());
        model.broken = setup.broken;
        let mut world = World {
            nature_seed: rng.bits(),
            times,
            now: 0,
            queue: BTreeMap::new(),
            caused: 0,
            model,
            broken: setup.broken,
            nodes: Vec::new(),
            dispatchers: vec![Dispatcher::new(), Dispatcher::new()],
            clients: Vec::new(),
            readers: vec![Reader::default(); 2],
            cache: Cache::default(),
            output: Folder::default(),
            outstanding: BTreeMap::new(),
            seat: None,
            sessions: 0,
            db_up: true,
            db_hangs_until: 0,
            down_since: 0,
            down_total: 0,
            healed: false,
            steps: setup.steps,
            heard_up: BTreeMap::new(),
            grace_due: 0,
            stream: Stream::default(),
            arrived: BTreeSet::new(),
            found: Vec::new(),
            violation_at: None,
            trace: setup.trace.then(VecDeque::new),
            calls: setup.record.then(Vec::new),
            counts: Counts::default(),
            rng,
        };
        for name in NODES {
            let mcpu = *world.rng.pick(&[1000, 2000, 3000]);
            let n = world.nodes.len();
            world.nodes.push(Node::new(name, mcpu));
            let ms = world.rng.below(1500);
            world.at(ms, Item::StartWorker(n));
        }
        for d in 0..world.dispatchers.len() {
            let ms = world.rng.below(1000);
            world.at(ms, Item::StartDispatcher(d));
        }
        world.new_clients();
        for item in
            [Item::Operator, Item::Fault, Item::SlowWriter, Item::Reader(0), Item::Reader(1)]
        {
            let ms = world.rng.between(500, 3000);
            world.at(ms, item);
        }
        world
    }

    /// Runs a world to its end.
    pub fn run(setup: &Setup) -> Run {
        let mut world = World::new(setup);
        while world.violation_at.is_none() {
            if !world.healed && world.counts.steps >= world.steps {
                world.heal();
            }
            if world.healed {
                if world.counts.steps.is_multiple_of(16) && world.is_quiet() {
                    world.look_at_the_end();
                    break;
                }
                if world.counts.steps.is_multiple_of(512) {
                    world.resume_all();
                }
                if world.counts.steps > world.steps + PATIENCE_STEPS {
                    world.look_at_the_end();
                    let what = "the world does not come to rest";
                    world.found.push(Violation::new("I15", what));
                    break;
                }
            }
            let Some(((at, _), item)) = world.queue.pop_first() else {
                world.violate("I1", "nothing happens any more".into());
                break;
            };
            world.now = world.now.max(at);
            world.counts.steps += 1;
            world.step(item);
        }
        world.ends(setup.seed)
    }

    fn ends(mut self, seed: u64) -> Run {
        let t = &self.model.t;
        let published = trix_model::state::PublicationState::Published;
        self.counts.events = self.stream.events;
        self.counts.marked = self.stream.marked;
        self.counts.refused = self.stream.refused;
        self.counts.attempts = t.attempts.len() as u64;
        self.counts.jobs = t.jobs.values().filter(|j| j.state.is_final()).count() as u64;
        self.counts.published =
            t.publications.values().filter(|p| p.state == published).count() as u64;
        Run {
            seed,
            counts: self.counts,
            at: self.violation_at.unwrap_or_else(|| "the end".to_owned()),
            violations: self.found,
            trace: self.trace.map(Vec::from).unwrap_or_default(),
            calls: self.calls.unwrap_or_default(),
        }
    }

    fn faulty(&self) -> bool {
        !self.healed
    }

    fn at(&mut self, ms: u64, item: Item) {
        self.caused += 1;
        self.queue.insert((self.now + ms, self.caused), item);
    }

    /// A line of the trace; made only when somebody keeps it.
    fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:>8} {}", self.now, line(self));
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    fn violate(&mut self, rule: &'static str, what: String) {
        self.found.push(Violation::new(rule, what));
        self.violation_at.get_or_insert_with(|| format!("step {}", self.counts.steps));
    }

    fn record(&mut self, call: Call) {
        if let Some(calls) = &mut self.calls {
            calls.push(call);
        }
    }

    fn step(&mut self, item: Item) {
        if self.is_held(&item) {
            return self.hold(item);
        }
        match item {
            Item::Arrive { caller, number, call, answer } => {
                self.arrive(caller, number, call, answer);
            }
            Item::Answer { caller, number, answer } => self.answer(caller, number, answer),
            Item::Wake { node, generation, wake } => {
                if self.nodes[node].generation == generation {
                    self.worker_wakes(node, wake);
                }
            }
            Item::Tell { node, generation, event } => {
                if self.nodes[node].generation == generation {
                    self.tell(node, *event);
                }
            }
            Item::Attempt { node, generation, attempt, due } => {
                if self.nodes[node].generation == generation {
                    self.attempt_step(node, attempt, due);
                    self.look("attempt");
                }
            }
            Item::Dispatcher { d, generation, turn } => {
                if self.dispatchers[d].alive && self.dispatchers[d].generation == generation {
                    self.dispatcher_turn(d, turn);
                }
            }
            Item::Client(c) => self.client_turn(c),
            Item::Operator => self.operator_turn(),
            Item::Reader(r) => self.reader_turn(r),
            Item::SlowWriter => self.slow_writer_turn(),
            Item::SlowCommit(id) => self.slow_commit(id),
            Item::Fault => self.fault(),
            Item::StartWorker(n) => self.start_worker(n),
            Item::ResumeWorker(n) => self.resume_worker(n),
            Item::HealNode(n) => {
                (self.nodes[n].deaf_in, self.nodes[n].deaf_out) = (false, false);
                self.note(|w| format!("{} is heard again", w.nodes[n].name));
            }
            Item::HealShare(n) => {
                for name in [plans::CACHE, plans::SOURCE, plans::OUTPUT] {
                    self.turn_share(n, name, true);
                }
            }
            Item::StartDispatcher(d) => self.start_dispatcher(d),
            Item::ResumeDispatcher(d) => self.resume_dispatcher(d),
            Item::HealDispatcher(d) => self.dispatchers[d].cut = false,
            Item::FreeSeat(session) => {
                if self.seat.is_some_and(|(_, s)| s == session) {
                    self.seat = None;
                }
            }
            Item::DatabaseUp => self.database_up(),
        }
    }

    /// True for what a stopped process cannot take.
    fn is_held(&self, item: &Item) -> bool {
        let caller_held = |c: &Caller| match c {
            Caller::Worker(n) | Caller::Attempt(n, _) => self.nodes[*n].paused,
            Caller::Seat(d) | Caller::Leader(d) | Caller::Prune(d, _) | Caller::Sequencer(d) => {
                self.dispatchers[*d].paused
            }
            _ => false,
        };
        match item {
            Item::Answer { caller, .. } => caller_held(caller),
            Item::Wake { node, .. } | Item::Tell { node, .. } | Item::Attempt { node, .. } => {
                self.nodes[*node].paused
            }
            Item::Dispatcher { d, .. } => self.dispatchers[*d].paused,
            _ => false,
        }
    }

    fn hold(&mut self, item: Item) {
        let dispatcher = match &item {
            Item::Dispatcher { d, .. } => Some(*d),
            Item::Answer { caller, .. } => {
                (0..self.dispatchers.len()).find(|d| caller.is_of_dispatcher(*d))
            }
            _ => None,
        };
        if let Some(d) = dispatcher {
            return self.dispatchers[d].inbox.push(item);
        }
        let node = match &item {
            Item::Wake { node, .. } | Item::Tell { node, .. } | Item::Attempt { node, .. } => *node,
            Item::Answer { caller, .. } => {
                (0..self.nodes.len()).find(|n| caller.is_of_node(*n)).unwrap_or(0)
            }
            _ => return,
        };
        self.nodes[node].inbox.push(item);
    }

    /// Sends a call to the database; what becomes of it on the way is decided here.
    fn send(&mut self, caller: Caller, call: Call) {
        self.caused += 1;
        let number = self.caused;
        self.outstanding.insert(caller, number);
        let deadline = self.times.statement.as_millis() as u64;
        self.at(deadline, Item::Answer { caller, number, answer: None });
        if self.is_deaf(caller, true) {
            return;
        }
        let call = Box::new(call);
        let ms = self.rng.between(1, 40);
        let fate = if self.faulty() { self.rng.below(100) } else { 99 };
        match fate {
            // Lost on the way.
            0..=2 => self.counts.messages += 1,
            // Done, and the answer is lost.
            3..=5 => {
                self.counts.messages += 1;
                self.at(ms, Item::Arrive { caller, number, call, answer: false });
            }
            // Late: the caller has given up when it is done.
            6..=7 => {
                self.counts.messages += 1;
                let late = deadline + self.rng.between(1, 4000);
                self.at(late, Item::Arrive { caller, number, call, answer: false });
            }
            // Twice.
            8 => {
                self.counts.messages += 1;
                let again = ms + self.rng.between(1, 1500);
                let copy = call.clone();
                self.at(ms, Item::Arrive { caller, number, call, answer: true });
                self.at(again, Item::Arrive { caller, number, call: copy, answer: false });
            }
            _ => self.at(ms, Item::Arrive { caller, number, call, answer: true }),
        }
    }

    fn is_deaf(&self, caller: Caller, out: bool) -> bool {
        match caller {
            Caller::Worker(n) | Caller::Attempt(n, _) => {
                if out {
                    self.nodes[n].deaf_out
                } else {
                    self.nodes[n].deaf_in
                }
            }
            Caller::Seat(d) | Caller::Leader(d) | Caller::Prune(d, _) | Caller::Sequencer(d) => {
                self.dispatchers[d].cut
            }
            Caller::Client(_) | Caller::Stranger(_) | Caller::Operator => false,
        }
    }

    fn arrive(&mut self, caller: Caller, number: u64, call: Box<Call>, answer: bool) {
        if !self.db_up {
            // Refused at once; what is late finds nobody.
            let ms = self.rng.between(1, 40);
            return self.at(ms, Item::Answer { caller, number, answer: None });
        }
        if self.now < self.db_hangs_until {
            let ms = self.db_hangs_until - self.now;
            return self.at(ms, Item::Arrive { caller, number, call, answer });
        }
        if let (Call::Takeover(..), Caller::Seat(d)) = (&*call, caller) {
            // A late one belongs to a session that is over.
            let waits = self.outstanding.get(&caller) == Some(&number);
            if self.seat.is_some() || !waits {
                if !answer {
                    return;
                }
                let taken = Some(Box::new(Ok(Answer::Done)));
                return self.at(1, Item::Answer { caller, number, answer: taken });
            }
            self.sessions += 1;
            self.seat = Some((d, self.sessions));
        }
        self.counts.calls += 1;
        self.hear(&call);
        let allowed = self.let_through(&call);
        let result = self.model.call(&call);
        self.fence_held(&allowed, &result);
        self.note(|_| match &result {
            Ok(_) => format!("{call:?}"),
            Err(e) => format!("{call:?}: {e:?}"),
        });
        self.look(call.name());
        self.record(*call);
        if answer && !self.is_deaf(caller, false) {
            let ms = self.rng.between(1, 40);
            let result = Some(Box::new(result));
            self.at(ms, Item::Answer { caller, number, answer: result });
        }
    }

    fn answer(
        &mut self,
        caller: Caller,
        number: u64,
        answer: Option<Box<Result<Answer, Refusal>>>,
    ) {
        // An answer after the deadline, or to a process that is no more.
        if self.outstanding.get(&caller) != Some(&number) {
            return;
        }
        self.outstanding.remove(&caller);
        let answer = answer.map(|a| *a);
        match caller {
            Caller::Worker(n) => self.worker_hears(n, answer),
            Caller::Attempt(n, a) => self.fence_answers(n, a, answer),
            Caller::Seat(d) => self.seat_hears(d, answer),
            Caller::Leader(d) => self.leader_hears(d, answer),
            Caller::Prune(d, key) => self.prune_hears(d, key, answer),
            Caller::Sequencer(d) => self.sequencer_hears(d),
            Caller::Client(c) => self.client_hears(c, answer),
            Caller::Stranger(c) => self.stranger_hears(c, answer),
            Caller::Operator => {}
        }
    }
}
