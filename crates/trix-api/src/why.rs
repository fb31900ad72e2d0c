//! The facts of `trix_db::explain` in words: why a task, a job or a node does what it does,
//! and what would mend it.
//!
//! **This module asks nothing and knows no clock**: the same facts give the same sentences.

use std::collections::BTreeSet;

use trix_db::explain::{
    HoldFact, JobExplanation, NodeExplanation, RootCause, TaskExplanation, WorkerFact,
};
use trix_model::state::{AttemptState, JobState, NodeState, TaskState, WorkerState};
use trix_model::{ErrorClass, ErrorOrigin, Failure, JobId, TaskId};

/// An answer to "why?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The constraint or cause in one stable word.
    pub code: String,
    /// One sentence that names the constraint or the root cause.
    pub because: String,
    /// One sentence that says what would mend it.
    pub mend: String,
}

/// What is said of a subject that the caller names: "Task 3 (mux) " + predicate + ".".
struct Said {
    code: String,
    predicate: String,
    mend: String,
}

impl Said {
    fn of(subject: &str, said: Said) -> Why {
        let because = format!("{subject} {}.", said.predicate);
        Why { code: said.code, because, mend: said.mend }
    }
}

fn said(code: &str, predicate: impl Into<String>, mend: impl Into<String>) -> Said {
    Said { code: code.to_owned(), predicate: predicate.into(), mend: mend.into() }
}

const NOTHING: &str = "Nothing has to be done.";
const START_DISPATCHER: &str = "Start a dispatcher: trix dispatcher.";
const START_WORKER: &str = "Start a worker on an enrolled node: trix worker.";

/// Why a task is where it is.
pub fn task(f: &TaskExplanation) -> Why {
    Said::of(&format!("Task {} ({})", f.task, f.name), task_said(f))
}

/// Why a job is where it is; `first` is one of its ready tasks, if there is one.
pub fn job(f: &JobExplanation, first: Option<&TaskExplanation>) -> Why {
    Said::of(&format!("Job {}", f.job), job_said(f, first))
}

/// Why a node does what it does.
pub fn node(f: &NodeExplanation) -> Why {
    Said::of(&format!("Node {}", f.node), node_said(f))
}

fn task_said(f: &TaskExplanation) -> Said {
    match f.state {
        TaskState::Done => said("done", "is done", NOTHING),
        TaskState::Skipped => said("skipped", "was skipped: its branch was not taken", NOTHING),
        TaskState::Cancelled => {
            said("cancelled", format!("was cancelled with job {}", f.job), "Submit the job again.")
        }
        TaskState::Failed => failed_said(f),
        TaskState::Quarantined => quarantined_said(f),
        TaskState::Running => running_said(f),
        TaskState::Waiting | TaskState::Ready if !f.needed => said(
            "not_needed",
            "is not needed: all that would use its outputs was found in the cache",
            NOTHING,
        ),
        TaskState::Waiting => waiting_said(f),
        TaskState::Ready => ready_said(f),
    }
}

fn failed_said(f: &TaskExplanation) -> Said {
    let Some(failure) = &f.failure else {
        return said("failed", "failed, and nothing says why", "Report it as a mistake of trix.");
    };
    let tried = f.attempts.last().map(|a| format!(" on node {} at try {}", a.node, f.epoch));
    let predicate = format!("failed{}: {}", tried.unwrap_or_default(), words(failure));
    said(&failure.code, predicate, mend(failure, f.job))
}

fn quarantined_said(f: &TaskExplanation) -> Said {
    let nodes: BTreeSet<&str> = f
        .attempts
        .iter()
        .filter(|a| matches!(a.state, AttemptState::Failed | AttemptState::Lost))
        .map(|a| a.node.as_str())
        .collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let mut predicate = "is quarantined: its process died".to_owned();
    if !nodes.is_empty() {
        predicate += &format!(" on {}", listed(&nodes));
    }
    if let Some(failure) = &f.failure {
        predicate += &format!(", the last time with {}", words(failure));
    }
    said("quarantined", predicate, mend_quarantine(f.task, f.job))
}

