//! The idle service: from a submit to the claim that is committed, over the real hints.
//!
//! The workers are the real minds with a connection each that listens, and the submits come
//! at random times, so that no beat is met by chance more often than another. Counted is
//! from the moment at which the submit is sent, and beside it from the moment at which it
//! is known to be committed; to the moment at which the worker has the answer of the sync
//! that claimed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trix_db::Claim;
use trix_model::JobId;

use super::figures::{Latencies, OpenLoad, Summary};
use super::films::Desk;
use super::nodes::{Fleet, Listen, Order};
use super::server::{self, Durability, Server};

/// How long a submit may wait for its claim before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `fleet idle` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Nodes, each with nothing to do.
    #[arg(long, default_value_t = 4)]
    pub nodes: u32,
    /// Slots of each node.
    #[arg(long, default_value_t = 4)]
    pub slots: u32,
    /// Submits.
    #[arg(long, default_value_t = 500)]
    pub samples: usize,
    /// Submits a second, at random moments.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Seed of the moments.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    nodes: u32,
    slots: u32,
    rate: f64,
    durability: Durability,
    /// From the submit's begin.
    from_send: Option<Summary>,
    /// From the submit's answer.
    from_commit: Option<Summary>,
    /// Events that were numbered meanwhile.
    events: u64,
    failed_calls: u64,
}

/// When each job's task was claimed.
type Claimed = Arc<Mutex<HashMap<JobId, Instant>>>;

/// Measures.
pub async fn run(options: &Options) -> Result<Figures> {
    let server = Server::start().await?;
    let test = server.database().await?;
    let times = server::paced(1.0);
    let db = server::handle(&test, times, 2 * options.nodes + 4)?;
    let desk = Desk::open(db.clone()).await?;
    let claimed = Claimed::default();
    let (tell, told) = watch::channel(());
    let seen = claimed.clone();
    let order = Order {
        db: db.clone(),
        times,
        nodes: options.nodes,
        slots: options.slots,
        listen: Listen::Each,
        work: Box::new(move |_, claim: &Claim| {
            lock(&seen).insert(claim.job, Instant::now());
            tell.send_replace(());
            Duration::ZERO
        }),
    };
    let mut fleet = Fleet::new(order, desk.films.clone(), options.seed).await?;
    let nodes = u64::from(options.nodes);
    fleet.run(|seen, _| seen.registered == nodes).await?;

    let stop = CancellationToken::new();
    let sequencer = tokio::spawn(server::number_events(db, stop.clone()));
    let load = OpenLoad::new(options.rate, options.seed).take(options.samples).collect();
    let mut submits = tokio::spawn(submits(desk, load, claimed, told));
    let (from_send, from_commit) = tokio::select! {
        ended = fleet.run(|_, _| false) => {
            ended?;
            unreachable!("the fleet never has enough")
        }
        done = &mut submits => done??,
    };
    stop.cancel();
    let events = sequencer.await??;
    Ok(Figures {
        nodes: options.nodes,
        slots: options.slots,
        rate: options.rate,
        durability: server.durability().await?,
        from_send: from_send.summary(),
        from_commit: from_commit.summary(),
        events,
        failed_calls: fleet.tally.failed_calls,
    })
}

async fn submits(
    desk: Desk,
    load: Vec<Duration>,
    claimed: Claimed,
    mut told: watch::Receiver<()>,
) -> Result<(Latencies, Latencies)> {
    let (mut from_send, mut from_commit) = (Latencies::default(), Latencies::default());
    // The first beats are over and every connection is warm.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    for (n, at) in load.into_iter().enumerate() {
        tokio::time::sleep_until((begun + at).into()).await;
        let sent = Instant::now();
        let job = desk.submit(&format!("title {n}"), 5).await?;
        let committed = Instant::now();
        let claim = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(at) = lock(&claimed).remove(&job) {
                    return anyhow::Ok(at);
                }
                told.changed().await.context("the fleet is gone")?;
            }
        });
        let at = claim.await.with_context(|| format!("nobody claimed job {job}"))??;
        from_send.add(at - sent);
        // The claim may come before the submit's own answer.
        from_commit.add(at.saturating_duration_since(committed));
    }
    Ok((from_send, from_commit))
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Figures {
    /// For people.
    pub fn print(&self) {
        println!(
            "{} idle nodes of {} slots, {} submits a second",
            self.nodes, self.slots, self.rate
        );
        for (what, s) in [("sending", self.from_send), ("committing", self.from_commit)] {
            if let Some(s) = s {
                println!(
                    "from {what} a submit to its committed claim: p50 {:.2} ms, p90 {:.2} ms, \
                     p99 {:.2} ms, max {:.2} ms ({} submits)",
                    s.p50_ms, s.p90_ms, s.p99_ms, s.max_ms, s.n
                );
            }
        }
        println!("target: p50 10 ms; failed calls {}", self.failed_calls);
    }
}
