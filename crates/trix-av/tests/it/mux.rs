//! Files that are written: facts over their boxes, and what Debian's tools read from them.

use std::fs::File;
use std::path::{Path, PathBuf};

use trix_av::{
    AudioCodecKind, AudioEncoder, AudioEncoderSettings, AudioFrame, AudioReader, CodecKind,
    CodecParameters, EncodedPacket, Ffv1Encoder, Ffv1Settings, FrameReader, IndexMode, Input,
    MuxOptions, MuxTrack, Muxer, SampleFormat, copy_parameters, encode_jpeg, encode_png, probe,
};
use trix_model::{ColorDescription, ContentLight, HdrMetadata, MasteringDisplay, Rational};
use trix_plan::task::Container;

use crate::fixture::{Clips, open};
use crate::frames::{agree, fingerprint, index, main_stream, read, table};
use crate::judge;

struct Track {
    parameters: CodecParameters,
    time_base: Rational,
    packets: Vec<EncodedPacket>,
}

fn copy(path: &Path, stream: u32) -> Track {
    let mut input = Input::open(open(path)).unwrap();
    let parameters = copy_parameters(&input, stream).unwrap();
    let time_base = input.time_base(stream).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = input.read_packet().unwrap() {
        if packet.stream() == stream {
            packets.push(packet.to_encoded());
        }
    }
    Track { parameters, time_base, packets }
}

/// Noise that is the same every time.
fn noise(samples: usize, format: SampleFormat, layout: &str) -> AudioFrame {
    let mut frame = AudioFrame::alloc(format, 48_000, layout, samples).unwrap();
    let mut state = 1u32;
    for i in 0..frame.planes() {
        let float = format.float;
        let bytes = frame.data_mut(i).unwrap();
        let width = usize::from(format.bytes);
        for sample in bytes.chunks_exact_mut(width) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as i32 % 20_000 - 10_000;
            match (float, width) {
                (true, _) => sample.copy_from_slice(&(value as f32 / 32_768.0).to_ne_bytes()),
                (false, 2) => sample.copy_from_slice(&(value as i16).to_ne_bytes()),
                _ => sample.copy_from_slice(&(value << 16).to_ne_bytes()),
            }
        }
    }
    frame
}

fn sound(codec: AudioCodecKind, samples: usize) -> Track {
    let settings = AudioEncoderSettings {
        codec,
        rate: 48_000,
        layout: "stereo".to_owned(),
        bit_rate: (codec == AudioCodecKind::Aac).then_some(128_000),
        source_depth: Some(16),
    };
    let mut encoder = AudioEncoder::open(&settings).unwrap();
    let all = noise(samples, encoder.input_format(), "stereo");
    let mut packets = Vec::new();
    // In runs of an odd length: the packets must not depend on it.
    let mut at = 0;
    while at < samples {
        let n = 777.min(samples - at);
        packets.extend(encoder.send(&all.slice(at, n).unwrap()).unwrap());
        at += n;
    }
    packets.extend(encoder.finish().unwrap());
    Track {
        parameters: encoder.parameters(),
        time_base: Rational::new(1, 48_000).unwrap(),
        packets,
    }
}

fn mux(
    path: &Path,
    container: Container,
    tracks: &[Track],
    change: impl Fn(usize, &mut MuxTrack),
) -> File {
    let described: Vec<MuxTrack> = tracks
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let mut track = MuxTrack {
                parameters: t.parameters.clone(),
                time_base: t.time_base,
                language: None,
                title: None,
                default: true,
                rotation: 0,
            };
            change(i, &mut track);
            track
        })
        .collect();
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let options = MuxOptions {
        fast_start: container != Container::Mkv,
        tags: [("title".to_owned(), "Фильм".to_owned())].into(),
    };
    let mut muxer = Muxer::create(file, container, &described, &options).unwrap();
    let mut order: Vec<(f64, usize, usize)> = tracks
        .iter()
        .enumerate()
        .flat_map(|(i, t)| {
            t.packets
                .iter()
                .enumerate()
                .map(move |(n, p)| (p.dts as f64 * t.time_base.to_f64(), i, n))
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, i, n) in order {
        muxer.write(i, &tracks[i].packets[n]).unwrap();
    }
    muxer.finish().unwrap()
}

