//! What is no film is refused with a reason, and nothing but the given handle is opened.

use std::path::Path;

use trix_av::{AvError, FrameReader, IndexMode, Input, build_index, build_index_with, probe};

use crate::fixture::{Clips, open};
use crate::frames::{index, main_stream, table};

fn refusal(path: &Path) -> AvError {
    Input::open(open(path)).err().unwrap_or_else(|| panic!("{} was opened", path.display()))
}

#[test]
fn empty_files_and_text_are_no_media() {
    let clips = Clips::new();
    assert!(matches!(refusal(&clips.write("empty.mov", b"")), AvError::Empty));
    for (name, bytes) in [
        ("text.mov", &b"This is a letter, not a film.\nYours sincerely\n"[..]),
        ("zeros.mp4", &[0; 100_000]),
        ("one.mkv", b"\x1a"),
        ("ftyp.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
    ] {
        let error = refusal(&clips.write(name, bytes));
        assert!(matches!(error, AvError::NotMedia { .. }), "{name}: {error:?}");
        assert_eq!(error.failure().code, "not_media");
    }
}

#[test]
fn playlists_named_like_films_are_nested_references() {
    let clips = Clips::new();
    let victim = clips.video("victim.ts", "25", "1", "-c:v libx264");
    let name = victim.file_name().unwrap().to_string_lossy().into_owned();
    for (kind, text) in [
        ("hls", format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n")),
        (
            "dash",
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"><Period>\
                 <AdaptationSet><Representation><BaseURL>{name}</BaseURL></Representation>\
                 </AdaptationSet></Period></MPD>"
            ),
        ),
        (
            "sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n".into(),
        ),
        ("concat", format!("ffconcat version 1.0\nfile {name}\n")),
    ] {
        let error = refusal(&clips.write("film.mov", text.as_bytes()));
        assert!(matches!(error, AvError::NestedReference { .. }), "{kind}: {error:?}");
        assert_eq!(error.failure().code, "nested_reference", "{kind}");
    }
}

/// Rewrites the only data reference of a movie as `kind`, not in this file.
fn with_external_track(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(4).position(|w| w == b"dref").unwrap();
    // dref, version and flags, count, size, type, version and flags of the entry.
    let flags = at + 4 + 4 + 4 + 4 + 4 + 3;
    assert_eq!(bytes[flags], 1, "the reference was in this file");
    bytes[flags] = 0;
    bytes
}

#[test]
fn a_movie_whose_samples_lie_elsewhere_is_a_nested_reference() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mov"] {
        let path = clips.video(name, "25", "1", "-c:v libx264");
        assert!(Input::open(open(&path)).is_ok());
        let external = clips.write(name, &with_external_track(&std::fs::read(&path).unwrap()));
        let error = refusal(&external);
        assert!(matches!(error, AvError::NestedReference { .. }), "{name}: {error:?}");
    }
}

#[test]
fn encrypted_tracks_are_refused() {
    let clips = Clips::new();
    let path = clips.video(
        "a.mp4",
        "25",
        "1",
        "-c:v libx264 -encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb -encryption_kid a7e61c373e219033c21091fa607bf3b8",
    );
    assert!(matches!(refusal(&path), AvError::Encrypted { stream: 0 }));
}

#[test]
fn sound_alone_and_subtitles_have_no_video() {
    let clips = Clips::new();
    let sound = clips.make("a.wav", "-f lavfi -i sine=duration=1");
    let mut input = Input::open(open(&sound)).unwrap();
    assert_eq!(input.main_video(), None);
    let indexed = build_index(&mut input, &mut |_| true).unwrap();
    assert_eq!(indexed.index.streams.len(), 1);
    assert!(indexed.index.streams[0].frames.is_none());
    let text = clips.write("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n");
    assert_eq!(Input::open(open(&text)).unwrap().main_video(), None);
}

#[test]
fn a_cover_picture_is_no_film() {
    let clips = Clips::new();
    let cover = clips.make("cover.png", "-f lavfi -i testsrc2=size=64x64:duration=1 -frames:v 1");
    let path = clips.make(
        "a.m4a",
        &format!(
            "-f lavfi -i sine=duration=1 -i {} -map 0 -map 1 -c:a aac -c:v png -disposition:v attached_pic",
            cover.display()
        ),
    );
    let input = Input::open(open(&path)).unwrap();
    assert_eq!(input.main_video(), None);
    let media = probe(open(&path)).unwrap();
    assert!(media.streams.iter().any(|s| s.attached_picture));
}

#[test]
fn a_movie_cut_off_is_indexed_up_to_the_cut_and_says_so() {
    let clips = Clips::new();
    let whole = clips.video("a.mp4", "25", "4", "-c:v libx264 -g 12 -bf 2 -movflags +faststart");
    let bytes = std::fs::read(&whole).unwrap();
    let cut = clips.write("cut.mp4", &bytes[..bytes.len() * 2 / 3]);
    let indexed = index(&cut, IndexMode::Auto);
    let frames = table(&indexed).pts.len();
    assert!(frames > 20 && frames < 100, "{frames}");
    assert!(indexed.findings.iter().any(|f| f.code == "truncated"), "{:?}", indexed.findings);
    // All that the index promises comes out.
    let mut reader =
        FrameReader::open(Input::open(open(&cut)).unwrap(), main_stream(&indexed), 0, 1).unwrap();
    let mut count = 0;
    while reader.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, frames);
    // With its index behind the cut nothing is left of it.
    let plain = clips.video("b.mp4", "25", "4", "-c:v libx264 -g 12");
    let bytes = std::fs::read(&plain).unwrap();
    let error = refusal(&clips.write("cut2.mp4", &bytes[..bytes.len() * 2 / 3]));
    assert!(matches!(error, AvError::NotMedia { .. }), "{error:?}");
}

