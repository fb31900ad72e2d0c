//! What a worker calls: migration 0005. The claim within a sync has a file of its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use trix_db::inspect::{FailureCode, RawArtifact, RawAttempt, RawTask, RawWorker};
use trix_db::{
    Accepted, ArtifactRef, AttemptResult, Claim, Credentials, Outcome, Publication,
    RegisterRequest, Registered, ResultVerdict, SyncReply, SyncRequest, Verdict,
};
use trix_model::state::{
    AttemptState, JobState, PublicationEvent, PublicationState, TaskEvent, TaskState, WorkerState,
};
use trix_model::{AttemptId, Epoch, ErrorClass, JobId, Key, TaskId, WorkerId};
use trix_plan::task::{Cost, Output};

use super::moves::CANCELS;
use super::{Granted, Model, Refusal, class_name, code_of, transient};
use crate::breaks::Break;

/// States in which a publication is only rolled forward.
pub(super) const BEGUN: [PublicationState; 3] =
    [PublicationState::Prepared, PublicationState::Moving, PublicationState::Published];

/// Secret of an incarnation of the model.
pub fn token(worker: i64) -> String {
    format!("secret of worker {worker}")
}

pub(super) fn outcome_name(o: &Outcome) -> &'static str {
    match o {
        Outcome::Ok(_) => "ok",
        Outcome::Failed(_) => "failed",
        Outcome::MissingInputs(_) => "missing_inputs",
        Outcome::Cancelled => "cancelled",
        Outcome::Released => "released",
    }
}

impl Model {
    pub(super) fn register(&mut self, r: &RegisterRequest) -> Granted<Registered> {
        let node = self.t.nodes.values().find(|n| n.name == r.node).ok_or(Refusal::Denied)?;
        let (node_id, node) = (node.id, node.name.clone());
        self.ids.worker += 1;
        let id = self.ids.worker;
        let leader = &self.t.leader;
        let (mcpu, ram, scratch) =
            (i64::from(r.capacity.mcpu), r.capacity.ram as i64, r.capacity.scratch as i64);
        let row = RawWorker {
            id,
            node_id,
            state: WorkerState::Active,
            engine: r.engine.clone(),
            pong_seq: leader.ping_seq,
            pong_up_ms: leader.up_ms,
            cap_mcpu: mcpu,
            cap_ram: ram,
            cap_scratch: scratch,
            free_mcpu: mcpu,
            free_ram: ram,
            free_scratch: scratch,
            shares_ok: r.shares_ok.iter().map(|s| s.to_string()).collect(),
        };
        let ping_seq = leader.ping_seq;
        self.t.workers.insert(id, row);
        self.last_seen.insert(id, self.wall_ms);
        let body = json!({ "worker": id, "node": node, "engine": r.engine,
            "version": r.version, "pid": r.pid });
        self.emit("worker.registered", None, None, body);
        let me = Credentials { worker: WorkerId(id), token: token(id) };
        // The model is never restored: the cluster is as old as its incarnation.
        Ok(Registered { me, incarnation: self.incarnation, cluster: self.incarnation, ping_seq })
    }

    /// The worker's row if it is alive and the secret is its own.
    fn living(&self, me: &Credentials) -> Granted<Option<&RawWorker>> {
        let Some(w) = self.t.workers.get(&me.worker.0) else { return Ok(None) };
        if me.token != token(w.id) {
            return Err(Refusal::Denied);
        }
        let alive = matches!(w.state, WorkerState::Active | WorkerState::Draining)
            || self.is_broken(Break::LostWorkerCommits);
        Ok(alive.then_some(w))
    }

    /// The fence: the worker lives and the attempt is its own and still runs.
    pub(super) fn fenced(&self, me: &Credentials, a: AttemptId) -> Granted<&RawTask> {
        let w = self.living(me)?.ok_or(Refusal::Refused)?;
        let t = self.t.tasks.get(&a.task.0).ok_or(Refusal::Refused)?;
        let tried = self.t.attempts.get(&(a.task.0, a.epoch.0));
        let mine = |x: &RawAttempt| x.worker_id == w.id && x.state == AttemptState::Running;
        if self.is_broken(Break::NoEpochCheck) && t.state == TaskState::Running {
            return Ok(t);
        }
        if tried.is_some_and(mine) && t.epoch == a.epoch.0 { Ok(t) } else { Err(Refusal::Refused) }
    }

