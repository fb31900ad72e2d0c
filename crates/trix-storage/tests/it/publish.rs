//! Publication on a good day, and what it refuses.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use trix_model::{ErrorClass, Failure};
use trix_storage::publish::{
    MANIFEST, MANIFEST_SCHEMA, place_new, place_replacing, purge_retired, retract, verify_published,
};
use trix_storage::{
    Capabilities, Fence, Fixity, FolderFence, Item, ItemFrom, Known, Manifest, MoveMethod,
    Publisher, Receipt, Request, SourceProof, StorageError, WritableShare,
};

use crate::common::*;

pub const METHODS: [MoveMethod; 3] =
    [MoveMethod::Link, MoveMethod::RenameNoReplace, MoveMethod::MarkerRename];

fn publish(
    out: &WritableShare,
    method: MoveMethod,
    stage: &str,
    request: Request,
    fence: &mut dyn Fence,
) -> Result<Receipt, StorageError> {
    Publisher::new(out, method, stage_name(stage)).publish(request, fence, &mut quiet)
}

/// A source folder with three files and an empty destination.
fn scene() -> (tempfile::TempDir, trix_storage::Share, WritableShare) {
    let t = temp();
    for folder in ["src", "out"] {
        std::fs::create_dir(t.path().join(folder)).unwrap();
    }
    for (n, file) in ["a", "b", "c"].into_iter().enumerate() {
        std::fs::write(t.path().join("src").join(file), noise(n as u64, 70_000 + n)).unwrap();
    }
    let (from, out) = (share(&t.path().join("src")), writable(&t.path().join("out")));
    (t, from, out)
}

#[test]
fn files_appear_under_a_version_with_a_manifest_that_proves_them() {
    for method in METHODS {
        let (t, from, out) = scene();
        let mut fence = MemoryFence::default();
        let files = [("имя 🎬 1080p.mp4", "a"), ("audio/de.mp4", "b"), ("audio/ru.mp4", "c")];
        let request = request(&from, "title/film", &files);
        let mut told = Vec::new();
        let receipt = Publisher::new(&out, method, stage_name("7-1"))
            .publish(request, &mut fence, &mut |done, total| {
                told.push((done, total));
                Ok(())
            })
            .unwrap();
        assert_eq!((receipt.version, receipt.folder.as_str()), (1, "title/film/v1"));
        assert_eq!(told.last().map(|(done, total)| done == total), Some(true), "{told:?}");
        let seen = visible(&t.path().join("out"));
        assert_eq!(seen.len(), 4);
        for (published, source) in files {
            let bytes = std::fs::read(t.path().join("src").join(source)).unwrap();
            assert_eq!(seen[&format!("title/film/v1/{published}")], bytes);
            let proof = receipt.files.iter().find(|f| f.name.as_str() == published).unwrap();
            assert_eq!(
                (proof.size, proof.sha256, proof.blake3),
                (bytes.len() as u64, sha256(&bytes), blake3(&bytes))
            );
        }
        let manifest_bytes = &seen["title/film/v1/manifest.json"];
        assert_eq!(sha256(manifest_bytes), receipt.manifest_sha256);
        let manifest: Manifest = serde_json::from_slice(manifest_bytes).unwrap();
        assert_eq!((manifest.schema.as_str(), manifest.version), (MANIFEST_SCHEMA, 1));
        assert_eq!(manifest.publication.files, receipt.files);
        assert_eq!(manifest.publication.title, "Имя «с кавычками» 🎬");
        assert_eq!(verify_published(&out, &receipt.folder).unwrap(), manifest);
        assert_eq!(fence.receipts.lock().unwrap().as_slice(), [receipt]);
        assert!(stages_left(&t.path().join("out")).is_empty());
    }
}

