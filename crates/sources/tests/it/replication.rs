//! The outbox by logical replication: what is told comes once and in order, whatever ends and begins again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_rigs::Postgres;
use tidings_sources::outbox::postgres::replication::{self, slot};
use tidings_sources::outbox::postgres::{self, install};
use tidings_sources::outbox::{Reader, State};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::race::{Arrivals, TABLES, judge, last_versions, seen, writer};
use crate::rig::{ARRIVAL, Rig, column, connect, database, database_in, now};

/// Of the writers at once.
const LOAD: Duration = Duration::from_secs(2);
const WRITERS: u32 = 32;

/// Emits rows and messages in turn, two for each number of a range; each message of an aggregate of its own.
pub(crate) fn both(from: u32, to: u32) -> String {
    format!(
        "SELECT tidings.emit('order.created', json_build_object('n', 2 * n), aggregate_id => 'row_' || n),
                pg_logical_emit_message(true, 'tidings', json_build_object('eventType', 'order.told', 'aggregateId',
                                        'message_' || n, 'data', json_build_object('n', 2 * n + 1))::text)
         FROM generate_series({from}, {to}) n"
    )
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["data"]["n"].as_u64()).collect()
}

fn sorted(events: &[Value]) -> Vec<u64> {
    let mut numbers = numbers(events);
    numbers.sort_unstable();
    numbers
}

