//! Outboxes on MariaDB.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use tidings_core::offset::Offset;
use tidings_rigs::MariaDb;
use tidings_sources::outbox::mysql::{self, install};
use tidings_sources::outbox::postgres::install::Roles;
use tidings_sources::outbox::{Answered, Order, Quarantined, Reader, State};
use tokio::time::{sleep, timeout};

use crate::rig::{ARRIVAL, Rig, column, now};

/// The server of all tests of this process.
fn server() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(MariaDb::start)
}

pub(crate) async fn connect(url: &str) -> Conn {
    Conn::from_url(url).await.unwrap()
}

/// An application in a database of its own, whose outbox is not relayed yet.
pub(crate) async fn shop() -> Rig<Conn> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(server).await.unwrap();
    let name = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
    connect(&server.url()).await.query_drop(format!("CREATE DATABASE {name}")).await.unwrap();
    shop_at(&server.url_of("root", &name)).await
}

async fn shop_at(url: &str) -> Rig<Conn> {
    assert!(install::install(&mysql::opts(url, None).unwrap(), &Roles::default()).await.unwrap());
    Rig::of(connect(url).await, url.to_owned())
}

pub(crate) fn reader(url: &str, name: &str) -> Reader {
    Reader::MySql(Box::new(mysql::Reader::new(url, None, name).unwrap()))
}

impl Rig<Conn> {
    pub(crate) fn start_mysql(&mut self) {
        self.run(reader(&self.url, "tidings-1"));
    }

    async fn sql(&mut self, sql: &str) {
        self.app.query_drop(sql).await.unwrap();
    }

    /// `count` rows with numbers from `first`, in one transaction.
    async fn emit(&mut self, first: u32, count: u32) {
        let sql = format!(
            "INSERT INTO tidings_outbox (event_type, aggregate_id, data)
             SELECT 'order.created', concat('a', seq % 7), json_object('n', seq) FROM seq_{first}_to_{}",
            first + count - 1
        );
        self.sql(&sql).await;
    }

    async fn status(&self) -> install::Status {
        install::status(&mysql::opts(&self.url, None).unwrap()).await.unwrap()
    }

