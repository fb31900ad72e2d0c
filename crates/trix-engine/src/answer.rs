//! The known-answer self-test: a small encode whose bytes are known beforehand.
//!
//! A machine with bad memory or a bad core makes files that are wrong and look right. This
//! finds the ones that are bad enough to show in a moment. Its encodes use no arithmetic
//! in which compilers may differ (no adaptive quantisers, trees or psychovisual terms, whose
//! floats they may reorder), so that the answer is the same for every build of the same
//! encoders; a new version of one may need new answers.

use trix_av::VideoFrame;
use trix_encode::{Received, VideoConfig};
use trix_model::pixel::{Chroma, PixelFormat};
use trix_model::{Digest, Failure, Rational};
use trix_plan::encoder::{Picture, RateControl, VideoSettings, VideoVariant};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 176;
const FRAMES: u32 = 24;

/// What is encoded.
const QUESTIONS: [Question; 2] = [
    Question {
        variant: VideoVariant::X264_8,
        preset: "medium",
        params: &[
            ("aq-mode", "0"),
            ("b-adapt", "0"),
            ("mbtree", "0"),
            ("psy", "0"),
            ("scenecut", "0"),
            ("weightb", "0"),
            ("weightp", "0"),
        ],
    },
    Question {
        variant: VideoVariant::X265_10,
        preset: "fast",
        params: &[
            ("aq-mode", "0"),
            ("b-adapt", "0"),
            ("cutree", "0"),
            ("psy-rd", "0"),
            ("psy-rdoq", "0"),
            ("scenecut", "0"),
            ("weightb", "0"),
            ("weightp", "0"),
        ],
    },
];

/// One encode of the test.
struct Question {
    variant: VideoVariant,
    preset: &'static str,
    params: &'static [(&'static str, &'static str)],
}

/// The answer of a machine that is well: the BLAKE3 digest of all that comes out.
const ANSWER: &str = "a36295338a06e61bbe28df8c92320dcb5ae0e11bb51c5924cbfaa11a393d811e";

/// What this machine answers, and what it should.
pub fn known_answer() -> Result<(Digest, Digest), Failure> {
    let expected = ANSWER.parse().map_err(|e| Failure::bug(format!("the known answer: {e}")))?;
    let mut hasher = blake3::Hasher::new();
    for question in &QUESTIONS {
        encode(question, &mut hasher)?;
    }
    Ok((Digest(*hasher.finalize().as_bytes()), expected))
}

fn settings(question: &Question) -> VideoSettings {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    VideoSettings {
        variant: question.variant,
        preset: question.preset.to_owned(),
        tune: None,
        rate: RateControl::Qp { qp: 24 },
        keyint: 0,
        threads: 1,
        params: question.params.iter().map(owned).collect(),
    }
}

fn encode(question: &Question, hasher: &mut blake3::Hasher) -> Result<(), Failure> {
    let depth = question.variant.depth().unwrap_or(8);
    let format = PixelFormat { chroma: Chroma::C420, depth };
    let picture = Picture { width: WIDTH, height: HEIGHT, format };
    let (tick, rate) = (Rational::new(1, 24), Rational::new(24, 1));
    let (Some(tick), Some(rate)) = (tick, rate) else {
        return Err(Failure::bug("24 frames a second are no rate"));
    };
    let config = VideoConfig::new(settings(question), picture, tick, rate);
    let mut encoder = config.open().map_err(Failure::from)?;
    let mut drain = |encoder: &mut dyn trix_encode::VideoEncoder| -> Result<(), Failure> {
        while let Received::Packet(packet) = encoder.receive().map_err(Failure::from)? {
            hasher.update(&packet.payload);
        }
        Ok(())
    };
    for n in 0..FRAMES {
        encoder.send(&picture_of(n, format)?).map_err(Failure::from)?;
        drain(&mut *encoder)?;
    }
    encoder.flush().map_err(Failure::from)?;
    drain(&mut *encoder)
}

/// A box that moves over a gradient that pans, with noise: all that encoders search for.
fn picture_of(n: u32, format: PixelFormat) -> Result<VideoFrame, Failure> {
    let mut frame = VideoFrame::alloc(format, WIDTH, HEIGHT).map_err(Failure::from)?;
    for index in 0..format.planes() {
        let mut plane = frame.plane_mut(index).map_err(Failure::from)?;
        let (width, height) = (plane.width, plane.height);
        let mut state = 0x9e37_79b9 ^ (n * 8191 + index as u32 * 131 + 1);
        for y in 0..height {
            let row = plane.row_mut(y);
            for x in 0..width {
                // xorshift: the same noise on every machine.
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let in_box = x.abs_diff(n * 7 % width) < 24 && y.abs_diff(n * 3 % height) < 20;
                let eight = if in_box { 200 } else { 30 + (x + 2 * y + 3 * n) % 160 } + state % 8;
                let value = eight << (format.depth - 8);
                match format.bytes() {
                    1 => row[x as usize] = value as u8,
                    _ => {
                        let at = x as usize * 2;
                        row[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
                    }
                }
            }
        }
    }
    frame.set_pts(Some(i64::from(n)));
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_gives_the_known_answer_each_time() {
        let (first, expected) = known_answer().unwrap();
        assert_eq!(first, expected, "another encoder, or a machine that is not well");
        assert_eq!(known_answer().unwrap().0, first);
    }

    #[test]
    fn the_questions_are_settings_that_a_profile_may_have() {
        for question in &QUESTIONS {
            trix_plan::params::check_settings(&settings(question)).unwrap();
        }
    }
}
