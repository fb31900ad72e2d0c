//! A node: the worker's process around the real core, and the state folder that survives it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trix_db::{AttemptResult, Credentials, RegisterRequest, Resources};
use trix_model::{AttemptId, ShareName};
use trix_worker::core::{
    Action, Call as CoreCall, CallError, Core, CoreConfig, Event, Identity, Reply,
};

use super::attempt::Attempt;
use super::plans::{CACHE, ENGINE, OUTPUT, SOURCE};
use super::share::Usable;
use super::{Caller, Item, World};
use crate::model::{Answer, Call, Refusal};

/// What lies in the state folder.
#[derive(Clone, Debug, Default)]
pub struct StateFolder {
    identity: Option<Identity>,
    outbox: BTreeMap<AttemptId, AttemptResult>,
}

/// A living worker process.
#[derive(Debug)]
pub struct Process {
    core: Core,
    begun: u64,
    me: Option<Credentials>,
    wake: u64,
    /// Attempts at work.
    pub attempts: BTreeMap<AttemptId, Attempt>,
}

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    capacity: Resources,
    /// The worker's process, while it lives.
    pub process: Option<Process>,
    /// Counts processes: what was meant for an earlier one is not delivered.
    pub generation: u64,
    /// Survives its process.
    pub folder: StateFolder,
    /// SIGSTOP: nothing is delivered until it goes on.
    pub paused: bool,
    /// What waits for a paused process.
    pub inbox: Vec<Item>,
    /// Nothing gets from here to the database.
    pub deaf_out: bool,
    /// Nothing gets from the database to here.
    pub deaf_in: bool,
    /// Shares whose probe says ok.
    pub usable: Usable,
}

fn share(name: &str) -> ShareName {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a share's name"))
}

impl Node {
    /// A node whose worker is not started.
    pub fn new(name: &str, mcpu: u32) -> Node {
        Node {
            name: name.to_owned(),
            capacity: Resources { mcpu, ram: 1000, scratch: 1000 },
            process: None,
            generation: 0,
            folder: StateFolder::default(),
            paused: false,
            inbox: Vec::new(),
            deaf_out: false,
            deaf_in: false,
            usable: [CACHE, SOURCE, OUTPUT].map(str::to_owned).into(),
        }
    }
}

impl Node {
    /// The incarnation that its process believes to be.
    pub fn incarnation(&self) -> Option<i64> {
        self.process.as_ref()?.me.as_ref().map(|me| me.worker.0)
    }
}

fn core_error(r: &Refusal) -> CallError {
    match r {
        Refusal::Denied => CallError::Denied("denied".into()),
        other => CallError::Broken(format!("{other:?}")),
    }
}

impl World {
    /// Starts the worker's process of a node, over what an earlier one left.
    pub(super) fn start_worker(&mut self, n: usize) {
        let now = self.now;
        let times = self.times;
        let node = &mut self.nodes[n];
        if node.process.is_some() {
            return;
        }
        node.generation += 1;
        node.paused = false;
        let earlier = node.folder.identity.clone();
        if earlier.is_none() {
            // Without an identity nobody could hand these in.
            node.folder.outbox.clear();
        }
        let config = CoreConfig {
            times,
            capacity: node.capacity,
            engine: ENGINE.into(),
            cache: share(CACHE),
            drain_limit: Duration::from_secs(5),
        };
        let outbox = node.folder.outbox.values().cloned().collect();
        let core = Core::new(config, earlier, outbox);
        let wake = 0;
        let attempts = BTreeMap::new();
        node.process = Some(Process { core, begun: now, me: None, wake, attempts });
        self.note(|w| format!("{} starts", w.nodes[n].name));
        let usable: Vec<String> = self.nodes[n].usable.iter().cloned().collect();
        for s in usable {
            self.tell(n, Event::ShareOk(share(&s)));
        }
        self.tick_worker(n);
    }

    /// kill -9: what was in memory is gone.
    pub(super) fn kill_worker(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.process.take().is_none() {
            return;
        }
        node.generation += 1;
        node.inbox.clear();
        self.outstanding.retain(|c, _| !c.is_of_node(n));
        self.note(|w| format!("{} is killed", w.nodes[n].name));
        let ms = self.rng.between(50, 6000);
        self.at(ms, Item::StartWorker(n));
    }

    /// SIGCONT.
    pub(super) fn resume_worker(&mut self, n: usize) {
        if !std::mem::take(&mut self.nodes[n].paused) {
            return;
        }
        self.note(|w| format!("{} goes on", w.nodes[n].name));
        for item in std::mem::take(&mut self.nodes[n].inbox) {
            self.at(0, item);
        }
    }

    fn process_now(&self, n: usize) -> Duration {
        let begun = self.nodes[n].process.as_ref().map_or(self.now, |p| p.begun);
        Duration::from_millis(self.now - begun)
    }

    /// An event for the core of a node.
    pub(super) fn tell(&mut self, n: usize, event: Event) {
        let (now, jitter) = (self.process_now(n), self.rng.unit());
        let Some(p) = self.nodes[n].process.as_mut() else { return };
        let actions = p.core.on(event, now, jitter);
        self.act(n, actions);
    }

    fn tick_worker(&mut self, n: usize) {
        let now = self.process_now(n);
        let Some(p) = self.nodes[n].process.as_mut() else { return };
        let actions = p.core.tick(now);
        self.act(n, actions);
    }

    pub(super) fn worker_wakes(&mut self, n: usize, wake: u64) {
        if self.nodes[n].process.as_ref().is_some_and(|p| p.wake == wake) {
            self.tick_worker(n);
        }
    }

