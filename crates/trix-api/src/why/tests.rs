//! One situation, one sentence.

use trix_db::explain::{
    AttemptFact, Blocked, Needs, NodeRecord, NodeWorker, Retrying, Room, TaskFact,
};
use trix_db::operate::Slots;
use trix_model::{Epoch, WorkerId};

use super::*;

/// A ready task of job 12 in a cluster that is led and has no worker.
fn ready() -> TaskExplanation {
    TaskExplanation {
        task: TaskId(34),
        name: "encode/0007".into(),
        kind: "encode_chunk".into(),
        job: JobId(12),
        state: TaskState::Ready,
        job_state: JobState::Running,
        needed: true,
        epoch: Epoch(0),
        roll_forward: false,
        band: 5,
        rank: 0,
        block_reason: None,
        waits_for: Vec::new(),
        delay_ms: 0,
        waited_ms: 0,
        held_by: None,
        holds: Vec::new(),
        ahead: 0,
        needs: Needs {
            engine: "x-1".into(),
            mcpu: 1500,
            ram: 3 << 30,
            scratch: (5 << 20) + 1,
            gpu: 500,
            caps: vec!["hdr".into(), "fast-disk".into()],
            shares: vec!["in".into()],
        },
        slots: Vec::new(),
        twin: None,
        reserved_on: None,
        workers: Vec::new(),
        leader: true,
        failure: None,
        attempts: Vec::new(),
    }
}

fn worker(node: &str, misses: &[&str]) -> WorkerFact {
    WorkerFact {
        worker: WorkerId(7),
        node: node.into(),
        cordon_reason: None,
        misses: misses.iter().map(|m| (*m).to_owned()).collect(),
    }
}

fn closed(node: &str, misses: &[&str], why: &str) -> WorkerFact {
    WorkerFact { cordon_reason: Some(why.into()), ..worker(node, misses) }
}

fn hold(scope: &str, name: &str, why: &str, by: &str) -> HoldFact {
    HoldFact { scope: scope.into(), name: name.into(), reason: why.into(), by: by.into() }
}

fn away() -> Failure {
    Failure::share("share in did not answer.")
}

fn attempt(epoch: i64, state: AttemptState, node: &str) -> AttemptFact {
    AttemptFact { epoch: Epoch(epoch), state, node: node.into(), failure: None }
}

fn needs(task: i64, name: &str, state: TaskState) -> TaskFact {
    TaskFact { task: TaskId(task), name: name.into(), state }
}

/// Code, sentence and what mends it, of a task that is changed from [`ready`].
#[track_caller]
fn says(change: impl FnOnce(&mut TaskExplanation), code: &str, because: &str, mend: &str) {
    let mut facts = ready();
    change(&mut facts);
    let because = format!("Task 34 (encode/0007) {because}");
    assert_eq!(task(&facts), Why { code: code.into(), because, mend: mend.into() });
}

/// The same of a task that waits for workers.
#[track_caller]
fn waits(workers: Vec<WorkerFact>, code: &str, because: &str, mend: &str) {
    says(|f| f.workers = workers, code, &format!("waits, because {because}"), mend);
}

#[test]
fn a_task_that_moves_no_more_says_how_it_ended() {
    says(|f| f.state = TaskState::Done, "done", "is done.", NOTHING);
    says(
        |f| f.state = TaskState::Skipped,
        "skipped",
        "was skipped: its branch was not taken.",
        NOTHING,
    );
    says(
        |f| f.state = TaskState::Cancelled,
        "cancelled",
        "was cancelled with job 12.",
        "Submit the job again.",
    );
    says(
        |f| f.needed = false,
        "not_needed",
        "is not needed: all that would use its outputs was found in the cache.",
        NOTHING,
    );
    says(
        |f| {
            f.state = TaskState::Quarantined;
            f.epoch = Epoch(2);
            f.attempts =
                vec![attempt(1, AttemptState::Failed, "a"), attempt(2, AttemptState::Failed, "b")];
            let killed = "killed by signal 11 while encoding frame 80";
            f.failure =
                Some(Failure::new(ErrorClass::Crash, ErrorOrigin::Engine, "signal", killed));
        },
        "quarantined",
        "is quarantined: its process died on a and b, the last time with killed by signal 11 \
         while encoding frame 80 (signal).",
        "Look into its bundle (trix explain task 34 --bundle), then: trix retry 12.",
    );
}

