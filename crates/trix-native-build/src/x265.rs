//! x265: three static archives, one a bit depth, with its own CMake files.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::bindings::{self, Header};
use crate::error::{Error, Result};
use crate::source;
use crate::{Context, cache, optional_env, tool};

/// Raised by hand when this file changes what is compiled or how.
const RECIPE: u32 = 2;

/// Every depth gets these. libnuma is off because it makes the encoder undo the worker's pinning of threads.
const OPTIONS: [(&str, &str); 8] = [
    ("ENABLE_SHARED", "OFF"),
    ("ENABLE_CLI", "OFF"),
    ("ENABLE_PIC", "ON"),
    ("ENABLE_LIBNUMA", "OFF"),
    ("ENABLE_ASSEMBLY", "ON"),
    ("ENABLE_HDR10_PLUS", "OFF"),
    ("ENABLE_LIBVMAF", "OFF"),
    // x265 asks for a CMake older than a current one agrees to; an old CMake ignores the variable.
    ("CMAKE_POLICY_VERSION_MINIMUM", "3.5"),
];
/// As flags and not as CMake's visibility presets, which x265's policy version ignores for static libraries.
const C_FLAGS: [&str; 1] = ["-fvisibility=hidden"];
const CXX_FLAGS: [&str; 2] = ["-fvisibility=hidden", "-fvisibility-inlines-hidden"];

/// Put before every C++ source: each block that x265 asks for gets room behind it.
///
/// `mbtree_propagate_cost` for AVX2 stores four costs before it looks how many there are, and then
/// the rest of a count that is behind it already: up to seven into a row of one, two or three
/// (pictures up to 48 wide). What lies behind such a row on the heap is damaged. The compiler's own
/// `mm_malloc.h` declares the function once more and so must be read before the macro.
const SLACK: &str = "\
#include <stdlib.h>
#ifdef __x86_64__
#include <mm_malloc.h>
#endif
#define posix_memalign(pointer, alignment, size) posix_memalign(pointer, alignment, (size) + 256)
";

/// One archive. The order is the order of building; the 8 bit one has the C API and finds the others' by name.
struct Depth {
    bits: u32,
    options: &'static [(&'static str, &'static str)],
}

const DEPTHS: [Depth; 3] = [
    Depth {
        bits: 12,
        options: &[("HIGH_BIT_DEPTH", "ON"), ("MAIN12", "ON"), ("EXPORT_C_API", "OFF")],
    },
    Depth { bits: 10, options: &[("HIGH_BIT_DEPTH", "ON"), ("EXPORT_C_API", "OFF")] },
    Depth {
        bits: 8,
        options: &[
            // Names only: a static library links nothing, rustc brings the three together.
            ("EXTRA_LIB", "trix_x265_10;trix_x265_12"),
            ("LINKED_10BIT", "ON"),
            ("LINKED_12BIT", "ON"),
        ],
    },
];

fn library(bits: u32) -> String {
    format!("trix_x265_{bits}")
}

pub(crate) fn run(context: &Context) -> Result<()> {
    let source = source::find(context, "x265")?;
    let cmake_dir = source.root.join("source");
    let build_number = build_number(&cmake_dir)?;
    let entry = cache::find_or_build(context, &source, &inputs()?, |result, scratch| {
        build(&cmake_dir, result, scratch)
    })?;

    println!("cargo::rustc-link-search=native={}", entry.folder.display());
    let mut archives = Vec::new();
    for bits in [8, 10, 12] {
        println!("cargo::rustc-link-lib=static={}", library(bits));
        archives.push(entry.folder.join(format!("lib{}.a", library(bits))));
    }
    for system in ["stdc++", "dl", "m"] {
        println!("cargo::rustc-link-lib={system}");
    }
    let archives: Vec<_> = archives.iter().map(|path| path.display().to_string()).collect();
    println!("cargo::rustc-env=TRIX_NATIVE_KEY={}", entry.key);
    println!(
        "cargo::rustc-env=TRIX_NATIVE_VERSION={}",
        source.locked.as_ref().map_or("unknown", |locked| &locked.version)
    );
    println!("cargo::rustc-env=TRIX_NATIVE_ARCHIVES={}", archives.join(":"));
    println!("cargo::metadata=key={}", entry.key);

    bindings::write(
        &Header {
            name: "x265.h",
            before: &["stdint.h", "stdio.h", "stdbool.h"],
            include: &[cmake_dir, entry.folder.clone()],
            after: vec![format!("pub use self::x265_api_get_{build_number} as api_get;")],
        },
        &context.out_dir.join("bindings.rs"),
    )
}

