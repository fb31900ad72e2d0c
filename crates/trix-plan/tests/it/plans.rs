//! Whole plans: what a source and a profile come to.

use proptest::prelude::*;
use trix_model::media::StreamKind;
use trix_model::{Failure, Rational};
use trix_plan::encoder::AudioCodec;
use trix_plan::task::{Container, Plan, PublishFrom, Task, TaskSpec, VideoRendition};
use trix_plan::{Delivery, PlanError, Profile, SingleFile, estimate, explain};

use crate::fixture::{Source, film, ratio, shipped};

fn task<'p>(plan: &'p Plan, name: &str) -> &'p Task {
    let names: Vec<_> = plan.tasks.iter().map(|t| &t.name).collect();
    plan.tasks.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

fn renditions(plan: &Plan) -> Vec<VideoRendition> {
    match &task(plan, "encode/0000").spec {
        TaskSpec::EncodeChunk(chunk) => chunk.renditions.clone(),
        other => panic!("{other:?}"),
    }
}

fn sizes(plan: &Plan) -> Vec<(String, u32, u32)> {
    renditions(plan).into_iter().map(|r| (r.name, r.picture.width, r.picture.height)).collect()
}

fn planned(source: &Source, profile: &Profile) -> Plan {
    source.plan(profile, Delivery::Shares).unwrap().1
}

fn single(file: SingleFile) -> Profile {
    Profile::single(&file).unwrap_or_else(|e| panic!("{e}"))
}

/// The size and sample aspect of a source in one encode of a box.
fn one(source: &Source, size: Option<&str>, chroma: &str) -> (u32, u32, Option<Rational>) {
    let file = SingleFile {
        video: "x264-8".into(),
        size: size.map(str::to_owned),
        chroma: Some(chroma.into()),
        audio: "none".into(),
        ..SingleFile::default()
    };
    let (_, plan) = source.plan(&single(file), Delivery::Folder).unwrap();
    let r = renditions(&plan).remove(0);
    (r.picture.width, r.picture.height, r.sample_aspect)
}

#[test]
fn the_full_ingest_is_as_it_was() {
    let source = film(1280, 720, 480, &[Some("eng"), None]);
    let profile = shipped("archive-and-ladder");
    let (first, second) = source.plan(&profile, Delivery::Shares).unwrap();
    let json = serde_json::to_string_pretty(&[&first, &second]).unwrap();
    insta::assert_snapshot!(json);
    let again: Vec<Plan> = serde_json::from_str(&json).unwrap();
    assert_eq!(again, [first, second]);
}

#[test]
fn the_full_ingest_is_explained_in_words() {
    let source = film(1280, 720, 2880, &[Some("eng"), Some("rus")]);
    let profile = shipped("archive-and-ladder");
    let plan = planned(&source, &profile);
    insta::assert_snapshot!(explain(&profile, &source.intake(), &plan).unwrap());
}

#[test]
fn rungs_larger_than_the_source_are_left_out_but_one_always_stays() {
    let profile = shipped("ladder-veryfast");
    let names = |w, h| {
        let plan = planned(&film(w, h, 240, &[]), &profile);
        sizes(&plan).into_iter().map(|(name, w, h)| format!("{name} {w}x{h}")).collect::<Vec<_>>()
    };
    assert_eq!(
        names(3840, 2160),
        ["1080p 1920x1080", "720p 1280x720", "540p 960x540", "360p 640x360", "234p 416x234"]
    );
    assert_eq!(names(1280, 720), ["720p 1280x720", "540p 960x540", "360p 640x360", "234p 416x234"]);
    assert_eq!(names(1000, 562)[0], "720p 1000x562");
    assert_eq!(names(320, 180), ["234p 320x180"]);
    // Wide film fills the width, tall film the height.
    assert_eq!(names(1920, 800)[1], "720p 1280x534");
    assert_eq!(names(1080, 1920)[0], "1080p 608x1080");
}

