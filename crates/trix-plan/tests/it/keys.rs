//! Keys: they change with what decides bytes, and with nothing else.

use std::collections::BTreeMap;

use trix_model::Key;
use trix_model::digest::Digest128;
use trix_plan::key::Engine;
use trix_plan::task::{Sidecar, SidecarAlgorithm};
use trix_plan::{Delivery, Profile, diff, plan0};

use crate::fixture::{ENGINE, Source, film, shipped};

fn source() -> Source {
    // Two minutes: chunks of about 8 s, 15 of them.
    film(1920, 1080, 2880, &[Some("eng"), Some("rus")])
}

/// All keys of plan 1 by task and output.
fn keys(source: &Source, profile: &Profile) -> BTreeMap<String, Key> {
    let (_, plan) = source.plan(profile, Delivery::Shares).unwrap();
    plan.tasks
        .iter()
        .flat_map(|t| t.outputs.iter().map(|o| (format!("{}:{}", t.name, o.name), o.key)))
        .collect()
}

/// Names of what differs or is new.
fn changed(before: &BTreeMap<String, Key>, after: &BTreeMap<String, Key>) -> Vec<String> {
    after.iter().filter(|(n, k)| before.get(*n) != Some(k)).map(|(n, _)| n.clone()).collect()
}

fn chunks(names: &[String]) -> Vec<&str> {
    let mut tasks: Vec<&str> = names
        .iter()
        .filter_map(|n| n.split_once(':').map(|(task, _)| task))
        .filter(|t| t.starts_with("encode/"))
        .collect();
    tasks.dedup();
    tasks
}

#[test]
fn a_renamed_file_on_another_share_is_the_same_film() {
    let profile = shipped("archive-and-ladder");
    let before = source();
    let mut after = before.clone();
    after.location = "delivery-2:Другое имя 🎬.mov".into();
    after.media.size += 1;
    assert_eq!(keys(&before, &profile), keys(&after, &profile));
    let intake = |s: &Source| {
        plan0(&s.source_ref(), &[], &profile, ENGINE, Delivery::Shares).unwrap().tasks.remove(0)
    };
    assert_ne!(intake(&before).outputs, intake(&after).outputs);
}

#[test]
fn names_of_renditions_and_profiles_are_in_no_key() {
    let profile = shipped("ladder-veryfast");
    let mut renamed = profile.clone();
    renamed.name = "other".into();
    renamed.description.clear();
    for file in &mut renamed.files {
        file.name = format!("x{}", file.name);
    }
    let values = |p: &Profile| {
        let mut keys: Vec<Key> = keys(&source(), p).into_values().collect();
        keys.sort();
        keys
    };
    assert_eq!(values(&profile), values(&renamed));
}

#[test]
fn one_changed_packet_changes_the_chunks_that_read_it_and_what_is_made_of_them() {
    let profile = shipped("ladder-veryfast");
    let before = source();
    let grid: Vec<(u32, u32)> = chunk_ranges(&before, &profile);
    for frame in [0usize, 500, 1000, 2879] {
        let mut after = before.clone();
        after.index.streams[0].packets[frame].hash = Digest128([9; 16]);
        let changed = changed(&keys(&before, &profile), &keys(&after, &profile));
        // x264 looks ten frames ahead at veryfast, and the group of the changed packet counts.
        let group = (frame as u32) / 48 * 48;
        let reads = grid
            .iter()
            .enumerate()
            .filter(|(_, (first, behind))| *first < group + 48 && group < behind + 10)
            .map(|(n, _)| format!("encode/{n:04}"));
        assert_eq!(chunks(&changed), reads.collect::<Vec<_>>(), "frame {frame}");
        assert!(chunks(&changed).len() <= 2);
        assert!(changed.contains(&"mux/1080p:file".to_owned()));
        assert!(changed.contains(&"verify/1080p:report".to_owned()));
        assert!(!changed.iter().any(|n| n.starts_with("audio/")));
    }
}

