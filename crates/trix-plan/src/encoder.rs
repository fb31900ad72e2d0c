//! Encoder settings as a plan carries them: typed, resolved, canonical.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trix_model::PixelFormat;

/// The encoders by codec library and bit depth, plus FFV1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VideoVariant {
    /// H.264, 8 bit.
    #[serde(rename = "x264-8")]
    X264_8,
    /// H.264, 10 bit.
    #[serde(rename = "x264-10")]
    X264_10,
    /// HEVC, 8 bit.
    #[serde(rename = "x265-8")]
    X265_8,
    /// HEVC, 10 bit.
    #[serde(rename = "x265-10")]
    X265_10,
    /// HEVC, 12 bit.
    #[serde(rename = "x265-12")]
    X265_12,
    /// AV1, 8 bit.
    #[serde(rename = "rav1e-8")]
    Rav1e8,
    /// AV1, 10 bit.
    #[serde(rename = "rav1e-10")]
    Rav1e10,
    /// FFV1, lossless, at the source's depth.
    #[serde(rename = "ffv1")]
    Ffv1,
}

/// How the encoder spends bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum RateControl {
    /// Constant rate factor; a decimal as text, because floats are not canonical.
    Crf {
        /// e.g. `"23.5"`.
        crf: String,
        /// Cap in kbit/s, with a buffer in kbit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vbv: Option<Vbv>,
    },
    /// Constant quantiser.
    Qp {
        /// The quantiser.
        qp: u32,
    },
    /// Average bit rate, one pass.
    Bitrate {
        /// kbit/s.
        kbps: u32,
        /// Cap in kbit/s, with a buffer in kbit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vbv: Option<Vbv>,
    },
    /// No loss (FFV1; x264 and x265 with qp 0).
    Lossless,
}

/// Video buffering verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vbv {
    /// kbit/s.
    pub max_kbps: u32,
    /// kbit.
    pub buffer_kbit: u32,
}

/// Everything that decides the bytes of a video encoder, but for the pictures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VideoSettings {
    /// Which encoder.
    pub variant: VideoVariant,
    /// Preset by the encoder's own name (`veryfast`, `medium`, rav1e `6`); empty for FFV1.
    pub preset: String,
    /// Tune by the encoder's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<String>,
    /// Rate control.
    pub rate: RateControl,
    /// Frames from key frame to key frame: every segment starts with an IDR. 0 = encoder's default.
    pub keyint: u32,
    /// Threads inside the encoder; part of the key.
    pub threads: u32,
    /// Further parameters by the encoder's own names, checked when the profile was read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// Audio codecs that trix writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// FLAC.
    Flac,
    /// Linear PCM, at the source's depth (16, 24 or 32 bit).
    Pcm,
    /// The source's packets as they are.
    Copy,
}

/// Everything that decides the bytes of an audio encoder, but for the samples.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AudioSettings {
    /// Which codec.
    pub codec: AudioCodec,
    /// bit/s for lossy codecs; chosen by channels when the profile leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_rate: Option<u32>,
    /// Channels to mix down to; the source's when open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u16>,
    /// Samples a second; the source's when open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
}

impl AudioCodec {
    /// Every codec.
    pub const ALL: &[AudioCodec] =
        &[AudioCodec::Aac, AudioCodec::Flac, AudioCodec::Pcm, AudioCodec::Copy];

    /// The name in profiles and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            AudioCodec::Aac => "aac",
            AudioCodec::Flac => "flac",
            AudioCodec::Pcm => "pcm",
            AudioCodec::Copy => "copy",
        }
    }
}

impl VideoVariant {
    /// Every variant.
    pub const ALL: &[VideoVariant] = &[
        VideoVariant::X264_8,
        VideoVariant::X264_10,
        VideoVariant::X265_8,
        VideoVariant::X265_10,
        VideoVariant::X265_12,
        VideoVariant::Rav1e8,
        VideoVariant::Rav1e10,
        VideoVariant::Ffv1,
    ];

    /// The name in profiles and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            VideoVariant::X264_8 => "x264-8",
            VideoVariant::X264_10 => "x264-10",
            VideoVariant::X265_8 => "x265-8",
            VideoVariant::X265_10 => "x265-10",
            VideoVariant::X265_12 => "x265-12",
            VideoVariant::Rav1e8 => "rav1e-8",
            VideoVariant::Rav1e10 => "rav1e-10",
            VideoVariant::Ffv1 => "ffv1",
        }
    }

    /// Depth that it encodes at; `None` for FFV1, which follows the source.
    pub const fn depth(self) -> Option<u8> {
        match self {
            VideoVariant::X264_8 | VideoVariant::X265_8 | VideoVariant::Rav1e8 => Some(8),
            VideoVariant::X264_10 | VideoVariant::X265_10 | VideoVariant::Rav1e10 => Some(10),
            VideoVariant::X265_12 => Some(12),
            VideoVariant::Ffv1 => None,
        }
    }

    /// Codec name as libav has it.
    pub const fn codec(self) -> &'static str {
        match self {
            VideoVariant::X264_8 | VideoVariant::X264_10 => "h264",
            VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => "hevc",
            VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => "av1",
            VideoVariant::Ffv1 => "ffv1",
        }
    }
}

impl std::fmt::Display for VideoVariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for VideoVariant {
    type Err = String;
    fn from_str(s: &str) -> Result<VideoVariant, String> {
        VideoVariant::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = VideoVariant::ALL.iter().map(|v| v.as_str()).collect();
            format!("{s:?} is no video encoder; allowed: {}", all.join(", "))
        })
    }
}

/// Format and size that a rendition's encoder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Picture {
    /// Samples a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Chroma and depth.
    pub format: PixelFormat,
}
