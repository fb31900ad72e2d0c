//! What happened, in order.

use crate::problem::Problem;
use axum::Json;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

/// One event. Numbers have no holes, and a cause has a lower number than its effect.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// Number.
    pub seq: i64,
    /// When it was written; for people only, order is by `seq`.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What happened, e.g. `job.state`, `task.state`, `attempt.started`, `worker.lost`.
    pub kind: String,
    /// The job that it is about.
    pub job: Option<i64>,
    /// The task that it is about.
    pub task: Option<i64>,
    /// Kind-specific members.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// From where on.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Number of the last event that the client has; 0 for all that are kept.
    #[serde(default)]
    pub after: i64,
    /// Events a page, 500 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Seconds to wait for the first event, 0 when absent.
    #[param(minimum = 0, maximum = 8)]
    pub wait_s: Option<u32>,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// Incarnation of the log; when it changes, all earlier numbers are void.
    pub incarnation: String,
    /// Number of the newest event.
    pub head: i64,
    /// True when `after` is older than what is kept: read the lists anew and go on after `head`.
    pub gap: bool,
    /// The events.
    pub items: Vec<Event>,
}

/// Events after a number; waits for the first when asked to.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "list_events",
    tag = "events",
    params(EventsQuery),
    responses(
        (status = 200, description = "A page.", body = EventPage),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn page() -> Result<Json<EventPage>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
