//! Clips made by Debian's ffmpeg, which is a test tool only.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder of one test's clips.
pub struct Clips(TempDir);

impl Clips {
    pub fn new() -> Clips {
        Clips(tempfile::Builder::new().prefix("trix-av-").tempdir_in("/var/tmp").unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs ffmpeg with these words (split at spaces) and `name` as output.
    pub fn make(&self, name: &str, words: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-nostdin", "-v", "error", "-y", "-threads", "1"]);
        command.args(words.split_whitespace());
        command.arg(&path).current_dir(self.0.path());
        let output = command.output().expect("Debian's ffmpeg is installed as a test tool");
        assert!(
            output.status.success(),
            "ffmpeg {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        path
    }

    /// A moving test picture with `coding`, in the container of the name's ending.
    pub fn video(&self, name: &str, rate: &str, seconds: &str, coding: &str) -> PathBuf {
        let source = format!("-f lavfi -i testsrc2=size=128x96:rate={rate}:duration={seconds}");
        self.make(name, &format!("{source} {coding}"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

pub fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

/// The real clips, or `None` with a word to the reader of the log.
pub fn real_clips(test: &str) -> Option<PathBuf> {
    match std::env::var_os("TRIX_TEST_MEDIA").map(PathBuf::from) {
        Some(path) if path.is_dir() => Some(path),
        _ => {
            println!("SKIP {test}: TRIX_TEST_MEDIA does not name the folder of real clips");
            None
        }
    }
}
