//! R6: leaders are killed, stopped and cut off, and another takes over.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::client::LoadOptions;
use super::super::net::Cut;
use super::super::process::Process;
use super::super::report::Ended;
use super::super::site::{Role, Site, SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// The server frees the lock of a leader that was cut off silently within 7.4 s; then
/// another must ask for it and tick. This is no protocol time: it does not scale.
const TAKEOVER: Duration = Duration::from_secs(10);

pub async fn run(order: Order) -> Result<Ended> {
    let mut trial =
        Trial::start("R6", order, SiteOptions::default(), LoadOptions::default(), 4).await?;
    let mut slow = Vec::new();
    let mut longest = Duration::ZERO;
    while trial.goes_on() {
        trial.gap(Duration::from_millis(1500)).await;
        let leader = leader(&trial.site).await?;
        let before = trial.site.number("select epoch from leader").await?;
        let begun = Instant::now();
        let kind = trial.rng.below(3);
        let name = match kind {
            0 => {
                let back = Duration::from_millis(trial.rng.between(0, 5000));
                trial.kill(leader, back)?;
                "leaders killed"
            }
            1 => {
                trial.site.with(leader, Process::pause)?;
                "leaders stopped"
            }
            _ => {
                trial.site.cut(leader, Cut::Drop)?;
                "leaders cut off"
            }
        };
        trial.say(|| format!("{leader}: {name}"));
        trial.count(name);
        let after = takeover(&trial.site, before).await?;
        longest = longest.max(after);
        if after > TAKEOVER {
            slow.push(format!("R6: {name}: the takeover took {after:?}"));
        }
        trial.say(|| format!("taken over after {:?}", begun.elapsed()));
        match kind {
            1 => {
                trial.site.with(leader, Process::resume)?;
            }
            2 => trial.site.mend(leader)?,
            _ => trial.everybody_back().await?,
        }
    }
    let mut report = trial.finish().await?;
    report.violations.extend(slow);
    report.figure("takeover ms, longest", longest.as_millis() as f64);
    Ok(Ended::Ran(report))
}

/// The dispatcher that leads now.
pub async fn leader(site: &Site) -> Result<Role> {
    let begun = Instant::now();
    loop {
        let rows = site.rows("select holder from leader").await?;
        let holder = rows.first().and_then(|row| row["holder"].as_str()?.parse::<i32>().ok());
        for n in 1..=site.options().dispatchers {
            let role = Role::Dispatcher(n);
            let pid = site.with(role, |p| Ok(p.pid().as_raw_nonzero().get()))?;
            if pid.is_some() && pid == holder {
                return Ok(role);
            }
        }
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("no dispatcher leads: the holder is {holder:?}");
        }
        pause().await;
    }
}

async fn takeover(site: &Site, before: i64) -> Result<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if site.number("select epoch from leader").await? > before {
            break;
        }
        pause().await;
    }
    Ok(begun.elapsed())
}
