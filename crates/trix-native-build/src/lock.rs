//! `vendor/lock.toml`: which archive each native source comes from.
//!
//! The file is read by `scripts/setup` too, so it keeps to tables of one string a line, and so does this reader:
//! anything else is refused rather than half understood.

use std::path::Path;

use crate::error::{Error, Result};

/// One table of the lock.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Locked {
    /// The upstream version, as the archive's name says it.
    pub(crate) version: String,
    /// What upstream's version script would print; only x264 has one.
    pub(crate) revision: String,
    /// Hexadecimal SHA-256 of the archive.
    pub(crate) sha256: String,
}

/// Reads the table `name`.
pub(crate) fn read(path: &Path, name: &str) -> Result<Locked> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, &e))?;
    parse(&text, name).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

fn parse(text: &str, name: &str) -> Result<Locked> {
    let mut locked = Locked::default();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(table) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = table == name;
            continue;
        }
        let (key, value) = line
            .split_once(" = ")
            .and_then(|(key, value)| Some((key, value.strip_prefix('"')?.strip_suffix('"')?)))
            .ok_or_else(|| Error::new(format!("line {} is not `key = \"value\"`", index + 1)))?;
        if inside {
            match key {
                "version" => locked.version = value.to_owned(),
                "revision" => locked.revision = value.to_owned(),
                "sha256" => locked.sha256 = value.to_owned(),
                _ => {}
            }
        }
    }
    if locked.version.is_empty() || locked.sha256.len() != 64 {
        return Err(Error::new(format!(
            "table [{name}] needs a version and a sha256 of 64 digits"
        )));
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "8b237e94b08c196a1da22f2f25875f10be4cff3648df4eeff21e00da8f683fc2";

    #[test]
    fn the_named_table_is_read_and_no_other() {
        let text = format!(
            "# prose\n[a]\nversion = \"1\"\nsha256 = \"{SHA}\"\n\n[b]\nversion = \"2\"\nrevision = \"r7 abc\"\nsha256 = \"{SHA}\"\n"
        );
        let a = parse(&text, "a").unwrap();
        let b = parse(&text, "b").unwrap();
        assert_eq!((a.version.as_str(), a.revision.as_str()), ("1", ""));
        assert_eq!((b.version.as_str(), b.revision.as_str()), ("2", "r7 abc"));
    }

    #[test]
    fn what_the_shell_script_could_not_read_is_refused() {
        let error = parse("[a]\nversion = 1\n", "a").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn a_table_without_a_digest_is_refused() {
        let error = parse("[a]\nversion = \"1\"\nsha256 = \"12\"\n", "a").unwrap_err();
        assert!(error.to_string().contains("64 digits"), "{error}");
    }

    #[test]
    fn the_repositorys_own_lock_has_both_encoders() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vendor/lock.toml");
        assert_eq!(read(&path, "x264").unwrap().version, "0.164.3095");
        assert_eq!(read(&path, "x265").unwrap().version, "3.5");
    }
}
