//! Who gets in: nobody by default, by a link once, by password, by token; and
//! no foreign page.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::harness::{As, PASSWORD, Service, cookie_of, problem, times};
use trix_testkit::pg::TestDb;

/// Every operation of the document: method, path with numbers filled in, open to all.
fn operations() -> Vec<(Method, String, bool)> {
    let document: Value = serde_json::from_str(&trix_api::openapi_json()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let mut path = path.clone();
            for name in ["id", "task", "epoch"] {
                path = path.replace(&format!("{{{name}}}"), "1");
            }
            path = path.replace("{name}", "x").replace("{scope}", "node");
            assert!(!path.contains('{'), "{path}");
            let open = operation["security"] == json!([{}]);
            all.push((method, path, open));
        }
    }
    all
}

#[tokio::test]
async fn a_default_install_answers_401_everywhere_but_where_people_sign_in() {
    let service = Service::start().await;
    let mut open = Vec::new();
    for (method, path, is_open) in operations() {
        let request = service.request(method.clone(), &path, &As::Nobody);
        let request = if method == Method::GET { request } else { request.json(&json!({})) };
        let status = request.send().await.unwrap().status();
        if is_open {
            open.push(path);
            assert_ne!(status, StatusCode::OK);
        } else {
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
    open.sort();
    assert_eq!(
        open,
        [
            "/api/v1/session",
            "/api/v1/session/link",
            "/api/v1/session/link/inspect",
            "/api/v1/session/setup"
        ]
    );
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api/v1/openapi.json", 401),
        ("/ws", 401),
        ("/interface/", 200),
        ("/interface/jobs/17", 200),
        ("/interface/assets/none.js", 404),
        ("/", 307),
        ("/interface", 307),
        ("/api/v1/none", 404),
        ("/etc/passwd", 404),
    ] {
        let mut request = service.request(Method::GET, path, &As::Nobody);
        if path == "/ws" {
            request = request
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{path}");
    }
    for wrong in [
        As::Token("none".into()),
        As::Cookie("__Host-trix=none".into()),
        As::Cookie("trix=none".into()),
    ] {
        let response = service.get("/api/v1/jobs", &wrong).await;
        let (status, body) = problem(response).await;
        assert_eq!((status, body["code"].as_str()), (401, Some("not_signed_in")), "{wrong:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_set_up_link_works_once_and_makes_an_admin() {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start().await;
    let file = service.path("state").join("first-login");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = service.set_up_token();

    let ask = json!({ "token": token });
    let response = service.post("/api/v1/session/link/inspect", &As::Nobody, &ask).await;
    assert_eq!(response.json::<Value>().await.unwrap()["purpose"], "setup");
    let response = service.post("/api/v1/session/link", &As::Nobody, &ask).await;
    assert_eq!(problem(response).await.1["code"], "setup_link");

    let short = json!({ "token": token, "name": "ann", "password": "short" });
    let response = service.post("/api/v1/session/setup", &As::Nobody, &short).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("bad_password")));
    assert_eq!(body["allowed"], "10 to 1024 bytes");
    let odd = json!({ "token": token, "name": "a b", "password": PASSWORD });
    let response = service.post("/api/v1/session/setup", &As::Nobody, &odd).await;
    assert_eq!(problem(response).await.1["code"], "bad_name");

    let good = json!({ "token": token, "name": "ann", "password": PASSWORD });
    let response = service.post("/api/v1/session/setup", &As::Nobody, &good).await;
    assert_eq!(response.status(), StatusCode::OK);
    let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["__Host-trix=", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{part} is missing in {set}");
    }
    let admin = cookie_of(&response);
    let me = service.read("/api/v1/session", &admin).await;
    assert_eq!((me["name"].as_str(), me["role"].as_str()), (Some("ann"), Some("admin")));
    assert_eq!(me["kind"], "user");

    let again = json!({ "token": token, "name": "eve", "password": PASSWORD });
    let response = service.post("/api/v1/session/setup", &As::Nobody, &again).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (401, Some("link_used")));
    service.stop().await;
}

#[tokio::test]
async fn people_sign_in_by_password_or_link_and_out() {
    let service = Service::start().await;
    let first = service.admin().await;
    let wrong = json!({ "name": "ann", "password": "wrong horse battery" });
    let response = service.post("/api/v1/session", &As::Nobody, &wrong).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (401, Some("wrong_password")));
    let unknown = json!({ "name": "eve", "password": PASSWORD });
    let response = service.post("/api/v1/session", &As::Nobody, &unknown).await;
    assert_eq!(problem(response).await.1["code"], "wrong_password");

    let right = json!({ "name": "ann", "password": PASSWORD });
    let response = service.post("/api/v1/session", &As::Nobody, &right).await;
    let second = cookie_of(&response);
    service.read("/api/v1/session", &second).await;
    let response = service.request(Method::DELETE, "/api/v1/session", &second).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(service.get("/api/v1/session", &second).await.status(), 401);
    service.read("/api/v1/session", &first).await;

    // `trix login-link` by name and without, and for somebody who is not there.
    for name in [Some("ann"), None] {
        let link = trix_api::login_link(&service.db, name, "http://127.0.0.1:1").await.unwrap();
        let token = link.strip_prefix("http://127.0.0.1:1/interface/login#token=").unwrap();
        let ask = json!({ "token": token });
        let response = service.post("/api/v1/session/link/inspect", &As::Nobody, &ask).await;
        let info: Value = response.json().await.unwrap();
        assert_eq!((info["purpose"].as_str(), info["name"].as_str()), (Some("login"), Some("ann")));
        let response = service.post("/api/v1/session/link", &As::Nobody, &ask).await;
        service.read("/api/v1/session", &cookie_of(&response)).await;
        let response = service.post("/api/v1/session/link", &As::Nobody, &ask).await;
        assert_eq!(problem(response).await.1["code"], "link_used");
    }
    let none = trix_api::login_link(&service.db, Some("eve"), "http://x").await.unwrap_err();
    assert!(none.to_string().contains("there are: ann"), "{none}");

    let actions: Vec<String> = service
        .db
        .audit_trail(None, 50)
        .await
        .unwrap()
        .into_iter()
        .rev()
        .map(|row| row.entry.action)
        .collect();
    assert_eq!(
        actions,
        ["session.set_up", "session.log_in", "session.log_out", "session.link", "session.link"]
    );
    assert_eq!(service.db.audit_verify().await.unwrap(), None);
    service.stop().await;
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down() {
    let service = Service::start().await;
    service.admin().await;
    let wrong = json!({ "name": "ann", "password": "wrong horse battery" });
    let mut last = 0;
    for _ in 0..11 {
        let response = service.post("/api/v1/session", &As::Nobody, &wrong).await;
        let (status, body) = problem(response).await;
        if status == 429 {
            assert!(body["retry_after_s"].as_u64().unwrap() > 0);
        }
        last = status;
    }
    assert_eq!(last, 429);
    // The right password does not help while the brake is on.
    let right = json!({ "name": "ann", "password": PASSWORD });
    let response = service.post("/api/v1/session", &As::Nobody, &right).await;
    assert_eq!(response.status().as_u16(), 429);
    service.stop().await;
}

#[tokio::test]
async fn roles_bound_what_a_token_may_do_until_it_is_revoked() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let viewer = service.token(&admin, "wall-display", "viewer").await;
    let operator = service.token(&admin, "watch-folder", "operator").await;

    service.read("/api/v1/jobs", &viewer).await;
    for (who, path) in [(&viewer, "/api/v1/shares/in/entries"), (&operator, "/api/v1/tokens")] {
        let (status, body) = problem(service.get(path, who).await).await;
        assert_eq!((status, body["code"].as_str()), (403, Some("role_missing")), "{path}");
    }
    let body = json!({ "source": "in:a.mov", "profile": "h264-single" });
    let (status, answer) = service.submit(&viewer, "k", &body).await;
    assert_eq!((status.as_u16(), answer["code"].as_str()), (403, Some("role_missing")));
    for path in ["/api/v1/jobs/1/cancel", "/api/v1/jobs/1/retry"] {
        let response = service.post(path, &viewer, &json!({})).await;
        assert_eq!(response.status().as_u16(), 403, "{path}");
    }
    let more = json!({ "name": "more", "role": "admin" });
    assert_eq!(service.post("/api/v1/tokens", &operator, &more).await.status().as_u16(), 403);

    let list = service.read("/api/v1/tokens", &admin).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert!(!list.to_string().contains("secret"));
    let id = items.iter().find(|t| t["name"] == "wall-display").unwrap()["id"].as_i64().unwrap();
    let gone = service
        .request(Method::DELETE, &format!("/api/v1/tokens/{id}"), &admin)
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(service.get("/api/v1/jobs", &viewer).await.status().as_u16(), 401);
    service.read("/api/v1/jobs", &operator).await;
    service.stop().await;
}

