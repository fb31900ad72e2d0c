//! Plans and tasks: what is to be made, from what, and under which key.
//!
//! A task's [`TaskSpec`] is all that an engine needs beside the opened inputs:
//! no path of a node, no clock, no database stands in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trix_model::color::{ColorDescription, HdrMetadata};
use trix_model::digest::{Digest, SourceHashes};
use trix_model::{Finding, Key, MediaDescription, Rational, RelPath, ShareName, SharePath};

use crate::encoder::{AudioSettings, Picture, VideoSettings};

/// A graph of tasks, pinned to one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this structure.
    pub version: u32,
    /// Engine whose bytes the keys promise; see `keys`.
    pub engine: String,
    /// Tasks; each needs only tasks before it.
    pub tasks: Vec<Task>,
    /// Files that the caller of a run in one process copies to its folder
    /// (`trix encode --out DIR`); empty when tasks publish to shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ResultFile>,
}

/// A finished file for the folder of [`crate::planner::Delivery::Folder`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    /// Name beneath the folder: `1080p.mp4`, `preview/poster.jpg`.
    pub name: RelPath,
    /// The artifact that holds its bytes.
    pub key: Key,
    /// Task that must be done before it may be copied: the file's verification, or what made it.
    pub after: String,
}

/// One node of the graph: the unit of claiming and retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique in the job, readable: `intake`, `encode/0003`, `audio/1`, `mux/1080p`, `publish/output`.
    pub name: String,
    /// What to do.
    pub spec: TaskSpec,
    /// Names of tasks (of this plan or, for plan 1, of plan 0) that must be done first.
    pub needs: Vec<String>,
    /// What it makes; empty for tasks that publish.
    pub outputs: Vec<Output>,
    /// What it takes of a node.
    pub cost: Cost,
}

/// One thing that a task is to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Name within the task: a rendition, `index`, `report`.
    pub name: String,
    /// The key.
    pub key: Key,
}

/// What an attempt takes of a node, and for how long by estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Thousandths of a core.
    pub mcpu: u32,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of scratch or cache that it writes.
    pub scratch: u64,
    /// Milliseconds on one core of a usual node.
    pub estimate_ms: u64,
}

/// What a task does, with all parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskSpec {
    /// One read of the source: hashes, description, packet index, optional tee.
    Intake(Intake),
    /// One decode of a chunk feeds all its missing renditions.
    EncodeChunk(EncodeChunk),
    /// The main video's packets as they are, whole.
    CopyVideo(CopyVideo),
    /// One audio programme, whole.
    EncodeAudio(EncodeAudio),
    /// Encoded chunks and audio → a file.
    Mux(Mux),
    /// Full decode of a finished file against the plan.
    Verify(Verify),
    /// Poster, thumbnail sprite and its WebVTT map.
    Stills(Stills),
    /// Bit-exact copy of the source into the archive's stage, when intake did not tee one.
    Copy(CopySource),
    /// Makes files visible at their destination. The only task with a side effect.
    Publish(Publish),
    /// Takes a published version out of sight. The service makes it for an operator;
    /// no plan has one.
    Retract(Retract),
}

/// A file of a title on a source share, as it was when the job was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Where.
    pub location: SharePath,
    /// Size in bytes; a change is `source_changed`.
    pub size: u64,
    /// Modification time in nanoseconds since 1970; a change is `source_changed`.
    pub mtime_ns: i64,
}

/// See [`TaskSpec::Intake`]. Outputs: `index` (the packet index) and `result` (the JSON of
/// [`IntakeResult`] without `staged`, so that a cache hit restores the result).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intake {
    /// What to read.
    pub source: SourceRef,
    /// Checksum files delivered with it.
    pub sidecars: Vec<Sidecar>,
    /// Share to whose stage the bytes are teed for the archive copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<ShareName>,
}

/// A checksum file delivered beside a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Which algorithm its name says.
    pub algorithm: SidecarAlgorithm,
    /// Where.
    pub location: SharePath,
    /// Size in bytes when the job was submitted: a changed sidecar is another intake.
    #[serde(default)]
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    #[serde(default)]
    pub mtime_ns: i64,
}

/// Algorithm of a checksum file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SidecarAlgorithm {
    /// `.md5`
    Md5,
    /// `.sha256`
    Sha256,
}

/// Result of intake; goes into the database with the planning index beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeResult {
    /// What the file is.
    pub media: MediaDescription,
    /// Its checksums.
    pub hashes: SourceHashes,
    /// [`trix_model::PlanningIndex`] of the main video by its `to_base64`.
    pub planning_index: String,
    /// Checksum verdicts and damage seen.
    pub findings: Vec<Finding>,
    /// Where the tee lies, beneath the tee share's root, if one was made. Whoever takes an older
    /// intake's result for this one (a cache hit) clears it unless that staged file still exists:
    /// planning then adds the task `archive/copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<StagedFile>,
}

