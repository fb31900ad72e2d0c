//! Opaque cursors of pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A position as a cursor.
pub fn encode(position: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_vec(position)
        .map(|json| URL_SAFE_NO_PAD.encode(json))
        .map_err(|e| Problem::internal("making a cursor", &e))
}

/// A cursor's position.
pub fn decode<T: DeserializeOwned>(cursor: &str) -> Result<T, Problem> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| {
            Problem::bad_request("bad_cursor", "the cursor is none that this list gave")
                .about(cursor)
                .allowed("`next` of the page before")
        })
}

/// A page's size: what was asked for within 1 to `most`, else `usual`.
pub fn limit(asked: Option<u32>, usual: u32, most: u32) -> Result<u32, Problem> {
    match asked {
        None => Ok(usual),
        Some(n) if (1..=most).contains(&n) => Ok(n),
        Some(n) => Err(Problem::bad_request("bad_limit", format!("a page of {n} is refused"))
            .about("limit")
            .allowed(format!("1 to {most}"))),
    }
}
