//! Every mutating route leaves exactly one row in the audit trail for a call that is
//! accepted, in a chain that verifies, and none for a call that is refused (I20).

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use trix_db::operate::Scope;
use trix_model::Failure;

use crate::harness::{As, PASSWORD, Service, cookie_of, until};
use crate::worker::{Running, Worker};

/// What a route is asked here.
struct Asked {
    /// The row's action; `None` for a route that only reads, although it is no GET.
    action: Option<&'static str>,
    /// A call that is accepted.
    good: RequestBuilder,
    /// A call by the same caller that is refused, made after the good one.
    refused: RequestBuilder,
}

/// Every operation of the document that is no GET, so that a new one cannot be forgotten.
fn operations() -> Vec<String> {
    let document: Value = serde_json::from_str(&trix_api::openapi_json()).unwrap();
    let mut all = Vec::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for (_, operation) in methods.as_object().unwrap().iter().filter(|(m, _)| *m != "get") {
            all.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    // Setting up goes first: it makes the account that does the rest. Nothing can be claimed
    // after everything was paused.
    all.sort_by_key(|id| (id != "set_up", id == "hold_all"));
    assert_eq!(all[0], "set_up");
    all
}

async fn asked(service: &Service, admin: &As, operation: &str) -> Asked {
    let post = |path: &str, who: &As, body: Value| {
        service.request(Method::POST, &format!("/api/v1{path}"), who).json(&body)
    };
    let asked = |action, good, refused| Asked { action: Some(action), good, refused };
    let job = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let submit = async |key: &str| {
        // A film of its own: of one that is known already nothing would be left to claim.
        let film = format!("{key}.mov");
        service.deliver(&film, key.as_bytes());
        let job = json!({ "source": format!("in:{film}"), "profile": "h264-single" });
        let (status, made) = service.submit(admin, key, &job).await;
        assert_eq!(status.as_u16(), 201, "{made}");
        made["id"].as_i64().unwrap()
    };
    let link = async || {
        let link = trix_api::login_link(&service.db, Some("ann"), "http://x").await.unwrap();
        json!({ "token": link.split_once("#token=").unwrap().1 })
    };
    let no_link = json!({ "token": "none" });
    let password = |word: &str| json!({ "name": "ann", "password": word });
    let nobody = &As::Nobody;
    let put = |path: &str, body: Value| {
        service.request(Method::PUT, &format!("/api/v1{path}"), admin).json(&body)
    };
    match operation {
        "set_up" => {
            let body = |token: &str| json!({ "token": token, "name": "ann", "password": PASSWORD });
            let token = service.set_up_token();
            let path = "/session/setup";
            let good = post(path, nobody, body(&token));
            asked("session.set_up", good, post(path, nobody, body(&token)))
        }
        "log_in" => asked(
            "session.log_in",
            post("/session", nobody, password(PASSWORD)),
            post("/session", nobody, password("wrong horse battery")),
        ),
        "log_out" => {
            let response = post("/session", nobody, password(PASSWORD)).send().await.unwrap();
            let session = cookie_of(&response);
            let program = service.token(admin, "leaver", "viewer").await;
            let leave = |who: &As| service.request(Method::DELETE, "/api/v1/session", who);
            asked("session.log_out", leave(&session), leave(&program))
        }
        "inspect_link" => Asked {
            action: None,
            good: post("/session/link/inspect", nobody, link().await),
            refused: post("/session/link/inspect", nobody, no_link),
        },
        "use_link" => asked(
            "session.link",
            post("/session/link", nobody, link().await),
            post("/session/link", nobody, no_link),
        ),
        "create_token" => {
            let body = json!({ "name": "robot", "role": "operator" });
            let good = post("/tokens", admin, body.clone());
            asked("token.create", good, post("/tokens", admin, body))
        }
        "revoke_token" => {
            service.token(admin, "short-lived", "viewer").await;
            let id = service.read("/api/v1/tokens", admin).await["items"][0]["id"].clone();
            let revoke =
                |id: &str| service.request(Method::DELETE, &format!("/api/v1/tokens/{id}"), admin);
            asked("token.revoke", revoke(&id.to_string()), revoke("999"))
        }
        "put_profile" => {
            let text = service.read("/api/v1/profiles/h264-single", admin).await["text"].clone();
            let body = json!({ "text": text });
            let put = |name: &str| {
                let path = format!("/api/v1/profiles/{name}");
                service.request(Method::PUT, &path, admin).json(&body)
            };
            asked("profile.put", put("h264-single"), put("another-name"))
        }
        "validate_profile" => Asked {
            action: None,
            good: post("/profiles/validate", admin, json!({ "text": "" })),
            refused: post("/profiles/validate", admin, json!({})),
        },
        "submit_job" => {
            let with = |body: &Value| {
                post("/jobs", admin, body.clone()).header("Idempotency-Key", "audited")
            };
            let mut other = job.clone();
            other["band"] = json!(9);
            asked("job.submit", with(&job), with(&other))
        }
        "cancel_job" => {
            let id = submit("to cancel").await;
            let good = post(&format!("/jobs/{id}/cancel"), admin, json!({}));
            asked("job.cancel", good, post("/jobs/999/cancel", admin, json!({})))
        }
        "retry_job" => {
            let id = submit("to retry").await;
            let worker = Worker::join(&service.db, "node").await;
            let claim = worker.claim_of(id).await;
            worker.fail(&claim, Failure::source("broken", "it is no film")).await;
            let retry = || post(&format!("/jobs/{id}/retry"), admin, json!({}));
            asked("job.retry", retry(), retry())
        }
        "pause_job" => {
            let job = Running::start(&service.db, submit("to pause").await).await.job;
            let pause = || post(&format!("/jobs/{job}/pause"), admin, json!({}));
            asked("job.pause", pause(), pause())
        }
        "resume_job" => {
            let job = Running::start(&service.db, submit("to resume").await).await.job;
            service.db.pause(trix_model::JobId(job)).await.unwrap();
            let resume = || post(&format!("/jobs/{job}/resume"), admin, json!({}));
            asked("job.resume", resume(), resume())
        }
        "set_priority" => {
            let path = format!("/jobs/{}/priority", submit("to hurry").await);
            let to = |band: u8| put(&path, json!({ "band": band }));
            asked("job.priority", to(9), to(10))
        }
        "retract_publication" => {
            let running = Running::start(&service.db, submit("to retract").await).await;
            let publication = running.publish().await;
            let of = |id| post(&format!("/publications/{id}/retract"), admin, json!({}));
            asked("publication.retract", of(publication), of(999))
        }
        "cordon_node" | "uncordon_node" | "drain_node" | "undrain_node" => {
            let verb = operation.trim_end_matches("_node");
            let node = format!("to-{verb}");
            service.db.enrol_node(&node).await.unwrap();
            match verb {
                "uncordon" => drop(service.db.cordon(&node, "").await.unwrap()),
                "undrain" => drop(service.db.drain_node(&node, "").await.unwrap()),
                _ => {}
            }
            let of = |node: &str| post(&format!("/nodes/{node}/{verb}"), admin, json!({}));
            let action = match verb {
                "cordon" => "node.cordon",
                "uncordon" => "node.uncordon",
                "drain" => "node.drain",
                _ => "node.undrain",
            };
            asked(action, of(&node), of("none"))
        }
        "set_node_traits" => {
            service.db.enrol_node("gifted").await.unwrap();
            let of = |node: &str| {
                put(&format!("/nodes/{node}/traits"), json!({ "caps": ["hdr"], "gpu": 1000 }))
            };
            asked("node.traits", of("gifted"), of("none"))
        }
        "set_share_slots" => {
            let of = |n: u32| put("/shares/in/slots", json!({ "read": n, "write": null }));
            asked("share.slots", of(2), of(0))
        }
        "hold_all" => {
            let to = |reason: &str| put("/holds/all", json!({ "reason": reason }));
            asked("hold.set", to("the cooling failed"), to(" "))
        }
        "lift_all" => {
            service.db.hold(&Scope::All, "a test").await.unwrap();
            let by = |who| service.request(Method::DELETE, "/api/v1/holds/all", who);
            asked("hold.lift", by(admin), by(nobody))
        }
        "hold" => {
            let of = |kind: &str| {
                put(&format!("/holds/kind/{kind}"), json!({ "reason": "a bad release" }))
            };
            asked("hold.set", of("stills"), of("stillness"))
        }
        "lift" => {
            service.db.hold(&Scope::Kind("stills".into()), "a test").await.unwrap();
            let of = |scope: &str| {
                service.request(Method::DELETE, &format!("/api/v1/holds/{scope}/stills"), admin)
            };
            asked("hold.lift", of("kind"), of("kinds"))
        }
        "set_weight" => {
            let of = |weight: u32| put("/accounts/ann/weight", json!({ "weight": weight }));
            asked("account.weight", of(300), of(0))
        }
        new => panic!("{new} changes something: say here what is audited of it"),
    }
}

#[tokio::test]
async fn every_mutating_call_has_one_row_and_a_refused_one_none() {
    let service = Service::start().await;
    service.deliver("film.mov", b"no film, but a file");
    let mut admin = As::Nobody;
    let rows = async || service.db.audit_trail(None, 500).await.unwrap();
    for operation in operations() {
        let Asked { action, good, refused } = asked(&service, &admin, &operation).await;
        let before = rows().await.len();
        let response = good.send().await.unwrap();
        assert!(response.status().is_success(), "{operation}: {:?}", response.text().await);
        if operation == "set_up" {
            admin = cookie_of(&response);
            until("the share is in order", async || {
                service.get("/api/v1/shares/in/entries", &admin).await.status() == 200
            })
            .await;
        }
        let all = rows().await;
        let added = &all[..all.len() - before];
        let actions: Vec<_> = added.iter().map(|r| r.entry.action.as_str()).collect();
        assert_eq!(actions, Vec::from_iter(action), "{operation}");
        for row in added {
            let entry = &row.entry;
            assert!(entry.principal.is_some() && entry.ip == "127.0.0.1", "{operation}: {row:?}");
            let (_, id) = entry.object.split_once('/').unwrap();
            assert!(!id.is_empty(), "{operation}: {row:?}");
            assert!(row.before.is_some() || row.after.is_some(), "{operation}: {row:?}");
        }

        let response = refused.send().await.unwrap();
        assert!(response.status().is_client_error(), "{operation}: {}", response.status());
        assert_eq!(rows().await.len(), all.len(), "{operation}: a refused call changed nothing");
    }
    // A repetition by its key is the call of before, answered again.
    let before = rows().await.len();
    let job = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let (status, _) = service.submit(&admin, "audited", &job).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(rows().await.len(), before);
    assert_eq!(service.db.audit_verify().await.unwrap(), None);
    service.stop().await;
}
