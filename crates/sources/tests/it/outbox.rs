//! One outbox: what it gives, what it puts aside, what it survives.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidings_sources::outbox::{Answered, Order, Quarantined, State};

use crate::rig::{Rig, column, connect, now};

fn replay(id: &str) -> Order {
    Order { id: id.into(), discard: false, instead: None, told: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_becomes_events_and_what_is_rolled_back_does_not() {
    let mut rig = Rig::new().await;
    let transaction = rig.app.transaction().await.unwrap();
    let sql = "SELECT tidings.emit('order.created', '{\"total\": 1.00, \"b\":1}', aggregate_id => 'order_1', \
               channels => ARRAY['user:1'], version => 2, metadata => '{\"actor\":\"u_1\"}', source => '/orders', \
               occurred_at => '2026-11-22T10:15:30.123456Z')";
    let id: String = transaction.query_one(sql, &[]).await.unwrap().get(0);
    transaction.commit().await.unwrap();
    let transaction = rig.app.transaction().await.unwrap();
    transaction.execute("SELECT tidings.emit('order.never', '1', aggregate_id => 'order_1')", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    rig.app.execute("SELECT tidings.emit('order.paid', 'null', aggregate_id => 'order_1')", &[]).await.unwrap();

    let events = rig.events(2).await;
    let first = json!({
        "eventId": id, "eventType": "order.created", "version": 2, "timestamp": "2026-11-22T10:15:30.123Z",
        "source": "/orders", "aggregateId": "order_1", "sequenceNumber": 1, "channels": ["user:1"],
        "metadata": {"actor": "u_1"}, "data": {"total": 1.0, "b": 1},
    });
    assert_eq!(events[0], first);
    assert_eq!((&events[1]["eventType"], &events[1]["source"]), (&json!("order.paid"), &json!("/shop")));
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 2);
    let stored = rig.store().event(rig.tenant().unwrap(), tidings_core::offset::Offset(1)).await.unwrap().unwrap();
    assert_eq!(stored.bytes().unwrap(), &Bytes::from_static(b"{\"total\": 1.00, \"b\":1}"), "byte for byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_many_batches_comes_whole_and_in_order() {
    let mut rig = Rig::at(crate::rig::database().await).await;
    let sql = "SELECT tidings.emit('order.created', json_build_object('n', n, 'pad', repeat('x', 40 * (n % 100)))) \
               FROM generate_series(1, 7000) n";
    rig.app.batch_execute(sql).await.unwrap();
    // Few, but too large for one batch.
    let sql = "SELECT tidings.emit('order.large', json_build_object('n', 7000 + n, 'pad', repeat('y', 200000))) \
               FROM generate_series(1, 100) n";
    rig.start();
    rig.events(7_000).await;
    rig.app.batch_execute(sql).await.unwrap();
    let events = rig.events(7_100).await;
    let numbers: Vec<_> = events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=7_100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_ended_anywhere_repeats_and_loses_nothing() {
    let mut rig = Rig::new().await;
    for round in 0..8_u32 {
        let sql = format!(
            "SELECT tidings.emit('order.created', json_build_object('n', {round} * 1000 + n), aggregate_id => 'a' || n % 7) \
             FROM generate_series(0, 999) n"
        );
        rig.app.batch_execute(&sql).await.unwrap();
        if round % 3 == 2 {
            rig.reopen().await;
        } else {
            rig.stop().await;
        }
        rig.start();
    }
    let events = rig.events(8_000).await;
    rig.settled().await;
    let numbers: Vec<_> = events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..8_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_holds_back_its_own_rows_only() {
    let rig = Rig::new().await;
    let mut other = connect(&rig.url).await;
    let long = other.transaction().await.unwrap();
    long.execute("SELECT tidings.emit('order.slow', '1')", &[]).await.unwrap();
    rig.app.execute("SELECT tidings.emit('order.quick', '1')", &[]).await.unwrap();
    assert_eq!(column(&rig.events(1).await, "/eventType"), ["order.quick"]);
    long.commit().await.unwrap();
    assert_eq!(column(&rig.events(2).await, "/eventType"), ["order.quick", "order.slow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_become_an_event_holds_back_its_aggregate_only() {
    let rig = Rig::new().await;
    let insert = "INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES
        ('order.created', 'a', '1'), ('Not A Type', 'a', '{\"kept\":\"whole\"}'), ('order.paid', 'a', '2'),
        ('order.created', 'b', '3'), ('order.paid', 'b', '{\"x\":1,\"x\":2}'), ('order.lost', NULL, '4'),
        ('order.shipped', 'a', '5')";
    rig.app.batch_execute(insert).await.unwrap();
    let events = rig.events(5).await;
    let mut types = column(&events, "/eventType");
    types.sort_unstable();
    let rejected = "tidings.source.rejected";
    assert_eq!(types, ["order.created", "order.created", "order.lost", rejected, rejected]);
    let told = events.iter().find(|event| event["data"]["aggregateId"] == "a" && event["eventType"] == rejected);
    let told = &told.unwrap()["data"];
    assert_eq!((&told["row"], &told["faults"][0]["pointer"]), (&json!(2), &json!("/eventType")), "{told}");
    rig.settled().await;
    assert_eq!(rig.meter().measures(now()).quarantined, 4, "two rejected, two wait");

    let orders = rig.orders();
    let held: Vec<_> = rig.quarantined().await.iter().map(Quarantined::id).collect();
    let [first, waiting, of_b, _] = &held[..] else { panic!("{held:?}") };
    assert!(matches!(orders.give(replay(first)).await, Answered::StillWrong(_)));
    assert_eq!(orders.give(replay(waiting)).await, Answered::Waits { behind: first.clone() });
    assert_eq!(orders.give(replay("shop.9")).await, Answered::Unknown);
    let instead = Bytes::from_static(br#"{"eventType":"order.mended","aggregateId":"a","data":1}"#);
    let done = orders.give(Order { instead: Some(instead), ..replay(first) }).await;
    assert_eq!(done, Answered::Done { released: 2 });
    let discarded = orders.give(Order { discard: true, ..replay(of_b) }).await;
    assert_eq!(discarded, Answered::Done { released: 0 });
    rig.app.execute("SELECT tidings.emit('order.closed', '1', aggregate_id => 'a')", &[]).await.unwrap();
    let events = rig.events(9).await;
    let of_a: Vec<_> = events.iter().filter(|event| event["aggregateId"] == "a").collect();
    let types: Vec<_> = of_a.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(types, ["order.created", "order.mended", "order.paid", "order.shipped", "order.closed"]);
    assert_eq!(rig.meter().measures(now()).quarantined, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_another_event_has_is_rejected_and_one_that_repeats_it_is_not() {
    let rig = Rig::new().await;
    for (kind, data) in [("order.created", "1"), ("order.created", "1"), ("order.other", "1")] {
        let sql = format!(
            "SELECT tidings.emit('{kind}', '{data}', event_id => 'mine', occurred_at => '2026-11-22T10:15:30Z')"
        );
        rig.app.execute(&sql, &[]).await.unwrap();
    }
    let events = rig.events(2).await;
    rig.settled().await;
    assert_eq!(column(&events, "/eventType"), ["order.created", "tidings.source.rejected"]);
    assert_eq!(rig.meter().measures(now()).quarantined, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_quarantine_waits_through_a_restart() {
    let mut rig = Rig::new().await;
    let insert = "INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES ('Bad', 'a', '1')";
    rig.app.batch_execute(insert).await.unwrap();
    rig.events(1).await;
    rig.reopen().await;
    rig.start();
    rig.app.execute("SELECT tidings.emit('order.paid', '1', aggregate_id => 'a')", &[]).await.unwrap();
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 1, "it waits");
    let held = rig.quarantined().await;
    let discard = Order { discard: true, ..replay(&held[0].id()) };
    assert_eq!(rig.orders().give(discard).await, Answered::Done { released: 1 });
    assert_eq!(column(&rig.events(2).await, "/eventType"), ["tidings.source.rejected", "order.paid"]);
}

/// Turns to the other half, once the relay does not happen to look at that.
async fn turns(rig: &Rig, turn: &str) {
    let turned = async { while !rig.app.query_one(turn, &[]).await.unwrap().get::<_, bool>(0) {} };
    tokio::time::timeout(crate::rig::ARRIVAL, turned).await.expect("it turns");
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_rows_go_and_those_of_running_transactions_stay() {
    let mut rig = Rig::at(crate::rig::database().await).await;
    rig.start_with(|reader| reader.turning_after(Duration::ZERO, 1));
    let mut other = connect(&rig.url).await;
    let long = other.transaction().await.unwrap();
    long.execute("SELECT tidings.emit('order.slow', '1')", &[]).await.unwrap();
    let size = "SELECT sum(pg_relation_size(relid))::bigint FROM pg_partition_tree('tidings.outbox') WHERE isleaf";
    let turn = "SELECT tidings.turn(pg_current_snapshot(), '0s', 1)";
    rig.app.execute("SELECT tidings.emit('order.quick', '1')", &[]).await.unwrap();
    rig.events(1).await;
    // Turning once goes to the empty half; twice would empty this one, in which a transaction still writes.
    turns(&rig, turn).await;
    rig.app.execute("SELECT tidings.emit('order.next', '1')", &[]).await.unwrap();
    let again: bool = rig.app.query_one(turn, &[]).await.unwrap().get(0);
    assert!(!again, "a transaction still writes");
    long.commit().await.unwrap();
    rig.events(3).await;
    // Nobody writes to it any more, and all of it was relayed.
    turns(&rig, turn).await;
    let left: i64 = rig.app.query_one("SELECT count(*) FROM tidings.outbox", &[]).await.unwrap().get(0);
    let bytes: i64 = rig.app.query_one(size, &[]).await.unwrap().get(0);
    assert_eq!((left, bytes), (1, 8192), "only the half that was written to last");
    let state = rig.meter().measures(now()).state;
    assert_eq!(state, State::Reading);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_not_relayed_are_never_cleared() {
    let rig = Rig::at(crate::rig::database().await).await;
    let turn = "SELECT tidings.turn($1::text::pg_snapshot, '0s', 1)";
    let before: String = rig.app.query_one("SELECT pg_current_snapshot()::text", &[]).await.unwrap().get(0);
    for expected in [true, false, false] {
        rig.app.execute("SELECT tidings.emit('order.created', '1')", &[]).await.unwrap();
        let turned: bool = rig.app.query_one(turn, &[&before]).await.unwrap().get(0);
        assert_eq!(turned, expected);
    }
    let left: i64 = rig.app.query_one("SELECT count(*) FROM tidings.outbox", &[]).await.unwrap().get(0);
    assert_eq!(left, 3);
}
