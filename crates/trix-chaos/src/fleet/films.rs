//! What is put into the queue: films whose chunks have the documents that the real planner
//! writes, and whose work nobody does.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trix_db::access::Role;
use trix_db::jobs::Submit;
use trix_db::leader::Seat;
use trix_db::{
    AttemptResult, Claim, Credentials, Db, Outcome, RegisterRequest, Registered, Resources,
    SyncReply, SyncRequest, Usage, WorkerStore,
};
use trix_model::media::StreamKind;
use trix_model::{AttemptId, Digest, JobId, Key, ShareName};
use trix_plan::task::{
    CopyVideo, Cost, EncodeAudio, EncodeChunk, Intake, MadeOutput, Output, Plan, SourceRef, Task,
    TaskResult, TaskSpec,
};
use trix_plan::{Delivery, Profile, planner};
use trix_storage::fixity::Fixity;

use crate::harness::film::Film;

/// The engine that all plans are pinned to.
pub const ENGINE: &str = "trix-chaos/fleet";

/// The profile that chunks are planned by: five renditions at medium.
const PROFILE: &str = "archive-and-ladder";

/// The most tasks that one plan is appended with: the chunks of a film of two hours.
const TASKS_A_PLAN: u32 = 180;

/// What a chunk takes of a node: one slot.
pub const CHUNK_COST: Cost =
    Cost { mcpu: 1000, ram: 1 << 28, scratch: 1 << 26, estimate_ms: 30_000 };

/// Templates of the planner's own tasks.
#[derive(Clone, Debug)]
pub struct Films {
    chunk: EncodeChunk,
    audio: EncodeAudio,
    outputs: usize,
    intake: Value,
}

impl Films {
    /// Plans a film of 1080p as the dispatcher would.
    pub fn new() -> Result<Films> {
        let film = Film { seed: 1, frames: 5000, tracks: 1, work_ms: 0, noise: 0 };
        let mut fixity = Fixity::new();
        fixity.update(&film.bytes());
        let mut intake = film.intake(fixity.finish());
        for stream in &mut intake.media.streams {
            if let StreamKind::Video(picture) = &mut stream.kind {
                (picture.width, picture.height) = (1920, 1080);
            }
        }
        let text = Profile::shipped_text(PROFILE).context("a shipped profile")?;
        let profile = Profile::parse(text).context("a shipped profile")?;
        let source = source("source", "film");
        let plan = planner::plan1(&profile, &intake, &source, ENGINE, "film", Delivery::Shares)?;
        let chunk = plan.tasks.iter().find_map(|t| match &t.spec {
            TaskSpec::EncodeChunk(chunk) => Some((chunk.clone(), t.outputs.len())),
            _ => None,
        });
        let audio = plan.tasks.iter().find_map(|t| match &t.spec {
            TaskSpec::EncodeAudio(audio) => Some(audio.clone()),
            _ => None,
        });
        let (chunk, outputs) = chunk.context("the plan has no chunk")?;
        let audio = audio.context("the plan has no sound")?;
        Ok(Films { chunk, audio, outputs, intake: serde_json::to_value(intake)? })
    }

    /// Plan 0 of a film.
    pub fn intake(&self, film: &str) -> Plan {
        let source = source("source", film);
        let spec = TaskSpec::Intake(Intake { source, sidecars: Vec::new(), tee: None });
        let output = Output { name: "index".into(), key: index(film) };
        let task = Task {
            name: "intake".into(),
            spec,
            needs: Vec::new(),
            outputs: vec![output],
            cost: CHUNK_COST,
        };
        plan(vec![task])
    }

    /// A film of so many chunks, all alike.
    pub fn chunks(&self, film: &str, n: u32) -> Plan {
        plan(
            (0..n)
                .map(|i| self.task(film, i, self.encode(film, "source", i), CHUNK_COST))
                .collect(),
        )
    }

    /// A film whose tasks have 108 shapes, of which [`Films::MIXED_FITTING`] fit a worker of
    /// four cores that has the shares `source` and `vault`.
    pub fn mixed(&self, film: &str, n: u32) -> Plan {
        let one = |i: u32| {
            let share = ["source", "vault", "far"][(i / 4 % 3) as usize];
            let spec = match i % 4 {
                0 | 1 => self.encode(film, share, i),
                2 => TaskSpec::EncodeAudio(EncodeAudio {
                    source: source(share, film),
                    index: index(film),
                    ..self.audio.clone()
                }),
                _ => TaskSpec::CopyVideo(CopyVideo {
                    source: source(share, film),
                    index: index(film),
                    stream: 0,
                    zero_pts: 0,
                    time_base: self.chunk.time_base,
                }),
            };
            let cost = Cost {
                mcpu: [1000, 500, 2000, 64_000][(i / 12 % 4) as usize],
                ram: [1 << 28, 1 << 30, 3 << 30][(i / 48 % 3) as usize],
                ..CHUNK_COST
            };
            self.task(film, i, spec, cost)
        };
        plan((0..n).map(one).collect())
    }

