//! The queue alone: tasks that do nothing, through all the functions that real ones go
//! through, beside graphile-worker on the same server.
//!
//! A round of trix: films are submitted, their intakes are claimed and committed, their
//! plans are found and appended, their chunks are claimed, committed and their jobs ended,
//! while a sequencer numbers every event. It ends when the last result is committed **and**
//! the last event is numbered. Each task has the document of a real chunk.
//!
//! A round of graphile-worker: jobs are added in batches as large as trix's plans, and run
//! by one process; it ends when its table of jobs is empty. A job's payload is one number.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trix_db::AttemptResult;
use trix_db::leader::{Leader, Seat};

use super::figures::{median, spread};
use super::films::{Client, Desk, result};
use super::server::{self, Durability, Server, Used};

/// Above this share of the cores what others do shows: a round is void.
const OTHERS_LIMIT: f64 = 0.05;

/// Ways in which graphile-worker is run: as it comes, and as its makers measure it.
const MODES: [&str; 2] = ["single", "batched"];

/// What `fleet queue` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Tasks of a round.
    #[arg(long, default_value_t = 20_000)]
    pub tasks: u64,
    /// Tasks of a plan, and jobs that graphile-worker gets at once.
    #[arg(long, default_value_t = 200)]
    pub plan: u32,
    /// Results and claims of one sync; a worker sends 50 results at most.
    #[arg(long, default_value_t = 50)]
    pub batch: u32,
    /// Workers, one sync at a time each.
    #[arg(long, default_value_t = 4)]
    pub workers: u32,
    /// Rounds that count.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Program that drives graphile-worker; without it trix is measured alone.
    #[arg(long, value_name = "FILE")]
    pub graphile: Option<PathBuf>,
    /// Folder with its node_modules.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub graphile_folder: PathBuf,
    /// Keep disturbed rounds: shows that it works, proves nothing.
    #[arg(long)]
    pub trial: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    tasks: u64,
    plan: u32,
    batch: u32,
    workers: u32,
    durability: Durability,
    trial: bool,
    void_rounds: u32,
    contestants: Vec<Contestant>,
}

/// One way of running the tasks.
#[derive(Clone, Debug, Serialize)]
struct Contestant {
    name: String,
    per_second: f64,
    spread: f64,
    rounds: Vec<Round>,
}

/// One contestant's part of a round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    tasks: u64,
    seconds: f64,
    used: Used,
}

/// What the driver of graphile-worker prints.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Driven {
    version: String,
    jobs: u64,
    seconds: f64,
}

/// Measures.
pub async fn run(options: &Options) -> Result<Figures> {
    ensure!(options.rounds > 0 && options.plan > 0 && options.batch > 0, "nothing to measure");
    let server = Server::start().await?;
    let modes: &[&str] = if options.graphile.is_some() { &MODES } else { &[] };
    let mut contestants = vec![Contestant::new("trix")];
    contestants.extend(modes.iter().map(|m| Contestant::new(&format!("graphile-worker {m}"))));
    let (mut kept, mut void_rounds) = (0, 0);
    while kept < options.rounds {
        ensure!(void_rounds <= 2 * options.rounds, "others used this machine in too many rounds");
        let mut round = vec![trix(options, &server).await?];
        for mode in modes {
            let (driven, of_graphile) = graphile(options, &server, mode).await?;
            contestants[round.len()].name = format!("graphile-worker {} {mode}", driven.version);
            round.push(of_graphile);
        }
        for (c, r) in contestants.iter().zip(&round) {
            eprintln!(
                "{}: {:.0} a second; others used {:.1} % of the cores",
                c.name,
                r.tasks as f64 / r.seconds,
                r.used.others * 100.0
            );
        }
        if !options.trial && round.iter().any(|r| r.used.others > OTHERS_LIMIT) {
            void_rounds += 1;
            continue;
        }
        kept += 1;
        contestants.iter_mut().zip(round).for_each(|(c, r)| c.rounds.push(r));
    }
    for c in &mut contestants {
        let rates: Vec<f64> = c.rounds.iter().map(|r| r.tasks as f64 / r.seconds).collect();
        c.per_second = median(&rates).context("there is at least one round")?;
        c.spread = spread(&rates).context("there is at least one round")?;
    }
    Ok(Figures {
        tasks: options.tasks,
        plan: options.plan,
        batch: options.batch,
        workers: options.workers,
        durability: server.durability().await?,
        trial: options.trial,
        void_rounds,
        contestants,
    })
}

