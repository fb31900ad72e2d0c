//! Bad input is refused with a reason, and nothing that was there before is touched.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use trix_testkit::clips;

use crate::support::{FAST, Place, Ran, Running, Watch, frames, media, written};

/// 4 s of picture and sound.
fn title(place: &Place, name: &str) -> PathBuf {
    clips::title(&place.path(name), "160x90", "25", 4)
}

/// The first six tenths of a file.
fn cut(place: &Place, whole: &Path, name: &str) -> PathBuf {
    let mut bytes = fs::read(whole).unwrap();
    bytes.truncate(bytes.len() * 6 / 10);
    written(place.path(name), bytes)
}

/// What tells that a file was neither changed nor replaced.
fn identity(path: &Path) -> (u64, u64, i64, i64, Vec<u8>) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), fs::read(path).unwrap())
}

/// Refused into a new name and over an earlier output, with source and output as before.
#[track_caller]
fn refused(place: &Place, source: &Path, code: &str) -> String {
    let before = source.is_file().then(|| identity(source));
    let earlier = written(place.out("earlier.mp4"), "an earlier output");
    let output = identity(&earlier);
    let message = place.refused(source, "new.mp4", FAST, code);
    place.refused(source, "earlier.mp4", &[FAST, &["--force"]].concat(), code);
    assert_eq!(identity(&earlier), output, "the earlier output was touched");
    assert_eq!(place.outputs(), ["earlier.mp4"]);
    assert_eq!(before, source.is_file().then(|| identity(source)), "the source was touched");
    message
}

#[test]
fn an_empty_file_is_refused() {
    let place = Place::new();
    refused(&place, &written(place.path("empty.mov"), ""), "empty_file");
}

#[test]
fn a_text_named_mov_is_refused() {
    let place = Place::new();
    let text = "This is no film. ".repeat(1000);
    refused(&place, &written(place.path("text.mov"), text), "not_media");
}

#[test]
fn random_bytes_are_refused() {
    let place = Place::new();
    let mut state = 1u64;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    refused(&place, &written(place.path("noise.mp4"), noise), "not_media");
}

#[test]
fn an_mp4_that_was_cut_before_its_index_is_refused() {
    let place = Place::new();
    let whole = title(&place, "whole.mp4");
    refused(&place, &cut(&place, &whole, "cut.mp4"), "not_media");
}

#[test]
fn an_mp4_that_was_cut_behind_its_index_is_refused_with_both_sizes() {
    let place = Place::new();
    let whole = title(&place, "whole.mp4");
    let fast = clips::make(
        &place.path("fast.mp4"),
        &format!("-i {} -c copy -movflags +faststart", whole.display()),
    );
    let cut = cut(&place, &fast, "cut.mp4");
    let message = refused(&place, &cut, "truncated");
    assert!(message.contains(&fs::metadata(&fast).unwrap().len().to_string()), "{message}");
    assert!(message.contains(&fs::metadata(&cut).unwrap().len().to_string()), "{message}");
}

#[test]
fn a_transport_stream_that_was_cut_inside_a_packet_is_refused() {
    let place = Place::new();
    let whole = title(&place, "whole.ts");
    let mut bytes = fs::read(&whole).unwrap();
    bytes.truncate(bytes.len() * 6 / 10 / 188 * 188 + 100);
    refused(&place, &written(place.path("cut.ts"), bytes), "truncated");
}

#[test]
fn a_matroska_file_that_was_cut_is_refused() {
    let place = Place::new();
    let whole = title(&place, "whole.mkv");
    refused(&place, &cut(&place, &whole, "cut.mkv"), "truncated");
}

#[test]
fn a_file_without_video_is_refused_by_name() {
    let place = Place::new();
    let sound = clips::make(&place.path("sound.mp4"), "-f lavfi -i sine=duration=1 -c:a aac");
    let message = refused(&place, &sound, "no_video");
    assert!(message.contains("no video stream"), "{message}");
    let text = written(place.path("s.srt"), "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n");
    refused(&place, &text, "no_video");
}

#[test]
fn a_picture_of_a_song_is_no_film() {
    let place = Place::new();
    let cover =
        clips::make(&place.path("cover.png"), "-f lavfi -i color=red:size=64x64 -frames:v 1");
    let song = clips::make(
        &place.path("song.mp4"),
        &format!(
            "-f lavfi -i sine=duration=1 -i {} -map 0 -map 1 -c:a aac -c:v png \
             -disposition:v:0 attached_pic",
            cover.display()
        ),
    );
    refused(&place, &song, "no_video");
}

