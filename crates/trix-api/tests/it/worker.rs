//! A worker that talks the real protocol and runs nothing.

use serde_json::json;
use trix_db::worker::Credentials;
use trix_db::{
    AttemptProgress, AttemptResult, Claim, Db, Manifest, Outcome, RegisterRequest, Resources,
    SyncReply, SyncRequest, Usage, WorkerStore,
};
use trix_model::{Failure, Progress, ShareName};
use trix_plan::task::{MadeOutput, TaskResult};

use trix_db::leader::Seat;
use trix_model::{ErrorClass, ErrorOrigin, JobId};
use trix_plan::task::{Cost, Plan, Publish, Task, TaskSpec};

use crate::harness::ENGINE;

/// A worker of one node.
pub struct Worker {
    db: Db,
    me: Credentials,
}

const ALL: Resources = Resources { mcpu: 64_000, ram: 1 << 40, scratch: 1 << 40 };

fn shares() -> Vec<ShareName> {
    ["in", "archive", "output", "preview", "cache"].map(|s| s.parse().unwrap()).into()
}

impl Worker {
    /// Enrols a node and registers its worker.
    pub async fn join(db: &Db, node: &str) -> Worker {
        let secret = db.enrol_node(node).await.unwrap().secret;
        let registered = db
            .register(RegisterRequest {
                node: node.to_owned(),
                node_token: secret,
                boot_id: "boot".to_owned(),
                pid: 1,
                version: "0.1.0".to_owned(),
                engine: ENGINE.to_owned(),
                capacity: ALL,
                shares_ok: shares(),
            })
            .await
            .unwrap();
        Worker { db: db.clone(), me: registered.me }
    }

    /// One beat, changed.
    pub async fn sync(&self, change: impl FnOnce(&mut SyncRequest)) -> trix_db::Accepted {
        let mut request = SyncRequest {
            me: self.me.clone(),
            progress: Vec::new(),
            results: Vec::new(),
            free: ALL,
            shares_ok: shares(),
            engine: ENGINE.to_owned(),
            want: 0,
        };
        change(&mut request);
        match self.db.sync(request).await.unwrap() {
            SyncReply::Accepted(a) => a,
            SyncReply::Marked { .. } => panic!("the worker was marked"),
        }
    }

    /// Claims one task, which must be there.
    pub async fn claim(&self) -> Claim {
        let mut claims = self.sync(|r| r.want = 1).await.claims;
        assert_eq!(claims.len(), 1, "one task to claim");
        claims.remove(0)
    }

    /// Claims until it has a task of `job`; what it gets of others fails for good.
    pub async fn claim_of(&self, job: i64) -> Claim {
        loop {
            let claim = self.claim().await;
            if claim.job.0 == job {
                return claim;
            }
            let (class, origin) = (ErrorClass::Deterministic, ErrorOrigin::Source);
            self.fail(&claim, Failure::new(class, origin, "broken", "it is no film")).await;
        }
    }

    /// Reports progress and a line of the log.
    pub async fn say(&self, claim: &Claim, line: &str) {
        let progress = Progress { phase: "read".to_owned(), done: 1, total: 4, frames: 0 };
        let lines = vec![line.to_owned()];
        self.sync(|r| {
            r.progress = vec![AttemptProgress { attempt: claim.attempt, progress, lines }];
        })
        .await;
    }

    async fn end(&self, claim: &Claim, outcome: Outcome) {
        let result = AttemptResult {
            attempt: claim.attempt,
            outcome,
            log: Vec::new(),
            usage: Usage::default(),
        };
        self.sync(|r| r.results = vec![result]).await;
    }

    /// Ends an attempt as failed.
    pub async fn fail(&self, claim: &Claim, failure: Failure) {
        self.end(claim, Outcome::Failed(failure)).await;
    }

    /// Ends an attempt well.
    pub async fn succeed(&self, claim: &Claim, detail: Option<serde_json::Value>) {
        let outputs = claim
            .missing
            .iter()
            .map(|o| MadeOutput {
                name: o.name.clone(),
                key: o.key,
                digest: trix_model::Digest(o.key.0),
                size: 1,
            })
            .collect();
        self.end(claim, Outcome::Ok(TaskResult { outputs, detail })).await;
    }

    /// Makes a publication that goes as far as `published`.
    pub async fn publish(&self, claim: &Claim, manifest: Manifest) -> i64 {
        let me = || self.me.clone();
        let p = self.db.prepare_publication(me(), claim.attempt, manifest).await.unwrap();
        self.db.begin_move(me(), claim.attempt).await.unwrap();
        self.db.published(me(), claim.attempt, json!({})).await.unwrap();
        p.id
    }
}

/// A job that was inspected and planned: one publication is ready, and nothing runs.
pub struct Running {
    /// Its number.
    pub job: i64,
    worker: Worker,
}

impl Running {
    /// Takes a submitted job so far, on a node of its own. What other jobs have ready fails.
    pub async fn start(db: &Db, job: i64) -> Running {
        let worker = Worker::join(db, &format!("node-of-{job}")).await;
        let claim = worker.claim_of(job).await;
        worker.succeed(&claim, Some(crate::files::intake())).await;
        let spec = TaskSpec::Publish(Publish {
            share: "preview".parse().unwrap(),
            target: format!("film-{job}").parse().unwrap(),
            role: "preview".to_owned(),
            files: Vec::new(),
        });
        let task = Task {
            name: "publish/preview".to_owned(),
            spec,
            needs: vec!["intake".to_owned()],
            outputs: Vec::new(),
            cost: Cost { mcpu: 100, ..Cost::default() },
        };
        let plan =
            Plan { version: 1, engine: ENGINE.to_owned(), tasks: vec![task], results: Vec::new() };
        let seat = Seat::try_take(db, "test", std::time::Duration::ZERO).await.unwrap();
        let seat = seat.expect("the seat is free");
        assert!(seat.leader().append_plan(JobId(job), &plan).await.unwrap());
        seat.leave().await.unwrap();
        Running { job, worker }
    }

    /// Publishes nothing, which is a publication all the same; gives its number.
    pub async fn publish(&self) -> i64 {
        let claim = self.worker.claim_of(self.job).await;
        let manifest = Manifest {
            share: "preview".parse().unwrap(),
            target: format!("film-{}", self.job).parse().unwrap(),
            role: "preview".to_owned(),
            files: Vec::new(),
        };
        let id = self.worker.publish(&claim, manifest).await;
        self.worker.succeed(&claim, None).await;
        id
    }
}
