//! Rules over the events in their order: I4, I6, I12, I18, I19. One event after the other
//! goes through a [`Stream`], while a simulation writes them or from a database's log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trix_db::inspect::RawEvent;
use trix_model::state::{JobState, PublicationState, TaskState};

use super::Violation;
use super::rules::LEAP;
use crate::model::Tables;

/// What the events have said so far.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// States as the events tell them.
    tasks: BTreeMap<i64, TaskState>,
    jobs: BTreeMap<i64, JobState>,
    publications: BTreeMap<i64, PublicationState>,
    /// Highest epoch that a task was claimed under.
    claimed: BTreeMap<i64, i64>,
    /// Workers that are lost or gone.
    over: BTreeSet<i64>,
    leader: i64,
    /// Restores from backups so far.
    adopted: i64,
    /// Results that were recorded as refused.
    pub refused: u64,
    /// Workers that were marked lost.
    pub marked: u64,
    /// Events that were looked at.
    pub events: u64,
}

fn number(body: &Value, field: &str) -> Option<i64> {
    body.get(field).and_then(Value::as_i64)
}

fn word<T: std::str::FromStr>(body: &Value, field: &str) -> Option<T> {
    body.get(field).and_then(Value::as_str).and_then(|s| s.parse().ok())
}

impl Stream {
    /// One more event. `lost_ms` is T_lost.
    pub fn take(&mut self, e: &RawEvent, lost_ms: i64, out: &mut Vec<Violation>) {
        self.events += 1;
        let body = &e.body;
        match e.kind.as_str() {
            "task.state" => self.task(e, out),
            "job.accepted" => {
                let id = e.job_id.unwrap_or_default();
                if self.jobs.insert(id, JobState::Accepted).is_some() {
                    out.push(Violation::new("I12", format!("job {id} was accepted twice")));
                }
            }
            "job.state" => {
                let id = e.job_id.unwrap_or_default();
                let (from, to) = (word::<JobState>(body, "from"), word::<JobState>(body, "to"));
                let was = self.jobs.get(&id).copied();
                if from.is_none() || was != from {
                    let what = format!("job {id} goes on from {from:?} and was {was:?}");
                    out.push(Violation::new("I12", what));
                }
                self.jobs.extend(to.map(|to| (id, to)));
            }
            "publication.state" => {
                let id = number(body, "publication").unwrap_or_default();
                let to = word::<PublicationState>(body, "to");
                let (from, was) = (word(body, "from"), self.publications.get(&id).copied());
                if was != from {
                    let what = format!("publication {id} goes on from {from:?} and was {was:?}");
                    out.push(Violation::new("I12", what));
                }
                self.publications.extend(to.map(|to| (id, to)));
            }
            "worker.lost" => {
                self.marked += 1;
                self.over.extend(number(body, "worker"));
                let silent = number(body, "silent_ms").unwrap_or_default();
                if silent <= lost_ms {
                    let what = format!("worker {} was marked after {silent} ms", body["worker"]);
                    out.push(Violation::new("I19", what));
                }
                let epoch = number(body, "epoch").unwrap_or_default();
                if epoch != self.leader {
                    let what = format!("leader {epoch} acts while {} leads", self.leader);
                    out.push(Violation::new("I18", what));
                }
            }
            "worker.gone" => self.over.extend(number(body, "worker")),
            "leader.takeover" => {
                let epoch = number(body, "epoch").unwrap_or_default();
                if epoch <= self.leader {
                    let what = format!("leader {epoch} follows {}", self.leader);
                    out.push(Violation::new("I18", what));
                }
                self.leader = epoch;
            }
            "adopted" => {
                self.adopted += 1;
                self.claimed.values_mut().for_each(|epoch| *epoch += LEAP);
                self.leader = number(body, "leader_epoch").unwrap_or_default();
            }
            "result.refused" => self.refused += 1,
            _ => {}
        }
    }

    fn task(&mut self, e: &RawEvent, out: &mut Vec<Violation>) {
        let id = e.task_id.unwrap_or_default();
        let body = &e.body;
        let (from, to) = (word::<TaskState>(body, "from"), word::<TaskState>(body, "to"));
        let was = self.tasks.get(&id).copied().unwrap_or(TaskState::Waiting);
        if from != Some(was) {
            let what = format!("task {id} goes on from {from:?} and was {was}");
            out.push(Violation::new("I12", what));
        }
        let epoch = number(body, "epoch").unwrap_or_default();
        if to == Some(TaskState::Running) {
            // One that was never claimed is as old as some of the adoptions, which no event says.
            let unclaimed = (epoch / LEAP).min(self.adopted) * LEAP;
            let last = self.claimed.insert(id, epoch).unwrap_or(unclaimed);
            if epoch != last + 1 {
                let what = format!("task {id} was claimed as {epoch} after {last}");
                out.push(Violation::new("I4", what));
            }
        }
        let worker = number(body, "worker");
        if to == Some(TaskState::Done)
            && let Some(w) = worker
            && self.over.contains(&w)
        {
            let what = format!("task {id} was done by worker {w} after its end");
            out.push(Violation::new("I6", what));
        }
        self.tasks.extend(to.map(|to| (id, to)));
    }

    /// I12: what the events say is what the tables hold.
    pub fn agrees(&self, t: &Tables, out: &mut Vec<Violation>) {
        for task in t.tasks.values() {
            let said = self.tasks.get(&task.id).copied().unwrap_or(TaskState::Waiting);
            if said != task.state {
                let what = format!("task {} is {} and its events say {said}", task.id, task.state);
                out.push(Violation::new("I12", what));
            }
        }
        for job in t.jobs.values() {
            let said = self.jobs.get(&job.id).copied();
            if said != Some(job.state) {
                let what = format!("job {} is {} and its events say {said:?}", job.id, job.state);
                out.push(Violation::new("I12", what));
            }
        }
        for p in t.publications.values() {
            let said = self.publications.get(&p.id).copied();
            if said != Some(p.state) {
                let what =
                    format!("publication {} is {} and its events say {said:?}", p.id, p.state);
                out.push(Violation::new("I12", what));
            }
        }
        if self.leader != t.leader.epoch && (self.leader > 0 || t.oldest == 1) {
            let what = format!("leader {} and its events say {}", t.leader.epoch, self.leader);
            out.push(Violation::new("I18", what));
        }
    }
}
