//! Machines and their workers.

use axum::Json;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::routes::shares::ShareState;

/// An amount of a node's resources.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Resources {
    /// Thousandths of a core.
    pub mcpu: i64,
    /// Bytes of memory.
    pub ram: i64,
    /// Bytes of scratch.
    pub scratch: i64,
}

/// State of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes work.
    Ok,
    /// Set aside because its results were suspect.
    Cordoned,
    /// Set aside by an operator.
    Drained,
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

/// A share as a node sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeShare {
    /// Name of the share.
    pub name: String,
    /// How it does there.
    pub state: ShareState,
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
    pub engine: Option<String>,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it last answered.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen: Option<OffsetDateTime>,
    /// What it has free.
    pub free: Resources,
    /// Attempts that it runs now.
    pub running: i64,
}

/// A machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Node {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// State.
    pub state: NodeState,
    /// Why it was cordoned.
    pub reason: Option<String>,
    /// What it has in all.
    pub capacity: Resources,
    /// Shares as it sees them.
    pub shares: Vec<NodeShare>,
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
