//! What holds on every database.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;
use sqlx::{ColumnIndex, Database, Decode, Executor, IntoArguments, Pool, Row as _, Transaction, Type};
use tidings_emit::sqlx::{Engine, emit, emitted, first, forget, order};
use tidings_emit::{EmitError, Event, EventId, Order, Timestamp};

/// A table `orders` with a column `total`, an outbox and an inbox are there, and empty.
pub(crate) async fn all_hold<DB: Database + Engine>(pool: Pool<DB>)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    a_panic_between_mutation_and_commit_leaves_neither_and_a_commit_both(&pool).await;
    a_row_holds_what_the_event_says(&pool).await;
    an_event_that_breaks_a_rule_leaves_the_transaction_whole(&pool).await;
    the_work_of_an_event_is_done_once_and_a_rollback_undoes_that(&pool).await;
    late_events_and_gaps_are_told_and_a_rollback_forgets_them(&pool).await;
}

async fn create_order<DB: Database + Engine>(tx: &mut Transaction<'_, DB>)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
{
    sqlx::query("INSERT INTO orders (total) VALUES (42)").execute(&mut **tx).await.unwrap();
    emit(tx, Event::new("order.created", &json!({"total": 42})).aggregate("order_1")).await.unwrap();
}

async fn a_panic_between_mutation_and_commit_leaves_neither_and_a_commit_both<DB: Database + Engine>(pool: &Pool<DB>)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let crash = async {
        let mut tx = pool.begin().await.unwrap();
        create_order(&mut tx).await;
        assert_eq!(counts(&mut tx).await, (1, 1));
        panic!("before the commit");
    };
    assert!(AssertUnwindSafe(crash).catch_unwind().await.is_err());
    assert_eq!(counts(&mut pool.begin().await.unwrap()).await, (0, 0));
    let mut tx = pool.begin().await.unwrap();
    create_order(&mut tx).await;
    tx.commit().await.unwrap();
    assert_eq!(counts(&mut pool.begin().await.unwrap()).await, (1, 1));
}

/// Orders, and events.
async fn counts<DB: Database + Engine>(tx: &mut Transaction<'_, DB>) -> (i64, usize)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let row = sqlx::query("SELECT count(*) FROM orders").fetch_one(&mut **tx).await.unwrap();
    (row.try_get(0).unwrap(), emitted(tx).await.unwrap().0.len())
}

async fn a_row_holds_what_the_event_says<DB: Database + Engine>(pool: &Pool<DB>) {
    let mut tx = pool.begin().await.unwrap();
    let data = json!({"name": "Zoë ✓ \u{2028} \"", "total": 42});
    let event = Event::new("order.shipped", &data).aggregate("order 1é").channel("user:u_17").channel("shop:1");
    let event = event.metadata("actor", "Zoë").version(2).source("/orders").id("o1");
    let id = emit(&mut tx, event.timestamp(Timestamp::from_millis(1_700_000_000_123))).await.unwrap();
    assert_eq!(id.as_str(), "o1");
    let emissions = emitted(&mut tx).await.unwrap();
    let told = emissions.one("order.shipped");
    assert_eq!((told.event_id.as_str(), told.version, told.source.as_deref()), ("o1", Some(2), Some("/orders")));
    assert_eq!((told.aggregate_id.as_deref(), told.channels.join(" ")), (Some("order 1é"), "user:u_17 shop:1".into()));
    assert_eq!((told.metadata["actor"].as_str(), &told.data), ("Zoë", &data));
    // A bare one, too: what is absent stays absent.
    emit(&mut tx, Event::new("order.closed", &())).await.unwrap();
    let emissions = emitted(&mut tx).await.unwrap();
    let told = emissions.one("order.closed");
    assert_eq!((told.version, &told.aggregate_id, told.channels.len(), &told.data), (None, &None, 0, &json!(null)));
}

async fn an_event_that_breaks_a_rule_leaves_the_transaction_whole<DB: Database + Engine>(pool: &Pool<DB>) {
    let mut tx = pool.begin().await.unwrap();
    let refused = emit(&mut tx, Event::new("created", &1)).await.unwrap_err();
    assert!(matches!(refused, EmitError::Invalid(_)), "{refused}");
    emit(&mut tx, Event::new("order.created", &1)).await.unwrap();
}

async fn the_work_of_an_event_is_done_once_and_a_rollback_undoes_that<DB: Database + Engine>(pool: &Pool<DB>) {
    let id = EventId::parse("e1").unwrap();
    for (commit, expected) in [(false, true), (true, true), (true, false)] {
        let mut tx = pool.begin().await.unwrap();
        assert_eq!(first(&mut tx, "billing", &id).await.unwrap(), expected);
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
    }
    let mut tx = pool.begin().await.unwrap();
    assert!(first(&mut tx, "shipping", &id).await.unwrap(), "another subscriber has its own inbox");
    forget(&mut tx, "billing", Duration::from_hours(48)).await.unwrap();
    assert!(!first(&mut tx, "billing", &id).await.unwrap(), "young ids stay");
}

async fn late_events_and_gaps_are_told_and_a_rollback_forgets_them<DB: Database + Engine>(pool: &Pool<DB>) {
    let cases = [
        (3, false, Order::First),
        (1, true, Order::Next),
        (4, false, Order::Gap { missing: 2..=3 }),
        (4, true, Order::Gap { missing: 2..=3 }),
        (2, true, Order::Late { newest: 4 }),
        (5, true, Order::Next),
    ];
    for (sequence, commit, expected) in cases {
        let mut tx = pool.begin().await.unwrap();
        assert_eq!(order(&mut tx, "billing", "order 1é", sequence).await.unwrap(), expected, "{sequence}");
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
    }
}

/// Two deliveries of one event at a time: the second waits for the first's end, and is a repeat.
pub(crate) async fn of_two_at_a_time_one_is_first<DB: Database + Engine>(pool: Pool<DB>) {
    let id = EventId::parse("twice").unwrap();
    let mut one = pool.begin().await.unwrap();
    let mut two = pool.begin().await.unwrap();
    assert!(first(&mut one, "billing", &id).await.unwrap());
    let (second, committed) = tokio::join!(first(&mut two, "billing", &id), one.commit());
    committed.unwrap();
    assert!(!second.unwrap());
}