fn mend_quarantine(task: TaskId, job: JobId) -> String {
    format!("Look into its bundle (trix explain task {task} --bundle), then: trix retry {job}.")
}

fn running_said(f: &TaskExplanation) -> Said {
    let Some(now) = f.attempts.iter().rfind(|a| a.state == AttemptState::Running) else {
        return said("running", "runs", NOTHING);
    };
    let silent = |w: &WorkerFact| w.node == now.node && w.misses.iter().any(|m| m == "silent");
    if f.workers.iter().any(silent) {
        return said(
            "silent",
            format!("runs on node {}, whose worker is silent", now.node),
            "Look at the node and its network; if it stays silent the task goes to another node \
             by itself.",
        );
    }
    if !f.leader {
        return said(
            "no_dispatcher",
            format!(
                "runs on node {}, and no dispatcher leads that would notice its loss",
                now.node
            ),
            START_DISPATCHER,
        );
    }
    let what = if f.roll_forward { "finishes its prepared publication" } else { "runs" };
    said("running", format!("{what} on node {} as try {}", now.node, now.epoch), NOTHING)
}

fn waiting_said(f: &TaskExplanation) -> Said {
    let bad = |s: TaskState| {
        matches!(s, TaskState::Failed | TaskState::Quarantined | TaskState::Cancelled)
    };
    if let Some(t) = f.waits_for.iter().find(|t| bad(t.state)) {
        let what = match t.state {
            TaskState::Failed => "which failed",
            TaskState::Quarantined => "which is quarantined",
            _ => "which was cancelled",
        };
        return said(
            "needs_failed",
            format!("waits for task {} ({}), {what}", t.task, t.name),
            format!("Look there: trix explain task {}.", t.task),
        );
    }
    match f.waits_for.as_slice() {
        [] if f.job_state == JobState::WaitingGate => gate(),
        [] if !f.leader => said(
            "no_dispatcher",
            "waits to be made ready, and no dispatcher leads",
            START_DISPATCHER,
        ),
        [] => said(
            "dispatcher",
            "waits until the dispatcher makes it ready",
            "Nothing has to be done: the dispatcher does it at its next round.",
        ),
        [t] => said(
            "needs",
            format!("waits for task {} ({}), which is {}", t.task, t.name, t.state),
            format!("Nothing has to be done here; of that task: trix explain task {}.", t.task),
        ),
        // What moves first decides: one that runs, else one that is ready, else any.
        all => {
            let order = |s: TaskState| match s {
                TaskState::Running => 0,
                TaskState::Ready => 1,
                _ => 2,
            };
            let t = all.iter().min_by_key(|t| order(t.state)).unwrap_or(&all[0]);
            said(
                "needs",
                format!(
                    "waits for {} tasks, one of them task {} ({}), which is {}",
                    all.len(),
                    t.task,
                    t.name,
                    t.state
                ),
                format!("Nothing has to be done here; of that task: trix explain task {}.", t.task),
            )
        }
    }
}

fn gate() -> Said {
    said(
        "gate",
        "waits at a gate for a person's decision",
        "Look at its findings and decide there; or cancel the job.",
    )
}

fn ready_said(f: &TaskExplanation) -> Said {
    withheld(f)
        .or_else(|| nobody(f))
        .or_else(|| delayed(f))
        .or_else(|| unmet(f))
        .or_else(|| slots_taken(f))
        .or_else(|| twin(f))
        .or_else(|| claimable(f))
        .unwrap_or_else(|| no_room(f))
}

