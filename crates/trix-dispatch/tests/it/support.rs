//! A film, a cluster and workers that pretend to run what they claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trix_db::access::Role;
use trix_db::jobs::{JobRow, Submit};
use trix_db::{
    AttemptProgress, AttemptResult, Claim, Credentials, Db, DbError, Manifest, ManifestFile,
    Outcome, RegisterRequest, Resources, SyncReply, SyncRequest, Usage, WorkerStore,
};
use trix_dispatch::{DispatchConfig, DispatchError};
use trix_model::color::{ColorDescription, HdrMetadata};
use trix_model::digest::{Digest, Digest128, SourceHashes};
use trix_model::index::AccessGroup;
use trix_model::media::{DESCRIPTION_VERSION, FieldOrder, Stream, StreamKind, Video};
use trix_model::state::{JobState, PublicationState};
use trix_model::{JobId, MediaDescription, PlanningIndex, Progress, Rational};
use trix_plan::task::*;
use trix_plan::{Delivery, Profile};
use trix_storage::Roots;

pub const ENGINE: &str = "0123456789abcdef0123456789abcdef";
pub const PROFILE: &str = "archive-and-ladder";

/// A minute of H.264 without sound, closed groups of two seconds; another `seed` is another film.
pub fn intake(seed: u8) -> IntakeResult {
    let frames = 1500u32;
    let time_base = Rational::new(1, 25).unwrap();
    let video = Stream {
        index: 0,
        codec: "h264".into(),
        profile: None,
        time_base,
        start: Some(0),
        duration: Some(frames.into()),
        bit_rate: None,
        language: None,
        title: None,
        default: true,
        attached_picture: false,
        kind: StreamKind::Video(Video {
            width: 640,
            height: 360,
            pixel_format: "yuv420p".into(),
            depth: 8,
            sample_aspect: Some(Rational::ONE),
            frame_rate: time_base.inverse(),
            average_rate: time_base.inverse(),
            color: ColorDescription::default(),
            hdr: HdrMetadata::default(),
            fields: FieldOrder::Progressive,
            rotation: 0,
            dolby_vision: None,
        }),
    };
    let index = PlanningIndex {
        stream: Some(0),
        time_base,
        parameters: Digest128([9; 16]),
        pts: (0..frames.into()).collect(),
        end: frames.into(),
        access: (0..frames).step_by(50).collect(),
        groups: (0..frames)
            .step_by(50)
            .map(|frame| AccessGroup { frame, lead: 0, hash: Digest128([frame as u8 ^ seed; 16]) })
            .collect(),
        audio: vec![],
    };
    IntakeResult {
        media: MediaDescription {
            version: DESCRIPTION_VERSION,
            container: "mov".into(),
            size: 1 << 30,
            duration_us: Some(60_000_000),
            streams: vec![video],
            tags: Default::default(),
        },
        hashes: SourceHashes {
            sha256: Digest([7; 32]),
            md5: Digest128([1; 16]),
            xxh3: Digest128([2; 16]),
            size: 1 << 30,
        },
        planning_index: index.to_base64(),
        findings: vec![],
        staged: Some(StagedFile {
            location: "archive:.trix/stage/1-1/source".parse().unwrap(),
            size: 1 << 30,
            sha256: Digest([7; 32]),
        }),
    }
}

/// A sound file.
pub fn blind() -> IntakeResult {
    let index = PlanningIndex {
        stream: None,
        time_base: Rational::ONE,
        parameters: Digest128([0; 16]),
        pts: vec![],
        end: 0,
        access: vec![],
        groups: vec![],
        audio: vec![],
    };
    let mut intake = intake(0);
    intake.media.streams.clear();
    IntakeResult { planning_index: index.to_base64(), ..intake }
}

