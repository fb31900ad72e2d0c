//! The binary that parses media: by hand, or as a worker's slot.

use std::process::ExitCode;

use clap::Parser;
use trix_cli::media::args::{Cli, Command};
use trix_cli::media::{encode, plan, probe, sandbox, show, slot, verify};

fn main() -> ExitCode {
    let cli = Cli::parse();
    trix_av::log::install();
    // A slot writes to a worker, whose end it must notice and outlive by itself.
    let result = match cli.command {
        Command::Slot => return slot::run(),
        Command::Encode(arguments) => person(|| encode::run(&arguments)),
        Command::Probe(arguments) => person(|| probe::run(&arguments)),
        Command::Plan(arguments) => person(|| plan::run(&arguments)),
        Command::Verify(arguments) => person(|| verify::run(&arguments)),
        Command::Sandbox => sandbox::run(),
        Command::SelfTest => self_test(),
        Command::EngineId => {
            println!("{}", trix_engine::engine_id());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trix: {}", show::error(&error));
            ExitCode::FAILURE
        }
    }
}

/// `trix-media self-test`: does this machine compute as it should?
fn self_test() -> anyhow::Result<()> {
    let answer = slot::answer()?;
    if answer.is_right() {
        println!("right: {}", answer.given);
        return Ok(());
    }
    anyhow::bail!(
        "this machine makes {} instead of {}: its memory or a core is bad",
        answer.given,
        answer.expected
    )
}

/// A command of a person's, who may stop reading.
fn person(command: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    encode::end_with_the_reader()?;
    command()
}
