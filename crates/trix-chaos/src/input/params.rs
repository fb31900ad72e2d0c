//! Row B5: random profiles for every encoder, from the document to the encoded chunk.
//!
//! A setting is refused with its key when the profile is read, or the chunk is encoded. What the
//! table lets through and the library then refuses, or dies of, is a defect of the table.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trix_model::ErrorClass;
use trix_plan::encoder::VideoVariant;
use trix_plan::params::{self, Kind};
use trix_plan::planner::{Delivery, plan1};
use trix_plan::profile::Profile;
use trix_plan::task::{EncodeChunk, IntakeResult, SourceRef, TaskSpec};
use trix_slot::{InputName, Usage};
use trix_testkit::clips;

use super::Site;
use super::report::{Counts, Verdict};
use super::run::{self, Extent, lock};
use super::seed::Random;
use super::slots::{Baseline, Caps, Slots, again, source_ref};
use super::trial::Bench;

const ROW: &str = "B5";

/// FFV1, the eighth, is lossless and has three parameters; it comes along.
const VARIANTS: &[VideoVariant] = VideoVariant::ALL;

/// What a chunk of some frames may take: sizes up to 4096 columns are among them.
const CAPS: Caps = Caps {
    wall: Duration::from_secs(600),
    cpu: Duration::from_secs(300),
    ram: 6 << 30,
    disk: 1 << 30,
};

/// Pictures to encode: size, pixel format, frames.
const SOURCES: &[(&str, &str, u32)] = &[
    ("96x64", "yuv420p", 8),
    ("97x65", "yuv444p", 6),
    ("64x48", "yuv422p10le", 6),
    ("66x34", "yuv420p12le", 4),
    ("96x64", "yuv420p", 1),
    ("16x16", "yuv420p", 3),
    ("18x1200", "yuv420p", 2),
    ("1200x18", "yuv420p10le", 2),
];

/// Settings that a table once let through and a library then refused or died of; the names of
/// their kinds, and what stands behind [`HEAD`].
const MENDED: &[(&str, &str)] = &[
    (
        "slices without wavefronts (SIGSEGV)",
        "encoder = \"x265-10\"\nbitrate_kbps = 5000\nmaxrate_kbps = 20000\nbufsize_kbit = 1\n\
         threads = 8\n[rendition.params]\nanalyze-src-pics = \"0\"\nslices = \"14\"\namp = \"0\"\n",
    ),
    (
        "histograms over padded lines (SIGSEGV)",
        "encoder = \"x265-10\"\npreset = \"veryfast\"\nqp = 6\nheight = 1081\nthreads = 3\n\
         [rendition.params]\nvbv-end = \"548280.344428\"\nhist-scenecut = \"1\"\n",
    ),
    (
        "a lookahead's tree of few blocks (SIGSEGV)",
        "encoder = \"x265-8\"\npreset = \"veryfast\"\ntune = \"animation\"\nbitrate_kbps = 1\n\
         height = 18\nthreads = 3\n[rendition.params]\ntemporal-layers = \"1\"\n",
    ),
    (
        "a lookahead's tree of few blocks (SIGABRT)",
        "encoder = \"x265-12\"\npreset = \"ultrafast\"\nbitrate_kbps = 5000\nheight = 33\n\
         [rendition.params]\naud = \"0\"\nfades = \"1\"\ntemporal-mvp = \"0\"\n",
    ),
    (
        "a bit rate of level 8.5",
        "encoder = \"x265-12\"\npreset = \"veryfast\"\nbitrate_kbps = 2000000\n\
         [rendition.params]\nref = \"2\"\nconstrained-intra = \"1\"\n",
    ),
    (
        "a matrix that a quantiser divides by nothing",
        "encoder = \"x264-10\"\npreset = \"veryfast\"\nqp = 12\n\
         [rendition.params]\ncqm4py = \"1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1\"\n",
    ),
    ("slices that split a chroma sample", "encoder = \"ffv1\"\nwidth = 64\nheight = 250\n"),
    ("a tile of a third", "encoder = \"x264-8\"\n[rendition.params]\nframe-packing = \"7\"\n"),
];

/// A source that intake has seen.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    name: SourceRef,
    intake: IntakeResult,
    index: File,
}

/// Runs the row.
pub fn run(site: &Site, seed: u64, extent: &Extent) -> Result<Counts> {
    let slots = Slots::new(&site.media, &site.folder.join("stages"))?;
    let sources = sources(&slots, &site.folder.join("pictures"))?;
    let baseline = Baseline::take()?;
    let mut counts = run::all(extent, &|n, counts| one(&slots, &sources, seed, n, counts))?;
    counts.defects(extent.from + extent.count, "after all", baseline.grown(128 << 20)?);
    counts.defects(extent.from + extent.count, "after all", slots.orphans()?);
    Ok(counts)
}

