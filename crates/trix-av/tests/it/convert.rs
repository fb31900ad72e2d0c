//! Scaling and resampling against known values and Debian's ffmpeg.

use std::path::Path;

use trix_av::{
    AudioFrame, FrameReader, IndexMode, Input, Resampler, SampleFormat, Scaler, Target, VideoFrame,
    output_color,
};
use trix_model::pixel::{Chroma, PixelFormat};
use trix_model::{ColorDescription, Rational};

use crate::fixture::{Clips, open};
use crate::frames::{fingerprint, index, main_stream};

fn first(path: &Path) -> VideoFrame {
    let indexed = index(path, IndexMode::Auto);
    let input = Input::open(open(path)).unwrap();
    FrameReader::open(input, main_stream(&indexed), 0, 1).unwrap().next().unwrap().unwrap().1
}

fn target(format: PixelFormat, width: u32, height: u32, rotation: u16) -> Scaler {
    Scaler::new(Target { format, width, height, rotation }).unwrap()
}

const C420: PixelFormat = PixelFormat::YUV420P8;

#[test]
fn a_picture_that_is_right_passes_without_a_copy() {
    let frame = VideoFrame::alloc(C420, 64, 48).unwrap();
    let same = target(C420, 64, 48, 0).scale(&frame).unwrap();
    assert_eq!(same.plane(0).data.as_ptr(), frame.plane(0).data.as_ptr());
}

#[test]
fn range_and_matrix_go_through_unchanged() {
    // Extreme values of a full-range picture must not be pressed into limited range, and
    // the other way round: a conversion between ranges would move them by 16.
    for full_range in [Some(true), Some(false), None] {
        for matrix in [Some(1), Some(5), Some(9), None] {
            let mut frame = VideoFrame::alloc(C420, 64, 64).unwrap();
            for (i, value) in [250u8, 30, 220].into_iter().enumerate() {
                frame.plane_mut(i).unwrap().data.fill(value);
            }
            let color = ColorDescription {
                primaries: Some(1),
                transfer: Some(1),
                matrix,
                full_range,
                chroma_location: Some(0),
            };
            frame.set_color(color);
            frame.set_pts(Some(77));
            let small = target(C420, 32, 32, 0).scale(&frame).unwrap();
            assert_eq!((small.color(), small.pts()), (color, Some(77)));
            for (i, value) in [250u8, 30, 220].into_iter().enumerate() {
                assert!(small.plane(i).row(7).iter().all(|b| *b == value), "{color:?} plane {i}");
            }
            let deep = target(PixelFormat::YUV420P10, 64, 64, 0).scale(&frame).unwrap();
            let sample = u16::from_ne_bytes(deep.plane(0).row(3)[..2].try_into().unwrap());
            let wanted = if full_range == Some(true) { 1003 } else { 1000 };
            assert!(sample.abs_diff(wanted) <= 3, "{color:?}: {sample} not {wanted}");
        }
    }
}

#[test]
fn formats_of_all_kinds_are_converted() {
    let clips = Clips::new();
    for (name, format) in [
        ("a", "yuyv422"),
        ("b", "rgb24"),
        ("c", "bgr0"),
        ("d", "nv12"),
        ("e", "gray"),
        ("f", "yuv444p16le"),
        ("g", "yuv411p"),
        ("h", "yuva420p"),
        ("i", "gbrp10le"),
    ] {
        let path = clips.video(
            &format!("{name}.nut"),
            "25",
            "0.1",
            &format!("-c:v rawvideo -pix_fmt {format} -frames:v 1"),
        );
        let frame = first(&path);
        assert_eq!(frame.format_name(), format);
        let near = trix_av::nearest_pixel_format(format).unwrap();
        let out = target(near, 128, 96, 0).scale(&frame).unwrap();
        assert_eq!((out.format(), out.width(), out.height()), (Some(near), 128, 96), "{format}");
        let out = target(C420, 64, 48, 0).scale(&frame).unwrap();
        // The test picture has dark and bright parts.
        let luma: Vec<u8> = (0..48).flat_map(|y| out.plane(0).row(y).to_vec()).collect();
        assert!(luma.iter().max() > Some(&180) && luma.iter().min() < Some(&70), "{format}");
        if trix_av::is_rgb(format) {
            let color = output_color(frame.color(), format);
            assert_eq!((color.matrix, color.full_range), (Some(1), Some(false)));
            assert_eq!(out.color(), color);
        }
    }
}

#[test]
fn rgb_becomes_limited_bt709() {
    let clips = Clips::new();
    let path = clips.make(
        "red.nut",
        "-f lavfi -i color=red:size=64x64:rate=25:duration=0.1,format=rgb24 -c:v rawvideo -pix_fmt rgb24 -frames:v 1",
    );
    let out = target(PixelFormat { chroma: Chroma::C444, depth: 8 }, 64, 64, 0)
        .scale(&first(&path))
        .unwrap();
    // ITU-R BT.709: Y = 16 + 219 * 0.2126 = 63, Cb = 102, Cr = 240.
    for (i, value) in [63u8, 102, 240].into_iter().enumerate() {
        let got = out.plane(i).row(20)[20];
        assert!(got.abs_diff(value) <= 2, "plane {i}: {got} not {value}");
    }
}

