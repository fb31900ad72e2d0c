//! The checker of installations: a healthy one passes, and each planted violation is found
//! by the invariant that it breaks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use trix_chaos::check::install::{Submitted, tree_digest};
use trix_chaos::check::{Journals, Mounted, Report, check};
use trix_chaos::replay::trace;
use trix_chaos::world::{Setup, World};
use trix_db::Db;
use trix_model::Digest;
use trix_testkit::pg::TestDb;

/// A database with a history, at rest, and a destination that holds what it published.
struct Installation {
    test: TestDb,
    db: Db,
    shares: Vec<Mounted>,
    folder: tempfile::TempDir,
    journals: Journals,
}

impl Installation {
    async fn new() -> Installation {
        let test = TestDb::new().await.unwrap();
        // A whole run of a world: faults, healing, rest.
        let setup = Setup { seed: 3, steps: 200, broken: None, trace: false, record: true };
        let done = trace(&test, 3, &World::run(&setup).calls).await.unwrap();
        assert_eq!(done.difference, None);
        // The files of a world do not exist: here they get bytes.
        test.execute("update publication_file set size = 5, sha256 = sha256('bytes')")
            .await
            .unwrap();
        test.execute(r#"select audit_v1('{"ip": "", "action": "test", "object": "it"}')"#)
            .await
            .unwrap();
        let db = test.db();
        while db.sequence_events().await.unwrap().count > 0 {}
        let folder = tempfile::tempdir().unwrap();
        let snapshot = db.snapshot().await.unwrap();
        assert!(snapshot.publications.iter().any(|p| p.current));
        for f in &snapshot.files {
            write(&folder.path().join("out").join(&f.path), "bytes");
        }
        for p in &snapshot.publications {
            let manifest = format!("out/{}/v{}/manifest.json", p.target, p.version);
            write(&folder.path().join(manifest), "{}");
        }
        write(&folder.path().join("in/film.mov"), "film");
        std::fs::create_dir(folder.path().join("bare")).unwrap();
        let shares = vec![Mounted { name: "out".into(), root: folder.path().join("out") }];
        let sources = folder.path().join("in");
        let journals = Journals {
            submits: Some(
                (snapshot.jobs.iter())
                    .map(|j| Submitted { key: j.submit_key.clone(), job: j.id })
                    .collect(),
            ),
            consumers: Some(vec![(1..=snapshot.head).collect()]),
            golden: Some(
                (snapshot.files.iter()).map(|f| (format!("out:{}", f.path), f.sha256)).collect(),
            ),
            left_by_restores: BTreeMap::new(),
            sources: Some([(sources.clone(), tree_digest(&sources).unwrap())].into()),
            bare: Some(vec![folder.path().join("bare")]),
            canaries: Some(vec!["a secret that nobody says".into()]),
            mutations: Some(1),
            at_rest: true,
        };
        Installation { test, db, shares, folder, journals }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn check(&self) -> Report {
        check(&self.db, &self.shares, &self.journals).await.unwrap()
    }

    async fn assert_clean(&self, after: &str) {
        let report = self.check().await;
        assert!(report.violations.is_empty(), "after {after}: {:#?}", report.violations);
    }

    async fn assert_broken(&self, rule: &str) {
        let report = self.check().await;
        assert!(
            report.violations.iter().any(|v| v.rule == rule),
            "{rule}: {:?}",
            report.violations
        );
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A done task with a clean record and its own success, and its last attempt.
const TASK: &str =
    "(select t.id from task t join attempt x on x.task_id = t.id and x.epoch = t.epoch
    where t.state = 'done' and x.state = 'succeeded' and not x.result_lost
        and t.fail_counts = '{}' and t.need_mcpu = 1000 order by t.id limit 1)";

/// Rule, what breaks it, what mends it.
fn planted() -> Vec<(&'static str, String, String)> {
    let sql = |rule, plant: &str, undo: &str| {
        (
            rule,
            plant.replace("TASK", "(select id from picked)"),
            undo.replace("TASK", "(select id from picked)"),
        )
    };
    let event = |rule, values: &str| {
        let plant = format!("insert into event_in (job_id, task_id, kind, body) values {values}");
        (rule, plant, "delete from event_in".to_owned())
    };
    vec![
        sql(
            "I2",
            "alter table job drop constraint job_principal_id_submit_key_key;
             create table keys as select id, submit_key from job;
             update job set submit_key = (select submit_key from job order by id limit 1)",
            "update job set submit_key = k.submit_key from keys k where k.id = job.id; drop table keys",
        ),
        sql(
            "I3",
            "update task set state = 'running' where id = TASK",
            "update task set state = 'done' where id = TASK",
        ),
        sql(
            "I4",
            "update attempt set epoch = epoch + 5 where task_id = TASK",
            "update attempt set epoch = epoch - 5 where task_id = TASK",
        ),
        sql(
            "I5",
            "update attempt set result_lost = true where task_id = TASK",
            "update attempt set result_lost = false where task_id = TASK",
        ),
        event(
            "I6",
            r#"(null, null, 'worker.gone', '{"worker": 77}'),
               (null, (select id from picked), 'task.state',
                '{"from": "done", "to": "done", "worker": 77}')"#,
        ),
        sql(
            "I7",
            "update publication set version = version + 7 where id = 1",
            "update publication set version = version - 7 where id = 1",
        ),
        sql(
            "I12",
            "create table kept as select * from event_log where seq = 9;
             delete from event_log where seq = 9",
            "insert into event_log select * from kept; drop table kept",
        ),
        sql(
            "I14",
            "update task set state = 'running', need_mcpu = 1000000 where id = TASK;
             update attempt set state = 'running' where task_id = TASK and epoch =
                (select epoch from task where id = TASK)",
            "update attempt set state = 'succeeded' where task_id = TASK and state = 'running';
             update task set state = 'done', need_mcpu = 1000 where id = TASK",
        ),
        sql(
            "I15",
            "create table was as select id, state, current from publication where current limit 1;
             update publication set state = 'moving', current = false where id in (select id from was)",
            "update publication p set state = w.state, current = w.current from was w where w.id = p.id;
             drop table was",
        ),
        sql(
            "I17",
            r#"update task set fail_counts = '{"crash": 3}' where id = TASK"#,
            "update task set fail_counts = '{}' where id = TASK",
        ),
        event("I18", r#"(null, null, 'leader.takeover', '{"epoch": 1}')"#),
        event("I19", r#"(null, null, 'worker.lost', '{"worker": 77, "silent_ms": 5, "epoch": 1}')"#),
        sql(
            "I20",
            "alter table audit disable trigger all; create table spare as select * from audit;
             update audit set action = 'forged'",
            "update audit a set action = s.action from spare s where s.seq = a.seq; drop table spare",
        ),
        event("I22", r#"(null, null, 'note', '{"text": "a secret that nobody says"}')"#),
    ]
}

#[tokio::test]
async fn a_healthy_installation_passes_and_each_planted_violation_is_found() {
    let mut it = Installation::new().await;
    it.test.execute(&format!("create table picked as select {TASK} as id")).await.unwrap();
    it.assert_clean("a whole run").await;
    let looked = it.check().await.looked;
    let skipped: Vec<&str> = looked
        .iter()
        .filter(|(_, _, l)| matches!(l, trix_chaos::check::Looked::No(_)))
        .map(|(rule, ..)| *rule)
        .collect();
    assert_eq!(skipped, ["I21", "I23"]);
    assert_eq!(looked.len(), 23);

    for (rule, plant, undo) in planted() {
        it.test.execute(&plant).await.unwrap();
        it.assert_broken(rule).await;
        it.test.execute(&undo).await.unwrap();
        it.assert_clean(rule).await;
    }

    // Folders.
    let stray = it.path("out/films/stray.mp4");
    write(&stray, "x");
    it.assert_broken("I8").await;
    std::fs::remove_file(stray).unwrap();
    let published = it.db.snapshot().await.unwrap();
    let current = published.publications.iter().find(|p| p.current).unwrap().id;
    let file = published.files.iter().find(|f| f.publication_id == current).unwrap();
    let file = it.path("out").join(&file.path);
    write(&file, "other");
    it.assert_broken("I8").await;
    it.assert_broken("I9").await;
    write(&file, "bytes");
    it.assert_clean("files").await;
    write(&it.path("in/film.mov"), "film, and more");
    it.assert_broken("I11").await;
    it.journals.sources = None;
    write(&it.path("bare/file"), "x");
    it.assert_broken("I11").await;
    std::fs::remove_file(it.path("bare/file")).unwrap();
    std::fs::create_dir_all(it.path("out/.trix/stage/999999-1")).unwrap();
    it.assert_broken("I16").await;
    std::fs::remove_dir(it.path("out/.trix/stage/999999-1")).unwrap();
    it.assert_clean("folders").await;

    // Journals.
    let whole = it.journals.clone();
    let lost = Submitted { key: "lost".into(), job: 999 };
    it.journals.submits.get_or_insert_default().push(lost);
    it.assert_broken("I1").await;
    it.journals = whole.clone();
    it.journals.consumers = Some(vec![vec![1, 2, 4]]);
    it.assert_broken("I13").await;
    it.journals = whole.clone();
    it.journals.golden.get_or_insert_default().values_mut().for_each(|d| *d = Digest([9; 32]));
    it.assert_broken("I10").await;
    it.journals = whole.clone();
    it.journals.mutations = Some(2);
    it.assert_broken("I20").await;
    it.journals = whole;
    it.assert_clean("journals").await;
}

#[tokio::test]
async fn what_an_adoption_leaps_over_is_no_hole_and_every_other_leap_is() {
    let mut it = Installation::new().await;
    it.db.adopt().await.unwrap();
    while it.db.sequence_events().await.unwrap().count > 0 {}
    // The trail has the adoption, and consumers of the old log were told to begin anew.
    it.journals.mutations = Some(2);
    it.journals.consumers = None;
    it.assert_clean("an adoption").await;
    for (rule, plant, undo) in [
        (
            "I4",
            "update task set epoch = epoch + 4294967296",
            "update task set epoch = epoch - 4294967296",
        ),
        (
            "I12",
            "update event_log set kind = 'note' where kind = 'adopted'",
            "update event_log set kind = 'adopted' where kind = 'note'",
        ),
    ] {
        it.test.execute(plant).await.unwrap();
        it.assert_broken(rule).await;
        it.test.execute(undo).await.unwrap();
        it.assert_clean(rule).await;
    }
}

#[tokio::test]
async fn what_a_lost_history_left_on_a_share_stays_as_it_was() {
    let mut it = Installation::new().await;
    let left = it.path("out/films/left.mp4");
    write(&left, "left");
    it.assert_broken("I8").await;
    let sha256 = Digest(sha2::Sha256::digest("left").into());
    it.journals.left_by_restores.insert("out:films/left.mp4".into(), sha256);
    it.assert_clean("it was noted").await;
    write(&left, "overwritten");
    it.assert_broken("I8").await;
}

#[tokio::test]
async fn what_is_not_given_is_said_not_to_be_looked_at() {
    let test = TestDb::new().await.unwrap();
    let report = check(&test.db(), &[], &Journals::default()).await.unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let no = |rule: &str| {
        let line = report.looked.iter().find(|(r, ..)| *r == rule).unwrap();
        matches!(line.2, trix_chaos::check::Looked::No(_))
    };
    assert!(["I8", "I9", "I10", "I11", "I13", "I15", "I16", "I22"].iter().all(|r| no(r)));
    assert!(["I2", "I3", "I4", "I5", "I7", "I12", "I17", "I20"].iter().all(|r| !no(r)));
}
