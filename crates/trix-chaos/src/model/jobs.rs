//! What the api calls: migration 0007.

use serde_json::json;
use trix_db::Credentials;
use trix_db::inspect::RawJob;
use trix_db::jobs::{Submit, Submitted};
use trix_model::JobId;
use trix_model::state::{JobEvent, JobState, TaskEvent, TaskState, WorkerState};

use super::moves::CANCELS;
use super::worker::BEGUN;
use super::{Granted, Model, Refusal};
use crate::breaks::Break;

impl Model {
    pub(super) fn submit(&mut self, s: &Submit) -> Granted<Submitted> {
        // The insert takes a number even when the row is there.
        self.ids.job += 1;
        let same = |j: &&RawJob| j.principal_id == s.principal && j.submit_key == s.key;
        let there = self.t.jobs.values().find(same);
        if let Some(j) = there.filter(|_| !self.is_broken(Break::DoubleSubmit)) {
            if j.request_hash != s.request_hash {
                return Err(Refusal::Conflict("submit_key_reused".into()));
            }
            return Ok(Submitted { job: JobId(j.id), created: false });
        }
        let id = self.ids.job;
        let row = RawJob {
            id,
            principal_id: s.principal,
            submit_key: s.key.clone(),
            request_hash: s.request_hash,
            engine: s.plan.engine.clone(),
            state: JobState::Accepted,
            band: i64::from(s.band),
            planned: false,
            failure: None,
        };
        self.t.jobs.insert(id, row);
        self.titles.insert(id, s.title.clone());
        self.emit("job.accepted", Some(id), None, json!({ "title": s.title }));
        self.append_tasks(id, 0, &s.plan.tasks)?;
        Ok(Submitted { job: JobId(id), created: true })
    }

    pub(super) fn cancel(&mut self, job: i64) -> Granted<JobState> {
        let state = self.t.jobs.get(&job).ok_or(Refusal::NotFound)?.state;
        if CANCELS.contains(&state) {
            return Ok(state);
        }
        self.move_job(job, JobEvent::Cancel, json!({}))?;
        self.emit("job.cancelling", Some(job), None, json!({}));
        let ends = |s: TaskState| {
            use TaskState as S;
            matches!(s, S::Waiting | S::Ready | S::Failed | S::Quarantined)
        };
        let all = self.is_broken(Break::CancelPublication);
        let tasks: Vec<i64> = (self.t.tasks_of(job))
            .filter(|t| ends(t.state) && (!t.roll_forward || all))
            .map(|t| t.id)
            .collect();
        for id in tasks {
            self.move_task(id, TaskEvent::Cancel, json!({}))?;
        }
        self.finish_job(job)?;
        Ok(self.job_state(job))
    }

    pub(super) fn retry(&mut self, job: i64) -> Granted<JobState> {
        self.t.jobs.get(&job).ok_or(Refusal::NotFound)?;
        self.move_job(job, JobEvent::Retry, json!({}))?;
        if let Some(j) = self.t.jobs.get_mut(&job) {
            j.failure = None;
        }
        let tasks: Vec<i64> = (self.t.tasks_of(job))
            .filter(|t| matches!(t.state, TaskState::Failed | TaskState::Quarantined))
            .map(|t| t.id)
            .collect();
        for id in tasks {
            self.move_task(id, TaskEvent::Retry, json!({}))?;
            let begun = self.publication_in(id, &BEGUN).is_some();
            let anew = self.is_broken(Break::EpochReset);
            let t = self.task_mut(id)?;
            t.fail_counts.clear();
            t.avoid_nodes.clear();
            (t.first_try_up_ms, t.not_before_up_ms) = (None, 0);
            (t.failure, t.roll_forward) = (None, begun);
            if anew {
                t.epoch = 0;
            }
        }
        self.finish_job(job)?;
        Ok(self.job_state(job))
    }

    pub(super) fn pause(&mut self, job: i64) -> Granted<JobState> {
        self.move_job(job, JobEvent::Pause, json!({}))
    }

    pub(super) fn resume(&mut self, job: i64) -> Granted<JobState> {
        self.move_job(job, JobEvent::Resume, json!({}))?;
        self.finish_job(job)?;
        Ok(self.job_state(job))
    }

    pub(super) fn set_band(&mut self, job: i64, band: u8) -> Granted<()> {
        self.t.jobs.get_mut(&job).ok_or(Refusal::NotFound)?.band = i64::from(band);
        for t in self.t.tasks.values_mut().filter(|t| t.job_id == job) {
            if matches!(t.state, TaskState::Waiting | TaskState::Ready | TaskState::Running) {
                t.band = i64::from(band);
            }
        }
        self.emit("job.band", Some(job), None, json!({ "band": band }));
        Ok(())
    }

    pub(super) fn drain(&mut self, worker: i64) -> Granted<()> {
        let w = self.t.workers.get_mut(&worker).ok_or(Refusal::NotFound)?;
        match w.state {
            WorkerState::Active => {
                w.state = WorkerState::Draining;
                self.emit("worker.draining", None, None, json!({ "worker": worker }));
                Ok(())
            }
            WorkerState::Draining => Ok(()),
            WorkerState::Lost | WorkerState::Gone => {
                Err(Refusal::Conflict("illegal_transition".into()))
            }
        }
    }

    /// The credentials of an incarnation, for a harness that speaks in its name.
    pub fn credentials(worker: trix_model::WorkerId) -> Credentials {
        Credentials { worker, token: super::worker::token(worker.0) }
    }
}
