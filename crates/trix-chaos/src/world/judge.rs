//! What a world knows better than its database: who was really silent, what is really
//! visible, what clients were really told.

use std::collections::BTreeMap;

use trix_db::{SyncReply, Verdict};
use trix_model::AttemptId;
use trix_model::state::{AttemptState, JobState, PublicationState, WorkerState};

use super::World;
use super::plans;
use super::share::Content;
use crate::breaks::Break;
use crate::check::{Violation, rules};
use crate::model::publish::folder;
use crate::model::{Answer, Call, Granted};

impl World {
    /// Looks at everything after something happened. `what` is what happened.
    pub(super) fn look(&mut self, what: &str) {
        let mut out = std::mem::take(&mut self.found);
        let lost_ms = self.times.lost.as_millis() as i64;
        for event in std::mem::take(&mut self.model.fresh) {
            if let Some(id) = (event.kind == "worker.lost").then(|| event.body["worker"].as_i64()) {
                self.marked(id.unwrap_or_default(), lost_ms, &mut out);
            }
            if event.kind == "task.state" && event.body["to"] == "done" {
                let id = event.task_id.unwrap_or_default();
                if !self.model.t.is_cached(id) && !self.model.t.outputs_of(id).is_empty() {
                    let what = format!("task {id} is done and an output has no artifact");
                    out.push(Violation::new("I5", what));
                }
            }
            self.stream.take(&event, lost_ms, &mut out);
        }
        self.arrived.extend(self.model.arrivals());
        if std::mem::take(&mut self.model.touched) {
            let t = &self.model.t;
            rules::all(t, &mut out);
            self.stream.agrees(t, &mut out);
            let seqs = &self.model.seqs;
            if let Some(last) = seqs.last()
                && (*last != seqs.len() as i64 || t.head != *last)
            {
                let what = format!("{} events, the last {last}, the head {}", seqs.len(), t.head);
                out.push(Violation::new("I12", what));
            } else if seqs.is_empty() && t.head != 0 {
                out.push(Violation::new("I12", format!("no events, the head {}", t.head)));
            }
            self.artifacts_are_golden(&mut out);
        }
        self.visible_files(&mut out);
        self.found = out;
        if !self.found.is_empty() && self.violation_at.is_none() {
            self.violation_at = Some(format!("step {} ({what})", self.counts.steps));
        }
    }

    /// I19: the worker was really silent, and no grace was due.
    fn marked(&mut self, id: i64, lost_ms: i64, out: &mut Vec<Violation>) {
        let heard = self.heard_up.get(&id).copied().unwrap_or(0);
        let silent = self.true_up().saturating_sub(heard) as i64;
        // A pong is the value of the up-clock at the last tick, so an age may be too high
        // by the time between two ticks that still counts as one.
        let gap = self.times.tick_gap.as_millis() as i64;
        if silent + gap <= lost_ms {
            let what = format!("worker {id} was marked {silent} ms of uptime after it was heard");
            out.push(Violation::new("I19", what));
        }
        let up = self.model.t.leader.up_ms;
        if up <= self.grace_due {
            let what =
                format!("worker {id} was marked at {up}, in the grace until {}", self.grace_due);
            out.push(Violation::new("I19", what));
        }
    }

    /// Milliseconds during which the database was really up.
    pub(super) fn true_up(&self) -> u64 {
        let down = if self.db_up { 0 } else { self.now - self.down_since };
        self.now - self.down_total - down
    }

    /// What a call says about the world, before it is run.
    pub(super) fn hear(&mut self, call: &Call) {
        let up = self.true_up();
        let alive = |w: &World, id: i64| {
            let state = w.model.t.workers.get(&id).map(|w| w.state);
            matches!(state, Some(WorkerState::Active | WorkerState::Draining))
        };
        match call {
            Call::Sync(r) if alive(self, r.me.worker.0) => {
                self.heard_up.insert(r.me.worker.0, up);
            }
            Call::Takeover(_, outage) => {
                let grace = self.times.grace(*outage).as_millis() as i64;
                self.grace_due = self.grace_due.max(self.model.t.leader.up_ms + grace);
            }
            Call::Tick(epoch, since) if self.model.t.leader.epoch == *epoch => {
                if let (_, Some(grace)) = self.times.counted(*since) {
                    let until = self.model.t.leader.up_ms + grace.as_millis() as i64;
                    self.grace_due = self.grace_due.max(until);
                }
            }
            _ => {}
        }
    }

    /// I10: what is registered is what a run without faults makes.
    fn artifacts_are_golden(&self, out: &mut Vec<Violation>) {
        for a in self.model.t.artifacts.values() {
            if a.digest != plans::golden(&a.key) {
                out.push(Violation::new("I10", format!("artifact {} is not golden", a.key)));
            }
        }
    }

