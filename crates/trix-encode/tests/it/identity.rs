//! The same frames and parameters give the bytes that the encoders' own
//! programs write, and rav1e's own interface gives.
//!
//! The programs are Debian's, of the same versions, built by others. Both sides
//! run one thread on the same CPU level, and the messages that name settings or
//! CPU are left out on both.

use std::process::Command;
use std::sync::Arc;

use rav1e::prelude as av1;
use tempfile::TempDir;
use trix_av::VideoFrame;
use trix_encode::{CpuLevel, Headers, VideoConfig};
use trix_model::HdrMetadata;
use trix_model::color::{ColorDescription, ContentLight, MasteringDisplay};
use trix_plan::encoder::{RateControl, Vbv, VideoVariant};

use crate::pictures::{RATE, config, encode, film};
use crate::tools::{program, run, write_y4m};

const WIDTH: u32 = 192;
const HEIGHT: u32 = 112;
/// With a scene cut at 40.
const FRAMES: u32 = 60;

/// NAL units without x264's message of its settings.
fn without_info(stream: &[u8]) -> Vec<u8> {
    let mut starts: Vec<usize> = (0..stream.len().saturating_sub(3))
        .filter(|&i| stream[i..i + 3] == [0, 0, 1])
        .map(|i| if i > 0 && stream[i - 1] == 0 { i - 1 } else { i })
        .collect();
    starts.push(stream.len());
    let mut out = Vec::new();
    for pair in starts.windows(2) {
        let unit = &stream[pair[0]..pair[1]];
        let body = &unit[unit.iter().position(|b| *b == 1).unwrap() + 1..];
        if !(body[0] & 31 == 6 && body[1] == 5) {
            out.extend_from_slice(unit);
        }
    }
    out
}

fn x264_program(config: &VideoConfig, frames: &[VideoFrame], more: &[&str]) -> Option<Vec<u8>> {
    let x264 = program("x264", "identity with x264")?;
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("a.y4m"), dir.path().join("a.264"));
    write_y4m(&from, config, frames);
    let depth = config.picture.format.depth.to_string();
    let mask = config.cpu.x264_mask().to_string();
    let mut args = vec!["--quiet", "--no-progress", "--threads", "1", "--stitchable"];
    args.extend(["--preset", &config.settings.preset, "--output-depth", &depth, "--asm", &mask]);
    args.extend(more);
    args.extend(["-o", to.to_str().unwrap(), from.to_str().unwrap()]);
    run(&x264, &args);
    Some(without_info(&std::fs::read(&to).unwrap()))
}

fn x265_program(config: &VideoConfig, frames: &[VideoFrame], more: &[&str]) -> Option<Vec<u8>> {
    let x265 = program("x265", "identity with x265")?;
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("a.y4m"), dir.path().join("a.hevc"));
    write_y4m(&from, config, frames);
    let depth = config.picture.format.depth.to_string();
    let mask = config.cpu.x265_mask().to_string();
    let mut args = vec!["--log-level", "error", "--no-progress", "--pools", "none", "--no-wpp"];
    args.extend(["-F", "1", "--no-info", "--no-open-gop"]);
    args.extend(["--preset", &config.settings.preset, "-D", &depth, "--asm", &mask]);
    args.extend(more);
    args.extend(["--y4m", "--input", "-", "-o", to.to_str().unwrap()]);
    // From a pipe it cannot know the number of frames, which changes its bit rates.
    let input = std::fs::File::open(&from).unwrap();
    let out = Command::new(&x265).args(&args).stdin(input).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(std::fs::read(&to).unwrap())
}

fn film_config(variant: VideoVariant, preset: &str, rate: RateControl) -> VideoConfig {
    let mut c = config(variant, WIDTH, HEIGHT);
    c.settings.preset = preset.into();
    c.settings.rate = rate;
    // x264's program repeats the parameter sets in a raw file, x265's does not.
    if variant.codec() == "h264" {
        c.headers = Headers::InBand;
    }
    c
}

fn crf(crf: &str) -> RateControl {
    RateControl::Crf { crf: crf.into(), vbv: None }
}

fn same(what: &str, ours: &[u8], theirs: &[u8]) {
    let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert!(
        ours == theirs,
        "{what}: ours has {} bytes, theirs {}, first difference at {differs:?}",
        ours.len(),
        theirs.len()
    );
    assert!(ours.len() > 1000, "{what}: {} bytes are no film", ours.len());
}

