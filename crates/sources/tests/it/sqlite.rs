//! Outboxes in files of SQLite.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_core::offset::Offset;
use tidings_sources::outbox::sqlite::{self, install};
use tidings_sources::outbox::{Answered, Order, Quarantined, Reader, State};
use tokio::time::{sleep, timeout};

use crate::rig::{ARRIVAL, Rig, column, now, random};

const WRITERS: u32 = 64;
const AGGREGATES: u32 = 200;
const LOAD: Duration = Duration::from_secs(2);
/// Of so many transactions one is rolled back.
const ROLLED_BACK: u32 = 8;

/// An application with its file.
pub(crate) struct App {
    connection: Connection,
    pub(crate) path: PathBuf,
    folder: TempDir,
}

/// A connection as an application has it; power is not cut here, so it needs no syncs.
fn connect(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(ARRIVAL).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    connection
}

/// A file with an outbox, not relayed yet.
pub(crate) fn shop(journal: &str) -> Rig<App> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let connection = connect(&path);
    connection.pragma_update(None, "journal_mode", journal).unwrap();
    assert!(install::install(&path).unwrap());
    let url = format!("sqlite://{}", path.display());
    Rig::of(App { connection, path, folder }, url)
}

impl Rig<App> {
    fn reader(&self, name: &str) -> Reader {
        Reader::Sqlite(Box::new(sqlite::Reader::new(&self.url, name).unwrap()))
    }

    pub(crate) fn start_sqlite(&mut self) {
        self.run(self.reader("tidings-1"));
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.app.connection.execute_batch(sql).unwrap();
    }

    /// `count` rows with numbers from `first`, in one transaction.
    fn emit(&self, first: u32, count: u32) {
        let sql = format!(
            "INSERT INTO tidings_outbox (event_type, aggregate_id, data)
             WITH RECURSIVE n (n) AS (VALUES ({first}) UNION ALL SELECT n + 1 FROM n WHERE n < {first} + {count} - 1)
             SELECT 'order.created', 'a' || n % 7, json_object('n', n) FROM n"
        );
        self.sql(&sql);
    }

    fn left(&self) -> i64 {
        install::status(&self.app.path).unwrap().rows
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["data"]["n"].as_u64()).collect()
}

fn order(id: &str, discard: bool) -> Order {
    Order { id: id.into(), discard, instead: None, told: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_commits_becomes_events_and_what_it_rolls_back_does_not() {
    let mut rig = shop("wal");
    rig.start_sqlite();
    rig.sql(
        "BEGIN; INSERT INTO tidings_outbox (event_id, event_type, version, occurred_at, source, aggregate_id, channels,
                                            metadata, data)
         VALUES ('mine', 'order.created', 2, '2026-11-22T10:15:30.123456Z', '/orders', 'order_1', '[\"user:1\"]',
                 '{\"actor\":\"u_1\"}', '{\"total\": 1.00, \"b\":1}'); COMMIT;
         BEGIN; INSERT INTO tidings_outbox (event_type, data) VALUES ('order.never', '1'); ROLLBACK;
         INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ('order.paid', 'order_1', 'null')",
    );
    let events = rig.events(2).await;
    let first = json!({
        "eventId": "mine", "eventType": "order.created", "version": 2, "timestamp": "2026-11-22T10:15:30.123Z",
        "source": "/orders", "aggregateId": "order_1", "sequenceNumber": 1, "channels": ["user:1"],
        "metadata": {"actor": "u_1"}, "data": {"total": 1.0, "b": 1},
    });
    assert_eq!(events[0], first);
    assert_eq!((&events[1]["eventType"], &events[1]["source"]), (&json!("order.paid"), &json!("/shop")));
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 2);
    let stored = rig.store().event(rig.tenant().unwrap(), Offset(1)).await.unwrap().unwrap();
    assert_eq!(stored.bytes().unwrap(), &Bytes::from_static(b"{\"total\": 1.00, \"b\":1}"), "byte for byte");
}

