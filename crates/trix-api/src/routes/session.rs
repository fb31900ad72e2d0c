//! Signing in: by password, by a one-time link, and setting up the first account.

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_db::DbError;
use trix_db::access::{Audit, Link, SignIn};
use utoipa::ToSchema;

use crate::auth::{self, Caller};
use crate::extract::Body;
use crate::password;
use crate::problem::Problem;
use crate::state::App;

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
pub async fn me(caller: Caller) -> Json<Me> {
    Json(caller.me())
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
pub async fn log_in(
    State(app): State<App>,
    from: From,
    Body(wish): Body<LogIn>,
) -> Result<Response, Problem> {
    auth::require_cookie(&from.headers, &app)?;
    app.brake.check(&wish.name, &from.ip)?;
    let entry = app.db.password_entry(&wish.name).await?;
    let stored = entry.as_ref().map(|e| e.hash.clone());
    let fits = password::verify(wish.password, stored).await?;
    let Some(entry) = entry.filter(|_| fits) else {
        app.brake.failed(&wish.name, &from.ip);
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "wrong_password",
            "name or password is wrong",
        ));
    };
    app.brake.succeeded(&wish.name, &from.ip);
    sign_in(&app, &from, SignIn::Password(entry.principal.id), "session.log_in").await
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
pub async fn log_out(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let Some((session, _)) = caller.session else {
        return Err(Problem::conflict("no_session", "a token has no session to end"));
    };
    app.db.audited(caller.audit("session.log_out")).end_session(caller.id, session).await?;
    // Nobody may listen.
    let _ = app.ended_sessions.send(session);
    let cookies = auth::cleared_cookies().map(|c| (header::SET_COOKIE, c));
    Ok((StatusCode::NO_CONTENT, AppendHeaders(cookies)).into_response())
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
pub async fn inspect_link(
    State(app): State<App>,
    from: From,
    Body(wish): Body<LinkToken>,
) -> Result<Json<LinkInfo>, Problem> {
    let link = good_link(&app, &from, &wish.token).await?;
    let purpose = if link.principal.is_some() { LinkPurpose::Login } else { LinkPurpose::Setup };
    Ok(Json(LinkInfo { purpose, name: link.principal.map(|p| p.name) }))
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
pub async fn use_link(
    State(app): State<App>,
    from: From,
    Body(wish): Body<LinkToken>,
) -> Result<Response, Problem> {
    auth::require_cookie(&from.headers, &app)?;
    if good_link(&app, &from, &wish.token).await?.principal.is_none() {
        return Err(Problem::conflict(
            "setup_link",
            "the link sets up the first account; it needs a name and a password",
        ));
    }
    sign_in(&app, &from, SignIn::Link(&wish.token), "session.link").await
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
pub async fn set_up(
    State(app): State<App>,
    from: From,
    Body(wish): Body<SetUp>,
) -> Result<Response, Problem> {
    auth::require_cookie(&from.headers, &app)?;
    check_name(&wish.name)?;
    if !PASSWORD_BYTES.contains(&wish.password.len()) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_password",
            "the password is too short or too long",
        )
        .about("password")
        .allowed("10 to 1024 bytes"));
    }
    // Looked at before the password is hashed, which is costly and open to everybody.
    if good_link(&app, &from, &wish.token).await?.principal.is_some() {
        return Err(Problem::conflict("login_link", "the link signs in an account that exists"));
    }
    let password_hash = password::hash(wish.password).await?;
    let (link, name) = (&wish.token, &wish.name);
    let how = SignIn::SetUp { link, name, password_hash: &password_hash };
    sign_in(&app, &from, how, "session.set_up").await
}

/// Stands for the account in the brake when links are tried.
const LINKS: &str = "one-time link";
/// Lengths of a password that are allowed.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 10..=1024;

/// Where a request that is not signed in comes from.
pub struct From {
    /// Its headers.
    pub headers: HeaderMap,
    /// Address of the client.
    pub ip: String,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<From, Self::Rejection> {
        Ok(From { headers: parts.headers.clone(), ip: auth::client_address(parts) })
    }
}

/// Names of accounts and tokens.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let ok = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
    if ok {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_name", "the name is refused")
        .about(name)
        .allowed("1 to 64 letters a to z, digits, and . _ - @"))
}

/// Looks at a link without using it up.
async fn good_link(app: &App, from: &From, token: &str) -> Result<Link, Problem> {
    app.brake.check(LINKS, &from.ip)?;
    app.db.peek_link(token).await.map_err(|e| used_up(app, from, e))
}

/// A link that is not good is a guess as far as we know.
fn used_up(app: &App, from: &From, e: DbError) -> Problem {
    match e {
        DbError::Denied { .. } => {
            app.brake.failed(LINKS, &from.ip);
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "link_used",
                "the link was used, has run out, or was replaced by a newer one",
            )
            .allowed("a new link: trix login-link, on the machine that the service runs on")
        }
        e => e.into(),
    }
}

/// Opens a session and answers with its cookie and whose it is.
async fn sign_in(
    app: &App,
    from: &From,
    how: SignIn<'_>,
    action: &str,
) -> Result<Response, Problem> {
    let agent: String = from
        .headers
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .chars()
        .take(200)
        .collect();
    let by = Audit { principal: None, ip: from.ip.clone(), action: action.to_owned() };
    let signed_in = app.db.audited(by).sign_in(how, &agent, &from.ip, auth::SESSION).await;
    let (principal, secret) = signed_in.map_err(|e| match how {
        SignIn::Password(_) => e.into(),
        SignIn::Link(_) | SignIn::SetUp { .. } => used_up(app, from, e),
    })?;
    let cookie: HeaderValue = auth::session_cookie(&from.headers, app, &secret.secret)?;
    let me = Me {
        id: principal.id,
        name: principal.name,
        kind: PrincipalKind::User,
        role: principal.role.into(),
        session_ends_at: Some(OffsetDateTime::now_utc() + auth::SESSION),
    };
    Ok(([(header::SET_COOKIE, cookie)], Json(me)).into_response())
}
