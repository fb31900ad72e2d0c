//! Slots come and go without a trace, and never outlive their worker.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trix_slot::{Launcher, Outcome, Report};

use crate::support::{Bench, example, toy};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> Vec<String> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let text = std::fs::read_to_string(task.unwrap().path().join("children"));
        all.extend(text.unwrap_or_default().split_whitespace().map(str::to_owned));
    }
    all
}

/// Bytes of resident memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn alive(pid: u32) -> bool {
    // A zombie that nobody has reaped yet is dead all the same.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[test]
fn a_job_is_done_and_its_outputs_lie_in_the_stage() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    let ended = bench.run_with("slow-1500", &mut |report| match report {
        Report::Boxed(_) => seen.push("boxed".to_owned()),
        Report::Progress(p) => seen.push(p.phase.clone()),
        Report::Log(line) => seen.push(line.to_owned()),
    });
    let Outcome::Done(result) = ended.outcome else { panic!("{:?}", ended.outcome) };
    let output = &result.outputs[0];
    let file = std::fs::read(bench.stage.path().join(output.key.to_string())).unwrap();
    assert_eq!(file.len() as u64, output.size);
    assert_eq!(blake3::hash(&file).as_bytes(), output.digest.as_bytes());
    assert!(seen.iter().filter(|s| *s == "encode").count() >= 2, "{seen:?}");
    assert!(seen.contains(&"boxed".to_owned()), "{seen:?}");
    assert!(ended.log.contains(&"toy: slow-1500 on stdout".to_owned()), "{:?}", ended.log);
    assert!(ended.log.contains(&"toy: slow-1500 on stderr".to_owned()), "{:?}", ended.log);
    assert_eq!(ended.progress.done, 57);
    assert!(ended.usage.peak_ram > 0 && ended.usage.wall_ms >= 1500, "{:?}", ended.usage);
}

#[test]
fn two_runs_write_the_same_bytes() {
    let digests: Vec<_> = (0..2)
        .map(|_| match Bench::new().run("x").outcome {
            Outcome::Done(result) => result.outputs,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_cancelled_slot_is_gone_when_its_run_returns() {
    let bench = Bench::new();
    let slot = Launcher::new(toy()).start().unwrap();
    let (pid, control) = (slot.pid(), slot.control());
    let mut control = Some(control);
    let ended = slot.run(bench.job("spin"), bench.io(), "toy", bench.stall, &mut |report| {
        if matches!(report, Report::Progress(_))
            && let Some(control) = control.take()
        {
            std::thread::spawn(move || control.cancel());
        }
    });
    assert_eq!(ended.outcome, Outcome::Cancelled);
    assert!(!alive(pid));
}

#[test]
fn a_slot_that_gets_no_job_is_reaped_when_dropped() {
    let before = open_files();
    let slot = Launcher::new(toy()).start().unwrap();
    let pid = slot.pid();
    assert!(alive(pid));
    drop(slot);
    assert!(!alive(pid) && children().is_empty());
    let hello = Launcher::new(toy()).hello().unwrap();
    assert_eq!(hello.engine, "toy");
    // The thread that spawns keeps no file open.
    assert_eq!(open_files(), before);
}

#[test]
fn two_hundred_slots_leave_no_zombie_no_descriptor_and_no_memory() {
    let bench = Bench::new();
    // The first runs fill what a process fills once: the spawning thread, the allocator.
    for _ in 0..10 {
        assert!(matches!(bench.run("leak-1").outcome, Outcome::Done(_)));
        std::fs::remove_file(bench.stage.path().join("02".repeat(32))).unwrap();
    }
    let (before, memory) = (open_files(), resident());
    for n in 0..200 {
        let ended = bench.run(if n % 5 == 0 { "leak-1/say-5000" } else { "leak-1" });
        assert!(matches!(ended.outcome, Outcome::Done(_)), "run {n}: {:?}", ended.outcome);
        std::fs::remove_file(bench.stage.path().join("02".repeat(32))).unwrap();
    }
    assert_eq!(open_files(), before);
    // A leak of one log (200 lines) or one message an attempt would be ten times this.
    let grown = resident().saturating_sub(memory);
    assert!(grown < 4 << 20, "the worker grew by {grown} bytes in 200 attempts");
    assert_eq!(children(), Vec::<String>::new());
}

#[test]
fn log_lines_are_bounded_and_without_control_characters() {
    let ended = Bench::new().run("say-100000/\u{1b}[31m");
    assert!(ended.log.iter().all(|l| l.len() <= 2000), "a longer line came through");
    assert!(ended.log.iter().all(|l| !l.contains('\u{1b}')), "{:?}", ended.log);
}

#[test]
fn a_killed_worker_takes_its_slots_with_it() {
    let mut worker =
        Command::new(example("toy_worker")).arg(toy()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|l| l.contains("slot ")).unwrap();
    let pid: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(lines.any(|l| l.ends_with("works")));
    assert!(alive(pid));
    worker.kill().unwrap();
    worker.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive(pid) {
        assert!(Instant::now() < deadline, "slot {pid} outlived its worker");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_slot_outlives_the_thread_that_asked_for_it() {
    let bench = Bench::new();
    let slot = std::thread::spawn(|| Launcher::new(toy()).start().unwrap()).join().unwrap();
    let ended = slot.run(bench.job("slow-300"), bench.io(), "toy", bench.stall, &mut |_| ());
    assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?}", ended.outcome);
}

#[test]
fn an_output_belongs_to_the_user_of_the_slot() {
    let bench = Bench::new();
    let Outcome::Done(result) = bench.run("x").outcome else { panic!("it was to be done") };
    let file = bench.stage.path().join(result.outputs[0].key.to_string());
    let owner = std::fs::metadata(file).unwrap().uid();
    let user = bench.limits.user.map_or(rustix::process::geteuid().as_raw(), |(uid, _)| uid);
    assert_eq!(owner, user);
}