    /// Gives a running task back, or ends it with its job.
    pub(super) fn give_back(
        &mut self,
        id: i64,
        delay_ms: i64,
        avoid: Option<i64>,
        why: Value,
    ) -> Granted<()> {
        let begun = self.publication_in(id, &BEGUN).is_some();
        if !begun && CANCELS.contains(&self.job_state(self.t.tasks[&id].job_id)) {
            return self.move_task(id, TaskEvent::Cancel, why);
        }
        self.move_task(id, TaskEvent::Requeue, why)?;
        let not_before = if delay_ms > 0 { self.t.leader.up_ms + delay_ms } else { 0 };
        let forgets = self.is_broken(Break::ForgetRollForward);
        let t = self.task_mut(id)?;
        t.roll_forward = begun && !forgets;
        t.not_before_up_ms = not_before;
        if forgets {
            t.publication_id = None;
        }
        if let Some(node) = avoid
            && !t.avoid_nodes.contains(&node)
        {
            t.avoid_nodes.push(node);
        }
        Ok(())
    }

    /// What a failed attempt means for its task: the retry classes. `t` is the row as it
    /// was when the result came in.
    fn judge(&mut self, t: &RawTask, f: &FailureCode, node: Option<i64>) -> Granted<()> {
        let id = t.id;
        let class = match f.class {
            ErrorClass::Transient if self.is_broken(Break::TransientPoison) => ErrorClass::Crash,
            class => class,
        };
        let mut counts = t.fail_counts.clone();
        let n = counts.get(class_name(class)).copied().unwrap_or(0) + 1;
        counts.insert(class_name(class).into(), n);
        if f.code == "source_unstable" {
            *counts.entry(f.code.clone()).or_default() += 1;
        }
        let unstable = counts.get("source_unstable").copied().unwrap_or(0);
        let row = self.task_mut(id)?;
        row.failure = Some(f.clone());
        row.fail_counts = counts;
        let why = json!({ "class": f.class, "code": f.code });
        if CANCELS.contains(&self.job_state(t.job_id)) {
            return self.give_back(id, 0, None, why);
        }
        let doubled = self.t.time("backoff_min_ms") as f64 * 2f64.powi((n - 1).min(30) as i32);
        let cap = doubled.min(self.t.time("backoff_max_ms") as f64);
        match class {
            ErrorClass::Transient => {
                let tried = t.first_try_up_ms.map(|first| self.t.leader.up_ms - first);
                let over = tried.is_some_and(|ms| ms > self.t.time("transient_budget_ms"));
                if unstable > 1 || over {
                    self.fail_task(id, TaskEvent::Fail, f.clone(), why)
                } else {
                    let delay = self.backoff(id, cap);
                    self.give_back(id, delay, node, why)
                }
            }
            ErrorClass::Resource if n > 3 => self.fail_task(id, TaskEvent::Fail, f.clone(), why),
            ErrorClass::Resource => {
                let disk = matches!(f.code.as_str(), "no_space" | "quota");
                let active = self.t.workers.values().filter(|w| w.state == WorkerState::Active);
                let largest = active.map(|w| if disk { w.cap_scratch } else { w.cap_ram }).max();
                let row = self.task_mut(id)?;
                let need = if disk { &mut row.need_scratch } else { &mut row.need_ram };
                let more = (*need * 3 / 2).max(*need + 1);
                *need = more.min(largest.unwrap_or(*need).max(*need));
                // More memory is asked for, so there is nothing to wait for.
                let delay = if disk { self.backoff(id, cap) } else { 0 };
                self.give_back(id, delay, None, why)
            }
            ErrorClass::Crash if n > 1 => self.fail_task(id, TaskEvent::Quarantine, f.clone(), why),
            ErrorClass::Crash => self.give_back(id, 0, node, why),
            ErrorClass::Deterministic if self.is_broken(Break::DeterministicRetry) && n < 3 => {
                self.give_back(id, 0, None, why)
            }
            ErrorClass::Deterministic => self.fail_task(id, TaskEvent::Fail, f.clone(), why),
        }
    }

