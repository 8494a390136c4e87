//! PostgreSQL, MariaDB and SQLite, each a server or a file of the test's own.

use sqlx::{MySqlPool, PgPool, SqlitePool};
use tidings_emit::{Event, sql};
use tidings_rigs::{MariaDb, Postgres};

use crate::laws;

/// What `tidings outbox install` runs.
const INSTALL: &str = include_str!("../../../../crates/sources/src/outbox/postgres/install.sql");

#[tokio::test]
async fn the_laws_hold_on_postgresql() {
    let server = Postgres::start();
    let pool = PgPool::connect(&server.url("postgres")).await.unwrap();
    sqlx::raw_sql(INSTALL).execute(&pool).await.unwrap();
    sqlx::raw_sql(sql::INBOX).execute(&pool).await.unwrap();
    let orders = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total bigint)";
    sqlx::query(orders).execute(&pool).await.unwrap();
    laws::all_hold(pool.clone()).await;
    laws::of_two_at_a_time_one_is_first(pool).await;
}

#[tokio::test]
async fn the_laws_hold_on_mariadb() {
    let server = MariaDb::start();
    let pool = MySqlPool::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(sql::OUTBOX_MYSQL).execute(&pool).await.unwrap();
    sqlx::raw_sql(sql::INBOX_MYSQL).execute(&pool).await.unwrap();
    let orders = "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, total BIGINT)";
    sqlx::query(orders).execute(&pool).await.unwrap();
    laws::all_hold(pool.clone()).await;
    laws::of_two_at_a_time_one_is_first(pool.clone()).await;
    plain_sql_that_is_no_json_is_refused(&pool).await;
}

/// Whoever emits without the crate gets the table's own answer.
async fn plain_sql_that_is_no_json_is_refused(pool: &MySqlPool) {
    let insert = "INSERT INTO tidings_outbox (event_type, channels, metadata, data) VALUES ('order.created', ?, ?, ?)";
    for (channels, metadata, data, taken) in [
        (r#"["a"]"#, r#"{"a":"b"}"#, "1", true),
        ("{}", "{}", "1", false),
        ("[]", "[]", "1", false),
        ("[]", "{}", "{", false),
    ] {
        let inserted = sqlx::query(insert).bind(channels).bind(metadata).bind(data).execute(pool).await;
        assert_eq!(inserted.is_ok(), taken, "{channels} {metadata} {data}: {inserted:?}");
    }
}

#[tokio::test]
async fn the_laws_hold_on_sqlite_and_rusqlite_shares_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let pool = SqlitePool::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    sqlx::raw_sql(sql::OUTBOX_SQLITE).execute(&pool).await.unwrap();
    sqlx::raw_sql(sql::INBOX).execute(&pool).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)").execute(&pool).await.unwrap();
    laws::all_hold(pool.clone()).await;

    let mut database = rusqlite::Connection::open(&path).unwrap();
    let tx = database.transaction().unwrap();
    tidings_emit::rusqlite::emit(&tx, Event::new("order.paid", &1)).unwrap();
    tx.commit().unwrap();
    let emissions = tidings_emit::sqlx::emitted(&mut pool.begin().await.unwrap()).await.unwrap();
    emissions.one("order.paid");
}