#[test]
fn each_class_of_failure_says_what_would_mend_it() {
    use ErrorClass as C;
    use ErrorOrigin as O;
    let again = "trix retry 12.";
    for (class, origin, code, mend) in [
        (
            C::Deterministic,
            O::Source,
            "damaged",
            "Have the file delivered anew and submit that; trying again gives the same.".to_owned(),
        ),
        (
            C::Transient,
            O::Source,
            "source_changed",
            "Wait until the file is delivered whole, and submit it again.".to_owned(),
        ),
        (
            C::Deterministic,
            O::Request,
            "no_video",
            "Change the profile or the request, and submit again; trying again gives the same."
                .to_owned(),
        ),
        (
            C::Deterministic,
            O::Request,
            "publish_conflict",
            format!("Move away what stands at the destination, then: {again}"),
        ),
        (
            C::Transient,
            O::Share,
            "share_unavailable",
            format!("Bring the share back, then: {again}"),
        ),
        (
            C::Resource,
            O::Node,
            "out_of_memory",
            format!(
                "Give its worker more memory (worker.ram_mib) or start a bigger node, then: {again}"
            ),
        ),
        (
            C::Resource,
            O::Node,
            "no_space",
            format!("Make room on the node or start a bigger one, then: {again}"),
        ),
        (C::Transient, O::Node, "lost", format!("Mend the node, then: {again}")),
        (
            C::Deterministic,
            O::Engine,
            "codec",
            "Choose another codec or setting in the profile, and submit again; trying again gives \
             the same."
                .to_owned(),
        ),
        (
            C::Deterministic,
            O::Bug,
            "bug",
            format!(
                "Report it as a mistake of trix with the attempt's log; after an update: {again}"
            ),
        ),
        (C::Crash, O::Engine, "signal", format!("Try again: {again}")),
    ] {
        says(
            |f| {
                f.state = TaskState::Failed;
                f.epoch = Epoch(3);
                f.attempts = vec![attempt(3, AttemptState::Failed, "a")];
                f.failure = Some(Failure::new(class, origin, code, "it broke"));
            },
            code,
            &format!("failed on node a at try 3: it broke ({code})."),
            &mend,
        );
    }
}

#[test]
fn a_running_task_says_where_and_what_is_wrong_there() {
    let running = |f: &mut TaskExplanation| {
        f.state = TaskState::Running;
        f.attempts =
            vec![attempt(1, AttemptState::Lost, "a"), attempt(2, AttemptState::Running, "b")];
        f.workers = vec![worker("b", &["busy"])];
    };
    says(running, "running", "runs on node b as try 2.", NOTHING);
    says(
        |f| {
            running(f);
            f.roll_forward = true;
        },
        "running",
        "finishes its prepared publication on node b as try 2.",
        NOTHING,
    );
    says(
        |f| {
            running(f);
            f.workers = vec![worker("b", &["silent", "busy"])];
        },
        "silent",
        "runs on node b, whose worker is silent.",
        "Look at the node and its network; if it stays silent the task goes to another node by \
         itself.",
    );
    says(
        |f| {
            running(f);
            f.leader = false;
        },
        "no_dispatcher",
        "runs on node b, and no dispatcher leads that would notice its loss.",
        START_DISPATCHER,
    );
}

