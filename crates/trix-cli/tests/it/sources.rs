//! What comes in goes out: the same frames at the same times, and sound to the sample.
//!
//! Pictures are encoded without loss, so that each frame of the output can be compared with the
//! source's own: a frame that was dropped, doubled or swapped shows, not just a wrong number.
//! Sound holds one click, whose distance from the first frame must stay.

use std::path::{Path, PathBuf};

use trix_testkit::clips;

use crate::support::{Place, click, described, frames, sound};

/// A tick of a container in microseconds, rounded up: times cannot be kept better than that.
const MATROSKA: i64 = 1_000;
const MPEG: i64 = 12;

/// A source and what is known of it.
struct Source {
    /// Name with the container's ending.
    name: &'static str,
    /// ffmpeg's inputs; `CLICK` stands for sound with one click, `PICTURE` for 2 s of moving
    /// picture without its rate.
    inputs: &'static str,
    /// ffmpeg's codecs and options.
    codecs: &'static str,
    /// Frames that it holds.
    frames: usize,
    /// Format in which frames are compared.
    pixels: &'static str,
    /// Whether FFV1 takes the frames, because x264 at 8 bit 4:2:0 would change them.
    deep: bool,
}

impl Default for Source {
    fn default() -> Source {
        Source {
            name: "",
            inputs: "PICTURE:rate=25 CLICK",
            codecs: "",
            frames: 50,
            pixels: "yuv420p",
            deep: false,
        }
    }
}

/// One click at 0.75 s of 2 s, between frames of all rates.
fn expand(inputs: &str) -> String {
    inputs
        .replace("PICTURE", "-f lavfi -i testsrc2=size=160x90:duration=2")
        .replace("CLICK", &format!("-f lavfi -i {}", click_at(36_000, 2.0)))
}

fn click_at(sample: u32, seconds: f64) -> String {
    format!("aevalsrc=exprs='if(eq(n,{sample}),0.9,0)':sample_rate=48000:duration={seconds}")
}

impl Source {
    fn make(&self, place: &Place) -> PathBuf {
        clips::make(&place.path(self.name), &format!("{} {}", expand(self.inputs), self.codecs))
    }
}

/// How far times of two files may differ by the rounding of their containers.
fn slack(a: &Path, b: &Path) -> i64 {
    let of = |p: &Path| if p.extension().is_some_and(|e| e == "mkv") { MATROSKA } else { MPEG };
    of(a).max(of(b))
}

/// Frames by content and by time.
#[track_caller]
fn same_frames(source: &Path, output: &Path, count: usize, pixels: &str) {
    let (theirs, ours) = (frames(source, pixels), frames(output, pixels));
    assert_eq!(theirs.len(), count, "the fixture {} is not as meant", source.display());
    assert_eq!(ours.len(), count, "{}: frames were dropped or doubled", output.display());
    let slack = slack(source, output);
    for (n, (a, b)) in theirs.iter().zip(&ours).enumerate() {
        assert_eq!(a.1, b.1, "{}: frame {n} is another picture", output.display());
        let off = (b.0 - ours[0].0) - (a.0 - theirs[0].0);
        assert!(off.abs() <= slack, "{}: frame {n} is {off} µs off", output.display());
    }
}

/// The click's distance from the first frame.
#[track_caller]
fn same_click(source: &Path, output: &Path) {
    let offset = |path: &Path| click(path, 0) - frames_zero(path);
    let (theirs, ours) = (offset(source), offset(output));
    // One sample at 48 kHz is 21 µs, and each of the two files rounds twice.
    let slack = 22 + 2 * slack(source, output);
    assert!(
        (theirs - ours).abs() <= slack,
        "{}: the click comes {ours} µs after the first frame, in the source {theirs} µs",
        output.display()
    );
}

fn frames_zero(path: &Path) -> i64 {
    crate::support::frame_times(path)[0]
}

