//! Many writers at once on MariaDB, and a reader that everybody knows and that fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::mysql::{connect, shop};
use crate::race::{Seen, below, instant, judge};

const WRITERS: u32 = 64;
const AGGREGATES: u32 = 200;
const LOAD: Duration = Duration::from_secs(4);
/// A transaction commits so long after it began, at most.
const COMMIT_MS_MAX: u32 = 40;
/// Of so many transactions one is rolled back.
const ROLLED_BACK: u32 = 8;
/// The longest that an insert into the outbox takes, of 99 in 100: nothing that the relay holds stands in its way.
const INSERT_P99: Duration = Duration::from_millis(100);

/// What committed, and how long each insert took.
type Written = (Vec<(String, i64)>, Vec<Duration>);

/// Updates aggregates and tells of it; half of the transactions have a snapshot before they touch their aggregate.
async fn writer(url: String, end: Arc<AtomicBool>) -> Written {
    let mut connection = connect(&url).await;
    let (mut committed, mut inserts) = (Vec::new(), Vec::new());
    while !end.load(Ordering::Relaxed) {
        let pause = |most| sleep(Duration::from_millis(u64::from(below(most + 1))));
        connection.query_drop("BEGIN").await.unwrap();
        if below(2) == 0 {
            connection.query_drop("SELECT count(*) FROM unrelated").await.unwrap();
            pause(COMMIT_MS_MAX / 2).await;
        }
        let id = below(AGGREGATES);
        let sql = format!("UPDATE thing SET version = last_insert_id(version + 1) WHERE id = {id}");
        connection.query_drop(sql).await.unwrap();
        let version = i64::try_from(connection.last_insert_id().unwrap()).unwrap();
        let key = format!("thing_{id}");
        let sql = format!(
            "INSERT INTO tidings_outbox (event_type, aggregate_id, data)
             VALUES ('thing.changed', '{key}', json_object('v', {version}))"
        );
        let before = instant();
        connection.query_drop(sql).await.unwrap();
        inserts.push(before.elapsed());
        pause(COMMIT_MS_MAX / 2).await;
        if below(ROLLED_BACK) == 0 {
            connection.query_drop("ROLLBACK").await.unwrap();
        } else {
            connection.query_drop("COMMIT").await.unwrap();
            committed.push((key, version));
        }
    }
    (committed, inserts)
}

/// `WHERE id > last`: skips what commits out of order.
async fn naive(url: String, end: Arc<AtomicBool>) -> Seen {
    let mut connection = connect(&url).await;
    let (mut last, mut seen) = (0_u64, Seen::new());
    loop {
        let over = end.load(Ordering::Relaxed);
        if over {
            // The last transactions end within this time.
            sleep(Duration::from_secs(1)).await;
        }
        let sql = format!("SELECT id, aggregate_id, json_value(data, '$.v') FROM copied WHERE id > {last} ORDER BY id");
        let rows: Vec<(u64, String, i64)> = connection.query(sql).await.unwrap();
        for (id, key, version) in rows {
            last = id;
            seen.entry(key).or_default().push(version);
        }
        if over {
            return seen;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_mariadb_lose_nothing_and_keep_their_order_where_id_above_last_fails() {
    let mut rig = shop().await;
    for sql in [
        "CREATE TABLE thing (id INT PRIMARY KEY, version BIGINT NOT NULL DEFAULT 0)",
        "INSERT INTO thing (id) SELECT seq FROM seq_0_to_199",
        "CREATE TABLE unrelated (x INT)",
        // What is relayed goes, so the other reader reads a copy, which is written with the same numbers.
        "CREATE TABLE copied (id BIGINT PRIMARY KEY, aggregate_id VARCHAR(64), data TEXT)",
        "CREATE TRIGGER copy AFTER INSERT ON tidings_outbox FOR EACH ROW
           INSERT INTO copied VALUES (NEW.id, NEW.aggregate_id, NEW.data)",
    ] {
        rig.app.query_drop(sql).await.unwrap();
    }
    rig.start_mysql();
    rig.settled().await;
    let mut long = connect(&rig.url).await;
    for sql in ["BEGIN", "SELECT count(*) FROM tidings_outbox", "INSERT INTO unrelated VALUES (1)"] {
        long.query_drop(sql).await.unwrap();
    }
    let end = Arc::new(AtomicBool::new(false));
    let naive = tokio::spawn(naive(rig.url.clone(), Arc::clone(&end)));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(writer(rig.url.clone(), Arc::clone(&end)));
    }
    sleep(LOAD).await;
    end.store(true, Ordering::Relaxed);
    let (written, inserts): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().unzip();
    let (written, mut inserts) = (written.concat(), inserts.concat());
    let over: Instant = instant();
    let events = rig.events(written.len() as u64).await;
    let behind = over.elapsed();
    rig.settled().await;
    assert_eq!(rig.all().await.len(), events.len(), "nothing that was rolled back");
    long.query_drop("ROLLBACK").await.unwrap();

    let mut committed = BTreeMap::new();
    for (key, version) in &written {
        committed.entry(key.clone()).and_modify(|last: &mut i64| *last = (*last).max(*version)).or_insert(*version);
    }
    let mut seen = Seen::new();
    for event in &events {
        let version = event["data"]["v"].as_i64().unwrap();
        seen.entry(event["aggregateId"].as_str().map(str::to_owned).unwrap()).or_default().push(version);
        assert_eq!(event["sequenceNumber"], Value::from(version), "{event}");
    }
    assert_eq!(judge(&seen, &committed), (0, 0, 0), "lost, phantom, out of order");
    let naive = judge(&naive.await.unwrap(), &committed);
    inserts.sort_unstable();
    let p99 = inserts[inserts.len() * 99 / 100];
    println!(
        "{} committed by {WRITERS} writers, all in the log {behind:?} after the last; inserts p99 {p99:?}; \
         (lost, phantom, out of order) id > last: {naive:?}",
        written.len()
    );
    assert!(naive.0 > 0, "the test can fail: id > last loses rows");
    assert!(p99 <= INSERT_P99, "inserts p99 {p99:?}");
}
