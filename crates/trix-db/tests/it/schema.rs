//! The schema as a whole.

use trix_testkit::pg::TestDb;

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let t = TestDb::new().await.unwrap();
    let db = t.db();
    db.ping().await.unwrap();
    db.migrate().await.unwrap();
}
