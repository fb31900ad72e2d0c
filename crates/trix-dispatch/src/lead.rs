//! Taking the seat, keeping it by ticks, and leaving it.

use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trix_db::leader::Seat;
use trix_db::{DbError, ProtocolTimes};

use crate::{DispatchConfig, reconcile};

/// A leader whose ping stands still for so many looks, one a tick, is overtaken: about as
/// long as the server takes to free the lock of one that was cut off.
const STILL: u32 = 8;

/// Tries to lead until `stop`, and leads while it can.
pub(crate) async fn run(config: &DispatchConfig, hint: &Notify, stop: &CancellationToken) {
    let times = *config.db.times();
    let mut pause = Pause::new(&times);
    let mut away = Away::new("taking the lead");
    let mut watch = Watch::default();
    // When the database last answered: how long it was away decides the grace.
    let mut answered = Instant::now();
    loop {
        let outage = answered.elapsed();
        let wait = match take(config, outage, &mut watch).await {
            Ok(Some(seat)) => {
                away.is_back();
                pause.reset();
                tracing::info!(epoch = seat.epoch(), "leading");
                answered = lead(config, hint, stop, seat).await;
                watch = Watch::default();
                Duration::ZERO
            }
            Ok(None) => {
                away.is_back();
                pause.reset();
                answered = Instant::now();
                times.tick
            }
            Err(e) => {
                away.note(&e);
                watch = Watch::default();
                pause.next()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// The seat, when it is free or its holder stands still.
async fn take(
    config: &DispatchConfig,
    outage: Duration,
    watch: &mut Watch,
) -> Result<Option<Seat>, DbError> {
    if let Some(seat) = Seat::try_take(&config.db, &config.holder, outage).await? {
        return Ok(Some(seat));
    }
    let ping = Seat::ping(&config.db).await?;
    if !watch.stands_still(ping) {
        return Ok(None);
    }
    tracing::warn!(ping, "the leader does not tick; taking over");
    Seat::overtake(&config.db, &config.holder, outage, ping).await
}

/// Looks at the leader's ping. Only looks that succeeded in a row count: while the database
/// is away nobody ticks.
#[derive(Debug, Default)]
struct Watch {
    ping: i64,
    looks: u32,
}

impl Watch {
    fn stands_still(&mut self, ping: i64) -> bool {
        self.looks = if ping == self.ping { self.looks + 1 } else { 0 };
        self.ping = ping;
        self.looks >= STILL
    }
}

/// Leads until the seat is lost or `stop`. Gives the moment of the last successful tick.
async fn lead(
    config: &DispatchConfig,
    hint: &Notify,
    stop: &CancellationToken,
    mut seat: Seat,
) -> Instant {
    let leader = seat.leader();
    let mut last = Instant::now();
    let ended = {
        let ticking = async {
            loop {
                tokio::time::sleep(config.db.times().tick).await;
                // The instant before the call: the time of the call itself belongs to
                // the next tick, and is never counted twice.
                let now = Instant::now();
                match seat.tick(now - last).await {
                    Ok(_) => last = now,
                    Err(e) => return Some(e),
                }
            }
        };
        tokio::select! {
            e = ticking => e,
            e = reconcile::run(config, &leader, hint) => Some(e),
            () = stop.cancelled() => None,
        }
    };
    match ended {
        None => {
            if let Err(e) = seat.leave().await {
                tracing::debug!(error = %e, "giving up the lead; the server will notice by itself");
            }
        }
        Some(DbError::NotLeader { .. }) => {
            tracing::warn!(epoch = leader.epoch(), "another dispatcher leads now");
        }
        Some(e) => {
            tracing::warn!(epoch = leader.epoch(), error = %e, "lost the lead with the connection");
        }
    }
    last
}

/// Waits that double up to the longest, with full jitter.
pub(crate) struct Pause {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Pause {
    pub(crate) fn new(times: &ProtocolTimes) -> Pause {
        let (min, max) = (times.reconnect_min, times.reconnect_max);
        Pause { min, max, next: min }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait.mul_f64(rand::rng().random())
    }
}

/// Says once that the database is away, and once that it is back.
pub(crate) struct Away {
    what: &'static str,
    since: Option<Instant>,
}

impl Away {
    pub(crate) fn new(what: &'static str) -> Away {
        Away { what, since: None }
    }

    pub(crate) fn note(&mut self, e: &DbError) {
        let error = e as &dyn std::error::Error;
        if !e.is_unavailable() {
            tracing::error!(error, "{}", self.what);
        } else if self.since.is_none() {
            tracing::warn!(error, "{}: the database is away; keeping on", self.what);
        }
        self.since.get_or_insert_with(Instant::now);
    }

    pub(crate) fn is_back(&mut self) {
        if let Some(since) = self.since.take() {
            let away_ms = since.elapsed().as_millis() as u64;
            tracing::info!(away_ms, "{}: the database is back", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ping_that_stands_still_look_after_look_is_overtaken() {
        let mut watch = Watch::default();
        assert!((0..STILL).all(|_| !watch.stands_still(5)), "the first look only learns it");
        assert!(watch.stands_still(5));
        assert!(!watch.stands_still(6), "it moved");
        assert!((1..STILL).all(|_| !watch.stands_still(6)));
        assert!(watch.stands_still(6));
    }
}
