//! A worker with one slot that works for ever: `toy_worker PROGRAM` says the
//! slot's process id and then `works`, and is to be killed.

use std::os::fd::OwnedFd;
use std::time::Duration;

use trix_model::digest::Key;
use trix_model::{AttemptId, Epoch, TaskId};
use trix_plan::task::{Expectation, TaskSpec, Verify};
use trix_slot::{Launcher, Limits, Report, SlotIo, SlotJob};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = std::env::args_os().nth(1).ok_or("toy_worker PROGRAM")?;
    let stage: OwnedFd = std::fs::File::open("/var/tmp")?.into();
    let expect = Expectation { video: None, audio: Vec::new() };
    let job = SlotJob {
        attempt: AttemptId { task: TaskId(1), epoch: Epoch(1) },
        task: "spin".into(),
        spec: TaskSpec::Verify(Verify { file: Key([1; 32]), expect }),
        outputs: Vec::new(),
        inputs: Vec::new(),
        tee: None,
        limits: Limits { data: 512 << 20, memory: 1 << 30, file_size: 0, user: None },
        worker_pid: 0,
    };
    let io = SlotIo { inputs: Vec::new(), cache_stage: stage, tee_stage: None };
    let slot = Launcher::new(program).start()?;
    println!("slot {}", slot.pid());
    let ended = slot.run(job, io, "toy", Duration::from_secs(600), &mut |report| {
        if matches!(report, Report::Progress(_)) {
            println!("works");
        }
    });
    Err(format!("the slot ended: {:?}", ended.outcome).into())
}
