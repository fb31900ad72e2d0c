//! Events over the WebSocket and in pages: in order, without holes, resumable.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use trix_api::{CLOSE_BAD_MESSAGE, CLOSE_SIGNED_OUT, CLOSE_SLOW};

use crate::harness::{As, Service, until};

/// A WebSocket of a client.
pub struct Socket {
    stream: tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >,
    /// Events of a message that were not asked for yet.
    unread: std::collections::VecDeque<Value>,
}

type Refused = tungstenite::Error;

impl Socket {
    /// Opens one with further headers.
    pub async fn open(
        service: &Service,
        who: &As,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, Box<Refused>> {
        let mut request = format!("ws://{}/ws", service.address).into_client_request().unwrap();
        if let As::Cookie(cookie) = who {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (stream, _) = tokio_tungstenite::connect_async(request).await.map_err(Box::new)?;
        Ok(Socket { stream, unread: Default::default() })
    }

    /// The next message, pings left out; `Err` with the close code.
    pub async fn next(&mut self) -> Result<Value, u16> {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let message = tokio::time::timeout_at(until, self.stream.next())
                .await
                .expect("a message within 30 s");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or(1005, |f| f.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next message of a kind; progress may stand between.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.expect("the socket is open");
            if message["type"] == kind {
                return message;
            }
            assert!(message["type"] == "progress", "{kind} was expected, and {message} came");
        }
    }

    /// Keeps the events of a message for the next reading.
    pub fn keep(&mut self, message: &Value) {
        self.unread.extend(message["items"].as_array().unwrap().iter().cloned());
    }

    /// Sends a message.
    pub async fn say(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Answers `hello` by resuming after `seq`.
    pub async fn resume(&mut self, seq: Option<i64>) -> i64 {
        let hello = self.expect("hello").await;
        let head = hello["head"].as_i64().unwrap();
        let seq = seq.unwrap_or(head);
        self.say(json!({ "type": "resume", "seq": seq, "incarnation": hello["incarnation"] }))
            .await;
        seq
    }

    /// Reads events until number `last`, checking that none is missing after `seq`.
    pub async fn read_to(&mut self, mut seq: i64, last: i64) -> Vec<Value> {
        let mut all = Vec::new();
        while seq < last {
            if self.unread.is_empty() {
                let message = self.expect("events").await;
                self.unread.extend(message["items"].as_array().unwrap().iter().cloned());
            }
            if let Some(event) = self.unread.pop_front() {
                seq += 1;
                assert_eq!(event["seq"], seq, "no hole and nothing twice");
                all.push(event);
            }
        }
        all
    }
}

async fn emit(service: &Service, from: i64, to: i64) {
    for n in from..to {
        service.db.emit("test.event", None, &json!({ "n": n })).await.unwrap();
    }
}

/// The newest number once `count` events after `after` are numbered.
async fn head(service: &Service, admin: &As, after: i64, count: i64) -> i64 {
    let mut head = 0;
    until("the events are numbered", async || {
        head = service.read("/api/v1/events", admin).await["head"].as_i64().unwrap();
        head >= after + count
    })
    .await;
    head
}

#[tokio::test]
async fn a_client_that_comes_and_goes_gets_every_event_once_and_in_order() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    let mut seq = socket.resume(None).await;
    let start = seq;
    let mut got = Vec::new();
    let writer = {
        let db = service.db.clone();
        tokio::spawn(async move {
            for n in 0..300 {
                db.emit("test.event", None, &json!({ "n": n })).await.unwrap();
            }
        })
    };
    for round in 1..=6 {
        let events = socket.read_to(seq, seq + 10 * round).await;
        seq += events.len() as i64;
        got.extend(events);
        drop(socket);
        socket = Socket::open(&service, &admin, &[]).await.unwrap();
        socket.resume(Some(seq)).await;
    }
    writer.await.unwrap();
    let last = head(&service, &admin, start, 300).await;
    got.extend(socket.read_to(seq, last).await);
    let own: Vec<i64> = got
        .iter()
        .filter(|e| e["kind"] == "test.event")
        .map(|e| e["data"]["n"].as_i64().unwrap())
        .collect();
    assert_eq!(own, (0..300).collect::<Vec<_>>());
    service.stop().await;
}

#[tokio::test]
async fn what_is_too_old_or_of_another_log_is_answered_with_a_snapshot() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    let hello = socket.expect("hello").await;
    let other = "00000000-0000-0000-0000-000000000000";
    socket.say(json!({ "type": "resume", "seq": 0, "incarnation": other })).await;
    let snapshot = socket.expect("snapshot").await;
    assert_eq!(snapshot["incarnation"], hello["incarnation"]);
    let seq = snapshot["seq"].as_i64().unwrap();
    emit(&service, 0, 1).await;
    let mut last = seq;
    while socket.read_to(last, last + 1).await[0]["kind"] != "test.event" {
        last += 1;
    }

    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    let future = seq + 1_000_000;
    socket.resume(Some(future)).await;
    assert!(socket.expect("snapshot").await["seq"].as_i64().unwrap() < future);
    service.stop().await;
}

#[tokio::test]
async fn progress_comes_by_itself_and_attempts_of_watched_jobs_only() {
    let service = Service::start().await;
    let admin = service.admin().await;
    service.deliver("film.mov", b"x");
    until("the share is in order", async || {
        service.get("/api/v1/shares/in/entries", &admin).await.status() == 200
    })
    .await;
    let wish = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let (_, job) = service.submit(&admin, "k", &wish).await;
    let worker = crate::worker::Worker::join(&service.db, "node-a").await;
    let claim = worker.claim().await;
    worker.say(&claim, "a line").await;

    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    socket.expect("hello").await;
    let progress = socket.expect("progress").await;
    assert_eq!(
        (&progress["jobs"][0]["job"], &progress["jobs"][0]["running"]),
        (&job["id"], &json!(1))
    );
    assert!(progress["jobs"][0]["fraction"].as_f64().unwrap() > 0.0, "{progress}");
    assert_eq!(progress["attempts"], json!([]));
    socket.say(json!({ "type": "watch", "jobs": [job["id"]] })).await;
    loop {
        let progress = socket.expect("progress").await;
        let Some(attempt) = progress["attempts"].get(0) else { continue };
        assert_eq!(attempt["task"], claim.attempt.task.0);
        assert_eq!(
            (&attempt["progress"]["done"], &attempt["progress"]["total"]),
            (&json!(1), &json!(4))
        );
        break;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_foreign_page_opens_no_socket_and_nonsense_ends_one() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let status = |r: Result<Socket, Box<Refused>>| match r {
        Ok(_) => 101,
        Err(e) => match *e {
            tungstenite::Error::Http(response) => response.status().as_u16(),
            e => panic!("{e}"),
        },
    };
    let own = format!("http://{}", service.address);
    for (headers, expected) in [
        (&[("origin", "https://evil.example")][..], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("host", "evil.example")], 421),
        (&[("origin", own.as_str())], 101),
        (&[], 101),
    ] {
        assert_eq!(status(Socket::open(&service, &admin, headers).await), expected, "{headers:?}");
    }
    assert_eq!(status(Socket::open(&service, &As::Nobody, &[]).await), 401);

    for bad in ["nonsense", "{\"type\":\"cancel\"}", "{\"type\":\"watch\",\"jobs\":[1],\"x\":1}"] {
        let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
        socket.expect("hello").await;
        socket.stream.send(Message::text(bad)).await.unwrap();
        assert_eq!(socket.next().await.unwrap_err(), CLOSE_BAD_MESSAGE, "{bad}");
    }
    service.stop().await;
}

#[tokio::test]
async fn signing_out_ends_the_sockets_of_the_session() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    socket.resume(None).await;
    let out = service.request(reqwest::Method::DELETE, "/api/v1/session", &admin).send().await;
    assert_eq!(out.unwrap().status().as_u16(), 204);
    let code = loop {
        if let Err(code) = socket.next().await {
            break code;
        }
    };
    assert_eq!(code, CLOSE_SIGNED_OUT);
    service.stop().await;
}

