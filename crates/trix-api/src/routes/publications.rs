//! Published files.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use trix_db::jobs::PublicationRow;
use trix_model::state;
use trix_model::{RelPath, SharePath};
use trix_storage::dir::SourceFile;
use trix_storage::share::ShareRole;
use utoipa::ToSchema;

use crate::auth::{Caller, Operator};
use crate::extract::Path;
use crate::problem::Problem;
use crate::range::{self, Wanted};
use crate::state::App;

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

/// A job that takes a publication back.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Retraction {
    /// The job.
    pub job: i64,
    /// False when an earlier call made it.
    pub created: bool,
}

/// Takes a publication back: a job moves its files out of sight. Operators only. The same
/// publication gives the same job, unless that failed.
#[utoipa::path(
    post,
    path = "/publications/{id}/retract",
    operation_id = "retract_publication",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the publication")),
    responses(
        (status = 200, description = "A job does it.", body = Retraction),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn retract(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
) -> Result<Json<Retraction>, Problem> {
    let db = app.db.audited(caller.audit("publication.retract"));
    let made = db.retract(id, caller.id).await?;
    tracing::info!(publication = id, job = %made.job, "retract asked for");
    Ok(Json(Retraction { job: made.job.0, created: made.created }))
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
pub async fn file(
    State(app): State<App>,
    _: Caller,
    Path((id, name)): Path<(i64, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("published file", format!("{id}/{name}"));
    let publication = app.db.publication(id).await?.ok_or_else(missing)?;
    if publication.state != state::PublicationState::Published {
        return Err(missing());
    }
    let file = publication.manifest.files.iter().find(|f| f.name.as_str() == name);
    let file = file.ok_or_else(missing)?;
    let share = publication.manifest.share.clone();
    match app.shares.get(&share) {
        Some(w) if matches!(w.root.role, ShareRole::Output | ShareRole::Preview) => {}
        _ => return Err(missing()),
    }
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    let etag = format!("\"{}\"", file.sha256);
    let header_value = |text: &str| {
        HeaderValue::from_str(text).map_err(|e| Problem::internal("answering with a file", &e))
    };
    out.insert(header::ETAG, header_value(&etag)?);
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime(&name)));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Bytes of other people stand on our origin: nothing in them may run.
    out.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let (start, length) = match range::wanted(&headers, &etag, file.size) {
        Wanted::All => (0, file.size),
        Wanted::Part { start, length } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {start}-{}/{}", start + length - 1, file.size);
            response.headers_mut().insert(header::CONTENT_RANGE, header_value(&text)?);
            (start, length)
        }
        Wanted::Nothing => {
            let text = format!("bytes */{}", file.size);
            let mut refused = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            refused.headers_mut().insert(header::CONTENT_RANGE, header_value(&text)?);
            return Ok(refused);
        }
    };
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("too_many_streams", "too many files are being sent", 5)
    })?;
    let path = location(&publication, &file.name);
    let size = file.size;
    let opened = app.shares.call(&share, "share_unavailable", move |s| s.open_read(&path)).await?;
    if opened.size() != size {
        let object = opened.object().to_owned();
        return Err(Problem::internal(
            "reading a published file",
            &format!("{object} has {} bytes and {size} were published", opened.size()),
        ));
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let (send, mut receive) = mpsc::channel(READ_AHEAD);
    std::thread::Builder::new()
        .name("send file".to_owned())
        .spawn(move || {
            read(&opened, start, length, &send);
            drop(permit);
        })
        .map_err(|e| Problem::internal("starting a thread", &e))?;
    let bytes = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
    *response.body_mut() = Body::from_stream(bytes);
    Ok(response)
}

/// Bytes that are read and sent at once.
const BLOCK: u64 = 256 * 1024;
/// Blocks that are read ahead of the client.
const READ_AHEAD: usize = 2;

/// Reads on a thread of its own, because a share may hang. It ends when the
/// client has gone, at the latest with the next block.
fn read(
    file: &SourceFile,
    mut at: u64,
    mut left: u64,
    send: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    while left > 0 {
        let mut block = vec![0; left.min(BLOCK) as usize];
        let result = match file.read_full_at(&mut block, at) {
            Ok(n) if n == block.len() => Ok(Bytes::from(block)),
            Ok(_) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            Err(e) => Err(e),
        };
        if let Err(e) = &result {
            tracing::warn!(object = file.object(), at, error = %e, "reading a published file");
        }
        let (failed, n) = (result.is_err(), left.min(BLOCK));
        if send.blocking_send(result).is_err() || failed {
            return;
        }
        at += n;
        left -= n;
    }
}

/// Where a published file lies beneath its share.
fn location(p: &PublicationRow, name: &RelPath) -> RelPath {
    let below = format!("v{}/{name}", p.version);
    // Target and name are checked paths, so their joint is one, unless it is too long
    // for any file system; then nothing is found at the root.
    p.manifest.target.join(&below).unwrap_or_default()
}

/// Types that are served; all else is bytes to download.
fn mime(name: &str) -> &'static str {
    let suffix = name.rsplit_once('.').map_or("", |(_, s)| s).to_ascii_lowercase();
    match suffix.as_str() {
        "mp4" | "m4v" => "video/mp4",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "m4a" => "audio/mp4",
        "m4s" => "video/iso.segment",
        "flac" => "audio/flac",
        "wav" => "audio/wav",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "vtt" => "text/vtt; charset=utf-8",
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

/// Path of a published file on this server.
pub(crate) fn url(publication: i64, name: &str) -> String {
    let mut url = format!("/api/v1/publications/{publication}/files/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(byte as char);
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

impl From<PublicationRow> for Publication {
    fn from(p: PublicationRow) -> Publication {
        let published = p.state == state::PublicationState::Published;
        let files = p
            .manifest
            .files
            .iter()
            .map(|f| PublishedFile {
                name: f.name.to_string(),
                location: SharePath::new(p.manifest.share.clone(), location(&p, &f.name))
                    .to_string(),
                size: f.size,
                sha256: f.sha256.to_string(),
                mime: mime(f.name.as_str()).to_owned(),
                url: published.then(|| url(p.id, f.name.as_str())),
            })
            .collect();
        Publication {
            id: p.id,
            files,
            role: p.manifest.role,
            share: p.manifest.share.to_string(),
            target: p.manifest.target.to_string(),
            version: p.version,
            state: match p.state {
                state::PublicationState::Prepared => PublicationState::Prepared,
                state::PublicationState::Moving => PublicationState::Moving,
                state::PublicationState::Published => PublicationState::Published,
                state::PublicationState::Conflict => PublicationState::Conflict,
                state::PublicationState::Retracted => PublicationState::Retracted,
            },
            current: p.current,
            published_at: p.published_at,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_files_address_keeps_any_name() {
        assert_eq!(super::url(7, "a b/Ж.mp4"), "/api/v1/publications/7/files/a%20b%2F%D0%96.mp4");
    }
}
