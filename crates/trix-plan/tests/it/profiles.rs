//! Profiles: the shipped ones are whole, mistakes are named with key, value, range and line.

use trix_model::Failure;
use trix_plan::encoder::{AudioCodec, RateControl, Vbv, VideoVariant};
use trix_plan::profile::{ChromaChoice, Role, VideoTrack};
use trix_plan::task::Container;
use trix_plan::{Profile, ProfileError, SingleFile};

use crate::fixture::shipped;

fn wrong(text: &str) -> ProfileError {
    Profile::parse(text).unwrap_err()
}

/// A small profile that is right, with some lines added to its rendition.
fn with(lines: &str) -> String {
    format!(
        "v = 1\nname = \"t\"\n[publish]\nshare = \"output\"\n[[rendition]]\nname = \"r\"\n{lines}\n"
    )
}

#[test]
fn every_shipped_profile_is_read_and_bears_its_file_s_name() {
    for (name, text) in Profile::shipped() {
        let profile = Profile::parse(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(profile.name, *name);
        assert!(!profile.description.is_empty());
        let json = serde_json::to_string(&profile).unwrap();
        let again: Profile = serde_json::from_str(&json).unwrap();
        assert_eq!(again, profile);
        assert_eq!(again.version(), profile.version());
    }
    let on_disk = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap();
    assert_eq!(on_disk.count(), Profile::shipped().len(), "a profile is not embedded");
}

#[test]
fn the_shipped_ladder_means_what_it_says() {
    let profile = shipped("archive-and-ladder");
    let names: Vec<&str> = profile.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["1080p", "720p", "540p", "360p", "234p", "proxy"]);
    assert!(profile.archive.as_ref().is_some_and(|a| a.keep_source));
    let VideoTrack::Encode(top) = &profile.files[0].video else { panic!("no encoder") };
    assert_eq!(top.settings.variant, VideoVariant::X264_8);
    assert_eq!(top.settings.preset, "medium");
    let vbv = Some(Vbv { max_kbps: 8000, buffer_kbit: 16000 });
    assert_eq!(top.settings.rate, RateControl::Crf { crf: "21".into(), vbv });
    assert_eq!((top.width, top.height, top.chroma), (Some(1920), Some(1080), ChromaChoice::C420));
    let proxy = profile.files.last().unwrap();
    assert_eq!((proxy.role, proxy.container), (Role::Preview, Container::Mp4));
    let shares: Vec<_> = profile.shares().iter().map(|s| s.as_str()).collect();
    assert_eq!(shares, ["archive", "output", "preview"]);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = include_str!("../data/invalid.toml");
    let numbered: Vec<u32> = (1u32..)
        .zip(text.lines())
        .filter(|(_, line)| line.contains("   # ") && !line.starts_with('#'))
        .map(|(n, _)| n)
        .collect();
    let error = wrong(text);
    let found: Vec<u32> = error.problems.iter().map(|p| p.line.unwrap()).collect();
    assert_eq!(found, numbered, "{error}");
    let problem = |key: &str| {
        let found = error.problems.iter().find(|p| p.key == key);
        let found = found.unwrap_or_else(|| panic!("no problem for {key}: {error}"));
        (found.value.as_str(), found.allowed.as_str())
    };
    assert_eq!(problem("rendition[0].crf"), ("99", "allowed is a decimal from 0 to 51"));
    assert_eq!(
        problem("rendition[0].params.aq-mode"),
        ("17", "allowed is a whole number from 0 to 3")
    );
    assert_eq!(problem("rendition[0].width"), ("\"wide\"", "it takes a whole number"));
    assert_eq!(problem("package.container"), ("avi", "allowed are mp4, mov and mkv"));
    let (value, allowed) = problem("video.presett");
    assert_eq!(value, "\"medium\"");
    assert!(allowed.contains("preset, tune, crf"), "{allowed}");
    assert!(problem("rendition[0].params.no-such-thing").1.contains("aq-mode"));
    let failure = Failure::from(error);
    assert_eq!((failure.code.as_str(), failure.object.as_str()), ("bad_profile", "Bad Name"));
}

#[test]
fn what_is_no_toml_is_refused_with_the_line() {
    let error = wrong("v = 1\nname = \n");
    assert_eq!(error.problems[0].line, Some(2), "{error}");
    assert!(error.problems.iter().all(|p| p.key == "TOML"));
}

