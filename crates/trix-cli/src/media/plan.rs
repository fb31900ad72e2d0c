//! `trix plan`: what `encode` would do, in words or as JSON.

use std::path::Path;

use anyhow::Context;
use trix_engine::local::Run;

use super::{args, encode};

/// Runs the command: inspects the source (which is cached) and plans.
pub fn run(arguments: &args::Plan) -> anyhow::Result<()> {
    let output = format!("output.{}", arguments.container);
    let profile = encode::profile(&arguments.what, Some(Path::new(&output)))?;
    let cache = encode::open_cache(None)?;
    let stop = encode::stop_on_signal()?;
    let title = encode::title(&arguments.what.source);
    let run = Run {
        source: &arguments.what.source,
        profile: &profile,
        title: &title,
        cache: &cache,
        slots: 1,
        events: &|_| {},
        stop: &stop,
    };
    let (intake, plan) = run.plan().with_context(|| arguments.what.source.display().to_string())?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", trix_plan::explain(&profile, &intake, &plan)?);
    }
    Ok(())
}
