//! A dispatcher: the seat with its ticks, the pass of `trix-dispatch`, the sequencer, and the
//! prune of the cache. The order of a pass is the real one; what is written out here is only
//! when each part runs.

use std::time::Duration;

use trix_dispatch::pass::{Pass, Step};
use trix_model::Failure;

use super::plans::{Wish, plan1};
use super::{Caller, Item, World};
use crate::model::{Answer, Call, Refusal};

/// One dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    /// The process lives.
    pub alive: bool,
    /// Counts processes and leads: what was meant for an earlier one is not delivered.
    pub generation: u64,
    /// SIGSTOP.
    pub paused: bool,
    /// What waits for a paused process.
    pub inbox: Vec<Item>,
    /// Cut off from the database.
    pub cut: bool,
    lead: Option<Lead>,
    /// When the database last answered, by this process's monotonic clock.
    answered: u64,
}

/// While it leads.
#[derive(Debug)]
struct Lead {
    epoch: i64,
    /// When the last tick that succeeded was sent.
    ticked: u64,
    tick_sent: u64,
    pass: Pass,
    passes: u64,
    /// The job that is being planned.
    planning: Option<trix_model::JobId>,
}

/// What a dispatcher does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Try to take the seat.
    Seat,
    /// Tick.
    Tick,
    /// The next step of the pass, or a new pass.
    Pass,
    /// Number events.
    Sequence,
}

impl Dispatcher {
    /// One that is not started.
    pub fn new() -> Dispatcher {
        Dispatcher {
            alive: false,
            generation: 0,
            paused: false,
            inbox: Vec::new(),
            cut: false,
            lead: None,
            answered: 0,
        }
    }
}

impl World {
    fn turn(&mut self, d: usize, ms: u64, turn: Turn) {
        let generation = self.dispatchers[d].generation;
        self.at(ms, Item::Dispatcher { d, generation, turn });
    }

    pub(super) fn start_dispatcher(&mut self, d: usize) {
        let now = self.now;
        let it = &mut self.dispatchers[d];
        if it.alive {
            return;
        }
        (it.alive, it.paused, it.lead, it.answered) = (true, false, None, now);
        it.generation += 1;
        self.note(|_| format!("dispatcher {d} starts"));
        self.turn(d, 0, Turn::Seat);
        self.turn(d, 10, Turn::Sequence);
    }

    pub(super) fn kill_dispatcher(&mut self, d: usize) {
        let it = &mut self.dispatchers[d];
        if !it.alive {
            return;
        }
        (it.alive, it.lead) = (false, None);
        it.generation += 1;
        it.inbox.clear();
        self.outstanding.retain(|c, _| !c.is_of_dispatcher(d));
        self.note(|_| format!("dispatcher {d} is killed"));
        self.free_seat_later(d);
        let ms = self.rng.between(100, 5000);
        self.at(ms, Item::StartDispatcher(d));
    }

    pub(super) fn resume_dispatcher(&mut self, d: usize) {
        if !std::mem::take(&mut self.dispatchers[d].paused) {
            return;
        }
        self.note(|_| format!("dispatcher {d} goes on"));
        for item in std::mem::take(&mut self.dispatchers[d].inbox) {
            self.at(0, item);
        }
    }

    /// The session is over: at once when the server sees the socket close, after its
    /// keepalives when the peer was cut off silently.
    fn free_seat_later(&mut self, d: usize) {
        if self.seat.is_some_and(|(holder, _)| holder == d) {
            let session = self.seat.map(|(_, session)| session);
            let ms = if self.dispatchers[d].cut { 2500 } else { 5 };
            self.at(ms, Item::FreeSeat(session.unwrap_or_default()));
        }
    }

    pub(super) fn dispatcher_turn(&mut self, d: usize, turn: Turn) {
        let now = self.now;
        match turn {
            Turn::Sequence => self.send(Caller::Sequencer(d), Call::Sequence),
            Turn::Seat => {
                // Each try has a session of its own; one that it knows nothing of any more,
                // because an answer was doubled or late, was closed before.
                self.free_seat_later(d);
                let outage = Duration::from_millis(now - self.dispatchers[d].answered);
                self.send(Caller::Seat(d), Call::Takeover(format!("dispatcher {d}"), outage));
            }
            Turn::Tick => {
                let Some(lead) = self.dispatchers[d].lead.as_mut() else { return };
                lead.tick_sent = now;
                let call = Call::Tick(lead.epoch, Duration::from_millis(now - lead.ticked));
                self.send(Caller::Seat(d), call);
            }
            Turn::Pass => self.step_of_pass(d),
        }
    }

