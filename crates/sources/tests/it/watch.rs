//! Tables that are watched, on each kind of database.

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use tidings_core::offset::Offset;
use tidings_sources::outbox::watch::{Watch, Watched};
use tidings_sources::outbox::{mysql, postgres, sqlite};

use crate::rig::Rig;
use crate::{mysql as mariadb, sqlite as file};

/// Names that have to be quoted with care; `"` stands for the quote of the database.
const TABLE: &str = "or\"d'e`rs; DROP";
const KEY: &str = "o'clock";

fn watch(key: &[&str], except: &[&str]) -> Watch {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Watch::new(TABLE.to_owned(), "order".to_owned(), all(key), all(except)).unwrap()
}

/// What is done to the one row of the table, which is new, with key (1, 2).
fn steps(table: &str) -> Vec<String> {
    [
        "UPDATE {} SET status = 'paid'",
        "UPDATE {} SET status = 'PAID'",
        "UPDATE {} SET status = status",
        "UPDATE {} SET secret = 'other'",
        "UPDATE {} SET line = 3",
        "DELETE FROM {}",
    ]
    .map(|sql| sql.replace("{}", table))
    .to_vec()
}

/// What all of it tells of a row that is shown so.
fn told(row: impl Fn(u64, &str) -> Value) -> Vec<(Value, Value, Value)> {
    let change = |before: &str, after: &str| json!({"before": row(2, before), "after": row(2, after)});
    [
        ("created", 2, row(2, "n\"e'w\\")),
        ("updated", 2, change("n\"e'w\\", "paid")),
        ("updated", 2, change("paid", "PAID")),
        ("deleted", 2, row(2, "PAID")),
        ("created", 3, row(3, "PAID")),
        ("deleted", 3, row(3, "PAID")),
    ]
    .map(|(action, line, data)| (json!(format!("order.{action}")), json!(format!("order_1_{line}")), data))
    .to_vec()
}

async fn judge<App>(rig: &Rig<App>, row: impl Fn(u64, &str) -> Value) {
    let expected = told(row);
    let events = rig.events(expected.len() as u64).await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event["eventType"].clone(), event["aggregateId"].clone(), event["data"].clone()))
        .collect();
    assert_eq!(seen, expected);
    let first = rig.store().event(rig.tenant().unwrap(), Offset(1)).await.unwrap().unwrap();
    let first = String::from_utf8_lossy(first.bytes().unwrap()).replace(' ', "");
    assert!(first.contains("\"total\":4.1") && !first.contains("secret"), "{first}");
}

