//! A fleet of fake workers and small plans with real specs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trix_db::access::Role;
use trix_db::jobs::{JobRow, Submit, TaskRow};
use trix_db::leader::{Leader, Seat};
use trix_db::worker::Credentials;
use trix_db::{
    Accepted, AttemptProgress, AttemptResult, Claim, Db, DbError, Manifest, ManifestFile, Outcome,
    RegisterRequest, Resources, SyncReply, SyncRequest, Usage, WorkerStore,
};
use trix_model::state::JobState;
use trix_model::{
    AttemptId, Digest, ErrorClass, ErrorOrigin, Failure, JobId, Key, Progress, Rational, TaskId,
};
use trix_plan::task::*;
use trix_testkit::pg::TestDb;

pub const ENGINE: &str = "engine-1";

/// A database with a principal, a profile and a leader.
pub struct World {
    pub test: TestDb,
    pub db: Db,
    pub principal: i64,
    pub profile: i64,
    pub seat: Seat,
    pub leader: Leader,
    last_tick: Instant,
}

impl World {
    pub async fn new() -> World {
        let test = TestDb::new().await.unwrap();
        let db = test.db();
        World::over(test, db).await
    }

    pub async fn over(test: TestDb, db: Db) -> World {
        let principal = db.create_principal("anna", Role::Operator, None).await.unwrap().id;
        let profile =
            db.put_profile("archive-and-ladder", digest(7), "name = 'x'", true).await.unwrap().id;
        let seat =
            Seat::try_take(&db, "test", Duration::ZERO).await.unwrap().expect("the seat is free");
        let leader = seat.leader();
        World { test, db, principal, profile, seat, leader, last_tick: Instant::now() }
    }

    /// Lets the database's clock go on by `up`, in ticks that it believes.
    pub async fn advance(&mut self, up: Duration) {
        let step = self.db.times().tick_gap;
        let mut left = up;
        while !left.is_zero() {
            let d = left.min(step);
            self.seat.tick(d).await.unwrap();
            left -= d;
        }
        self.last_tick = Instant::now();
    }

    pub async fn submit(&self, key: &str, plan: Plan) -> JobId {
        self.try_submit(key, 1, plan).await.unwrap().job
    }

    pub async fn try_submit(
        &self,
        key: &str,
        body: u8,
        plan: Plan,
    ) -> Result<trix_db::jobs::Submitted, DbError> {
        self.db
            .submit(&Submit {
                principal: self.principal,
                key: key.into(),
                request_hash: digest(body),
                request: json!({ "source": "in:film.mov" }),
                title: format!("title of {key}"),
                profile: self.profile,
                sources: vec!["in:film.mov".parse().unwrap()],
                band: 5,
                plan,
            })
            .await
    }

    pub async fn worker(&self, node: &str) -> Fake {
        self.worker_with(node, 4000).await
    }

    pub async fn worker_with(&self, node: &str, mcpu: u32) -> Fake {
        let secret = self.db.enrol_node(node).await.unwrap().secret;
        Fake::register(&self.db, node, &secret, mcpu).await
    }

    pub async fn job(&self, job: JobId) -> JobRow {
        self.db.job(job).await.unwrap().unwrap()
    }

    pub async fn state(&self, job: JobId) -> JobState {
        self.job(job).await.state
    }

    pub async fn task(&self, job: JobId, name: &str) -> TaskRow {
        let tasks = self.db.tasks(job).await.unwrap();
        tasks.into_iter().find(|t| t.name == name).unwrap()
    }

    /// All events so far, numbered.
    pub async fn events(&self) -> Vec<trix_db::events::Event> {
        while self.db.sequence_events().await.unwrap().count > 0 {}
        self.db.events(0, None, 5000).await.unwrap()
    }

    /// Runs a job's plan 0 and appends `plan`.
    pub async fn planned(&self, key: &str, w: &Fake, plan: Plan) -> JobId {
        let job = self.submit(key, plan0(key)).await;
        w.run_all(&self.db).await;
        assert_eq!(self.leader.jobs_to_plan(10).await.unwrap().len(), 1);
        assert!(self.leader.append_plan(job, &plan).await.unwrap());
        job
    }
}

/// A worker that pretends to run what it claims.
#[derive(Clone)]
pub struct Fake {
    pub db: Db,
    pub me: Credentials,
    pub capacity: Resources,
}

