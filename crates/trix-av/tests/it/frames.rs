//! The table of frames is what the decoder gives and what ffprobe counts, to the frame.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::Ordering;

use trix_av::{FrameReader, IndexMode, Indexed, Input, VideoFrame, build_index, build_index_with};
use trix_model::index::{FrameSource, FrameTable, StreamIndex};

use crate::fixture::{Clips, open};
use crate::judge;

pub fn index(path: &Path, mode: IndexMode) -> Indexed {
    let mut input = Input::open(open(path)).unwrap();
    build_index_with(&mut input, mode, &mut |_| true).unwrap()
}

pub fn main_stream(indexed: &Indexed) -> &StreamIndex {
    indexed.index.streams.iter().find(|s| s.frames.is_some()).expect("a video stream")
}

pub fn table(indexed: &Indexed) -> &FrameTable {
    main_stream(indexed).frames.as_ref().unwrap()
}

/// A hash over the samples that are seen, without what lies between the lines.
pub fn fingerprint(frame: &VideoFrame) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for i in 0..frame.planes() {
        if let Some(plane) = frame.try_plane(i) {
            (0..plane.height).for_each(|y| hash.update(plane.row(y)));
        }
    }
    hash.digest128()
}

/// All frames from `first` on, decoded from the access point for `from`.
pub fn read(
    path: &Path,
    index: &StreamIndex,
    from: u32,
    first: u32,
    max: usize,
) -> Vec<(u32, i64, u128)> {
    let input = Input::open(open(path)).unwrap();
    let mut reader = FrameReader::open_from(input, index, from, first, 1).unwrap();
    let mut out = Vec::new();
    while let Some((n, frame)) = reader.next().unwrap() {
        out.push((n, frame.pts().unwrap(), fingerprint(&frame)));
        if out.len() == max {
            break;
        }
    }
    out
}

/// The whole agreement: packets' table, decoder, ffprobe, whole decode, and
/// every access point lead to the same frames. Returns the table's source.
pub fn agree(path: &Path) -> FrameSource {
    let indexed = index(path, IndexMode::Auto);
    let (stream, table) = (main_stream(&indexed), table(&indexed));
    assert!(table.pts.windows(2).all(|w| w[0] < w[1]), "times must rise");
    assert!(table.end > *table.pts.last().unwrap());
    assert_eq!((table.access[0].frame, table.access[0].packet), (0, 0));
    assert!(table.access.windows(2).all(|w| w[0].frame < w[1].frame && w[0].packet < w[1].packet));

    let judged = judge::frame_times(path, stream.stream);
    assert_eq!(table.pts.len(), judged.len(), "ffprobe counts other frames");
    // The last frames of an AVI file have no time there; ours go on evenly.
    let differ: Vec<_> =
        table.pts.iter().zip(&judged).filter(|(o, t)| t.is_some_and(|t| t != **o)).collect();
    assert!(differ.is_empty(), "ffprobe sees other times: {differ:?}");

    let all = read(path, stream, 0, 0, usize::MAX);
    let numbered: Vec<(u32, i64)> = all.iter().map(|f| (f.0, f.1)).collect();
    let expected: Vec<(u32, i64)> = (0..).zip(table.pts.iter().copied()).collect();
    assert_eq!(numbered, expected, "the reader gives other frames than the table");

    let decoded = index(path, IndexMode::Decode);
    assert_eq!(self::table(&decoded).pts, table.pts, "a whole decode gives other frames");
    assert_eq!(self::table(&decoded).end, table.end);
    let again = read(path, main_stream(&decoded), 0, 0, usize::MAX);
    assert!(again == all, "the table from a decode leads to other frames");

    let points = &table.access;
    let step = (points.len() / 8).max(1);
    for point in points.iter().skip(1).step_by(step) {
        let part = read(path, stream, point.frame, point.frame, 30);
        let first = point.frame as usize;
        assert!(
            part[..] == all[first..first + part.len()],
            "frames from access point {point:?} differ"
        );
    }
    table.source
}

const CLOSED: &str = "-g 12 -keyint_min 12 -sc_threshold 0 -bf 2 -flags +cgop";
const OPEN: &str = "-g 12 -keyint_min 12 -sc_threshold 0 -bf 2 -x264-params open-gop=1:keyint=12:min-keyint=12:bframes=3:b-pyramid=2";

#[test]
fn h264_with_closed_groups_is_told_by_packets_in_every_container() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mov", "a.mkv", "a.ts"] {
        let path = clips.video(name, "25", "4", &format!("-c:v libx264 {CLOSED} -pix_fmt yuv420p"));
        assert_eq!(agree(&path), FrameSource::Packets, "{name}");
        assert_eq!(table(&index(&path, IndexMode::Auto)).access.len(), 9, "{name}");
    }
}

