//! A place of one's own for each test, runs of the real binary, and the judges.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use trix_testkit::clips::{self, tool};

/// What every test encodes with unless it says otherwise.
pub const FAST: &[&str] = &["--video", "x264-8", "--preset", "ultrafast"];

/// The binary under test.
pub fn media() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trix-media"));
    // A cache that is not named must not be the developer's own.
    command.env("XDG_CACHE_HOME", "/nonexistent/trix-tests-name-their-cache");
    command.stdin(Stdio::null());
    command
}

/// A folder with room for sources, outputs and a private cache.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("trix-cli-").tempdir_in("/var/tmp").unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Place { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the folder for outputs.
    pub fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    /// Names in the folder for outputs: what a run left there.
    pub fn outputs(&self) -> Vec<String> {
        names(&self.path("out"))
    }

    /// `trix-media encode SOURCE -o out/NAME ARGUMENTS` with the place's own cache.
    pub fn command(&self, source: &Path, name: &str, arguments: &[&str]) -> Command {
        self.command_with_cache("cache", source, name, arguments)
    }

    /// The same with another cache.
    pub fn command_with_cache(
        &self,
        cache: &str,
        source: &Path,
        name: &str,
        arguments: &[&str],
    ) -> Command {
        let mut command = media();
        command.arg("encode").arg(source).arg("-o").arg(self.out(name));
        command.args(["--progress", "json", "--cache"]).arg(self.path(cache)).args(arguments);
        command
    }

    /// Encodes, which must succeed, and gives the output.
    pub fn encode(&self, source: &Path, name: &str, arguments: &[&str]) -> PathBuf {
        let ran = Ran::of(self.command(source, name, arguments));
        assert!(ran.status.success(), "{}: {}", source.display(), ran.stderr);
        assert_eq!(ran.last()["event"], "finished");
        self.out(name)
    }

    /// Encodes, which must be refused with a code, and gives the message.
    pub fn refused(&self, source: &Path, name: &str, arguments: &[&str], code: &str) -> String {
        let ran = Ran::of(self.command(source, name, arguments));
        assert_eq!(ran.status.code(), Some(1), "{}: {}", source.display(), ran.stderr);
        assert!(
            ran.stderr.trim_end().ends_with(&format!("[{code}]")),
            "{} is refused with {:?} instead of [{code}]",
            source.display(),
            ran.stderr
        );
        assert!(ran.stderr.starts_with("trix: "), "{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran.stderr
    }
}

/// Sorted names in a folder, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A run that has ended: its events, what it said, and its exit.
pub struct Ran {
    pub status: ExitStatus,
    pub events: Vec<Value>,
    pub stderr: String,
}

impl Ran {
    /// Runs to the end.
    pub fn of(command: Command) -> Ran {
        Running::start(command).wait()
    }

    /// The last event.
    pub fn last(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    /// A number of the event `finished`.
    pub fn finished(&self, field: &str) -> u64 {
        assert!(self.status.success(), "{}", self.stderr);
        let last = self.last();
        assert_eq!(last["event"], "finished");
        last[field].as_u64().unwrap()
    }

    /// Tasks that were done in this run, without those that were in the cache.
    pub fn done(&self) -> Vec<&str> {
        self.events.iter().filter_map(done_now).collect()
    }

    /// Chunks that were encoded in this run.
    pub fn chunks_done(&self) -> usize {
        self.done().iter().filter(|t| t.starts_with("encode/")).count()
    }
}

fn done_now(event: &Value) -> Option<&str> {
    (event["event"] == "done" && event["cached"] == false).then(|| event["task"].as_str().unwrap())
}

/// A run under way, read event by event.
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    events: Vec<Value>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("trix-media");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines, events: Vec::new() }
    }

    /// Reads until an event is as wanted; false at the end of the run.
    pub fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> bool {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let event: Value = serde_json::from_str(&line)
                .unwrap_or_else(|e| panic!("{e}: standard output holds {line:?}"));
            let found = wanted(&event);
            self.events.push(event);
            if found {
                return true;
            }
        }
        false
    }

    /// Reads until a chunk was encoded in this run.
    pub fn until_chunk(&mut self) -> bool {
        self.until(|e| done_now(e).is_some_and(|t| t.starts_with("encode/")))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Reads what is left, and waits for the end.
    pub fn wait(mut self) -> Ran {
        self.until(|_| false);
        self.close_and_wait()
    }

    /// Closes standard output, and waits for the end.
    pub fn close_and_wait(mut self) -> Ran {
        drop(self.lines);
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        Ran { status, events: self.events, stderr }
    }
}