    /// Does what the core says, one action after the other; a crash may come between any two.
    fn act(&mut self, n: usize, actions: Vec<Action>) {
        for action in actions {
            if self.faulty() && self.rng.one_in(600) {
                return self.kill_worker(n);
            }
            match action {
                Action::Call(call) => self.worker_calls(n, call),
                Action::Start(claim) => {
                    let a = claim.attempt;
                    let Some(p) = self.nodes[n].process.as_mut() else { return };
                    let Some(me) = p.me.clone() else { continue };
                    p.attempts.insert(a, Attempt::new(*claim, me));
                    let ms = self.rng.between(20, 900);
                    self.attempt_later(n, a, ms);
                }
                Action::Kill(a, _) => self.kill_attempt(n, a),
                Action::Abandon(a) => {
                    if let Some(attempt) = self.attempt_mut(n, a) {
                        attempt.abandoned = true;
                    }
                }
                Action::Keep(result) => {
                    self.nodes[n].folder.outbox.insert(result.attempt, result);
                }
                Action::Forget(a) => {
                    self.nodes[n].folder.outbox.remove(&a);
                }
                Action::DropStages(attempts) => self.output.drop_stages(attempts),
                Action::Remember(identity) => {
                    if let Some(p) = self.nodes[n].process.as_mut() {
                        p.me = Some(identity.registered.me.clone());
                    }
                    self.nodes[n].folder.identity = Some(identity);
                }
                Action::Exit(_) => {
                    self.nodes[n].process = None;
                    self.nodes[n].generation += 1;
                    self.outstanding.retain(|c, _| !c.is_of_node(n));
                    self.note(|w| format!("{} ends", w.nodes[n].name));
                    let ms = self.rng.between(500, 5000);
                    self.at(ms, Item::StartWorker(n));
                    return;
                }
            }
        }
        let now = self.now;
        let Some(p) = self.nodes[n].process.as_mut() else { return };
        let wake = p.core.wake();
        if wake == Duration::MAX {
            return;
        }
        p.wake += 1;
        let (number, generation) = (p.wake, self.nodes[n].generation);
        // The core's clock has nanoseconds, the world's milliseconds: rounded up, for a
        // tick that comes too early does nothing and asks for another.
        let begun = self.nodes[n].process.as_ref().map_or(now, |p| p.begun);
        let ms = wake.as_nanos().div_ceil(1_000_000) as u64;
        let at = (begun + ms).max(now);
        self.at(at - now, Item::Wake { node: n, generation, wake: number });
    }

    fn kill_attempt(&mut self, n: usize, a: AttemptId) {
        let Some(attempt) = self.attempt_mut(n, a) else { return };
        attempt.stopped = true;
        if attempt.in_worker() {
            // Its thread looks at its next step.
            return;
        }
        // A slot is dead at once, unless its share hangs.
        let hangs = self.faulty() && self.rng.one_in(30);
        let ms = if hangs { 20_000 } else { self.rng.between(1, 50) };
        self.attempt_later(n, a, ms);
    }

    fn worker_calls(&mut self, n: usize, call: CoreCall) {
        let call = match call {
            CoreCall::Register { shares_ok } => Call::Register(Box::new(RegisterRequest {
                node: self.nodes[n].name.clone(),
                node_token: self.nodes[n].name.clone(),
                boot_id: "boot".into(),
                pid: 1,
                version: "0".into(),
                engine: ENGINE.into(),
                capacity: self.nodes[n].capacity,
                shares_ok,
            })),
            CoreCall::Supersede(me, old) => Call::Supersede(me, old),
            CoreCall::Sync(request) => Call::Sync(request),
            CoreCall::Leave(me) => Call::Leave(me),
        };
        self.send(Caller::Worker(n), call);
    }

    /// The database answered a worker, or is away.
    pub(super) fn worker_hears(&mut self, n: usize, answer: Option<Result<Answer, Refusal>>) {
        let answer = match answer {
            None => Err(CallError::Away("away".into())),
            Some(Err(r)) => Err(core_error(&r)),
            Some(Ok(Answer::Registered(r))) => Ok(Reply::Registered(r)),
            Some(Ok(Answer::Synced(r))) => Ok(Reply::Synced(*r)),
            Some(Ok(Answer::Count(_))) => Ok(Reply::Superseded),
            Some(Ok(_)) => Ok(Reply::Left),
        };
        self.tell(n, Event::Called(answer));
    }

    /// A share goes away from a node, or comes back.
    pub(super) fn turn_share(&mut self, n: usize, name: &str, ok: bool) {
        let changed = match ok {
            true => self.nodes[n].usable.insert(name.to_owned()),
            false => self.nodes[n].usable.remove(name),
        };
        if !changed {
            return;
        }
        self.note(|w| {
            format!("{name} on {} is {}", w.nodes[n].name, if ok { "ok" } else { "gone" })
        });
        let event = match ok {
            true => Event::ShareOk(share(name)),
            false => Event::ShareLost(share(name), "gone".into()),
        };
        let generation = self.nodes[n].generation;
        self.at(0, Item::Tell { node: n, generation, event: Box::new(event) });
    }

    /// SIGTERM.
    pub(super) fn drain_worker(&mut self, n: usize) {
        let generation = self.nodes[n].generation;
        self.at(0, Item::Tell { node: n, generation, event: Box::new(Event::Drain) });
    }

    /// Results in the outboxes of all nodes.
    pub(super) fn outboxes(&self) -> BTreeSet<AttemptId> {
        self.nodes.iter().flat_map(|n| n.folder.outbox.keys().copied()).collect()
    }
}
