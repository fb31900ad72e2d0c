//! X6: a worker with a valid node that lies: other workers' ids, others' tasks, wrong epochs,
//! keys that are not its own, results beyond all measure, false hashes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use trix_db::{
    AttemptResult, Credentials, Db, DbError, Outcome, RegisterRequest, Resources, SyncReply,
    SyncRequest, Usage, Verdict, WorkerStore,
};
use trix_model::{AttemptId, Digest, Epoch, Key, TaskId, WorkerId};
use trix_plan::task::{MadeOutput, Output, TaskResult};

use super::super::client::LoadOptions;
use super::super::report::Ended;
use super::super::site::{SHARES, SiteOptions};
use super::super::slot;
use super::super::trial::{Order, Trial};

pub async fn run(order: Order) -> Result<Ended> {
    // Few hands, so that work waits and the liar gets some of it.
    let options = SiteOptions { workers: 2, mcpu: 1000, ..SiteOptions::default() };
    let mut trial = Trial::start("X6", order, options, LoadOptions::default(), 1).await?;
    let db = Db::open(trial.site.url(), trial.site.times())?;
    let mut wrong = Vec::new();
    while trial.goes_on() {
        let engine = if trial.rng.one_in(2) { ENGINE } else { slot::ENGINE };
        let liar = Liar::register(&trial, &db, engine).await?;
        for (lie, outcome) in liar.tell_all(&mut trial).await? {
            trial.count(lie);
            if let Some(accepted) = outcome {
                wrong.push(format!("X6: {lie}: {accepted}"));
            }
        }
        if liar.claim_and_lie(&trial).await? {
            trial.count("false hashes");
        }
        trial.gap(Duration::from_millis(300)).await;
    }
    let mut report = trial.finish().await?;
    report.violations.extend(wrong);
    Ok(Ended::Ran(report))
}

/// An engine that nobody else has: no job may come to be pinned to it.
const ENGINE: &str = "a liar's engine";

/// What it says that it has.
const ROOM: Resources = Resources { mcpu: 1000, ram: 4 << 30, scratch: 4 << 30 };

/// A worker of an enrolled node, as a thief would run it.
struct Liar {
    db: Db,
    me: Credentials,
}

impl Liar {
    async fn register(trial: &Trial, db: &Db, engine: &str) -> Result<Liar> {
        let node = "liar";
        let secret = db.enrol_node(node).await?.secret;
        let request = RegisterRequest {
            node: node.to_owned(),
            node_token: secret,
            boot_id: "none".to_owned(),
            pid: 1,
            version: "0".to_owned(),
            engine: engine.to_owned(),
            capacity: ROOM,
            shares_ok: Vec::new(),
        };
        let registered = db.register(request).await?;
        trial.say(|| format!("the liar is worker {}", registered.me.worker));
        Ok(Liar { db: db.clone(), me: registered.me })
    }

    /// Every lie with what was wrongly accepted of it.
    async fn tell_all(&self, trial: &mut Trial) -> Result<Vec<(&'static str, Option<String>)>> {
        let Some((worker, victim, key)) = victim(trial).await? else { return Ok(Vec::new()) };
        let stranger = Credentials { worker, token: self.me.token.clone() };
        let nobody = Credentials { worker: WorkerId(i64::MAX), token: self.me.token.clone() };
        let next = AttemptId { task: victim.task, epoch: Epoch(victim.epoch.0 + 1) };
        let unknown = AttemptId { task: TaskId(i64::MAX), epoch: Epoch(1) };
        let forged = "forged";
        Ok(vec![
            ("another worker's id", denied(self.sync(&stranger, victim, key, forged).await)),
            ("a worker that never was", refused(self.sync(&nobody, victim, key, forged).await)),
            ("another's task", refused(self.sync(&self.me, victim, key, forged).await)),
            ("a later epoch", refused(self.sync(&self.me, next, key, forged).await)),
            ("a task that never was", refused(self.sync(&self.me, unknown, key, forged).await)),
            (
                "a result of 3 MB",
                refused(self.sync(&self.me, victim, key, &"x".repeat(3_000_000)).await),
            ),
            ("a publication of another's", self.publish(victim).await),
        ])
    }

