//! What the leading dispatcher calls: migrations 0008 and 0023.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use trix_db::inspect::{RawTask, RawWorker};
use trix_db::leader::{JobToPlan, LostWorker, PlannedTask, Repaired, Tick};
use trix_model::state::{JobEvent, JobState, TaskState, WorkerState};
use trix_model::{Failure, JobId, Key, WorkerId};
use trix_plan::task::Plan;

use super::claim::runs_on_engine;
use super::moves::{ENDED, PLANNABLE, finished};
use super::{Granted, Model, Refusal, code_of, leader_times};
use crate::breaks::Break;

impl Model {
    pub(super) fn leads(&self, epoch: i64) -> Granted<()> {
        let leads = self.t.leader.epoch == epoch || self.is_broken(Break::StaleLeader);
        if leads { Ok(()) } else { Err(Refusal::NotLeader) }
    }

    pub(super) fn takeover(&mut self, holder: &str, outage: Duration) -> i64 {
        let grace = self.times.grace(outage).as_millis() as i64;
        let spares = !self.is_broken(Break::NoGrace);
        let times = leader_times(&self.times);
        let l = &mut self.t.leader;
        l.epoch += 1;
        holder.clone_into(&mut l.holder);
        l.ping_seq += 1;
        l.times = times;
        if spares {
            l.grace_until_up_ms = l.grace_until_up_ms.max(l.up_ms + grace);
        }
        let (epoch, up_ms) = (l.epoch, l.up_ms);
        let body = json!({ "epoch": epoch, "holder": holder, "up_ms": up_ms });
        self.emit("leader.takeover", None, None, body);
        epoch
    }

    pub(super) fn tick(&mut self, epoch: i64, since: Duration) -> Granted<Tick> {
        if self.t.leader.epoch != epoch && !self.is_broken(Break::StaleLeader) {
            return Err(Refusal::NotLeader);
        }
        let (up, grace) = self.times.counted(since);
        let grace = grace.filter(|_| !self.is_broken(Break::NoGrace)).unwrap_or_default();
        let l = &mut self.t.leader;
        // The right side of an update sees the row as it was.
        l.grace_until_up_ms = l.grace_until_up_ms.max(l.up_ms + grace.as_millis() as i64);
        l.up_ms += up.as_millis() as i64;
        l.ping_seq += 1;
        Ok(Tick { up_ms: l.up_ms, ping_seq: l.ping_seq, grace_until_up_ms: l.grace_until_up_ms })
    }

    pub(super) fn mark_lost(&mut self, epoch: i64) -> Granted<Vec<LostWorker>> {
        self.leads(epoch)?;
        let lost_ms = self.t.time("lost_ms");
        let mut marked = Vec::new();
        if self.t.leader.up_ms <= self.t.leader.grace_until_up_ms {
            return Ok(marked);
        }
        let wall = self.is_broken(Break::WallClockAge);
        let silent = |w: &&RawWorker| {
            let age = match wall {
                true => self.wall_ms - self.last_seen.get(&w.id).copied().unwrap_or(0),
                false => self.t.age(w),
            };
            matches!(w.state, WorkerState::Active | WorkerState::Draining) && age > lost_ms
        };
        let mut found: Vec<i64> = self.t.workers.values().filter(silent).map(|w| w.id).collect();
        if self.is_broken(Break::MarkWithoutLook) {
            std::mem::swap(&mut found, &mut self.silent_before);
            found.retain(|id| {
                matches!(self.t.workers[id].state, WorkerState::Active | WorkerState::Draining)
            });
        }
        for id in found {
            let (silent_ms, node) = {
                let w = &self.t.workers[&id];
                (self.t.age(w), self.t.nodes[&w.node_id].name.clone())
            };
            if let Some(w) = self.t.workers.get_mut(&id) {
                w.state = WorkerState::Lost;
            }
            let n = self.orphan_attempts(id, "lost")?;
            let body = json!({ "worker": id, "node": node, "silent_ms": silent_ms,
                "epoch": epoch, "attempts": n });
            self.emit("worker.lost", None, None, body);
            marked.push(LostWorker { worker: WorkerId(id), node, silent_ms, attempts: n as u32 });
        }
        Ok(marked)
    }