/// What decides the bytes beside the sources.
fn inputs() -> Result<Vec<String>> {
    let compiler = |cpp: bool, package| {
        let mut build = cc::Build::new();
        build.cpp(cpp).cargo_metadata(false).cargo_debug(false);
        let tool = build
            .try_get_compiler()
            .map_err(|e| Error::new(format!("no compiler: {e}; run scripts/setup")))?;
        tool::compiler(&tool, package)
    };
    let mut inputs = vec![
        format!("x265 recipe {RECIPE}"),
        compiler(false, "gcc")?,
        compiler(true, "g++")?,
        tool::nasm()?,
        C_FLAGS.join(" "),
        CXX_FLAGS.join(" "),
        SLACK.to_owned(),
    ];
    tool::version("cmake", &["--version"], "cmake")?;
    for (name, value) in OPTIONS.iter().chain(DEPTHS.iter().flat_map(|depth| depth.options)) {
        inputs.push(format!("{name}={value}"));
    }
    // CMake adds the person's flags to its own, so they are part of what was built.
    for variable in ["CFLAGS", "CXXFLAGS"] {
        inputs.push(format!("{variable}={}", optional_env(variable).unwrap_or_default()));
    }
    Ok(inputs)
}

fn build(cmake_dir: &Path, result: &Path, scratch: &Path) -> Result<()> {
    let slack = scratch.join("slack.h");
    fs::write(&slack, SLACK).map_err(|e| Error::io("writing", &slack, &e))?;
    for depth in &DEPTHS {
        let folder = scratch.join(depth.bits.to_string());
        fs::create_dir_all(&folder).map_err(|e| Error::io("making", &folder, &e))?;
        compile(cmake_dir, &folder, depth, &slack)?;
        let built = folder.join("build/libx265.a");
        copy(&built, &result.join(format!("lib{}.a", library(depth.bits))))?;
        if depth.bits == 8 {
            // x265.h includes it; CMake writes it.
            copy(&folder.join("build/x265_config.h"), &result.join("x265_config.h"))?;
        }
    }
    Ok(())
}

fn compile(cmake_dir: &Path, folder: &PathBuf, depth: &Depth, slack: &Path) -> Result<()> {
    let mut config = cmake::Config::new(cmake_dir);
    config
        .out_dir(folder)
        // CMake's own Release flags rule, whatever cargo's profile is.
        .no_default_flags(true)
        .profile("Release")
        .build_target("x265-static");
    for (name, value) in OPTIONS.iter().chain(depth.options) {
        config.define(name, value);
    }
    for flag in C_FLAGS {
        config.cflag(flag);
    }
    for flag in CXX_FLAGS {
        config.cxxflag(flag);
    }
    config.cxxflag(format!("-include {}", slack.display()));
    // The cmake crate panics when a step fails, after CMake has printed why.
    catch_unwind(AssertUnwindSafe(|| config.build()))
        .map(drop)
        .map_err(|_| {
            Error::new(format!(
                "x265 can't be compiled for {} bit; what CMake said is above (`cargo build -vv` shows all of it)",
                depth.bits
            ))
        })
}

/// The API version, which CMakeLists.txt sets and the header's function names carry.
fn build_number(cmake_dir: &Path) -> Result<u32> {
    let path = cmake_dir.join("CMakeLists.txt");
    let text = fs::read_to_string(&path).map_err(|e| Error::io("reading", &path, &e))?;
    text.lines()
        .find_map(|line| {
            line.trim().strip_prefix("set(X265_BUILD ")?.strip_suffix(')')?.trim().parse().ok()
        })
        .ok_or_else(|| Error::new(format!("{} sets no X265_BUILD", path.display())))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|e| Error::io("copying", from, &e))
}
