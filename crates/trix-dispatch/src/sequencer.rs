//! Numbers events. Every dispatcher tries; the database lets one at a time do it.

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trix_db::Db;
use trix_db::events::SEQUENCER_BATCH;

use crate::lead::{Away, Pause};

/// Until `stop`. Wakes the reconciler when an event may give it something to do.
pub(crate) async fn run(db: &Db, hint: &Notify, stop: &CancellationToken) {
    let mut pause = Pause::new(db.times());
    let mut away = Away::new("numbering events");
    loop {
        let wait = match db.sequence_events().await {
            Ok(done) => {
                away.is_back();
                pause.reset();
                if done.wake {
                    hint.notify_one();
                }
                // A full batch: more is waiting.
                if done.count == SEQUENCER_BATCH {
                    Default::default()
                } else {
                    db.times().event_poll
                }
            }
            Err(e) => {
                away.note(&e);
                pause.next()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}
