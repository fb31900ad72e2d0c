//! The real codecs in real slots: boxed, they make the same bytes as outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use trix_engine::engine_id;
use trix_engine::local::Run;
use trix_model::{AttemptId, Epoch, Failure, Key, TaskId};
use trix_plan::profile::SingleFile;
use trix_plan::task::{Container, SourceRef, Task, TaskResult};
use trix_plan::{Delivery, Profile, plan0};
use trix_slot::{Ended, InputName, Launcher, Limits, Outcome, SlotIo, SlotJob, stage_name};
use trix_storage::cache::Cache;
use trix_testkit::clips;

use crate::support::{Place, Watch, written};

/// A line of a slot's log that names a refused system call begins so.
const REFUSED: &str = "trix: refused the system call ";

/// Slots of the real program, and what they made.
struct Slots {
    launcher: Launcher,
    /// Artifacts by key.
    made: BTreeMap<Key, PathBuf>,
    store: PathBuf,
    /// Names of the calls that were refused.
    refused: BTreeSet<String>,
}

impl Slots {
    fn new(place: &Place) -> Slots {
        let media = Launcher::new(env!("CARGO_BIN_EXE_trix-media")).naming_refused_calls();
        Slots::of(place, media)
    }

    fn of(place: &Place, launcher: Launcher) -> Slots {
        let store = place.path("made");
        fs::create_dir_all(&store).unwrap();
        Slots { launcher, made: BTreeMap::new(), store, refused: BTreeSet::new() }
    }

    /// Runs a task as a worker does, and keeps its outputs.
    fn run(&mut self, source: &Path, task: &Task) -> Result<TaskResult, Failure> {
        let ended = self.attempt(source, task);
        for line in ended.log.iter().filter_map(|line| line.strip_prefix(REFUSED)) {
            let name = line.split(['(', ')']).nth(1).unwrap_or(line);
            self.refused.insert(format!("{}: {name}", task.name));
        }
        match ended.outcome {
            Outcome::Done(result) => Ok(result),
            Outcome::Failed(failure) => Err(failure),
            Outcome::Cancelled => panic!("nobody cancelled {}", task.name),
        }
    }

