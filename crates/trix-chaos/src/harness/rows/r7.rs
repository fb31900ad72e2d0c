//! R7: wall clocks jump by an hour and by a day, in any process.

use std::time::Duration;

use anyhow::Result;

use super::super::client::LoadOptions;
use super::super::clock;
use super::super::report::Ended;
use super::super::site::SiteOptions;
use super::super::trial::{Order, Trial};

/// Jumps in seconds.
const JUMPS: [i64; 5] = [-86_400, -3_600, 0, 3_600, 86_400];

pub async fn run(order: Order) -> Result<Ended> {
    if clock::library().is_none() {
        return Ok(Ended::Skipped("libfaketime is not installed (package faketime)".to_owned()));
    }
    let options = SiteOptions { clocks: true, ..SiteOptions::default() };
    let mut trial = Trial::start("R7", order, options, LoadOptions::default(), 2).await?;
    let roles = trial.site.all_roles();
    while trial.goes_on() {
        trial.gap(Duration::from_millis(400)).await;
        let (role, jump) = (*trial.rng.pick(&roles), *trial.rng.pick(&JUMPS));
        trial.say(|| format!("the clock of {role} is {jump} s off"));
        clock::set(&trial.site.clock(role), jump)?;
        trial.count("clocks set");
    }
    let mut report = trial.finish().await?;
    for (figure, what) in
        [("workers marked", "workers were marked"), ("attempts lost", "attempts were lost")]
    {
        let n = report.figures.get(figure).copied().unwrap_or_default();
        if n > 0.0 {
            report.violations.push(format!("I19: {what} because clocks jumped: {n}"));
        }
    }
    Ok(Ended::Ran(report))
}