/// (type, offset, size) of the boxes beneath `bytes`, with those of the containers among them.
fn boxes(bytes: &[u8], base: usize, out: &mut Vec<(String, usize, usize)>) {
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let kind = String::from_utf8_lossy(&bytes[at + 4..at + 8]).into_owned();
        if size < 8 || at + size > bytes.len() {
            return;
        }
        out.push((kind.clone(), base + at, size));
        let skip = match kind.as_str() {
            "moov" | "trak" | "mdia" | "minf" | "stbl" | "edts" => 8,
            "stsd" => 16,
            "avc1" | "hvc1" | "hev1" | "FFV1" => 8 + 78,
            _ => 0,
        };
        if skip > 0 {
            boxes(&bytes[at + skip..at + size], base + at + skip, out);
        }
        at += size;
    }
}

fn facts(path: &Path) -> (Vec<u8>, Vec<(String, usize, usize)>) {
    let bytes = std::fs::read(path).unwrap();
    let mut all = Vec::new();
    boxes(&bytes, 0, &mut all);
    (bytes, all)
}

fn body<'a>(bytes: &'a [u8], all: &[(String, usize, usize)], kind: &str) -> &'a [u8] {
    let (_, at, size) = all.iter().find(|b| b.0 == kind).unwrap_or_else(|| panic!("no {kind} box"));
    &bytes[at + 8..at + size]
}

const H264: &str = "-c:v libx264 -g 12 -bf 2 -pix_fmt yuv420p";

#[test]
fn every_container_gives_back_the_frames_that_went_in() {
    let clips = Clips::new();
    let source = clips.video("in.mp4", "24000/1001", "2", H264);
    let before = index(&source, IndexMode::Auto);
    let frames = read(&source, main_stream(&before), 0, 0, usize::MAX);
    for (name, container) in
        [("a.mp4", Container::Mp4), ("a.mov", Container::Mov), ("a.mkv", Container::Mkv)]
    {
        let path = clips.path(name);
        mux(&path, container, &[copy(&source, 0), sound(AudioCodecKind::Aac, 96_000)], |_, _| {});
        agree(&path);
        let after = index(&path, IndexMode::Auto);
        let again = read(&path, main_stream(&after), 0, 0, usize::MAX);
        assert_eq!(again.len(), frames.len(), "{name}");
        assert!(again.iter().zip(&frames).all(|(a, b)| a.2 == b.2), "{name}: other pictures");
        assert_eq!(table(&after).pts[0], 0, "{name}: the film starts at zero");
        if container != Container::Mkv {
            let base = main_stream(&after).time_base;
            assert_eq!(base, Rational::new(1, 24_000).unwrap(), "{name}");
            assert!(table(&after).pts.iter().enumerate().all(|(n, p)| *p == n as i64 * 1001));
            assert_eq!(table(&after).end, 48 * 1001, "{name}");
        }
    }
}

#[test]
fn the_same_packets_give_the_same_bytes_and_the_index_stands_in_front() {
    let clips = Clips::new();
    let source = clips.video("in.mp4", "25", "2", H264);
    for container in [Container::Mp4, Container::Mov, Container::Mkv] {
        let (one, two) = (clips.path("one"), clips.path("two"));
        mux(&one, container, &[copy(&source, 0), sound(AudioCodecKind::Aac, 96_000)], |_, _| {});
        // Two runs may fall into different seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        mux(&two, container, &[copy(&source, 0), sound(AudioCodecKind::Aac, 96_000)], |_, _| {});
        let (bytes, all) = facts(&one);
        assert!(bytes == std::fs::read(&two).unwrap(), "{container:?}");
        if container != Container::Mkv {
            let place = |kind| all.iter().position(|b| b.0 == kind).unwrap();
            assert!(place("moov") < place("mdat"), "{container:?}");
            assert_eq!(body(&bytes, &all, "mvhd")[4..12], [0; 8], "no date");
        }
    }
}

