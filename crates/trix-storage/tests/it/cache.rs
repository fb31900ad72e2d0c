//! The artifact cache: first commit wins, damage is seen, pruning spares what is needed.

use std::collections::BTreeSet;
use std::fs::FileTimes;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use trix_model::{Failure, Key};
use trix_storage::{Cache, Committed, PruneRule, StorageError};

use crate::common::*;

const MAX: u64 = 1 << 30;

fn key(n: u8) -> Key {
    Key([n; 32])
}

fn open(t: &Path) -> Cache {
    Cache::open(&t.join("cache"), MAX).unwrap()
}

fn object(t: &Path, key: &Key) -> PathBuf {
    let hex = key.to_string();
    t.join("cache/objects").join(&hex[..2]).join(&hex)
}

fn record(t: &Path, key: &Key) -> PathBuf {
    object(t, key).with_file_name(format!("{key}.b3"))
}

/// Stages `bytes` and commits them.
fn commit(
    cache: &Cache,
    stage: &str,
    key: &Key,
    bytes: &[u8],
    recorded: Option<trix_model::Digest>,
) -> Result<Committed, StorageError> {
    let stage = cache.stage(&stage_name(stage)).unwrap();
    stage_file(&stage, "out", bytes);
    let done = cache.commit(&stage, &rel("out"), key, blake3(bytes), recorded);
    stage.remove().unwrap();
    done
}

