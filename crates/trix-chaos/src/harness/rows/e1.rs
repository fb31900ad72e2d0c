//! E1: events. Writers that roll back and dawdle, sequencers side by side, consumers that
//! read by number and consumers of the WebSocket that drop and resume.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::client::LoadOptions;
use super::super::report::Ended;
use super::super::site::{Role, Site, SiteOptions};
use super::super::trial::{Order, Trial};
use crate::rng::Rng;

/// Writers, sharing the connections of a pool as programs do.
const WRITERS: u64 = 50;
/// Consumers that read the log.
const READERS: u64 = 90;
/// Consumers of the WebSocket.
const SOCKETS: u32 = 10;
/// Sequencers beside those of the dispatchers and apis.
const SEQUENCERS: u64 = 3;

pub async fn run(order: Order) -> Result<Ended> {
    let load = LoadOptions { open: 1, ..LoadOptions::default() };
    let options = SiteOptions { workers: 1, ..SiteOptions::default() };
    let mut trial = Trial::start("E1", order, options, load, SOCKETS).await?;
    let stop = Arc::new(AtomicBool::new(false));
    // Writers first, then readers, which must see what the writers did.
    let written = Arc::new(AtomicI64::new(0));
    let (mut writers, mut sequencers) = (JoinSet::new(), JoinSet::new());
    let mut readers: JoinSet<Result<Read>> = JoinSet::new();
    for n in 0..WRITERS {
        let (site, stop, written, rng) =
            (trial.site.clone(), stop.clone(), written.clone(), trial.rng.fork());
        writers.spawn(write(site, n, rng, stop, written));
    }
    for _ in 0..SEQUENCERS {
        sequencers.spawn(sequence(trial.site.clone(), stop.clone()));
    }
    let ended = Arc::new(AtomicI64::new(-1));
    for _ in 0..READERS {
        readers.spawn(read(trial.site.clone(), trial.rng.fork(), ended.clone()));
    }
    while trial.goes_on() {
        trial.gap(Duration::from_secs(3)).await;
        // Sequencers die, too: those of the roles, in the middle of a batch.
        let role = *trial.rng.pick(&[Role::Dispatcher(1), Role::Dispatcher(2), Role::Api(2)]);
        if trial.kill(role, Duration::from_millis(300))? {
            trial.count("kills of sequencers");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (mut commits, mut rollbacks) = (0, 0);
    while let Some(done) = writers.join_next().await {
        let (c, r) = done.context("a writer panicked")??;
        commits += c;
        rollbacks += r;
    }
    while let Some(done) = sequencers.join_next().await {
        done.context("a sequencer panicked")??;
    }
    // The dispatchers and apis number what is left.
    let begun = Instant::now();
    while trial.site.number("select count(*) from event_in").await? > 0
        && begun.elapsed() < Duration::from_secs(60)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ended.store(trial.site.number("select head from event_head").await?, Ordering::Relaxed);
    let mut wrong = Vec::new();
    let mut lags = Vec::new();
    while let Some(done) = readers.join_next().await {
        let read = done.context("a reader panicked")??;
        wrong.extend(read.wrong);
        lags.extend(read.lags_ms);
    }
    wrong.extend(causes(&trial.site, commits).await?);
    trial.count_many("commits", commits);
    trial.count_many("rollbacks", rollbacks);
    let mut report = trial.finish().await?;
    report.violations.extend(wrong);
    lags.sort_by(f64::total_cmp);
    if !lags.is_empty() {
        report.figure("lag ms, p50", lags[lags.len() / 2]);
        report.figure("lag ms, p99", lags[lags.len() * 99 / 100]);
    }
    Ok(Ended::Ran(report))
}

/// Writes events in transactions that take their time, and of which one in eight fails.
/// Gives commits and rollbacks.
async fn write(
    site: Arc<Site>,
    writer: u64,
    mut rng: Rng,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
) -> Result<(u64, u64)> {
    let (mut commits, mut rollbacks) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut transaction = site.pool().begin().await?;
        let body = json!({ "writer": writer, "n": commits,
            // Everything that was committed before this began.
            "after": written.load(Ordering::SeqCst) });
        sqlx::query("select emit('chaos.event', null, null, $1)")
            .bind(body)
            .execute(&mut *transaction)
            .await?;
        if rng.one_in(4) {
            // The number of the row is taken, the commit comes late.
            tokio::time::sleep(Duration::from_millis(rng.between(0, 30))).await;
        }
        if rng.one_in(8) {
            transaction.rollback().await?;
            rollbacks += 1;
        } else {
            transaction.commit().await?;
            written.fetch_add(1, Ordering::SeqCst);
            commits += 1;
        }
        tokio::time::sleep(Duration::from_millis(rng.between(0, 200))).await;
    }
    Ok((commits, rollbacks))
}

async fn sequence(site: Arc<Site>, stop: Arc<AtomicBool>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        sqlx::query("select sequence_events_v1($1)")
            .bind(json!({ "limit": 500 }))
            .execute(site.pool())
            .await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What a reader has to say.
#[derive(Default)]
struct Read {
    wrong: Vec<String>,
    lags_ms: Vec<f64>,
}

/// Reads by number as every consumer does: what is behind the last number that it has.
async fn read(site: Arc<Site>, mut rng: Rng, ended: Arc<AtomicI64>) -> Result<Read> {
    const PAGE: &str = "select coalesce(jsonb_agg(jsonb_build_object('seq', seq, 'kind', kind, \
        'lag', extract(epoch from clock_timestamp() - at) * 1000) order by seq), '[]') \
        from (select * from event_log where seq > $1 order by seq limit 500) q";
    let mut read = Read::default();
    let mut last = 0;
    let mut is_live = false;
    loop {
        let until = ended.load(Ordering::Relaxed);
        if until >= 0 && last >= until {
            return Ok(read);
        }
        let page: Value = sqlx::query_scalar(PAGE).bind(last).fetch_one(site.pool()).await?;
        let page = page.as_array().map_or(&[][..], Vec::as_slice);
        for event in page {
            let seq = event["seq"].as_i64().context("an event without a number")?;
            if seq != last + 1 {
                read.wrong.push(format!("I12: a reader got event {seq} after {last}"));
            }
            if is_live && event["kind"] == "chaos.event" {
                read.lags_ms.push(event["lag"].as_f64().unwrap_or_default());
            }
            last = seq;
        }
        // One that reads old pages measures its own absence, not the log's lag.
        is_live = page.len() < 500;
        let pause = if rng.one_in(50) { rng.between(500, 2000) } else { rng.between(100, 400) };
        is_live &= pause < 500;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Every commit is in the log once, no rollback is, and a cause stands before its effect.
async fn causes(site: &Site, commits: u64) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let rows = site
        .rows("select seq, body from event_log where kind = 'chaos.event' order by seq")
        .await?;
    if rows.len() as u64 != commits {
        wrong.push(format!("I12: {} of {commits} events are in the log", rows.len()));
    }
    let mut next: HashMap<u64, u64> = HashMap::new();
    for (position, row) in rows.iter().enumerate() {
        let (writer, n) = (row["body"]["writer"].as_u64(), row["body"]["n"].as_u64());
        let (writer, n) = (writer.context("no writer")?, n.context("no number")?);
        let expected = next.entry(writer).or_default();
        if n != *expected {
            wrong.push(format!("I12: writer {writer}'s event {n} stands where {expected} should"));
        }
        *expected = n + 1;
        // As many events as were committed before it began must stand before it.
        let after = row["body"]["after"].as_u64().context("no cause")?;
        if (position as u64) < after {
            wrong
                .push(format!("I12: event {} stands before one of its {after} causes", row["seq"]));
        }
    }
    Ok(wrong)
}
