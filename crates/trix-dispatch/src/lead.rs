//! Taking the seat, keeping it by ticks, and leaving it.

use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trix_db::leader::Seat;
use trix_db::{DbError, ProtocolTimes};

use crate::{DispatchConfig, reconcile};

/// Tries to lead until `stop`, and leads while it can.
pub(crate) async fn run(config: &DispatchConfig, hint: &Notify, stop: &CancellationToken) {
    let times = *config.db.times();
    let mut pause = Pause::new(&times);
    let mut away = Away::new("taking the lead");
    // When the database last answered: how long it was away decides the grace.
    let mut answered = Instant::now();
    loop {
        let outage = answered.elapsed();
        let wait = match Seat::try_take(&config.db, &config.holder, outage).await {
            Ok(Some(seat)) => {
                away.is_back();
                pause.reset();
                tracing::info!(epoch = seat.epoch(), "leading");
                answered = lead(config, hint, stop, seat).await;
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