    /// Takes the running attempts of a worker that is no more. Gives their number.
    pub(super) fn orphan_attempts(&mut self, worker: i64, code: &str) -> Granted<u64> {
        let node = self.t.workers[&worker].node_id;
        let mine: Vec<i64> =
            (self.t.running()).filter(|a| a.worker_id == worker).map(|a| a.task_id).collect();
        let f = transient(code);
        let why = json!({ "class": f.class, "code": code, "worker": worker });
        for id in &mine {
            let epoch = self.t.tasks[id].epoch;
            if let Some(a) = self.t.attempts.get_mut(&(*id, epoch)) {
                (a.state, a.failure) = (AttemptState::Lost, Some(f.clone()));
            }
            self.task_mut(*id)?.failure = Some(f.clone());
            let died = |a: &&RawAttempt| {
                a.state == AttemptState::Lost
                    && a.failure.as_ref().is_some_and(|f| f.code != "released")
            };
            let nodes: BTreeSet<i64> =
                self.t.attempts_of(*id).filter(died).map(|a| a.node_id).collect();
            let published = self.t.tasks[id].publication_id.is_some();
            if nodes.len() >= 3 && !published {
                let poison = FailureCode { code: "poison".into(), ..f.clone() };
                self.fail_task(*id, TaskEvent::Quarantine, poison, why.clone())?;
            } else {
                self.give_back(*id, 0, Some(node), why.clone())?;
            }
        }
        let lost = self
            .t
            .attempts
            .values()
            .filter(|a| a.worker_id == worker && a.state == AttemptState::Lost);
        let jobs: BTreeSet<i64> = lost
            .map(|a| self.t.tasks[&a.task_id].job_id)
            .filter(|j| self.job_state(*j) == JobState::Cancelling)
            .collect();
        for job in jobs {
            self.finish_job(job)?;
        }
        Ok(mine.len() as u64)
    }

    pub(super) fn supersede(&mut self, me: &Credentials, old: i64) -> Granted<u64> {
        let (me, node) = {
            let w = self.living(me)?.ok_or(Refusal::Refused)?;
            (w.id, w.node_id)
        };
        let fits = |w: &&mut RawWorker| {
            w.node_id == node
                && w.id < me
                && matches!(w.state, WorkerState::Active | WorkerState::Draining)
        };
        let Some(w) = self.t.workers.get_mut(&old).filter(fits) else { return Ok(0) };
        w.state = WorkerState::Gone;
        let n = match self.is_broken(Break::SupersedeLeaks) {
            true => 0,
            false => self.orphan_attempts(old, "superseded")?,
        };
        let body = json!({ "worker": old, "by": me, "attempts": n });
        self.emit("worker.gone", None, None, body);
        Ok(n)
    }

    pub(super) fn leave(&mut self, me: &Credentials) -> Granted<()> {
        let Some(w) = self.living(me)? else { return Ok(()) };
        let id = w.id;
        if let Some(w) = self.t.workers.get_mut(&id) {
            w.state = WorkerState::Gone;
        }
        let n = self.orphan_attempts(id, "released")?;
        self.emit("worker.gone", None, None, json!({ "worker": id, "attempts": n }));
        Ok(())
    }

