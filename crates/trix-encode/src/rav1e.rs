//! AV1 by rav1e, 8 and 10 bit.

use std::sync::Arc;

use rav1e::prelude::{
    ChromaSamplePosition, ChromaSampling, ChromaticityPoint, ColorDescription, ColorPrimaries,
    Config, ContentLight, Context, EncoderConfig, EncoderStatus, Frame, FrameType, InvalidConfig,
    MasteringDisplay, MatrixCoefficients, Pixel, PixelRange, SpeedSettings,
    TransferCharacteristics, Tune,
};
use trix_av::{CodecParameters, VideoFrame};
use trix_model::Rational;
use trix_model::pixel::Chroma;
use trix_plan::encoder::RateControl;

use crate::encoder::{Packet, Received, VideoConfig, VideoEncoder};
use crate::error::{EncodeError, Result};
use crate::timeline::Timeline;

// Defaults: what trix sets whatever the profile says.

fn defaults(e: &mut EncoderConfig, config: &VideoConfig) -> Result<()> {
    let format = config.picture.format;
    e.width = config.picture.width as usize;
    e.height = config.picture.height as usize;
    e.bit_depth = usize::from(format.depth);
    e.chroma_sampling = match format.chroma {
        Chroma::Mono => ChromaSampling::Cs400,
        Chroma::C420 => ChromaSampling::Cs420,
        Chroma::C422 => ChromaSampling::Cs422,
        Chroma::C444 => ChromaSampling::Cs444,
    };
    // Rate control counts frames; the packets get the frames' own times.
    let rate = config.frame_rate;
    let (num, den) = unsigned(rate).ok_or_else(|| EncodeError::Unsupported {
        variant: config.settings.variant,
        what: format!("frame rate {rate}"),
    })?;
    e.time_base = rav1e::data::Rational::new(den, num);
    if config.settings.keyint > 0 {
        let keyint = u64::from(config.settings.keyint);
        e.set_key_frame_interval(keyint, keyint);
    }
    signal(e, config);
    Ok(())
}

/// Colour, aspect and HDR metadata: only what the source states.
fn signal(e: &mut EncoderConfig, config: &VideoConfig) {
    let color = &config.color;
    // The stream has no way to leave the range open; limited is what it means then.
    e.pixel_range = match color.full_range {
        Some(true) => PixelRange::Full,
        _ => PixelRange::Limited,
    };
    if color.primaries.is_some() || color.transfer.is_some() || color.matrix.is_some() {
        e.color_description = Some(ColorDescription {
            color_primaries: primaries(color.primaries),
            transfer_characteristics: transfer(color.transfer),
            matrix_coefficients: matrix(color.matrix),
        });
    }
    if format_is_420(config) {
        e.chroma_sample_position = match color.chroma_location {
            Some(0) => ChromaSamplePosition::Vertical,
            Some(2) => ChromaSamplePosition::Colocated,
            _ => ChromaSamplePosition::Unknown,
        };
    }
    if let Some((num, den)) = config.sample_aspect.and_then(unsigned) {
        e.sample_aspect_ratio = rav1e::data::Rational::new(num, den);
    }
    e.mastering_display = config.hdr.mastering_display.map(|m| MasteringDisplay {
        primaries: m.primaries.map(chromaticity),
        white_point: chromaticity(m.white_point),
        // AV1 has 24.8 and 18.14 bits where SMPTE ST 2086 counts 0.0001 cd/m².
        max_luminance: scale(m.max_luminance, 1 << 8, 10_000),
        min_luminance: scale(m.min_luminance, 1 << 14, 10_000),
    });
    e.content_light = config.hdr.content_light.map(|l| ContentLight {
        max_content_light_level: l.max_content,
        max_frame_average_light_level: l.max_frame_average,
    });
}

fn format_is_420(config: &VideoConfig) -> bool {
    config.picture.format.chroma == Chroma::C420
}

fn unsigned(r: Rational) -> Option<(u64, u64)> {
    let (num, den) = (u64::try_from(r.num()).ok()?, u64::try_from(r.den()).ok()?);
    (num > 0 && den > 0).then_some((num, den))
}

