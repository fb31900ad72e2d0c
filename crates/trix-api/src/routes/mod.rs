//! The routes under `/api/v1`, one file a noun: its types, then its handlers.

pub mod accounts;
pub mod attempts;
pub mod events;
pub mod explain;
pub mod holds;
pub mod jobs;
pub mod nodes;
pub mod profiles;
pub mod publications;
pub mod session;
pub mod shares;
pub mod system;
pub mod tokens;

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "trix",
        description = "Media ingest: browse sources, submit jobs, follow them, play the results. \
            Errors are RFC 9457 problem documents. People sign in with a session cookie, \
            programs send `Authorization: Bearer TOKEN`. Unsafe methods need the content type \
            application/json and, from a browser, the server's own origin. \
            Events come over the WebSocket `/ws` (see the schemas ServerMessage and ClientMessage).",
        license(name = "GPL-3.0-or-later", identifier = "GPL-3.0-or-later")
    ),
    tags(
        (name = "session", description = "Signing in and out"),
        (name = "tokens", description = "Tokens for programs"),
        (name = "accounts", description = "Who submits, and their shares of the fleet"),
        (name = "shares", description = "Shares and what is on them"),
        (name = "profiles", description = "What is made of a source"),
        (name = "jobs", description = "Titles under way"),
        (name = "nodes", description = "Machines and their workers"),
        (name = "operate", description = "Pausing, and why something waits or failed"),
        (name = "system", description = "The service itself"),
        (name = "events", description = "What happened, in order"),
    ),
    security(("session" = []), ("token" = [])),
    modifiers(&Schemes),
    components(schemas(
        crate::problem::Problem,
        crate::ws::ServerMessage,
        crate::ws::ClientMessage,
    ))
)]
struct Document;

/// The two ways to say who one is.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "__Host-trix",
                "Set by signing in (`trix` without the prefix where plain http is allowed).",
            ))),
        );
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
    }
}

/// The router with its OpenAPI document.
pub fn api() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(session::me, session::log_in, session::log_out))
        .routes(routes!(session::inspect_link))
        .routes(routes!(session::use_link))
        .routes(routes!(session::set_up))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::set_weight))
        .routes(routes!(shares::list))
        .routes(routes!(shares::entries))
        .routes(routes!(shares::set_slots))
        .routes(routes!(profiles::list))
        .routes(routes!(profiles::get, profiles::put))
        .routes(routes!(profiles::validate))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::plan))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::set_priority))
        .routes(routes!(explain::job))
        .routes(routes!(explain::task))
        .routes(routes!(explain::bundle))
        .routes(routes!(attempts::log))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::cordon))
        .routes(routes!(nodes::uncordon))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::undrain))
        .routes(routes!(nodes::set_traits))
        .routes(routes!(explain::node))
        .routes(routes!(holds::list))
        .routes(routes!(holds::hold_all, holds::lift_all))
        .routes(routes!(holds::hold_one, holds::lift_one))
        .routes(routes!(system::system))
        .routes(routes!(events::page))
        .routes(routes!(publications::file))
        .routes(routes!(publications::retract));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", v1)
}

/// The OpenAPI 3.1 document, generated from the code.
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().split_for_parts().1
}

/// The document as `ui/openapi.json` holds it, without the last line break.
pub fn openapi_json() -> String {
    openapi().to_pretty_json().expect("the document is plain data")
}
