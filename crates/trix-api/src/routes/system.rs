//! The service itself.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::problem::Problem;
use crate::state::App;

/// Connection to the database.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DatabaseStatus {
    /// False while it is away.
    pub ok: bool,
    /// Since when it is so.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Why it is away.
    pub reason: Option<String>,
    /// Identity of the cluster; changes after a restore.
    pub incarnation: Option<String>,
    /// Number of the newest migration.
    pub schema_version: Option<i64>,
}

/// The dispatcher that leads.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Leader {
    /// Counts take-overs.
    pub epoch: i64,
    /// Who holds it.
    pub holder: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Milliseconds that the database was up under a leader.
    pub up_ms: i64,
    /// True while it holds the leader's seat.
    pub alive: bool,
}

/// State of the whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct System {
    /// Version of this program.
    pub version: String,
    /// When this API server started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Connection to the database.
    pub database: DatabaseStatus,
    /// The leading dispatcher; absent when none has led yet.
    pub leader: Option<Leader>,
    /// Number of the newest event.
    pub event_head: i64,
    /// Jobs by state.
    pub jobs: BTreeMap<String, i64>,
    /// Tasks of the jobs under way by state.
    pub tasks: BTreeMap<String, i64>,
    /// Workers by state.
    pub workers: BTreeMap<String, i64>,
}

/// State of the whole.
#[utoipa::path(
    get,
    path = "/system",
    operation_id = "get_system",
    tag = "system",
    responses(
        (status = 200, description = "The state.", body = System),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn system(State(app): State<App>, _: Caller) -> Result<Json<System>, Problem> {
    let overview = app.db.overview().await?;
    let health = app.health.borrow().clone();
    let database = DatabaseStatus {
        ok: health.ok,
        since: health.since,
        reason: (!health.ok).then_some(health.reason),
        incarnation: Some(overview.incarnation.to_string()),
        schema_version: Some(overview.schema_version),
    };
    let leader = overview.leader.map(|l| Leader {
        epoch: l.epoch,
        holder: l.holder,
        since: l.since,
        up_ms: l.up_ms,
        alive: l.alive,
    });
    Ok(Json(System {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: app.started_at,
        database,
        leader,
        event_head: overview.event_head,
        jobs: overview.jobs,
        tasks: overview.tasks,
        workers: overview.workers,
    }))
}
