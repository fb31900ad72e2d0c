//! The grid: where segments and chunks of the picture begin.
//!
//! A *segment* is what a player fetches: a whole number of frames, closed, its
//! first frame an IDR. A *chunk* is what one task encodes: whole segments. The
//! grid follows from the source and the profile only, never from nodes or
//! slots, because the borders are part of every chunk's key. All renditions and
//! codecs share it. With a variable frame rate it counts frames by the nominal
//! rate; every border carries its source pts.

use serde::{Deserialize, Serialize};
use trix_model::media::Video;
use trix_model::{PlanningIndex, Rational};

use crate::task::FrameRange;

/// A film is cut into about this many chunks, as long as their length stays within bounds.
const CHUNKS: u64 = 24;
/// Below eight seconds the run-over frames cost more than 3.5 % (performance.md).
const SHORTEST_S: i64 = 8;
/// Beyond forty seconds nothing is gained, but a lost attempt loses more.
const LONGEST_S: i64 = 40;

/// Segments and chunks of one film.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Frames of a segment; the last one of the film may be shorter.
    pub segment: u32,
    /// The chunks in order; together they are all frames, each once.
    pub chunks: Vec<Chunk>,
}

/// One run of frames that a task encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The frames.
    pub range: FrameRange,
    /// Frame of the access point where decoding starts.
    pub decode_from: u32,
}

impl Grid {
    /// The grid of a film with frames at `rate` and segments of about `segment_ms`.
    pub fn new(index: &PlanningIndex, rate: Rational, segment_ms: u32) -> Grid {
        let frames = index.frames();
        let segment = frames_in(rate, i64::from(segment_ms)).max(1);
        let segments = frames.div_ceil(segment);
        let count = chunk_count(frames, segment, rate);
        let mut borders = vec![0];
        for n in 1..count {
            borders.push(border(index, segment, n, count));
        }
        borders.push(segments);
        let chunks = borders.windows(2).map(|b| chunk(index, segment, b[0], b[1])).collect();
        Grid { segment, chunks }
    }
}

/// How many chunks a film gets: an even number, so that two slots end together, and none
/// without a segment of its own.
fn chunk_count(frames: u32, segment: u32, rate: Rational) -> u32 {
    let bounds = (frames_in(rate, SHORTEST_S * 1000), frames_in(rate, LONGEST_S * 1000));
    let length = u64::from(frames).div_ceil(CHUNKS) as u32;
    let length = length.clamp(bounds.0, bounds.1.max(bounds.0)).max(segment);
    if frames < length + length / 2 {
        return 1;
    }
    // A sixteenth shorter is allowed: eight chunks of 7.5 s are a minute's best.
    let pairs = u64::from(frames) * 8 / (u64::from(length) * 15);
    (2 * pairs.max(1) as u32).min(frames / segment).max(1)
}

/// Where the `n`th of `count` chunks begins. Shared out evenly, so that no short tail lets slots
/// wait; of the segment borders within a quarter of a length of that the one with the shortest
/// pre-roll, of equal ones the nearest, then the earlier.
fn border(index: &PlanningIndex, segment: u32, n: u32, count: u32) -> u32 {
    let frames = u64::from(index.frames());
    let pace = u64::from(count) * u64::from(segment);
    let wanted = ((frames * u64::from(n) + pace / 2) / pace) as u32;
    let quarter = (frames / pace / 4) as u32;
    (wanted - quarter..=wanted + quarter)
        .min_by_key(|b| (index.preroll(b * segment), b.abs_diff(wanted), *b))
        .unwrap_or(wanted)
}

fn chunk(index: &PlanningIndex, segment: u32, start: u32, next: u32) -> Chunk {
    let first = start * segment;
    let behind = next.saturating_mul(segment).min(index.frames());
    let at = |frame| index.pts_of(frame).unwrap_or(index.end);
    let range =
        FrameRange { first, count: behind - first, first_pts: at(first), end_pts: at(behind) };
    Chunk { range, decode_from: index.access_for(first) }
}

