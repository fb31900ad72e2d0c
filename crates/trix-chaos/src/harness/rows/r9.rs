//! R9: the database is lost and restored from a backup of a random moment, while workers
//! hold results, and folders hold publications, that the restored one knows nothing of.
//!
//! What a restore loses, nobody can find again; what must not be: a number given twice, a
//! published file overwritten or gone, a result of the lost history taken. Clients submit
//! again under their keys, as they are told to, and everything is done in the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::client::{Client, LoadOptions};
use super::super::report::Ended;
use super::super::restore::{Backup, Kind, restore};
use super::super::site::{PATIENCE, Site, SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// Everybody has found the new incarnation: the longest pause between two tries to connect,
/// and a beat. Unscaled, as processes of a busy machine need their time, too.
const BACK: Duration = Duration::from_secs(15);

pub async fn run(order: Order) -> Result<Ended> {
    let options = SiteOptions { backups: true, ..SiteOptions::default() };
    let load = LoadOptions { work_ms: 150, chunks: 8, ..LoadOptions::default() };
    let mut trial = Trial::start("R9", order, options, load, 2).await?;
    let mut longest = Duration::ZERO;
    let (mut anew, mut versions) = (0, 0);
    for n in 1.. {
        trial.gap(Duration::from_millis(2500)).await;
        let kind = *trial.rng.pick(Kind::ALL);
        let backup = Backup::take(&trial.site, kind, n)?;
        trial.say(|| format!("backup {n} is taken by {}", kind.as_str()));
        // There must be something to lose.
        published_one_more(&trial.site).await?;
        trial.gap(Duration::from_millis(1500)).await;

        trial.hush().await?;
        trial.say(|| format!("the database is lost with {} slots", trial.site.slots().len()));
        let lost = restore(&trial.site, backup).await?;
        trial.count(match kind {
            Kind::Base => "restores of base backups",
            Kind::Dump => "restores of dumps",
        });
        let back = workers_back(&trial.site).await?;
        longest = longest.max(back);
        versions += lost.versions();
        trial.say(|| format!("workers are back after {back:?}"));
        trial.lost.push(lost);
        trial.site.ready().await?;
        let client = Client::new(trial.site.clone(), trial.journal.clone())?;
        anew += client.submit_again(&mut trial.rng).await?;
        if !trial.goes_on() {
            break;
        }
        trial.reload(LoadOptions { load: n as u32, ..load });
    }
    let mut report = trial.finish().await?;
    if longest > BACK {
        report.violations.push(format!("R9: workers were back only after {longest:?}"));
    }
    report.figure("workers back after ms, longest", longest.as_millis() as f64);
    report.figure("jobs submitted anew", anew as f64);
    report.figure("versions lost", versions as f64);
    Ok(Ended::Ran(report))
}

/// Waits for a publication.
async fn published_one_more(site: &Site) -> Result<()> {
    const PUBLISHED: &str = "select count(*) from publication where state = 'published'";
    let before = site.number(PUBLISHED).await?;
    let begun = Instant::now();
    while site.number(PUBLISHED).await? == before {
        if begun.elapsed() > PATIENCE {
            bail!("nothing is published for {PATIENCE:?}");
        }
        pause().await;
    }
    Ok(())
}

/// How long it takes until every node has a worker of the new incarnation: adoption has
/// ended all that the backup knew.
async fn workers_back(site: &Site) -> Result<Duration> {
    const ACTIVE: &str = "select count(distinct node_id) from worker where state = 'active'";
    let begun = Instant::now();
    while site.number(ACTIVE).await? < i64::from(site.options().workers) {
        if begun.elapsed() > PATIENCE {
            bail!("the workers do not come back");
        }
        pause().await;
    }
    Ok(begun.elapsed())
}
