//! Starting, stopping, and who may come in.

use serde_json::{Value, json};

use super::rig::{Site, slow};

#[tokio::test]
async fn sigterm_ends_everything_and_the_next_start_goes_on() {
    let site = Site::new();
    site.title("Film.mov");
    let up = site.up().await;
    let id = site.submit_with("Film.mov", "film", &slow()).await;
    let before = site.midway(id, None).await;
    assert!(site.users().values().any(|line| line.contains("postgres")), "{:?}", site.users());

    let status = up.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(site.users(), Default::default(), "nobody works here any more");
    assert!(!site.path("state/postgresql/data/postmaster.pid").exists());

    let up = site.up().await;
    let job = site.succeeded(id).await;
    for name in before.chunks("done") {
        assert_eq!(job.tries(&name), 1, "{name} was done: {}", job.text());
    }
    site.no_debris().await;
    assert_eq!(up.stop().code(), Some(0));
}

/// Behind `#token=` of the last line.
fn token_of(text: &str) -> String {
    text.trim().rsplit_once("#token=").expect("a link with a token").1.to_owned()
}

#[tokio::test]
async fn a_submit_is_idempotent_and_a_link_works_once() {
    let site = Site::new();
    site.title("Film.mov");
    let _up = site.up().await;

    // One key is one job, whatever is sent again.
    let id = site.submit("Film.mov", "the key").await;
    let body = json!({ "source": "incoming:Film.mov", "profile": "small" });
    let (status, again) = site.api("POST", "/jobs", Some(body.clone()), Some("the key")).await;
    assert_eq!((status, &again["id"]), (200, &json!(id)));
    let other = json!({ "source": "incoming:Film.mov", "profile": "h264-single" });
    let (status, problem) = site.api("POST", "/jobs", Some(other), Some("the key")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("key_reused")));
    let (status, problem) = site.api("POST", "/jobs", Some(body.clone()), None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("idempotency_key_required")));
    let (_, list) = site.api("GET", "/jobs", None, None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    // Without a token nothing is told and nothing is taken.
    let jobs = site.url("/api/v1/jobs");
    let refused = site.http().post(&jobs).json(&body).header("idempotency-key", "x").send().await;
    assert_eq!(refused.unwrap().status(), 401);
    assert_eq!(site.http().get(&jobs).send().await.unwrap().status(), 401);

    // The first account by the set-up link, then a link to log in; each works once.
    let post = |path: &'static str, body: Value| {
        // Secure cookies over plain http go to localhost only.
        let url = site.url(&format!("/api/v1{path}")).replace("127.0.0.1", "localhost");
        let request = site.http().post(url).json(&body);
        async move {
            let answer = request.send().await.unwrap();
            let cookie = answer.headers().get("set-cookie").map(|c| c.to_str().unwrap().to_owned());
            (answer.status().as_u16(), cookie, answer.json::<Value>().await.unwrap())
        }
    };
    let first = std::fs::read_to_string(site.path("state/first-login")).unwrap();
    let set_up = json!({ "token": token_of(&first), "name": "anna", "password": "long enough" });
    let (status, _, me) = post("/session/setup", set_up.clone()).await;
    assert_eq!((status, &me["name"], &me["role"]), (200, &json!("anna"), &json!("admin")));
    assert_eq!(post("/session/setup", set_up).await.0, 401);

    let out = site.run(&["login-link"], &[]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let token = json!({ "token": token_of(&String::from_utf8(out.stdout).unwrap()) });
    let (status, cookie, me) = post("/session/link", token.clone()).await;
    assert_eq!((status, &me["name"]), (200, &json!("anna")));
    let cookie = cookie.expect("a session cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite"), "{cookie}");
    let (status, _, problem) = post("/session/link", token).await;
    assert_eq!((status, &problem["code"]), (401, &json!("link_used")));

    // The cookie is the session.
    let url = site.url("/api/v1/session").replace("127.0.0.1", "localhost");
    let pair = cookie.split(';').next().unwrap();
    let me = site.http().get(url).header("cookie", pair).send().await.unwrap();
    assert_eq!(me.json::<Value>().await.unwrap()["name"], "anna");
    site.succeeded(id).await;
}
