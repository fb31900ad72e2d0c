//! What is paused: everything, a kind of task, or what a node would claim.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_db::operate::Scope;
use trix_plan::task::TaskSpec;
use utoipa::ToSchema;

use crate::auth::{Caller, Operator};
use crate::extract::{Body, Path};
use crate::problem::Problem;
use crate::state::App;

/// What a hold stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldScope {
    /// Everything.
    All,
    /// Tasks of a kind.
    Kind,
    /// Whatever a node would claim.
    Node,
}

/// Something that is paused: nothing of it is handed out, what runs goes on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hold {
    /// What it stops.
    pub scope: HoldScope,
    /// Which kind or node; absent for everything.
    pub name: Option<String>,
    /// Why.
    pub reason: String,
    /// Who: an account, or `leader` for the dispatcher.
    pub by: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// All that is paused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HoldList {
    /// Oldest first.
    pub items: Vec<Hold>,
}

/// Why somebody stops something.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For those who wonder later.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// What became of the wish to go on.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Lifted {
    /// False when nothing was paused.
    pub lifted: bool,
}

/// All that is paused, but for single jobs.
#[utoipa::path(
    get,
    path = "/holds",
    operation_id = "list_holds",
    tag = "operate",
    responses(
        (status = 200, description = "What is paused.", body = HoldList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(State(app): State<App>, _: Caller) -> Result<Json<HoldList>, Problem> {
    let items = app.db.holds().await?.into_iter().map(Hold::from).collect();
    Ok(Json(HoldList { items }))
}

/// Hands out nothing any more; what runs goes on. Operators only. What is paused already
/// keeps its reason.
#[utoipa::path(
    put,
    path = "/holds/all",
    operation_id = "hold_all",
    tag = "operate",
    request_body = Reason,
    responses(
        (status = 200, description = "It is paused.", body = HoldList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn hold_all(
    State(app): State<App>,
    Operator(caller): Operator,
    Body(why): Body<Reason>,
) -> Result<Json<HoldList>, Problem> {
    hold(&app, &caller, &Scope::All, &why).await
}

/// Lets everything go on. Operators only. Kinds and nodes that are paused stay so.
#[utoipa::path(
    delete,
    path = "/holds/all",
    operation_id = "lift_all",
    tag = "operate",
    responses(
        (status = 200, description = "It is not paused.", body = Lifted),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn lift_all(
    State(app): State<App>,
    Operator(caller): Operator,
) -> Result<Json<Lifted>, Problem> {
    lift(&app, &caller, &Scope::All).await
}

/// Hands out no more tasks of a kind, or none to a node; what runs goes on. Operators only.
/// What is paused already keeps its reason.
#[utoipa::path(
    put,
    path = "/holds/{scope}/{name}",
    operation_id = "hold",
    tag = "operate",
    params(
        ("scope" = String, Path, description = "`kind` or `node`"),
        ("name" = String, Path, description = "Kind of task, or name of a node")
    ),
    request_body = Reason,
    responses(
        (status = 200, description = "It is paused.", body = HoldList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn hold_one(
    State(app): State<App>,
    Operator(caller): Operator,
    Path((scope, name)): Path<(String, String)>,
    Body(why): Body<Reason>,
) -> Result<Json<HoldList>, Problem> {
    hold(&app, &caller, &scoped(&scope, name)?, &why).await
}

/// Lets tasks of a kind, or a node, go on. Operators only.
#[utoipa::path(
    delete,
    path = "/holds/{scope}/{name}",
    operation_id = "lift",
    tag = "operate",
    params(
        ("scope" = String, Path, description = "`kind` or `node`"),
        ("name" = String, Path, description = "Kind of task, or name of a node")
    ),
    responses(
        (status = 200, description = "It is not paused.", body = Lifted),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn lift_one(
    State(app): State<App>,
    Operator(caller): Operator,
    Path((scope, name)): Path<(String, String)>,
) -> Result<Json<Lifted>, Problem> {
    lift(&app, &caller, &scoped(&scope, name)?).await
}

async fn hold(
    app: &App,
    caller: &Caller,
    scope: &Scope,
    why: &Reason,
) -> Result<Json<HoldList>, Problem> {
    let reason = checked_reason(&why.reason)?;
    if reason.is_empty() {
        return Err(bad_reason("a reason is required"));
    }
    app.db.audited(caller.audit("hold.set")).hold(scope, reason).await?;
    tracing::info!(?scope, reason, by = caller.name, "paused");
    let items = app.db.holds().await?.into_iter().map(Hold::from).collect();
    Ok(Json(HoldList { items }))
}

async fn lift(app: &App, caller: &Caller, scope: &Scope) -> Result<Json<Lifted>, Problem> {
    let lifted = app.db.audited(caller.audit("hold.lift")).lift(scope).await?;
    tracing::info!(?scope, lifted, by = caller.name, "resumed");
    Ok(Json(Lifted { lifted }))
}

/// A hold on a kind that does not exist would stop nothing, and nobody would notice.
fn scoped(scope: &str, name: String) -> Result<Scope, Problem> {
    match scope {
        "kind" if TaskSpec::KINDS.contains(&name.as_str()) => Ok(Scope::Kind(name)),
        "kind" => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown_kind",
            format!("there is no kind of task {name:?}"),
        )
        .about(name)
        .allowed(TaskSpec::KINDS.join(", "))),
        "node" => Ok(Scope::Node(name)),
        _ => Err(Problem::bad_request("bad_scope", format!("{scope:?} cannot be paused"))
            .about(scope)
            .allowed("kind, node, or all without a name")),
    }
}

/// A reason without blanks around it; it may be empty.
pub(crate) fn checked_reason(reason: &str) -> Result<&str, Problem> {
    let reason = reason.trim();
    if reason.chars().count() > 500 || reason.chars().any(char::is_control) {
        return Err(bad_reason("the reason is refused"));
    }
    Ok(reason)
}

fn bad_reason(title: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_reason", title)
        .about("reason")
        .allowed("1 to 500 characters without control characters")
}

impl From<trix_db::operate::Hold> for Hold {
    fn from(h: trix_db::operate::Hold) -> Hold {
        let scope = match h.scope.as_str() {
            "kind" => HoldScope::Kind,
            "node" => HoldScope::Node,
            _ => HoldScope::All,
        };
        let name = (!h.name.is_empty()).then_some(h.name);
        Hold { scope, name, reason: h.reason, by: h.by, at: h.at }
    }
}