fn sources(slots: &Slots, folder: &Path) -> Result<Vec<Source>> {
    fs::create_dir_all(folder).context("making a folder for pictures")?;
    let bench = Bench::new(slots)?;
    SOURCES
        .iter()
        .enumerate()
        .map(|(n, (size, format, frames))| {
            let path = folder.join(format!("{n}.mkv"));
            clips::make(
                &path,
                &format!(
                    "-f lavfi -i testsrc2=s={size}:r=25 -frames:v {frames} \
                     -pix_fmt {format} -c:v ffv1 -threads 1"
                ),
            );
            let name = source_ref(&path)?;
            let (trial, taken) = bench.intake(&path, &name)?;
            ensure!(trial.defects.is_empty(), "intake of {size}: {:?}", trial.defects);
            let (intake, index) = taken.with_context(|| format!("{size} {format} is refused"))?;
            Ok(Source { path, name, intake, index })
        })
        .collect()
}

/// Each of [`MENDED`] with each source: refused by name, or encoded.
pub fn mended(site: &Site) -> Result<Counts> {
    let slots = Slots::new(&site.media, &site.folder.join("stages"))?;
    let sources = sources(&slots, &site.folder.join("pictures"))?;
    let counts = Mutex::default();
    let all = MENDED.iter().flat_map(|(_, text)| sources.iter().map(move |s| (s, *text)));
    for (n, (source, text)) in (0..).zip(all) {
        input(&slots, source, &format!("{HEAD}{text}"), 12, n, &counts)?;
    }
    Ok(run::into(counts))
}

fn one(slots: &Slots, sources: &[Source], seed: u64, n: u64, counts: &Mutex<Counts>) -> Result<()> {
    let mut random = Random::of(seed, ROW, n);
    let source = random.pick(sources);
    let text = profile(&mut random);
    // No frame, one frame, or all.
    let frames = random.below(12) as u32;
    input(slots, source, &text, frames, n, counts)
}

/// One profile and one source, up to `frames` encoded frames.
fn input(
    slots: &Slots,
    source: &Source,
    text: &str,
    frames: u32,
    n: u64,
    counts: &Mutex<Counts>,
) -> Result<()> {
    let (mut usage, mut defects) = (Usage::default(), Vec::new());
    let verdict = match chunk(slots, source, text) {
        Err(refusal) => {
            if !refusal.named {
                defects.push(format!("refused without a key: {}", refusal.words));
            }
            Verdict::Refused(refusal.code)
        }
        Ok((mut chunk, outputs, cost)) => {
            chunk.range.count = frames.min(chunk.range.count);
            let inputs = vec![
                (InputName::Source, open(&source.path)?),
                (InputName::Artifact(chunk.index), again(&source.index)?),
            ];
            let spec = TaskSpec::EncodeChunk(chunk);
            let attempt = slots.run(&spec, &outputs, &cost, inputs, &CAPS)?;
            usage = attempt.usage;
            defects.extend(attempt.defects.iter().cloned());
            let verdict = match &attempt.outcome {
                Some(Ok(_)) => Verdict::Ok,
                Some(Err(failure)) => {
                    let what = format!("{} ({})", failure.message, failure.code);
                    defects.push(format!("the table allows it, the encoder does not: {what}"));
                    match failure.class {
                        ErrorClass::Crash | ErrorClass::Resource => {
                            Verdict::Crash(failure.code.clone())
                        }
                        _ => Verdict::Refused(failure.code.clone()),
                    }
                }
                None => Verdict::Crash("endless".to_owned()),
            };
            attempt.remove()?;
            verdict
        }
    };
    let mut counts = lock(counts);
    counts.add(&verdict);
    counts.took(&usage);
    counts.defects(n, &one_line(text), defects);
    Ok(())
}

/// A refusal before anything runs.
struct Refusal {
    code: String,
    /// It says which key is wrong.
    named: bool,
    words: String,
}

type Chunk = (EncodeChunk, Vec<trix_plan::task::Output>, trix_plan::task::Cost);

/// Reads the profile and plans with it.
fn chunk(slots: &Slots, source: &Source, text: &str) -> Result<Chunk, Refusal> {
    let profile = Profile::parse(text).map_err(|e| Refusal {
        code: "bad_profile".to_owned(),
        named: e.problems.iter().all(|p| {
            let last = p.key.rsplit('.').next().unwrap_or("");
            !last.is_empty() && text.contains(last)
        }),
        words: e.to_string(),
    })?;
    let refused = |code: &str, words: String| Refusal { code: code.to_owned(), named: true, words };
    let (intake, name) = (&source.intake, &source.name);
    let plan = plan1(&profile, intake, name, slots.engine(), "A", Delivery::Folder)
        .map_err(|e| refused(&trix_model::Failure::from(e).code, String::new()))?;
    plan.tasks
        .into_iter()
        .find_map(|task| match task.spec {
            TaskSpec::EncodeChunk(chunk) => Some((chunk, task.outputs, task.cost)),
            _ => None,
        })
        .ok_or_else(|| refused("no_chunk", String::new()))
}

