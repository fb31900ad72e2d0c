//! Colour, sample aspect and HDR metadata: as stated, and never guessed.

use serde_json::Value;
use tempfile::TempDir;
use trix_encode::{Headers, VideoConfig};
use trix_model::HdrMetadata;
use trix_model::color::{ColorDescription, ContentLight, MasteringDisplay};
use trix_plan::encoder::VideoVariant;

use crate::pictures::{config, encode, film, rational};
use crate::tools::{probe, program, stream_name, write_stream};

/// ffprobe's view of two segments.
fn look(c: &VideoConfig, test: &str) -> Option<Value> {
    let ffprobe = program("ffprobe", test)?;
    let encoded = encode(c, &film(c, 0, 8));
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(stream_name(c));
    write_stream(&path, c, &encoded);
    Some(probe(&ffprobe, &path))
}

fn variants() -> impl Iterator<Item = VideoVariant> {
    VideoVariant::ALL.iter().copied().filter(|v| *v != VideoVariant::Ffv1)
}

#[test]
fn nothing_is_signalled_that_the_source_does_not_state() {
    for variant in variants() {
        let Some(json) = look(&config(variant, 64, 48), "nothing_is_signalled") else { return };
        let stream = &json["streams"][0];
        for key in ["color_primaries", "color_transfer", "color_space", "sample_aspect_ratio"] {
            let value = &stream[key];
            let unstated = value.is_null() || value == "unknown" || value == "0:1";
            // AV1 has square samples where it states no other.
            let square = variant.codec() == "av1" && value == "1:1";
            assert!(unstated || square, "{variant}: {key} is {value}");
        }
        // AV1 must state a range, and ffmpeg takes HEVC's silence for limited.
        let range = &stream["color_range"];
        let may_be_limited = variant.codec() != "h264";
        assert!(range.is_null() || range == "tv" && may_be_limited, "{variant}: {range}");
        for frame in json["frames"].as_array().unwrap() {
            for data in frame["side_data_list"].as_array().into_iter().flatten() {
                let kind = data["side_data_type"].as_str().unwrap_or_default();
                assert!(!kind.contains("display") && !kind.contains("light"), "{variant}: {kind}");
            }
        }
    }
}

#[test]
fn what_the_source_states_comes_out() {
    for variant in variants() {
        let mut c = config(variant, 64, 48);
        c.color = ColorDescription {
            primaries: Some(6),
            transfer: Some(1),
            matrix: Some(5),
            full_range: Some(true),
            chroma_location: Some(2),
        };
        c.sample_aspect = Some(rational(16, 11));
        let Some(json) = look(&c, "what_the_source_states") else { return };
        let stream = &json["streams"][0];
        assert_eq!(stream["color_primaries"], "smpte170m", "{variant}");
        assert_eq!(stream["color_transfer"], "bt709", "{variant}");
        assert_eq!(stream["color_space"], "bt470bg", "{variant}");
        assert_eq!(stream["color_range"], "pc", "{variant}");
        if variant.codec() == "av1" {
            // AV1 rounds the shown size to whole samples: 93 by 48.
            assert_eq!(stream["sample_aspect_ratio"], "93:64", "{variant}");
        } else {
            assert_eq!(stream["sample_aspect_ratio"], "16:11", "{variant}");
            assert_eq!(stream["chroma_location"], "topleft", "{variant}");
        }
    }
}

#[test]
fn one_stated_colour_property_does_not_invent_the_others() {
    for variant in variants() {
        let mut c = config(variant, 64, 48);
        c.color.transfer = Some(18);
        let Some(json) = look(&c, "one_stated_colour_property") else { return };
        let stream = &json["streams"][0];
        assert_eq!(stream["color_transfer"], "arib-std-b67", "{variant}");
        for key in ["color_primaries", "color_space"] {
            let value = &stream[key];
            assert!(value.is_null() || value == "unknown", "{variant}: {key} is {value}");
        }
    }
}

#[test]
fn hdr10_metadata_stands_at_every_segment() {
    // ffmpeg 5.1 does not read these messages of H.264; see the next test.
    for variant in variants().filter(|v| v.codec() != "h264") {
        for headers in [Headers::Global, Headers::InBand] {
            let mut c = config(variant, 64, 48);
            c.settings.keyint = 4;
            c.headers = headers;
            c.hdr = HdrMetadata {
                mastering_display: Some(MasteringDisplay {
                    primaries: [[34_000, 16_000], [13_250, 34_500], [7_500, 3_000]],
                    white_point: [15_635, 16_450],
                    max_luminance: 10_000_000,
                    min_luminance: 50,
                }),
                content_light: Some(ContentLight { max_content: 1000, max_frame_average: 400 }),
            };
            let Some(json) = look(&c, "hdr10_metadata_stands") else { return };
            let frames = json["frames"].as_array().unwrap();
            assert_eq!(frames.len(), 8);
            for number in [0, 4] {
                let list = frames[number]["side_data_list"].as_array();
                let list = list.unwrap_or_else(|| panic!("{variant} frame {number}: none"));
                let find = |word: &str| {
                    list.iter()
                        .find(|d| d["side_data_type"].as_str().unwrap().contains(word))
                        .unwrap_or_else(|| {
                            panic!("{variant} frame {number}: no {word} in {list:?}")
                        })
                };
                let light = find("light level");
                assert_eq!(
                    (&light["max_content"], &light["max_average"]),
                    (&1000.into(), &400.into())
                );
                let display = find("astering display");
                let value = |key: &str| {
                    let (n, d) = display[key].as_str().unwrap().split_once('/').unwrap();
                    n.parse::<f64>().unwrap() / d.parse::<f64>().unwrap()
                };
                // AV1's fixed point keeps five digits.
                let near = |key: &str, wanted: f64, off: f64| {
                    assert!((value(key) - wanted).abs() <= off, "{variant}: {key} {}", value(key));
                };
                near("red_x", 0.68, 1e-5);
                near("green_y", 0.69, 1e-5);
                near("blue_x", 0.15, 1e-5);
                near("white_point_y", 0.329, 1e-5);
                near("max_luminance", 1000.0, 1e-9);
                near("min_luminance", 0.005, 4e-5);
            }
        }
    }
}

#[test]
fn h264_has_hdr10_messages_at_every_segment() {
    for variant in [VideoVariant::X264_8, VideoVariant::X264_10] {
        let mut c = config(variant, 64, 48);
        c.settings.keyint = 4;
        c.hdr = HdrMetadata {
            mastering_display: Some(MasteringDisplay {
                primaries: [[34_000, 16_000], [13_250, 34_500], [7_500, 3_000]],
                white_point: [15_635, 16_450],
                max_luminance: 10_000_000,
                min_luminance: 50,
            }),
            content_light: Some(ContentLight { max_content: 1000, max_frame_average: 400 }),
        };
        // SEI unit, type 144 with 4 bytes; SEI unit, type 137 with 24 bytes from green's x on.
        let light = [6, 144, 4, 0x03, 0xe8, 0x01, 0x90];
        let display = [6, 137, 24, 0x33, 0xc2, 0x86, 0xc4];
        for packet in encode(&c, &film(&c, 0, 8)).packets {
            let has = |bytes: &[u8]| packet.payload.windows(bytes.len()).any(|w| w == bytes);
            assert_eq!(has(&light), packet.key, "{variant} at {}", packet.pts);
            assert_eq!(has(&display), packet.key, "{variant} at {}", packet.pts);
        }
    }
}
