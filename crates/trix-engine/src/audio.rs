//! One sound programme, whole: decode → conform → resample → encode.

use trix_av::{
    AudioCodecKind, AudioEncoder, AudioEncoderSettings, AudioFrame, AudioReader, EncodedPacket,
    Input, Resampler,
};
use trix_model::media::StreamKind;
use trix_model::time::{Rounding, mul_div};
use trix_model::{Failure, MediaDescription, Rational};
use trix_plan::encoder::{AudioCodec, AudioSettings};
use trix_plan::task::{EncodeAudio, Output, TaskResult};

use crate::copy;
use crate::io::{Control, TaskIo, read_index};
use crate::packetfile::{PacketHeader, PacketWriter};
use crate::run::{made, only};

/// Timestamps may stray this far from the count of samples before it is taken
/// for a gap or an overlap: containers round to a millisecond, and MPEG clocks
/// are restamped by multiplexers. In thousandths of a second.
const STRAY_MS: i64 = 40;

pub fn run(
    task: &EncodeAudio,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    if task.settings.codec == AudioCodec::Copy {
        return copy::audio(task, wanted, io, control);
    }
    let output = only(wanted, "audio")?;
    let index = read_index(io, &task.index)?;
    let input = Input::open(io.source(&task.source)?)?;
    let base = input.time_base(task.stream)?;
    let depth = depth(&input.description(), task.stream);
    let total = index
        .stream(task.stream)
        .and_then(|s| s.packets.iter().rev().find_map(|p| p.pts))
        .map_or(0, |last| samples_from_zero(last, base, task.zero_pts, task.time_base, 1000));
    let mut reader = AudioReader::open(input, task.stream)?;
    let mut lane: Option<Lane> = None;
    while let Some(frame) = reader.next()? {
        let lane = match &mut lane {
            Some(lane) => lane,
            // What the stream really holds is known from its first frame on.
            None => lane.insert(Lane::open(task, output, base, depth, &frame, io)?),
        };
        lane.take(task, frame)?;
        let ms = lane.position.unwrap_or(0).max(0) * 1000 / i64::from(lane.rate);
        control.at("sound", ms.min(total.max(ms)) as u64, total.max(0) as u64, 0)?;
    }
    let lane = lane.ok_or_else(|| {
        Failure::source(
            "no_samples",
            format!("no sound can be decoded from stream {} of the source", task.stream),
        )
    })?;
    let written = lane.finish()?;
    Ok(TaskResult { outputs: vec![made(output, written)], detail: None })
}

/// Bits a sample of the source's sound, where that is known (PCM and lossless codecs).
fn depth(media: &MediaDescription, stream: u32) -> Option<u8> {
    match media.streams.iter().find(|s| s.index == stream).map(|s| &s.kind) {
        Some(StreamKind::Audio(audio)) => audio.depth,
        _ => None,
    }
}

/// Conform → resample → encode → packet file.
struct Lane {
    /// Seconds per tick of the stream.
    base: Rational,
    /// Source samples a second.
    rate: u32,
    /// Source samples since the timeline's zero that were passed on or skipped.
    position: Option<i64>,
    /// Encoded samples by which sound begins after the picture.
    late: i64,
    resampler: Resampler,
    encoder: AudioEncoder,
    encoded_rate: u32,
    writer: PacketWriter,
}

impl Lane {
    fn open(
        task: &EncodeAudio,
        output: &Output,
        base: Rational,
        depth: Option<u8>,
        first: &AudioFrame,
        io: &dyn TaskIo,
    ) -> Result<Lane, Failure> {
        let settings = settings(&task.settings, first, depth)?;
        let encoder = AudioEncoder::open(&settings)?;
        let resampler =
            Resampler::new(encoder.input_format(), settings.rate, Some(&settings.layout))?;
        let time_base = Rational::new(1, i64::from(settings.rate))
            .ok_or_else(|| Failure::bug("an audio encoder has a sample rate of zero"))?;
        let header = PacketHeader { version: 1, parameters: encoder.parameters(), time_base };
        Ok(Lane {
            base,
            rate: first.rate(),
            position: None,
            late: 0,
            resampler,
            encoder,
            encoded_rate: settings.rate,
            writer: PacketWriter::create(io.create(output)?, &header)?,
        })
    }

    /// Passes a decoded frame on: what lies before the timeline's zero is cut
    /// off to the sample, gaps become silence, overlaps are dropped.
    fn take(&mut self, task: &EncodeAudio, frame: AudioFrame) -> Result<(), Failure> {
        let samples = frame.samples() as i64;
        let stated = frame
            .pts()
            .map(|pts| samples_from_zero(pts, self.base, task.zero_pts, task.time_base, self.rate));
        let mut at = match (stated, self.position) {
            (Some(stated), Some(expected)) => {
                let stray = stated - expected;
                let allowed = mul_div(i64::from(self.rate), STRAY_MS, 1000, Rounding::Nearest);
                if stray.abs() <= allowed { expected } else { stated }
            }
            (Some(stated), None) => stated,
            (None, Some(expected)) => expected,
            // No time at all: sound begins with the picture.
            (None, None) => 0,
        };
        let mut from = 0;
        let begin = self.position.unwrap_or(0).max(0);
        if at < begin {
            from = (begin - at).min(samples);
            at += from;
        }
        match self.position {
            Some(expected) if at > expected.max(0) => {
                self.silence(&frame, at - expected.max(0))?;
            }
            None if at > 0 => self.start(at),
            _ => {}
        }
        self.position = Some(at + samples - from);
        if from < samples {
            let part = frame.slice(from as usize, (samples - from) as usize)?;
            self.encode(&part)?;
        }
        Ok(())
    }