#[test]
fn a_transport_stream_cut_off_keeps_its_whole_frames() {
    let clips = Clips::new();
    let whole = clips.video("a.ts", "25", "4", "-c:v libx264 -g 12 -bf 2");
    let bytes = std::fs::read(&whole).unwrap();
    let cut = clips.write("cut.ts", &bytes[..bytes.len() / 2 + 77]);
    let indexed = index(&cut, IndexMode::Auto);
    assert!(indexed.findings.iter().any(|f| f.code == "truncated"), "{:?}", indexed.findings);
    let frames = table(&indexed).pts.len();
    assert!((30..80).contains(&frames), "{frames}");
}

#[test]
fn a_track_of_zero_length_holds_no_samples() {
    let clips = Clips::new();
    let path = clips.make("a.mp4", "-f lavfi -i testsrc2=size=64x64:duration=1 -c:v libx264 -t 0");
    match Input::open(open(&path)) {
        Err(AvError::NotMedia { .. }) => {}
        Err(other) => panic!("{other:?}"),
        Ok(mut input) => {
            let error = match build_index(&mut input, &mut |_| true) {
                Err(error) => error,
                Ok(indexed) => {
                    assert_eq!(input.main_video(), None, "{indexed:?}");
                    return;
                }
            };
            assert!(matches!(error, AvError::NoSamples { .. }), "{error:?}");
        }
    }
}

#[test]
fn another_file_under_an_index_is_noticed() {
    let clips = Clips::new();
    let path = clips.video("a.mp4", "25", "2", "-c:v libx264 -g 12");
    let other = clips.video("b.mp4", "25", "2", "-vf negate -c:v libx264 -g 12");
    let indexed = index(&path, IndexMode::Auto);
    for first in [0u32, 30] {
        let input = Input::open(open(&other)).unwrap();
        let error = FrameReader::open(input, main_stream(&indexed), first, 1)
            .and_then(|mut r| r.next().map(|_| ()))
            .unwrap_err();
        assert!(matches!(error, AvError::PacketChanged { .. }), "{first}: {error:?}");
        assert_eq!(error.failure().code, "source_changed");
    }
}

#[test]
fn damage_in_the_middle_is_found_by_a_decode_and_named_in_passing() {
    let clips = Clips::new();
    let whole = clips.video("a.mp4", "25", "4", "-c:v libx264 -g 12 -bf 0");
    let good = index(&whole, IndexMode::Auto);
    let mut bytes = std::fs::read(&whole).unwrap();
    // A packet in the middle of a group in the middle of the film becomes noise.
    let packet = main_stream(&good).packets[55];
    let at = packet.pos as usize;
    for (i, b) in bytes[at..at + packet.size as usize].iter_mut().enumerate() {
        *b = (i * 37 % 251) as u8;
    }
    let bad = clips.write("bad.mp4", &bytes);
    let auto = index(&bad, IndexMode::Auto);
    let mut reader =
        FrameReader::open(Input::open(open(&bad)).unwrap(), main_stream(&auto), 50, 1).unwrap();
    let error = loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AvError::FrameMissing { frame: 55, .. }), "{error:?}");
    let mut input = Input::open(open(&bad)).unwrap();
    let decoded = build_index_with(&mut input, IndexMode::Decode, &mut |_| true).unwrap();
    assert_eq!(table(&decoded).pts.len(), 99);
    assert!(decoded.findings.iter().any(|f| f.code == "undecodable_packets"));
}

#[test]
fn the_last_words_of_libav_are_kept_for_the_report() {
    let clips = Clips::new();
    let path = clips.video("a.mp4", "25", "1", "-c:v libx264");
    let bytes = std::fs::read(&path).unwrap();
    let _ = refusal(&clips.write("cut.mp4", &bytes[..bytes.len() / 2]));
    let lines = trix_av::log::recent();
    assert!(lines.iter().any(|l| l.contains("moov")), "{lines:?}");
    // No address, which would differ from run to run.
    assert!(lines.iter().all(|l| !l.contains("0x")), "{lines:?}");
    trix_av::log::clear();
    assert!(trix_av::log::recent().is_empty());
}

#[test]
fn indexing_stops_on_request() {
    let clips = Clips::new();
    let path = clips.video("a.avi", "25", "6", "-s 640x480 -c:v rawvideo -pix_fmt yuv420p");
    let mut input = Input::open(open(&path)).unwrap();
    let error = build_index(&mut input, &mut |_| false).unwrap_err();
    assert!(matches!(error, AvError::Cancelled), "{error:?}");
}

#[test]
fn a_whole_decode_for_an_index_tells_how_far_it_is_and_stops_on_request() {
    let clips = Clips::new();
    let path = clips.video("a.mp4", "25", "1", "-c:v libx264");
    let mut input = Input::open(open(&path)).unwrap();
    let mut told = Vec::new();
    let mut tell = |place: u64| {
        told.push(place);
        true
    };
    build_index_with(&mut input, IndexMode::Decode, &mut tell).unwrap();
    assert!(told.len() >= 25 && told.is_sorted(), "{told:?}");
    let mut input = Input::open(open(&path)).unwrap();
    let error = build_index_with(&mut input, IndexMode::Decode, &mut |_| false).unwrap_err();
    assert!(matches!(error, AvError::Cancelled), "{error:?}");
}
