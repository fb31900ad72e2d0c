//! R3 and R4: the database is away, in five ways, while everybody goes on.

use std::time::{Duration, Instant};

use anyhow::Result;
use trix_db::cluster::Stop;

use super::super::client::LoadOptions;
use super::super::report::Ended;
use super::super::site::{SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// Longest outage, unscaled: longer ones teach nothing that this does not.
const LONGEST: Duration = Duration::from_secs(120);

pub async fn run(order: Order) -> Result<Ended> {
    let load = LoadOptions { work_ms: 1200, ..LoadOptions::default() };
    let mut trial = Trial::start("R3", order, SiteOptions::default(), load, 4).await?;
    let mut stood_still = 0;
    let mut leader_back = Vec::new();
    while trial.goes_on() {
        trial.gap(Duration::from_millis(1500)).await;
        let shortest = Duration::from_secs(5).mul_f64(order.scale);
        let longest = LONGEST.mul_f64(order.scale);
        // Short ones more often: the square of an even distribution.
        let outage = shortest + (longest - shortest).mul_f64(trial.rng.unit().powi(2));
        let kind = trial.rng.below(5);
        let running = trial.site.slots().len();
        let worked = trial.work_done();
        let name = match kind {
            0 => {
                trial.site.server(|cluster| cluster.pause());
                "outages (no new connections)"
            }
            4 => {
                trial.site.freeze_server();
                "outages (server stands still)"
            }
            1 => {
                trial.site.server(|cluster| cluster.stop(Stop::Immediate))?;
                "outages (immediate stop)"
            }
            2 => {
                trial.site.server(|cluster| cluster.kill());
                "outages (kill -9)"
            }
            _ => {
                trial.site.net(|net| net.cut_server(true))?;
                "outages (packets dropped)"
            }
        };
        trial.say(|| format!("{name}: {outage:?}, {running} slots"));
        trial.count(name);
        tokio::time::sleep(outage).await;
        // Work goes on whoever is away: slots that were there have had processor time.
        let rose = trial.work_done() > worked;
        if running > 0 && outage > Duration::from_millis(300) && !rose {
            stood_still += 1;
        }
        match kind {
            3 => trial.site.net(|net| net.cut_server(false))?,
            _ => trial.site.server_up()?,
        }
        leader_back.push(first_tick(&trial).await?);
    }
    let journal = trial.journal.clone();
    let mut report = trial.finish().await?;
    if stood_still > 0 {
        report.violations.push(format!("R3: in {stood_still} outages no worker went on"));
    }
    for (figure, what) in [
        ("workers marked", "I19: workers were marked because the database was away"),
        ("attempts lost", "R3: attempts were repeated because the database was away"),
        ("results refused", "R3: results were refused because the database was away"),
    ] {
        let n = report.figures.get(figure).copied().unwrap_or_default();
        if n > 0.0 {
            report.violations.push(format!("{what}: {n}"));
        }
    }
    // R4: an answer comes within 10 s, whatever is away, and the leader is back within 15 s.
    let slow: Vec<_> = journal.calls().into_iter().filter(|c| c.took_ms > 10_000).collect();
    if let Some(call) = slow.first() {
        report.violations.push(format!("R4: {} answers took over 10 s, as {call:?}", slow.len()));
    }
    leader_back.sort();
    if let Some(longest) = leader_back.last() {
        report.figure("leader back after ms, longest", longest.as_millis() as f64);
        if *longest > Duration::from_secs(15) {
            report.violations.push(format!("R4: the leader was back only after {longest:?}"));
        }
    }
    Ok(Ended::Ran(report))
}

/// How long it takes until somebody leads again.
async fn first_tick(trial: &Trial) -> Result<Duration> {
    let begun = Instant::now();
    let before = trial.site.number("select ping_seq from leader").await?;
    while begun.elapsed() < Duration::from_secs(60) {
        if trial.site.number("select ping_seq from leader").await? > before {
            break;
        }
        pause().await;
    }
    Ok(begun.elapsed())
}
