//! The life of a job, from submit to published.

use trix_db::Outcome;
use trix_model::ErrorClass;
use trix_model::state::{JobState, PublicationState, TaskState};

use crate::support::*;

#[tokio::test]
async fn a_job_goes_from_intake_to_published() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    assert_eq!(w.state(job).await, JobState::Accepted);
    let fake = w.worker("a").await;

    let claims = fake.claim(4).await;
    assert_eq!(names(&claims), ["intake"]);
    assert_eq!(claims[0].missing.len(), 1);
    assert_eq!(w.state(job).await, JobState::Inspecting);
    let mut r = fake.request(0);
    r.progress = vec![progress(claims[0].attempt)];
    assert!(fake.sync(r).await.claims.is_empty(), "what the worker names is not claimed again");
    assert_eq!(w.task(job, "intake").await.progress.unwrap().total, 4);
    assert!(w.leader.jobs_to_plan(9).await.unwrap().is_empty());
    fake.end(claims[0].attempt, ok(&claims[0])).await;

    let to_plan = w.leader.jobs_to_plan(9).await.unwrap();
    assert_eq!(to_plan.len(), 1);
    assert_eq!(to_plan[0].job, job);
    assert_eq!(to_plan[0].tasks[0].detail["planning_index"], "AAAA");
    assert_eq!(to_plan[0].tasks[0].task, plan0("film").tasks[0]);
    assert!(w.leader.append_plan(job, &plan1("film")).await.unwrap());
    assert!(!w.leader.append_plan(job, &plan1("film")).await.unwrap(), "only once");
    assert_eq!(w.state(job).await, JobState::Running);

    let done = fake.run_all(&w.db).await;
    assert_eq!(done, ["encode/0000", "encode/0001", "mux/r", "verify/r", "publish/output"]);
    let row = w.job(job).await;
    assert_eq!(row.state, JobState::Succeeded);
    assert_eq!((row.counts.total, row.counts.done, row.counts.cached), (6, 6, 0));
    assert_eq!(row.counts.estimate_ms, row.counts.done_ms);
    assert!(row.ended_at.is_some());

    let attempts = w.db.attempts(job).await.unwrap();
    assert_eq!(attempts.len(), 6);
    assert!(attempts.iter().all(|a| a.usage.unwrap().cpu_ms == 5 && a.node == "a"));
    let log = w.db.attempt_log(claims[0].attempt).await.unwrap();
    assert_eq!(log, ["a line", "the end\u{fffd}"]);
    let findings = w.db.findings(job).await.unwrap();
    assert_eq!((findings.len(), findings[0].task.as_str()), (1, "intake"));
    let publications = w.db.publications(job).await.unwrap();
    assert_eq!(publications[0].state, PublicationState::Published);
    assert!(publications[0].current && publications[0].version == 1);
}

#[tokio::test]
async fn the_second_submit_of_a_title_runs_only_what_has_an_effect() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    w.planned("film", &fake, plan1("film")).await;
    fake.run_all(&w.db).await;

    let job = w.submit("again", plan0("film")).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);
    let to_plan = w.leader.jobs_to_plan(9).await.unwrap();
    assert!(to_plan[0].tasks[0].cache_hit);
    assert!(to_plan[0].tasks[0].detail.get("staged").is_none(), "it was staged for another job");
    assert!(w.leader.append_plan(job, &plan1("film")).await.unwrap());
    assert_eq!(fake.run_all(&w.db).await, ["publish/output"]);
    assert_eq!(w.state(job).await, JobState::Succeeded);
    let p = w.db.publications(job).await.unwrap();
    assert_eq!((p.len(), p[0].version), (1, 1), "the same files are the same version");
}

#[tokio::test]
async fn what_only_cached_tasks_need_is_not_made_again() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    w.planned("film", &fake, plan1("film")).await;
    fake.run_all(&w.db).await;
    // The cache pruned the chunks, as it may once nobody needs them.
    for k in ["c0 film", "c1 film"] {
        assert!(w.leader.forget_artifact(key(k)).await.unwrap());
    }
    let job = w.submit("again", plan0("film")).await;
    w.leader.append_plan(job, &plan1("film")).await.unwrap();
    assert!(!w.task(job, "encode/0000").await.needed);
    assert_eq!(fake.run_all(&w.db).await, ["publish/output"]);
    assert_eq!(w.state(job).await, JobState::Succeeded);
    assert_eq!(w.task(job, "encode/0000").await.state, TaskState::Skipped);
}

