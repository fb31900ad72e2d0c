//! A change and its row of the audit trail are one transaction.

use std::time::Duration;

use trix_db::access::{Audit, AuditRow, Role, SignIn};
use trix_db::{Db, DbError};
use trix_model::JobId;

use crate::support::*;

fn by(db: &Db, action: &str) -> Db {
    db.audited(Audit { principal: Some(1), ip: "::1".into(), action: action.into() })
}

/// The rows that were added, oldest first; the chain must fit.
async fn added(db: &Db, seen: &mut usize) -> Vec<AuditRow> {
    assert_eq!(db.audit_verify().await.unwrap(), None);
    let mut rows = db.audit_trail(None, 100).await.unwrap();
    rows.reverse();
    let fresh = rows.split_off(*seen);
    *seen += fresh.len();
    fresh
}

#[tokio::test]
async fn a_change_is_audited_with_what_it_found_and_left() {
    let w = World::new().await;
    let mut seen = 0;
    let job = w.submit("film", plan0("film")).await;
    assert!(added(&w.db, &mut seen).await.is_empty(), "without a caller there is no row");

    by(&w.db, "job.band").set_band(job, 9).await.unwrap();
    by(&w.db, "job.cancel").cancel(job).await.unwrap();
    by(&w.db, "job.cancel").cancel(job).await.unwrap();
    let rows = added(&w.db, &mut seen).await;
    let objects: Vec<_> =
        rows.iter().map(|r| (r.entry.action.as_str(), r.entry.object.as_str())).collect();
    let object = format!("job/{job}");
    assert_eq!(
        objects,
        [("job.band", &*object), ("job.cancel", &*object), ("job.cancel", &*object)]
    );
    assert_ne!(rows[0].before, rows[0].after);
    assert_eq!(rows[0].after, rows[1].before, "nobody changed it in between");
    assert_ne!(rows[1].before, rows[1].after);
    assert_eq!(rows[2].before, rows[2].after, "the second cancel had nothing to change");

    // Refused, and as if it had never been asked for.
    assert!(by(&w.db, "job.retry").retry(job).await.is_err());
    assert!(by(&w.db, "job.pause").pause(JobId(999)).await.is_err());
    assert!(by(&w.db, "token.revoke").revoke_any_token(999).await.is_err());
    assert!(added(&w.db, &mut seen).await.is_empty());

    let token = by(&w.db, "token.create");
    let made = token.create_program("robot", Role::Service, None).await.unwrap();
    let taken = token.create_program("robot", Role::Service, None).await;
    assert!(matches!(taken, Err(DbError::Conflict { code, .. }) if code == "name_taken"));
    by(&w.db, "profile.put").put_profile("p", digest(1), "a", false).await.unwrap();
    by(&w.db, "profile.put").put_profile("p", digest(2), "b", false).await.unwrap();
    let rows = added(&w.db, &mut seen).await;
    let objects: Vec<_> = rows.iter().map(|r| r.entry.object.as_str()).collect();
    assert_eq!(objects, [&format!("token/{}", made.id), "profile/p", "profile/p"]);
    assert_eq!(rows[0].before, None, "it was made by this");
    assert_eq!(rows[1].after, rows[2].before);
}

#[tokio::test]
async fn signing_in_by_a_link_is_one_change_of_whoever_it_lets_in() {
    let w = World::new().await;
    let mut seen = 0;
    let hour = Duration::from_secs(3600);
    let db =
        w.db.audited(Audit { principal: None, ip: "::1".into(), action: "session.link".into() });
    let link = w.db.create_link(None, hour).await.unwrap().secret;
    // A set-up link needs a name, and stays good after this.
    let nameless = db.sign_in(SignIn::Link(&link), "browser", "::1", hour).await;
    assert!(matches!(nameless, Err(DbError::Conflict { code, .. }) if code == "already_set_up"));
    let set_up = SignIn::SetUp { link: &link, name: "root", password_hash: "$argon2id$x" };
    let (admin, session) = db.sign_in(set_up, "browser", "::1", hour).await.unwrap();
    assert_eq!((admin.name.as_str(), admin.role), ("root", Role::Admin));
    assert_eq!(w.db.check_session(&session.secret).await.unwrap().principal, admin);
    let again = db.sign_in(set_up, "browser", "::1", hour).await;
    assert!(matches!(again, Err(DbError::Denied { .. })));

    let rows = added(&w.db, &mut seen).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].entry.principal, Some(admin.id));
    assert_eq!(rows[0].entry.object, format!("session/{}", session.id));
    assert_eq!(rows[0].before, None);
    let secrets = serde_json::to_string(&rows).unwrap();
    assert!(!secrets.contains("argon2id") && !secrets.contains(&session.secret));
}
