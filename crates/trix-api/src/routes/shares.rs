//! Shares and what is on them.

use crate::problem::Problem;
use axum::Json;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

/// What a share is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ShareRole {
    /// Delivered titles; read only.
    Source,
    /// Archive copies and production files.
    Output,
    /// Posters, thumbnails and proxies.
    Preview,
    /// Artifacts.
    Cache,
}

/// How a share does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// In order.
    Ok,
    /// Answers slowly.
    Slow,
    /// Does not answer.
    Hung,
    /// The mount is dead.
    Gone,
    /// Something else stands at its place, e.g. a bare mount point.
    Wrong,
    /// Should be writable and is not.
    Ro,
    /// No space is left.
    Full,
}

/// A named mounted folder.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Share {
    /// Name, the part in front of `:` in paths.
    pub name: String,
    /// What it is for.
    pub role: ShareRole,
    /// How it does, seen from this API server.
    pub state: ShareState,
    /// Since when it is so.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What is wrong, in words.
    pub reason: Option<String>,
    /// Bytes in all, if the file system says.
    pub total_bytes: Option<u64>,
    /// Bytes free, if the file system says.
    pub free_bytes: Option<u64>,
}

/// All shares that this API server knows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShareList {
    /// The shares by role and name.
    pub items: Vec<Share>,
}

/// Which folder, and from where on.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuery {
    /// Folder relative to the share; the root when absent.
    #[serde(default)]
    pub path: String,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Entries a page, 200 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A link, device or socket: shown, never followed.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Entry {
    /// Name within its folder. Bytes that are no UTF-8, and control characters, are shown as `\xNN`.
    pub name: String,
    /// `share:relative/path`, what `source` of a job takes; absent when the name cannot be addressed.
    pub location: Option<String>,
    /// Kind.
    pub kind: EntryKind,
    /// Bytes, for files.
    pub size: Option<u64>,
    /// Modification time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub modified_at: Option<OffsetDateTime>,
    /// True when the name looks like media (by its suffix only).
    pub media: bool,
    /// Checksum files beside it (`.md5`, `.sha256`), by name.
    pub sidecars: Vec<String>,
    /// Why it cannot be ingested; absent if it can.
    pub unusable: Option<String>,
}

/// A page of a folder: folders first, then by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntryPage {
    /// The folder as `share:relative/path`.
    pub location: String,
    /// The entries.
    pub items: Vec<Entry>,
    /// Cursor of the next page; absent on the last.
    pub next: Option<String>,
}

/// Shares with their state.
#[utoipa::path(
    get,
    path = "/shares",
    operation_id = "list_shares",
    tag = "shares",
    responses(
        (status = 200, description = "The shares.", body = ShareList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list() -> Result<Json<ShareList>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// What is in a folder of a source share. Operators only.
#[utoipa::path(
    get,
    path = "/shares/{name}/entries",
    operation_id = "list_entries",
    tag = "shares",
    params(("name" = String, Path, description = "Name of the share"), EntriesQuery),
    responses(
        (status = 200, description = "A page of the folder.", body = EntryPage),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn entries() -> Result<Json<EntryPage>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
