//! The operator's verbs beyond those about one job.
//!
//! Each may be repeated. Called on a handle of [`Db::audited`] it writes its row of the
//! audit trail in its own transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use trix_model::JobId;
use trix_model::state::NodeState;
use uuid::Uuid;

use crate::access::Principal;
use crate::error::DbError;
use crate::handle::{Db, run};
use crate::sql;

/// What is stopped: nothing of it is handed out until it is lifted. What runs goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", content = "name", rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    All,
    /// Tasks of this kind.
    Kind(String),
    /// Whatever this node would claim.
    Node(String),
}

/// A stop that stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// What it stops: `all`, `kind` or `node`.
    pub scope: String,
    /// Which kind or node; empty for all.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Who: a principal's name, or `leader`.
    pub by: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// How much of a share's limit is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The share.
    pub share: String,
    /// `read` or `write`.
    pub mode: String,
    /// Attempts that may do so at once.
    pub total: u32,
    /// Attempts that do.
    pub taken: u32,
}

/// What a retraction gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retraction {
    /// The job that moves the files out of sight.
    pub job: JobId,
    /// False when an earlier call made it.
    pub created: bool,
}

/// A principal as those see it who share the fleet out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who it is.
    #[serde(flatten)]
    pub principal: Principal,
    /// Its share of the fleet beside others'; 100 is usual.
    pub weight: u32,
    /// Jobs of it that are not over.
    pub open_jobs: u64,
}

impl Db {
    /// Stops the handing out of `scope`. A stop that stands keeps its reason.
    pub async fn hold(&self, scope: &Scope, reason: &str) -> Result<(), DbError> {
        let mut args = json!(scope);
        args["reason"] = json!(reason);
        self.exec(&sql::HOLD, &args).await
    }

    /// Undoes [`Db::hold`]. False when nothing was stopped.
    pub async fn lift(&self, scope: &Scope) -> Result<bool, DbError> {
        self.one(&sql::LIFT, &json!(scope)).await
    }

    /// What is stopped, oldest first.
    pub async fn holds(&self) -> Result<Vec<Hold>, DbError> {
        self.all(&sql::HOLDS, &Value::Null).await
    }

    /// Hands no more work to a node; what runs there goes on and its worker stays.
    pub async fn cordon(&self, node: &str, reason: &str) -> Result<NodeState, DbError> {
        let args = json!({ "node": node, "reason": reason });
        self.one(&sql::CORDON, &args).await
    }

    /// Undoes a cordon, also one of the leader.
    pub async fn uncordon(&self, node: &str) -> Result<NodeState, DbError> {
        self.one(&sql::UNCORDON, &json!({ "node": node })).await
    }

    /// Hands no more work to a node; its worker ends what runs and leaves.
    pub async fn drain_node(&self, node: &str, reason: &str) -> Result<NodeState, DbError> {
        let args = json!({ "node": node, "reason": reason });
        self.one(&sql::DRAIN_NODE, &args).await
    }

    /// Undoes [`Db::drain_node`], and [`Db::drain`] for a worker that has not left yet.
    pub async fn undrain_node(&self, node: &str) -> Result<NodeState, DbError> {
        self.one(&sql::UNDRAIN_NODE, &json!({ "node": node })).await
    }

    /// Limits how many attempts read a share, and write to it, at once; `None` for no limit.
    pub async fn set_slots(
        &self,
        share: &str,
        read: Option<u32>,
        write: Option<u32>,
    ) -> Result<(), DbError> {
        let args = json!({ "share": share, "read": read, "write": write });
        self.exec(&sql::SET_SLOTS, &args).await
    }

    /// The limits of shares, and how much of them is taken.
    pub async fn slots(&self) -> Result<Vec<Slots>, DbError> {
        self.all(&sql::SLOTS, &Value::Null).await
    }

    /// Says what a node has that not every node has: capabilities that tasks may ask
    /// for by name, and thousandths of graphics processors.
    pub async fn set_node_traits(
        &self,
        node: &str,
        caps: &[&str],
        gpu: u32,
    ) -> Result<(), DbError> {
        let args = json!({ "node": node, "caps": caps, "gpu": gpu });
        self.exec(&sql::SET_TRAITS, &args).await
    }

    /// Sets a principal's share of the fleet, 1 to 10000; 100 is usual. It counts for
    /// what is planned from now on.
    pub async fn set_weight(&self, principal: i64, weight: u32) -> Result<(), DbError> {
        let args = json!({ "principal": principal, "weight": weight });
        self.exec(&sql::SET_WEIGHT, &args).await
    }

    /// All principals with their shares of the fleet, by name.
    pub async fn accounts(&self) -> Result<Vec<Account>, DbError> {
        self.all(&sql::ACCOUNTS, &Value::Null).await
    }

    /// Takes a publication back: a job moves its files out of sight. The same
    /// publication gives the same job, unless that failed.
    pub async fn retract(&self, publication: i64, principal: i64) -> Result<Retraction, DbError> {
        let args = json!({ "publication": publication, "principal": principal });
        self.one(&sql::RETRACT, &args).await
    }

    /// Makes a database that was restored from a backup, or a replica that lagged,
    /// another cluster whose numbers go on beyond all that were given. Call it before
    /// any service connects. Gives the new incarnation.
    pub async fn adopt(&self) -> Result<Uuid, DbError> {
        let operation = sql::ADOPT.operation;
        // Every task is written to: that takes as long as it takes.
        let mut c = self.bare(operation, Some(Duration::ZERO)).await?;
        let rows = run(&mut c, &sql::ADOPT, &json!({})).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        serde_json::from_value(row).map_err(|source| DbError::Decode { operation, source })
    }
}
