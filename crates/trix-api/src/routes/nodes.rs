//! Machines and their workers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_db::jobs::{NodeRow, WorkerRow};
use utoipa::ToSchema;

use crate::auth::{Caller, Operator};
use crate::extract::{Body, Path};
use crate::problem::Problem;
use crate::routes::holds::checked_reason;
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
    /// Whether it gets work.
    pub state: NodeState,
    /// Why it gets none, and who said so; empty while it gets work.
    pub closed_because: String,
    /// Its worker now, or the last one.
    pub worker: Option<Worker>,
}

/// All machines.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeList {
    /// By name.
    pub items: Vec<Node>,
}

/// Whether a node gets work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Gets work.
    Ok,
    /// Gets no more work; what runs there goes on.
    Cordoned,
    /// Gets no more work, and its worker leaves when it is idle.
    Drained,
}

/// What became of a command to a node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeCommanded {
    /// Name of the node.
    pub node: String,
    /// Its state now.
    pub state: NodeState,
}

/// Why a node is closed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// For those who wonder later; may be left out.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub reason: String,
}

/// What a node has that not every node has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Traits {
    /// Capabilities that tasks may ask for by name.
    pub caps: Vec<String>,
    /// Thousandths of graphics processors.
    pub gpu: u32,
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

/// Hands no more work to a node; what runs there goes on. Operators only.
#[utoipa::path(
    post,
    path = "/nodes/{name}/cordon",
    operation_id = "cordon_node",
    tag = "nodes",
    params(("name" = String, Path, description = "Name of the node")),
    request_body = Closing,
    responses(
        (status = 200, description = "It is cordoned.", body = NodeCommanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn cordon(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    Body(closing): Body<Closing>,
) -> Result<Json<NodeCommanded>, Problem> {
    let reason = checked_reason(&closing.reason)?;
    let state = app.db.audited(caller.audit("node.cordon")).cordon(&name, reason).await?;
    Ok(commanded(name, state))
}

/// Hands no more work to a node; its worker ends what runs and leaves. Operators only.
#[utoipa::path(
    post,
    path = "/nodes/{name}/drain",
    operation_id = "drain_node",
    tag = "nodes",
    params(("name" = String, Path, description = "Name of the node")),
    request_body = Closing,
    responses(
        (status = 200, description = "It is drained.", body = NodeCommanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn drain(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    Body(closing): Body<Closing>,
) -> Result<Json<NodeCommanded>, Problem> {
    let reason = checked_reason(&closing.reason)?;
    let state = app.db.audited(caller.audit("node.drain")).drain_node(&name, reason).await?;
    Ok(commanded(name, state))
}

/// Opens a cordoned node, also one that the dispatcher cordoned. Operators only.
#[utoipa::path(
    post,
    path = "/nodes/{name}/uncordon",
    operation_id = "uncordon_node",
    tag = "nodes",
    params(("name" = String, Path, description = "Name of the node")),
    responses(
        (status = 200, description = "It is open.", body = NodeCommanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn uncordon(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
) -> Result<Json<NodeCommanded>, Problem> {
    let state = app.db.audited(caller.audit("node.uncordon")).uncordon(&name).await?;
    Ok(commanded(name, state))
}

/// Opens a drained node; a worker that has not left stays. Operators only.
#[utoipa::path(
    post,
    path = "/nodes/{name}/undrain",
    operation_id = "undrain_node",
    tag = "nodes",
    params(("name" = String, Path, description = "Name of the node")),
    responses(
        (status = 200, description = "It is open.", body = NodeCommanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn undrain(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
) -> Result<Json<NodeCommanded>, Problem> {
    let state = app.db.audited(caller.audit("node.undrain")).undrain_node(&name).await?;
    Ok(commanded(name, state))
}

/// Says what a node has that not every node has. Operators only.
#[utoipa::path(
    put,
    path = "/nodes/{name}/traits",
    operation_id = "set_node_traits",
    tag = "nodes",
    params(("name" = String, Path, description = "Name of the node")),
    request_body = Traits,
    responses(
        (status = 200, description = "It has these.", body = Traits),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn set_traits(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    Body(traits): Body<Traits>,
) -> Result<Json<Traits>, Problem> {
    let plain = |c: &String| {
        (1..=64).contains(&c.len()) && c.bytes().all(|b| b.is_ascii_graphic() && b != b',')
    };
    if let Some(bad) = traits.caps.iter().find(|c| !plain(c)) {
        let title = format!("the capability {bad:?} is refused");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_capability", title)
            .about(bad)
            .allowed("1 to 64 printable ASCII characters without blank and comma"));
    }
    let caps: Vec<&str> = traits.caps.iter().map(String::as_str).collect();
    let db = app.db.audited(caller.audit("node.traits"));
    db.set_node_traits(&name, &caps, traits.gpu).await?;
    Ok(Json(traits))
}

fn commanded(node: String, state: trix_model::state::NodeState) -> Json<NodeCommanded> {
    tracing::info!(node, %state, "an operator changed a node");
    Json(NodeCommanded { node, state: state.into() })
}

impl From<trix_model::state::NodeState> for NodeState {
    fn from(state: trix_model::state::NodeState) -> NodeState {
        use trix_model::state::NodeState as S;
        match state {
            S::Ok => NodeState::Ok,
            S::Cordoned => NodeState::Cordoned,
            S::Drained => NodeState::Drained,
        }
    }
}

impl From<NodeRow> for Node {
    fn from(n: NodeRow) -> Node {
        let closed = n.state != trix_model::state::NodeState::Ok;
        let reason = n.cordon_reason.filter(|_| closed).unwrap_or_default();
        let closed_because = match n.cordoned_by.as_deref() {
            Some("leader") if closed => format!("the dispatcher: {reason}"),
            _ => reason,
        };
        Node {
            id: n.id.0,
            name: n.name,
            state: n.state.into(),
            closed_because,
            worker: n.worker.map(Worker::from),
        }
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