    pub(super) fn jobs_to_plan(&self, epoch: i64, limit: u32) -> Granted<Vec<JobToPlan>> {
        self.leads(epoch)?;
        let waits = |j: i64| self.t.tasks_of(j).any(|t| !finished(t.state));
        let mut jobs: Vec<(i64, i64)> = (self.t.jobs.values())
            .filter(|j| !j.planned && PLANNABLE.contains(&j.state) && !waits(j.id))
            .map(|j| (-j.band, j.id))
            .collect();
        jobs.sort_unstable();
        jobs.truncate(limit as usize);
        let planned = |id: i64| {
            let tasks = self.plans.get(&id).into_iter().flatten();
            tasks.map(move |task| PlannedTask {
                cache_hit: self.t.tasks_of(id).any(|t| t.name == task.name && t.cache_hit),
                task: task.clone(),
                detail: Value::Null,
            })
        };
        Ok(jobs
            .into_iter()
            .map(|(_, id)| JobToPlan {
                job: JobId(id),
                title: self.titles.get(&id).cloned().unwrap_or_default(),
                request: json!({}),
                profile: String::new(),
                profile_body: String::new(),
                engine: self.t.jobs[&id].engine.clone(),
                tasks: planned(id).collect(),
            })
            .collect())
    }

    pub(super) fn append_plan(&mut self, epoch: i64, job: i64, plan: &Plan) -> Granted<bool> {
        self.leads(epoch)?;
        let (planned, state) = {
            let j = self.t.jobs.get(&job).ok_or(Refusal::NotFound)?;
            (j.planned, j.state)
        };
        let waits = self.t.tasks_of(job).any(|t| !finished(t.state));
        if planned || !PLANNABLE.contains(&state) || waits {
            return Ok(false);
        }
        if let Some(j) = self.t.jobs.get_mut(&job) {
            j.planned = true;
            j.engine.clone_from(&plan.engine);
        }
        self.append_tasks(job, 1, &plan.tasks)?;
        if state != JobState::Running {
            self.move_job(job, JobEvent::Planned, json!({}))?;
        }
        self.finish_job(job)?;
        Ok(true)
    }

    pub(super) fn fail_job(&mut self, epoch: i64, job: i64, failure: &Failure) -> Granted<()> {
        self.leads(epoch)?;
        if self.job_state(job).after(JobEvent::TaskFailed).is_none() {
            return Ok(());
        }
        if let Some(j) = self.t.jobs.get_mut(&job) {
            j.failure = Some(code_of(failure));
        }
        let why = json!({ "class": failure.class, "code": failure.code });
        self.move_job(job, JobEvent::TaskFailed, why).map(drop)
    }

    pub(super) fn cache_hits(&mut self, epoch: i64) -> Granted<u64> {
        self.leads(epoch)?;
        let claimable = |s: JobState| PLANNABLE.contains(&s) || s == JobState::WaitingGate;
        let ids: Vec<i64> = (self.t.tasks.values())
            .filter(|t| matches!(t.state, TaskState::Waiting | TaskState::Ready) && t.needed)
            .filter(|t| claimable(self.job_state(t.job_id)) && self.t.is_cached(t.id))
            .map(|t| t.id)
            .take(500)
            .collect();
        let jobs: BTreeSet<i64> = ids.iter().map(|id| self.t.tasks[id].job_id).collect();
        let n = self.settle(ids)?;
        for job in jobs {
            self.finish_job(job)?;
        }
        Ok(n)
    }

