//! Workers over a WebSocket: acks, refusals, more time, and what becomes of messages whose connection has gone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::instant;
use crate::support::server::Server;
use crate::support::ws::Socket;

fn consumer(client: &Client, settings: &Value) {
    client
        .send("PUT", "/consumers/mail", &[("content-type", "application/json")], settings.to_string().as_bytes())
        .expect(201);
}

fn publish(client: &Client, id: &str, aggregate: &str) {
    client.publish(&json!({"eventId": id, "eventType": "a.b", "aggregateId": aggregate, "data": 1}).to_string());
}

/// A worker that has at most `max` messages.
fn worker(client: &Client, max: usize) -> Socket {
    let mut socket = Socket::open(client);
    let told = socket.ask(&json!({"type": "subscribe", "id": "w", "consumer": "mail", "max": max}));
    let expected =
        json!({"type": "status", "subscription": "w", "state": "subscribed", "consumer": "mail", "max": max});
    assert_eq!(told, expected);
    socket
}

/// The next message: its event, its token, and which delivery it is.
#[track_caller]
fn next(socket: &mut Socket) -> (String, String, u64) {
    let told = socket.event();
    assert_eq!(told["subscription"], "w");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&told["event"]["eventId"]), text(&told["ackToken"]), told["deliveryCount"].as_u64().unwrap())
}

#[track_caller]
fn ack(socket: &mut Socket, tokens: &[&str]) -> Value {
    socket.ask(&json!({"type": "ack", "subscription": "w", "tokens": tokens}))
}

#[test]
fn a_worker_gets_as_many_messages_as_it_takes() {
    let server = Server::dev();
    let client = server.client();
    consumer(&client, &json!({"retry": ["100ms"]}));
    let mut socket = worker(&client, 2);
    for id in ["e1", "e2", "e3"] {
        publish(&client, id, id);
    }
    let (first, second) = (next(&mut socket), next(&mut socket));
    assert_eq!((&*first.0, first.2, &*second.0), ("e1", 1, "e2"));
    let told = ack(&mut socket, &[&first.1]);
    assert_eq!(told, json!({"type": "status", "subscription": "w", "acked": 1, "stale": []}));
    let third = next(&mut socket);
    assert_eq!(third.0, "e3");
    let told =
        socket.ask(&json!({"type": "nack", "subscription": "w", "token": second.1, "delay": "0s", "reason": "busy"}));
    assert_eq!((&told["nacked"], &told["stale"]), (&json!(1), &json!([])));
    let again = next(&mut socket);
    assert_eq!((&*again.0, again.2), ("e2", 2));
    // Words of before count no more.
    let told = ack(&mut socket, &[&second.1]);
    assert_eq!((&told["acked"], &told["stale"]), (&json!(0), &json!([second.1])));
    assert_eq!(ack(&mut socket, &[&again.1, &third.1])["acked"], 2);
}

