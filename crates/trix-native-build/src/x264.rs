//! x264: both bit depths in one archive, with cc and nasm. Its own configure is not run: what it would find out is
//! known for the one target that is supported, and the two headers that it would write are below.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bindings::{self, Header};
use crate::error::{Error, Result};
use crate::source::{self, Source};
use crate::{Context, cache, rerun_if_changed, tool};

/// Raised by hand when this file changes what is compiled or how.
const RECIPE: u32 = 1;
const DEPTHS: [u32; 2] = [8, 10];

const C_ONCE: [&str; 5] =
    ["common/osdep.c", "common/base.c", "common/cpu.c", "common/tables.c", "encoder/api.c"];
const C_PER_DEPTH: [&str; 27] = [
    "common/mc.c",
    "common/predict.c",
    "common/pixel.c",
    "common/macroblock.c",
    "common/frame.c",
    "common/dct.c",
    "common/cabac.c",
    "common/common.c",
    "common/rectangle.c",
    "common/set.c",
    "common/quant.c",
    "common/deblock.c",
    "common/vlc.c",
    "common/mvpred.c",
    "common/bitstream.c",
    "common/threadpool.c",
    "common/x86/mc-c.c",
    "common/x86/predict-c.c",
    "encoder/analyse.c",
    "encoder/me.c",
    "encoder/ratecontrol.c",
    "encoder/set.c",
    "encoder/macroblock.c",
    "encoder/cabac.c",
    "encoder/cavlc.c",
    "encoder/encoder.c",
    "encoder/lookahead.c",
];
const ASM_ONCE: [&str; 1] = ["cpu-a"];
const ASM_PER_DEPTH: [&str; 12] = [
    "dct-64",
    "trellis-64",
    "bitstream-a",
    "const-a",
    "cabac-a",
    "dct-a",
    "deblock-a",
    "mc-a",
    "mc-a2",
    "pixel-a",
    "predict-a",
    "quant-a",
];

/// With these the library gives the bytes of Debian's own x264 program, at every depth and preset that was compared.
const C_FLAGS: [&str; 10] = [
    "-O3",
    "-std=gnu99",
    "-D_GNU_SOURCE",
    "-ffast-math",
    "-mpreferred-stack-boundary=6",
    "-fomit-frame-pointer",
    "-fno-tree-vectorize",
    "-fPIC",
    "-fvisibility=hidden",
    "-m64",
];
const ASM_FLAGS: [&str; 5] = ["-f", "elf64", "-DARCH_X86_64=1", "-DSTACK_ALIGNMENT=64", "-DPIC"];

const TRELLIS_LABELS: [&str; 6] = [
    "trellis_bnode_0",
    "trellis_bnode_1",
    "trellis_coef0_0",
    "trellis_coef0_1",
    "trellis_coef1",
    "trellis_coefn",
];

/// What configure finds on Linux for x86-64 with a current gcc and glibc, and what is chosen: both depths, GPL, interlaced.
const CONFIG_ON: [&str; 18] = [
    "HAVE_MALLOC_H",
    "HAVE_X86_INLINE_ASM",
    "HAVE_MMX",
    "ARCH_X86_64",
    "SYS_LINUX",
    "HAVE_POSIXTHREAD",
    "HAVE_CPU_COUNT",
    "HAVE_THREAD",
    "HAVE_LOG2F",
    "HAVE_STRTOK_R",
    "HAVE_CLOCK_GETTIME",
    "HAVE_MMAP",
    "HAVE_THP",
    "HAVE_VECTOREXT",
    "HAVE_BITDEPTH8",
    "HAVE_BITDEPTH10",
    "HAVE_GPL",
    "HAVE_INTERLACED",
];
/// Other processors, other systems, and what only the command line program uses.
const CONFIG_OFF: [&str; 24] = [
    "HAVE_ALTIVEC",
    "HAVE_ALTIVEC_H",
    "HAVE_ARMV6",
    "HAVE_ARMV6T2",
    "HAVE_NEON",
    "HAVE_AARCH64",
    "HAVE_BEOSTHREAD",
    "HAVE_WIN32THREAD",
    "HAVE_SWSCALE",
    "HAVE_LAVF",
    "HAVE_FFMS",
    "HAVE_GPAC",
    "HAVE_AVS",
    "HAVE_OPENCL",
    "HAVE_LSMASH",
    "HAVE_AS_FUNC",
    "HAVE_INTEL_DISPATCHER",
    "HAVE_MSA",
    "HAVE_LSX",
    "HAVE_SVE",
    "HAVE_SVE2",
    "HAVE_WINRT",
    "HAVE_VSX",
    "HAVE_ARM_INLINE_ASM",
];

