//! What the api shows of the whole and looks up by one id.

use std::time::Duration;

use trix_db::DbError;
use trix_db::leader::Seat;
use trix_model::state::{JobState, PublicationState};

use crate::support::*;

#[tokio::test]
async fn the_overview_tells_who_leads_and_whether_still() {
    let w = World::new().await;
    let other = trix_testkit::pg::TestDb::new().await.unwrap();
    assert_eq!(other.db().overview().await.unwrap().leader, None, "nobody has led there");

    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    w.submit("second", plan0("second")).await;
    a.claim(1).await;
    let seen = w.db.overview().await.unwrap();
    let leader = seen.leader.unwrap();
    assert_eq!((leader.epoch, leader.holder.as_str(), leader.alive), (1, "test", true));
    assert_eq!(seen.schema_version, newest_migration());
    assert_eq!((seen.jobs["inspecting"], seen.jobs["accepted"]), (1, 1));
    assert_eq!((seen.tasks["running"], seen.tasks["ready"]), (1, 1));
    assert_eq!(seen.workers["active"], 1);

    let running = w.db.running().await.unwrap();
    assert_eq!((running.len(), running[0].job, running[0].counts.running), (1, job, 1));
    assert_eq!(running[0].attempts[0].progress, None, "nothing was told yet");

    let World { seat, db, test: _test, .. } = w;
    seat.leave().await.unwrap();
    wait_until(async || !db.overview().await.unwrap().leader.unwrap().alive).await;
    let next = Seat::try_take(&db, "next", Duration::ZERO).await.unwrap().unwrap();
    let leader = db.overview().await.unwrap().leader.unwrap();
    assert_eq!((leader.epoch, leader.holder.as_str(), leader.alive), (2, "next", true));
    drop(next);
}

fn newest_migration() -> i64 {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations"))
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.get(..4)?.parse().ok())
        .max()
        .unwrap()
}

async fn wait_until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn a_publication_is_found_by_its_id_and_a_preview_by_its_job() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let mut plan = plan1("film");
    for task in &mut plan.tasks {
        if let trix_plan::task::TaskSpec::Publish(p) = &mut task.spec {
            p.role = "preview".into();
        }
    }
    let job = w.planned("film", &a, plan).await;
    assert_eq!(w.job(job).await.preview, None);
    a.run_all(&w.db).await;
    let listed = &w.db.publications(job).await.unwrap()[0];
    let found = w.db.publication(listed.id).await.unwrap().unwrap();
    assert_eq!((found.id, found.state), (listed.id, PublicationState::Published));
    assert_eq!(found.manifest, listed.manifest);
    assert_eq!(w.job(job).await.preview, Some(found.id));
    assert!(w.db.publication(999).await.unwrap().is_none());
}

#[tokio::test]
async fn a_submit_is_looked_up_by_its_key_before_anything_else() {
    let w = World::new().await;
    let ask = |key: &'static str, body| w.db.submitted(w.principal, key, digest(body));
    assert_eq!(ask("film", 1).await.unwrap(), None);
    let job = w.submit("film", plan0("film")).await;
    let found = ask("film", 1).await.unwrap().unwrap();
    assert_eq!((found.job, found.created), (job, false));
    let reused = ask("film", 2).await;
    assert!(matches!(reused, Err(DbError::Conflict { code, .. }) if code == "submit_key_reused"));
    assert_eq!(w.db.submitted(w.principal + 1, "film", digest(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_job_that_comes_wholly_from_the_cache_has_begun_too() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.planned("film", &a, plan1("film")).await;
    a.run_all(&w.db).await;
    let mut plan = plan1("film");
    // Publishing is never cached; without it nothing is left to run.
    plan.tasks.pop();
    let again = w.submit("again", plan0("film")).await;
    assert!(w.leader.append_plan(again, &plan).await.unwrap());
    let row = w.job(again).await;
    assert_eq!(row.state, JobState::Succeeded);
    assert!(w.db.attempts(again).await.unwrap().is_empty(), "no worker had to do anything");
    let (began, ended) = (row.started_at.unwrap(), row.ended_at.unwrap());
    assert!(row.created_at <= began && began <= ended);
}