/// A person or the leader stopped it.
fn withheld(f: &TaskExplanation) -> Option<Said> {
    let job = f.job;
    match f.job_state {
        // A publication that was prepared is finished whatever became of the job.
        _ if f.roll_forward => {}
        JobState::Paused => return Some(paused_job(job)),
        JobState::Failed => {
            return Some(said(
                "job_failed",
                format!("is not handed out, because job {job} failed"),
                format!("Look why: trix explain {job}; then: trix retry {job}."),
            ));
        }
        JobState::Cancelling | JobState::Cancelled => {
            let predicate = format!("is not handed out, because job {job} is cancelled");
            return Some(said("cancelled", predicate, NOTHING));
        }
        _ => {}
    }
    if let Some(who) = &f.held_by {
        return Some(said(
            "held",
            format!("waits, because {who} holds it"),
            format!("Ask {who} to let it go."),
        ));
    }
    f.holds.first().map(held)
}

fn paused_job(job: JobId) -> Said {
    said(
        "paused",
        format!("waits, because job {job} is paused"),
        format!("Resume it: trix resume {job}."),
    )
}

fn held(h: &HoldFact) -> Said {
    let by = format!("paused by {}{}", h.by, reason(&h.reason));
    match h.scope.as_str() {
        "kind" => {
            let look = if h.by == "leader" {
                "Find out why it fails everywhere, then"
            } else {
                "Resume it"
            };
            said(
                "paused_kind",
                format!("waits, because tasks of kind {} are {by}", h.name),
                format!("{look}: trix resume --kind {}.", h.name),
            )
        }
        "node" => said(
            "paused_node",
            format!("gets no work, because it is {by}"),
            format!("Resume it: trix resume --node {}.", h.name),
        ),
        _ => said(
            "paused_all",
            format!("waits, because everything is {by}"),
            "Resume everything: trix resume --all.",
        ),
    }
}

fn nobody(f: &TaskExplanation) -> Option<Said> {
    f.workers.is_empty().then(no_worker)
}

fn no_worker() -> Said {
    said("no_worker", "waits, because no worker is alive", START_WORKER)
}

fn delayed(f: &TaskExplanation) -> Option<Said> {
    if f.delay_ms <= 0 {
        return None;
    }
    let failure = f.failure.as_ref().map(|failure| {
        let at = f.attempts.last().map(|a| format!(" on node {}", a.node)).unwrap_or_default();
        format!(", because it failed{at}: {}", words(failure))
    });
    let failure = failure.unwrap_or_default();
    // Delays run in database-up time under a leader.
    Some(if f.leader {
        said(
            "delayed",
            format!("waits {} before its next try{failure}", seconds(f.delay_ms)),
            match &f.failure {
                Some(failure) => mend_retrying(failure),
                None => NOTHING.to_owned(),
            },
        )
    } else {
        said(
            "no_dispatcher",
            format!(
                "waits before its next try, and its time stands still while no dispatcher leads{failure}"
            ),
            START_DISPATCHER,
        )
    })
}

/// What a worker lacks for the task, but for what only makes it the second choice.
fn lacks(w: &WorkerFact) -> impl Iterator<Item = &str> {
    w.misses.iter().map(String::as_str).filter(|m| *m != "avoided")
}

