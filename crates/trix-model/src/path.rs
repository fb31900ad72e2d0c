//! Paths as the database, the API and plans know them: `share:relative/path`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// Why a path was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No `share:` in front.
    #[error("{0:?} is not of the form share:relative/path")]
    NoShare(String),
    /// A share's name has other characters than allowed.
    #[error("share name {0:?}: 1 to 63 of a-z, 0-9 and -, beginning with a letter")]
    ShareName(String),
    /// Leading slash.
    #[error("{0:?} is absolute; paths are relative to their share")]
    Absolute(String),
    /// A component `..` or `.`, or an empty one.
    #[error("{0:?} has a component that is empty, \".\" or \"..\"")]
    Component(String),
    /// A NUL byte or another control character.
    #[error("{0:?} has a control character")]
    Control(String),
    /// Too long for the file systems that shares live on.
    #[error("a component of {0:?} is longer than 255 bytes, or the whole longer than 4095")]
    TooLong(String),
}

/// The name of a logical share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(String);

/// A path below a share's root: no leading slash, no `.` or `..`, no control
/// characters. The empty path is the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

/// A file or folder on a share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharePath {
    /// On which share.
    pub share: ShareName,
    /// Where below its root.
    pub path: RelPath,
}

impl ShareName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RelPath {
    /// The root of a share.
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// The path as text, components separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the share's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// All but the last component.
    pub fn parent(&self) -> RelPath {
        RelPath(self.0.rsplit_once('/').map_or(String::new(), |(p, _)| p.to_owned()))
    }

    /// This path with `more` below it.
    pub fn join(&self, more: &str) -> Result<RelPath, PathError> {
        if self.is_root() { more.parse() } else { format!("{}/{more}", self.0).parse() }
    }
}

impl SharePath {
    /// A path on a share.
    pub fn new(share: ShareName, path: RelPath) -> SharePath {
        SharePath { share, path }
    }
}

impl FromStr for ShareName {
    type Err = PathError;
    fn from_str(s: &str) -> Result<ShareName, PathError> {
        let ok = (1..=63).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok { Ok(ShareName(s.to_owned())) } else { Err(PathError::ShareName(s.to_owned())) }
    }
}

impl FromStr for RelPath {
    type Err = PathError;
    fn from_str(s: &str) -> Result<RelPath, PathError> {
        let own = || s.to_owned();
        if s.is_empty() {
            return Ok(RelPath::root());
        }
        if s.starts_with('/') {
            return Err(PathError::Absolute(own()));
        }
        if s.chars().any(char::is_control) {
            return Err(PathError::Control(own()));
        }
        if s.len() > 4095 || s.split('/').any(|c| c.len() > 255) {
            return Err(PathError::TooLong(own()));
        }
        if s.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return Err(PathError::Component(own()));
        }
        Ok(RelPath(own()))
    }
}

impl FromStr for SharePath {
    type Err = PathError;
    fn from_str(s: &str) -> Result<SharePath, PathError> {
        let (share, path) = s.split_once(':').ok_or_else(|| PathError::NoShare(s.to_owned()))?;
        Ok(SharePath { share: share.parse()?, path: path.parse()? })
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.share, self.path)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(ShareName, RelPath, SharePath);

/// A path as file systems that ignore case and Unicode form compare it. Two paths that fold to
/// the same text must not both be published on a share.
pub fn fold(path: &str) -> String {
    // Upper case first, so that letters with several lower-case forms (ς, ſ) and those that
    // grow in upper case (ß) meet.
    path.nfd().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_share() {
        for bad in
            ["in:../x", "in:a/../b", "in:/etc/passwd", "in:a//b", "in:./a", "in:a\0b", "in:a/"]
        {
            assert!(bad.parse::<SharePath>().is_err(), "{bad:?} was accepted");
        }
        let p: SharePath = "in:Фильм/имя с пробелом 🎬.mov".parse().unwrap();
        assert_eq!(p.to_string(), "in:Фильм/имя с пробелом 🎬.mov");
        assert_eq!(p.path.file_name(), "имя с пробелом 🎬.mov");
        assert!("IN:x".parse::<SharePath>().is_err());
        assert!("no-share".parse::<SharePath>().is_err());
    }

    #[test]
    fn names_that_a_file_system_takes_for_one_fold_alike() {
        for (a, b) in [
            ("Film", "film"),
            ("ФИЛЬМ", "фильм"),
            ("\u{e9}", "E\u{301}"),
            ("\u{c5}", "\u{212b}"),
            ("straße", "STRASSE"),
            ("ς", "Σ"),
            ("ﬁ", "FI"),
        ] {
            assert_eq!(fold(a), fold(b), "{a:?} and {b:?}");
        }
        assert_ne!(fold("film"), fold("films"));
    }
}
