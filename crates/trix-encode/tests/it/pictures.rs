//! Generated pictures with known content, and the way through an encoder.

use trix_av::{CodecParameters, VideoFrame};
use trix_encode::{Packet, Received, VideoConfig, VideoEncoder};
use trix_model::Rational;
use trix_model::pixel::{Chroma, PixelFormat};
use trix_plan::encoder::{Picture, RateControl, VideoSettings, VideoVariant};

/// Film rate.
pub const RATE: (i64, i64) = (24_000, 1001);

pub fn rational(num: i64, den: i64) -> Rational {
    Rational::new(num, den).unwrap()
}

/// The format that a variant takes in these tests.
pub fn format_of(variant: VideoVariant) -> PixelFormat {
    PixelFormat { chroma: Chroma::C420, depth: variant.depth().unwrap_or(10) }
}

/// A configuration with the fastest useful preset and a tick of one frame.
pub fn config(variant: VideoVariant, width: u32, height: u32) -> VideoConfig {
    let (preset, rate) = match variant {
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => ("10", RateControl::Qp { qp: 120 }),
        VideoVariant::Ffv1 => ("", RateControl::Lossless),
        _ => ("superfast", RateControl::Crf { crf: "26".into(), vbv: None }),
    };
    let settings = VideoSettings {
        variant,
        preset: preset.into(),
        tune: None,
        rate,
        keyint: 0,
        threads: 1,
        params: Default::default(),
    };
    let picture = Picture { width, height, format: format_of(variant) };
    VideoConfig::new(settings, picture, rational(RATE.1, RATE.0), rational(RATE.0, RATE.1))
}

/// Picture `n` of a film: a gradient that pans, a box that moves, a little
/// noise, and another scene every 40 pictures.
pub fn picture(n: u32, width: u32, height: u32, format: PixelFormat) -> VideoFrame {
    let mut frame = VideoFrame::alloc(format, width, height).unwrap();
    let scene = n / 40;
    let peak = (1u32 << format.depth) - 1;
    for i in 0..format.planes() {
        let mut plane = frame.plane_mut(i).unwrap();
        // xorshift, seeded by place, so that a picture is the same in every test.
        let mut state = 0x9e37_79b9u32 ^ (n * 31 + i as u32 * 7919 + scene * 104_729 + 1);
        let (w, h) = (plane.width, plane.height);
        for y in 0..h {
            let row = plane.row_mut(y);
            for x in 0..w {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let noise = state % 6;
                let pan = (x * 3 + y * 2 + n * 4 + scene * 90) % 200;
                let (bx, by) = ((n * 5) % w, (n * 3) % h);
                let inside = x >= bx && x < bx + w / 5 && y >= by && y < by + h / 4;
                let eight = if inside { 220 - pan / 4 } else { 20 + pan } + noise;
                let value = (eight * peak / 255).min(peak);
                if format.bytes() == 1 {
                    row[x as usize] = value as u8;
                } else {
                    let at = x as usize * 2;
                    row[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
                }
            }
        }
    }
    frame.set_pts(Some(i64::from(n)));
    frame
}

/// `count` pictures from `first` on, with pts equal to their numbers.
pub fn film(config: &VideoConfig, first: u32, count: u32) -> Vec<VideoFrame> {
    let Picture { width, height, format } = config.picture;
    (first..first + count).map(|n| picture(n, width, height, format)).collect()
}

/// What came out of an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub parameters: CodecParameters,
    pub extradata: Vec<u8>,
    pub packets: Vec<Packet>,
}

impl Encoded {
    /// Parameter sets once and then every access unit: an Annex B file.
    pub fn stream(&self) -> Vec<u8> {
        let mut bytes = self.extradata.clone();
        bytes.extend(self.payloads());
        bytes
    }

    pub fn payloads(&self) -> Vec<u8> {
        self.packets.iter().flat_map(|p| p.payload.iter().copied()).collect()
    }

    pub fn keys(&self) -> Vec<i64> {
        self.packets.iter().filter(|p| p.key).map(|p| p.pts).collect()
    }
}

pub fn drain(encoder: &mut dyn VideoEncoder, packets: &mut Vec<Packet>) -> Received {
    loop {
        match encoder.receive().unwrap() {
            Received::Packet(p) => packets.push(p),
            other => return other,
        }
    }
}

pub fn encode(config: &VideoConfig, frames: &[VideoFrame]) -> Encoded {
    let mut encoder = config.open().unwrap();
    let mut packets = Vec::new();
    for frame in frames {
        encoder.send(frame).unwrap();
        assert_eq!(drain(&mut *encoder, &mut packets), Received::NeedInput);
    }
    encoder.flush().unwrap();
    assert_eq!(drain(&mut *encoder, &mut packets), Received::End);
    let parameters = encoder.parameters();
    assert_eq!(parameters.extradata, encoder.extradata());
    Encoded { extradata: parameters.extradata.clone(), parameters, packets }
}
