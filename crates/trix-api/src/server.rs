//! The server: routes, layers, and the tasks that run beside them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use trix_db::Db;
use trix_model::with_causes;
use trix_storage::share::{ShareRole, ShareState};

use crate::auth::Caller;
use crate::config::ApiConfig;
use crate::health::{self, Health};
use crate::origins::{BadOrigin, Origins, Refused};
use crate::problem::Problem;
use crate::share_watch::Shares;
use crate::state::App;
use crate::tail::Tail;
use crate::{links, routes, ui, ws};

/// Largest body of a request: a profile is far below.
const BODY_LIMIT: usize = 1 << 20;
/// How long requests that run may go on when the server ends.
const DRAIN: Duration = Duration::from_secs(5);

/// Why no server was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address is taken or not this machine's.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A configured origin is not one.
    #[error("reading the configured origins")]
    Origin(#[from] BadOrigin),
}

/// A server that listens and does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    router: Router,
    health: watch::Sender<Health>,
    roots: trix_storage::share::Roots,
    state_dir: PathBuf,
}

impl Server {
    /// Takes the address. The database may be away.
    pub async fn bind(config: ApiConfig, cancel: CancellationToken) -> Result<Server, StartError> {
        let machine = machine_name();
        let origins = Origins::new(&config.public_origins, &machine, config.insecure_http)?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (health, seen) = watch::channel(Health::unknown());
        let shares = Shares::new(&config.shares, config.db.times().mount_deadline);
        let tail = Tail::new();
        let app = App::new(config.db, origins, shares, seen, tail, config.engine, cancel);
        let router = router(app.clone());
        let (roots, state_dir) = (config.shares, config.state_dir);
        Ok(Server { listener, address, app, router, health, roots, state_dir })
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Origin that links of this server begin with.
    pub fn base(&self) -> String {
        match self.app.origins.first() {
            Some(origin) => origin.to_owned(),
            // All browsers take secure cookies over plain http from that name.
            None if self.address.ip().is_unspecified() || self.address.ip().is_loopback() => {
                format!("http://localhost:{}", self.address.port())
            }
            None => format!("http://{}", self.address),
        }
    }

    /// Answers until the token is cancelled; then requests that run may end.
    pub async fn run(self) -> std::io::Result<()> {
        let base = self.base();
        let Server { listener, address, app, router, health, roots, state_dir } = self;
        let cancel = app.cancel.clone();
        let times = *app.db.times();
        let mut tasks = JoinSet::new();
        tasks.spawn(health::watch(app.db.clone(), health, cancel.clone()));
        tasks.spawn(app.tail.clone().run(app.db.clone(), app.health.clone(), cancel.clone()));
        tasks.spawn(app.shares.clone().watch(times.mount_probe, cancel.clone()));
        tasks.spawn(first_steps(app.clone(), roots, state_dir, base));
        tracing::info!(%address, "the api listens");
        let serve =
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(cancel.clone().cancelled_owned());
        let ended = async {
            cancel.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let result = tokio::select! {
            r = serve => r,
            () = ended => Ok(()),
        };
        cancel.cancel();
        tasks.shutdown().await;
        tracing::info!(%address, "the api ended");
        result
    }
}

/// Starts a server and answers until the token is cancelled.
pub async fn serve(config: ApiConfig, cancel: CancellationToken) -> Result<(), ServeError> {
    Server::bind(config, cancel).await?.run().await.map_err(ServeError::Run)
}

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It did not start.
    #[error("starting the api")]
    Start(#[from] StartError),
    /// It could not go on.
    #[error("serving the api")]
    Run(#[source] std::io::Error),
}

fn machine_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn router(app: App) -> Router {
    let (api, document) = routes::api().split_for_parts();
    let document = std::sync::Arc::new(document);
    let request_id = HeaderName::from_static("x-request-id");
    let answer = app.db.times().answer;
    Router::new()
        .route("/", get(ui::to_interface))
        .route("/interface", get(ui::to_interface))
        .route("/interface/", get(ui::file))
        .route("/interface/{*path}", get(ui::file))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/ws", get(ws::open))
        .merge(api)
        .route(
            "/api/v1/openapi.json",
            get(move |_: Caller| async move { Json(document.as_ref().clone()) }),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard))
        .layer(axum::middleware::from_fn(move |request, next| deadline(answer, request, next)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_request(())
                .on_response(|response: &Response, took: Duration, _: &tracing::Span| {
                    let took_ms = took.as_millis() as u64;
                    tracing::info!(status = response.status().as_u16(), took_ms, "answered");
                })
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(app)
}

/// The span of a request. The query is left out: it may hold names of titles, and
/// nothing of it is needed to find a request again.
fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|v| v.to_str().ok()).unwrap_or("");
    tracing::info_span!(
        "request",
        id,
        method = %request.method(),
        path = request.uri().path(),
    )
}

/// Checks `Host` and origin, and answers at once while the database is away.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let path = request.uri().path();
    let (api, socket) = (path.starts_with("/api/"), path == "/ws");
    if !api && !socket {
        return Ok(next.run(request).await);
    }
    match app.origins.check(request.method(), request.headers(), socket) {
        Ok(()) => {}
        Err(Refused::Host) => {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "the service does not go by that name",
            )
            .allowed("an address, localhost, this machine's name, or a configured origin"));
        }
        Err(Refused::Origin) => {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "the request comes from another site's page",
            ));
        }
    }
    // What a foreign form can send must never be taken for a command.
    let unsafe_method = !matches!(*request.method(), Method::GET | Method::HEAD);
    if let (true, Some(kind)) = (unsafe_method, request.headers().get(header::CONTENT_TYPE)) {
        let json = kind.to_str().is_ok_and(|k| {
            k.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json")
        });
        if !json {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "the body is not application/json",
            )
            .allowed("application/json"));
        }
    }
    let health = app.health.borrow().clone();
    if !health.ok {
        return Err(health.problem());
    }
    Ok(next.run(request).await)
}

