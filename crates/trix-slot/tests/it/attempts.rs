//! Attempts to break out of the box, made from inside, each in a slot of its own.

use trix_model::ErrorClass;
use trix_slot::{Launcher, Outcome};

use crate::support::{Bench, example};

/// What an attempt must come to.
#[derive(Debug, PartialEq)]
enum Answer {
    Errno(i32),
    /// The process is ended, and the report names this call.
    Ended(&'static str),
}

use Answer::{Ended, Errno};

const EACCES: Answer = Errno(libc::EACCES);
const EPERM: Answer = Errno(libc::EPERM);

/// By its name in `examples/hostile_slot.rs`.
const ATTEMPTS: &[(&str, Answer)] = &[
    ("read a file", EACCES),
    ("list a folder", EACCES),
    ("look at itself", EACCES),
    ("create a file", EACCES),
    ("write beside the stage", EACCES),
    ("write the source", Errno(libc::EBADF)),
    ("open the source for writing", EACCES),
    ("cut the source", Errno(libc::EINVAL)),
    ("link out of the stage", EPERM),
    ("plant a symlink", EPERM),
    ("chmod", EPERM),
    ("tcp", EPERM),
    ("udp", EPERM),
    ("unix socket", EPERM),
    ("netlink", EPERM),
    ("execve", Ended("execve")),
    ("execveat", Ended("execveat")),
    ("fork", Ended("clone")),
    ("clone3 a process", Errno(libc::ENOSYS)),
    ("clone into a namespace", EPERM),
    ("ptrace", Ended("ptrace")),
    ("process_vm_readv", Ended("process_vm_readv")),
    ("process_vm_writev", Ended("process_vm_writev")),
    ("kill the worker", EPERM),
    ("kill process 1", EPERM),
    ("signal the worker's thread", EPERM),
    ("pidfd_open", EPERM),
    ("mount", Ended("mount")),
    ("unshare", Ended("unshare")),
    ("setns", Ended("setns")),
    ("chroot", Ended("chroot")),
    ("bpf", Ended("bpf")),
    ("io_uring_setup", Ended("io_uring_setup")),
    ("keyctl", Ended("keyctl")),
    ("add_key", Ended("add_key")),
    ("userfaultfd", Ended("userfaultfd")),
    ("perf_event_open", Ended("perf_event_open")),
    ("init_module", Ended("init_module")),
    ("kexec_load", Ended("kexec_load")),
    ("open_by_handle_at", Ended("open_by_handle_at")),
    ("setuid", Ended("setuid")),
    ("capset", Ended("capset")),
    ("memfd_create", EPERM),
    ("map code", EPERM),
    ("make memory code", EPERM),
    ("handle SIGSYS", EPERM),
    ("another filter", EPERM),
    ("be dumpable", EPERM),
    ("outlive the worker", EPERM),
    ("raise a limit", EPERM),
    ("leave the group", EPERM),
    ("type into a terminal", EPERM),
];

/// Makes one attempt; a panic names it.
fn attempt(bench: &Bench, launcher: &Launcher, name: &str, answer: &Answer) {
    let slot = launcher.start().unwrap();
    let mut job = bench.job(name);
    job.outputs.clear();
    let ended = slot.run(job, bench.io(), "toy", bench.stall, &mut |_| ());
    match (&ended.outcome, answer) {
        (Outcome::Done(result), Errno(errno)) => {
            let detail = result.detail.as_ref().unwrap();
            assert_eq!(detail["errno"], *errno, "{name}: {detail}");
        }
        (Outcome::Failed(failure), Ended(call)) => {
            assert_eq!(
                (failure.class, failure.code.as_str()),
                (ErrorClass::Crash, "forbidden_call"),
                "{name}: {failure:?}"
            );
            let named = format!("({call})");
            assert!(failure.message.contains(&named), "{name}: {}", failure.message);
            assert!(failure.message.contains("in phase break out"), "{name}: {}", failure.message);
        }
        (outcome, _) => panic!("{name}: {outcome:?} where {answer:?} was due; {:?}", ended.log),
    }
}

/// The names of what lies in the folder around the stage.
fn debris() -> Vec<&'static str> {
    let places = ["/tmp/trix-broke-out", "/var/tmp/trix-broke-out"];
    places.into_iter().filter(|place| std::path::Path::new(place).exists()).collect()
}

#[test]
fn every_attempt_to_break_out_is_refused() {
    let bench = Bench::new();
    let launcher = Launcher::new(example("hostile_slot"));
    let boxed = launcher.trial(bench.limits.user).unwrap().1;
    if !boxed.missing.is_empty() && boxed.landlock.is_none() {
        println!("SKIP every_attempt_to_break_out_is_refused: {:?}", boxed.missing);
        return;
    }
    for (name, answer) in ATTEMPTS {
        attempt(&bench, &launcher, name, answer);
    }
    assert_eq!(debris(), Vec::<&str>::new());
}

#[test]
fn a_slot_that_keeps_root_s_number_is_held_as_well() {
    let mut bench = Bench::new();
    if bench.limits.user.take().is_none() {
        println!("SKIP a_slot_that_keeps_root_s_number_is_held_as_well: not root");
        return;
    }
    std::os::unix::fs::chown(bench.stage.path(), Some(0), Some(0)).unwrap();
    let launcher = Launcher::new(example("hostile_slot"));
    for (name, answer) in ATTEMPTS {
        attempt(&bench, &launcher, name, answer);
    }
    assert_eq!(debris(), Vec::<&str>::new());
}

#[test]
fn a_refused_call_is_named_in_the_log_on_demand() {
    let bench = Bench::new();
    for (launcher, times) in [
        (Launcher::new(example("hostile_slot")), 0),
        (Launcher::new(example("hostile_slot")).naming_refused_calls(), 1),
    ] {
        let mut job = bench.job("tcp");
        job.outputs.clear();
        let slot = launcher.start().unwrap();
        let ended = slot.run(job, bench.io(), "toy", bench.stall, &mut |_| ());
        let Outcome::Done(result) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(result.detail.as_ref().unwrap()["errno"], libc::EPERM);
        let named = ended.log.iter().filter(|line| line.contains("(socket)")).count();
        assert_eq!(named, times, "{:?}", ended.log);
    }
}
