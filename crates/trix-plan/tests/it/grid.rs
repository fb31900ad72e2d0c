//! The grid covers the film, begins where decoding is cheap, and knows no node.

use proptest::prelude::*;
use trix_model::media::StreamKind;
use trix_model::{PlanningIndex, Rational};
use trix_plan::grid::{FrameRate, Grid};

use crate::fixture::{film, ratio};

fn index(frames: u32, rate: Rational, access: Vec<u32>) -> PlanningIndex {
    let mut index = film(320, 180, frames, &[]).planning();
    // Ticks of one frame: 1/rate in units of 1/(1000 · numerator).
    let tick = 1000 * rate.den();
    index.time_base = ratio(1, 1000 * rate.num());
    index.pts = (0..i64::from(frames)).map(|n| 5 + n * tick).collect();
    index.end = 5 + i64::from(frames) * tick;
    index.groups.retain(|g| access.contains(&g.frame));
    index.access = access;
    index
}

fn every(frames: u32, gop: u32) -> Vec<u32> {
    (0..frames).step_by(gop as usize).collect()
}

fn lengths(grid: &Grid) -> Vec<u32> {
    grid.chunks.iter().map(|c| c.range.count).collect()
}

#[test]
fn a_short_film_is_one_chunk() {
    let rate = ratio(24, 1);
    for frames in [1, 24, 100, 8 * 24, 11 * 24] {
        let grid = Grid::new(&index(frames, rate, every(frames, 1)), rate, 2000);
        assert_eq!((grid.segment, lengths(&grid)), (48, vec![frames]));
    }
}

#[test]
fn chunks_grow_with_the_film_from_eight_to_forty_seconds() {
    let rate = ratio(25, 1);
    let first = |minutes: u32| {
        let frames = minutes * 60 * 25;
        let grid = Grid::new(&index(frames, rate, every(frames, 1)), rate, 2000);
        (grid.chunks[0].range.count, grid.chunks.len())
    };
    assert_eq!(first(1), (8 * 25, 8));
    assert_eq!(first(10), (26 * 25, 24));
    assert_eq!(first(16), (40 * 25, 24));
    assert_eq!(first(120), (38 * 25, 192));
}

#[test]
fn chunks_are_even_in_number_and_in_length() {
    let rate = ratio(24, 1);
    for frames in (12 * 24..200 * 24).step_by(7) {
        let grid = Grid::new(&index(frames, rate, every(frames, 1)), rate, 2000);
        let lengths = lengths(&grid);
        assert_eq!(lengths.len() % 2, 0, "{frames}: {lengths:?}");
        // They differ by one segment; the last one ends with the film and not with a segment.
        let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert!(most - least <= 2 * 48, "{frames}: {lengths:?}");
        assert!(*least >= 5 * 24, "{frames}: {lengths:?}");
    }
}

#[test]
fn borders_move_to_where_decoding_starts_within_a_quarter() {
    let rate = ratio(24, 1);
    // Ten minutes: chunks of 26 s, so borders may move by 6 s. Access points only at odd places.
    let frames = 600 * 24;
    let mut access = every(frames, 5 * 24);
    access.push(28 * 24);
    access.sort();
    let grid = Grid::new(&index(frames, rate, access), rate, 2000);
    let second = grid.chunks[1];
    // Of 20, 22, … 32 s the nearest to 26 s without any pre-roll: 28 s beats 30 s and 20 s.
    assert_eq!((second.range.first, second.decode_from), (28 * 24, 28 * 24));
}

#[test]
fn without_a_near_access_point_the_wanted_length_is_not_left_without_gain() {
    let rate = ratio(24, 1);
    let frames = 600 * 24;
    let grid = Grid::new(&index(frames, rate, vec![0]), rate, 2000);
    // The shortest pre-roll is the earliest border when everything is decoded from the start.
    assert_eq!(grid.chunks[1].range.first, 20 * 24);
    assert!(grid.chunks.iter().all(|c| c.decode_from == 0));
}

#[test]
fn a_segment_is_a_whole_number_of_frames_at_odd_rates() {
    for (rate, ms, segment) in [
        (ratio(24000, 1001), 2000, 48),
        (ratio(30000, 1001), 2000, 60),
        (ratio(25, 1), 1920, 48),
        (ratio(60000, 1001), 2000, 120),
        (ratio(1, 10), 2000, 1),
        (ratio(25, 2), 2000, 25),
    ] {
        let index = index(1000, rate, vec![0]);
        assert_eq!(Grid::new(&index, rate, ms).segment, segment, "{rate}");
    }
}