#[test]
fn h264_with_open_groups_is_entered_at_recovery_points() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mov", "a.mkv", "a.ts"] {
        let path = clips.video(name, "25", "4", &format!("-c:v libx264 {OPEN} -pix_fmt yuv420p"));
        assert_eq!(agree(&path), FrameSource::Packets, "{name}");
        assert!(table(&index(&path, IndexMode::Auto)).access.len() > 5, "{name}");
    }
}

#[test]
fn hevc_with_open_groups_is_told_by_packets() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mov", "a.mkv", "a.ts"] {
        let path = clips.video(
            name,
            "24000/1001",
            "3",
            "-c:v libx265 -x265-params keyint=20:min-keyint=20:bframes=3:open-gop=1:log-level=none -pix_fmt yuv420p10le",
        );
        assert_eq!(agree(&path), FrameSource::Packets, "{name}");
        assert!(table(&index(&path, IndexMode::Auto)).access.len() > 2, "{name}");
    }
}

#[test]
fn mpeg2_is_told_right_in_every_container() {
    let clips = Clips::new();
    for name in ["a.ts", "a.mkv", "a.mov", "a.mpg", "a.mxf", "a.avi"] {
        let path = clips.video(name, "25", "3", "-c:v mpeg2video -g 12 -bf 2 -b:v 1M");
        agree(&path);
    }
}

#[test]
fn intra_codecs_are_entered_at_every_frame() {
    let clips = Clips::new();
    for (name, coding) in [
        ("prores.mov", "-c:v prores_ks -profile:v 3 -pix_fmt yuv422p10le"),
        ("ffv1.mkv", "-c:v ffv1 -level 3 -pix_fmt yuv422p10le"),
        ("dnx.mxf", "-s 1280x720 -c:v dnxhd -b:v 90M -pix_fmt yuv422p"),
        ("mjpeg.mov", "-c:v mjpeg"),
        ("mjpeg.avi", "-c:v mjpeg"),
        ("v210.mov", "-c:v v210"),
        ("raw.avi", "-c:v rawvideo -pix_fmt yuv420p"),
        ("huff.avi", "-c:v ffvhuff"),
        ("png.mov", "-c:v png"),
        ("jpeg2000.mxf", "-c:v jpeg2000 -pix_fmt yuv422p10le"),
    ] {
        let path = clips.video(name, "25", "1", coding);
        agree(&path);
        let frames = index(&path, IndexMode::Auto);
        if !name.starts_with("ffv1") {
            assert_eq!(table(&frames).access.len(), 25, "{name}");
        }
    }
}

#[test]
fn every_usual_frame_rate_keeps_its_times() {
    let clips = Clips::new();
    for rate in ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"] {
        for ending in ["mp4", "mkv", "ts"] {
            let name = format!("{}.{ending}", rate.replace('/', "-"));
            let path = clips.video(&name, rate, "2", &format!("-c:v libx264 {CLOSED}"));
            assert_eq!(agree(&path), FrameSource::Packets, "{name}");
        }
    }
}

#[test]
fn a_varying_frame_rate_keeps_every_frame_at_its_time() {
    let clips = Clips::new();
    let coding = "-vf select=mod(n\\,5)*mod(n\\,7) -fps_mode passthrough -enc_time_base 1/90000 \
                  -c:v libx264 -g 20 -bf 2";
    for name in ["a.mp4", "a.mkv"] {
        let path = clips.video(name, "25", "3", coding);
        assert_eq!(agree(&path), FrameSource::Packets, "{name}");
        let indexed = index(&path, IndexMode::Auto);
        let pts = &table(&indexed).pts;
        let steps: std::collections::BTreeSet<i64> = pts.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(steps.len() > 1, "{name}: the clip should vary");
    }
}

#[test]
fn two_frames_at_one_time_are_both_kept_and_get_times_of_their_own() {
    let clips = Clips::new();
    // Every third frame has the time of the one before.
    let path = clips.video(
        "a.mp4",
        "25",
        "2",
        "-vf setpts='(N-eq(mod(N,3),2))/25/TB' -fps_mode passthrough -enc_time_base 1/90000 -c:v libx264 -bf 2",
    );
    let indexed = index(&path, IndexMode::Auto);
    let table = table(&indexed);
    assert_eq!(table.pts.len(), judge::frame_times(&path, 0).len());
    assert_eq!(table.source, FrameSource::Decode);
    assert!(table.pts.windows(2).all(|w| w[0] < w[1]));
    let all = read(&path, main_stream(&indexed), 0, 0, usize::MAX);
    assert_eq!(all.len(), 50);
}

