//! The WebSocket `/ws`: events that resume from a number.
//!
//! The server says `hello`, the client answers `resume` with the number of the
//! last event that it has (or `hello.head` after it read the lists), the server
//! replays what is missing and goes on with what happens. A client that is too
//! slow for its bounded buffer is closed with 4008 and resumes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::events::Event;
use crate::routes::jobs::Progress;

/// What the server sends.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// First message.
    Hello {
        /// Incarnation of the log; when it changes, all earlier numbers are void.
        incarnation: String,
        /// Number of the newest event.
        head: i64,
    },
    /// Events in order, without holes.
    Events {
        /// The events.
        items: Vec<Event>,
    },
    /// What the client has is too old to be replayed (or of another incarnation):
    /// it reads the lists anew; events go on after `seq`.
    Snapshot {
        /// Incarnation of the log.
        incarnation: String,
        /// Events go on after this number.
        seq: i64,
    },
    /// Progress of what runs, once a second while something does. Not numbered.
    Progress {
        /// Jobs with running attempts.
        jobs: Vec<JobProgress>,
        /// Running attempts of the jobs that the client watches.
        attempts: Vec<AttemptProgress>,
    },
    /// The database is away; what the client shows is stale.
    Degraded {
        /// Why, in words.
        reason: String,
        /// Since when, RFC 3339.
        since: String,
    },
    /// The database is back; missed events follow.
    Recovered,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct JobProgress {
    /// The job.
    pub job: i64,
    /// 0 to 1, as in the list.
    pub fraction: f64,
    /// Attempts that run now.
    pub running: u32,
}

/// How far an attempt is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttemptProgress {
    /// The job.
    pub job: i64,
    /// The task.
    pub task: i64,
    /// Which try.
    pub epoch: i64,
    /// How far.
    pub progress: Progress,
}

/// What the client sends.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// Starts the events. Once, after `hello`.
    Resume {
        /// Number of the last event that the client has.
        seq: i64,
        /// Incarnation that the number belongs to.
        incarnation: String,
    },
    /// Jobs whose attempts' progress the client wants; replaces the list before.
    Watch {
        /// At most 100 jobs.
        jobs: Vec<i64>,
    },
}
