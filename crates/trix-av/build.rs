//! Makes sure that the libav found is the one that `scripts/setup` built.
//!
//! ffmpeg-sys-next asks pkg-config, and pkg-config falls back to the system's
//! libav without a word: other bytes, 160 more shared objects, other licences
//! of parts. So what was found is compared with setup's stamp, and anything
//! else stops the build.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "FFMPEG_DIR"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stamp = root.join(".native/libav/trix-stamp.json");
    println!("cargo:rerun-if-changed={}", stamp.display());
    match check(&stamp) {
        Ok(version) => println!("cargo:rustc-env=TRIX_LIBAV_VERSION={version}"),
        Err(why) => {
            eprintln!("trix-av: {why}; run scripts/setup");
            process::exit(1);
        }
    }
}

/// The version of our libav, or what is wrong.
fn check(stamp: &Path) -> Result<String, String> {
    // With this variable ffmpeg-sys-next would not ask pkg-config at all.
    if env::var_os("FFMPEG_DIR").is_some() {
        return Err("FFMPEG_DIR is set, which would link another libav".into());
    }
    let text = fs::read_to_string(stamp)
        .map_err(|e| format!("no libav of our own: reading {}: {e}", stamp.display()))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| format!("{} is damaged: {e}", stamp.display()))?;
    let field = |name: &str| {
        json[name]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("{} has no field {name:?}", stamp.display()))
    };
    let (version, wanted) = (field("version")?, field("prefix")?);
    for library in
        ["libavutil", "libavcodec", "libavformat", "libavfilter", "libswscale", "libswresample"]
    {
        let prefix = pkg_config::get_variable(library, "prefix")
            .map_err(|e| format!("pkg-config does not know {library}: {e}"))?;
        if real(&prefix)? != real(&wanted)? {
            return Err(format!("pkg-config found {library} in {prefix}, not in {wanted}"));
        }
    }
    let header = Path::new(&wanted).join("include/libavutil/ffversion.h");
    let header_text =
        fs::read_to_string(&header).map_err(|e| format!("reading {}: {e}", header.display()))?;
    if !header_text.contains(&format!("\"{version}\"")) {
        return Err(format!("{} does not say version {version}", header.display()));
    }
    // The safe layer is written against the structures of this series.
    if env::var_os("DEP_FFMPEG_FFMPEG_7_1").is_none_or(|v| v.is_empty()) {
        return Err(format!(
            "ffmpeg-sys-next was built against a libav older than 7.1 ({version})"
        ));
    }
    Ok(version)
}

fn real(path: &str) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))
}
