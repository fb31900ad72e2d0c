//! States, readiness, loss, plans: migrations 0004, 0020 and 0021. **Nothing else writes a
//! state.**

use std::collections::BTreeSet;

use serde_json::{Value, json};
use trix_db::inspect::{FailureCode, RawOutput, RawTask};
use trix_model::Key;
use trix_model::state::{
    AttemptState, JobEvent, JobState, PublicationEvent, PublicationState, TaskEvent, TaskState,
};
use trix_plan::task::Task;

use super::{Granted, Model, Refusal, with};

fn illegal<T>() -> Granted<T> {
    Err(Refusal::Conflict("illegal_transition".into()))
}

pub(super) const ENDED: [JobState; 3] =
    [JobState::Succeeded, JobState::Failed, JobState::Cancelled];
pub(super) const CANCELS: [JobState; 2] = [JobState::Cancelling, JobState::Cancelled];

/// States of a job that waits for its plan 1.
pub(super) const PLANNABLE: [JobState; 3] =
    [JobState::Accepted, JobState::Inspecting, JobState::Running];

pub(super) fn finished(state: TaskState) -> bool {
    matches!(state, TaskState::Done | TaskState::Skipped)
}

impl Model {
    pub(super) fn task_mut(&mut self, id: i64) -> Granted<&mut RawTask> {
        self.t.tasks.get_mut(&id).ok_or(Refusal::NotFound)
    }

    /// The one place where a task changes its state.
    pub(super) fn move_task(&mut self, id: i64, event: TaskEvent, more: Value) -> Granted<()> {
        let t = self.t.tasks.get_mut(&id).ok_or(Refusal::NotFound)?;
        let from = t.state;
        let Some(to) = from.after(event) else { return illegal() };
        t.state = to;
        t.block_reason = None;
        self.queue.parked.remove(&id);
        if to == TaskState::Ready {
            self.queue.aged.insert(id, self.t.leader.up_ms);
        }
        let body =
            json!({ "name": t.name, "kind": t.kind, "from": from, "to": to, "epoch": t.epoch });
        let job = t.job_id;
        self.emit("task.state", Some(job), Some(id), with(body, more));
        Ok(())
    }

    /// The one place where a job changes its state.
    pub(super) fn move_job(&mut self, id: i64, event: JobEvent, more: Value) -> Granted<JobState> {
        let j = self.t.jobs.get_mut(&id).ok_or(Refusal::NotFound)?;
        let from = j.state;
        let Some(to) = from.after(event) else { return illegal() };
        j.state = to;
        self.job_moved(id, from, to);
        let body = json!({ "from": from, "to": to, "event": event });
        self.emit("job.state", Some(id), None, with(body, more));
        Ok(to)
    }

    /// The one place where a publication changes its state.
    pub(super) fn move_publication(&mut self, id: i64, event: PublicationEvent) -> Granted<()> {
        let p = self.t.publications.get_mut(&id).ok_or(Refusal::NotFound)?;
        let from = p.state;
        let Some(to) = from.after(event) else { return illegal() };
        p.state = to;
        let (task, body) = (
            p.task_id,
            json!({ "publication": p.id, "share": p.share, "target": p.target,
                "version": p.version, "from": from, "to": to }),
        );
        let job = self.t.tasks.get(&task).map(|t| t.job_id);
        self.emit("publication.state", job, Some(task), body);
        Ok(())
    }

    /// The publication of a task while it is in one of these states.
    pub(super) fn publication_in(&self, task: i64, states: &[PublicationState]) -> Option<i64> {
        let p = self.t.tasks.get(&task)?.publication_id?;
        states.contains(&self.t.publications.get(&p)?.state).then_some(p)
    }

    pub(super) fn job_state(&self, job: i64) -> JobState {
        self.t.jobs.get(&job).map_or(JobState::Cancelled, |j| j.state)
    }