/// Decoded frames of the first picture by Debian's ffmpeg: presentation time in
/// microseconds, and the MD5 of the frame's samples in the format `pixels`.
pub fn frames(path: &Path, pixels: &str) -> Vec<(i64, String)> {
    let times = frame_times(path);
    let name = path.to_str().unwrap();
    let arguments = [
        "-v",
        "error",
        "-nostdin",
        "-i",
        name,
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
        "-pix_fmt",
        pixels,
        "-f",
        "framemd5",
        "-",
    ];
    let text = String::from_utf8(tool("ffmpeg", &arguments)).unwrap();
    let hashes: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.rsplit(',').next().unwrap().trim().to_owned())
        .collect();
    assert_eq!(times.len(), hashes.len(), "{name}: the judges disagree");
    times.into_iter().zip(hashes).collect()
}

/// Presentation times of the first picture's frames in microseconds, as the file states them.
pub fn frame_times(path: &Path) -> Vec<i64> {
    lines(path, "v:0", "frame=best_effort_timestamp_time").iter().map(|l| micro(l)).collect()
}

/// Microseconds of `12.345678`.
pub fn micro(seconds: &str) -> i64 {
    let value: f64 = seconds.parse().unwrap_or_else(|_| panic!("{seconds:?} is no time"));
    (value * 1e6).round() as i64
}

/// Lines that ffprobe prints for entries of a stream's frames, packets or the stream itself.
pub fn lines(path: &Path, stream: &str, entries: &str) -> Vec<String> {
    let name = path.to_str().unwrap();
    let out = tool(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            stream,
            "-show_entries",
            entries,
            "-of",
            "csv=p=0",
            name,
        ],
    );
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|l| l.trim().trim_end_matches(',').to_owned())
        .filter(|l| !l.is_empty())
        .collect()
}

/// Everything that ffprobe says of streams and format, as JSON.
pub fn described(path: &Path) -> Value {
    let name = path.to_str().unwrap();
    let out =
        tool("ffprobe", &["-v", "error", "-show_streams", "-show_format", "-of", "json", name]);
    serde_json::from_slice(&out).unwrap()
}

/// Sound of track `n`: time of its first sample in microseconds, rate, and the samples of the
/// first channel, decoded by Debian's ffmpeg.
pub fn sound(path: &Path, n: usize) -> (i64, u32, Vec<f32>) {
    let stream = format!("a:{n}");
    let first = lines(path, &stream, "frame=best_effort_timestamp_time");
    let rate: u32 = clips::probe(path, &stream, "sample_rate").parse().unwrap();
    let map = format!("0:{stream}");
    let bytes = tool(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-nostdin",
            "-i",
            path.to_str().unwrap(),
            "-map",
            &map,
            "-af",
            "pan=mono|c0=c0",
            "-f",
            "f32le",
            "-",
        ],
    );
    let samples =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (micro(&first[0]), rate, samples)
}

/// Time of the loudest sample of track `n`, in microseconds. Gaps between frames count.
pub fn click(path: &Path, n: usize) -> i64 {
    let (_, rate, samples) = sound(path, n);
    let (mut at, peak) = samples
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
        .expect("samples in the track");
    assert!(peak.abs() > 0.1, "{}: no click in track {n}", path.display());
    let entries = "frame=best_effort_timestamp_time,nb_samples";
    for frame in lines(path, &format!("a:{n}"), entries) {
        let (time, count) = frame.split_once(',').unwrap();
        let count: usize = count.parse().unwrap();
        if at < count {
            let offset = (at as i64 * 1_000_000 + i64::from(rate) / 2) / i64::from(rate);
            return micro(time) + offset;
        }
        at -= count;
    }
    panic!("{}: ffmpeg decodes more samples than ffprobe lists", path.display());
}

/// Whether two files hold the same bytes.
#[track_caller]
pub fn assert_same_bytes(a: &Path, b: &Path) {
    let same = fs::read(a).unwrap() == fs::read(b).unwrap();
    assert!(same, "{} and {} differ", a.display(), b.display());
}

/// Writes a file and gives its path.
pub fn written(path: PathBuf, content: impl AsRef<[u8]>) -> PathBuf {
    fs::write(&path, content).unwrap();
    path
}

/// Files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Tells whether somebody opened a file.
pub struct Watch {
    events: rustix::fd::OwnedFd,
}

impl Watch {
    pub fn on(path: &Path) -> Watch {
        let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&events, path, inotify::WatchFlags::OPEN).unwrap();
        Watch { events }
    }

    pub fn was_opened(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
        inotify::Reader::new(&self.events, &mut buffer).next().is_ok()
    }
}
