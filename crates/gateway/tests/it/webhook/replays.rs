//! Replays: counted first, in order, marked, cancelled.

use super::*;

fn ids(posts: &[Post]) -> Vec<String> {
    posts.iter().map(|post| post.header("webhook-id").to_owned()).collect()
}

#[test]
fn a_replay_sends_what_it_counted_in_order_and_marks_it() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, secret) = create(&client, &json!({ "url": receiver.url(), "eventTypes": ["a.*", "c.*"] }));
    for number in 0..10 {
        let event_type = if number % 2 == 0 { "a.b" } else { "c.d" };
        client.publish(
            &json!({ "eventId": format!("e{number}"), "eventType": event_type, "aggregateId": "x", "data": number })
                .to_string(),
        );
    }
    client.publish(r#"{"eventId":"x","eventType":"x.y","data":1}"#);
    receiver.wait(10);
    delivery(&client, "e9", &id, "delivered");
    let path = format!("/webhooks/{id}/replay");
    let count = |body: Value| client.post(&path, body.to_string()).expect(200).json();
    let fifth = client.get("/events/e4").expect(200).json()["offset"].clone();
    for (body, events) in [
        (json!({"from": "earliest", "only": "all", "dryRun": true}), 10),
        (json!({"from": fifth, "only": "all", "dryRun": true}), 5),
        (json!({"from": 0, "to": fifth, "only": "all", "dryRun": true}), 5),
        (json!({"from": 0, "eventTypes": ["c.*"], "only": "all", "dryRun": true}), 5),
        (json!({"from": 0, "dryRun": true}), 0),
        (json!({"eventIds": ["e7", "e2", "e2"], "dryRun": true}), 2),
    ] {
        assert_eq!(count(body.clone()), json!({"dryRun": true, "events": events, "complete": true}), "{body}");
    }
    assert_eq!(receiver.posts().len(), 10);
    let made =
        client.post(&path, json!({"from": 0, "eventTypes": ["c.*"], "only": "all"}).to_string()).expect(201).json();
    let replay = made["id"].as_str().unwrap();
    let posts = receiver.wait(15);
    assert_eq!(ids(&posts[10..]), ["e1", "e3", "e5", "e7", "e9"]);
    for post in &posts[10..] {
        assert!(post.is_signed_with(&secret));
        assert_eq!((post.header("tidings-replay"), post.header("tidings-attempt")), (replay, "1"));
    }
    client.post(&path, r#"{"eventIds":["e7","e2"]}"#).expect(201);
    assert_eq!(ids(&receiver.wait(17)[15..]), ["e2", "e7"]);
    until("none under way", Duration::from_secs(10), || {
        let left = client.get(&format!("/webhooks/{id}/replays")).expect(200).json();
        (left["data"] == json!([])).then_some(())
    });
    let trail = client.get("/events?types=tidings.replay.*").expect(200).json();
    let told: Vec<_> =
        trail["data"].as_array().unwrap().iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(told.iter().filter(|told| **told == "tidings.replay.completed").count(), 2, "{told:?}");
    let attempts = client.get(&format!("/webhooks/{id}/attempts?limit=2")).expect(200).json();
    assert_eq!((&attempts["data"][0]["eventId"], &attempts["data"][0]["replay"]), (&json!("e7"), &json!(true)));
    // An event that is not for this webhook is not sent to it.
    let refused = client.post(&path, r#"{"eventIds":["e2","x"]}"#).expect(422);
    assert!(refused.text().contains("/eventIds/1"), "{refused}");
}

#[test]
fn a_replay_keeps_to_its_rate_and_is_cancelled() {
    let mut server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, _) = create(&client, &json!({ "url": receiver.url() }));
    let events: Vec<_> = (0..50).map(|number| json!({ "eventType": "a.b", "data": number })).collect();
    client.post("/events", json!(events).to_string()).expect(201);
    receiver.wait(50);
    let settled = || client.get(&format!("/webhooks/{id}")).expect(200).json()["pending"] == 0;
    until("all settled", Duration::from_secs(10), || settled().then_some(()));
    let body = json!({"from": "earliest", "only": "all", "rate": "2/s"});
    let made = client.post(&format!("/webhooks/{id}/replay"), body.to_string()).expect(201).json();
    receiver.wait(53);
    server.kill();
    server.start();
    receiver.wait(55);
    let path = format!("/webhooks/{id}/replays");
    let listed = client.get(&path).expect(200).json();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["rate"]), (&made["id"], &json!("2/s")));
    assert!(listed["data"][0]["sent"].as_u64().unwrap() < 40);
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    client.delete(&one).expect(200);
    client.delete(&one).expect(404);
    assert_eq!(client.get(&path).expect(200).json()["data"], json!([]));
    // What comes now is live.
    client.publish(r#"{"eventId":"live","eventType":"a.b","data":1}"#);
    delivery(&client, "live", &id, "delivered");
    assert!(receiver.posts().len() < 80, "it was cancelled");
}
