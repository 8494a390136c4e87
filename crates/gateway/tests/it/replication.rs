//! An outbox by logical replication, from the command line to the log.

use serde_json::{Value, json};
use tidings_rigs::Postgres;

use crate::outbox::{ARRIVAL, outbox};
use crate::support::server::Server;
use crate::support::until;

#[test]
fn an_outbox_is_replicated_through_kills_of_the_server_and_its_slot_is_shown() {
    let postgres = Postgres::with(&["fsync=off", "full_page_writes=off", "wal_level=logical"]);
    postgres.sql("postgres", "CREATE DATABASE shop");
    postgres.sql("postgres", "CREATE ROLE tidings LOGIN REPLICATION");
    let (url, reader) = (postgres.url("shop"), postgres.url_as("tidings", "shop"));
    let settings = format!("[[outbox]]\nname = \"shop\"\nurl = \"{reader}\"\nmode = \"replication\"\n");
    let mut server = Server::with(true, &settings);
    let install = ["install", "--url", &url, "--reader", "tidings", "--mode", "replication"];
    let made = outbox(&server, &install);
    assert!(made.contains("are made") && made.contains("max_slot_wal_keep_size is unlimited"), "{made}");
    assert!(outbox(&server, &install).contains("were there"));
    let client = server.client();
    // What was there before is read from the table, which has no messages.
    until("it is read", ARRIVAL, || {
        (client.get("/outboxes").expect(200).json()["data"][0]["state"] == "reading").then_some(())
    });
    for round in 0..6 {
        let sql = format!(
            "SELECT tidings.emit('order.created', to_json(2 * n)), pg_logical_emit_message(true, 'tidings', \
             json_build_object('eventType', 'order.told', 'data', 2 * n + 1)::text) \
             FROM generate_series({round} * 500, {round} * 500 + 499) n"
        );
        postgres.sql("shop", &sql);
        if round % 2 == 1 {
            server.kill();
            server.start();
        }
    }
    let all = || {
        let (mut numbers, mut after) = (Vec::new(), 0);
        loop {
            let page = client.get(&format!("/events?order=asc&limit=250&after={after}")).json()["data"].clone();
            let page = page.as_array().unwrap();
            numbers.extend(page.iter().map(|event| event["data"].as_u64().unwrap()));
            match page.last() {
                Some(last) => after = last["offset"].as_u64().unwrap(),
                None => return numbers,
            }
        }
    };
    until("all events", ARRIVAL, || (all().len() >= 6_000).then_some(()));
    assert!(all().into_iter().eq(0..6_000), "each once and in order");
    let status: Value = serde_json::from_str(&outbox(&server, &["status", "--url", &url, "--json"])).unwrap();
    let (slot, shown) = (&status["slot"], client.get("/outboxes").expect(200).json()["data"][0]["slot"].clone());
    assert_eq!(
        (&slot["active"], &slot["walStatus"], &slot["retainedBytesMax"]),
        (&json!(true), &json!("reserved"), &Value::Null)
    );
    assert_eq!(shown["name"], slot["name"]);
    assert!(outbox(&server, &["status", "--url", &url]).contains("without a bound: set max_slot_wal_keep_size"));
    assert!(client.get("/health/events").json()["outboxWalBytes"].is_u64());
    let metrics = client.get("/metrics").expect(200);
    assert!(metrics.text().contains("tidings_outbox_slot_retained_bytes{outbox=\"shop\"}"), "{metrics}");
    assert!(server.stderr().contains("max_slot_wal_keep_size"), "{}", server.stderr());
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert!(outbox(&server, &["install", "--url", &url, "--mode", "polling"]).contains("gone"));
    assert_eq!(postgres.sql("shop", slots), "0");
    let printed = outbox(&server, &["install", "--print", "--mode", "replication"]);
    postgres.sql("postgres", "CREATE DATABASE other");
    postgres.sql("other", &printed);
    assert_eq!(postgres.sql("other", slots), "1");
    postgres.sql("other", &outbox(&server, &["uninstall", "--print"]));
    assert_eq!(postgres.sql("other", slots), "0");
    outbox(&server, &install);
    outbox(&server, &["uninstall", "--url", &url, "--lose-rows"]);
    assert_eq!(postgres.sql("shop", slots), "0");
}
