//! The program: `trix-chaos sim`, `bites`, `replay`, `input`, `check`, `run`, `table`, `fleet`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use trix_chaos::breaks::{Break, SQL_BREAKS, SqlBreak};
use trix_chaos::campaign::{self, Campaign};
use trix_chaos::check::{Journals, Looked, Mounted, Report, check};
use trix_chaos::fleet;
use trix_chaos::harness::report::{Ended, Report as RowReport};
use trix_chaos::harness::{self, Keep};
use trix_chaos::input;
use trix_chaos::replay::{self, Replayed};
use trix_chaos::world::{Counts, Run};

/// Proof of the protocol: a simulator, deliberate breaks, a replay against PostgreSQL, and the
/// checker of the invariants.
#[derive(Parser)]
#[command(name = "trix-chaos", version)]
struct Cli {
    #[command(flatten)]
    keep: Keep,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the protocol under seeds, with everything going wrong.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// Steps with faults in each; healing is extra.
        #[arg(long, default_value_t = 1000)]
        steps: u64,
        /// The first seed; alone, just this one with its trace.
        #[arg(long)]
        seed: Option<u64>,
        /// Take a safeguard out.
        #[arg(long = "break")]
        broken: Option<Break>,
    },
    /// Takes out one safeguard after the other and says by which rule it was noticed.
    Bites {
        /// Seeds within which each must be caught.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Steps with faults in each.
        #[arg(long, default_value_t = 1000)]
        steps: u64,
        /// Also break the real SQL, and replay up to so many traces over each break.
        #[arg(long, default_value_t = 100)]
        traces: u64,
        /// Leave the real SQL whole: no PostgreSQL is needed then.
        #[arg(long)]
        no_sql: bool,
    },
    /// Replays traces of the simulator against the real PostgreSQL, state by state.
    Replay {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        traces: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Steps with faults in each.
        #[arg(long, default_value_t = 400)]
        steps: u64,
        /// The most calls of each; without it the whole of each.
        #[arg(long, default_value_t = usize::MAX)]
        calls: usize,
        /// Compare the tables after every so many calls; answers are compared after each.
        #[arg(long, default_value_t = 16)]
        every: usize,
        /// Take a safeguard out of the real SQL.
        #[arg(long = "break", value_parser = sql_break)]
        broken: Option<SqlBreak>,
    },
    /// Hostile files, references, parameters and paths (rows B1, B3, B4, B5, X2).
    Input(input::Arguments),
    /// Asks the invariants of an installation.
    Check {
        /// Its database.
        #[arg(long, env = "DATABASE_URL")]
        database_url: String,
        /// Destination shares as NAME=/mount/point.
        #[arg(long = "share", value_parser = mounted)]
        shares: Vec<Mounted>,
        /// What clients wrote down, as JSON.
        #[arg(long)]
        journals: Option<std::path::PathBuf>,
    },
    /// Runs rows of fault trials over real processes in a folder of their own.
    Run(harness::RunOptions),
    /// Measures the queue, claims, hints, and a fleet of virtual nodes.
    Fleet(fleet::Arguments),
    /// Makes one table of what rows kept as parts.
    Table(harness::TableOptions),
    /// Runs one attempt for a worker, synthetically (not for people).
    #[command(hide = true)]
    Slot,
}

fn mounted(s: &str) -> Result<Mounted, String> {
    let (name, root) = s.split_once('=').ok_or("a share is given as NAME=/mount/point")?;
    Ok(Mounted { name: name.to_owned(), root: root.into() })
}

fn sql_break(s: &str) -> Result<SqlBreak, String> {
    SQL_BREAKS.iter().copied().find(|b| b.name == s).ok_or_else(|| {
        let names: Vec<&str> = SQL_BREAKS.iter().map(|b| b.name).collect();
        format!("{s:?} is no break of the SQL; there are: {}", names.join(", "))
    })
}

