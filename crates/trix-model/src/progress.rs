//! How far an attempt is.

use serde::{Deserialize, Serialize};

/// A snapshot of a running attempt; sent at least once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in one word: `read`, `decode`, `encode`, `mux`, `verify`, `copy`.
    pub phase: String,
    /// Units done: frames for pictures, samples for sound, bytes for copies.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// Pictures that came out of encoders so far, over all renditions.
    pub frames: u64,
}
