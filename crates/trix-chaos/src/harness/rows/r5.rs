//! R5: a worker stands still for 2 × T_lost at a named point, is marked, and goes on as a zombie.
//!
//! Points within a slot's work are met by its progress; points of a publication are met by
//! stopping at a random moment of it and looking, while it stands, how far it came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::client::LoadOptions;
use super::super::process::Process;
use super::super::report::Ended;
use super::super::site::{Role, SiteOptions};
use super::super::trial::{Order, Trial};

/// Kinds of tasks that run in a slot; each is met early and late.
const KINDS: [&str; 6] = ["intake", "encode_chunk", "encode_audio", "mux", "verify", "stills"];

pub async fn run(order: Order) -> Result<Ended> {
    let load = LoadOptions { chunks: 4, ..LoadOptions::default() };
    let mut trial = Trial::start("R5", order, SiteOptions::default(), load, 1).await?;
    let mut zombies = 0;
    while trial.goes_on() {
        // Publications are where a zombie could do harm: half of all stops are theirs.
        let wanted = if trial.rng.one_in(2) { "publish" } else { *trial.rng.pick(&KINDS) };
        let Some((worker, task, epoch)) = running(&mut trial, wanted).await? else { continue };
        let within = Duration::from_micros(trial.rng.between(0, 40_000));
        if wanted == "publish" {
            tokio::time::sleep(within).await;
        } else if trial.rng.one_in(2) {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let role = Role::Worker(worker);
        if trial.site.with(role, Process::pause)?.is_none() {
            continue;
        }
        let point = point(&trial, wanted, task, epoch).await?;
        trial.say(|| format!("{role} stands still: {task}-{epoch} {point}"));
        trial.count(&format!("stops: {point}"));
        tokio::time::sleep(trial.site.times().lost * 2).await;
        let marked = format!(
            "select count(*) from attempt where task_id = {task} and epoch = {epoch} and state = 'lost'"
        );
        zombies += trial.site.number(&marked).await?;
        trial.site.with(role, Process::resume)?;
    }
    let mut report = trial.finish().await?;
    report.figure("zombies that woke", zombies as f64);
    Ok(Ended::Ran(report))
}

/// Waits for a running attempt of a kind: its worker, task and epoch.
async fn running(trial: &mut Trial, kind: &str) -> Result<Option<(u8, i64, i64)>> {
    let query = format!(
        "select a.task_id, a.epoch, n.name from attempt a join task t on t.id = a.task_id \
         join node n on n.id = a.node_id where a.state = 'running' and t.kind = '{kind}' \
         order by a.started_at desc limit 1"
    );
    let begun = Instant::now();
    while trial.goes_on() && begun.elapsed() < Duration::from_secs(10) {
        if let Some(row) = trial.site.rows(&query).await?.first() {
            let n = row["name"].as_str().and_then(|n| n.strip_prefix("worker-")?.parse().ok());
            let number = |name: &str| row[name].as_i64().context("a column is missing");
            let n = n.context("a worker of another site")?;
            return Ok(Some((n, number("task_id")?, number("epoch")?)));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(None)
}

/// How far the attempt is, now that nothing of it moves but its slot.
async fn point(trial: &Trial, kind: &str, task: i64, epoch: i64) -> Result<String> {
    let query = format!(
        "select a.state, ap.progress, p.state as publication, p.share, p.target, p.version, \
         (select count(*) from publication_file f where f.publication_id = p.id) as files \
         from attempt a join task t on t.id = a.task_id \
         left join publication p on p.id = t.publication_id \
         left join attempt_progress ap on ap.task_id = a.task_id and ap.epoch = a.epoch \
         where a.task_id = {task} and a.epoch = {epoch}"
    );
    let rows = trial.site.rows(&query).await?;
    let row: &Value = rows.first().context("a running attempt has no row")?;
    if row["state"] != "running" {
        return Ok(format!("{kind} after its commit"));
    }
    if kind != "publish" {
        let part = row["progress"]["done"].as_f64().unwrap_or_default()
            / row["progress"]["total"].as_f64().unwrap_or(1.0);
        return Ok(format!("{kind} {}", if part < 0.5 { "early" } else { "late" }));
    }
    Ok(match row["publication"].as_str() {
        None => "publish before prepare".to_owned(),
        Some("prepared") => "publish prepared".to_owned(),
        Some("moving") => {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let folder = format!("{}/v{}", text("target"), row["version"]);
            let there = super::super::audit::files(&trial.site.share(&text("share")).join(folder));
            let files = row["files"].as_u64().unwrap_or_default();
            let at =
                BTreeMap::from([(0, "before the first file"), (files + 1, "before published")]);
            let at =
                at.get(&(there.len() as u64)).copied().unwrap_or(if there.len() as u64 == files {
                    "before the manifest"
                } else {
                    "between files"
                });
            format!("publish moving, {at}")
        }
        Some(state) => format!("publish {state}, before its commit"),
    })
}
