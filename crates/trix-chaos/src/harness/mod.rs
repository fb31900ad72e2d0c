//! The harness over real processes.
//!
//! | file | what |
//! |---|---|
//! | `film` | made-up films, and the content of every key |
//! | `slot` | the synthetic slot |
//! | `site` | an installation in a folder of its own |
//! | `process`, `net`, `clock` | what is broken: processes, links, clocks |
//! | `nas` | network mounts, and what goes wrong with them |
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
pub mod nas;
pub mod net;
pub mod parts;
pub mod process;
pub mod report;
pub mod restore;
pub mod rows;
pub mod site;
pub mod slot;
pub mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Say what happens.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Where what comes out of rows is kept.
#[derive(Clone, Debug, Args)]
pub struct Keep {
    /// Keep what comes out in this folder: a part for each row.
    #[arg(long, global = true, value_name = "DIR")]
    pub parts: Option<PathBuf>,
    /// Root of the sources that the parts' hash covers.
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    pub sources: PathBuf,
}

impl Keep {
    /// What came out of a row, as a part; it is written when a folder was named.
    pub fn part(&self, row: &str, scale: f64, begun: Instant, ended: Ended) -> Result<Part> {
        let sources = match &self.parts {
            Some(_) => parts::sources_hash(&self.sources, row)?,
            None => String::new(),
        };
        let seconds = begun.elapsed().as_secs_f64();
        let part = Part { sources, scale, row: row.to_owned(), seconds, ended };
        if let Some(folder) = &self.parts {
            parts::keep(folder, &part)?;
        }
        Ok(part)
    }
}

/// Runs rows and prints the table. True when nothing was violated.
pub fn run(options: &RunOptions, keep: &Keep) -> Result<bool> {
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
        let begun = Instant::now();
        let outcome = match &no_net {
            Some(why) if row.needs_net => Ended::Skipped(why.clone()),
            _ => runtime
                .block_on((row.run)(order))
                .unwrap_or_else(|e| Ended::Broken(format!("{e:#}"))),
        };
        tell(row, &outcome);
        ended.push(keep.part(row.name, options.scale, begun, outcome)?);
    }
    println!("\n{}", report::table(&ended));
    Ok(!ended.iter().any(|part| part.ended.failed()))
}

/// What `table` is told.
#[derive(Clone, Debug, Args)]
pub struct TableOptions {
    /// Rows that were begun, separated by commas: one that left no part has failed.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    pub begun: Vec<String>,
    /// All rows were begun; those that nobody has written yet are listed, too.
    #[arg(long)]
    pub whole: bool,
    /// Continue a campaign: the parts are added to this folder, and all of it is added up.
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
}

/// Prints one table of all parts in the folder. True when nothing failed.
pub fn table(options: &TableOptions, keep: &Keep) -> Result<bool> {
    let folder = keep.parts.as_ref().context("a table needs --parts")?;
    let mut all = parts::all(folder)?;
    if let Some(campaign) = &options.resume {
        for part in all.iter().filter(|part| matches!(part.ended, Ended::Ran(_))) {
            parts::keep(campaign, part)?;
        }
    }
    let mut begun: Vec<&str> = options.begun.iter().map(String::as_str).collect();
    if options.whole {
        begun.extend(rows::ALL.iter().map(|row| row.name));
    }
    begun.retain(|row| !all.iter().any(|part| part.row.eq_ignore_ascii_case(row)));
    let mut more: Vec<(&str, Ended)> = (begun.into_iter())
        .map(|row| (row, Ended::Broken("it ended without a word".to_owned())))
        .collect();
    if options.whole {
        for (row, why) in rows::ABSENT {
            println!("SKIP {row}: {why}");
            more.push((*row, Ended::Skipped((*why).to_owned())));
        }
    }
    let more: Vec<Part> = (more.into_iter())
        .map(|(row, ended)| Part {
            sources: String::new(),
            scale: 1.0,
            row: row.to_owned(),
            seconds: 0.0,
            ended,
        })
        .collect();
    all.extend(more);
    all.sort_by(|a, b| a.row.cmp(&b.row));
    if let Some(folder) = &options.resume {
        campaign(folder, &keep.sources)?;
    }
    println!("\n{}", report::table(&all));
    Ok(!all.iter().any(|part| part.ended.failed()))
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
    let (sums, stale) =
        parts::add_up(&parts::all(folder)?, |row| parts::sources_hash(sources, row))?;
    println!("\nthe campaign in {}:", folder.display());
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let (mut tasks, mut violations) = (0, 0);
    for (row, sum) in sums {
        println!(
            "    {row}: {} runs, {} faults ({}), {} tasks, {} violations",
            sum.runs,
            sum.faults.values().sum::<u64>(),
            report::list(sum.faults.iter().map(|(kind, n)| (kind.as_str(), *n))),
            sum.tasks,
            sum.violations
        );
        tasks += sum.tasks;
        violations += sum.violations;
        for (kind, n) in sum.faults {
            *faults.entry(kind).or_default() += n;
        }
    }
    let kinds = report::list(report::kinds(&faults));
    println!("    all: {kinds}; {tasks} tasks, {violations} violations");
    println!("    {stale} parts are stale: they ran against other sources");
    Ok(())
}

/// True when a program is in the search path.
fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}