/// What no living worker has, the most lasting first.
fn unmet(f: &TaskExplanation) -> Option<Said> {
    let all = f.unmet();
    if let Some(share) = all.iter().find_map(|m| m.strip_prefix("share:")) {
        return Some(said(
            "share",
            format!("waits, because share {share} is in order on no living worker"),
            format!("Bring share {share} back on a node; its worker notices that by itself."),
        ));
    }
    let needs = &f.needs;
    let nodes: Vec<&str> = f.workers.iter().map(|w| w.node.as_str()).collect();
    let every = |what: &str| match nodes.as_slice() {
        [one] => format!("waits, because the only living worker's node {one} is {what}"),
        _ => format!("waits, because the nodes of all {} living workers are {what}", nodes.len()),
    };
    let closed = |what: &str| {
        every(what) + &reason(f.workers[0].cordon_reason.as_deref().unwrap_or_default())
    };
    let more = |amount: String, how: &str| {
        let mend = format!("Start a worker that gives {amount} or more{how}.");
        (format!("waits, because it needs {amount}, more than any living worker gives"), mend)
    };
    let first = nodes.first().copied().unwrap_or_default();
    let order = [
        "engine", "caps", "gpu", "mcpu", "ram", "scratch", "draining", "cordoned", "drained",
        "paused", "silent",
    ];
    let miss = order.into_iter().find(|m| all.contains(m))?;
    let (predicate, mend) = match miss {
        "engine" => (
            format!("waits, because no living worker has engine {}, which it was planned for", needs.engine),
            format!(
                "Start a worker of the version with engine {}, or cancel the job and submit it again.",
                needs.engine
            ),
        ),
        "caps" => (
            format!("waits, because no living worker's node has the capability {}", needs.caps.join(", ")),
            format!("Give a node that has it the name: trix traits NODE --cap {}.", needs.caps.join(" --cap ")),
        ),
        "gpu" => (
            format!("waits, because it needs {} of a graphics processor, more than any node has", thousandths(needs.gpu)),
            "Start a worker on a node with a graphics processor, and say so: trix traits NODE --gpu 1000."
                .to_owned(),
        ),
        "mcpu" => more(cores(needs.mcpu), " (worker.mcpu)"),
        "ram" => more(format!("{} of memory", bytes(needs.ram)), " (worker.ram_mib)"),
        "scratch" => more(format!("{} of scratch", bytes(needs.scratch)), ", on a cache with that much room"),
        "draining" => (
            match nodes.as_slice() {
                [one] => format!("waits, because the only living worker, on node {one}, is draining"),
                _ => format!("waits, because all {} living workers are draining", nodes.len()),
            },
            format!("Start another worker, or take the drain back: trix undrain {first}."),
        ),
        "cordoned" => (closed("cordoned"), format!("Open it again: trix uncordon {first}.")),
        "drained" => (closed("drained"), format!("Open it again: trix undrain {first}.")),
        "paused" => (every("paused"), format!("Resume it: trix resume --node {first}.")),
        _ => (
            match nodes.as_slice() {
                [one] => format!("waits, because the only living worker, on node {one}, is silent"),
                _ => format!("waits, because all {} living workers are silent", nodes.len()),
            },
            "Look at the nodes and at their way to the database.".to_owned(),
        ),
    };
    Some(said(miss, predicate, mend))
}

fn slots_taken(f: &TaskExplanation) -> Option<Said> {
    let s = f.slots.iter().find(|s| s.taken >= s.total)?;
    let what = if s.mode == "read" { "reading from" } else { "writing to" };
    let predicate = match s.total {
        1 => format!("waits, because the only slot for {what} share {} is taken", s.share),
        n => format!("waits, because all {n} slots for {what} share {} are taken", s.share),
    };
    let mend = format!(
        "Nothing has to be done; more at once: trix slots {} --{} {}.",
        s.share,
        s.mode,
        s.total + 1
    );
    Some(said("slots", predicate, mend))
}

fn twin(f: &TaskExplanation) -> Option<Said> {
    let twin = f.twin?;
    Some(said(
        "twin",
        format!("waits, because task {twin} makes the same right now"),
        "Nothing has to be done: its outputs are then taken from the cache.",
    ))
}

fn claimable(f: &TaskExplanation) -> Option<Said> {
    // A node on which it failed is taken when there is no other that could ever run it.
    let open = f.workers.iter().find(|w| w.misses.is_empty()).or_else(|| {
        let never = |m: &String| !matches!(m.as_str(), "busy" | "reserved");
        let none_else = f.workers.iter().all(|w| w.misses.iter().any(never));
        f.workers.iter().find(|w| none_else && lacks(w).next().is_none())
    })?;
    Some(if f.leader {
        said(
            "claimable",
            format!("can be claimed at once on node {}", open.node),
            "Nothing has to be done: the worker takes it at its next beat.",
        )
    } else {
        said(
            "no_dispatcher",
            format!(
                "could be claimed on node {}, but no dispatcher leads that would notice if that worker is gone",
                open.node
            ),
            START_DISPATCHER,
        )
    })
}

