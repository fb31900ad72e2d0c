//! Publication: the fence, the roll-forward, the archive copy.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trix_db::operate::Scope;
use trix_db::worker::StoreFuture;
use trix_db::{
    Credentials, Db, DbError, Manifest, Publication, RegisterRequest, Registered, Resources,
    SyncReply, SyncRequest, WorkerStore,
};
use trix_model::state::{AttemptState, NodeState, PublicationState, TaskState};
use trix_model::{AttemptId, Digest, WorkerId};
use trix_plan::task::{CopySource, Intake, Publish, PublishFile, PublishFrom, TaskSpec};
use trix_storage::ShareRole;
use trix_testkit::pg::TestDb;
use trix_worker::{ShareMount, WorkerConfig};

use crate::support::{Site, example, plan, task, times};

/// The database as seen by a worker that is cut off at the very end of a publication.
struct CutAtTheEnd(Db);

impl WorkerStore for CutAtTheEnd {
    fn register(&self, request: RegisterRequest) -> StoreFuture<'_, Registered> {
        self.0.register(request)
    }

    fn sync(&self, request: SyncRequest) -> StoreFuture<'_, SyncReply> {
        self.0.sync(request)
    }

    fn supersede(&self, me: Credentials, old: WorkerId) -> StoreFuture<'_, u64> {
        self.0.supersede(me, old)
    }

    fn leave(&self, me: Credentials) -> StoreFuture<'_, ()> {
        self.0.leave(me)
    }

    fn prepare_publication(
        &self,
        me: Credentials,
        attempt: AttemptId,
        manifest: Manifest,
    ) -> StoreFuture<'_, Publication> {
        self.0.prepare_publication(me, attempt, manifest)
    }

    fn begin_move(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()> {
        self.0.begin_move(me, attempt)
    }

    fn published(&self, _: Credentials, _: AttemptId, _: Value) -> StoreFuture<'_, ()> {
        let after = Duration::from_millis(1);
        Box::pin(async move { Err(DbError::Deadline { operation: "publishing", after }) })
    }

    fn publication_conflict(
        &self,
        me: Credentials,
        attempt: AttemptId,
        message: String,
    ) -> StoreFuture<'_, ()> {
        self.0.publication_conflict(me, attempt, message)
    }

    fn self_test(
        &self,
        me: Credentials,
        given: Digest,
        expected: Digest,
    ) -> StoreFuture<'_, NodeState> {
        self.0.self_test(me, given, expected)
    }

    fn retracted(&self, me: Credentials, attempt: AttemptId) -> StoreFuture<'_, ()> {
        self.0.retracted(me, attempt)
    }
}

async fn config(site: &mut Site, node: &str, store: Arc<dyn WorkerStore>) -> WorkerConfig {
    let share = |name: &str, role| ShareMount {
        name: name.parse().unwrap(),
        root: site.path(name),
        role,
        marker: None,
        remount: false,
    };
    let shares = vec![
        share("in", ShareRole::Source),
        share("out", ShareRole::Output),
        share("cache", ShareRole::Cache),
    ];
    WorkerConfig {
        node: node.to_owned(),
        state: site.path(&format!("state-{node}")),
        node_token: site.token(node).await,
        shares,
        cache: "cache".parse().unwrap(),
        max_object: 1 << 30,
        capacity: Resources { mcpu: 1000, ram: 8 << 30, scratch: 8 << 30 },
        launcher: trix_slot::Launcher::new(example("worker_toy_slot")),
        prober: trix_worker::Prober::new(example("worker_process"), &["probe"]),
        mount_helper: None,
        slot_user: Some((65534, 65534)),
        store,
        times: times(),
        drain_limit: Duration::from_millis(100),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_cut_off_is_finished_by_another_worker() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let store = Arc::new(CutAtTheEnd(site.db.clone()));
    let stop = CancellationToken::new();
    let config = config(&mut site, "one", store).await;
    let cut = tokio::spawn(trix_worker::run(config, stop.clone()));
    let job = site.submit("film", &["audio/0"], true).await;
    site.until("all is in place but the last word", || async {
        let there = site.names("out/titles/film/v1").len() == 2;
        let rows = site.db.publications(job).await.ok()?;
        Some(there && rows.first()?.state == PublicationState::Moving)
    })
    .await;
    stop.cancel();
    cut.await.unwrap().unwrap();
    site.until("the task waits to be rolled forward", || async {
        let task = site.task(job, "publish/output").await?;
        Some(task.state == TaskState::Ready && task.roll_forward)
    })
    .await;
    let before = std::fs::metadata(site.path("out/titles/film/v1/film.mp4")).unwrap();
    let worker = site.worker("two", 1000).await;
    site.done(job).await;
    let rows = site.db.publications(job).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].version, rows[0].state), (1, PublicationState::Published));
    assert_eq!(site.names("out/titles/film"), ["v1"]);
    // The very file, not one like it.
    let after = std::fs::metadata(site.path("out/titles/film/v1/film.mp4")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(after.ino(), before.ino());
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_at_the_place_stops_the_publication_and_stays() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    std::fs::create_dir_all(site.path("out/titles/film/v1")).unwrap();
    std::fs::write(site.path("out/titles/film/v1/film.mp4"), "somebody else's").unwrap();
    let worker = site.worker("one", 1000).await;
    let job = site.submit("film", &["audio/0"], true).await;
    site.state(job, "publish/output", TaskState::Failed).await;
    let attempts = site.attempts(job, "publish/output").await;
    assert_eq!(attempts.last().unwrap().failure.as_ref().unwrap().code, "publish_conflict");
    let rows = site.db.publications(job).await.unwrap();
    assert_eq!(rows[0].state, PublicationState::Conflict);
    let there = std::fs::read_to_string(site.path("out/titles/film/v1/film.mp4")).unwrap();
    assert_eq!(there, "somebody else's");
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_under_another_job_are_published_once() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    // Two titles with other keys, whose bytes go to the same place.
    let again = archive(&site, "again", sha256(&site));
    let first = archive(&site, "first", sha256(&site));
    let first = site.submit_plans("first", first.0, first.1).await;
    site.done(first).await;
    let again = site.submit_plans("again", again.0, again.1).await;
    site.done(again).await;
    assert_eq!(site.names("out/archive/film"), ["v1"]);
    let detail = site.db.task_detail(again, "publish/archive").await.unwrap().unwrap();
    assert_eq!(detail["version"], 1, "{detail}");
    site.no_debris();
    worker.term();
}