/// No answer takes longer than the protocol allows.
async fn deadline(after: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(after, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(
            "timeout",
            format!(
                "the request was not done within {} ms; it may be done later",
                after.as_millis()
            ),
            5,
        )
        .into_response(),
    }
}

fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Problem::internal("answering a request", &"the handler panicked").into_response()
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found("path", uri.path())
}

async fn no_such_method(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} does not take that method", uri.path()),
    )
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<App>) -> Response {
    let health = app.health.borrow().clone();
    if health.ok { "ready\n".into_response() } else { health.problem().into_response() }
}

/// What is done once the database answers: shares and shipped profiles become
/// known, and the first start makes its set-up link. Repeated until all is done.
async fn first_steps(
    app: App,
    roots: trix_storage::share::Roots,
    state_dir: PathBuf,
    base: String,
) {
    let mut health = app.health.clone();
    loop {
        if health.wait_for(|h| h.ok).await.is_err() {
            return;
        }
        let steps = async {
            app.shares.probe_all().await;
            know_shares(&app, &roots).await?;
            know_profiles(&app.db).await?;
            Ok::<_, trix_db::DbError>(())
        };
        let link = match steps.await {
            Ok(()) => links::first_login(&app.db, &state_dir, &base).await,
            Err(e) => Err(e.into()),
        };
        match link {
            Ok(None) => return,
            Ok(Some(link)) => {
                // To the terminal and not to the log: it is a secret.
                let file = state_dir.join(links::FIRST_LOGIN);
                eprintln!(
                    "\n  Set up the first account (the link works once; it is also in {}):\n  {link}\n",
                    file.display()
                );
                return;
            }
            Err(e) => {
                tracing::error!(error = %with_causes(&e), "preparing the service");
                tokio::time::sleep(app.db.times().reconnect_max).await;
            }
        }
    }
}

/// Writes shares that the database does not know, and takes over the markers of those that it does.
async fn know_shares(
    app: &App,
    roots: &trix_storage::share::Roots,
) -> Result<(), trix_db::DbError> {
    use trix_db::catalog::ShareRow;
    let known = app.db.shares().await?;
    for (name, root) in roots.iter() {
        if let Some(row) = known.iter().find(|s| s.name == *name) {
            app.shares.expect_marker(name, row.marker);
            continue;
        }
        let role = match root.role {
            ShareRole::Source => trix_db::catalog::ShareRole::Source,
            ShareRole::Output => trix_db::catalog::ShareRole::Output,
            ShareRole::Preview => trix_db::catalog::ShareRole::Preview,
            ShareRole::Cache => trix_db::catalog::ShareRole::Cache,
        };
        let seen = app.shares.get(name).map(|w| w.seen());
        let kind = seen.as_ref().and_then(|s| s.fs_type.clone()).unwrap_or_else(|| "local".into());
        // Which marker a share has is known where it is written: on a worker.
        let row = ShareRow { name: name.clone(), role, kind, marker: None, ok_on: Vec::new() };
        if seen.is_none_or(|s| s.state == ShareState::Ok) {
            app.db.put_share(&row).await?;
        }
    }
    Ok(())
}

async fn know_profiles(db: &Db) -> Result<(), trix_db::DbError> {
    let known = db.profiles().await?;
    for (name, text) in trix_plan::Profile::shipped() {
        // A profile of the same name that a person stored stays.
        if known.iter().any(|p| p.name == *name && (!p.shipped || p.body == *text)) {
            continue;
        }
        match trix_plan::Profile::parse(text) {
            Ok(profile) => {
                db.put_profile(name, profile.version(), text, true).await?;
            }
            Err(e) => tracing::error!(profile = name, error = %e, "a shipped profile is refused"),
        }
    }
    Ok(())
}
