//! Finding `trix-media` and becoming it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, bail};

/// Commands that parse media and are therefore `trix-media`'s.
pub const MEDIA_COMMANDS: &[&str] = &["encode", "probe", "plan", "verify", "engine-id"];

/// The `trix-media` that belongs to this `trix`: `TRIX_MEDIA_BIN`, else the
/// one beside it.
pub fn media_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRIX_MEDIA_BIN").filter(|v| !v.is_empty()) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("finding the path of this program")?;
    let beside = own.with_file_name("trix-media");
    if !beside.exists() {
        bail!(
            "{} does not exist; build it with `cargo build -p trix-cli` or name it in TRIX_MEDIA_BIN",
            beside.display()
        );
    }
    Ok(beside)
}

/// Becomes `trix-media` with the given arguments; returns only on failure.
pub fn become_media(arguments: impl Iterator<Item = OsString>) -> anyhow::Error {
    match media_binary() {
        Err(e) => e,
        Ok(path) => {
            let error = std::process::Command::new(&path).args(arguments).exec();
            anyhow::Error::new(error).context(format!("starting {}", path.display()))
        }
    }
}
