//! FFV1, lossless, by libavcodec.

use std::collections::{BTreeMap, VecDeque};

use trix_av::{CodecParameters, EncodedPacket, Ffv1Encoder, Ffv1Settings, VideoFrame};
use trix_plan::rules;

use crate::encoder::{Packet, Received, VideoConfig, VideoEncoder};
use crate::error::{EncodeError, Result};
use crate::timeline::Timeline;

// Defaults: version 3, a checksum a slice and every frame a key frame are trix-av's.

// Settings: what the profile says, by libavcodec's own names.

fn settings(config: &VideoConfig) -> Result<Ffv1Settings> {
    let slices = rules::ffv1_slices(&config.settings, &config.picture)
        .map_err(|what| EncodeError::Unsupported { variant: config.settings.variant, what })?;
    let mut options: BTreeMap<String, String> =
        config.ordered_params()?.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    options.insert("slices".to_owned(), slices.to_string());
    Ok(Ffv1Settings {
        format: config.picture.format,
        width: config.picture.width,
        height: config.picture.height,
        sample_aspect: config.sample_aspect,
        color: config.color,
        hdr: config.hdr,
        time_base: config.time_base,
        frame_rate: config.frame_rate,
        threads: config.settings.threads,
        options,
    })
}

// State.

/// An open FFV1 encoder.
pub struct Ffv1 {
    encoder: Ffv1Encoder,
    config: VideoConfig,
    extradata: Vec<u8>,
    timeline: Timeline,
    coded: u64,
    ready: VecDeque<(u64, Packet)>,
    ended: bool,
}

impl Ffv1 {
    /// Opens libavcodec's encoder; see [`VideoConfig::open`].
    pub fn open(config: &VideoConfig) -> Result<Ffv1> {
        let encoder = Ffv1Encoder::open(&settings(config)?)?;
        Ok(Ffv1 {
            extradata: encoder.parameters().extradata,
            encoder,
            config: config.clone(),
            timeline: Timeline::new(config.time_base, config.frame_rate),
            coded: 0,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    fn keep(&mut self, packets: Vec<EncodedPacket>) {
        for EncodedPacket { pts, key, data, .. } in packets {
            // Every frame stands alone, so decode and display order agree.
            let packet = Packet { pts, dts: pts, duration: 0, key, payload: data };
            self.ready.push_back((self.coded, packet));
            self.coded += 1;
        }
    }
}

impl VideoEncoder for Ffv1 {
    fn send(&mut self, frame: &VideoFrame) -> Result<()> {
        let number = self.timeline.len();
        if self.ended {
            return Err(EncodeError::AfterEnd { frame: number });
        }
        self.config.check_frame(frame, number)?;
        self.timeline.push(frame)?;
        let packets = self.encoder.send(frame)?;
        self.keep(packets);
        Ok(())
    }

    fn receive(&mut self) -> Result<Received> {
        let Some((number, _)) = self.ready.front() else {
            return Ok(if self.ended { Received::End } else { Received::NeedInput });
        };
        let Some(duration) = self.timeline.duration(*number, self.ended) else {
            return Ok(Received::NeedInput);
        };
        let Some((_, mut packet)) = self.ready.pop_front() else { return Ok(Received::NeedInput) };
        packet.duration = duration;
        Ok(Received::Packet(packet))
    }

    fn flush(&mut self) -> Result<()> {
        if !self.ended {
            self.ended = true;
            let packets = self.encoder.finish()?;
            self.keep(packets);
        }
        Ok(())
    }

    fn extradata(&self) -> &[u8] {
        &self.extradata
    }

    fn parameters(&self) -> CodecParameters {
        self.encoder.parameters()
    }

    fn lookahead(&self) -> u32 {
        0
    }
}
