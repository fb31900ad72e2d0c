//! One sound programme, whole: decode → conform → resample → encode.

use trix_av::{AudioDecoder, AudioFrame, Decoded, Input, Resampler};
use trix_encode::{AudioParameters, open_audio};
use trix_model::time::{Rounding, mul_div};
use trix_model::{Failure, Rational};
use trix_plan::encoder::AudioCodec;
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
    let packets = index.stream(task.stream).map_or(0, |s| s.packets.len()) as u64;

    let mut input = Input::open(io.source(&task.source)?)?;
    let mut decoder = AudioDecoder::open(&input, task.stream)?;
    let mut lane: Option<Lane> = None;
    let mut done = 0;
    loop {
        let packet = input.read_packet_of(task.stream)?;
        decoder.send(packet.as_ref())?;
        done += u64::from(packet.is_some());
        loop {
            match decoder.receive()? {
                Decoded::Frame(frame) => {
                    let lane = match &mut lane {
                        Some(lane) => lane,
                        // What the stream really holds is known from its first frame on.
                        None => lane.insert(Lane::open(task, output, &input, &frame, io)?),
                    };
                    lane.take(task, &input, frame)?;
                }
                Decoded::NeedInput | Decoded::End => break,
            }
        }
        control.at("sound", done, packets, 0)?;
        if packet.is_none() {
            break;
        }
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

/// Conform → resample → encode → packet file.
struct Lane {
    /// Source samples a second.
    rate: u32,
    /// Source samples since the timeline's zero that were passed on or skipped.
    position: Option<i64>,
    resampler: Resampler,
    encoder: trix_encode::AudioEncoder,
    writer: PacketWriter,
}

impl Lane {
    fn open(
        task: &EncodeAudio,
        output: &Output,
        input: &Input,
        first: &AudioFrame,
        io: &dyn TaskIo,
    ) -> Result<Lane, Failure> {
        let encoder = open_audio(&AudioParameters {
            settings: &task.settings,
            source_rate: first.rate(),
            source_layout: &first.layout(),
            source_depth: input.audio_depth(task.stream),
        })?;
        let resampler =
            Resampler::new(first, encoder.format(), encoder.sample_rate(), encoder.layout())?;
        let time_base = Rational::new(1, i64::from(encoder.sample_rate()))
            .ok_or_else(|| Failure::bug("an audio encoder has a sample rate of zero"))?;
        let header =
            PacketHeader { version: 1, parameters: encoder.parameters().clone(), time_base };
        Ok(Lane {
            rate: first.rate(),
            position: None,
            resampler,
            encoder,
            writer: PacketWriter::create(io.create(&output.name)?, &header)?,
        })
    }

    /// Passes a decoded frame on: what lies before the timeline's zero is cut
    /// off to the sample, gaps become silence, overlaps are dropped.
    fn take(&mut self, task: &EncodeAudio, input: &Input, frame: AudioFrame) -> Result<(), Failure> {
        let samples = frame.samples() as i64;
        let stated = frame.pts().map(|pts| {
            samples_from_zero(pts, input.time_base(task.stream), task.zero_pts, task.time_base, self.rate)
        });
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
        let out = mul_div(at, i64::from(self.encoder.sample_rate()), i64::from(self.rate), Rounding::Nearest);
        self.encoder.start_at(out);
    }

    fn silence(&mut self, like: &AudioFrame, mut samples: i64) -> Result<(), Failure> {
        // In pieces, so that a false timestamp hours ahead takes no memory.
        while samples > 0 {
            let piece = samples.min(i64::from(self.rate));
            let quiet = AudioFrame::silence_like(like, piece as usize)?;
            self.encode(&quiet)?;
            samples -= piece;
        }
        Ok(())
    }

    fn encode(&mut self, frame: &AudioFrame) -> Result<(), Failure> {
        if let Some(out) = self.resampler.convert(frame)? {
            self.encoder.send(&out)?;
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        while let trix_encode::Received::Packet(packet) = self.encoder.receive()? {
            self.writer.write(&packet)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<crate::packetfile::Written, Failure> {
        while let Some(rest) = self.resampler.flush()? {
            self.encoder.send(&rest)?;
        }
        self.encoder.flush()?;
        self.drain()?;
        Ok(self.writer.finish()?)
    }
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
    let rounded = if top >= 0 { (top + bottom / 2) / bottom } else { -((-top + bottom / 2) / bottom) };
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
