//! How deliveries end that are not acknowledged: their time is over, a worker refuses, the server ends.

use rustix::process::Signal;

use super::*;
use crate::support::http::Answer;

#[test]
fn what_is_not_acknowledged_in_time_comes_back_and_counts_and_dies_after_its_retries() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "ackWait": "1s", "maxRetries": 1 }));
    publish(&client, "e1", "o1");
    publish(&client, "e2", "o1");
    let first = fetched(&client, "mail", 1);
    let second = fetched(&client, "mail", 1);
    assert_eq!((ids(&second), &second[0]["deliveryCount"]), (vec!["e1"], &json!(2)));
    assert_eq!(ack(&client, "mail", &tokens(&first))["stale"], json!(tokens(&first)), "another worker has it");
    // The next one of its aggregate goes on once it is dead.
    let next = fetched(&client, "mail", 1);
    assert_eq!(ids(&next), ["e2"]);
    ack(&client, "mail", &tokens(&next));
    let letters = client.get("/dead-letters?consumer=mail").expect(200).json();
    let letter = &letters["data"][0];
    assert_eq!(
        (&letter["consumer"], &letter["webhook"], &letter["eventId"]),
        (&json!("mail"), &json!(null), &json!("e1"))
    );
    assert_eq!((&letter["attemptCount"], &letter["reason"]), (&json!(2), &json!("no answer within 1s")));
    assert!(client.get("/dead-letters?consumer=other").expect(200).json()["data"].as_array().unwrap().is_empty());
    let trail = client.get("/events?types=tidings.delivery.dead_lettered").expect(200).json();
    assert_eq!(
        (&trail["data"][0]["data"]["consumer"], trail["data"][0]["data"].get("webhook")),
        (&json!("mail"), None)
    );
    // Replayed it is delivered again, from the first attempt on.
    let path = format!("/dead-letters/{}/replay", letter["id"].as_str().unwrap());
    client.post(&path, "").expect(200);
    let again = fetched(&client, "mail", 1);
    assert_eq!((ids(&again), &again[0]["deliveryCount"]), (vec!["e1"], &json!(1)));
    ack(&client, "mail", &tokens(&again));
    shown(&client, "mail", |shown| shown["deadLetters"] == 0 && shown["pending"] == 0);
}

#[test]
fn what_became_of_an_event_at_a_consumer_is_told() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "maxRetries": 0 }));
    put(&client, "other", &json!({ "eventTypes": ["none.here"] }));
    for (id, aggregate) in [("e1", "o1"), ("e2", "o2"), ("e3", "o3")] {
        publish(&client, id, aggregate);
    }
    let told = |id: &str| {
        let mut told = client.get(&format!("/events/{id}/deliveries")).expect(200).json()["data"].take();
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        told[0].take()
    };
    assert_eq!(told("e1")["status"], "pending");
    let (first, second) = (fetched(&client, "mail", 1), fetched(&client, "mail", 1));
    assert_eq!((ids(&first), ids(&second)), (vec!["e1"], vec!["e2"]));
    ack(&client, "mail", &tokens(&first));
    nack(&client, "mail", &second[0], None);
    shown(&client, "mail", |shown| shown["deadLetters"] == 1);
    let delivered = told("e1");
    assert_eq!((&delivered["consumer"], &delivered["status"]), (&json!("mail"), &json!("delivered")));
    assert_eq!(delivered["attempts"].as_array().unwrap().len(), 1, "{delivered}");
    let letters = client.get("/dead-letters?consumer=mail").expect(200).json();
    let dead = told("e2");
    assert_eq!((&dead["status"], &dead["deadLetter"]), (&json!("dead"), &letters["data"][0]["id"]));
    assert_eq!(dead["reason"], "cannot do it");
    let waits = told("e3");
    assert_eq!((&waits["status"], waits.get("webhook")), (&json!("pending"), None));
}

#[test]
fn three_retries_are_four_deliveries_and_a_refusal_is_told_by_the_dead_letter() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    publish(&client, "e1", "o1");
    for count in 1..=4 {
        let message = fetched(&client, "mail", 1).remove(0);
        assert_eq!(message["deliveryCount"], count);
        assert_eq!(nack(&client, "mail", &message, Some("0s")), json!({"nacked": 1, "stale": []}));
    }
    let letters = client.get("/dead-letters?consumer=mail").expect(200).json();
    assert_eq!(
        (&letters["data"][0]["attemptCount"], &letters["data"][0]["reason"]),
        (&json!(4), &json!("cannot do it"))
    );
    let filter = json!({ "filter": { "consumer": "mail" }, "reason": "known" });
    assert_eq!(client.post("/dead-letters/discard", filter.to_string()).expect(200).json()["discarded"], 1);
}

