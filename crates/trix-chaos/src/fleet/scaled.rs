//! The virtual fleet: a thousand nodes that replay recorded chunk times through the real
//! protocol, at a pace.
//!
//! At pace 0.5 a recorded second takes two: chunks and all times of the protocol alike. The
//! database then has half the work a second, and what it spends on a chunk is what it would
//! spend at any pace. So *its cores at real time* are the CPU that it spent, divided by the
//! recorded seconds that went by. The utilisation is flattered by a slow pace, because the
//! database answers in real time: the report says at which pace it was taken.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use trix_db::Db;
use trix_dispatch::DispatchConfig;
use trix_storage::Roots;

use super::chunks::Recorded;
use super::figures::Summary;
use super::films::{Desk, share};
use super::nodes::{Fleet, Listen, Order};
use super::server::{self, Durability, Server, Used};
use crate::rng::Rng;

/// What `fleet virtual` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    pub nodes: u32,
    /// Slots of each node.
    #[arg(long, default_value_t = 64)]
    pub slots: u32,
    /// Recorded seconds in a second: 1 is real time.
    #[arg(long, default_value_t = 0.5)]
    pub pace: f64,
    /// Length of the measured window in recorded seconds.
    #[arg(long, default_value_t = 120.0)]
    pub seconds: f64,
    /// Recorded chunk times.
    #[arg(long, value_name = "FILE")]
    pub chunks: PathBuf,
    /// Connections that the nodes share.
    #[arg(long, default_value_t = 48)]
    pub connections: u32,
    /// Seed of the draw of chunk times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    nodes: u32,
    slots: u32,
    pace: f64,
    chunk_times: String,
    mean_chunk_s: f64,
    durability: Durability,
    /// Seconds until every slot had been given a chunk.
    fill_s: f64,
    /// The window in recorded seconds.
    window_s: f64,
    /// Results that were committed in it.
    chunks: u64,
    utilisation: f64,
    transactions_per_chunk: f64,
    wal_bytes_per_chunk: f64,
    /// Cores of the database at real time.
    database_cores: f64,
    /// CPU of the database for a chunk.
    database_ms_per_chunk: f64,
    /// Of one sync, waiting for a connection included; in real time.
    syncs: Option<Summary>,
    killed: u64,
    refused: u64,
    failed_calls: u64,
    used: Used,
}

/// Measures.
pub async fn run(options: &Options) -> Result<Figures> {
    ensure!(options.pace > 0.0 && options.seconds > 0.0, "pace and seconds are above 0");
    let recorded = Recorded::read(&options.chunks)?;
    let server = Server::start().await?;
    let test = server.database().await?;
    let db = server::handle(&test, server::paced(options.pace), options.connections)?;
    let desk = Desk::open(db.clone()).await?;
    let slots = u64::from(options.nodes) * u64::from(options.slots);
    // One for each slot to begin with, what ends in the window, and half as much again for
    // the time in which the fleet is filled.
    let rounds = 2.0 + 1.5 * options.seconds / recorded.mean();
    desk.fill((slots as f64 * rounds) as u64).await?;
    server::analyze(test.url()).await?;
    server.checkpoint().await?;

    let stop = CancellationToken::new();
    let dispatcher = tokio::spawn(dispatch(db.clone(), stop.clone()));
    let mut rng = Rng::new(options.seed);
    let (pace, times) = (options.pace, recorded.clone());
    let mut first = slots;
    let order = Order {
        db,
        times: server::paced(options.pace),
        nodes: options.nodes,
        slots: options.slots,
        listen: Listen::Shared,
        work: Box::new(move |_, _| {
            let takes = times.pick(pace, &mut rng);
            // The fleet is met in the middle of its day: of its first chunks a part is over.
            if first > 0 {
                first -= 1;
                return takes.mul_f64(rng.unit());
            }
            takes
        }),
    };
    let mut fleet = Fleet::new(order, desk.films, options.seed).await?;
    fleet.run(|seen, _| seen.started >= slots).await?;
    let filled = fleet.now();
    let begin = server.counters(test.url()).await?;
    let from = fleet.now();
    fleet.tally.meter.restart(from);
    let (settled, failed) = (fleet.tally.settled, fleet.tally.failed_calls);
    let until = from + Duration::from_secs_f64(options.seconds / options.pace);
    fleet.run(|_, now| now >= until).await?;
    let end = server.counters(test.url()).await?;
    let now = fleet.now();
    let utilisation = fleet.tally.meter.utilisation(now, slots);
    stop.cancel();
    dispatcher.await??;

    let left = server::ready_tasks(test.url()).await?;
    ensure!(left > 0, "the queue ran dry within the window, which then says nothing");
    let used = begin.until(&end);
    let chunks = fleet.tally.settled - settled;
    ensure!(chunks > 0, "no chunk ended within the window");
    let per_chunk = |n: f64| n / chunks as f64;
    let window_s = used.wall_s * options.pace;
    Ok(Figures {
        nodes: options.nodes,
        slots: options.slots,
        pace: options.pace,
        mean_chunk_s: recorded.mean(),
        chunk_times: recorded.made_by,
        durability: server.durability().await?,
        fill_s: filled.as_secs_f64(),
        window_s,
        chunks,
        utilisation,
        transactions_per_chunk: per_chunk(used.commits as f64),
        wal_bytes_per_chunk: per_chunk(used.wal_bytes as f64),
        database_cores: used.server_cpu_s / window_s,
        database_ms_per_chunk: per_chunk(used.server_cpu_s * 1000.0),
        syncs: fleet.tally.syncs.summary(),
        killed: fleet.tally.killed,
        refused: fleet.tally.refused,
        failed_calls: fleet.tally.failed_calls - failed,
        used,
    })
}

/// The real dispatcher, without a share to look after.
pub async fn dispatch(db: Db, stop: CancellationToken) -> Result<()> {
    let config = DispatchConfig::new(db, Roots::new([]), share("cache"));
    Ok(trix_dispatch::run(config, stop).await?)
}

impl Figures {
    /// For people.
    pub fn print(&self) {
        println!(
            "{} nodes of {} slots at pace {}; chunks of {:.1} s on average ({})",
            self.nodes, self.slots, self.pace, self.mean_chunk_s, self.chunk_times
        );
        println!("every slot had a chunk after {:.1} s", self.fill_s);
        println!("{} chunks in a window of {:.1} recorded seconds", self.chunks, self.window_s);
        println!("utilisation {:.2} % (target 98)", self.utilisation * 100.0);
        println!("transactions a chunk {:.3} (target 0.2)", self.transactions_per_chunk);
        println!("write-ahead log a chunk {:.0} bytes", self.wal_bytes_per_chunk);
        println!(
            "database at real time {:.2} cores (target 1), {:.2} ms of CPU a chunk",
            self.database_cores, self.database_ms_per_chunk
        );
        if let Some(s) = self.syncs {
            println!(
                "syncs {}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                s.n, s.p50_ms, s.p99_ms, s.max_ms
            );
        }
        println!(
            "killed {}, refused {}, failed calls {}; others used {:.1} % of the cores",
            self.killed,
            self.refused,
            self.failed_calls,
            self.used.others * 100.0
        );
    }
}