/// Every worker lacks something, and most often it is only room.
fn no_room(f: &TaskExplanation) -> Said {
    let hurry =
        format!("Wait, start another worker, or raise its priority: trix priority {} 9.", f.job);
    if let Some(worker) = f.reserved_on {
        return said(
            "reserving",
            format!("waits until worker {worker} has enough room, which is reserved for it"),
            "Nothing has to be done: no new task takes that room.",
        );
    }
    let only = |what: &str| f.workers.iter().all(|w| lacks(w).all(|m| m == what));
    if only("reserved") {
        return said(
            "reserved",
            "waits, because every worker is reserved for a bigger task",
            hurry,
        );
    }
    let room = |w: &WorkerFact| lacks(w).all(|m| m == "busy" || m == "reserved");
    if f.workers.iter().all(room) {
        let ahead = match f.ahead {
            0 => String::new(),
            1 => ", and 1 task like it goes first".to_owned(),
            1000.. => ", and 1000 or more tasks like it go first".to_owned(),
            n => format!(", and {n} tasks like it go first"),
        };
        let who = match f.workers.as_slice() {
            [w] => format!("the only living worker, on node {}, is busy", w.node),
            all => format!("all {} living workers are busy", all.len()),
        };
        return said("busy", format!("waits, because {who}{ahead}"), hurry);
    }
    const SHOWN: usize = 4;
    let mut each: Vec<String> = f.workers.iter().take(SHOWN).map(lacking).collect();
    if f.workers.len() > SHOWN {
        each.push(format!("{} more workers cannot either", f.workers.len() - SHOWN));
    }
    said(
        "mixed",
        format!("waits, because no living worker can take it: {}", each.join(", ")),
        format!(
            "Mend one of these, or start another worker; of each node: trix explain node {}.",
            f.workers[0].node
        ),
    )
}

/// One worker's first obstacle: "a is cordoned (new disk)".
fn lacking(w: &WorkerFact) -> String {
    let closed = |what: &str| match w.cordon_reason.as_deref() {
        Some(why) if !why.is_empty() => format!("is {what} ({why})"),
        _ => format!("is {what}"),
    };
    let hard = |m: &&String| !matches!(m.as_str(), "avoided" | "busy" | "reserved");
    let miss = w.misses.iter().find(hard).or(w.misses.first()).map_or("", String::as_str);
    let what = match miss {
        "draining" => "is draining".to_owned(),
        "cordoned" | "drained" => closed(miss),
        "paused" => "is paused".to_owned(),
        "silent" => "is silent".to_owned(),
        "engine" => "has another engine".to_owned(),
        "caps" => "lacks a capability".to_owned(),
        "gpu" => "has too little of a graphics processor".to_owned(),
        "mcpu" => "has too few cores".to_owned(),
        "ram" => "has too little memory".to_owned(),
        "scratch" => "has too little scratch".to_owned(),
        "avoided" => "is avoided, because it failed there".to_owned(),
        "reserved" => "is reserved for a bigger task".to_owned(),
        "busy" => "is busy".to_owned(),
        "" => "could take it".to_owned(),
        other => match other.strip_prefix("share:") {
            Some(share) => format!("lacks share {share}"),
            None => format!("lacks {other}"),
        },
    };
    format!("{} {what}", w.node)
}

