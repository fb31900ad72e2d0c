//! A slot whose work is a toy: it shows how a program becomes a slot, and the
//! tests of trix-slot and trix-worker start it.
//!
//! The task's name says what to do, words separated by `/`; unknown words are
//! part of the name: `encode/0003/slow-500` writes its outputs over half a second.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use trix_model::{Digest, ErrorClass, ErrorOrigin, Failure, Progress};
use trix_plan::task::{MadeOutput, TaskResult};
use trix_slot::{KnownAnswer, OpenedIo, SlotJob, slot_main};

fn main() -> ExitCode {
    slot_main("toy", work, answer)
}

/// Right, unless it was started as `toy_slot slot sick`.
fn answer() -> Result<KnownAnswer, Failure> {
    let sick = std::env::args().any(|argument| argument == "sick");
    Ok(KnownAnswer { given: Digest([u8::from(sick); 32]), expected: Digest([0; 32]) })
}

fn work(
    job: SlotJob,
    mut io: OpenedIo,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<TaskResult, Failure> {
    let said = std::cell::Cell::new(0);
    let tell = |phase: &str, done: u64, total: u64| {
        said.set(done);
        progress(Progress { phase: phase.into(), done, total, frames: done });
    };
    tell("encode", 7, 9);
    println!("toy: {} on stdout", job.task);
    eprintln!("toy: {} on stderr", job.task);
    let mut slow = Duration::ZERO;
    let mut detail = None;
    for word in job.task.split('/') {
        let (word, number) = word.split_once('-').unwrap_or((word, ""));
        let number: u64 = number.parse().unwrap_or(0);
        match word {
            "segfault" => segfault(),
            "abort" => std::process::abort(),
            "panic" => panic!("the toy panics"),
            "exit" => std::process::exit(number as i32),
            "fail" => return Err(Failure::source("no_video", "the toy refuses").about(&job.task)),
            "crash" if number >= job.attempt.epoch.0 as u64 => std::process::abort(),
            "overflow" => println!("{}", overflow(1)),
            "spin" => loop {
                std::hint::spin_loop();
            },
            // Tenths of a second of processor time, with progress behind each.
            "burn" => {
                for _ in 0..number {
                    let begun = cpu_time();
                    while cpu_time() - begun < Duration::from_millis(100) {
                        std::hint::spin_loop();
                    }
                    tell("encode", said.get() + 1, 0);
                }
            }
            "sleep" => std::thread::sleep(Duration::from_millis(number)),
            "allocate" => {
                let bytes = std::hint::black_box(vec![1u8; (number as usize) << 20]);
                tell("encode", bytes.len() as u64, 0);
            }
            "leak" => {
                std::mem::forget(std::hint::black_box(vec![1u8; (number as usize) << 20]));
                std::mem::forget(File::open("/dev/null"));
            }
            "say" => println!("{}", "x".repeat(number as usize)),
            "nonsense" => {
                // The socket is descriptor 0; a library that writes there spoils the wire.
                rustix::io::write(rustix::stdio::stdin(), b"\x04\0\0\0nope")
                    .map_err(|e| toy(e.into()))?;
                std::thread::sleep(Duration::from_secs(60));
            }
            "large" => {
                let mut file = io.create_output(&job.outputs[0]).map_err(toy)?;
                let block = vec![0; 1 << 20];
                for _ in 0..number {
                    file.write_all(&block).map_err(|e| {
                        Failure::new(
                            ErrorClass::Resource,
                            ErrorOrigin::Node,
                            "output_too_large",
                            e.to_string(),
                        )
                    })?;
                }
            }
            "look" => detail = Some(look(&io)?),
            // Until whoever looks from outside has seen enough.
            "wait" => {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                let mode = rustix::fs::Mode::empty();
                while rustix::fs::openat(&io.cache_stage, "go", flags, mode).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "slow" => slow = Duration::from_millis(number),
            _ => {}
        }
    }
    let mut read = blake3::Hasher::new();
    for file in io.inputs.values_mut() {
        file.rewind().map_err(toy)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(toy)?;
        read.update(&bytes);
    }
    let mut outputs = Vec::new();
    for output in &job.outputs {
        let mut file = io.create_output(output).map_err(toy)?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        const BLOCKS: u32 = 50;
        for block in 0..BLOCKS {
            let line = format!("{} block {block} of {}\n", output.key, read.finalize());
            file.write_all(line.as_bytes()).map_err(toy)?;
            hasher.update(line.as_bytes());
            size += line.len() as u64;
            std::thread::sleep(slow / BLOCKS);
            tell("encode", said.get() + 1, 0);
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        outputs.push(MadeOutput { name: output.name.clone(), key: output.key, digest, size });
    }
    Ok(TaskResult { outputs, detail })
}

/// What this process took of the processor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[allow(unsafe_code, reason = "nothing else faults; the box refuses signals to oneself by kill")]
fn segfault() {
    // SAFETY: none, which is the point: nothing is mapped there.
    unsafe { std::ptr::without_provenance_mut::<u8>(4096).write_volatile(1) }
}

fn toy(e: std::io::Error) -> Failure {
    Failure::bug(format!("toy: {e}"))
}

#[allow(unconditional_recursion, reason = "it is to end the stack")]
fn overflow(n: u64) -> u64 {
    let array = std::hint::black_box([n; 1000]);
    overflow(n + 1) + array[7]
}

/// What a program in the box sees of itself; of the machine it sees nothing.
fn look(io: &OpenedIo) -> Result<serde_json::Value, Failure> {
    // What the limit leaves room for tells how many are open; procfs would tell their
    // numbers, but it is closed to a process that may not be dumped.
    let mut room = Vec::new();
    while let Ok(copy) = rustix::io::dup(rustix::stdio::stdin()) {
        room.push(copy);
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open = most.unwrap_or(0) - room.len() as u64;
    drop(room);
    let limit = |resource| {
        let limit = rustix::process::getrlimit(resource);
        (limit.current, limit.maximum)
    };
    use rustix::process::Resource;
    let connect =
        std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], 9).into(), Duration::from_secs(1));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.send_to(b"x", ("127.0.0.1", 9)));
    let write_input = io.inputs.values().next().map(|mut file| file.write_all(b"x").is_err());
    Ok(serde_json::json!({
        "open": open,
        "inputs": io.inputs.len(),
        "environment": std::env::vars().collect::<Vec<_>>(),
        "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
        "folder": std::env::current_dir().map_err(toy)?,
        "core": limit(Resource::Core),
        "files": limit(Resource::Nofile),
        "file_size": limit(Resource::Fsize),
        "memlock": limit(Resource::Memlock),
        "data": limit(Resource::Data),
        "cpu": limit(Resource::Cpu),
        "pid": std::process::id(),
        "group": rustix::process::getpgrp().as_raw_nonzero().get(),
        "connect": connect.err().map(|e| e.raw_os_error()),
        "udp": udp.err().map(|e| e.raw_os_error()),
        "dies_with_parent": rustix::process::parent_process_death_signal().ok().flatten()
            == Some(Signal::KILL),
        "dumpable": rustix::process::dumpable_behavior().ok()
            == Some(rustix::process::DumpableBehavior::Dumpable),
        "input_is_read_only": write_input,
    }))
}
