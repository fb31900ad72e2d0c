//! Signing in: by password, by a one-time link, and setting up the first account.

use crate::problem::Problem;
use axum::Json;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// What somebody may do; each role includes the ones before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything but secrets.
    Viewer,
    /// Submits, cancels and retries jobs.
    Operator,
    /// Makes tokens.
    Admin,
}

/// A person or a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// Signs in with a password or a link.
    User,
    /// Has a token.
    Service,
}

/// Who is signed in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Me {
    /// Number of the account.
    pub id: i64,
    /// Name of the account.
    pub name: String,
    /// Person or program.
    pub kind: PrincipalKind,
    /// What it may do.
    pub role: Role,
    /// End of the session; absent for tokens.
    #[serde(with = "time::serde::rfc3339::option")]
    pub session_ends_at: Option<OffsetDateTime>,
}

/// Name and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// Name of the account.
    pub name: String,
    /// Its password.
    #[schema(format = Password)]
    pub password: String,
}

/// The token of a one-time link: the part of the link behind `#token=`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkToken {
    /// The token.
    pub token: String,
}

/// What a one-time link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkPurpose {
    /// Choosing name and password of the first account: `POST /api/v1/session/setup`.
    Setup,
    /// Signing in as one account: `POST /api/v1/session/link`.
    Login,
}

/// An unused link that has not run out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkInfo {
    /// What it is for.
    pub purpose: LinkPurpose,
    /// Account that it signs in; absent for a set-up link.
    pub name: Option<String>,
}

/// Name and password of the first account, which becomes an admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUp {
    /// The set-up link's token.
    pub token: String,
    /// 1 to 64 letters, digits and `.`, `_`, `-`, `@`.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// 10 to 1024 bytes.
    #[schema(format = Password, min_length = 10, max_length = 1024)]
    pub password: String,
}

/// Who is signed in.
#[utoipa::path(
    get,
    path = "/session",
    operation_id = "who_am_i",
    tag = "session",
    responses(
        (status = 200, description = "The account.", body = Me),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn me() -> Result<Json<Me>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Signs in by name and password; sets the session cookie.
#[utoipa::path(
    post,
    path = "/session",
    operation_id = "log_in",
    tag = "session",
    security(()),
    request_body = LogIn,
    responses(
        (status = 200, description = "Signed in.", body = Me),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn log_in() -> Result<Json<Me>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Signs out.
#[utoipa::path(
    delete,
    path = "/session",
    operation_id = "log_out",
    tag = "session",
    responses(
        (status = 204, description = "Signed out."),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn log_out() -> Result<axum::http::StatusCode, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Says what a one-time link is for, without using it up.
#[utoipa::path(
    post,
    path = "/session/link/inspect",
    operation_id = "inspect_link",
    tag = "session",
    security(()),
    request_body = LinkToken,
    responses(
        (status = 200, description = "An unused link.", body = LinkInfo),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn inspect_link() -> Result<Json<LinkInfo>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Signs in by a one-time login link; sets the session cookie.
#[utoipa::path(
    post,
    path = "/session/link",
    operation_id = "use_link",
    tag = "session",
    security(()),
    request_body = LinkToken,
    responses(
        (status = 200, description = "Signed in.", body = Me),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn use_link() -> Result<Json<Me>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Makes the first account by the set-up link and signs in; sets the session cookie.
#[utoipa::path(
    post,
    path = "/session/setup",
    operation_id = "set_up",
    tag = "session",
    security(()),
    request_body = SetUp,
    responses(
        (status = 200, description = "Signed in.", body = Me),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn set_up() -> Result<Json<Me>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
