//! The parameter tables of trix-plan against the real libraries.

use std::ffi::CString;
use std::mem::MaybeUninit;

use trix_encode::VideoConfig;
use trix_plan::encoder::{RateControl, VideoVariant};
use trix_plan::params;
use trix_x264_sys as x264;
use trix_x265_sys as x265;

use crate::pictures::{config, encode, film};

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn x264_parse(name: &str, value: &str) -> i32 {
    let mut p = MaybeUninit::<x264::x264_param_t>::uninit();
    let (n, v) = (c(name), c(value));
    // SAFETY: the first call initialises the structure, the others get it and
    // terminated strings.
    unsafe {
        x264::x264_param_default(p.as_mut_ptr());
        let code = x264::x264_param_parse(p.as_mut_ptr(), n.as_ptr(), v.as_ptr());
        x264::x264_param_cleanup(p.as_mut_ptr());
        code
    }
}

fn x265_parse(depth: u8, name: &str, value: &str) -> i32 {
    let (n, v) = (c(name), c(value));
    // SAFETY: every function and structure is of one table.
    unsafe {
        let api = x265::api_get(i32::from(depth)).as_ref().unwrap();
        let p = api.param_alloc.unwrap()();
        api.param_default.unwrap()(p);
        let code = api.param_parse.unwrap()(p, n.as_ptr(), v.as_ptr());
        api.param_free.unwrap()(p);
        code
    }
}

fn parse(variant: VideoVariant, name: &str, value: &str) -> i32 {
    match variant.codec() {
        "h264" => x264_parse(name, value),
        _ => x265_parse(variant.depth().unwrap(), name, value),
    }
}

fn x26x() -> impl Iterator<Item = VideoVariant> {
    VideoVariant::ALL.iter().copied().filter(|v| matches!(v.codec(), "h264" | "hevc"))
}

#[test]
fn every_parameter_and_alias_is_known_to_the_library_at_both_ends_of_its_range() {
    for variant in x26x() {
        for param in params::table(variant) {
            // Not a parameter of theirs, but a function; see the next test.
            if param.name == "profile" {
                continue;
            }
            for value in param.kind.limits() {
                for name in param.aliases.iter().chain([&param.name]) {
                    assert_eq!(parse(variant, name, &value), 0, "{variant} {name}={value}");
                }
            }
        }
    }
}

#[test]
fn the_libraries_do_not_know_what_the_table_does_not() {
    for variant in x26x() {
        for name in ["wibble", "crf2", "bframe"] {
            assert_eq!(parse(variant, name, "1"), -1, "{variant} {name}");
            let wrong = [(name.to_string(), "1".to_string())].into();
            assert!(params::check(variant, "medium", None, &wrong).is_err());
        }
    }
}

/// Opens an encoder, and encodes two frames with it.
fn works(config: &VideoConfig) -> Result<(), String> {
    config.open().map_err(|e| e.to_string())?;
    let n = encode(config, &film(config, 0, 2)).packets.len();
    (n == 2).then_some(()).ok_or_else(|| format!("{n} packets of 2 frames"))
}

/// What each parameter needs beside itself.
fn with(variant: VideoVariant, name: &str, value: &str) -> VideoConfig {
    let mut c = config(variant, 128, 128);
    let mut also = |key: &str, value: &str| {
        c.settings.params.insert(key.into(), value.into());
    };
    match (variant.codec(), name) {
        // x265 asks for more lookahead than B frames.
        ("hevc", "rc-lookahead") => also("bframes", "0"),
        ("hevc", "bframes") => also("rc-lookahead", "20"),
        // References and the pictures that B frames wait for are 8 together.
        ("hevc", "ref") => also("bframes", "0"),
        // Nine tiles, three by three.
        ("h264", "frame-packing") => (c.picture.width, c.picture.height) = (96, 96),
        // Coding units nest, and transforms nest in them.
        ("hevc", "ctu") => also("min-cu-size", "8"),
        ("hevc", "min-cu-size" | "tu-intra-depth" | "tu-inter-depth" | "qg-size") => {
            also("ctu", "64")
        }
        // Thirty slices are five lines of six.
        ("ffv1", "slices") => (c.picture.width, c.picture.height) = (640, 480),
        ("hevc", "slices") => c.settings.threads = 2,
        ("hevc", "strict-cbr") | ("h264", "nal-hrd" | "filler") => {
            let vbv = trix_plan::encoder::Vbv { max_kbps: 500, buffer_kbit: 500 };
            c.settings.rate = RateControl::Bitrate { kbps: 500, vbv: Some(vbv) };
        }
        _ => {}
    }
    if name == "profile" && value.contains("422") {
        c.picture.format.chroma = trix_model::pixel::Chroma::C422;
    }
    if name == "profile" && value.contains("444") {
        c.picture.format.chroma = trix_model::pixel::Chroma::C444;
    }
    c.settings.params.insert(name.into(), value.into());
    c
}

