//! The binary that parses media: by hand, or as a worker's slot.

use std::process::ExitCode;

use clap::Parser;
use trix_cli::media::args::{Cli, Command};
use trix_cli::media::{encode, plan, probe, slot, verify};

fn main() -> ExitCode {
    let cli = Cli::parse();
    trix_av::log::install();
    let result = match cli.command {
        Command::Encode(arguments) => encode::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::EngineId => {
            println!("{}", trix_engine::engine_id());
            Ok(())
        }
        Command::Slot => return slot::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trix: {error:#}");
            ExitCode::FAILURE
        }
    }
}