#[test]
fn a_waiting_task_names_what_it_waits_for() {
    let waiting = |all: Vec<TaskFact>| {
        move |f: &mut TaskExplanation| {
            f.state = TaskState::Waiting;
            f.waits_for = all;
        }
    };
    says(
        waiting(vec![needs(9, "mux/a", TaskState::Ready)]),
        "needs",
        "waits for task 9 (mux/a), which is ready.",
        "Nothing has to be done here; of that task: trix explain task 9.",
    );
    says(
        waiting(vec![
            needs(5, "encode/0000", TaskState::Waiting),
            needs(6, "encode/0001", TaskState::Running),
            needs(7, "encode/0002", TaskState::Ready),
        ]),
        "needs",
        "waits for 3 tasks, one of them task 6 (encode/0001), which is running.",
        "Nothing has to be done here; of that task: trix explain task 6.",
    );
    for (state, what) in [
        (TaskState::Failed, "which failed"),
        (TaskState::Quarantined, "which is quarantined"),
        (TaskState::Cancelled, "which was cancelled"),
    ] {
        says(
            waiting(vec![
                needs(5, "encode/0000", TaskState::Running),
                needs(6, "encode/0001", state),
            ]),
            "needs_failed",
            &format!("waits for task 6 (encode/0001), {what}."),
            "Look there: trix explain task 6.",
        );
    }
    says(
        |f| {
            waiting(Vec::new())(f);
            f.job_state = JobState::WaitingGate;
        },
        "gate",
        "waits at a gate for a person's decision.",
        "Look at its findings and decide there; or cancel the job.",
    );
    says(
        waiting(Vec::new()),
        "dispatcher",
        "waits until the dispatcher makes it ready.",
        "Nothing has to be done: the dispatcher does it at its next round.",
    );
    says(
        |f| {
            waiting(Vec::new())(f);
            f.leader = false;
        },
        "no_dispatcher",
        "waits to be made ready, and no dispatcher leads.",
        START_DISPATCHER,
    );
}

#[test]
fn what_somebody_stopped_comes_before_all_else() {
    let stopped = |h: HoldFact| {
        |f: &mut TaskExplanation| {
            f.workers = vec![worker("a", &["share:in"])];
            f.holds = vec![h];
        }
    };
    says(
        stopped(hold("all", "", "the cooling failed.", "ann")),
        "paused_all",
        "waits, because everything is paused by ann: the cooling failed.",
        "Resume everything: trix resume --all.",
    );
    says(
        stopped(hold("kind", "encode_chunk", "", "bob")),
        "paused_kind",
        "waits, because tasks of kind encode_chunk are paused by bob.",
        "Resume it: trix resume --kind encode_chunk.",
    );
    says(
        stopped(hold("kind", "encode_chunk", "4 nodes", "leader")),
        "paused_kind",
        "waits, because tasks of kind encode_chunk are paused by leader: 4 nodes.",
        "Find out why it fails everywhere, then: trix resume --kind encode_chunk.",
    );
    says(
        |f| f.job_state = JobState::Paused,
        "paused",
        "waits, because job 12 is paused.",
        "Resume it: trix resume 12.",
    );
    says(
        |f| {
            f.job_state = JobState::Paused;
            f.roll_forward = true;
            f.workers = vec![worker("a", &[])];
        },
        "claimable",
        "can be claimed at once on node a.",
        "Nothing has to be done: the worker takes it at its next beat.",
    );
    says(
        |f| f.job_state = JobState::Failed,
        "job_failed",
        "is not handed out, because job 12 failed.",
        "Look why: trix explain 12; then: trix retry 12.",
    );
    says(
        |f| f.job_state = JobState::Cancelling,
        "cancelled",
        "is not handed out, because job 12 is cancelled.",
        NOTHING,
    );
    says(
        |f| f.held_by = Some("ann".into()),
        "held",
        "waits, because ann holds it.",
        "Ask ann to let it go.",
    );
}

#[test]
fn a_delay_says_after_which_failure() {
    let delayed = |f: &mut TaskExplanation| {
        f.workers = vec![worker("a", &[])];
        f.delay_ms = 29_001;
        f.failure = Some(away());
        f.attempts = vec![attempt(1, AttemptState::Failed, "a")];
    };
    says(
        delayed,
        "delayed",
        "waits 30 s before its next try, because it failed on node a: share in did not answer \
         (share_unavailable).",
        "Bring the share back; the next try comes by itself.",
    );
    says(
        |f| {
            delayed(f);
            f.leader = false;
        },
        "no_dispatcher",
        "waits before its next try, and its time stands still while no dispatcher leads, because \
         it failed on node a: share in did not answer (share_unavailable).",
        START_DISPATCHER,
    );
}

