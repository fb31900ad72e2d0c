//! What a worker does when nothing is wrong, and when somebody changes his mind.

use std::time::Duration;

use rustix::process::Signal;
use trix_db::ProtocolTimes;
use trix_model::state::{AttemptState, JobState, NodeState, TaskState};
use trix_testkit::pg::TestDb;

use crate::support::{Site, all_dead, files, times};

#[tokio::test(flavor = "multi_thread")]
async fn a_title_goes_all_the_way() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0", "audio/1", "audio/2"], true).await;
    site.done(job).await;
    site.nothing_repeated(job).await;
    assert_eq!(site.names("out/titles/film"), ["v1"]);
    assert_eq!(site.names("out/titles/film/v1"), ["film.mp4", "manifest.json"]);
    site.no_debris();

    // The published bytes are those of the artifact that the mux task made.
    let rows = site.db.publications(job).await.unwrap();
    let wanted = rows[0].manifest.files[0].blake3.unwrap();
    let bytes = std::fs::read(site.path("out/titles/film/v1/film.mp4")).unwrap();
    assert_eq!(blake3::hash(&bytes).as_bytes(), wanted.as_bytes());
    let manifest = std::fs::read_to_string(site.path("out/titles/film/v1/manifest.json")).unwrap();
    assert!(manifest.contains(&rows[0].manifest.files[0].sha256.to_string()), "{manifest}");

    // Its lines and what it took are there to look at.
    let attempts = site.attempts(job, "audio/1").await;
    let attempt = trix_model::AttemptId { task: attempts[0].task, epoch: attempts[0].epoch };
    let log = site.db.attempt_log(attempt).await.unwrap();
    assert!(log.iter().any(|line| line == "toy: audio/1 on stderr"), "{log:?}");
    assert!(attempts[0].usage.unwrap().max_rss > 0, "{attempts:?}");

    // The same title again is already published: nothing is made, nothing is moved.
    let again = site.submit("film", &["audio/0", "audio/1", "audio/2"], true).await;
    assert_eq!(again, job, "the same key is the same job");
    worker.term();
}