fn content(cache: &Cache, key: &Key) -> Option<Vec<u8>> {
    let mut file = cache.get_verified(key, None).unwrap()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn what_was_committed_is_found_again_with_its_digest() {
    let t = temp();
    let cache = open(t.path());
    assert!(cache.get(&key(1), None).unwrap().is_none());
    let bytes = noise(1, 300_000);
    let done = commit(&cache, "1-1", &key(1), &bytes, None).unwrap();
    assert_eq!(done, Committed { digest: blake3(&bytes), size: 300_000, was_there: false });
    let mut file = cache.get(&key(1), None).unwrap().unwrap();
    assert_eq!((file.digest(), file.size()), (Some(blake3(&bytes)), 300_000));
    assert_eq!(file.verify().unwrap(), blake3(&bytes));
    assert_eq!(content(&cache, &key(1)).unwrap(), bytes);
    assert_eq!(cache.list().unwrap().len(), 1);
    assert!(stages_left(&t.path().join("cache")).is_empty());
}

#[test]
fn the_first_commit_of_a_key_wins_and_the_second_learns_its_digest() {
    let t = temp();
    let cache = open(t.path());
    commit(&cache, "1-1", &key(1), b"first", None).unwrap();
    let again = commit(&cache, "1-2", &key(1), b"first", None).unwrap();
    assert_eq!(again, Committed { digest: blake3(b"first"), size: 5, was_there: true });
    let other = commit(&cache, "1-3", &key(1), b"second", None).unwrap();
    assert_eq!(other, Committed { digest: blake3(b"first"), size: 5, was_there: true });
    assert_eq!(content(&cache, &key(1)).unwrap(), b"first");
}

#[test]
fn an_object_whose_record_is_lost_or_stale_is_judged_by_its_bytes() {
    let t = temp();
    let cache = open(t.path());
    commit(&cache, "1-1", &key(1), b"first", None).unwrap();
    for spoil in [
        Box::new(|p: &Path| std::fs::remove_file(p).unwrap()) as Box<dyn Fn(&Path)>,
        Box::new(|p: &Path| std::fs::write(p, "torn").unwrap()),
        Box::new(|p: &Path| std::fs::write(p, format!("{} 9\n", blake3(b"else"))).unwrap()),
    ] {
        spoil(&record(t.path(), &key(1)));
        // Without a word of the database nobody vouches for it.
        assert_eq!(content(&cache, &key(1)), None);
        // With one it is whole.
        assert!(cache.get_verified(&key(1), Some(blake3(b"first"))).unwrap().is_some());
        let again = commit(&cache, "1-2", &key(1), b"first", None).unwrap();
        assert!(again.was_there);
        assert_eq!(content(&cache, &key(1)).unwrap(), b"first");
    }
}

#[test]
fn a_damaged_object_is_never_served_and_is_replaced_by_the_next_commit() {
    let t = temp();
    let cache = open(t.path());
    let good = noise(2, 100_000);
    for damage in [
        Box::new(|p: &Path| {
            let mut bytes = std::fs::read(p).unwrap();
            bytes[50_000] ^= 1;
            std::fs::write(p, bytes).unwrap();
        }) as Box<dyn Fn(&Path)>,
        Box::new(|p: &Path| {
            std::fs::File::options().write(true).open(p).unwrap().set_len(7).unwrap()
        }),
        Box::new(|p: &Path| std::fs::write(p, "").unwrap()),
    ] {
        commit(&cache, "1-1", &key(1), &good, None).unwrap();
        damage(&object(t.path(), &key(1)));
        assert_eq!(content(&cache, &key(1)), None);
        // A wrong size is seen at once, wrong bytes when they are read.
        if let Some(mut direct) = cache.get(&key(1), Some(blake3(&good))).unwrap() {
            let e = direct.verify().unwrap_err();
            assert_eq!(Failure::from(e).code, "damaged");
        }
        let mended = commit(&cache, "1-2", &key(1), &good, None).unwrap();
        assert!(!mended.was_there);
        assert_eq!(content(&cache, &key(1)).unwrap(), good);
    }
}

#[test]
fn a_damaged_object_that_the_database_names_is_replaced_by_the_same_bytes_only() {
    let t = temp();
    let cache = open(t.path());
    commit(&cache, "1-1", &key(1), b"named", None).unwrap();
    std::fs::write(object(t.path(), &key(1)), "spoilt").unwrap();
    let e = commit(&cache, "1-2", &key(1), b"other", Some(blake3(b"named"))).unwrap_err();
    assert!(matches!(e, StorageError::Damaged { .. }), "{e:?}");
    assert_eq!(std::fs::read(object(t.path(), &key(1))).unwrap(), b"spoilt");
    let mended = commit(&cache, "1-3", &key(1), b"named", Some(blake3(b"named"))).unwrap();
    assert_eq!(mended, Committed { digest: blake3(b"named"), size: 5, was_there: false });
    assert_eq!(content(&cache, &key(1)).unwrap(), b"named");
}

#[test]
fn a_link_planted_in_the_place_of_an_object_is_not_followed() {
    let t = temp();
    let cache = open(t.path());
    std::fs::write(t.path().join("secret"), "secret").unwrap();
    let path = object(t.path(), &key(1));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(t.path().join("secret"), &path).unwrap();
    assert!(matches!(cache.get(&key(1), None), Err(StorageError::Escape { .. })));
    assert!(commit(&cache, "1-1", &key(1), b"x", None).is_err());
    assert_eq!(std::fs::read(t.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn an_object_above_the_limit_is_refused() {
    let t = temp();
    let cache = Cache::open(&t.path().join("cache"), 10).unwrap();
    assert!(cache.fits(10) && !cache.fits(11));
    commit(&cache, "1-1", &key(1), &[0; 10], None).unwrap();
    let e = commit(&cache, "1-2", &key(2), &[0; 11], None).unwrap_err();
    assert_eq!(Failure::from(e).code, "object_too_large");
    assert!(cache.get(&key(2), None).unwrap().is_none());
}

#[test]
fn an_object_is_known_to_be_whole_before_its_record_is_there() {
    let t = temp();
    let (plain, key) = (open(t.path()), key(1));
    let other = plain.clone();
    // Another result for the key is committed between the first one's link and its record.
    let act = move || {
        let second = commit(&other, "2-1", &key, b"second", None).unwrap();
        assert_eq!(second, Committed { digest: blake3(b"first"), size: 5, was_there: true });
    };
    let hook = Arc::new(Before { op: "rename", object: ".b3", act: once(act) });
    let cache = Cache::in_dir(plain.dir().with_ops(hook), MAX).unwrap();
    let first = commit(&cache, "1-1", &key, b"first", None).unwrap();
    assert_eq!(first, Committed { digest: blake3(b"first"), size: 5, was_there: false });
    assert_eq!(content(&plain, &key).unwrap(), b"first");
}

#[test]
fn a_damaged_object_that_another_process_has_mended_is_not_thrown_away() {
    let t = temp();
    let (plain, key) = (open(t.path()), key(1));
    commit(&plain, "1-1", &key, b"whole", None).unwrap();
    std::fs::write(object(t.path(), &key), "spoilt").unwrap();
    let other = plain.clone();
    // Just before the damaged one is taken aside, another process mends it.
    let act = move || assert!(!commit(&other, "2-1", &key, b"mended", None).unwrap().was_there);
    let hook = Arc::new(Before { op: "rename", object: ".aside", act: once(act) });
    let cache = Cache::in_dir(plain.dir().with_ops(hook), MAX).unwrap();
    let done = commit(&cache, "1-2", &key, b"third", None).unwrap();
    assert_eq!(done, Committed { digest: blake3(b"mended"), size: 6, was_there: true });
    assert_eq!(content(&plain, &key).unwrap(), b"mended");
}

/// Acts at the first call only.
fn once(act: impl Fn()) -> impl Fn() {
    let done = AtomicBool::new(false);
    move || {
        if !done.swap(true, Ordering::SeqCst) {
            act();
        }
    }
}

fn used_at(t: &Path, key: &Key, seconds: u64) {
    let file = std::fs::File::options().write(true).open(object(t, key)).unwrap();
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)))
        .unwrap();
}

#[test]
fn pruning_takes_the_least_recently_used_and_spares_pinned_and_recent_objects() {
    let t = temp();
    let cache = open(t.path());
    for n in 1..=6 {
        commit(&cache, &format!("{n}-1"), &key(n), &[n; 100], None).unwrap();
        used_at(t.path(), &key(n), 1000 + u64::from(n));
    }
    assert!(cache.touch(&key(1)).unwrap());
    assert!(!cache.touch(&key(99)).unwrap());
    let rule = PruneRule { limit: 250, pinned: BTreeSet::from([key(3)]), keep_used_since_ns: 0 };
    let pruned = cache.prune(&rule).unwrap();
    let removed: Vec<Key> = pruned.removed.iter().map(|r| r.0).collect();
    assert_eq!(removed, [key(2), key(4), key(5), key(6)]);
    assert_eq!(pruned.kept, 200);
    let mut left: Vec<Key> = cache.list().unwrap().into_iter().map(|o| o.0).collect();
    left.sort();
    assert_eq!(left, [key(1), key(3)]);
    assert!(!record(t.path(), &key(2)).exists());
    // What a committer that died left goes when it is old, and not before.
    let stray = object(t.path(), &key(3)).with_file_name(format!("{}.{}.new", key(3), key(9)));
    std::fs::write(&stray, "").unwrap();
    cache.prune(&rule).unwrap();
    assert!(stray.exists());
    cache.prune(&PruneRule { keep_used_since_ns: i64::MAX, ..rule.clone() }).unwrap();
    assert!(!stray.exists());
    // Under the limit nothing is taken; recent ones stay even above it.
    assert!(cache.prune(&rule).unwrap().removed.is_empty());
    let spare = PruneRule { limit: 0, keep_used_since_ns: 2_000_000_000_000, ..rule };
    assert!(cache.prune(&spare).unwrap().removed.is_empty());
}

#[test]
fn a_full_cache_is_a_resource_failure_and_leaves_no_object() {
    let Some(fs) = SmallFs::mount("cache_full", 1 << 20) else { return };
    let cache = Cache::open(&fs.path(), MAX).unwrap();
    let stage = cache.stage(&stage_name("1-1")).unwrap();
    let mut file = stage.create_file(&rel("out")).unwrap();
    let e = std::io::Write::write_all(&mut file, &noise(8, 2 << 20)).unwrap_err();
    let failure = Failure::from(StorageError::Io {
        op: "writing",
        object: file.object().to_owned(),
        source: e,
    });
    assert_eq!(failure.class, trix_model::ErrorClass::Resource);
    assert!(cache.list().unwrap().is_empty());
}

/// Empties the cache's folders before the n-th call.
#[derive(Debug)]
struct SweptAt {
    objects: PathBuf,
    calls: std::sync::atomic::AtomicUsize,
    at: usize,
}

impl trix_storage::ops::Ops for SweptAt {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            for folder in std::fs::read_dir(&self.objects).into_iter().flatten().flatten() {
                for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        }
        call()
    }
}

#[test]
fn a_cache_that_is_swept_at_any_call_of_a_commit_is_no_fault_of_the_source() {
    let mut failed = 0;
    for at in 0.. {
        let t = temp();
        let root = t.path().join("cache");
        open(t.path());
        let objects = root.join("objects");
        let swept = Arc::new(SweptAt { objects, calls: Default::default(), at });
        let dir = trix_storage::Dir::open(&root, "cache:").unwrap().with_ops(swept.clone());
        let cache = Cache::in_dir(dir, MAX).unwrap();
        let done = commit(&cache, "1-1", &key(1), b"bytes", None);
        if swept.calls.load(Ordering::SeqCst) <= at {
            assert!(done.is_ok() && failed > 0, "{done:?}, {failed} commits failed before");
            return;
        }
        if let Err(e) = done {
            failed += 1;
            let failure = Failure::from(e);
            assert_eq!(failure.class, trix_model::ErrorClass::Transient, "call {at}: {failure:?}");
            assert_eq!(failure.origin, trix_model::ErrorOrigin::Share, "call {at}: {failure:?}");
        }
    }
}
