//! Colour, aspect and HDR10 metadata go from source to output and are never guessed.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trix_testkit::clips;

use crate::support::{FAST, Place, described};

fn picture(place: &Place, name: &str, options: &str) -> PathBuf {
    clips::make(
        &place.path(name),
        &format!("-f lavfi -i testsrc2=size=160x90:rate=25:duration=1 {options}"),
    )
}

/// What ffprobe says of the picture: primaries, transfer, matrix, range.
fn colour(path: &Path) -> [Option<String>; 4] {
    let media = described(path);
    let video = &media["streams"][0];
    ["color_primaries", "color_transfer", "color_space", "color_range"]
        .map(|k| video[k].as_str().map(str::to_owned))
}

const OUTPUTS: &[&str] = &["out.mp4", "out.mov", "out.mkv"];

#[test]
fn a_tagged_source_gives_the_same_tags() {
    let place = Place::new();
    let tags = [
        ("bt709", "bt709", "bt709", "tv"),
        ("bt470bg", "gamma28", "bt470bg", "tv"),
        ("smpte170m", "smpte170m", "smpte170m", "tv"),
        ("bt2020", "arib-std-b67", "bt2020nc", "tv"),
        ("bt709", "bt709", "bt709", "pc"),
    ];
    for (n, (primaries, transfer, matrix, range)) in tags.into_iter().enumerate() {
        let source = picture(
            &place,
            &format!("s{n}.mp4"),
            &format!(
                "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -color_primaries {primaries} \
                 -color_trc {transfer} -colorspace {matrix} -color_range {range} \
                 -vf setparams=range={range}"
            ),
        );
        let expected = colour(&source);
        assert!(expected.iter().all(Option::is_some), "the fixture has no tags: {expected:?}");
        for name in OUTPUTS {
            let output = place.encode(&source, name, &[FAST, &["--force"]].concat());
            assert_eq!(colour(&output), expected, "{name}");
        }
    }
}

#[test]
fn an_untagged_source_gives_an_untagged_output() {
    let place = Place::new();
    let source = picture(&place, "s.mkv", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p");
    let unknown =
        |path: &Path| colour(path)[..3].iter().all(|c| c.as_deref().is_none_or(|c| c == "unknown"));
    assert!(unknown(&source), "the fixture is tagged: {:?}", colour(&source));
    for name in OUTPUTS {
        let output = place.encode(&source, name, FAST);
        assert!(unknown(&output), "{name}: guessed {:?}", colour(&output));
        assert_eq!(colour(&output)[3], colour(&source)[3], "{name}: the range was guessed");
    }
    for (video, name) in [("x265-8", "x265.mp4"), ("rav1e-8", "rav1e.mkv"), ("ffv1", "ffv1.mkv")] {
        let mut arguments = vec!["--video", video];
        match video {
            "x265-8" => arguments.extend(["--preset", "ultrafast"]),
            "rav1e-8" => arguments.extend(["--preset", "10"]),
            _ => {}
        }
        let output = place.encode(&source, name, &arguments);
        assert!(unknown(&output), "{name}: guessed {:?}", colour(&output));
    }
}

#[test]
fn a_source_with_one_tag_gives_one_tag() {
    let place = Place::new();
    let source = picture(
        &place,
        "s.mkv",
        "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -x264-params colormatrix=smpte170m",
    );
    for name in OUTPUTS {
        let output = place.encode(&source, name, FAST);
        assert_eq!(colour(&output)[..3], colour(&source)[..3], "{name}");
    }
}

#[test]
fn sample_aspect_stays_through_scaling_or_not() {
    let place = Place::new();
    let source = picture(
        &place,
        "s.mp4",
        "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -vf setsar=64/45",
    );
    for name in OUTPUTS {
        let output = place.encode(&source, name, FAST);
        assert_eq!(clips::probe(&output, "v:0", "sample_aspect_ratio"), "64:45", "{name}");
    }
    for (n, video) in [("x265.mp4", "x265-8"), ("ffv1.mkv", "ffv1")] {
        let preset: &[&str] = if video == "ffv1" { &[] } else { &["--preset", "ultrafast"] };
        let output = place.encode(&source, n, &[&["--video", video], preset].concat());
        assert_eq!(clips::probe(&output, "v:0", "sample_aspect_ratio"), "64:45", "{video}");
    }
    // Half the size: the picture keeps its shape on the screen.
    let half = place.encode(&source, "half.mp4", &[FAST, &["--size", "128x128"]].concat());
    let media = described(&half);
    let video = &media["streams"][0];
    let ratio = |key: &str| {
        let (a, b) = video[key].as_str().unwrap().split_once(':').unwrap();
        a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap()
    };
    let shape = video["width"].as_f64().unwrap() / video["height"].as_f64().unwrap()
        * ratio("sample_aspect_ratio");
    let wanted = 160.0 / 90.0 * 64.0 / 45.0;
    assert!((shape / wanted - 1.0).abs() < 0.02, "{shape} instead of {wanted}");
}

#[test]
fn square_pixels_are_not_claimed_for_a_source_that_states_no_aspect() {
    let place = Place::new();
    let source =
        picture(&place, "s.mkv", "-vf setsar=0 -c:v libx264 -preset ultrafast -pix_fmt yuv420p");
    let stated = |path: &Path| {
        let aspect = clips::probe(path, "v:0", "sample_aspect_ratio");
        !(aspect.is_empty() || aspect == "N/A" || aspect == "0:1")
    };
    if stated(&source) {
        // The judge takes a Matroska display size for a statement.
        return;
    }
    let output = place.encode(&source, "out.mp4", FAST);
    assert!(!stated(&output));
}

/// Side data of the first decoded frame by type.
fn side_data(path: &Path) -> Vec<Value> {
    let name = path.to_str().unwrap();
    let out = clips::tool(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-read_intervals",
            "%+#1",
            "-show_entries",
            "frame=side_data_list",
            "-show_frames",
            "-of",
            "json",
            name,
        ],
    );
    let value: Value = serde_json::from_slice(&out).unwrap();
    let list = value["frames"][0]["side_data_list"].as_array().cloned().unwrap_or_default();
    list.into_iter()
        .filter(|d| {
            let kind = d["side_data_type"].as_str().unwrap_or("");
            kind.starts_with("Mastering display") || kind.starts_with("Content light")
        })
        .collect()
}