#[test]
fn the_manifest_appears_after_all_files_and_the_receipt_after_the_manifest() {
    #[derive(Debug, Default)]
    struct Order(std::sync::Mutex<Vec<String>>);
    impl trix_storage::ops::Ops for Order {
        fn run(
            &self,
            op: &'static str,
            object: &str,
            call: &mut dyn FnMut() -> std::io::Result<()>,
        ) -> std::io::Result<()> {
            call()?;
            self.0.lock().unwrap().push(format!("{op} {object}"));
            Ok(())
        }
    }
    let (_t, from, out) = scene();
    let order = Arc::new(Order::default());
    let out = out.with_ops(order.clone());
    let request = request(&from, "film", &[("a.mp4", "a"), ("b.mp4", "b")]);
    publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default()).unwrap();
    let calls = order.0.lock().unwrap();
    let at = |what: &str| {
        calls.iter().position(|c| c == what).unwrap_or_else(|| panic!("no {what} in {calls:#?}"))
    };
    let steps = [
        "fsync out:.trix/stage/7-1/files/a.mp4",
        "link out:film/v1/a.mp4",
        "link out:film/v1/b.mp4",
        "fsync_dir out:film/v1",
        "fsync out:.trix/stage/7-1/manifest.json",
        "link out:film/v1/manifest.json",
    ];
    assert!(steps.map(at).is_sorted(), "{calls:#?}");
    // The stage is read back before anything is linked.
    assert!(at("read out:.trix/stage/7-1/files/b.mp4") < at("link out:film/v1/a.mp4"));
}

#[test]
fn publishing_the_same_again_changes_nothing_and_gives_the_same_receipt() {
    for method in METHODS {
        let (t, from, out) = scene();
        let files = [("a.mp4", "a"), ("b.mp4", "b")];
        let mut memory = MemoryFence::default();
        let mut folder = FolderFence::new(&out);
        let fences: [(&mut dyn Fence, &str); 2] = [(&mut memory, "m"), (&mut folder, "f")];
        for (fence, target) in fences {
            let first =
                publish(&out, method, "7-1", request(&from, target, &files), fence).unwrap();
            let seen = visible(&t.path().join("out"));
            for stage in ["7-2", "7-1"] {
                let again =
                    publish(&out, method, stage, request(&from, target, &files), fence).unwrap();
                assert_eq!(again, first);
            }
            assert_eq!(visible(&t.path().join("out")), seen);
            assert!(stages_left(&t.path().join("out")).is_empty());
        }
    }
}

#[test]
fn another_content_becomes_the_next_version_and_the_old_one_stays() {
    let (t, from, out) = scene();
    let mut fence = FolderFence::new(&out);
    let one = publish(
        &out,
        MoveMethod::Link,
        "7-1",
        request(&from, "film", &[("a.mp4", "a")]),
        &mut fence,
    )
    .unwrap();
    let two = publish(
        &out,
        MoveMethod::Link,
        "7-2",
        request(&from, "film", &[("a.mp4", "b")]),
        &mut fence,
    )
    .unwrap();
    assert_eq!((one.version, two.version), (1, 2));
    verify_published(&out, &one.folder).unwrap();
    verify_published(&out, &two.folder).unwrap();
    // A folder that someone made by hand is not taken for ours.
    std::fs::create_dir(t.path().join("out/film/v3")).unwrap();
    let four = publish(
        &out,
        MoveMethod::Link,
        "7-3",
        request(&from, "film", &[("a.mp4", "c")]),
        &mut fence,
    )
    .unwrap();
    assert_eq!(four.version, 4);
}

#[test]
fn a_file_that_is_in_the_way_is_a_conflict_and_stays_as_it_was() {
    for method in METHODS {
        // The last has the right size, and one bit that is not.
        let mut twin = noise(0, 70_000);
        twin[35_000] ^= 1;
        let other = b"someone else's".to_vec();
        for (spoil, foreign) in [("a.mp4", &other), (MANIFEST, &other), ("a.mp4", &twin)] {
            let (t, from, out) = scene();
            let folder = t.path().join("out/film/v1");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(spoil), foreign).unwrap();
            let request = request(&from, "film", &[("a.mp4", "a")]);
            let e = publish(&out, method, "7-1", request, &mut MemoryFence::default()).unwrap_err();
            assert!(matches!(e, StorageError::Conflict { .. }), "{method:?} {spoil}: {e:?}");
            let failure = Failure::from(e);
            assert_eq!(
                (failure.code.as_str(), failure.class),
                ("publish_conflict", ErrorClass::Deterministic)
            );
            assert_eq!(&std::fs::read(folder.join(spoil)).unwrap(), foreign);
            assert_eq!(folder.join(MANIFEST).exists(), spoil == MANIFEST);
        }
    }
}