#[tokio::test]
async fn a_lost_artifact_sends_its_maker_back() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    let job = w.planned("film", &fake, plan1("film")).await;
    for _ in 0..2 {
        let c = fake.claim(1).await;
        fake.end(c[0].attempt, ok(&c[0])).await;
    }
    let mux = fake.claim(1).await.remove(0);
    assert_eq!(mux.name, "mux/r");
    assert_eq!(mux.inputs.len(), 2);
    fake.end(mux.attempt, Outcome::MissingInputs(vec![key("c1 film"), key("stranger")])).await;
    assert_eq!(w.task(job, "encode/0001").await.state, TaskState::Ready);
    assert_eq!(w.task(job, "encode/0000").await.state, TaskState::Done);
    let blocked = w.task(job, "mux/r").await;
    assert_eq!((blocked.state, blocked.deps_left), (TaskState::Ready, 1));
    assert_eq!(fake.run_all(&w.db).await, ["encode/0001", "mux/r", "verify/r", "publish/output"]);
    assert_eq!(w.state(job).await, JobState::Succeeded);
    let lost = w.db.attempts(job).await.unwrap().iter().filter(|a| a.result_lost).count();
    assert_eq!(lost, 1);
    assert_eq!(w.leader.repair().await.unwrap(), Default::default());
}

#[tokio::test]
async fn an_artifact_that_the_database_forgot_is_made_before_its_reader_runs() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    let job = w.planned("film", &fake, plan1("film")).await;
    assert!(!w.leader.forget_artifact(key("index film")).await.unwrap(), "it is needed");
    // By force, as if the row were lost with a restored backup.
    value(
        w.test.url(),
        "with d as (delete from artifact returning 1) select to_jsonb(count(*)) from d",
    )
    .await;
    assert_eq!(
        fake.run_all(&w.db).await,
        ["intake", "encode/0000", "encode/0001", "mux/r", "verify/r", "publish/output"]
    );
    assert_eq!(w.state(job).await, JobState::Succeeded);
}

#[tokio::test]
async fn of_two_jobs_with_the_same_keys_one_works_and_both_end() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    let one = w.submit("one", plan0("film")).await;
    let two = w.submit("two", plan0("film")).await;
    let claims = a.claim(4).await;
    assert_eq!(claims.len(), 1, "the twin waits for the key that is being made");
    assert!(b.claim(4).await.is_empty());
    a.end(claims[0].attempt, ok(&claims[0])).await;
    assert!(b.claim(4).await.is_empty(), "the twin is a cache hit");
    assert!(w.task(two, "intake").await.cache_hit);
    assert_eq!(w.leader.jobs_to_plan(9).await.unwrap().len(), 2);
    for job in [one, two] {
        w.leader.append_plan(job, &plan1("film")).await.unwrap();
    }
    let mut ran = a.run_all(&w.db).await;
    ran.sort();
    assert_eq!(
        ran,
        ["encode/0000", "encode/0001", "mux/r", "publish/output", "publish/output", "verify/r"]
    );
    assert_eq!(
        (w.state(one).await, w.state(two).await),
        (JobState::Succeeded, JobState::Succeeded)
    );
}

#[tokio::test]
async fn a_result_without_all_outputs_is_our_bug_not_a_success() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let c = fake.claim(1).await.remove(0);
    let empty = trix_plan::task::TaskResult { outputs: vec![], detail: None };
    fake.end(c.attempt, Outcome::Ok(empty)).await;
    let row = w.job(job).await;
    assert_eq!(row.state, JobState::Failed);
    let f = row.failure.unwrap();
    assert_eq!((f.class, f.code.as_str()), (ErrorClass::Deterministic, "outputs_missing"));
}

#[tokio::test]
async fn a_foreign_key_in_a_result_registers_nothing() {
    let w = World::new().await;
    let fake = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    let c = fake.claim(1).await.remove(0);
    let Outcome::Ok(mut r) = ok(&c) else { unreachable!() };
    r.outputs.push(trix_plan::task::MadeOutput {
        name: "evil".into(),
        key: key("somebody else's"),
        digest: digest(9),
        size: 1,
    });
    fake.end(c.attempt, Outcome::Ok(r)).await;
    let found = w.db.artifacts(&[key("somebody else's"), key("index film")]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, key("index film"));
}

