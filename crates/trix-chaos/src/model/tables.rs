//! The tables, in memory. The model changes them, a database is read into them, and the
//! checker judges them: one type for all three, so that what is proved of the one is
//! asked of the other in the same words.

use std::collections::{BTreeMap, BTreeSet};

use trix_db::inspect::{
    RawArtifact, RawAttempt, RawEvent, RawFile, RawJob, RawLeader, RawNode, RawOutput,
    RawPublication, RawTask, RawWorker, Snapshot,
};
use trix_model::Key;
use trix_model::state::{AttemptState, TaskState};

/// All tables of the protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// The leader's row.
    pub leader: RawLeader,
    /// Nodes by id.
    pub nodes: BTreeMap<i64, RawNode>,
    /// Incarnations by id.
    pub workers: BTreeMap<i64, RawWorker>,
    /// Jobs by id.
    pub jobs: BTreeMap<i64, RawJob>,
    /// Tasks by id.
    pub tasks: BTreeMap<i64, RawTask>,
    /// (task, what it needs).
    pub needs: BTreeSet<(i64, i64)>,
    /// (task, who needs it): the same pairs from the other side.
    pub needed_by: BTreeSet<(i64, i64)>,
    /// Outputs by task.
    pub outputs: BTreeMap<i64, Vec<RawOutput>>,
    /// Keys that tasks read.
    pub inputs: BTreeMap<i64, BTreeSet<Key>>,
    /// Attempts by task and epoch.
    pub attempts: BTreeMap<(i64, i64), RawAttempt>,
    /// Artifacts by key.
    pub artifacts: BTreeMap<Key, RawArtifact>,
    /// Publications by id.
    pub publications: BTreeMap<i64, RawPublication>,
    /// Their files.
    pub files: BTreeSet<RawFile>,
    /// Events that wait for a number, in order.
    pub unnumbered: Vec<RawEvent>,
    /// Numbered events; the first has the number `oldest`.
    pub log: Vec<RawEvent>,
    /// The lowest number kept.
    pub oldest: i64,
    /// The highest number given.
    pub head: i64,
}

impl Tables {
    /// The tables of a database, with the events of its log in order.
    pub fn of(s: Snapshot, log: Vec<RawEvent>) -> Tables {
        let mut outputs: BTreeMap<i64, Vec<RawOutput>> = BTreeMap::new();
        s.outputs.into_iter().for_each(|o| outputs.entry(o.task_id).or_default().push(o));
        let mut inputs: BTreeMap<i64, BTreeSet<Key>> = BTreeMap::new();
        for i in s.inputs {
            inputs.entry(i.task_id).or_default().insert(i.key);
        }
        Tables {
            leader: s.leader,
            nodes: s.nodes.into_iter().map(|r| (r.id, r)).collect(),
            workers: s.workers.into_iter().map(|r| (r.id, r)).collect(),
            jobs: s.jobs.into_iter().map(|r| (r.id, r)).collect(),
            tasks: s.tasks.into_iter().map(|r| (r.id, r)).collect(),
            needs: s.deps.iter().map(|d| (d.task_id, d.needs_id)).collect(),
            needed_by: s.deps.iter().map(|d| (d.needs_id, d.task_id)).collect(),
            outputs,
            inputs,
            attempts: s.attempts.into_iter().map(|r| ((r.task_id, r.epoch), r)).collect(),
            artifacts: s.artifacts.into_iter().map(|r| (r.key, r)).collect(),
            publications: s.publications.into_iter().map(|r| (r.id, r)).collect(),
            files: s.files.into_iter().collect(),
            unnumbered: s.unnumbered,
            log,
            oldest: s.oldest,
            head: s.head,
        }
    }

    /// What a task needs.
    pub fn needs_of(&self, task: i64) -> impl Iterator<Item = i64> + '_ {
        self.needs.range((task, i64::MIN)..=(task, i64::MAX)).map(|(_, n)| *n)
    }

    /// Who needs a task.
    pub fn dependants_of(&self, task: i64) -> impl Iterator<Item = i64> + '_ {
        self.needed_by.range((task, i64::MIN)..=(task, i64::MAX)).map(|(_, d)| *d)
    }

    /// The attempts of a task by epoch.
    pub fn attempts_of(&self, task: i64) -> impl Iterator<Item = &RawAttempt> {
        self.attempts.range((task, i64::MIN)..=(task, i64::MAX)).map(|(_, a)| a)
    }

    /// The outputs of a task.
    pub fn outputs_of(&self, task: i64) -> &[RawOutput] {
        self.outputs.get(&task).map_or(&[], Vec::as_slice)
    }

    /// The tasks of a job by id.
    pub fn tasks_of(&self, job: i64) -> impl Iterator<Item = &RawTask> {
        self.tasks.values().filter(move |t| t.job_id == job)
    }

    /// Attempts that run, by task.
    pub fn running(&self) -> impl Iterator<Item = &RawAttempt> {
        // A task has at most one, and it is the last.
        self.tasks.values().filter(|t| t.state == TaskState::Running).filter_map(|t| {
            self.attempts.get(&(t.id, t.epoch)).filter(|a| a.state == AttemptState::Running)
        })
    }

    /// How many of what a task needs is not finished.
    pub fn open_needs(&self, task: i64) -> i64 {
        let open = |n: &i64| {
            let state = self.tasks.get(n).map(|t| t.state);
            !matches!(state, Some(TaskState::Done | TaskState::Skipped))
        };
        self.needs_of(task).filter(open).count() as i64
    }

    /// True when all that a task makes exists; a task that makes nothing is never cached.
    pub fn is_cached(&self, task: i64) -> bool {
        let outputs = self.outputs_of(task);
        !outputs.is_empty() && outputs.iter().all(|o| self.artifacts.contains_key(&o.key))
    }

    /// Every event in order, numbered or not.
    pub fn events(&self) -> impl Iterator<Item = &RawEvent> {
        self.log.iter().chain(&self.unnumbered)
    }

    /// How long a worker has been silent.
    pub fn age(&self, worker: &RawWorker) -> i64 {
        self.leader.up_ms - worker.pong_up_ms
    }

    /// One of the protocol's times that the leader wrote, in milliseconds.
    pub fn time(&self, name: &str) -> i64 {
        // The schema's default has all of them, and every takeover writes all of them.
        self.leader.times.get(name).copied().unwrap_or(0)
    }
}
