//! Findings: statements of quality control.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Must not be published without a decision.
    Error,
}

/// One statement: code, severity, place in time, measured and allowed value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code in snake_case, e.g. `checksum_mismatch`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
    /// Stream that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<u32>,
    /// First and last frame on the output timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<(u64, u64)>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}
