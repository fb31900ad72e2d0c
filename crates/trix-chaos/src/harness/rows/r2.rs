//! R2: workers are cut off from the database in five ways, for less and for more than T_lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::client::LoadOptions;
use super::super::net::Cut;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// Lengths of a partition, in parts of T_lost.
const LENGTHS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];

pub async fn run(order: Order) -> Result<Ended> {
    let load = LoadOptions { work_ms: 600, ..LoadOptions::default() };
    let mut trial = Trial::start("R2", order, SiteOptions::default(), load, 2).await?;
    let lost = trial.site.times().lost;
    let mut returns = Vec::new();
    let mut short_marks = 0;
    while trial.goes_on() {
        trial.gap(Duration::from_millis(300)).await;
        // Two of the four at once, so that there is always somebody to take over.
        let workers = trial.site.options().workers;
        let first = 1 + trial.rng.below(workers.into()) as u8;
        let second = first % workers + 1;
        let mut cut = BTreeMap::new();
        for n in [first, second] {
            let (kind, length) = (*trial.rng.pick(Cut::ALL), *trial.rng.pick(&LENGTHS));
            cut.insert(n, (kind, length));
        }
        let marked = incarnations(&trial).await?;
        let begun = Instant::now();
        for (n, (kind, length)) in &cut {
            trial.say(|| format!("worker-{n}: {} for {length} T_lost", kind.as_str()));
            trial.site.cut(Role::Worker(*n), *kind)?;
            trial.count(&format!("cuts ({})", kind.as_str()));
        }
        let mut open: Vec<_> = cut.iter().map(|(n, (_, length))| (*n, lost.mul_f64(*length))).collect();
        open.sort_by_key(|(_, length)| *length);
        for (n, length) in open {
            tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
            trial.site.mend(Role::Worker(n))?;
            let before = marked.get(&n).copied().context("a worker without a row")?;
            // A worker that was cut off for half of T_lost must not be marked; what else its
            // row says is read before it has come back.
            let now = incarnations(&trial).await?;
            let is_marked = is_lost(&trial, before).await?;
            if length < lost && is_marked {
                short_marks += 1;
                trial.say(|| format!("worker-{n} was marked after {length:?}"));
            }
            if is_marked && now.get(&n) == Some(&before) {
                let healed = Instant::now();
                returns.push(back(&trial, n, before, healed).await?);
            }
        }
    }
    let mut report = trial.finish().await?;
    if short_marks > 0 {
        report.violations.push(format!("R2: {short_marks} workers were marked after half of T_lost"));
    }
    returns.sort();
    if let (Some(median), Some(longest)) = (returns.get(returns.len() / 2), returns.last()) {
        report.figure("new incarnation after ms, median", median.as_millis() as f64);
        report.figure("new incarnation after ms, longest", longest.as_millis() as f64);
    }
    Ok(Ended::Ran(report))
}

/// The newest incarnation of each node's worker.
async fn incarnations(trial: &Trial) -> Result<BTreeMap<u8, i64>> {
    let rows = trial
        .site
        .rows("select n.name, max(w.id) as id from worker w join node n on n.id = w.node_id group by 1")
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let n = row["name"].as_str()?.strip_prefix("worker-")?.parse().ok()?;
            Some((n, row["id"].as_i64()?))
        })
        .collect())
}

async fn is_lost(trial: &Trial, worker: i64) -> Result<bool> {
    let query = format!("select count(*) from worker where id = {worker} and state = 'lost'");
    Ok(trial.site.number(&query).await? > 0)
}

/// Waits for the next incarnation.
async fn back(trial: &Trial, n: u8, before: i64, healed: Instant) -> Result<Duration> {
    while healed.elapsed() < Duration::from_secs(60) {
        if incarnations(trial).await?.get(&n).is_some_and(|id| *id > before) {
            break;
        }
        pause().await;
    }
    Ok(healed.elapsed())
}
