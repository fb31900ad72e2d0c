//! A worker with toy slots as a process of its own, so that tests can kill and stop it:
//! `worker_process JSON`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use trix_db::{Db, ProtocolTimes, Resources};
use trix_storage::ShareRole;
use trix_worker::{ShareMount, WorkerConfig};

/// What the test says.
#[derive(Deserialize)]
struct Told {
    url: String,
    node: String,
    token: String,
    root: PathBuf,
    slot: PathBuf,
    times: ProtocolTimes,
    mcpu: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let told = std::env::args().nth(1).context("worker_process JSON")?;
    let told: Told = serde_json::from_str(&told).context("reading the argument")?;
    let share = |name: &str, role| -> anyhow::Result<ShareMount> {
        let root = told.root.join(name);
        Ok(ShareMount { name: name.parse()?, root, role, marker: None })
    };
    let config = WorkerConfig {
        state: told.root.join(format!("state-{}", told.node)),
        shares: vec![
            share("in", ShareRole::Source)?,
            share("out", ShareRole::Output)?,
            share("cache", ShareRole::Cache)?,
        ],
        node: told.node,
        node_token: told.token,
        cache: "cache".parse()?,
        max_object: 1 << 30,
        capacity: Resources { mcpu: told.mcpu, ram: 8 << 30, scratch: 8 << 30 },
        launcher: trix_slot::Launcher::new(told.slot),
        slot_user: Some((65534, 65534)),
        store: Arc::new(Db::open(&told.url, told.times)?),
        times: told.times,
        drain_limit: Duration::from_millis(500),
    };
    let stop = CancellationToken::new();
    let on_term = stop.clone();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        term.recv().await;
        on_term.cancel();
    });
    println!("started");
    trix_worker::run(config, stop).await?;
    Ok(())
}
