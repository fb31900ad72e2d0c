//! The operator UI: the files of `ui/dist`, embedded with feature `ui`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What stands in `index.html` where the nonce of the response goes.
const NONCE_PLACE: &str = "__CSP_NONCE__";

/// Answered when no UI was built in.
const NO_UI: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>trix</title>\
    <h1>This trix was built without its UI</h1>\
    <p>Build the UI in <code>ui/</code> and then cargo with the feature <code>ui</code>: \
    <code>scripts/demo</code> does both. The API answers under <code>/api/v1</code>.</p></html>";

#[cfg(feature = "ui")]
#[derive(rust_embed::RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../../ui/dist"]
#[allow_missing = true]
struct Dist;

struct Asset {
    bytes: std::borrow::Cow<'static, [u8]>,
    hash: [u8; 32],
}

#[cfg(feature = "ui")]
fn asset(name: &str) -> Option<Asset> {
    let file = Dist::get(name)?;
    Some(Asset { hash: file.metadata.sha256_hash(), bytes: file.data })
}

#[cfg(not(feature = "ui"))]
fn asset(_: &str) -> Option<Asset> {
    None
}

/// `/` and `/interface` lead to the UI.
pub async fn to_interface() -> Redirect {
    Redirect::temporary("/interface/")
}

/// A file of the UI; paths that are none give `index.html`, because the UI has
/// its own routes.
pub async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let name = uri.path().trim_start_matches("/interface").trim_start_matches('/');
    if name != "index.html"
        && let Some(asset) = asset(name)
    {
        return static_file(name, asset, &headers);
    }
    // A file that is asked for by an old page must not be answered with a page.
    if name.starts_with("assets/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    page()
}

fn static_file(name: &str, asset: Asset, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&asset.hash[..18]));
    // Vite puts a hash of the content into the names below assets/.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let builder = Response::builder()
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, cache)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    let response = if known {
        builder.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        builder.header(header::CONTENT_TYPE, mime.as_ref()).body(Body::from(asset.bytes))
    };
    response.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The page that starts the UI, with a nonce of its own for the style elements
/// that the component library makes.
fn page() -> Response {
    let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>());
    let html = match asset("index.html") {
        Some(asset) => String::from_utf8_lossy(&asset.bytes).replace(NONCE_PLACE, &nonce),
        None => NO_UI.to_owned(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; \
         img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; \
         connect-src 'self'; manifest-src 'self'; worker-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    let mut response = axum::response::Html(html).into_response();
    let headers = response.headers_mut();
    // The policy is made of plain ASCII.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