#[test]
fn links_planted_at_the_destination_are_refused() {
    let (t, from, out) = scene();
    let outside = t.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("victim"), "precious").unwrap();
    symlink(&outside, t.path().join("out/linked")).unwrap();
    let fence = MemoryFence::default();
    let into_link = request(&from, "linked", &[("a.mp4", "a")]);
    let e = publish(&out, MoveMethod::Link, "7-1", into_link, &mut fence.other_task()).unwrap_err();
    assert!(matches!(e, StorageError::Escape { .. }), "{e:?}");
    std::fs::create_dir_all(t.path().join("out/film/v1")).unwrap();
    symlink(outside.join("victim"), t.path().join("out/film/v1/a.mp4")).unwrap();
    for method in METHODS {
        let onto_link = request(&from, "film", &[("a.mp4", "a")]);
        let e = publish(&out, method, "8-1", onto_link, &mut fence.other_task()).unwrap_err();
        assert!(matches!(e, StorageError::Escape { .. }), "{e:?}");
    }
    assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_hard_link_planted_at_the_destination_does_not_let_us_write_into_its_other_name() {
    let (t, from, out) = scene();
    std::fs::write(t.path().join("victim"), "precious").unwrap();
    std::fs::create_dir_all(t.path().join("out/film/v1")).unwrap();
    std::fs::hard_link(t.path().join("victim"), t.path().join("out/film/v1/a.mp4")).unwrap();
    for method in METHODS {
        let request = request(&from, "film", &[("a.mp4", "a")]);
        let e = publish(&out, method, "7-1", request, &mut MemoryFence::default()).unwrap_err();
        assert!(matches!(e, StorageError::Conflict { .. }), "{e:?}");
    }
    assert_eq!(std::fs::read(t.path().join("victim")).unwrap(), b"precious");
}

#[test]
fn names_that_collide_or_are_ours_are_refused_before_anything_is_written() {
    let (t, from, out) = scene();
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("film", &[("Ёлка.mp4", "a"), ("ёлка.MP4", "b")]),
        ("film", &[("a.mp4", "a"), ("a.mp4", "b")]),
        ("film", &[("Manifest.json", "a")]),
        ("film", &[("a/.trix-x", "a")]),
        (".trix/retired", &[("a.mp4", "a")]),
    ];
    for (target, files) in cases {
        let request = request(&from, target, files);
        let done = publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default());
        assert!(done.is_err(), "{target} {files:?}");
        assert!(visible(&t.path().join("out")).is_empty());
        assert!(stages_left(&t.path().join("out")).is_empty());
    }
}

#[test]
fn bytes_other_than_those_that_were_verified_are_never_published() {
    let (t, from, out) = scene();
    let bytes = std::fs::read(t.path().join("src/a")).unwrap();
    let right =
        Known { size: Some(70_000), sha256: Some(sha256(&bytes)), blake3: Some(blake3(&bytes)) };
    let wrong = [
        Known { size: Some(1), ..right },
        Known { sha256: Some(sha256(b"x")), ..right },
        Known { blake3: Some(blake3(b"x")), ..right },
    ];
    for known in wrong {
        let mut request = request(&from, "film", &[("a.mp4", "a")]);
        request.items[0].known = known;
        let e = publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default())
            .unwrap_err();
        assert!(matches!(e, StorageError::Damaged { .. }), "{e:?}");
        assert!(visible(&t.path().join("out")).is_empty());
        assert!(stages_left(&t.path().join("out")).is_empty());
    }
    let mut request = request(&from, "film", &[("a.mp4", "a")]);
    request.items[0].known = right;
    publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default()).unwrap();
}

/// The archive copy: a file that intake staged, with the delivery's checksums.
fn archive_request(out: &WritableShare, t: &Path, stage: &str) -> Request {
    let bytes = std::fs::read(t.join("src/a")).unwrap();
    let path = trix_storage::StageName::new(stage)
        .and_then(|name| trix_storage::Stage::open_or_create(out.dir(), &name))
        .map(|stage| stage_file(&stage, "film.mov", &bytes))
        .unwrap();
    archive_request_for(path, &bytes)
}