#[test]
fn edit_lists_hide_frames_without_losing_one() {
    let clips = Clips::new();
    let long = clips.video("long.mp4", "25", "4", &format!("-c:v libx264 {CLOSED}"));
    // Cut in the middle of a group without encoding: what precedes the cut is
    // needed for decoding and hidden by an edit.
    let cut = clips.make("cut.mp4", &format!("-ss 1.28 -i {} -c copy", long.display()));
    agree(&cut);
    let shown = table(&index(&cut, IndexMode::Auto)).pts.len();
    assert!(main_stream(&index(&cut, IndexMode::Auto)).packets.len() > shown, "packets are hidden");
}

#[test]
fn a_start_time_other_than_zero_is_kept() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mkv", "a.ts"] {
        let path =
            clips.video(name, "25", "2", &format!("-c:v libx264 {CLOSED} -output_ts_offset 3.52"));
        agree(&path);
        let indexed = index(&path, IndexMode::Auto);
        assert!(table(&indexed).pts[0] > 0, "{name}");
    }
}

#[test]
fn a_recording_that_starts_between_key_frames_gives_what_can_be_decoded() {
    let clips = Clips::new();
    for (codec, name) in [("libx264", "h.ts"), ("mpeg2video", "m.ts")] {
        let whole = clips.video(name, "25", "4", &format!("-c:v {codec} -g 25 -bf 2 -b:v 1M"));
        let bytes = std::fs::read(&whole).unwrap();
        let from = bytes.len() / 188 / 3 * 188;
        let cut = clips.write(&format!("cut-{name}"), &bytes[from..]);
        assert_eq!(agree(&cut), FrameSource::Decode, "{codec}");
    }
}

#[test]
fn avi_without_presentation_times_is_decoded_once() {
    let clips = Clips::new();
    for (name, coding) in [
        ("mpeg4.avi", "-c:v mpeg4 -bf 2 -g 12 -b:v 500k"),
        ("h264.avi", "-c:v libx264 -bf 2 -g 12"),
        ("xvid.avi", "-c:v mpeg4 -vtag XVID -bf 0 -g 12"),
        ("msmpeg4.avi", "-c:v msmpeg4v3 -g 12"),
    ] {
        let path = clips.video(name, "25", "2", coding);
        assert_eq!(agree(&path), FrameSource::Decode, "{name}");
    }
}

#[test]
fn interlaced_pictures_are_counted_as_frames() {
    let clips = Clips::new();
    for (name, coding) in [
        ("mbaff.mp4", "-vf tinterlace -c:v libx264 -flags +ildct+ilme -g 12 -bf 2"),
        ("mbaff.ts", "-vf tinterlace -c:v libx264 -flags +ildct+ilme -g 12 -bf 2"),
        ("mpeg2.ts", "-vf tinterlace -c:v mpeg2video -flags +ildct+ilme -g 12 -bf 2 -b:v 2M"),
        ("prores.mov", "-vf tinterlace -c:v prores_ks -flags +ildct"),
    ] {
        agree(&clips.video(name, "50", "2", coding));
    }
}

#[test]
fn intra_refresh_is_entered_only_at_its_start() {
    let clips = Clips::new();
    let path = clips.video("a.mp4", "25", "3", "-c:v libx264 -intra-refresh 1 -g 20 -bf 0");
    agree(&path);
}

#[test]
fn h264_of_intra_pictures_alone_is_entered_everywhere() {
    let clips = Clips::new();
    for name in ["a.mov", "a.mxf", "a.mkv"] {
        // One IDR picture, and then intra pictures that are none and carry no recovery point.
        let coding = "-c:v libx264 -pix_fmt yuv422p10le -x264-params keyint=1000:min-keyint=1000:scenecut=0:bframes=0 -force_key_frames 0 -bsf:v filter_units=remove_types=6";
        let path = clips.video(name, "25", "1", coding);
        assert_eq!(table(&index(&path, IndexMode::Auto)).access.len(), 1, "{name}");
        let coding =
            "-c:v libx264 -pix_fmt yuv422p10le -g 1 -intra -bsf:v filter_units=remove_types=6";
        let path = clips.video(name, "25", "1", &coding.replace(" -intra", ""));
        agree(&path);
        assert_eq!(table(&index(&path, IndexMode::Auto)).access.len(), 25, "{name}");
    }
}

