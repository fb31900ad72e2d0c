//! What one slow node costs: the makespan of a fleet with a node that is ten times slower,
//! against that of the others alone with the same work.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::chunks::Recorded;
use super::figures::{median, spread};
use super::films::Desk;
use super::nodes::{Fleet, Listen, Order};
use super::scaled::dispatch;
use super::server::{self, Server};
use crate::rng::Rng;

/// What `fleet stragglers` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Nodes, the slow one among them.
    #[arg(long, default_value_t = 20)]
    pub nodes: u32,
    /// Slots of each node.
    #[arg(long, default_value_t = 4)]
    pub slots: u32,
    /// How much slower the slow one is.
    #[arg(long, default_value_t = 10.0)]
    pub factor: f64,
    /// Chunks for each slot.
    #[arg(long, default_value_t = 24)]
    pub per_slot: u32,
    /// Recorded seconds in a second.
    #[arg(long, default_value_t = 10.0)]
    pub pace: f64,
    /// Recorded chunk times.
    #[arg(long, value_name = "FILE")]
    pub chunks: PathBuf,
    /// Rounds, each with the slow node and without it.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Seed of the first round's draw of chunk times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of it; makespans in recorded seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    nodes: u32,
    slots: u32,
    factor: f64,
    pace: f64,
    chunks: u64,
    chunk_times: String,
    mean_chunk_s: f64,
    /// Attempts beyond one a chunk, over all rounds with the slow node: 0 while the scheduler
    /// starts no twin of a task that runs.
    twins: u64,
    without_s: Vec<f64>,
    with_s: Vec<f64>,
    ratio: f64,
    ratio_spread: f64,
}

/// Measures.
pub async fn run(options: &Options) -> Result<Figures> {
    ensure!(options.nodes >= 2 && options.factor >= 1.0 && options.pace > 0.0, "no such fleet");
    let recorded = Recorded::read(&options.chunks)?;
    let server = Server::start().await?;
    let chunks = u64::from(options.nodes * options.slots * options.per_slot);
    let (mut without_s, mut with_s, mut twins) = (Vec::new(), Vec::new(), 0);
    for round in 0..options.rounds {
        let seed = options.seed + u64::from(round);
        without_s.push(makespan(options, &server, &recorded, chunks, seed, false).await?.0);
        let (seconds, attempts) = makespan(options, &server, &recorded, chunks, seed, true).await?;
        with_s.push(seconds);
        twins += attempts - chunks;
        eprintln!(
            "round {}: {:.1} s without the slow node, {:.1} s with it",
            round + 1,
            without_s[round as usize],
            with_s[round as usize]
        );
    }
    let ratios: Vec<f64> = with_s.iter().zip(&without_s).map(|(w, o)| w / o).collect();
    Ok(Figures {
        nodes: options.nodes,
        slots: options.slots,
        factor: options.factor,
        pace: options.pace,
        chunks,
        mean_chunk_s: recorded.mean(),
        chunk_times: recorded.made_by,
        twins,
        ratio: median(&ratios).context("there is at least one round")?,
        ratio_spread: spread(&ratios).context("there is at least one round")?,
        without_s,
        with_s,
    })
}

/// Recorded seconds until the last result was committed, and attempts that began.
async fn makespan(
    options: &Options,
    server: &Server,
    recorded: &Recorded,
    chunks: u64,
    seed: u64,
    slow: bool,
) -> Result<(f64, u64)> {
    let test = server.database().await?;
    let db = server::handle(&test, server::paced(options.pace), options.nodes)?;
    let desk = Desk::open(db.clone()).await?;
    desk.fill(chunks).await?;
    server::analyze(test.url()).await?;
    let stop = CancellationToken::new();
    let dispatcher = tokio::spawn(dispatch(db.clone(), stop.clone()));
    let (mut rng, pace, factor) = (Rng::new(seed), options.pace, options.factor);
    let (times, last) = (recorded.clone(), options.nodes as usize - 1);
    let order = Order {
        db,
        times: server::paced(options.pace),
        nodes: if slow { options.nodes } else { options.nodes - 1 },
        slots: options.slots,
        listen: Listen::Each,
        work: Box::new(move |node, _| {
            let takes = times.pick(pace, &mut rng);
            // The last to join: who is slow is not also the first at the queue.
            if slow && node == last { takes.mul_f64(factor) } else { takes }
        }),
    };
    let mut fleet = Fleet::new(order, desk.films, seed).await?;
    // Far more than all chunks one after the other on the slow node's slots.
    let patience = Duration::from_secs(3600);
    fleet.run(|seen, now| seen.settled >= chunks || now > patience).await?;
    ensure!(fleet.tally.settled >= chunks, "the work did not end within an hour");
    ensure!(
        fleet.tally.failed_calls == 0 && fleet.tally.refused == 0,
        "{} calls failed, {} results were refused",
        fleet.tally.failed_calls,
        fleet.tally.refused
    );
    stop.cancel();
    dispatcher.await??;
    let seconds = fleet.tally.last_settled.as_secs_f64() * options.pace;
    Ok((seconds, fleet.tally.started))
}

impl Figures {
    /// For people.
    pub fn print(&self) {
        println!(
            "{} nodes of {} slots, {} chunks of {:.1} s on average ({}), pace {}",
            self.nodes, self.slots, self.chunks, self.mean_chunk_s, self.chunk_times, self.pace
        );
        println!("twins that were started: {}", self.twins);
        println!(
            "with a node {} times slower the makespan is {:.3} of that of the others alone \
             (± {:.1} %, {} rounds; target 1.15)",
            self.factor,
            self.ratio,
            self.ratio_spread * 100.0,
            self.with_s.len()
        );
    }
}