    /// Sound begins late: its first sample gets that time, and the muxer an edit.
    fn start(&mut self, at: i64) {
        self.late =
            mul_div(at, i64::from(self.encoded_rate), i64::from(self.rate), Rounding::Nearest);
    }

    fn silence(&mut self, like: &AudioFrame, mut samples: i64) -> Result<(), Failure> {
        // In pieces, so that a false timestamp hours ahead takes no memory.
        while samples > 0 {
            let piece = samples.min(i64::from(self.rate));
            let quiet =
                AudioFrame::alloc(like.format(), like.rate(), &like.layout(), piece as usize)?;
            self.encode(&quiet)?;
            samples -= piece;
        }
        Ok(())
    }

    fn encode(&mut self, frame: &AudioFrame) -> Result<(), Failure> {
        if let Some(out) = self.resampler.push(frame)? {
            let packets = self.encoder.send(&out)?;
            self.write(packets)?;
        }
        Ok(())
    }

    fn write(&mut self, packets: Vec<EncodedPacket>) -> Result<(), Failure> {
        for p in packets {
            let (pts, dts) = (p.pts + self.late, p.dts + self.late);
            self.writer.write(&EncodedPacket { pts, dts, ..p })?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<crate::packetfile::Written, Failure> {
        if let Some(rest) = self.resampler.finish()? {
            let packets = self.encoder.send(&rest)?;
            self.write(packets)?;
        }
        let packets = self.encoder.finish()?;
        self.write(packets)?;
        Ok(self.writer.finish()?)
    }
}

/// The plan's settings with what it leaves to the source filled in.
fn settings(
    asked: &AudioSettings,
    first: &AudioFrame,
    depth: Option<u8>,
) -> Result<AudioEncoderSettings, Failure> {
    let channels = asked.channels.unwrap_or(first.channels());
    let stated = first.layout();
    // Plain PCM names no layout, only a count; encoders want the one that is usual for it.
    let layout = if channels == first.channels() && !stated.ends_with("channels") {
        stated
    } else {
        usual_layout(channels)
    };
    // Lossy sources decode to float; 24 bit keeps more than the ear hears.
    let depth = depth.filter(|d| *d > 0).unwrap_or(24);
    let codec = match asked.codec {
        AudioCodec::Aac => AudioCodecKind::Aac,
        AudioCodec::Flac => AudioCodecKind::Flac,
        AudioCodec::Pcm if depth <= 16 => AudioCodecKind::PcmS16le,
        AudioCodec::Pcm if depth <= 24 => AudioCodecKind::PcmS24le,
        AudioCodec::Pcm => AudioCodecKind::PcmS32le,
        AudioCodec::Copy => return Err(Failure::bug("a copied sound track has no encoder")),
    };
    // The field's usual rates: 64 kbit/s a channel for AAC-LC, which is transparent for stereo.
    let bit_rate = matches!(codec, AudioCodecKind::Aac)
        .then(|| asked.bit_rate.unwrap_or(64_000 * u32::from(channels.max(1))));
    let rate = match (asked.sample_rate, codec) {
        (Some(rate), _) => rate,
        // AAC knows rates up to 96 kHz, and players of ladders only up to 48.
        (None, AudioCodecKind::Aac) => first.rate().clamp(8_000, 48_000),
        (None, _) => first.rate(),
    };
    Ok(AudioEncoderSettings { codec, rate, layout, bit_rate, source_depth: Some(depth) })
}

/// The layout of a count of channels where nothing says another, as WAV and libav take it.
fn usual_layout(channels: u16) -> String {
    match channels {
        1 => "mono",
        2 => "stereo",
        3 => "3.0",
        4 => "4.0",
        5 => "5.0",
        6 => "5.1",
        7 => "6.1",
        8 => "7.1",
        n => return format!("{n} channels"),
    }
    .to_owned()
}

/// Samples from the timeline's zero to a timestamp, rounded once.
pub(crate) fn samples_from_zero(
    pts: i64,
    base: Rational,
    zero: i64,
    zero_base: Rational,
    rate: u32,
) -> i64 {
    let (n1, d1) = (i128::from(base.num()), i128::from(base.den()));
    let (n2, d2) = (i128::from(zero_base.num()), i128::from(zero_base.den()));
    let top = (i128::from(pts) * n1 * d2 - i128::from(zero) * n2 * d1) * i128::from(rate);
    let bottom = d1 * d2;
    let rounded =
        if top >= 0 { (top + bottom / 2) / bottom } else { -((-top + bottom / 2) / bottom) };
    rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_positions_are_exact_across_bases() {
        let mpeg = Rational::new(1, 90000).unwrap();
        let film = Rational::new(1, 24000).unwrap();
        // 1.5 s of MPEG clock against a zero at 0.5 s of a film clock: one second.
        assert_eq!(samples_from_zero(135_000, mpeg, 12_000, film, 48_000), 48_000);
        assert_eq!(samples_from_zero(0, mpeg, 1_001, film, 48_000), -2_002);
    }
}