#[test]
fn a_track_of_no_length_is_refused() {
    let place = Place::new();
    // A video track is announced, and not one sample of it is written.
    let source = place.path("none.mov");
    clips::make(
        &source,
        "-f lavfi -i testsrc2=size=160x90:rate=25:duration=1 -f lavfi -i sine=duration=1 \
         -map 0 -map 1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a pcm_s16le \
         -bsf:v noise=drop=1 -movflags empty_moov+frag_keyframe",
    );
    let message = refused(&place, &source, "no_samples");
    assert!(message.contains("stream 0"), "{message}");
}

#[test]
fn what_is_no_file_is_refused() {
    let place = Place::new();
    refused(&place, &place.path("missing.mov"), "not_found");
    refused(&place, &place.path("out"), "not_a_file");
    let pipe = place.path("pipe.mov");
    clips::tool("mkfifo", &[pipe.to_str().unwrap()]);
    refused(&place, &pipe, "not_a_file");
}

#[test]
fn names_with_spaces_quotes_cyrillic_and_emoji_work() {
    let place = Place::new();
    let plain = title(&place, "plain.mp4");
    for name in [
        "a film with  spaces.mp4",
        "it's \"quoted\" & $HOME `x` ;|<>.mp4",
        "Броненосец «Потёмкин».mp4",
        "🎬 film 🍿.mp4",
        "-dash first.mp4",
        "%d %s %03d.mp4",
        "file:colon,comma=[1].mp4",
        "back\\slash.mp4",
    ] {
        let source = place.path(name);
        fs::copy(&plain, &source).unwrap();
        // The whole path begins with a slash, so a dash is no option; the output has it too.
        let output = place.encode(&source, name, FAST);
        assert_eq!(frames(&output, "yuv420p").len(), 100, "{name}");
    }
    assert_eq!(place.outputs().len(), 8);
}

#[test]
fn a_name_that_is_no_utf_8_is_refused_or_works_but_never_dies() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let plain = title(&place, "plain.mp4");
    let source = place.path("x").with_file_name(OsStr::from_bytes(b"latin-\xe9.mp4"));
    fs::copy(&plain, &source).unwrap();
    place.refused(&source, "o.mp4", FAST, "bad_name");
}

#[test]
fn a_path_through_parents_and_links_is_the_same_film() {
    let place = Place::new();
    let film = title(&place, "film.mp4");
    let straight = place.encode(&film, "a.mp4", FAST);
    let around = place.path("out/../film.mp4");
    crate::support::assert_same_bytes(&straight, &place.encode(&around, "b.mp4", FAST));
    let link = place.path("film-link.mp4");
    std::os::unix::fs::symlink(&film, &link).unwrap();
    let linked = place.encode(&link, "c.mp4", FAST);
    assert_eq!(frames(&linked, "yuv420p").len(), 100);
}

#[test]
fn an_unknown_key_of_a_profile_is_named_with_its_value_and_what_is_allowed() {
    let place = Place::new();
    let source = title(&place, "s.mp4");
    let good = "v = 1\nname = \"t\"\n[publish]\nshare = \"output\"\n[[rendition]]\nname = \"h\"\nencoder = \"x264-8\"\n\
                preset = \"ultrafast\"\ncrf = 21\n";
    let run = |text: &str| {
        let profile = written(place.path("p.toml"), text);
        let mut command = media();
        command.arg("encode").arg(&source).arg("--profile").arg(&profile);
        command.arg("--out").arg(place.path("out")).args(["--progress", "json"]);
        command.arg("--cache").arg(place.path("cache"));
        Ran::of(command)
    };
    let ok = run(good);
    assert!(ok.status.success(), "{}", ok.stderr);
    let before = place.outputs();
    for (text, wanted) in [
        (good.replace("crf", "crv"), vec!["crv", "21", "line 9", "crf"]),
        (good.replace("crf = 21", "crf = 77"), vec!["crf", "77", "51"]),
        (good.replace("ultrafast", "warp"), vec!["preset", "warp", "veryslow"]),
        (good.replace("x264-8", "x266"), vec!["encoder", "x266", "x265-12"]),
        (format!("{good}params = {{ bframes = 99 }}\n"), vec!["bframes", "99", "0 to 16"]),
        (format!("{good}params = {{ bframez = 3 }}\n"), vec!["bframez", "3", "bframes"]),
        (format!("{good}\n[publsh]\nshare = \"x\"\n"), vec!["publsh", "publish"]),
        ("not toml [".to_owned(), vec!["TOML", "line 1"]),
    ] {
        let ran = run(&text);
        assert_eq!(ran.status.code(), Some(1), "{text} was taken");
        assert!(ran.stderr.contains("[bad_profile]"), "{}", ran.stderr);
        for word in wanted {
            assert!(ran.stderr.contains(word), "{word:?} is missing in {}", ran.stderr);
        }
        assert_eq!(place.outputs(), before);
    }
}

