//! How the leader tends the queue and judges nodes.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::DbError;
use crate::leader::Leader;
use crate::sql;

/// What the leader did about nodes that fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Nodes that fail where others do not: they get no more work.
    pub cordoned: Vec<String>,
    /// Kinds of task that fail on more nodes than can be ill: they are stopped, and
    /// an operator has to look.
    pub held: Vec<String>,
}

impl Leader {
    /// Takes out of the queue what paused and failed jobs hold, and moves the fair
    /// queue's virtual time on. Gives the number of tasks taken out.
    pub async fn tend(&self) -> Result<u32, DbError> {
        self.db.one(&sql::TEND, &json!({ "epoch": self.epoch })).await
    }

    /// Raises by one band what waited for `ageing` in its band, so that nothing
    /// waits for ever behind more urgent work. Gives the number of tasks.
    pub async fn age(&self) -> Result<u32, DbError> {
        self.db.one(&sql::AGE, &json!({ "epoch": self.epoch })).await
    }

    /// Reserves workers for tasks that none has room for, and lets reservations fall
    /// that are over. Gives the number of workers that are reserved now.
    pub async fn reserve(&self) -> Result<u32, DbError> {
        self.db.one(&sql::RESERVE, &json!({ "epoch": self.epoch })).await
    }

    /// Closes nodes that fail where others do not, or stops a kind of task that fails
    /// everywhere.
    pub async fn judge_nodes(&self) -> Result<Judged, DbError> {
        self.db.one(&sql::JUDGE_NODES, &json!({ "epoch": self.epoch })).await
    }
}