fn main() -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let Cli { keep, command } = Cli::parse();
    let kept = |row: &str, result: anyhow::Result<RowReport>| -> anyhow::Result<bool> {
        let ended = match result {
            Ok(report) => Ended::Ran(report),
            Err(e) => {
                eprintln!("{row}: {e:#}");
                Ended::Broken(format!("{e:#}"))
            }
        };
        let part = keep.part(row, 1.0, begun, ended)?;
        Ok(!part.ended.failed())
    };
    let good = match command {
        Command::Sim { seeds, steps, seed, broken } => {
            let campaign = match seed {
                Some(seed) => campaign::run(seed, 1, steps, broken, true),
                None => campaign::run(0, seeds, steps, broken, false),
            };
            report(&campaign, steps, broken);
            kept("C1", Ok(simulated(&campaign, seed.unwrap_or(0))))?
        }
        Command::Bites { seeds, steps, traces, no_sql } => {
            let mut table = Bitten::new();
            table.simulation(seeds, steps);
            let sql = if no_sql { Ok(()) } else { table.sql(traces) };
            kept("C2", sql.map(|()| table.report()))?
        }
        Command::Replay { traces, seed, steps, calls, every, broken } => {
            let plan = replay::Plan { first: seed, traces, steps, calls, every: every.max(1) };
            kept("C2-replay", replay::run(plan, broken).map(|done| replayed(&done, seed, begun)))?
        }
        Command::Input(arguments) => hostile(arguments, &keep, begun)?,
        Command::Check { database_url, shares, journals } => {
            let journals = match journals {
                Some(path) => serde_json::from_slice(&std::fs::read(&path)?)
                    .with_context(|| format!("reading {}", path.display()))?,
                None => Journals::default(),
            };
            let report = runtime()?.block_on(async {
                let db = trix_db::Db::open(&database_url, Default::default())?;
                anyhow::Ok(check(&db, &shares, &journals).await?)
            })?;
            print_report(&report);
            report.violations.is_empty()
        }
        Command::Run(options) => harness::run(&options, &keep)?,
        Command::Table(options) => {
            // Its last line says how many rows passed.
            return Ok(exit(harness::table(&options, &keep)?));
        }
        Command::Fleet(arguments) => {
            runtime()?.block_on(fleet::run(&arguments))?;
            true
        }
        Command::Slot => return Ok(harness::slot::run()),
    };
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    Ok(exit(good))
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What seeds of the simulator came to, as a row.
fn simulated(campaign: &Campaign, first: u64) -> RowReport {
    let mut row = RowReport::new("C1", first);
    row.faults.insert("simulated faults".to_owned(), campaign.counts.faults);
    row.faults.insert("simulated messages disturbed".to_owned(), campaign.counts.messages);
    row.figure("seeds", campaign.seeds as f64);
    row.figure("simulated attempts", campaign.counts.attempts as f64);
    for run in &campaign.failed {
        row.violations.extend(run.violations.iter().map(|v| format!("{v} (seed {})", run.seed)));
    }
    let more = campaign.violated - campaign.failed.len() as u64;
    if more > 0 {
        row.violations.push(format!("C1: {more} more seeds with violations"));
    }
    row
}

/// What a replay came to, as a row.
fn replayed(done: &Replayed, first: u64, begun: Instant) -> RowReport {
    print_replayed(done, begun);
    let mut row = RowReport::new("C2-replay", first);
    row.faults.insert("traces replayed".to_owned(), done.traces);
    row.figure("calls compared", done.calls as f64);
    row.violations.extend(done.difference.iter().map(|d| format!("C2: {d}")));
    if !done.jitter_is_even() {
        row.violations.push("C2: the random delays are not drawn evenly".to_owned());
    }
    row
}

/// Rows of hostile input, each by itself, so that each is a part of its own.
fn hostile(arguments: input::Arguments, keep: &Keep, begun: Instant) -> anyhow::Result<bool> {
    // One that goes on behind an earlier run counts what that one counted, too.
    let (Some(_), None) = (&keep.parts, &arguments.resume) else { return input::run(&arguments) };
    let rows =
        if arguments.row.is_empty() { input::Row::ALL.to_vec() } else { arguments.row.clone() };
    let (mut good, mut begun) = (true, begun);
    for row in rows {
        let folder = tempfile::tempdir().context("making a folder for counts")?;
        let one = input::Arguments {
            row: vec![row],
            resume: Some(folder.path().to_owned()),
            ..arguments.clone()
        };
        let ended = match input::run(&one).and_then(|_| counted(folder.path(), row)) {
            Ok(report) => Ended::Ran(report),
            Err(e) => Ended::Broken(format!("{e:#}")),
        };
        good &= !keep.part(row.name(), 1.0, begun, ended)?.ended.failed();
        begun = Instant::now();
    }
    Ok(good)
}

