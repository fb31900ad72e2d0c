//! R2: workers are cut off from the database in five ways, for less and for more than T_lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::client::LoadOptions;
use super::super::net::Cut;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// Lengths of a partition, in parts of T_lost.
const LENGTHS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];

/// Workers of the site, and how many of them may be cut off at a time: somebody must be left
/// to take over.
const WORKERS: u8 = 6;
const CUT_AT_ONCE: usize = 4;

/// A link that is cut.
struct Open {
    worker: u8,
    length: Duration,
    until: Instant,
    /// The incarnation that was cut off.
    before: i64,
}

/// A worker that was marked while it was cut off, and can be heard again.
struct Returning {
    worker: u8,
    before: i64,
    healed: Instant,
}

pub async fn run(order: Order) -> Result<Ended> {
    let load = LoadOptions { work_ms: 600, ..LoadOptions::default() };
    let options = SiteOptions { workers: WORKERS, mcpu: 2000, ..SiteOptions::default() };
    let mut trial = Trial::start("R2", order, options, load, 2).await?;
    let lost = trial.site.times().lost;
    let (mut open, mut returning): (Vec<Open>, Vec<Returning>) = (Vec::new(), Vec::new());
    let mut returns = Vec::new();
    let mut short_marks = 0;
    let mut next = Instant::now();
    while trial.goes_on() || !open.is_empty() || !returning.is_empty() {
        pause().await;
        let incarnations = incarnations(&trial).await?;
        let (over, still): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|cut| cut.until <= Instant::now());
        open = still;
        for cut in over {
            // Before the link is mended: a worker that comes back is no longer marked.
            let is_marked = is_lost(&trial, cut.before).await?;
            trial.site.mend(Role::Worker(cut.worker))?;
            if is_marked && cut.length < lost {
                short_marks += 1;
                trial.say(|| format!("worker-{} was marked within {:?}", cut.worker, cut.length));
            }
            if is_marked && incarnations.get(&cut.worker) == Some(&cut.before) {
                let healed = Instant::now();
                returning.push(Returning { worker: cut.worker, before: cut.before, healed });
            }
        }
        returning.retain(|r| {
            let is_back = incarnations.get(&r.worker).is_some_and(|id| *id > r.before)
                || r.healed.elapsed() > Duration::from_secs(60);
            if is_back {
                returns.push(r.healed.elapsed());
            }
            !is_back
        });
        if Instant::now() < next || open.len() >= CUT_AT_ONCE || !trial.goes_on() {
            continue;
        }
        next = Instant::now() + Duration::from_millis(trial.rng.between(100, 900));
        let worker = 1 + trial.rng.below(WORKERS.into()) as u8;
        let (kind, length) = (*trial.rng.pick(Cut::ALL), *trial.rng.pick(&LENGTHS));
        let is_busy = open.iter().any(|cut| cut.worker == worker)
            || returning.iter().any(|r| r.worker == worker);
        let Some(before) = incarnations.get(&worker).copied().filter(|_| !is_busy) else {
            continue;
        };
        trial.say(|| format!("worker-{worker}: {} for {length} T_lost", kind.as_str()));
        trial.site.cut(Role::Worker(worker), kind)?;
        trial.count(&format!("cuts ({})", kind.as_str()));
        let length = lost.mul_f64(length);
        open.push(Open { worker, length, until: Instant::now() + length, before });
    }
    let mut report = trial.finish().await?;
    if short_marks > 0 {
        report
            .violations
            .push(format!("I19: {short_marks} workers were marked after half of T_lost"));
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
