//! The real clips: each ends in a frame-exact encode, or in a refusal that names why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trix_testkit::clips::{self, real_clips};

use crate::support::{Place, Ran, frame_times, lines};

/// At most this much of the timeline is encoded in tests; `scripts/bench --clips` takes all.
const LONGEST_SECONDS: f64 = 40.0;

/// Clips of which Debian's ffprobe 5.1 is no judge, with what is known of them instead.
const NOT_JUDGED: &[(&str, usize, &str)] =
    &[("ax_sample_vvc.mp4", 120, "Debian 12's libav has no VVC decoder; 120 samples in its table")];

/// What became of a file.
enum Outcome {
    Encoded(usize),
    Refused { code: String, class: String, message: String },
    TooLong,
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Seconds of a film by its container; 0 where it states none, or where there is no picture.
fn seconds(path: &Path) -> f64 {
    let out = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=duration:stream=codec_type", "-of", "flat"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    if !text.contains("codec_type=\"video\"") {
        return 0.0;
    }
    let line = text.lines().find_map(|l| l.strip_prefix("format.duration="));
    line.and_then(|v| v.trim_matches('"').parse().ok()).unwrap_or(0.0)
}

/// Intake and plan of a film that is too long to be encoded in a test.
fn inspected(place: &Place, path: &Path) -> Outcome {
    let mut command = crate::support::media();
    command.env("XDG_CACHE_HOME", place.path("xdg")).arg("plan").arg(path);
    let output = command.output().unwrap();
    if output.status.success() {
        return Outcome::TooLong;
    }
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = stderr.trim_end().strip_prefix(&format!("trix: {}: ", path.display()));
    let (message, code) = line.and_then(|l| l.rsplit_once(" [")).expect("a typed refusal");
    Outcome::Refused {
        code: code.trim_end_matches(']').to_owned(),
        class: "deterministic".to_owned(),
        message: message.to_owned(),
    }
}

fn outcome(place: &Place, path: &Path) -> Outcome {
    if seconds(path) > LONGEST_SECONDS {
        return inspected(place, path);
    }
    let output = format!("{}.mkv", name(path));
    let arguments =
        ["--video", "x264-8", "--preset", "ultrafast", "--size", "160x160", "--audio", "aac"];
    let ran = Ran::of(place.command(path, &output, &arguments));
    if !ran.status.success() {
        assert_eq!(ran.status.code(), Some(1), "{}: {}", path.display(), ran.stderr);
        let failure = &ran.last()["failure"];
        let text = |key: &str| failure[key].as_str().unwrap_or_default().to_owned();
        let (code, class, origin) = (text("code"), text("class"), text("origin"));
        assert_eq!(class, "deterministic", "{}: {}", path.display(), ran.stderr);
        assert_eq!(origin, "source", "{}: {}", path.display(), ran.stderr);
        return Outcome::Refused { code, class, message: text("message") };
    }
    let output = place.out(&output);
    let count: usize = clips::probe(&output, "v:0", "nb_read_frames").parse().unwrap();
    exact(path, &output, count);
    std::fs::remove_file(output).unwrap();
    Outcome::Encoded(count)
}

/// As many frames as the judge counts in the source, at the same times.
fn exact(source: &Path, output: &Path, count: usize) {
    let name = name(source);
    if let Some((_, known, reason)) = NOT_JUDGED.iter().find(|n| n.0 == name) {
        assert_eq!(count, *known, "{name}: {reason}");
        return;
    }
    let theirs = lines(source, "v:0", "frame=best_effort_timestamp_time");
    assert_eq!(count, theirs.len(), "{name}: ffprobe counts other frames in the source");
    let theirs: Option<Vec<i64>> = theirs
        .iter()
        .map(|t| t.split(',').next()?.parse::<f64>().ok().map(|s| (s * 1e6).round() as i64))
        .collect();
    // Raw streams state no times.
    let Some(theirs) = theirs else { return };
    if theirs.windows(2).any(|w| w[0] >= w[1]) {
        // Times that stand still can't be kept: the index spreads them.
        return;
    }
    let ours = frame_times(output);
    for n in 0..count {
        let off = (ours[n] - ours[0]) - (theirs[n] - theirs[0]);
        // Matroska rounds to a millisecond, and the source may have done so before.
        assert!(off.abs() <= 1_500, "{name}: frame {n} is {off} µs off");
    }
}

fn run(folder: &str, test: &str) -> BTreeMap<String, Outcome> {
    let Some(root) = real_clips(test) else { return BTreeMap::new() };
    let place = Place::new();
    let mut found = BTreeMap::new();
    for path in files(&root.join(folder)) {
        let outcome = outcome(&place, &path);
        match &outcome {
            Outcome::Encoded(frames) => println!("{}: {frames} frames", name(&path)),
            Outcome::Refused { code, message, .. } => {
                println!("{}: [{code}] {message}", name(&path));
            }
            Outcome::TooLong => println!("{}: longer than a test", name(&path)),
        }
        found.insert(name(&path), outcome);
    }
    assert!(found.len() >= 10, "only {} files in {folder}", found.len());
    found
}

#[test]
fn every_clip_is_encoded_to_the_frame() {
    for (name, outcome) in run("clips", "every_clip_is_encoded_to_the_frame") {
        if let Outcome::Refused { code, message, .. } = outcome {
            panic!("{name} is refused: {message} [{code}]");
        }
    }
}

#[test]
fn every_odd_shape_is_encoded_to_the_frame_or_refused_as_the_docs_say() {
    let found = run("shapes", "every_odd_shape_is_encoded_to_the_frame_or_refused_as_the_docs_say");
    if found.is_empty() {
        return;
    }
    let encoded = found.values().filter(|o| matches!(o, Outcome::Encoded(_))).count();
    assert!(encoded >= 20, "only {encoded} shapes were encoded");
    let mut table = String::from("| file | code | reason |\n|---|---|---|\n");
    for (name, outcome) in &found {
        if let Outcome::Refused { code, class, message } = outcome {
            assert_eq!(class, "deterministic");
            table.push_str(&format!("| `{name}` | `{code}` | {} |\n", cell(message)));
        }
    }
    let page = include_str!("../../../../docs/refusals.md");
    assert!(
        page.contains(&table),
        "docs/refusals.md is stale; its table of clips must be\n\n{table}"
    );
}

/// A message without its operation, which names the folder of the clips on this machine.
fn cell(message: &str) -> String {
    let reason = match message.split_once(": ") {
        Some((operation, reason)) if operation.starts_with("planning local:") => reason,
        _ => message,
    };
    let reason = reason.split_once(" (").filter(|r| r.1.contains('.')).map_or(reason, |r| r.0);
    reason.replace('|', "\\|")
}