#[test]
fn sizes_keep_the_display_aspect_and_never_grow() {
    let square = film(1920, 1080, 48, &[]);
    assert_eq!(one(&square, None, "4:2:0"), (1920, 1080, Some(Rational::ONE)));
    assert_eq!(one(&square, Some("640x360"), "4:2:0"), (640, 360, Some(Rational::ONE)));
    assert_eq!(one(&square, Some("641x361"), "4:2:0").0, 640);
    assert_eq!(one(&square, Some("4000x4000"), "4:2:0").0, 1920);

    // PAL in 16:9: pixels stay 64:45, so 640x360 on screen is 450x360 stored.
    let mut pal = film(720, 576, 48, &[]);
    pal.video().sample_aspect = Some(ratio(64, 45));
    assert_eq!(one(&pal, None, "4:2:0"), (720, 576, Some(ratio(64, 45))));
    assert_eq!(one(&pal, Some("640x360"), "4:2:0"), (450, 360, Some(ratio(64, 45))));

    // A sample aspect that is not stated is not made up.
    pal.video().sample_aspect = None;
    assert_eq!(one(&pal, None, "4:2:0"), (720, 576, None));

    // Turned by a quarter: sides change places, and pixels lie down.
    let mut phone = film(1920, 1080, 48, &[]);
    phone.video().rotation = 90;
    phone.video().sample_aspect = Some(ratio(4, 3));
    assert_eq!(one(&phone, None, "4:2:0"), (1080, 1920, Some(ratio(3, 4))));

    // Odd sides: as many as the chroma sampling needs become even.
    let odd = film(721, 405, 48, &[]);
    assert_eq!(one(&odd, None, "4:2:0").0, 720);
    assert_eq!(one(&odd, None, "4:2:0").1, 404);
    assert_eq!(one(&odd, None, "4:2:2"), (720, 405, Some(Rational::ONE)));
    assert_eq!(one(&odd, None, "4:4:4"), (721, 405, Some(Rational::ONE)));
}

#[test]
fn square_pixels_are_made_when_they_are_asked_for() {
    let text = "v = 1\nname = \"s\"\n[publish]\nshare = \"output\"\n[[rendition]]\nname = \"s\"\n\
                pixels = \"square\"\n";
    let mut pal = film(720, 576, 48, &[]);
    pal.video().sample_aspect = Some(ratio(64, 45));
    let plan = planned(&pal, &Profile::parse(text).unwrap());
    assert_eq!(sizes(&plan), [("s".to_owned(), 1024, 576)]);
    assert_eq!(renditions(&plan)[0].sample_aspect, Some(Rational::ONE));
}

#[test]
fn formats_follow_the_encoder_and_ffv1_follows_the_source() {
    let format = |pixel: &str, depth: u8, video: &str, container: Container| {
        let mut source = film(720, 405, 48, &[]);
        source.video().pixel_format = pixel.into();
        source.video().depth = depth;
        let file = SingleFile {
            video: video.into(),
            container: Some(container),
            audio: "none".into(),
            ..SingleFile::default()
        };
        let (_, plan) = source.plan(&single(file), Delivery::Folder)?;
        let r = renditions(&plan).remove(0);
        Ok::<_, PlanError>((
            format!("{:?}", r.picture.format.chroma),
            r.picture.format.depth,
            r.picture.height,
        ))
    };
    let (mp4, mkv) = (Container::Mp4, Container::Mkv);
    let is = |chroma: &str, depth, height| (chroma.to_owned(), depth, height);
    assert_eq!(format("yuv422p10le", 10, "x264-8", mp4).unwrap(), is("C420", 8, 404));
    assert_eq!(format("yuv422p10le", 10, "x265-12", mp4).unwrap(), is("C420", 12, 404));
    assert_eq!(format("yuv422p10le", 10, "ffv1", mkv).unwrap(), is("C422", 10, 405));
    assert_eq!(format("gray", 8, "ffv1", mkv).unwrap(), is("Mono", 8, 405));
    assert_eq!(format("gray", 8, "x264-8", mp4).unwrap(), is("C420", 8, 404));
    assert_eq!(format("yuv444p12le", 12, "ffv1", mkv).unwrap(), is("C444", 12, 405));
    assert_eq!(format("gbrp", 8, "ffv1", mkv).unwrap(), is("C444", 8, 405));
    assert_eq!(format("p010le", 10, "ffv1", mkv).unwrap(), is("C420", 10, 405));
    let error = format("yuv444p16le", 16, "ffv1", mkv).unwrap_err();
    assert_eq!(Failure::from(error).code, "unsupported_depth");
}

