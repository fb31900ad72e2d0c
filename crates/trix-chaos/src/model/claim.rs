//! Who gets what, in which order: migration 0021.
//!
//! The order is the database's to the last task: by band, then what reads a source that the
//! machine has in memory, then by rank. A model that left it free could not say of a claim
//! that it passed over what was more urgent. Left out is what needs more tasks than a world
//! has: the claim looks at 64 tasks of each shape before it looks further.

use serde_json::json;
use trix_db::inspect::{RawAttempt, RawTask, RawWorker};
use trix_model::Key;
use trix_model::state::{AttemptState, JobEvent, JobState, TaskEvent, TaskState, WorkerState};

use super::{Granted, Model};
use crate::breaks::Break;

/// How many sources a machine is thought to have in memory.
const HOT: usize = 16;

/// What is left of a worker.
#[derive(Clone, Copy, Debug)]
struct Room {
    mcpu: i64,
    ram: i64,
    scratch: i64,
}

impl Room {
    fn fits(&self, t: &RawTask) -> bool {
        t.need_mcpu <= self.mcpu && t.need_ram <= self.ram && t.need_scratch <= self.scratch
    }

    fn take(&mut self, t: &RawTask) {
        self.mcpu -= t.need_mcpu;
        self.ram -= t.need_ram;
        self.scratch -= t.need_scratch;
    }

    fn at_most(&mut self, w: &RawWorker) {
        self.mcpu = self.mcpu.min(w.free_mcpu);
        self.ram = self.ram.min(w.free_ram);
        self.scratch = self.scratch.min(w.free_scratch);
    }
}

/// True when an engine may run a task; those that parse no media run on any.
pub(super) fn runs_on_engine(t: &RawTask, engine: &str) -> bool {
    t.engine == engine || matches!(t.kind.as_str(), "publish" | "copy" | "retract")
}

fn subset(needs: &[String], has: &[String]) -> bool {
    needs.iter().all(|n| has.contains(n))
}

/// True while a job's ready tasks may be claimed.
pub(super) fn hands_out(job: JobState) -> bool {
    use JobState as J;
    matches!(job, J::Accepted | J::Inspecting | J::Running | J::WaitingGate)
}

impl Model {
    /// True while another task makes one of the task's outputs.
    fn twin_runs(&self, id: i64) -> bool {
        let keys = self.t.outputs_of(id);
        !keys.is_empty()
            && self.t.tasks.values().any(|r| {
                r.state == TaskState::Running
                    && r.id != id
                    && self.t.outputs_of(r.id).iter().any(|o| keys.iter().any(|k| k.key == o.key))
            })
    }

    /// True when the worker could run the task with nothing else on it.
    pub(super) fn could_run(&self, w: &RawWorker, t: &RawTask) -> bool {
        w.state == WorkerState::Active
            && self.t.nodes[&w.node_id].state == "ok"
            && runs_on_engine(t, &w.engine)
            && subset(&t.need_shares, &w.shares_ok)
            && t.need_mcpu <= w.cap_mcpu
            && t.need_ram <= w.cap_ram
            && t.need_scratch <= w.cap_scratch
    }

    /// True for what waits for nothing but a worker.
    fn is_queued(&self, t: &RawTask) -> bool {
        let state = t.state == TaskState::Ready
            || self.is_broken(Break::DoubleClaim) && t.state == TaskState::Running;
        state
            && t.deps_left == 0
            && t.held_by.is_none()
            && t.not_before_up_ms == 0
            && !self.queue.parked.contains(&t.id)
    }

    /// True when the worker may be given the task, room aside.
    fn may_claim(&self, w: &RawWorker, t: &RawTask) -> bool {
        let other = |o: &RawWorker| {
            !t.avoid_nodes.contains(&o.node_id)
                && self.t.age(o) < self.t.time("suspect_ms")
                && self.could_run(o, t)
        };
        self.is_queued(t)
            // A publication that was prepared is finished whatever became of the job.
            && (t.roll_forward || hands_out(self.job_state(t.job_id)))
            && runs_on_engine(t, &w.engine)
            && subset(&t.need_shares, &w.shares_ok)
            // A node where it failed is avoided as long as another one could take it.
            && !(t.avoid_nodes.contains(&w.node_id) && self.t.workers.values().any(other))
    }

