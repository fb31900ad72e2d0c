//! Shares and what is on them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_model::{PathError, RelPath, ShareName, SharePath};
use trix_plan::task::SidecarAlgorithm;
use trix_storage::dir;
use trix_storage::fixity::sidecar_of;
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Caller, Operator};
use crate::cursor;
use crate::extract::{Body, Path, Query};
use crate::problem::Problem;
use crate::state::App;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
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

/// How many attempts may use a share at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareSlots {
    /// Reading; no limit when null.
    #[schema(minimum = 1)]
    pub read: Option<u32>,
    /// Writing; no limit when null.
    #[schema(minimum = 1)]
    pub write: Option<u32>,
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
pub async fn list(State(app): State<App>, _: Caller) -> Json<ShareList> {
    let mut items: Vec<Share> = app
        .shares
        .iter()
        .map(|w| {
            let seen = w.seen();
            Share {
                name: w.name.to_string(),
                role: w.root.role.into(),
                state: seen.state.into(),
                since: seen.since,
                reason: (!seen.reason.is_empty()).then_some(seen.reason),
                total_bytes: seen.space.map(|s| s.total),
                free_bytes: seen.space.map(|s| s.free),
            }
        })
        .collect();
    items.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
    Json(ShareList { items })
}

/// Limits how many attempts may read a share, and write to it, at once. Operators only.
/// What runs above a lowered limit goes on.
#[utoipa::path(
    put,
    path = "/shares/{name}/slots",
    operation_id = "set_share_slots",
    tag = "shares",
    params(("name" = String, Path, description = "Name of the share")),
    request_body = ShareSlots,
    responses(
        (status = 200, description = "It has these limits.", body = ShareSlots),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn set_slots(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    Body(slots): Body<ShareSlots>,
) -> Result<Json<ShareSlots>, Problem> {
    /// A row a slot: this many cost nothing, and no share serves more at once.
    const MOST: u32 = 10_000;
    for (key, n) in [("read", slots.read), ("write", slots.write)] {
        if n.is_some_and(|n| !(1..=MOST).contains(&n)) {
            let title = format!("so many slots for {key} are refused");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_slots", title)
                .about(key)
                .allowed(format!("1 to {MOST}, or null for no limit")));
        }
    }
    let db = app.db.audited(caller.audit("share.slots"));
    db.set_slots(&name, slots.read, slots.write).await?;
    Ok(Json(slots))
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
pub async fn entries(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
    Query(query): Query<EntriesQuery>,
) -> Result<Json<EntryPage>, Problem> {
    let limit = cursor::limit(query.limit, 200, 1000)? as usize;
    let share: ShareName = name.parse().map_err(|e| bad_path(&name, &e))?;
    let folder: RelPath = query.path.parse().map_err(|e| bad_path(&query.path, &e))?;
    require_source(&app, &share)?;
    let after: Option<(EntryKind, String)> =
        query.cursor.as_deref().map(cursor::decode).transpose()?;
    let wanted = folder.clone();
    let mut all = app
        .shares
        .call(&share, SOURCE_UNAVAILABLE, move |s| s.list(&wanted))
        .await?
        .into_iter()
        .map(|e| (EntryKind::from(e.kind), e))
        .collect::<Vec<_>>();
    all.sort_by(|(ak, a), (bk, b)| (ak, &a.name).cmp(&(bk, &b.name)));
    let names: Vec<String> = all.iter().map(|(_, e)| e.name.clone()).collect();
    let mut rest = all
        .into_iter()
        .filter(|(kind, e)| after.as_ref().is_none_or(|(k, n)| (*kind, &e.name) > (*k, n)));
    let mut items = Vec::new();
    let mut last = None;
    for (kind, e) in rest.by_ref().take(limit) {
        last = Some((kind, e.name.clone()));
        let usable = e.unusable.is_none() && kind != EntryKind::Other;
        let path = folder.join(&e.name).ok().filter(|_| usable);
        let file = kind == EntryKind::File;
        items.push(Entry {
            location: path.map(|p| SharePath::new(share.clone(), p).to_string()),
            size: file.then_some(e.size),
            modified_at: OffsetDateTime::from_unix_timestamp_nanos(e.mtime_ns.into()).ok(),
            media: file && is_media(&e.name),
            sidecars: if file { sidecars_of(&names, &e.name) } else { Vec::new() }
                .into_iter()
                .map(|(_, name)| name.to_owned())
                .collect(),
            name: e.name,
            kind,
            unusable: e.unusable,
        });
    }
    let next = match (rest.next(), last) {
        (Some(_), Some(last)) => Some(cursor::encode(&last)?),
        _ => None,
    };
    let location = SharePath::new(share, folder).to_string();
    Ok(Json(EntryPage { location, items, next }))
}

/// Code of 503 for a source share that is away.
pub(crate) const SOURCE_UNAVAILABLE: &str = "source_unavailable";

/// Suffixes of files that people ingest.
const MEDIA: &[&str] = &[
    "mov", "mp4", "m4v", "mkv", "mxf", "ts", "m2ts", "mts", "m2t", "trp", "mpg", "mpeg", "vob",
    "avi", "wav", "aif", "aiff", "flac", "webm", "dv", "264", "h264", "265", "hevc", "ivf",
];

fn is_media(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, suffix)| {
        !stem.is_empty() && MEDIA.iter().any(|m| m.eq_ignore_ascii_case(suffix))
    })
}

