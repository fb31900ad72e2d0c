//! A worker with one slot: `toy_worker PROGRAM [TASK [STAGE]]` says the slot's process id,
//! `works` whenever the slot told its progress, and at the end a line of JSON. Without a
//! task it works for ever, and is to be killed.

use std::os::fd::OwnedFd;
use std::time::Duration;

use trix_model::digest::Key;
use trix_model::{AttemptId, Epoch, TaskId};
use trix_plan::task::{Expectation, Output, TaskSpec, Verify};
use trix_slot::{Launcher, Limits, Outcome, Report, SlotIo, SlotJob};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().ok_or("toy_worker PROGRAM [TASK [STAGE]]")?;
    let task = arguments.next().unwrap_or_else(|| "spin".to_owned());
    let stage = arguments.next().unwrap_or_else(|| "/var/tmp".to_owned());
    let stage: OwnedFd = std::fs::File::open(stage)?.into();
    let expect = Expectation { video: None, audio: Vec::new() };
    let job = SlotJob {
        attempt: AttemptId { task: TaskId(1), epoch: Epoch(1) },
        task,
        spec: TaskSpec::Verify(Verify { file: Key([1; 32]), expect }),
        outputs: vec![Output { name: "report".into(), key: Key([2; 32]) }],
        inputs: Vec::new(),
        tee: None,
        limits: Limits {
            data: 512 << 20,
            memory: 1 << 30,
            file_size: 1 << 20,
            cpu: 600,
            user: None,
        },
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
    let (outputs, failure) = match ended.outcome {
        Outcome::Done(result) => (result.outputs, None),
        other => (Vec::new(), Some(format!("{other:?}"))),
    };
    let report = serde_json::json!({
        "outputs": outputs, "failure": failure, "boxed": ended.boxed, "log": ended.log,
    });
    println!("{report}");
    Ok(())
}
