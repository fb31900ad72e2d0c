//! The one trait behind which the encoders stand, and what opens them.

use trix_av::{CodecKind, CodecParameters, EncodedPacket, VideoFrame, VideoParameters};
use trix_model::Rational;
use trix_model::color::{ColorDescription, HdrMetadata};
use trix_model::pixel::Chroma;
use trix_plan::encoder::{Picture, VideoSettings, VideoVariant};
use trix_plan::{params, rules};

use crate::cpu::CpuLevel;
use crate::error::{EncodeError, Result};

/// Everything that decides a video stream's bytes, but for the pictures.
#[derive(Clone, Debug)]
pub struct VideoConfig {
    /// Encoder, preset, rate control, parameters.
    pub settings: VideoSettings,
    /// Size and format of the frames.
    pub picture: Picture,
    /// Seconds per tick of the frames' pts, and of the packets'.
    pub time_base: Rational,
    /// Nominal frames a second.
    pub frame_rate: Rational,
    /// All frames last equally long. It must be the same for all chunks of a
    /// film, because it stands in the parameter sets; otherwise rate control
    /// follows the frames' durations.
    pub constant_rate: bool,
    /// Width by height of a sample, if the source states one.
    pub sample_aspect: Option<Rational>,
    /// Colour, from the source.
    pub color: ColorDescription,
    /// HDR metadata, from the source.
    pub hdr: HdrMetadata,
    /// CPU feature level to force.
    pub cpu: CpuLevel,
    /// Where the parameter sets stand.
    pub headers: Headers,
    /// x264 names its settings in a message before the first frame. (x265's
    /// message names the CPU, so it is never written.)
    pub info_message: bool,
}

/// Where H.264's and HEVC's parameter sets stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Headers {
    /// In the extradata alone: for MP4, MOV and Matroska, and so that chunks can be joined.
    Global,
    /// Before every IDR frame too: for elementary streams and MPEG-TS.
    InBand,
}

/// One coded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Presentation time in ticks, exactly as the frame had it.
    pub pts: i64,
    /// Decode time in ticks, strictly rising, at most `pts`.
    pub dts: i64,
    /// Ticks until the next presented frame.
    pub duration: i64,
    /// A decoder can start here: IDR, or AV1 key frame.
    pub key: bool,
    /// Annex B for H.264 and HEVC, a temporal unit for AV1, a frame for FFV1.
    pub payload: Vec<u8>,
}

impl From<Packet> for EncodedPacket {
    fn from(p: Packet) -> EncodedPacket {
        EncodedPacket {
            pts: p.pts,
            dts: p.dts,
            duration: p.duration,
            key: p.key,
            discard_padding: 0,
            data: p.payload,
        }
    }
}

/// What [`VideoEncoder::receive`] gives. That more input is needed and that the
/// end is reached are no errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A coded picture, in decode order.
    Packet(Packet),
    /// Send another frame, or flush.
    NeedInput,
    /// Everything is out.
    End,
}

/// A video encoder. Frames go in in display order, packets come out in decode order.
///
/// All calls come from one thread at a time; with `threads` above 1 the library
/// has threads of its own.
pub trait VideoEncoder: Send {
    /// Takes the next frame. Its samples are copied or shared, its pts must rise.
    ///
    /// # Errors
    /// A frame of another size or format, without a rising pts, or after the
    /// end; a failure of the library.
    fn send(&mut self, frame: &VideoFrame) -> Result<()>;

    /// The next packet, if one is ready.
    ///
    /// # Errors
    /// A failure of the library.
    fn receive(&mut self) -> Result<Received>;

    /// Says that no more frames come. A second call does nothing.
    ///
    /// # Errors
    /// A failure of the library.
    fn flush(&mut self) -> Result<()>;

    /// What a container needs beside the packets: Annex B parameter sets for
    /// H.264 and HEVC, the `av1C` record for AV1, the configuration record for FFV1.
    /// They depend on the configuration alone, so that chunks can be joined.
    fn extradata(&self) -> &[u8];

    /// All that a muxer needs to know, extradata included.
    fn parameters(&self) -> CodecParameters;

    /// Frames behind a chunk's end that must be sent and their packets dropped,
    /// so that the chunk equals the same stretch of an uncut encode: what the
    /// library itself says; `trix_plan::params::run_over` says it without a library.
    fn lookahead(&self) -> u32;
}