/// From units of 0.00002 to 16 binary digits.
fn chromaticity([x, y]: [u16; 2]) -> ChromaticityPoint {
    let fixed = |v: u16| u16::try_from(scale(u32::from(v), 1 << 16, 50_000)).unwrap_or(u16::MAX);
    ChromaticityPoint { x: fixed(x), y: fixed(y) }
}

/// `value * num / den`, rounded to the nearest.
fn scale(value: u32, num: u64, den: u64) -> u32 {
    u32::try_from((u64::from(value) * num + den / 2) / den).unwrap_or(u32::MAX)
}

fn primaries(code: Option<u8>) -> ColorPrimaries {
    match code {
        Some(1) => ColorPrimaries::BT709,
        Some(4) => ColorPrimaries::BT470M,
        Some(5) => ColorPrimaries::BT470BG,
        Some(6) => ColorPrimaries::BT601,
        Some(7) => ColorPrimaries::SMPTE240,
        Some(8) => ColorPrimaries::GenericFilm,
        Some(9) => ColorPrimaries::BT2020,
        Some(10) => ColorPrimaries::XYZ,
        Some(11) => ColorPrimaries::SMPTE431,
        Some(12) => ColorPrimaries::SMPTE432,
        Some(22) => ColorPrimaries::EBU3213,
        _ => ColorPrimaries::Unspecified,
    }
}

fn transfer(code: Option<u8>) -> TransferCharacteristics {
    use TransferCharacteristics as T;
    match code {
        Some(1) => T::BT709,
        Some(4) => T::BT470M,
        Some(5) => T::BT470BG,
        Some(6) => T::BT601,
        Some(7) => T::SMPTE240,
        Some(8) => T::Linear,
        Some(9) => T::Log100,
        Some(10) => T::Log100Sqrt10,
        Some(11) => T::IEC61966,
        Some(12) => T::BT1361,
        Some(13) => T::SRGB,
        Some(14) => T::BT2020_10Bit,
        Some(15) => T::BT2020_12Bit,
        Some(16) => T::SMPTE2084,
        Some(17) => T::SMPTE428,
        Some(18) => T::HLG,
        _ => T::Unspecified,
    }
}

fn matrix(code: Option<u8>) -> MatrixCoefficients {
    use MatrixCoefficients as M;
    match code {
        Some(0) => M::Identity,
        Some(1) => M::BT709,
        Some(4) => M::FCC,
        Some(5) => M::BT470BG,
        Some(6) => M::BT601,
        Some(7) => M::SMPTE240,
        Some(8) => M::YCgCo,
        Some(9) => M::BT2020NCL,
        Some(10) => M::BT2020CL,
        Some(11) => M::SMPTE2085,
        Some(12) => M::ChromatNCL,
        Some(13) => M::ChromatCL,
        Some(14) => M::ICtCp,
        _ => M::Unspecified,
    }
}

// Settings: what the profile says, by rav1e's own names.

/// rav1e's configuration for ours.
fn configuration(config: &VideoConfig) -> Result<EncoderConfig> {
    let settings = &config.settings;
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let mut e = EncoderConfig::with_speed_preset(number(&settings.preset) as u8);
    match settings.tune.as_deref() {
        Some("psnr") => e.tune = Tune::Psnr,
        Some("psychovisual") => e.tune = Tune::Psychovisual,
        _ => {}
    }
    for (name, value) in config.ordered_params()? {
        let n = number(&value);
        let speed: &mut SpeedSettings = &mut e.speed_settings;
        match name {
            "tiles" => e.tiles = n as usize,
            "tile-cols" => e.tile_cols = n as usize,
            "tile-rows" => e.tile_rows = n as usize,
            "low-latency" => e.low_latency = n != 0,
            "error-resilient" => e.error_resilient = n != 0,
            "min-quantizer" => e.min_quantizer = n as u8,
            "reservoir-frame-delay" => e.reservoir_frame_delay = Some(n as i32),
            "rdo-lookahead-frames" => speed.rdo_lookahead_frames = n as usize,
            "multiref" => speed.multiref = n != 0,
            "fast-deblock" => speed.fast_deblock = n != 0,
            "cdef" => speed.cdef = n != 0,
            "lrf" => speed.lrf = n != 0,
            _ => {
                return Err(EncodeError::Library {
                    library: "rav1e",
                    operation: "setting a parameter",
                    reason: format!("{name} stands in the table, but is not applied"),
                });
            }
        }
    }
    match &settings.rate {
        RateControl::Qp { qp } => e.quantizer = *qp as usize,
        RateControl::Bitrate { kbps, .. } => {
            e.quantizer = 255;
            e.bitrate = i32::try_from(u64::from(*kbps) * 1000).unwrap_or(i32::MAX);
        }
        RateControl::Crf { .. } | RateControl::Lossless => {}
    }
    defaults(&mut e, config)?;
    Ok(e)
}