/// Refuses a path, saying what is allowed.
pub(crate) fn bad_path(path: &str, e: &PathError) -> Problem {
    Problem::bad_request("bad_path", format!("the path is refused: {e}"))
        .about(path)
        .allowed("a path below its share, without a leading slash, \"..\" or control characters")
}

/// Refuses shares that are no source here.
pub(crate) fn require_source(app: &App, name: &ShareName) -> Result<(), Problem> {
    let sources = || {
        let names = app.shares.iter().filter(|w| w.root.role == Source).map(|w| w.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    use trix_storage::share::ShareRole::Source;
    match app.shares.get(name) {
        Some(w) if w.root.role == Source => Ok(()),
        Some(_) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not_a_source",
            format!("share {name} is no source share"),
        )
        .about(name)
        .allowed(sources())),
        None => Err(Problem::not_found("source share", name).allowed(sources())),
    }
}

/// The checksum files of `names` that are about the file `name`.
pub(crate) fn sidecars_of<'a>(names: &'a [String], name: &str) -> Vec<(SidecarAlgorithm, &'a str)> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    // A list for the whole folder is nobody's own, but about each of its media.
    let listed = is_media(name);
    names
        .iter()
        .filter_map(|candidate| match sidecar_of(candidate)? {
            (algorithm, Some(of)) if of == name || of == stem && listed => {
                Some((algorithm, candidate.as_str()))
            }
            (algorithm, None) if listed => Some((algorithm, candidate.as_str())),
            _ => None,
        })
        .collect()
}

impl From<dir::EntryKind> for EntryKind {
    fn from(kind: dir::EntryKind) -> EntryKind {
        match kind {
            dir::EntryKind::Dir => EntryKind::Folder,
            dir::EntryKind::File => EntryKind::File,
            dir::EntryKind::Link | dir::EntryKind::Other => EntryKind::Other,
        }
    }
}

impl From<trix_storage::share::ShareRole> for ShareRole {
    fn from(role: trix_storage::share::ShareRole) -> ShareRole {
        use trix_storage::share::ShareRole as R;
        match role {
            R::Source => ShareRole::Source,
            R::Output => ShareRole::Output,
            R::Preview => ShareRole::Preview,
            R::Cache => ShareRole::Cache,
        }
    }
}

impl From<trix_storage::share::ShareState> for ShareState {
    fn from(state: trix_storage::share::ShareState) -> ShareState {
        use trix_storage::share::ShareState as S;
        match state {
            S::Ok => ShareState::Ok,
            S::Slow => ShareState::Slow,
            S::Hung => ShareState::Hung,
            S::Gone => ShareState::Gone,
            S::Wrong => ShareState::Wrong,
            S::ReadOnly => ShareState::Ro,
            S::Full => ShareState::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_file_belongs_to_the_file_that_it_names() {
        let names: Vec<String> =
            ["film.mov", "film.mov.md5", "film.sha256", "MD5SUMS", "other.md5"]
                .map(str::to_owned)
                .into();
        let found: Vec<_> = sidecars_of(&names, "film.mov").into_iter().map(|s| s.1).collect();
        assert_eq!(found, ["film.mov.md5", "film.sha256", "MD5SUMS"]);
        assert!(sidecars_of(&names, "readme.txt").is_empty());
    }
}
