//! `trix verify`: a full decode says whether a file is whole.

use std::fs::File;

use anyhow::Context;
use trix_engine::{Checked, Control, check_file};

use super::{args, encode, show};

/// Runs the command; fails when any file is not whole, after all were tried.
pub fn run(arguments: &args::Verify) -> anyhow::Result<()> {
    let stop = encode::stop_on_signal()?;
    let threads = encode::slots(None) as u32;
    let mut failed = 0;
    for path in &arguments.files {
        let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
        let checked = File::open(path)
            .context("opening the file")
            .and_then(|f| Ok(check_file(f, 0, threads, &Control::new(&|_| {}, &stopped))?));
        match checked {
            Ok(checked) if arguments.json => println!("{}", serde_json::to_string(&checked)?),
            Ok(checked) => println!("{}: {}", path.display(), words(&checked)),
            Err(error) => {
                eprintln!("trix: {}: {}", path.display(), show::error(&error));
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} files are not whole", arguments.files.len());
    Ok(())
}

fn words(checked: &Checked) -> String {
    let mut parts = Vec::new();
    if let Some(v) = &checked.video {
        let us = trix_model::Rational::new(1, 1_000_000).map_or(0, |micro| {
            trix_model::time::rescale(
                v.end - v.first,
                v.time_base,
                micro,
                trix_model::time::Rounding::Nearest,
            )
        });
        parts.push(format!("{} frames, {}", v.frames, show::clock(us)));
    }
    for (n, a) in checked.audio.iter().enumerate() {
        parts.push(format!("sound track {n}: {} samples", a.samples));
    }
    format!("whole ({})", parts.join("; "))
}