#[test]
fn bad_arguments_are_named_with_what_is_allowed() {
    let place = Place::new();
    let source = title(&place, "s.mp4");
    for (arguments, wanted) in [
        (vec!["--video", "x266"], vec!["--video", "x266", "x264-8"]),
        (vec!["--crf", "99"], vec!["--crf", "99", "51"]),
        (vec!["--params", "bframes=99:ref=0"], vec!["bframes", "99", "16", "ref", "1 to 16"]),
        (vec!["--params", "bframez=4"], vec!["bframez", "4", "bframes"]),
        (vec!["--size", "10"], vec!["--size", "10", "1280x720"]),
        (vec!["--audio", "mp3"], vec!["--audio", "mp3", "flac"]),
        (vec!["--preset", "warp"], vec!["--preset", "warp", "medium"]),
    ] {
        let message = place.refused(&source, "o.mp4", &arguments, "bad_profile");
        for word in wanted {
            assert!(message.contains(word), "{word:?} is missing in {message}");
        }
    }
    let message = place.refused(&source, "o.avi", &[], "bad_name");
    assert!(message.contains(".mkv"), "{message}");
    place.refused(&source, "no/such/o.mp4", &[], "no_folder");
    assert_eq!(place.outputs(), Vec::<String>::new());
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let place = Place::new();
    let source = title(&place, "s.mp4");
    let output = written(place.out("o.mp4"), "dear to somebody");
    let before = identity(&output);
    let message = place.refused(&source, "o.mp4", FAST, "output_exists");
    assert!(message.contains("--force"), "{message}");
    assert_eq!(identity(&output), before);
    place.encode(&source, "o.mp4", &[FAST, &["--force"]].concat());
    assert_eq!(frames(&output, "yuv420p").len(), 100);
}

#[test]
fn the_source_is_never_the_output() {
    let place = Place::new();
    let source = title(&place, "out/s.mp4");
    let before = identity(&source);
    let force = [FAST, &["--force"]].concat();
    place.refused(&source, "s.mp4", &force, "output_is_source");
    std::os::unix::fs::symlink(&source, place.out("link.mp4")).unwrap();
    place.refused(&source, "link.mp4", &force, "output_is_source");
    assert_eq!(identity(&source), before);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_refused() {
    let place = Place::new();
    let film = clips::make(
        &place.path("film.mp4"),
        "-f lavfi -i testsrc2=size=160x90:rate=25:duration=44 \
         -c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p",
    );
    let arguments = ["--video", "x264-8", "--preset", "slow", "--slots", "1"];
    let mut run = Running::start(place.command(&film, "o.mp4", &arguments));
    assert!(run.until_chunk());
    fs::OpenOptions::new().append(true).open(&film).unwrap().write_all(b"more").unwrap();
    let ran = run.wait();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("[source_changed]"), "{}", ran.stderr);
    assert_eq!(ran.last()["failure"]["class"], "deterministic");
    assert_eq!(place.outputs(), Vec::<String>::new());
}

#[test]
fn a_changed_source_is_encoded_anew() {
    let place = Place::new();
    let source = title(&place, "s.mp4");
    place.encode(&source, "a.mp4", FAST);
    let other = clips::title(&place.path("other.mp4"), "160x90", "25", 3);
    fs::rename(&other, &source).unwrap();
    let output = place.encode(&source, "b.mp4", FAST);
    assert_eq!(frames(&output, "yuv420p").len(), 75);
}

#[test]
fn a_playlist_named_mov_opens_nothing_of_what_it_names() {
    let place = Place::new();
    let victim = title(&place, "victim.ts");
    let control = Watch::on(&victim);
    drop(fs::File::open(&victim).unwrap());
    assert!(control.was_opened(), "the watch does not work");

    let full = victim.display().to_string();
    for (what, text) in [
        (
            "HLS",
            format!(
                "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{full}\n\
                 #EXT-X-ENDLIST\n"
            ),
        ),
        (
            "HLS beside it",
            "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\nvictim.ts\n#EXT-X-ENDLIST\n".into(),
        ),
        (
            "DASH",
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
                 type=\"static\" mediaPresentationDuration=\"PT4S\"><Period><AdaptationSet \
                 mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\">\
                 <BaseURL>{full}</BaseURL></Representation></AdaptationSet></Period></MPD>"
            ),
        ),
        ("SDP", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=video 5004 RTP/AVP 33\r\n".into()),
        ("ffconcat", format!("ffconcat version 1.0\nfile '{full}'\n")),
        ("SMIL", format!("<smil><body><video src=\"{full}\"/></body></smil>")),
    ] {
        let watch = Watch::on(&victim);
        let source = written(place.path("playlist.mov"), text);
        let message = refused(&place, &source, "nested_reference");
        assert!(message.contains("refers to other files"), "{what}: {message}");
        assert!(!watch.was_opened(), "{what}: the file that it names was opened");
    }
}