#[tokio::test]
async fn pages_of_events_follow_each_other_and_wait_for_the_first() {
    let service = Service::start().await;
    let admin = service.admin().await;
    emit(&service, 0, 30).await;
    let last = head(&service, &admin, 0, 30).await;
    let mut after = 0;
    let mut seen = 0;
    while after < last {
        let page = service.read(&format!("/api/v1/events?after={after}&limit=7"), &admin).await;
        let items = page["items"].as_array().unwrap();
        assert!((1..=7).contains(&items.len()));
        for event in items {
            after += 1;
            assert_eq!(event["seq"], after);
            seen += i64::from(event["kind"] == "test.event");
        }
    }
    assert_eq!(seen, 30);
    let page = service.read(&format!("/api/v1/events?after={}", last + 1000), &admin).await;
    assert_eq!((&page["gap"], &page["items"]), (&json!(true), &json!([])));

    let path = format!("/api/v1/events?after={last}&wait_s=8");
    let (page, ()) = tokio::join!(service.read(&path, &admin), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        emit(&service, 30, 31).await;
    });
    assert_eq!(page["items"][0]["data"]["n"], 30, "{page}");
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_resumes_without_loss() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    let mut seq = socket.resume(None).await;
    let start = seq;
    // More than the buffers of both ends of the connection hold.
    let big = "x".repeat(64 * 1024);
    for n in 0..500 {
        service.db.emit("test.event", None, &json!({ "n": n, "big": big })).await.unwrap();
    }
    let last = head(&service, &admin, start, 500).await;
    // Longer than the server waits for a client that takes nothing.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let code = loop {
        match socket.next().await {
            Ok(message) if message["type"] == "events" => {
                for event in message["items"].as_array().unwrap() {
                    seq += 1;
                    assert_eq!(event["seq"], seq);
                }
            }
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert!(seq < last, "the buffers held everything");
    // Without room for a close frame the connection just ends.
    assert!([CLOSE_SLOW, 1006].contains(&code), "{code}");
    let mut socket = Socket::open(&service, &admin, &[]).await.unwrap();
    socket.resume(Some(seq)).await;
    socket.read_to(seq, last).await;
    service.stop().await;
}