/// A round of trix in a fresh database.
async fn trix(options: &Options, server: &Server) -> Result<Round> {
    let test = server.database().await?;
    let db = server::handle(&test, server::paced(1.0), options.workers + 8)?;
    let desk = Arc::new(Desk::open(db.clone()).await?);
    let seat = Seat::try_take(&db, "fleet queue", Duration::ZERO).await?.context("the seat")?;
    let mut workers = Vec::new();
    for n in 0..options.workers {
        let node = format!("node-{n}");
        let secret = db.enrol_node(&node).await?.secret;
        workers.push(Client::register(&db, &node, &secret, options.batch).await?);
    }
    server.checkpoint().await?;

    // An intake and its plan.
    let each = u64::from(options.plan) + 1;
    let jobs = options.tasks.div_ceil(each);
    let total = jobs * each;
    let committed = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let begin = server.counters(test.url()).await?;
    let begun = Instant::now();

    let sequencer = tokio::spawn(server::number_events(db.clone(), stop.clone()));
    let mut parts = JoinSet::new();
    let submits = desk.clone();
    parts.spawn(async move {
        for n in 0..jobs {
            submits.submit(&film(n), 5).await?;
        }
        anyhow::Ok(())
    });
    parts.spawn(append(seat.leader(), desk.clone(), jobs, options.plan));
    for worker in workers {
        parts.spawn(work(worker, desk.clone(), options.batch, committed.clone(), total));
    }
    while let Some(ended) = parts.join_next().await {
        ended??;
    }
    stop.cancel();
    let events = sequencer.await??;
    let seconds = begun.elapsed().as_secs_f64();
    let end = server.counters(test.url()).await?;

    let done = committed.load(Ordering::Relaxed);
    ensure!(done == total, "{done} of {total} tasks were committed");
    // Ready, claimed, done: each task has three at least.
    ensure!(events >= 3 * total, "{events} events of {total} tasks");
    let succeeded = desk.db.job_counts().await?.get("succeeded").copied().unwrap_or(0);
    ensure!(succeeded == jobs as i64, "{succeeded} of {jobs} jobs succeeded");
    seat.leave().await?;
    // A session tells of its last commits when it ends; all else is of the round itself.
    drop((db, desk));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = begin.until(&server.counters(test.url()).await?);
    let used = Used { commits: told.commits, ..begin.until(&end) };
    Ok(Round { tasks: total, seconds, used })
}

fn film(n: u64) -> String {
    format!("film {n}")
}

/// Appends the plans of jobs as their intakes are done, as the dispatcher does.
async fn append(leader: Leader, desk: Arc<Desk>, jobs: u64, tasks: u32) -> Result<()> {
    let mut appended = 0;
    while appended < jobs {
        let found = leader.jobs_to_plan(8).await?;
        if found.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for job in found {
            let plan = desk.films.chunks(&job.title, tasks);
            ensure!(leader.append_plan(job.job, &plan).await?, "job {} took no plan", job.job);
            appended += 1;
        }
    }
    Ok(())
}

