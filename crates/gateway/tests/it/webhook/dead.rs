//! Dead letters: listed, shown, sent again, given up.

use super::*;

/// A webhook whose endpoint takes nothing with `poison` in it while `sick` is set; the event of each `poison` dies.
fn sick(client: &Client, on_exhausted: &str) -> (String, Receiver, Arc<AtomicBool>) {
    let sick = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::saying("cannot take it", {
        let sick = Arc::clone(&sick);
        move |post, _| {
            let poison = post.json()["data"] == "poison" && sick.load(Ordering::Relaxed);
            if poison { 500 } else { 200 }
        }
    });
    let retry = json!({"schedule": ["100ms"], "onExhausted": on_exhausted});
    let (id, _) = create(client, &json!({ "url": receiver.url(), "retry": retry, "deactivateAfter": null }));
    (id, receiver, sick)
}

fn publish(client: &Client, id: &str, aggregate: &str, data: &str) {
    let event = json!({ "eventId": id, "eventType": "a.b", "aggregateId": aggregate, "data": data });
    client.publish(&event.to_string());
}

#[track_caller]
fn letters(client: &Client, count: usize) -> Vec<Value> {
    until("dead letters", Duration::from_secs(20), || {
        let page = client.get("/dead-letters").expect(200).json();
        Some(page["data"].as_array().unwrap().clone()).filter(|found| found.len() == count)
    })
}

#[test]
fn a_dead_letter_tells_its_event_and_every_error_and_is_sent_again() {
    let server = Server::dev();
    let client = server.client();
    let (id, receiver, sick) = sick(&client, "skip");
    publish(&client, "e1", "x", "poison");
    publish(&client, "e2", "x", "good");
    let letter = letters(&client, 1).remove(0);
    assert_eq!((&letter["webhook"], &letter["eventId"]), (&json!(id), &json!("e1")));
    assert_eq!(
        (&letter["reason"], &letter["attemptCount"], &letter["state"]),
        (&json!("status 500"), &json!(2), &json!("open"))
    );
    let path = format!("/dead-letters/{}", letter["id"].as_str().unwrap());
    let shown = client.get(&path).expect(200).json();
    assert_eq!((&shown["event"]["data"], &shown["event"]["eventId"]), (&json!("poison"), &json!("e1")));
    let errors: Vec<_> = shown["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["answer"]).collect();
    assert_eq!(errors, ["cannot take it"; 2]);
    let dead = delivery(&client, "e1", &id, "dead");
    assert_eq!((&dead["deadLetter"], &dead["attempts"][1]["answer"]), (&letter["id"], &json!("cannot take it")));
    delivery(&client, "e2", &id, "delivered");
    let trail = client.get("/events?types=tidings.delivery.dead_lettered").expect(200).json();
    assert_eq!(trail["data"][0]["data"]["deadLetter"], letter["id"]);
    // It works again: the same id, from the first attempt on.
    sick.store(false, Ordering::Relaxed);
    assert_eq!(client.post(&format!("{path}/replay"), "").expect(200).json()["replayed"], true);
    let told = delivery(&client, "e1", &id, "delivered");
    assert_eq!(told["attempts"].as_array().unwrap().len(), 3);
    let post = receiver.posts().into_iter().rfind(|post| post.header("webhook-id") == "e1").unwrap();
    assert_eq!((post.header("tidings-attempt"), post.status), ("1", 200));
    letters(&client, 0);
    let closed = client.get(&path).expect(200).json();
    assert_eq!((&closed["state"], closed["closedAt"].is_string()), (&json!("replayed"), true));
    client.post(&format!("{path}/replay"), "").expect(409);
}

#[test]
fn many_are_replayed_in_their_order_and_others_are_discarded_with_a_reason() {
    let server = Server::dev();
    let client = server.client();
    let (id, receiver, sick) = sick(&client, "skip");
    for number in 0..6 {
        publish(&client, &format!("e{number}"), "x", "poison");
    }
    let other = json!({ "eventId": "other", "eventType": "c.d", "data": "poison" });
    client.publish(&other.to_string());
    let found = letters(&client, 7);
    let page = client.get("/dead-letters?type=a.b&limit=4").expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 4);
    let next = page["nextCursor"].as_str().unwrap();
    let rest = client.get(&format!("/dead-letters?type=a.b&limit=4&after={next}")).expect(200).json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["nextCursor"]), (2, &Value::Null));
    for query in ["webhook=wh_0", "consumer=x", "sink=x", "since=2999-01-01T00:00:00Z", "type=e.f"] {
        assert_eq!(client.get(&format!("/dead-letters?{query}")).expect(200).json()["data"], json!([]), "{query}");
    }
    let since = found.last().unwrap()["at"].as_str().unwrap();
    let of = client.get(&format!("/dead-letters?webhook={id}&since={since}")).expect(200).json();
    assert_eq!(of["data"].as_array().unwrap().len(), 7);
    let discard = json!({ "filter": {"type": "c.d"}, "reason": "sent by hand" });
    assert_eq!(client.post("/dead-letters/discard", discard.to_string()).expect(200).json()["discarded"], 1);
    let discarded = found.iter().find(|letter| letter["eventId"] == "other").unwrap();
    let discarded = client.get(&format!("/dead-letters/{}", discarded["id"].as_str().unwrap())).expect(200).json();
    assert_eq!((&discarded["state"], &discarded["closedReason"]), (&json!("discarded"), &json!("sent by hand")));
    sick.store(false, Ordering::Relaxed);
    let before = receiver.posts().len();
    let replay = json!({ "filter": {"webhook": id} });
    let answer = client.post("/dead-letters/replay", replay.to_string()).expect(200).json();
    assert_eq!(answer, json!({ "replayed": 6, "more": false }));
    let posts = receiver.wait(before + 6);
    let order: Vec<_> = posts[before..].iter().map(|post| post.header("webhook-id").to_owned()).collect();
    assert_eq!(order, ["e0", "e1", "e2", "e3", "e4", "e5"]);
    letters(&client, 0);
    let types = "tidings.dead_letter.replayed,tidings.dead_letter.discarded";
    let trail = client.get(&format!("/events?types={types}")).expect(200).json();
    assert_eq!(trail["data"][0]["data"]["reason"], "sent by hand");
    assert_eq!(trail["data"][1]["data"]["deadLetters"].as_array().unwrap().len(), 6);
}

