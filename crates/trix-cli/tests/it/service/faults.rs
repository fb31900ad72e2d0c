//! Something dies in the middle, and nothing is lost.

use std::collections::BTreeMap;

use rustix::process::{Signal, kill_process};
use trix_testkit::clips;
use trix_testkit::pg::TestCluster;

use super::rig::{Job, Process, Site, pause, slow, sums};

impl Site {
    /// A worker of another node name, with one core, on the same shares.
    fn worker(&self, node: &str, database: &str) -> Process {
        let state = self.path(&format!("state-{node}"));
        let variables = [
            ("TRIX_CONF_NODE__NAME", node),
            ("TRIX_CONF_NODE__STATE", state.to_str().unwrap()),
            ("TRIX_CONF_WORKER__MCPU", "1000"),
        ];
        self.start(node, &["worker", "--database-url", database], &variables)
    }

    async fn await_nodes(&self, nodes: &[&str]) {
        loop {
            let (_, list) = self.api("GET", "/nodes", None, None).await;
            let active = |name: &&str| {
                (list["items"].as_array().into_iter().flatten())
                    .any(|n| n["name"] == *name && n["worker"]["state"] == "active")
            };
            if nodes.iter().all(active) {
                return;
            }
            pause().await;
        }
    }

    /// Renditions and proxy as they are published in version 1.
    fn published(&self, title: &str) -> BTreeMap<String, String> {
        let mut all = sums(&self.share("output").join(title).join("v1"), ".mp4");
        all.extend(sums(&self.share("preview").join(title).join("v1"), ".mp4"));
        all
    }
}

/// Every task has the one attempt that made its outputs, and no other.
fn nothing_repeated(job: &Job) {
    for task in job.tasks() {
        let tries = job.tries(task["name"].as_str().unwrap());
        let right = if task["cached"] == true { 0 } else { 1 };
        assert_eq!(tries, right, "{}: {}", task["name"], job.text());
    }
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_finishes_on_another_with_the_same_bytes() {
    let cluster = TestCluster::start().await.unwrap();
    let url = cluster.url();
    let site = Site::new();
    let source = site.title("Film.mov");
    let mut api = site.start("api", &["api", "--database-url", &url], &[]);
    let mut dispatcher = site.start("dispatcher", &["dispatcher", "--database-url", &url], &[]);
    let (mut a, mut b) = (site.worker("a", &url), site.worker("b", &url));
    site.ready(&mut [&mut api, &mut dispatcher, &mut a, &mut b]).await;
    site.await_nodes(&["a", "b"]).await;

    let id = site.submit_with("Film.mov", "film", &slow()).await;
    let (killed, done) = loop {
        site.midway(id, Some("a")).await;
        // Stopped, it reports nothing more: what it holds now, it holds when it dies.
        a.signal(Signal::STOP);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let job = site.until(id, "an answer", |_| true).await;
        let held = job.encoding(Some("a"));
        if !held.is_empty() {
            break (held, job.chunks("done"));
        }
        a.signal(Signal::CONT);
    };
    a.kill();

    let job = site.succeeded(id).await;
    for name in &killed {
        let states: Vec<_> = (job.attempts().iter())
            .filter(|a| a["name"] == *name)
            .map(|a| (a["node"].as_str().unwrap(), a["state"].as_str().unwrap()))
            .collect();
        assert_eq!(states, [("a", "lost"), ("b", "succeeded")], "{name}: {}", job.text());
    }
    for name in &done {
        assert_eq!(job.tries(name), 1, "{name} was done: {}", job.text());
    }

    // An undisturbed run, in one process, of the same plan.
    let profile = site.path("small.toml");
    std::fs::write(&profile, slow()).unwrap();
    let (out, cache) = (site.path("alone"), site.path("alone-cache"));
    let arguments = ["encode", source.to_str().unwrap(), "--profile", profile.to_str().unwrap()];
    let places = ["--out", out.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    let media = std::process::Command::new(env!("CARGO_BIN_EXE_trix"))
        .args(arguments)
        .args(places)
        .output()
        .unwrap();
    assert!(media.status.success(), "{}", String::from_utf8_lossy(&media.stderr));
    let mut alone = sums(&out, ".mp4");
    if let Some(proxy) = alone.remove("preview/proxy.mp4") {
        alone.insert("proxy.mp4".into(), proxy);
    }
    assert_eq!(alone.len(), 3, "{alone:?}");
    assert_eq!(site.published("Film"), alone);

    // When the node comes back, it removes what its killed process left.
    let mut a = site.worker("a", &url);
    site.ready(&mut [&mut a]).await;
    site.await_nodes(&["a"]).await;
    site.no_debris().await;
    assert!(site.slots().is_empty());
}

#[tokio::test]
async fn a_database_outage_repeats_nothing_that_was_done() {
    let mut cluster = TestCluster::start().await.unwrap();
    let site = Site::new();
    site.title("Film.mov");
    let mut up = site.start("up", &["up", "--database-url", &cluster.url()], &[]);
    site.ready(&mut [&mut up]).await;
    let id = site.submit_with("Film.mov", "film", &slow()).await;

    let slots = loop {
        site.midway(id, None).await;
        let slots = site.slots();
        for slot in &slots {
            // One that has just ended is no slot any more.
            let _ = kill_process(*slot, Signal::STOP);
        }
        if !slots.is_empty() {
            break slots;
        }
    };
    cluster.stop().unwrap();

    // The api says what is wrong, at once and in words.
    let problem = loop {
        let (status, answer) = site.api("GET", &format!("/jobs/{id}"), None, None).await;
        if status == 503 && answer["code"] == "database_unavailable" {
            break answer;
        }
        assert!(status == 200 || status == 503, "{status} {answer}");
        pause().await;
    };
    assert!(problem["title"].as_str().unwrap().contains("database"), "{problem}");
    assert_eq!(problem["class"], "transient");
    while site.http().get(site.url("/readyz")).send().await.unwrap().status() != 503 {
        pause().await;
    }

    // The attempts end while nobody can be told.
    for slot in &slots {
        let _ = kill_process(*slot, Signal::CONT);
    }
    while site.slots().iter().any(|s| slots.contains(s)) {
        pause().await;
    }
    cluster.restart().unwrap();

    let job = site.succeeded(id).await;
    nothing_repeated(&job);
    site.no_debris().await;
    drop(up);
}

#[tokio::test]
async fn a_cache_that_is_wiped_in_the_middle_is_made_again() {
    let cluster = TestCluster::start().await.unwrap();
    let site = Site::new();
    let source = site.title("Film.mov");
    let mut up = site.start("up", &["up", "--database-url", &cluster.url()], &[]);
    site.ready(&mut [&mut up]).await;
    let id = site.submit_with("Film.mov", "film", &slow()).await;

    let before = site.midway(id, None).await;
    let objects = site.share("cache").join("objects");
    for entry in std::fs::read_dir(&objects).unwrap().flatten() {
        // Somebody may be adding to it at this moment; what is new may stay.
        let _ = std::fs::remove_dir_all(entry.path());
    }

    let job = site.succeeded(id).await;
    let again = |name: &String| job.tries(name) > 1;
    let wiped = before.chunks("done");
    assert!(wiped.iter().any(again), "{wiped:?} were wiped:\n{}", job.text());
    let count = clips::probe(&source, "v:0", "nb_read_frames");
    for name in ["full", "half"] {
        let file = site.share("output").join(format!("Film/v1/{name}.mp4"));
        assert_eq!(clips::probe(&file, "v:0", "nb_read_frames"), count, "{name}");
    }
    site.no_debris().await;
}
