//! Webhooks: signed, retried, in order, and nothing lost.

mod careful;
mod dead;
mod notify;
mod orders;
mod replays;
mod secrets;
mod settings;
mod states;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::receiver::{Post, Receiver};
use crate::support::server::Server;
use crate::support::until;

/// An endpoint that holds what comes: it tells of each attempt, and answers when it is let go.
fn holding() -> (Receiver, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (began, attempts) = mpsc::channel();
    let (let_go, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let receiver = Receiver::answering(move |_, _| {
        began.send(()).unwrap();
        // An error says that the test is over.
        let _ = gate.lock().unwrap().recv();
        200
    });
    (receiver, attempts, let_go)
}

fn create(client: &Client, settings: &Value) -> (String, String) {
    let made = client.post("/webhooks", settings.to_string()).expect(201).json();
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

/// What the deliveries of an event say about a webhook, once its status is `status`.
#[track_caller]
fn delivery(client: &Client, event: &str, webhook: &str, status: &str) -> Value {
    until(&format!("{event} {status}"), Duration::from_secs(20), || {
        let deliveries = client.get(&format!("/events/{event}/deliveries")).expect(200).json();
        assert_eq!(deliveries["eventId"], event);
        let deliveries = deliveries["data"].as_array().unwrap();
        deliveries.iter().find(|delivery| delivery["webhook"] == webhook && delivery["status"] == status).cloned()
    })
}

#[expect(clippy::disallowed_methods, reason = "a signature is dated by the wall clock")]
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_first_delivery_is_signed_and_says_what_it_is() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, secret) = create(&client, &json!({ "url": receiver.url(), "eventTypes": ["order.*"] }));
    assert!(id.starts_with("wh_") && secret.starts_with("whsec_"));
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.publish(r#"{"eventType":"cart.closed","data":1}"#);
    client.publish(&format!(
        r#"{{"eventId":"e1","eventType":"order.created","aggregateId":"o1","metadata":{{"traceparent":"{traceparent}"}},"data": {{ "total":1.10,"huge":123456789012345678901234567890 }}}}"#
    ));
    let post = receiver.wait(1).remove(0);
    assert!(post.is_signed_with(&secret), "{post:?}");
    assert!(!post.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!(post.header("webhook-id"), "e1");
    let dated: u64 = post.header("webhook-timestamp").parse().unwrap();
    assert!(dated.abs_diff(now_seconds()) <= 2);
    assert_eq!(post.header("tidings-event-type"), "order.created");
    assert_eq!(post.header("tidings-attempt"), "1");
    assert_eq!(post.header("traceparent"), traceparent);
    assert_eq!(post.header("content-type"), "application/json");
    assert_eq!(post.header("host"), receiver.address.to_string());
    // The body is the envelope, the data as it was sent.
    let body = str::from_utf8(&post.body).unwrap();
    assert!(body.contains(r#""data":{ "total":1.10,"huge":123456789012345678901234567890 }"#), "{body}");
    let shown = client.get("/events/e1").expect(200);
    assert!(shown.text().starts_with(body.strip_suffix('}').unwrap()), "{shown} {body}");
    let told = delivery(&client, "e1", &id, "delivered");
    assert_eq!((&told["url"], &told["reason"]), (&json!(receiver.url()), &Value::Null));
    assert_eq!((&told["attempts"][0]["status"], &told["attempts"][0]["number"]), (&json!(200), &json!(1)));
    assert_eq!(client.get("/webhooks").expect(200).json()["data"][0]["id"], *id);
    let shown = client.get(&format!("/webhooks/{id}")).expect(200);
    assert!(!shown.text().contains("secret"), "{shown}");
    assert_eq!(shown.json()["status"], "active");
    assert_eq!(receiver.posts().len(), 1);
}

#[test]
fn a_failed_delivery_is_tried_again_by_its_schedule_with_the_same_bytes() {
    let server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|_, before| [503, 302, 200][before.min(2)]);
    let schedule = json!({ "schedule": ["100ms", "200ms", "100ms"] });
    let (id, secret) = create(&client, &json!({ "url": receiver.url(), "retry": schedule }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":[1.0]}"#);
    let told = delivery(&client, "e1", &id, "delivered");
    let posts = receiver.posts();
    assert_eq!(posts.len(), 3);
    for (index, post) in posts.iter().enumerate() {
        assert!(post.is_signed_with(&secret));
        assert_eq!((post.header("webhook-id"), post.header("tidings-attempt")), ("e1", &*(index + 1).to_string()));
        assert_eq!(post.body, posts[0].body);
    }
    let gap = |index: usize| posts[index].at - posts[index - 1].at;
    assert!(gap(1) >= Duration::from_millis(100) && gap(2) >= Duration::from_millis(200), "{:?} {:?}", gap(1), gap(2));
    let attempts = told["attempts"].as_array().unwrap();
    let told: Vec<_> =
        attempts.iter().map(|attempt| (attempt["status"].as_u64(), attempt["reason"].as_str())).collect();
    assert_eq!(told, [(Some(503), Some("status 503")), (Some(302), Some("redirect")), (Some(200), None)]);
}

#[test]
fn a_delivery_that_fails_to_the_end_is_given_up_with_a_reason_and_others_go_on() {
    let server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|post, _| if post.json()["data"] == "poison" { 500 } else { 200 });
    let (id, _) = create(&client, &json!({ "url": receiver.url(), "retry": { "schedule": ["100ms"] } }));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (nobody, _) = create(&client, &json!({ "url": format!("http://{gone}/"), "retry": { "schedule": ["100ms"] } }));
    for (event, aggregate, data) in [("e1", "x", "poison"), ("e2", "x", "good"), ("e3", "y", "good")] {
        client.publish(&format!(
            r#"{{"eventId":"{event}","eventType":"a.b","aggregateId":"{aggregate}","data":"{data}"}}"#
        ));
    }
    assert_eq!(delivery(&client, "e1", &id, "dead")["reason"], "status 500");
    delivery(&client, "e2", &id, "delivered");
    delivery(&client, "e3", &id, "delivered");
    let refused = delivery(&client, "e1", &nobody, "dead");
    assert_eq!((&refused["reason"], &refused["attempts"][0]["status"]), (&json!("connect"), &Value::Null));
    let shown = client.get(&format!("/webhooks/{id}")).expect(200).json();
    assert_eq!((&shown["deadLetters"], &shown["pending"]), (&json!(1), &json!(0)));
    // The one after the poison waited for it, the neighbour did not.
    let order: Vec<_> = receiver.posts().iter().map(|post| post.header("webhook-id").to_owned()).collect();
    let place = |event: &str| order.iter().position(|id| id == event).unwrap();
    assert_eq!(order.iter().filter(|id| *id == "e1").count(), 2);
    assert!(place("e2") > order.iter().rposition(|id| id == "e1").unwrap(), "{order:?}");
}

#[test]
fn a_slow_endpoint_is_a_timeout_and_slows_nobody_else() {
    let server = Server::dev();
    let client = server.client();
    // Never answers: the connection waits in the backlog.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::start();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let (slow, _) = create(&client, &json!({ "url": url, "timeout": "300ms", "retry": { "schedule": ["100ms"] } }));
    let (fast, _) = create(&client, &json!({ "url": receiver.url() }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    delivery(&client, "e1", &fast, "delivered");
    assert_eq!(delivery(&client, "e1", &slow, "dead")["reason"], "timeout");
}

#[test]
fn events_of_an_aggregate_arrive_in_their_order_whatever_fails() {
    let server = Server::dev();
    let client = server.client();
    // Every third post fails once.
    let receiver = Receiver::answering(|_, before| if before % 3 == 2 { 500 } else { 200 });
    let schedule = vec!["100ms"; 20];
    create(&client, &json!({ "url": receiver.url(), "retry": { "schedule": schedule } }));
    let events: Vec<_> = (0..90)
        .map(|number| json!({ "eventType": "a.b", "aggregateId": format!("g{}", number % 15), "data": number }))
        .collect();
    client.post("/events", json!(events).to_string()).expect(201);
    let taken = |posts: &[Post]| posts.iter().filter(|post| post.status == 200).count();
    let posts = receiver.wait_for("all", |posts| taken(posts) == 90);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for post in posts.iter().filter(|post| post.status == 200) {
        let event = post.json();
        let sequence = event["sequenceNumber"].as_u64().unwrap();
        let before = last.insert(event["aggregateId"].as_str().unwrap().to_owned(), sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "{event}");
    }
}

#[test]
fn a_crash_loses_no_delivery_and_keeps_the_order() {
    let mut server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|_, _| {
        std::thread::sleep(Duration::from_millis(2));
        200
    });
    let (id, secret) = create(&client, &json!({ "url": receiver.url(), "retry": { "schedule": vec!["100ms"; 10] } }));
    for round in 0..3 {
        let events: Vec<_> = (0..100)
            .map(|number| json!({ "eventId": format!("r{round}n{number}"), "eventType": "a.b", "aggregateId": format!("g{}", number % 5), "data": 1 }))
            .collect();
        client.post("/events", json!(events).to_string()).expect(201);
        receiver.wait(round * 100 + 20);
        server.kill();
        server.start();
    }
    let distinct = |posts: &[Post]| {
        posts.iter().map(|post| post.header("webhook-id").to_owned()).collect::<std::collections::BTreeSet<_>>().len()
    };
    let posts = receiver.wait_for("all", |posts| distinct(posts) == 300);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for post in &posts {
        assert!(post.is_signed_with(&secret));
        let event = post.json();
        let sequence = event["sequenceNumber"].as_u64().unwrap();
        let last = last.entry(event["aggregateId"].as_str().unwrap().to_owned()).or_default();
        assert!(sequence <= *last + 1, "{event} before its predecessor");
        *last = sequence.max(*last);
    }
    // A duplicate only where an outcome was unknown: at most 256 a crash.
    assert!(posts.len() <= 300 + 3 * 256);
    delivery(&client, "r2n99", &id, "delivered");
    // Nothing is left.
    until("no lag", Duration::from_secs(10), || {
        let shown = client.get(&format!("/webhooks/{id}")).expect(200).json();
        (shown["lag"] == 0 && shown["pending"] == 0).then_some(())
    });
}

#[test]
fn a_retry_that_is_due_after_a_restart_counts_on_from_where_it_was() {
    let mut server = Server::dev();
    let client = server.client();
    let up = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::answering({
        let up = Arc::clone(&up);
        move |_, _| if up.load(Ordering::Relaxed) { 200 } else { 503 }
    });
    let schedule = json!({ "schedule": ["100ms", "1s", "1s"] });
    let (id, _) = create(&client, &json!({ "url": receiver.url(), "retry": schedule }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    receiver.wait(2);
    until("two attempts", Duration::from_secs(5), || {
        let told = delivery(&client, "e1", &id, "retrying");
        (told["attempts"].as_array().unwrap().len() == 2).then_some(())
    });
    server.kill();
    up.store(true, Ordering::Relaxed);
    server.start();
    let posts = receiver.wait(3);
    let last = posts.last().unwrap().header("tidings-attempt").parse::<u32>().unwrap();
    assert!((3..=4).contains(&last), "{last}");
    delivery(&client, "e1", &id, "delivered");
}

#[test]
fn each_form_carries_the_same_event() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    for format in ["envelope", "cloudevents", "cloudevents-binary"] {
        let (_, secret) = create(
            &client,
            &json!({ "url": receiver.url(), "format": format, "eventTypes": [format!("a.{}", format.replace('-', "_"))] }),
        );
        let before = receiver.posts().len();
        client.publish(&format!(
            r#"{{"eventType":"a.{}","aggregateId":"caf\u00e9 \"1\"","metadata":{{"correlationId":"c","Not Legal":"x"}},"data":{{ "n":1.10 }}}}"#,
            format.replace('-', "_")
        ));
        let post = receiver.wait(before + 1).pop().unwrap();
        assert!(post.is_signed_with(&secret), "{format}");
        let text = String::from_utf8(post.body.clone()).unwrap();
        match format {
            "envelope" => assert!(text.ends_with(r#","data":{ "n":1.10 }}"#), "{text}"),
            "cloudevents" => {
                assert_eq!(post.header("content-type"), "application/cloudevents+json");
                let event = post.json();
                assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("a.cloudevents")));
                assert_eq!(
                    (&event["subject"], &event["partitionkey"]),
                    (&json!("caf\u{e9} \"1\""), &json!("caf\u{e9} \"1\""))
                );
                assert_eq!(
                    (&event["aggregateseq"], &event["correlationid"]),
                    (&json!("00000000000000000002"), &json!("c"))
                );
                assert!(text.contains(r#""data":{ "n":1.10 }"#) && event.get("Not Legal").is_none(), "{text}");
            }
            _ => {
                assert_eq!((text.as_str(), post.header("content-type")), (r#"{ "n":1.10 }"#, "application/json"));
                assert_eq!((post.header("ce-specversion"), post.header("ce-type")), ("1.0", "a.cloudevents_binary"));
                assert_eq!(post.header("ce-subject"), "caf%C3%A9%20%221%22");
                assert_eq!(post.header("ce-id"), post.header("webhook-id"));
            }
        }
    }
}

#[test]
fn a_webhook_begins_where_it_was_told_and_ends_when_it_is_deleted() {
    let server = Server::dev();
    let client = server.client();
    for number in 1..=4 {
        client.publish(&format!(r#"{{"eventId":"e{number}","eventType":"a.b","data":{number}}}"#));
    }
    let third = client.get("/events/e3").expect(200).json()["recordedAt"].clone();
    let since = client.get(&format!("/events?since={}", third.as_str().unwrap())).expect(200).json();
    let since = since["data"].as_array().unwrap().len();
    let starts = [(json!("earliest"), 4), (json!(2), 2), (third, since), (json!("latest"), 0), (Value::Null, 0)];
    for (number, (start, count)) in starts.into_iter().enumerate() {
        let receiver = Receiver::start();
        let live = format!("live.n{number}");
        let types = json!(["a.b", live]);
        let settings = json!({ "url": receiver.url(), "startFrom": start, "eventTypes": types });
        let (id, _) = create(&client, &settings);
        let mark = client.publish(&json!({ "eventType": live, "data": 1 }).to_string());
        delivery(&client, mark["eventId"].as_str().unwrap(), &id, "delivered");
        let posts = receiver.wait(count + 1);
        assert_eq!(posts.iter().filter(|post| post.header("tidings-event-type") == "a.b").count(), count, "{start}");
        client.delete(&format!("/webhooks/{id}")).expect(200);
        client.get(&format!("/webhooks/{id}")).expect(404);
        client.delete(&format!("/webhooks/{id}")).expect(404);
        // A second webhook to the same place tells when the first would have been.
        let (other, _) = create(&client, &json!({ "url": receiver.url(), "eventTypes": types }));
        let late = client.publish(&json!({ "eventType": live, "data": 2 }).to_string());
        delivery(&client, late["eventId"].as_str().unwrap(), &other, "delivered");
        assert_eq!(receiver.posts().len(), count + 2, "{start}");
        client.delete(&format!("/webhooks/{other}")).expect(200);
    }
}
