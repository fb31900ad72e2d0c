//! What a program in the box can see and do.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trix_model::Key;
use trix_slot::{Boxed, InputName, Launcher, Measure, Outcome, Report};

use crate::support::{Bench, toy};

fn look(bench: &Bench) -> (Value, Boxed) {
    let ended = bench.run("look");
    match ended.outcome {
        Outcome::Done(result) => (result.detail.unwrap(), ended.boxed.unwrap()),
        other => panic!("{other:?}; log {:?}", ended.log),
    }
}

/// What procfs says of a slot that works: a folder of it, and the slot's own report.
fn look_from_outside<T>(bench: &Bench, read: impl Fn(&Path) -> T) -> (T, Boxed) {
    let slot = Launcher::new(toy()).start().unwrap();
    let folder = PathBuf::from(format!("/proc/{}", slot.pid()));
    let mut seen = None;
    let job = bench.job("look/wait");
    let ended = slot.run(job, bench.io(), "toy", bench.stall, &mut |report| {
        if matches!(report, Report::Progress(_)) && seen.is_none() {
            seen = Some(read(&folder));
            std::fs::write(bench.stage.path().join("go"), "").unwrap();
        }
    });
    assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?} {:?}", ended.outcome, ended.log);
    (seen.unwrap(), ended.boxed.unwrap())
}

fn status(folder: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn a_slot_has_three_descriptors_and_those_of_its_job() {
    let mut bench = Bench::new();
    // Files that a careless worker left inheritable must not come through.
    let leaky = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    for n in 0..150u8 {
        let file = bench.inputs[0].1.try_clone().unwrap();
        bench.inputs.push((InputName::Artifact(Key([n; 32])), file));
    }
    let (seen, _) = look(&bench);
    assert_eq!(seen["inputs"], 151);
    assert_eq!(seen["open"], 3 + 151 + 1);
    assert_eq!(seen["input_is_read_only"], true);
    assert!(leaky.as_raw_fd() > 2);
}

#[test]
fn a_slot_has_no_environment_and_stands_in_the_root() {
    let (seen, _) = look(&Bench::new());
    assert_eq!(seen["environment"], Value::Array(vec![]));
    assert_eq!(seen["arguments"], serde_json::json!(["slot"]));
    assert_eq!(seen["folder"], "/");
}

#[test]
fn limits_are_in_place_and_hard() {
    let bench = Bench::new();
    let (seen, _) = look(&bench);
    let both = |n: u64| serde_json::json!([n, n]);
    assert_eq!(seen["core"], both(0));
    assert_eq!(seen["memlock"], both(0));
    assert_eq!(seen["file_size"], both(bench.limits.file_size));
    assert_eq!(seen["data"], both(bench.limits.data));
    assert_eq!(seen["files"], both(64 + 2 * 2));
    // It moves on with the progress, which the first heartbeat may have done already.
    let cpu = seen["cpu"][0].as_u64().unwrap();
    assert!((bench.limits.cpu..2 * bench.limits.cpu).contains(&cpu), "{cpu}");
    assert_eq!(seen["dumpable"], false);
    // A change of user clears it: the order of the box's steps is what is tested here.
    assert_eq!(seen["dies_with_parent"], true);
    assert_eq!(seen["pid"], seen["group"], "the slot leads a process group of its own");
}

#[test]
fn a_slot_has_no_capability_and_gains_none() {
    let bench = Bench::new();
    let (status, boxed) = look_from_outside(&bench, status);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert_eq!(status["Seccomp"], "2", "a filter");
    assert_eq!(status["Seccomp_filters"], "3");
    if let Some((uid, _)) = bench.limits.user {
        assert_eq!(status["Uid"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(status["Groups"], "");
        assert_eq!(boxed.uid, uid);
        assert!(boxed.enforced.contains(&Measure::OwnUser), "{boxed:?}");
    }
    for measure in [
        Measure::NoCapabilities,
        Measure::OwnGroup,
        Measure::DiesWithWorker,
        Measure::OnlyJobDescriptors,
        Measure::Limits,
        Measure::NoNewPrivileges,
        Measure::NotDumpable,
        Measure::FewSystemCalls,
    ] {
        assert!(boxed.enforced.contains(&measure), "{measure:?} is not in {boxed:?}");
    }
}

#[test]
fn a_root_worker_whose_share_keeps_owners_gets_a_slot_without_capabilities() {
    let mut bench = Bench::new();
    if bench.limits.user.take().is_none() {
        println!("SKIP a_root_worker_whose_share_keeps_owners: not root");
        return;
    }
    std::os::unix::fs::chown(bench.stage.path(), Some(0), Some(0)).unwrap();
    let (status, boxed) = look_from_outside(&bench, status);
    assert_eq!(boxed.uid, 0);
    assert!(boxed.missing.iter().any(|m| m.measure == Measure::OwnUser), "{boxed:?}");
    assert_eq!(status["CapEff"], "0000000000000000");
}

#[test]
fn the_network_is_empty_and_sockets_are_refused() {
    let bench = Bench::new();
    let (interfaces, boxed) = look_from_outside(&bench, |folder| {
        let text = std::fs::read_to_string(folder.join("net/dev")).ok()?;
        let names =
            text.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()));
        Some(names.collect::<Vec<_>>())
    });
    let (seen, _) = look(&Bench::new());
    assert_eq!(seen["connect"], serde_json::json!(libc::EPERM));
    assert_eq!(seen["udp"], serde_json::json!(libc::EPERM));
    if let Some(missing) = boxed.missing.iter().find(|m| m.measure == Measure::EmptyNetwork) {
        println!("SKIP the_network_is_empty_and_sockets_are_refused: {}", missing.reason);
        return;
    }
    match interfaces {
        // Only a loopback that is down: nothing could be reached, not even this machine.
        Some(names) => assert_eq!(names, ["lo"]),
        // Only root may look into a process that may not be dumped.
        None => assert!(bench.limits.user.is_none()),
    }
}
