//! Published files.

use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::problem::Problem;

/// State of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublicationState {
    /// Owned by one attempt; nothing is visible.
    Prepared,
    /// Files are being linked.
    Moving,
    /// All is visible.
    Published,
    /// Something else stands at one of its names.
    Conflict,
    /// Taken back.
    Retracted,
}

/// A published file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PublishedFile {
    /// Name beneath the version's folder.
    pub name: String,
    /// `share:relative/path`.
    pub location: String,
    /// Bytes.
    pub size: u64,
    /// sha256 in hexadecimal.
    pub sha256: String,
    /// Content type that it is served with.
    pub mime: String,
    /// Path on this server; absent while it is not published.
    pub url: Option<String>,
}

/// One version of a title's files on a share.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Publication {
    /// Number.
    pub id: i64,
    /// `archive`, `output` or `preview`.
    pub role: String,
    /// Destination share.
    pub share: String,
    /// Folder of the title on the share.
    pub target: String,
    /// Version, from 1.
    pub version: u32,
    /// State.
    pub state: PublicationState,
    /// True for the version that stands now.
    pub current: bool,
    /// When all of it was visible.
    #[serde(with = "time::serde::rfc3339::option")]
    pub published_at: Option<OffsetDateTime>,
    /// The files.
    pub files: Vec<PublishedFile>,
}

/// The bytes of a published file, with ranges.
#[utoipa::path(
    get,
    path = "/publications/{id}/files/{name}",
    operation_id = "get_file",
    tag = "jobs",
    params(
        ("id" = i64, Path, description = "Number of the publication"),
        ("name" = String, Path, description = "Name of the file beneath the version's folder, slashes as %2F"),
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110)")
    ),
    responses(
        (status = 200, description = "All bytes.", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "A range.", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "The client has it."),
        (status = 416, description = "No such range."),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn file() -> Result<Response, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