    fn attempt(&mut self, source: &Path, task: &Task) -> Ended {
        let stage = tempfile::TempDir::new_in("/var/tmp").unwrap();
        let user = trix_slot::slot_user();
        if let Some((uid, gid)) = user {
            chown(stage.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut inputs = vec![(InputName::Source, File::open(source).unwrap())];
        for (key, path) in &self.made {
            inputs.push((InputName::Artifact(*key), File::open(path).unwrap()));
        }
        let job = SlotJob {
            attempt: AttemptId { task: TaskId(1), epoch: Epoch(1) },
            task: task.name.clone(),
            spec: task.spec.clone(),
            outputs: task.outputs.clone(),
            inputs: Vec::new(),
            tee: None,
            limits: Limits::of(&task.spec, &task.cost, Duration::from_secs(120), user),
            worker_pid: 0,
        };
        let io = SlotIo {
            inputs,
            cache_stage: File::open(stage.path()).unwrap().into(),
            tee_stage: None,
        };
        let slot = self.launcher.start().unwrap();
        let ended = slot.run(job, io, &engine_id(), Duration::from_secs(120), &mut |_| ());
        if matches!(ended.outcome, Outcome::Done(_)) {
            for output in &task.outputs {
                let path = self.store.join(output.key.to_string());
                fs::copy(stage.path().join(stage_name(output)), &path).unwrap();
                self.made.insert(output.key, path);
            }
        }
        ended
    }

    /// Does everything in this process and again in slots; each artifact must be the same.
    fn compare(&mut self, place: &Place, source: &Path, profile: &Profile) {
        let cache = Cache::open(&place.path(&format!("cache-{}", profile.version())), 8 << 30);
        let cache = cache.unwrap();
        let stop = AtomicBool::new(false);
        let events = |_: trix_engine::local::Event<'_>| ();
        let title = "film";
        let run =
            Run { source, profile, title, cache: &cache, slots: 1, events: &events, stop: &stop };
        let summary = run.run().unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        let tasks = intake(source, profile).into_iter().chain(summary.plan.tasks);
        let mut compared = 0;
        for task in tasks {
            let done = self.run(source, &task);
            done.unwrap_or_else(|e| panic!("{} {}: {e}", profile.description, task.name));
            for output in &task.outputs {
                let there = cache.get_verified(&output.key, None).unwrap();
                let there = there.unwrap_or_else(|| panic!("{} is not cached", output.name));
                let here = blake3::hash(&fs::read(&self.made[&output.key]).unwrap());
                let same = there.digest().unwrap().as_bytes() == here.as_bytes();
                assert!(same, "{} {}: other bytes", profile.description, task.name);
                compared += 1;
            }
        }
        assert!(compared >= 4, "only {compared} artifacts were compared");
    }
}

/// The plan's first task for a source.
fn intake(source: &Path, profile: &Profile) -> Option<Task> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(source).unwrap();
    let location = format!("local:{}", source.display().to_string().trim_start_matches('/'));
    let source = SourceRef {
        location: location.parse().unwrap(),
        size: meta.len(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    };
    plan0(&source, &[], profile, &engine_id(), Delivery::Folder).unwrap().tasks.into_iter().next()
}

fn single(video: &str, preset: Option<&str>, threads: Option<i64>, audio: &str) -> Profile {
    Profile::single(&SingleFile {
        video: video.to_owned(),
        container: Some(Container::Mkv),
        preset: preset.map(str::to_owned),
        threads,
        audio: audio.to_owned(),
        ..SingleFile::default()
    })
    .unwrap()
}

/// The program that takes system calls away. Cargo builds the examples of a package with
/// its tests, beside them.
fn without() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let without = folder.join("examples/media_without");
    assert!(without.exists(), "{} is not built", without.display());
    without
}

fn clip(place: &Place) -> PathBuf {
    clips::make(
        &place.path("s.mov"),
        "-f lavfi -i testsrc2=size=160x90:rate=25:duration=2 \
         -f lavfi -i sine=frequency=440:sample_rate=48000:duration=2 \
         -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a pcm_s16le",
    )
}

#[test]
fn every_encoder_makes_the_same_bytes_in_the_box_and_is_refused_nothing() {
    let place = Place::new();
    let source = clip(&place);
    let mut slots = Slots::new(&place);
    for (video, preset, audio) in [
        ("x264-8", Some("veryfast"), "aac"),
        ("x264-10", Some("ultrafast"), "flac"),
        ("x265-8", Some("fast"), "pcm"),
        ("x265-10", Some("ultrafast"), "copy"),
        ("x265-12", Some("ultrafast"), "aac"),
        ("rav1e-8", Some("10"), "aac"),
        ("rav1e-10", Some("10"), "none"),
        ("ffv1", None, "flac"),
        ("copy", None, "copy"),
    ] {
        for threads in [Some(1), Some(4)] {
            let threads = threads.filter(|_| video != "copy");
            slots.compare(&place, &source, &single(video, preset, threads, audio));
            if threads.is_none() {
                break;
            }
        }
    }
    // x265 asks for a lower priority of its threads and goes on without.
    slots.refused.remove("encode/0000: setpriority");
    assert_eq!(slots.refused, BTreeSet::new());
}

#[test]
fn the_stills_and_the_preview_of_a_title_come_out_of_the_box() {
    let place = Place::new();
    let source = clip(&place);
    let text = "v = 1\nname = \"small\"\ndescription = \"small\"\n[video]\nencoder = \"x264-8\"\n\
        preset = \"veryfast\"\n[[rendition]]\nname = \"full\"\nwidth = 160\nheight = 90\ncrf = 23\n\
        [[rendition]]\nname = \"half\"\nwidth = 80\nheight = 46\ncrf = 26\n[[audio]]\n\
        codec = \"aac\"\nlanguages = \"all\"\n[package]\ncontainer = \"mp4\"\n[preview]\n\
        share = \"preview\"\npath = \"{title}\"\nthumbnail_seconds = 1\nthumbnail_width = 80\n\
        [preview.proxy]\npreset = \"ultrafast\"\ncrf = 30\nheight = 46\n[publish]\n\
        share = \"output\"\npath = \"{title}\"\n";
    let profile = Profile::parse(text).unwrap();
    let mut slots = Slots::new(&place);
    slots.compare(&place, &source, &profile);
    assert_eq!(slots.refused, BTreeSet::new());
}

#[test]
fn every_kind_of_source_is_read_in_the_box_as_outside() {
    let place = Place::new();
    let picture = "-f lavfi -i testsrc2=size=160x90:rate=25:duration=1";
    let sound = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=1";
    let mut slots = Slots::new(&place);
    for (name, codecs) in [
        ("hevc.mkv", "-c:v libx265 -preset ultrafast -c:a libopus"),
        ("av1.mkv", "-c:v libaom-av1 -cpu-used 8 -row-mt 0 -c:a flac"),
        ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libvorbis"),
        ("prores.mov", "-c:v prores_ks -c:a pcm_s24le"),
        ("mpeg2.ts", "-c:v mpeg2video -c:a mp2"),
        ("mpeg2.mxf", "-c:v mpeg2video -q:v 2 -c:a pcm_s16le"),
        ("mpeg4.avi", "-c:v mpeg4 -c:a ac3"),
        ("ffv1.mkv", "-c:v ffv1 -level 3 -slices 4 -c:a eac3"),
    ] {
        let source =
            clips::make(&place.path(name), &format!("{picture} {sound} -pix_fmt yuv420p {codecs}"));
        slots.compare(&place, &source, &single("x264-8", Some("ultrafast"), None, "aac"));
    }
    assert_eq!(slots.refused, BTreeSet::new());
}

#[test]
fn encoders_work_on_machines_that_lack_a_part_of_the_box() {
    let place = Place::new();
    let source = clip(&place);
    let media = env!("CARGO_BIN_EXE_trix-media");
    let without = without();
    for lacking in
        ["landlock", "clone3", "close_range", "seccomp", "landlock,clone3,close_range,seccomp"]
    {
        let launcher = Launcher::new(&without).with_args([lacking, media, "slot"]);
        let mut slots = Slots::of(&place, launcher);
        for (video, preset) in [("x264-8", "ultrafast"), ("x265-8", "ultrafast"), ("rav1e-8", "10")]
        {
            slots.compare(&place, &source, &single(video, Some(preset), Some(2), "aac"));
        }
    }
}

/// A transport stream whose service has this name, as bytes of its own character set.
fn stream_with_service(place: &Place, name: &[u8]) -> PathBuf {
    let marker = "SERVICENAMEHERE";
    let path = clips::make(
        &place.path("service.ts"),
        &format!(
            "-f lavfi -i testsrc2=size=160x90:rate=25:duration=1 -c:v libx264 -preset ultrafast \
             -pix_fmt yuv420p -metadata service_name={marker} -metadata service_provider=trix"
        ),
    );
    let mut bytes = fs::read(&path).unwrap();
    assert!(name.len() <= marker.len());
    // Filled up with spaces, so that the table keeps its length; its checksum is made anew.
    let mut padded = name.to_vec();
    padded.resize(marker.len(), b' ');
    let mut replaced = 0;
    for packet in bytes.chunks_exact_mut(188) {
        let Some(at) = packet.windows(marker.len()).position(|w| w == marker.as_bytes()) else {
            continue;
        };
        packet[at..at + padded.len()].copy_from_slice(&padded);
        // Behind the packet's header of 4 bytes and the pointer: table 0x42, then its length.
        let table = 5 + usize::from(packet[4]);
        let length = usize::from(packet[table + 1] & 0xf) << 8 | usize::from(packet[table + 2]);
        let end = table + 3 + length;
        let crc = crc32_mpeg(&packet[table..end - 4]);
        packet[end - 4..end].copy_from_slice(&crc.to_be_bytes());
        replaced += 1;
    }
    assert!(replaced > 0, "there is no service description in the clip");
    written(path, bytes)
}

/// ISO/IEC 13818-1, annex A.
fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 }
        })
    })
}

