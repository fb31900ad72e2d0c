//! What an encoder cannot do is said before or when it is asked, with a type.

use trix_encode::{CpuLevel, EncodeError, VideoConfig};
use trix_model::pixel::{Chroma, PixelFormat};
use trix_model::{ErrorClass, ErrorOrigin, Failure};
use trix_plan::encoder::{RateControl, Vbv, VideoVariant};

use crate::pictures::{config, encode, film, picture, rational};

/// A matrix of ones for blocks of 8x8.
const EIGHT: &str = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,\
                     1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1";

fn refuse(config: &VideoConfig) -> EncodeError {
    match config.open() {
        Ok(_) => panic!("{:?} was opened", config.settings),
        Err(e) => e,
    }
}

#[test]
fn odd_sides_are_refused_where_the_codec_cannot_crop_them() {
    for variant in [VideoVariant::X264_8, VideoVariant::X265_10] {
        let e = refuse(&config(variant, 65, 48));
        assert_eq!(
            e.to_string(),
            format!("{variant} cannot encode 65x48: with C420 chroma the width must be even")
        );
        assert!(matches!(refuse(&config(variant, 64, 47)), EncodeError::Unsupported { .. }));
    }
    let mut c = config(VideoVariant::X264_10, 65, 47);
    c.picture.format = PixelFormat { chroma: Chroma::C444, depth: 10 };
    assert!(c.open().is_ok());
}

#[test]
fn a_depth_that_the_variant_has_not_and_a_tiny_picture_are_refused() {
    let mut c = config(VideoVariant::X264_8, 64, 48);
    c.picture.format.depth = 10;
    assert!(matches!(refuse(&c), EncodeError::Unsupported { .. }));
    assert!(matches!(
        refuse(&config(VideoVariant::X265_8, 14, 14)),
        EncodeError::Unsupported { .. }
    ));
    assert!(matches!(refuse(&config(VideoVariant::Rav1e8, 8, 8)), EncodeError::Unsupported { .. }));
    let mut c = config(VideoVariant::X264_8, 64, 48);
    c.frame_rate = rational(0, 1);
    assert!(matches!(refuse(&c), EncodeError::Unsupported { .. }));
}

#[test]
fn settings_are_refused_with_key_value_and_what_is_allowed() {
    let mut c = config(VideoVariant::X264_8, 64, 48);
    c.settings.params.insert("subme".into(), "12".into());
    c.settings.params.insert("keyint".into(), "1".into());
    let e = refuse(&c);
    assert!(matches!(&e, EncodeError::Settings { errors } if errors.len() == 2), "{e}");
    let failure = Failure::from(e);
    assert_eq!((failure.class, failure.origin), (ErrorClass::Deterministic, ErrorOrigin::Request));
    assert_eq!(failure.code, "bad_parameter");
    assert!(failure.message.contains("from 0 to 11"), "{}", failure.message);
}

#[test]
fn what_only_the_library_refuses_comes_with_its_words() {
    // H.264 counts fields in 32 bits.
    let mut c = config(VideoVariant::X264_8, 64, 48);
    c.constant_rate = false;
    c.time_base = rational(1, 3_000_000_000);
    let e = refuse(&c);
    assert!(e.to_string().contains("timebase"), "{e}");
    assert_eq!(Failure::from(e).origin, ErrorOrigin::Engine);
}

/// Opened and encoded with, or refused by name before the library is asked. Either way the
/// library's own refusal, and a crash all the more, is a rule that trix-plan lacks.
#[track_caller]
fn encodes_or_is_refused_by_name(config: &VideoConfig, encodes: bool) {
    match config.open() {
        Ok(_) => {
            let packets = encode(config, &film(config, 0, 4)).packets.len();
            assert!(encodes && packets == 4, "{packets} packets; {:?}", config.settings);
        }
        Err(EncodeError::Settings { .. } | EncodeError::Unsupported { .. }) if !encodes => {}
        Err(e) => panic!("{e}; {:?}", config.settings),
    }
}

/// Settings, a picture's size, and whether both go together.
struct Case {
    variant: VideoVariant,
    preset: &'static str,
    rate: RateControl,
    threads: u32,
    params: &'static [(&'static str, &'static str)],
    size: (u32, u32),
    encodes: bool,
}