/// Submits a film of which intake will say `what` it is.
pub async fn submit(db: &Db, name: &str) -> JobId {
    let text = Profile::shipped_text(PROFILE).unwrap();
    let profile = Profile::parse(text).unwrap();
    let row = db.put_profile(PROFILE, profile.version(), text, true).await.unwrap();
    let known = db.principals().await.unwrap().into_iter().find(|p| p.name == "anna");
    let principal = match known {
        Some(p) => p,
        None => db.create_principal("anna", Role::Operator, None).await.unwrap(),
    };
    let source = SourceRef {
        location: format!("incoming:{name}.mov").parse().unwrap(),
        size: 1 << 30,
        mtime_ns: 1,
    };
    let plan = trix_plan::plan0(&source, &[], &profile, ENGINE, Delivery::Shares).unwrap();
    let submit = Submit {
        principal: principal.id,
        key: name.into(),
        request_hash: Digest([1; 32]),
        request: json!({}),
        title: name.into(),
        profile: row.id,
        sources: vec![source.location.clone()],
        band: 5,
        plan,
    };
    db.submit(&submit).await.unwrap().job
}

/// A dispatcher that runs.
pub struct Dispatcher {
    stop: CancellationToken,
    task: JoinHandle<Result<(), DispatchError>>,
}

impl Dispatcher {
    pub fn start(db: &Db, holder: &str) -> Dispatcher {
        Dispatcher::with(DispatchConfig { holder: holder.into(), ..config(db, Roots::default()) })
    }

    pub fn with(config: DispatchConfig) -> Dispatcher {
        let stop = CancellationToken::new();
        let task = tokio::spawn(trix_dispatch::run(config, stop.clone()));
        Dispatcher { stop, task }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub fn config(db: &Db, roots: Roots) -> DispatchConfig {
    DispatchConfig::new(db.clone(), roots, "cache".parse().unwrap())
}

/// A worker that runs what it claims until it is ended.
pub struct Worker {
    pub me: Credentials,
    /// Syncs that said "marked".
    pub marked: Arc<AtomicU32>,
    /// Attempts that it ended.
    pub ended: Arc<AtomicU32>,
    /// While set it runs what it claims and ends nothing.
    pub hold: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Worker {
    pub async fn start(db: &Db, node: &str, intake: serde_json::Value) -> Worker {
        let me = register(db, node).await;
        let stop = CancellationToken::new();
        let (marked, ended, hold) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicBool>)>::default();
        let run = Run {
            db: db.clone(),
            me: me.clone(),
            intake,
            marked: marked.clone(),
            ended: ended.clone(),
            hold: hold.clone(),
        };
        let s = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! { () = run.run() => {}, () = s.cancelled() => {} }
        });
        Worker { me, marked, ended, hold, stop, task }
    }

    /// Ends it as a kill would: without a word.
    pub async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Registers a worker that runs one task, and is not heard of again.
pub async fn run_one(db: &Db, node: &str, intake: serde_json::Value) {
    let me = register(db, node).await;
    let (marked, ended, hold) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicBool>)>::default();
    let run = Run { db: db.clone(), me: me.clone(), intake, marked, ended, hold };
    let request = |want, results| SyncRequest {
        me: me.clone(),
        progress: vec![],
        results,
        free: CAPACITY,
        shares_ok: shares(),
        engine: ENGINE.into(),
        want,
    };
    let SyncReply::Accepted(a) = db.sync(request(1, vec![])).await.unwrap() else { panic!() };
    let (attempt, outcome) = (a.claims[0].attempt, run.outcome(&a.claims[0]).await);
    let result = AttemptResult { attempt, outcome, log: vec![], usage: Usage::default() };
    db.sync(request(0, vec![result])).await.unwrap();
}

struct Run {
    db: Db,
    me: Credentials,
    intake: serde_json::Value,
    marked: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
    hold: Arc<AtomicBool>,
}

