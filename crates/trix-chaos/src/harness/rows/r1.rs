//! R1: kill -9 of workers, slots, dispatchers, apis and the server, at random.

use std::time::Duration;

use anyhow::Result;

use super::super::client::LoadOptions;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions};
use super::super::trial::{Order, Trial};

/// Between two kills, on average.
const GAP: Duration = Duration::from_millis(600);

/// What repeating may cost, as a part of what was killed.
const REPEATED: f64 = 1.2;

pub async fn run(order: Order) -> Result<Ended> {
    let mut trial =
        Trial::start("R1", order, SiteOptions::default(), LoadOptions::default(), 2).await?;
    while trial.goes_on() {
        trial.gap(GAP).await;
        kill_something(&mut trial).await?;
    }
    let mut report = trial.finish().await?;
    let figure = |name: &str| report.figures.get(name).copied().unwrap_or_default();
    let (repeated, killed) = (figure("cpu repeated ms"), figure("cpu killed ms"));
    if repeated > REPEATED * killed {
        report.violations.push(format!(
            "R1: {repeated:.0} ms of processor time were repeated, but only {killed:.0} ms were killed"
        ));
    }
    Ok(Ended::Ran(report))
}

/// One kill: workers most often, because most happens there.
pub async fn kill_something(trial: &mut Trial) -> Result<()> {
    let o = *trial.site.options();
    let back = comeback(trial);
    match trial.rng.below(100) {
        0..35 => {
            let role = Role::Worker(1 + trial.rng.below(o.workers.into()) as u8);
            if trial.kill(role, back)? {
                trial.count("kills of workers");
            }
        }
        35..60 => {
            if trial.kill_a_slot() {
                trial.count("kills of slots");
            }
        }
        60..75 => {
            let role = Role::Dispatcher(1 + trial.rng.below(o.dispatchers.into()) as u8);
            if trial.kill(role, back)? {
                trial.count("kills of dispatchers");
            }
        }
        75..88 => {
            let role = Role::Api(1 + trial.rng.below(o.apis.into()) as u8);
            if trial.kill(role, back)? {
                trial.count("kills of apis");
            }
        }
        _ => {
            trial.say(|| "PostgreSQL is killed".to_owned());
            trial.site.server(|cluster| cluster.kill());
            trial.site.server_up()?;
            trial.count("kills of PostgreSQL");
        }
    }
    Ok(())
}

/// Mostly at once, as a supervisor would; now and then so late that the worker is marked.
fn comeback(trial: &mut Trial) -> Duration {
    let lost = trial.site.times().lost;
    if trial.rng.one_in(8) {
        lost.mul_f64(1.0 + trial.rng.unit())
    } else {
        Duration::from_millis(trial.rng.between(0, 600))
    }
}
