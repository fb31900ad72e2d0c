//! Hints that there is something to do. **They carry no truth**: one may be late, doubled
//! or lost, so whoever gets one looks at the tables, and looks there without one as well.

use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::PgListener;
use sqlx::types::Json;
use trix_model::WorkerId;

use crate::error::DbError;
use crate::handle::Db;
use crate::sql;

/// What workers are told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkHint {
    /// About so many tasks became ready; [`u32::MAX`] when hints may have been missed.
    Ready(u32),
    /// These workers run attempts of a job that is being cancelled; `None` when they are
    /// too many to name.
    Cancel(Option<Vec<WorkerId>>),
}

impl Db {
    /// Tells `on` every hint for workers, until the future is dropped. A connection that
    /// is lost is made anew, and `on` then learns that it may have missed something.
    pub async fn follow_work(&self, mut on: impl FnMut(WorkHint) + Send) -> Infallible {
        self.follow("trix_work", |payload| match payload {
            None => on(WorkHint::Ready(u32::MAX)),
            Some(text) => match serde_json::from_str(text) {
                Ok(hint) => on(hint),
                // A newer schema may say more than this program understands.
                Err(error) => tracing::debug!(%error, text, "a hint that says nothing to us"),
            },
        })
        .await
    }

    /// Calls `on` when there may be something to plan or to end, until the future is
    /// dropped; also after a connection was made.
    pub async fn follow_lead(&self, mut on: impl FnMut() + Send) -> Infallible {
        self.follow("trix_lead", |_| on()).await
    }

    async fn follow(
        &self,
        channel: &'static str,
        mut on: impl FnMut(Option<&str>) + Send,
    ) -> Infallible {
        let times = *self.times();
        let mut pause = times.reconnect_min;
        loop {
            match self.listen(channel).await {
                Ok(mut listener) => {
                    pause = times.reconnect_min;
                    // Registered first, then looked: what came before is found now.
                    on(None);
                    let why = self.until_lost(&mut listener, &mut on).await;
                    tracing::debug!(channel, error = %why, "the connection for hints is lost");
                }
                Err(error) => tracing::debug!(channel, %error, "no connection for hints"),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
            pause = (pause * 2).min(times.reconnect_max);
        }
    }

    async fn until_lost(
        &self,
        listener: &mut PgListener,
        on: &mut (impl FnMut(Option<&str>) + Send),
    ) -> DbError {
        const OPERATION: &str = "waiting for a hint";
        loop {
            match tokio::time::timeout(self.times().lost, listener.try_recv()).await {
                Ok(Ok(Some(n))) => on(Some(n.payload())),
                Ok(Ok(None)) => {
                    let source = sqlx::Error::PoolClosed;
                    return DbError::Unavailable { operation: OPERATION, source };
                }
                Ok(Err(e)) => return DbError::from_sqlx(OPERATION, e),
                // A connection that was cut off silently is quiet for ever.
                Err(_) => {
                    if let Err(e) = self.still_there(listener).await {
                        return e;
                    }
                }
            }
        }
    }

    async fn still_there(&self, listener: &mut PgListener) -> Result<(), DbError> {
        let operation = sql::PING.operation;
        let after: Duration = self.times().statement;
        let ping = sqlx::query(sql::PING.text).bind(Json(Value::Null)).execute(listener);
        match tokio::time::timeout(after, ping).await {
            Ok(done) => done.map(drop).map_err(|e| DbError::from_sqlx(operation, e)),
            Err(_) => Err(DbError::Deadline { operation, after }),
        }
    }

    /// A connection of its own that listens to a channel.
    pub(crate) async fn listen(&self, channel: &'static str) -> Result<PgListener, DbError> {
        const OPERATION: &str = "listening for hints";
        let after = self.times().connect;
        let connect = async {
            let pool = sqlx::postgres::PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(after)
                .connect_with(self.options().clone())
                .await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        };
        match tokio::time::timeout(after, connect).await {
            Ok(listener) => listener.map_err(|e| DbError::from_sqlx(OPERATION, e)),
            Err(_) => Err(DbError::Deadline { operation: OPERATION, after }),
        }
    }
}