fn as_watched(table: &str) -> Vec<Watched> {
    vec![Watched { table: table.to_owned(), resource: "order".to_owned() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_to_a_table_of_postgresql_are_told() {
    let rig = Rig::new().await;
    let config = postgres::config(&rig.url, None, None).unwrap();
    let table = format!("\"{}\"", TABLE.replace('"', "\"\""));
    let create = format!(
        "CREATE TABLE {table} (\"{KEY}\" integer, line integer, status text, total numeric(10, 2), at timestamptz,
         bytes bytea, note jsonb, gone text, secret text, PRIMARY KEY (\"{KEY}\", line));
         CREATE ROLE \"app_{0}\"; GRANT ALL ON {table} TO \"app_{0}\"; SET timezone = 'Asia/Tokyo'",
        rig.url.rsplit('/').next().unwrap()
    );
    rig.app.batch_execute(&create).await.unwrap();
    let watch = Watch { table: table.clone(), ..watch(&[], &["secret"]) };
    for _ in 0..2 {
        postgres::watch::watch(&config, &watch).await.unwrap();
    }
    assert_eq!(postgres::watch::watched(&config).await.unwrap(), as_watched(&table));
    // Who changes the table need not know the outbox; a column may go.
    let app = format!("ALTER TABLE {table} DROP COLUMN gone; SET ROLE \"app_{}\"", rig.url.rsplit('/').next().unwrap());
    rig.app.batch_execute(&app).await.unwrap();
    let insert = format!(
        "INSERT INTO {table} VALUES (1, 2, $$n\"e'w\\$$, 4.10, '2026-11-22T11:15:30.5+01:00', '\\x00ff', '{{\"a\": [1]}}', 's')"
    );
    rig.app.batch_execute(&insert).await.unwrap();
    for sql in steps(&table) {
        rig.app.batch_execute(&sql).await.unwrap();
    }
    judge(&rig, |line, status| {
        json!({KEY: 1, "line": line, "status": status, "total": 4.1, "at": "2026-11-22T10:15:30.5+00:00",
               "bytes": "\\x00ff", "note": {"a": [1]}})
    })
    .await;
    assert!(postgres::watch::unwatch(&config, &table).await.unwrap());
    assert!(!postgres::watch::unwatch(&config, &table).await.unwrap());
    rig.app.batch_execute(&insert).await.unwrap();
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 6);
    let itself = Watch { table: "\"tidings\".outbox".to_owned(), ..watch.clone() };
    assert!(postgres::watch::watch(&config, &itself).await.unwrap_err().to_string().contains("itself"));
    // What is printed does the same.
    let script = postgres::watch::script(&config, &watch).await.unwrap();
    rig.app.batch_execute(&format!("RESET ROLE; {script}")).await.unwrap();
    rig.app.batch_execute(&format!("DELETE FROM {table}")).await.unwrap();
    assert_eq!(rig.events(7).await[6]["eventType"], "order.deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_to_a_table_of_sqlite_are_told() {
    let mut rig = file::shop("wal");
    rig.start_sqlite();
    let path = rig.app.path.clone();
    let table = format!("\"{}\"", TABLE.replace('"', "\"\""));
    rig.sql(&format!(
        "CREATE TABLE {table} (\"{KEY}\" INTEGER, line INTEGER, status TEXT, total REAL, at TEXT, bytes BLOB, note TEXT,
         secret TEXT, twice GENERATED ALWAYS AS (2 * line), PRIMARY KEY (\"{KEY}\", line))"
    ));
    for _ in 0..2 {
        sqlite::watch::watch(&path, &watch(&[], &["secret"])).unwrap();
    }
    assert_eq!(sqlite::watch::watched(&path).unwrap(), as_watched(TABLE));
    let insert =
        format!("INSERT INTO {table} VALUES (1, 2, 'n\"e''w\\', 4.10, '2026-11-22T10:15:30Z', x'00ff', NULL, 's')");
    rig.sql(&insert);
    for sql in steps(&table) {
        rig.sql(&sql);
    }
    judge(&rig, |line, status| {
        json!({KEY: 1, "line": line, "status": status, "total": 4.1, "at": "2026-11-22T10:15:30Z", "bytes": "00ff",
               "note": null, "twice": 2 * line})
    })
    .await;
    assert!(sqlite::watch::unwatch(&path, TABLE).unwrap());
    assert!(!sqlite::watch::unwatch(&path, TABLE).unwrap());
    rig.sql(&insert);
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 6);
    rig.sql(&sqlite::watch::script(&path, &watch(&["status"], &[])).unwrap());
    rig.sql(&format!("DELETE FROM {table}"));
    assert_eq!(rig.events(7).await[6]["aggregateId"], "order_n\"e'w\\");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_to_a_table_of_mariadb_are_told() {
    let mut rig = mariadb::shop().await;
    rig.start_mysql();
    let opts = mysql::opts(&rig.url, None).unwrap();
    let table = format!("`{}`", TABLE.replace('`', "``"));
    let create = format!(
        "CREATE TABLE {table} (`{KEY}` INT, line INT, status VARCHAR(20), total DECIMAL(10, 2), at TIMESTAMP(3),
         local DATETIME, bytes BLOB, note JSON, flags BIT(3), filled INT(6) ZEROFILL, on_day DATE, secret TEXT,
         PRIMARY KEY (`{KEY}`, line)) CHARACTER SET latin1"
    );
    for sql in [&create, "SET SESSION time_zone = '+01:00'"] {
        rig.app.query_drop(sql).await.unwrap();
    }
    for _ in 0..2 {
        mysql::watch::watch(&opts, &watch(&[], &["secret"])).await.unwrap();
    }
    assert_eq!(mysql::watch::watched(&opts).await.unwrap(), as_watched(TABLE));
    let insert = format!(
        "INSERT INTO {table} VALUES (1, 2, 'n\"e''w\\\\', 4.10, '2026-11-22 11:15:30.5', '2026-11-22 11:15:30', x'00ff',
         '{{\"a\": [1]}}', b'101', 42, '2026-11-22', 's')"
    );
    rig.app.query_drop(&insert).await.unwrap();
    for sql in steps(&table) {
        rig.app.query_drop(sql).await.unwrap();
    }
    judge(&rig, |line, status| {
        json!({KEY: 1, "line": line, "status": status, "total": 4.1, "at": "2026-11-22T10:15:30.500000Z",
               "local": "2026-11-22T11:15:30", "bytes": "00ff", "note": {"a": [1]}, "flags": 5, "filled": 42,
               "on_day": "2026-11-22"})
    })
    .await;
    assert!(mysql::watch::unwatch(&opts, TABLE).await.unwrap());
    assert!(!mysql::watch::unwatch(&opts, TABLE).await.unwrap());
    rig.app.query_drop(&insert).await.unwrap();
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 6);
    let script = mysql::watch::script(&opts, &watch(&["status"], &[])).await.unwrap();
    let statements = script.strip_prefix("DELIMITER $$\n").unwrap().strip_suffix("$$\nDELIMITER ;\n").unwrap();
    for sql in statements.split("$$\n") {
        rig.app.query_drop(sql).await.unwrap();
    }
    rig.app.query_drop(format!("DELETE FROM {table}")).await.unwrap();
    assert_eq!(rig.events(7).await[6]["aggregateId"], "order_n\"e'w\\");
}