    fn step_of_pass(&mut self, d: usize) {
        let Some(lead) = self.dispatchers[d].lead.as_mut() else { return };
        let epoch = lead.epoch;
        let Some(step) = lead.pass.next() else {
            let again = lead.pass.again();
            lead.passes += 1;
            lead.pass = Pass::new(lead.passes);
            // Now and then the chores find the cache too full.
            if self.rng.one_in(6) {
                let keys = self.cache.keys();
                if !keys.is_empty() {
                    let key = *self.rng.pick(&keys);
                    return self.send(Caller::Prune(d, key), Call::Forget(epoch, key));
                }
            }
            let ms = if again { 0 } else { self.times.reconcile.as_millis() as u64 };
            return self.turn(d, ms, Turn::Pass);
        };
        let call = match step {
            Step::MarkLost => Call::MarkLost(epoch),
            Step::JobsToPlan(limit) => Call::JobsToPlan(epoch, limit),
            Step::FinishCancels => Call::FinishCancels(epoch),
            Step::CacheHits => Call::CacheHits(epoch),
            Step::BlockReasons => Call::BlockReasons(epoch),
            Step::Repair => Call::Repair(epoch),
            Step::Tend => Call::Tend(epoch),
            Step::Age => Call::Age(epoch),
            // What is reserved until when, and which node is cordoned, the database decides by
            // the wall clock and by many attempts, more than a world has.
            Step::Reserve | Step::JudgeNodes => return self.turn(d, 0, Turn::Pass),
            Step::Plan(job) => {
                lead.planning = Some(job.job);
                match wish_of(&job.title) {
                    Some(wish) => Call::AppendPlan(epoch, job.job, Box::new(plan1(wish))),
                    None => {
                        let failure = Failure::request("no_video", "it cannot be planned");
                        Call::FailJob(epoch, job.job, Box::new(failure))
                    }
                }
            }
        };
        self.send(Caller::Leader(d), call);
    }

    fn lead_ends(&mut self, d: usize) {
        let Some(lead) = self.dispatchers[d].lead.take() else { return };
        self.note(|_| format!("dispatcher {d} leads no more (epoch {})", lead.epoch));
        self.dispatchers[d].answered = lead.ticked;
        // The future that held what was under way is dropped; the server may still do it.
        self.dispatchers[d].generation += 1;
        self.outstanding.retain(|c, _| !c.is_of_dispatcher(d));
        self.free_seat_later(d);
        self.turn(d, 0, Turn::Seat);
        self.turn(d, 10, Turn::Sequence);
    }

    /// The database answered on the seat's session.
    pub(super) fn seat_hears(&mut self, d: usize, answer: Option<Result<Answer, Refusal>>) {
        let now = self.now;
        let tick = self.times.tick.as_millis() as u64;
        match answer {
            Some(Ok(Answer::Leads(epoch))) => {
                self.note(|_| format!("dispatcher {d} leads (epoch {epoch})"));
                let (pass, planning) = (Pass::new(0), None);
                let lead = Lead { epoch, ticked: now, tick_sent: now, pass, passes: 0, planning };
                self.dispatchers[d].lead = Some(lead);
                self.dispatchers[d].answered = now;
                self.turn(d, tick, Turn::Tick);
                self.turn(d, 0, Turn::Pass);
            }
            // Somebody else has the seat.
            Some(Ok(Answer::Done)) => {
                self.dispatchers[d].answered = now;
                self.turn(d, tick, Turn::Seat);
            }
            Some(Ok(Answer::Ticked(_))) => {
                if let Some(lead) = self.dispatchers[d].lead.as_mut() {
                    lead.ticked = lead.tick_sent;
                    self.turn(d, tick, Turn::Tick);
                }
            }
            _ if self.dispatchers[d].lead.is_some() => self.lead_ends(d),
            _ => {
                // If the lock was got after all, its session is closed.
                self.free_seat_later(d);
                let ms = self.rng.between(50, 1000);
                self.turn(d, ms, Turn::Seat);
            }
        }
    }

    /// The database answered a step of the pass.
    pub(super) fn leader_hears(&mut self, d: usize, answer: Option<Result<Answer, Refusal>>) {
        let Some(lead) = self.dispatchers[d].lead.as_mut() else { return };
        match answer {
            None | Some(Err(Refusal::NotLeader)) => return self.lead_ends(d),
            Some(Ok(Answer::ToPlan(jobs))) => lead.pass.found(jobs),
            Some(Ok(_)) if lead.planning.take().is_some() => lead.pass.planned(),
            Some(Ok(Answer::Repaired(r))) if r != Default::default() => {
                // The functions keep these right: finding something is a violation.
                self.violate("I1", format!("the repair found something: {r:?}"));
            }
            Some(Err(Refusal::Conflict(_))) if lead.planning.is_some() => {
                let (epoch, job) = (lead.epoch, lead.planning.take());
                let failure = Box::new(Failure::bug("the plan is no plan"));
                if let Some(job) = job {
                    return self.send(Caller::Leader(d), Call::FailJob(epoch, job, failure));
                }
            }
            // A mistake in one step must not keep the others from running.
            Some(_) => {}
        }
        self.turn(d, 0, Turn::Pass);
    }

    pub(super) fn prune_hears(
        &mut self,
        d: usize,
        key: trix_model::Key,
        answer: Option<Result<Answer, Refusal>>,
    ) {
        match answer {
            None | Some(Err(Refusal::NotLeader)) => return self.lead_ends(d),
            // The row first: a file without a row is only a stray.
            Some(Ok(Answer::Flag(true))) => self.cache.remove(&key),
            Some(_) => {}
        }
        let ms = self.times.reconcile.as_millis() as u64;
        self.turn(d, ms, Turn::Pass);
    }

    pub(super) fn sequencer_hears(&mut self, d: usize) {
        let ms = self.rng.between(200, 900);
        self.turn(d, ms, Turn::Sequence);
    }
}

/// What the title asks for; a title without a wish cannot be planned.
fn wish_of(title: &str) -> Option<Wish> {
    let mut parts = title.split(' ').map(|p| p.parse().ok());
    Some(Wish { film: parts.next()??, profile: parts.next()??, chunks: parts.next()?? })
}