/// A file in a share's stage, not visible to anyone yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Share and path of the staged file.
    pub location: SharePath,
    /// Bytes.
    pub size: u64,
    /// sha256 of its content.
    pub sha256: Digest,
}

/// A run of frames on the output timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRange {
    /// First frame.
    pub first: u32,
    /// Number of frames.
    pub count: u32,
    /// Source pts of the first frame.
    pub first_pts: i64,
    /// Source pts of the first frame behind the range (or the end of the film).
    pub end_pts: i64,
}

/// See [`TaskSpec::EncodeChunk`]. One output per rendition, named like it: a packet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodeChunk {
    /// What to decode.
    pub source: SourceRef,
    /// Key of the packet index.
    pub index: Key,
    /// Video stream in the container.
    pub stream: u32,
    /// Position of the chunk in the film, from 0.
    pub chunk: u32,
    /// The frames that it encodes.
    pub range: FrameRange,
    /// Frame of the access point where decoding starts.
    pub decode_from: u32,
    /// Zero of the output timeline: source pts of frame 0.
    pub zero_pts: i64,
    /// Seconds per tick of all pts here, and of the encoded packets.
    pub time_base: Rational,
    /// Nominal frame rate for the encoder.
    pub frame_rate: Rational,
    /// True when every frame lies within one tick of `frame_rate`: the encoder may then be told a
    /// constant rate. Otherwise it is told the times, and `frame_rate` is the average.
    #[serde(default)]
    pub constant_rate: bool,
    /// Renditions.
    pub renditions: Vec<VideoRendition>,
    /// Clockwise rotation to apply, degrees.
    #[serde(default)]
    pub rotation: u16,
}

/// One encoded version of the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoRendition {
    /// Name in the profile, e.g. `1080p`.
    pub name: String,
    /// Encoder settings.
    pub settings: VideoSettings,
    /// Size and format that the encoder takes: of the upright picture, after any rotation.
    pub picture: Picture,
    /// Sample aspect of the encoded picture, if the source states one.
    pub sample_aspect: Option<Rational>,
    /// Colour, from the source.
    pub color: ColorDescription,
    /// HDR metadata, from the source.
    pub hdr: HdrMetadata,
    /// Frames behind the chunk's end that are fed to the encoder and dropped.
    pub run_over: u32,
}

/// See [`TaskSpec::EncodeAudio`]. Output: `audio`, a packet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodeAudio {
    /// What to decode.
    pub source: SourceRef,
    /// Key of the packet index.
    pub index: Key,
    /// Audio stream in the container.
    pub stream: u32,
    /// Settings.
    pub settings: AudioSettings,
    /// Zero of the output timeline in ticks of `time_base`.
    pub zero_pts: i64,
    /// Time base of `zero_pts` (the main video's).
    pub time_base: Rational,
}

/// See [`TaskSpec::CopyVideo`]. Output: `video`, a packet file in the stream's own time base.
///
/// Discarded packets (before an edit list's start) go along, so that the first presented frame
/// decodes; their times are below zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyVideo {
    /// What to demux.
    pub source: SourceRef,
    /// Key of the packet index.
    pub index: Key,
    /// Video stream in the container.
    pub stream: u32,
    /// Zero of the output timeline: source pts of frame 0.
    pub zero_pts: i64,
    /// Seconds per tick.
    pub time_base: Rational,
}

/// Container of a finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// Fast-start MP4.
    Mp4,
    /// QuickTime.
    Mov,
    /// Matroska.
    Mkv,
}

/// See [`TaskSpec::Mux`]. Output: `file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mux {
    /// Container.
    pub container: Container,
    /// The picture, if there is one.
    pub video: Option<MuxVideo>,
    /// Sound tracks in order.
    pub audio: Vec<MuxAudio>,
    /// Container tags to write.
    pub tags: BTreeMap<String, String>,
}

/// The video track of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuxVideo {
    /// Keys of the chunks, in order.
    pub chunks: Vec<Key>,
    /// Duration of the film in ticks of the chunks' time base.
    pub duration: i64,
    /// Clockwise rotation that players must apply, degrees; 0 but for copied video, because
    /// encoded pictures are rotated already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rotation: u16,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// A sound track of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuxAudio {
    /// Key of the audio artifact.
    pub key: Key,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// Track title.
    pub title: Option<String>,
    /// Marked as default.
    pub default: bool,
}

/// See [`TaskSpec::Verify`]. Output: `report` (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Key of the file.
    pub file: Key,
    /// What must be in it.
    pub expect: Expectation,
}