#[test]
fn a_service_s_name_reads_the_same_in_the_box_as_outside() {
    let place = Place::new();
    let profile = single("x264-8", Some("ultrafast"), None, "none");
    let mut slots = Slots::new(&place);
    for (name, reads) in [
        // ISO 6937, the default of DVB: an accent stands before its letter.
        (&b"Caf\xc2e \xc8u"[..], "Café ü"),
        // ISO 8859-5 by selector 0x01, ISO 8859-9 by 0x05, ISO 8859-2 by the long form.
        (b"\x01\xbd\xde\xd2\xde\xe1\xe2\xd8", "Новости"),
        (b"\x05Kanal T\xfcrk\xe7e", "Kanal Türkçe"),
        (b"\x10\x00\x02\xa3\xf3d\xbc", "Łódź"),
    ] {
        let source = stream_with_service(&place, name);
        let outside = trix_av::probe(File::open(&source).unwrap()).unwrap();
        assert_eq!(outside.tags["service_name"].trim_end(), reads, "{name:?} outside");
        let task = intake(&source, &profile).unwrap();
        let result = slots.run(&source, &task).unwrap();
        let inside = &result.detail.unwrap()["media"]["tags"]["service_name"];
        assert_eq!(inside.as_str().unwrap().trim_end(), reads, "{name:?} inside");
    }
    assert_eq!(slots.refused, BTreeSet::new());
}