    /// The source that a task reads, as its worker remembers it.
    fn source_of(&self, id: i64) -> Option<String> {
        self.specs.get(&id)?.source().map(|s| s.location.to_string())
    }

    /// What the worker may take, best first.
    fn peek(&self, w: &RawWorker, room: Room) -> Vec<i64> {
        let hot = self.hot.get(&w.id).map_or(&[][..], Vec::as_slice);
        let is_hot = |id: i64| self.source_of(id).is_some_and(|s| hot.contains(&s));
        let mut found: Vec<_> = (self.t.tasks.values())
            .filter(|t| room.fits(t) && self.may_claim(w, t))
            .map(|t| (-t.band, !is_hot(t.id), t.rank, t.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(.., id)| id).collect()
    }

    /// What the worker's word, its capacity and what it runs leave.
    fn room(&self, w: &RawWorker) -> Room {
        let mut room = Room { mcpu: w.cap_mcpu, ram: w.cap_ram, scratch: w.cap_scratch };
        if !self.is_broken(Break::OverCapacity) {
            for a in self.t.running().filter(|a| a.worker_id == w.id) {
                room.take(&self.t.tasks[&a.task_id]);
            }
            room.at_most(w);
        }
        room
    }

    /// Claims up to `want` tasks that fit, best first.
    pub(super) fn claim(&mut self, worker: i64, mut want: i64) -> Granted<()> {
        let w = self.t.workers[&worker].clone();
        let up = self.t.leader.up_ms;
        // Delays that are over.
        for t in self.t.tasks.values_mut() {
            if t.state == TaskState::Ready && t.not_before_up_ms <= up {
                t.not_before_up_ms = 0;
            }
        }
        let mut room = self.room(&w);
        loop {
            let mut changed = false;
            for id in self.peek(&w, room) {
                if want <= 0 {
                    break;
                }
                let t = self.t.tasks[&id].clone();
                let double = self.is_broken(Break::DoubleClaim) && t.state == TaskState::Running;
                // What was done for an earlier one of these may have changed it.
                if !self.is_queued(&t) {
                    continue;
                }
                if self.t.is_cached(id) && !double {
                    self.settle(vec![id])?;
                    self.finish_job(t.job_id)?;
                    changed = true;
                    continue;
                }
                let lost: Vec<Key> = (self.t.inputs.get(&id).into_iter().flatten())
                    .filter(|k| !t.roll_forward && !self.t.artifacts.contains_key(k))
                    .copied()
                    .collect();
                if !lost.is_empty() && !double {
                    let now = self.now();
                    self.lose_artifacts(id, &lost, now)?;
                    changed = true;
                    continue;
                }
                // Another task with the same key runs: its result will do for this one.
                if !room.fits(&t) || self.twin_runs(id) {
                    continue;
                }
                self.take(&w, id, double)?;
                room.take(&t);
                want -= 1;
            }
            if want <= 0 || !changed {
                return Ok(());
            }
        }
    }

    fn take(&mut self, w: &RawWorker, id: i64, double: bool) -> Granted<()> {
        let up = self.t.leader.up_ms;
        let t = self.task_mut(id)?;
        t.epoch += 1;
        t.first_try_up_ms.get_or_insert(up);
        let (epoch, job) = (t.epoch, t.job_id);
        let row = RawAttempt {
            task_id: id,
            epoch,
            worker_id: w.id,
            node_id: w.node_id,
            state: AttemptState::Running,
            result_lost: false,
            failure: None,
        };
        self.t.attempts.insert((id, epoch), row);
        let now = self.now();
        self.started.insert((id, epoch), now);
        if double {
            return Ok(());
        }
        let node = self.t.nodes[&w.node_id].name.clone();
        self.move_task(id, TaskEvent::Claim, json!({ "worker": w.id, "node": node }))?;
        if self.job_state(job) == JobState::Accepted {
            self.move_job(job, JobEvent::Start, json!({}))?;
        }
        if let Some(source) = self.source_of(id) {
            let hot = self.hot.entry(w.id).or_default();
            if !hot.contains(&source) {
                hot.push(source);
                hot.drain(..hot.len().saturating_sub(HOT));
            }
        }
        Ok(())
    }
}
