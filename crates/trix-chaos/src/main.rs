//! `trix-chaos`: campaigns of faults, each printing its seed and its table.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trix_chaos::input;

#[derive(Parser)]
#[command(name = "trix-chaos", version, about = "Injects faults and checks what must hold")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hostile files, references, parameters and paths (rows B1, B3, B4, B5, X2).
    Input(input::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Input(arguments) => input::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("trix-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}