#[test]
fn an_encoder_opens_and_encodes_at_both_ends_of_every_range() {
    let mut failed = Vec::new();
    for &variant in VideoVariant::ALL {
        // The depths share their tables but for profiles and peaks.
        let twin = matches!(variant, VideoVariant::Rav1e10 | VideoVariant::X265_12);
        for param in params::table(variant).iter().filter(|p| !twin || p.name == "profile") {
            for value in param.kind.limits() {
                if let Err(e) = works(&with(variant, param.name, &value)) {
                    failed.push(format!("{variant} {}={value}: {e}", param.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_preset_and_tune_of_the_table_is_known() {
    for &variant in VideoVariant::ALL {
        for preset in params::presets(variant) {
            let mut c = config(variant, 64, 64);
            c.settings.preset = (*preset).into();
            assert!(c.open().is_ok(), "{variant} {preset}");
        }
        for tune in params::tunes(variant) {
            let mut c = config(variant, 64, 64);
            c.settings.tune = Some((*tune).into());
            works(&c).unwrap_or_else(|e| panic!("{variant} {tune}: {e}"));
        }
    }
}

#[test]
fn run_over_is_what_the_library_says() {
    let check = |c: &VideoConfig, what: &str| {
        let said = c.open().unwrap().lookahead();
        assert_eq!(params::run_over(&c.settings, c.constant_rate), said, "{what}");
    };
    for variant in [VideoVariant::X264_8, VideoVariant::X264_10] {
        for preset in params::presets(variant) {
            for tune in params::tunes(variant).iter().map(Some).chain([None]) {
                for keyint in [0, 1, 2, 12, 48] {
                    for threads in [1, 3] {
                        let mut c = config(variant, 64, 64);
                        c.settings.preset = (*preset).into();
                        c.settings.tune = tune.map(|t| (*t).into());
                        c.settings.keyint = keyint;
                        c.settings.threads = threads;
                        c.constant_rate = threads == 1;
                        check(&c, &format!("{preset} {tune:?} {keyint} {threads}"));
                    }
                }
            }
        }
    }
    for (name, value) in [
        ("bframes", "0"),
        ("bframes", "16"),
        ("b-adapt", "2"),
        ("rc-lookahead", "0"),
        ("rc-lookahead", "250"),
        ("mbtree", "0"),
        ("qcomp", "1"),
        ("profile", "baseline"),
        ("bluray-compat", "1"),
    ] {
        let mut c = config(VideoVariant::X264_8, 64, 64);
        c.settings.preset = "slow".into();
        c.settings.params.insert(name.into(), value.into());
        check(&c, &format!("{name}={value}"));
    }
    for rate in [
        RateControl::Qp { qp: 0 },
        RateControl::Qp { qp: 20 },
        RateControl::Lossless,
        RateControl::Crf { crf: "0.9".into(), vbv: None },
        RateControl::Bitrate { kbps: 500, vbv: None },
        RateControl::Crf {
            crf: "20".into(),
            vbv: Some(trix_plan::encoder::Vbv { max_kbps: 500, buffer_kbit: 500 }),
        },
    ] {
        let mut c = config(VideoVariant::X264_8, 64, 64);
        c.settings.preset = "veryslow".into();
        c.settings.rate = rate.clone();
        check(&c, &format!("{rate:?}"));
    }
}
