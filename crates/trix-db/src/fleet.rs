//! How the leader tends the queue and judges nodes, and how a worker's self-test
//! is heard.

use serde::{Deserialize, Serialize};
use serde_json::json;
use trix_model::Digest;
use trix_model::state::NodeState;

use crate::error::DbError;
use crate::handle::Db;
use crate::leader::Leader;
use crate::sql;
use crate::worker::Credentials;

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

impl Db {
    /// Tells what a worker's known-answer self-test gave and what it should have given.
    /// Two that pass in a row open a node that the leader closed; one that fails closes
    /// it. Gives the node's state.
    pub async fn self_test(
        &self,
        me: &Credentials,
        digest: Digest,
        expected: Digest,
    ) -> Result<NodeState, DbError> {
        let args = json!({
            "worker": me.worker, "token": me.token, "digest": digest, "expected": expected,
        });
        self.one(&sql::SELF_TEST, &args).await
    }
}
