//! What an encoder cannot do is said before or when it is asked, with a type.

use trix_encode::{CpuLevel, EncodeError, VideoConfig};
use trix_model::pixel::{Chroma, PixelFormat};
use trix_model::{ErrorClass, ErrorOrigin, Failure};
use trix_plan::encoder::{RateControl, VideoVariant};

use crate::pictures::{config, picture, rational};

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
    assert!(matches!(refuse(&config(VideoVariant::Rav1e8, 8, 8)), EncodeError::Library { .. }));
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
    // Each is allowed alone; together x264 and x265 say no.
    let mut c = config(VideoVariant::X264_8, 64, 48);
    c.settings.params.insert("profile".into(), "high".into());
    c.settings.rate = RateControl::Lossless;
    let e = refuse(&c);
    assert!(e.to_string().contains("high"), "{e}");
    let mut c = config(VideoVariant::X265_8, 128, 96);
    c.settings.params.insert("rc-lookahead".into(), "3".into());
    c.settings.params.insert("bframes".into(), "8".into());
    let failure = Failure::from(refuse(&c));
    assert_eq!(failure.origin, ErrorOrigin::Engine);
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
