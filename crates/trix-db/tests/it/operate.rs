//! The operator's verbs, the judgement of nodes, adoption, retraction.

use std::time::Duration;

use trix_db::access::Audit;
use trix_db::operate::Scope;
use trix_db::{Outcome, SyncReply, WorkerStore};
use trix_model::state::{JobState, NodeState, PublicationState, TaskState};
use trix_model::{ErrorClass, ErrorOrigin, Failure};

use crate::support::*;

#[tokio::test]
async fn what_is_held_is_not_handed_out_until_it_is_lifted() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let b = w.worker("b").await;
    let job = w.submit("film", plan0("film")).await;
    let held = [Scope::All, Scope::Kind("intake".into()), Scope::Node("a".into())];
    let words = [Some("paused_all"), Some("paused_kind"), None];
    for (scope, word) in held.iter().zip(words) {
        w.db.hold(scope, "a look at the cables").await.unwrap();
        w.db.hold(scope, "again").await.unwrap();
        assert!(a.claim(4).await.is_empty(), "{scope:?}");
        w.leader.block_reasons().await.unwrap();
        assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), word);
        let holds = w.db.holds().await.unwrap();
        assert_eq!(holds.len(), 1);
        assert_eq!(holds[0].reason, "a look at the cables", "the first reason stays");
        if matches!(scope, Scope::Node(_)) {
            let c = b.claim(1).await.remove(0);
            b.end(c.attempt, Outcome::Released).await;
        }
        assert!(w.db.lift(scope).await.unwrap());
        assert!(!w.db.lift(scope).await.unwrap());
    }
    // Other kinds go on, and what runs goes on.
    w.db.hold(&Scope::Kind("mux".into()), "").await.unwrap();
    let c = a.claim(1).await.remove(0);
    w.db.hold(&Scope::All, "").await.unwrap();
    assert!(a.beat().await.cancels.is_empty());
    a.end(c.attempt, ok(&c)).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);
    assert!(w.db.hold(&Scope::Node("nowhere".into()), "").await.is_err());
}

#[tokio::test]
async fn nodes_are_cordoned_drained_and_opened_again() {
    let w = World::new().await;
    let a = w.worker("a").await;
    w.submit("film", plan0("film")).await;
    assert_eq!(w.db.cordon("a", "a new disk").await.unwrap(), NodeState::Cordoned);
    assert_eq!(w.db.cordon("a", "a new disk").await.unwrap(), NodeState::Cordoned);
    assert!(a.claim(1).await.is_empty());
    assert!(!a.beat().await.drain, "its worker stays");
    let e = w.db.explain_node("a").await.unwrap();
    assert_eq!(
        (e.cordon_reason.as_deref(), e.cordoned_by.as_deref()),
        (Some("a new disk"), Some("operator"))
    );
    assert_eq!(w.db.uncordon("a").await.unwrap(), NodeState::Ok);
    let c = a.claim(1).await.remove(0);
    assert_eq!(w.db.drain_node("a", "it moves").await.unwrap(), NodeState::Drained);
    assert!(a.beat().await.drain);
    assert!(w.db.cordon("a", "no").await.is_err());
    assert_eq!(w.db.undrain_node("a").await.unwrap(), NodeState::Ok);
    assert!(!a.beat().await.drain);
    // A drain of the worker alone is taken back too, while it has not left.
    w.db.drain(a.me.worker).await.unwrap();
    assert!(a.beat().await.drain);
    assert_eq!(w.db.undrain_node("a").await.unwrap(), NodeState::Ok);
    assert!(!a.beat().await.drain);
    a.end(c.attempt, Outcome::Released).await;
    assert_eq!(a.claim(1).await.len(), 1);
    assert!(w.db.cordon("nowhere", "").await.is_err());
}