fn check(c: &VideoConfig, what: &str, more: &[&str]) {
    let frames = film(c, 0, FRAMES);
    let theirs = match c.settings.variant.codec() {
        "h264" => x264_program(c, &frames, more),
        _ => x265_program(c, &frames, more),
    };
    let Some(theirs) = theirs else { return };
    let encoded = encode(c, &frames);
    let ours = match c.headers {
        Headers::InBand => encoded.payloads(),
        Headers::Global => encoded.stream(),
    };
    same(&format!("{} {what}", c.settings.variant), &ours, &theirs);
}

#[test]
fn x264_gives_the_bytes_of_its_program() {
    for variant in [VideoVariant::X264_8, VideoVariant::X264_10] {
        for preset in ["veryfast", "medium"] {
            check(&film_config(variant, preset, crf("23")), preset, &["--crf", "23"]);
        }
    }
}

#[test]
fn x265_gives_the_bytes_of_its_program() {
    for variant in [VideoVariant::X265_8, VideoVariant::X265_10, VideoVariant::X265_12] {
        for preset in ["veryfast", "medium"] {
            check(&film_config(variant, preset, crf("23")), preset, &["--crf", "23"]);
        }
    }
}

#[test]
fn other_rate_controls_and_parameters_give_the_same_bytes_too() {
    let vbv = Some(Vbv { max_kbps: 300, buffer_kbit: 400 });
    let capped = ["--vbv-maxrate", "300", "--vbv-bufsize", "400"];
    for variant in [VideoVariant::X264_8, VideoVariant::X265_10] {
        let rate = RateControl::Bitrate { kbps: 200, vbv };
        let args = [&["--bitrate", "200"][..], &capped].concat();
        check(&film_config(variant, "fast", rate), "bitrate with vbv", &args);
        let rate = RateControl::Crf { crf: "21.5".into(), vbv };
        let args = [&["--crf", "21.5"][..], &capped].concat();
        check(&film_config(variant, "faster", rate), "capped crf", &args);
        let mut c = film_config(variant, "slow", RateControl::Qp { qp: 27 });
        c.settings.params =
            [("bframes", "5"), ("ref", "2"), ("psy-rd", "0.5"), ("deblock", "-1,-1")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into();
        let args = ["--qp", "27", "--bframes", "5", "--ref", "2", "--psy-rd", "0.5"];
        check(&c, "parameters", &[&args[..], &["--deblock", "-1:-1"]].concat());
        let mut c = film_config(variant, "superfast", crf("20"));
        c.settings.tune = Some("grain".into());
        check(&c, "tune", &["--crf", "20", "--tune", "grain"]);
    }
}

#[test]
fn segments_are_what_the_programs_write_with_forced_or_natural_idr_frames() {
    // x264: forced types, as its program takes them from a file.
    let mut c = film_config(VideoVariant::X264_8, "medium", crf("23"));
    c.settings.keyint = 24;
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("types");
    std::fs::write(&list, "24 I\n48 I\n").unwrap();
    let args = ["--crf", "23", "--keyint", "48", "--min-keyint", "24", "--qpfile"];
    check(&c, "segments", &[&args[..], &[list.to_str().unwrap()]].concat());
    // x265 reaches its largest distance by itself.
    let mut c = film_config(VideoVariant::X265_8, "medium", crf("23"));
    c.settings.keyint = 24;
    check(&c, "segments", &["--crf", "23", "--keyint", "24", "--min-keyint", "24"]);
}

fn hdr(c: &mut VideoConfig) {
    c.color = ColorDescription {
        primaries: Some(9),
        transfer: Some(16),
        matrix: Some(9),
        full_range: Some(false),
        chroma_location: Some(2),
    };
    c.hdr = HdrMetadata {
        mastering_display: Some(MasteringDisplay {
            primaries: [[34_000, 16_000], [13_250, 34_500], [7_500, 3_000]],
            white_point: [15_635, 16_450],
            max_luminance: 10_000_000,
            min_luminance: 1,
        }),
        content_light: Some(ContentLight { max_content: 1000, max_frame_average: 400 }),
    };
    c.sample_aspect = trix_model::Rational::new(4, 3);
}

const DISPLAY: &str = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)";

#[test]
fn colour_aspect_and_hdr10_are_signalled_as_the_programs_do() {
    let mut c = film_config(VideoVariant::X264_10, "veryfast", crf("23"));
    hdr(&mut c);
    let args = ["--crf", "23", "--mastering-display", DISPLAY, "--cll", "1000,400", "--sar", "4:3"];
    let colour = ["--colorprim", "bt2020", "--transfer", "smpte2084", "--colormatrix", "bt2020nc"];
    let range = ["--range", "tv", "--chromaloc", "2"];
    check(&c, "hdr", &[&args[..], &colour, &range].concat());

    let mut c = film_config(VideoVariant::X265_10, "veryfast", crf("23"));
    hdr(&mut c);
    // x265 writes HDR10 messages beside repeated headers.
    c.headers = Headers::InBand;
    let args = ["--crf", "23", "--master-display", DISPLAY, "--max-cll", "1000,400"];
    let colour = ["--colorprim", "9", "--transfer", "16", "--colormatrix", "9", "--sar", "4:3"];
    let range = ["--range", "limited", "--chromaloc", "2", "--hdr10", "--repeat-headers"];
    check(&c, "hdr", &[&args[..], &colour, &range].concat());
}

