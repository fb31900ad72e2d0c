//! Why something waits or failed: one sentence, what would mend it, and the facts.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use trix_db::explain::{JobExplanation, QuarantineBundle};
use trix_model::{JobId, TaskId};
use utoipa::ToSchema;

use crate::auth::{Caller, Operator};
use crate::extract::Path;
use crate::problem::Problem;
use crate::routes::attempts::escape_controls;
use crate::state::App;
use crate::why::{self, Why};

/// Why a job, a task or a node is where it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// Its state in one word.
    #[schema(example = "ready")]
    pub state: String,
    /// The constraint or cause in one stable word.
    #[schema(example = "no_worker")]
    pub code: String,
    /// One sentence that names the constraint or the root cause.
    #[schema(example = "Task 34 (intake) waits, because no worker is alive.")]
    pub because: String,
    /// One sentence that says what would mend it.
    #[schema(example = "Start a worker on an enrolled node: trix worker.")]
    pub mend: String,
    /// The facts that the sentences are made of.
    #[schema(value_type = Object)]
    pub facts: serde_json::Value,
}

/// All that is known of a task that kills its process.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct Bundle(QuarantineBundle);

/// Why a job waits or failed.
#[utoipa::path(
    get,
    path = "/jobs/{id}/explain",
    operation_id = "explain_job",
    tag = "operate",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "Why.", body = Explanation),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn job(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<i64>,
) -> Result<Json<Explanation>, Problem> {
    let facts: JobExplanation = app.db.explain_job(JobId(id)).await?;
    // The leader's words about ready tasks are as old as its last survey: ask of one anew.
    let first = match facts.blocked.first() {
        Some(blocked) => Some(app.db.explain_task(blocked.first).await?),
        None => None,
    };
    explained(facts.state, why::job(&facts, first.as_ref()), &facts)
}

/// Why a task waits or failed.
#[utoipa::path(
    get,
    path = "/tasks/{id}/explain",
    operation_id = "explain_task",
    tag = "operate",
    params(("id" = i64, Path, description = "Number of the task")),
    responses(
        (status = 200, description = "Why.", body = Explanation),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn task(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<i64>,
) -> Result<Json<Explanation>, Problem> {
    let facts = app.db.explain_task(TaskId(id)).await?;
    explained(facts.state, why::task(&facts), &facts)
}

/// Why a node gets no work, or what it does.
#[utoipa::path(
    get,
    path = "/nodes/{name}/explain",
    operation_id = "explain_node",
    tag = "operate",
    params(("name" = String, Path, description = "Name of the node")),
    responses(
        (status = 200, description = "Why.", body = Explanation),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn node(
    State(app): State<App>,
    _: Caller,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let facts = app.db.explain_node(&name).await?;
    explained(facts.state, why::node(&facts), &facts)
}

/// What is needed to look into a task that kills its process: what it was to do, its
/// source, its attempts with their logs. Operators only.
#[utoipa::path(
    get,
    path = "/tasks/{id}/bundle",
    operation_id = "task_bundle",
    tag = "operate",
    params(("id" = i64, Path, description = "Number of the task")),
    responses(
        (status = 200, description = "The bundle.", body = Bundle),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn bundle(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<i64>,
) -> Result<Json<Bundle>, Problem> {
    let mut bundle = app.db.quarantine_bundle(TaskId(id)).await?;
    for line in bundle.attempts.iter_mut().flat_map(|a| &mut a.log) {
        *line = escape_controls(line);
    }
    Ok(Json(Bundle(bundle)))
}

fn explained(
    state: impl std::fmt::Display,
    why: Why,
    facts: &impl Serialize,
) -> Result<Json<Explanation>, Problem> {
    let facts = serde_json::to_value(facts)
        .map_err(|e| Problem::internal("writing the facts of an explanation", &e))?;
    Ok(Json(Explanation {
        state: state.to_string(),
        code: why.code,
        because: escape_controls(&why.because),
        mend: escape_controls(&why.mend),
        facts,
    }))
}