#[tokio::test]
async fn each_verb_writes_one_row_of_the_trail_with_the_change() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    a.run_all(&w.db).await;
    let publication = w.db.publications(job).await.unwrap()[0].id;
    execute(w.test.url(), "insert into share (name, role, kind) values ('in', 'source', 'ext4')")
        .await
        .unwrap();
    let by = |action: &str| {
        w.db.audited(Audit {
            principal: Some(w.principal),
            ip: "::1".into(),
            action: action.into(),
        })
    };
    let kind = Scope::Kind("mux".into());
    by("hold").hold(&kind, "why").await.unwrap();
    assert_eq!(w.db.holds().await.unwrap()[0].by, "anna");
    by("lift").lift(&kind).await.unwrap();
    by("hold").hold(&Scope::All, "why").await.unwrap();
    by("cordon").cordon("a", "why").await.unwrap();
    by("uncordon").uncordon("a").await.unwrap();
    by("drain").drain_node("a", "why").await.unwrap();
    by("undrain").undrain_node("a").await.unwrap();
    by("slots").set_slots("in", Some(2), None).await.unwrap();
    by("traits").set_node_traits("a", &["x"], 0).await.unwrap();
    by("weight").set_weight(w.principal, 50).await.unwrap();
    by("retract").retract(publication, w.principal).await.unwrap();
    assert!(by("refused").cordon("nowhere", "").await.is_err());
    let trail = w.db.audit_trail(None, 100).await.unwrap();
    let rows: Vec<_> =
        trail.iter().rev().map(|r| (r.entry.action.as_str(), r.entry.object.clone())).collect();
    let of = |object: &str| object.to_owned();
    assert_eq!(
        rows,
        [
            ("hold", of("hold/kind/mux")),
            ("lift", of("hold/kind/mux")),
            ("hold", of("hold/all")),
            ("cordon", of("node/a")),
            ("uncordon", of("node/a")),
            ("drain", of("node/a")),
            ("undrain", of("node/a")),
            ("slots", of("share/in")),
            ("traits", of("node/a")),
            ("weight", format!("principal/{}", w.principal)),
            ("retract", format!("publication/{publication}")),
        ]
    );
    assert_eq!(w.db.audit_verify().await.unwrap(), None);
}

/// Fails `n` tasks on a worker, each once.
async fn fail(w: &World, a: &Fake, n: usize, tag: &str, failure: Failure) {
    for i in 0..n {
        let film = format!("{tag}{i}");
        let job = w.submit(&film, plan0(&film)).await;
        w.db.set_band(job, 9).await.unwrap();
        let c = a.claim(1).await.remove(0);
        assert_eq!(c.job, job);
        a.end(c.attempt, Outcome::Failed(failure.clone())).await;
        w.db.cancel(job).await.unwrap();
    }
}

async fn succeed(w: &World, a: &Fake, n: usize, tag: &str) {
    for i in 0..n {
        let film = format!("{tag}{i}");
        w.submit(&film, plan0(&film)).await;
        let c = a.claim(1).await.remove(0);
        a.end(c.attempt, ok(&c)).await;
    }
}

fn crash() -> Failure {
    Failure::new(ErrorClass::Crash, ErrorOrigin::Engine, "signal", "the slot died of SIGSEGV")
}

#[tokio::test]
async fn a_node_that_fails_where_others_do_not_is_cordoned_and_opened_by_its_self_tests() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    succeed(&w, &b, 5, "good").await;
    fail(&w, &a, 2, "bad", crash()).await;
    assert_eq!(w.leader.judge_nodes().await.unwrap(), Default::default());
    fail(&w, &a, 1, "worse", crash()).await;
    assert_eq!(w.leader.judge_nodes().await.unwrap().cordoned, ["a"]);
    assert_eq!(w.leader.judge_nodes().await.unwrap(), Default::default(), "once");
    w.submit("film", plan0("film")).await;
    assert!(a.claim(1).await.is_empty());
    let events = w.events().await;
    let closed = events.iter().find(|e| e.kind == "node.state").unwrap();
    assert_eq!(closed.body["to"], "cordoned");

    let (right, wrong) = (digest(1), digest(2));
    assert_eq!(w.db.self_test(a.me.clone(), right, right).await.unwrap(), NodeState::Cordoned);
    assert_eq!(w.db.self_test(a.me.clone(), wrong, right).await.unwrap(), NodeState::Cordoned);
    assert_eq!(w.db.self_test(a.me.clone(), right, right).await.unwrap(), NodeState::Cordoned);
    assert_eq!(w.db.self_test(a.me.clone(), right, right).await.unwrap(), NodeState::Ok);
    assert_eq!(a.claim(1).await.len(), 1);
    // A machine that makes other bytes must not make any.
    assert_eq!(w.db.self_test(a.me.clone(), wrong, right).await.unwrap(), NodeState::Cordoned);
    // What an operator closed no self-test opens.
    w.db.cordon("a", "mine").await.unwrap();
    for _ in 0..3 {
        assert_eq!(w.db.self_test(a.me.clone(), right, right).await.unwrap(), NodeState::Cordoned);
    }
}

