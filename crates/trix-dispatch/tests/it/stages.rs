//! Stages of jobs that are over are removed: this cluster's, and nobody else's.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trix_model::state::JobState;
use trix_model::{AttemptId, Epoch, TaskId};
use trix_storage::share::{Root, ShareRole};
use trix_storage::{ClusterTag, Roots, StageName};
use trix_testkit::pg::TestDb;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_two_clusters_is_swept_of_ones_own_stages_only() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let over = submit(&db, "over").await;
    let open = submit(&db, "open").await;
    assert_eq!(db.cancel(over).await.unwrap(), JobState::Cancelled);
    let mut attempts = Vec::new();
    for job in [over, open] {
        let task = db.tasks(job).await.unwrap()[0].id;
        attempts.push(AttemptId { task, epoch: Epoch(1) });
    }

    let folder = tempfile::tempdir().unwrap();
    let root = Root { root: folder.path().into(), role: ShareRole::Output };
    let roots = Roots::new([("archive".parse().unwrap(), root)]);
    let share = roots.open_writable(&"archive".parse().unwrap()).unwrap();
    let ours = ClusterTag::from(db.cluster_id().await.unwrap());
    let theirs = ClusterTag::from(uuid::Uuid::max());
    assert_ne!(ours, theirs);
    let stage = |cluster, attempt| {
        let name = StageName::of(cluster, attempt);
        share.stage(&name).unwrap();
        folder.path().join(".trix/stage").join(name.as_str())
    };
    // Of a history that a restored database has lost.
    let unknown = AttemptId { task: TaskId(1 << 40), epoch: Epoch(1) };
    let swept = [stage(ours, attempts[0]), stage(ours, unknown)];
    let kept = [stage(ours, attempts[1]), stage(theirs, attempts[0])];

    let stop = CancellationToken::new();
    let running = tokio::spawn(trix_dispatch::run(config(&db, roots), stop.clone()));
    for _ in 0..1000 {
        if !swept.iter().any(|stage| stage.exists()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(!swept[0].exists(), "its job is over");
    assert!(!swept[1].exists(), "nobody will ever know its task");
    assert!(kept.iter().all(|stage| stage.exists()), "one is needed, the other is not ours");
}