/// What a row of hostile input counted, from the part that it wrote.
fn counted(folder: &std::path::Path, row: input::Row) -> anyhow::Result<RowReport> {
    let file = std::fs::read_dir(folder)?.next().context("it wrote no counts")??;
    let part: input::run::Part = serde_json::from_slice(&std::fs::read(file.path())?)
        .with_context(|| format!("reading {}", file.path().display()))?;
    let mut report = RowReport::new(row.name(), part.seed);
    report.faults.insert("bad inputs".to_owned(), part.counts.inputs);
    report.figure("peak memory MiB", (part.counts.peak_ram >> 20) as f64);
    report.figure("longest attempt ms", part.counts.longest_ms as f64);
    report.violations.extend(
        (part.counts.defects.iter())
            .map(|d| format!("{}: input {} ({}): {}", row.name(), d.input, d.how, d.what)),
    );
    Ok(report)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn print_replayed(done: &Replayed, begun: Instant) {
    println!("traces {}", done.traces);
    println!("calls with equal answers {}", done.calls);
    for (name, n) in &done.by_call {
        println!("  {name} {n}");
    }
    println!("looks with equal tables {}", done.looks);
    println!("calls that a replay cannot make (ticks of a session that is over) {}", done.skipped);
    let mean = done.drawn / done.delays.max(1) as f64;
    println!("random delays taken over {}, {mean:.2} of the most on average", done.delays);
    if !done.jitter_is_even() {
        println!("DIFFERENT: the delays are not drawn evenly");
    }
    println!("calls a second {:.0}", done.calls as f64 / begun.elapsed().as_secs_f64());
    match &done.difference {
        None => println!("differences 0"),
        Some(d) => println!("DIFFERENT: {d}"),
    }
}

fn print_report(report: &Report) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["", "invariant", "looked at", "violations"]);
    for (rule, what, looked) in &report.looked {
        let n = report.violations.iter().filter(|v| v.rule == *rule).count();
        let looked = match looked {
            Looked::At(n) => n.to_string(),
            Looked::No(why) => format!("not: {why}"),
        };
        table.add_row([*rule, *what, &looked, &n.to_string()]);
    }
    println!("{table}");
    report.violations.iter().for_each(|v| println!("{v}"));
    println!("violations {}", report.violations.len());
}

fn report(campaign: &Campaign, steps: u64, broken: Option<Break>) {
    for run in &campaign.failed {
        show(&campaign::smallest(run, steps, broken));
    }
    println!("seeds {}", campaign.seeds);
    print_counts(&campaign.counts);
    println!("seeds with violations {}", campaign.violated);
}

fn print_counts(c: &Counts) {
    let rows = [
        ("steps", c.steps),
        ("faults", c.faults),
        ("messages lost, late, doubled or unanswered", c.messages),
        ("calls that reached the database", c.calls),
        ("events", c.events),
        ("attempts", c.attempts),
        ("workers marked lost", c.marked),
        ("results refused", c.refused),
        ("jobs ended", c.jobs),
        ("versions published", c.published),
    ];
    for (name, n) in rows {
        println!("{name} {n}");
    }
}

fn show(run: &Run) {
    println!("seed {} at {}:", run.seed, run.at);
    run.violations.iter().for_each(|v| println!("  {v}"));
    println!("  what came before:");
    run.trace.iter().for_each(|line| println!("  {line}"));
}

/// Calls of a trace over the broken SQL between two looks at the tables.
const LOOK_EVERY: usize = 4;

/// The table of breaks: which was noticed, and by what.
struct Bitten {
    table: comfy_table::Table,
    breaks: u64,
    missed: Vec<&'static str>,
}

impl Bitten {
    fn new() -> Bitten {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["break", "where", "seed", "at", "caught by"]);
        Bitten { table, breaks: 0, missed: Vec::new() }
    }

    /// One break; `caught` is the seed, where in its run, and by what.
    fn row(&mut self, name: &'static str, place: &str, caught: Option<(u64, String, String)>) {
        self.breaks += 1;
        if caught.is_none() {
            self.missed.push(name);
        }
        let (seed, at, by) = match caught {
            Some((seed, at, by)) => (seed.to_string(), at, by),
            None => (String::new(), String::new(), "NOT CAUGHT".to_owned()),
        };
        let by: String = by.chars().take(110).collect();
        self.table.add_row([name, place, &seed, &at, &by]);
    }

    fn simulation(&mut self, seeds: u64, steps: u64) {
        for b in campaign::bites(seeds, steps) {
            let caught = b.caught.and_then(|run| {
                let by = run.violations.first()?.to_string();
                Some((run.seed, run.at, by))
            });
            self.row(b.broken.name(), "simulation", caught);
        }
    }

    fn sql(&mut self, traces: u64) -> anyhow::Result<()> {
        let plan =
            replay::Plan { first: 0, traces, steps: 400, calls: usize::MAX, every: LOOK_EVERY };
        for (b, done) in replay::sql_bites(plan)? {
            let caught = done.difference.map(|d| {
                let by = d.found.first().cloned().unwrap_or_default();
                (d.seed, format!("call {}: {}", d.call, d.what), by)
            });
            self.row(b.name, &format!("SQL, {}", b.function), caught);
        }
        Ok(())
    }

    /// Prints it, and makes a row of it: each break that went unnoticed is a violation.
    fn report(&self) -> RowReport {
        println!("{}", self.table);
        println!("{} of {} breaks caught", self.breaks - self.missed.len() as u64, self.breaks);
        let mut row = RowReport::new("C2", 0);
        row.faults.insert("safeguards taken out".to_owned(), self.breaks);
        row.violations.extend(self.missed.iter().map(|name| format!("C2: {name} was not caught")));
        row
    }
}
