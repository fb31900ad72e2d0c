//! Checksums against those of other people's programs, and checksum files as they are delivered.

use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trix_model::digest::SourceHashes;
use trix_model::{Failure, Finding, Severity};
use trix_plan::task::SidecarAlgorithm::{Md5, Sha256};
use trix_storage::fixity::{SidecarError, parse_sidecar, sidecar_of};
use trix_storage::{Fixity, OncePass, StorageError, compare_sidecar, copy_source};

use crate::common::*;

fn hashes(bytes: &[u8]) -> SourceHashes {
    let mut fixity = Fixity::new();
    for piece in bytes.chunks(777) {
        fixity.update(piece);
    }
    fixity.finish()
}

#[test]
fn the_three_checksums_of_one_pass_are_those_of_the_published_vectors() {
    // RFC 1321, FIPS 180-4, and the xxhash project's published values for XXH3-128.
    let abc = hashes(b"abc");
    assert_eq!(abc.md5.to_string(), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(
        abc.sha256.to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(abc.xxh3.to_string(), "06b05ab6733a618578af5f94892f3950");
    let empty = hashes(b"");
    assert_eq!(empty.md5.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(empty.xxh3.to_string(), "99aa06d3014798d86001c324468d497f");
    assert_eq!((empty.size, abc.size), (0, 3));
}

#[test]
fn checksums_equal_those_of_coreutils() {
    let t = temp();
    let path = t.path().join("noise");
    let bytes = noise(3, 3 * (1 << 20) + 17);
    std::fs::write(&path, &bytes).unwrap();
    let ours = hashes(&bytes);
    for (program, sum) in [("md5sum", ours.md5.to_string()), ("sha256sum", ours.sha256.to_string())]
    {
        let out = Command::new(program).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap().split(' ').next().unwrap(), sum);
    }
}

#[test]
fn a_reader_that_seeks_like_a_demuxer_still_gets_right_checksums_and_copy_in_one_pass() {
    let t = temp();
    let bytes = noise(4, 36 << 20);
    std::fs::write(t.path().join("film.mov"), &bytes).unwrap();
    let out_root = t.path().join("out");
    std::fs::create_dir(&out_root).unwrap();
    let (share, out) = (share(t.path()), writable(&out_root));
    let source = share.source_ref(&rel("film.mov")).unwrap();
    let stage = out.stage(&stage_name("1-1")).unwrap();
    let copy = stage.create_file(&rel("film.mov")).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let told = seen.clone();
    let mut pass =
        OncePass::new(share.open_source(&source).unwrap(), Some(copy)).on_progress(move |n| {
            assert!(told.swap(n, Ordering::SeqCst) < n, "progress went backwards");
            Ok(())
        });
    let mut piece = vec![0; 100_000];
    let mut read_at = |pass: &mut OncePass<'_>, offset: u64| {
        pass.seek(SeekFrom::Start(offset)).unwrap();
        let n = pass.read(&mut piece).unwrap();
        let start = bytes.len().min(offset as usize);
        assert_eq!(piece[..n], bytes[start..start + n]);
        n
    };
    read_at(&mut pass, 0);
    // The index at the end, then back into what was read, across the frontier, and beyond.
    read_at(&mut pass, bytes.len() as u64 - 50_000);
    assert_eq!(pass.done(), 100_000);
    read_at(&mut pass, 40_000);
    assert_eq!(pass.done(), 140_000);
    read_at(&mut pass, 10);
    read_at(&mut pass, 30 << 20);
    assert_eq!(pass.done(), 140_000);
    // A box skipped on the way is read with what follows it.
    read_at(&mut pass, 3 << 20);
    assert_eq!(pass.done(), (3 << 20) + 100_000);
    assert_eq!(read_at(&mut pass, bytes.len() as u64 + 5), 0);
    assert_eq!(pass.seek(SeekFrom::End(-1)).unwrap(), bytes.len() as u64 - 1);
    assert!(pass.seek(SeekFrom::Current(-(37 << 20))).is_err());
    let found = pass.finish(&source).unwrap();
    assert_eq!(found, hashes(&bytes));
    assert_eq!(seen.load(Ordering::SeqCst), bytes.len() as u64);
    assert_eq!(std::fs::read(out_root.join(".trix/stage/1-1/film.mov")).unwrap(), bytes);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_refused() {
    let t = temp();
    let path = t.path().join("film.mov");
    for (case, change) in [
        (
            "grew",
            Box::new(|p: &std::path::Path| {
                std::fs::OpenOptions::new().append(true).open(p).unwrap().write_all(b"x").unwrap();
            }) as Box<dyn Fn(&std::path::Path)>,
        ),
        (
            "shrank",
            Box::new(|p: &std::path::Path| {
                std::fs::OpenOptions::new().write(true).open(p).unwrap().set_len(10).unwrap();
            }),
        ),
        (
            "rewritten",
            Box::new(|p: &std::path::Path| {
                let file = std::fs::OpenOptions::new().write(true).open(p).unwrap();
                let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
                file.set_modified(later).unwrap();
            }),
        ),
    ] {
        std::fs::write(&path, noise(5, 1 << 20)).unwrap();
        let share = share(t.path());
        let source = share.source_ref(&rel("film.mov")).unwrap();
        let mut pass = OncePass::new(share.open_source(&source).unwrap(), None);
        let mut some = [0; 1000];
        pass.read_exact(&mut some).unwrap();
        change(&path);
        let e = pass.finish(&source).unwrap_err();
        assert!(matches!(e, StorageError::Changed { .. }), "{case}: {e:?}");
        assert_eq!(Failure::from(e).code, "source_changed");
    }
}

#[test]
fn a_copy_is_bit_exact_and_can_be_stopped() {
    let t = temp();
    let bytes = noise(6, (2 << 20) + 5);
    std::fs::write(t.path().join("film.mov"), &bytes).unwrap();
    let (share, out) = (share(t.path()), writable(t.path()));
    let source = share.source_ref(&rel("film.mov")).unwrap();
    let stage = out.stage(&stage_name("1-1")).unwrap();
    let file = || share.open_source(&source).unwrap();
    let copy = stage.create_file(&rel("whole")).unwrap();
    assert_eq!(copy_source(file(), &source, copy, |_| Ok(())).unwrap(), hashes(&bytes));
    assert_eq!(std::fs::read(t.path().join(".trix/stage/1-1/whole")).unwrap(), bytes);
    let copy = stage.create_file(&rel("stopped")).unwrap();
    let stop = |_| Err(Failure::bug("cancelled"));
    let e = copy_source(file(), &source, copy, stop).unwrap_err();
    assert!(matches!(e, StorageError::Refused(_)), "{e:?}");
}

#[test]
fn a_copy_that_finds_no_room_is_a_resource_failure() {
    let Some(fs) = SmallFs::mount("copy_no_space", 1 << 20) else { return };
    let t = temp();
    std::fs::write(t.path().join("film.mov"), noise(7, 3 << 20)).unwrap();
    let (share, out) = (share(t.path()), writable(&fs.path()));
    let source = share.source_ref(&rel("film.mov")).unwrap();
    let stage = out.stage(&stage_name("1-1")).unwrap();
    let copy = stage.create_file(&rel("film.mov")).unwrap();
    let e = copy_source(share.open_source(&source).unwrap(), &source, copy, |_| Ok(()));
    let failure = Failure::from(e.unwrap_err());
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("no_space", trix_model::ErrorClass::Resource)
    );
}

const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn verdict(text: &[u8]) -> Finding {
    compare_sidecar(Md5, "film.mov.md5", text, "film.mov", &hashes(b"abc"))
}

#[test]
fn checksum_files_of_all_makers_are_understood() {
    let upper = MD5.to_uppercase();
    for text in [
        format!("{MD5}  film.mov\n"),
        format!("{MD5} *film.mov\n"),
        format!("{MD5} film.mov"),
        format!("{MD5}\tfilm.mov\n"),
        format!("{upper} *film.mov\r\n"),
        format!("\u{feff}{MD5}  film.mov\r\n"),
        format!("MD5 (film.mov) = {MD5}\n"),
        format!("md5(film.mov)= {upper}\n"),
        MD5.to_owned(),
        format!("  {upper}  \r\n\r\n"),
        format!("# made by X\n; other\n\n{MD5} *D:\\deliveries\\film.mov\n"),
        format!("{MD5}  ./reels/FILM.MOV\n"),
        format!("00000000000000000000000000000000  other.mov\n{MD5}  film.mov\n"),
        format!("{MD5}  renamed since.mov\n"),
    ] {
        let finding = verdict(text.as_bytes());
        assert_eq!(
            (finding.code.as_str(), finding.severity),
            ("checksum_match", Severity::Info),
            "{text:?}: {finding:?}"
        );
    }
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(format!("{MD5} *film.mov\r\n").encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    assert_eq!(verdict(&utf16).code, "checksum_match");
    let sha = compare_sidecar(
        Sha256,
        "film.mov.sha256",
        format!("SHA256 (film.mov) = {SHA}").as_bytes(),
        "film.mov",
        &hashes(b"abc"),
    );
    assert_eq!(sha.code, "checksum_match");
    assert_eq!(sha.measured.as_deref(), Some(format!("sha256:{SHA}").as_str()));
}

#[test]
fn a_wrong_checksum_is_an_error_that_shows_both_values() {
    let wrong = MD5.replace('9', "8");
    let finding = verdict(format!("{wrong}  film.mov\n").as_bytes());
    assert_eq!((finding.code.as_str(), finding.severity), ("checksum_mismatch", Severity::Error));
    assert_eq!(finding.measured.as_deref(), Some(format!("md5:{MD5}").as_str()));
    assert_eq!(finding.allowed.as_deref(), Some(format!("md5:{wrong}").as_str()));
    // One entry under another name is still about the file that it came with.
    let other = verdict(format!("{wrong}  other.mov\n").as_bytes());
    assert_eq!(other.code, "checksum_mismatch");
    assert!(other.message.contains("other.mov"), "{}", other.message);
}

#[test]
fn a_checksum_file_that_says_nothing_about_the_source_is_a_warning() {
    let two = format!("{MD5}  a.mov\n{MD5}  b.mov\n");
    let ambiguous = format!("{MD5}  film.mov\n{}  film.mov\n", MD5.replace('9', "8"));
    for (text, code) in [
        (two.as_bytes(), "sidecar_no_entry"),
        (ambiguous.as_bytes(), "sidecar_unreadable"),
        (b"", "sidecar_unreadable"),
        (b"# only a comment\n", "sidecar_unreadable"),
        (b"hello\n", "sidecar_unreadable"),
        (SHA.as_bytes(), "sidecar_unreadable"),
        (b"\xff\xfeodd", "sidecar_unreadable"),
        (b"\x00\x80\xff", "sidecar_unreadable"),
        (b"900150983cd24fb0d6963f7d28e17f7\xc3\xa9  film.mov", "sidecar_unreadable"),
    ] {
        let finding = verdict(text);
        assert_eq!(
            (finding.code.as_str(), finding.severity),
            (code, Severity::Warning),
            "{text:?}"
        );
    }
    assert_eq!(
        parse_sidecar(Md5, format!("{MD5}  a\nbad\n").as_bytes()),
        Err(SidecarError::Line { line: 2, digits: 32 })
    );
}

#[test]
fn what_coreutils_writes_for_odd_names_is_read_back() {
    let t = temp();
    for file in ["имя «фильма» 🎬.mov", "back\\slash.mov", "  leading.mov", "a*b'c\".mov"]
    {
        std::fs::write(t.path().join(file), "abc").unwrap();
        for (algorithm, program, args) in [
            (Md5, "md5sum", [].as_slice()),
            (Md5, "md5sum", ["--tag"].as_slice()),
            (Sha256, "sha256sum", ["-b"].as_slice()),
        ] {
            let run = Command::new(program).args(args).arg(file).current_dir(t.path()).output();
            let out = run.unwrap().stdout;
            let finding = compare_sidecar(algorithm, "sums", &out, file, &hashes(b"abc"));
            assert_eq!(finding.code, "checksum_match", "{program} {args:?} {file}");
        }
    }
}

#[test]
fn a_checksum_file_is_known_by_its_name() {
    assert_eq!(sidecar_of("film.mov.md5"), Some((Md5, Some("film.mov"))));
    assert_eq!(sidecar_of("film.SHA256"), Some((Sha256, Some("film"))));
    assert_eq!(sidecar_of("MD5SUMS"), Some((Md5, None)));
    assert_eq!(sidecar_of(".md5"), None);
    assert_eq!(sidecar_of("film.mov"), None);
}
