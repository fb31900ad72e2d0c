//! The invariants I1 to I23 of the protocol, and whoever checks them.
//!
//! ```text
//! rules    over the rows at one moment         simulation, replay, real installations
//! stream   over the events in their order      simulation, replay, real installations
//! install  all of them, and the folders        real installations
//! ```

pub mod install;
pub mod rules;
pub mod stream;

pub use install::{CheckError, Journals, Looked, Mounted, Report, check};

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// A violation.
    pub fn new(rule: &'static str, what: impl Into<String>) -> Violation {
        Violation { rule, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}