pub fn archive_request_for(staged: trix_model::RelPath, bytes: &[u8]) -> Request {
    let mut fixity = Fixity::new();
    fixity.update(bytes);
    let hashes = fixity.finish();
    Request {
        role: "archive".to_owned(),
        title: "Film".to_owned(),
        target: rel("archive/film"),
        job: Some(trix_model::JobId(7)),
        engine: "test-engine".to_owned(),
        media: None,
        items: vec![Item {
            name: rel("film.mov"),
            from: ItemFrom::Staged(staged),
            known: Known { size: Some(hashes.size), sha256: Some(hashes.sha256), blake3: None },
            source: Some(SourceProof {
                location: "in:deliveries/film.mov".parse().unwrap(),
                mtime_ns: 1_700_000_000_123_456_789,
                hashes,
            }),
        }],
    }
}

#[test]
fn an_archive_copy_staged_by_intake_is_moved_and_its_manifest_proves_the_delivery() {
    for method in METHODS {
        let (t, _from, out) = scene();
        let bytes = std::fs::read(t.path().join("src/a")).unwrap();
        let mut fence = MemoryFence::default();
        let request = archive_request(&out, t.path(), "3-1");
        let receipt = publish(&out, method, "9-1", request, &mut fence).unwrap();
        let manifest = Manifest::read(&out, &receipt.folder).unwrap();
        let source = manifest.publication.files[0].source.clone().unwrap();
        let mut fixity = Fixity::new();
        fixity.update(&bytes);
        assert_eq!(source.hashes, fixity.finish());
        assert_eq!(source.location.to_string(), "in:deliveries/film.mov");
        assert_eq!(visible(&t.path().join("out"))["archive/film/v1/film.mov"], bytes);
        // Moved, not copied: intake's stage is empty, and asking again finds all done.
        assert!(!t.path().join("out/.trix/stage/3-1/film.mov").exists());
        let lost = archive_request_for(rel(".trix/stage/3-1/film.mov"), &bytes);
        assert_eq!(publish(&out, method, "9-2", lost, &mut fence).unwrap(), receipt);
    }
}

#[test]
fn a_staged_copy_with_other_bytes_than_intake_read_is_never_published() {
    let (t, _from, out) = scene();
    let wrong = [
        Known { sha256: Some(sha256(b"x")), ..Known::default() },
        Known { blake3: Some(blake3(b"x")), ..Known::default() },
    ];
    for known in wrong {
        let mut request = archive_request(&out, t.path(), "3-1");
        request.items[0].known = known;
        request.items[0].source = None;
        let e = publish(&out, MoveMethod::Link, "9-1", request, &mut MemoryFence::default());
        assert!(matches!(e, Err(StorageError::Damaged { .. })), "{e:?}");
        std::fs::remove_dir_all(t.path().join("out/.trix/stage/3-1")).unwrap();
    }
    // Nor one that differs from the delivery's checksums.
    let mut request = archive_request(&out, t.path(), "3-1");
    request.items[0].known = Known::default();
    request.items[0].source.as_mut().unwrap().hashes.sha256 = sha256(b"x");
    let e = publish(&out, MoveMethod::Link, "9-1", request, &mut MemoryFence::default());
    assert!(matches!(e, Err(StorageError::Damaged { .. })), "{e:?}");
    assert!(visible(&t.path().join("out")).is_empty());
}

#[test]
fn bytes_that_the_share_lost_or_turned_after_they_were_written_are_seen_when_re_read() {
    type Spoil = fn(&Path);
    let spoils: [Spoil; 2] = [
        |p| {
            let mut bytes = std::fs::read(p).unwrap();
            bytes[9] ^= 4;
            std::fs::write(p, bytes).unwrap();
        },
        |p| std::fs::File::options().write(true).open(p).unwrap().set_len(100).unwrap(),
    ];
    for spoil in spoils {
        let (t, from, out) = scene();
        let path = t.path().join("out/.trix/stage/7-1/files/a.mp4");
        let object = "out:.trix/stage/7-1/files/a.mp4";
        let out = out.with_ops(Arc::new(Before { op: "fsync", object, act: move || spoil(&path) }));
        let request = request(&from, "film", &[("a.mp4", "a")]);
        let e = publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default());
        assert!(matches!(e, Err(StorageError::Damaged { .. })), "{e:?}");
        assert!(visible(&t.path().join("out")).is_empty());
    }
}

