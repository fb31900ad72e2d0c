//! Publication under the fence.

use serde_json::json;
use trix_db::{DbError, WorkerStore};
use trix_model::ErrorClass;
use trix_model::state::{JobState, PublicationState, TaskState};
use trix_plan::task::{Publish, TaskSpec};

use crate::support::*;

/// A job whose publish task is claimed.
async fn at_publish(
    w: &World,
    a: &Fake,
    film: &str,
) -> (trix_model::JobId, trix_db::Claim, Publish) {
    let job = w.planned(film, a, plan1(film)).await;
    for _ in 0..4 {
        let c = a.claim(1).await.remove(0);
        a.end(c.attempt, ok(&c)).await;
    }
    let c = a.claim(1).await.remove(0);
    let TaskSpec::Publish(p) = c.spec.clone() else { panic!("{} is no publish task", c.name) };
    (job, c, p)
}

#[tokio::test]
async fn a_prepared_publication_is_rolled_forward_by_another_worker() {
    let mut w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let (job, c, p) = at_publish(&w, &a, "film").await;
    assert_eq!(c.inputs.len(), 1);
    assert_eq!(c.needs["verify/r"], json!({ "frames": 4 }));
    assert!(c.roll_forward.is_none());
    let prepared = w.db.prepare_publication(a.me.clone(), c.attempt, manifest(&p)).await.unwrap();
    assert_eq!((prepared.version, prepared.state), (1, PublicationState::Prepared));
    let again = w.db.prepare_publication(a.me.clone(), c.attempt, manifest(&p)).await.unwrap();
    assert_eq!(again, prepared, "asking again gives the same");
    w.db.begin_move(a.me.clone(), c.attempt).await.unwrap();

    let lost = w.db.times().lost;
    w.advance(lost * 3).await;
    b.beat().await;
    assert_eq!(w.leader.mark_lost().await.unwrap().len(), 1);
    let refused = w.db.published(a.me.clone(), c.attempt, json!({})).await;
    assert!(matches!(refused, Err(DbError::Refused { .. })), "a zombie publishes nothing");

    // The operator cancels, but what was begun is finished.
    assert_eq!(w.db.cancel(job).await.unwrap(), JobState::Cancelling);
    let forward = b.claim(1).await.remove(0);
    let rolled = forward.roll_forward.clone().expect("a publication to finish");
    assert_eq!((rolled.id, rolled.state), (prepared.id, PublicationState::Moving));
    assert!(b.beat().await.cancels.is_empty());
    assert_eq!(publish(&w.db, &b.me, &forward, &p).await.unwrap(), 1);
    b.end(forward.attempt, ok(&forward)).await;
    assert_eq!(w.state(job).await, JobState::Cancelled);
    assert_eq!(w.task(job, "publish/output").await.state, TaskState::Done);
    let rows = w.db.publications(job).await.unwrap();
    assert_eq!((rows[0].state, rows[0].current), (PublicationState::Published, true));
}

#[tokio::test]
async fn a_published_publication_whose_result_was_lost_is_only_acknowledged() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let (job, c, p) = at_publish(&w, &a, "film").await;
    publish(&w.db, &a.me, &c, &p).await.unwrap();
    w.db.published(a.me.clone(), c.attempt, json!({})).await.unwrap();
    a.end(c.attempt, failed(ErrorClass::Crash, "signal")).await;
    let c = a.claim(1).await.remove(0);
    assert_eq!(c.roll_forward.as_ref().unwrap().state, PublicationState::Published);
    a.end(c.attempt, ok(&c)).await;
    assert_eq!(w.state(job).await, JobState::Succeeded);
    assert_eq!(w.db.publications(job).await.unwrap()[0].version, 1);
}

#[tokio::test]
async fn other_files_at_the_same_target_are_the_next_version() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let (first, c, p) = at_publish(&w, &a, "film").await;
    publish(&w.db, &a.me, &c, &p).await.unwrap();
    a.end(c.attempt, ok(&c)).await;
    let (second, c, mut p) = at_publish(&w, &a, "other").await;
    p.target = "films/film".parse().unwrap();
    let mut m = manifest(&p);
    m.files[0].sha256 = digest(99);
    let prepared = w.db.prepare_publication(a.me.clone(), c.attempt, m).await.unwrap();
    assert_eq!(prepared.version, 2);
    w.db.begin_move(a.me.clone(), c.attempt).await.unwrap();
    w.db.published(a.me.clone(), c.attempt, json!({})).await.unwrap();
    assert!(!w.db.publications(first).await.unwrap()[0].current);
    assert!(w.db.publications(second).await.unwrap()[0].current);
}

