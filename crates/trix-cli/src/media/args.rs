//! What people type for media work: `encode`, `probe`, `plan`, `verify`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// trix-media: the half of trix that links the codecs.
#[derive(Debug, Parser)]
#[command(name = "trix-media", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `trix-media`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encode a file by a profile into a folder, or to one file.
    Encode(Encode),
    /// Say what a file is.
    Probe(Probe),
    /// Show what `encode` would do, without doing it.
    Plan(Plan),
    /// Decode a file completely and say whether it is whole.
    Verify(Verify),
    /// Run one attempt for a worker (not for people).
    #[command(hide = true)]
    Slot,
    /// Show what this machine puts around each attempt of a worker.
    Sandbox,
    /// Say whether this machine computes as it should (exit code 0): encodes a little and
    /// compares the bytes with what they must be.
    SelfTest,
    /// Print the engine id: what decides the bytes that this build makes.
    EngineId,
}

/// `trix encode`
#[derive(Debug, Args)]
pub struct Encode {
    /// Source and settings.
    #[command(flatten)]
    pub what: What,
    /// Folder for the results of a profile.
    #[arg(long, value_name = "DIR", required_unless_present = "output")]
    pub out: Option<PathBuf>,
    /// One output file (.mp4, .mov or .mkv), without a profile.
    #[arg(short = 'o', value_name = "FILE", conflicts_with_all = ["profile", "out"])]
    pub output: Option<PathBuf>,
    /// Attempts at once; default: one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// Folder for artifacts; default: $XDG_CACHE_HOME/trix.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How to show progress.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressStyle,
    /// Replace an output that is there already.
    #[arg(long, short = 'f')]
    pub force: bool,
}

/// Source and settings, shared by `encode` and `plan`.
#[derive(Debug, Args)]
pub struct What {
    /// The source file.
    pub source: PathBuf,
    /// Profile: the name of a shipped one or a TOML file.
    #[arg(long, value_name = "PROFILE", conflicts_with_all = ["video", "preset", "tune", "crf", "qp", "params", "size", "audio"])]
    pub profile: Option<String>,
    /// Video encoder: x264-8, x264-10, x265-8, x265-10, x265-12, rav1e-8, rav1e-10, ffv1, copy, none.
    #[arg(long, value_name = "ENCODER", default_value = "x264-8")]
    pub video: String,
    /// Preset by the encoder's own name; default: medium (rav1e: 6).
    #[arg(long)]
    pub preset: Option<String>,
    /// Tune by the encoder's own name.
    #[arg(long)]
    pub tune: Option<String>,
    /// Constant rate factor (rav1e: quantizer by --qp).
    #[arg(long, conflicts_with = "qp")]
    pub crf: Option<String>,
    /// Constant quantiser.
    #[arg(long)]
    pub qp: Option<u32>,
    /// Encoder parameters by name: key=value:key=value.
    #[arg(long, value_name = "K=V:K=V")]
    pub params: Option<String>,
    /// Fit the picture into this box (aspect kept, never enlarged).
    #[arg(long, value_name = "WxH")]
    pub size: Option<String>,
    /// Sound: aac, flac, pcm, copy, none.
    #[arg(long, default_value = "aac")]
    pub audio: String,
}

/// `trix probe`
#[derive(Debug, Args)]
pub struct Probe {
    /// The files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Print the media description as JSON (one object a file).
    #[arg(long)]
    pub json: bool,
}

/// `trix plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// Source and settings.
    #[command(flatten)]
    pub what: What,
    /// Container of a single file: mp4, mov or mkv.
    #[arg(long, default_value = "mp4")]
    pub container: String,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `trix verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Print the report as JSON (one object a file).
    #[arg(long)]
    pub json: bool,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, lines elsewhere.
    Auto,
    /// A bar.
    Bar,
    /// One JSON object a line on standard output.
    Json,
    /// Nothing.
    None,
}
