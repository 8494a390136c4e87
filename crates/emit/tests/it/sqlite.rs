//! Emitting and receiving in transactions of rusqlite.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use serde_json::json;
use tidings_emit::rusqlite::{emit, emitted, first, forget, order};
use tidings_emit::{EmitError, Event, EventId, Order, Timestamp, sql};

fn database() -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(sql::OUTBOX_SQLITE).unwrap();
    database.execute_batch(sql::INBOX).unwrap();
    database.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER) STRICT").unwrap();
    database
}

fn create_order(tx: &Transaction<'_>, id: &str) {
    tx.execute("INSERT INTO orders VALUES (?, 42)", [id]).unwrap();
    emit(tx, Event::new("order.created", &json!({"id": id})).aggregate(id)).unwrap();
}

/// Orders, and events.
fn counts(database: &Connection) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM tidings_outbox)";
    database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn a_panic_between_mutation_and_commit_leaves_neither_and_a_commit_both() {
    let mut database = database();
    let crash = catch_unwind(AssertUnwindSafe(|| {
        let tx = database.transaction().unwrap();
        create_order(&tx, "order_1");
        panic!("before the commit");
    }));
    assert!(crash.is_err());
    assert_eq!(counts(&database), (0, 0));
    let tx = database.transaction().unwrap();
    create_order(&tx, "order_1");
    tx.commit().unwrap();
    assert_eq!(counts(&database), (1, 1));
}

#[test]
fn a_row_holds_what_the_event_says() {
    let mut database = database();
    let tx = database.transaction().unwrap();
    let event = Event::new("order.created", &json!({"total": 42})).aggregate("order_1").channel("user:u_17");
    let event = event.metadata("actor", "u_17").version(2).source("/orders").id("o1");
    let id = emit(&tx, event.timestamp(Timestamp::from_millis(1))).unwrap();
    assert_eq!(id.as_str(), "o1");
    let at: String = tx.query_row("SELECT occurred_at FROM tidings_outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(at, "1970-01-01T00:00:00.001Z");
    let emissions = emitted(&tx).unwrap();
    let told = emissions.one("order.created");
    assert_eq!((told.event_id.as_str(), told.version, told.source.as_deref()), ("o1", Some(2), Some("/orders")));
    assert_eq!((told.aggregate_id.as_deref(), &*told.channels), (Some("order_1"), &["user:u_17".to_owned()][..]));
    assert_eq!((told.metadata["actor"].as_str(), &told.data), ("u_17", &json!({"total": 42})));
}

#[test]
fn an_event_that_breaks_a_rule_is_refused_before_the_database_sees_it() {
    let mut database = database();
    let tx = database.transaction().unwrap();
    let refused = emit(&tx, Event::new("created", &1)).unwrap_err();
    assert!(matches!(refused, EmitError::Invalid(_)), "{refused}");
    let refused = emit(&tx, Event::new("order.created", &1).aggregate("o").expected_sequence(1)).unwrap_err();
    assert!(refused.to_string().contains("expectedSequence"), "{refused}");
    assert_eq!(emitted(&tx).unwrap().types(), [""; 0]);
}

#[test]
fn plain_sql_that_is_no_json_is_refused_by_the_table() {
    let database = database();
    let insert = |channels: &str, metadata: &str, data: &str| {
        let sql = "INSERT INTO tidings_outbox (event_type, channels, metadata, data) VALUES ('order.created', ?, ?, ?)";
        database.execute(sql, [channels, metadata, data])
    };
    assert!(insert(r#"["a"]"#, r#"{"a":"b"}"#, "1").is_ok());
    for (channels, metadata, data) in [("{}", "{}", "1"), ("[]", "[]", "1"), ("[]", "{}", "{"), ("x", "{}", "1")] {
        assert!(insert(channels, metadata, data).is_err(), "{channels} {metadata} {data}");
    }
}

#[test]
fn the_work_of_an_event_is_done_once_and_a_rollback_undoes_that() {
    let mut database = database();
    let id = EventId::parse("e1").unwrap();
    for (commit, expected) in [(false, true), (true, true), (true, false)] {
        let tx = database.transaction().unwrap();
        assert_eq!(first(&tx, "billing", &id).unwrap(), expected);
        if commit {
            tx.commit().unwrap();
        }
    }
    let tx = database.transaction().unwrap();
    assert!(first(&tx, "shipping", &id).unwrap(), "another subscriber has its own inbox");
    forget(&tx, "billing", Duration::from_hours(48)).unwrap();
    assert!(!first(&tx, "billing", &id).unwrap(), "young ids stay");
    tx.execute("UPDATE tidings_inbox SET processed_ms = processed_ms - 172800001", []).unwrap();
    forget(&tx, "billing", Duration::from_hours(48)).unwrap();
    assert!(first(&tx, "billing", &id).unwrap(), "old ids go");
    assert!(!first(&tx, "shipping", &id).unwrap(), "those of others stay");
}

#[test]
fn late_events_and_gaps_are_told_and_a_rollback_forgets_them() {
    let mut database = database();
    let see = |database: &mut Connection, sequence, commit| {
        let tx = database.transaction().unwrap();
        let order = order(&tx, "billing", "order_1", sequence).unwrap();
        if commit {
            tx.commit().unwrap();
        }
        order
    };
    assert_eq!(see(&mut database, 3, false), Order::First);
    assert_eq!(see(&mut database, 1, true), Order::Next);
    assert_eq!(see(&mut database, 4, false), Order::Gap { missing: 2..=3 });
    assert_eq!(see(&mut database, 4, true), Order::Gap { missing: 2..=3 });
    assert_eq!(see(&mut database, 2, true), Order::Late { newest: 4 });
    assert_eq!(see(&mut database, 5, true), Order::Next);
}
