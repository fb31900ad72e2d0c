//! What goes wrong.

use super::plans::{CACHE, OUTPUT, SOURCE};
use super::share::Content;
use super::{Item, World};

impl World {
    /// Something goes wrong, and perhaps something is mended.
    pub(super) fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        let n = self.rng.below(self.nodes.len() as u64) as usize;
        let d = self.rng.below(self.dispatchers.len() as u64) as usize;
        // Long enough to be marked, or a blink.
        let long = self.rng.one_in(2);
        let ms = if long { self.rng.between(4000, 14_000) } else { self.rng.between(50, 2000) };
        self.counts.faults += 1;
        match self.rng.below(24) {
            0..=2 => self.kill_worker(n),
            3..=5 => {
                self.nodes[n].paused = self.nodes[n].process.is_some();
                self.note(|w| format!("{} is stopped for {ms} ms", w.nodes[n].name));
                self.at(ms, Item::ResumeWorker(n));
            }
            6..=9 => {
                let (out, inward) = *self.rng.pick(&[(true, true), (true, false), (false, true)]);
                let node = &mut self.nodes[n];
                (node.deaf_out, node.deaf_in) = (out, inward);
                self.note(|w| format!("{} is cut off for {ms} ms", w.nodes[n].name));
                self.at(ms, Item::HealNode(n));
            }
            10 => self.kill_dispatcher(d),
            11 => {
                self.dispatchers[d].paused = self.dispatchers[d].alive;
                self.note(|_| format!("dispatcher {d} is stopped for {ms} ms"));
                self.at(ms, Item::ResumeDispatcher(d));
            }
            12 => {
                self.dispatchers[d].cut = true;
                self.note(|_| format!("dispatcher {d} is cut off for {ms} ms"));
                self.at(ms, Item::HealDispatcher(d));
            }
            13..=14 => self.database_down(ms),
            15 => {
                self.db_hangs_until = self.now + ms;
                self.note(|_| format!("the database hangs for {ms} ms"));
            }
            16..=17 => {
                let keys = self.cache.keys();
                if !keys.is_empty() {
                    for _ in 0..self.rng.between(1, 3) {
                        let key = *self.rng.pick(&keys);
                        self.cache.remove(&key);
                    }
                    self.note(|_| "artifacts are lost".to_owned());
                }
            }
            18..=19 => {
                let name = *self.rng.pick(&[CACHE, SOURCE, OUTPUT]);
                self.turn_share(n, name, false);
                self.at(ms, Item::HealShare(n));
            }
            20 => {
                let jump = self.rng.between(1, 172_800) as i64 * 1000;
                let back = self.rng.one_in(2);
                self.model.wall_ms += if back { -jump } else { jump };
                self.note(|w| format!("the wall clock jumps to {}", w.model.wall_ms));
            }
            21 => {
                let film = self.rng.below(3);
                let version = self.rng.between(1, 2);
                let path = format!("films/film-{film}/v{version}/Film.mp4");
                self.output.plant(&path, Content(trix_model::Digest([0xaa; 32])));
                self.note(|_| format!("somebody else puts a file at {path}"));
            }
            22 => self.drain_worker(n),
            _ => {
                // A sequencer's transaction is rolled back.
                self.model.sequence_in_vain();
                self.look("sequencer rolled back");
            }
        }
        let ms = self.rng.between(100, 1500);
        self.at(ms, Item::Fault);
    }

    /// The server is gone: what was under way has no answer, sessions end.
    pub(super) fn database_down(&mut self, ms: u64) {
        if !self.db_up {
            return;
        }
        self.db_up = false;
        self.down_since = self.now;
        self.seat = None;
        self.note(|_| format!("the database is down for {ms} ms"));
        self.at(ms, Item::DatabaseUp);
    }

    pub(super) fn database_up(&mut self) {
        if std::mem::replace(&mut self.db_up, true) {
            return;
        }
        self.down_total += self.now - self.down_since;
        self.note(|_| "the database is up".to_owned());
    }

    /// All that is broken is mended.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.note(|_| "all is healed".to_owned());
        self.database_up();
        self.db_hangs_until = self.now;
        for n in 0..self.nodes.len() {
            (self.nodes[n].deaf_in, self.nodes[n].deaf_out) = (false, false);
            self.resume_worker(n);
            self.start_worker(n);
            self.turn_share(n, CACHE, true);
            self.turn_share(n, SOURCE, true);
            self.turn_share(n, OUTPUT, true);
        }
        for d in 0..self.dispatchers.len() {
            self.dispatchers[d].cut = false;
            self.resume_dispatcher(d);
            self.start_dispatcher(d);
        }
    }
}
