//! Deliberate breaks: each takes one safeguard out of the model or of the world around it
//! ([`Break`]), or out of a function of the real SQL ([`SqlBreak`]), and the checker has to
//! notice. A checker that no break can wake proves nothing.

macro_rules! breaks {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $what:literal;)*) => {
        /// A safeguard that is taken out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Break {
            $(#[doc = $what] $name,)*
        }

        impl Break {
            /// Every break.
            pub const ALL: &[Break] = &[$(Break::$name),*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Break::$name => $text),* }
            }

            /// What is taken out.
            pub const fn what(self) -> &'static str {
                match self { $(Break::$name => $what),* }
            }
        }
    };
}

breaks! {
    NoEpochCheck = "no-epoch-check", "a result is taken for whatever attempt of the task runs now";
    EpochReset = "epoch-reset", "an operator's retry starts to count the epochs anew";
    LostWorkerCommits = "lost-worker-commits", "a worker that was marked may still register results";
    SameNodeCommits = "same-node-commits", "a new incarnation hands in what the marked one of its node had";
    MarkWithoutLook = "mark-without-look", "who is silent is decided a pass before the mark, and not looked at again";
    WallClockAge = "wall-clock-age", "a worker's age is a difference of wall-clock times";
    NoGrace = "no-grace", "nobody is spared after an outage or a change of leader";
    StaleLeader = "stale-leader", "a leader that was overtaken may act";
    NaiveSequence = "naive-sequence", "an event's number is the one that it took before its commit";
    SequencerHoles = "sequencer-holes", "the head moves on although the sequencer's transaction is rolled back";
    DoubleClaim = "double-claim", "a claim does not look whether the task is still ready";
    OverCapacity = "over-capacity", "a claim does not count what the worker runs already";
    DoneWithoutArtifact = "done-without-artifact", "a result without all outputs makes its task done";
    ReadyTwice = "ready-twice", "a repeated result counts down its dependants again";
    TransientPoison = "transient-poison", "transient failures count as crashes";
    DeterministicRetry = "deterministic-retry", "a deterministic failure is tried again";
    CancelPublication = "cancel-publication", "a cancel ends a task whose publication is prepared";
    ForgetRollForward = "forget-roll-forward", "a task whose publication is prepared starts anew after its worker was lost";
    DoubleSubmit = "double-submit", "the idempotency key is not looked at";
    AckBeforeCommit = "ack-before-commit", "a submit is answered before its transaction is committed";
    TwoCurrent = "two-current", "the version before stays current";
    PublishFirst = "publish-first", "files are linked before the publication is prepared";
    ReplaceByRename = "replace-by-rename", "a publisher renames over whatever stands at a name";
    ManifestFirst = "manifest-first", "the manifest is written before the files";
    SupersedeLeaks = "supersede-leaks", "a superseded worker keeps its attempts";
    NaiveReader = "naive-reader", "a reader follows the events by the order of their arrival table";
}

impl std::str::FromStr for Break {
    type Err = String;

    fn from_str(s: &str) -> Result<Break, String> {
        Break::ALL.iter().copied().find(|b| b.name() == s).ok_or_else(|| {
            let names: Vec<&str> = Break::ALL.iter().map(|b| b.name()).collect();
            format!("{s:?} is no break; there are: {}", names.join(", "))
        })
    }
}

/// A safeguard that is taken out of a function of the migrations.
#[derive(Clone, Copy, Debug)]
pub struct SqlBreak {
    /// Its name on the command line.
    pub name: &'static str,
    /// The function.
    pub function: &'static str,
    /// What it has.
    pub from: &'static str,
    /// What it gets.
    pub to: &'static str,
}

macro_rules! sql_breaks {
    ($($name:literal in $function:literal: $from:literal => $to:literal;)*) => {
        /// Safeguards of the real SQL, each taken out of one function.
        pub const SQL_BREAKS: &[SqlBreak] =
            &[$(SqlBreak { name: $name, function: $function, from: $from, to: $to }),*];
    };
}