fn refused(operation: &'static str, reason: InvalidConfig) -> EncodeError {
    EncodeError::Library { library: "rav1e", operation, reason: reason.to_string() }
}

// State.

/// An open rav1e encoder with samples of one or two bytes.
struct Rav1e<T: Pixel> {
    context: Context<T>,
    config: VideoConfig,
    extradata: Vec<u8>,
    timeline: Timeline,
    /// A packet whose duration is not known yet.
    held: Option<(u64, Packet)>,
    ended: bool,
}

/// Opens rav1e; see [`VideoConfig::open`].
pub fn open(config: &VideoConfig) -> Result<Box<dyn VideoEncoder>> {
    Ok(match config.picture.format.depth {
        8 => Box::new(Rav1e::<u8>::open(config)?),
        _ => Box::new(Rav1e::<u16>::open(config)?),
    })
}

impl<T: Pixel + FromBytes> Rav1e<T> {
    fn open(config: &VideoConfig) -> Result<Rav1e<T>> {
        let e = configuration(config)?;
        let threads = config.settings.threads as usize;
        let c = Config::new().with_encoder_config(e).with_threads(threads);
        let context = c.new_context().map_err(|r| refused("opening the encoder", r))?;
        let extradata = configuration_record(&c, &context, config)?;
        Ok(Rav1e {
            context,
            config: config.clone(),
            extradata,
            timeline: Timeline::new(config.time_base, config.frame_rate),
            held: None,
            ended: false,
        })
    }
}

/// The `av1C` record with its sequence header.
///
/// rav1e gives the record's four fixed bytes; the header is taken from an
/// encode of one black frame, because it has to be known before the first packet.
fn configuration_record<T: Pixel>(
    c: &Config,
    context: &Context<T>,
    config: &VideoConfig,
) -> Result<Vec<u8>> {
    let failed = |status: EncoderStatus| failed("writing the sequence header", status);
    let mut record = context.container_sequence_header();
    // rav1e always says "unknown" here, even when its sequence header says more.
    let position = match (format_is_420(config), config.color.chroma_location) {
        (true, Some(0)) => 1,
        (true, Some(2)) => 2,
        _ => 0,
    };
    if let Some(byte) = record.get_mut(2) {
        *byte |= position;
    }
    let mut probe: Context<T> = c.new_context().map_err(|r| refused("opening the encoder", r))?;
    let frame = probe.new_frame();
    probe.send_frame(frame).map_err(failed)?;
    probe.flush();
    loop {
        match probe.receive_packet() {
            Ok(packet) => {
                record.extend_from_slice(sequence_header(&packet.data).ok_or_else(|| {
                    EncodeError::Library {
                        library: "rav1e",
                        operation: "writing the sequence header",
                        reason: "a key frame has none".into(),
                    }
                })?);
                return Ok(record);
            }
            Err(EncoderStatus::Encoded) => {}
            Err(status) => return Err(failed(status)),
        }
    }
}