/// Encodes without loss into two containers and compares everything.
#[track_caller]
fn follow(source: Source) {
    let place = Place::new();
    let file = source.make(&place);
    if source.deep {
        let mkv = place.encode(&file, "out.mkv", &["--video", "ffv1", "--audio", "flac"]);
        same_frames(&file, &mkv, source.frames, source.pixels);
        sound_too(&source, &file, &mkv);
        let mov = place.encode(
            &file,
            "out.mov",
            &["--video", "x264-10", "--preset", "ultrafast", "--qp", "0", "--audio", "pcm"],
        );
        assert_eq!(frames(&mov, "yuv420p10le").len(), source.frames);
        sound_too(&source, &file, &mov);
    } else {
        let lossless = ["--video", "x264-8", "--preset", "ultrafast", "--qp", "0"];
        for (name, audio) in [("out.mp4", "aac"), ("out.mov", "pcm"), ("out.mkv", "flac")] {
            let arguments = [&lossless[..], &["--audio", audio]].concat();
            let output = place.encode(&file, name, &arguments);
            same_frames(&file, &output, source.frames, source.pixels);
            sound_too(&source, &file, &output);
        }
    }
}

#[track_caller]
fn sound_too(source: &Source, file: &Path, output: &Path) {
    if source.inputs.contains("CLICK") {
        same_click(file, output);
    } else {
        assert_eq!(clips::probe(output, "a:0", "codec_name"), "");
    }
}

const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

macro_rules! sources {
    ($($test:ident: $($field:ident: $value:expr),+;)+) => {
        $(#[test]
        // A test may well say all of its fields.
        #[allow(clippy::needless_update)]
        fn $test() {
            follow(Source { $($field: $value,)+ ..Source::default() });
        })+
    };
}

