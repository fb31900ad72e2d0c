//! What happened, in order.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::cursor;
use crate::extract::Query;
use crate::problem::Problem;
use crate::state::App;

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
pub async fn page(
    State(app): State<App>,
    _: Caller,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventPage>, Problem> {
    let limit = cursor::limit(query.limit, 500, 1000)?;
    let after = query.after.max(0);
    // Below the deadline of an answer, which would turn an empty page into a failure.
    let longest = app.db.times().answer * 8 / 10;
    let wait = Duration::from_secs(u64::from(query.wait_s.unwrap_or(0))).min(longest);
    if !wait.is_zero() {
        let mut head = app.tail.head();
        let newer = head.wait_for(|h| h.is_some_and(|h| h.head > after));
        // When the time is over, the page is empty.
        let _ = tokio::time::timeout(wait, newer).await;
    }
    let head = app.db.event_head().await?;
    let gap = after > head.head || after < head.oldest - 1;
    let items = if gap { Vec::new() } else { app.db.events(after, None, limit).await? };
    let items: Vec<Event> = items.into_iter().map(Event::from).collect();
    // Events that were numbered after the head was read are newer than it.
    let newest = items.last().map_or(head.head, |e| e.seq.max(head.head));
    Ok(Json(EventPage { incarnation: head.incarnation.to_string(), head: newest, gap, items }))
}

impl From<trix_db::events::Event> for Event {
    fn from(e: trix_db::events::Event) -> Event {
        Event {
            seq: e.seq,
            at: e.at,
            kind: e.kind,
            job: e.job.map(|j| j.0),
            task: e.task.map(|t| t.0),
            data: e.body,
        }
    }
}