/// What a finished file must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Picture.
    pub video: Option<ExpectVideo>,
    /// Sound tracks in order.
    pub audio: Vec<ExpectAudio>,
}

/// Expected picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectVideo {
    /// Codec as libav names it.
    pub codec: String,
    /// Frames that must decode.
    pub frames: u32,
    /// Size.
    pub width: u32,
    /// Size.
    pub height: u32,
    /// Duration in ticks of `time_base`; allowed error: one tick of the file's own time base a frame border.
    pub duration: i64,
    /// Seconds per tick.
    pub time_base: Rational,
    /// Colour that must be signalled.
    pub color: ColorDescription,
}

/// Expected sound track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectAudio {
    /// Codec as libav names it; `None` for copies.
    pub codec: Option<String>,
    /// Language that must be signalled.
    pub language: Option<String>,
}

/// Report of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Frames decoded.
    pub frames: u32,
    /// Samples decoded per sound track.
    pub samples: Vec<u64>,
    /// Size of the file.
    pub size: u64,
    /// sha256 of the file: the publisher compares with it.
    pub sha256: Digest,
}

/// See [`TaskSpec::Stills`]. Outputs: `poster` (JPEG), `sprite` (JPEG), `map` (WebVTT).
///
/// They are published as `poster.jpg`, `sprite.jpg` and `sprite.vtt` in one folder, so the map
/// refers to `sprite.jpg`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stills {
    /// What to decode.
    pub source: SourceRef,
    /// Key of the packet index.
    pub index: Key,
    /// Video stream.
    pub stream: u32,
    /// Frame of the poster.
    pub poster_frame: u32,
    /// Size of the poster in square pixels.
    pub poster_size: (u32, u32),
    /// Frames of the thumbnails, rising.
    pub frames: Vec<u32>,
    /// Start of each thumbnail's span on the output timeline, in milliseconds, plus the end of the last.
    pub spans_ms: Vec<u64>,
    /// Size of one thumbnail in square pixels.
    pub thumb_size: (u32, u32),
    /// Thumbnails a row in the sprite.
    pub columns: u32,
    /// Clockwise rotation to apply, degrees.
    #[serde(default)]
    pub rotation: u16,
}

/// See [`TaskSpec::Copy`]. Result: [`StagedFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// What to copy.
    pub source: SourceRef,
    /// To whose stage.
    pub share: ShareName,
    /// sha256 that the copy must have.
    pub sha256: Digest,
}

/// See [`TaskSpec::Publish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Destination share.
    pub share: ShareName,
    /// Folder of the title; versions go beneath it as `v1`, `v2`, …
    pub target: RelPath,
    /// Role of the files, for the manifest: `archive`, `output`, `preview`.
    pub role: String,
    /// Files in the order of their appearance; the manifest comes last by itself.
    pub files: Vec<PublishFile>,
}

/// See [`TaskSpec::Retract`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retract {
    /// The publication in the database.
    pub publication: i64,
    /// Share that it is on.
    pub share: ShareName,
    /// Folder of the title.
    pub target: RelPath,
    /// Which version goes.
    pub version: u32,
}

/// One file to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishFile {
    /// Name beneath the version's folder.
    pub name: RelPath,
    /// Where the bytes come from.
    pub from: PublishFrom,
}

/// Where a published file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum PublishFrom {
    /// An artifact of the cache.
    Artifact {
        /// Its key.
        key: Key,
    },
    /// What the named task staged on the destination share.
    Staged {
        /// The task (`intake` or `archive/copy`).
        task: String,
        /// sha256 that it must have.
        sha256: Digest,
    },
}

/// What a task gives back beside its artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The outputs that were made in this attempt.
    pub outputs: Vec<MadeOutput>,
    /// Kind-specific JSON: [`IntakeResult`], [`StagedFile`], [`VerifyReport`], the publication's receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