sql_breaks! {
    // Who may speak for an attempt.
    "sql-no-secret" in "sync_v1":
        "and worker.token_hash = secret_hash(a->>'token')" => "";
    "sql-marked-workers-sync" in "sync_v1":
        "where worker.id = (a->>'worker')::bigint and worker.state in ('active', 'draining')"
        => "where worker.id = (a->>'worker')::bigint";
    "sql-no-worker-check" in "commit_result":
        "tried.task_id is null or tried.worker_id <> w.id or tried.state = 'lost'"
        => "tried.task_id is null";
    "sql-no-fence" in "fenced":
        "if not found or t.epoch <> (a->>'epoch')::bigint then" => "if false then";
    "sql-repeat-is-new" in "commit_result":
        "if tried.state <> 'running' then return 'duplicate'; end if;" => "";
    "sql-epoch-reset" in "retry_job":
        "update task set fail_counts = '{}'," => "update task set epoch = 0, fail_counts = '{}',";
    // Who is lost.
    "sql-no-grace" in "mark_lost_v1":
        "if l.up_ms <= l.grace_until_up_ms then return; end if;" => "";
    "sql-hasty-mark" in "mark_lost_v1":
        "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint"
        => "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint / 8";
    "sql-wall-clock-age" in "mark_lost_v1":
        "and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint"
        => "and extract(epoch from clock_timestamp() - last_seen) * 1000000 > 1";
    "sql-stale-leader" in "leads":
        "select * into l from leader where epoch = e for share;"
        => "select * into l from leader for share;";
    "sql-supersede-leaks" in "supersede_v1":
        "n := orphan_attempts(old, 'superseded', format('worker %s took its place', me.id));"
        => "n := 0;";
    // What is claimed.
    "sql-lowest-class-first" in "peek": "f.band desc," => "f.band,";
    "sql-any-order" in "peek": "f.rank, f.id" => "f.id desc";
    "sql-avoids-nothing" in "peek":
        "and not (w.node_id = any(t.avoid_nodes) and exists (" => "and not (false and exists (";
    "sql-stopped-jobs-run" in "peek":
        "and (t.roll_forward or hands_out((select j.state from job j where j.id = t.job_id)))" => "";
    "sql-parked-for-good" in "job_goes_on": "set parked = false," => "set";
    "sql-no-ageing" in "age_v1": "set band = t.band + 1," => "set";
    "sql-time-stands-still" in "tend_v1": "where x.v > fair.vtime" => "where false";
    "sql-over-capacity" in "claim":
        "continue when t.need_mcpu > mcpu or t.need_ram > ram or t.need_scratch > scratch"
        => "continue when t.need_ram > ram or t.need_scratch > scratch";
    "sql-twins-run" in "claim": "if twin_runs(t.id) then" => "if false then";
    "sql-cached-runs" in "claim": "if is_cached(t.id) then" => "if false then";
    // What a result means.
    "sql-done-without-artifact" in "commit_result":
        "if exists (select from output o where o.task_id = t.id
                and not exists (select from artifact f where f.key = o.key)) then"
        => "if false then";
    "sql-ready-twice" in "task_done":
        "update task set deps_left = deps_left - 1" => "update task set deps_left = deps_left - 2";
    "sql-transient-poison" in "judge":
        "if class = 'transient' then" => "if class = 'nothing' then";
    "sql-deterministic-retry" in "judge":
        "    else
        perform fail_task(t, 'fail', failure, why);
    end if;
end" =>
        "    else
        perform give_back(t, 0, null, why);
    end if;
end";
    "sql-no-upper-backoff" in "judge":
        "least((l.times->>'backoff_max_ms')::double precision," => "greatest(600000,";
    // What is published, submitted, kept and told.
    "sql-forget-roll-forward" in "give_back":
        "update task set roll_forward = open_publication,"
        => "update task set roll_forward = false,";
    "sql-none-current" in "published_v1":
        "update publication set current = true, receipt"
        => "update publication set current = false, receipt";
    "sql-reused-key" in "submit_job": "if j.request_hash <> h then" => "if false then";
    "sql-forget-pinned" in "forget_artifact_v1":
        "if artifact_pinned(k) then return 'false'; end if;" => "";
    "sql-sequencer-holes" in "sequence_events_v1":
        "update event_head set head = head + taken;"
        => "update event_head set head = head + taken + 1;";
}