sources! {
    h264_with_b_frames_in_mp4_at_24:
        name: "s.mp4", inputs: "PICTURE:rate=24 CLICK", frames: 48,
        codecs: "-c:v libx264 -preset veryfast -bf 3 -g 24 -pix_fmt yuv420p -c:a aac";
    h264_with_open_gops_in_mp4_at_25:
        name: "s.mp4",
        codecs: "-c:v libx264 -preset veryfast -bf 3 -x264-params open-gop=1:keyint=12 \
                 -pix_fmt yuv420p -c:a aac";
    h264_in_mov_at_23_976:
        name: "s.mov", inputs: "PICTURE:rate=24000/1001 CLICK", frames: 48,
        codecs: "-c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a pcm_s16le";
    h264_in_matroska_at_29_97:
        name: "s.mkv", inputs: "PICTURE:rate=30000/1001 CLICK", frames: 60,
        codecs: "-c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a flac";
    h264_with_open_gops_in_a_transport_stream_at_25:
        name: "s.ts",
        codecs: "-c:v libx264 -preset veryfast -bf 3 -x264-params open-gop=1:keyint=12 \
                 -pix_fmt yuv420p -c:a mp2";
    h264_with_intra_refresh_and_no_second_key_frame:
        name: "s.mp4",
        codecs: "-c:v libx264 -preset veryfast -intra-refresh 1 -pix_fmt yuv420p -c:a aac";
    hevc_in_mp4_at_50:
        name: "s.mp4", inputs: "PICTURE:rate=50 CLICK", frames: 100,
        codecs: "-c:v libx265 -preset ultrafast -x265-params bframes=3:log-level=none:keyint=25 \
                 -tag:v hvc1 -pix_fmt yuv420p -c:a aac";
    hevc_with_open_gops_in_matroska_at_59_94:
        name: "s.mkv", inputs: "PICTURE:rate=60000/1001 CLICK", frames: 120,
        codecs: "-c:v libx265 -preset ultrafast -x265-params \
                 bframes=4:open-gop=1:log-level=none:keyint=30 -pix_fmt yuv420p -c:a ac3";
    hevc_in_a_transport_stream_at_60:
        name: "s.ts", inputs: "PICTURE:rate=60 CLICK", frames: 120,
        codecs: "-c:v libx265 -preset ultrafast -x265-params bframes=2:log-level=none:keyint=30 \
                 -pix_fmt yuv420p -c:a aac";
    hevc_of_10_bit_in_mov:
        name: "s.mov", deep: true, pixels: "yuv420p10le",
        codecs: "-c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hvc1 \
                 -pix_fmt yuv420p10le -c:a pcm_s24le";
    hevc_of_12_bit_in_mp4:
        name: "s.mp4", deep: true, pixels: "yuv420p12le",
        codecs: "-c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hvc1 \
                 -pix_fmt yuv420p12le -c:a aac";
    mpeg2_with_b_frames_in_a_transport_stream:
        name: "s.ts", codecs: "-c:v mpeg2video -bf 2 -g 12 -q:v 3 -pix_fmt yuv420p -c:a mp2";
    mpeg2_in_matroska_at_29_97:
        name: "s.mkv", inputs: "PICTURE:rate=30000/1001 CLICK", frames: 60,
        codecs: "-c:v mpeg2video -bf 2 -g 15 -q:v 3 -pix_fmt yuv420p -c:a ac3";
    mpeg2_in_mov:
        name: "s.mov", codecs: "-c:v mpeg2video -bf 2 -g 12 -q:v 3 -pix_fmt yuv420p -c:a pcm_s16be";
    prores_of_10_bit_422_in_mov:
        name: "s.mov", inputs: "PICTURE:rate=24 CLICK", frames: 48, deep: true,
        pixels: "yuv422p10le",
        codecs: "-c:v prores_ks -profile:v 3 -pix_fmt yuv422p10le -c:a pcm_s24le";
    prores_in_matroska:
        name: "s.mkv", deep: true, pixels: "yuv422p10le",
        codecs: "-c:v prores_ks -profile:v 2 -pix_fmt yuv422p10le -c:a flac";
    ffv1_in_matroska:
        name: "s.mkv", inputs: "PICTURE:rate=30 CLICK", frames: 60,
        codecs: "-c:v ffv1 -level 3 -pix_fmt yuv420p -c:a flac";
    ffv1_of_12_bit_in_matroska:
        name: "s.mkv", deep: true, pixels: "yuv420p12le",
        codecs: "-c:v ffv1 -level 3 -pix_fmt yuv420p12le -c:a pcm_s24le";
    ffv1_in_mov:
        name: "s.mov", codecs: "-c:v ffv1 -level 3 -strict -2 -pix_fmt yuv420p -c:a pcm_s16le";
    a_varying_frame_rate_in_mp4:
        name: "s.mp4",
        codecs: "-vf settb=1/90000,setpts='3600*N+trunc(N/7)*2222+eq(mod(N,5),3)*901' \
                 -fps_mode passthrough -enc_time_base 1/90000 -video_track_timescale 90000 \
                 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a aac";
    a_varying_frame_rate_in_matroska:
        name: "s.mkv",
        codecs: "-vf settb=1/1000,setpts='40*N+trunc(N/7)*33+eq(mod(N,5),3)*11' \
                 -fps_mode passthrough -enc_time_base 1/1000 \
                 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a flac";
    a_varying_frame_rate_in_a_transport_stream:
        name: "s.ts",
        codecs: "-vf settb=1/90000,setpts='3600*N+trunc(N/7)*2222+eq(mod(N,5),3)*901' \
                 -fps_mode passthrough -enc_time_base 1/90000 \
                 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a aac";
    a_long_hold_in_the_middle:
        name: "s.mp4",
        codecs: "-vf settb=1/90000,setpts='3600*N+gt(N,20)*180000' \
                 -fps_mode passthrough -enc_time_base 1/90000 -video_track_timescale 90000 \
                 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a aac";
    no_sound: name: "s.mp4", inputs: "PICTURE:rate=25", codecs: H264;
    late_sound_in_mp4:
        name: "s.mp4", inputs: "PICTURE:rate=25 -itsoffset 0.3333 CLICK",
        codecs: "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    late_sound_in_mov:
        name: "s.mov", inputs: "PICTURE:rate=25 -itsoffset 0.3333 CLICK",
        codecs: "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a pcm_s16le";
    late_sound_in_matroska:
        name: "s.mkv", inputs: "PICTURE:rate=25 -itsoffset 0.3333 CLICK",
        codecs: "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a flac";
    late_sound_in_a_transport_stream:
        name: "s.ts", inputs: "PICTURE:rate=25 -itsoffset 0.3333 CLICK",
        codecs: "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a mp2";
    early_sound_in_mp4:
        name: "s.mp4", inputs: "-itsoffset 0.4217 PICTURE:rate=25 CLICK",
        codecs: "-fps_mode passthrough -enc_time_base 1/90000 -video_track_timescale 90000 \
                 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    early_sound_in_matroska:
        name: "s.mkv", inputs: "-itsoffset 0.4217 PICTURE:rate=25 CLICK",
        codecs: "-fps_mode passthrough -enc_time_base 1/1000 \
                 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a flac";
    early_sound_in_a_transport_stream:
        name: "s.ts", inputs: "-itsoffset 0.4217 PICTURE:rate=25 CLICK",
        codecs: "-fps_mode passthrough -enc_time_base 1/90000 \
                 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a mp2";
    sound_that_ends_before_the_picture:
        name: "s.mp4", inputs: "PICTURE:rate=25 CLICK",
        codecs: "-af atrim=end=1.1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    a_film_that_starts_at_an_hour_in_a_transport_stream:
        name: "s.ts",
        codecs: "-output_ts_offset 3600 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p \
                 -c:a mp2";
    a_film_that_starts_at_ten_seconds_in_matroska:
        name: "s.mkv",
        codecs: "-output_ts_offset 10 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p \
                 -c:a flac";
    a_fragmented_mp4:
        name: "s.mp4",
        codecs: "-movflags +frag_keyframe+empty_moov -g 10 \
                 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a aac";
    sound_at_44100:
        name: "s.mov", codecs: "-ar 44100 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
                                -c:a pcm_s16le";
}

