//! Memory groups, where this machine gives any away.

use std::sync::Arc;

use trix_model::ErrorClass;
use trix_slot::{Groups, Launcher, Measure, Outcome};

use crate::support::{Bench, toy};

/// Groups for slots; `None` with a line where there are none.
fn groups(test: &str) -> Option<Arc<Groups>> {
    let groups = Groups::find();
    match groups.missing().iter().find(|m| m.measure == Measure::MemoryGroup) {
        None => Some(Arc::new(groups)),
        Some(missing) => {
            println!("SKIP {test}: {missing}");
            None
        }
    }
}

#[test]
fn a_slot_above_the_memory_of_its_group_is_a_lack_of_resources() {
    let Some(groups) = groups("a_slot_above_the_memory_of_its_group") else { return };
    let mut bench = Bench::new();
    (bench.limits.memory, bench.limits.data) = (128 << 20, 4 << 30);
    let launcher = Launcher::new(toy()).with_groups(groups);
    let slot = launcher.start().unwrap();
    let ended = slot.run(bench.job("allocate-600"), bench.io(), "toy", bench.stall, &mut |_| ());
    assert!(ended.boxed.unwrap().enforced.contains(&Measure::MemoryGroup));
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Resource, "out_of_memory"));
    assert!(failure.message.contains("in phase encode"), "{}", failure.message);
}

#[test]
fn our_own_kill_is_not_taken_for_the_kernel_s() {
    let Some(groups) = groups("our_own_kill_is_not_taken_for_the_kernel_s") else { return };
    let bench = Bench::new();
    let slot = Launcher::new(toy()).with_groups(groups).start().unwrap();
    let mut victim = Some(slot.pid());
    let ended = slot.run(bench.job("spin"), bench.io(), "toy", bench.stall, &mut |report| {
        // Somebody else's kill: neither the worker's nor for want of memory.
        if matches!(report, trix_slot::Report::Progress(_))
            && let Some(pid) = victim.take()
        {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    });
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Crash, "killed"));
}

#[test]
fn groups_go_with_their_slots() {
    let Some(groups) = groups("groups_go_with_their_slots") else { return };
    let bench = Bench::new();
    let launcher = Launcher::new(toy()).with_groups(groups);
    let mine = || {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let name = format!("trix-slot-{}-", std::process::id());
        // Wherever the hierarchies are mounted.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points: Vec<&str> = mounts
            .lines()
            .filter(|l| l.contains(" - cgroup"))
            .filter_map(|l| l.split(' ').nth(4))
            .collect();
        let paths: Vec<&str> = own.lines().filter_map(|l| l.splitn(3, ':').nth(2)).collect();
        let mut found = 0;
        for point in points {
            for path in &paths {
                let Ok(entries) = std::fs::read_dir(format!("{point}{path}")) else { continue };
                let names = entries.flatten().map(|e| e.file_name());
                found += names.filter(|n| n.to_string_lossy().starts_with(&name)).count();
            }
        }
        found
    };
    let slot = launcher.start().unwrap();
    let mut during = 0;
    let ended = slot.run(bench.job("slow-200"), bench.io(), "toy", bench.stall, &mut |_| {
        during = during.max(mine());
    });
    assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?}", ended.outcome);
    assert!(during > 0, "no group was seen while the slot worked");
    assert_eq!(mine(), 0, "a group is left");
}
