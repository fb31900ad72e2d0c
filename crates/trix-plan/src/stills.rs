//! Which frames become poster and thumbnails.

use trix_model::media::Video;
use trix_model::time::{Rounding, rescale};
use trix_model::{Key, PlanningIndex, Rational};

use crate::planner::{Film, milliseconds};
use crate::profile::{Preview, Thumbnails};
use crate::task::{SourceRef, Stills};

/// Thumbnails a row.
const COLUMNS: u32 = 10;
/// Largest side of a sprite: what browsers decode everywhere.
const LARGEST: u32 = 16_384;
/// Box of the poster.
const POSTER: (u32, u32) = (1280, 720);

/// The task's specification.
///
/// Frames snap to an access point where one lies within half an interval
/// before: decoding one frame there instead of a group saves nearly all of the
/// work, and nobody sees the difference.
pub(crate) fn stills(
    source: &SourceRef,
    index: Key,
    film: &Film<'_>,
    frames: &PlanningIndex,
    preview: &Preview,
) -> Stills {
    let thumbs = preview.thumbnails.unwrap_or(Thumbnails { every_s: 0, width: 160 });
    let thumb_size = square(film.video, (thumbs.width, thumbs.width));
    let rows = (LARGEST / thumb_size.1).max(1);
    let seconds = rescale(film.duration, film.time_base, Rational::ONE, Rounding::Up).max(1) as u64;
    // A film too long for one sprite gets fewer thumbnails.
    let every = match thumbs.every_s {
        0 => seconds,
        every => u64::from(every).max(seconds.div_ceil(u64::from(rows * COLUMNS))),
    };
    let mut chosen: Vec<u32> = Vec::new();
    let mut spans_ms: Vec<u64> = Vec::new();
    for n in 0..seconds.div_ceil(every) {
        let start = rescale((n * every) as i64, Rational::ONE, film.time_base, Rounding::Up);
        let at = frames.pts.partition_point(|pts| *pts < film.zero.saturating_add(start));
        let Some(exact) = u32::try_from(at).ok().filter(|f| *f < frames.frames()) else { break };
        let near = frames.access_for(exact);
        let behind = time(frames, film, exact).saturating_sub(time(frames, film, near));
        let frame = if behind <= every.saturating_mul(500) { near } else { exact };
        // Two spans may fall on one frame where frames are seconds apart.
        if chosen.last().is_none_or(|last| *last < frame) {
            chosen.push(frame);
            spans_ms.push((n * every).saturating_mul(1000));
        }
    }
    spans_ms.push(milliseconds(film.duration, film.time_base));
    if thumbs.every_s == 0 {
        (chosen, spans_ms) = (Vec::new(), Vec::new());
    }
    Stills {
        source: source.clone(),
        index,
        stream: film.stream.index,
        // A tenth into the film: behind logos and black, before anything is given away.
        poster_frame: frames.access_for(frames.frames() / 10),
        poster_size: square(film.video, POSTER),
        frames: chosen,
        spans_ms,
        thumb_size,
        columns: COLUMNS,
        rotation: film.video.rotation,
    }
}

fn time(frames: &PlanningIndex, film: &Film<'_>, frame: u32) -> u64 {
    let pts = frames.pts_of(frame).unwrap_or(film.zero);
    milliseconds(pts.saturating_sub(film.zero), film.time_base)
}

/// The upright picture in square pixels inside a box, never larger than it is; sides are even.
fn square(video: &Video, within: (u32, u32)) -> (u32, u32) {
    let (mut w, mut h) = (u64::from(video.width), u64::from(video.height));
    if let Some(sar) = video.sample_aspect.filter(|a| a.is_positive()) {
        w = (w.saturating_mul(sar.num() as u64) / sar.den() as u64).max(1);
    }
    if matches!(video.rotation, 90 | 270) {
        (w, h) = (h, w);
    }
    let (w, h) = (w.max(1), h.max(1));
    let (box_w, box_h) = (u64::from(within.0), u64::from(within.1));
    let (w, h) = if w <= box_w && h <= box_h {
        (w, h)
    } else if w * box_h >= h * box_w {
        (box_w, h * box_w / w)
    } else {
        (w * box_h / h, box_h)
    };
    let even = |n: u64| u32::try_from(n / 2 * 2).unwrap_or(LARGEST).max(2);
    (even(w), even(h))
}