#[test]
fn a_file_that_appears_between_the_look_and_the_move_is_not_overwritten() {
    for (method, op) in
        [(MoveMethod::Link, "link"), (MoveMethod::RenameNoReplace, "rename_noreplace")]
    {
        let (t, from, out) = scene();
        let path = t.path().join("out/film/v1/a.mp4");
        let put = path.clone();
        let act = move || std::fs::write(&put, "someone else's").unwrap();
        let out = out.with_ops(Arc::new(Before { op, object: "out:film/v1/a.mp4", act }));
        let request = request(&from, "film", &[("a.mp4", "a")]);
        let e = publish(&out, method, "7-1", request, &mut MemoryFence::default()).unwrap_err();
        assert!(matches!(e, StorageError::Conflict { .. }), "{e:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"someone else's");
    }
}

#[test]
fn a_staged_copy_that_is_gone_before_it_was_prepared_is_reported_as_lost() {
    let (t, _from, out) = scene();
    let bytes = std::fs::read(t.path().join("src/a")).unwrap();
    let request = archive_request_for(rel(".trix/stage/3-1/film.mov"), &bytes);
    let e = publish(&out, MoveMethod::Link, "9-1", request, &mut MemoryFence::default());
    let failure = Failure::from(e.unwrap_err());
    assert_eq!((failure.code.as_str(), failure.class), ("stage_lost", ErrorClass::Transient));
}

#[test]
fn a_file_outside_the_stages_is_never_moved_whatever_a_slot_reports() {
    let (t, _from, out) = scene();
    std::fs::create_dir_all(t.path().join("out/other/v1")).unwrap();
    std::fs::write(t.path().join("out/other/v1/film.mov"), "published").unwrap();
    for path in ["other/v1/film.mov", ".trix/stage/film.mov", ".trix/stagex/1-1/film.mov"] {
        let request = archive_request_for(rel(path), b"published");
        let e = publish(&out, MoveMethod::Link, "9-1", request, &mut MemoryFence::default());
        assert!(matches!(e, Err(StorageError::Conflict { .. })), "{path}: {e:?}");
    }
    // Nor when it stands in a draft.
    let mut fence = MemoryFence::default();
    *fence.fail.lock().unwrap() = Some(("prepare", true));
    let request = archive_request(&out, t.path(), "3-1");
    publish(&out, MoveMethod::Link, "9-2", request, &mut fence).unwrap_err();
    let mut prepared = fence.begun().unwrap().unwrap();
    prepared.draft.staged = vec![rel("other/v1/film.mov")];
    let publisher = Publisher::new(&out, MoveMethod::Link, stage_name("9-3"));
    assert!(publisher.roll_forward(&prepared, &mut fence).is_err());
    assert_eq!(std::fs::read(t.path().join("out/other/v1/film.mov")).unwrap(), b"published");
}

#[test]
fn another_attempt_rolls_a_prepared_publication_forward_from_the_first_ones_stage() {
    let (t, from, out) = scene();
    let fence = MemoryFence::default();
    *fence.fail.lock().unwrap() = Some(("prepare", true));
    let files = [("a.mp4", "a"), ("b.mp4", "b")];
    let lost =
        publish(&out, MoveMethod::Link, "7-1", request(&from, "film", &files), &mut fence.clone());
    assert!(matches!(lost, Err(StorageError::Refused(_))), "{lost:?}");
    assert_eq!(stages_left(&t.path().join("out")), ["7-1"], "the prepared stage must stay");
    let prepared = fence.clone().begun().unwrap().unwrap();
    let publisher = Publisher::new(&out, MoveMethod::Link, stage_name("7-2"));
    let receipt = publisher.roll_forward(&prepared, &mut fence.clone()).unwrap();
    verify_published(&out, &receipt.folder).unwrap();
    // And if that stage is gone too, publishing again stages anew.
    let gone = MemoryFence::default();
    *gone.fail.lock().unwrap() = Some(("prepare", true));
    let other = || request(&from, "other", &files);
    assert!(publish(&out, MoveMethod::Link, "8-1", other(), &mut gone.clone()).is_err());
    std::fs::remove_dir_all(t.path().join("out/.trix/stage/8-1")).unwrap();
    let prepared = gone.clone().begun().unwrap().unwrap();
    let e = publisher.roll_forward(&prepared, &mut gone.clone()).unwrap_err();
    assert!(matches!(e, StorageError::StageLost { .. }), "{e:?}");
    let receipt = publish(&out, MoveMethod::Link, "8-2", other(), &mut gone.clone()).unwrap();
    verify_published(&out, &receipt.folder).unwrap();
}

#[test]
fn a_stop_while_staging_leaves_nothing() {
    let (t, from, out) = scene();
    let publisher = Publisher::new(&out, MoveMethod::Link, stage_name("7-1"));
    let mut fence = MemoryFence::default();
    let e = publisher
        .publish(request(&from, "film", &[("a.mp4", "a")]), &mut fence, &mut |_, _| {
            Err(Failure::bug("cancelled"))
        })
        .unwrap_err();
    assert!(matches!(e, StorageError::Refused(_)), "{e:?}");
    assert!(stages_left(&t.path().join("out")).is_empty());
    assert!(fence.rows.lock().unwrap().is_empty());
}

#[test]
fn no_room_is_seen_before_anything_is_written() {
    let Some(fs) = SmallFs::mount("publish_no_space", 100_000) else { return };
    let (_t, from, _out) = scene();
    let out = writable(&fs.path());
    let request = request(&from, "film", &[("a.mp4", "a"), ("b.mp4", "b")]);
    let e = publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default());
    let e = e.unwrap_err();
    assert!(matches!(e, StorageError::NoSpace { need: 140_001, .. }), "{e:?}");
    assert_eq!(Failure::from(e).class, ErrorClass::Resource);
    assert!(stages_left(&fs.path()).is_empty());
}

