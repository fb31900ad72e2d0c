//! Submitting, listing, and who may come in.

use std::time::Duration;

use serde_json::json;
use trix_db::access::{AuditEntry, Role};
use trix_db::catalog::{ShareRole, ShareRow};
use trix_db::jobs::JobFilter;
use trix_db::leader::Retention;
use trix_db::{Db, DbError, ProtocolTimes};
use trix_model::state::JobState;
use trix_model::{ErrorClass, ErrorOrigin, Failure, JobId};

use crate::support::*;

fn denied<T: std::fmt::Debug>(r: Result<T, DbError>) {
    assert!(matches!(r, Err(DbError::Denied { .. })), "{r:?}");
}

fn conflict<T>(r: Result<T, DbError>, expected: &str) {
    match r.map(drop) {
        Err(DbError::Conflict { code, .. }) => assert_eq!(code, expected),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_same_key_gives_the_same_job_and_another_body_is_refused() {
    let w = World::new().await;
    let first = w.try_submit("k", 1, plan0("film")).await.unwrap();
    assert!(first.created);
    let again = w.try_submit("k", 1, plan0("film")).await.unwrap();
    assert_eq!((again.job, again.created), (first.job, false));
    conflict(w.try_submit("k", 2, plan0("film")).await, "submit_key_reused");
    let other = w.db.create_principal("bert", Role::Service, None).await.unwrap();
    let mut w = w;
    w.principal = other.id;
    let theirs = w.try_submit("k", 2, plan0("film")).await.unwrap();
    assert!(theirs.created && theirs.job != first.job, "keys belong to a principal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_equal_submits_at_once_one_makes_the_job() {
    let w = std::sync::Arc::new(World::new().await);
    let mut calls = vec![];
    for _ in 0..8 {
        let w = w.clone();
        calls.push(tokio::spawn(async move { w.try_submit("k", 1, plan0("film")).await.unwrap() }));
    }
    let mut all = vec![];
    for c in calls {
        all.push(c.await.unwrap());
    }
    assert_eq!(all.iter().filter(|s| s.created).count(), 1);
    assert!(all.iter().all(|s| s.job == all[0].job));
    assert_eq!(w.db.tasks(all[0].job).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_submits_of_a_cluster_may_come_at_once() {
    // Each of them finds that there is no partition for attempts yet.
    let w = std::sync::Arc::new(World::new().await);
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let w = w.clone();
            tokio::spawn(async move { w.try_submit(&format!("k{n}"), 1, plan0("film")).await })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().created);
    }
}

#[tokio::test]
async fn a_plan_that_is_no_graph_is_refused_and_leaves_no_job() {
    let w = World::new().await;
    let mut plan = plan0("film");
    plan.tasks[0].needs = vec!["nobody".into()];
    conflict(w.try_submit("k", 1, plan).await, "plan_invalid");
    let mut plan = plan1("film");
    plan.tasks.truncate(1);
    plan.tasks[0].needs.clear();
    conflict(w.try_submit("k", 1, plan).await, "plan_invalid");
    assert!(w.db.jobs(&JobFilter { limit: 10, ..Default::default() }).await.unwrap().is_empty());
}

#[tokio::test]
async fn jobs_are_listed_newest_first_by_state_and_title() {
    let w = World::new().await;
    let mut ids = vec![];
    for i in 0..5 {
        ids.push(w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await);
    }
    w.db.cancel(ids[1]).await.unwrap();
    let all = |f: JobFilter| {
        let db = w.db.clone();
        async move { db.jobs(&f).await.unwrap().iter().map(|j| j.id).collect::<Vec<_>>() }
    };
    let page = JobFilter { limit: 2, ..Default::default() };
    assert_eq!(all(page.clone()).await, [ids[4], ids[3]]);
    assert_eq!(all(JobFilter { before: Some(ids[3]), ..page }).await, [ids[2], ids[1]]);
    let cancelled = JobFilter { states: vec![JobState::Cancelled], limit: 9, ..Default::default() };
    assert_eq!(all(cancelled).await, [ids[1]]);
    let text = |t: &str| JobFilter { text: Some(t.into()), limit: 9, ..Default::default() };
    assert_eq!(all(text("OF F2")).await, [ids[2]]);
    assert_eq!(all(text("In:Film.")).await.len(), 5, "the source's path counts");
    assert_eq!(all(JobFilter { limit: 2, ..text("film") }).await, [ids[4], ids[3]]);
    assert_eq!(all(JobFilter { before: Some(ids[1]), ..text("title") }).await, [ids[0]]);
    let accepted = vec![JobState::Accepted];
    assert_eq!(all(JobFilter { states: accepted, ..text("title") }).await.len(), 4);
    for literal in ["f%", "f_", "\\", "%"] {
        assert!(all(text(literal)).await.is_empty(), "{literal} is text, no pattern");
    }
    let counts = w.db.job_counts().await.unwrap();
    assert_eq!((counts["accepted"], counts["cancelled"]), (4, 1));
    assert!(w.db.job(JobId(999)).await.unwrap().is_none());
    for r in
        [w.db.cancel(JobId(999)).await, w.db.retry(JobId(999)).await, w.db.pause(JobId(999)).await]
    {
        assert!(matches!(r, Err(DbError::NotFound { .. })));
    }
    conflict(w.db.retry(ids[0]).await, "illegal_transition");
}

#[tokio::test]
async fn a_job_that_cannot_be_planned_fails_with_the_reason_and_can_be_retried() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    a.run_all(&w.db).await;
    let f = Failure::new(ErrorClass::Deterministic, ErrorOrigin::Source, "no_video", "no picture");
    w.leader.fail_job(job, &f).await.unwrap();
    let row = w.job(job).await;
    assert_eq!((row.state, row.failure.unwrap()), (JobState::Failed, f));
    assert!(w.leader.jobs_to_plan(9).await.unwrap().is_empty());
    assert_eq!(w.db.retry(job).await.unwrap(), JobState::Running);
    assert_eq!(w.leader.jobs_to_plan(9).await.unwrap().len(), 1);
    assert!(w.leader.append_plan(job, &plan1("film")).await.unwrap());
    a.run_all(&w.db).await;
    assert_eq!(w.state(job).await, JobState::Succeeded);
}

#[tokio::test]
async fn tokens_are_checked_and_revoked() {
    let w = World::new().await;
    let p = w.db.create_principal("robot", Role::Service, None).await.unwrap();
    conflict(w.db.create_principal("robot", Role::Admin, None).await, "name_taken");
    let t = w.db.create_token(p.id, "ci", None).await.unwrap();
    assert_eq!(w.db.check_token(&t.secret).await.unwrap(), p);
    denied(w.db.check_token("guess").await);
    let stored = value(w.test.url(), "select to_jsonb(t) from token t").await.to_string();
    assert!(!stored.contains(&t.secret), "only a hash is stored");
    assert!(w.db.tokens(p.id).await.unwrap()[0].last_used_at.is_some());
    w.db.revoke_token(p.id, t.id).await.unwrap();
    denied(w.db.check_token(&t.secret).await);
    let past = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let t = w.db.create_token(p.id, "old", Some(past)).await.unwrap();
    denied(w.db.check_token(&t.secret).await);
    let t = w.db.create_token(p.id, "new", None).await.unwrap();
    w.db.create_principal("root", Role::Admin, None).await.unwrap();
    w.db.update_principal(p.id, None, None, Some(true)).await.unwrap();
    denied(w.db.check_token(&t.secret).await);
}

#[tokio::test]
async fn sessions_are_checked_and_ended() {
    let w = World::new().await;
    w.db.create_principal("root", Role::Admin, Some("$argon2id$x")).await.unwrap();
    let entry = w.db.password_entry("root").await.unwrap().unwrap();
    assert_eq!(entry.hash, "$argon2id$x");
    assert!(w.db.password_entry("anna").await.unwrap().is_none(), "she has no password");
    let hour = Duration::from_secs(3600);
    let s = w.db.create_session(w.principal, "browser", "::1", hour).await.unwrap();
    assert_eq!(w.db.check_session(&s.secret).await.unwrap().principal.id, w.principal);
    assert_eq!(w.db.sessions(w.principal).await.unwrap().len(), 1);
    let other = w.db.end_session(entry.principal.id, s.id).await;
    assert!(matches!(other, Err(DbError::NotFound { .. })), "not one's own");
    w.db.end_session(w.principal, s.id).await.unwrap();
    denied(w.db.check_session(&s.secret).await);
    let s = w.db.create_session(w.principal, "browser", "::1", Duration::ZERO).await.unwrap();
    denied(w.db.check_session(&s.secret).await);
    let s = w.db.create_session(w.principal, "browser", "::1", hour).await.unwrap();
    w.db.update_principal(w.principal, None, None, Some(true)).await.unwrap();
    denied(w.db.check_session(&s.secret).await);
}

#[tokio::test]
async fn the_set_up_link_works_once_and_makes_the_first_administrator() {
    let w = World::new().await;
    let hour = Duration::from_secs(3600);
    let old = w.db.create_link(None, hour).await.unwrap();
    let link = w.db.create_link(None, hour).await.unwrap();
    denied(w.db.peek_link(&old.secret).await);
    assert_eq!(w.db.peek_link(&link.secret).await.unwrap().principal, None);
    let admin = w.db.use_link(&link.secret, Some(("root", "$argon2id$y"))).await.unwrap();
    assert_eq!((admin.name.as_str(), admin.role), ("root", Role::Admin));
    denied(w.db.use_link(&link.secret, Some(("second", "h"))).await);
    conflict(w.db.create_link(None, hour).await, "already_set_up");
    let link = w.db.create_link(Some(w.principal), hour).await.unwrap();
    assert_eq!(w.db.peek_link(&link.secret).await.unwrap().principal.unwrap().name, "anna");
    assert_eq!(w.db.use_link(&link.secret, None).await.unwrap().id, w.principal);
    denied(w.db.use_link(&link.secret, None).await);
    conflict(w.db.update_principal(admin.id, Some(Role::Viewer), None, None).await, "last_admin");
}

#[tokio::test]
async fn the_audit_trail_is_a_chain_that_nobody_can_change() {
    let w = World::new().await;
    for i in 0..3 {
        let entry = AuditEntry {
            principal: Some(w.principal),
            ip: "::1".into(),
            action: "job.cancel".into(),
            object: format!("job/{i}"),
            detail: json!({ "n": i }),
        };
        assert_eq!(w.db.audit(&entry).await.unwrap(), i + 1);
    }
    let rows = w.db.audit_trail(None, 2).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.seq).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(w.db.audit_trail(Some(2), 9).await.unwrap().len(), 1);
    assert_eq!(w.db.audit_verify().await.unwrap(), None);
    // The owner can take the lock off; the chain then shows it.
    for sql in [
        "alter table audit disable trigger audit_append_only",
        "update audit set object = 'job/77' where seq = 2",
    ] {
        execute(w.test.url(), sql).await.unwrap();
    }
    assert_eq!(w.db.audit_verify().await.unwrap(), Some(2));
    execute(w.test.url(), "alter table audit enable trigger audit_append_only").await.unwrap();
    assert!(execute(w.test.url(), "update audit set object = 'x'").await.is_err());
    assert!(execute(w.test.url(), "delete from audit").await.is_err());
    assert!(execute(w.test.url(), "truncate audit").await.is_err());
}

#[tokio::test]
async fn profiles_have_versions_by_content() {
    let w = World::new().await;
    let first = w.db.profile(w.profile).await.unwrap().unwrap();
    assert_eq!((first.version, first.current, first.hash), (1, true, digest(7)));
    let second = w.db.put_profile(&first.name, digest(8), "name = 'y'", true).await.unwrap();
    assert_eq!((second.version, second.current), (2, true));
    assert!(!w.db.profile(first.id).await.unwrap().unwrap().current);
    let back = w.db.put_profile(&first.name, digest(7), "name = 'x'", true).await.unwrap();
    assert_eq!((back.id, back.version, back.current), (first.id, 1, true));
    assert_eq!(w.db.profiles().await.unwrap().len(), 1);
    assert_eq!(w.db.profile_versions(&first.name).await.unwrap().len(), 2);
}

#[tokio::test]
async fn shares_keep_their_role_and_show_where_they_are_ok() {
    let w = World::new().await;
    w.worker("a").await;
    let share = |role| ShareRow {
        name: "in".parse().unwrap(),
        role,
        kind: "local".into(),
        marker: None,
        ok_on: vec![],
    };
    w.db.put_share(&share(ShareRole::Source)).await.unwrap();
    w.db.put_share(&share(ShareRole::Source)).await.unwrap();
    conflict(w.db.put_share(&share(ShareRole::Cache)).await, "share_role");
    let all = w.db.shares().await.unwrap();
    assert_eq!((all.len(), all[0].ok_on.as_slice()), (1, ["a".to_owned()].as_slice()));
    let nodes = w.db.nodes().await.unwrap();
    assert_eq!(nodes[0].worker.as_ref().unwrap().shares_ok.len(), 4);
}

#[tokio::test]
async fn history_is_dropped_by_partitions_and_only_when_it_is_over() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let keep =
        Retention { events: Duration::ZERO, attempts: Duration::ZERO, access: Duration::ZERO };
    let job = w.submit("film", plan0("film")).await;
    a.run_all(&w.db).await;
    w.events().await;
    let nothing = w.leader.retire(&keep).await.unwrap();
    assert_eq!((nothing.event_partitions, nothing.attempt_partitions), (0, 0), "still in use");
    // As if a million events and tasks had come: both go to the next partition.
    for sql in [
        "update event_head set head = 999999, partitioned_to = 1000000",
        "alter sequence task_id_seq restart with 1000001",
    ] {
        execute(w.test.url(), sql).await.unwrap();
    }
    let later = w.submit("later", plan0("later")).await;
    assert!(w.db.sequence_events().await.unwrap().count > 0);
    a.run_all(&w.db).await;
    let events_only = w.leader.retire(&keep).await.unwrap();
    assert_eq!((events_only.event_partitions, events_only.attempt_partitions), (1, 0));
    assert!(w.db.event_head().await.unwrap().oldest > 1);
    assert!(w.db.events(0, None, 10).await.unwrap().iter().all(|e| e.seq >= 1_000_000));
    w.db.cancel(job).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(w.leader.retire(&keep).await.unwrap().attempt_partitions, 1);
    assert!(w.db.attempts(job).await.unwrap().is_empty());
    assert_eq!(w.db.attempts(later).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_address_that_cannot_be_is_refused_at_once() {
    let r = Db::open("mysql://x", ProtocolTimes::default());
    assert!(matches!(r, Err(DbError::Address(_))));
}

#[tokio::test]
async fn wrong_counts_are_found_and_mended() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    assert_eq!(w.leader.repair().await.unwrap(), Default::default());
    for sql in [
        "update task set deps_left = 7 where name = 'encode/0000'",
        "update task set state = 'waiting' where name = 'encode/0001'",
    ] {
        execute(w.test.url(), sql).await.unwrap();
    }
    let r = w.leader.repair().await.unwrap();
    assert_eq!((r.counts, r.readied, r.finished), (1, 1, 0));
    assert_eq!(w.leader.repair().await.unwrap(), Default::default());
    a.run_all(&w.db).await;
    assert_eq!(w.state(job).await, JobState::Succeeded);
    execute(w.test.url(), "update job set state = 'running'").await.unwrap();
    assert_eq!(w.leader.repair().await.unwrap().finished, 1);
    assert_eq!(w.state(job).await, JobState::Succeeded);
}
