//! Every (state, event) pair through the real SQL, compared with the pure tables.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use trix_model::state::*;

use crate::support::*;

/// What `move` (a call with `ID` and `EVENT` in it) makes of row `id` of `table` in each
/// state under each event.
async fn compare<S, E>(
    c: &mut PgConnection,
    table: &str,
    by: &str,
    id: i64,
    states: &[S],
    events: &[E],
    after: impl Fn(S, E) -> Option<S>,
) where
    S: Copy + std::fmt::Display + std::fmt::Debug + PartialEq,
    E: Copy + std::fmt::Display,
{
    for &state in states {
        for &event in events {
            let mut tx = c.begin().await.unwrap();
            let set = format!("update {table} set state = '{state}' where id = {id}");
            sqlx::query(AssertSqlSafe(set)).execute(&mut *tx).await.unwrap();
            let call = by.replace("ID", &id.to_string()).replace("EVENT", &event.to_string());
            let got = sqlx::query(AssertSqlSafe(call)).execute(&mut *tx).await;
            match (after(state, event), got) {
                (Some(expected), Ok(_)) => {
                    let row = format!("select state from {table} where id = {id}");
                    let row: String =
                        sqlx::query_scalar(AssertSqlSafe(row)).fetch_one(&mut *tx).await.unwrap();
                    assert_eq!(row, expected.to_string(), "{by}: {state} and {event}");
                }
                (None, Err(sqlx::Error::Database(e))) if e.message() == "illegal_transition" => {}
                (expected, got) => {
                    panic!("{by}: {state} and {event}: {expected:?}, but {got:?}")
                }
            }
            tx.rollback().await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_sql_state_machines_equal_the_pure_tables() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    a.run_all(&w.db).await;
    let task = w.task(job, "mux/r").await.id;
    let publication = w.db.publications(job).await.unwrap()[0].id;
    let mut c = PgConnection::connect(w.test.url()).await.unwrap();
    for by in ["select move_task(ID, 'EVENT')", "select move_tasks(array[ID], 'EVENT')"] {
        compare(&mut c, "task", by, task.0, TaskState::ALL, TaskEvent::ALL, TaskState::after).await;
    }
    let by = "select move_job(ID, 'EVENT')";
    compare(&mut c, "job", by, job.0, JobState::ALL, JobEvent::ALL, JobState::after).await;
    compare(
        &mut c,
        "publication",
        "select move_publication(ID, 'EVENT')",
        publication,
        PublicationState::ALL,
        PublicationEvent::ALL,
        PublicationState::after,
    )
    .await;
    let by = "select move_node(ID, 'EVENT')";
    compare(&mut c, "node", by, 1, NodeState::ALL, NodeEvent::ALL, NodeState::after).await;
}

#[tokio::test]
async fn nothing_else_in_the_schema_writes_a_state_of_a_task_a_job_or_a_publication() {
    let w = World::new().await;
    let writers = value(
        w.test.url(),
        r"select coalesce(jsonb_agg(proname order by proname), '[]') from pg_proc
          where pronamespace = 'public'::regnamespace
            and prosrc ~* 'update\s+(task|job|publication)(\s+\w+)?\s+set\s([^;]*,)?\s*state\s*='",
    )
    .await;
    assert_eq!(
        writers,
        serde_json::json!(["move_job", "move_publication", "move_task", "move_tasks"])
    );
}