    /// Commits one result under the fence.
    fn commit_result(&mut self, worker: i64, r: &AttemptResult) -> Granted<Verdict> {
        let (id, mut epoch) = (r.attempt.task.0, r.attempt.epoch.0);
        if self.is_broken(Break::NoEpochCheck)
            && let Some(t) = self.t.tasks.get(&id)
        {
            epoch = t.epoch;
        }
        let node = self.t.workers[&worker].node_id;
        let lenient = |a: &RawAttempt| {
            self.is_broken(Break::NoEpochCheck)
                || self.is_broken(Break::SameNodeCommits) && a.node_id == node
                || self.is_broken(Break::LostWorkerCommits) && a.worker_id == worker
        };
        let tried = self.t.attempts.get(&(id, epoch));
        let mine =
            |a: &&RawAttempt| a.worker_id == worker && a.state != AttemptState::Lost || lenient(a);
        let Some(tried) = tried.filter(mine) else {
            let job = tried.map(|a| self.t.tasks[&a.task_id].job_id);
            let body = json!({ "task": id, "epoch": epoch, "worker": worker,
                "outcome": outcome_name(&r.outcome) });
            let task = tried.map(|a| a.task_id);
            self.emit("result.refused", job, task, body);
            return Ok(Verdict::Refused);
        };
        if tried.state != AttemptState::Running && !lenient(tried) {
            if self.is_broken(Break::ReadyTwice) && tried.state == AttemptState::Succeeded {
                let freed = self.task_done(id);
                self.settle(freed)?;
            }
            return Ok(Verdict::Duplicate);
        }
        let started = self.started.get(&(id, epoch)).copied().unwrap_or(0);
        let t = self.t.tasks[&id].clone();
        if t.state != TaskState::Running {
            // Only a break gets here: the state machine would stop the transaction.
            return Ok(Verdict::Duplicate);
        }

        let mut kind = outcome_name(&r.outcome);
        let mut trouble = match &r.outcome {
            Outcome::Failed(f) => Some(code_of(f)),
            Outcome::MissingInputs(_) => Some(transient("artifact_missing")),
            Outcome::Released => Some(transient("released")),
            Outcome::Ok(_) | Outcome::Cancelled => None,
        };
        if let Outcome::Ok(done) = &r.outcome {
            let mut wanted = self.t.outputs_of(id).to_vec();
            wanted.sort_by_key(|o| o.key);
            for o in wanted {
                let Some(made) = done.outputs.iter().find(|m| m.key == o.key) else { continue };
                match self.t.artifacts.get(&o.key) {
                    None => {
                        let row =
                            RawArtifact { key: o.key, digest: made.digest, size: made.size as i64 };
                        self.t.artifacts.insert(o.key, row);
                        let now = self.now();
                        self.made.insert(o.key, now);
                    }
                    Some(kept) if kept.digest != made.digest => {
                        let body = json!({ "name": o.name, "key": o.key, "kept": kept.digest,
                            "dropped": made.digest });
                        self.emit("artifact.differs", Some(t.job_id), Some(id), body);
                    }
                    Some(_) => {}
                }
            }
            let all = self.t.outputs_of(id).iter().all(|o| self.t.artifacts.contains_key(&o.key));
            if !all && !self.is_broken(Break::DoneWithoutArtifact) {
                if t.fail_counts.get("lost_under_way") == Some(&epoch) {
                    (kind, trouble) = ("outputs_lost", Some(transient("artifact_missing")));
                } else {
                    let class = ErrorClass::Deterministic;
                    let code = "outputs_missing".into();
                    (kind, trouble) = ("failed", Some(FailureCode { class, code }));
                }
            }
        }

        if let Some(a) = self.t.attempts.get_mut(&(id, epoch)) {
            a.state = match kind {
                "ok" => AttemptState::Succeeded,
                "cancelled" => AttemptState::Cancelled,
                _ => AttemptState::Failed,
            };
            a.failure = trouble.clone();
        }
        match (kind, &r.outcome) {
            ("ok", _) => {
                self.move_task(id, TaskEvent::Succeed, json!({ "worker": worker }))?;
                let row = self.task_mut(id)?;
                (row.roll_forward, row.failure) = (false, None);
                let freed = self.task_done(id);
                self.settle(freed)?;
            }
            ("failed", _) => {
                let trouble = trouble.ok_or(Refusal::NotFound)?;
                self.judge(&t, &trouble, Some(node))?;
            }
            ("missing_inputs", Outcome::MissingInputs(keys)) => {
                self.inputs_are_missing(&t, keys, started)?;
            }
            _ => self.give_back(id, 0, None, json!({ "code": kind, "worker": worker }))?,
        }
        self.finish_job(t.job_id)?;
        Ok(Verdict::Accepted)
    }

    fn inputs_are_missing(&mut self, t: &RawTask, keys: &[Key], started: u64) -> Granted<()> {
        let id = t.id;
        let before = t.fail_counts.get("missing").copied().unwrap_or(0);
        self.task_mut(id)?.fail_counts.insert("missing".into(), before + 1);
        let why = json!({ "code": "artifact_missing" });
        if CANCELS.contains(&self.job_state(t.job_id)) {
            let open = [PublicationState::Prepared, PublicationState::Moving];
            if let Some(p) = self.publication_in(id, &open) {
                self.move_publication(p, PublicationEvent::Clash)?;
            }
            return self.give_back(id, 0, None, why);
        }
        if before >= 2 {
            self.judge(t, &transient("artifact_missing"), None)?;
        } else {
            self.give_back(id, 0, None, why)?;
        }
        let makers: Vec<i64> = (self.t.tasks_of(t.job_id))
            .filter(|m| m.state == TaskState::Running)
            .filter(|m| self.t.outputs_of(m.id).iter().any(|o| keys.contains(&o.key)))
            .map(|m| m.id)
            .collect();
        for m in makers {
            let m = self.task_mut(m)?;
            m.fail_counts.insert("lost_under_way".into(), m.epoch);
        }
        self.lose_artifacts(id, keys, started)
    }