/// Waits until a relay says something of itself.
pub(crate) async fn stands(rig: &Rig, expected: impl Fn(&tidings_sources::outbox::Measures) -> bool) {
    let looked = async {
        while !expected(&rig.meter().measures(now())) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, looked).await.unwrap_or_else(|_| panic!("{:?}", rig.meter().measures(now())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_comes_in_the_order_of_commits_and_nothing_else_does() {
    let mut rig = Rig::with_slot(database().await).await;
    rig.replicate();
    // What is there now is read from the table.
    rig.settled().await;
    let mut other = connect(&rig.url).await;
    let early = other.transaction().await.unwrap();
    early.execute("SELECT tidings.emit('order.last', '{\"n\":3}')", &[]).await.unwrap();
    let emit = "BEGIN; SELECT tidings.emit('order.created', '{\"n\": 1.10}', 'order_1', ARRAY['user:1', 'a b'], 2,
                    '{\"actor\":\"u_1\"}', '/orders', '2026-11-22T10:15:30.123456Z', 'mine');
                SAVEPOINT one; SELECT tidings.emit('order.never', '1');
                SELECT pg_logical_emit_message(true, 'tidings', '{\"eventType\":\"order.never\",\"data\":1}');
                ROLLBACK TO one;
                SELECT pg_logical_emit_message(true, 'tidings', ' {\"eventType\":\"order.told\",\"aggregateId\":\"order_1\",\"data\": 2.0} ');
                SELECT pg_logical_emit_message(true, 'other', '{\"eventType\":\"order.never\",\"data\":1}');
                SELECT pg_logical_emit_message(false, 'tidings', '{\"eventType\":\"order.never\",\"data\":1}');
                COMMIT;
                BEGIN; SELECT tidings.emit('order.never', '1');
                SELECT pg_logical_emit_message(true, 'tidings', '{\"eventType\":\"order.never\",\"data\":1}'); ROLLBACK";
    rig.app.batch_execute(emit).await.unwrap();
    early.commit().await.unwrap();
    let events = rig.events(3).await;
    assert_eq!(column(&events, "/eventType"), ["order.created", "order.told", "order.last"]);
    let first = json!({
        "eventId": "mine", "eventType": "order.created", "version": 2, "timestamp": "2026-11-22T10:15:30.123Z",
        "source": "/orders", "aggregateId": "order_1", "sequenceNumber": 1, "channels": ["user:1", "a b"],
        "metadata": {"actor": "u_1"}, "data": {"n": 1.1},
    });
    assert_eq!(events[0], first);
    assert_eq!((&events[1]["sequenceNumber"], &events[1]["source"]), (&json!(2), &json!("/shop")));
    let stored = |offset| rig.store().event(rig.tenant().unwrap(), tidings_core::offset::Offset(offset));
    assert_eq!(stored(1).await.unwrap().unwrap().bytes().unwrap(), &b"{\"n\": 1.10}"[..], "byte for byte");
    assert_eq!(stored(2).await.unwrap().unwrap().bytes().unwrap(), &b"2.0"[..], "byte for byte");
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_holds_nobody_back() {
    let mut rig = Rig::with_slot(database().await).await;
    rig.app.batch_execute("CREATE TABLE unrelated (x integer)").await.unwrap();
    let mut other = connect(&rig.url).await;
    let long = other.transaction().await.unwrap();
    long.execute("INSERT INTO unrelated VALUES (1)", &[]).await.unwrap();
    long.execute("SELECT tidings.emit('order.slow', '1')", &[]).await.unwrap();
    rig.replicate();
    rig.app.batch_execute(&both(0, 0)).await.unwrap();
    assert_eq!(numbers(&rig.events(2).await), [0, 1]);
    rig.settled().await;
    long.commit().await.unwrap();
    assert_eq!(column(&rig.events(3).await, "/eventType"), ["order.created", "order.told", "order.slow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_by_replication_that_is_ended_anywhere_repeats_and_loses_nothing() {
    let mut rig = Rig::with_slot(database().await).await;
    rig.replicate();
    for round in 0..8_u32 {
        // In one transaction, which may be cut anywhere.
        rig.app.batch_execute(&both(round * 3_000, round * 3_000 + 2_999)).await.unwrap();
        if round % 2 == 0 {
            rig.events(u64::from(round) * 6_000 + 1_000).await;
        }
        if round % 3 == 2 {
            rig.reopen().await;
        } else {
            rig.stop().await;
        }
        rig.replicate();
    }
    let large = "SELECT pg_logical_emit_message(true, 'other', repeat('x', 50000000));
                 SELECT tidings.emit('order.large', json_build_object('n', 48000 + n, 'pad', repeat('y', 200000)))
                 FROM generate_series(0, 99) n";
    rig.app.batch_execute(large).await.unwrap();
    let events = rig.events(48_100).await;
    rig.settled().await;
    assert!(numbers(&events).into_iter().eq(0..48_100), "each once and in order");
    assert_eq!(rig.all().await.len(), 48_100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_keep_the_order_of_each_aggregate_by_replication() {
    let mut rig = Rig::with_slot(database().await).await;
    rig.app.batch_execute(TABLES).await.unwrap();
    rig.replicate();
    rig.settled().await;
    let (end, arrivals) = (Arc::new(AtomicBool::new(false)), Arrivals::of(&rig));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(writer(Arc::new(Mutex::new(connect(&rig.url).await)), Arc::clone(&end)));
    }
    sleep(LOAD).await;
    end.store(true, Ordering::Relaxed);
    let written = writers.join_all().await.concat();
    let events = rig.events(written.len() as u64).await;
    rig.settled().await;
    assert_eq!(
        judge(&seen(&events), &last_versions(&written)),
        (0, 0, 0),
        "lost, phantom, out of order of {}",
        written.len()
    );
    assert_eq!(rig.all().await.len(), written.len());
    let (half, p99) = arrivals.took(&written, &events);
    println!("{} committed by {WRITERS} writers: commit to log p50 {half:?} p99 {p99:?}", written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_event_is_put_aside_whole() {
    let mut rig = Rig::with_slot(database().await).await;
    rig.replicate();
    for content in [
        "no JSON",
        "{\"eventType\":\"Bad\",\"aggregateId\":\"a\",\"data\":1.10}",
        "{\"eventType\":\"order.paid\",\"aggregateId\":\"a\",\"data\":2}",
        "{\"eventType\":\"order.paid\",\"aggregateId\":\"b\",\"data\":2,\"expectedSequence\":7}",
        "{\"eventType\":\"order.paid\",\"aggregateId\":\"c\",\"data\":3}",
    ] {
        let sql = "SELECT pg_logical_emit_message(true, 'tidings', $1::text)";
        rig.app.execute(sql, &[&content]).await.unwrap();
    }
    let events = rig.events(4).await;
    rig.settled().await;
    let of_orders: Vec<_> = events.iter().filter(|event| event["eventType"] == "order.paid").collect();
    assert_eq!((of_orders.len(), &of_orders[0]["aggregateId"]), (1, &json!("c")));
    let held = rig.quarantined().await;
    let faults: Vec<_> = held.iter().map(|kept| kept.faults.first().map_or("waits", |fault| &fault.pointer)).collect();
    assert_eq!(faults, ["", "/eventType", "waits", "/expectedSequence"]);
    assert_eq!(held[1].row.data.as_deref(), Some(&b"{\"eventType\":\"Bad\",\"aggregateId\":\"a\",\"data\":1.10}"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_becomes_replication_and_back_with_each_row_once() {
    let mut rig = Rig::at(database().await).await;
    rig.start();
    let emit = |from: u32, to: u32| {
        format!("SELECT tidings.emit('order.created', json_build_object('n', n)) FROM generate_series({from}, {to}) n")
    };
    rig.app.batch_execute(&emit(0, 9)).await.unwrap();
    rig.events(10).await;
    rig.stop().await;
    rig.app.batch_execute(&emit(10, 19)).await.unwrap();
    slot::make(&rig.config()).await.unwrap();
    rig.app.batch_execute(&emit(20, 29)).await.unwrap();
    let mut other = connect(&rig.url).await;
    let long = other.transaction().await.unwrap();
    long.batch_execute(&emit(40, 49)).await.unwrap();
    rig.replicate();
    rig.events(30).await;
    rig.app.batch_execute(&emit(30, 39)).await.unwrap();
    rig.events(40).await;
    long.commit().await.unwrap();
    rig.events(50).await;
    rig.stop().await;
    // The slot would keep the log for ever.
    rig.start();
    stands(&rig, |measures| measures.error.as_ref().is_some_and(|error| error.contains("--mode polling"))).await;
    assert!(slot::remove(&rig.config()).await.unwrap());
    rig.app.batch_execute(&emit(50, 59)).await.unwrap();
    let events = rig.events(60).await;
    rig.settled().await;
    assert!(numbers(&events).into_iter().eq(0..60), "{:?}", numbers(&events));
    assert_eq!(rig.all().await.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_rows_are_cleared_away_by_replication_too() {
    let rig = Rig::with_slot(database().await).await;
    let table = postgres::Reader::new(rig.config(), "tidings-1").turning_after(Duration::ZERO, 1);
    let mut reader = Reader::Replication(Box::new(replication::Reader::new(table)));
    let mut position = reader.open(None, true).await.unwrap().position;
    // It turns to the other half each time that all of this one was read.
    for expected in [1, 0, 1] {
        rig.app.batch_execute(&both(0, 0)).await.unwrap();
        let turned = async {
            while rig.app.query_one("SELECT half::integer FROM tidings.state", &[]).await.unwrap().get::<_, i32>(0)
                != expected
            {
                position = reader.poll(&position).await.unwrap().position;
                position = reader.clear(&position).await.unwrap();
            }
        };
        timeout(ARRIVAL, turned).await.expect("it turns");
    }
    let left: i64 = rig.app.query_one("SELECT count(*) FROM tidings.outbox", &[]).await.unwrap().get(0);
    assert_eq!(left, 1, "those of the half before are gone");
    while install::status(&rig.config()).await.unwrap().waiting > 0 {
        position = reader.poll(&position).await.unwrap().position;
        position = reader.clear(&position).await.unwrap();
    }
}

/// A cluster of a test's own that can replicate.
pub(crate) fn cluster(settings: &[&str]) -> Postgres {
    Postgres::with(&[&["fsync=off", "full_page_writes=off", "wal_level=logical"], settings].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_missing_or_lost_says_how_to_go_on() {
    let cluster = cluster(&["max_slot_wal_keep_size=1MB", "max_wal_size=32MB", "min_wal_size=32MB"]);
    let mut rig = Rig::at(database_in(&cluster).await).await;
    rig.replicate();
    let told = |part: &'static str| {
        move |measures: &tidings_sources::outbox::Measures| {
            let error = measures.error.as_deref().unwrap_or_default();
            measures.state == State::Failing && error.contains(part) && error.contains("install --mode replication")
        }
    };
    stands(&rig, told("no replication slot")).await;
    let (slot, made) = slot::make(&rig.config()).await.unwrap();
    assert!(made && slot.retained_bytes_max == Some(1 << 20), "{slot:?}");
    rig.app.batch_execute(&both(0, 9)).await.unwrap();
    rig.events(20).await;
    stands(&rig, |measures| measures.slot.as_ref().is_some_and(|seen| seen.name == slot.name)).await;
    rig.stop().await;
    rig.app.execute("SELECT tidings.emit('order.created', '{\"n\":20}')", &[]).await.unwrap();
    for _ in 0..5 {
        rig.app.batch_execute("SELECT pg_logical_emit_message(true, 'other', 'x'), pg_switch_wal()").await.unwrap();
        rig.app.batch_execute("CHECKPOINT").await.unwrap();
    }
    rig.replicate();
    stands(&rig, told("is lost")).await;
    assert!(rig.meter().measures(now()).slot.is_some_and(|slot| slot.is_lost()));
    let (anew, made) = slot::make(&rig.config()).await.unwrap();
    assert!(made && anew.name != slot.name && !anew.is_lost(), "{anew:?}");
    rig.app.execute("SELECT tidings.emit('order.created', '{\"n\":21}')", &[]).await.unwrap();
    let events = rig.events(22).await;
    rig.settled().await;
    // Rows come from the table, so before the messages of their transaction.
    assert!(sorted(&events).into_iter().eq(0..22), "{:?}", numbers(&events));
    assert_eq!(rig.all().await.len(), 22);
    rig.app.batch_execute("DROP PUBLICATION tidings_outbox").await.unwrap();
    rig.stop().await;
    rig.replicate();
    stands(&rig, told("publication")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_database_loses_and_repeats_nothing_by_replication() {
    let mut postgres = cluster(&[]);
    let mut rig = Rig::with_slot(database_in(&postgres).await).await;
    rig.replicate();
    for round in 0..3 {
        rig.app.batch_execute(&both(round * 100, round * 100 + 99)).await.unwrap();
        if round % 2 == 0 {
            rig.events(u64::from(round) * 200 + 100).await;
        }
        postgres.kill();
        postgres.run();
        rig.app = connect(&rig.url).await;
    }
    rig.app.batch_execute(&both(300, 300)).await.unwrap();
    stands(&rig, |measures| measures.state == State::Reading).await;
    rig.settled().await;
    let events = rig.all().await;
    assert!(sorted(&events).into_iter().eq(0..602), "each once: {:?}", sorted(&events));
    assert!(column(&events, "/eventType").contains(&"tidings.source.reset"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tidings_takes_the_slot_over_and_the_first_one_leaves_it_alone() {
    let url = database().await;
    let (mut first, mut second) = (Rig::with_slot(url.clone()).await, Rig::at(url).await);
    first.replicate();
    first.app.execute("SELECT tidings.emit('order.created', '{\"n\":0}')", &[]).await.unwrap();
    first.events(1).await;
    second.replicate_as("tidings-2", |reader| reader);
    stands(&first, |measures| measures.state == State::Taken).await;
    first.app.batch_execute(&both(1, 1)).await.unwrap();
    // It finds the row of before in the table.
    let events = second.events(3).await;
    second.settled().await;
    assert_eq!((sorted(&events), second.all().await.len()), (vec![0, 2, 3], 3));
}
