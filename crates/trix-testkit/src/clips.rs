//! Clips with known truth, made by Debian's ffmpeg program as a test tool.
//!
//! The product never starts it; tests make their inputs with it and judge the
//! outputs by it, because it was built by others.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a test tool and gives its standard output.
///
/// # Panics
/// When the tool is missing or fails: a fixture that cannot be made is a failed test.
pub fn tool(program: &str, arguments: &[&str]) -> Vec<u8> {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("starting {program}: {e}; scripts/setup installs it"));
    assert!(
        status.success(),
        "{program} {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// Makes `path` by ffmpeg with the given arguments, e.g.
/// `"-f lavfi -i testsrc2=d=2 -c:v libx264"`; words are split at spaces.
pub fn make(path: &Path, arguments: &str) -> PathBuf {
    let mut all = vec!["-hide_banner", "-loglevel", "error", "-nostdin", "-y"];
    all.extend(arguments.split_whitespace());
    let name = path.to_str().expect("fixture paths are UTF-8");
    all.push(name);
    tool("ffmpeg", &all);
    path.to_owned()
}

/// A usual title: H.264 with B-frames, AAC, `seconds` long at `rate`.
pub fn title(path: &Path, size: &str, rate: &str, seconds: u32) -> PathBuf {
    make(
        path,
        &format!(
            "-f lavfi -i testsrc2=size={size}:rate={rate}:duration={seconds} \
             -f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds} \
             -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 48 -c:a aac -b:a 96k \
             -color_primaries bt709 -color_trc bt709 -colorspace bt709"
        ),
    )
}

/// One value that ffprobe reads of a stream (`v:0`, `a:1`) or of the format (`format`).
pub fn probe(path: &Path, stream: &str, entry: &str) -> String {
    let name = path.to_str().expect("fixture paths are UTF-8");
    let out = if stream == "format" {
        let entries = format!("format={entry}");
        tool("ffprobe", &["-v", "error", "-show_entries", &entries, "-of", "csv=p=0", name])
    } else {
        let entries = format!("stream={entry}");
        tool(
            "ffprobe",
            &[
                "-v",
                "error",
                "-count_frames",
                "-select_streams",
                stream,
                "-show_entries",
                &entries,
                "-of",
                "csv=p=0",
                name,
            ],
        )
    };
    // Program sections of transport streams repeat the line; the first is the stream's.
    String::from_utf8_lossy(&out)
        .lines()
        .next()
        .unwrap_or("")
        .trim()
        .trim_end_matches(',')
        .to_owned()
}

/// Presentation times of all decoded frames of the first video stream, in
/// microseconds relative to the first, by ffprobe.
pub fn frame_times_us(path: &Path) -> Vec<i64> {
    let name = path.to_str().expect("fixture paths are UTF-8");
    let out = tool(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "frame=best_effort_timestamp_time",
            "-of",
            "csv=p=0",
            name,
        ],
    );
    let all: Vec<i64> = String::from_utf8_lossy(&out)
        .lines()
        .filter_map(|l| l.trim().trim_end_matches(',').parse::<f64>().ok())
        .map(|s| (s * 1e6).round() as i64)
        .collect();
    let zero = all.first().copied().unwrap_or(0);
    all.into_iter().map(|t| t - zero).collect()
}

/// The folder of real clips, or `None` after saying loudly that `test` is skipped.
pub fn real_clips(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TRIX_TEST_MEDIA").map(PathBuf::from).filter(|p| p.is_dir());
    if folder.is_none() {
        println!("SKIP {test}: TRIX_TEST_MEDIA names no folder of real clips");
    }
    folder
}