    /// True while a file in the cache must stay.
    pub(super) fn is_pinned(&self, key: &Key) -> bool {
        let open = |job: i64| !ENDED.contains(&self.job_state(job));
        let reads = self.t.inputs.iter().any(|(id, keys)| {
            let t = &self.t.tasks[id];
            keys.contains(key)
                && matches!(t.state, TaskState::Waiting | TaskState::Ready | TaskState::Running)
                && t.needed
                && open(t.job_id)
        });
        reads
            || self.t.outputs.iter().any(|(id, outputs)| {
                let job = self.t.tasks[id].job_id;
                outputs.iter().any(|o| o.key == *key) && !self.t.jobs[&job].planned && open(job)
            })
    }

    /// Ends a job when nothing is left to do.
    pub(super) fn finish_job(&mut self, job: i64) -> Granted<bool> {
        let Some(j) = self.t.jobs.get(&job) else { return Ok(false) };
        let (state, planned) = (j.state, j.planned);
        let open: Vec<(i64, TaskState, bool, bool)> = (self.t.tasks_of(job))
            .filter(|t| !finished(t.state))
            .map(|t| (t.id, t.state, t.needed, t.roll_forward))
            .collect();
        if state == JobState::Cancelling {
            let works = open.iter().any(|(_, s, _, rolls)| {
                *s == TaskState::Running || *s == TaskState::Ready && *rolls
            });
            if works {
                return Ok(false);
            }
            self.move_job(job, JobEvent::Drained, json!({}))?;
            return Ok(true);
        }
        if !planned && PLANNABLE.contains(&state) && open.is_empty() {
            self.emit("job.inspected", Some(job), None, json!({}));
            return Ok(false);
        }
        if state != JobState::Running || !planned || open.iter().any(|(_, _, needed, _)| *needed) {
            return Ok(false);
        }
        for (id, s, ..) in open {
            if s == TaskState::Waiting {
                self.move_task(id, TaskEvent::Skip, json!({}))?;
            }
        }
        self.move_job(job, JobEvent::AllDone, json!({}))?;
        Ok(true)
    }

    /// What follows when tasks may have become ready. Gives the number of cache hits.
    pub(super) fn settle(&mut self, mut tasks: Vec<i64>) -> Granted<u64> {
        let mut hits = 0;
        while !tasks.is_empty() {
            tasks.sort_unstable();
            tasks.dedup();
            let open: Vec<i64> = (tasks.iter())
                .filter_map(|id| self.t.tasks.get(id))
                .filter(|t| matches!(t.state, TaskState::Waiting | TaskState::Ready) && t.needed)
                .map(|t| t.id)
                .collect();
            // What the cache has ends first; who waits for nothing is looked up after that,
            // so that one of `open` that was freed by another is ready in this same round.
            let cached: Vec<i64> =
                open.iter().copied().filter(|id| self.t.is_cached(*id)).collect();
            let mut freed = Vec::new();
            for id in cached {
                freed.extend(self.end_cached(id)?);
                hits += 1;
            }
            for id in open {
                let t = &self.t.tasks[&id];
                if t.state == TaskState::Waiting && t.deps_left == 0 {
                    self.move_task(id, TaskEvent::DepsDone, json!({}))?;
                }
            }
            tasks = freed;
        }
        Ok(hits)
    }

    fn end_cached(&mut self, id: i64) -> Granted<Vec<i64>> {
        self.move_task(id, TaskEvent::CacheHit, json!({ "cache_hit": true }))?;
        self.task_mut(id)?.cache_hit = true;
        Ok(self.task_done(id))
    }

    /// A task is done: its dependants wait for one less. Gives those that wait for no more.
    pub(super) fn task_done(&mut self, id: i64) -> Vec<i64> {
        let dependants: Vec<i64> = self.t.dependants_of(id).collect();
        let mut freed = Vec::new();
        for d in dependants {
            if let Some(t) = self.t.tasks.get_mut(&d) {
                t.deps_left -= 1;
                if t.deps_left == 0 && matches!(t.state, TaskState::Waiting | TaskState::Ready) {
                    freed.push(d);
                }
            }
        }
        freed
    }