fn sha256(site: &Site) -> Digest {
    let share = trix_storage::Share::open("in".parse().unwrap(), &site.path("in")).unwrap();
    let mut file = share.open_read(&"film.mov".parse().unwrap()).unwrap();
    trix_storage::fixity::publish_digests_of(&mut file, "film.mov").unwrap().sha256
}

/// Intake, a bit-exact copy, and its publication.
fn archive(
    site: &Site,
    title: &str,
    sha256: Digest,
) -> (trix_plan::task::Plan, trix_plan::task::Plan) {
    let source = site.source();
    let intake = Intake { source: source.clone(), sidecars: Vec::new(), tee: None };
    let copy = CopySource { source, share: "out".parse().unwrap(), sha256 };
    let publish = Publish {
        share: "out".parse().unwrap(),
        target: "archive/film".parse().unwrap(),
        role: "archive".into(),
        files: vec![PublishFile {
            name: "film.mov".parse().unwrap(),
            from: PublishFrom::Staged { task: "archive/copy".into(), sha256 },
        }],
    };
    (
        plan(vec![task(title, "intake", TaskSpec::Intake(intake), &[], &["index"])]),
        plan(vec![
            task(title, "archive/copy", TaskSpec::Copy(copy), &["intake"], &[]),
            task(title, "publish/archive", TaskSpec::Publish(publish), &["archive/copy"], &[]),
        ]),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_copy_is_the_delivery_bit_by_bit_and_its_manifest_proves_it() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let (plan0, plan1) = archive(&site, "film", sha256(&site));
    let job = site.submit_plans("film", plan0, plan1).await;
    site.done(job).await;
    site.nothing_repeated(job).await;
    let source = std::fs::read(site.path("in/film.mov")).unwrap();
    assert_eq!(std::fs::read(site.path("out/archive/film/v1/film.mov")).unwrap(), source);
    let manifest = std::fs::read(site.path("out/archive/film/v1/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let proof = &manifest["files"][0]["source"];
    assert_eq!(proof["location"], "in:film.mov", "{manifest}");
    assert!(proof["hashes"]["md5"].is_string(), "{manifest}");
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_published_before_the_database_was_restored_is_taken_from_its_place() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let publishing = Scope::Kind("publish".into());
    site.db.hold(&publishing, "until the file was moved").await.unwrap();
    let (plan0, plan1) = archive(&site, "film", sha256(&site));
    let job = site.submit_plans("film", plan0, plan1).await;
    site.state(job, "archive/copy", TaskState::Done).await;
    // What the database does not know of: the file is in its place already, and a version
    // with other bytes of the same length stands before it.
    let stage = site.names("out/.trix/stage").remove(0);
    let staged = site.path("out/.trix/stage").join(stage).join("source");
    let source = std::fs::read(&staged).unwrap();
    for version in ["v1", "v2"] {
        std::fs::create_dir_all(site.path("out/archive/film").join(version)).unwrap();
    }
    std::fs::write(site.path("out/archive/film/v1/film.mov"), vec![b'x'; source.len()]).unwrap();
    std::fs::rename(&staged, site.path("out/archive/film/v2/film.mov")).unwrap();
    assert!(site.db.lift(&publishing).await.unwrap());
    // Its version is not the database's first: that one is somebody else's, and stays.
    site.state(job, "publish/archive", TaskState::Failed).await;
    let attempts = site.attempts(job, "publish/archive").await;
    assert_eq!(attempts.last().unwrap().failure.as_ref().unwrap().code, "publish_conflict");
    site.db.retry(job).await.unwrap();
    site.done(job).await;
    assert_eq!(std::fs::read(site.path("out/archive/film/v2/film.mov")).unwrap(), source);
    assert!(site.path("out/archive/film/v2/manifest.json").exists());
    assert_eq!(site.names("out/archive/film"), ["v1", "v2"]);
    site.no_debris();
    worker.term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_other_bytes_than_intake_read_is_not_published() {
    let database = TestDb::new().await.unwrap();
    let mut site = Site::new(database.url()).await;
    let worker = site.worker("one", 1000).await;
    let (plan0, plan1) = archive(&site, "film", Digest([9; 32]));
    let job = site.submit_plans("film", plan0, plan1).await;
    site.state(job, "archive/copy", TaskState::Failed).await;
    let attempts = site.attempts(job, "archive/copy").await;
    assert_eq!(attempts.len(), 2, "once more, then for good: {attempts:?}");
    assert!(attempts.iter().all(|a| a.state == AttemptState::Failed));
    assert_eq!(attempts[1].failure.as_ref().unwrap().code, "source_unstable");
    assert_eq!(site.names("out/archive"), Vec::<String>::new());
    site.no_debris();
    worker.term();
}
