//! Submitting, following, cancelling and retrying jobs.

use serde_json::{Value, json};
use trix_model::{ErrorClass, ErrorOrigin, Failure};

use crate::harness::{As, Service, problem, until};
use crate::worker::Worker;

async fn ready() -> (Service, As) {
    let service = Service::start().await;
    let admin = service.admin().await;
    service.deliver("film.mov", b"no film, but a file");
    service.deliver("film.mov.md5", b"d41d8cd98f00b204e9800998ecf8427e  film.mov\n");
    until("the share is in order", async || {
        service.get("/api/v1/shares/in/entries", &admin).await.status() == 200
    })
    .await;
    (service, admin)
}

fn wish() -> Value {
    json!({ "source": "in:film.mov", "profile": "h264-single", "title": "A film" })
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_the_same_job() {
    let (service, admin) = ready().await;
    let (status, first) = service.submit(&admin, "key-1", &wish()).await;
    assert_eq!(status.as_u16(), 201, "{first}");
    assert_eq!(
        (first["title"].as_str(), first["state"].as_str()),
        (Some("A film"), Some("accepted"))
    );
    assert_eq!(first["submitted_by"], "ann");
    let (status, again) = service.submit(&admin, "key-1", &wish()).await;
    assert_eq!((status.as_u16(), &again["id"]), (200, &first["id"]));

    let mut other = wish();
    other["band"] = json!(9);
    let (status, body) = service.submit(&admin, "key-1", &other).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (409, Some("key_reused")));

    // Even when the file is gone, a repetition is answered with what was done.
    std::fs::remove_file(service.path("in").join("film.mov")).unwrap();
    let (status, again) = service.submit(&admin, "key-1", &wish()).await;
    assert_eq!((status.as_u16(), &again["id"]), (200, &first["id"]));

    // Keys are each principal's own; programs must send one.
    service.deliver("film.mov", b"no film, but a file");
    let program = service.token(&admin, "watch-folder", "operator").await;
    let (status, theirs) = service.submit(&program, "key-1", &wish()).await;
    assert_eq!(status.as_u16(), 201);
    assert_ne!(theirs["id"], first["id"]);
    let response = service.post("/api/v1/jobs", &program, &wish()).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("idempotency_key_required")));

    let list = service.read("/api/v1/jobs", &admin).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["counts"]["accepted"], 2);
    let audit = service.db.audit_trail(None, 50).await.unwrap();
    assert_eq!(audit.iter().filter(|a| a.entry.action == "job.submit").count(), 2);
    service.stop().await;
}

