//! Chunks of a film, encoded apart: they join without a seam.

use tempfile::TempDir;
use trix_encode::{Packet, VideoConfig};
use trix_plan::encoder::VideoVariant;
use trix_plan::params;

use crate::pictures::{Encoded, config, encode, film, rational};
use crate::tools::{probe, program, stream_name, write_stream};

fn segmented(variant: VideoVariant, keyint: u32) -> VideoConfig {
    let mut c = config(variant, 96, 64);
    c.settings.keyint = keyint;
    if matches!(variant.codec(), "h264" | "hevc") {
        c.settings.preset = "veryfast".into();
    }
    c
}

/// Encodes frames `first..end` with run-over, and drops what comes of the run-over.
fn chunk(c: &VideoConfig, first: u32, end: u32, film_end: u32) -> Encoded {
    let run_over = params::run_over(&c.settings, c.constant_rate).min(film_end - end);
    let mut encoded = encode(c, &film(c, first, end - first + run_over));
    encoded.packets.retain(|p| p.pts < i64::from(end));
    encoded
}

fn join(chunks: &[Encoded]) -> Encoded {
    let packets: Vec<Packet> = chunks.iter().flat_map(|c| c.packets.clone()).collect();
    Encoded { packets, ..chunks[0].clone() }
}

#[test]
fn joined_chunks_decode_completely_and_share_their_parameter_sets() {
    for &variant in VideoVariant::ALL.iter().filter(|v| **v != VideoVariant::Ffv1) {
        let c = segmented(variant, 12);
        // 80 frames in chunks of two segments and a short last one.
        let chunks: Vec<_> =
            [(0, 24), (24, 48), (48, 72), (72, 80)].map(|(a, b)| chunk(&c, a, b, 80)).into();
        for one in &chunks {
            assert_eq!(one.extradata, chunks[0].extradata, "{variant}: parameter sets");
        }
        let whole = join(&chunks);
        assert_eq!(whole.packets.len(), 80, "{variant}");
        assert_eq!(whole.keys(), [0, 12, 24, 36, 48, 60, 72], "{variant}");
        for pair in whole.packets.windows(2) {
            assert!(pair[0].dts < pair[1].dts, "{variant}: dts over the joins");
        }
        let Some(ffprobe) = program("ffprobe", "joined_chunks_decode_completely") else { return };
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(stream_name(&c));
        write_stream(&path, &c, &whole);
        let json = probe(&ffprobe, &path);
        assert_eq!(json["streams"][0]["nb_read_frames"], "80", "{variant}");
    }
}

#[test]
fn a_chunk_with_run_over_is_the_beginning_of_the_uncut_encode() {
    for (variant, preset, rate_is_constant) in [
        (VideoVariant::X264_8, "veryfast", true),
        (VideoVariant::X264_8, "medium", true),
        (VideoVariant::X264_8, "slower", true),
        (VideoVariant::X264_10, "fast", false),
        (VideoVariant::X264_8, "superfast", false),
    ] {
        for threads in [1, 3] {
            let mut c = segmented(variant, 12);
            c.settings.preset = preset.into();
            c.settings.threads = threads;
            c.constant_rate = rate_is_constant;
            let uncut = encode(&c, &film(&c, 0, 150));
            let cut = chunk(&c, 0, 48, 150);
            assert_eq!(cut.packets.len(), 48);
            assert_eq!(cut.extradata, uncut.extradata);
            let same = cut.packets.iter().zip(&uncut.packets).take_while(|(a, b)| a == b).count();
            assert_eq!(same, 48, "{variant} {preset} with {threads} threads");
        }
    }
}

#[test]
fn run_over_is_not_more_than_is_needed() {
    // One frame less, and the end of the chunk is decided with less knowledge.
    let c = segmented(VideoVariant::X264_8, 12);
    let needed = params::run_over(&c.settings, true);
    let uncut = encode(&c, &film(&c, 0, 120));
    let differs = (0..needed).rev().any(|run_over| {
        let mut short = encode(&c, &film(&c, 0, 24 + run_over));
        short.packets.retain(|p| p.pts < 24);
        short.packets[..] != uncut.packets[..24]
    });
    assert!(differs, "no run-over below {needed} frames changed anything");
}

#[test]
fn a_chunk_does_not_depend_on_its_place_in_the_film() {
    for &variant in VideoVariant::ALL.iter().filter(|v| **v != VideoVariant::Ffv1) {
        for constant_rate in [true, false] {
            let mut c = segmented(variant, 12);
            c.time_base = rational(1, 90_000);
            c.constant_rate = constant_rate;
            let at = |start: i64| {
                let mut frames = film(&c, 0, 20);
                for (i, frame) in frames.iter_mut().enumerate() {
                    frame.set_pts(Some(start + i as i64 * 3600));
                }
                encode(&c, &frames)
            };
            let (early, late) = (at(0), at(90_000 * 7200));
            assert_eq!(early.extradata, late.extradata, "{variant}");
            for (a, b) in early.packets.iter().zip(&late.packets) {
                assert!(a.payload == b.payload, "{variant}");
                assert_eq!(a.pts - a.dts, b.pts - b.dts, "{variant}");
            }
        }
    }
}