#[tokio::test]
async fn one_target_is_published_by_one_task_at_a_time() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let (_, c1, p1) = at_publish(&w, &a, "film").await;
    let (_, c2, _) = at_publish(&w, &b, "other").await;
    w.db.prepare_publication(a.me.clone(), c1.attempt, manifest(&p1)).await.unwrap();
    let mut m = manifest(&p1);
    m.files[0].size = 10;
    let busy = w.db.prepare_publication(b.me.clone(), c2.attempt, m).await;
    assert!(matches!(busy, Err(DbError::Refused { .. })), "{busy:?}");
}

#[tokio::test]
async fn names_that_differ_only_in_case_are_refused() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let (_, c, p) = at_publish(&w, &a, "film").await;
    let mut m = manifest(&p);
    let mut twin = m.files[0].clone();
    twin.name = "fILM.MP4".parse().unwrap();
    m.files.push(twin);
    let r = w.db.prepare_publication(a.me.clone(), c.attempt, m).await;
    let Err(DbError::Conflict { code, message, .. }) = r else { panic!("{r:?}") };
    assert_eq!(code, "name_taken");
    assert!(message.contains("fILM.MP4"), "{message}");
    // Nothing of it stayed.
    w.db.prepare_publication(a.me.clone(), c.attempt, manifest(&p)).await.unwrap();
}

#[tokio::test]
async fn targets_that_a_file_system_takes_for_one_are_refused() {
    let w = World::new().await;
    // One each: a worker that is asked for what it runs would go on with it.
    let (a, b, c) = (w.worker("a").await, w.worker("b").await, w.worker("c").await);
    // The letters of the one are composed, one of the other is not.
    let (_, c1, p1) = at_publish(&w, &a, "\u{e9}t\u{e9}").await;
    let (_, c2, p2) = at_publish(&w, &b, "E\u{301}T\u{c9}").await;
    w.db.prepare_publication(a.me.clone(), c1.attempt, manifest(&p1)).await.unwrap();
    let r = w.db.prepare_publication(b.me.clone(), c2.attempt, manifest(&p2)).await;
    let Err(DbError::Conflict { code, .. }) = r else { panic!("{r:?}") };
    assert_eq!(code, "name_taken");
    // A third is not even begun.
    let job = w.submit("third", plan0("third")).await;
    c.run_all(&w.db).await;
    let r = w.leader.append_plan(job, &plan1("\u{c9}t\u{e9}")).await;
    let Err(DbError::Conflict { code, message, .. }) = r else { panic!("{r:?}") };
    assert_eq!(code, "name_taken");
    assert!(message.contains("films/\u{e9}t\u{e9}"), "{message}");
}

#[tokio::test]
async fn a_conflict_stops_for_good_and_a_retry_takes_the_next_version() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let (job, c, p) = at_publish(&w, &a, "film").await;
    w.db.prepare_publication(a.me.clone(), c.attempt, manifest(&p)).await.unwrap();
    w.db.begin_move(a.me.clone(), c.attempt).await.unwrap();
    let says = || "v1/Film.mp4 is another file".to_owned();
    w.db.publication_conflict(a.me.clone(), c.attempt, says()).await.unwrap();
    w.db.publication_conflict(a.me.clone(), c.attempt, says()).await.unwrap();
    a.end(c.attempt, failed(ErrorClass::Deterministic, "publication_conflict")).await;
    assert_eq!(w.state(job).await, JobState::Failed);
    w.db.retry(job).await.unwrap();
    let c = a.claim(1).await.remove(0);
    assert!(c.roll_forward.is_none());
    assert_eq!(publish(&w.db, &a.me, &c, &p).await.unwrap(), 2);
    a.end(c.attempt, ok(&c)).await;
    assert_eq!(w.state(job).await, JobState::Succeeded);
}

#[tokio::test]
async fn publishing_needs_the_fence_and_the_order() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let (_, c, p) = at_publish(&w, &a, "film").await;
    let foreign = w.db.prepare_publication(b.me.clone(), c.attempt, manifest(&p)).await;
    assert!(matches!(foreign, Err(DbError::Refused { .. })));
    let early = w.db.begin_move(a.me.clone(), c.attempt).await;
    assert!(matches!(early, Err(DbError::Conflict { .. })), "{early:?}");
    w.db.prepare_publication(a.me.clone(), c.attempt, manifest(&p)).await.unwrap();
    let unmoved = w.db.published(a.me.clone(), c.attempt, json!({})).await;
    assert!(matches!(unmoved, Err(DbError::Conflict { .. })), "{unmoved:?}");
    let mut other = manifest(&p);
    other.files[0].size = 10;
    let changed = w.db.prepare_publication(a.me.clone(), c.attempt, other).await;
    assert!(matches!(changed, Err(DbError::Conflict { .. })), "{changed:?}");
}