    /// Shapes of [`Films::mixed`] that fit: 3 kinds, 2 shares, 3 sizes, 3 amounts of memory.
    pub const MIXED_FITTING: u32 = 54;

    fn encode(&self, film: &str, share: &str, n: u32) -> TaskSpec {
        TaskSpec::EncodeChunk(EncodeChunk {
            source: source(share, film),
            index: index(film),
            chunk: n,
            ..self.chunk.clone()
        })
    }

    fn task(&self, film: &str, n: u32, spec: TaskSpec, cost: Cost) -> Task {
        let many = if matches!(spec, TaskSpec::EncodeChunk(_)) { self.outputs } else { 1 };
        let output = |o| Output { name: format!("r{o}"), key: key(&format!("{film} {n} {o}")) };
        Task {
            name: format!("{}/{n:05}", spec.kind()),
            spec,
            needs: vec!["intake".into()],
            outputs: (0..many).map(output).collect(),
            cost,
        }
    }

    /// What a worker would send of an attempt that went well.
    pub fn ok(&self, claim: &Claim) -> Outcome {
        let made = |o: &Output| MadeOutput {
            name: o.name.clone(),
            key: o.key,
            digest: Digest(o.key.0),
            size: 1 << 20,
        };
        let detail = matches!(claim.spec, TaskSpec::Intake(_)).then(|| self.intake.clone());
        Outcome::Ok(TaskResult { outputs: claim.missing.iter().map(made).collect(), detail })
    }
}

/// Who submits, and knows how to make a full queue.
pub struct Desk {
    /// Where to.
    pub db: Db,
    /// What.
    pub films: Films,
    principal: i64,
    profile: i64,
}

impl Desk {
    /// Opens it in a fresh database.
    pub async fn open(db: Db) -> Result<Desk> {
        let films = Films::new()?;
        let principal = db.create_principal("fleet", Role::Operator, None).await?.id;
        let text = Profile::shipped_text(PROFILE).context("a shipped profile")?;
        let version = Profile::parse(text)?.version();
        let profile = db.put_profile(PROFILE, version, text, true).await?.id;
        Ok(Desk { db, films, principal, profile })
    }

    /// Submits a film with its plan 0.
    pub async fn submit(&self, film: &str, band: u8) -> Result<JobId> {
        let submit = Submit {
            principal: self.principal,
            key: film.into(),
            request_hash: Digest(key(film).0),
            request: json!({ "source": format!("source:{film}.mov") }),
            title: film.into(),
            profile: self.profile,
            sources: vec![source("source", film).location],
            band,
            plan: self.films.intake(film),
        };
        Ok(self.db.submit(&submit).await?.job)
    }

    /// Puts so many chunks into the queue, all alike.
    pub async fn fill(&self, tasks: u64) -> Result<()> {
        self.fill_with(tasks, |films, film, n| films.chunks(film, n)).await
    }

    /// Puts so many tasks of [`Films::mixed`] into the queue, in all ten bands.
    pub async fn fill_mixed(&self, tasks: u64) -> Result<()> {
        self.fill_with(tasks, |films, film, n| films.mixed(film, n)).await
    }

    /// By submits, intakes and appended plans, as it always is; nothing else runs meanwhile.
    async fn fill_with(&self, tasks: u64, plan: impl Fn(&Films, &str, u32) -> Plan) -> Result<()> {
        let seat = Seat::try_take(&self.db, "the desk", Default::default()).await?;
        let seat = seat.context("somebody else leads")?;
        let leader = seat.leader();
        let secret = self.db.enrol_node("the-desk").await?.secret;
        let worker = Client::register(&self.db, "the-desk", &secret, 4).await?;
        let films = tasks.div_ceil(u64::from(TASKS_A_PLAN));
        let mut jobs = Vec::new();
        for n in 0..films {
            let film = format!("film {n}");
            jobs.push((self.submit(&film, (n % 10) as u8).await?, film));
        }
        // All intakes before the first plan: what is claimed here is never a chunk.
        let mut results = Vec::new();
        loop {
            let claims = worker.sync(std::mem::take(&mut results), 4).await?;
            if claims.is_empty() {
                break;
            }
            results.extend(claims.iter().map(|c| result(c.attempt, self.films.ok(c))));
        }
        let mut left = tasks;
        for (job, film) in jobs {
            let now = left.min(u64::from(TASKS_A_PLAN));
            let added = leader.append_plan(job, &plan(&self.films, &film, now as u32)).await?;
            anyhow::ensure!(added, "job {job} took no plan");
            left -= now;
        }
        self.db.leave(worker.me).await?;
        Ok(seat.leave().await?)
    }
}