#[test]
fn a_disk_that_fills_up_while_staging_is_a_resource_failure_and_is_cleaned() {
    let Some(fs) = SmallFs::mount("publish_fills_up", 200_000) else { return };
    let (_t, from, _out) = scene();
    let out = writable(&fs.path());
    let request = request(&from, "film", &[("a.mp4", "a"), ("b.mp4", "b")]);
    let filler = fs.path().join("filler");
    let mut filled = false;
    let e = Publisher::new(&out, MoveMethod::Link, stage_name("7-1"))
        .publish(request, &mut MemoryFence::default(), &mut |_, _| {
            if !filled {
                filled = true;
                // Takes what was free when the room was asked for.
                let e = std::fs::write(&filler, vec![1; 200_000]).unwrap_err();
                assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
            }
            Ok(())
        })
        .unwrap_err();
    let failure = Failure::from(e);
    assert_eq!((failure.code.as_str(), failure.class), ("no_space", ErrorClass::Resource));
    assert!(stages_left(&fs.path()).is_empty());
    assert_eq!(visible(&fs.path()).len(), 1, "only the filler");
}

#[test]
fn retracting_takes_a_version_out_of_sight_as_a_whole_and_can_be_repeated() {
    let (t, from, out) = scene();
    let mut fence = FolderFence::new(&out);
    let ask = |from| request(from, "title/film", &[("a.mp4", "a"), ("x/b.mp4", "b")]);
    let first = publish(&out, MoveMethod::Link, "7-1", ask(&from), &mut fence).unwrap();
    let hidden = retract(&out, &rel("title/film"), 1).unwrap();
    assert!(visible(&t.path().join("out")).is_empty());
    assert_eq!(retract(&out, &rel("title/film"), 1).unwrap(), hidden);
    assert_eq!(verify_published(&out, &hidden).unwrap().publication.files, first.files);
    assert!(retract(&out, &rel("title/film"), 2).unwrap_err().is_not_found());
    // Publishing the same again after that is a new version: names are write-once.
    let second = publish(&out, MoveMethod::Link, "7-2", ask(&from), &mut fence).unwrap();
    assert_eq!(second.version, 2);
    verify_published(&out, &second.folder).unwrap();
    // Deleted for good, its number is still not given again.
    purge_retired(&out, &rel("title/film"), 1).unwrap();
    assert_eq!(std::fs::read_dir(t.path().join("out").join(hidden.as_str())).unwrap().count(), 0);
    let again = publish(&out, MoveMethod::Link, "7-3", ask(&from), &mut fence).unwrap();
    assert_eq!(again, second);
    assert!(purge_retired(&out, &rel("title/film"), 2).unwrap_err().is_not_found());
}