fn below(bound: u32) -> u32 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    u32::from_le_bytes(bytes) % bound
}

/// Updates aggregates and tells of it; the last version of each that it committed.
fn writer(path: &std::path::Path, end: &AtomicBool) -> BTreeMap<String, i64> {
    let mut connection = connect(path);
    let mut committed = BTreeMap::new();
    while !end.load(Ordering::Relaxed) {
        let write = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let key = format!("thing_{}", below(AGGREGATES));
        let sql = "INSERT INTO thing VALUES (?1, 1) ON CONFLICT DO UPDATE SET version = version + 1 RETURNING version";
        let version: i64 = write.query_row(sql, [&key], |row| row.get(0)).unwrap();
        let sql = "INSERT INTO tidings_outbox (event_type, aggregate_id, data)
                   VALUES ('thing.changed', ?1, json_object('v', ?2))";
        write.execute(sql, (&key, version)).unwrap();
        if below(ROLLED_BACK) == 0 {
            write.rollback().unwrap();
        } else {
            write.commit().unwrap();
            committed.insert(key, version);
        }
    }
    committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_a_file_lose_nothing_and_keep_their_order() {
    for journal in ["wal", "delete"] {
        let mut rig = shop(journal);
        rig.sql("CREATE TABLE thing (id TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT");
        rig.start_sqlite();
        let end = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (path, end) = (rig.app.path.clone(), Arc::clone(&end));
                thread::spawn(move || writer(&path, &end))
            })
            .collect();
        sleep(LOAD).await;
        end.store(true, Ordering::Relaxed);
        let mut committed = BTreeMap::new();
        for writer in writers {
            for (key, version) in writer.join().unwrap() {
                let last = committed.entry(key).or_insert(version);
                *last = version.max(*last);
            }
        }
        let total: i64 = committed.values().sum();
        let events = rig.events(total.cast_unsigned()).await;
        rig.settled().await;
        assert_eq!(rig.all().await.len(), events.len(), "{journal}: nothing that was rolled back");
        let mut seen: BTreeMap<String, i64> = BTreeMap::new();
        for event in &events {
            let last = seen.entry(event["aggregateId"].as_str().unwrap().to_owned()).or_default();
            *last += 1;
            assert_eq!(event["data"]["v"], *last, "{journal}: {event}");
        }
        assert_eq!(seen, committed, "{journal}");
        println!("{journal}: {total} committed by {WRITERS} writers in {LOAD:?}, none lost, repeated or out of order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_a_file_comes_whole_and_in_order() {
    let mut rig = shop("wal");
    rig.emit(1, 7_000);
    rig.sql(
        "INSERT INTO tidings_outbox (event_type, data)
         WITH RECURSIVE n (n) AS (VALUES (7001) UNION ALL SELECT n + 1 FROM n WHERE n < 7100)
         SELECT 'order.large', json_object('n', n, 'pad', hex(zeroblob(100000))) FROM n",
    );
    rig.start_sqlite();
    assert_eq!(numbers(&rig.events(7_100).await), (1..=7_100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_a_file_that_is_ended_anywhere_repeats_and_loses_nothing() {
    let mut rig = shop("wal");
    rig.start_sqlite();
    for round in 0..8 {
        rig.emit(round * 1_000, 1_000);
        if round % 3 == 2 {
            rig.reopen().await;
        } else {
            rig.stop().await;
        }
        rig.start_sqlite();
    }
    let events = rig.events(8_000).await;
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 8_000);
    assert_eq!(numbers(&events), (0..8_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_file_that_cannot_become_an_event_holds_back_its_aggregate_only() {
    let mut rig = shop("wal");
    rig.sql(
        "INSERT INTO tidings_outbox (event_type, aggregate_id, occurred_at, channels, data) VALUES
           ('order.created', 'a', 'yesterday', NULL, '1'), ('order.paid', 'a', NULL, NULL, '2'),
           ('order.created', 'b', NULL, '[1]', '3'), ('order.created', 'c', NULL, NULL, '4')",
    );
    rig.start_sqlite();
    let events = rig.events(3).await;
    rig.settled().await;
    let told: Vec<_> = events.iter().filter(|event| event["eventType"] == "tidings.source.rejected").collect();
    let pointers: Vec<_> = told.iter().map(|event| &event["data"]["faults"][0]["pointer"]).collect();
    assert_eq!(pointers, [&json!("/timestamp"), &json!("/channels/0")], "{events:?}");
    assert!(events.iter().any(|event| event["aggregateId"] == "c"));
    let held: Vec<_> = rig.quarantined().await.iter().map(Quarantined::id).collect();
    assert_eq!(held.len(), 3);
    assert!(matches!(rig.orders().give(order(&held[0], false)).await, Answered::StillWrong(_)));
    assert_eq!(rig.orders().give(order(&held[0], true)).await, Answered::Done { released: 1 });
    assert_eq!(rig.events(4).await[3]["eventType"], "order.paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_by_an_earlier_one_is_noticed_while_it_is_read() {
    let mut rig = shop("delete");
    rig.start_sqlite();
    rig.emit(1, 10);
    rig.events(10).await;
    let backup = rig.app.folder.path().join("backup.db");
    std::fs::copy(&rig.app.path, &backup).unwrap();
    rig.emit(11, 10);
    rig.events(20).await;
    std::fs::rename(&backup, &rig.app.path).unwrap();
    rig.app.connection = connect(&rig.app.path);
    // As many as were lost, so that they have the same numbers.
    rig.emit(31, 10);
    let events = rig.events(31).await;
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 31, "what the log had is not there twice");
    assert_eq!(column(&events, "/eventType").iter().filter(|kind| **kind == "tidings.source.reset").count(), 1);
    assert_eq!(numbers(&events), (1..=20).chain(31..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_read_a_file_the_later_goes_on_and_the_earlier_stops() {
    let mut first = shop("wal");
    first.start_sqlite();
    first.emit(1, 1);
    first.events(1).await;
    let mut second = Rig::of((), first.url.clone());
    second.run(first.reader("tidings-2"));
    second.events(1).await;
    let stopped = async {
        while first.meter().measures(now()).state != State::Taken {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, stopped).await.unwrap();
    first.emit(2, 1);
    second.events(2).await;
    assert_eq!(first.all().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_rows_of_a_file_go_but_for_the_last_and_those_behind_it_stay() {
    let rig = shop("wal");
    rig.emit(1, 1_000);
    let mut reader = rig.reader("tidings-1");
    let opened = reader.open(None, true).await.unwrap();
    let batch = reader.poll(&opened.position).await.unwrap();
    assert_eq!((batch.rows.len(), batch.more), (1_000, false));
    rig.emit(1_001, 5);
    reader.clear(&batch.position).await.unwrap();
    let cleared = async {
        while rig.left() > 6 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, cleared).await.unwrap();
    let status = install::status(&rig.app.path).unwrap();
    assert_eq!((status.rows, status.waiting, status.reader.as_deref()), (6, 5, Some("tidings-1")));
    let rows = reader.poll(&batch.position).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1_001..=1_005).collect::<Vec<_>>());
    assert!(install::uninstall(&rig.app.path, false).is_err(), "five wait");
    install::uninstall(&rig.app.path, true).unwrap();
    assert!(install::status(&rig.app.path).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_another_history_is_read_from_its_beginning() {
    let rig = shop("wal");
    rig.emit(1, 10);
    let mut reader = rig.reader("tidings-1");
    let opened = reader.open(Some(r#"{"after":10,"eventId":"of another file"}"#), false).await.unwrap();
    assert!(opened.reset.is_some());
    assert_eq!(reader.poll(&opened.position).await.unwrap().rows.len(), 10);
}