/// The movie with its samples in another file: the only data reference becomes an alias.
/// The index must lie at the end, so that what grows moves no sample.
fn with_alias(movie: &[u8], target: &Path) -> Vec<u8> {
    let mut alias = vec![0u8; 10];
    let text = |length: usize, text: &str| {
        let mut bytes = vec![text.len().min(length) as u8];
        bytes.extend_from_slice(&text.as_bytes()[..text.len().min(length)]);
        bytes.resize(length + 1, 0);
        bytes
    };
    alias.extend(text(27, "volume"));
    alias.extend([0; 12]);
    alias.extend(text(63, &target.file_name().unwrap().to_string_lossy()));
    alias.extend([0; 16]);
    alias.extend([0, 1, 0, 1]);
    alias.extend([0; 16]);
    // Type 2: the absolute path; then the end.
    let mut path = target.display().to_string().into_bytes();
    path.resize(path.len().next_multiple_of(2), 0);
    alias.extend(2u16.to_be_bytes());
    alias.extend((path.len() as u16).to_be_bytes());
    alias.extend(path);
    alias.extend([0xff, 0xff, 0, 0]);
    let mut entry = (alias.len() as u32 + 12).to_be_bytes().to_vec();
    entry.extend(b"alis\0\0\0\0");
    entry.extend(alias);

    let mut bytes = movie.to_vec();
    let at = bytes.windows(4).position(|w| w == b"dref").unwrap() - 4;
    let be = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let old = 16..16 + be(&bytes, at + 16) as usize;
    let grown = entry.len() as u32 - old.len() as u32;
    // Every box around it grows: those that begin before it and end behind it.
    for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"] {
        let parent = bytes[..at + 8].windows(4).rposition(|w| w == name).unwrap() - 4;
        let size = be(&bytes, parent) + grown;
        bytes[parent..parent + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes.splice(at + old.start..at + old.end, entry);
    bytes
}

#[test]
fn what_names_other_files_is_refused_and_nothing_is_tried() {
    let place = Place::new();
    let victim = clips::make(
        &place.path("victim.mov"),
        "-f lavfi -i testsrc2=size=160x90:rate=25:duration=1 -c:v libx264 -preset ultrafast \
         -pix_fmt yuv420p",
    );
    let full = victim.display().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let hls = |uri: &str| {
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{uri}\n#EXT-X-ENDLIST\n")
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("HLS, a file", hls(&full).into()),
        ("HLS, a file by URL", hls(&format!("file://{full}")).into()),
        ("HLS, http", hls(&format!("http://127.0.0.1:{port}/film.ts")).into()),
        (
            "DASH, a file",
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
                 type=\"static\" mediaPresentationDuration=\"PT4S\"><Period><AdaptationSet \
                 mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\">\
                 <BaseURL>{full}</BaseURL></Representation></AdaptationSet></Period></MPD>"
            )
            .into(),
        ),
        (
            "SDP",
            format!("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 33\r\n")
                .into(),
        ),
        ("ffconcat", format!("ffconcat version 1.0\nfile '{full}'\n").into()),
        ("a movie with an alias", with_alias(&fs::read(&victim).unwrap(), &victim)),
    ];
    let profile = single("x264-8", Some("ultrafast"), None, "none");
    let media = env!("CARGO_BIN_EXE_trix-media");
    let without = without();
    let boxes = [
        Launcher::new(media).naming_refused_calls(),
        // Here the filter refuses every name, and so names every attempt to open one.
        Launcher::new(without).with_args(["landlock", media, "slot"]).naming_refused_calls(),
    ];
    for launcher in boxes {
        let mut slots = Slots::of(&place, launcher);
        for (what, bytes) in &cases {
            let watch = Watch::on(&victim);
            let source = written(place.path("film.mov"), bytes);
            let task = intake(&source, &profile).unwrap();
            let failure = slots.run(&source, &task).expect_err(what);
            assert_eq!(failure.code, "nested_reference", "{what}: {failure}");
            assert!(!watch.was_opened(), "{what}: the file that it names was opened");
        }
        assert_eq!(slots.refused, BTreeSet::new(), "something was tried");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // The check can fail: the alias is one that libav would follow if it were let.
    let alias = written(place.path("alias.mov"), &cases.last().unwrap().1);
    let watch = Watch::on(&victim);
    let follow = ["-v", "error", "-enable_drefs", "1", "-use_absolute_path", "1", "-i"];
    let arguments = [&follow[..], &[alias.to_str().unwrap(), "-f", "null", "-"]].concat();
    let _ = std::process::Command::new("ffmpeg").args(&arguments).output().unwrap();
    assert!(watch.was_opened(), "the alias leads nowhere");
}