#[test]
fn aac_priming_is_cut_to_the_sample_by_other_decoders_and_by_ours() {
    let clips = Clips::new();
    for samples in [48_000usize, 47_999, 1_024, 1_025, 100_003] {
        for (name, container) in [("a.mp4", Container::Mp4), ("a.mov", Container::Mov)] {
            let path = clips.path(name);
            let track = sound(AudioCodecKind::Aac, samples);
            assert_eq!(track.packets[0].pts, -1024);
            let CodecKind::Audio(a) = &track.parameters.kind else { panic!("sound") };
            assert_eq!(a.initial_padding, 1024);
            let coded: i64 = track.packets.len() as i64 * 1024;
            assert_eq!(coded, 1024 + samples as i64 + i64::from(a.trailing_padding), "{samples}");
            let last = track.packets.last().unwrap();
            assert_eq!(last.pts + last.duration, samples as i64);
            mux(&path, container, &[track], |_, _| {});
            let text = judge::ffprobe(&path, &["-show_entries", "stream=start_pts,duration_ts"]);
            assert_eq!(
                text.lines().collect::<Vec<_>>(),
                ["start_pts=0", &format!("duration_ts={samples}")],
                "{name}"
            );
            let mut reader = AudioReader::open(Input::open(open(&path)).unwrap(), 0).unwrap();
            let (mut total, mut first) = (0, None);
            while let Some(frame) = reader.next().unwrap() {
                first = first.or(frame.pts());
                total += frame.samples();
            }
            assert_eq!((first, reader.damaged()), (Some(0), 0), "{name} {samples}");
            // Debian's decoder does not cut the end inside a packet; none may lack a sample.
            assert_eq!(total, samples, "{name}");
            assert!(judge::samples(&path, 2) >= samples, "{name} {samples}");
        }
    }
}

#[test]
fn lossless_sound_comes_back_sample_by_sample() {
    let clips = Clips::new();
    for (codec, name, container) in [
        (AudioCodecKind::Flac, "f.mp4", Container::Mp4),
        (AudioCodecKind::Flac, "f.mkv", Container::Mkv),
        (AudioCodecKind::PcmS16le, "p.mov", Container::Mov),
        (AudioCodecKind::PcmS16le, "p.mp4", Container::Mp4),
        (AudioCodecKind::PcmS24le, "q.mov", Container::Mov),
        (AudioCodecKind::PcmS32le, "r.mkv", Container::Mkv),
    ] {
        let path = clips.path(name);
        mux(&path, container, &[sound(codec, 50_001)], |_, _| {});
        let format = match codec {
            AudioCodecKind::PcmS24le | AudioCodecKind::PcmS32le => SampleFormat::S32,
            _ => SampleFormat::S16,
        };
        let expected = noise(50_001, format, "stereo");
        let mut reader = AudioReader::open(Input::open(open(&path)).unwrap(), 0).unwrap();
        let mut data = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            assert_eq!(frame.format().bytes, format.bytes, "{name}");
            data.extend_from_slice(frame.data(0));
        }
        assert!(data == expected.data(0), "{name}: {} bytes", data.len());
        if name != "p.mp4" {
            assert_eq!(judge::samples(&path, 2), 50_001, "{name}");
        }
    }
}

/// Decoded samples of a stream by their time on the film's clock.
fn by_time(path: &Path, stream: u32) -> std::collections::BTreeMap<i64, u32> {
    let mut reader = AudioReader::open(Input::open(open(path)).unwrap(), stream).unwrap();
    let mut samples = std::collections::BTreeMap::new();
    while let Some(frame) = reader.next().unwrap() {
        let pts = frame.pts().unwrap();
        for (i, s) in frame.data(0).chunks_exact(4).enumerate() {
            samples.insert(pts + i as i64, u32::from_ne_bytes(s.try_into().unwrap()));
        }
    }
    samples
}

#[test]
fn late_and_early_sound_is_heard_at_its_time_to_the_sample() {
    let clips = Clips::new();
    let source = clips.video("in.mp4", "24000/1001", "2", H264);
    let write = |offset: i64| {
        let path = clips.path(&format!("{offset}.mp4"));
        let mut audio = sound(AudioCodecKind::Aac, 48_000);
        for packet in &mut audio.packets {
            packet.pts += offset;
            packet.dts += offset;
        }
        mux(&path, Container::Mp4, &[copy(&source, 0), audio], |_, _| {});
        path
    };
    let whole = by_time(&write(0), 1);
    assert_eq!((whole.len(), whole.keys().next()), (48_000, Some(&0)));
    for offset in [1i64, 1_601, 24_000, -1_000] {
        let path = write(offset);
        let moved = by_time(&path, 1);
        // What lies before the film's zero is hidden by the edit.
        for (time, value) in whole.range((-offset).max(0)..) {
            assert_eq!(moved.get(&(time + offset)), Some(value), "{offset}: sample {time}");
        }
        assert_eq!(moved.keys().next_back(), Some(&(47_999 + offset)), "{offset}");
        assert_eq!(table(&index(&path, IndexMode::Auto)).pts[0], 0, "{offset}");
    }
}

