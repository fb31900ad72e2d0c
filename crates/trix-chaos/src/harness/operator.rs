//! The operator of a site while faults go on.
//!
//! Slots that die on more nodes than can be ill look like an illness of the work, and the
//! leader rightly stops the kind of task (reliability.md 3.14); nodes that slots die on look ill
//! themselves. Somebody who knows that it was the harness has to say so. Only what the leader
//! did is undone, and it is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::client::{Client, Journal};
use super::site::{Site, pause};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// What was undone of what the leader did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undone {
    /// Holds that were lifted.
    pub holds: u64,
    /// Nodes that were opened.
    pub nodes: u64,
}

/// Looks every few seconds, through the api, until it is told to stop.
pub struct Operator {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Undone>>,
}

impl Operator {
    /// Starts one. The nodes in `closed` stay closed, whoever closes them.
    pub fn start(
        site: Arc<Site>,
        journal: Arc<Journal>,
        closed: &'static [&'static str],
    ) -> Result<Operator> {
        let (client, apis) = (Client::new(site.clone(), journal)?, site.options().apis);
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let (desk, mut undone) = (Desk { client, apis, closed }, Undone::default());
            while !told.load(Ordering::Relaxed) {
                desk.look(&mut undone).await?;
                let begun = std::time::Instant::now();
                while begun.elapsed() < EVERY && !told.load(Ordering::Relaxed) {
                    pause().await;
                }
            }
            Ok(undone)
        });
        Ok(Operator { stop, task })
    }

    /// Ends it and says what it has undone.
    pub async fn finish(self) -> Result<Undone> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the operator panicked")?
    }
}

struct Desk {
    client: Client,
    apis: u8,
    closed: &'static [&'static str],
}

impl Desk {
    async fn look(&self, undone: &mut Undone) -> Result<()> {
        for hold in self.list("/holds").await? {
            if let (Some("leader"), Some(scope), Some(name)) =
                (hold["by"].as_str(), hold["scope"].as_str(), hold["name"].as_str())
            {
                let lifted = self.ask("DELETE", &format!("/holds/{scope}/{name}")).await?;
                undone.holds += u64::from(lifted.is_some_and(|answer| answer["lifted"] == true));
            }
        }
        for node in self.list("/nodes").await? {
            let name = node["name"].as_str().unwrap_or_default();
            let by_leader = node["closed_because"]
                .as_str()
                .is_some_and(|because| because.starts_with("the dispatcher"));
            if node["state"] == "cordoned" && by_leader && !self.closed.contains(&name) {
                // Its self-test may have opened it meanwhile, which is as well.
                let opened = self.ask("POST", &format!("/nodes/{name}/uncordon")).await?;
                undone.nodes += u64::from(opened.is_some());
            }
        }
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.ask("GET", path).await?.unwrap_or_default();
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    /// Asks one api after the other until one answers well. The database may be away, and so
    /// may they: then the next look is soon enough.
    async fn ask(&self, method: &str, path: &str) -> Result<Option<Value>> {
        for api in 1..=self.apis {
            if let Some((200, answer)) = self.client.call(api, method, path, None, None).await? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }
}