/// Whole frames in a time, rounded.
fn frames_in(rate: Rational, ms: i64) -> u32 {
    let (num, den) = (i128::from(rate.num()), i128::from(rate.den()));
    let frames = (i128::from(ms) * num + 500 * den) / (1000 * den);
    frames.clamp(0, i128::from(u32::MAX / 4)) as u32
}

/// Frame rate as encoders are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames a second, always positive.
    pub rate: Rational,
    /// Every frame lies within one tick of it.
    pub constant: bool,
}

/// Rates that real material has, tried when the container's own do not fit.
const USUAL: [(i64, i64); 16] = [
    (24000, 1001),
    (24, 1),
    (25, 1),
    (30000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60000, 1001),
    (60, 1),
    (48000, 1001),
    (12, 1),
    (15, 1),
    (100, 1),
    (120, 1),
    (120000, 1001),
    (25, 2),
];

impl FrameRate {
    /// The exact base rate when the times say that it is constant, else the average.
    ///
    /// Containers round times to their ticks and often state a rate that is not the real one, so
    /// a rate counts as constant only when every frame lies within one tick of its place.
    pub fn of(index: &PlanningIndex, video: &Video) -> FrameRate {
        let average = average(index);
        let stated = [video.frame_rate, video.average_rate];
        let usual = USUAL.iter().map(|(n, d)| Rational::new(*n, *d));
        let found = stated
            .into_iter()
            .chain(usual)
            .chain([average])
            .flatten()
            .find(|r| r.is_positive() && index.pts.len() > 1 && fits(index, *r));
        match found {
            Some(rate) => FrameRate { rate, constant: true },
            None => {
                let stated = stated.into_iter().flatten().find(|r| r.is_positive());
                let last = Rational::new(25, 1).unwrap_or(Rational::ONE);
                let rate = average.or(stated).unwrap_or(last);
                // One frame has no rate to deviate from.
                FrameRate { rate, constant: index.pts.len() == 1 }
            }
        }
    }
}

/// True when every frame lies within one tick of its place at `rate`.
fn fits(index: &PlanningIndex, rate: Rational) -> bool {
    let scale = i128::from(rate.num()).checked_mul(index.time_base.num().into());
    let step = i128::from(rate.den()).checked_mul(index.time_base.den().into());
    let (Some(scale), Some(step)) = (scale, step) else { return false };
    let zero = index.pts.first().copied().unwrap_or(0);
    index.pts.iter().zip(0i128..).all(|(pts, i)| {
        // |ticks − i · step / scale| ≤ 1, multiplied by scale.
        let ticks = i128::from(*pts) - i128::from(zero);
        match (ticks.checked_mul(scale), step.checked_mul(i)) {
            (Some(is), Some(wanted)) => (is - wanted).abs() <= scale,
            _ => false,
        }
    })
}

/// Frames divided by the film's duration, as a fraction of numbers up to a million.
fn average(index: &PlanningIndex) -> Option<Rational> {
    let first = *index.pts.first()?;
    let ticks = i128::from(index.end) - i128::from(first);
    let num = (index.pts.len() as i128).checked_mul(index.time_base.den().into())?;
    let den = ticks.checked_mul(index.time_base.num().into())?;
    if num <= 0 || den <= 0 { None } else { nearest_fraction(num, den, 1_000_000) }
}

/// The last convergent of the continued fraction of `num / den` whose parts stay within `limit`.
fn nearest_fraction(mut num: i128, mut den: i128, limit: i128) -> Option<Rational> {
    let (mut p, mut q) = ((0i128, 1i128), (1i128, 0i128));
    while den != 0 {
        let whole = num / den;
        let next_p = whole.checked_mul(p.1)?.checked_add(p.0)?;
        let next_q = whole.checked_mul(q.1)?.checked_add(q.0)?;
        if next_p > limit || next_q > limit {
            break;
        }
        (p, q) = ((p.1, next_p), (q.1, next_q));
        (num, den) = (den, num % den);
    }
    Rational::new(p.1 as i64, q.1 as i64).filter(|r| r.is_positive())
}
