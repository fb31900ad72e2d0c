//! The real clips: each is indexed to the frame, or refused with a reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trix_av::{AvError, IndexMode, Input, build_index_with, describe, probe};
use trix_model::media::StreamKind;

use crate::fixture::{open, real_clips};
use crate::frames::{main_stream, read, table};
use crate::judge;

/// Files that are refused, and why. All others with a picture must agree with ffprobe.
const REFUSED: &[(&str, &str)] = &[
    ("ax_100kB-garbage-prefix.mp3", "not_media"),
    ("ax_sample_fragmented_clearkey.mp4", "encrypted"),
    ("dv_hdr10plus_metadata.json", "not_media"),
    ("imf_Application5_ASSETMAP.xml", "nested_reference"),
    ("imf_Application5_CPL_cfad00b4-77b5-4d06-bd9d-48bc21c8fc0e.xml", "nested_reference"),
    ("imf_Application5_PKL_f45a2034-317d-40fa-b07f-b9c5f3f15cfa.xml", "nested_reference"),
    ("imf_Application5_VOLINDEX.xml", "not_media"),
    ("imf_HT_ASSETMAP.xml", "nested_reference"),
    ("imf_HT_CPL_67be5fc8-87f1-4172-8d52-819ca14c7a20.xml", "nested_reference"),
    ("imf_HT_PKL_52f61ec0-1517-49b7-a8e2-941c0200c69a.xml", "nested_reference"),
    // A single still image is no film.
    ("jc_3k-MACG_S02_Ep040_ING_5893876_00000.dpx", "not_media"),
    // Both end before the first whole picture; ffprobe counts no frame either.
    ("jc_timecode.mxf", "no_samples"),
    ("jc_timecode_withoffset.mxf", "no_frames"),
    // High-throughput JPEG 2000, of which libav decodes next to nothing.
    ("ph_VIDEO_6ed567b7-c030-46d6-9c1c-0f09bab4b962.mxf", "too_damaged"),
    ("ph_reel1.mxf", "not_media"),
    ("pm_sample.mkv", "not_media"),
];

/// Files of which ffprobe can only judge the number of frames, or nothing.
const TIMES_NOT_JUDGED: &[(&str, &str)] = &[
    ("ax_sample_vvc.mp4", "Debian 12's libav has no VVC decoder"),
    ("ax_sample_with_fake_auxiliary_tracks.mp4", "its five frames all have the time 0"),
    ("dv_regular.hevc", "a raw stream has no times"),
];

/// Long ones, of which the judge decodes a part.
const LONG: &[&str] = &["ax_long_1080p_lowbitrate.mp4"];

fn files(root: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Some frames, or the code of the refusal, or "no_video".
fn judge_one(path: &Path) -> Result<usize, String> {
    let name = name(path);
    let code = |e: AvError| e.code().to_owned();
    let mut input = Input::open(open(path)).map_err(code)?;
    let Some(main) = input.main_video() else { return Err("no_video".to_owned()) };
    let indexed = build_index_with(&mut input, IndexMode::Auto, &mut |_| true).map_err(code)?;
    let (stream, table) = (main_stream(&indexed), table(&indexed));
    assert!(table.pts.windows(2).all(|w| w[0] < w[1]), "{name}: times must rise");

    let long = LONG.contains(&name.as_str());
    let not_judged = TIMES_NOT_JUDGED.iter().find(|n| n.0 == name);
    let judged = judge::first_frame_times(path, main, if long { Some(10) } else { None });
    if not_judged.is_none() || !judged.is_empty() {
        if !long {
            assert_eq!(table.pts.len(), judged.len(), "{name}: ffprobe counts other frames");
        }
        assert!(judged.len() > usize::from(long) * 200, "{name}: the judge saw too little");
    }
    if not_judged.is_none() {
        for (n, (ours, theirs)) in table.pts.iter().zip(&judged).enumerate() {
            assert!(theirs.is_none_or(|t| t == *ours), "{name}: frame {n} at {ours}, {theirs:?}");
        }
    }

    let max = if long { 300 } else { usize::MAX };
    let all = read(path, stream, 0, 0, max);
    assert_eq!(all.len(), table.pts.len().min(max), "{name}: the reader gives other frames");
    assert!(all.iter().zip(&table.pts).all(|(f, pts)| f.1 == *pts), "{name}");
    let points: Vec<_> = table.access.iter().filter(|a| (a.frame as usize) < all.len()).collect();
    for point in points.iter().skip(1).step_by((points.len() / 3).max(1)) {
        let part = read(path, stream, point.frame, point.frame, 10);
        let first = point.frame as usize;
        let same = (0..part.len().min(all.len() - first)).all(|i| part[i] == all[first + i]);
        assert!(same, "{name}: other frames from {point:?}");
    }
    Ok(table.pts.len())
}

fn check(folder: &str, test: &str) {
    let Some(root) = real_clips(test) else { return };
    let refused: BTreeMap<&str, &str> = REFUSED.iter().copied().collect();
    let mut films = 0;
    for path in files(&root, folder) {
        let name = name(&path);
        let outcome = judge_one(&path);
        println!("{name}: {outcome:?}");
        match (refused.get(name.as_str()), outcome) {
            (None, Ok(frames)) => {
                assert!(frames > 0, "{name}");
                films += 1;
            }
            (None, Err(code)) => assert_eq!(code, "no_video", "{name}"),
            (Some(wanted), outcome) => {
                assert_eq!(outcome, Err((*wanted).to_owned()), "{name}");
            }
        }
    }
    assert!(films >= 10, "only {films} films in {folder}");
}

#[test]
fn every_clip_is_told_to_the_frame() {
    check("clips", "every_clip_is_told_to_the_frame");
}

#[test]
fn every_odd_shape_is_told_to_the_frame_or_refused() {
    check("shapes", "every_odd_shape_is_told_to_the_frame_or_refused");
}

#[test]
fn descriptions_hold_what_the_clips_are_known_for() {
    let Some(root) = real_clips("descriptions_hold_what_the_clips_are_known_for") else { return };
    let video = |name: &str| {
        let media = probe(open(&root.join(name))).unwrap();
        media.main_video().unwrap().1.clone()
    };
    assert_eq!(video("clips/ax_pixel7_videoOnly_cleaned.mp4").rotation, 180);
    let hdr = video("clips/ax_hdr10-av1.mp4");
    assert_eq!((hdr.color.primaries, hdr.color.transfer, hdr.depth), (Some(9), Some(16), 10));
    assert_eq!(video("shapes/tc_bt709_full_range.mp4").color.full_range, Some(true));
    assert_eq!(video("shapes/ax_bt601.mov").color.matrix, Some(6));
    assert!(video("shapes/ax_dolbyVision-hdr.MOV").dolby_vision.is_some());
    let regular = video("shapes/dv_regular.mkv");
    assert!(regular.hdr.mastering_display.is_some(), "from the SEI of the first frame");
    let media = probe(open(&root.join("shapes/ax_sample_with_srt.mkv"))).unwrap();
    assert!(media.streams.iter().any(|s| s.kind == StreamKind::Subtitle));
    // Describing leaves the input at its start.
    let mut input = Input::open(open(&root.join("clips/gr_b.mp4"))).unwrap();
    let before = input.description().streams.len();
    assert_eq!(describe(&mut input).unwrap().streams.len(), before);
    assert!(input.read_packet().unwrap().unwrap().dts() <= Some(0));
}
