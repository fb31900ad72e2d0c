//! The schema as a whole.

use trix_testkit::pg::TestDb;

use crate::support::*;

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    db.ping().await.unwrap();
    db.migrate().await.unwrap();
}

#[tokio::test]
async fn a_workers_login_can_call_its_functions_and_nothing_else() {
    use sqlx::Connection;
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.submit("film", plan0("film")).await;
    let mut c = sqlx::PgConnection::connect(w.test.url()).await.unwrap();
    sqlx::query("set role trix_worker").execute(&mut c).await.unwrap();
    let request = sqlx::types::Json(a.request(1));
    let reply: sqlx::types::Json<trix_db::SyncReply> =
        sqlx::query_scalar("select sync_v1($1)").bind(request).fetch_one(&mut c).await.unwrap();
    let trix_db::SyncReply::Accepted(reply) = reply.0 else { panic!() };
    assert_eq!(reply.claims[0].job, job);
    for forbidden in [
        "update task set state = 'done'",
        "select token_hash from worker",
        "insert into artifact (key, digest, size) values ('', '', 1)",
        "select commit_result(w, '{}') from worker w",
        "select move_task(1, 'succeed')",
        "select submit_v1('{}')",
        "select takeover_v1('{}')",
        "select enrol_node_v1('{}')",
        "select create_token_v1('{}')",
    ] {
        let e = sqlx::query(forbidden).execute(&mut c).await.unwrap_err();
        let code = e.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{forbidden}: {e}");
    }
}

#[tokio::test]
async fn every_function_that_programs_call_runs_with_the_owners_rights_and_a_fixed_path() {
    let t = TestDb::new().await.unwrap();
    let odd = value(
        t.url(),
        r"select coalesce(jsonb_agg(proname), '[]') from pg_proc
          where pronamespace = 'public'::regnamespace and proname like '%\_v1'
            and not (prosecdef and 'search_path=public, pg_temp' = any(proconfig))",
    )
    .await;
    assert_eq!(odd, serde_json::json!([]));
}