#[test]
fn each_constraint_that_no_worker_meets_has_its_sentence() {
    waits(Vec::new(), "no_worker", "no worker is alive.", START_WORKER);
    waits(
        vec![worker("a", &["cordoned", "share:in"]), worker("b", &["share:in"])],
        "share",
        "share in is in order on no living worker.",
        "Bring share in back on a node; its worker notices that by itself.",
    );
    for (miss, because, mend) in [
        (
            "engine",
            "no living worker has engine x-1, which it was planned for.",
            "Start a worker of the version with engine x-1, or cancel the job and submit it again.",
        ),
        (
            "caps",
            "no living worker's node has the capability hdr, fast-disk.",
            "Give a node that has it the name: trix traits NODE --cap hdr --cap fast-disk.",
        ),
        (
            "gpu",
            "it needs 0.5 of a graphics processor, more than any node has.",
            "Start a worker on a node with a graphics processor, and say so: trix traits NODE \
             --gpu 1000.",
        ),
        (
            "mcpu",
            "it needs 1.5 cores, more than any living worker gives.",
            "Start a worker that gives 1.5 cores or more (worker.mcpu).",
        ),
        (
            "ram",
            "it needs 3 GiB of memory, more than any living worker gives.",
            "Start a worker that gives 3 GiB of memory or more (worker.ram_mib).",
        ),
        (
            "scratch",
            "it needs 5.1 MiB of scratch, more than any living worker gives.",
            "Start a worker that gives 5.1 MiB of scratch or more, on a cache with that much room.",
        ),
        (
            "draining",
            "the only living worker, on node a, is draining.",
            "Start another worker, or take the drain back: trix undrain a.",
        ),
        (
            "paused",
            "the only living worker's node a is paused.",
            "Resume it: trix resume --node a.",
        ),
        (
            "silent",
            "the only living worker, on node a, is silent.",
            "Look at the nodes and at their way to the database.",
        ),
    ] {
        // What is missing for good goes before what is missing now.
        waits(vec![worker("a", &[miss, "busy"])], miss, because, mend);
    }
    waits(
        vec![closed("a", &["cordoned"], "a new disk")],
        "cordoned",
        "the only living worker's node a is cordoned: a new disk.",
        "Open it again: trix uncordon a.",
    );
    waits(
        vec![closed("a", &["draining", "drained"], "moved"), closed("b", &["drained"], "moved")],
        "drained",
        "the nodes of all 2 living workers are drained: moved.",
        "Open it again: trix undrain a.",
    );
}

#[test]
fn what_only_room_is_missing_for_says_who_is_before_it() {
    let hurry = "Wait, start another worker, or raise its priority: trix priority 12 9.";
    waits(
        vec![worker("a", &["busy"])],
        "busy",
        "the only living worker, on node a, is busy.",
        hurry,
    );
    for (ahead, who) in [
        (1, "1 task like it goes first"),
        (41, "41 tasks like it go first"),
        (1000, "1000 or more tasks like it go first"),
    ] {
        says(
            |f| {
                f.workers = vec![worker("a", &["busy"]), worker("b", &["reserved"])];
                f.ahead = ahead;
            },
            "busy",
            &format!("waits, because all 2 living workers are busy, and {who}."),
            hurry,
        );
    }
    waits(
        vec![worker("a", &["reserved"])],
        "reserved",
        "every worker is reserved for a bigger task.",
        hurry,
    );
    says(
        |f| {
            f.workers = vec![worker("a", &["busy"])];
            f.reserved_on = Some(WorkerId(7));
        },
        "reserving",
        "waits until worker 7 has enough room, which is reserved for it.",
        "Nothing has to be done: no new task takes that room.",
    );
    let slots = |total| Slots { share: "out".into(), mode: "write".into(), total, taken: total };
    for (total, taken, mend) in [
        (1, "the only slot for writing to share out is taken", "trix slots out --write 2"),
        (3, "all 3 slots for writing to share out are taken", "trix slots out --write 4"),
    ] {
        says(
            |f| {
                f.workers = vec![worker("a", &[])];
                f.slots = vec![slots(total)];
            },
            "slots",
            &format!("waits, because {taken}."),
            &format!("Nothing has to be done; more at once: {mend}."),
        );
    }
    says(
        |f| {
            f.workers = vec![worker("a", &[])];
            f.twin = Some(TaskId(8));
        },
        "twin",
        "waits, because task 8 makes the same right now.",
        "Nothing has to be done: its outputs are then taken from the cache.",
    );
}

