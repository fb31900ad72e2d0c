//! Claims over a long queue: how long one takes, under an open and under a closed load.
//!
//! A claim here is what it is in production: one sync that hands in the last task's result
//! and takes the next one. Under the open load the calls come at random moments, at their
//! rate, whether or not those before are answered; the latency counts from the planned
//! moment, so the time in which no claimer was free is in it. Under the closed load each
//! claimer calls as soon as it is answered: that says what the server can do at most, and
//! hides what a late answer does to those behind it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trix_db::AttemptResult;
use trix_model::TaskId;

use super::figures::{Latencies, OpenLoad, Summary};
use super::films::{Client, Desk, Films, result};
use super::scaled::dispatch;
use super::server::{self, Durability, Server, Used};

/// Cores of each claimer's node.
const CORES: u32 = 4;

/// What `fleet claim` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Ready tasks, of mixed shapes.
    #[arg(long, default_value_t = 100_000)]
    pub tasks: u64,
    /// Claimers, each a worker of its own.
    #[arg(long, default_value_t = 64)]
    pub claimers: u32,
    /// Claims a second in all, in the open load.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Length of the open load in seconds.
    #[arg(long, default_value_t = 60.0)]
    pub seconds: f64,
    /// Length of the closed load in seconds.
    #[arg(long, default_value_t = 15.0)]
    pub closed_seconds: f64,
    /// Seed of the open load's moments.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    tasks: u64,
    fitting_shapes: u32,
    claimers: u32,
    rate: f64,
    durability: Durability,
    /// From the planned moment.
    open: Option<Summary>,
    /// From the send: what a measurement would show that is not open.
    open_from_send: Option<Summary>,
    /// CPU of the server for a claim under the open load.
    open_server_ms: f64,
    open_used: Used,
    closed: Option<Summary>,
    closed_per_second: f64,
    closed_used: Used,
    /// Claims that got nothing although there was enough, under both loads.
    empty: u64,
}

/// A worker that holds one task at most.
struct Claimer {
    client: Client,
    films: Arc<Films>,
    results: Vec<AttemptResult>,
    claimed: Vec<TaskId>,
    /// Claims that got nothing, because others held all that was looked at.
    empty: u64,
}

impl Claimer {
    /// One claim.
    async fn claim(&mut self) -> Result<()> {
        let results = std::mem::take(&mut self.results);
        let claims = self.client.sync(results, 1).await?;
        ensure!(claims.len() <= 1, "{} tasks were claimed instead of one", claims.len());
        self.empty += u64::from(claims.is_empty());
        self.results.extend(claims.iter().map(|c| result(c.attempt, self.films.ok(c))));
        self.claimed.extend(claims.iter().map(|c| c.attempt.task));
        Ok(())
    }
}

/// Measures.
pub async fn run(options: &Options) -> Result<Figures> {
    let server = Server::start().await?;
    let test = server.database().await?;
    // A connection for each, as in a fleet.
    let db = server::handle(&test, server::paced(1.0), options.claimers + 8)?;
    let desk = Desk::open(db.clone()).await?;
    let begun = Instant::now();
    desk.fill_mixed(options.tasks).await?;
    eprintln!("{} tasks were queued in {:.1} s", options.tasks, begun.elapsed().as_secs_f64());
    server::analyze(test.url()).await?;
    server.checkpoint().await?;

    let films = Arc::new(desk.films);
    let mut claimers = Vec::new();
    for n in 0..options.claimers {
        let node = format!("claimer-{n:03}");
        let secret = db.enrol_node(&node).await?.secret;
        let client = Client::register(&db, &node, &secret, CORES).await?;
        let (results, claimed) = (Vec::new(), Vec::new());
        let mut claimer = Claimer { client, films: films.clone(), results, claimed, empty: 0 };
        // Warm: a connection, its plans, and a task to hand in.
        claimer.claim().await?;
        claimers.push(claimer);
    }
    let stop = CancellationToken::new();
    let dispatcher = tokio::spawn(dispatch(db.clone(), stop.clone()));

    let count = (options.rate * options.seconds) as usize;
    let load = OpenLoad::new(options.rate, options.seed).take(count).collect();
    let begin = server.counters(test.url()).await?;
    let (claimers, open, open_from_send) = open_load(claimers, load).await?;
    let end = server.counters(test.url()).await?;
    let open_used = begin.until(&end);

    let begin = server.counters(test.url()).await?;
    let length = Duration::from_secs_f64(options.closed_seconds);
    let (claimers, closed) = closed_load(claimers, length).await?;
    let closed_used = begin.until(&server.counters(test.url()).await?);
    stop.cancel();
    dispatcher.await??;

    let all = claimers.iter().map(|c| c.claimed.len()).sum::<usize>();
    let distinct: HashSet<TaskId> = claimers.iter().flat_map(|c| c.claimed.clone()).collect();
    ensure!(distinct.len() == all, "of {all} claims {} were of a task again", all - distinct.len());
    let closed = closed.summary();
    Ok(Figures {
        tasks: options.tasks,
        fitting_shapes: Films::MIXED_FITTING,
        claimers: options.claimers,
        rate: options.rate,
        durability: server.durability().await?,
        open: open.summary(),
        open_from_send: open_from_send.summary(),
        open_server_ms: open_used.server_cpu_s * 1000.0 / count as f64,
        open_used,
        closed_per_second: closed.map_or(0.0, |s| s.n as f64) / closed_used.wall_s,
        closed,
        closed_used,
        empty: claimers.iter().map(|c| c.empty).sum(),
    })
}

