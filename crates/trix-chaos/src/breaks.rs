//! Deliberate breaks: each takes one safeguard out of the model or of the world around it,
//! and the checker has to notice. A checker that no break can wake proves nothing.

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
