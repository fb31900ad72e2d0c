//! R8: links clog one by one until nobody gets through, and are mended in another order,
//! with kills between.

use std::time::Duration;

use anyhow::Result;

use super::super::client::LoadOptions;
use super::super::net::Cut;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions};
use super::super::trial::{Order, Trial};
use super::r1::kill_something;

pub async fn run(order: Order) -> Result<Ended> {
    let mut trial =
        Trial::start("R8", order, SiteOptions::default(), LoadOptions::default(), 2).await?;
    while trial.goes_on() {
        let mut ends: Vec<Role> =
            trial.site.all_roles().into_iter().filter(|r| !matches!(r, Role::Api(_))).collect();
        shuffle(&mut trial, &mut ends);
        for role in &ends {
            let cut = *trial.rng.pick(Cut::ALL);
            trial.say(|| format!("{role} clogs: {}", cut.as_str()));
            trial.site.cut(*role, cut)?;
            trial.count("links clogged");
            step(&mut trial).await?;
        }
        shuffle(&mut trial, &mut ends);
        for role in &ends {
            trial.site.mend(*role)?;
            step(&mut trial).await?;
        }
        trial.gap(Duration::from_millis(1500)).await;
    }
    Ok(Ended::Ran(trial.finish().await?))
}

async fn step(trial: &mut Trial) -> Result<()> {
    trial.gap(Duration::from_millis(500)).await;
    if trial.rng.one_in(4) {
        kill_something(trial).await?;
    }
    Ok(())
}

fn shuffle(trial: &mut Trial, roles: &mut [Role]) {
    for n in (1..roles.len()).rev() {
        roles.swap(n, trial.rng.below(n as u64 + 1) as usize);
    }
}