#[test]
fn a_refused_message_comes_back_after_its_delay() {
    let server = Server::dev();
    let client = server.client();
    consumer(&client, &json!({"retry": ["100ms"]}));
    let mut socket = worker(&client, 8);
    publish(&client, "e1", "a");
    let (_, token, _) = next(&mut socket);
    let begun = instant();
    socket.ask(&json!({"type": "nack", "subscription": "w", "token": token, "delay": "1s"}));
    assert_eq!(next(&mut socket).2, 2);
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn a_worker_that_asks_for_more_time_has_it() {
    let server = Server::dev();
    let client = server.client();
    consumer(&client, &json!({"ackWait": "2s"}));
    let mut socket = worker(&client, 1);
    publish(&client, "e1", "a");
    publish(&client, "e2", "b");
    let (_, token, _) = next(&mut socket);
    let begun = instant();
    let told = socket.ask(&json!({"type": "extend", "subscription": "w", "tokens": [token], "wait": "4s"}));
    assert_eq!(told["extended"], 1);
    // Then its time is over, and this worker has room again.
    assert_eq!(next(&mut socket).0, "e2");
    assert!(
        (Duration::from_millis(3_900)..Duration::from_secs(10)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    // Its word counts until somebody else has it.
    assert_eq!(ack(&mut socket, &[&token])["acked"], 1);
}

#[test]
fn what_a_connection_had_comes_back_when_it_has_gone_and_the_order_of_aggregates_holds() {
    let server = Server::dev();
    let client = server.client();
    consumer(&client, &json!({"ackWait": "10m"}));
    let mut first = worker(&client, 10);
    for number in 1..=3 {
        publish(&client, &format!("a{number}"), "a");
    }
    publish(&client, "b1", "b");
    // One of an aggregate at a time.
    let mut got = [next(&mut first).0, next(&mut first).0];
    got.sort();
    assert_eq!(got, ["a1", "b1"]);
    drop(first);
    let begun = instant();
    let mut second = worker(&client, 10);
    let mut done = Vec::new();
    while done.len() < 4 {
        let (id, token, count) = next(&mut second);
        assert_eq!(count, if matches!(&*id, "a1" | "b1") { 2 } else { 1 }, "{id}");
        assert_eq!(ack(&mut second, &[&token])["acked"], 1);
        done.push(id);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let of_a: Vec<_> = done.iter().filter(|id| id.starts_with('a')).collect();
    assert_eq!(of_a, ["a1", "a2", "a3"]);
}

#[test]
fn a_worker_that_unsubscribes_gets_no_more_and_may_finish_what_it_has() {
    let server = Server::dev();
    let client = server.client();
    consumer(&client, &json!({}));
    let mut socket = worker(&client, 1);
    publish(&client, "e1", "a");
    publish(&client, "e2", "b");
    let (_, token, _) = next(&mut socket);
    assert_eq!(socket.ask(&json!({"type": "unsubscribe", "id": "w"}))["state"], "unsubscribed");
    assert_eq!(ack(&mut socket, &[&token])["acked"], 1);
    // The name is free again, and what came meanwhile waited.
    let told = socket.ask(&json!({"type": "subscribe", "id": "w", "consumer": "mail"}));
    assert_eq!(told["state"], "subscribed");
    assert_eq!(next(&mut socket).0, "e2");
}

#[test]
fn a_worker_is_told_at_once_that_its_consumer_is_removed_and_works_for_another_one_of_its_name() {
    let server = Server::dev();
    let client = server.client();
    for has_a_message in [false, true] {
        consumer(&client, &json!({"ackWait": "10m"}));
        let mut socket = worker(&client, 1);
        if has_a_message {
            // It takes no more then, and waits for nothing but its own word.
            publish(&client, "e1", "a");
            next(&mut socket);
        }
        let begun = instant();
        client.delete("/consumers/mail").expect(200);
        consumer(&client, &json!({}));
        let told = socket.hear();
        assert_eq!((&told["type"], &told["subscription"]), (&json!("error"), &json!("w")), "{told}");
        assert_eq!((&told["problem"]["status"], told.get("ref")), (&json!(404), None), "{told}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        // The name of the subscription is free at once.
        let told = socket.ask(&json!({"type": "subscribe", "id": "w", "consumer": "mail"}));
        assert_eq!(told["state"], "subscribed", "{told}");
        let id = format!("e{}", 2 + u8::from(has_a_message));
        publish(&client, &id, "a");
        assert_eq!(next(&mut socket).0, id);
        client.delete("/consumers/mail").expect(200);
    }
}

#[test]
fn a_token_outlives_an_orderly_restart() {
    let mut server = Server::dev();
    consumer(&server.client(), &json!({"ackWait": "10m"}));
    let mut socket = worker(&server.client(), 1);
    publish(&server.client(), "e1", "a");
    let (_, token, _) = next(&mut socket);
    server.signal(rustix::process::Signal::TERM);
    socket.closed();
    assert!(server.ended(Duration::from_secs(20)).0.success());
    server.start();
    let mut socket = worker(&server.client(), 1);
    assert_eq!(ack(&mut socket, &[&token])["acked"], 1);
}
