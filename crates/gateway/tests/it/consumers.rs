//! Consumers: workers fetch, and nothing is lost, repeated after its ack, or out of order.

mod ends;
mod moves;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::server::Server;
use crate::support::{instant, until};

#[track_caller]
fn put(client: &Client, name: &str, settings: &Value) -> Value {
    let body = settings.to_string();
    let answer = client.send("PUT", &format!("/consumers/{name}"), &[], body.as_bytes());
    assert!(matches!(answer.status, 200 | 201), "{answer}");
    answer.json()
}

fn fetch(client: &Client, name: &str, max: usize, wait: &str) -> Vec<Value> {
    let body = json!({ "max": max, "wait": wait }).to_string();
    let answer = client.post(&format!("/consumers/{name}/fetch"), body).expect(200).json();
    answer["messages"].as_array().unwrap().clone()
}

/// Fetches until `count` messages are there.
#[track_caller]
fn fetched(client: &Client, name: &str, count: usize) -> Vec<Value> {
    let mut messages = Vec::new();
    until(&format!("{count} messages"), Duration::from_secs(20), || {
        messages.extend(fetch(client, name, count - messages.len(), "1s"));
        (messages.len() == count).then_some(())
    });
    messages
}

fn tokens(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["ackToken"].as_str().unwrap()).collect()
}

fn ack(client: &Client, name: &str, tokens: &[&str]) -> Value {
    client.post(&format!("/consumers/{name}/ack"), json!({ "tokens": tokens }).to_string()).expect(200).json()
}

fn nack(client: &Client, name: &str, message: &Value, delay: Option<&str>) -> Value {
    let mut body = json!({ "token": message["ackToken"], "reason": "cannot do it" });
    if let Some(delay) = delay {
        body["delay"] = delay.into();
    }
    client.post(&format!("/consumers/{name}/nack"), body.to_string()).expect(200).json()
}

fn publish(client: &Client, id: &str, aggregate: &str) {
    let event = json!({ "eventId": id, "eventType": "order.created", "aggregateId": aggregate, "data": id });
    client.publish(&event.to_string());
}

fn ids(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["event"]["eventId"].as_str().unwrap()).collect()
}

#[track_caller]
fn shown(client: &Client, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until("the consumer is as wanted", Duration::from_secs(20), || {
        Some(client.get(&format!("/consumers/{name}")).expect(200).json()).filter(&wanted)
    })
}

#[test]
fn what_was_erased_before_somebody_fetched_it_comes_without_its_data() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    publish(&client, "e1", "o1");
    publish(&client, "e2", "o2");
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["e1"]);
    client.delete("/events/e2/data").expect(200);
    let message = fetched(&client, "mail", 1).remove(0);
    assert_eq!((&message["event"]["data"], &message["event"]["erased"]), (&Value::Null, &json!(true)), "{message}");
}

#[test]
fn a_worker_gets_what_comes_and_what_it_acknowledges_never_comes_back() {
    let mut server = Server::dev();
    let client = server.client();
    let made = put(&client, "mail", &json!({ "eventTypes": ["order.*"] }));
    assert_eq!((&made["name"], &made["status"], &made["ackWait"]), (&json!("mail"), &json!("active"), &json!("30s")));
    client.publish(r#"{"eventType":"cart.closed","data":1}"#);
    client.publish(
        r#"{"eventId":"e1","eventType":"order.created","aggregateId":"o1","data": {"huge":12345678901234567890.10} }"#,
    );
    let message = fetched(&client, "mail", 1).remove(0);
    assert_eq!((&message["deliveryCount"], &message["event"]["sequenceNumber"]), (&json!(1), &json!(1)));
    let text = client.get("/events/e1").expect(200).text().to_owned();
    assert!(text.contains("12345678901234567890.10"), "numbers go through as they are");
    let status = shown(&client, "mail", |shown| shown["inFlight"] == 1);
    assert_eq!(status["deadLetters"], 0);
    assert_eq!(ack(&client, "mail", &tokens(std::slice::from_ref(&message))), json!({"acked": 1, "stale": []}));
    // Acknowledged means durable, also in a crash; and the answer may have been lost on its way.
    server.kill();
    server.start();
    assert_eq!(ack(&client, "mail", &tokens(std::slice::from_ref(&message))), json!({"acked": 1, "stale": []}));
    assert!(fetch(&client, "mail", 1, "300ms").is_empty());
    shown(&client, "mail", |shown| shown["inFlight"] == 0 && shown["lag"] == 0);
}

#[test]
fn a_long_fetch_is_answered_when_something_comes_and_when_its_time_is_over() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    let begun = instant();
    assert!(fetch(&client, "mail", 10, "500ms").is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || fetch(&client, "mail", 10, "20s")
    });
    publish(&client, "e1", "o1");
    let begun = instant();
    assert_eq!(ids(&waiting.join().unwrap()), ["e1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "it did not wait for its time");
}

#[test]
fn an_event_waits_until_the_earlier_ones_of_its_aggregate_are_settled_whoever_works() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "retry": ["100ms"], "maxRetries": 1 }));
    for (id, aggregate) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        publish(&client, id, aggregate);
    }
    let first = fetched(&client, "mail", 2);
    assert_eq!(ids(&first), ["a1", "b1"]);
    assert!(fetch(&client, "mail", 10, "200ms").is_empty(), "a2 waits for a1");
    nack(&client, "mail", &first[0], Some("0s"));
    let again = fetched(&client, "mail", 1);
    assert_eq!((ids(&again), &again[0]["deliveryCount"]), (vec!["a1"], &json!(2)));
    ack(&client, "mail", &tokens(&again));
    let next = fetched(&client, "mail", 1);
    assert_eq!(ids(&next), ["a2"]);
    ack(&client, "mail", &tokens(&next));
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["a3"]);
}

#[test]
fn many_workers_share_a_consumer_and_keep_the_order_of_each_aggregate() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "work", &json!({}));
    let events: Vec<_> = (0..600)
        .map(|number| json!({ "eventType": "order.moved", "aggregateId": format!("o{}", number % 20), "data": number }))
        .collect();
    client.post("/events", json!(events).to_string()).expect(201);
    let taken: Vec<Vec<(String, u64)>> = std::thread::scope(|scope| {
        let worker = || {
            let mut taken = Vec::new();
            loop {
                let messages = fetch(&client, "work", 20, "700ms");
                if messages.is_empty() {
                    return taken;
                }
                for message in &messages {
                    let event = &message["event"];
                    let aggregate = event["aggregateId"].as_str().unwrap().to_owned();
                    taken.push((aggregate, event["sequenceNumber"].as_u64().unwrap()));
                }
                assert_eq!(ack(&client, "work", &tokens(&messages))["acked"], messages.len());
            }
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut by_aggregate: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (aggregate, number) in taken.iter().flatten() {
        by_aggregate.entry(aggregate).or_default().push(*number);
    }
    assert_eq!(by_aggregate.len(), 20);
    for numbers in by_aggregate.values_mut() {
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=30), "each once: {numbers:?}");
    }
    // Within what one worker took, the order is that of the log.
    for taken in &taken {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (aggregate, number) in taken {
            assert!(last.insert(aggregate, *number).is_none_or(|before| before < *number));
        }
    }
}
