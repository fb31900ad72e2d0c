//! M1: the destinations are sshfs mounts, which are killed at either end, stand still, and
//! lose their server.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::super::client::LoadOptions;
use super::super::nas;
use super::super::report::Ended;
use super::super::site::SiteOptions;
use super::super::trial::{Order, Trial};

pub async fn run(order: Order) -> Result<Ended> {
    if let Some(why) = nas::missing() {
        return Ok(Ended::Skipped(why));
    }
    let options = SiteOptions { nas: true, ..SiteOptions::default() };
    let mut trial = Trial::start("M1", order, options, LoadOptions::default(), 1).await?;
    while trial.goes_on() {
        trial.gap(Duration::from_millis(1500)).await;
        let shares = trial.site.nas(|nas| Ok(nas.shares()))?;
        let share = *trial.rng.pick(&shares);
        let length = trial.site.times().lost.mul_f64(2.0 * trial.rng.unit().powi(2));
        let reconnect = trial.rng.one_in(2);
        let name = match trial.rng.below(4) {
            0 => {
                trial.site.nas(|nas| Ok(nas.signal_session(share, Signal::KILL)))?;
                "storage faults (session killed)"
            }
            1 => {
                trial.site.nas(|nas| nas.kill_client(share))?;
                "storage faults (client killed)"
            }
            2 => {
                trial.site.nas(|nas| Ok(nas.signal_session(share, Signal::STOP)))?;
                "storage faults (session stands still)"
            }
            _ => {
                trial.site.nas(|nas| nas.server_away())?;
                "storage faults (server away)"
            }
        };
        trial.say(|| format!("{share}: {name} for {length:?}"));
        trial.count(name);
        tokio::time::sleep(length).await;
        let bare = trial.site.nas(|nas| nas.heal(reconnect))?;
        trial.report.violations.extend(bare.iter().map(|b| format!("I11: bare: {b}")));
    }
    Ok(Ended::Ran(trial.finish().await?))
}