fn rate_of(pts: Vec<i64>, end: i64, base: Rational, stated: Option<Rational>) -> FrameRate {
    let mut source = film(320, 180, 48, &[]);
    source.video().frame_rate = stated;
    source.video().average_rate = None;
    let mut index = source.planning();
    (index.pts, index.end, index.time_base) = (pts, end, base);
    let (stream, _) = source.media.main_video().unwrap();
    match &stream.kind {
        StreamKind::Video(video) => FrameRate::of(&index, video),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_constant_rate_is_found_through_the_container_s_rounding() {
    // Matroska writes milliseconds: 23.976 becomes steps of 41 and 42.
    let film = ratio(24000, 1001);
    let pts: Vec<i64> = (0..500).map(|n| (n * 1001 * 1000 + 12000) / 24000).collect();
    let found = rate_of(pts.clone(), 20854, ratio(1, 1000), None);
    assert_eq!((found.rate, found.constant), (film, true));
    // A container that states nonsense does not decide.
    let found = rate_of(pts, 20854, ratio(1, 1000), Some(ratio(90000, 1)));
    assert_eq!((found.rate, found.constant), (film, true));
    // A rate that nobody uses is exact when the container states it.
    let pts: Vec<i64> = (0..100).map(|n| n * 3013).collect();
    let found = rate_of(pts, 301_300, ratio(1, 90000), Some(ratio(90000, 3013)));
    assert_eq!((found.rate, found.constant), (ratio(90000, 3013), true));
}

#[test]
fn a_varying_rate_is_averaged() {
    let mut pts: Vec<i64> = (0..100).map(|n| n * 3000).collect();
    pts[50] += 700;
    let found = rate_of(pts, 300_000, ratio(1, 90000), Some(ratio(30, 1)));
    assert_eq!((found.rate, found.constant), (ratio(30, 1), false));
    let found = rate_of(vec![0, 1000, 5000], 6000, ratio(1, 1000), None);
    assert_eq!((found.rate, found.constant), (ratio(1, 2), false));
    let found = rate_of(vec![7], 47, ratio(1, 1000), None);
    assert_eq!((found.rate, found.constant), (ratio(25, 1), true));
    // Parts of the average stay small enough for every encoder.
    let pts = vec![0, 999_999_937, 1_999_999_943];
    let found = rate_of(pts, 2_999_999_929, ratio(1, 1_000_000_007), None);
    assert!(found.rate.num() <= 1_000_000 && found.rate.den() <= 1_000_000);
}

proptest! {
    #[test]
    fn every_frame_is_in_one_chunk_and_chunks_begin_at_segments(
        frames in 1u32..40_000,
        rate in prop_oneof![
            Just((24000, 1001)), Just((25, 1)), Just((30000, 1001)), Just((60, 1)), Just((12, 5)), Just((120, 1))
        ],
        segment_ms in 500u32..10_000,
        access in prop::collection::btree_set(1u32..40_000, 0..300),
    ) {
        let rate = ratio(rate.0, rate.1);
        let mut points = vec![0];
        points.extend(access.into_iter().filter(|a| *a < frames));
        let index = index(frames, rate, points.clone());
        let grid = Grid::new(&index, rate, segment_ms);
        prop_assert_eq!(&grid, &Grid::new(&index, rate, segment_ms));
        let mut next = 0;
        for chunk in &grid.chunks {
            let range = chunk.range;
            prop_assert_eq!(range.first, next);
            prop_assert!(range.count > 0);
            prop_assert_eq!(range.first % grid.segment, 0);
            prop_assert_eq!(Some(range.first_pts), index.pts_of(range.first));
            prop_assert_eq!(Some(range.end_pts), index.pts_of(range.first + range.count));
            prop_assert!(chunk.decode_from <= range.first);
            prop_assert!(points.contains(&chunk.decode_from));
            next = range.first + range.count;
        }
        prop_assert_eq!(next, frames);
        // No chunk but an only one is longer than half as much again as the longest length, plus
        // the rounding to segments.
        let longest = 60.0 * rate.to_f64() + 2.0 * f64::from(grid.segment);
        prop_assert!(grid.chunks.iter().all(|c| f64::from(c.range.count) <= longest));
    }
}
