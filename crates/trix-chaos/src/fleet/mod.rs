//! What the queue and the protocol can do, measured on a private server that is as durable
//! as in production. `docs/bench.md` says how to read the figures.
//!
//! | file | what |
//! |---|---|
//! | `queue` | no-op tasks a second through the real functions, beside graphile-worker |
//! | `claim` | the latency of a claim over a long queue, under an open and a closed load |
//! | `idle` | from a submit to its committed claim in an idle service |
//! | `scaled` | the virtual fleet: utilisation, and what a chunk costs the database |
//! | `stragglers` | what one slow node does to the makespan |
//! | `nodes` | nodes without machines: real minds, slots that only wait |
//! | `films`, `chunks` | what is put into the queue, and how long it takes |
//! | `server`, `figures` | the server and its counters; percentiles and planned starts |

pub mod chunks;
pub mod claim;
pub mod figures;
pub mod films;
pub mod idle;
pub mod nodes;
pub mod queue;
pub mod scaled;
pub mod server;
pub mod stragglers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// What `fleet` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Write the figures to this file, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// No-op tasks a second.
    Queue(queue::Options),
    /// Latency of a claim among many ready tasks.
    Claim(claim::Options),
    /// Latency from a submit to its claim when nothing else happens.
    Idle(idle::Options),
    /// A thousand nodes that replay recorded chunk times.
    Virtual(scaled::Options),
    /// A small fleet with one slow node.
    Stragglers(stragglers::Options),
}

/// Measures one thing, prints it, and writes it down.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let (what, figures) = match &arguments.what {
        What::Queue(options) => ("queue", shown(queue::run(options).await?, |f| f.print())?),
        What::Claim(options) => ("claim", shown(claim::run(options).await?, |f| f.print())?),
        What::Idle(options) => ("idle", shown(idle::run(options).await?, |f| f.print())?),
        What::Virtual(options) => ("virtual", shown(scaled::run(options).await?, |f| f.print())?),
        What::Stragglers(options) => {
            ("stragglers", shown(stragglers::run(options).await?, |f| f.print())?)
        }
    };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&json!({ "what": what, "figures": figures }))?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn shown<T: serde::Serialize>(figures: T, print: impl Fn(&T)) -> Result<Value> {
    print(&figures);
    Ok(serde_json::to_value(figures)?)
}