#[test]
fn settings_that_passed_the_table_once_and_failed_in_the_library_are_refused_by_name() {
    use VideoVariant::{Ffv1, Rav1e8, X264_8, X264_10, X265_8, X265_10, X265_12};
    const ONES: &str = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1";
    let qp = |qp| RateControl::Qp { qp };
    let crf = || RateControl::Crf { crf: "26".into(), vbv: None };
    let bitrate = |kbps| RateControl::Bitrate { kbps, vbv: None };
    let capped = |kbps, max_kbps, buffer_kbit| RateControl::Bitrate {
        kbps,
        vbv: Some(Vbv { max_kbps, buffer_kbit }),
    };
    let case = |variant, preset, rate, threads, params, size, encodes| Case {
        variant,
        preset,
        rate,
        threads,
        params,
        size,
        encodes,
    };
    let cases = [
        // Inputs of row B5 by their classes; the second of each kind is right beside it.
        case(X264_8, "slow", qp(7), 1, &[("cqm4", ONES)], (96, 64), false),
        case(X264_8, "slow", qp(21), 1, &[("cqm4", ONES)], (96, 64), true),
        case(X264_10, "slow", qp(12), 1, &[("cqm4py", ONES)], (96, 64), false),
        case(X264_10, "slow", qp(27), 1, &[("cqm4", ONES)], (96, 64), true),
        case(X264_10, "fast", qp(3), 1, &[("cqm", "jvt")], (96, 64), false),
        case(X264_10, "fast", qp(11), 1, &[("cqm", "jvt")], (96, 64), true),
        case(X264_8, "fast", crf(), 1, &[("cqm8", EIGHT), ("qpmax", "10")], (96, 64), false),
        case(X264_8, "fast", crf(), 1, &[("cqm8", EIGHT), ("qpmax", "21")], (96, 64), true),
        case(X264_8, "fast", RateControl::Lossless, 1, &[("profile", "high")], (96, 64), false),
        case(X264_8, "fast", RateControl::Lossless, 1, &[("profile", "high444")], (96, 64), true),
        case(X264_10, "fast", crf(), 1, &[("frame-packing", "7")], (96, 64), false),
        case(X264_10, "fast", crf(), 1, &[("frame-packing", "7")], (96, 66), true),
        case(X265_12, "faster", crf(), 1, &[("rc-lookahead", "4")], (96, 64), false),
        case(X265_12, "faster", crf(), 1, &[("rc-lookahead", "5")], (96, 64), true),
        case(X265_12, "superfast", qp(2), 1, &[("bframes", "16")], (96, 64), false),
        case(X265_12, "superfast", qp(2), 1, &[("bframes", "9")], (96, 64), true),
        case(X265_12, "faster", qp(35), 1, &[("ref", "8")], (96, 64), false),
        case(X265_12, "faster", qp(35), 1, &[("ref", "6")], (96, 64), true),
        case(X265_8, "fast", qp(28), 1, &[("level-idc", "5")], (96, 64), false),
        case(X265_8, "fast", crf(), 1, &[("level-idc", "5")], (96, 64), true),
        case(X265_8, "fast", crf(), 1, &[("level-idc", "5"), ("ctu", "16")], (96, 64), false),
        case(X265_8, "fast", crf(), 1, &[("level-idc", "1")], (1200, 18), false),
        case(X265_8, "fast", crf(), 1, &[("level-idc", "2")], (320, 240), true),
        case(X265_10, "superfast", bitrate(2_000_000), 1, &[], (96, 16), false),
        case(X265_10, "superfast", bitrate(50_000), 1, &[], (96, 16), true),
        case(X265_10, "superfast", bitrate(2_000_000), 1, &[], (96, 64), true),
        case(X265_8, "faster", capped(5000, 2_000_000, 500), 1, &[], (16, 16), false),
        case(X265_8, "faster", capped(5000, 20_000, 500), 1, &[], (16, 16), true),
        case(Rav1e8, "10", qp(100), 1, &[], (64, 12), false),
        case(Ffv1, "", RateControl::Lossless, 1, &[], (64, 43), true),
        case(Ffv1, "", RateControl::Lossless, 1, &[], (31, 16), true),
        case(Ffv1, "", RateControl::Lossless, 1, &[("slices", "6")], (64, 43), false),
        // These crashed.
        case(X265_10, "fast", capped(5000, 20_000, 1), 8, &[("slices", "14")], (18, 1200), false),
        case(X265_10, "fast", crf(), 8, &[("slices", "14")], (160, 320), true),
        case(X265_10, "veryfast", qp(6), 3, &[("hist-scenecut", "1")], (66, 34), false),
        case(X265_8, "veryfast", bitrate(1), 3, &[("temporal-layers", "1")], (28, 18), true),
        case(X265_12, "ultrafast", bitrate(5000), 1, &[("fades", "1")], (48, 32), true),
    ];
    for case in &cases {
        let (width, height) = case.size;
        let mut c = config(case.variant, width, height);
        c.settings.preset = case.preset.into();
        c.settings.rate = case.rate.clone();
        c.settings.threads = case.threads;
        c.settings.params = case.params.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        encodes_or_is_refused_by_name(&c, case.encodes);
    }
}

#[test]
fn frames_of_another_size_format_or_time_are_refused() {
    for &variant in VideoVariant::ALL {
        let c = config(variant, 64, 48);
        let mut encoder = c.open().unwrap();
        let e = encoder.send(&picture(0, 66, 48, c.picture.format)).unwrap_err();
        assert!(matches!(e, EncodeError::Frame { frame: 0, .. }), "{e}");
        encoder.send(&picture(5, 64, 48, c.picture.format)).unwrap();
        let e = encoder.send(&picture(5, 64, 48, c.picture.format)).unwrap_err();
        assert!(matches!(e, EncodeError::Time { frame: 1, pts: Some(5), after: Some(5) }), "{e}");
        let mut frame = picture(6, 64, 48, c.picture.format);
        frame.set_pts(None);
        assert!(matches!(encoder.send(&frame).unwrap_err(), EncodeError::Time { .. }));
        // Refused frames left no trace.
        encoder.send(&picture(6, 64, 48, c.picture.format)).unwrap();
        encoder.flush().unwrap();
        let mut packets = Vec::new();
        crate::pictures::drain(&mut *encoder, &mut packets);
        assert_eq!(packets.iter().map(|p| p.pts).collect::<Vec<_>>(), [5, 6], "{variant}");
    }
}

#[test]
fn the_engine_id_names_versions_and_level_and_the_best_level_is_there() {
    let best = CpuLevel::best();
    assert!(best.available());
    assert_eq!(best.as_str().parse::<CpuLevel>().unwrap(), best);
    let id = trix_encode::engine_id(best);
    for part in ["x264/0.164.3095", "x265/3.5+", "rav1e/0.8.1", best.as_str()] {
        assert!(id.contains(part), "{id}");
    }
    assert_ne!(id, trix_encode::engine_id(CpuLevel::Portable));
}