impl VideoConfig {
    /// A configuration with constant rate, nothing stated of colour, and the machine's best level.
    pub fn new(
        settings: VideoSettings,
        picture: Picture,
        time_base: Rational,
        frame_rate: Rational,
    ) -> VideoConfig {
        VideoConfig {
            settings,
            picture,
            time_base,
            frame_rate,
            constant_rate: true,
            sample_aspect: None,
            color: ColorDescription::default(),
            hdr: HdrMetadata::default(),
            cpu: CpuLevel::best(),
            headers: Headers::Global,
            info_message: false,
        }
    }

    /// Opens the encoder that the settings name.
    ///
    /// # Errors
    /// Settings out of range, a picture that the encoder cannot take, a CPU
    /// level that the machine lacks, or the library's refusal in its words.
    pub fn open(&self) -> Result<Box<dyn VideoEncoder>> {
        self.check()?;
        Ok(match self.settings.variant {
            VideoVariant::X264_8 | VideoVariant::X264_10 => {
                Box::new(crate::x264::X264::open(self)?)
            }
            VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => {
                Box::new(crate::x265::X265::open(self)?)
            }
            VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => crate::rav1e::open(self)?,
            VideoVariant::Ffv1 => Box::new(crate::ffv1::Ffv1::open(self)?),
        })
    }

    fn check(&self) -> Result<()> {
        params::check_settings(&self.settings)
            .map_err(|errors| EncodeError::Settings { errors })?;
        self.cpu.check()?;
        let variant = self.settings.variant;
        let unsupported = |what: String| Err(EncodeError::Unsupported { variant, what });
        let Picture { width, height, format } = self.picture;
        if variant.depth().is_some_and(|d| d != format.depth) {
            return unsupported(format!("samples of {} bit", format.depth));
        }
        if !self.time_base.is_positive() || !self.frame_rate.is_positive() {
            let (tb, rate) = (self.time_base, self.frame_rate);
            return unsupported(format!(
                "time base {tb} and frame rate {rate}: both must be above 0"
            ));
        }
        if width == 0 || height == 0 || width > 16_384 || height > 16_384 {
            return unsupported(format!("{width}x{height}: sides are 1 to 16384"));
        }
        // AV1 and FFV1 code odd sizes; H.264 and HEVC crop in chroma samples.
        let codes_odd = matches!(variant.codec(), "av1" | "ffv1");
        let odd_width = matches!(format.chroma, Chroma::C420 | Chroma::C422) && width % 2 == 1;
        let odd_height = format.chroma == Chroma::C420 && height % 2 == 1;
        if !codes_odd && (odd_width || odd_height) {
            let side = if odd_width { "width" } else { "height" };
            return unsupported(format!(
                "{width}x{height}: with {:?} chroma the {side} must be even",
                format.chroma
            ));
        }
        rules::check_picture(&self.settings, &self.picture, self.frame_rate)
            .or_else(|reason| unsupported(format!("{width}x{height}: {reason}")))
    }

    /// Parameters under their canonical names, in the table's order of application.
    pub(crate) fn ordered_params(&self) -> Result<Vec<(&'static str, String)>> {
        let variant = self.settings.variant;
        let mut given = params::canonical(variant, &self.settings.params)
            .map_err(|errors| EncodeError::Settings { errors })?;
        Ok(params::table(variant)
            .iter()
            .filter_map(|p| given.remove(p.name).map(|value| (p.name, value)))
            .collect())
    }

    /// What a muxer needs to know, when display runs `reorder` pictures behind decode.
    pub(crate) fn parameters(&self, extradata: &[u8], reorder: u64) -> CodecParameters {
        let Picture { width, height, format } = self.picture;
        CodecParameters {
            codec: self.settings.variant.codec().to_owned(),
            extradata: extradata.to_vec(),
            profile: None,
            level: None,
            bit_rate: None,
            kind: CodecKind::Video(VideoParameters {
                width,
                height,
                pixel_format: trix_av::pixel_format_name(format).to_owned(),
                sample_aspect: self.sample_aspect,
                color: self.color,
                hdr: self.hdr,
                frame_rate: Some(self.frame_rate),
                reorder: reorder as u32,
            }),
        }
    }

    /// Refuses a frame that is not what the encoder was opened for.
    pub(crate) fn check_frame(&self, frame: &VideoFrame, number: u64) -> Result<()> {
        let Picture { width, height, format } = self.picture;
        if frame.format() == Some(format) && frame.width() == width && frame.height() == height {
            return Ok(());
        }
        Err(EncodeError::Frame {
            frame: number,
            got: format!("{}x{} {}", frame.width(), frame.height(), frame.format_name()),
            wanted: format!("{width}x{height} {}", trix_av::pixel_format_name(format)),
        })
    }
}
