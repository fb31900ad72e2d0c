//! Claiming: exact under load, in order, and only what fits.

use std::collections::HashSet;

use trix_db::SyncReply;
use trix_db::WorkerStore;
use trix_model::state::JobState;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_workers_claim_every_task_exactly_once() {
    let w = World::new().await;
    let mut jobs = vec![];
    for i in 0..60 {
        jobs.push(w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await);
    }
    let mut clients = vec![];
    for n in 0..6 {
        let worker = w.worker_with(&format!("n{n}"), 3000).await;
        clients.push(tokio::spawn(async move {
            let mut mine = vec![];
            let mut idle = 0;
            let mut held: Vec<trix_db::Claim> = vec![];
            while idle < 5 {
                let mut r = worker.request(3);
                r.results = held.iter().map(|c| result(c.attempt, ok(c))).collect();
                let reply = worker.sync(r).await;
                assert!(reply.verdicts.iter().all(|v| v.verdict == trix_db::Verdict::Accepted));
                held = reply.claims;
                idle = if held.is_empty() { idle + 1 } else { 0 };
                mine.extend(held.iter().map(|c| c.attempt));
            }
            mine
        }));
    }
    let mut all = vec![];
    for c in clients {
        all.extend(c.await.unwrap());
    }
    let distinct: HashSet<_> = all.iter().map(|a| a.task).collect();
    assert_eq!((all.len(), distinct.len()), (60, 60));
    assert!(all.iter().all(|a| a.epoch.0 == 1));
    assert_eq!(w.leader.jobs_to_plan(100).await.unwrap().len(), 60);
    assert_eq!(w.leader.repair().await.unwrap(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workers_on_whole_jobs_end_all_of_them() {
    let w = World::new().await;
    let first = w.worker("first").await;
    let mut jobs = vec![];
    for i in 0..12 {
        let film = format!("f{i}");
        jobs.push(w.planned(&film, &first, plan1(&film)).await);
    }
    let mut clients = vec![];
    for n in 0..6 {
        let worker = w.worker_with(&format!("n{n}"), 3000).await;
        let db = w.db.clone();
        clients.push(tokio::spawn(async move {
            let mut idle = 0;
            while idle < 20 {
                let did = worker.run_all(&db).await.len();
                idle = if did == 0 { idle + 1 } else { 0 };
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }));
    }
    for c in clients {
        c.await.unwrap();
    }
    for job in jobs {
        assert_eq!(w.state(job).await, JobState::Succeeded);
        assert_eq!(w.db.attempts(job).await.unwrap().len(), 6);
    }
    assert_eq!(w.leader.repair().await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_worker_gets_no_more_than_it_has_whatever_it_says() {
    let w = World::new().await;
    for i in 0..4 {
        w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await;
    }
    let small = w.worker_with("small", 2000).await;
    let mut r = small.request(10);
    r.free.mcpu = 50_000;
    let claims = small.sync(r.clone()).await.claims;
    assert_eq!(claims.len(), 2);
    r.progress = claims.iter().map(|c| progress(c.attempt)).collect();
    assert!(small.sync(r).await.claims.is_empty());
}

#[tokio::test]
async fn a_task_goes_only_where_its_shares_and_its_engine_are() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    let a = w.worker("a").await;
    let mut r = a.request(4);
    r.shares_ok = vec!["in".parse().unwrap(), "out".parse().unwrap()];
    assert!(a.sync(r.clone()).await.claims.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("share:archive"));
    r.shares_ok = shares();
    r.engine = "engine-2".into();
    let SyncReply::Accepted(reply) = w.db.sync(r).await.unwrap() else { panic!() };
    assert!(reply.claims.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("engine"));
    assert_eq!(a.claim(4).await.len(), 1);
    assert_eq!(w.task(job, "intake").await.block_reason, None);
}

#[tokio::test]
async fn a_task_too_large_for_every_worker_says_so() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("no_worker"));
    let tiny = w.worker_with("tiny", 500).await;
    assert!(tiny.claim(1).await.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("resources"));
}

#[tokio::test]
async fn higher_bands_go_first_and_then_older_jobs() {
    let w = World::new().await;
    let mut jobs = vec![];
    for i in 0..3 {
        jobs.push(w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await);
    }
    w.db.set_band(jobs[2], 8).await.unwrap();
    let a = w.worker("a").await;
    let mut order = vec![];
    for _ in 0..3 {
        let c = a.claim(1).await.remove(0);
        order.push(c.job);
        a.end(c.attempt, ok(&c)).await;
    }
    assert_eq!(order, [jobs[2], jobs[0], jobs[1]]);
}