    /// Waits until so many rows are left in the table.
    async fn left(&self, count: u64) {
        let cleared = async {
            while self.status().await.waiting != count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(ARRIVAL, cleared).await.unwrap_or_else(|_| panic!("not {count} rows left"));
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["data"]["n"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mariadb_commits_becomes_events_and_what_it_rolls_back_does_not() {
    let mut rig = shop().await;
    rig.start_mysql();
    rig.sql(
        "INSERT INTO tidings_outbox (event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata,
                                     data)
         VALUES ('mine', 'order.created', 2, '2026-11-22 10:15:30.123', '/orders', 'order_1', '[\"user:1\"]',
                 '{\"actor\":\"u_1\"}', '{\"total\": 1.00, \"b\":\"ü\"}')",
    )
    .await;
    for sql in ["BEGIN", "INSERT INTO tidings_outbox (event_type, data) VALUES ('order.never', '1')", "ROLLBACK"] {
        rig.sql(sql).await;
    }
    rig.sql("INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ('order.paid', 'order_1', 'null')")
        .await;
    let events = rig.events(2).await;
    let first = json!({
        "eventId": "mine", "eventType": "order.created", "version": 2, "timestamp": "2026-11-22T10:15:30.123Z",
        "source": "/orders", "aggregateId": "order_1", "sequenceNumber": 1, "channels": ["user:1"],
        "metadata": {"actor": "u_1"}, "data": {"total": 1.0, "b": "ü"},
    });
    assert_eq!(events[0], first);
    assert_eq!((&events[1]["eventType"], &events[1]["source"]), (&json!("order.paid"), &json!("/shop")));
    let stored = rig.store().event(rig.tenant().unwrap(), Offset(1)).await.unwrap().unwrap();
    assert_eq!(stored.bytes().unwrap(), &Bytes::from("{\"total\": 1.00, \"b\":\"ü\"}"), "byte for byte");
    rig.left(0).await;
    assert_eq!(rig.all().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_mariadb_comes_whole_and_in_order_and_goes_from_the_table() {
    let mut rig = shop().await;
    rig.emit(1, 30_000).await;
    rig.sql(
        "INSERT INTO tidings_outbox (event_type, data)
         SELECT 'order.large', json_object('n', seq, 'pad', repeat('x', 200000)) FROM seq_30001_to_30100",
    )
    .await;
    rig.start_mysql();
    assert_eq!(numbers(&rig.events(30_100).await), (1..=30_100).collect::<Vec<_>>());
    rig.left(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_somebody_else_made_stop_nobody() {
    let mut rig = shop().await;
    rig.sql(
        "ALTER TABLE tidings_outbox MODIFY data LONGTEXT, MODIFY event_type VARCHAR(128) NULL, MODIFY version TEXT",
    )
    .await;
    rig.sql("INSERT INTO tidings_outbox (id, event_type, version, data) VALUES (-7, 'order.created', 1, '1')").await;
    rig.sql("INSERT INTO tidings_outbox (event_type, version, data) VALUES (NULL, 'one', NULL)").await;
    rig.emit(1, 1).await;
    rig.start_mysql();
    let events = rig.events(2).await;
    assert_eq!(column(&events, "/eventType"), ["order.created", "tidings.source.rejected"]);
    // Who numbers rows himself says that he wants nothing of the database.
    rig.left(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_relay_nor_an_application_waits_for_the_other() {
    let mut rig = shop().await;
    rig.start_mysql();
    rig.sql("SET SESSION innodb_lock_wait_timeout = 1").await;
    // Its row lies between others that are relayed and deleted meanwhile.
    let mut open = connect(&rig.url).await;
    rig.emit(1, 10).await;
    open.query_drop("BEGIN").await.unwrap();
    open.query_drop("SELECT count(*) FROM tidings_outbox").await.unwrap();
    open.query_drop("INSERT INTO tidings_outbox (event_type, data) VALUES ('order.late', '{\"n\":0}')").await.unwrap();
    for round in 1..=20 {
        rig.emit(10 * round + 1, 10).await;
    }
    rig.events(210).await;
    rig.left(0).await;
    open.query_drop("COMMIT").await.unwrap();
    assert_eq!(numbers(&rig.events(211).await).last(), Some(&0));
    rig.left(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_get_numbers_of_others_are_relayed_and_not_deleted_unread() {
    let mut rig = shop().await;
    rig.start_mysql();
    for round in 0..5 {
        rig.emit(10 * round, 10).await;
        rig.events(10 * u64::from(round + 1)).await;
        // Numbers begin with 1 again, while the rows of the round before may be marked and not deleted.
        rig.sql("TRUNCATE tidings_outbox").await;
    }
    rig.emit(50, 10).await;
    assert_eq!(numbers(&rig.events(60).await), (0..60).collect::<Vec<_>>());
    rig.left(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_restored_repeats_and_loses_nothing() {
    let mut rig = shop().await;
    rig.emit(1, 10).await;
    rig.sql("CREATE TABLE backup AS SELECT * FROM tidings_outbox").await;
    rig.start_mysql();
    rig.events(10).await;
    rig.left(0).await;
    rig.sql("INSERT INTO tidings_outbox SELECT * FROM backup").await;
    rig.emit(11, 5).await;
    assert_eq!(numbers(&rig.events(15).await), (1..=15).collect::<Vec<_>>());
    rig.left(0).await;
    assert_eq!(rig.all().await.len(), 15, "what the log had is not there twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_mariadb_that_cannot_become_an_event_holds_back_its_aggregate_only() {
    let mut rig = shop().await;
    rig.sql("SET SESSION sql_mode = ''").await;
    rig.sql(
        "INSERT INTO tidings_outbox (event_type, aggregate_id, occurred_at, channels, data) VALUES
           ('order.created', 'a', '0000-00-00', NULL, '1'), ('order.paid', 'a', NULL, NULL, '2'),
           ('order.created', 'b', NULL, '[1]', '3'), ('order.created', 'c', NULL, NULL, '4')",
    )
    .await;
    rig.start_mysql();
    let events = rig.events(3).await;
    rig.left(0).await;
    let told: Vec<_> = events.iter().filter(|event| event["eventType"] == "tidings.source.rejected").collect();
    let pointers: Vec<_> = told.iter().map(|event| &event["data"]["faults"][0]["pointer"]).collect();
    assert_eq!(pointers, [&json!("/timestamp"), &json!("/channels/0")], "{events:?}");
    assert!(events.iter().any(|event| event["aggregateId"] == "c"));
    let held: Vec<_> = rig.quarantined().await.iter().map(Quarantined::id).collect();
    assert_eq!(held.len(), 3);
    let order = Order { id: held[0].clone(), discard: true, instead: None, told: Vec::new() };
    assert_eq!(rig.orders().give(order).await, Answered::Done { released: 1 });
    assert_eq!(rig.events(4).await[3]["eventType"], "order.paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_read_mariadb_the_later_goes_on_and_the_earlier_stops() {
    let mut first = shop().await;
    first.start_mysql();
    first.emit(1, 1).await;
    first.events(1).await;
    first.left(0).await;
    let mut second = Rig::of((), first.url.clone());
    second.run(reader(&first.url, "tidings-2"));
    let stopped = async {
        while first.meter().measures(now()).state != State::Taken {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, stopped).await.unwrap();
    first.emit(2, 1).await;
    assert_eq!(numbers(&second.events(1).await), [2]);
    assert_eq!(first.all().await.len(), 1);
    assert_eq!(first.status().await.reader.as_deref(), Some("tidings-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_mariadb_and_of_the_relay_repeat_and_lose_nothing() {
    let mut server = tokio::task::spawn_blocking(MariaDb::start).await.unwrap();
    let mut rig = shop_at(&server.url()).await;
    rig.start_mysql();
    let mut first = 0;
    for round in 0..6 {
        for _ in 0..10 {
            rig.emit(first, 100).await;
            first += 100;
        }
        match round % 3 {
            0 => rig.stop().await,
            1 => rig.reopen().await,
            _ => {
                server = tokio::task::spawn_blocking(move || {
                    server.kill();
                    server.run();
                    server
                })
                .await
                .unwrap();
                rig.app = connect(&rig.url).await;
                continue;
            }
        }
        rig.start_mysql();
    }
    let events = rig.events(u64::from(first)).await;
    rig.left(0).await;
    assert_eq!(rig.all().await.len(), events.len());
    assert_eq!(numbers(&events), (0..u64::from(first)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_mariadb_have_the_rights_they_need_and_no_more() {
    let mut rig = shop().await;
    let database = rig.url.rsplit_once('/').unwrap().1.to_owned();
    let (producer, relay) = (format!("shop_{database}"), format!("tidings_{database}"));
    for account in [&producer, &relay] {
        rig.sql(&format!("CREATE USER {account}@localhost")).await;
    }
    let at = |name: &str| format!("{name}@localhost");
    let roles = Roles { producers: vec![at(&producer)], reader: Some(at(&relay)) };
    assert!(!install::install(&mysql::opts(&rig.url, None).unwrap(), &roles).await.unwrap(), "it was there");
    rig.run(reader(&rig.url.replace("root@", &format!("{relay}@")), "tidings-1"));
    let mut app = connect(&rig.url.replace("root@", &format!("{producer}@"))).await;
    app.query_drop("INSERT INTO tidings_outbox (event_type, data) VALUES ('order.created', '{\"n\":1}')")
        .await
        .unwrap();
    rig.events(1).await;
    rig.left(0).await;
    for sql in ["SELECT * FROM tidings_outbox", "DELETE FROM tidings_outbox", "SELECT * FROM tidings_outbox_reader"] {
        let refused = app.query_drop(sql).await.unwrap_err().to_string();
        assert!(refused.contains("denied"), "{sql}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_on_mariadb_is_taken_away_once_it_is_empty() {
    let mut rig = shop().await;
    let opts = mysql::opts(&rig.url, None).unwrap();
    rig.emit(1, 5).await;
    let refused = install::uninstall(&opts, false).await.unwrap_err().to_string();
    assert!(refused.contains("5 rows"), "{refused}");
    rig.start_mysql();
    rig.left(0).await;
    rig.stop().await;
    install::uninstall(&opts, false).await.unwrap();
    let gone = install::status(&opts).await.unwrap_err().to_string();
    assert!(gone.contains("tidings outbox install"), "{gone}");
    // MyISAM keeps what was rolled back.
    assert!(install::install(&opts, &Roles::default()).await.unwrap());
    rig.sql("ALTER TABLE tidings_outbox ENGINE = MyISAM").await;
    rig.start_mysql();
    let told = async {
        while !rig.meter().measures(now()).error.is_some_and(|error| error.contains("only InnoDB")) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, told).await.unwrap();
}