#[test]
fn a_parked_aggregate_waits_for_what_becomes_of_its_dead_letter() {
    let server = Server::dev();
    let client = server.client();
    let (id, receiver, sick) = sick(&client, "park");
    publish(&client, "e1", "x", "poison");
    letters(&client, 1);
    for (event, aggregate) in [("e2", "x"), ("e3", "x"), ("e4", "y")] {
        publish(&client, event, aggregate, "good");
    }
    delivery(&client, "e4", &id, "delivered");
    for event in ["e2", "e3"] {
        let parked = delivery(&client, event, &id, "parked");
        assert_eq!(parked["attempts"], json!([]));
    }
    assert_eq!(client.get(&format!("/webhooks/{id}")).expect(200).json()["parked"], 1);
    let page = client.get(&format!("/webhooks/{id}/deliveries?status=parked")).expect(200).json();
    let ids: Vec<_> = page["data"].as_array().unwrap().iter().map(|item| item["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["e3", "e2"]);
    sick.store(false, Ordering::Relaxed);
    client.post("/dead-letters/replay", r#"{"filter":{}}"#).expect(200);
    for event in ["e1", "e2", "e3"] {
        delivery(&client, event, &id, "delivered");
    }
    let good: Vec<_> = receiver
        .posts()
        .iter()
        .filter(|post| post.status == 200)
        .map(|post| post.header("webhook-id").to_owned())
        .collect();
    assert_eq!(good, ["e4", "e1", "e2", "e3"]);
    // A discard lets them go too.
    sick.store(true, Ordering::Relaxed);
    publish(&client, "e5", "x", "poison");
    let letter = letters(&client, 1).remove(0);
    publish(&client, "e6", "x", "good");
    delivery(&client, "e6", &id, "parked");
    let discard = json!({ "filter": {"ids": [letter["id"]]}, "reason": "obsolete" });
    assert_eq!(client.post("/dead-letters/discard", discard.to_string()).expect(200).json()["discarded"], 1);
    delivery(&client, "e6", &id, "delivered");
    delivery(&client, "e5", &id, "dead");
}

#[test]
fn dead_letters_go_with_their_webhook() {
    let server = Server::dev();
    let client = server.client();
    let (id, _receiver, _) = sick(&client, "skip");
    publish(&client, "e1", "x", "poison");
    let letter = letters(&client, 1).remove(0);
    client.delete(&format!("/webhooks/{id}")).expect(200);
    letters(&client, 0);
    client.get(&format!("/dead-letters/{}", letter["id"].as_str().unwrap())).expect(404);
}
