//! Machines and their workers.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use trix_db::jobs::{NodeRow, WorkerRow};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::problem::Problem;
use crate::state::App;

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
pub async fn list(State(app): State<App>, _: Caller) -> Result<Json<NodeList>, Problem> {
    let mut items: Vec<Node> = app.db.nodes().await?.into_iter().map(Node::from).collect();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(NodeList { items }))
}

impl From<NodeRow> for Node {
    fn from(n: NodeRow) -> Node {
        Node { id: n.id.0, name: n.name, worker: n.worker.map(Worker::from) }
    }
}

impl From<WorkerRow> for Worker {
    fn from(w: WorkerRow) -> Worker {
        use trix_model::state::WorkerState as S;
        Worker {
            id: w.id.0,
            state: match w.state {
                S::Active => WorkerState::Active,
                S::Draining => WorkerState::Draining,
                S::Lost => WorkerState::Lost,
                S::Gone => WorkerState::Gone,
            },
            silent: w.suspect,
            version: w.version,
            engine: w.engine,
            pid: w.pid,
            started_at: w.started_at,
            last_seen: w.last_seen,
            age_ms: w.age_ms,
            capacity: w.capacity.into(),
            free: w.free.into(),
            running: w.running,
            shares_ok: w.shares_ok,
        }
    }
}

impl From<trix_db::Resources> for Resources {
    fn from(r: trix_db::Resources) -> Resources {
        Resources { mcpu: r.mcpu, ram: r.ram, scratch: r.scratch }
    }
}
