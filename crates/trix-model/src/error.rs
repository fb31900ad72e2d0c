//! Failures as the service sees them: who is to blame and whether to retry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether trying again can help. The dispatcher matches on it, never on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Network, database, share, lost worker: retried with back-off.
    Transient,
    /// Memory, disk, limits: retried with more, or later.
    Resource,
    /// The same input gives the same error: fails once.
    Deterministic,
    /// The process died: once more elsewhere, then quarantined.
    Crash,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorOrigin {
    /// The file that was delivered.
    Source,
    /// What the operator asked for: profile, parameters, request.
    Request,
    /// The machine.
    Node,
    /// A share.
    Share,
    /// Codecs and libraries.
    Engine,
    /// Our own mistake.
    Bug,
}

/// A failure that crosses a process or database border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether to retry.
    pub class: ErrorClass,
    /// Whose fault.
    pub origin: ErrorOrigin,
    /// Stable machine-readable code in snake_case, e.g. `no_video`, `share_unavailable`.
    pub code: String,
    /// One sentence for a person: operation, object, cause.
    pub message: String,
    /// What it is about: a path, a key, a frame number; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
}

impl Failure {
    /// A failure with all its parts but the object.
    pub fn new(
        class: ErrorClass,
        origin: ErrorOrigin,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Failure {
        Failure { class, origin, code: code.into(), message: message.into(), object: String::new() }
    }

    /// The file is at fault; trying again gives the same.
    pub fn source(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure::new(ErrorClass::Deterministic, ErrorOrigin::Source, code, message)
    }

    /// The request is at fault.
    pub fn request(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure::new(ErrorClass::Deterministic, ErrorOrigin::Request, code, message)
    }

    /// An invariant of ours was broken.
    pub fn bug(message: impl Into<String>) -> Failure {
        Failure::new(ErrorClass::Deterministic, ErrorOrigin::Bug, "bug", message)
    }

    /// A share went away or misbehaves.
    pub fn share(message: impl Into<String>) -> Failure {
        Failure::new(ErrorClass::Transient, ErrorOrigin::Share, "share_unavailable", message)
    }

    /// Names the object that the failure is about.
    pub fn about(mut self, object: impl fmt::Display) -> Failure {
        self.object = object.to_string();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.object.is_empty() && !self.message.contains(&self.object) {
            write!(f, " ({})", self.object)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// An error and its causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
