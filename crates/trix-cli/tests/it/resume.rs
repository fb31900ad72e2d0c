//! Cut anywhere, a run goes on where it was, and the bytes never tell.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use trix_testkit::clips;

use crate::support::{FAST, Place, Ran, Running, assert_same_bytes, files_below, names};

/// 44 s: five chunks of 8 s and more.
fn film(place: &Place) -> PathBuf {
    clips::make(
        &place.path("film.mp4"),
        "-f lavfi -i testsrc2=size=160x90:rate=25:duration=44 \
         -f lavfi -i sine=frequency=440:sample_rate=48000:duration=44 \
         -c:v libx264 -preset ultrafast -bf 2 -g 50 -pix_fmt yuv420p -c:a aac -b:a 64k",
    )
}

/// Slow enough that a signal after the first chunk meets work.
const SLOW: &[&str] = &["--video", "x264-8", "--preset", "slow", "--size", "160x90"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// Stages of attempts that have not been cleaned away.
fn stages(place: &Place, cache: &str) -> Vec<String> {
    names(&place.path(cache).join(".trix/stage"))
}

#[test]
fn one_slot_and_two_slots_give_identical_bytes() {
    let place = Place::new();
    let film = film(&place);
    let one = place.command_with_cache("one", &film, "one.mp4", &with(FAST, &["--slots", "1"]));
    let two = place.command_with_cache("two", &film, "two.mp4", &with(FAST, &["--slots", "2"]));
    let (one, two) = (Ran::of(one), Ran::of(two));
    assert!(one.finished("chunks") >= 3, "{:?}", one.last());
    assert_eq!(one.finished("chunks_encoded"), one.finished("chunks"));
    assert_eq!(two.finished("chunks_encoded"), two.finished("chunks"));
    assert_same_bytes(&place.out("one.mp4"), &place.out("two.mp4"));
}

#[test]
fn a_second_run_encodes_nothing_and_gives_the_same_bytes() {
    let place = Place::new();
    let film = film(&place);
    let first = Ran::of(place.command(&film, "first.mp4", FAST));
    let second = Ran::of(place.command(&film, "second.mp4", FAST));
    assert!(first.finished("chunks_encoded") > 0);
    assert_eq!(second.finished("chunks_encoded"), 0);
    assert_eq!(second.done(), Vec::<&str>::new(), "everything must come from the cache");
    assert_same_bytes(&place.out("first.mp4"), &place.out("second.mp4"));
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let place = Place::new();
    let film = film(&place);
    let whole = Ran::of(place.command_with_cache("whole", &film, "whole.mp4", SLOW));
    let chunks = whole.finished("chunks") as usize;
    for slots in ["1", "2"] {
        let arguments = with(SLOW, &["--slots", slots]);
        let (cache, name) = (format!("cut-{slots}"), format!("cut-{slots}.mp4"));
        let command = || place.command_with_cache(&cache, &film, &name, &arguments);

        let mut cut = Running::start(command());
        assert!(cut.until_chunk());
        cut.signal(Signal::KILL);
        let cut = cut.wait();
        assert!(!cut.status.success());
        assert!(!place.out(&name).exists(), "a killed run delivers nothing");
        let seen = cut.chunks_done();
        assert!((1..chunks).contains(&seen), "killed too late: {seen} of {chunks}");

        let again = Ran::of(command());
        let encoded = again.finished("chunks_encoded") as usize;
        // A chunk may have been committed in the moment before its line was printed.
        let slots: usize = slots.parse().unwrap();
        assert!(encoded <= chunks - seen, "{encoded} encoded again, {seen} of {chunks} were done");
        assert!(
            encoded + slots >= chunks - seen,
            "{encoded} encoded, {seen} of {chunks} were done"
        );
        assert!(encoded > 0);
        assert_same_bytes(&place.out("whole.mp4"), &place.out(&name));
        assert_eq!(stages(&place, &cache), Vec::<String>::new(), "the killed run's stages stay");
        let third = place.command_with_cache(&cache, &film, &name, &with(&arguments, &["--force"]));
        assert_eq!(Ran::of(third).finished("chunks_encoded"), 0);
    }
}

#[test]
fn a_run_that_is_killed_at_every_step_ends_with_the_same_bytes() {
    let place = Place::new();
    let film = film(&place);
    let whole = Ran::of(place.command_with_cache("whole", &film, "whole.mp4", FAST));
    let mut encoded = 0;
    // Each run is killed as soon as it has done one thing, whatever that was.
    for kills in 0.. {
        assert!(kills < 50, "the runs do not get on");
        let mut run = Running::start(place.command(&film, "cut.mp4", FAST));
        if run.until(|e| e["event"] == "done" && e["cached"] == false) {
            run.signal(Signal::KILL);
        }
        let run = run.wait();
        encoded += run.chunks_done();
        if run.status.success() {
            assert!(kills >= 5, "only {kills} kills: intake, sound, chunks, mux, verify are more");
            break;
        }
    }
    // A chunk that was committed unseen is not counted; none may be encoded twice.
    assert!(encoded as u64 <= whole.finished("chunks"));
    assert_same_bytes(&place.out("whole.mp4"), &place.out("cut.mp4"));
    assert_eq!(place.outputs().len(), 2, "{:?}", place.outputs());
}

#[test]
fn ctrl_c_leaves_nothing_half_written() {
    let place = Place::new();
    let film = film(&place);
    for signal in [Signal::INT, Signal::TERM] {
        let mut run = Running::start(place.command(&film, "film.mp4", SLOW));
        assert!(run.until_chunk());
        run.signal(signal);
        let run = run.wait();
        assert!(run.status.code().is_some_and(|c| c != 0), "{:?}", run.status);
        assert!(run.stderr.contains("told to stop"), "{}", run.stderr);
        assert_eq!(run.last()["failure"]["code"], "released");
        assert_eq!(place.outputs(), Vec::<String>::new());
        assert_eq!(stages(&place, "cache"), Vec::<String>::new());
    }
    let whole = Ran::of(place.command_with_cache("whole", &film, "whole.mp4", SLOW));
    let rest = Ran::of(place.command(&film, "film.mp4", SLOW));
    assert!(rest.finished("chunks_encoded") < whole.finished("chunks_encoded"));
    assert_same_bytes(&place.out("whole.mp4"), &place.out("film.mp4"));
}

#[test]
fn success_means_that_the_file_was_verified_and_lies_there_whole() {
    let place = Place::new();
    let film = film(&place);
    let ran = Ran::of(place.command(&film, "film.mp4", FAST));
    let size = ran.last()["files"][0]["size"].as_u64().unwrap();
    assert_eq!(fs::metadata(place.out("film.mp4")).unwrap().len(), size);
    let done = ran.done();
    let at = |name: &str| done.iter().position(|t| t.starts_with(name)).unwrap();
    assert!(at("mux/") < at("verify/"), "{done:?}");
    assert_eq!(at("verify/"), done.len() - 1);
}

#[test]
fn a_damaged_artifact_in_the_cache_is_made_again() {
    let place = Place::new();
    let film = film(&place);
    let first = Ran::of(place.command(&film, "first.mp4", FAST));
    assert!(first.status.success());
    // Every artifact gets one wrong byte in its middle.
    for path in files_below(&place.path("cache/objects")) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        rewrite(&path, &bytes);
    }
    let second = Ran::of(place.command(&film, "second.mp4", FAST));
    assert_eq!(second.finished("chunks_encoded"), second.finished("chunks"));
    assert_same_bytes(&place.out("first.mp4"), &place.out("second.mp4"));
}

/// In place, whatever the file's mode.
fn rewrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_full_disk_fails_loudly_and_leaves_nothing() {
    let place = Place::new();
    let film = film(&place);
    assert!(Ran::of(place.command(&film, "whole.mp4", FAST)).status.success());
    // Everything is cached; only the delivery writes, and no file may grow beyond 100 KiB.
    let command = place.command(&film, "film.mp4", FAST);
    let mut limited = std::process::Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash"]);
    limited.arg(command.get_program()).args(command.get_args()).stdin(std::process::Stdio::null());
    let ran = Ran::of(limited);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("film.mp4"), "{}", ran.stderr);
    assert_eq!(ran.last()["event"], "failed");
    assert_eq!(place.outputs(), ["whole.mp4"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_without_a_panic() {
    let place = Place::new();
    let film = film(&place);
    let mut run = Running::start(place.command(&film, "film.mp4", FAST));
    assert!(run.until_chunk());
    let ran = run.close_and_wait();
    assert!(!ran.status.success());
    assert_eq!(ran.stderr, "");
    assert_eq!(place.outputs(), Vec::<String>::new());
}
