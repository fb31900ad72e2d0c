//! Compiled archives, kept outside the target folder so that a fresh clone on the same machine compiles nothing.
//!
//! An entry is a folder named by its key. It is made beside the cache under a lock of its own and moved into place
//! whole, so that neither two builds at once nor a build that was killed leaves half an entry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::source::{Source, hex};
use crate::{Context, announce, optional_env, rerun_if_changed};

/// A finished entry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The folder with the archives and the generated headers.
    pub(crate) folder: PathBuf,
    /// The key: it names sources, flags and compilers, and no path of this machine.
    pub(crate) key: String,
}

/// Found → built. `inputs` is everything beside the sources that decides the bytes: flags, compilers, the recipe.
/// `build` fills the empty folder that it gets first and may use the second as scratch.
pub(crate) fn find_or_build(
    context: &Context,
    source: &Source,
    inputs: &[String],
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<Entry> {
    let key = key(source, inputs);
    let root = root(context)?;
    let encoders = root.join("encoders");
    let name = format!("{}-{key}", source.name);
    let folder = encoders.join(&name);
    fs::create_dir_all(&encoders).map_err(|e| Error::io("making", &encoders, &e))?;

    let lock_path = encoders.join(format!(".{name}.lock"));
    let lock = File::create(&lock_path).map_err(|e| Error::io("making", &lock_path, &e))?;
    lock.lock().map_err(|e| Error::io("locking", &lock_path, &e))?;
    if folder.is_dir() {
        announce(&format!("{}: compiled before, found in {}", source.name, folder.display()));
    } else {
        announce(&format!("{}: compiling into {}", source.name, folder.display()));
        let work = encoders.join(format!(".{name}.work"));
        // Whoever was here before us and died held this lock, so the folder is nobody's.
        remove(&work)?;
        let (result, scratch) = (work.join("result"), work.join("scratch"));
        for path in [&result, &scratch] {
            fs::create_dir_all(path).map_err(|e| Error::io("making", path, &e))?;
        }
        build(&result, &scratch)?;
        fs::rename(&result, &folder).map_err(|e| Error::io("moving into place", &folder, &e))?;
        remove(&work)?;
    }
    // Should the cache be emptied, the script runs again; cargo holds its own copy of the archives until then.
    rerun_if_changed(&folder);
    Ok(Entry { folder, key })
}

fn key(source: &Source, inputs: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("source {}\n", source.digest));
    for input in inputs {
        // Length first, so that two lists that read the same when joined differ.
        hash.update(format!("{} {input}\n", input.len()));
    }
    hex(&hash.finalize()[..8])
}

/// The variable, then the cache that setup linked, then the same default as setup's.
fn root(context: &Context) -> Result<PathBuf> {
    let linked = context.root.join(".native/cache");
    if let Some(value) = optional_env("TRIX_NATIVE_CACHE") {
        return Ok(PathBuf::from(value));
    }
    if let Ok(path) = fs::canonicalize(&linked) {
        return Ok(path);
    }
    if let Some(value) = optional_env("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(value).join("trix-native"));
    }
    optional_env("HOME")
        .map(|home| PathBuf::from(home).join(".cache/trix-native"))
        .ok_or_else(|| Error::new("no place for compiled encoders: set TRIX_NATIVE_CACHE or HOME"))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, &e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(digest: &str) -> Source {
        Source { name: "x264", root: PathBuf::new(), digest: digest.to_owned(), locked: None }
    }

    #[test]
    fn the_key_depends_on_source_and_inputs_and_their_borders() {
        let inputs = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let a = key(&source("1"), &inputs(&["-O3", "gcc"]));
        assert_eq!(a, key(&source("1"), &inputs(&["-O3", "gcc"])));
        assert_ne!(a, key(&source("2"), &inputs(&["-O3", "gcc"])));
        assert_ne!(a, key(&source("1"), &inputs(&["-O3gcc"])));
        assert_ne!(a, key(&source("1"), &inputs(&["-O3", "clang"])));
    }
}