/// The same at the container's level.
fn stream_side_data(path: &Path) -> Vec<Value> {
    let media = described(path);
    media["streams"][0]["side_data_list"].as_array().cloned().unwrap_or_default()
}

/// One rational of ffprobe as a number.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some(text) => {
            let (a, b) = text.split_once('/').unwrap();
            a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap()
        }
        None => value.as_f64().unwrap(),
    }
}

#[track_caller]
fn assert_hdr(data: &[Value], about: &str) {
    let display = data
        .iter()
        .find(|d| d["side_data_type"] == "Mastering display metadata")
        .unwrap_or_else(|| panic!("{about}: no mastering display in {data:?}"));
    for (key, wanted) in [
        ("red_x", 0.68),
        ("red_y", 0.32),
        ("green_x", 0.265),
        ("green_y", 0.69),
        ("blue_x", 0.15),
        ("blue_y", 0.06),
        ("white_point_x", 0.3127),
        ("white_point_y", 0.329),
        ("max_luminance", 1000.0),
        ("min_luminance", 0.005),
    ] {
        let found = number(&display[key]);
        assert!((found - wanted).abs() <= 2e-5 * wanted.max(1.0), "{about}: {key} is {found}");
    }
    let light = data
        .iter()
        .find(|d| d["side_data_type"] == "Content light level metadata")
        .unwrap_or_else(|| panic!("{about}: no content light level in {data:?}"));
    assert_eq!(light["max_content"], 987, "{about}");
    assert_eq!(light["max_average"], 234, "{about}");
}

#[test]
fn hdr10_metadata_reaches_bitstream_and_container() {
    let place = Place::new();
    let hdr = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params \
        log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited:\
        master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):\
        max-cll=987,234:hdr10=1";
    for source in ["s.mp4", "s.mkv"] {
        let source = picture(&place, source, hdr);
        assert_hdr(&side_data(&source), "the fixture");
        for name in ["out.mp4", "out.mkv"] {
            let arguments = ["--video", "x265-10", "--preset", "ultrafast", "--force"];
            let output = place.encode(&source, name, &arguments);
            let about = format!("{} to {name}", source.display());
            assert_hdr(&side_data(&output), &about);
            assert_hdr(&stream_side_data(&output), &format!("{about}, container"));
            let colours = ["bt2020", "smpte2084", "bt2020nc", "tv"].map(|c| Some(c.to_owned()));
            assert_eq!(colour(&output), colours, "{about}");
            assert_eq!(clips::probe(&output, "v:0", "pix_fmt"), "yuv420p10le");
        }
    }
}

#[test]
fn a_source_without_hdr_metadata_gives_none() {
    let place = Place::new();
    let source = picture(
        &place,
        "s.mp4",
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params log-level=none:\
         colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc",
    );
    for name in ["out.mp4", "out.mkv"] {
        let output = place.encode(&source, name, &["--video", "x265-10", "--preset", "ultrafast"]);
        assert_eq!(side_data(&output), Vec::<Value>::new(), "{name}");
        assert_eq!(stream_side_data(&output), Vec::<Value>::new(), "{name}");
    }
}
