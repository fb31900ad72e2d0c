//! Compiles x264 and x265 for trix-x264-sys and trix-x265-sys.
//!
//! The order is always the same, and each step says what it found:
//! the sources ([`source`]: override, then `.native/src`), the build ([`cache`]: found, then built),
//! the link lines, the bindings ([`bindings`]).
//!
//! **A build script never uses the network.** What is missing is fetched by `scripts/setup`.

mod bindings;
mod cache;
mod error;
mod lock;
mod source;
mod tool;
mod x264;
mod x265;

use std::path::{Path, PathBuf};

use error::{Error, Result};

/// Entry point of the shared build script. Ends the process with a message for the person when something is missing.
pub fn main() {
    if let Err(error) = run() {
        // Cargo shows this line beside the crate's name; the text has the way out.
        println!("cargo::error={}", error.to_string().replace('\n', " "));
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let context = Context::from_env()?;
    match context.links.as_str() {
        "trix_x264" => x264::run(&context),
        "trix_x265" => x265::run(&context),
        other => Err(Error::new(format!(
            "trix-native-build does not know how to build a crate with links = \"{other}\""
        ))),
    }
}

/// What cargo tells a build script, read once.
struct Context {
    /// The `links` key of the crate that is built.
    links: String,
    /// The checkout: the folder with `vendor/` and `.native`.
    root: PathBuf,
    /// Where the bindings go.
    out_dir: PathBuf,
}

impl Context {
    fn from_env() -> Result<Context> {
        let manifest_dir = PathBuf::from(env("CARGO_MANIFEST_DIR")?);
        let root = manifest_dir
            .ancestors()
            .nth(2)
            .filter(|root| root.join("vendor/lock.toml").is_file())
            .ok_or_else(|| {
                Error::new(format!(
                    "no vendor/lock.toml two folders above {}: the sys crates are built inside trix's checkout",
                    manifest_dir.display()
                ))
            })?;
        let target = env("TARGET")?;
        if target != "x86_64-unknown-linux-gnu" || env("HOST")? != target {
            return Err(Error::new(format!(
                "target {target}: x264 and x265 are compiled for x86_64-unknown-linux-gnu on such a host only, \
                 since the lists of assembly files are for it"
            )));
        }
        let context = Context {
            links: env("CARGO_MANIFEST_LINKS")?,
            root: root.to_owned(),
            out_dir: PathBuf::from(env("OUT_DIR")?),
        };
        rerun_if_changed(&context.root.join("vendor/lock.toml"));
        Ok(context)
    }
}

/// A variable that cargo always sets.
fn env(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::new(format!("{name} is not set: this runs as a cargo build script only"))
    })
}

/// A variable of the person's, empty meaning unset. Cargo runs the script again when it changes.
fn optional_env(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// Says what a step found; cargo shows it with `-vv` and keeps it in the build folder's `output`.
fn announce(text: &str) {
    println!("trix-native-build: {text}");
}
