//! The media description as the API shows it.

use serde::Serialize;
use trix_model::MediaDescription;
use trix_model::media::{FieldOrder, StreamKind};
use utoipa::ToSchema;

/// What a source is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Media {
    /// Container, e.g. `mov`.
    pub container: String,
    /// Bytes.
    pub size: u64,
    /// Duration in microseconds as the container states it.
    pub duration_us: Option<i64>,
    /// Streams in container order.
    pub streams: Vec<MediaStream>,
}

/// One elementary stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MediaStream {
    /// Index in the container.
    pub index: u32,
    /// Codec, e.g. `prores`.
    pub codec: String,
    /// Codec profile in words.
    pub profile: Option<String>,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// Track title.
    pub title: Option<String>,
    /// Marked as default track.
    pub default: bool,
    /// Bits a second.
    pub bit_rate: Option<u64>,
    /// Set for pictures.
    pub video: Option<MediaVideo>,
    /// Set for sound.
    pub audio: Option<MediaAudio>,
    /// `video`, `audio`, `subtitle` or `data`.
    pub kind: String,
}

/// Properties of a video stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MediaVideo {
    /// Samples a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Pixel format, e.g. `yuv422p10le`.
    pub pixel_format: String,
    /// Bits a sample.
    pub depth: u8,
    /// Sample aspect ratio as `num/den`.
    pub sample_aspect: Option<String>,
    /// Frame rate as `num/den`.
    pub frame_rate: Option<String>,
    /// ColourPrimaries of H.273.
    pub primaries: Option<u8>,
    /// TransferCharacteristics of H.273.
    pub transfer: Option<u8>,
    /// MatrixCoefficients of H.273.
    pub matrix: Option<u8>,
    /// True for full range, false for limited.
    pub full_range: Option<bool>,
    /// True when mastering display or content light level is stated.
    pub hdr10: bool,
    /// Dolby Vision configuration as `profile.compatibility`.
    pub dolby_vision: Option<String>,
    /// `progressive`, `top_first`, `bottom_first` or `unknown`.
    pub fields: String,
    /// Clockwise rotation for presentation in degrees.
    pub rotation: u16,
}

/// Properties of an audio stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MediaAudio {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Channel layout, e.g. `5.1(side)`.
    pub layout: Option<String>,
    /// Bits a sample of the coded form.
    pub depth: Option<u8>,
}

impl From<&MediaDescription> for Media {
    fn from(m: &MediaDescription) -> Media {
        let streams = m
            .streams
            .iter()
            .map(|s| {
                let (kind, video, audio) = match &s.kind {
                    StreamKind::Video(v) => ("video", Some(v), None),
                    StreamKind::Audio(a) => ("audio", None, Some(a)),
                    StreamKind::Subtitle => ("subtitle", None, None),
                    StreamKind::Data => ("data", None, None),
                };
                MediaStream {
                    index: s.index,
                    codec: s.codec.clone(),
                    profile: s.profile.clone(),
                    language: s.language.clone(),
                    title: s.title.clone(),
                    default: s.default,
                    bit_rate: s.bit_rate,
                    video: video.map(|v| MediaVideo {
                        width: v.width,
                        height: v.height,
                        pixel_format: v.pixel_format.clone(),
                        depth: v.depth,
                        sample_aspect: v.sample_aspect.map(|r| r.to_string()),
                        frame_rate: v.frame_rate.or(v.average_rate).map(|r| r.to_string()),
                        primaries: v.color.primaries,
                        transfer: v.color.transfer,
                        matrix: v.color.matrix,
                        full_range: v.color.full_range,
                        hdr10: v.hdr.mastering_display.is_some() || v.hdr.content_light.is_some(),
                        dolby_vision: v.dolby_vision.clone(),
                        fields: match v.fields {
                            FieldOrder::Unknown => "unknown",
                            FieldOrder::Progressive => "progressive",
                            FieldOrder::TopFirst => "top_first",
                            FieldOrder::BottomFirst => "bottom_first",
                        }
                        .to_owned(),
                        rotation: v.rotation,
                    }),
                    audio: audio.map(|a| MediaAudio {
                        sample_rate: a.sample_rate,
                        channels: a.channels,
                        layout: a.layout.clone(),
                        depth: a.depth,
                    }),
                    kind: kind.to_owned(),
                }
            })
            .collect();
        Media { container: m.container.clone(), size: m.size, duration_us: m.duration_us, streams }
    }
}
