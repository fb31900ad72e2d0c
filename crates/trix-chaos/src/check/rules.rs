//! Rules that hold at every moment, over the rows alone: I2 to I5, I7, I14, I17, and what
//! I1 needs: that no count keeps a task from being claimed.

use std::collections::{BTreeMap, BTreeSet};

use trix_db::inspect::{RawAttempt, RawTask};
use trix_model::ErrorClass;
use trix_model::state::{AttemptState, JobState, PublicationState, TaskState, WorkerState};

use super::Violation;
use crate::model::Tables;

/// So far epochs and event numbers leap when a database that was restored from a backup is
/// adopted: beyond all that can have been given after the backup.
pub const LEAP: i64 = 1 << 32;

/// All rules of this file.
pub fn all(t: &Tables, out: &mut Vec<Violation>) {
    one_job_a_key(t, out);
    one_running_attempt(t, out);
    epochs_without_holes(t, out);
    done_means_one_success(t, out);
    versions(t, out);
    capacity(t, out);
    retry_classes(t, out);
    counts(t, out);
}

/// I2: at most one job per principal and key.
pub fn one_job_a_key(t: &Tables, out: &mut Vec<Violation>) {
    let mut seen: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    for j in t.jobs.values() {
        if let Some(other) = seen.insert((j.principal_id, &j.submit_key), j.id) {
            let (id, key) = (j.id, &j.submit_key);
            out.push(Violation::new("I2", format!("jobs {other} and {id} have the key {key:?}")));
        }
    }
}

/// I3: a running task has one running attempt, of its epoch, and no other task has any.
pub fn one_running_attempt(t: &Tables, out: &mut Vec<Violation>) {
    for task in t.tasks.values() {
        let running = t.attempts_of(task.id).filter(|a| a.state == AttemptState::Running);
        let (mut n, mut other) = (0, None);
        for a in running {
            n += 1;
            if a.epoch != task.epoch {
                other = Some(a.epoch);
            }
        }
        if n > 1 || (n == 1) != (task.state == TaskState::Running) {
            let (id, state) = (task.id, task.state);
            out.push(Violation::new(
                "I3",
                format!("task {id} is {state} with {n} running attempts"),
            ));
        } else if let Some(epoch) = other {
            let (id, own) = (task.id, task.epoch);
            out.push(Violation::new(
                "I3",
                format!("task {id} has epoch {own} and runs as {epoch}"),
            ));
        }
    }
}

/// I4: the attempts of a task have the epochs from 1 to its own, each ended before the next.
/// Only adoption leaves holes, and whole leaps of them.
pub fn epochs_without_holes(t: &Tables, out: &mut Vec<Violation>) {
    for task in t.tasks.values() {
        let mut next = 1;
        for a in t.attempts_of(task.id) {
            if !is_next(a.epoch, next) {
                let (id, epoch) = (task.id, a.epoch);
                out.push(Violation::new(
                    "I4",
                    format!("task {id} has epoch {epoch} where {next} is due"),
                ));
            }
            if a.state == AttemptState::Running && a.epoch < task.epoch {
                let (id, epoch) = (task.id, a.epoch);
                out.push(Violation::new(
                    "I4",
                    format!("attempt {id}-{epoch} had not ended at the next"),
                ));
            }
            next = a.epoch + 1;
        }
        if !is_next(task.epoch + 1, next) {
            let (id, epoch, last) = (task.id, task.epoch, next - 1);
            out.push(Violation::new(
                "I4",
                format!("task {id} has epoch {epoch}, its last attempt {last}"),
            ));
        }
    }
}

/// The next epoch, or that behind some leaps.
fn is_next(epoch: i64, next: i64) -> bool {
    epoch >= next && (epoch - next) % LEAP == 0
}

/// I5: done means one success that was not lost, or a cache hit; and never two.
pub fn done_means_one_success(t: &Tables, out: &mut Vec<Violation>) {
    for task in t.tasks.values() {
        let good = |a: &&RawAttempt| a.state == AttemptState::Succeeded && !a.result_lost;
        let n = t.attempts_of(task.id).filter(good).count();
        let right = match task.state {
            TaskState::Done if task.cache_hit => n <= 1,
            TaskState::Done => n == 1,
            _ => n == 0,
        };
        if !right {
            let (id, state, hit) = (task.id, task.state, task.cache_hit);
            let what = format!("task {id} is {state} with {n} successes, cache hit {hit}");
            out.push(Violation::new("I5", what));
        }
    }
}

/// I7: versions of a target are unique and contiguous, and one of them counts.
pub fn versions(t: &Tables, out: &mut Vec<Violation>) {
    let mut targets: BTreeMap<(&str, &str), (Vec<i64>, usize)> = BTreeMap::new();
    for p in t.publications.values() {
        let (versions, current) = targets.entry((&p.share, &p.target)).or_default();
        versions.push(p.version);
        *current += usize::from(p.current);
        if p.current && p.state != PublicationState::Published {
            let what = format!("publication {} counts and is {}", p.id, p.state);
            out.push(Violation::new("I7", what));
        }
    }
    for ((share, target), (mut versions, current)) in targets {
        versions.sort_unstable();
        if versions.iter().zip(1..).any(|(v, want)| *v != want) {
            out.push(Violation::new(
                "I7",
                format!("{share}:{target} has the versions {versions:?}"),
            ));
        }
        if current > 1 {
            out.push(Violation::new(
                "I7",
                format!("{share}:{target} has {current} current versions"),
            ));
        }
    }
    let mut names: BTreeSet<(&str, &str)> = BTreeSet::new();
    for f in &t.files {
        if !names.insert((&f.share, &f.folded_path)) {
            out.push(Violation::new("I7", format!("{}:{} is published twice", f.share, f.path)));
        }
    }
}