#[test]
fn an_edit_list_hides_what_lies_before_its_start() {
    let place = Place::new();
    let whole = clips::make(
        &place.path("whole.mp4"),
        &format!(
            "{} -c:v libx264 -preset veryfast -bf 2 -g 25 -pix_fmt yuv420p -c:a aac",
            expand("PICTURE:rate=25 CLICK")
        ),
    );
    // Cut between two key frames: the packets from the key frame on stay, an edit list hides them.
    let cut = clips::make(
        &place.path("cut.mp4"),
        &format!("-ss 0.4 -i {} -c copy -avoid_negative_ts disabled", whole.display()),
    );
    let packets = crate::support::lines(&cut, "v:0", "packet=pts").len();
    let presented = frames(&cut, "yuv420p").len();
    assert!(presented < packets, "the fixture hides nothing: {presented} of {packets}");
    for (name, audio) in [("out.mp4", "aac"), ("out.mov", "pcm")] {
        let arguments =
            ["--video", "x264-8", "--preset", "ultrafast", "--qp", "0", "--audio", audio];
        let output = place.encode(&cut, name, &arguments);
        same_frames(&cut, &output, presented, "yuv420p");
        same_click(&cut, &output);
    }
}

#[test]
fn short_sound_stays_short_to_the_sample() {
    let place = Place::new();
    let source = clips::make(
        &place.path("s.mov"),
        &format!(
            "{} -af atrim=end_sample=52801 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
             -c:a pcm_s16le",
            expand("PICTURE:rate=25 CLICK")
        ),
    );
    assert_eq!(sound(&source, 0).2.len(), 52_801);
    let pcm = place.encode(&source, "pcm.mov", &["--video", "copy", "--audio", "pcm"]);
    assert_eq!(sound(&pcm, 0), sound(&source, 0));
    let flac = place.encode(&source, "flac.mkv", &["--video", "copy", "--audio", "flac"]);
    assert_eq!(sound(&flac, 0).2, sound(&source, 0).2);
}