impl Run {
    async fn run(self) {
        let mut held: Vec<Claim> = vec![];
        loop {
            let hold = self.hold.load(Ordering::Relaxed);
            let mut request = SyncRequest {
                me: self.me.clone(),
                progress: vec![],
                results: vec![],
                free: CAPACITY,
                shares_ok: shares(),
                engine: ENGINE.into(),
                want: 8,
            };
            for c in &held {
                let (attempt, progress) = (c.attempt, Progress::default());
                if hold {
                    request.progress.push(AttemptProgress { attempt, progress, lines: vec![] });
                } else {
                    let outcome = self.outcome(c).await;
                    let (log, usage) = (vec![], Usage::default());
                    request.results.push(AttemptResult { attempt, outcome, log, usage });
                }
            }
            match self.db.sync(request).await {
                Ok(SyncReply::Accepted(a)) => {
                    self.ended.fetch_add(a.verdicts.len() as u32, Ordering::Relaxed);
                    held.retain(|c| a.running.contains(&c.attempt));
                    held.extend(a.claims);
                }
                Ok(SyncReply::Marked { .. }) => {
                    self.marked.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(e) if e.is_unavailable() => {}
                Err(e) => panic!("{e:?}"),
            }
            tokio::time::sleep(self.db.times().beat_small).await;
        }
    }

    async fn outcome(&self, c: &Claim) -> Outcome {
        if let TaskSpec::Publish(p) = &c.spec {
            while let Err(e) = publish(&self.db, &self.me, c, p).await {
                assert!(e.is_unavailable(), "{e:?}");
                tokio::time::sleep(self.db.times().reconnect_min).await;
            }
        }
        let made = c.missing.iter().map(|o| MadeOutput {
            name: o.name.clone(),
            key: o.key,
            digest: Digest(o.key.0),
            size: 9,
        });
        let detail = matches!(c.spec, TaskSpec::Intake(_)).then(|| self.intake.clone());
        Outcome::Ok(TaskResult { outputs: made.collect(), detail })
    }
}

async fn publish(db: &Db, me: &Credentials, c: &Claim, p: &Publish) -> Result<(), DbError> {
    let manifest = Manifest {
        share: p.share.clone(),
        target: p.target.clone(),
        role: p.role.clone(),
        files: p
            .files
            .iter()
            .map(|f| ManifestFile {
                name: f.name.clone(),
                size: 9,
                sha256: Digest([1; 32]),
                blake3: None,
            })
            .collect(),
    };
    let prepared = db.prepare_publication(me.clone(), c.attempt, manifest).await?;
    if prepared.state != PublicationState::Published {
        db.begin_move(me.clone(), c.attempt).await?;
        db.published(me.clone(), c.attempt, json!({})).await?;
    }
    Ok(())
}

const CAPACITY: Resources = Resources { mcpu: 64_000, ram: 1 << 40, scratch: 1 << 50 };

pub async fn register(db: &Db, node: &str) -> Credentials {
    let node_token = db.enrol_node(node).await.unwrap().secret;
    let request = RegisterRequest {
        node: node.into(),
        node_token,
        boot_id: "boot".into(),
        pid: 1,
        version: "0.1.0".into(),
        engine: ENGINE.into(),
        capacity: CAPACITY,
        shares_ok: shares(),
    };
    db.register(request).await.unwrap().me
}

fn shares() -> Vec<trix_model::ShareName> {
    ["archive", "cache", "incoming", "output", "preview"]
        .iter()
        .map(|s| s.parse().unwrap())
        .collect()
}

/// Waits until `done` says so of the job, at most a minute.
pub async fn until(db: &Db, job: JobId, done: impl Fn(&JobRow) -> bool) -> JobRow {
    let begun = Instant::now();
    loop {
        match db.job(job).await {
            Ok(row) => {
                let row = row.unwrap();
                if done(&row) {
                    return row;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "{row:?}");
            }
            Err(e) => assert!(e.is_unavailable(), "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn is_final(row: &JobRow) -> bool {
    row.state.is_final()
}

pub fn succeeded(row: &JobRow) -> bool {
    assert_ne!(row.state, JobState::Failed, "{:?}", row.failure);
    row.state == JobState::Succeeded
}