#[tokio::test]
async fn the_first_result_under_a_key_wins_and_another_one_is_an_event() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    // Two tasks with one key run at once, as after two claims in the same instant.
    let one = w.submit("one", plan0("film")).await;
    let c1 = a.claim(1).await.remove(0);
    execute(w.test.url(), "update task set engine = 'hidden'").await.unwrap();
    let two = w.submit("two", plan0("film")).await;
    let wake = "update task set state = 'ready' where engine = 'hidden'";
    execute(w.test.url(), wake).await.unwrap();
    let c2 = b.claim(1).await.remove(0);
    assert_eq!((c1.job, c2.job), (one, two));
    let back = "update task set state = 'running', engine = 'engine-1' where engine = 'hidden'";
    execute(w.test.url(), back).await.unwrap();
    let other = |c: &trix_db::Claim| {
        let Outcome::Ok(mut r) = ok(c) else { unreachable!() };
        r.outputs[0].digest = digest(0xee);
        Outcome::Ok(r)
    };
    a.end(c1.attempt, ok(&c1)).await;
    b.end(c2.attempt, other(&c2)).await;
    let kept = w.db.artifacts(&[key("index film")]).await.unwrap();
    assert_eq!(kept[0].digest, trix_model::Digest(key("index film").0));
    let differs: Vec<_> =
        w.events().await.into_iter().filter(|e| e.kind == "artifact.differs").collect();
    assert_eq!((differs.len(), differs[0].job), (1, Some(two)));
    assert_eq!(differs[0].body["dropped"], digest(0xee).to_string());
    assert_eq!(w.task(two, "intake").await.state, TaskState::Done);
}

/// The maker of two artifacts is under way with one of them, because the cache had the
/// other, and just then that other one is lost: its result is no mistake of the worker's,
/// and the next attempt makes what is missing.
#[tokio::test]
async fn a_maker_under_way_when_its_other_artifact_is_lost_runs_again() {
    let w = World::new().await;
    let a = w.worker("a").await;
    // One chunk task with two renditions, each muxed into a file of its own.
    let mut plan = plan1("film");
    let (second, mux) = (plan.tasks.remove(1), plan.tasks[1].clone());
    plan.tasks[0].outputs.push(second.outputs[0].clone());
    plan.tasks[0].outputs[1].name = "r2".into();
    plan.tasks.truncate(1);
    for (name, from, file) in [("mux/r", 0, "file one"), ("mux/r2", 1, "file two")] {
        let mut mux = mux.clone();
        let key = plan.tasks[0].outputs[from].key;
        mux.name = name.into();
        mux.needs = vec!["encode/0000".into()];
        mux.outputs[0].key = crate::support::key(file);
        if let trix_plan::task::TaskSpec::Mux(m) = &mut mux.spec {
            m.video.as_mut().unwrap().chunks = vec![key];
        }
        plan.tasks.push(mux);
    }
    let [one, two] = [0, 1].map(|i| plan.tasks[0].outputs[i].key);
    let job = w.planned("film", &a, plan).await;

    // Both renditions are made, and both muxes begin.
    let encode = a.claim(1).await.remove(0);
    a.end(encode.attempt, ok(&encode)).await;
    let muxes = a.claim(2).await;
    assert_eq!(names(&muxes), ["mux/r", "mux/r2"]);

    // The first is gone: its maker runs again, with that one output only.
    a.end(muxes[0].attempt, Outcome::MissingInputs(vec![one])).await;
    let encode = a.claim(1).await.remove(0);
    assert_eq!(encode.name, "encode/0000");
    let missing: Vec<_> = encode.missing.iter().map(|o| o.key).collect();
    assert_eq!(missing, [one]);
    // Now the second mux finds the other one gone, while the maker is under way.
    a.end(muxes[1].attempt, Outcome::MissingInputs(vec![two])).await;
    assert_eq!(w.task(job, "encode/0000").await.state, TaskState::Running);
    assert_eq!(w.task(job, "mux/r2").await.state, TaskState::Ready);
    // Both muxes wait: it is told only of the attempt that its request did not name.
    assert_eq!(names(&a.claim(4).await), ["encode/0000"]);

    // It reports what it was told to make. That is not all, and nobody's fault.
    let reply = a.end(encode.attempt, ok(&encode)).await;
    assert_eq!(reply.verdicts[0].verdict, trix_db::Verdict::Accepted);
    let row = w.task(job, "encode/0000").await;
    assert_eq!(row.state, TaskState::Ready, "{row:?}");
    let attempts = w.db.attempts(job).await.unwrap();
    let ended = attempts.iter().find(|t| (t.task, t.epoch) == (row.id, row.epoch)).unwrap();
    let failure = ended.failure.as_ref().unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Transient, "artifact_missing"));
    let artifacts = w.db.artifacts(&[one, two]).await.unwrap();
    assert_eq!(artifacts.iter().map(|f| f.key).collect::<Vec<_>>(), [one], "what it made stays");

    let encode = a.claim(1).await.remove(0);
    let missing: Vec<_> = encode.missing.iter().map(|o| o.key).collect();
    assert_eq!((encode.name.as_str(), missing), ("encode/0000", vec![two]));
    a.end(encode.attempt, ok(&encode)).await;
    a.run_all(&w.db).await;
    assert_eq!(w.state(job).await, JobState::Succeeded);
    assert_eq!(w.leader.repair().await.unwrap(), trix_db::leader::Repaired::default());
}
