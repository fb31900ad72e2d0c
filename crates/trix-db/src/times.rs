//! All times of the protocol in one struct, so that tests run at a tenth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The protocol's times. [`ProtocolTimes::default`] is what production uses;
/// [`ProtocolTimes::scaled`] shrinks all of them alike.
///
/// Ages of workers and delays of tasks are counted in milliseconds during which
/// the database was up, never in wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolTimes {
    /// The leader's tick: one small update.
    pub tick: Duration,
    /// Longest time between two successful ticks that still counts as "up".
    pub tick_gap: Duration,
    /// A worker's beat in a large fleet.
    pub beat: Duration,
    /// A worker's beat while the fleet is small.
    pub beat_small: Duration,
    /// A worker silent for so long is shown as suspect.
    pub suspect: Duration,
    /// A worker silent for so long is marked lost.
    pub lost: Duration,
    /// Upper bound of the grace after an outage.
    pub grace_max: Duration,
    /// A worker that saw no ping advance for so long looks at its own row.
    pub ping_silent: Duration,
    /// Deadline of connecting to the database.
    pub connect: Duration,
    /// Deadline of one statement.
    pub statement: Duration,
    /// Deadline of an answer of the api.
    pub answer: Duration,
    /// First pause between two tries to reach the database.
    pub reconnect_min: Duration,
    /// Longest pause between two tries to reach the database.
    pub reconnect_max: Duration,
    /// Interval of the probes of a share.
    pub mount_probe: Duration,
    /// Deadline of one probe of a share.
    pub mount_deadline: Duration,
    /// A slot without progress for so long is killed.
    pub stall: Duration,
    /// First back-off after a transient failure.
    pub backoff_min: Duration,
    /// Longest back-off after a transient failure.
    pub backoff_max: Duration,
    /// How long a task may go on failing transiently.
    pub transient_budget: Duration,
    /// A task that waited for so long in its band goes up by one.
    pub ageing: Duration,
    /// A task that no worker had room for in so long gets one reserved.
    pub reserve: Duration,
    /// How far the leader looks back when it judges nodes.
    pub suspicion: Duration,
    /// A worker asks its machine for the known answer so often.
    pub self_test: Duration,
    /// A cancelled slot is dead after so long.
    pub cancel_kill: Duration,
    /// How often the sequencer looks for new events.
    pub event_poll: Duration,
    /// How often the dispatcher reconciles without a hint.
    pub reconcile: Duration,
}

impl Default for ProtocolTimes {
    fn default() -> ProtocolTimes {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        ProtocolTimes {
            tick: s(1),
            tick_gap: s(3),
            beat: s(5),
            beat_small: s(1),
            suspect: s(15),
            lost: s(30),
            grace_max: s(300),
            ping_silent: s(20),
            connect: s(3),
            statement: s(8),
            answer: s(10),
            reconnect_min: ms(200),
            reconnect_max: s(10),
            mount_probe: s(5),
            mount_deadline: s(5),
            stall: s(120),
            backoff_min: s(5),
            backoff_max: s(300),
            transient_budget: s(24 * 3600),
            ageing: s(30 * 60),
            reserve: s(10),
            suspicion: s(600),
            self_test: s(600),
            cancel_kill: s(2),
            event_poll: ms(50),
            reconcile: s(1),
        }
    }
}

impl ProtocolTimes {
    /// Every time multiplied by `factor` (0.1 in tests), but never below 1 ms.
    ///
    /// The deadlines towards the database (`connect`, `statement`, `answer`)
    /// keep half a second at least: they bound what a loaded machine may take,
    /// they are no part of the protocol's pace.
    pub fn scaled(self, factor: f64) -> ProtocolTimes {
        let f = |d: Duration| d.mul_f64(factor).max(Duration::from_millis(1));
        let deadline = |d: Duration| f(d).max(Duration::from_millis(500));
        ProtocolTimes {
            tick: f(self.tick),
            tick_gap: f(self.tick_gap),
            beat: f(self.beat),
            beat_small: f(self.beat_small),
            suspect: f(self.suspect),
            lost: f(self.lost),
            grace_max: f(self.grace_max),
            ping_silent: f(self.ping_silent),
            connect: deadline(self.connect),
            statement: deadline(self.statement),
            answer: deadline(self.answer),
            reconnect_min: f(self.reconnect_min),
            reconnect_max: f(self.reconnect_max),
            mount_probe: f(self.mount_probe),
            mount_deadline: f(self.mount_deadline),
            stall: f(self.stall),
            backoff_min: f(self.backoff_min),
            backoff_max: f(self.backoff_max),
            transient_budget: f(self.transient_budget),
            ageing: f(self.ageing),
            reserve: f(self.reserve),
            suspicion: f(self.suspicion),
            self_test: f(self.self_test),
            cancel_kill: f(self.cancel_kill),
            event_poll: f(self.event_poll),
            reconcile: f(self.reconcile),
        }
    }

    /// How long nobody is marked after the database was away for `outage`
    /// (zero at a change of leader), in database-up time.
    pub fn grace(&self, outage: Duration) -> Duration {
        self.lost.max(outage.mul_f64(0.5).min(self.grace_max))
    }

    /// What a tick counts, `since_last` after the last successful one: the time itself
    /// while that is short; otherwise the database was away, nothing is counted and a
    /// grace begins.
    pub fn counted(&self, since_last: Duration) -> (Duration, Option<Duration>) {
        if since_last > self.tick_gap {
            (Duration::ZERO, Some(self.grace(since_last)))
        } else {
            (since_last, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_half_the_outage_within_its_bounds() {
        let t = ProtocolTimes::default();
        assert_eq!(t.grace(Duration::ZERO), t.lost);
        assert_eq!(t.grace(Duration::from_secs(100)), Duration::from_secs(50));
        assert_eq!(t.grace(Duration::from_secs(100_000)), t.grace_max);
    }

    #[test]
    fn scaling_keeps_the_order_of_the_times() {
        let t = ProtocolTimes::default().scaled(0.01);
        assert!(t.tick < t.tick_gap && t.beat_small < t.suspect && t.suspect < t.lost);
        assert_eq!(t.statement, Duration::from_millis(500));
    }
}
