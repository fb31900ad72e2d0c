//! What Debian's ffprobe and ffmpeg say of a file.

use std::path::Path;
use std::process::Command;

/// Presentation times of all frames that ffprobe decodes in a video stream, in display order.
pub fn frame_times(path: &Path, stream: u32) -> Vec<Option<i64>> {
    first_frame_times(path, stream, None)
}

/// Those of the first so many seconds.
pub fn first_frame_times(path: &Path, stream: u32, seconds: Option<u32>) -> Vec<Option<i64>> {
    let interval = seconds.map_or("%".to_owned(), |s| format!("%+{s}"));
    let text = ffprobe(
        path,
        &[
            "-select_streams",
            &stream.to_string(),
            "-show_entries",
            "frame=best_effort_timestamp",
            "-show_frames",
            "-read_intervals",
            &interval,
        ],
    );
    text.lines()
        .filter_map(|l| l.strip_prefix("best_effort_timestamp="))
        .map(|time| time.parse().ok())
        .collect()
}

pub fn ffprobe(path: &Path, words: &[&str]) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "quiet", "-threads", "1"])
        .args(words)
        .args(["-of", "default=noprint_wrappers=1"])
        .arg(path)
        .output()
        .expect("Debian's ffprobe is installed as a test tool");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// md5 of each decoded frame of the first video stream, by Debian's ffmpeg, without any conversion.
pub fn frame_hashes(path: &Path) -> Vec<String> {
    hashes(path, &["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5"])
}

fn hashes(path: &Path, words: &[&str]) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-v", "error", "-threads", "1", "-noautorotate", "-i"])
        .arg(path)
        .args(words)
        .arg("-")
        .output()
        .expect("Debian's ffmpeg is installed as a test tool");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.rsplit(',').next().map(|h| h.trim().to_owned()))
        .collect()
}

/// Number of samples in each channel that Debian's ffmpeg decodes of the first audio stream.
pub fn samples(path: &Path, channels: usize) -> usize {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0:a:0", "-f", "s16le", "-c:a", "pcm_s16le", "-"])
        .output()
        .expect("Debian's ffmpeg is installed as a test tool");
    output.stdout.len() / 2 / channels
}
