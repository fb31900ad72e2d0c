//! Pruning the cache: only what nobody needs, and the row before the file.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trix_dispatch::DispatchConfig;
use trix_model::Key;
use trix_model::state::JobState;
use trix_storage::share::{Root, ShareRole};
use trix_storage::{Cache, Roots, StageName};
use trix_testkit::pg::TestDb;

use crate::support::*;

/// A cache share with an object of `size` bytes under each key.
fn cache(folder: &std::path::Path, keys: &[Key], size: usize) -> (Roots, Cache) {
    let root = Root { root: folder.into(), role: ShareRole::Cache };
    let roots = Roots::new([("cache".parse().unwrap(), root)]);
    let share = roots.open_writable(&"cache".parse().unwrap()).unwrap();
    let cache = Cache::on_share(&share, u64::MAX).unwrap();
    for (n, key) in keys.iter().enumerate() {
        let stage = cache.stage(&StageName::new(&format!("1-{n}")).unwrap()).unwrap();
        let name = "object".parse().unwrap();
        let mut file = stage.create_file(&name).unwrap();
        std::io::Write::write_all(&mut file, &vec![n as u8; size]).unwrap();
        file.sync().unwrap();
        drop(file);
        let digest =
            trix_storage::blake3_of(&mut stage.open_read(&name).unwrap(), "object").unwrap().0;
        cache.commit(&stage, &name, key, digest, None).unwrap();
    }
    (roots, cache)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_shrinks_to_its_limit_and_keeps_what_is_needed() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    let d = Dispatcher::start(&db, "one");
    let worker = Worker::start(&db, "a", serde_json::to_value(intake(0)).unwrap()).await;
    let done = submit(&db, "done").await;
    until(&db, done, succeeded).await;
    worker.kill().await;
    // Another film is planned, and the index that its intake made is needed from now on.
    let free = outputs(&t, done).await;
    let open = submit(&db, "open").await;
    run_one(&db, "b", serde_json::to_value(intake(0x55)).unwrap()).await;
    until(&db, open, |r| r.planned).await;
    assert_ne!(db.job(open).await.unwrap().unwrap().state, JobState::Failed);
    d.end().await;

    // The map of the stills has no picture in it, so both films share it.
    let needed: Vec<Key> = outputs(&t, open)
        .await
        .into_iter()
        .filter(|(_, name, _)| name == "index" || name == "map")
        .map(|(_, _, key)| key)
        .collect();
    assert_eq!(needed.len(), 2);
    let free: Vec<Key> =
        free.into_iter().map(|(_, _, key)| key).filter(|key| !needed.contains(key)).collect();
    assert!(free.len() > 5);
    let stray = Key([0xee; 32]);
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Key> = needed.iter().chain(&free).chain([&stray]).copied().collect();
    let (roots, cache) = cache(folder.path(), &all, 1000);

    let stop = CancellationToken::new();
    let prune = DispatchConfig {
        cache_limit: Some(2500),
        prune_every: Duration::from_millis(50),
        ..config(&db, roots)
    };
    let running = tokio::spawn(trix_dispatch::run(prune, stop.clone()));
    for _ in 0..1000 {
        if cache.list().unwrap().len() <= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    let left: Vec<Key> = cache.list().unwrap().into_iter().map(|(k, _, _)| k).collect();
    assert!(needed.iter().all(|key| left.contains(key)), "an unfinished task needs them");
    assert!(left.contains(&stray), "too young: its attempt may still report it");
    assert_eq!(left.len(), 3);
    assert!(db.artifacts(&free).await.unwrap().is_empty(), "no row without its file");
    assert_eq!(db.artifacts(&needed).await.unwrap().len(), 2);
}

/// (task, output, key) of a job.
async fn outputs(t: &TestDb, job: trix_model::JobId) -> Vec<(String, String, Key)> {
    use sqlx::Connection;
    let mut c = sqlx::PgConnection::connect(t.url()).await.unwrap();
    let rows: Vec<sqlx::types::Json<Value>> = sqlx::query_scalar(
        "select jsonb_build_array(t.name, o.name, encode(o.key, 'hex'))
         from output o join task t on t.id = o.task_id where t.job_id = $1",
    )
    .bind(job.0)
    .fetch_all(&mut c)
    .await
    .unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    rows.iter().map(|r| (text(&r.0[0]), text(&r.0[1]), text(&r.0[2]).parse().unwrap())).collect()
}