#[test]
fn what_cannot_be_planned_is_refused_by_name() {
    let ladder = shipped("ladder-veryfast");
    let code = |source: &Source, profile: &Profile| {
        Failure::from(source.plan(profile, Delivery::Shares).unwrap_err()).code
    };
    let mut sound_only = film(2, 2, 48, &[Some("eng")]);
    sound_only.media.streams.remove(0);
    sound_only.index.streams.remove(0);
    assert_eq!(code(&sound_only, &ladder), "no_video");

    let mut empty = film(320, 180, 48, &[]);
    *empty.frames() = trix_model::index::FrameTable {
        source: trix_model::index::FrameSource::Packets,
        pts: Vec::new(),
        end: 0,
        access: Vec::new(),
    };
    empty.index.streams[0].packets.clear();
    assert_eq!(code(&empty, &ladder), "no_frames");

    let text = Profile::shipped_text("ladder-veryfast").unwrap();
    let french = text.replace("languages = \"all\"", "languages = [\"fra\"]");
    let french = Profile::parse(&french).unwrap();
    let source = film(320, 180, 48, &[Some("eng"), None]);
    let error = source.plan(&french, Delivery::Shares).unwrap_err();
    assert!(error.to_string().contains("no sound track is in fra; the source has eng, und"));
    assert_eq!(Failure::from(error).code, "no_language");
    // A silent source has no language to miss.
    planned(&film(320, 180, 48, &[]), &french);

    assert_eq!(code(&film(320, 20_000, 48, &[]), &shipped("h264-single")), "unsupported_size");

    let copy =
        single(SingleFile { video: "copy".into(), audio: "copy".into(), ..SingleFile::default() });
    let error = source.plan(&copy, Delivery::Folder).unwrap_err();
    assert!(error.to_string().contains("mp4 holds no pcm_s24le"), "{error}");
    assert_eq!(Failure::from(error).code, "codec_not_in_container");

    let one =
        single(SingleFile { video: "x264-8".into(), audio: "aac".into(), ..SingleFile::default() });
    assert_eq!(code(&source, &one), "no_share");
    let none =
        single(SingleFile { video: "none".into(), audio: "aac".into(), ..SingleFile::default() });
    assert_eq!(code(&film(320, 180, 48, &[]), &none), "empty_file");
}

#[test]
fn a_copied_picture_is_demuxed_once_and_keeps_its_rotation() {
    let mut source = film(1920, 1080, 480, &[Some("eng")]);
    source.video().rotation = 90;
    let copy = single(SingleFile {
        video: "copy".into(),
        audio: "copy".into(),
        container: Some(Container::Mkv),
        ..SingleFile::default()
    });
    let (_, plan) = source.plan(&copy, Delivery::Folder).unwrap();
    let names: Vec<_> = plan.tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["copy-video", "audio/1", "mux/output", "verify/output"]);
    let TaskSpec::Mux(mux) = &task(&plan, "mux/output").spec else { panic!("no mux") };
    assert_eq!(mux.video.as_ref().unwrap().rotation, 90);
    let TaskSpec::Verify(verify) = &task(&plan, "verify/output").spec else { panic!("no verify") };
    let video = verify.expect.video.as_ref().unwrap();
    assert_eq!((video.codec.as_str(), video.frames, video.width), ("h264", 480, 1920));
}

#[test]
fn sound_alone_can_be_taken_out_of_a_film_or_a_song() {
    let file = SingleFile {
        video: "none".into(),
        audio: "flac".into(),
        container: Some(Container::Mkv),
        ..SingleFile::default()
    };
    let profile = single(file);
    let mut source = film(1920, 1080, 480, &[Some("eng")]);
    let (_, plan) = source.plan(&profile, Delivery::Folder).unwrap();
    let names: Vec<_> = plan.tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["audio/1", "mux/output", "verify/output"]);
    source.media.streams.remove(0);
    source.index.streams.remove(0);
    source.media.streams[0].start = Some(480);
    let (_, plan) = source.plan(&profile, Delivery::Folder).unwrap();
    let TaskSpec::EncodeAudio(audio) = &task(&plan, "audio/1").spec else { panic!("no audio") };
    assert_eq!((audio.zero_pts, audio.time_base), (480, ratio(1, 48000)));
}