#[test]
fn a_task_that_could_be_claimed_says_where() {
    let beat = "Nothing has to be done: the worker takes it at its next beat.";
    let on_a = "can be claimed at once on node a.";
    says(|f| f.workers = vec![worker("a", &[])], "claimable", on_a, beat);
    // The node where it failed is taken when the other one cannot run it.
    says(
        |f| f.workers = vec![worker("a", &["avoided"]), worker("b", &["engine"])],
        "claimable",
        on_a,
        beat,
    );
    says(
        |f| {
            f.workers = vec![worker("a", &[])];
            f.leader = false;
        },
        "no_dispatcher",
        "could be claimed on node a, but no dispatcher leads that would notice if that worker is \
         gone.",
        START_DISPATCHER,
    );
}

#[test]
fn workers_that_lack_different_things_are_each_named() {
    waits(
        vec![
            worker("a", &["share:in"]),
            closed("b", &["cordoned"], "a new disk"),
            worker("c", &["busy"]),
        ],
        "mixed",
        "no living worker can take it: a lacks share in, b is cordoned (a new disk), c is busy.",
        "Mend one of these, or start another worker; of each node: trix explain node a.",
    );
    // It could run again where it failed, but another node is only busy.
    waits(
        vec![worker("a", &["avoided", "ram"]), worker("b", &["busy"])],
        "mixed",
        "no living worker can take it: a has too little memory, b is busy.",
        "Mend one of these, or start another worker; of each node: trix explain node a.",
    );
    waits(
        ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .enumerate()
            .map(|(i, n)| worker(n, if i == 0 { &["engine"] } else { &["silent"] }))
            .collect(),
        "mixed",
        "no living worker can take it: a has another engine, b is silent, c is silent, d is \
         silent, 2 more workers cannot either.",
        "Mend one of these, or start another worker; of each node: trix explain node a.",
    );
}

/// Job 12, running, planned, in a cluster that is led and has one worker.
fn under_way(tasks: &[(TaskState, u32)]) -> JobExplanation {
    JobExplanation {
        job: JobId(12),
        state: JobState::Running,
        planned: true,
        band: 5,
        failure: None,
        tasks: tasks.iter().copied().collect(),
        blocked: Vec::new(),
        root: None,
        retrying: Vec::new(),
        holds: Vec::new(),
        workers: 1,
        leader: true,
    }
}

#[track_caller]
fn job_says(
    tasks: &[(TaskState, u32)],
    change: impl FnOnce(&mut JobExplanation),
    code: &str,
    because: &str,
    mend: &str,
) {
    let mut facts = under_way(tasks);
    change(&mut facts);
    let because = format!("Job 12 {because}");
    assert_eq!(job(&facts, None), Why { code: code.into(), because, mend: mend.into() });
}

#[test]
fn a_job_that_waits_says_what_its_ready_task_waits_for() {
    let mut facts = under_way(&[(TaskState::Ready, 3)]);
    facts.blocked = vec![Blocked { reason: None, tasks: 3, first: TaskId(34) }];
    let why = job(&facts, Some(&ready()));
    assert_eq!(
        (why.code.as_str(), why.because.as_str(), why.mend.as_str()),
        (
            "no_worker",
            "Job 12 waits for task 34 (encode/0007), which waits, because no worker is alive.",
            START_WORKER
        )
    );
}

