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
    /// State of a node.
    NodeState {
        /// Gets work.
        Ok = "ok",
        /// Gets no more work; what runs there goes on.
        Cordoned = "cordoned",
        /// Gets no more work, and its worker leaves when it is idle.
        Drained = "drained",
    }
);

states!(
    /// What happens to a node.
    NodeEvent {
        /// An operator closes it, or the leader because it fails where others do not.
        Cordon = "cordon",
        /// An operator opens it, or self-tests that passed.
        Uncordon = "uncordon",
        /// An operator empties it.
        Drain = "drain",
        /// An operator takes that back.
        Undrain = "undrain",
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

impl NodeState {
    /// The state after `event`, or `None` when it is illegal here.
    pub const fn after(self, event: NodeEvent) -> Option<NodeState> {
        use NodeEvent as E;
        use NodeState as S;
        Some(match (self, event) {
            (S::Ok, E::Cordon) => S::Cordoned,
            (S::Cordoned, E::Uncordon) => S::Ok,
            (S::Ok | S::Cordoned, E::Drain) => S::Drained,
            (S::Drained, E::Undrain) => S::Ok,
            _ => return None,
        })
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

/// The tables as Mermaid state diagrams, for the docs: drawn from the functions above, so
/// that a picture cannot say something else than the code.
pub fn diagram() -> String {
    let jobs = edges(JobState::ALL, JobEvent::ALL, |s, e| s.after(e));
    let tasks = edges(TaskState::ALL, TaskEvent::ALL, |s, e| s.after(e));
    let publications = edges(PublicationState::ALL, PublicationEvent::ALL, |s, e| s.after(e));
    let nodes = edges(NodeState::ALL, NodeEvent::ALL, |s, e| s.after(e));
    [
        ("Job", JobState::Accepted.as_str(), jobs),
        ("Task", TaskState::Waiting.as_str(), tasks),
        ("Node", NodeState::Ok.as_str(), nodes),
        ("Publication", PublicationState::Prepared.as_str(), publications),
    ]
    .into_iter()
    .map(|(name, first, edges)| {
        format!("### {name}\n\n```mermaid\nstateDiagram-v2\n    [*] --> {first}\n{edges}```\n")
    })
    .collect::<Vec<_>>()
    .join("\n")
}

fn edges<S: Copy + std::fmt::Display, E: Copy + std::fmt::Display>(
    states: &[S],
    events: &[E],
    after: impl Fn(S, E) -> Option<S>,
) -> String {
    let pairs = states.iter().flat_map(|s| events.iter().map(move |e| (*s, *e)));
    let legal = pairs.filter_map(|(s, e)| Some((s, e, after(s, e)?)));
    legal.map(|(from, event, to)| format!("    {from} --> {to}: {event}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of a state and an event, written out a second time by hand: a table of the
    /// legal ones, and all others must be refused.
    fn compare<S, E>(states: &[S], events: &[E], after: impl Fn(S, E) -> Option<S>, legal: &str)
    where
        S: Copy + std::fmt::Display + std::str::FromStr<Err = String> + PartialEq + std::fmt::Debug,
        E: Copy + std::fmt::Display + std::str::FromStr<Err = String> + PartialEq,
    {
        let mut wanted: Vec<(S, E, S)> = Vec::new();
        for line in legal.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [from, event, to] = words[..] else { panic!("{line:?} is not: state event state") };
            wanted.push((from.parse().unwrap(), event.parse().unwrap(), to.parse().unwrap()));
        }
        for s in states {
            for e in events {
                let hit = wanted.iter().find(|(from, event, _)| from == s && event == e);
                assert_eq!(after(*s, *e), hit.map(|(_, _, to)| *to), "{s} on {e}");
            }
        }
    }

    #[test]
    fn every_pair_of_job_state_and_event_is_as_written() {
        compare(
            JobState::ALL,
            JobEvent::ALL,
            |s, e| s.after(e),
            "
            accepted start inspecting
            accepted planned running
            accepted task_failed failed
            accepted cancel cancelling
            inspecting planned running
            inspecting task_failed failed
            inspecting cancel cancelling
            running gate_reached waiting_gate
            running pause paused
            running all_done succeeded
            running task_failed failed
            running cancel cancelling
            waiting_gate gate_passed running
            waiting_gate task_failed failed
            waiting_gate cancel cancelling
            paused resume running
            paused task_failed failed
            paused cancel cancelling
            failed retry running
            failed cancel cancelling
            cancelling drained cancelled
            ",
        );
    }

    #[test]
    fn every_pair_of_task_state_and_event_is_as_written() {
        compare(
            TaskState::ALL,
            TaskEvent::ALL,
            |s, e| s.after(e),
            "
            waiting deps_done ready
            waiting cache_hit done
            waiting skip skipped
            waiting cancel cancelled
            ready cache_hit done
            ready claim running
            ready cancel cancelled
            running succeed done
            running requeue ready
            running fail failed
            running quarantine quarantined
            running cancel cancelled
            failed retry ready
            failed cancel cancelled
            quarantined retry ready
            quarantined cancel cancelled
            done artifact_lost ready
            ",
        );
    }

    #[test]
    fn every_pair_of_publication_state_and_event_is_as_written() {
        compare(
            PublicationState::ALL,
            PublicationEvent::ALL,
            |s, e| s.after(e),
            "
            prepared move moving
            prepared clash conflict
            moving publish published
            moving clash conflict
            published retract retracted
            ",
        );
    }

    #[test]
    fn every_pair_of_node_state_and_event_is_as_written() {
        compare(
            NodeState::ALL,
            NodeEvent::ALL,
            |s, e| s.after(e),
            "
            ok cordon cordoned
            ok drain drained
            cordoned uncordon ok
            cordoned drain drained
            drained undrain ok
            ",
        );
    }

    #[test]
    fn final_states_move_only_when_an_operator_or_a_loss_acts() {
        use JobEvent as J;
        use TaskEvent as T;
        for s in JobState::ALL.iter().filter(|s| s.is_final()) {
            for e in JobEvent::ALL.iter().filter(|e| s.after(**e).is_some()) {
                assert!(matches!(e, J::Cancel | J::Retry), "{s} moves on {e}");
            }
        }
        for s in TaskState::ALL.iter().filter(|s| s.is_final()) {
            for e in TaskEvent::ALL.iter().filter(|e| s.after(**e).is_some()) {
                assert!(matches!(e, T::Cancel | T::Retry | T::ArtifactLost), "{s} moves on {e}");
            }
        }
    }

    #[test]
    fn the_diagram_draws_every_legal_pair_and_nothing_else() {
        let drawn = diagram();
        assert!(drawn.contains("    running --> quarantined: quarantine\n"));
        assert_eq!(drawn.matches("```mermaid").count(), 4);
        let edges = drawn.lines().filter(|l| l.contains(": ")).count();
        let jobs =
            JobState::ALL.iter().flat_map(|s| JobEvent::ALL.iter().filter_map(|e| s.after(*e)));
        let tasks =
            TaskState::ALL.iter().flat_map(|s| TaskEvent::ALL.iter().filter_map(|e| s.after(*e)));
        let publications = PublicationState::ALL
            .iter()
            .flat_map(|s| PublicationEvent::ALL.iter().filter_map(|e| s.after(*e)));
        let nodes =
            NodeState::ALL.iter().flat_map(|s| NodeEvent::ALL.iter().filter_map(|e| s.after(*e)));
        assert_eq!(edges, jobs.count() + tasks.count() + publications.count() + nodes.count());
    }
}