    /// I8 and I9: what is visible belongs to a publication that may be visible, whole and
    /// right; the manifest only when all is there.
    fn visible_files(&self, out: &mut Vec<Violation>) {
        let mut due: BTreeMap<String, Content> = BTreeMap::new();
        for p in self.model.t.publications.values() {
            let at = folder(&p.target, p.version);
            let (path, content) = World::manifest_of(&p.manifest, p.version);
            let mut whole = true;
            for f in &p.manifest.files {
                let path = format!("{at}/{}", f.name);
                whole &= self.output.files.get(&path) == Some(&Content(f.sha256));
                if p.state != PublicationState::Prepared {
                    due.insert(path, Content(f.sha256));
                }
            }
            let manifest = self.output.files.get(&path).copied();
            let foreign = self.output.foreign.contains_key(&path);
            if manifest == Some(content) && !whole && !foreign {
                out.push(Violation::new("I9", format!("{path} stands before its files")));
            }
            if p.state == PublicationState::Published && (!whole || manifest != Some(content)) {
                out.push(Violation::new("I8", format!("{at} is published and not whole")));
            }
            due.insert(path, content);
        }
        for (path, content) in self.output.ours() {
            if due.get(path) != Some(content) {
                out.push(Violation::new("I8", format!("{path} is visible and nobody's")));
            }
        }
        for (path, content) in &self.output.foreign {
            if self.output.files.get(path) != Some(content) {
                out.push(Violation::new("I8", format!("{path} was replaced")));
            }
        }
    }

    /// I1: every submit that was answered exists.
    pub(super) fn journals(&mut self) {
        for (c, client) in self.clients.iter().enumerate() {
            if let Some(job) = client.journal
                && !self.model.t.jobs.contains_key(&job.0)
            {
                let what = format!("submit {c} was answered with job {job}, which is not there");
                self.found.push(Violation::new("I1", what));
            }
        }
    }

    /// True when nothing more can happen by itself.
    pub(super) fn is_quiet(&self) -> bool {
        let open = |s: JobState| {
            !matches!(s, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
        };
        self.clients.iter().all(|c| c.journal.is_some())
            && !self.model.t.jobs.values().any(|j| open(j.state))
            && self.outboxes().is_empty()
            && self.model.t.running().next().is_none()
            && self.model.t.unnumbered.is_empty()
            && self.nodes.iter().all(|n| self.is_at_work(n))
            && self.readers.iter().all(|r| r.last >= self.model.t.head)
    }

    /// True when a node's worker lives for the cluster and is heard.
    fn is_at_work(&self, node: &super::node::Node) -> bool {
        let w = node.incarnation().and_then(|id| self.model.t.workers.get(&id));
        w.is_some_and(|w| {
            w.state == WorkerState::Active && self.model.t.age(w) < self.model.t.time("suspect_ms")
        })
    }

    /// Attempts of a call's results that the fence may let through.
    pub(super) fn let_through(&self, call: &Call) -> Vec<AttemptId> {
        let Call::Sync(r) = call else { return Vec::new() };
        let runs = |a: &AttemptId| {
            let row = self.model.t.attempts.get(&(a.task.0, a.epoch.0));
            row.is_some_and(|x| x.state == AttemptState::Running && x.worker_id == r.me.worker.0)
        };
        r.results.iter().map(|x| x.attempt).filter(runs).collect()
    }

    /// I6: no result was taken but of an attempt that ran, on the worker that sent it.
    pub(super) fn fence_held(&mut self, allowed: &[AttemptId], answer: &Granted<Answer>) {
        let Ok(Answer::Synced(reply)) = answer else { return };
        let SyncReply::Accepted(a) = &**reply else { return };
        for v in &a.verdicts {
            if v.verdict == Verdict::Accepted && !allowed.contains(&v.attempt) {
                let what = format!("a result of {} was taken, which did not run there", v.attempt);
                self.violate("I6", what);
            }
        }
    }

    /// What must hold at the end.
    pub(super) fn look_at_the_end(&mut self) {
        self.journals();
        let mut out = std::mem::take(&mut self.found);
        rules::quiescent(&self.model.t, &mut out);
        for node in self.nodes.iter().filter(|n| !self.is_at_work(n)) {
            out.push(Violation::new("I15", format!("{} did not come back to work", node.name)));
        }
        for (c, client) in self.clients.iter().enumerate() {
            if client.journal.is_none() {
                out.push(Violation::new("I1", format!("submit {c} was never answered")));
            }
        }
        for a in self.outboxes() {
            out.push(Violation::new("I16", format!("the result of {a} is still in an outbox")));
        }
        for (r, reader) in self.readers.iter().enumerate() {
            let all = match self.broken {
                Some(Break::NaiveReader) => self.arrived.len() as u64,
                _ => self.model.seqs.len() as u64,
            };
            if reader.seen != all {
                let seen = reader.seen;
                out.push(Violation::new("I13", format!("reader {r} saw {seen} of {all} events")));
            }
        }
        self.found = out;
    }
}
