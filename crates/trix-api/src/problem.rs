//! Errors as clients see them: RFC 9457 problem documents with our members.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use trix_model::{ErrorClass, Failure};
use utoipa::ToSchema;

/// Why a request was not done (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// One sentence for a person.
    pub title: String,
    /// Stable machine-readable code in snake_case.
    #[schema(example = "source_unavailable")]
    pub code: String,
    /// Whether trying again can help: `transient`, `resource`, `deterministic` or `crash`.
    pub class: String,
    /// What it is about: a path, a key, an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What would have been accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// Seconds after which a repetition makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// One entry for each fault of a profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<crate::routes::profiles::ProfileFault>,
}

impl Problem {
    /// A problem with a status, a code and a sentence; trying again gives the same.
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>) -> Problem {
        Problem {
            status: status.as_u16(),
            title: title.into(),
            code: code.to_owned(),
            class: class_word(ErrorClass::Deterministic).to_owned(),
            object: None,
            allowed: None,
            retry_after_s: None,
            errors: Vec::new(),
        }
    }

    /// 400: the request itself cannot be read.
    pub fn bad_request(code: &str, title: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, title)
    }

    /// 404: there is no such object.
    pub fn not_found(what: &str, object: impl ToString) -> Problem {
        let object = object.to_string();
        Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} {object}"))
            .about(object)
    }

    /// 409: the object is in a state that does not allow it.
    pub fn conflict(code: &str, title: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, title)
    }

    /// 503: something is away that comes back without the client's doing.
    pub fn unavailable(code: &str, title: impl Into<String>, retry_after_s: u64) -> Problem {
        let mut p = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title);
        p.class = class_word(ErrorClass::Transient).to_owned();
        p.retry_after_s = Some(retry_after_s);
        p
    }

    /// 500: a mistake of ours. The cause is logged, the client gets the operation only.
    pub fn internal(operation: &str, cause: &dyn std::fmt::Display) -> Problem {
        tracing::error!(operation, %cause, "a request failed by a mistake of ours");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            format!("{operation} failed; the server's log says why"),
        )
    }

    /// Names the object that the problem is about.
    pub fn about(mut self, object: impl ToString) -> Problem {
        self.object = Some(object.to_string());
        self
    }

    /// Says what would have been accepted.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Problem {
        self.allowed = Some(allowed.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The class as the API writes it.
pub fn class_word(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => "transient",
        ErrorClass::Resource => "resource",
        ErrorClass::Deterministic => "deterministic",
        ErrorClass::Crash => "crash",
    }
}

impl From<Failure> for Problem {
    fn from(f: Failure) -> Problem {
        let status = match f.class {
            ErrorClass::Transient | ErrorClass::Resource => StatusCode::SERVICE_UNAVAILABLE,
            ErrorClass::Deterministic => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorClass::Crash => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut p = Problem::new(status, &f.code, f.message);
        p.class = class_word(f.class).to_owned();
        p.object = (!f.object.is_empty()).then_some(f.object);
        p.retry_after_s =
            matches!(f.class, ErrorClass::Transient | ErrorClass::Resource).then_some(10);
        p
    }
}

impl From<JsonRejection> for Problem {
    fn from(r: JsonRejection) -> Problem {
        let code = match r.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "not_json",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            _ => "bad_body",
        };
        Problem::new(r.status(), code, r.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(r: QueryRejection) -> Problem {
        Problem::bad_request("bad_query", r.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(r: PathRejection) -> Problem {
        Problem::bad_request("bad_path", r.body_text())
    }
}

impl From<trix_db::DbError> for Problem {
    fn from(e: trix_db::DbError) -> Problem {
        use trix_db::DbError as E;
        match &e {
            E::Unavailable { .. } | E::Deadline { .. } => {
                let failure = Failure::from(e);
                Problem::unavailable(
                    "database_unavailable",
                    format!("the database is away: {}", failure.message),
                    2,
                )
            }
            E::Denied { message, .. } => {
                Problem::new(StatusCode::FORBIDDEN, "denied", message.clone())
            }
            E::NotFound { message, .. } => {
                Problem::new(StatusCode::NOT_FOUND, "not_found", message.clone())
            }
            E::Conflict { code, message, .. } => Problem::conflict(code, message.clone()),
            E::Refused { .. }
            | E::NotLeader { .. }
            | E::Sql { .. }
            | E::Decode { .. }
            | E::Migrate(_)
            | E::Address(_) => {
                let failure = Failure::from(e);
                Problem::internal("using the database", &failure.message)
            }
            _ => Problem::internal("using the database", &e),
        }
    }
}