/// What every profile here begins with.
const HEAD: &str = "v = 1\nname = \"chaos\"\n[package]\ncontainer = \"mkv\"\n\
    [publish]\nshare = \"output\"\npath = \"{title}\"\n[[rendition]]\nname = \"r\"\n";

/// A profile of one file with random settings, mostly allowed ones.
fn profile(random: &mut Random) -> String {
    let variant = *random.pick(VARIANTS);
    let mut text = HEAD.to_owned();
    let mut set = |key: &str, value: String| {
        // Writing to a string never fails.
        let _ = writeln!(text, "{key} = {value}");
    };
    set("encoder", quoted(variant.as_str()));
    let presets = params::presets(variant);
    if variant != VideoVariant::Ffv1 && !random.one_in(8) {
        // The slow ones differ by search depth alone and take most of the time.
        let fast = &presets[..presets.len().min(5)];
        let preset = if random.one_in(6) { random.pick(presets) } else { random.pick(fast) };
        set("preset", quoted(preset));
    }
    let tunes = params::tunes(variant);
    if !tunes.is_empty() && random.one_in(4) {
        set("tune", quoted(random.pick_str(tunes)));
    }
    rate(variant, random, &mut set);
    for side in ["width", "height"] {
        if random.one_in(5) {
            let sizes = [15, 16, 17, 18, 33, 64, 250, 640, 1081, 4096, 16_384, 16_385];
            set(side, random.pick(&sizes).to_string());
        }
    }
    if random.one_in(6) {
        let all = ["4:2:0", "4:2:2", "4:4:4", "source"];
        set("chroma", quoted(random.pick_str(&all)));
    }
    if random.one_in(4) {
        set("threads", random.pick(&[1, 2, 3, 4, 8]).to_string());
    }
    let table = params::table(variant);
    let mut given: Vec<(&str, String)> = Vec::new();
    for _ in 0..random.below(7) {
        let Some(param) = (!table.is_empty()).then(|| random.pick(table)) else { break };
        if given.iter().any(|(name, _)| *name == param.name) {
            continue;
        }
        let value = match random.below(24) {
            0 => nonsense(random),
            1..=5 => random.pick(&param.kind.limits()).clone(),
            _ => value(&param.kind, random),
        };
        given.push((param.name, value));
    }
    if !given.is_empty() {
        text.push_str("[rendition.params]\n");
        for (name, value) in given {
            let _ = writeln!(text, "{} = {}", quoted(name), quoted(&value));
        }
    }
    text
}

fn rate(variant: VideoVariant, random: &mut Random, set: &mut impl FnMut(&str, String)) {
    let vbv = |random: &mut Random, set: &mut dyn FnMut(&str, String)| {
        if random.one_in(3) {
            let rates = [1, 50, 500, 20_000, 2_000_000];
            set("maxrate_kbps", random.pick(&rates).to_string());
            set("bufsize_kbit", random.pick(&rates).to_string());
        }
    };
    if variant == VideoVariant::Ffv1 {
        return;
    }
    match random.below(6) {
        0 => {}
        1..=2 => {
            let crf = random.between(-1300, 5300);
            set("crf", quoted(&params::decimal_text(crf * 10_000)));
            vbv(random, set);
        }
        3 => {
            let qp = if random.one_in(8) { 300 } else { random.between(0, 69) };
            set("qp", qp.to_string());
        }
        4 => {
            let rates = [1, 20, 300, 5000, 2_000_000, 2_000_001];
            set("bitrate_kbps", random.pick(&rates).to_string());
            vbv(random, set);
        }
        _ => set("lossless", "true".to_owned()),
    }
}

/// An allowed value.
fn value(kind: &Kind, random: &mut Random) -> String {
    match kind {
        Kind::Bool => random.below(2).to_string(),
        Kind::Int { min, max } => {
            // Half of them near the lower end, where the meaningful values of large ranges lie.
            let top = if random.one_in(2) { *max } else { (*max).min(min.saturating_add(16)) };
            random.between(*min, top).to_string()
        }
        Kind::Decimal { min, max } => params::decimal_text(random.between(*min, *max)),
        Kind::Choice(all) => (*random.pick(all)).to_owned(),
        Kind::List { of, min, max } => {
            let n = *min + random.below(max - min + 1);
            let values: Vec<String> = (0..n).map(|_| value(of, random)).collect();
            values.join(",")
        }
        Kind::OffOr(kind) => {
            if random.one_in(3) {
                "false".to_owned()
            } else {
                value(kind, random)
            }
        }
    }
}

fn nonsense(random: &mut Random) -> String {
    let all =
        ["", " ", "-1", "99999999999999999999", "nan", "1e9", "%n%n%s", "1:2=3", "0x7f", "−5"];
    (*random.pick(&all)).to_owned()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn one_line(text: &str) -> String {
    text.strip_prefix(HEAD).unwrap_or(text).lines().collect::<Vec<_>>().join("; ")
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}