impl Fake {
    pub async fn register(db: &Db, node: &str, secret: &str, mcpu: u32) -> Fake {
        let capacity = Resources { mcpu, ram: 1 << 33, scratch: 1 << 40 };
        let registered = db
            .register(RegisterRequest {
                node: node.into(),
                node_token: secret.into(),
                boot_id: "boot".into(),
                pid: 1,
                version: "0.1.0".into(),
                engine: ENGINE.into(),
                capacity,
                shares_ok: shares(),
            })
            .await
            .unwrap();
        Fake { db: db.clone(), me: registered.me, capacity }
    }

    pub fn request(&self, want: u32) -> SyncRequest {
        SyncRequest {
            me: self.me.clone(),
            progress: vec![],
            results: vec![],
            free: self.capacity,
            shares_ok: shares(),
            engine: ENGINE.into(),
            want,
        }
    }

    pub async fn sync(&self, request: SyncRequest) -> Accepted {
        match self.db.sync(request).await.unwrap() {
            SyncReply::Accepted(a) => a,
            SyncReply::Marked { .. } => panic!("worker {} was marked", self.me.worker),
        }
    }

    pub async fn claim(&self, want: u32) -> Vec<Claim> {
        self.sync(self.request(want)).await.claims
    }

    pub async fn beat(&self) -> Accepted {
        self.sync(self.request(0)).await
    }

    /// Sends one result and gives the answer.
    pub async fn end(&self, attempt: AttemptId, outcome: Outcome) -> Accepted {
        let mut r = self.request(0);
        r.results = vec![result(attempt, outcome)];
        self.sync(r).await
    }

    /// Claims and ends well until nothing is left; gives the names in order.
    pub async fn run_all(&self, db: &Db) -> Vec<String> {
        let mut names = vec![];
        loop {
            let claims = self.claim(4).await;
            if claims.is_empty() {
                return names;
            }
            for c in claims {
                names.push(c.name.clone());
                if let TaskSpec::Publish(p) = &c.spec {
                    publish(db, &self.me, &c, p).await.unwrap();
                }
                self.end(c.attempt, ok(&c)).await;
            }
        }
    }
}

pub fn result(attempt: AttemptId, outcome: Outcome) -> AttemptResult {
    AttemptResult {
        attempt,
        outcome,
        log: vec!["the end\0".into()],
        usage: Usage { cpu_ms: 5, ..Usage::default() },
    }
}

pub fn progress(attempt: AttemptId) -> AttemptProgress {
    AttemptProgress {
        attempt,
        progress: Progress { phase: "encode".into(), done: 1, total: 4, frames: 1 },
        lines: vec!["a line".into()],
    }
}

/// What a worker would send for a claim that went well.
pub fn ok(c: &Claim) -> Outcome {
    let outputs = c
        .missing
        .iter()
        .map(|o| MadeOutput { name: o.name.clone(), key: o.key, digest: Digest(o.key.0), size: 9 })
        .collect();
    let detail = match &c.spec {
        TaskSpec::Intake(_) => Some(json!({
            "media": {}, "hashes": { "sha256": digest(3) }, "planning_index": "AAAA",
            "findings": [{ "code": "no_sidecar", "severity": "info", "message": "no checksum file\0" }],
            "staged": { "location": "archive:.trix/stage/1-1/film.mov", "size": 9, "sha256": digest(3) },
        })),
        TaskSpec::Verify(_) => Some(json!({ "frames": 4 })),
        _ => None,
    };
    Outcome::Ok(TaskResult { outputs, detail })
}

pub fn failed(class: ErrorClass, code: &str) -> Outcome {
    Outcome::Failed(Failure::new(class, ErrorOrigin::Engine, code, "it failed"))
}

pub fn shares() -> Vec<trix_model::ShareName> {
    ["archive", "cache", "in", "out"].iter().map(|s| s.parse().unwrap()).collect()
}

pub fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

/// A key that a name stands for.
pub fn key(name: &str) -> Key {
    let mut k = [0u8; 32];
    for (i, b) in name.bytes().enumerate() {
        k[i % 32] = k[i % 32].wrapping_mul(31).wrapping_add(b);
    }
    Key(k)
}

fn task(name: &str, spec: TaskSpec, needs: &[&str], outputs: &[(&str, Key)]) -> Task {
    Task {
        name: name.into(),
        spec,
        needs: needs.iter().map(|s| s.to_string()).collect(),
        outputs: outputs.iter().map(|(n, k)| Output { name: n.to_string(), key: *k }).collect(),
        cost: Cost { mcpu: 1000, ram: 1 << 20, scratch: 1 << 20, estimate_ms: 1000 },
    }
}