#[test]
fn colour_aspect_and_hdr_are_signalled_in_the_boxes() {
    let clips = Clips::new();
    let source = clips.video(
        "in.mp4",
        "25",
        "1",
        "-c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le",
    );
    let mut track = copy(&source, 0);
    let color = ColorDescription {
        primaries: Some(9),
        transfer: Some(16),
        matrix: Some(9),
        full_range: Some(false),
        chroma_location: Some(2),
    };
    let hdr = HdrMetadata {
        mastering_display: Some(MasteringDisplay {
            primaries: [[35_400, 14_600], [8_500, 39_850], [6_550, 2_300]],
            white_point: [15_635, 16_450],
            max_luminance: 10_000_000,
            min_luminance: 50,
        }),
        content_light: Some(ContentLight { max_content: 1000, max_frame_average: 400 }),
    };
    let CodecKind::Video(video) = &mut track.parameters.kind else { panic!("video") };
    (video.color, video.hdr) = (color, hdr);
    video.sample_aspect = Rational::new(4, 3);
    for (name, container) in
        [("a.mp4", Container::Mp4), ("a.mov", Container::Mov), ("a.mkv", Container::Mkv)]
    {
        let path = clips.path(name);
        let tracks = [Track {
            parameters: track.parameters.clone(),
            time_base: track.time_base,
            packets: track.packets.clone(),
        }];
        mux(&path, container, &tracks, |_, _| {});
        let media = probe(open(&path)).unwrap();
        let (_, video) = media.main_video().unwrap();
        assert_eq!(video.hdr, hdr, "{name}");
        assert_eq!(video.sample_aspect, Rational::new(4, 3), "{name}");
        let seen = video.color;
        assert_eq!(
            (seen.primaries, seen.transfer, seen.matrix, seen.full_range),
            (Some(9), Some(16), Some(9), Some(false)),
            "{name}"
        );
        if container == Container::Mkv {
            continue;
        }
        let (bytes, all) = facts(&path);
        assert!(all.iter().any(|b| b.0 == "hvc1"), "{name}");
        let colr = body(&bytes, &all, "colr");
        let kind: &[u8] = if container == Container::Mp4 { b"nclx" } else { b"nclc" };
        assert_eq!(&colr[..4], kind, "{name}");
        assert_eq!(colr[4..10], [0, 9, 0, 16, 0, 9], "{name}");
        assert_eq!(body(&bytes, &all, "pasp"), [0, 0, 0, 4, 0, 0, 0, 3], "{name}");
        if container == Container::Mp4 {
            assert_eq!(body(&bytes, &all, "clli"), [0x03, 0xe8, 0x01, 0x90]);
            // Green, blue, red in the box.
            assert_eq!(body(&bytes, &all, "mdcv")[..4], [0x21, 0x34, 0x9b, 0xaa]);
        }
    }
}