/// With a beat of ten minutes nothing but a hint brings a worker to ask.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_is_woken_by_new_work_and_a_busy_one_by_a_cancel() {
    let database = TestDb::new().await.unwrap();
    // A lost hint costs one beat; far more than the few milliseconds that a hint takes.
    let long = std::time::Duration::from_secs(20);
    let times = ProtocolTimes {
        beat: long,
        beat_small: long,
        suspect: long * 2,
        lost: long * 3,
        ping_silent: long,
        ..times()
    };
    let mut site = Site::with_times(database.url(), times).await;
    let worker = site.worker("one", 2000).await;
    let mut waited = Vec::new();
    for n in 0..20 {
        let job = site.submit(&format!("film {n}"), &["audio/0"], false).await;
        site.done(job).await;
        let submitted = site.db.job(job).await.unwrap().unwrap().created_at;
        let claimed = site.attempts(job, "intake").await[0].started_at;
        waited.push((claimed - submitted).as_seconds_f64() * 1000.0);
    }
    waited.sort_by(f64::total_cmp);
    let beats = waited.iter().filter(|ms| **ms > long.as_secs_f64() * 500.0).count();
    assert!(beats < 10, "{beats} of 20 waited for the beat: {waited:?}");
    println!(
        "idle, from submit to claim: p50 {:.1} ms, p90 {:.1} ms, worst {:.1} ms of {}",
        waited[waited.len() / 2],
        waited[waited.len() * 9 / 10],
        waited[waited.len() - 1],
        waited.len()
    );

    let job = site.submit("slow", &["audio/0/slow-60000"], false).await;
    site.state(job, "audio/0/slow-60000", TaskState::Running).await;
    let asked = std::time::Instant::now();
    site.db.cancel(job).await.unwrap();
    site.until("the job is cancelled", || async {
        Some(site.db.job(job).await.ok()??.state == JobState::Cancelled)
    })
    .await;
    println!("from cancel to cancelled: {:.1} ms", asked.elapsed().as_secs_f64() * 1000.0);
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_no_process_and_no_file() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 2000).await;
    let job = site.submit("film", &["audio/0/slow-60000", "audio/1/slow-60000"], true).await;
    site.running(job, "audio/0/slow-60000").await;
    site.running(job, "audio/1/slow-60000").await;
    let slots = worker.slots();
    assert_eq!(slots.len(), 2);
    site.db.cancel(job).await.unwrap();
    site.until("the job is cancelled", || async {
        Some(site.db.job(job).await.ok()??.state == JobState::Cancelled)
    })
    .await;
    all_dead(&slots);
    site.no_debris();
    assert_eq!(site.names("out/titles"), Vec::<String>::new());
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_releases_its_work_and_leaves_no_child() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0/slow-4000"], true).await;
    site.running(job, "audio/0/slow-4000").await;
    let slots = worker.slots();
    let second = site.worker("two", 1000).await;
    worker.term();
    all_dead(&slots);
    assert_eq!(site.active("one").await, None);
    site.done(job).await;
    let attempts = site.attempts(job, "audio/0/slow-4000").await;
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "released");
    assert_eq!((attempts.len(), &*attempts[1].node), (2, "two"));
    site.no_debris();
    second.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_and_ends() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let mut worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0/slow-1500"], false).await;
    site.running(job, "audio/0/slow-1500").await;
    site.db.drain(site.active("one").await.unwrap()).await.unwrap();
    let status = tokio::task::spawn_blocking(move || worker.child.wait().unwrap()).await.unwrap();
    assert!(status.success());
    site.done(job).await;
    site.nothing_repeated(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_source_ends_the_job_at_once() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let job = site.submit("film", &["audio/0"], true).await;
    std::fs::write(site.path("in/film.mov"), b"another film altogether").unwrap();
    let _worker = site.worker("one", 1000).await;
    site.state(job, "intake", TaskState::Failed).await;
    let attempts = site.attempts(job, "intake").await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "source_changed");
    site.no_debris();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_while_it_is_read_is_found_out() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let _worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0/slow-1500"], true).await;
    site.running(job, "audio/0/slow-1500").await;
    std::fs::write(site.path("in/film.mov"), b"another film altogether").unwrap();
    site.state(job, "audio/0/slow-1500", TaskState::Failed).await;
    let attempts = site.attempts(job, "audio/0/slow-1500").await;
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "source_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_refusals_end_as_their_classes_say() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let _worker = site.worker("one", 2000).await;
    let once = site.submit("once", &["audio/crash-1"], true).await;
    let always = site.submit("always", &["audio/segfault"], true).await;
    let refused = site.submit("refused", &["audio/fail"], true).await;
    site.done(once).await;
    let attempts = site.attempts(once, "audio/crash-1").await;
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "crashed");
    assert_eq!(attempts[1].state, AttemptState::Succeeded);
    site.state(always, "audio/segfault", TaskState::Quarantined).await;
    assert_eq!(site.attempts(always, "audio/segfault").await.len(), 2);
    site.state(refused, "audio/fail", TaskState::Failed).await;
    let attempts = site.attempts(refused, "audio/fail").await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].failure.as_ref().unwrap().code, "no_video");
    site.no_debris();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_cannot_share_a_state_folder() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let first = site.worker("one", 1000).await;
    site.until("it is registered", || async { Some(site.active("one").await.is_some()) }).await;
    let mut second = site.worker("one", 1000).await;
    let status = tokio::task::spawn_blocking(move || second.child.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    first.signal(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_the_workers_own_even_if_a_slot_made_them() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let _worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0"], false).await;
    site.done(job).await;
    let made = files(&site.path("cache/objects"));
    assert!(made.len() >= 2, "{made:?}");
    let me = rustix::process::geteuid().as_raw();
    for file in made {
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&file).unwrap());
        assert_eq!(owner, me, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_gives_the_known_answer_is_noted_and_works_on() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    site.until("the answer was told", || async {
        Some(site.db.explain_node("one").await.ok()?.self_tests == 1)
    })
    .await;
    let job = site.submit("film", &["audio/0"], false).await;
    site.done(job).await;
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_gives_a_wrong_answer_gets_no_work() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    site.slot_args = &["slot", "sick"];
    let _sick = site.worker("sick", 1000).await;
    site.until("the node is closed", || async {
        Some(site.db.explain_node("sick").await.ok()?.state == NodeState::Cordoned)
    })
    .await;
    let job = site.submit("film", &["audio/0"], false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.db.attempts(job).await.unwrap().len(), 0);
    site.slot_args = &["slot"];
    let well = site.worker("well", 1000).await;
    site.done(job).await;
    for attempt in site.db.attempts(job).await.unwrap() {
        assert_eq!(attempt.node, "well", "{attempt:?}");
    }
    well.term();
}
