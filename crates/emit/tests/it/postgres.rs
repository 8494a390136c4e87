//! Emitting and receiving in transactions of tokio-postgres, through the function that `tidings outbox install` makes.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;
use tidings_emit::tokio_postgres::{emit, emitted, first, forget, order};
use tidings_emit::{Event, EventId, Order, Timestamp, sql};
use tidings_rigs::Postgres;
use tokio_postgres::{Client, NoTls, Transaction};

const INSTALL: &str = include_str!("../../../sources/src/outbox/postgres/install.sql");

struct Shop {
    server: Postgres,
}

impl Shop {
    async fn open() -> Self {
        let shop = Self { server: Postgres::start() };
        let client = shop.connect().await;
        client.batch_execute(INSTALL).await.unwrap();
        client.batch_execute(sql::INBOX).await.unwrap();
        client.batch_execute("CREATE TABLE orders (id text PRIMARY KEY)").await.unwrap();
        shop
    }

    async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.server.url("postgres"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Orders, and events.
    async fn counts(&self) -> (i64, i64) {
        let sql = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM tidings.outbox)";
        let row = self.connect().await.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    }
}

async fn create_order(tx: &Transaction<'_>, id: &str) {
    tx.execute("INSERT INTO orders VALUES ($1)", &[&id]).await.unwrap();
    emit(tx, Event::new("order.created", &json!({"id": id})).aggregate(id)).await.unwrap();
}

#[tokio::test]
async fn a_panic_between_mutation_and_commit_leaves_neither_and_a_commit_both() {
    let shop = Shop::open().await;
    let crash = async {
        let mut client = shop.connect().await;
        let tx = client.transaction().await.unwrap();
        create_order(&tx, "order_1").await;
        panic!("before the commit");
    };
    assert!(AssertUnwindSafe(crash).catch_unwind().await.is_err());
    assert_eq!(shop.counts().await, (0, 0));
    let mut client = shop.connect().await;
    let tx = client.transaction().await.unwrap();
    create_order(&tx, "order_1").await;
    tx.commit().await.unwrap();
    assert_eq!(shop.counts().await, (1, 1));
}

#[tokio::test]
async fn a_row_holds_what_the_event_says_and_receiving_is_done_once_and_in_order() {
    let shop = Shop::open().await;
    let mut client = shop.connect().await;
    let tx = client.transaction().await.unwrap();
    let data = json!({"name": "Zoë ✓ \u{2028} \"", "total": 42});
    let event = Event::new("order.shipped", &data).aggregate("order 1é").channel("user:u_17").channel("shop:1");
    let event = event.metadata("actor", "Zoë").version(2).source("/orders").id("o1");
    emit(&tx, event.timestamp(Timestamp::from_millis(1_700_000_000_123))).await.unwrap();
    let emissions = emitted(&tx).await.unwrap();
    let told = emissions.one("order.shipped");
    assert_eq!((told.event_id.as_str(), told.version, told.source.as_deref()), ("o1", Some(2), Some("/orders")));
    assert_eq!((told.aggregate_id.as_deref(), told.channels.join(" ")), (Some("order 1é"), "user:u_17 shop:1".into()));
    assert_eq!((told.metadata["actor"].as_str(), &told.data), ("Zoë", &data));
    let at = "SELECT extract(epoch FROM occurred_at)::text FROM tidings.outbox";
    assert_eq!(tx.query_one(at, &[]).await.unwrap().get::<_, &str>(0), "1700000000.123000");

    let id = EventId::parse("e1").unwrap();
    assert!(first(&tx, "billing", &id).await.unwrap());
    assert!(!first(&tx, "billing", &id).await.unwrap());
    forget(&tx, "billing", Duration::from_hours(48)).await.unwrap();
    assert!(!first(&tx, "billing", &id).await.unwrap(), "young ids stay");
    for (sequence, expected) in [(1, Order::Next), (3, Order::Gap { missing: 2..=2 }), (2, Order::Late { newest: 3 })] {
        assert_eq!(order(&tx, "billing", "order_1", sequence).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn what_the_database_refuses_is_told() {
    let shop = Shop::open().await;
    let mut client = shop.connect().await;
    client.batch_execute("DROP FUNCTION tidings.emit").await.unwrap();
    let tx = client.transaction().await.unwrap();
    let refused = emit(&tx, Event::new("order.created", &1)).await.unwrap_err();
    assert!(refused.to_string().contains("the outbox did not take the event"), "{refused}");
}