fn chunk_ranges(source: &Source, profile: &Profile) -> Vec<(u32, u32)> {
    let (_, plan) = source.plan(profile, Delivery::Shares).unwrap();
    plan.tasks
        .iter()
        .filter_map(|t| match &t.spec {
            trix_plan::task::TaskSpec::EncodeChunk(c) => {
                Some((c.range.first, c.range.first + c.range.count))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_changed_dub_changes_its_own_track_and_no_picture() {
    let profile = shipped("archive-and-ladder");
    let before = source();
    let mut after = before.clone();
    after.index.streams[2].packets[0].hash = Digest128([9; 16]);
    let changed = changed(&keys(&before, &profile), &keys(&after, &profile));
    assert!(chunks(&changed).is_empty());
    let sounds: Vec<_> = changed.iter().filter(|n| n.starts_with("audio/")).collect();
    assert_eq!(sounds, ["audio/2-aac:audio", "audio/2-proxy:audio"]);
    assert!(!changed.iter().any(|n| n.starts_with("stills")));
}

#[test]
fn one_more_rendition_changes_no_other_key() {
    let text = Profile::shipped_text("ladder-veryfast").unwrap();
    let more = format!("{text}\n[[rendition]]\nname = \"180p\"\nheight = 180\ncrf = 26\n");
    let (few, many) = (shipped("ladder-veryfast"), Profile::parse(&more).unwrap());
    let (before, after) = (keys(&source(), &few), keys(&source(), &many));
    let new = changed(&before, &after);
    assert!(new.iter().all(|n| n.contains("180p")), "{new:?}");
    assert!(before.iter().all(|(n, k)| after.get(n) == Some(k)));
    let (_, old) = source().plan(&few, Delivery::Shares).unwrap();
    let (_, new) = source().plan(&many, Delivery::Shares).unwrap();
    let diff = diff(&old, &new);
    assert!(diff.dropped.is_empty());
    assert!(diff.made.iter().all(|o| o.output == "180p" || o.task.ends_with("180p")));
    assert!(diff.core_ms > 0);
}

#[test]
fn a_second_profile_with_the_same_rendition_finds_its_chunks() {
    let ladder = shipped("ladder-veryfast");
    let mut one = ladder.clone();
    one.files.truncate(1);
    one.name = "one".into();
    let (all, few) = (keys(&source(), &ladder), keys(&source(), &one));
    assert!(few.iter().all(|(n, k)| all.get(n) == Some(k)));
}

#[test]
fn everything_that_decides_bytes_changes_the_key() {
    let profile = shipped("h264-single");
    let before = keys(&source(), &profile);
    let first = |keys: &BTreeMap<String, Key>| keys["encode/0000:h264"];
    let with = |change: fn(&mut Source)| {
        let mut source = source();
        change(&mut source);
        first(&keys(&source, &profile))
    };
    for (what, key) in [
        ("parameter sets", with(|s| s.index.streams[0].parameters = Digest128([9; 16]))),
        ("colour", with(|s| s.video().color.transfer = Some(16))),
        ("range", with(|s| s.video().color.full_range = None)),
        ("rotation", with(|s| s.video().rotation = 180)),
        ("sample aspect", with(|s| s.video().sample_aspect = None)),
        ("frame times", with(|s| s.frames().pts[3] += 400)),
        (
            "HDR",
            with(|s| {
                let max_frame_average = 400;
                s.video().hdr.content_light =
                    Some(trix_model::ContentLight { max_content: 1000, max_frame_average });
            }),
        ),
    ] {
        assert_ne!(key, first(&before), "{what}");
    }
    let mut other = profile.clone();
    if let trix_plan::profile::VideoTrack::Encode(e) = &mut other.files[0].video {
        e.settings.threads = 2;
    }
    assert_ne!(first(&keys(&source(), &other)), first(&before), "threads");
}

#[test]
fn a_sidecar_is_another_result_of_the_same_index() {
    let profile = shipped("h264-single");
    let source = source().source_ref();
    let sidecar = Sidecar {
        algorithm: SidecarAlgorithm::Md5,
        location: "incoming:films/night/feature.mov.md5".parse().unwrap(),
        size: 33,
        mtime_ns: 1,
    };
    let outputs = |sidecars: &[Sidecar]| {
        let mut plan = plan0(&source, sidecars, &profile, ENGINE, Delivery::Shares).unwrap();
        plan.tasks.remove(0).outputs
    };
    let (without, with) = (outputs(&[]), outputs(&[sidecar]));
    assert_eq!(without[0], with[0]);
    assert_eq!((without[1].name.as_str(), with[1].name.as_str()), ("result", "result"));
    assert_ne!(without[1].key, with[1].key);
}

#[test]
fn an_engine_is_the_sum_of_its_parts() {
    let engine = || Engine::new().with("x264", "0.164.3095").with("cpu", "x86-64-v3");
    assert_eq!(
        engine().id(),
        Engine::new().with("cpu", "x86-64-v3").with("x264", "0.164.3095").id()
    );
    assert_ne!(engine().id(), engine().with("libav", "7.1").id());
    assert_ne!(Engine::new().with("a", "bc").id(), Engine::new().with("ab", "c").id());
    assert_eq!(engine().id().len(), 32);
    assert_eq!(engine().describe(), "cpu x86-64-v3; x264 0.164.3095");
}

/// These values may change only together with a version in `key.rs`: every change empties caches.
#[test]
fn keys_are_what_they_were() {
    let keys = keys(&source(), &shipped("archive-and-ladder"));
    let shown: Vec<String> = [
        "encode/0000:1080p",
        "encode/0007:234p",
        "audio/1-aac:audio",
        "mux/720p:file",
        "verify/720p:report",
        "stills:poster",
        "stills:sprite",
        "stills:map",
    ]
    .into_iter()
    .map(|name| format!("{name} {}", keys[name]))
    .collect();
    insta::assert_snapshot!(shown.join("\n"));
}