    /// One attempt as the worker takes it.
    fn claim_of(&self, id: i64) -> Option<Claim> {
        let t = self.t.tasks.get(&id)?;
        let outputs = self.t.outputs_of(id);
        let output = |o: &trix_db::inspect::RawOutput| Output { name: o.name.clone(), key: o.key };
        let missing = outputs.iter().filter(|o| !self.t.artifacts.contains_key(&o.key));
        let inputs = self.t.inputs.get(&id).into_iter().flatten();
        let inputs = inputs.filter_map(|k| self.t.artifacts.get(k));
        let publication = t.publication_id.filter(|_| t.roll_forward);
        Some(Claim {
            attempt: AttemptId { task: TaskId(id), epoch: Epoch(t.epoch) },
            job: JobId(t.job_id),
            name: t.name.clone(),
            spec: self.specs.get(&id)?.clone(),
            cost: Cost {
                mcpu: t.need_mcpu as u32,
                ram: t.need_ram as u64,
                scratch: t.need_scratch as u64,
                estimate_ms: self.estimates.get(&id).copied().unwrap_or(0),
            },
            outputs: outputs.iter().map(output).collect(),
            missing: missing.map(output).collect(),
            inputs: inputs
                .map(|a| ArtifactRef { key: a.key, digest: a.digest, size: a.size as u64 })
                .collect(),
            needs: Default::default(),
            roll_forward: publication.and_then(|p| self.publication_json(p)),
        })
    }

    pub(super) fn publication_json(&self, id: i64) -> Option<Publication> {
        let p = self.t.publications.get(&id)?;
        Some(Publication {
            id: p.id,
            version: p.version as u32,
            state: p.state,
            manifest: p.manifest.clone(),
        })
    }

    /// The protocol: beat, then fenced results, then claim.
    pub(super) fn sync(&mut self, r: &SyncRequest) -> Granted<SyncReply> {
        let Some(w) = self.living(&r.me)? else {
            for result in &r.results {
                let a = result.attempt;
                let job = self.t.tasks.get(&a.task.0).map(|t| t.job_id);
                let body = json!({ "task": a.task, "epoch": a.epoch, "worker": r.me.worker });
                self.emit("result.refused", job, job.map(|_| a.task.0), body);
            }
            return Ok(SyncReply::Marked { incarnation: self.incarnation });
        };
        let (id, ping, up) = (w.id, self.t.leader.ping_seq, self.t.leader.up_ms);
        self.last_seen.insert(id, self.wall_ms);
        if let Some(w) = self.t.workers.get_mut(&id) {
            (w.pong_seq, w.pong_up_ms) = (ping, up);
            (w.free_mcpu, w.free_ram) = (i64::from(r.free.mcpu), r.free.ram as i64);
            w.free_scratch = r.free.scratch as i64;
            w.shares_ok = r.shares_ok.iter().map(|s| s.to_string()).collect();
            w.engine.clone_from(&r.engine);
        }
        let mut results: Vec<&AttemptResult> = r.results.iter().collect();
        results.sort_by_key(|x| x.attempt.task);
        let mut verdicts = Vec::new();
        for result in results {
            let verdict = self.commit_result(id, result)?;
            verdicts.push(ResultVerdict { attempt: result.attempt, verdict });
        }
        let (state, node) = {
            let w = &self.t.workers[&id];
            (w.state, self.t.nodes[&w.node_id].state.clone())
        };
        if r.want > 0 && state == WorkerState::Active && node == "ok" {
            self.claim(id, i64::from(r.want.min(1024)))?;
        }
        let named: BTreeSet<AttemptId> = (r.progress.iter().map(|p| p.attempt))
            .chain(r.results.iter().map(|x| x.attempt))
            .collect();
        let running: Vec<AttemptId> = (self.t.running())
            .filter(|a| a.worker_id == id)
            .map(|a| AttemptId { task: TaskId(a.task_id), epoch: Epoch(a.epoch) })
            .collect();
        let cancels = running.iter().copied().filter(|a| {
            self.job_state(self.t.tasks[&a.task.0].job_id) == JobState::Cancelling
                && self.publication_in(a.task.0, &BEGUN).is_none()
        });
        let fresh = running.iter().filter(|a| !named.contains(a));
        let living =
            |w: &&RawWorker| matches!(w.state, WorkerState::Active | WorkerState::Draining);
        Ok(SyncReply::Accepted(Accepted {
            incarnation: self.incarnation,
            ping_seq: ping,
            workers: self.t.workers.values().filter(living).count() as u32,
            drain: state == WorkerState::Draining || node == "drained",
            cancels: cancels.collect(),
            claims: fresh.filter_map(|a| self.claim_of(a.task.0)).collect(),
            running,
            verdicts,
        }))
    }
}
