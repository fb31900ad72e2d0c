//! How the leader tends the queue: migrations 0020, 0023 and 0052. Nothing here decides whether a
//! task may be claimed, but all of it shapes the order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use trix_model::state::{JobState, TaskState};

use super::claim::hands_out;
use super::{Granted, Model};

/// The highest band.
const TOP: i64 = 9;

/// What only orders the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Tasks of jobs that hand nothing out, kept out of the queue's index.
    pub parked: BTreeSet<i64>,
    /// Jobs that stopped and whose tasks are not parked yet.
    pub to_park: BTreeSet<i64>,
    /// When each task became ready or was raised, in database-up time.
    pub aged: BTreeMap<i64, i64>,
    /// The rank of what is being served.
    pub vtime: i64,
}

impl Model {
    /// A job that stops is parked by the leader, later; one that goes on comes back at once,
    /// and what was parked begins to age anew.
    pub(super) fn job_moved(&mut self, job: i64, from: JobState, to: JobState) {
        if hands_out(from) == hands_out(to) {
            return;
        }
        if hands_out(to) {
            self.queue.to_park.remove(&job);
            let up = self.t.leader.up_ms;
            let back: Vec<i64> = (self.t.tasks_of(job))
                .map(|t| t.id)
                .filter(|id| self.queue.parked.contains(id))
                .collect();
            for id in back {
                self.queue.parked.remove(&id);
                self.queue.aged.insert(id, up);
            }
        } else if !matches!(to, JobState::Succeeded | JobState::Cancelled) {
            self.queue.to_park.insert(job);
        }
    }

    pub(super) fn tend(&mut self, epoch: i64) -> Granted<u64> {
        self.leads(epoch)?;
        let mut n = 0;
        for job in std::mem::take(&mut self.queue.to_park) {
            let stays = |id: &i64| !self.queue.parked.contains(id);
            let ready: Vec<i64> = (self.t.tasks_of(job))
                .filter(|t| t.state == TaskState::Ready && !t.roll_forward)
                .map(|t| t.id)
                .filter(stays)
                .collect();
            n += ready.len() as u64;
            self.queue.parked.extend(ready);
        }
        // It never goes back.
        let served = self.t.running().map(|a| self.t.tasks[&a.task_id].rank).min();
        self.queue.vtime = self.queue.vtime.max(served.unwrap_or(0));
        Ok(n)
    }

    pub(super) fn age(&mut self, epoch: i64) -> Granted<u64> {
        self.leads(epoch)?;
        let up = self.t.leader.up_ms;
        let before = up - self.t.time("ageing_ms");
        let old: Vec<i64> = (self.t.tasks.values())
            .filter(|t| t.state == TaskState::Ready && t.deps_left == 0 && t.held_by.is_none())
            .filter(|t| t.band < TOP && t.not_before_up_ms == 0)
            .map(|t| t.id)
            .filter(|id| !self.queue.parked.contains(id))
            .filter(|id| self.queue.aged.get(id).copied().unwrap_or(0) <= before)
            .collect();
        for id in &old {
            self.task_mut(*id)?.band += 1;
            self.queue.aged.insert(*id, up);
        }
        if !old.is_empty() {
            self.emit("queue.aged", None, None, json!({ "tasks": old.len() }));
        }
        Ok(old.len() as u64)
    }
}