/// I14: what runs on a worker fits into it.
pub fn capacity(t: &Tables, out: &mut Vec<Violation>) {
    let mut used: BTreeMap<i64, (i64, i64, i64)> = BTreeMap::new();
    for a in t.running() {
        let Some(task) = t.tasks.get(&a.task_id) else { continue };
        let (mcpu, ram, scratch) = used.entry(a.worker_id).or_default();
        *mcpu += task.need_mcpu;
        *ram += task.need_ram;
        *scratch += task.need_scratch;
    }
    for (id, (mcpu, ram, scratch)) in used {
        let Some(w) = t.workers.get(&id) else { continue };
        if mcpu > w.cap_mcpu || ram > w.cap_ram || scratch > w.cap_scratch {
            let what = format!(
                "worker {id} runs {mcpu} mcpu, {ram} ram, {scratch} scratch of {}, {}, {}",
                w.cap_mcpu, w.cap_ram, w.cap_scratch
            );
            out.push(Violation::new("I14", what));
        }
    }
}

/// I17: deterministic failures use one attempt, crashes two, transient ones poison nothing.
pub fn retry_classes(t: &Tables, out: &mut Vec<Violation>) {
    for task in t.tasks.values() {
        let count = |class: &str| task.fail_counts.get(class).copied().unwrap_or(0);
        let (deterministic, crash) = (count("deterministic"), count("crash"));
        if deterministic > 1 || deterministic == 1 && !ended(task) {
            let what = format!("task {} was tried again after a deterministic failure", task.id);
            out.push(Violation::new("I17", what));
        }
        if crash > 2 {
            out.push(Violation::new("I17", format!("task {} crashed {crash} times", task.id)));
        }
        let of_class =
            |a: &&RawAttempt| a.failure.as_ref().is_some_and(|f| f.class == ErrorClass::Crash);
        if crash > 0 && crash > t.attempts_of(task.id).filter(of_class).count() as i64 {
            let what = format!("task {} counts {crash} crashes that no attempt had", task.id);
            out.push(Violation::new("I17", what));
        }
        if task.state == TaskState::Quarantined && crash < 2 {
            let died = |a: &&RawAttempt| {
                a.state == AttemptState::Lost
                    && a.failure.as_ref().is_some_and(|f| f.code != "released")
            };
            let nodes: BTreeSet<i64> =
                t.attempts_of(task.id).filter(died).map(|a| a.node_id).collect();
            if nodes.len() < 3 {
                let what = format!("task {} is quarantined for transient failures", task.id);
                out.push(Violation::new("I17", what));
            }
        }
    }
}

/// After a deterministic failure: nothing more happens but by an operator, who clears the
/// counts, or by a cancel.
fn ended(task: &RawTask) -> bool {
    matches!(task.state, TaskState::Failed | TaskState::Cancelled | TaskState::Quarantined)
}

/// What I1 needs: a count that is wrong keeps a task from being claimed for ever, or lets
/// it be claimed too early.
pub fn counts(t: &Tables, out: &mut Vec<Violation>) {
    let over = |job: i64| {
        use JobState as J;
        t.jobs.get(&job).is_none_or(|j| matches!(j.state, J::Succeeded | J::Failed | J::Cancelled))
    };
    for task in t.tasks.values() {
        if !matches!(task.state, TaskState::Waiting | TaskState::Ready) || over(task.job_id) {
            continue;
        }
        let open = t.open_needs(task.id);
        if open != task.deps_left {
            let (id, left) = (task.id, task.deps_left);
            out.push(Violation::new("I1", format!("task {id} waits for {open} and counts {left}")));
        }
    }
}

/// I15 and I1, once all is healed and quiet: every job is final or waits for a person, and
/// nothing is left under way.
pub fn quiescent(t: &Tables, out: &mut Vec<Violation>) {
    for j in t.jobs.values() {
        use JobState as J;
        if !matches!(j.state, J::Succeeded | J::Failed | J::Cancelled | J::Paused | J::WaitingGate)
        {
            out.push(Violation::new("I1", format!("job {} is still {}", j.id, j.state)));
        }
    }
    for a in t.running() {
        let w = t.workers.get(&a.worker_id).map(|w| w.state);
        if !matches!(w, Some(WorkerState::Active | WorkerState::Draining)) {
            let (task, epoch, worker) = (a.task_id, a.epoch, a.worker_id);
            let what = format!("attempt {task}-{epoch} runs on worker {worker}, which is no more");
            out.push(Violation::new("I15", what));
        }
    }
    for p in t.publications.values() {
        if matches!(p.state, PublicationState::Prepared | PublicationState::Moving) {
            out.push(Violation::new("I15", format!("publication {} is still {}", p.id, p.state)));
        }
    }
}
