//! Who asks, and what they may do. Handlers take [`Caller`], [`Operator`] or
//! [`Admin`]; one that takes none of them is open to everybody.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use time::OffsetDateTime;
use trix_db::DbError;
use trix_db::access::{Audit, Principal};

use crate::origins::CookieKind;
use crate::problem::Problem;
use crate::routes::session::{Me, PrincipalKind, Role};
use crate::state::App;

/// The session cookie over https or on this machine.
pub const COOKIE: &str = "__Host-trix";
/// The session cookie where plain http is allowed.
pub const PLAIN_COOKIE: &str = "trix";
/// How long a session lasts.
pub const SESSION: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Somebody who is signed in; any role.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Number of the account.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Person or program.
    pub kind: PrincipalKind,
    /// Number and end of the session, for people.
    pub session: Option<(i64, OffsetDateTime)>,
    /// Address that the request came from.
    pub ip: String,
}

/// A caller that may submit, cancel and retry.
#[derive(Clone, Debug)]
pub struct Operator(pub Caller);

/// A caller that may do everything.
#[derive(Clone, Debug)]
pub struct Admin(pub Caller);

impl Caller {
    /// The caller as the API shows it.
    pub fn me(&self) -> Me {
        Me {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            role: self.role,
            session_ends_at: self.session.map(|s| s.1),
        }
    }

    /// Who makes a change, for the audit trail.
    pub fn audit(&self, action: &str) -> Audit {
        Audit { principal: Some(self.id), ip: self.ip.clone(), action: action.to_owned() }
    }

    fn new(p: Principal, kind: PrincipalKind, ip: String) -> Caller {
        Caller { id: p.id, name: p.name, role: p.role.into(), kind, session: None, ip }
    }
}

impl From<trix_db::access::Role> for Role {
    fn from(r: trix_db::access::Role) -> Role {
        use trix_db::access::Role as R;
        match r {
            R::Viewer => Role::Viewer,
            // A program that submits and looks.
            R::Operator | R::Service => Role::Operator,
            R::Admin => Role::Admin,
        }
    }
}

impl From<Role> for trix_db::access::Role {
    fn from(r: Role) -> trix_db::access::Role {
        use trix_db::access::Role as R;
        match r {
            Role::Viewer => R::Viewer,
            Role::Operator => R::Operator,
            Role::Admin => R::Admin,
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Caller, Problem> {
        let ip = client_address(parts);
        let credential = Credential::of(&parts.headers, app).ok_or_else(not_signed_in)?;
        credential.check(app, ip).await.map_err(|e| match e {
            DbError::Denied { .. } => not_signed_in(),
            e => e.into(),
        })
    }
}

/// What a request shows.
#[derive(Clone)]
pub enum Credential {
    /// A session cookie's secret.
    Session(String),
    /// A token's secret.
    Token(String),
}

impl Credential {
    /// What the headers hold: a token goes before a cookie.
    pub fn of(headers: &HeaderMap, app: &App) -> Option<Credential> {
        if let Some(header) = headers.get(header::AUTHORIZATION) {
            let (scheme, secret) = header.to_str().ok()?.split_once(' ')?;
            let bearer = scheme.eq_ignore_ascii_case("bearer");
            return bearer.then(|| Credential::Token(secret.trim().to_owned()));
        }
        let jar = CookieJar::from_headers(headers);
        let plain = || jar.get(PLAIN_COOKIE).filter(|_| app.origins.plain_cookies());
        jar.get(COOKIE).or_else(plain).map(|c| Credential::Session(c.value().to_owned()))
    }

    /// Whose it is; [`DbError::Denied`] when it is good for nothing.
    pub async fn check(&self, app: &App, ip: String) -> Result<Caller, DbError> {
        match self {
            Credential::Token(secret) => {
                let principal = app.db.check_token(secret).await?;
                Ok(Caller::new(principal, PrincipalKind::Service, ip))
            }
            Credential::Session(secret) => {
                let checked = app.db.check_session(secret).await?;
                let mut caller = Caller::new(checked.principal, PrincipalKind::User, ip);
                caller.session = Some((checked.id, checked.expires_at));
                Ok(caller)
            }
        }
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Operator, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        require(&caller, Role::Operator)?;
        Ok(Operator(caller))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Admin, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        require(&caller, Role::Admin)?;
        Ok(Admin(caller))
    }
}

fn require(caller: &Caller, role: Role) -> Result<(), Problem> {
    if caller.role >= role {
        return Ok(());
    }
    let word = match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    };
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "role_missing",
        format!("the account {} may not do that", caller.name),
    )
    .allowed(format!("role {word} or above")))
}

/// 401 without saying why.
pub fn not_signed_in() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", "sign in first")
}

/// The header that sets the session cookie.
pub fn session_cookie(
    headers: &HeaderMap,
    app: &App,
    secret: &str,
) -> Result<HeaderValue, Problem> {
    let kind = app.origins.cookie(headers);
    let (name, secure) = match kind {
        CookieKind::Secure => (COOKIE, true),
        CookieKind::Plain => (PLAIN_COOKIE, false),
        CookieKind::Refused => return Err(plain_http()),
    };
    let seconds = i64::try_from(SESSION.as_secs()).unwrap_or(i64::MAX);
    let cookie = Cookie::build((name, secret))
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Strict)
        .max_age(time::Duration::seconds(seconds));
    HeaderValue::from_str(&cookie.to_string())
        .map_err(|e| Problem::internal("setting the session cookie", &e))
}

/// Refuses to sign in over plain http from another machine, before anything is used up.
pub fn require_cookie(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    match app.origins.cookie(headers) {
        CookieKind::Refused => Err(plain_http()),
        _ => Ok(()),
    }
}

fn plain_http() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "insecure_http",
        "signing in over plain http from another machine would show the session to the network",
    )
    .allowed("https (name its origin in the configuration), this machine, or --insecure-http")
}

/// The headers that remove the session cookie.
pub fn cleared_cookies() -> [HeaderValue; 2] {
    [
        HeaderValue::from_static(
            "__Host-trix=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0",
        ),
        HeaderValue::from_static("trix=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"),
    ]
}

/// The peer's address, or what a proxy on this machine says it is.
pub fn client_address(parts: &Parts) -> String {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return String::new();
    };
    let forwarded = || {
        let last = parts.headers.get_all("x-forwarded-for").iter().next_back()?;
        last.to_str().ok()?.rsplit(',').next()?.trim().parse::<std::net::IpAddr>().ok()
    };
    match peer.ip().is_loopback().then(forwarded).flatten() {
        Some(ip) => ip.to_string(),
        None => peer.ip().to_string(),
    }
}
