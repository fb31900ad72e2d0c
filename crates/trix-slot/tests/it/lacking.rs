//! Machines that lack a part of the box: the work is done all the same, and the report
//! says exactly what is missing. The lack is real to the programs: a filter around them
//! answers ENOSYS, as an older kernel does.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use trix_slot::{Boxed, Launcher, Measure, Outcome, Policy};

use crate::support::{Bench, example, toy};

/// What is taken away, and what the report must then miss.
const LACKS: &[(&str, &[Measure])] = &[
    ("landlock", &[Measure::OnlyStageFiles]),
    ("clone3", &[]),
    ("close_range", &[]),
    ("pidfd_open", &[]),
    ("seccomp", &[Measure::FewSystemCalls]),
    ("unshare", &[Measure::EmptyNetwork]),
    (
        "landlock,clone3,close_range,pidfd_open,seccomp",
        &[Measure::OnlyStageFiles, Measure::FewSystemCalls],
    ),
];

/// A worker and its slot on a machine without these calls, as this user.
struct Ran {
    outputs: serde_json::Value,
    boxed: Boxed,
}

fn run_without(lacking: Option<&str>, user: Option<u32>) -> Result<Ran, String> {
    let stage = tempfile::TempDir::new_in("/var/tmp").unwrap();
    std::fs::set_permissions(stage.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(stage.path(), user, user).unwrap();
    let mut arguments: Vec<String> = Vec::new();
    if let Some(user) = user {
        let words = [
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--clear-groups".to_owned(),
        ];
        arguments.extend(words);
    }
    if let Some(lacking) = lacking {
        arguments.extend([example("without").display().to_string(), lacking.to_owned()]);
    }
    arguments.extend([
        example("toy_worker").display().to_string(),
        toy().display().to_string(),
        "encode/slow-50".to_owned(),
        stage.path().display().to_string(),
    ]);
    let out = Command::new(&arguments[0]).args(&arguments[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(last)
        .map_err(|e| format!("{e}: {said} {}", String::from_utf8_lossy(&out.stderr)))?;
    assert_eq!(report["failure"], serde_json::Value::Null, "{lacking:?}: {report}");
    let boxed = serde_json::from_value(report["boxed"].clone()).unwrap();
    let outputs = report["outputs"].clone();
    let name = outputs[0]["key"].as_str().unwrap();
    let size = std::fs::metadata(stage.path().join(name)).unwrap().len();
    assert_eq!(outputs[0]["size"], size, "{lacking:?}");
    Ok(Ran { outputs, boxed })
}

/// Those of the kernel's measures that a report misses.
fn missing(boxed: &Boxed) -> Vec<Measure> {
    let kernels = [Measure::EmptyNetwork, Measure::OnlyStageFiles, Measure::FewSystemCalls];
    let missing = boxed.missing.iter().map(|m| m.measure).filter(|m| kernels.contains(m));
    let mut missing: Vec<Measure> = missing.collect();
    missing.sort();
    missing
}

fn works_as(user: Option<u32>) -> Result<(), String> {
    let whole = run_without(None, user)?;
    let base = missing(&whole.boxed);
    for (lacking, expected) in LACKS {
        let ran = run_without(Some(lacking), user)?;
        assert_eq!(ran.outputs, whole.outputs, "{lacking}: other bytes");
        let mut expected: Vec<Measure> = expected.iter().chain(&base).copied().collect();
        expected.sort();
        expected.dedup();
        assert_eq!(missing(&ran.boxed), expected, "{lacking}: {:?}", ran.boxed);
        for m in ran.boxed.missing.iter().filter(|m| !base.contains(&m.measure)) {
            if [Measure::OnlyStageFiles, Measure::FewSystemCalls].contains(&m.measure) {
                assert_eq!(m.errno, Some(libc::ENOSYS), "{lacking}: {m:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn work_is_done_on_machines_that_lack_a_part_of_the_box() {
    works_as(None).unwrap();
}

#[test]
fn work_is_done_there_by_a_user_without_privileges_too() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP work_is_done_there_by_a_user_without_privileges_too: covered by the other");
        return;
    }
    if let Err(reason) = works_as(Some(65534)) {
        // The programs may lie where only root can reach them.
        println!("SKIP work_is_done_there_by_a_user_without_privileges_too: {reason}");
    }
}

/// A launcher whose slots lack these calls.
fn launcher_without(program: &str, lacking: &str) -> Launcher {
    let program = example(program).display().to_string();
    Launcher::new(example("without")).with_args([lacking, program.as_str(), "slot"])
}

#[test]
fn without_landlock_every_name_is_refused_by_the_filter() {
    let bench = Bench::new();
    for attempt in ["read a file", "list a folder", "create a file", "write beside the stage"] {
        let mut job = bench.job(attempt);
        job.outputs.clear();
        let slot = launcher_without("hostile_slot", "landlock").start().unwrap();
        let ended = slot.run(job, bench.io(), "toy", bench.stall, &mut |_| ());
        let Outcome::Done(result) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(result.detail.as_ref().unwrap()["errno"], libc::EPERM, "{attempt}");
    }
}

#[test]
fn without_the_filter_landlock_and_the_empty_network_still_hold() {
    let bench = Bench::new();
    let boxed = launcher_without("toy_slot", "seccomp").trial(bench.limits.user).unwrap().1;
    if boxed.landlock.is_none() || boxed.missing.iter().any(|m| m.measure == Measure::EmptyNetwork)
    {
        println!("SKIP without_the_filter_landlock_and_the_empty_network_still_hold: {boxed:?}");
        return;
    }
    for attempt in ["read a file", "create a file", "write beside the stage"] {
        let mut job = bench.job(attempt);
        job.outputs.clear();
        let slot = launcher_without("hostile_slot", "seccomp").start().unwrap();
        let ended = slot.run(job, bench.io(), "toy", bench.stall, &mut |_| ());
        let Outcome::Done(result) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(result.detail.as_ref().unwrap()["errno"], libc::EACCES, "{attempt}");
    }
    let slot = launcher_without("toy_slot", "seccomp").start().unwrap();
    let ended = slot.run(bench.job("look"), bench.io(), "toy", bench.stall, &mut |_| ());
    let Outcome::Done(result) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    let seen = result.detail.as_ref().unwrap();
    // Landlock denies TCP from its fourth interface on; before, nothing is there to reach.
    let tcp = seen["connect"].as_i64().unwrap() as i32;
    assert!([libc::ENETUNREACH, libc::EACCES].contains(&tcp), "{tcp}");
    assert_eq!(seen["udp"], libc::ENETUNREACH);
}

#[test]
fn a_strict_policy_refuses_work_in_a_weak_box_and_names_what_is_missing() {
    let bench = Bench::new();
    for (lacking, words) in
        [("landlock", "Landlock"), ("seccomp", "seccomp"), ("unshare", "network")]
    {
        let launcher = launcher_without("toy_slot", lacking).with_policy(Policy::Strict);
        let boxed = launcher.trial(bench.limits.user).unwrap().1;
        let objection = launcher.policy().objection(&boxed).expect(lacking);
        assert!(objection.contains(words), "{lacking}: {objection}");
        assert_eq!(Policy::BestEffort.objection(&boxed), None);
        let slot = launcher.start().unwrap();
        let ended = slot.run(bench.job("x"), bench.io(), "toy", bench.stall, &mut |_| ());
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(failure.code, "sandbox_weak");
        assert!(failure.message.contains(words), "{lacking}: {failure}");
        assert!(ended.log.is_empty(), "it worked before it refused: {:?}", ended.log);
    }
}

#[test]
fn a_strict_policy_works_where_the_box_is_whole() {
    let bench = Bench::new();
    let launcher = Launcher::new(toy()).with_policy(Policy::Strict);
    let boxed = launcher.trial(bench.limits.user).unwrap().1;
    if let Some(objection) = Policy::Strict.objection(&boxed) {
        println!("SKIP a_strict_policy_works_where_the_box_is_whole: {objection}");
        return;
    }
    let slot = launcher.start().unwrap();
    let ended = slot.run(bench.job("x"), bench.io(), "toy", bench.stall, &mut |_| ());
    assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?}", ended.outcome);
}