fn job_said(f: &JobExplanation, first: Option<&TaskExplanation>) -> Said {
    let count = |s: TaskState| f.tasks.get(&s).copied().unwrap_or(0);
    match f.state {
        JobState::Succeeded => said("succeeded", "succeeded", NOTHING),
        JobState::Cancelled => {
            said("cancelled", "was cancelled", "Submit it again if it is wanted.")
        }
        JobState::Cancelling => match count(TaskState::Running) {
            0 if !f.leader => said(
                "no_dispatcher",
                "is being cancelled, and no dispatcher leads that would finish it",
                START_DISPATCHER,
            ),
            0 => said(
                "cancelling",
                "is being cancelled",
                "Nothing has to be done: the dispatcher finishes it at its next round.",
            ),
            n => said(
                "cancelling",
                format!("is being cancelled, and {}", tasks_run(n)),
                "Nothing has to be done: workers end what runs of it.",
            ),
        },
        JobState::Failed => job_failed(f),
        JobState::Paused => match count(TaskState::Running) {
            0 => said("paused", "is paused", format!("Resume it: trix resume {}.", f.job)),
            n => said(
                "paused",
                format!("is paused, and {}", tasks_run(n)),
                format!("Resume it: trix resume {}.", f.job),
            ),
        },
        JobState::WaitingGate if count(TaskState::Running) == 0 => gate(),
        JobState::Accepted | JobState::Inspecting | JobState::Running | JobState::WaitingGate => {
            job_under_way(f, first)
        }
    }
}

fn job_under_way(f: &JobExplanation, first: Option<&TaskExplanation>) -> Said {
    let count = |s: TaskState| f.tasks.get(&s).copied().unwrap_or(0);
    let running = count(TaskState::Running);
    if running > 0 {
        let retrying = f.retrying.first().map(|r| {
            format!(
                "; task {} ({}) is tried again, because it failed: {}",
                r.task,
                r.name,
                words(&r.failure)
            )
        });
        let total: u32 = f.tasks.values().sum();
        let predicate = format!(
            "runs: {}, {} of {total} are done{}",
            tasks_run(running),
            count(TaskState::Done) + count(TaskState::Skipped),
            retrying.unwrap_or_default()
        );
        return if f.leader {
            said("running", predicate, NOTHING)
        } else {
            said("no_dispatcher", format!("{predicate}; but no dispatcher leads"), START_DISPATCHER)
        };
    }
    if let Some(t) = first {
        let inner = task_said(t);
        let predicate =
            format!("waits for task {} ({}), which {}", t.task, t.name, inner.predicate);
        return Said { predicate, ..inner };
    }
    if count(TaskState::Quarantined) + count(TaskState::Failed) > 0 {
        return job_failed(f);
    }
    if !f.leader {
        let what = if f.planned { "to go on" } else { "to be planned" };
        return said(
            "no_dispatcher",
            format!("waits {what}, and no dispatcher leads"),
            START_DISPATCHER,
        );
    }
    let what = if f.planned { "takes it further" } else { "plans it" };
    said(
        "dispatcher",
        format!("waits until the dispatcher {what}"),
        "Nothing has to be done: the dispatcher does it at its next round.",
    )
}

fn job_failed(f: &JobExplanation) -> Said {
    if let Some(RootCause { task, name, state, epoch, node, failure }) = &f.root {
        let at = match (node, epoch) {
            (Some(node), Some(epoch)) => format!(" on node {node} at try {epoch}"),
            _ => String::new(),
        };
        let cause = failure.as_ref().map_or_else(String::new, |x| format!(": {}", words(x)));
        if *state == TaskState::Quarantined {
            return said(
                "quarantined",
                format!(
                    "failed, because task {task} ({name}) is quarantined: its process died{at}{cause}"
                ),
                mend_quarantine(*task, f.job),
            );
        }
        let predicate = format!("failed, because task {task} ({name}) failed{at}{cause}");
        return match failure {
            Some(x) => said(&x.code, predicate, mend(x, f.job)),
            None => said("failed", predicate, format!("Look there: trix explain task {task}.")),
        };
    }
    match &f.failure {
        Some(x) => said(&x.code, format!("failed: {}", words(x)), mend(x, f.job)),
        None => said("failed", "failed, and nothing says why", "Report it as a mistake of trix."),
    }
}

