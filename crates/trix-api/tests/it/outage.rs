//! The database goes away and comes back; the server stays and says so.

use std::time::{Duration, Instant};

use serde_json::json;
use trix_db::Db;
use trix_testkit::pg::TestCluster;

use crate::events::Socket;
use crate::harness::{As, Service, problem, times, until};

async fn away(service: &Service, admin: &As) {
    until("the server knows", async || service.get("/readyz", &As::Nobody).await.status() == 503)
        .await;
    assert_eq!(service.get("/healthz", &As::Nobody).await.status(), 200);
    assert_eq!(service.get("/interface/", &As::Nobody).await.status(), 200);
    let started = Instant::now();
    for (path, who) in [("/api/v1/jobs", admin), ("/api/v1/jobs", &As::Nobody)] {
        let response = service.get(path, who).await;
        assert!(response.headers().contains_key("retry-after"));
        let (status, body) = problem(response).await;
        assert_eq!((status, body["code"].as_str()), (503, Some("database_unavailable")), "{body}");
        assert!(body["title"].as_str().unwrap().starts_with("the database is away: "), "{body}");
    }
    let wish = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let (status, body) = service.submit(admin, "while-away", &wish).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (503, Some("database_unavailable")));
    // The deadline is a promise of the protocol, not a measurement.
    assert!(started.elapsed() < 3 * Duration::from_secs(10), "each answer within 10 s");
}

#[tokio::test]
async fn an_outage_is_answered_with_503_and_pushed_and_nothing_is_lost() {
    let mut cluster = TestCluster::start().await.unwrap();
    let service = Service::over(Db::open(&cluster.url(), times()).unwrap()).await;
    service.wait_ready().await;
    let admin = service.admin().await;
    service.deliver("film.mov", b"x");
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    let mut seq = socket.resume(None).await;

    for round in 0..2 {
        if round == 0 {
            cluster.crash().unwrap();
        } else {
            cluster.kill();
        }
        let degraded = loop {
            let message = socket.next().await.expect("the socket stays open");
            if message["type"] == "degraded" {
                break message;
            }
            if message["type"] == "events" {
                socket.keep(&message);
            }
        };
        assert!(!degraded["reason"].as_str().unwrap().is_empty());
        assert!(degraded["since"].as_str().unwrap().ends_with('Z'));
        away(&service, &admin).await;

        cluster.restart().unwrap();
        loop {
            // The reason may change while it is away.
            let message = socket.next().await.expect("the socket stays open");
            match message["type"].as_str() {
                Some("recovered") => break,
                Some("events") => socket.keep(&message),
                _ => {}
            }
        }
        until("the server answers again", async || {
            service.get("/api/v1/jobs", &admin).await.status() == 200
        })
        .await;
        service.db.emit("test.event", None, &json!({ "round": round })).await.unwrap();
        loop {
            // Others than ours may come before, but none is missing.
            let event = socket.read_to(seq, seq + 1).await.remove(0);
            seq += 1;
            if event["kind"] == "test.event" {
                assert_eq!(event["data"]["round"], round);
                break;
            }
        }
    }
    let wish = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let (status, body) = service.submit(&admin, "while-away", &wish).await;
    assert_eq!(status.as_u16(), 201, "{body}");
    service.stop().await;
}

#[tokio::test]
async fn a_server_starts_while_the_database_is_away_and_waits_for_it() {
    let mut cluster = TestCluster::start().await.unwrap();
    for hangs in [false, true] {
        if hangs {
            // The nasty case: connections hang instead of being refused.
            cluster.pause();
        } else {
            cluster.crash().unwrap();
        }
        let service = Service::over(Db::open(&cluster.url(), times()).unwrap()).await;
        let words = if hangs { "did not answer within" } else { "No such file" };
        until("the server says what is wrong", async || {
            let (_, body) = problem(service.get("/readyz", &As::Nobody).await).await;
            body["title"].as_str().unwrap().contains(words)
        })
        .await;
        away(&service, &As::Nobody).await;
        assert!(!service.path("state").join("first-login").exists());
        if hangs {
            cluster.resume();
        } else {
            cluster.restart().unwrap();
        }
        service.wait_ready().await;
        service.stop().await;
    }
}