    pub(super) fn repair(&mut self, epoch: i64) -> Granted<Repaired> {
        self.leads(epoch)?;
        let mut repaired = Repaired::default();
        let wrong = |t: &RawTask, want: i64| {
            matches!(t.state, TaskState::Waiting | TaskState::Ready)
                && (t.deps_left != want || t.state == TaskState::Waiting && t.needed && want == 0)
        };
        let look = |m: &Model, job: Option<i64>| -> Vec<(i64, i64)> {
            (m.t.tasks.values())
                .filter(|t| job.is_none_or(|j| t.job_id == j))
                .filter(|t| !ENDED.contains(&m.job_state(t.job_id)))
                .map(|t| (t, m.t.open_needs(t.id)))
                .filter(|(t, want)| wrong(t, *want))
                .map(|(t, want)| (t.id, want))
                .collect()
        };
        let jobs: BTreeSet<i64> =
            look(self, None).into_iter().map(|(id, _)| self.t.tasks[&id].job_id).collect();
        for job in jobs {
            for (id, want) in look(self, Some(job)) {
                let t = self.task_mut(id)?;
                if t.deps_left != want {
                    t.deps_left = want;
                    repaired.counts += 1;
                }
                if t.state == TaskState::Waiting && t.needed && want == 0 {
                    self.settle(vec![id])?;
                    repaired.readied += 1;
                }
            }
        }
        let over: Vec<i64> = (self.t.jobs.values())
            .filter(|j| j.state == JobState::Running && j.planned)
            .filter(|j| !self.t.tasks_of(j.id).any(|t| t.needed && !finished(t.state)))
            .map(|j| j.id)
            .collect();
        for job in over {
            repaired.finished += u32::from(self.finish_job(job)?);
        }
        Ok(repaired)
    }

    pub(super) fn finish_cancels(&mut self, epoch: i64) -> Granted<u64> {
        self.leads(epoch)?;
        let jobs: Vec<i64> = (self.t.jobs.values())
            .filter(|j| j.state == JobState::Cancelling)
            .map(|j| j.id)
            .collect();
        let mut n = 0;
        for job in jobs {
            n += u64::from(self.finish_job(job)?);
        }
        Ok(n)
    }

    pub(super) fn block_reasons(&mut self, epoch: i64) -> Granted<u64> {
        self.leads(epoch)?;
        let looks = |s: JobState| {
            PLANNABLE.contains(&s) || matches!(s, JobState::WaitingGate | JobState::Paused)
        };
        let changed: Vec<(i64, Option<String>)> = (self.t.tasks.values())
            .filter(|t| t.state == TaskState::Ready && t.deps_left == 0)
            .filter(|t| looks(self.job_state(t.job_id)))
            .map(|t| (t, self.block_reason(t)))
            .filter(|(t, why)| t.block_reason != *why)
            .map(|(t, why)| (t.id, why))
            .collect();
        let n = changed.len() as u64;
        for (id, why) in changed {
            self.task_mut(id)?.block_reason = why;
        }
        Ok(n)
    }

    fn block_reason(&self, t: &RawTask) -> Option<String> {
        let live: Vec<&RawWorker> =
            self.t.workers.values().filter(|w| w.state == WorkerState::Active).collect();
        let has = |w: &&RawWorker, s: &String| w.shares_ok.contains(s);
        let fits = |w: &RawWorker| {
            t.need_mcpu <= w.cap_mcpu && t.need_ram <= w.cap_ram && t.need_scratch <= w.cap_scratch
        };
        let why = if self.job_state(t.job_id) == JobState::Paused {
            "paused"
        } else if t.held_by.is_some() {
            "held"
        } else if t.not_before_up_ms > self.t.leader.up_ms {
            "delayed"
        } else if live.is_empty() {
            "no_worker"
        } else if !live.iter().any(|w| runs_on_engine(t, &w.engine)) {
            "engine"
        } else if !live.iter().any(|w| t.need_shares.iter().all(|s| has(w, s))) {
            let gone = t.need_shares.iter().find(|s| !live.iter().any(|w| has(w, s)));
            // When each of them is somewhere, the source is named before what is written to.
            let source = self.specs.get(&t.id).and_then(|s| s.source());
            let source = source.map(|s| s.location.share.to_string());
            let first = source.as_ref().or(t.need_shares.first());
            return gone.or(first).map(|s| format!("share:{s}"));
        } else if !live.iter().any(|w| fits(w)) {
            "resources"
        } else if !live.iter().any(|w| self.could_run(w, t)) {
            "no_node"
        } else {
            return None;
        };
        Some(why.to_owned())
    }

    pub(super) fn forget(&mut self, epoch: i64, key: &Key) -> Granted<bool> {
        self.leads(epoch)?;
        if !self.t.artifacts.contains_key(key) {
            let made_now = self.t.outputs.iter().any(|(id, outputs)| {
                self.t.tasks[id].state == TaskState::Running
                    && outputs.iter().any(|o| o.key == *key)
            });
            return Ok(!made_now);
        }
        if self.is_pinned(key) {
            return Ok(false);
        }
        self.t.artifacts.remove(key);
        Ok(true)
    }
}