#[test]
fn a_job_under_way_says_how_far_and_what_is_tried_again() {
    let tasks = &[(TaskState::Running, 1), (TaskState::Done, 4), (TaskState::Waiting, 5)];
    job_says(tasks, |_| {}, "running", "runs: 1 task runs, 4 of 10 are done.", NOTHING);
    job_says(
        tasks,
        |f| {
            f.retrying = vec![Retrying { task: TaskId(8), name: "mux".into(), failure: away() }];
        },
        "running",
        "runs: 1 task runs, 4 of 10 are done; task 8 (mux) is tried again, because it failed: \
         share in did not answer (share_unavailable).",
        NOTHING,
    );
    job_says(
        tasks,
        |f| f.leader = false,
        "no_dispatcher",
        "runs: 1 task runs, 4 of 10 are done; but no dispatcher leads.",
        START_DISPATCHER,
    );
    let done = &[(TaskState::Done, 1)];
    job_says(
        done,
        |f| f.planned = false,
        "dispatcher",
        "waits until the dispatcher plans it.",
        "Nothing has to be done: the dispatcher does it at its next round.",
    );
    job_says(
        done,
        |f| (f.planned, f.leader) = (false, false),
        "no_dispatcher",
        "waits to be planned, and no dispatcher leads.",
        START_DISPATCHER,
    );
    job_says(
        done,
        |f| f.state = JobState::WaitingGate,
        "gate",
        "waits at a gate for a person's decision.",
        "Look at its findings and decide there; or cancel the job.",
    );
}

#[test]
fn a_job_that_was_stopped_or_ended_says_by_what() {
    let running = &[(TaskState::Running, 2)];
    let state = |s: JobState| move |f: &mut JobExplanation| f.state = s;
    job_says(&[], state(JobState::Succeeded), "succeeded", "succeeded.", NOTHING);
    job_says(
        &[],
        state(JobState::Cancelled),
        "cancelled",
        "was cancelled.",
        "Submit it again if it is wanted.",
    );
    job_says(
        running,
        state(JobState::Cancelling),
        "cancelling",
        "is being cancelled, and 2 tasks run.",
        "Nothing has to be done: workers end what runs of it.",
    );
    job_says(&[], state(JobState::Paused), "paused", "is paused.", "Resume it: trix resume 12.");
    job_says(
        running,
        state(JobState::Paused),
        "paused",
        "is paused, and 2 tasks run.",
        "Resume it: trix resume 12.",
    );
}

#[test]
fn a_failed_job_names_the_first_task_that_failed() {
    let root = |state| {
        move |f: &mut JobExplanation| {
            f.state = JobState::Failed;
            f.root = Some(RootCause {
                task: TaskId(9),
                name: "intake".into(),
                state,
                epoch: Some(Epoch(2)),
                node: Some("a".into()),
                failure: Some(Failure::source("damaged", "no frame of in:x.mov can be decoded")),
            });
        }
    };
    job_says(
        &[],
        root(TaskState::Failed),
        "damaged",
        "failed, because task 9 (intake) failed on node a at try 2: no frame of in:x.mov can be \
         decoded (damaged).",
        "Have the file delivered anew and submit that; trying again gives the same.",
    );
    job_says(
        &[],
        root(TaskState::Quarantined),
        "quarantined",
        "failed, because task 9 (intake) is quarantined: its process died on node a at try 2: no \
         frame of in:x.mov can be decoded (damaged).",
        "Look into its bundle (trix explain task 9 --bundle), then: trix retry 12.",
    );
    // Planning failed, not a task.
    job_says(
        &[],
        |f| {
            f.state = JobState::Failed;
            f.failure = Some(Failure::request("no_video", "the profile asks for pictures"));
        },
        "no_video",
        "failed: the profile asks for pictures (no_video).",
        "Change the profile or the request, and submit again; trying again gives the same.",
    );
}

/// An open node with an active worker that does nothing.
fn idle() -> NodeExplanation {
    NodeExplanation {
        node: "a".into(),
        state: NodeState::Ok,
        cordon_reason: None,
        cordoned_by: None,
        self_tests: 0,
        caps: Vec::new(),
        gpu: 0,
        holds: Vec::new(),
        worker: Some(NodeWorker {
            id: WorkerId(7),
            state: WorkerState::Active,
            age_ms: 400,
            suspect: false,
            engine: "x-1".into(),
            shares_ok: vec!["in".into()],
            shares_missing: Vec::new(),
            free: Room { mcpu: 1000, ram: 1, scratch: 1, gpu: 0 },
            running: 0,
            reserved_task: None,
            backfill_ms: None,
        }),
        record: NodeRecord { ended: 9, suspect: 6, tasks: 5 },
        leader: true,
    }
}

