//! What an attempt said.

use crate::problem::Problem;
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The last lines (200 at most) of an attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttemptLog {
    /// The task.
    pub task: i64,
    /// Which try.
    pub epoch: i64,
    /// The lines in order; control characters are escaped.
    pub lines: Vec<String>,
}

/// The last lines that an attempt wrote.
#[utoipa::path(
    get,
    path = "/attempts/{task}/{epoch}/log",
    operation_id = "attempt_log",
    tag = "jobs",
    params(("task" = i64, Path, description = "Number of the task"), ("epoch" = i64, Path, description = "Which try")),
    responses(
        (status = 200, description = "The lines.", body = AttemptLog),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn log() -> Result<Json<AttemptLog>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