/// A worker: each sync hands in what the one before claimed.
async fn work(
    worker: Client,
    desk: Arc<Desk>,
    batch: u32,
    committed: Arc<AtomicU64>,
    total: u64,
) -> Result<()> {
    let mut results: Vec<AttemptResult> = Vec::new();
    while committed.load(Ordering::Relaxed) < total {
        let sent = results.len() as u64;
        let claims = worker.sync(std::mem::take(&mut results), batch).await?;
        committed.fetch_add(sent, Ordering::Relaxed);
        if claims.is_empty() {
            // A real one would be told by a hint.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        results.extend(claims.iter().map(|c| result(c.attempt, desk.films.ok(c))));
    }
    ensure!(results.is_empty(), "tasks were left over");
    Ok(())
}

/// A round of graphile-worker in a fresh database of the same server.
async fn graphile(options: &Options, server: &Server, mode: &str) -> Result<(Driven, Round)> {
    let script = options.graphile.as_ref().context("a driver")?;
    let name = format!("graphile_{mode}");
    let url = server.empty_database(&name).await?;
    server.checkpoint().await?;
    let begin = server.counters(&url).await?;
    let script = std::path::absolute(script).context("the driver's path")?;
    let child = tokio::process::Command::new("node")
        .arg(script)
        .args([mode, &options.tasks.to_string(), &options.plan.to_string()])
        .current_dir(&options.graphile_folder)
        .env("DATABASE_URL", &url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = child.await.context("starting node")?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        bail!("the driver of graphile-worker ended with {}: {said}", ended.status);
    }
    let used = begin.until(&server.counters(&url).await?);
    server.drop_database(&name).await?;
    let driven = driven(&String::from_utf8_lossy(&ended.stdout))?;
    ensure!(driven.jobs == options.tasks, "{} jobs of {} ran", driven.jobs, options.tasks);
    let round = Round { tasks: driven.jobs, seconds: driven.seconds, used };
    Ok((driven, round))
}

/// The last line that the driver printed.
fn driven(printed: &str) -> Result<Driven> {
    let line = printed.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    let driven: Driven = serde_json::from_str(line)
        .with_context(|| format!("the driver of graphile-worker printed {line:?}"))?;
    ensure!(driven.seconds > 0.0, "the driver of graphile-worker took no time");
    Ok(driven)
}

impl Contestant {
    fn new(name: &str) -> Contestant {
        Contestant { name: name.into(), per_second: 0.0, spread: 0.0, rounds: Vec::new() }
    }
}

impl Figures {
    /// For people.
    pub fn print(&self) {
        let d = &self.durability;
        println!(
            "PostgreSQL {}, fsync {}, synchronous_commit {} ({}); {} tasks a round, \
             plans of {}, {} workers, {} a sync; {} void rounds{}",
            d.version,
            d.fsync,
            d.synchronous_commit,
            d.wal_sync_method,
            self.tasks,
            self.plan,
            self.workers,
            self.batch,
            self.void_rounds,
            if self.trial { "; TRIAL: no figure is a claim" } else { "" }
        );
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "",
            "tasks a second",
            "±",
            "server CPU ms",
            "commits",
            "log bytes",
            "rounds",
        ]);
        for c in &self.contestants {
            let per_task = |of: fn(&Used) -> f64| {
                let all: Vec<f64> = c.rounds.iter().map(|r| of(&r.used) / r.tasks as f64).collect();
                median(&all).unwrap_or(f64::NAN)
            };
            table.add_row([
                c.name.clone(),
                format!("{:.0}", c.per_second),
                format!("{:.1} %", c.spread * 100.0),
                format!("{:.3}", per_task(|u| u.server_cpu_s * 1000.0)),
                format!("{:.3}", per_task(|u| u.commits as f64)),
                format!("{:.0}", per_task(|u| u.wal_bytes as f64)),
                c.rounds.len().to_string(),
            ]);
        }
        println!("{table}");
        println!("CPU, commits and log are for a task; target: 2,500 tasks a second");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_last_line_is_its_word() {
        let good = "warming up\n{\"version\": \"1.2\", \"jobs\": 7, \"seconds\": 0.5}\n\n";
        let wanted = Driven { version: "1.2".into(), jobs: 7, seconds: 0.5 };
        assert_eq!(driven(good).unwrap(), wanted);
        for bad in ["", "7", "{\"jobs\": 7}", "{\"version\": \"1\", \"jobs\": 7, \"seconds\": 0}"] {
            assert!(driven(bad).is_err(), "{bad}");
        }
    }
}
