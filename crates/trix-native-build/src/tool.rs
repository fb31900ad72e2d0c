//! The programs that a compile needs, found and named before it starts.

use std::process::Command;

use crate::error::{Error, Result};

/// Runs `program arguments` and gives the first line that it prints: its version, which is part of the cache key.
pub(crate) fn version(program: &str, arguments: &[&str], package: &str) -> Result<String> {
    let missing = |why: String| {
        Error::new(format!(
            "the program {program} is needed ({why}): run scripts/setup, or install the package {package}"
        ))
    };
    let output =
        Command::new(program).args(arguments).output().map_err(|e| missing(e.to_string()))?;
    if !output.status.success() {
        return Err(missing(format!("it ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// nasm, new enough for the AVX-512 functions.
pub(crate) fn nasm() -> Result<String> {
    let version = version("nasm", &["-v"], "nasm")?;
    let number = version
        .split_whitespace()
        .nth(2)
        .and_then(|number| {
            let mut parts = number.split(['.', 'r']).map(str::parse::<u32>);
            Some((parts.next()?.ok()?, parts.next()?.ok()?))
        })
        .ok_or_else(|| Error::new(format!("nasm's version can't be read from `{version}`")))?;
    if number < (2, 14) {
        return Err(Error::new(format!(
            "{version} is too old for the AVX-512 functions: 2.14 or newer is needed"
        )));
    }
    Ok(version)
}

/// The version of a compiler that cc found.
pub(crate) fn compiler(tool: &cc::Tool, package: &str) -> Result<String> {
    let path = tool.path().to_string_lossy();
    version(&path, &["--version"], package)
}