#[test]
fn what_is_missing_is_named() {
    let keys = |text: &str| wrong(text).problems.iter().map(|p| p.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(""), ["v", "name", "rendition"]);
    assert_eq!(keys("v = 2\nname = \"a\"\n[archive]\nshare = \"a\""), ["v"]);
    assert_eq!(keys("v = 1\nname = \"a\"\n[archive]\n"), ["archive.share", "rendition"]);
    let lonely = "v = 1\nname = \"a\"\n[[rendition]]\nname = \"b\"\n";
    assert_eq!(keys(lonely), ["publish.share"]);
    let nothing_kept = "v = 1\nname = \"a\"\n[archive]\nshare = \"a\"\nkeep = false\n";
    assert_eq!(keys(nothing_kept), ["archive.keep"]);
    assert_eq!(keys("v = 1\nname = \"a\"\n[mezzanine]\n"), ["mezzanine"]);
}

#[test]
fn rate_control_is_one_of_its_kinds_and_caps_go_with_it() {
    let rate = |lines: &str| {
        let profile = Profile::parse(&with(lines)).unwrap_or_else(|e| panic!("{e}"));
        match &profile.files[0].video {
            VideoTrack::Encode(encode) => encode.settings.rate.clone(),
            other => panic!("{other:?}"),
        }
    };
    let crf = |crf: &str, vbv| RateControl::Crf { crf: crf.into(), vbv };
    assert_eq!(rate(""), crf("23", None));
    // Three spellings of one number give one key.
    for text in ["crf = 23.50", "crf = 23.5", "crf = \"23.5\""] {
        assert_eq!(rate(text), crf("23.5", None));
    }
    let vbv = Some(Vbv { max_kbps: 3000, buffer_kbit: 6000 });
    assert_eq!(rate("crf = 20\nmaxrate_kbps = 3000"), crf("20", vbv));
    assert_eq!(rate("bitrate_kbps = 2500"), RateControl::Bitrate { kbps: 2500, vbv: None });
    assert_eq!(rate("qp = 0"), RateControl::Qp { qp: 0 });
    assert_eq!(rate("lossless = true"), RateControl::Lossless);
    assert_eq!(rate("encoder = \"rav1e-10\""), RateControl::Qp { qp: 100 });
    for bad in [
        "crf = 20\nqp = 20",
        "qp = 20\nmaxrate_kbps = 1000",
        "bufsize_kbit = 1000",
        "encoder = \"rav1e-8\"\ncrf = 30",
        "encoder = \"rav1e-8\"\nbitrate_kbps = 1000\nmaxrate_kbps = 2000",
        "encoder = \"ffv1\"\ncrf = 20",
        "crf = nan",
        "crf = 1e1",
        "qp = -1",
        "bitrate_kbps = 99999999999999",
    ] {
        wrong(&with(bad));
    }
}