#[test]
fn sound_is_mixed_down_never_up_and_one_track_is_the_default() {
    let text = "v = 1\nname = \"a\"\n[publish]\nshare = \"output\"\n[[rendition]]\nname = \"r\"\n\
                [[audio]]\ncodec = \"aac\"\n[[audio]]\nname = \"stereo\"\ncodec = \"aac\"\nchannels = 2\n";
    let profile = Profile::parse(text).unwrap();
    let mut source = film(320, 180, 48, &[Some("eng"), Some("rus")]);
    // The second track is stereo already, and the source marks it as default.
    if let StreamKind::Audio(audio) = &mut source.media.streams[2].kind {
        audio.channels = 2;
    }
    source.media.streams[1].default = false;
    source.media.streams[2].default = true;
    let plan = planned(&source, &profile);
    let sounds: Vec<_> = plan
        .tasks
        .iter()
        .filter_map(|t| match &t.spec {
            TaskSpec::EncodeAudio(a) => {
                Some((t.name.as_str(), a.settings.channels, a.settings.bit_rate))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        sounds,
        [
            ("audio/1-aac", None, Some(384_000)),
            ("audio/1-stereo", Some(2), Some(160_000)),
            ("audio/2-aac", None, Some(160_000)),
        ]
    );
    let TaskSpec::Mux(mux) = &task(&plan, "mux/r").spec else { panic!("no mux") };
    let tracks: Vec<_> =
        mux.audio.iter().map(|a| (a.language.as_deref().unwrap(), a.default)).collect();
    assert_eq!(tracks, [("eng", false), ("eng", false), ("rus", true)]);
    // A source that marks none gets its first.
    source.media.streams[2].default = false;
    let plan = planned(&source, &profile);
    let TaskSpec::Mux(mux) = &task(&plan, "mux/r").spec else { panic!("no mux") };
    let defaults: Vec<_> = mux.audio.iter().map(|a| a.default).collect();
    assert_eq!(defaults, [true, false, false]);
}

#[test]
fn a_sound_track_without_packets_is_left_out_and_said() {
    let mut source = film(320, 180, 48, &[Some("eng"), Some("rus")]);
    source.index.streams[1].packets.clear();
    let profile = shipped("h264-single");
    let plan = planned(&source, &profile);
    let TaskSpec::Mux(mux) = &task(&plan, "mux/h264").spec else { panic!("no mux") };
    let tracks: Vec<_> = mux.audio.iter().map(|a| (a.language.as_deref(), a.default)).collect();
    assert_eq!(tracks, [(Some("rus"), true)]);
    let words = explain(&profile, &source.intake(), &plan).unwrap();
    assert!(words.contains("left out  sound track 1: it has no packets"), "{words}");
}

#[test]
fn the_archive_takes_the_tee_or_a_copy_and_the_mezzanine() {
    let profile = shipped("mezzanine-ffv1");
    let mut source = film(1920, 1080, 480, &[Some("eng")]);
    let plan = planned(&source, &profile);
    let publish = |plan: &Plan| match &task(plan, "publish/archive").spec {
        TaskSpec::Publish(publish) => publish.clone(),
        other => panic!("{other:?}"),
    };
    let files: Vec<_> = publish(&plan).files.iter().map(|f| f.name.to_string()).collect();
    assert_eq!(files, ["source/feature.mov", "mezzanine.mkv"]);
    assert!(
        matches!(&publish(&plan).files[0].from, PublishFrom::Staged { task, .. } if task == "intake")
    );
    assert_eq!(publish(&plan).target.as_str(), "The Night");
    let mezzanine = renditions(&plan).remove(0);
    assert_eq!((mezzanine.settings.keyint, mezzanine.run_over), (1, 0));
    let TaskSpec::EncodeAudio(audio) = &task(&plan, "audio/1").spec else { panic!("no audio") };
    assert_eq!(audio.settings.codec, AudioCodec::Flac);

    source.staged = false;
    let plan = planned(&source, &profile);
    assert!(
        matches!(&publish(&plan).files[0].from, PublishFrom::Staged { task, .. } if task == "archive/copy")
    );
    assert!(matches!(task(&plan, "archive/copy").spec, TaskSpec::Copy(_)));
}

#[test]
fn a_title_cannot_leave_its_folder() {
    for (title, folder) in [
        ("../../etc", "_.._etc"),
        ("a/b\\c\0d", "a_b_c_d"),
        ("...", "untitled"),
        ("  ", "untitled"),
        (".hidden", "hidden"),
        // Shares of Windows take no such quotes.
        ("Имя 🎬 'и' \"кавычки\"", "Имя 🎬 'и' _кавычки_"),
    ] {
        let mut source = film(320, 180, 48, &[]);
        source.title = title.into();
        let plan = planned(&source, &shipped("h264-single"));
        let TaskSpec::Publish(publish) = &task(&plan, "publish/output").spec else { panic!() };
        assert_eq!(publish.target.as_str(), folder);
    }
    let mut source = film(320, 180, 48, &[]);
    source.title = "ж".repeat(300);
    let plan = planned(&source, &shipped("h264-single"));
    let TaskSpec::Publish(publish) = &task(&plan, "publish/output").spec else { panic!() };
    assert_eq!(publish.target.as_str(), "ж".repeat(90));
}

#[test]
fn a_run_into_a_folder_publishes_nothing_and_lists_its_files() {
    let source = film(1920, 1080, 480, &[Some("eng")]);
    let (first, plan) = source.plan(&shipped("archive-and-ladder"), Delivery::Folder).unwrap();
    assert!(first.tasks.iter().chain(&plan.tasks).all(|t| t.spec.written_shares().is_empty()));
    let names: Vec<_> = plan.results.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(
        names,
        [
            "1080p.mp4",
            "720p.mp4",
            "540p.mp4",
            "360p.mp4",
            "234p.mp4",
            "preview/proxy.mp4",
            "preview/poster.jpg",
            "preview/sprite.jpg",
            "preview/sprite.vtt"
        ]
    );
    for result in &plan.results {
        let after = task(&plan, &result.after);
        let made =
            plan.tasks.iter().find(|t| t.outputs.iter().any(|o| o.key == result.key)).unwrap();
        assert!(made.name == after.name || after.needs.contains(&made.name));
    }
}

#[test]
fn equal_pictures_are_encoded_once_and_equal_files_made_once() {
    let text = "v = 1\nname = \"t\"\n[publish]\nshare = \"output\"\n[[rendition]]\nname = \"a\"\n\
                [[rendition]]\nname = \"b\"\n";
    let plan = planned(&film(320, 180, 480, &[]), &Profile::parse(text).unwrap());
    assert_eq!(renditions(&plan).len(), 1);
    assert_eq!(plan.tasks.iter().filter(|t| t.name.starts_with("mux/")).count(), 1);
    let TaskSpec::Publish(publish) = &task(&plan, "publish/output").spec else { panic!() };
    let names: Vec<_> = publish.files.iter().map(|f| f.name.to_string()).collect();
    assert_eq!(names, ["a.mp4", "b.mp4"]);
}

#[test]
fn thumbnails_cover_the_film_and_fit_one_picture() {
    let stills = |plan: &Plan| match &task(plan, "stills").spec {
        TaskSpec::Stills(stills) => stills.clone(),
        other => panic!("{other:?}"),
    };
    let profile = shipped("archive-and-ladder");
    let short = stills(&planned(&film(1920, 1080, 24, &[]), &profile));
    assert_eq!((short.frames, short.spans_ms), (vec![0], vec![0, 1001]));
    let minute = stills(&planned(&film(1920, 1080, 1440, &[]), &profile));
    // 60.06 s: seven thumbnails; each at an access point, which lies every two seconds.
    assert_eq!(minute.spans_ms, [0, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 60_060]);
    assert!(minute.frames.iter().all(|f| f % 48 == 0));
    assert_eq!((minute.thumb_size, minute.poster_size), ((160, 90), (1280, 720)));
    // A day at one frame a second: fewer thumbnails, one sprite.
    let mut day = film(1920, 1080, 86_400, &[]);
    day.frames().pts = (0..86_400).map(|n| n * 24_000).collect();
    day.frames().end = 86_400 * 24_000;
    let day = stills(&planned(&day, &profile));
    assert!(day.frames.len() > 1000);
    assert!(day.frames.len() as u32 / day.columns * day.thumb_size.1 <= 16_384);
    assert_eq!(day.spans_ms.len(), day.frames.len() + 1);
}

#[test]
fn costs_grow_with_the_work() {
    let cost = |w, h, frames| {
        estimate(&planned(&film(w, h, frames, &[Some("eng")]), &shipped("h264-single")))
    };
    let (small, large) = (cost(640, 360, 2880), cost(1920, 1080, 2880));
    assert!(large.core_ms > 5 * small.core_ms);
    assert!(large.largest_ram > small.largest_ram);
    assert!(large.critical_ms < large.core_ms / 3, "chunks run beside each other");
    assert_eq!(large.core_ms, large.by_kind.values().sum::<u64>());
    let plan = planned(&film(1920, 1080, 2880, &[]), &shipped("h264-single"));
    assert!(plan.tasks.iter().all(|t| t.cost.mcpu > 0 && t.cost.ram > 0 && t.cost.estimate_ms > 0));
}

fn any_ratio() -> impl Strategy<Value = Option<Rational>> {
    prop::option::of(
        (any::<i64>(), any::<i64>()).prop_filter_map("a ratio", |(n, d)| Rational::new(n, d)),
    )
}

proptest! {
    /// A slot that was taken over by its input may say anything; planning answers or refuses.
    #[test]
    fn no_description_makes_planning_panic(
        size in (any::<u32>(), any::<u32>(), any::<u64>()),
        small in any::<bool>(),
        ratios in (any_ratio(), any_ratio(), any_ratio()),
        rotation in any::<u16>(),
        depth in any::<u8>(),
        pixel_format in ".{0,12}",
        sound in (any::<u32>(), any::<u16>(), any::<Option<u64>>(), any::<Option<i64>>()),
        times in prop::collection::btree_set(any::<i64>(), 1..60),
        base in (1..=i64::MAX, 1..=i64::MAX),
        profile in prop::sample::select(vec!["archive-and-ladder", "mezzanine-ffv1", "hevc-10", "av1"]),
    ) {
        let mut source = film(320, 180, 1, &[Some("eng")]);
        source.media.size = size.2;
        let video = source.video();
        let scale = if small { 1 << 20 } else { 1 };
        (video.width, video.height) = (size.0 / scale, size.1 / scale);
        (video.sample_aspect, video.frame_rate, video.average_rate) = ratios;
        (video.rotation, video.depth, video.pixel_format) = (rotation, depth, pixel_format);
        if let StreamKind::Audio(audio) = &mut source.media.streams[1].kind {
            (audio.sample_rate, audio.channels) = (sound.0, sound.1);
        }
        (source.media.streams[1].bit_rate, source.media.duration_us) = (sound.2, sound.3);
        let times: Vec<i64> = times.into_iter().collect();
        let stream = &mut source.index.streams[0];
        stream.time_base = if small { ratio(1, 1 + base.1 % 90_000) } else { ratio(base.0, base.1) };
        let frames = stream.frames.as_mut().unwrap();
        frames.end = times.last().unwrap().saturating_add(1);
        frames.pts = times.into_iter().filter(|t| *t < frames.end).collect();
        prop_assume!(!frames.pts.is_empty());
        for delivery in [Delivery::Shares, Delivery::Folder] {
            if let Ok((_, plan)) = source.plan(&shipped(profile), delivery) {
                estimate(&plan);
                explain(&shipped(profile), &source.intake(), &plan).unwrap();
            }
        }
    }
}
