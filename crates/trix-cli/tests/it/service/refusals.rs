//! What must not be published is not, and says why.

use serde_json::json;

use super::rig::{PATIENCE, Site, pause, slow, sum};

#[tokio::test]
async fn bad_deliveries_fail_in_words_and_leave_nothing() {
    let site = Site::new();
    let source = site.title("Wrong.mov");
    let incoming = site.share("incoming");
    std::fs::write(incoming.join("Wrong.mov.md5"), format!("{}  Wrong.mov\n", "0".repeat(32)))
        .unwrap();
    std::fs::write(incoming.join("Letter.mov"), "Dear colleagues, the film follows.\n").unwrap();
    std::fs::write(site.path("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(site.path("secret"), incoming.join("link.mov")).unwrap();
    let before =
        (sum("sha256sum", &source), std::fs::metadata(&source).unwrap().modified().unwrap());
    let _up = site.up().await;

    // The sidecar says something else.
    let wrong = site.submit("Wrong.mov", "wrong").await;
    let wrong = site.failed(wrong).await;
    let failure = &wrong.0["job"]["failure"];
    assert_eq!(failure["code"], "checksum_mismatch", "{failure}");
    assert_eq!(failure["class"], "deterministic");
    assert_eq!(failure["origin"], "source");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("another md5 than Wrong.mov.md5"), "{message}");
    assert_eq!(wrong.attempts().len(), 1, "{}", wrong.text());

    // No media at all.
    let letter = site.submit("Letter.mov", "letter").await;
    let letter = site.failed(letter).await;
    let failure = &letter.0["job"]["failure"];
    assert_eq!(
        (&failure["class"], &failure["origin"]),
        (&json!("deterministic"), &json!("source"))
    );
    assert!(!failure["message"].as_str().unwrap().is_empty());
    assert_eq!(letter.attempts().len(), 1, "{}", letter.text());

    // Ways out of the share.
    for (path, status) in [
        ("incoming:../secret", 400),
        ("incoming:/etc/passwd", 400),
        ("incoming:a/../../secret", 400),
        ("incoming:link.mov", 400),
        ("nowhere:Wrong.mov", 404),
    ] {
        let body = json!({ "source": path, "profile": "small" });
        let (answered, problem) = site.api("POST", "/jobs", Some(body), Some(path)).await;
        assert_eq!(answered, status, "{path}: {problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{path}: {problem}");
    }

    for share in ["archive", "output", "preview"] {
        assert_eq!(site.visible(share), [""; 0], "on {share}");
    }
    let after =
        (sum("sha256sum", &source), std::fs::metadata(&source).unwrap().modified().unwrap());
    assert_eq!(before, after, "the source is as it was");
    site.no_debris().await;
}

#[tokio::test]
async fn a_cancelled_job_leaves_no_process_and_no_temporary_file() {
    let site = Site::new();
    site.title("Film.mov");
    let _up = site.up().await;
    let id = site.submit_with("Film.mov", "film", &slow()).await;
    site.midway(id, None).await;

    let (status, answer) =
        site.api("POST", &format!("/jobs/{id}/cancel"), Some(json!({})), None).await;
    assert_eq!(status, 200, "{answer}");
    let job = site.until(id, "the end", |j| j.state() == "cancelled").await;
    assert!(job.attempts().iter().all(|a| a["state"] != "running"), "{}", job.text());
    let begun = std::time::Instant::now();
    while !site.slots().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "slots still run: {:?}", site.users());
        pause().await;
    }
    site.no_debris().await;
    for share in ["output", "preview"] {
        assert_eq!(site.visible(share), [""; 0], "on {share}");
    }
}