/// The first sequence header OBU of a temporal unit (AV1 specification, 5.3 and 5.5).
fn sequence_header(mut unit: &[u8]) -> Option<&[u8]> {
    const SEQUENCE_HEADER: u8 = 1;
    while let Some(&header) = unit.first() {
        let (kind, extended, sized) = ((header >> 3) & 15, header & 4 != 0, header & 2 != 0);
        if !sized {
            return None;
        }
        let mut at = if extended { 2 } else { 1 };
        let mut size = 0usize;
        for i in 0..8 {
            let byte = *unit.get(at)?;
            at += 1;
            size |= usize::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let end = at.checked_add(size).filter(|e| *e <= unit.len())?;
        if kind == SEQUENCE_HEADER {
            return Some(&unit[..end]);
        }
        unit = &unit[end..];
    }
    None
}

fn failed(operation: &'static str, status: EncoderStatus) -> EncodeError {
    EncodeError::Library { library: "rav1e", operation, reason: status.to_string() }
}

/// Samples as they lie in a frame's lines.
trait FromBytes: Sized {
    fn copy(row: &[u8], to: &mut [Self]);
}

impl FromBytes for u8 {
    fn copy(row: &[u8], to: &mut [u8]) {
        to[..row.len()].copy_from_slice(row);
    }
}

impl FromBytes for u16 {
    fn copy(row: &[u8], to: &mut [u16]) {
        for (sample, bytes) in to.iter_mut().zip(row.as_chunks::<2>().0) {
            *sample = u16::from_le_bytes(*bytes);
        }
    }
}

impl<T: Pixel + FromBytes> VideoEncoder for Rav1e<T> {
    fn send(&mut self, frame: &VideoFrame) -> Result<()> {
        let number = self.timeline.len();
        if self.ended {
            return Err(EncodeError::AfterEnd { frame: number });
        }
        self.config.check_frame(frame, number)?;
        self.timeline.push(frame)?;
        let mut copy: Frame<T> = self.context.new_frame();
        for i in 0..self.config.picture.format.planes() {
            let plane = frame.plane(i);
            let stride = copy.planes[i].cfg.stride;
            let to = copy.planes[i].data_origin_mut();
            for y in 0..plane.height {
                T::copy(plane.row(y), &mut to[y as usize * stride..]);
            }
        }
        // rav1e pads the frame itself while it is the only owner.
        self.context.send_frame(Arc::new(copy)).map_err(|status| failed("taking a frame", status))
    }

    fn receive(&mut self) -> Result<Received> {
        while self.held.is_none() {
            match self.context.receive_packet() {
                Ok(packet) => {
                    let number = packet.input_frameno;
                    let pts = self.timeline.pts(number).ok_or_else(|| EncodeError::Library {
                        library: "rav1e",
                        operation: "encoding a frame",
                        reason: format!("frame {number} came out, but never went in"),
                    })?;
                    let key = packet.frame_type == FrameType::KEY;
                    // A temporal unit shows one frame, so decode and display order agree.
                    let packet = Packet { pts, dts: pts, duration: 0, key, payload: packet.data };
                    self.held = Some((number, packet));
                }
                Err(EncoderStatus::Encoded) => {}
                Err(EncoderStatus::NeedMoreData) => return Ok(Received::NeedInput),
                Err(EncoderStatus::LimitReached) => return Ok(Received::End),
                Err(status) => return Err(failed("encoding a frame", status)),
            }
        }
        let Some((number, mut packet)) = self.held.take() else { return Ok(Received::NeedInput) };
        match self.timeline.duration(number, self.ended) {
            Some(duration) => {
                packet.duration = duration;
                Ok(Received::Packet(packet))
            }
            None => {
                self.held = Some((number, packet));
                Ok(Received::NeedInput)
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.ended {
            self.ended = true;
            self.context.flush();
        }
        Ok(())
    }

    fn extradata(&self) -> &[u8] {
        &self.extradata
    }

    fn parameters(&self) -> CodecParameters {
        self.config.parameters(&self.extradata, 0)
    }

    fn lookahead(&self) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luminance_and_colour_points_become_av1s_fixed_point() {
        // 1000 cd/m² and 0.0001 cd/m²; D65's x.
        assert_eq!(scale(10_000_000, 1 << 8, 10_000), 256_000);
        assert_eq!(scale(1, 1 << 14, 10_000), 2);
        assert_eq!(chromaticity([15_635, 50_000]).x, 20_493);
        assert_eq!(chromaticity([15_635, 50_000]).y, u16::MAX);
    }

    #[test]
    fn the_sequence_header_is_found_behind_a_delimiter() {
        let unit = [0x12, 0x00, 0x0a, 0x02, 0xaa, 0xbb, 0x32, 0x01, 0xcc];
        assert_eq!(sequence_header(&unit), Some(&unit[2..6]));
        assert_eq!(sequence_header(&unit[..5]), None);
        assert_eq!(sequence_header(&[]), None);
    }
}
