//! Hostile input: files, references, encoder parameters, paths.
//!
//! Every file goes through real slots with a worker's limits. What is counted as a defect is a
//! break of the promise, not a refusal: a panic of our own code, a failure that would be tried
//! for ever, time or memory or disk beyond the caps, a changed source, a process left behind, a
//! descriptor leaked, two answers to one input, an open outside of what was given.

pub mod bombs;
pub mod corpus;
pub mod damage;
pub mod forge;
pub mod mutate;
pub mod nested;
pub mod params;
pub mod paths;
pub mod report;
pub mod run;
pub mod seed;
pub mod slots;
pub mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use report::Counts;
use run::{Extent, Part};

/// Rows of hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Row {
    /// Damaged files.
    B1,
    /// Small files that ask for the world.
    B3,
    /// Files that name other files and machines.
    B4,
    /// Random encoder settings.
    B5,
    /// Hostile paths, names and templates.
    X2,
}

/// `trix-chaos input`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rows to run; all when none is named.
    #[arg(long, value_delimiter = ',')]
    pub row: Vec<Row>,
    /// Inputs a row, instead of each row's own number.
    #[arg(long)]
    pub count: Option<u64>,
    /// Seed of the campaign; printed, so that a run can be had again.
    #[arg(long)]
    pub seed: Option<u64>,
    /// First input: with --count 1 and a seed, one input again.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Minutes a row at most; its counts tell how far it came.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Folder of parts: a row goes on behind what it holds and adds to it.
    #[arg(long)]
    pub resume: Option<PathBuf>,
    /// Folder for inputs that show a defect.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// The program `trix-media`; the one beside this program when it is not named.
    #[arg(long, env = "TRIX_MEDIA_BIN")]
    pub media: Option<PathBuf>,
}

/// What the rows share.
#[derive(Debug)]
pub struct Site {
    /// The program whose slots are tried.
    pub media: PathBuf,
    /// A folder of one's own for inputs and stages.
    pub folder: PathBuf,
    /// Where inputs that show a defect are kept.
    pub keep: Option<PathBuf>,
}

impl Site {
    /// Keeps an input for whoever looks into a defect.
    pub fn keep(&self, row: &str, input: u64, from: &Path) -> Result<()> {
        let Some(folder) = &self.keep else { return Ok(()) };
        fs::create_dir_all(folder).context("making the folder for kept inputs")?;
        fs::copy(from, folder.join(format!("{row}-{input}"))).context("keeping an input")?;
        Ok(())
    }
}

impl Row {
    /// Every row.
    pub const ALL: &[Row] = &[Row::B1, Row::B3, Row::B4, Row::B5, Row::X2];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Row::B1 => "B1",
            Row::B3 => "B3",
            Row::B4 => "B4",
            Row::B5 => "B5",
            Row::X2 => "X2",
        }
    }

    /// Inputs of a whole run.
    fn usual(self) -> u64 {
        match self {
            Row::B1 => 10_000,
            Row::B3 => bombs::bombs().len() as u64,
            Row::B4 => nested::usual(),
            Row::B5 => 5000,
            Row::X2 => 500,
        }
    }

    /// Runs it.
    pub fn run(self, site: &Site, seed: u64, extent: &Extent) -> Result<Counts> {
        match self {
            Row::B1 => damage::run(site, seed, extent, 1),
            Row::B3 => bombs::run(site, extent),
            Row::B4 => nested::run(site, extent),
            Row::B5 => params::run(site, seed, extent),
            Row::X2 => paths::run(site, seed, extent),
        }
    }
}

/// Runs the rows and prints the table; false when there is a defect.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let media = match &arguments.media {
        Some(path) => path.clone(),
        None => beside("trix-media")?,
    };
    let media = media.canonicalize().with_context(|| format!("finding {}", media.display()))?;
    let program = program_id(&media)?;
    let folder = tempfile::Builder::new().prefix("trix-chaos-").tempdir_in("/var/tmp")?;
    let seed = arguments.seed.unwrap_or_else(from_clock);
    println!("seed {seed}");
    let site = Site { media, folder: folder.path().to_owned(), keep: arguments.keep.clone() };
    let rows = if arguments.row.is_empty() { Row::ALL } else { &arguments.row };
    report::heading();
    let mut clean = true;
    for row in rows {
        let begun = Instant::now();
        let before = match &arguments.resume {
            Some(folder) => Part::read(folder, row.name(), seed, &program)?,
            None => None,
        };
        let done = before.as_ref().map_or(arguments.from, |part| part.counts.inputs);
        let count = arguments.count.unwrap_or(row.usual());
        let until = run::deadline(arguments.minutes);
        let mut counts = row.run(&site, seed, &Extent { from: done, count, until })?;
        let mut wall_ms = begun.elapsed().as_millis() as u64;
        if let Some(before) = before {
            counts.merge(&before.counts);
            wall_ms += before.wall_ms;
        }
        counts.print(row.name());
        println!("       {} s", wall_ms / 1000);
        clean &= counts.defects.is_empty();
        if let Some(folder) = &arguments.resume {
            let row = row.name().to_owned();
            Part { row, seed, program: program.clone(), wall_ms, counts }.write(folder)?;
        }
    }
    Ok(clean)
}

fn beside(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program")?;
    let path = me.with_file_name(name);
    if !path.exists() {
        bail!("{} is not built; run `cargo build -p trix-cli`, or give --media", path.display());
    }
    Ok(path)
}

fn program_id(media: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = fs::File::open(media).with_context(|| format!("opening {}", media.display()))?;
    hasher.update_reader(file).context("reading trix-media")?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A seed that nobody chose.
fn from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_nanos() as u64 >> 10)
}
