//! Every variant gives a stream that a second decoder reads to the last frame.

use tempfile::TempDir;
use trix_encode::{Received, VideoConfig};
use trix_model::pixel::{Chroma, PixelFormat};
use trix_plan::encoder::VideoVariant;
use trix_plan::task::Container;

use crate::pictures::{Encoded, config, encode, film, picture, rational};
use crate::tools::{mux, probe, program, run, stream_name, write_stream};

fn variants() -> impl Iterator<Item = VideoVariant> {
    VideoVariant::ALL.iter().copied()
}

fn check_times(encoded: &Encoded, frames: usize, what: &str) {
    assert_eq!(encoded.packets.len(), frames, "{what}: packets");
    let mut pts: Vec<_> = encoded.packets.iter().map(|p| p.pts).collect();
    pts.sort_unstable();
    pts.dedup();
    assert_eq!(pts.len(), frames, "{what}: each pts once");
    for pair in encoded.packets.windows(2) {
        assert!(pair[0].dts < pair[1].dts, "{what}: dts rises");
    }
    for p in &encoded.packets {
        assert!(p.dts <= p.pts, "{what}: dts {} behind pts {}", p.dts, p.pts);
        assert!(p.duration > 0 && !p.payload.is_empty(), "{what}: {p:?}");
    }
    assert!(encoded.packets.first().is_none_or(|p| p.key), "{what}: starts with a key frame");
}

fn decoded_frames(config: &VideoConfig, encoded: &Encoded, test: &str) -> Option<u64> {
    let ffprobe = program("ffprobe", test)?;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(stream_name(config));
    write_stream(&path, config, encoded);
    let json = probe(&ffprobe, &path);
    let stream = &json["streams"][0];
    assert_eq!(stream["width"], config.picture.width);
    assert_eq!(stream["height"], config.picture.height);
    assert_eq!(stream["codec_name"], config.settings.variant.codec());
    let depth = config.picture.format.depth;
    let wanted = if depth == 8 { "yuv420p".into() } else { format!("yuv420p{depth}le") };
    assert_eq!(stream["pix_fmt"], wanted);
    Some(stream["nb_read_frames"].as_str().unwrap().parse().unwrap())
}

#[test]
fn every_variant_decodes_to_as_many_frames_as_went_in() {
    for variant in variants() {
        let c = config(variant, 128, 96);
        let encoded = encode(&c, &film(&c, 0, 50));
        check_times(&encoded, 50, variant.as_str());
        assert!(!encoded.extradata.is_empty());
        let Some(frames) = decoded_frames(&c, &encoded, "every_variant_decodes") else { return };
        assert_eq!(frames, 50, "{variant}");
    }
}

#[test]
fn dav1d_reads_the_av1_variants() {
    let Some(dav1d) = program("dav1d", "dav1d_reads_the_av1_variants") else { return };
    for variant in [VideoVariant::Rav1e8, VideoVariant::Rav1e10] {
        let c = config(variant, 97, 51);
        let encoded = encode(&c, &film(&c, 0, 12));
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("a.ivf"), dir.path().join("a.yuv"));
        write_stream(&from, &c, &encoded);
        run(&dav1d, &["-q", "-i", from.to_str().unwrap(), "-o", to.to_str().unwrap()]);
        let bytes = if variant == VideoVariant::Rav1e8 { 1 } else { 2 };
        let one = (97 * 51 + 2 * 49 * 26) * bytes;
        assert_eq!(std::fs::metadata(&to).unwrap().len(), 12 * one, "{variant}: odd sides too");
    }
}

#[test]
fn one_frame_and_no_frame_are_films_too() {
    for variant in variants() {
        let c = config(variant, 64, 48);
        let none = encode(&c, &[]);
        assert!(none.packets.is_empty(), "{variant}");
        assert!(!none.extradata.is_empty(), "{variant}");
        let one = encode(&c, &film(&c, 0, 1));
        check_times(&one, 1, variant.as_str());
        assert_eq!(one.extradata, none.extradata, "{variant}");
        if let Some(frames) = decoded_frames(&c, &one, "one_frame_and_no_frame") {
            assert_eq!(frames, 1, "{variant}");
        }
    }
}

#[test]
fn sizes_that_fit_no_block_are_cropped() {
    // 16 is the least that x265 takes; rows of one, two and three of its blocks damaged its heap
    // until it was built with room behind them.
    for (width, height) in [(16, 16), (18, 34), (34, 16), (98, 50), (34, 130)] {
        for variant in variants() {
            let c = config(variant, width, height);
            let encoded = encode(&c, &film(&c, 0, 5));
            check_times(&encoded, 5, variant.as_str());
            if let Some(frames) = decoded_frames(&c, &encoded, "sizes_that_fit_no_block") {
                assert_eq!(frames, 5, "{variant} {width}x{height}");
            }
        }
    }
}

