//! Tokens for programs. A token is shown once; the database keeps its SHA-256.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_db::access::TokenWithRole;
use utoipa::ToSchema;

use crate::auth::Admin;
use crate::extract::{Body, Path};
use crate::problem::Problem;
use crate::routes::session::{Role, check_name};
use crate::state::App;

/// A token as it is listed; the secret is not kept.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Token {
    /// Number.
    pub id: i64,
    /// What it is for, e.g. the program's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it runs out, if ever.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// All tokens, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenList {
    /// The tokens.
    pub items: Vec<Token>,
}

/// A wish for a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for: 1 to 64 letters, digits and `.`, `_`, `-`, `@`.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Days until it runs out; never when absent.
    #[schema(minimum = 1, maximum = 3650)]
    pub days: Option<u32>,
}

/// A new token with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// What to send as `Authorization: Bearer …`.
    pub secret: String,
    /// The token.
    pub token: Token,
}

/// All tokens. Admins only.
#[utoipa::path(
    get,
    path = "/tokens",
    operation_id = "list_tokens",
    tag = "tokens",
    responses(
        (status = 200, description = "The tokens.", body = TokenList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(State(app): State<App>, _: Admin) -> Result<Json<TokenList>, Problem> {
    let items = app.db.all_tokens().await?.into_iter().map(Token::from).collect();
    Ok(Json(TokenList { items }))
}

/// Makes a token. Admins only.
#[utoipa::path(
    post,
    path = "/tokens",
    operation_id = "create_token",
    tag = "tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "The token with its secret.", body = CreatedToken),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Admin(caller): Admin,
    Body(wish): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    check_name(&wish.name)?;
    if let Some(days) = wish.days
        && !(1..=3650).contains(&days)
    {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_days",
            format!("a token of {days} days is refused"),
        )
        .about("days")
        .allowed("1 to 3650, or absent"));
    }
    let created_at = OffsetDateTime::now_utc();
    let expires_at = wish.days.map(|d| created_at + time::Duration::days(i64::from(d)));
    let db = app.db.audited(caller.audit("token.create"));
    let secret = db.create_program(&wish.name, wish.role.into(), expires_at).await?;
    let token = Token {
        id: secret.id,
        name: wish.name,
        role: wish.role,
        created_at,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    Ok((StatusCode::CREATED, Json(CreatedToken { secret: secret.secret, token })))
}

/// Revokes a token. Admins only.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    operation_id = "revoke_token",
    tag = "tokens",
    params(("id" = i64, Path, description = "Number of the token")),
    responses(
        (status = 204, description = "Revoked."),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn revoke(
    State(app): State<App>,
    Admin(caller): Admin,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    app.db.audited(caller.audit("token.revoke")).revoke_any_token(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<TokenWithRole> for Token {
    fn from(TokenWithRole { token: t, role }: TokenWithRole) -> Token {
        Token {
            id: t.id,
            name: t.label,
            role: role.into(),
            created_at: t.created_at,
            expires_at: t.expires_at,
            revoked_at: t.revoked_at,
            last_used_at: t.last_used_at,
        }
    }
}