#[tokio::test]
async fn two_submits_at_once_make_one_job() {
    let (service, admin) = ready().await;
    let wish = wish();
    let all =
        futures_util::future::join_all((0..8).map(|_| service.submit(&admin, "at-once", &wish)))
            .await;
    let created = all.iter().filter(|(status, _)| status.as_u16() == 201).count();
    assert_eq!(created, 1, "{all:?}");
    assert!(all.iter().all(|(_, job)| job["id"] == all[0].1["id"]), "{all:?}");
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_ingested_is_refused_with_what_is_allowed() {
    let (service, admin) = ready().await;
    std::os::unix::fs::symlink("/etc/passwd", service.path("in").join("way-out.mov")).unwrap();
    std::fs::create_dir(service.path("in").join("folder")).unwrap();
    for (source, status, code) in [
        ("in:../film.mov", 400, "bad_path"),
        ("in:folder/../../x", 400, "bad_path"),
        ("in:/etc/passwd", 400, "bad_path"),
        ("film.mov", 400, "bad_path"),
        ("in:", 400, "bad_path"),
        ("output:film.mov", 422, "not_a_source"),
        ("none:film.mov", 404, "not_found"),
        ("in:none.mov", 404, "not_found"),
    ] {
        let mut wish = wish();
        wish["source"] = json!(source);
        let (got, body) = service
            .submit(&admin, source.replace(|c: char| !c.is_ascii(), "-").as_str(), &wish)
            .await;
        assert_eq!((got.as_u16(), body["code"].as_str()), (status, Some(code)), "{source}: {body}");
    }
    for source in ["in:way-out.mov", "in:folder"] {
        let mut wish = wish();
        wish["source"] = json!(source);
        let (got, body) = service.submit(&admin, source, &wish).await;
        assert!(matches!(got.as_u16(), 400 | 422), "{source}: {body}");
    }
    let with = |key: &str, value: Value| {
        let mut wish = wish();
        wish[key] = value;
        wish
    };
    for (wish, code) in [
        (with("profile", json!("none")), "unknown_profile"),
        (with("title", json!("a\nb")), "bad_title"),
        (with("title", json!("")), "bad_title"),
        (with("band", json!(10)), "bad_band"),
    ] {
        let (got, body) = service.submit(&admin, "bad", &wish).await;
        assert_eq!((got.as_u16(), body["code"].as_str()), (422, Some(code)), "{wish}");
        assert!(body["allowed"].is_string(), "{body}");
    }
    let (got, _) = service.submit(&admin, "bad", &with("extra", json!(1))).await;
    assert_eq!(got.as_u16(), 422, "an unknown member is refused");
    assert_eq!(service.read("/api/v1/jobs", &admin).await["items"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn a_faulty_profile_is_refused_with_key_value_allowed_and_line() {
    let (service, admin) = ready().await;
    let good = service.read("/api/v1/profiles/h264-single", &admin).await;
    let text = good["text"].as_str().unwrap();
    let verdict = service
        .post("/api/v1/profiles/validate", &admin, &json!({ "text": text }))
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(verdict, json!({ "valid": true, "errors": [] }));

    let bad = format!("{text}\n[video.params]\nno-such-key = 3\n").replace("[publish]", "[publis]");
    let verdict = service
        .post("/api/v1/profiles/validate", &admin, &json!({ "text": bad }))
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(verdict["valid"], false);
    let errors = verdict["errors"].as_array().unwrap();
    assert!(!errors.is_empty());
    let unknown = errors.iter().find(|e| e["key"] == "publis").expect("the misspelt section");
    assert!(unknown["line"].as_u64().unwrap() > 1);
    assert!(unknown["allowed"].as_str().unwrap().contains("publish"));

    let response = service
        .request(reqwest::Method::PUT, "/api/v1/profiles/h264-single", &admin)
        .json(&json!({ "text": bad }))
        .send()
        .await
        .unwrap();
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("bad_profile")));
    assert_eq!(body["errors"], verdict["errors"]);

    // A person's version takes the place of the shipped one.
    let own = text.replacen("description = \"", "description = \"Our own: ", 1);
    let stored = service
        .request(reqwest::Method::PUT, "/api/v1/profiles/h264-single", &admin)
        .json(&json!({ "text": own }))
        .send()
        .await
        .unwrap()
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!((stored["shipped"].as_bool(), stored["version"].as_u64()), (Some(false), Some(2)));
    let list = service.read("/api/v1/profiles", &admin).await;
    let all = list["items"].as_array().unwrap();
    assert!(all.len() >= 3);
    let mine = all.iter().find(|p| p["name"] == "h264-single").unwrap();
    assert!(mine["description"].as_str().unwrap().starts_with("Our own: "), "{mine}");
    service.stop().await;
}

#[tokio::test]
async fn a_job_is_listed_shown_failed_retried_and_cancelled() {
    let (service, admin) = ready().await;
    let (_, job) = service.submit(&admin, "k", &wish()).await;
    let id = job["id"].as_i64().unwrap();
    let path = format!("/api/v1/jobs/{id}");
    let detail = service.read(&path, &admin).await;
    assert_eq!(detail["job"]["id"], id);
    let tasks = detail["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        (tasks[0]["name"].as_str(), tasks[0]["state"].as_str()),
        (Some("intake"), Some("ready"))
    );
    assert!(tasks[0]["waits_for"].is_string());
    assert_eq!(detail["media"], Value::Null);
    let (status, body) = problem(service.get(&format!("{path}/plan"), &admin).await).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("not_inspected")));

    let worker = Worker::join(&service.db, "node-a").await;
    let claim = worker.claim().await;
    worker.say(&claim, "opening film.mov\u{1b}[2J").await;
    let detail = service.read(&path, &admin).await;
    assert_eq!(detail["tasks"][0]["state"], "running");
    assert_eq!(detail["tasks"][0]["progress"]["phase"], "read");
    assert_eq!(
        (&detail["attempts"][0]["epoch"], &detail["attempts"][0]["node"]),
        (&json!(1), &json!("node-a"))
    );
    assert_eq!(detail["job"]["state"], "inspecting");
    let log = service.read(&format!("/api/v1/attempts/{}/1/log", claim.attempt.task), &admin).await;
    assert_eq!(log["lines"], json!(["opening film.mov\\u{1b}[2J"]));
    let nodes = service.read("/api/v1/nodes", &admin).await;
    assert_eq!(nodes["items"][0]["worker"]["running"], 1);
    assert_eq!(nodes["items"][0]["worker"]["state"], "active");

    let failure = Failure::new(
        ErrorClass::Deterministic,
        ErrorOrigin::Source,
        "not_media",
        "opening film.mov: it is no media file",
    );
    worker.fail(&claim, failure.about("in:film.mov")).await;
    let list = service.read("/api/v1/jobs?state=failed", &admin).await;
    let failed = &list["items"][0];
    assert_eq!(failed["failure"]["code"], "not_media");
    assert_eq!(failed["failure"]["origin"], "source");
    assert_eq!(failed["failure"]["class"], "deterministic");
    assert_eq!(service.read("/api/v1/jobs?state=running", &admin).await["items"], json!([]));
    let (status, body) = problem(service.get("/api/v1/jobs?state=odd", &admin).await).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("bad_state")));

    let retried = service.post(&format!("{path}/retry"), &admin, &json!({})).await;
    assert_eq!(retried.json::<Value>().await.unwrap()["state"], "running");
    let detail = service.read(&path, &admin).await;
    assert_eq!(detail["tasks"][0]["state"], "ready");
    let response = service.post(&format!("{path}/retry"), &admin, &json!({})).await;
    assert_eq!(problem(response).await.0, 409, "what runs is not retried");

    // A command needs no body.
    let cancelled = service
        .request(reqwest::Method::POST, &format!("{path}/cancel"), &admin)
        .send()
        .await
        .unwrap();
    assert_eq!(cancelled.json::<Value>().await.unwrap()["state"], "cancelled");
    let response = service.post("/api/v1/jobs/999/cancel", &admin, &json!({})).await;
    assert_eq!(problem(response).await.0, 404);
    assert_eq!(problem(service.get("/api/v1/jobs/999", &admin).await).await.0, 404);
    assert_eq!(problem(service.get("/api/v1/jobs/x", &admin).await).await.0, 400);

    let actions: Vec<_> = service.db.audit_trail(None, 50).await.unwrap();
    for action in ["job.submit", "job.retry", "job.cancel"] {
        let object = format!("job/{id}");
        let count =
            actions.iter().filter(|a| a.entry.action == action && a.entry.object == object).count();
        assert_eq!(count, 1, "{action}");
    }
    let system = service.read("/api/v1/system", &admin).await;
    assert_eq!(system["jobs"]["cancelled"], 1);
    assert_eq!(system["workers"]["active"], 1);
    assert_eq!(system["database"]["ok"], true);
    assert!(system["database"]["schema_version"].as_i64().unwrap() >= 14, "{system}");
    assert_eq!(system["leader"], Value::Null, "none has led yet");
    // The seat belongs to whoever holds its lock, and is shown as long as it does.
    let took = trix_db::leader::Seat::try_take(&service.db, "here", Default::default()).await;
    let seat = took.unwrap().expect("the seat is free");
    let leader = service.read("/api/v1/system", &admin).await["leader"].clone();
    assert_eq!((leader["holder"].as_str(), leader["alive"].as_bool()), (Some("here"), Some(true)));
    assert_eq!(leader["epoch"], 1);
    assert!(leader["since"].is_string() && leader["up_ms"].is_i64(), "{leader}");
    seat.leave().await.unwrap();
    until("nobody leads", async || {
        service.read("/api/v1/system", &admin).await["leader"]["alive"] == false
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn the_list_goes_on_after_a_cursor_and_finds_by_text() {
    let (service, admin) = ready().await;
    for n in 0..5 {
        let mut wish = wish();
        wish["title"] = json!(format!("Film {n}"));
        let (status, body) = service.submit(&admin, &format!("k{n}"), &wish).await;
        assert_eq!(status.as_u16(), 201, "{body}");
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=2".to_owned();
    loop {
        let page = service.read(&path, &admin).await;
        for job in page["items"].as_array().unwrap() {
            seen.push(job["title"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/jobs?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["Film 4", "Film 3", "Film 2", "Film 1", "Film 0"]);
    let found = service.read("/api/v1/jobs?text=film%203", &admin).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["title"], "Film 3");
    let found = service.read("/api/v1/jobs?text=IN:film", &admin).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 5, "the source's path is searched too");
    service.stop().await;
}