    /// A task is needed again: so is everything before it that is not done.
    fn require(&mut self, id: i64) -> Granted<()> {
        let mut before = BTreeSet::from([id]);
        let mut look = vec![id];
        while let Some(t) = look.pop() {
            let open: Vec<i64> =
                self.t.needs_of(t).filter(|n| !finished(self.t.tasks[n].state)).collect();
            look.extend(open.into_iter().filter(|n| before.insert(*n)));
        }
        for t in &before {
            self.task_mut(*t)?.needed = true;
        }
        self.settle(before.into_iter().collect()).map(drop)
    }

    /// Artifacts are gone while the task wants them: whoever of its job makes them runs
    /// again. `before` is when the reader looked.
    pub(super) fn lose_artifacts(&mut self, id: i64, keys: &[Key], before: u64) -> Granted<()> {
        let job = self.t.tasks[&id].job_id;
        let wanted: BTreeSet<Key> = keys.iter().copied().collect();
        let mine: Vec<Key> = (self.t.inputs.get(&id).into_iter().flatten())
            .filter(|k| wanted.contains(k))
            .copied()
            .collect();
        for key in mine {
            if self.t.artifacts.contains_key(&key) && self.made[&key] > before {
                continue;
            }
            let maker = self.t.outputs.iter().find(|(m, outputs)| {
                **m != id && self.t.tasks[m].job_id == job && outputs.iter().any(|o| o.key == key)
            });
            let Some(maker) = maker.map(|(m, _)| *m) else {
                return Err(Refusal::Conflict("plan_invalid".into()));
            };
            if self.t.artifacts.remove(&key).is_some() {
                self.emit("artifact.lost", Some(job), Some(maker), json!({ "key": key }));
            }
            let state = self.t.tasks[&maker].state;
            let added = self.t.needs.insert((id, maker));
            self.t.needed_by.insert((maker, id));
            if added && !finished(state) {
                self.task_mut(id)?.deps_left += 1;
            }
            if state == TaskState::Done {
                self.move_task(maker, TaskEvent::ArtifactLost, json!({ "key": key }))?;
                for (_, a) in self.t.attempts.range_mut((maker, i64::MIN)..=(maker, i64::MAX)) {
                    a.result_lost |= a.state == AttemptState::Succeeded;
                }
                let m = self.task_mut(maker)?;
                (m.cache_hit, m.needed, m.roll_forward) = (false, true, false);
                let dependants: Vec<i64> = self.t.dependants_of(maker).collect();
                for d in dependants {
                    self.task_mut(d)?.deps_left += 1;
                }
                let open = self.t.open_needs(maker);
                self.task_mut(maker)?.deps_left = open;
            }
            self.require(maker)?;
        }
        Ok(())
    }

