//! The event log has no holes and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_holes_whatever_writers_do() {
    let w = World::new().await;
    w.events().await;
    let start = w.db.event_head().await.unwrap().head;
    let stop = Arc::new(AtomicBool::new(false));
    // Writers that commit late, out of order, or not at all.
    let mut writers = vec![];
    for n in 0..6u64 {
        let url = w.test.url().to_owned();
        writers.push(tokio::spawn(async move {
            use sqlx::Connection;
            let mut c = sqlx::PgConnection::connect(&url).await.unwrap();
            let mut committed = 0;
            for i in 0..40u64 {
                let mut tx = c.begin().await.unwrap();
                sqlx::query("select emit('test', null, null, jsonb_build_object('w', $1::bigint, 'i', $2::bigint))")
                    .bind(n as i64)
                    .bind(committed)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis((n * 7 + i * 3) % 5)).await;
                if (n + i) % 4 == 0 {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                    committed += 1;
                }
            }
            committed
        }));
    }
    let mut sequencers = vec![];
    for _ in 0..3 {
        let (db, stop) = (w.db.clone(), stop.clone());
        sequencers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                db.sequence_events().await.unwrap();
            }
        }));
    }
    // A reader that only remembers the last number it saw.
    let (db, s) = (w.db.clone(), stop.clone());
    let reader = tokio::spawn(async move {
        let mut seen = vec![];
        let mut last = start;
        loop {
            let ending = s.load(Ordering::Relaxed);
            let events = db.events(last, None, 100).await.unwrap();
            for e in &events {
                assert_eq!(e.seq, last + 1, "a hole");
                last = e.seq;
            }
            seen.extend(events.into_iter().filter(|e| e.kind == "test"));
            if ending && db.event_head().await.unwrap().head == last {
                return seen;
            }
        }
    });
    let mut total = 0;
    for writer in writers {
        total += writer.await.unwrap();
    }
    while w.db.sequence_events().await.unwrap().count > 0 {}
    stop.store(true, Ordering::Relaxed);
    for s in sequencers {
        s.await.unwrap();
    }
    w.events().await;
    let seen = reader.await.unwrap();
    assert_eq!(seen.len() as i64, total, "none lost, none doubled");
    for n in 0..6 {
        let of: Vec<i64> = seen
            .iter()
            .filter(|e| e.body["w"] == n)
            .map(|e| e.body["i"].as_i64().unwrap())
            .collect();
        assert!(of.windows(2).all(|p| p[1] == p[0] + 1), "in the order of each writer's commits");
    }
}

#[tokio::test]
async fn events_of_one_job_are_read_alone() {
    let w = World::new().await;
    let one = w.submit("one", plan0("one")).await;
    w.submit("two", plan0("two")).await;
    w.events().await;
    let events = w.db.events(0, Some(one), 100).await.unwrap();
    assert!(!events.is_empty() && events.iter().all(|e| e.job == Some(one)));
    assert_eq!(events[0].kind, "job.accepted");
}

#[tokio::test]
async fn a_hint_wakes_a_listener_and_a_cut_one_says_so() {
    let w = World::new().await;
    w.events().await;
    let mut hints = w.db.hints().await.unwrap();
    assert!(!hints.wait(Duration::from_millis(20)).await.unwrap());
    w.db.emit("api.started", None, &json!({})).await.unwrap();
    assert!(w.db.sequence_events().await.unwrap().count > 0);
    assert!(hints.wait(Duration::from_secs(30)).await.unwrap());
    execute(
        w.test.url(),
        "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'",
    )
    .await
    .unwrap();
    let mut woken = Ok(true);
    while woken.is_ok() {
        woken = hints.wait(Duration::from_secs(30)).await;
        assert!(!matches!(woken, Ok(false)), "the cut was not noticed");
    }
    assert!(woken.unwrap_err().is_unavailable());
    assert!(w.db.hints().await.is_ok());
}