#[test]
fn languages_titles_and_default_marks_stay_with_their_tracks() {
    let place = Place::new();
    let arguments = "-f lavfi -i testsrc2=size=160x90:duration=2:rate=25 \
         -f lavfi -i sine=frequency=300:duration=2 -f lavfi -i sine=frequency=600:duration=2 \
         -f lavfi -i sine=frequency=900:duration=2 -map 0:v -map 1:a -map 2:a -map 3:a \
         -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac \
         -metadata:s:a:0 language=deu -metadata:s:a:0 title=Kinoton \
         -metadata:s:a:1 language=eng -metadata:s:a:1 title=Commentary \
         -metadata:s:a:2 language=rus \
         -disposition:a:0 0 -disposition:a:1 default -disposition:a:2 0";
    for source in ["s.mkv", "s.mp4"] {
        let source = clips::make(&place.path(source), arguments);
        for name in ["out.mkv", "out.mp4"] {
            let output =
                place.encode(&source, name, &[crate::support::FAST, &["--force"]].concat());
            let media = described(&output);
            let tracks: Vec<_> = media["streams"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|s| s["codec_type"] == "audio")
                .collect();
            assert_eq!(tracks.len(), 3, "{media}");
            let tag = |n: usize, key: &str| tracks[n]["tags"][key].as_str().map(str::to_owned);
            let about = format!("{} to {name}", source.display());
            for (n, language) in ["deu", "eng", "rus"].iter().enumerate() {
                let found = tag(n, "language").unwrap();
                // Matroska writes the bibliographic form.
                let same = found == *language || (*language == "deu" && found == "ger");
                assert!(same, "{about}: track {n} is {found}");
                let default = tracks[n]["disposition"]["default"] == 1;
                assert_eq!(default, n == 1, "{about}: the default mark of track {n}");
            }
            // ffprobe of 2022 shows an MP4 track's name as its handler's, where it shows it at all.
            let title = |n| tag(n, "title").or(tag(n, "handler_name")).unwrap_or_default();
            if source.extension().is_some_and(|e| e == "mkv") {
                assert_eq!(title(0), "Kinoton", "{about}");
                assert_eq!(title(1), "Commentary", "{about}");
            }
            // And the sound itself did not change places.
            for (n, hertz) in [300.0, 600.0, 900.0].iter().enumerate() {
                let (_, rate, samples) = sound(&output, n);
                let middle = &samples[samples.len() / 4..samples.len() / 2];
                let crossings = middle.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
                let found = crossings as f64 * f64::from(rate) / middle.len() as f64;
                assert!((found - hertz).abs() < 10.0, "{about}: track {n} sounds at {found} Hz");
            }
        }
    }
}

#[test]
fn a_long_film_keeps_every_frame_over_the_borders_of_its_chunks() {
    let place = Place::new();
    // 30 s at 23.976 with open GOPs: chunks begin inside and beside them.
    let source = clips::make(
        &place.path("film.mkv"),
        "-f lavfi -i testsrc2=size=96x64:rate=24000/1001:duration=30 \
         -c:v libx264 -preset veryfast -bf 3 -x264-params open-gop=1:keyint=37 -pix_fmt yuv420p",
    );
    let output = place.encode(
        &source,
        "out.mp4",
        &["--video", "x264-8", "--preset", "veryfast", "--qp", "0"],
    );
    let count = frames(&source, "yuv420p").len();
    same_frames(&source, &output, count, "yuv420p");
}