pub(crate) fn run(context: &Context) -> Result<()> {
    let source = source::find(context, "x264")?;
    let build_number = bindings::defined_number(&source.root.join("x264.h"), "X264_BUILD")?;
    let compiler = compiler(Path::new("/"));
    let inputs = vec![
        format!("x264 recipe {RECIPE}"),
        tool::compiler(
            &compiler
                .try_get_compiler()
                .map_err(|e| Error::new(format!("no C compiler: {e}; run scripts/setup")))?,
            "gcc",
        )?,
        tool::nasm()?,
        C_FLAGS.join(" "),
        ASM_FLAGS.join(" "),
        config(),
        api_config(&source, build_number),
    ];
    let entry = cache::find_or_build(context, &source, &inputs, |result, scratch| {
        build(&source, build_number, result, scratch)
    })?;

    println!("cargo::rustc-link-search=native={}", entry.folder.display());
    println!("cargo::rustc-link-lib=static=trix_x264");
    println!("cargo::rustc-link-lib=m");
    println!("cargo::rustc-env=TRIX_NATIVE_KEY={}", entry.key);
    println!("cargo::rustc-env=TRIX_NATIVE_VERSION={}", version(&source, build_number));
    println!(
        "cargo::rustc-env=TRIX_NATIVE_ARCHIVES={}",
        entry.folder.join("libtrix_x264.a").display()
    );
    println!("cargo::metadata=key={}", entry.key);

    bindings::write(
        &Header {
            name: "x264.h",
            before: &["stdint.h", "stdarg.h"],
            include: &[source.root.clone(), entry.folder.clone()],
            after: vec![format!(
                "pub use self::x264_encoder_open_{build_number} as x264_encoder_open;"
            )],
        },
        &context.out_dir.join("bindings.rs"),
    )?;
    rerun_if_changed(&entry.folder.join("x264_config.h"));
    Ok(())
}

/// Compiles everything into `result`: the archive and the header that x264.h includes.
fn build(source: &Source, build_number: u32, result: &Path, scratch: &Path) -> Result<()> {
    write(&result.join("x264_config.h"), &api_config(source, build_number))?;
    write(&scratch.join("config.h"), &config())?;
    let include = [scratch.to_owned(), result.to_owned(), source.root.clone()];

    let mut objects = compile_c(source, &include, &C_ONCE, &scratch.join("once"), None)?;
    for depth in DEPTHS {
        // cc names an object after its source, so each depth needs a folder of its own.
        let folder = scratch.join(format!("depth{depth}"));
        objects.extend(compile_c(source, &include, &C_PER_DEPTH, &folder, Some(depth))?);
    }
    objects.extend(assemble(source, scratch)?);

    compiler(result)
        .objects(objects)
        .try_compile("trix_x264")
        .map_err(|e| Error::new(format!("x264 can't be archived: {e}")))
}

/// cc without the flags that it and cargo would add, so that the profile of the build changes nothing.
fn compiler(out_dir: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .no_default_flags(true)
        .warnings(false)
        .inherit_rustflags(false)
        .cargo_metadata(false)
        .cargo_warnings(false)
        .cargo_debug(false)
        .out_dir(out_dir);
    build
}

fn compile_c(
    source: &Source,
    include: &[PathBuf],
    files: &[&str],
    out_dir: &Path,
    depth: Option<u32>,
) -> Result<Vec<PathBuf>> {
    let mut build = compiler(out_dir);
    for flag in C_FLAGS {
        build.flag(flag);
    }
    build.includes(include);
    if let Some(depth) = depth {
        build.define("BIT_DEPTH", depth.to_string().as_str());
        build.define("HIGH_BIT_DEPTH", if depth > 8 { "1" } else { "0" });
    }
    build
        .files(files.iter().map(|file| source.root.join(file)))
        .try_compile_intermediates()
        .map_err(|e| Error::new(format!("x264 can't be compiled: {e}")))
}