#[tokio::test]
async fn when_more_nodes_fail_than_can_be_ill_the_kind_is_stopped_instead() {
    let w = World::new().await;
    let (a, b, c) = (w.worker("a").await, w.worker("b").await, w.worker("c").await);
    succeed(&w, &c, 5, "good").await;
    fail(&w, &a, 3, "a", crash()).await;
    fail(&w, &b, 3, "b", crash()).await;
    let judged = w.leader.judge_nodes().await.unwrap();
    assert!(judged.cordoned.is_empty(), "one of three may be closed, and two look bad");
    assert_eq!(judged.held, ["intake"]);
    let hold = w.db.holds().await.unwrap().remove(0);
    assert_eq!((hold.name.as_str(), hold.by.as_str()), ("intake", "leader"));
    assert!(w.events().await.iter().any(|e| e.kind == "alarm"));
    // Lifted by a person it is not stopped again for the same attempts.
    w.db.lift(&Scope::Kind("intake".into())).await.unwrap();
    assert_eq!(w.leader.judge_nodes().await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_share_that_is_away_everywhere_is_no_nodes_fault() {
    let w = World::new().await;
    let (a, b) = (w.worker("a").await, w.worker("b").await);
    succeed(&w, &b, 5, "good").await;
    let gone = Failure::share("share in went away").about("in");
    // b says that it is away there too.
    let mut r = b.request(0);
    r.shares_ok.retain(|s| s.as_str() != "in");
    b.sync(r).await;
    fail(&w, &a, 3, "bad", gone).await;
    assert_eq!(w.leader.judge_nodes().await.unwrap(), Default::default());
    // Where others have it, the mount of this node is broken.
    b.beat().await;
    assert_eq!(w.leader.judge_nodes().await.unwrap().cordoned, ["a"]);
}

#[tokio::test]
async fn suspicion_fades_and_a_lone_node_is_never_cordoned() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    fail(&w, &a, 4, "bad", crash()).await;
    assert_eq!(
        w.leader.judge_nodes().await.unwrap(),
        Default::default(),
        "nothing to compare with"
    );
    w.advance(w.db.times().suspicion + Duration::from_millis(10)).await;
    a.beat().await;
    let b = w.worker("b").await;
    succeed(&w, &b, 5, "good").await;
    assert_eq!(w.leader.judge_nodes().await.unwrap(), Default::default());
    assert_eq!(w.db.explain_node("a").await.unwrap().record.ended, 0);
}

#[tokio::test]
async fn an_adopted_database_is_another_cluster_whose_numbers_never_repeat() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let c = a.claim(1).await.remove(0);
    let before = a.beat().await.incarnation;
    let head = w.events().await.last().unwrap().seq;
    let fresh = w.db.adopt().await.unwrap();
    assert_ne!(fresh, before);
    // The worker is told that it belongs elsewhere, and its result counts for nothing.
    let mut r = a.request(1);
    r.results = vec![result(c.attempt, ok(&c))];
    let SyncReply::Marked { incarnation } = w.db.sync(r).await.unwrap() else { panic!() };
    assert_eq!(incarnation, fresh);
    let trail = w.db.audit_trail(None, 10).await.unwrap();
    assert_eq!(trail[0].entry.action, "database.adopt");
    assert_eq!(trail[0].entry.detail["incarnation"], fresh.to_string());
    assert_ne!(trail[0].before, trail[0].after);
    assert_eq!(w.db.audit_verify().await.unwrap(), None);
    // The old leader is over.
    assert!(matches!(w.leader.tend().await, Err(trix_db::DbError::NotLeader { .. })));
    let a = w.worker("a").await;
    assert!(a.me.worker.0 > 1 << 32);
    let again = a.claim(1).await.remove(0);
    assert_eq!(again.attempt.task, c.attempt.task);
    assert_eq!(again.attempt.epoch.0, c.attempt.epoch.0 + (1 << 32) + 1);
    a.end(again.attempt, ok(&again)).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);
    while w.db.sequence_events().await.unwrap().count > 0 {}
    let events = w.db.events(head, None, 5000).await.unwrap();
    assert!(events.iter().any(|e| e.kind == "adopted"));
    assert!(events.iter().any(|e| e.kind == "worker.gone"));
    assert_eq!(events[0].seq, head + (1 << 32) + 1);
    let next = w.submit("next", plan0("next")).await;
    assert!(next.0 > job.0 + 1_000_000);
    assert!(a.claim(1).await[0].attempt.task.0 > 1 << 32);
}

