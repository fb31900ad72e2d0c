//! What all handlers share.

use std::ops::Deref;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use trix_db::Db;

use crate::health::Health;
use crate::origins::Origins;
use crate::password::Brake;
use crate::share_watch::Shares;
use crate::tail::Tail;

/// Published files that are being sent at once.
const STREAMS: usize = 128;
/// WebSockets that are open at once.
const SOCKETS: usize = 4096;

/// What all handlers share; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    /// The database.
    pub db: Db,
    /// Names and origins that are allowed.
    pub origins: Origins,
    /// Shares of this machine.
    pub shares: Shares,
    /// Whether the database answers.
    pub health: watch::Receiver<Health>,
    /// The event tail.
    pub tail: Tail,
    /// Against guessing of passwords.
    pub brake: Brake,
    /// Engine that plan 0 is pinned to, if it was configured.
    pub engine: Option<String>,
    /// When this server started.
    pub started_at: OffsetDateTime,
    /// Files that may still be sent at once.
    pub streams: Arc<Semaphore>,
    /// WebSockets that may still be opened.
    pub sockets: Arc<Semaphore>,
    /// Numbers of sessions that were ended here, for their WebSockets.
    pub ended_sessions: broadcast::Sender<i64>,
    /// Ends everything.
    pub cancel: CancellationToken,
}

impl App {
    /// From its parts.
    pub fn new(
        db: Db,
        origins: Origins,
        shares: Shares,
        health: watch::Receiver<Health>,
        tail: Tail,
        engine: Option<String>,
        cancel: CancellationToken,
    ) -> App {
        App(Arc::new(Shared {
            db,
            origins,
            shares,
            health,
            tail,
            brake: Brake::default(),
            engine,
            started_at: OffsetDateTime::now_utc(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            sockets: Arc::new(Semaphore::new(SOCKETS)),
            ended_sessions: broadcast::Sender::new(64),
            cancel,
        }))
    }
}

impl Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