#[test]
fn a_picture_of_few_rows_is_encoded_with_threads_wherever_sao_looks() {
    // x265 begins the filter of a row when the second row behind it is done: two rows waited
    // for a third.
    for (name, value) in [("sao-non-deblock", "1"), ("no-deblock", "1")] {
        for height in [16, 18, 34, 50] {
            for variant in variants().filter(|v| v.codec() == "hevc") {
                let mut c = config(variant, 66, height);
                c.settings.threads = 4;
                c.settings.params.insert(name.to_owned(), value.to_owned());
                c.settings.params.insert("ctu".to_owned(), "16".to_owned());
                let encoded = encode(&c, &film(&c, 0, 5));
                check_times(&encoded, 5, variant.as_str());
            }
        }
    }
}

#[test]
fn the_same_frames_give_the_same_bytes_twice() {
    for variant in variants() {
        for threads in [1, 3] {
            let mut c = config(variant, 128, 96);
            c.settings.threads = threads;
            let frames = film(&c, 0, 30);
            let (first, second) = (encode(&c, &frames), encode(&c, &frames));
            assert_eq!(first, second, "{variant} with {threads} threads");
        }
    }
}

#[test]
fn lossless_streams_give_the_pictures_back() {
    let Some(ffmpeg) = program("ffmpeg", "lossless_streams_give_the_pictures_back") else { return };
    for variant in variants().filter(|v| v.codec() != "av1") {
        let mut c = config(variant, 64, 48);
        c.settings.rate = trix_plan::encoder::RateControl::Lossless;
        let frames = film(&c, 0, 6);
        let encoded = encode(&c, &frames);
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(stream_name(&c));
        let raw = dir.path().join("a.yuv");
        write_stream(&path, &c, &encoded);
        let (from, to) = (path.to_str().unwrap(), raw.to_str().unwrap());
        run(&ffmpeg, &["-v", "error", "-i", from, "-f", "rawvideo", to]);
        let mut wanted = Vec::new();
        for frame in &frames {
            for i in 0..3 {
                let plane = frame.plane(i);
                (0..plane.height).for_each(|y| wanted.extend_from_slice(plane.row(y)));
            }
        }
        assert!(std::fs::read(&raw).unwrap() == wanted, "{variant}");
    }
}

#[test]
fn other_chroma_is_encoded_as_it_is() {
    let Some(ffprobe) = program("ffprobe", "other_chroma_is_encoded_as_it_is") else { return };
    let cases = [
        // ffmpeg's H.264 decoder adds grey chroma to luma alone.
        (VideoVariant::X264_8, Chroma::Mono, "yuv420p"),
        (VideoVariant::X264_8, Chroma::C422, "yuv422p"),
        (VideoVariant::X264_10, Chroma::C422, "yuv422p10le"),
        (VideoVariant::X264_10, Chroma::C444, "yuv444p10le"),
        (VideoVariant::X265_8, Chroma::Mono, "gray"),
        (VideoVariant::X265_10, Chroma::C422, "yuv422p10le"),
        (VideoVariant::X265_12, Chroma::C444, "yuv444p12le"),
        (VideoVariant::Rav1e8, Chroma::C444, "yuv444p"),
        (VideoVariant::Rav1e10, Chroma::C422, "yuv422p10le"),
        (VideoVariant::Rav1e8, Chroma::Mono, "gray"),
    ];
    for (variant, chroma, name) in cases {
        let mut c = config(variant, 64, 48);
        c.picture.format = PixelFormat { chroma, ..c.picture.format };
        let encoded = encode(&c, &film(&c, 0, 4));
        let dir = TempDir::new().unwrap();
        let path = dir
            .path()
            .join(format!("a.{}", if variant.codec() == "av1" { "ivf" } else { variant.codec() }));
        write_stream(&path, &c, &encoded);
        let json = probe(&ffprobe, &path);
        assert_eq!(json["streams"][0]["pix_fmt"], name, "{variant}");
        assert_eq!(json["streams"][0]["nb_read_frames"], "4", "{variant}");
    }
}