#[tokio::test]
async fn a_publication_is_retracted_by_a_job_and_published_again_as_a_new_version() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    a.run_all(&w.db).await;
    let published = w.db.publications(job).await.unwrap().remove(0);
    assert!(published.current);
    let retraction = w.db.retract(published.id, w.principal).await.unwrap();
    assert!(retraction.created);
    let twice = w.db.retract(published.id, w.principal).await.unwrap();
    assert_eq!((twice.job, twice.created), (retraction.job, false));
    // Whichever engine the worker has: nothing is encoded.
    let mut r = a.request(1);
    r.engine = "engine-2".into();
    let c = a.sync(r).await.claims.remove(0);
    let trix_plan::task::TaskSpec::Retract(spec) = &c.spec else { panic!("{:?}", c.spec) };
    assert_eq!((spec.publication, spec.version), (published.id, 1));
    // The fence: only the attempt may say so.
    let old = attempt(c.attempt.task, c.attempt.epoch.0 + 1);
    assert!(w.db.retracted(a.me.clone(), old).await.is_err());
    w.db.retracted(a.me.clone(), c.attempt).await.unwrap();
    w.db.retracted(a.me.clone(), c.attempt).await.unwrap();
    a.end(c.attempt, ok(&c)).await;
    assert_eq!(w.state(retraction.job).await, JobState::Succeeded);
    let row = w.db.publications(job).await.unwrap().remove(0);
    assert_eq!((row.state, row.current), (PublicationState::Retracted, false));
    assert!(!w.db.retract(published.id, w.principal).await.unwrap().created);

    // The same title once more: all from the cache but the publication.
    let again = w.submit("film again", plan0("film")).await;
    assert!(w.leader.append_plan(again, &plan1("film")).await.unwrap());
    assert_eq!(a.run_all(&w.db).await, ["publish/output"]);
    let row = w.db.publications(again).await.unwrap().remove(0);
    assert_eq!((row.version, row.state, row.current), (2, PublicationState::Published, true));
}

#[tokio::test]
async fn only_what_is_published_can_be_retracted() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    assert!(w.db.retract(1, w.principal).await.is_err());
    while w.task(job, "publish/output").await.state != TaskState::Ready {
        for c in a.claim(4).await {
            a.end(c.attempt, ok(&c)).await;
        }
    }
    let c = a.claim(1).await.remove(0);
    let trix_plan::task::TaskSpec::Publish(p) = &c.spec else { panic!() };
    let row = w.db.prepare_publication(a.me.clone(), c.attempt, manifest(p)).await.unwrap();
    let e = w.db.retract(row.id, w.principal).await.unwrap_err();
    assert!(matches!(e, trix_db::DbError::Conflict { .. }), "{e}");
}
