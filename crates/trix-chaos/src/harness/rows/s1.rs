//! S1: all faults at once, at random.

use std::time::Duration;

use anyhow::Result;
use trix_db::cluster::Stop;

use super::super::client::LoadOptions;
use super::super::net::Cut;
use super::super::process::Process;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions};
use super::super::trial::{Order, Trial};
use super::{m8, r1};

pub async fn run(order: Order) -> Result<Ended> {
    let mut trial =
        Trial::start("S1", order, SiteOptions::default(), LoadOptions::default(), 4).await?;
    while trial.goes_on() {
        trial.gap(Duration::from_millis(900)).await;
        let lost = trial.site.times().lost;
        let length = lost.mul_f64(2.0 * trial.rng.unit().powi(2));
        let roles: Vec<Role> =
            trial.site.all_roles().into_iter().filter(|r| !matches!(r, Role::Api(_))).collect();
        let role = *trial.rng.pick(&roles);
        match trial.rng.below(100) {
            0..50 => r1::kill_something(&mut trial).await?,
            50..65 => {
                if trial.site.with(role, Process::pause)?.is_some() {
                    trial.say(|| format!("{role} stands still for {length:?}"));
                    trial.count("processes stopped");
                    tokio::time::sleep(length).await;
                    trial.site.with(role, Process::resume)?;
                }
            }
            65..80 => {
                let cut = *trial.rng.pick(Cut::ALL);
                trial.say(|| format!("{role}: {} for {length:?}", cut.as_str()));
                trial.site.cut(role, cut)?;
                trial.count("links cut");
                tokio::time::sleep(length).await;
                trial.site.mend(role)?;
            }
            80..90 => {
                trial.say(|| format!("the database is away for {length:?}"));
                trial.count("outages of the database");
                if trial.rng.one_in(2) {
                    trial.site.server(|cluster| cluster.stop(Stop::Immediate))?;
                } else {
                    trial.site.server(|cluster| cluster.pause());
                }
                tokio::time::sleep(length).await;
                trial.site.server_up()?;
            }
            _ => m8::vanish(&mut trial)?,
        }
    }
    Ok(Ended::Ran(trial.finish().await?))
}