    /// Writes the tasks of a plan, readies those that wait for nothing, resolves what the
    /// cache has.
    pub(super) fn append_tasks(&mut self, job: i64, plan: i64, tasks: &[Task]) -> Granted<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let (engine, band) = {
            let j = &self.t.jobs[&job];
            (j.engine.clone(), j.band)
        };
        let low = self.ids.task + 1;
        for task in tasks {
            self.ids.task += 1;
            let id = self.ids.task;
            let mut shares: Vec<String> =
                task.spec.written_shares().iter().map(|s| s.to_string()).collect();
            shares.extend(task.spec.source().map(|s| s.location.share.to_string()));
            shares.sort();
            shares.dedup();
            self.t.tasks.insert(
                id,
                RawTask {
                    id,
                    job_id: job,
                    name: task.name.clone(),
                    plan,
                    kind: task.spec.kind().into(),
                    engine: engine.clone(),
                    state: TaskState::Waiting,
                    needed: true,
                    band,
                    rank: 0,
                    deps_left: 0,
                    not_before_up_ms: 0,
                    held_by: None,
                    roll_forward: false,
                    epoch: 0,
                    need_mcpu: i64::from(task.cost.mcpu),
                    need_ram: task.cost.ram as i64,
                    need_scratch: task.cost.scratch as i64,
                    need_shares: shares,
                    avoid_nodes: Vec::new(),
                    fail_counts: Default::default(),
                    first_try_up_ms: None,
                    block_reason: None,
                    cache_hit: false,
                    failure: None,
                    publication_id: None,
                },
            );
            let outputs = task.outputs.iter().zip(1..).map(|(o, n)| RawOutput {
                task_id: id,
                n,
                name: o.name.clone(),
                key: o.key,
            });
            let outputs: Vec<RawOutput> = outputs.collect();
            if !outputs.is_empty() {
                self.t.outputs.insert(id, outputs);
            }
            let inputs: BTreeSet<Key> = task.spec.input_keys().into_iter().collect();
            if !inputs.is_empty() {
                self.t.inputs.insert(id, inputs);
            }
            self.specs.insert(id, task.spec.clone());
            self.estimates.insert(id, task.cost.estimate_ms);
        }
        self.plans.entry(job).or_default().extend(tasks.iter().cloned());
        let high = self.ids.task;
        for (task, id) in tasks.iter().zip(low..) {
            for need in &task.needs {
                let n = self.t.tasks_of(job).find(|t| t.name == *need).map(|t| t.id);
                let n = n.ok_or_else(|| Refusal::Conflict("plan_invalid".into()))?;
                self.t.needs.insert((id, n));
                self.t.needed_by.insert((n, id));
            }
        }
        for id in low..=high {
            let open = self.t.open_needs(id);
            self.task_mut(id)?.deps_left = open;
        }
        let mut wanted: BTreeSet<i64> =
            (low..=high).filter(|id| self.t.dependants_of(*id).next().is_none()).collect();
        let mut look: Vec<i64> = wanted.iter().copied().collect();
        while let Some(id) = look.pop() {
            if (low..=high).contains(&id) && self.t.is_cached(id) {
                continue;
            }
            let needs: Vec<i64> = self.t.needs_of(id).collect();
            look.extend(needs.into_iter().filter(|n| wanted.insert(*n)));
        }
        // The place in line: what is not run takes none. The client's weight is 100, which
        // stands for itself.
        let mut rank = self.rank_base(job);
        for id in low..=high {
            let needed = wanted.contains(&id);
            if needed && !self.t.is_cached(id) {
                rank += self.estimates.get(&id).map_or(0, |ms| *ms as i64);
            }
            let t = self.task_mut(id)?;
            (t.needed, t.rank) = (needed, rank);
        }
        self.rank_ends.insert(job, rank);
        self.settle((low..=high).collect()).map(drop)
    }

    /// Where in virtual time the work of a job's next plan begins: at the present, or behind
    /// what the principal's open jobs have planned in the same line.
    fn rank_base(&self, job: i64) -> i64 {
        let end = |id: i64| self.rank_ends.get(&id).copied().unwrap_or(0);
        let j = &self.t.jobs[&job];
        let others = self.t.jobs.values().filter(|o| {
            o.id != job
                && o.principal_id == j.principal_id
                && o.planned == j.planned
                && !ENDED.contains(&o.state)
        });
        others.map(|o| end(o.id)).max().unwrap_or(0).max(end(job)).max(self.queue.vtime)
    }

    /// A task failed for good, and with it its job; what runs of the job goes on.
    pub(super) fn fail_task(
        &mut self,
        id: i64,
        event: TaskEvent,
        failure: FailureCode,
        why: Value,
    ) -> Granted<()> {
        self.move_task(id, event, why.clone())?;
        let (job, name) = (self.t.tasks[&id].job_id, self.t.tasks[&id].name.clone());
        if self.job_state(job).after(JobEvent::TaskFailed).is_some() {
            if let Some(j) = self.t.jobs.get_mut(&job) {
                j.failure = Some(failure);
            }
            self.move_job(job, JobEvent::TaskFailed, with(json!({ "task": name }), why))?;
        }
        Ok(())
    }
}