#[track_caller]
fn node_says(change: impl FnOnce(&mut NodeExplanation), code: &str, because: &str, mend: &str) {
    let mut facts = idle();
    change(&mut facts);
    let because = format!("Node a {because}");
    assert_eq!(node(&facts), Why { code: code.into(), because, mend: mend.into() });
}

/// The same of a node whose worker differs.
#[track_caller]
fn worker_says(change: impl FnOnce(&mut NodeWorker), code: &str, because: &str, mend: &str) {
    node_says(|f| change(f.worker.as_mut().unwrap()), code, because, mend);
}

#[test]
fn a_node_says_why_it_gets_no_work() {
    node_says(
        |f| {
            f.state = NodeState::Cordoned;
            f.cordoned_by = Some("operator".into());
            f.cordon_reason = Some("a new disk".into());
        },
        "cordoned",
        "gets no work, because an operator cordoned it: a new disk.",
        "Open it: trix uncordon a.",
    );
    node_says(
        |f| {
            f.state = NodeState::Cordoned;
            f.cordoned_by = Some("leader".into());
            f.self_tests = 1;
        },
        "cordoned",
        "gets no work, because the dispatcher cordoned it; 6 of its last 9 attempts failed in a \
         way that speaks against it.",
        "Two self-tests that pass in a row open it, of which 1 did; or, once it is mended: trix \
         uncordon a.",
    );
    node_says(
        |f| f.state = NodeState::Drained,
        "draining",
        "is drained and ends what runs.",
        "Take it back: trix undrain a.",
    );
    node_says(
        |f| {
            f.state = NodeState::Drained;
            f.worker.as_mut().unwrap().state = WorkerState::Gone;
        },
        "drained",
        "is drained and its worker left.",
        "Open it (trix undrain a) and start its worker: trix worker.",
    );
    node_says(
        |f| f.worker = None,
        "no_worker",
        "was enrolled and has had no worker yet.",
        "Start its worker: trix worker.",
    );
    worker_says(
        |w| w.state = WorkerState::Lost,
        "lost",
        "has no worker, because worker 7 was silent for too long and was marked lost.",
        "Look at the machine and its network, then start its worker: trix worker.",
    );
    worker_says(
        |w| w.state = WorkerState::Gone,
        "gone",
        "has no worker, because worker 7 ended.",
        "Start its worker: trix worker.",
    );
    worker_says(
        |w| {
            w.state = WorkerState::Draining;
            w.running = 1;
        },
        "draining",
        "gets no work, because its worker 7 is draining; 1 attempt runs.",
        "Take it back: trix undrain a; or start its worker again when it has left.",
    );
    worker_says(
        |w| {
            w.suspect = true;
            w.age_ms = 6200;
        },
        "silent",
        "gets no work, because its worker 7 is silent since 7 s.",
        "Look at the machine and at its way to the database.",
    );
    node_says(
        |f| f.holds = vec![hold("all", "", "x", "ann"), hold("node", "a", "loud", "bob")],
        "paused_node",
        "gets no work, because it is paused by bob: loud.",
        "Resume it: trix resume --node a.",
    );
    node_says(
        |f| f.holds = vec![hold("all", "", "x", "ann")],
        "paused_all",
        "gets no work, because everything is paused by ann: x.",
        "Resume everything: trix resume --all.",
    );
}

#[test]
fn a_node_that_works_says_what_it_does() {
    node_says(|_| {}, "idle", "is idle: it is open and nothing that is ready fits it.", NOTHING);
    worker_says(|w| w.running = 3, "running", "works: 3 attempts run, with 1 core free.", NOTHING);
    worker_says(
        |w| w.reserved_task = Some(TaskId(34)),
        "reserved",
        "is kept free for task 34, which needs much room; nothing runs there.",
        NOTHING,
    );
    worker_says(
        |w| w.shares_missing = vec!["far".into(), "out".into()],
        "share",
        "gets only some of the work, because shares far and out are not in order there.",
        "Bring shares far and out back there; its worker notices that by itself.",
    );
    node_says(
        |f| f.leader = false,
        "no_dispatcher",
        "works, but no dispatcher leads; nothing runs there.",
        START_DISPATCHER,
    );
}
