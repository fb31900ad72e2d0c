//! Who submits, who operates, who reads events. Clients keep a journal of what they were
//! told: the checker reads it.

use serde_json::json;
use trix_db::inspect::RawEvent;
use trix_db::jobs::Submit;
use trix_model::state::{PublicationState, TaskState};
use trix_model::{Digest, JobId, WorkerId};

use super::plans::{Wish, plan0};
use super::{Caller, Item, World};
use crate::breaks::Break;
use crate::model::{Answer, Call, Refusal};

/// A client that submits one job and repeats until it is told.
#[derive(Clone, Debug)]
pub struct Client {
    submit: Submit,
    /// The job, once it was answered with success.
    pub journal: Option<JobId>,
    /// Submits that come again although the first was answered.
    again: u32,
}

/// A reader of the event log.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// The last number that it saw.
    pub last: i64,
    /// Events that it saw.
    pub seen: u64,
}

/// Jobs that a world submits.
const JOBS: u64 = 7;

impl World {
    pub(super) fn new_clients(&mut self) {
        for c in 0..JOBS {
            let wish = Wish {
                film: self.rng.below(3) as u8,
                profile: self.rng.below(2) as u8,
                chunks: self.rng.between(1, 3) as u8,
            };
            let title = match self.rng.one_in(25) {
                true => "cannot be planned".to_owned(),
                false => format!("{} {} {}", wish.film, wish.profile, wish.chunks),
            };
            let submit = Submit {
                principal: 1,
                key: format!("key {c}"),
                request_hash: Digest([c as u8 + 1; 32]),
                request: json!({}),
                title,
                profile: 1,
                sources: vec![],
                band: self.rng.between(4, 6) as u8,
                plan: plan0(wish.film),
            };
            let again = self.rng.below(3) as u32;
            self.clients.push(Client { submit, journal: None, again });
            let ms = self.rng.below(15_000);
            self.at(ms, Item::Client(c as usize));
        }
    }

    pub(super) fn client_turn(&mut self, c: usize) {
        let mut submit = self.clients[c].submit.clone();
        let told = self.clients[c].journal.is_some();
        if told && self.rng.one_in(3) {
            // Another body under the same key must be refused.
            submit.request_hash = Digest([0xff; 32]);
            return self.send(Caller::Stranger(c), Call::Submit(Box::new(submit)));
        }
        if self.broken == Some(Break::AckBeforeCommit) && !told && self.rng.one_in(3) {
            self.clients[c].journal = Some(JobId(self.next_job_guess()));
            if self.rng.one_in(3) {
                return;
            }
        }
        self.send(Caller::Client(c), Call::Submit(Box::new(submit)));
    }

    fn next_job_guess(&self) -> i64 {
        self.model.t.jobs.keys().next_back().map_or(1, |last| last + 1)
    }

    pub(super) fn client_hears(&mut self, c: usize, answer: Option<Result<Answer, Refusal>>) {
        let ms = self.rng.between(100, 3000);
        match answer {
            // Unknown: it is safe to repeat.
            None => self.at(ms, Item::Client(c)),
            Some(Ok(Answer::Submitted(s))) => {
                match self.clients[c].journal.replace(s.job) {
                    Some(before) if before != s.job => {
                        let what = format!("submit {c} was answered with {before} and {}", s.job);
                        self.violate("I2", what);
                    }
                    _ => {}
                }
                if self.clients[c].again > 0 {
                    self.clients[c].again -= 1;
                    self.at(ms, Item::Client(c));
                }
            }
            Some(other) => self.violate("I2", format!("submit {c} was answered {other:?}")),
        }
    }

    pub(super) fn stranger_hears(&mut self, c: usize, answer: Option<Result<Answer, Refusal>>) {
        if let Some(Ok(a)) = answer {
            self.violate("I2", format!("another body under the key of {c} was answered {a:?}"));
        }
    }

    /// An operator does something to some job.
    pub(super) fn operator_turn(&mut self) {
        if !self.faulty() {
            return;
        }
        let jobs: Vec<i64> = self.model.t.jobs.keys().copied().collect();
        if !jobs.is_empty() {
            let mut job = JobId(*self.rng.pick(&jobs));
            // The worst moment for a cancel is when something is about to appear.
            let begun = self.model.t.publications.values().filter(|p| {
                matches!(p.state, PublicationState::Prepared | PublicationState::Moving)
            });
            let begun = begun.filter_map(|p| self.model.t.tasks.get(&p.task_id));
            // Best of all while nobody is at it.
            let kind = match begun.min_by_key(|t| t.state != TaskState::Ready) {
                Some(t) if self.rng.one_in(2) => {
                    job = JobId(t.job_id);
                    0
                }
                _ => self.rng.below(20),
            };
            let call = match kind {
                0..=1 => Call::Cancel(job),
                2..=8 => Call::Retry(job),
                9..=11 => Call::Pause(job),
                12..=15 => Call::Resume(job),
                16..=18 => Call::SetBand(job, self.rng.between(3, 7) as u8),
                _ => {
                    let workers: Vec<i64> = self.model.t.workers.keys().copied().collect();
                    match workers.last() {
                        Some(w) => Call::Drain(WorkerId(*w)),
                        None => Call::Resume(job),
                    }
                }
            };
            self.send(Caller::Operator, call);
        }
        let ms = self.rng.between(800, 5000);
        self.at(ms, Item::Operator);
    }

    /// After the faults: what was paused goes on, so that every job can end.
    pub(super) fn resume_all(&mut self) {
        let paused = (self.model.t.jobs.values())
            .filter(|j| j.state == trix_model::state::JobState::Paused)
            .map(|j| JobId(j.id));
        for job in paused.collect::<Vec<_>>() {
            self.send(Caller::Operator, Call::Resume(job));
        }
    }

    pub(super) fn reader_turn(&mut self, r: usize) {
        let limit = self.rng.between(1, 40) as usize;
        let reader = self.readers[r].clone();
        let mut seen = Vec::new();
        if self.broken == Some(Break::NaiveReader) {
            // By arrival: what waits and what is numbered, above the last that it saw.
            let found: Vec<i64> = self.arrived.range(reader.last + 1..).copied().collect();
            seen.extend(found.into_iter().take(limit));
        } else {
            let from = self.model.seqs.partition_point(|s| *s <= reader.last);
            seen.extend(self.model.seqs[from..].iter().take(limit).copied());
        }
        for seq in seen {
            let expected = self.readers[r].last + 1;
            if seq != expected && self.broken != Some(Break::NaiveReader) {
                self.violate("I13", format!("reader {r} saw {seq} where {expected} is due"));
            }
            self.readers[r].last = seq;
            self.readers[r].seen += 1;
        }
        let ms = self.rng.between(500, 2500);
        self.at(ms, Item::Reader(r));
    }

    /// A slow transaction: its event has a number long before it is committed, if it ever is.
    pub(super) fn slow_writer_turn(&mut self) {
        if !self.faulty() {
            return;
        }
        let id = self.model.begin_event();
        if !self.rng.one_in(4) {
            let ms = self.rng.between(100, 2500);
            self.at(ms, Item::SlowCommit(id));
        }
        let ms = self.rng.between(1500, 6000);
        self.at(ms, Item::SlowWriter);
    }

    pub(super) fn slow_commit(&mut self, id: i64) {
        if !self.db_up {
            // The server went away under it: it is rolled back.
            return;
        }
        let body = json!({});
        let event = RawEvent { job_id: None, task_id: None, kind: "note".into(), body };
        self.record(Call::Emit("note".into()));
        self.model.commit_event(id, event);
        self.look("slow commit");
    }
}
