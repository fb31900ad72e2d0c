//! The settle rule.

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

use trix_storage::settle::{Settle, observe, settle};

use crate::common::*;

#[test]
fn a_delivery_is_settled_when_two_looks_see_the_same() {
    let t = temp();
    let path = t.path().join("film.mov");
    std::fs::write(&path, noise(1, 3 << 20)).unwrap();
    let share = share(t.path());
    let look = || observe(&share, &rel("film.mov")).unwrap();
    let first = look();
    assert_eq!(settle(None, &first), Settle::FirstLook);
    assert_eq!(settle(Some(&first), &look()), Settle::Settled);
    std::fs::write(&path, noise(1, (3 << 20) + 1)).unwrap();
    assert_eq!(settle(Some(&first), &look()), Settle::Changing);
}

#[test]
fn a_file_whose_end_is_still_written_is_not_settled_even_with_equal_size_and_time() {
    let t = temp();
    let path = t.path().join("film.mov");
    let at = |ns| FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_nanos(ns));
    let file = File::create(&path).unwrap();
    file.set_len(3 << 20).unwrap();
    file.set_times(at(5_000_000_000)).unwrap();
    let share = share(t.path());
    let look = || observe(&share, &rel("film.mov")).unwrap();
    let first = look();
    // Below a second the time says nothing: sshfs has whole seconds.
    file.set_times(at(5_900_000_000)).unwrap();
    assert_eq!(settle(Some(&first), &look()), Settle::Settled);
    file.write_all_at(b"end", (3 << 20) - 3).unwrap();
    file.set_times(at(5_000_000_000)).unwrap();
    assert_eq!(settle(Some(&first), &look()), Settle::Changing);
    file.write_all_at(&[0; 3], (3 << 20) - 3).unwrap();
    file.set_times(at(6_000_000_000)).unwrap();
    assert_eq!(settle(Some(&first), &look()), Settle::Changing);
}

#[test]
fn an_empty_file_can_be_looked_at() {
    let t = temp();
    std::fs::write(t.path().join("empty"), "").unwrap();
    let seen = observe(&share(t.path()), &rel("empty")).unwrap();
    assert_eq!((seen.size, settle(Some(&seen), &seen)), (0, Settle::Settled));
}
