//! `trix-chaos`: the proof as a program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trix_chaos::harness;

/// Proves the job system by breaking what it stands on.
#[derive(Debug, Parser)]
#[command(name = "trix-chaos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run rows of fault trials over real processes in a folder of their own.
    Run(harness::RunOptions),
    /// Run one attempt for a worker, synthetically (not for people).
    #[command(hide = true)]
    Slot,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => harness::run(&options),
        Command::Slot => return harness::slot::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("trix-chaos: {error:#}");
        ExitCode::FAILURE
    })
}