/// Runs nasm over every file, one process a core at most.
fn assemble(source: &Source, scratch: &Path) -> Result<Vec<PathBuf>> {
    let mut jobs = Vec::new();
    for name in ASM_ONCE {
        jobs.push((name, None));
    }
    for depth in DEPTHS {
        let sad = if depth == 8 { "sad-a" } else { "sad16-a" };
        for name in ASM_PER_DEPTH.into_iter().chain([sad]) {
            jobs.push((name, Some(depth)));
        }
    }
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize);
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len()) {
            scope.spawn(|| {
                while let Some((name, depth)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let object = assemble_one(source, scratch, name, *depth);
                    let mut outcome = outcome.lock().unwrap_or_else(|e| e.into_inner());
                    match (&mut *outcome, object) {
                        (Ok(objects), Ok(object)) => objects.push(object),
                        (Ok(_), Err(error)) => *outcome = Err(error),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    let mut objects = outcome.into_inner().unwrap_or_else(|e| e.into_inner())?;
    // The threads finish in any order; the archive is to be the same every time.
    objects.sort();
    Ok(objects)
}

fn assemble_one(
    source: &Source,
    scratch: &Path,
    name: &str,
    depth: Option<u32>,
) -> Result<PathBuf> {
    let suffix = depth.map_or("once".to_owned(), |depth| depth.to_string());
    let object = scratch.join(format!("{name}-{suffix}.o"));
    let mut nasm = Command::new("nasm");
    // nasm writes the source's name into the object, so it gets one that is the same on every machine.
    nasm.current_dir(&source.root).args(ASM_FLAGS);
    for folder in [scratch, Path::new("."), Path::new("common/x86")] {
        // nasm joins the folder and the name without a separator.
        nasm.arg(format!("-I{}/", folder.display()));
    }
    if let Some(depth) = depth {
        nasm.arg(format!("-DBIT_DEPTH={depth}"));
        nasm.arg(format!("-Dprivate_prefix=x264_{depth}"));
    }
    let output = nasm
        .arg("-o")
        .arg(&object)
        .arg(format!("common/x86/{name}.asm"))
        .output()
        .map_err(|e| Error::new(format!("nasm can't be run ({e}): run scripts/setup")))?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "nasm can't assemble {name}.asm: {}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    if let Some(depth) = depth
        && name == "trellis-64"
    {
        localise(&object, depth)?;
    }
    Ok(object)
}

/// trellis-64.asm makes its inner labels global with default visibility, for profilers. Only the file itself jumps to
/// them, so they become local: nothing of x264 is to be visible from outside the binary.
fn localise(object: &Path, depth: u32) -> Result<()> {
    let mut objcopy = Command::new("objcopy");
    for label in TRELLIS_LABELS {
        objcopy.arg(format!("--localize-symbol=x264_{depth}_{label}"));
    }
    let status = objcopy
        .arg(object)
        .status()
        .map_err(|e| Error::new(format!("objcopy can't be run ({e}): run scripts/setup")))?;
    if !status.success() {
        return Err(Error::new(format!("objcopy ended with {status}")));
    }
    Ok(())
}

/// The version as x264 writes it into its SEI: `0.164.3095 baee400`, or the API number alone for an override.
fn version(source: &Source, build_number: u32) -> String {
    match &source.locked {
        Some(locked) => match locked.revision.split_once(' ') {
            Some((_, commit)) => format!("{} {commit}", locked.version),
            None => locked.version.clone(),
        },
        None => format!("0.{build_number}.x"),
    }
}

/// x264_config.h, the part of the configuration that the public header includes.
fn api_config(source: &Source, build_number: u32) -> String {
    let revision =
        source.locked.as_ref().map(|locked| format!(" {}", locked.revision)).unwrap_or_default();
    format!(
        "#define X264_GPL 1\n#define X264_INTERLACED 1\n#define X264_BIT_DEPTH 0\n#define X264_CHROMA_FORMAT 0\n\
         #define X264_VERSION \"{revision}\"\n#define X264_POINTVER \"{}\"\n",
        version(source, build_number)
    )
}

/// config.h, the private part.
fn config() -> String {
    let mut text =
        String::from("#define STACK_ALIGNMENT 64\n#define fseek fseeko\n#define ftell ftello\n");
    for name in CONFIG_ON {
        text.push_str(&format!("#define {name} 1\n"));
    }
    for name in CONFIG_OFF {
        text.push_str(&format!("#define {name} 0\n"));
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::io("writing", path, &e))
}