#[test]
fn the_same_picture_scales_to_the_same_bytes_and_close_to_ffmpeg() {
    let clips = Clips::new();
    let path = clips.video("a.mkv", "25", "0.2", "-c:v ffv1 -pix_fmt yuv422p10le");
    let frame = first(&path);
    let one = target(C420, 80, 60, 0).scale(&frame).unwrap();
    let two = target(C420, 80, 60, 0).scale(&frame).unwrap();
    assert_eq!(fingerprint(&one), fingerprint(&two));
    let raw = clips.make(
        "out.yuv",
        &format!(
            "-i {} -frames:v 1 -vf scale=80:60:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format=yuv420p -f rawvideo",
            path.display()
        ),
    );
    let theirs = std::fs::read(raw).unwrap();
    let ours: Vec<u8> = (0..60).flat_map(|y| one.plane(0).row(y).to_vec()).collect();
    let worst = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 2, "luma differs by up to {worst}");
}

#[test]
fn rotation_turns_clockwise() {
    let mut frame = VideoFrame::alloc(C420, 64, 32).unwrap();
    for i in 0..3 {
        frame.plane_mut(i).unwrap().data.fill(if i == 0 { 16 } else { 128 });
    }
    // A bright top left corner.
    {
        let mut luma = frame.plane_mut(0).unwrap();
        (0..8).for_each(|y| luma.row_mut(y)[..8].fill(235));
    }
    for (rotation, w, h, corner) in [
        (0, 64, 32, (0, 0)),
        (90, 32, 64, (31, 0)),
        (180, 64, 32, (63, 31)),
        (270, 32, 64, (0, 63)),
    ] {
        for format in [C420, PixelFormat { chroma: Chroma::C422, depth: 10 }] {
            let out = target(format, w, h, rotation).scale(&frame).unwrap();
            assert_eq!((out.width(), out.height()), (w, h));
            let bright = |x: u32, y: u32| {
                let row = out.plane(0).row(y);
                match format.bytes() {
                    1 => row[x as usize] > 200,
                    _ => u16::from_ne_bytes([row[2 * x as usize], row[2 * x as usize + 1]]) > 800,
                }
            };
            for (x, y) in [(0, 0), (w - 1, 0), (w - 1, h - 1), (0, h - 1)] {
                assert_eq!(bright(x, y), (x, y) == corner, "{rotation}: corner {x},{y}");
            }
        }
    }
    assert!(Scaler::new(Target { format: C420, width: 64, height: 32, rotation: 45 }).is_err());
}

#[test]
fn a_source_that_changes_its_size_goes_on() {
    let mut scaler = target(C420, 32, 32, 0);
    for (w, h) in [(64, 64), (128, 64), (64, 64)] {
        let frame = VideoFrame::alloc(C420, w, h).unwrap();
        assert_eq!(scaler.scale(&frame).unwrap().width(), 32);
    }
}

fn tone(rate: u32, layout: &str, from: usize, samples: usize) -> AudioFrame {
    let mut frame = AudioFrame::alloc(SampleFormat::F32P, rate, layout, samples).unwrap();
    for c in 0..frame.planes() {
        for (i, s) in frame.data_mut(c).unwrap().chunks_exact_mut(4).enumerate() {
            let t = (from + i) as f64 / f64::from(rate);
            let v = (t * 997.0 * std::f64::consts::TAU).sin() as f32 * 0.5;
            s.copy_from_slice(&v.to_ne_bytes());
        }
    }
    frame
}

#[test]
fn resampling_gives_the_exact_number_of_samples_in_time() {
    for (from, to) in [(44_100u32, 48_000u32), (48_000, 44_100), (96_000, 48_000), (22_050, 48_000)]
    {
        for total in [1usize, 1000, 44_100, 100_001] {
            let mut resampler = Resampler::new(SampleFormat::F32P, to, None).unwrap();
            let mut out: Vec<f32> = Vec::new();
            let mut take = |frame: Option<AudioFrame>| {
                for s in frame.iter().flat_map(|f| f.data(0).chunks_exact(4)) {
                    out.push(f32::from_ne_bytes(s.try_into().unwrap()));
                }
            };
            let mut at = 0;
            while at < total {
                let n = 1024.min(total - at);
                take(resampler.push(&tone(from, "stereo", at, n)).unwrap());
                at += n;
            }
            take(resampler.finish().unwrap());
            let ratio = Rational::new(i64::from(to), i64::from(from)).unwrap();
            assert_eq!(out.len() as i64, ratio.times(total as i64), "{from} to {to}, {total}");
            if total > 40_000 {
                let expected = tone(to, "mono", 0, out.len());
                let expected: Vec<f32> = expected
                    .data(0)
                    .chunks_exact(4)
                    .map(|s| f32::from_ne_bytes(s.try_into().unwrap()))
                    .collect();
                // The middle must be the same tone at the same time.
                let off = (2000..out.len() - 2000)
                    .map(|i| (out[i] - expected[i]).abs())
                    .fold(0f32, f32::max);
                assert!(off < 1e-4, "{from} to {to}: {off}");
            }
        }
    }
}

#[test]
fn layouts_and_formats_convert_and_equal_ones_pass() {
    let frame = tone(48_000, "5.1", 0, 1000);
    let mut stereo = Resampler::new(SampleFormat::S16, 48_000, Some("stereo")).unwrap();
    let mut n = stereo.push(&frame).unwrap().map_or(0, |f| {
        assert_eq!((f.channels(), f.format()), (2, SampleFormat::S16));
        f.samples()
    });
    n += stereo.finish().unwrap().map_or(0, |f| f.samples());
    assert_eq!(n, 1000);
    let mut same = Resampler::new(SampleFormat::F32P, 48_000, Some("5.1")).unwrap();
    let passed = same.push(&frame).unwrap().unwrap();
    assert_eq!(passed.data(3).as_ptr(), frame.data(3).as_ptr());
    assert!(Resampler::new(SampleFormat::S16, 48_000, Some("nonsense")).is_err());
}