fn node_said(f: &NodeExplanation) -> Said {
    let name = &f.node;
    let why = reason(f.cordon_reason.as_deref().unwrap_or_default());
    if f.state == NodeState::Drained {
        let alive = f
            .worker
            .as_ref()
            .is_some_and(|w| w.state == WorkerState::Draining || w.state == WorkerState::Active);
        return if alive {
            said(
                "draining",
                format!("is drained and ends what runs{why}"),
                format!("Take it back: trix undrain {name}."),
            )
        } else {
            let mend = format!("Open it (trix undrain {name}) and start its worker: trix worker.");
            said("drained", format!("is drained and its worker left{why}"), mend)
        };
    }
    let Some(w) = &f.worker else {
        return said(
            "no_worker",
            "was enrolled and has had no worker yet",
            "Start its worker: trix worker.",
        );
    };
    match w.state {
        WorkerState::Lost => {
            return said(
                "lost",
                format!(
                    "has no worker, because worker {} was silent for too long and was marked lost",
                    w.id
                ),
                "Look at the machine and its network, then start its worker: trix worker.",
            );
        }
        WorkerState::Gone => {
            return said(
                "gone",
                format!("has no worker, because worker {} ended", w.id),
                "Start its worker: trix worker.",
            );
        }
        _ => {}
    }
    if f.state == NodeState::Cordoned {
        return if f.cordoned_by.as_deref() == Some("leader") {
            said(
                "cordoned",
                format!(
                    "gets no work, because the dispatcher cordoned it{why}; {} of its last {} attempts failed in a way that speaks against it",
                    f.record.suspect, f.record.ended
                ),
                format!(
                    "Two self-tests that pass in a row open it, of which {} did; or, once it is mended: trix uncordon {name}.",
                    f.self_tests
                ),
            )
        } else {
            said(
                "cordoned",
                format!("gets no work, because an operator cordoned it{why}"),
                format!("Open it: trix uncordon {name}."),
            )
        };
    }
    if w.state == WorkerState::Draining {
        return said(
            "draining",
            format!(
                "gets no work, because its worker {} is draining; {}",
                w.id,
                attempts_run(w.running)
            ),
            format!(
                "Take it back: trix undrain {name}; or start its worker again when it has left."
            ),
        );
    }
    if w.suspect {
        return said(
            "silent",
            format!(
                "gets no work, because its worker {} is silent since {}",
                w.id,
                seconds(w.age_ms)
            ),
            "Look at the machine and at its way to the database.",
        );
    }
    // The narrower stop is the one that is about this node.
    let narrow = f.holds.iter().find(|h| h.scope == "node");
    if let Some(h) = narrow.or(f.holds.first()) {
        let said = held(h);
        return if h.scope == "node" {
            said
        } else {
            Said { predicate: said.predicate.replacen("waits", "gets no work", 1), ..said }
        };
    }
    if !f.leader {
        return said(
            "no_dispatcher",
            format!("works, but no dispatcher leads; {}", attempts_run(w.running)),
            START_DISPATCHER,
        );
    }
    if let Some(task) = w.reserved_task {
        return said(
            "reserved",
            format!(
                "is kept free for task {task}, which needs much room; {}",
                attempts_run(w.running)
            ),
            NOTHING,
        );
    }
    if !w.shares_missing.is_empty() {
        let shares: Vec<&str> = w.shares_missing.iter().map(String::as_str).collect();
        let (noun, is) = if shares.len() == 1 { ("share", "is") } else { ("shares", "are") };
        return said(
            "share",
            format!(
                "gets only some of the work, because {noun} {} {is} not in order there",
                listed(&shares)
            ),
            format!(
                "Bring {noun} {} back there; its worker notices that by itself.",
                listed(&shares)
            ),
        );
    }
    match w.running {
        0 => said("idle", "is idle: it is open and nothing that is ready fits it", NOTHING),
        n => said(
            "running",
            format!(
                "works: {}, with {} free",
                attempts_run(n),
                cores(u64::try_from(w.free.mcpu).unwrap_or(0))
            ),
            NOTHING,
        ),
    }
}