/// An output that was made: not yet an artifact, because the worker links it and the database commits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeOutput {
    /// Name within the task.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// BLAKE3 of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Container {
    /// Every container.
    pub const ALL: &[Container] = &[Container::Mp4, Container::Mov, Container::Mkv];

    /// The name in profiles, which is also the ending of files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Container::Mp4 => "mp4",
            Container::Mov => "mov",
            Container::Mkv => "mkv",
        }
    }

    /// The container for a file's name by its ending.
    pub fn of_file(name: &str) -> Option<Container> {
        let (_, ending) = name.rsplit_once('.')?;
        Container::ALL.iter().copied().find(|c| ending.eq_ignore_ascii_case(c.as_str()))
    }

    /// True when the container has a standard way to hold a codec, by libav's name for it.
    ///
    /// Sources: the MP4 registration authority's list of codecs, Apple's QuickTime File Format
    /// specification, Matroska's codec mappings; restricted to what libav's muxers write.
    pub fn holds(self, codec: &str) -> bool {
        match self {
            Container::Mp4 => {
                matches!(
                    codec,
                    "h264"
                        | "hevc"
                        | "av1"
                        | "vp9"
                        | "vvc"
                        | "mpeg4"
                        | "mpeg2video"
                        | "mpeg1video"
                        | "mjpeg"
                        | "aac"
                        | "mp3"
                        | "mp2"
                        | "ac3"
                        | "eac3"
                        | "dts"
                        | "truehd"
                        | "flac"
                        | "opus"
                        | "alac"
                )
            }
            Container::Mov => {
                matches!(
                    codec,
                    "h264"
                        | "hevc"
                        | "mpeg4"
                        | "mpeg2video"
                        | "mjpeg"
                        | "prores"
                        | "dnxhd"
                        | "ffv1"
                        | "v210"
                        | "aac"
                        | "mp3"
                        | "ac3"
                        | "eac3"
                        | "alac"
                ) || codec.starts_with("pcm_")
            }
            Container::Mkv => codec != "unknown",
        }
    }
}

impl TaskSpec {
    /// Every kind in one word, as [`TaskSpec::kind`] gives it.
    pub const KINDS: &'static [&'static str] = &[
        "intake",
        "encode_chunk",
        "copy_video",
        "encode_audio",
        "mux",
        "verify",
        "stills",
        "copy",
        "publish",
        "retract",
    ];

    /// The kind in one word, as in the JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            TaskSpec::Intake(_) => "intake",
            TaskSpec::EncodeChunk(_) => "encode_chunk",
            TaskSpec::CopyVideo(_) => "copy_video",
            TaskSpec::EncodeAudio(_) => "encode_audio",
            TaskSpec::Mux(_) => "mux",
            TaskSpec::Verify(_) => "verify",
            TaskSpec::Stills(_) => "stills",
            TaskSpec::Copy(_) => "copy",
            TaskSpec::Publish(_) => "publish",
            TaskSpec::Retract(_) => "retract",
        }
    }

    /// True for tasks that parse media and therefore run in a slot.
    pub const fn parses_media(&self) -> bool {
        !matches!(self, TaskSpec::Copy(_) | TaskSpec::Publish(_) | TaskSpec::Retract(_))
    }

    /// The source that it reads, if any.
    pub const fn source(&self) -> Option<&SourceRef> {
        match self {
            TaskSpec::Intake(t) => Some(&t.source),
            TaskSpec::EncodeChunk(t) => Some(&t.source),
            TaskSpec::CopyVideo(t) => Some(&t.source),
            TaskSpec::EncodeAudio(t) => Some(&t.source),
            TaskSpec::Stills(t) => Some(&t.source),
            TaskSpec::Copy(t) => Some(&t.source),
            TaskSpec::Mux(_)
            | TaskSpec::Verify(_)
            | TaskSpec::Publish(_)
            | TaskSpec::Retract(_) => None,
        }
    }

    /// Keys of the artifacts that it reads.
    pub fn input_keys(&self) -> Vec<Key> {
        match self {
            TaskSpec::Intake(_) | TaskSpec::Copy(_) | TaskSpec::Retract(_) => Vec::new(),
            TaskSpec::EncodeChunk(t) => vec![t.index],
            TaskSpec::CopyVideo(t) => vec![t.index],
            TaskSpec::EncodeAudio(t) => vec![t.index],
            TaskSpec::Stills(t) => vec![t.index],
            TaskSpec::Mux(t) => t
                .video
                .iter()
                .flat_map(|v| v.chunks.iter().copied())
                .chain(t.audio.iter().map(|a| a.key))
                .collect(),
            TaskSpec::Verify(t) => vec![t.file],
            TaskSpec::Publish(t) => t
                .files
                .iter()
                .filter_map(|f| match f.from {
                    PublishFrom::Artifact { key } => Some(key),
                    PublishFrom::Staged { .. } => None,
                })
                .collect(),
        }
    }

    /// Shares that it writes to beside the cache.
    pub fn written_shares(&self) -> Vec<&ShareName> {
        match self {
            TaskSpec::Intake(t) => t.tee.iter().collect(),
            TaskSpec::Copy(t) => vec![&t.share],
            TaskSpec::Publish(t) => vec![&t.share],
            TaskSpec::Retract(t) => vec![&t.share],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TaskSpec;

    #[test]
    fn every_kind_of_the_json_is_listed() {
        let unknown = serde_json::json!({ "kind": "none" });
        let said = serde_json::from_value::<TaskSpec>(unknown).unwrap_err().to_string();
        let all: Vec<String> = TaskSpec::KINDS.iter().map(|k| format!("`{k}`")).collect();
        assert!(said.ends_with(&format!("expected one of {}", all.join(", "))), "{said}");
    }
}
