//! Finds a source tree: the person's override, then what `scripts/setup` unpacked. Nothing is fetched here.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::lock::{self, Locked};
use crate::{Context, announce, optional_env, rerun_if_changed};

/// The stamp that `scripts/setup` writes into an unpacked tree; it is no part of the tree's digest.
const STAMP: &str = ".trix-source";

/// A source tree that may be compiled.
#[derive(Debug)]
pub(crate) struct Source {
    /// Short name, `x264` or `x265`.
    pub(crate) name: &'static str,
    /// The root of the tree, as a real path.
    pub(crate) root: PathBuf,
    /// Digest of every file's path and content.
    pub(crate) digest: String,
    /// The lock's table; absent for an override, whose version is not known.
    pub(crate) locked: Option<Locked>,
}

/// Override → found → error with the way out.
pub(crate) fn find(context: &Context, name: &'static str) -> Result<Source> {
    match overridden(name)? {
        Some(source) => Ok(source),
        None => unpacked(context, name),
    }
}

/// `TRIX_X264_SRC` or `TRIX_X265_SRC`: any tree, taken as it is.
fn overridden(name: &'static str) -> Result<Option<Source>> {
    let variable = format!("TRIX_{}_SRC", name.to_uppercase());
    let Some(value) = optional_env(&variable) else {
        return Ok(None);
    };
    let root = fs::canonicalize(&value).map_err(|e| {
        Error::new(format!(
            "{variable}={value} is not a folder ({e}); unset it to compile the locked source"
        ))
    })?;
    rerun_if_changed(&root);
    let digest = tree_digest(&root)?;
    // A warning and not an announcement, since the bytes that come out are not the ones that the lock stands for.
    println!(
        "cargo::warning={name} is compiled from {variable}={value}, not from the locked source"
    );
    Ok(Some(Source { name, root, digest, locked: None }))
}

/// `.native/src/NAME`, which must be what the lock names and unchanged since setup unpacked it.
fn unpacked(context: &Context, name: &'static str) -> Result<Source> {
    let locked = lock::read(&context.root.join("vendor/lock.toml"), name)?;
    let link = context.root.join(".native/src").join(name);
    rerun_if_changed(&link.join(STAMP));
    let root = fs::canonicalize(&link).map_err(|_| {
        Error::new(format!(
            "the source of {name} is not there: run scripts/setup (or set TRIX_{}_SRC to a source tree)",
            name.to_uppercase()
        ))
    })?;
    let stamp_path = root.join(STAMP);
    let stamp = fs::read_to_string(&stamp_path).map_err(|e| {
        Error::new(format!(
            "{} has no stamp of scripts/setup ({e}): run scripts/setup",
            root.display()
        ))
    })?;
    let field = |key: &str| {
        stamp.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or_default()
    };
    if field("archive") != locked.sha256 {
        return Err(Error::new(format!(
            "{} was unpacked from another archive than vendor/lock.toml names: run scripts/setup",
            root.display()
        )));
    }
    let digest = tree_digest(&root)?;
    if field("tree") != digest {
        return Err(Error::new(format!(
            "{} was changed after scripts/setup unpacked it: remove the folder and run scripts/setup --fresh \
             (to compile a changed tree on purpose, copy it and set TRIX_{}_SRC)",
            root.display(),
            name.to_uppercase()
        )));
    }
    announce(&format!("{name} {}: source found in {}", locked.version, root.display()));
    Ok(Source { name, root, digest, locked: Some(locked) })
}

/// The digest of a tree: SHA-256 over the sorted lines `<digest>  ./<path>` of its files, which is what
/// `sha256sum` prints and `scripts/setup` hashes. Links are not followed and git's own folder is left out.
pub(crate) fn tree_digest(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort();
    let mut whole = Sha256::new();
    for relative in files {
        let path = root.join(&relative[2..]);
        let bytes = fs::read(&path).map_err(|e| Error::io("reading", &path, &e))?;
        whole.update(format!("{}  {relative}\n", hex(&Sha256::digest(&bytes))));
    }
    Ok(hex(&whole.finalize()))
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("listing", folder, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("listing", folder, &e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::io("reading the type of", &path, &e))?;
        if kind.is_dir() {
            if !(folder == root && entry.file_name() == ".git") {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() && entry.file_name() != STAMP {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let relative = relative.to_str().ok_or_else(|| {
                Error::new(format!("{} has a name that is not UTF-8", path.display()))
            })?;
            files.push(format!("./{relative}"));
        }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A folder of the test's own below cargo's, removed when it goes out of scope.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("trix-native-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_tree_digest_is_the_one_that_the_shell_script_computes() {
        let folder = Folder::new("digest");
        fs::create_dir_all(folder.0.join("b/c")).unwrap();
        fs::write(folder.0.join("b/c/one"), "1").unwrap();
        fs::write(folder.0.join("b-two"), "2").unwrap();
        fs::write(folder.0.join(STAMP), "not counted").unwrap();
        let shell = "find . -type f ! -name .trix-source ! -path './.git/*' -print0 | LC_ALL=C sort -z \
                     | xargs -0 sha256sum | sha256sum | cut -d' ' -f1";
        let output =
            Command::new("sh").args(["-c", shell]).current_dir(&folder.0).output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(tree_digest(&folder.0).unwrap(), expected.trim());
    }

    #[test]
    fn a_changed_file_changes_the_tree_digest() {
        let folder = Folder::new("change");
        fs::write(folder.0.join("a"), "1").unwrap();
        let before = tree_digest(&folder.0).unwrap();
        fs::write(folder.0.join("a"), "2").unwrap();
        assert_ne!(tree_digest(&folder.0).unwrap(), before);
    }
}