#[test]
fn a_refusal_names_when_it_comes_back_and_else_the_settings_do() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "retry": ["400ms"] }));
    for (id, delay, least) in [("e1", Some("900ms"), 900), ("e2", None, 400)] {
        publish(&client, id, id);
        let message = fetched(&client, "mail", 1).remove(0);
        let begun = instant();
        nack(&client, "mail", &message, delay);
        let again = fetched(&client, "mail", 1);
        let took = begun.elapsed();
        assert_eq!((ids(&again), took >= Duration::from_millis(least - 5)), (vec![id], true), "{took:?}");
        ack(&client, "mail", &tokens(&again));
    }
}

#[test]
fn a_worker_that_needs_longer_says_so() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "ackWait": "1s" }));
    publish(&client, "e1", "o1");
    let message = fetched(&client, "mail", 1);
    let body = json!({ "tokens": tokens(&message), "wait": "30s" }).to_string();
    let extended = client.post("/consumers/mail/extend", body.clone()).expect(200).json();
    assert_eq!(extended, json!({"extended": 1, "stale": []}));
    assert!(fetch(&client, "mail", 1, "1500ms").is_empty());
    assert_eq!(ack(&client, "mail", &tokens(&message))["acked"], 1);
    assert_eq!(client.post("/consumers/mail/extend", body).expect(200).json()["extended"], 0);
}

#[test]
fn what_workers_have_stays_theirs_when_the_server_is_stopped_and_started() {
    let mut server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    for (id, aggregate) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        publish(&client, id, aggregate);
    }
    let messages = fetched(&client, "mail", 2);
    server.signal(Signal::TERM);
    server.ended(Duration::from_secs(10));
    server.start();
    assert!(fetch(&client, "mail", 5, "400ms").is_empty(), "it is with a worker");
    assert_eq!(ack(&client, "mail", &tokens(&messages)), json!({"acked": 2, "stale": []}));
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["a2"]);
}

#[test]
fn a_crash_brings_back_what_workers_have_and_their_ack_counts_until_somebody_has_it() {
    let mut server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    publish(&client, "a1", "a");
    publish(&client, "b1", "b");
    let messages = fetched(&client, "mail", 2);
    server.kill();
    server.start();
    shown(&client, "mail", |shown| shown["pending"] == 2);
    assert_eq!(ack(&client, "mail", &tokens(&messages[..1])), json!({"acked": 1, "stale": []}));
    let again = fetched(&client, "mail", 1);
    assert_eq!(ids(&again), ["b1"]);
    let late = ack(&client, "mail", &tokens(&messages[1..]));
    assert_eq!(late["acked"], 0, "another worker has it now");
}

/// A fetch that the server has taken, and that waits for 20 s.
fn waiting(client: &Client) -> std::thread::JoinHandle<Answer> {
    let fetch = std::thread::spawn({
        let client = client.clone();
        move || client.post("/consumers/mail/fetch", r#"{"wait":"20s"}"#)
    });
    until("the fetch", Duration::from_secs(10), || {
        let metrics = client.get("/metrics").expect(200);
        metrics.text().contains("tidings_consumer_fetches_waiting 1").then_some(())
    });
    fetch
}

#[test]
fn a_waiting_fetch_does_not_hold_up_the_end_of_the_server() {
    let mut server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    let waiting = waiting(&client);
    server.signal(Signal::TERM);
    assert_eq!(waiting.join().unwrap().expect(200).json(), json!({ "messages": [] }));
    let (status, took) = server.ended(Duration::from_secs(10));
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

#[test]
fn a_fetch_that_waits_is_told_at_once_that_its_consumer_is_removed() {
    let server = Server::dev();
    let client = server.client();
    for anew in [false, true] {
        put(&client, "mail", &json!({}));
        let (waiting, begun) = (waiting(&client), instant());
        client.delete("/consumers/mail").expect(200);
        if anew {
            // What comes to another one of its name is not for it.
            put(&client, "mail", &json!({}));
            publish(&client, "e1", "o1");
        }
        let refused = waiting.join().unwrap().expect(404);
        assert!(refused.text().contains("no such consumer"), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["e1"]);
}
