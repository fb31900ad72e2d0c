//! `trix probe`, `trix verify` and `trix plan`: what people and programs are told.

use std::process::{Command, Output};

use serde_json::{Value, json};
use trix_testkit::clips;

use crate::support::{FAST, Place, media, written};

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.output().unwrap();
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// A file whose description is the same with every ffmpeg that writes it.
fn known(place: &Place) -> std::path::PathBuf {
    clips::make(
        &place.path("known.mkv"),
        "-f lavfi -i testsrc2=size=160x90:rate=24000/1001:duration=1 \
         -f lavfi -i sine=sample_rate=48000:duration=1 -map 0 -map 1 \
         -fflags bitexact -flags:v bitexact -flags:a bitexact \
         -c:v ffv1 -level 3 -pix_fmt yuv422p10le -c:a pcm_s24le -ac 2 \
         -metadata title=Known -metadata:s:a:0 language=deu -metadata:s:a:0 title=Kinoton \
         -vf setsar=16/15 -color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv",
    )
}

#[test]
fn the_json_of_a_known_file_is_stable() {
    let place = Place::new();
    let file = known(&place);
    let (output, out, err) = run(media().args(["probe", "--json"]).arg(&file));
    assert!(output.status.success(), "{err}");
    let mut found: Value = serde_json::from_str(&out).unwrap();
    // What the muxer of the day decides.
    assert_eq!(found["size"].take(), std::fs::metadata(&file).unwrap().len());
    found["streams"][0]["bit_rate"].take();
    found["streams"][1]["bit_rate"].take();
    found["tags"].take();
    let expected: Value = serde_json::from_str(include_str!("probe.json")).unwrap();
    assert_eq!(
        found,
        expected,
        "probe.json and docs/probe.md describe the JSON; found:\n{}",
        serde_json::to_string_pretty(&found).unwrap()
    );
}

#[test]
fn several_files_give_one_object_each_and_a_bad_one_fails_the_rest_not() {
    let place = Place::new();
    let file = known(&place);
    let bad = written(place.path("bad.mov"), "no film");
    let (output, out, err) = run(media().args(["probe", "--json"]).arg(&file).arg(&bad).arg(&file));
    assert!(!output.status.success());
    let objects: Vec<Value> =
        serde_json::Deserializer::from_str(&out).into_iter().map(Result::unwrap).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0], objects[1]);
    assert!(err.contains("bad.mov") && err.contains("[not_media]"), "{err}");
    assert!(err.contains("1 of 3 files"), "{err}");
}

#[test]
fn the_table_says_what_people_look_for() {
    let place = Place::new();
    let file = known(&place);
    let (output, out, err) = run(media().arg("probe").arg(&file));
    assert!(output.status.success(), "{err}");
    let flat = out.split(['\n', '│']).map(str::trim).collect::<Vec<_>>().join(" ");
    for wanted in ["ffv1", "160x90", "23.976 fps", "16:15", "bt709", "pcm_s24le", "deu", "Kinoton"]
    {
        assert!(flat.contains(wanted), "{wanted} is missing in\n{out}");
    }
}

#[test]
fn verify_counts_a_whole_file_and_refuses_a_damaged_one() {
    let place = Place::new();
    let source = clips::title(&place.path("s.mp4"), "160x90", "25", 3);
    let output = place.encode(&source, "o.mp4", FAST);
    let (ran, out, err) = run(media().args(["verify", "--json"]).arg(&output));
    assert!(ran.status.success(), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["video"]["frames"], 75);
    assert_eq!(report["audio"][0]["samples"], json!(144_000));

    let mut bytes = std::fs::read(&output).unwrap();
    let mdat = bytes.windows(4).position(|w| w == b"mdat").unwrap();
    bytes.truncate(mdat + (bytes.len() - mdat) / 2);
    let cut = written(place.path("cut.mp4"), bytes);
    let (ran, out, err) = run(media().arg("verify").arg(&cut));
    assert_eq!(ran.status.code(), Some(1), "{out}");
    assert!(err.contains("cut.mp4") && err.contains("1 of 1 files are not whole"), "{err}");
}

#[test]
fn plan_says_what_encode_would_do_and_makes_nothing() {
    let place = Place::new();
    let source = clips::title(&place.path("s.mp4"), "160x90", "25", 20);
    let mut command = media();
    command.env("XDG_CACHE_HOME", place.path("xdg")).arg("plan").arg(&source).arg("--json");
    let (ran, out, err) = run(&mut command);
    assert!(ran.status.success(), "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> =
        plan["tasks"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    let ran = crate::support::Ran::of(place.command(&source, "o.mp4", &[]));
    let mut done: Vec<&str> = ran.done().into_iter().filter(|t| *t != "intake").collect();
    let mut planned = names.clone();
    planned.sort_unstable();
    done.sort_unstable();
    assert_eq!(planned, done, "encode did something else than plan said");

    let mut command = media();
    command.env("XDG_CACHE_HOME", place.path("xdg")).arg("plan").arg(&source);
    let (ran, out, err) = run(&mut command);
    assert!(ran.status.success(), "{err}");
    assert!(out.contains("x264-8") || out.contains("H.264"), "{out}");
}