#[tokio::test]
async fn a_foreign_page_can_neither_post_nor_rebind_the_name() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let body = json!({ "name": "t", "role": "admin" });
    let post = |headers: &[(&str, &str)]| {
        let mut request = service.request(Method::POST, "/api/v1/tokens", &admin).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ] {
        let (status, body) = problem(post(headers).await.unwrap()).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (403, Some("origin_not_allowed")),
            "{headers:?}"
        );
    }
    let own = format!("http://{}", service.address);
    assert_eq!(post(&[("origin", &own)]).await.unwrap().status(), StatusCode::CREATED);

    let form = service
        .request(Method::POST, "/api/v1/tokens", &admin)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(problem(form).await.1["code"], "not_json");
    // A command without a body is no way around.
    let form = service
        .request(Method::POST, "/api/v1/jobs/1/cancel", &admin)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(form).await.1["code"], "not_json");

    let rebound = service
        .request(Method::GET, "/api/v1/jobs", &admin)
        .header(header::HOST, "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(rebound).await.1["code"], "host_not_allowed");
    service.stop().await;
}

#[tokio::test]
async fn plain_http_from_another_machine_signs_nobody_in_unless_allowed() {
    let keep = TestDb::new().await.unwrap();
    for (insecure, status) in [(false, 403), (true, 200)] {
        let db = keep.db_with(times());
        let service = Service::with(db, |c| c.insecure_http = insecure).await;
        service.wait_ready().await;
        let body = json!({ "token": service.set_up_token(), "name": "ann", "password": PASSWORD });
        let response = service
            .request(Method::POST, "/api/v1/session/setup", &As::Nobody)
            .header(header::HOST, "10.1.2.3:9001")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status);
        if insecure {
            let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
            assert!(set.starts_with("trix=") && !set.contains("Secure"), "{set}");
            service.read("/api/v1/session", &cookie_of(&response)).await;
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn pages_and_answers_carry_their_guards() {
    let service = Service::start().await;
    let page = service.get("/interface/", &As::Nobody).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let other = service.get("/interface/", &As::Nobody).await;
    assert_ne!(other.headers()["content-security-policy"].to_str().unwrap(), policy);

    let answer = service.get("/api/v1/jobs", &As::Nobody).await;
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(answer.headers().contains_key("x-request-id"));

    let admin = service.admin().await;
    let long = json!({ "text": "x".repeat(2 << 20) });
    let response = service.post("/api/v1/profiles/validate", &admin, &long).await;
    assert_eq!(problem(response).await.1["code"], "too_large");
    let response = service.post("/api/v1/profiles/validate", &admin, &json!({ "txt": "" })).await;
    assert_eq!(response.status().as_u16(), 422);
    let response = service.get("/api/v1/jobs?limit=0", &admin).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["allowed"].as_str()), (400, Some("1 to 500")));
    let response = service.request(Method::PATCH, "/api/v1/jobs", &admin).send().await.unwrap();
    assert_eq!(problem(response).await.0, 405);
    service.stop().await;
}