#[test]
fn times_that_go_in_come_out_however_odd() {
    let pts = [-7i64, 3000, 3001, 9009, 9010, 50_000, 90_000, 90_001, 90_003, 120_000];
    for variant in variants() {
        let mut c = config(variant, 64, 48);
        c.time_base = rational(1, 90_000);
        c.constant_rate = false;
        let frames: Vec<_> = pts
            .iter()
            .enumerate()
            .map(|(n, pts)| {
                let mut frame = picture(n as u32, 64, 48, c.picture.format);
                frame.set_pts(Some(*pts));
                frame
            })
            .collect();
        let encoded = encode(&c, &frames);
        check_times(&encoded, pts.len(), variant.as_str());
        let mut by_pts = encoded.packets.clone();
        by_pts.sort_by_key(|p| p.pts);
        assert_eq!(by_pts.iter().map(|p| p.pts).collect::<Vec<_>>(), pts, "{variant}");
        for pair in by_pts.windows(2) {
            assert_eq!(pair[0].duration, pair[1].pts - pair[0].pts, "{variant}");
        }
        // The last frame states no duration, so it lasts one nominal frame.
        assert_eq!(by_pts.last().unwrap().duration, 3754, "{variant}");
    }
}

#[test]
fn frames_in_a_segment_are_counted_from_the_first_and_only_segments_start_with_a_key() {
    for variant in variants().filter(|v| v.codec() != "ffv1") {
        let mut c = config(variant, 64, 48);
        c.settings.keyint = 12;
        if variant.codec() != "av1" {
            // A scene cut stands at 40, in the middle of a segment.
            c.settings.preset = "veryfast".into();
        }
        let encoded = encode(&c, &film(&c, 0, 54));
        check_times(&encoded, 54, variant.as_str());
        assert_eq!(encoded.keys(), [0, 12, 24, 36, 48], "{variant}");
        // Closed: what comes after a key frame in the stream is shown after it.
        let mut last_key = i64::MIN;
        for p in &encoded.packets {
            if p.key {
                last_key = p.pts;
            }
            assert!(p.pts >= last_key, "{variant}: pts {} after key {last_key}", p.pts);
        }
    }
}

#[test]
fn nothing_comes_before_the_first_frame_and_flushing_twice_is_once() {
    for variant in variants() {
        let c = config(variant, 64, 48);
        let mut encoder = c.open().unwrap();
        assert_eq!(encoder.receive().unwrap(), Received::NeedInput, "{variant}");
        encoder.flush().unwrap();
        encoder.flush().unwrap();
        assert_eq!(encoder.receive().unwrap(), Received::End, "{variant}");
        assert_eq!(encoder.receive().unwrap(), Received::End, "{variant}");
        assert!(encoder.send(&picture(0, 64, 48, c.picture.format)).is_err(), "{variant}");
    }
}

#[test]
fn x264_names_its_settings_only_when_asked() {
    for headers in [trix_encode::Headers::Global, trix_encode::Headers::InBand] {
        let mut c = config(VideoVariant::X264_8, 64, 48);
        c.headers = headers;
        let named = |e: &Encoded| e.payloads().windows(7).any(|w| w == b"x264 - ");
        let frames = film(&c, 0, 3);
        assert!(!named(&encode(&c, &frames)));
        c.info_message = true;
        let with = encode(&c, &frames);
        assert!(named(&with));
        if let Some(n) = decoded_frames(&c, &with, "x264_names_its_settings") {
            assert_eq!(n, 3);
        }
    }
}

#[test]
fn the_muxer_takes_what_the_encoders_give() {
    let Some(ffprobe) = program("ffprobe", "the_muxer_takes_what_the_encoders_give") else {
        return;
    };
    for variant in variants() {
        for (container, name) in [(Container::Mp4, "a.mp4"), (Container::Mkv, "a.mkv")] {
            if variant == VideoVariant::Ffv1 && container == Container::Mp4 {
                continue;
            }
            let mut c = config(variant, 64, 48);
            c.settings.keyint = 10;
            if variant.codec() != "ffv1" && variant.codec() != "av1" {
                c.settings.preset = "veryfast".into();
            }
            let encoded = encode(&c, &film(&c, 0, 25));
            let dir = TempDir::new().unwrap();
            let path = dir.path().join(name);
            mux(&path, container, &c, &encoded);
            let json = probe(&ffprobe, &path);
            let stream = &json["streams"][0];
            assert_eq!(stream["nb_read_frames"], "25", "{variant} {name}");
            assert_eq!(stream["codec_name"], variant.codec());
            // Presented from zero, one frame after the other.
            let times: Vec<f64> = json["frames"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| f["pts_time"].as_str().unwrap().parse().unwrap())
                .collect();
            for (n, time) in times.iter().enumerate() {
                let wanted = n as f64 * 1001.0 / 24_000.0;
                assert!((time - wanted).abs() < 0.0011, "{variant} {name}: frame {n} at {time}");
            }
        }
    }
}