/// What would mend a failure that is final.
fn mend(f: &Failure, job: JobId) -> String {
    let again = format!("trix retry {job}");
    match (f.code.as_str(), f.class, f.origin) {
        ("source_changed", ..) => {
            "Wait until the file is delivered whole, and submit it again.".to_owned()
        }
        ("publish_conflict", ..) => {
            format!("Move away what stands at the destination, then: {again}.")
        }
        ("out_of_memory", ..) => {
            format!("Give its worker more memory (worker.ram_mib) or start a bigger node, then: {again}.")
        }
        (_, ErrorClass::Deterministic, ErrorOrigin::Source) => {
            "Have the file delivered anew and submit that; trying again gives the same.".to_owned()
        }
        (_, ErrorClass::Deterministic, ErrorOrigin::Request) => {
            "Change the profile or the request, and submit again; trying again gives the same.".to_owned()
        }
        (_, _, ErrorOrigin::Share) => format!("Bring the share back, then: {again}."),
        (_, ErrorClass::Deterministic, ErrorOrigin::Engine) => {
            "Choose another codec or setting in the profile, and submit again; trying again gives the same."
                .to_owned()
        }
        (_, _, ErrorOrigin::Bug) => {
            format!("Report it as a mistake of trix with the attempt's log; after an update: {again}.")
        }
        (_, ErrorClass::Resource, _) => {
            format!("Make room on the node or start a bigger one, then: {again}.")
        }
        (_, _, ErrorOrigin::Node) => format!("Mend the node, then: {again}."),
        _ => format!("Try again: {again}."),
    }
}

/// What would mend a failure that is tried again by itself.
fn mend_retrying(f: &Failure) -> String {
    match (f.class, f.origin) {
        (_, ErrorOrigin::Share) => "Bring the share back; the next try comes by itself.".to_owned(),
        (ErrorClass::Resource, _) => {
            "Make room on the node, or wait: the next try comes by itself.".to_owned()
        }
        _ => "Nothing has to be done: the next try comes by itself.".to_owned(),
    }
}

/// A failure within a sentence.
fn words(f: &Failure) -> String {
    let message = f.message.trim().trim_end_matches('.');
    if message.is_empty() { f.code.clone() } else { format!("{message} ({})", f.code) }
}

fn reason(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn tasks_run(n: u32) -> String {
    if n == 1 { "1 task runs".to_owned() } else { format!("{n} tasks run") }
}

fn attempts_run(n: u32) -> String {
    match n {
        0 => "nothing runs there".to_owned(),
        1 => "1 attempt runs".to_owned(),
        n => format!("{n} attempts run"),
    }
}

fn seconds(ms: i64) -> String {
    format!("{} s", (ms.max(0) + 999) / 1000)
}

/// Thousandths as a decimal number, exactly.
fn thousandths(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1000, n % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cores(mcpu: u64) -> String {
    match mcpu {
        1000 => "1 core".to_owned(),
        n => format!("{} cores", thousandths(n)),
    }
}

/// Rounded up to tenths: what is needed must not look like less.
fn bytes(n: u64) -> String {
    let (unit, name) = if n >= 1 << 30 { (1u64 << 30, "GiB") } else { (1 << 20, "MiB") };
    let tenths = (u128::from(n) * 10).div_ceil(u128::from(unit));
    if tenths.is_multiple_of(10) {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests;