/// Claims at the planned moments, by whichever claimer is free first. Gives latencies from
/// the plan and from the send.
async fn open_load(
    claimers: Vec<Claimer>,
    load: Vec<Duration>,
) -> Result<(Vec<Claimer>, Latencies, Latencies)> {
    let (plan, due) = mpsc::unbounded_channel::<Instant>();
    let due = Arc::new(Mutex::new(due));
    let mut running = JoinSet::new();
    for mut claimer in claimers {
        let due = due.clone();
        running.spawn(async move {
            let (mut planned, mut sent) = (Latencies::default(), Latencies::default());
            loop {
                let next = due.lock().await.recv().await;
                let Some(at) = next else { return anyhow::Ok((claimer, planned, sent)) };
                let begun = Instant::now();
                claimer.claim().await?;
                planned.add(at.elapsed());
                sent.add(begun.elapsed());
            }
        });
    }
    let begun = Instant::now();
    for at in load {
        tokio::time::sleep_until((begun + at).into()).await;
        plan.send(begun + at).context("every claimer ended")?;
    }
    drop(plan);
    let mut claimers = Vec::new();
    let (mut planned, mut sent) = (Latencies::default(), Latencies::default());
    while let Some(ended) = running.join_next().await {
        let (claimer, p, s) = ended??;
        claimers.push(claimer);
        planned.extend(p);
        sent.extend(s);
    }
    Ok((claimers, planned, sent))
}

/// Each claimer claims as soon as it is answered.
async fn closed_load(
    claimers: Vec<Claimer>,
    length: Duration,
) -> Result<(Vec<Claimer>, Latencies)> {
    let until = Instant::now() + length;
    let mut running = JoinSet::new();
    for mut claimer in claimers {
        running.spawn(async move {
            let mut took = Latencies::default();
            while Instant::now() < until {
                let begun = Instant::now();
                claimer.claim().await?;
                took.add(begun.elapsed());
            }
            anyhow::Ok((claimer, took))
        });
    }
    let (mut claimers, mut took) = (Vec::new(), Latencies::default());
    while let Some(ended) = running.join_next().await {
        let (claimer, t) = ended??;
        claimers.push(claimer);
        took.extend(t);
    }
    Ok((claimers, took))
}

impl Figures {
    /// For people.
    pub fn print(&self) {
        println!(
            "{} ready tasks, {} shapes that fit, {} claimers",
            self.tasks, self.fitting_shapes, self.claimers
        );
        let line = |what: &str, s: Option<Summary>| {
            if let Some(s) = s {
                println!(
                    "{what}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms ({} claims)",
                    s.p50_ms, s.p90_ms, s.p99_ms, s.max_ms, s.n
                );
            }
        };
        line(&format!("open load of {} a second (target p99 50 ms)", self.rate), self.open);
        line("the same, counted from the send", self.open_from_send);
        println!(
            "server under the open load: {:.2} ms of CPU a claim; others used {:.1} % of the cores",
            self.open_server_ms,
            self.open_used.others * 100.0
        );
        line(&format!("closed load ({:.0} a second)", self.closed_per_second), self.closed);
        println!("claims that got nothing: {}", self.empty);
    }
}
