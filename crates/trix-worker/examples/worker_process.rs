//! A worker with toy slots as a process of its own, so that tests can kill and stop it:
//! `worker_process JSON`; as `worker_process probe` it is the worker's own probe child.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use trix_db::{Db, ProtocolTimes, Resources};
use trix_storage::ShareRole;
use trix_worker::{Prober, ShareMount, WorkerConfig};

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
    mount_helper: Option<PathBuf>,
    slot_args: Vec<String>,
}

const PROBE: &str = "probe";

fn main() -> anyhow::Result<ExitCode> {
    let told = std::env::args().nth(1).context("worker_process JSON")?;
    if told == PROBE {
        return Ok(trix_worker::probe_main());
    }
    tokio::runtime::Runtime::new()?.block_on(work(&told))?;
    Ok(ExitCode::SUCCESS)
}

async fn work(told: &str) -> anyhow::Result<()> {
    let told: Told = serde_json::from_str(told).context("reading the argument")?;
    let share = |name: &str, role| -> anyhow::Result<ShareMount> {
        let root = told.root.join(name);
        Ok(ShareMount {
            name: name.parse()?,
            root,
            role,
            marker: None,
            remount: told.mount_helper.is_some(),
        })
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
        launcher: trix_slot::Launcher::new(told.slot).with_args(told.slot_args),
        prober: Prober::this_program(&[PROBE]),
        mount_helper: told.mount_helper.clone(),
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
