//! Q2: a task that fills a whole node, against an endless stream of small ones.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::client::{Client, LoadOptions, Submitted, WHOLE};
use super::super::film::{CHUNK, Film};
use super::super::report::Ended;
use super::super::site::{PATIENCE, Site, SiteOptions, pause};
use super::super::trial::{Order, Trial};

/// What a node gives to tasks, in thousandths of cores: as much as one of [`WHOLE`] takes.
const NODE: u32 = 3000;

pub async fn run(order: Order) -> Result<Ended> {
    let options = SiteOptions { workers: 2, mcpu: NODE, ..SiteOptions::default() };
    // More than two nodes can hold at once, so that something small always waits.
    let load = LoadOptions { open: 6, chunks: 8, work_ms: 200, ..LoadOptions::default() };
    let mut trial = Trial::start("Q2", order, options, load, 1).await?;
    let client = Client::new(trial.site.clone(), trial.journal.clone())?;
    for n in 1.. {
        trial.gap(Duration::from_millis(1500)).await;
        // One chunk, so one task that needs all of a node.
        let noise = trial.rng.between(1_000, 20_000) as u32;
        let seed = trial.rng.bits();
        let film = Film { seed, frames: CHUNK, tracks: 1, work_ms: load.work_ms, noise };
        let title = format!("whole-{n}");
        let wish = Submitted {
            source: client.deliver(&format!("{title}.mov"), &film)?,
            film,
            key: title.clone(),
            title,
            profile: WHOLE.to_owned(),
            job: None,
        };
        client.submit(wish, &mut trial.rng, &AtomicBool::new(false)).await?;
        trial.count("tasks that need a whole node");
        started(&trial.site, n).await?;
        if !trial.goes_on() {
            break;
        }
    }
    let site = trial.site.clone();
    let reserve_ms = site.times().reserve.as_millis() as f64;
    let beats_ms = 2.0 * site.times().beat.as_millis() as f64;
    let mut report = trial.finish().await?;

    let small = format!(
        "select coalesce(max(extract(epoch from a.ended_at - a.started_at) * 1000), 0) \
         from attempt a join task t on t.id = a.task_id where t.need_mcpu < {NODE}"
    );
    let small_ms = site.number(&small).await? as f64;
    let (mut longest, mut slipped, mut reserved) = (0.0_f64, 0.0_f64, 0.0);
    for row in site.rows(&waits()).await? {
        let field = |name: &str| row[name].as_f64();
        let wait = field("wait_ms").context("a task without a start")?;
        longest = longest.max(wait);
        slipped = slipped.max(field("slipped").unwrap_or_default());
        // It starts once the reservation is due, the estimate of it is over, and one task
        // more: the estimate is no promise.
        let bound = reserve_ms + field("backfill_ms").unwrap_or_default() + small_ms + beats_ms;
        if field("backfill_ms").is_some() {
            reserved += 1.0;
        }
        if wait > bound {
            report.violations.push(format!(
                "Q2: task {} waited {wait:.0} ms, and {bound:.0} ms were enough",
                row["id"]
            ));
        }
    }
    if reserved == 0.0 {
        report.violations.push("Q2: nothing was reserved: the nodes had room".to_owned());
    }
    for (name, value) in [
        ("longest wait for a node ms", longest),
        ("longest small task ms", small_ms),
        ("nodes reserved", reserved),
        ("small tasks started meanwhile, most", slipped),
    ] {
        report.figure(name, value);
    }
    Ok(Ended::Ran(report))
}

/// Waits until so many of the large tasks have been started.
async fn started(site: &Site, n: i64) -> Result<()> {
    let query = format!("select count(*) from task where need_mcpu = {NODE} and epoch > 0");
    let begun = Instant::now();
    while site.number(&query).await? < n {
        if begun.elapsed() > PATIENCE {
            bail!("a task that needs a whole node is not started for {PATIENCE:?}");
        }
        pause().await;
    }
    Ok(())
}

/// For each large task: how long it was ready before its first start, what was estimated when
/// a node was reserved for it, and how many small tasks were started meanwhile.
fn waits() -> String {
    format!(
        "select w.id, extract(epoch from w.started - w.ready) * 1000 as wait_ms, \
            (select (e.body->>'backfill_ms')::bigint from event_log e \
                where e.task_id = w.id and e.kind = 'worker.reserved' order by e.seq limit 1) \
                as backfill_ms, \
            (select count(*) from attempt a join task s on s.id = a.task_id \
                where s.need_mcpu < {NODE} and a.started_at between w.ready and w.started) \
                as slipped \
         from (select t.id, \
                (select min(e.at) from event_log e where e.task_id = t.id \
                    and e.kind = 'task.state' and e.body->>'to' = 'ready') as ready, \
                (select min(e.at) from event_log e where e.task_id = t.id \
                    and e.kind = 'task.state' and e.body->>'to' = 'running') as started \
            from task t where t.need_mcpu = {NODE}) w"
    )
}
