//! What a sync writes, and what it leaves alone.

use serde_json::json;
use sqlx::{Connection, PgConnection};
use trix_db::{Accepted, AttemptResult, SyncReply, SyncRequest, Verdict};

use crate::support::*;

/// Rows that a sync wrote anew in a table, and its answer; rolled back when `keep` is not set.
async fn updates(w: &World, request: &SyncRequest, table: &str, keep: bool) -> (i64, Accepted) {
    let mut c = PgConnection::connect(w.test.url()).await.unwrap();
    let mut tx = c.begin().await.unwrap();
    let reply: sqlx::types::Json<SyncReply> = sqlx::query_scalar("select sync_v1($1)")
        .bind(sqlx::types::Json(request))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let written = sqlx::query_scalar(
        "select n_tup_upd + n_tup_ins from pg_stat_xact_user_tables where relname = $1",
    )
    .bind(table)
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    if keep {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    c.close().await.unwrap();
    let SyncReply::Accepted(a) = reply.0 else { panic!("marked") };
    (written, a)
}

#[tokio::test]
async fn progress_is_written_when_there_is_news_and_only_then() {
    let w = World::new().await;
    let a = w.worker("a").await;
    for i in 0..3 {
        w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await;
    }
    let claims = a.claim(3).await;
    let mut r = a.request(0);
    r.progress = claims.iter().map(|c| progress(c.attempt)).collect();
    r.progress.iter_mut().for_each(|p| p.lines.clear());
    assert_eq!(updates(&w, &r, "attempt_progress", true).await.0, 3);
    assert_eq!(updates(&w, &r, "attempt_progress", true).await.0, 0, "nothing new");
    r.progress[1].progress.done += 1;
    assert_eq!(updates(&w, &r, "attempt_progress", true).await.0, 1, "one has news");
    let running = w.db.running().await.unwrap();
    let mut done: Vec<u64> = (running.iter().flat_map(|j| &j.attempts))
        .map(|at| at.progress.as_ref().unwrap().done)
        .collect();
    done.sort_unstable();
    assert_eq!(done, [1, 1, 2]);
}

#[tokio::test]
async fn what_the_worker_does_not_name_is_claimed_anew_and_nothing_else() {
    let w = World::new().await;
    let a = w.worker("a").await;
    for i in 0..4 {
        w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await;
    }
    let claims = a.claim(4).await;
    assert_eq!(claims.len(), 4);
    // One is told as running, one has its result here, one is named with another epoch, and
    // of one the answer was lost.
    let mut r = a.request(0);
    r.progress = vec![progress(claims[0].attempt), progress(claims[2].attempt)];
    r.progress[1].attempt.epoch.0 += 1;
    r.results = vec![result(claims[1].attempt, ok(&claims[1]))];
    let answer = a.sync(r).await;
    let again: Vec<_> = answer.claims.iter().map(|c| c.attempt).collect();
    assert_eq!(again, [claims[2].attempt, claims[3].attempt]);
}

#[tokio::test]
async fn a_result_without_a_detail_writes_its_task_once() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    let chunk = a.claim(1).await.remove(0);
    assert_eq!(chunk.name, "encode/0000");
    let mut r = a.request(0);
    r.results = vec![AttemptResult { log: vec![], ..result(chunk.attempt, ok(&chunk)) }];
    let (written, answer) = updates(&w, &r, "task", true).await;
    assert_eq!(answer.verdicts[0].verdict, Verdict::Accepted);
    // Its state, and the count of what the mux waits for.
    assert_eq!(written, 2);

    // What a failure left is taken away by the success behind it, and a detail is kept.
    let chunk = a.claim(1).await.remove(0);
    a.end(chunk.attempt, failed(trix_model::ErrorClass::Crash, "signal")).await;
    assert!(w.task(job, "encode/0001").await.failure.is_some());
    let names = a.run_all(&w.db).await;
    assert!(names.contains(&"verify/r".to_owned()), "{names:?}");
    assert!(w.task(job, "encode/0001").await.failure.is_none());
    let detail = w.db.task_detail(job, "verify/r").await.unwrap().unwrap();
    assert_eq!(detail, json!({ "frames": 4 }));
}

#[tokio::test]
async fn what_runs_for_every_task_goes_by_indexes_and_is_never_compiled() {
    let w = World::new().await;
    let settings = value(
        w.test.url(),
        "select jsonb_object_agg(proname, to_jsonb(proconfig)) from pg_proc
         where proname in ('sync_v1', 'is_cached', 'twin_runs')",
    )
    .await;
    for off in [
        "jit",
        "enable_seqscan",
        "enable_hashjoin",
        "enable_mergejoin",
        "enable_material",
        "enable_bitmapscan",
    ] {
        let set = json!(format!("{off}=off"));
        assert!(settings["sync_v1"].as_array().unwrap().contains(&set), "{off}: {settings}");
    }
    for f in ["is_cached", "twin_runs"] {
        assert_eq!(settings[f], json!(["enable_seqscan=off"]));
    }
}
