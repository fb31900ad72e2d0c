//! Clocks that can be set: libfaketime beneath a process, steered by a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The library, if it is installed.
pub fn library() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let mut places = folders.iter().map(|f| Path::new(f).join("faketime/libfaketimeMT.so.1"));
    places.find(|p| p.exists())
}

/// Lets a command's wall clock follow a file. Monotonic time is left alone, as it is by
/// whoever sets a real clock.
pub fn give(command: &mut Command, file: &Path) -> Result<()> {
    let library = library().context("libfaketime is not installed (package faketime)")?;
    if !file.exists() {
        set(file, 0)?;
    }
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Sets the clock behind a file to so many seconds beside the true time.
pub fn set(file: &Path, offset_s: i64) -> Result<()> {
    let new = file.with_extension("clock-new");
    std::fs::write(&new, format!("{offset_s:+}\n"))
        .and_then(|()| std::fs::rename(&new, file))
        .with_context(|| format!("setting the clock {}", file.display()))
}
