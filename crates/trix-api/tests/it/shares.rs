//! Browsing source shares.

use serde_json::{Value, json};
use trix_storage::share::{Root, Roots};
use trix_testkit::pg::TestDb;

use crate::harness::{As, Service, problem, times, until};

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect()
}

async fn ready() -> (Service, As) {
    let service = Service::start().await;
    let admin = service.admin().await;
    until("the share is in order", async || {
        let list = service.read("/api/v1/shares", &admin).await;
        list["items"].as_array().unwrap().iter().all(|s| s["state"] == "ok")
    })
    .await;
    (service, admin)
}

#[tokio::test]
async fn a_source_share_is_browsed_folder_by_folder_and_page_by_page() {
    let (service, admin) = ready().await;
    service.deliver("Фильм 🎬/reel 'one'.mov", b"x");
    service.deliver("b.mov", b"12345");
    service.deliver("b.mov.md5", b"d41d8cd98f00b204e9800998ecf8427e  b.mov\n");
    service.deliver("a.txt", b"x");
    std::os::unix::fs::symlink("/etc", service.path("in").join("way-out")).unwrap();

    let list = service.read("/api/v1/shares", &admin).await;
    let roles: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap(), s["role"].as_str().unwrap()))
        .collect();
    let expected =
        [("in", "source"), ("archive", "output"), ("output", "output"), ("preview", "preview")];
    assert_eq!(roles, expected);
    assert!(list["items"][0]["total_bytes"].as_u64().unwrap() > 0);

    let page = service.read("/api/v1/shares/in/entries", &admin).await;
    assert_eq!(names(&page), ["Фильм 🎬", "a.txt", "b.mov", "b.mov.md5", "way-out"]);
    assert_eq!(page["items"][0]["kind"], "folder");
    let film = &page["items"][2];
    assert_eq!((film["size"].as_u64(), film["media"].as_bool()), (Some(5), Some(true)));
    assert_eq!(film["sidecars"], serde_json::json!(["b.mov.md5"]));
    assert_eq!(film["location"], "in:b.mov");
    let link = &page["items"][4];
    assert_eq!((link["kind"].as_str(), &link["location"]), (Some("other"), &Value::Null));

    let path = "/api/v1/shares/in/entries?path=%D0%A4%D0%B8%D0%BB%D1%8C%D0%BC%20%F0%9F%8E%AC";
    let page = service.read(path, &admin).await;
    assert_eq!(page["items"][0]["location"], "in:Фильм 🎬/reel 'one'.mov");

    let mut seen = Vec::new();
    let mut path = "/api/v1/shares/in/entries?limit=2".to_owned();
    loop {
        let page = service.read(&path, &admin).await;
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/shares/in/entries?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["Фильм 🎬", "a.txt", "b.mov", "b.mov.md5", "way-out"]);
    service.stop().await;
}

#[tokio::test]
async fn no_path_leaves_its_share() {
    let (service, admin) = ready().await;
    std::os::unix::fs::symlink("/etc", service.path("in").join("way-out")).unwrap();
    std::fs::create_dir(service.path("in").join("folder")).unwrap();
    for path in ["..", "folder/../..", "/etc", "folder//x", "./folder", "a%00b"] {
        let response = service.get(&format!("/api/v1/shares/in/entries?path={path}"), &admin).await;
        let (status, body) = problem(response).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad_path")), "{path}");
        assert!(body["allowed"].as_str().unwrap().contains(".."), "{body}");
    }
    let response = service.get("/api/v1/shares/in/entries?path=way-out", &admin).await;
    assert_eq!(problem(response).await.0, 400);
    let response = service.get("/api/v1/shares/in/entries?path=none", &admin).await;
    assert_eq!(problem(response).await.0, 404);
    // What was published is not browsed: it has its own addresses.
    let response = service.get("/api/v1/shares/output/entries", &admin).await;
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("not_a_source")));
    assert_eq!(body["allowed"], "in");
    let response = service.get("/api/v1/shares/none/entries", &admin).await;
    assert_eq!(problem(response).await.0, 404);
    let response = service.get("/api/v1/shares/in/entries?cursor=x", &admin).await;
    assert_eq!(problem(response).await.1["code"], "bad_cursor");
    service.stop().await;
}

#[tokio::test]
async fn a_share_that_is_away_answers_503_and_comes_back_while_others_go_on() {
    let (service, admin) = ready().await;
    service.deliver("a.mov", b"x");
    let away = service.path("away");
    std::fs::rename(service.path("in"), &away).unwrap();
    let state = async |name: &str| {
        let list = service.read("/api/v1/shares", &admin).await;
        let all = list["items"].as_array().unwrap().clone();
        all.into_iter().find(|s| s["name"] == name).unwrap()
    };
    until("the share is gone", async || state("in").await["state"] == "gone").await;
    assert!(state("in").await["reason"].is_string());
    assert_eq!(state("output").await["state"], "ok");
    let response = service.get("/api/v1/shares/in/entries", &admin).await;
    assert!(response.headers().contains_key("retry-after"));
    let (status, body) = problem(response).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("source_unavailable")));
    assert_eq!((body["class"].as_str(), body["object"].as_str()), (Some("transient"), Some("in")));
    let wish = serde_json::json!({ "source": "in:a.mov", "profile": "h264-single" });
    let (status, body) = service.submit(&admin, "k", &wish).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (503, Some("source_unavailable")));
    service.read("/api/v1/jobs", &admin).await;

    std::fs::rename(&away, service.path("in")).unwrap();
    until("the share is back", async || state("in").await["state"] == "ok").await;
    let page = service.read("/api/v1/shares/in/entries", &admin).await;
    assert_eq!(names(&page), ["a.mov"]);
    service.stop().await;
}

#[tokio::test]
async fn a_destination_that_was_never_in_order_is_named_with_its_reason() {
    let keep = TestDb::new().await.unwrap();
    let service = Service::with(keep.db_with(times()), |config| {
        let moved = |root: &Root| Root { root: root.root.join("not-there"), role: root.role };
        let all = config.shares.iter().map(|(name, root)| match name.as_str() {
            "archive" => (name.clone(), moved(root)),
            _ => (name.clone(), root.clone()),
        });
        config.shares = Roots::new(all.collect::<Vec<_>>());
    })
    .await;
    service.wait_ready().await;
    let admin = service.admin().await;
    service.deliver("film.mov", b"no film, but a file");
    let body = json!({ "source": "in:film.mov", "profile": "archive-and-ladder" });
    let (status, answer) = service.submit(&admin, "k", &body).await;
    assert_eq!((status.as_u16(), answer["code"].as_str()), (503, Some("share_unavailable")));
    assert!(answer["title"].as_str().unwrap().contains("archive"), "{answer}");
    service.stop().await;
}