#[test]
fn languages_titles_defaults_and_rotation_are_kept() {
    let clips = Clips::new();
    let source = clips.video("in.mp4", "25", "1", H264);
    for (name, container) in [("a.mp4", Container::Mp4), ("a.mkv", Container::Mkv)] {
        let path = clips.path(name);
        let tracks = [
            copy(&source, 0),
            sound(AudioCodecKind::Aac, 48_000),
            sound(AudioCodecKind::Aac, 48_000),
        ];
        mux(&path, container, &tracks, |i, track| match i {
            0 => track.rotation = 90,
            1 => track.language = Some("rus".to_owned()),
            _ => {
                track.language = Some("eng".to_owned());
                track.title = Some("Комментарий".to_owned());
                track.default = false;
            }
        });
        let media = probe(open(&path)).unwrap();
        assert_eq!(media.tags.get("title").map(String::as_str), Some("Фильм"), "{name}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"Lavf61" || w == b"Lavc61"), "no version in it");
        assert_eq!(media.main_video().unwrap().1.rotation, 90, "{name}");
        let audio: Vec<_> = media.audios().map(|(s, _)| s).collect();
        assert_eq!(audio[0].language.as_deref(), Some("rus"), "{name}");
        assert_eq!(audio[1].language.as_deref(), Some("eng"), "{name}");
        assert_eq!(audio[1].title.as_deref(), Some("Комментарий"), "{name}");
        assert_eq!((audio[0].default, audio[1].default), (true, false), "{name}");
    }
}

#[test]
fn ffv1_is_lossless_and_another_decoder_agrees() {
    let clips = Clips::new();
    let source = clips.video("in.mov", "25", "1", "-c:v prores_ks -pix_fmt yuv422p10le");
    let indexed = index(&source, IndexMode::Auto);
    let mut reader =
        FrameReader::open(Input::open(open(&source)).unwrap(), main_stream(&indexed), 0, 1)
            .unwrap();
    let mut encoder: Option<Ffv1Encoder> = None;
    let (mut packets, mut prints) = (Vec::new(), Vec::new());
    while let Some((_, frame)) = reader.next().unwrap() {
        let encoder = encoder.get_or_insert_with(|| {
            Ffv1Encoder::open(&Ffv1Settings {
                format: frame.format().unwrap(),
                width: frame.width(),
                height: frame.height(),
                sample_aspect: None,
                color: frame.color(),
                hdr: HdrMetadata::default(),
                time_base: main_stream(&indexed).time_base,
                frame_rate: Rational::new(25, 1).unwrap(),
                threads: 1,
                options: Default::default(),
            })
            .unwrap()
        });
        prints.push(fingerprint(&frame));
        packets.extend(encoder.send(&frame).unwrap());
    }
    let mut encoder = encoder.unwrap();
    packets.extend(encoder.finish().unwrap());
    assert!(packets.iter().all(|p| p.key && p.duration > 0));
    let track = Track {
        parameters: encoder.parameters(),
        time_base: main_stream(&indexed).time_base,
        packets,
    };
    let path: PathBuf = clips.path("a.mkv");
    mux(&path, Container::Mkv, &[track], |_, _| {});
    agree(&path);
    let all = read(&path, main_stream(&index(&path, IndexMode::Auto)), 0, 0, usize::MAX);
    assert_eq!(all.iter().map(|f| f.2).collect::<Vec<_>>(), prints);
    assert_eq!(judge::frame_hashes(&path), judge::frame_hashes(&source));

    let refused = Ffv1Encoder::open(&Ffv1Settings {
        options: [("slices".to_owned(), "many".to_owned())].into(),
        ..settings_like()
    });
    assert_eq!(refused.err().unwrap().code(), "bad_parameter");
    let unknown = Ffv1Encoder::open(&Ffv1Settings {
        options: [("sharpness".to_owned(), "1".to_owned())].into(),
        ..settings_like()
    });
    assert!(unknown.err().unwrap().to_string().contains("sharpness"));
}

fn settings_like() -> Ffv1Settings {
    Ffv1Settings {
        format: trix_model::PixelFormat::YUV420P8,
        width: 64,
        height: 64,
        sample_aspect: None,
        color: ColorDescription::default(),
        hdr: HdrMetadata::default(),
        time_base: Rational::new(1, 25).unwrap(),
        frame_rate: Rational::new(25, 1).unwrap(),
        threads: 1,
        options: Default::default(),
    }
}

#[test]
fn stills_are_files_that_others_open_with_the_right_colour() {
    let clips = Clips::new();
    let source = clips.make(
        "in.mp4",
        "-f lavfi -i color=0xC04020:size=64x64:rate=25:duration=0.2 -vf scale=out_color_matrix=bt709:out_range=tv,format=yuv420p -c:v libx264 -qp 1 -colorspace bt709 -color_range tv",
    );
    let indexed = index(&source, IndexMode::Auto);
    let mut reader =
        FrameReader::open(Input::open(open(&source)).unwrap(), main_stream(&indexed), 0, 1)
            .unwrap();
    let (_, frame) = reader.next().unwrap().unwrap();
    for (name, bytes) in
        [("a.jpg", encode_jpeg(&frame, 2).unwrap()), ("a.png", encode_png(&frame).unwrap())]
    {
        let path = clips.write(name, &bytes);
        let raw =
            clips.make("out.rgb", &format!("-i {} -f rawvideo -pix_fmt rgb24", path.display()));
        let rgb = std::fs::read(raw).unwrap();
        assert_eq!(rgb.len(), 64 * 64 * 3);
        let at = (32 * 64 + 32) * 3;
        for (got, wanted) in rgb[at..at + 3].iter().zip([0xC0u8, 0x40, 0x20]) {
            assert!(got.abs_diff(wanted) <= 4, "{name}: {:?}", &rgb[at..at + 3]);
        }
    }
    assert_eq!(encode_jpeg(&frame, 1).err().unwrap().code(), "bad_parameter");
}
