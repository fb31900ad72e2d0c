//! Machines and their workers.

use axum::Json;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::problem::Problem;

/// An amount of a node's resources.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Resources {
    /// Thousandths of a core.
    pub mcpu: u32,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of scratch.
    pub scratch: u64,
}

/// State of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Claims and runs.
    Active,
    /// Runs but claims no more.
    Draining,
    /// Was silent past its deadline.
    Lost,
    /// Ended.
    Gone,
}

/// One incarnation of a node's worker process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Worker {
    /// Number, never reused.
    pub id: i64,
    /// State.
    pub state: WorkerState,
    /// True when it is active but has not answered for a while.
    pub silent: bool,
    /// Program version.
    pub version: String,
    /// Engine whose bytes it makes.
    pub engine: String,
    /// Process id on its machine.
    pub pid: u32,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it last answered.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen: OffsetDateTime,
    /// Milliseconds of database-up time since then.
    pub age_ms: i64,
    /// What it gives to tasks.
    pub capacity: Resources,
    /// What it has free.
    pub free: Resources,
    /// Attempts that it runs now.
    pub running: u32,
    /// Shares that are in order there.
    pub shares_ok: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Node {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Its worker now, or the last one.
    pub worker: Option<Worker>,
}

/// All machines.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeList {
    /// By name.
    pub items: Vec<Node>,
}

/// All machines with their workers.
#[utoipa::path(
    get,
    path = "/nodes",
    operation_id = "list_nodes",
    tag = "nodes",
    responses(
        (status = 200, description = "The machines.", body = NodeList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list() -> Result<Json<NodeList>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
