//! States and the pure tables (state, event) → state.
//!
//! These functions are the specification: the SQL functions of the migrations
//! are compared with them pair by pair, and the docs draw them.

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word for it in the database, the API and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<$name, String> {
                match s {
                    $($text => Ok($name::$variant),)*
                    _ => Err(format!("{s:?} is no {}", stringify!($name))),
                }
            }
        }
    };
}

states!(
    /// State of a job.
    JobState {
        /// Written, nothing done yet.
        Accepted = "accepted",
        /// Intake runs.
        Inspecting = "inspecting",
        /// Its tasks run.
        Running = "running",
        /// A person has to decide.
        WaitingGate = "waiting_gate",
        /// Held by an operator.
        Paused = "paused",
        /// All done.
        Succeeded = "succeeded",
        /// A task failed for good.
        Failed = "failed",
        /// Cancel was asked for; something still runs.
        Cancelling = "cancelling",
        /// Cancelled; nothing runs.
        Cancelled = "cancelled",
    }
);

states!(
    /// What happens to a job.
    JobEvent {
        /// The first task was claimed.
        Start = "start",
        /// Plan 1 was appended.
        Planned = "planned",
        /// A gate needs a decision.
        GateReached = "gate_reached",
        /// The gate was decided.
        GatePassed = "gate_passed",
        /// An operator pauses.
        Pause = "pause",
        /// An operator resumes.
        Resume = "resume",
        /// The last task is done.
        AllDone = "all_done",
        /// A task failed for good.
        TaskFailed = "task_failed",
        /// An operator cancels.
        Cancel = "cancel",
        /// Nothing of it runs any more.
        Drained = "drained",
        /// An operator retries.
        Retry = "retry",
    }
);

states!(
    /// State of a task.
    TaskState {
        /// Needs other tasks first.
        Waiting = "waiting",
        /// May be claimed.
        Ready = "ready",
        /// An attempt runs.
        Running = "running",
        /// Its outputs exist.
        Done = "done",
        /// Failed for good.
        Failed = "failed",
        /// Cancelled.
        Cancelled = "cancelled",
        /// It kills workers; only an operator re-queues it.
        Quarantined = "quarantined",
        /// Its branch was not taken.
        Skipped = "skipped",
    }
);

states!(
    /// What happens to a task.
    TaskEvent {
        /// All that it needs is done.
        DepsDone = "deps_done",
        /// All its outputs were found in the cache.
        CacheHit = "cache_hit",
        /// A worker claims it.
        Claim = "claim",
        /// A fenced result came in.
        Succeed = "succeed",
        /// The attempt ended in a way that allows another.
        Requeue = "requeue",
        /// The attempt failed for good.
        Fail = "fail",
        /// Poison.
        Quarantine = "quarantine",
        /// The job is cancelled.
        Cancel = "cancel",
        /// Its branch is not taken.
        Skip = "skip",
        /// An operator retries.
        Retry = "retry",
        /// An artifact that it made is gone while a consumer is unfinished.
        ArtifactLost = "artifact_lost",
    }
);

states!(
    /// State of an attempt.
    AttemptState {
        /// Running.
        Running = "running",
        /// Its result was committed.
        Succeeded = "succeeded",
        /// It failed.
        Failed = "failed",
        /// Its worker was marked lost.
        Lost = "lost",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
);

states!(
    /// State of a worker incarnation.
    WorkerState {
        /// Claims and runs.
        Active = "active",
        /// Runs but claims no more.
        Draining = "draining",
        /// Marked by the leader; final.
        Lost = "lost",
        /// Ended or superseded; final.
        Gone = "gone",
    }
);

states!(
    /// State of a publication.
    PublicationState {
        /// Owned by one epoch; nothing visible.
        Prepared = "prepared",
        /// Files are being linked.
        Moving = "moving",
        /// All visible, manifest last.
        Published = "published",
        /// Something else stands at one of its names.
        Conflict = "conflict",
        /// Taken back.
        Retracted = "retracted",
    }
);

states!(
    /// What happens to a publication.
    PublicationEvent {
        /// Files begin to be linked.
        Move = "move",
        /// Manifest is in place and was read back.
        Publish = "publish",
        /// Another file stands at a name.
        Clash = "clash",
        /// An operator retracts.
        Retract = "retract",
    }
);

impl JobState {
    /// The state after `event`, or `None` when it is illegal here.
    pub const fn after(self, event: JobEvent) -> Option<JobState> {
        use JobEvent as E;
        use JobState as S;
        Some(match (self, event) {
            (S::Accepted, E::Start) => S::Inspecting,
            (S::Accepted | S::Inspecting, E::Planned) => S::Running,
            (S::Running, E::GateReached) => S::WaitingGate,
            (S::WaitingGate, E::GatePassed) => S::Running,
            (S::Running, E::Pause) => S::Paused,
            (S::Paused, E::Resume) => S::Running,
            (S::Running, E::AllDone) => S::Succeeded,
            (
                S::Accepted | S::Inspecting | S::Running | S::WaitingGate | S::Paused,
                E::TaskFailed,
            ) => S::Failed,
            (
                S::Accepted | S::Inspecting | S::Running | S::WaitingGate | S::Paused | S::Failed,
                E::Cancel,
            ) => S::Cancelling,
            (S::Cancelling, E::Drained) => S::Cancelled,
            (S::Failed, E::Retry) => S::Running,
            _ => return None,
        })
    }

    /// True when nothing happens any more unless an operator acts.
    pub const fn is_final(self) -> bool {
        matches!(self, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
    }
}

impl TaskState {
    /// The state after `event`, or `None` when it is illegal here.
    pub const fn after(self, event: TaskEvent) -> Option<TaskState> {
        use TaskEvent as E;
        use TaskState as S;
        Some(match (self, event) {
            (S::Waiting, E::DepsDone) => S::Ready,
            (S::Waiting | S::Ready, E::CacheHit) => S::Done,
            (S::Ready, E::Claim) => S::Running,
            (S::Running, E::Succeed) => S::Done,
            (S::Running, E::Requeue) => S::Ready,
            (S::Running, E::Fail) => S::Failed,
            (S::Running, E::Quarantine) => S::Quarantined,
            (S::Waiting, E::Skip) => S::Skipped,
            (S::Waiting | S::Ready | S::Running | S::Failed | S::Quarantined, E::Cancel) => {
                S::Cancelled
            }
            (S::Failed | S::Quarantined, E::Retry) => S::Ready,
            (S::Done, E::ArtifactLost) => S::Ready,
            _ => return None,
        })
    }

    /// True when the task itself moves no more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            TaskState::Done | TaskState::Failed | TaskState::Cancelled | TaskState::Skipped
        )
    }
}

impl PublicationState {
    /// The state after `event`, or `None` when it is illegal here.
    pub const fn after(self, event: PublicationEvent) -> Option<PublicationState> {
        use PublicationEvent as E;
        use PublicationState as S;
        Some(match (self, event) {
            (S::Prepared, E::Move) => S::Moving,
            (S::Moving, E::Publish) => S::Published,
            (S::Prepared | S::Moving, E::Clash) => S::Conflict,
            (S::Published, E::Retract) => S::Retracted,
            _ => return None,
        })
    }
}