fn source(film: &str) -> SourceRef {
    SourceRef { location: format!("in:{film}.mov").parse().unwrap(), size: 9, mtime_ns: 1 }
}

/// Intake of a film; its index has the key `index FILM`.
pub fn plan0(film: &str) -> Plan {
    let spec = TaskSpec::Intake(Intake {
        source: source(film),
        sidecars: vec![],
        tee: Some("archive".parse().unwrap()),
    });
    let tasks = vec![task("intake", spec, &[], &[("index", key(&format!("index {film}")))])];
    Plan { version: 1, engine: ENGINE.into(), tasks, results: vec![] }
}

/// Two chunks → mux → verify → publish; the keys are made of the film's name.
pub fn plan1(film: &str) -> Plan {
    let k = |what: &str| key(&format!("{what} {film}"));
    let chunk = |n: u32| {
        TaskSpec::EncodeChunk(EncodeChunk {
            source: source(film),
            index: k("index"),
            stream: 0,
            chunk: n,
            range: FrameRange { first: n * 2, count: 2, first_pts: 0, end_pts: 2 },
            decode_from: 0,
            zero_pts: 0,
            time_base: Rational::ONE,
            frame_rate: Rational::ONE,
            constant_rate: true,
            renditions: vec![],
            rotation: 0,
        })
    };
    let mux = TaskSpec::Mux(Mux {
        container: Container::Mp4,
        video: Some(MuxVideo { chunks: vec![k("c0"), k("c1")], duration: 4, rotation: 0 }),
        audio: vec![],
        tags: Default::default(),
    });
    let verify = TaskSpec::Verify(Verify {
        file: k("file"),
        expect: Expectation { video: None, audio: vec![] },
    });
    let publish = TaskSpec::Publish(Publish {
        share: "out".parse().unwrap(),
        target: format!("films/{film}").parse().unwrap(),
        role: "output".into(),
        files: vec![PublishFile {
            name: "Film.mp4".parse().unwrap(),
            from: PublishFrom::Artifact { key: k("file") },
        }],
    });
    let tasks = vec![
        task("encode/0000", chunk(0), &["intake"], &[("r", k("c0"))]),
        task("encode/0001", chunk(1), &["intake"], &[("r", k("c1"))]),
        task("mux/r", mux, &["encode/0000", "encode/0001"], &[("file", k("file"))]),
        task("verify/r", verify, &["mux/r"], &[("report", k("report"))]),
        task("publish/output", publish, &["mux/r", "verify/r"], &[]),
    ];
    Plan { version: 1, engine: ENGINE.into(), tasks, results: vec![] }
}

pub fn manifest(p: &Publish) -> Manifest {
    Manifest {
        share: p.share.clone(),
        target: p.target.clone(),
        role: p.role.clone(),
        files: p
            .files
            .iter()
            .map(|f| ManifestFile {
                name: f.name.clone(),
                size: 9,
                sha256: digest(1),
                blake3: None,
            })
            .collect(),
    }
}

pub async fn publish(db: &Db, me: &Credentials, c: &Claim, p: &Publish) -> Result<u32, DbError> {
    let prepared = db.prepare_publication(me.clone(), c.attempt, manifest(p)).await?;
    if prepared.state != trix_model::state::PublicationState::Published {
        db.begin_move(me.clone(), c.attempt).await?;
        db.published(me.clone(), c.attempt, json!({ "files": 1 })).await?;
    }
    Ok(prepared.version)
}

pub fn names(claims: &[Claim]) -> Vec<&str> {
    claims.iter().map(|c| c.name.as_str()).collect()
}

pub fn attempt(task: TaskId, epoch: i64) -> AttemptId {
    AttemptId { task, epoch: trix_model::Epoch(epoch) }
}

/// One value from a statement, for what no function of the product gives.
pub async fn value(url: &str, sql: &'static str) -> Value {
    use sqlx::Connection;
    let mut c = sqlx::PgConnection::connect(url).await.unwrap();
    let v: sqlx::types::Json<Value> = sqlx::query_scalar(sql).fetch_one(&mut c).await.unwrap();
    c.close().await.unwrap();
    v.0
}

/// Runs a statement that no function of the product would.
pub async fn execute(url: &str, sql: &'static str) -> Result<(), sqlx::Error> {
    use sqlx::Connection;
    let mut c = sqlx::PgConnection::connect(url).await?;
    sqlx::query(sql).execute(&mut c).await?;
    c.close().await
}