#[test]
fn a_local_share_can_link_and_tells_case_apart() {
    let (t, _from, out) = scene();
    let found = Capabilities::probe(&out).unwrap();
    assert_eq!(found, Capabilities { move_method: MoveMethod::Link, case_sensitive: true });
    assert_eq!(std::fs::read_dir(t.path().join("out/.trix/probe")).unwrap().count(), 0);
}

/// A file system that lacks calls: what servers without hard links, and sshfs, answer.
#[derive(Debug)]
struct Lacking(&'static [&'static str]);

impl trix_storage::ops::Ops for Lacking {
    fn run(
        &self,
        op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.0.contains(&op) {
            let errno =
                if op == "link" { rustix::io::Errno::OPNOTSUPP } else { rustix::io::Errno::INVAL };
            return Err(errno.into());
        }
        call()
    }
}

#[test]
fn the_way_to_move_follows_from_what_the_share_can_do() {
    for (lacks, method) in [
        (["link"].as_slice(), MoveMethod::RenameNoReplace),
        (["link", "rename_noreplace"].as_slice(), MoveMethod::MarkerRename),
    ] {
        let (t, from, out) = scene();
        let out = out.with_ops(Arc::new(Lacking(lacks)));
        assert_eq!(Capabilities::probe(&out).unwrap().move_method, method);
        // The fence in the folder, markers and single files work there too.
        let mut fence = FolderFence::new(&out);
        let request = request(&from, "film", &[("a.mp4", "a")]);
        let receipt = publish(&out, method, "7-1", request, &mut fence).unwrap();
        verify_published(&out, &receipt.folder).unwrap();
        out.ensure_marker().unwrap();
        std::fs::write(t.path().join("out/from"), "new").unwrap();
        std::fs::write(t.path().join("out/taken"), "old").unwrap();
        let taken = place_new(out.dir(), &rel("from"), &rel("taken"));
        assert!(matches!(taken, Err(StorageError::Conflict { .. })), "{taken:?}");
        place_new(out.dir(), &rel("from"), &rel("free")).unwrap();
        assert_eq!(std::fs::read(t.path().join("out/taken")).unwrap(), b"old");
        assert_eq!(std::fs::read(t.path().join("out/free")).unwrap(), b"new");
    }
}

#[test]
fn a_file_that_may_not_be_linked_is_renamed_without_replacing() {
    let (t, from, out) = scene();
    let out = out.with_ops(Arc::new(Lacking(&["link"])));
    let mut fence = MemoryFence::default();
    let ask = || request(&from, "film", &[("a.mp4", "a")]);
    let receipt = publish(&out, MoveMethod::Link, "7-1", ask(), &mut fence).unwrap();
    verify_published(&out, &receipt.folder).unwrap();
    std::fs::write(t.path().join("out/film/v1/a.mp4"), "someone else's").unwrap();
    let e = publish(&out, MoveMethod::Link, "7-2", ask(), &mut fence).unwrap_err();
    assert!(matches!(e, StorageError::Conflict { .. }), "{e:?}");
}

#[test]
fn a_single_file_replaces_another_only_when_that_was_asked_for() {
    let (t, _from, out) = scene();
    std::fs::write(t.path().join("out/from"), "new").unwrap();
    std::fs::write(t.path().join("out/film.mp4"), "old").unwrap();
    assert!(place_new(out.dir(), &rel("from"), &rel("film.mp4")).is_err());
    assert_eq!(std::fs::read(t.path().join("out/film.mp4")).unwrap(), b"old");
    place_replacing(out.dir(), &rel("from"), &rel("film.mp4")).unwrap();
    assert_eq!(std::fs::read(t.path().join("out/film.mp4")).unwrap(), b"new");
}

#[test]
fn a_published_file_that_was_edited_later_is_found() {
    let (t, from, out) = scene();
    let request = request(&from, "film", &[("a.mp4", "a")]);
    let receipt =
        publish(&out, MoveMethod::Link, "7-1", request, &mut MemoryFence::default()).unwrap();
    let path = t.path().join("out/film/v1/a.mp4");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let e = verify_published(&out, &receipt.folder).unwrap_err();
    assert!(matches!(e, StorageError::Damaged { .. }), "{e:?}");
}