#[test]
fn settings_fall_back_to_the_video_section_of_the_same_encoder_only() {
    let text = format!(
        "{}\n[[rendition]]\nname = \"h\"\nencoder = \"x265-8\"\n[video]\nencoder = \"x264-8\"\n\
         preset = \"slow\"\nthreads = 2\n[video.params]\nAQ_mode = 2\n",
        with("crf = 20\n[rendition.params]\nno-mbtree = true")
    );
    let text = text.replace("AQ_mode", "aq_mode");
    let profile = Profile::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let settings = |n: usize| match &profile.files[n].video {
        VideoTrack::Encode(encode) => encode.settings.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((settings(0).preset.as_str(), settings(0).threads), ("slow", 2));
    // Names and values are canonical, so that two spellings are one key.
    let params: Vec<_> = settings(0).params.into_iter().collect();
    assert_eq!(params, [("aq-mode".into(), "2".into()), ("mbtree".into(), "0".into())]);
    assert_eq!((settings(1).preset.as_str(), settings(1).threads), ("medium", 2));
    assert!(settings(1).params.is_empty());
    assert_eq!(settings(1).rate, RateControl::Crf { crf: "28".into(), vbv: None });
}

#[test]
fn settings_that_do_not_go_together_are_refused_under_a_key_of_the_profile() {
    let matrix = format!("cqm4 = \"{}\"", ["1"; 16].join(","));
    for (lines, params, key) in [
        ("lossless = true", "profile = \"high\"", "params.profile"),
        ("chroma = \"4:4:4\"", "profile = \"high422\"", "params.profile"),
        ("qp = 7", matrix.as_str(), "qp"),
        ("encoder = \"x265-8\"\nqp = 20", "level-idc = \"5\"", "params.level-idc"),
        ("encoder = \"x265-8\"", "ref = \"8\"", "params.ref"),
        ("encoder = \"x265-8\"", "rc-lookahead = \"4\"", "params.rc-lookahead"),
        ("encoder = \"x265-8\"", "hist-scenecut = \"1\"", "params.hist-scenecut"),
    ] {
        let error = wrong(&with(&format!("{lines}\n[rendition.params]\n{params}")));
        let keys: Vec<_> = error.problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, [format!("rendition[0].{key}")], "{error}");
    }
    let fits = "chroma = \"4:2:2\"\n[rendition.params]\nprofile = \"high422\"";
    Profile::parse(&with(fits)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn containers_and_codecs_that_do_not_fit_are_refused() {
    let package = |container: &str, rendition: &str, audio: &str| {
        let audio = format!("[[audio]]\ncodec = \"{audio}\"\n");
        format!("{}{audio}[package]\ncontainer = \"{container}\"\n", with(rendition))
    };
    for (container, rendition, audio) in [
        ("mp4", "encoder = \"ffv1\"", "aac"),
        ("mov", "encoder = \"rav1e-8\"", "aac"),
        ("mp4", "", "pcm"),
        ("mov", "", "flac"),
    ] {
        wrong(&package(container, rendition, audio));
    }
    for (container, rendition, audio) in [
        ("mkv", "encoder = \"ffv1\"", "flac"),
        ("mov", "", "pcm"),
        ("mp4", "", "flac"),
        ("mp4", "encoder = \"rav1e-8\"", "copy"),
    ] {
        let text = package(container, rendition, audio);
        Profile::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn copied_and_absent_pictures_have_nothing_to_set() {
    let error = wrong(&with("encoder = \"copy\"\ncrf = 20\nwidth = 100"));
    let keys: Vec<_> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["rendition[0].crf", "rendition[0].width"]);
    Profile::parse(&with("encoder = \"copy\"")).unwrap();
}

#[test]
fn sound_is_checked_like_pictures() {
    for bad in [
        "codec = \"flac\"\nbit_rate = 100000",
        "codec = \"aac\"\nbit_rate = 1",
        "codec = \"aac\"\nchannels = 9",
        "codec = \"aac\"\nsample_rate = 192000",
        "codec = \"copy\"\nchannels = 2",
        "codec = \"aac\"\nlanguages = [\"English\"]",
        "codec = \"aac\"\nlanguages = []",
        "codec = \"aac\"\nname = \"proxy\"",
        "codec = \"aac\"\n[[audio]]\ncodec = \"aac\"",
        "bit_rate = 128000",
    ] {
        wrong(&format!("{}[[audio]]\n{bad}\n", with("")));
    }
}

#[test]
fn the_version_follows_what_a_profile_means_and_nothing_else() {
    let text = with("crf = 23");
    let version = |text: &str| Profile::parse(text).unwrap().version();
    let commented = format!("# a comment\n{text}");
    assert_eq!(version(&text), version(&commented));
    assert_eq!(version(&text), version(&with("crf = 23.0\npreset = \"medium\"")));
    assert_ne!(version(&text), version(&with("crf = 24")));
}

#[test]
fn one_file_from_the_command_line_is_a_profile_too() {
    let file = SingleFile {
        video: "x264-8".into(),
        preset: Some("fast".into()),
        crf: Some("20.50".into()),
        params: Some("aq-mode=2:bframes=3".into()),
        size: Some("1280x720".into()),
        audio: "flac".into(),
        container: Container::of_file("a/b.MKV"),
        ..SingleFile::default()
    };
    let profile = Profile::single(&file).unwrap();
    let [spec] = &profile.files[..] else { panic!("not one file") };
    assert_eq!(spec.container, Container::Mkv);
    assert_eq!(spec.audio[0].settings.codec, AudioCodec::Flac);
    let VideoTrack::Encode(encode) = &spec.video else { panic!("no encoder") };
    assert_eq!((encode.width, encode.height), (Some(1280), Some(720)));
    assert_eq!(encode.settings.rate, RateControl::Crf { crf: "20.5".into(), vbv: None });
    assert_eq!(encode.settings.params["bframes"], "3");

    let copy = SingleFile { video: "copy".into(), audio: "none".into(), ..SingleFile::default() };
    assert_eq!(Profile::single(&copy).unwrap().files[0].video, VideoTrack::Copy);

    let bad = SingleFile {
        video: "x264-8".into(),
        crf: Some("99".into()),
        size: Some("big".into()),
        params: Some("nope=1".into()),
        audio: "mp3".into(),
        ..SingleFile::default()
    };
    let error = Profile::single(&bad).unwrap_err();
    let keys: Vec<_> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["--size", "--params.nope", "--crf", "--audio"], "{error}");
    let neither =
        SingleFile { video: "none".into(), audio: "none".into(), ..SingleFile::default() };
    Profile::single(&neither).unwrap_err();
    let unknown =
        SingleFile { video: "h264".into(), audio: "none".into(), ..SingleFile::default() };
    let error = Profile::single(&unknown).unwrap_err();
    assert_eq!(error.problems[0].key, "--video");
    assert!(error.problems[0].allowed.contains("x264-8, x264-10"));
}
