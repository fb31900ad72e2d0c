//! The harness over real processes.
//!
//! | file | what |
//! |---|---|
//! | `film` | made-up films, and the content of every key |
//! | `slot` | the synthetic slot |
//! | `site` | an installation in a folder of its own |
//! | `process`, `net`, `clock` | what is broken: processes, links, clocks |
//! | `client` | clients that write down what they were told |
//! | `golden` | what a fault-free run publishes |
//! | `trial` | one run: load, faults, healing, the look at what is left |
//! | `audit` | the invariants |
//! | `restore` | backups, the loss of the database, and what must hold of a lost history |
//! | `rows` | one file a row |
//! | `report`, `parts` | the table, and campaigns that add up |
//!
//! **Against an installation of somebody's own it does nothing: it only breaks what it made.**

pub mod audit;
pub mod client;
pub mod clock;
pub mod film;
pub mod golden;
pub mod net;
pub mod parts;
pub mod process;
pub mod report;
pub mod restore;
pub mod rows;
pub mod site;
pub mod slot;
pub mod trial;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use self::parts::Part;
use self::report::Ended;
use self::rows::Row;
use self::trial::Order;

/// What `run` is told.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Rows by name, separated by commas; all when left out.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    pub row: Vec<String>,
    /// Minutes of faults for each row; its share of the short profile when left out.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Seed of the first row; the others' follow from it. Random when left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Factor on the protocol's times.
    #[arg(long, default_value_t = 0.1)]
    pub scale: f64,
    /// The long profile: ten times the time of the short one.
    #[arg(long)]
    pub long: bool,
    /// Continue a campaign: parts are added to this folder.
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Root of the sources that the parts' hash covers.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub sources: PathBuf,
    /// Say what happens.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Runs rows and prints the table. True when nothing was violated.
pub fn run(options: &RunOptions) -> Result<bool> {
    let rows = chosen(&options.row)?;
    // Network namespaces are entered before any thread is there.
    let no_net = if net::is_inside() { None } else { Some(net::enter()) };
    if let Some(why) = &no_net {
        eprintln!("without networks of its own: {why}");
    }
    let seed = options.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut ended = Vec::new();
    let mut runs: Vec<(&Row, u64, Duration)> = (rows.into_iter().enumerate())
        .map(|(n, row)| (row, seed.wrapping_add(n as u64), time(options, row)))
        .collect();
    if options.row.is_empty() && options.seed.is_none() {
        for (name, seed, _) in rows::REGRESSIONS {
            let row = chosen(&[(*name).to_owned()])?[0];
            runs.push((row, *seed, Duration::from_secs(rows::REGRESSION_SECONDS)));
        }
    }
    for (row, seed, time) in runs {
        let order = Order { seed, time, scale: options.scale, verbose: options.verbose };
        println!("{} ({}): seed {seed}, {:?} of faults", row.name, row.what, order.time);
        let outcome = match &no_net {
            Some(why) if row.needs_net => Ended::Skipped(why.clone()),
            _ => runtime
                .block_on((row.run)(order))
                .unwrap_or_else(|e| Ended::Broken(format!("{e:#}"))),
        };
        tell(row, &outcome);
        if let (Ended::Ran(report), Some(folder)) = (&outcome, &options.resume) {
            let sources = parts::sources_hash(&options.sources)?;
            let part = Part { sources, scale: options.scale, report: report.clone() };
            parts::keep(folder, &part)?;
        }
        ended.push((row.name, outcome));
    }
    println!("\n{}", report::table(&ended));
    if let Some(folder) = &options.resume {
        campaign(folder, &options.sources)?;
    }
    let failed = ended.iter().any(|(_, e)| match e {
        Ended::Ran(report) => !report.violations.is_empty(),
        Ended::Skipped(_) => false,
        Ended::Broken(_) => true,
    });
    Ok(!failed)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(rows::ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            let found = rows::ALL.iter().find(|row| row.name.eq_ignore_ascii_case(name));
            let all: Vec<_> = rows::ALL.iter().map(|row| row.name).collect();
            found.with_context(|| format!("there is no row {name}; there are {}", all.join(", ")))
        })
        .collect()
}

fn time(options: &RunOptions, row: &Row) -> Duration {
    match options.minutes {
        Some(minutes) => Duration::from_secs_f64(minutes * 60.0),
        None if options.long => Duration::from_secs(row.seconds * 10),
        None => Duration::from_secs(row.seconds),
    }
}

fn tell(row: &Row, outcome: &Ended) {
    match outcome {
        Ended::Ran(report) => {
            for (name, value) in &report.figures {
                println!("    {name}: {value:.0}");
            }
            for violation in report.violations.iter().take(20) {
                println!("    VIOLATION {violation}");
            }
            if report.violations.len() > 20 {
                println!("    and {} more violations", report.violations.len() - 20);
            }
        }
        Ended::Skipped(why) => println!("SKIP {}: {why}", row.name),
        Ended::Broken(why) => println!("    the harness failed: {why}"),
    }
}

/// What the parts of a campaign come to.
fn campaign(folder: &Path, sources: &Path) -> Result<()> {
    let (sums, stale) = parts::add_up(&parts::all(folder)?, &parts::sources_hash(sources)?);
    println!("\nthe campaign in {}:", folder.display());
    for (row, sum) in sums {
        let faults: Vec<String> = sum.faults.iter().map(|(k, n)| format!("{n} {k}")).collect();
        println!(
            "    {row}: {} runs, {} faults ({}), {} tasks, {} violations",
            sum.runs,
            sum.faults.values().sum::<u64>(),
            faults.join(", "),
            sum.tasks,
            sum.violations
        );
    }
    println!("    {stale} parts are stale: they ran against other sources");
    Ok(())
}

/// True when a program is in the search path.
fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}