    async fn sync(
        &self,
        me: &Credentials,
        attempt: AttemptId,
        key: Key,
        words: &str,
    ) -> Result<SyncReply, DbError> {
        let made = MadeOutput { name: "full".to_owned(), key, digest: Digest([7; 32]), size: 1 };
        let detail = Some(serde_json::json!({ "words": words }));
        let result = AttemptResult {
            attempt,
            outcome: Outcome::Ok(TaskResult { outputs: vec![made], detail }),
            log: vec!["a lie".to_owned()],
            usage: Usage::default(),
        };
        let request = SyncRequest {
            me: me.clone(),
            progress: Vec::new(),
            results: vec![result],
            free: ROOM,
            shares_ok: Vec::new(),
            engine: slot::ENGINE.to_owned(),
            want: 0,
        };
        self.db.sync(request).await
    }

    /// Claims an honest chunk and reports files that are not there, with hashes of its own
    /// invention. It is believed, for nobody can know better yet: whoever reads them finds out,
    /// and they are made again. True when there was a chunk to lie about.
    async fn claim_and_lie(&self, trial: &Trial) -> Result<bool> {
        let shares = SHARES.iter().map(|(name, _)| name.parse()).collect::<Result<Vec<_>, _>>();
        let mut request = SyncRequest {
            me: self.me.clone(),
            progress: Vec::new(),
            results: Vec::new(),
            free: ROOM,
            shares_ok: shares.context("the harness's own shares")?,
            engine: slot::ENGINE.to_owned(),
            want: 1,
        };
        let SyncReply::Accepted(accepted) = self.db.sync(request.clone()).await? else {
            return Ok(false);
        };
        let Some(claim) = accepted.claims.into_iter().next() else { return Ok(false) };
        if claim.spec.kind() != "encode_chunk" {
            // Left alone: when the liar is silent for long enough, others take it.
            return Ok(false);
        }
        let lie = |o: &Output| MadeOutput {
            name: o.name.clone(),
            key: o.key,
            digest: Digest([9; 32]),
            size: 4,
        };
        trial.say(|| format!("the liar reports a false {}", claim.name));
        request.want = 0;
        request.results = vec![AttemptResult {
            attempt: claim.attempt,
            outcome: Outcome::Ok(TaskResult {
                outputs: claim.missing.iter().map(lie).collect(),
                detail: None,
            }),
            log: Vec::new(),
            usage: Usage::default(),
        }];
        self.db.sync(request).await?;
        Ok(true)
    }

    async fn publish(&self, attempt: AttemptId) -> Option<String> {
        match self.db.begin_move(self.me.clone(), attempt).await {
            Ok(()) => Some("it may move".to_owned()),
            Err(_) => None,
        }
    }
}

/// A running attempt of an honest worker with one of its keys.
async fn victim(trial: &Trial) -> Result<Option<(WorkerId, AttemptId, Key)>> {
    const QUERY: &str = "select a.worker_id, a.task_id, a.epoch, encode(o.key, 'hex') as key \
        from attempt a join output o on o.task_id = a.task_id where a.state = 'running' limit 1";
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if let Some(row) = trial.site.rows(QUERY).await?.first() {
            let number = |name: &str| row[name].as_i64().context("a column is missing");
            let key = row["key"].as_str().and_then(|k| k.parse().ok());
            let Some(key) = key else { bail!("{row} has no key") };
            let attempt =
                AttemptId { task: TaskId(number("task_id")?), epoch: Epoch(number("epoch")?) };
            return Ok(Some((WorkerId(number("worker_id")?), attempt, key)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(None)
}

fn denied(answer: Result<SyncReply, DbError>) -> Option<String> {
    match answer {
        Err(DbError::Denied { .. }) => None,
        other => Some(format!("{other:?}")),
    }
}

/// A verdict other than "refused" says that something was believed. Not to be answered at
/// all is fine, too.
fn refused(answer: Result<SyncReply, DbError>) -> Option<String> {
    let Ok(SyncReply::Accepted(accepted)) = answer else { return None };
    let believed = accepted.verdicts.iter().find(|v| v.verdict != Verdict::Refused);
    believed.map(|verdict| format!("{verdict:?}"))
}
