//! Hostile input. The long counts are `trix-chaos input`'s; these are a few of each.

use std::path::PathBuf;

use tempfile::TempDir;
use trix_chaos::input::report::Counts;
use trix_chaos::input::run::Extent;
use trix_chaos::input::{Row, Site, bombs, damage, nested, params, paths};

struct Place {
    folder: TempDir,
    site: Site,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("trix-chaos-").tempdir_in("/var/tmp").unwrap();
        let site = Site { media: media(), folder: folder.path().to_owned(), keep: None };
        Place { folder, site }
    }
}

/// The program whose slots are tried.
fn media() -> PathBuf {
    if let Some(path) = std::env::var_os("TRIX_MEDIA_BIN").filter(|v| !v.is_empty()) {
        return path.into();
    }
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("trix-media");
    assert!(path.exists(), "{} is not built; cargo build -p trix-cli", path.display());
    path
}

fn some(from: u64, count: u64) -> Extent {
    Extent { from, count, until: None }
}

#[track_caller]
fn clean(row: Row, counts: &Counts, inputs: u64) {
    counts.print(row.name());
    assert_eq!(counts.inputs, inputs);
    assert!(counts.defects.is_empty(), "{} defects, see above", counts.defects.len());
}

#[test]
fn damaged_clips_end_within_their_limits() {
    let place = Place::new();
    let counts = damage::run(&place.site, 1, &some(0, 24), 6).unwrap();
    clean(Row::B1, &counts, 24);
    assert!(counts.ok < counts.inputs, "nothing was damaged enough to be refused");
}

#[test]
fn tables_that_promise_a_billion_samples_are_refused_before_they_are_believed() {
    let place = Place::new();
    let all = bombs::bombs();
    for name in [
        "10^9 frames of one byte from three tables",
        "2^32 frames of no byte",
        "10^6 edits that each play the whole",
        "30 fragment runs of 10^7 samples without data",
        "10^5 tracks of a movie",
        "10^5 tracks of a Matroska file",
        "a compressed movie header that claims 4 GB",
        "a frame a year",
        "10^9 frames a second",
        "a stripped header of 64 MB on each of 10^4 blocks",
    ] {
        let at = all.iter().position(|(bomb, _)| *bomb == name).expect("a bomb of that name");
        let counts = bombs::run(&place.site, &some(at as u64, 1)).unwrap();
        clean(Row::B3, &counts, 1);
        assert_eq!(counts.refused.get("over_budget"), Some(&1), "{name}: {counts:?}");
    }
}

#[test]
fn a_demuxer_that_would_go_on_for_hours_is_ended_by_the_processor_s_limit() {
    let place = Place::new();
    let all = bombs::bombs();
    let at = all.iter().position(|(bomb, _)| *bomb == "10^6 comments of a FLAC file");
    let counts =
        bombs::run(&place.site, &some(at.expect("a bomb of that name") as u64, 1)).unwrap();
    clean(Row::B3, &counts, 1);
    // On a machine that gives it less than a sixth of a core, the stall comes first.
    let ended = ["cpu_limit", "stalled"].iter().filter_map(|code| counts.crash.get(*code));
    assert_eq!(ended.sum::<u64>(), 1, "{counts:?}");
}

#[test]
fn settings_that_once_passed_the_table_and_failed_are_refused_by_name_or_encode() {
    let place = Place::new();
    let counts = params::mended(&place.site).unwrap();
    clean(Row::B5, &counts, 8 * 8);
    assert!(counts.ok > 8 && counts.ok < 56, "{counts:?}");
}

#[test]
fn nothing_that_a_file_names_is_opened_or_called() {
    let place = Place::new();
    // The playlists of the bait by six names, the rest of the row by every ninth.
    let first = nested::run(&place.site, &some(0, 18)).unwrap();
    clean(Row::B4, &first, 18);
    assert_eq!(first.refused.get("nested_reference"), Some(&18));
    drop(place.folder);
    let place = Place::new();
    let last = nested::run(&place.site, &some(60, 30)).unwrap();
    clean(Row::B4, &last, 30);
}

#[test]
fn settings_are_refused_by_name_or_encode() {
    let place = Place::new();
    let counts = params::run(&place.site, 1, &some(0, 24)).unwrap();
    clean(Row::B5, &counts, 24);
    assert!(counts.ok > 0 && counts.ok < 24, "{counts:?}");
}

#[test]
fn no_path_and_no_template_leaves_the_share() {
    let place = Place::new();
    let counts = paths::run(&place.site, 1, &some(0, 120)).unwrap();
    clean(Row::X2, &counts, 120);
}