#[test]
fn threads_change_no_frame() {
    let clips = Clips::new();
    for (name, coding) in [
        ("a.mp4", "-c:v libx264 -g 12 -bf 2"),
        ("a.mkv", "-c:v libx265 -x265-params keyint=12:log-level=none"),
        ("a.mov", "-c:v prores_ks"),
    ] {
        let path = clips.video(name, "25", "2", coding);
        let indexed = index(&path, IndexMode::Auto);
        let one = read(&path, main_stream(&indexed), 0, 0, usize::MAX);
        for first in [0u32, 17, 40] {
            let input = Input::open(open(&path)).unwrap();
            let mut reader = FrameReader::open(input, main_stream(&indexed), first, 3).unwrap();
            let mut n = first as usize;
            while let Some((number, frame)) = reader.next().unwrap() {
                let got = (number, frame.pts().unwrap(), fingerprint(&frame));
                assert_eq!(got, one[n], "{name} from {first}");
                n += 1;
            }
            assert_eq!(n, one.len(), "{name}");
        }
    }
}

#[test]
fn other_codecs_agree_too() {
    let clips = Clips::new();
    for (name, coding) in [
        ("vp8.webm", "-c:v libvpx -g 20 -b:v 300k -auto-alt-ref 1 -lag-in-frames 10"),
        (
            "vp9.webm",
            "-c:v libvpx-vp9 -g 20 -b:v 300k -auto-alt-ref 1 -lag-in-frames 10 -cpu-used 8",
        ),
        ("mpeg4.mp4", "-c:v mpeg4 -bf 2 -g 12"),
        ("theora.ogv", "-c:v libtheora -g 12"),
        ("msmpeg4.asf", "-c:v msmpeg4v2 -g 12"),
        ("flv.flv", "-c:v flv -g 12"),
        ("h264.nut", "-c:v libx264 -g 12"),
        ("raw.h264", "-c:v libx264 -g 12 -bf 0"),
        ("raw.m2v", "-c:v mpeg2video -g 12 -bf 0"),
        ("dv.avi", "-s 720x576 -pix_fmt yuv420p -c:v dvvideo"),
        ("qtrle.mov", "-c:v qtrle"),
    ] {
        println!("{name}");
        agree(&clips.video(name, "25", "2", coding));
    }
}

/// Counts the bytes that are read.
struct Counted<'a>(std::fs::File, &'a std::sync::atomic::AtomicU64);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_frame_near_the_end_is_reached_without_reading_what_lies_before() {
    let clips = Clips::new();
    let noise = "-vf noise=alls=100:allf=t";
    for (name, coding) in [
        ("a.mp4", "-c:v libx264 -preset ultrafast -qp 28 -g 12 -bf 2"),
        ("a.mov", "-c:v prores_ks"),
        ("a.mkv", "-c:v libx264 -preset ultrafast -qp 28 -g 12 -bf 2"),
        ("a.ts", "-c:v libx264 -preset ultrafast -qp 28 -g 12 -bf 2"),
        ("m.ts", "-c:v mpeg2video -qscale 6 -g 12 -bf 2"),
        ("a.mpg", "-c:v mpeg2video -qscale 6 -g 12 -bf 2 -maxrate 20M -bufsize 4M -muxrate 30M"),
        ("a.mxf", "-c:v mpeg2video -qscale 6 -g 12 -bf 2"),
        ("a.avi", "-c:v ffvhuff"),
        ("x.avi", "-c:v mpeg4 -qscale 6 -g 12 -bf 0"),
    ] {
        let source = "-f lavfi -i testsrc2=size=256x192:rate=25:duration=16";
        let path = clips.make(name, &format!("{source} {noise} {coding}"));
        let indexed = index(&path, IndexMode::Auto);
        let bytes = std::sync::atomic::AtomicU64::new(0);
        let input = Input::open_reader(Counted(open(&path), &bytes)).unwrap();
        let opened = bytes.load(Ordering::Relaxed);
        let mut reader = FrameReader::open(input, main_stream(&indexed), 390, 1).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().0, 390);
        let read = bytes.load(Ordering::Relaxed) - opened;
        let size = std::fs::metadata(&path).unwrap().len();
        println!("{name}: {read} of {size} bytes, {opened} to open");
        assert!(read < size / 4, "{name}: {read} of {size} bytes were read");
    }
}

#[test]
fn the_first_index_reads_a_plain_file_through_once() {
    // A check decodes the first and last group; it must not decode a plain file whole.
    let clips = Clips::new();
    let path = clips.video("a.mp4", "25", "2", &format!("-c:v libx264 {CLOSED}"));
    let mut input = Input::open(open(&path)).unwrap();
    let mut told = 0u64;
    let indexed = build_index(&mut input, &mut |at| {
        told = told.max(at);
        true
    })
    .unwrap();
    assert_eq!(table(&indexed).source, FrameSource::Packets);
    assert!(indexed.findings.is_empty(), "{:?}", indexed.findings);
}