/// A worker that does nothing on its own.
#[derive(Clone)]
pub struct Client {
    db: Db,
    /// Who it is.
    pub me: Credentials,
    free: Resources,
}

impl Client {
    /// Registers one with so many cores.
    pub async fn register(db: &Db, node: &str, secret: &str, cores: u32) -> Result<Client> {
        let free = capacity(cores);
        let request = register_request(node, secret, free);
        let Registered { me, .. } = db.register(request).await?;
        Ok(Client { db: db.clone(), me, free })
    }

    /// Hands results in and claims up to `want`. All that it runs is in `results`.
    pub async fn sync(&self, results: Vec<AttemptResult>, want: u32) -> Result<Vec<Claim>> {
        let sent = results.len();
        let request = SyncRequest {
            me: self.me.clone(),
            progress: Vec::new(),
            results,
            free: self.free,
            shares_ok: shares(),
            engine: ENGINE.into(),
            want,
        };
        match self.db.sync(request).await? {
            SyncReply::Accepted(a) => {
                let good = a.verdicts.iter().all(|v| v.verdict == trix_db::Verdict::Accepted);
                anyhow::ensure!(
                    good && a.verdicts.len() == sent,
                    "of {sent} results came {:?}",
                    a.verdicts
                );
                Ok(a.claims)
            }
            SyncReply::Marked { .. } => anyhow::bail!("worker {} was marked", self.me.worker),
        }
    }
}

/// What a node of so many cores, and so many slots, gives.
pub fn capacity(cores: u32) -> Resources {
    let n = u64::from(cores);
    Resources { mcpu: cores * 1000, ram: n << 30, scratch: n << 30 }
}

/// How a worker of this engine registers.
pub fn register_request(node: &str, secret: &str, capacity: Resources) -> RegisterRequest {
    RegisterRequest {
        node: node.into(),
        node_token: secret.into(),
        boot_id: "fleet".into(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        engine: ENGINE.into(),
        capacity,
        shares_ok: shares(),
    }
}

/// The result of an attempt that took no time.
pub fn result(attempt: AttemptId, outcome: Outcome) -> AttemptResult {
    AttemptResult { attempt, outcome, log: Vec::new(), usage: Usage::default() }
}

/// Shares that every node has.
pub fn shares() -> Vec<ShareName> {
    ["cache", "source", "vault"].map(share).into()
}

/// A share by its name.
pub fn share(name: &str) -> ShareName {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a share's name"))
}

fn source(share: &str, film: &str) -> SourceRef {
    let location = format!("{share}:{film}.mov");
    let location = location.parse().unwrap_or_else(|_| unreachable!("{location} is a path"));
    SourceRef { location, size: 1 << 33, mtime_ns: 1 }
}

fn index(film: &str) -> Key {
    key(&format!("{film} index"))
}

fn key(name: &str) -> Key {
    Key(*blake3::hash(name.as_bytes()).as_bytes())
}

fn plan(tasks: Vec<Task>) -> Plan {
    Plan { version: 1, engine: ENGINE.into(), tasks, results: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_chunk_has_the_document_of_the_real_planner() {
        let films = Films::new().unwrap();
        let chunk = &films.chunks("a", 3).tasks[2];
        let TaskSpec::EncodeChunk(spec) = &chunk.spec else { panic!("{:?}", chunk.spec) };
        assert!(spec.renditions.len() >= 5, "the whole ladder");
        assert_eq!(spec.renditions.len(), chunk.outputs.len());
        assert_eq!((spec.chunk, spec.index), (2, index("a")));
        assert_eq!(films.intake("a").tasks[0].outputs[0].key, index("a"));
    }

    #[test]
    fn mixed_tasks_have_as_many_shapes_as_is_said() {
        let films = Films::new().unwrap();
        let plan = films.mixed("a", 2000);
        let shape = |t: &Task| {
            let source = t.spec.source().unwrap().location.share.to_string();
            (t.spec.kind(), source, t.cost.mcpu, t.cost.ram)
        };
        let all: BTreeSet<_> = plan.tasks.iter().map(shape).collect();
        assert_eq!(all.len(), 108);
        let node = capacity(4);
        let fits = all.iter().filter(|(_, share, mcpu, ram)| {
            share != "far" && *mcpu <= node.mcpu && *ram <= node.ram
        });
        assert_eq!(fits.count() as u32, Films::MIXED_FITTING);
        let keys: BTreeSet<_> = plan.tasks.iter().flat_map(|t| &t.outputs).map(|o| o.key).collect();
        let outputs = plan.tasks.iter().map(|t| t.outputs.len()).sum::<usize>();
        assert_eq!(keys.len(), outputs, "no task is another's twin");
    }
}
