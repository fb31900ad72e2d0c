//! The media description: what a source says of itself, in exact numbers.
//!
//! `trix probe --json` prints this structure; it is stable and versioned by
//! [`MediaDescription::version`].

use serde::{Deserialize, Serialize};

use crate::color::{ColorDescription, HdrMetadata};
use crate::time::Rational;

/// Current version of the description's JSON.
pub const DESCRIPTION_VERSION: u32 = 1;

/// Everything that probing learns of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaDescription {
    /// Version of this structure.
    pub version: u32,
    /// Short name of the container as the demuxer calls it, e.g. `mov`, `matroska`, `mpegts`.
    pub container: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Duration in microseconds as the container states it, if it does.
    pub duration_us: Option<i64>,
    /// All streams in container order.
    pub streams: Vec<Stream>,
    /// Container tags that operators care about (title, timecode, encoder).
    pub tags: std::collections::BTreeMap<String, String>,
}

/// One elementary stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Index in the container, from 0.
    pub index: u32,
    /// Codec as libav names it, e.g. `h264`, `prores`, `pcm_s24le`; `unknown` when there is none.
    pub codec: String,
    /// Codec profile in words, if known.
    pub profile: Option<String>,
    /// Seconds per tick of this stream's timestamps.
    pub time_base: Rational,
    /// First timestamp in ticks, if stated.
    pub start: Option<i64>,
    /// Duration in ticks, if stated.
    pub duration: Option<i64>,
    /// Bits a second, if stated.
    pub bit_rate: Option<u64>,
    /// ISO 639-2 code, if stated and not `und`.
    pub language: Option<String>,
    /// Track title, if stated.
    pub title: Option<String>,
    /// Marked as default track.
    pub default: bool,
    /// A cover picture and the like: one frame that is not the film.
    pub attached_picture: bool,
    /// What is particular to the kind.
    #[serde(flatten)]
    pub kind: StreamKind,
}

/// Kind of a stream with its properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamKind {
    /// Pictures.
    Video(Video),
    /// Sound.
    Audio(Audio),
    /// Subtitles.
    Subtitle,
    /// Timecode, SCTE-35, telemetry and other data.
    Data,
}

/// Properties of a video stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    /// Coded picture as presented (after cropping), in samples.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Pixel format as libav names it, e.g. `yuv422p10le`.
    pub pixel_format: String,
    /// Bits a sample.
    pub depth: u8,
    /// Sample aspect ratio, if stated.
    pub sample_aspect: Option<Rational>,
    /// Base frame rate: the lowest that can represent all timestamps exactly, if known.
    pub frame_rate: Option<Rational>,
    /// Average frame rate, if known.
    pub average_rate: Option<Rational>,
    /// Colour properties.
    pub color: ColorDescription,
    /// Static HDR metadata.
    pub hdr: HdrMetadata,
    /// Order of fields.
    pub fields: FieldOrder,
    /// Clockwise rotation to apply for presentation: 0, 90, 180 or 270.
    pub rotation: u16,
    /// Dolby Vision configuration as `profile.compatibility`, if present.
    pub dolby_vision: Option<String>,
}

/// Order of fields in an interlaced stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldOrder {
    /// Not stated.
    Unknown,
    /// Frames.
    Progressive,
    /// Top field first.
    TopFirst,
    /// Bottom field first.
    BottomFirst,
}

/// Properties of an audio stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audio {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Channel layout as libav describes it, e.g. `stereo`, `5.1(side)`.
    pub layout: Option<String>,
    /// Sample format as libav names it, e.g. `s32p`, `fltp`.
    pub sample_format: String,
    /// Bits a sample of the coded form for PCM and lossless codecs.
    pub depth: Option<u8>,
}

impl MediaDescription {
    /// The film: the default video stream that is no attached picture, else the first.
    pub fn main_video(&self) -> Option<(&Stream, &Video)> {
        let mut all = self.videos();
        let first = all.next()?;
        Some(std::iter::once(first).chain(all).find(|(s, _)| s.default).unwrap_or(first))
    }

    /// All video streams that are no attached pictures.
    pub fn videos(&self) -> impl Iterator<Item = (&Stream, &Video)> {
        self.streams.iter().filter(|s| !s.attached_picture).filter_map(|s| match &s.kind {
            StreamKind::Video(v) => Some((s, v)),
            _ => None,
        })
    }

    /// All audio streams in container order.
    pub fn audios(&self) -> impl Iterator<Item = (&Stream, &Audio)> {
        self.streams.iter().filter_map(|s| match &s.kind {
            StreamKind::Audio(a) => Some((s, a)),
            _ => None,
        })
    }
}
