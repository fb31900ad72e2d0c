//! One error type: a sentence for the person who runs cargo.

use std::fmt;
use std::path::Path;

/// What went wrong and the way out, as one text.
#[derive(Debug)]
pub(crate) struct Error(String);

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }

    /// An operation on a path that failed, with its cause.
    pub(crate) fn io(operation: &str, path: &Path, cause: &std::io::Error) -> Error {
        Error(format!("{operation} {}: {cause}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
