//! Published files over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::Digest as _;
use trix_db::leader::Seat;
use trix_db::{Manifest, ManifestFile};
use trix_plan::task::{Cost, Plan, Publish, Task, TaskSpec};

use crate::harness::{ENGINE, Service, problem, until};
use crate::worker::Worker;

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const PAGE: &[u8] = b"<script>alert(1)</script>";

/// The result of an inspection, as small as it may be.
pub(crate) fn intake() -> serde_json::Value {
    json!({
        "media": {
            "version": 1, "container": "mov", "size": 1, "duration_us": 40_000,
            "tags": {},
            "streams": [{
                "index": 0, "codec": "pcm_s16le", "profile": null, "time_base": "1/48000",
                "start": 0, "duration": 1920, "bit_rate": 1_536_000, "language": "rus",
                "title": null, "default": true, "attached_picture": false, "kind": "audio",
                "sample_rate": 48_000, "channels": 2, "layout": "stereo",
                "sample_format": "s16", "depth": 16
            }]
        },
        "hashes": {
            "sha256": "00".repeat(32), "md5": "11".repeat(16), "xxh3": "22".repeat(16), "size": 1
        },
        "planning_index": "",
        "findings": [{
            "code": "no_sidecar", "severity": "info", "message": "no checksum file came with it"
        }]
    })
}

#[tokio::test]
async fn a_published_file_is_served_whole_and_in_ranges_and_nothing_else_is() {
    let service = Service::start().await;
    let admin = service.admin().await;
    service.deliver("film.mov", b"x");
    until("the share is in order", async || {
        service.get("/api/v1/shares/in/entries", &admin).await.status() == 200
    })
    .await;
    let wish = json!({ "source": "in:film.mov", "profile": "h264-single" });
    let (status, job) = service.submit(&admin, "k", &wish).await;
    assert_eq!(status.as_u16(), 201, "{job}");
    let job_path = format!("/api/v1/jobs/{}", job["id"]);

    // Intake and a plan of one publication, by the real functions.
    let worker = Worker::join(&service.db, "node-a").await;
    let claim = worker.claim().await;
    worker.succeed(&claim, Some(intake())).await;
    let seat = Seat::try_take(&service.db, "test", std::time::Duration::ZERO)
        .await
        .unwrap()
        .expect("the seat is free");
    let spec = TaskSpec::Publish(Publish {
        share: "preview".parse().unwrap(),
        target: "film".parse().unwrap(),
        role: "preview".to_owned(),
        files: Vec::new(),
    });
    let task = Task {
        name: "publish/preview".to_owned(),
        spec,
        needs: vec!["intake".to_owned()],
        outputs: Vec::new(),
        cost: Cost { mcpu: 100, ..Cost::default() },
    };
    let plan =
        Plan { version: 1, engine: ENGINE.to_owned(), tasks: vec![task], results: Vec::new() };
    let id = trix_model::JobId(job["id"].as_i64().unwrap());
    assert!(seat.leader().append_plan(id, &plan).await.unwrap());
    let claim = worker.claim().await;
    let file = |name: &str, content: &[u8]| ManifestFile {
        name: name.parse().unwrap(),
        size: content.len() as u64,
        sha256: trix_model::Digest(sha2::Sha256::digest(content).into()),
        blake3: None,
    };
    let manifest = Manifest {
        share: "preview".parse().unwrap(),
        target: "film".parse().unwrap(),
        role: "preview".to_owned(),
        files: vec![
            file("poster.jpg", CONTENT),
            file("kino/Фильм 1.mp4", CONTENT),
            file("page.html", PAGE),
            file("gone.jpg", CONTENT),
            file("short.jpg", CONTENT),
        ],
    };
    let folder = service.path("preview").join("film/v1");
    std::fs::create_dir_all(folder.join("kino")).unwrap();
    std::fs::write(folder.join("poster.jpg"), CONTENT).unwrap();
    std::fs::write(folder.join("kino/Фильм 1.mp4"), CONTENT).unwrap();
    std::fs::write(folder.join("page.html"), PAGE).unwrap();
    std::fs::write(folder.join("short.jpg"), "half").unwrap();
    std::fs::write(folder.join("secret.jpg"), "of nobody").unwrap();
    let id = worker.publish(&claim, manifest).await;
    worker.succeed(&claim, None).await;

    let detail = service.read(&job_path, &admin).await;
    assert_eq!(detail["job"]["state"], "succeeded");
    assert_eq!(detail["media"]["streams"][0]["audio"]["sample_rate"], 48_000);
    assert_eq!(detail["checksums"]["md5"], "11".repeat(16));
    assert_eq!(
        (&detail["findings"][0]["code"], &detail["findings"][0]["task"]),
        (&json!("no_sidecar"), &json!("intake"))
    );
    let publication = &detail["publications"][0];
    assert_eq!(
        (&publication["state"], &publication["current"]),
        (&json!("published"), &json!(true))
    );
    let url = |name: &str| {
        let files = publication["files"].as_array().unwrap();
        let file = files.iter().find(|f| f["name"] == name).expect("the file is listed");
        file["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(publication["files"][0]["location"], "preview:film/v1/poster.jpg");
    assert_eq!(detail["job"]["poster_url"], url("poster.jpg"));

    let whole = service.get(&url("poster.jpg"), &admin).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let headers = whole.headers().clone();
    assert_eq!(headers["content-type"], "image/jpeg");
    assert_eq!(headers["content-length"], "36");
    assert_eq!(headers["accept-ranges"], "bytes");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    assert_eq!(whole.bytes().await.unwrap(), CONTENT);

    let ask = |name: &'static str, value: &str| {
        service.request(Method::GET, &url("kino/Фильм 1.mp4"), &admin).header(name, value).send()
    };
    for (range, content) in
        [("bytes=0-9", &CONTENT[..10]), ("bytes=30-", &CONTENT[30..]), ("bytes=-4", &CONTENT[32..])]
    {
        let part = ask("range", range).await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let start = 36 - content.len();
        let shown = part.headers()["content-range"].to_str().unwrap().to_owned();
        if range != "bytes=0-9" {
            assert_eq!(shown, format!("bytes {start}-35/36"));
        }
        assert_eq!(part.headers()["content-type"], "video/mp4");
        assert_eq!(part.bytes().await.unwrap(), content, "{range}");
    }
    let beyond = ask("range", "bytes=36-").await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()["content-range"], "bytes */36");
    let known = ask("if-none-match", headers["etag"].to_str().unwrap()).await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);

    // Other people's page is a download, not a page of ours.
    let page = service.get(&url("page.html"), &admin).await;
    assert_eq!(page.headers()["content-type"], "application/octet-stream");

    assert_eq!(service.get(&url("poster.jpg"), &crate::harness::As::Nobody).await.status(), 401);
    for name in ["secret.jpg", "..%2F..%2F..%2Fin%2Ffilm.mov", "manifest.json", "%2Fetc%2Fpasswd"] {
        let path = format!("/api/v1/publications/{id}/files/{name}");
        assert_eq!(problem(service.get(&path, &admin).await).await.0, 404, "{name}");
    }
    let path = format!("/api/v1/publications/{}/files/poster.jpg", id + 1);
    assert_eq!(problem(service.get(&path, &admin).await).await.0, 404);
    assert_eq!(problem(service.get(&url("gone.jpg"), &admin).await).await.0, 404);
    assert_eq!(problem(service.get(&url("short.jpg"), &admin).await).await.0, 500);
    service.stop().await;
}