#[test]
fn every_cpu_level_of_this_machine_gives_the_programs_bytes_with_the_same_mask() {
    // x265 can't change its level in a process, so this is x264's alone.
    for &level in CpuLevel::ALL.iter().filter(|l| l.available()) {
        let mut c = film_config(VideoVariant::X264_8, "veryfast", crf("23"));
        c.cpu = level;
        check(&c, level.as_str(), &["--crf", "23"]);
    }
}

/// rav1e's own interface, driven frame by frame.
fn rav1e_itself<T: av1::Pixel>(frames: &[VideoFrame], depth: usize, keyint: u64) -> Vec<Vec<u8>> {
    let mut e = av1::EncoderConfig::with_speed_preset(10);
    (e.width, e.height) = (WIDTH as usize, HEIGHT as usize);
    e.bit_depth = depth;
    e.time_base = rav1e::data::Rational::new(RATE.1 as u64, RATE.0 as u64);
    e.quantizer = 120;
    e.min_key_frame_interval = keyint;
    e.max_key_frame_interval = keyint;
    let mut context: av1::Context<T> =
        av1::Config::new().with_encoder_config(e).with_threads(1).new_context().unwrap();
    let mut out = Vec::new();
    let mut take = |context: &mut av1::Context<T>| {
        loop {
            match context.receive_packet() {
                Ok(packet) => out.push(packet.data),
                Err(av1::EncoderStatus::Encoded) => {}
                Err(av1::EncoderStatus::NeedMoreData | av1::EncoderStatus::LimitReached) => break,
                Err(e) => panic!("{e}"),
            }
        }
    };
    for frame in frames {
        let mut copy = context.new_frame();
        for i in 0..3 {
            let plane = frame.plane(i);
            let bytes = depth.div_ceil(8);
            // rav1e's helper wants whole strides, so the lines go over packed.
            let packed: Vec<u8> =
                (0..plane.height).flat_map(|y| plane.row(y).iter().copied()).collect();
            copy.planes[i].copy_from_raw_u8(&packed, plane.row_bytes, bytes);
        }
        context.send_frame(Arc::new(copy)).unwrap();
        take(&mut context);
    }
    context.flush();
    take(&mut context);
    out
}

#[test]
fn rav1e_gives_the_payloads_of_its_own_interface() {
    for (variant, depth) in [(VideoVariant::Rav1e8, 8), (VideoVariant::Rav1e10, 10)] {
        let mut c = config(variant, WIDTH, HEIGHT);
        c.settings.keyint = 24;
        let frames = film(&c, 0, FRAMES);
        let theirs = match depth {
            8 => rav1e_itself::<u8>(&frames, depth, 24),
            _ => rav1e_itself::<u16>(&frames, depth, 24),
        };
        let ours = encode(&c, &frames);
        let payloads: Vec<_> = ours.packets.into_iter().map(|p| p.payload).collect();
        assert_eq!(payloads.len(), FRAMES as usize);
        assert!(payloads == theirs, "{variant}");
    }
}

fn rav1e_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    for variant in [VideoVariant::Rav1e8, VideoVariant::Rav1e10] {
        let mut c = config(variant, WIDTH, HEIGHT);
        c.settings.preset = "6".into();
        hasher.update(&encode(&c, &film(&c, 36, 8)).payloads());
    }
    hasher.finalize().to_hex().to_string()
}

/// rav1e chooses its functions by the machine, and only a variable of the
/// environment can say otherwise. So the level is no part of what trix forces:
/// this shows that it need not be.
#[test]
fn rav1e_gives_the_same_bytes_on_every_cpu_level() {
    const CHILD: &str = "TRIX_TEST_RAV1E_CHILD";
    if std::env::var_os(CHILD).is_some() {
        println!("digest {}", rav1e_digest());
        return;
    }
    let here = rav1e_digest();
    for level in ["rust", "ssse3", "avx2"] {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["identity::rav1e_gives_the_same_bytes_on_every_cpu_level", "--exact"])
            .arg("--nocapture")
            .env(CHILD, "1")
            .env("RAV1E_CPU_TARGET", level)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains(&format!("digest {here}")), "{level}: {text}");
    }
}
