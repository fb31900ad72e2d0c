//! The event tail: one reader per process, fanned out to all WebSockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use trix_db::Db;
use trix_db::events::{Event, EventHead};
use trix_db::jobs::RunningJob;

use crate::health::Health;
use crate::ws::{AttemptProgress, JobProgress};

/// Batches that a WebSocket may lag behind before it is closed with 4008.
const LAG: usize = 256;
/// Events read at once.
const PAGE: u32 = 500;
/// Pause between two looks while nobody listens.
const IDLE: Duration = Duration::from_millis(500);

/// What the tail sends.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Events in order, without holes.
    Events(Arc<[Event]>),
    /// Progress of what runs.
    Progress(Arc<Snapshot>),
    /// Numbers do not go on: the database was restored. Clients read the lists anew.
    Reset(EventHead),
}

/// Progress of what runs.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By job.
    pub jobs: Vec<JobProgress>,
    /// By attempt.
    pub attempts: Vec<AttemptProgress>,
}

/// The reading end; cheap to clone.
#[derive(Clone)]
pub struct Tail {
    batches: broadcast::Sender<Batch>,
    head: watch::Sender<Option<EventHead>>,
}

impl Tail {
    /// Nothing runs yet; see [`Tail::run`].
    pub fn new() -> Tail {
        Tail { batches: broadcast::Sender::new(LAG), head: watch::Sender::new(None) }
    }

    /// Everything from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Batch> {
        self.batches.subscribe()
    }

    /// Where the log stands, as it was seen last.
    pub fn head(&self) -> watch::Receiver<Option<EventHead>> {
        self.head.subscribe()
    }

    /// Numbers waiting events and reads new ones, until the token is cancelled. While
    /// the database is away it waits; nothing is lost, because it goes on after the
    /// last event that it sent.
    pub async fn run(self, db: Db, health: watch::Receiver<Health>, cancel: CancellationToken) {
        let work = async {
            tokio::join!(self.follow(&db, health.clone()), self.progress(&db, health));
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    }

    async fn follow(&self, db: &Db, mut health: watch::Receiver<Health>) {
        let mut known: Option<EventHead> = None;
        loop {
            wait_until_ok(&mut health).await;
            match self.step(db, &mut known).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) => {
                    if !e.is_unavailable() {
                        tracing::error!(error = %trix_model::Failure::from(e), "reading events");
                    }
                    tokio::time::sleep(IDLE).await;
                }
            }
            let busy = self.batches.receiver_count() > 0;
            tokio::time::sleep(if busy { db.times().event_poll } else { IDLE }).await;
        }
    }

    /// One look; true when there may be more at once.
    async fn step(&self, db: &Db, known: &mut Option<EventHead>) -> Result<bool, trix_db::DbError> {
        let sequenced = db.sequence_events().await?;
        let Some(at) = *known else {
            let head = db.event_head().await?;
            *known = Some(head);
            self.head.send_replace(Some(head));
            return Ok(false);
        };
        if sequenced.head == at.head {
            return Ok(false);
        }
        if sequenced.head < at.head {
            return self.reset(db, known).await;
        }
        let events = db.events(at.head, None, PAGE).await?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(false) };
        if first.seq != at.head + 1 {
            return self.reset(db, known).await;
        }
        let full = events.len() == PAGE as usize;
        let head = EventHead { head: last.seq, ..at };
        *known = Some(head);
        // Without a receiver there is nobody to miss it.
        let _ = self.batches.send(Batch::Events(events.into()));
        self.head.send_replace(Some(head));
        Ok(full)
    }

    /// The log is another one than before (a restore), or what is missing was dropped.
    async fn reset(
        &self,
        db: &Db,
        known: &mut Option<EventHead>,
    ) -> Result<bool, trix_db::DbError> {
        let head = db.event_head().await?;
        tracing::warn!(head = head.head, "the event log does not go on where it was");
        *known = Some(head);
        let _ = self.batches.send(Batch::Reset(head));
        self.head.send_replace(Some(head));
        Ok(false)
    }

    async fn progress(&self, db: &Db, mut health: watch::Receiver<Health>) {
        let mut said_nothing = true;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            wait_until_ok(&mut health).await;
            if self.batches.receiver_count() == 0 {
                continue;
            }
            let snapshot = match db.running().await {
                Ok(running) => Snapshot::from(running),
                Err(e) if e.is_unavailable() => continue,
                Err(e) => {
                    tracing::error!(error = %trix_model::Failure::from(e), "reading progress");
                    continue;
                }
            };
            // The last one is empty, so that clients see what does not run any more.
            let empty = snapshot.jobs.is_empty();
            if !(empty && said_nothing) {
                let _ = self.batches.send(Batch::Progress(Arc::new(snapshot)));
            }
            said_nothing = empty;
        }
    }
}

impl Default for Tail {
    fn default() -> Tail {
        Tail::new()
    }
}

/// Waits while the database is away. When the watcher has ended, the server ends too.
async fn wait_until_ok(health: &mut watch::Receiver<Health>) {
    if health.wait_for(|h| h.ok).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl From<Vec<RunningJob>> for Snapshot {
    fn from(running: Vec<RunningJob>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for r in running {
            let (job, c) = (r.job.0, r.counts);
            let count = u32::try_from(r.attempts.len()).unwrap_or(u32::MAX);
            snapshot.jobs.push(JobProgress { job, fraction: fraction(&c), running: count });
            snapshot.attempts.extend(r.attempts.into_iter().map(|a| AttemptProgress {
                job,
                task: a.attempt.task.0,
                epoch: a.attempt.epoch.0,
                progress: a.progress.unwrap_or_default().into(),
            }));
        }
        snapshot
    }
}

/// Part of a job's work that is done, 0 to 1, weighed by estimated time.
pub fn fraction(c: &trix_db::jobs::TaskCounts) -> f64 {
    if c.estimate_ms == 0 {
        return 0.0;
    }
    (c.done_ms as f64 / c.estimate_ms as f64).clamp(0.0, 1.0)
}
