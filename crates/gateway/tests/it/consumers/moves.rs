//! Consumers are paused, moved, changed, removed; and what is refused.

use super::*;

#[test]
fn a_paused_consumer_gives_nothing_out_and_goes_on_where_it_stood() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    publish(&client, "e1", "o1");
    let message = fetched(&client, "mail", 1);
    assert_eq!(client.post("/consumers/mail/pause", "").expect(200).json()["status"], "paused");
    publish(&client, "e2", "o2");
    assert!(fetch(&client, "mail", 5, "300ms").is_empty());
    assert_eq!(ack(&client, "mail", &tokens(&message))["acked"], 1, "what is out is still answered");
    assert_eq!(client.post("/consumers/mail/resume", "").expect(200).json()["status"], "active");
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["e2"]);
}

#[test]
fn a_consumer_is_moved_to_an_offset_or_a_time_and_gets_everything_from_there_again() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "eventTypes": ["order.*"] }));
    publish(&client, "e1", "o1");
    publish(&client, "e2", "o2");
    let recorded = client.get("/events/e2").expect(200).json()["recordedAt"].as_str().unwrap().to_owned();
    let after_first = client.get("/events/e1").expect(200).json()["offset"].clone();
    let messages = fetched(&client, "mail", 2);
    ack(&client, "mail", &tokens(&messages));
    let seek =
        |from: Value| client.post("/consumers/mail/seek", json!({ "from": from }).to_string()).expect(200).json();
    assert_eq!(seek(after_first)["status"], "active");
    let again = fetched(&client, "mail", 1);
    assert_eq!(ids(&again), ["e2"]);
    seek(json!("earliest"));
    let all = fetched(&client, "mail", 2);
    assert_eq!(
        ack(&client, "mail", &tokens(&again))["acked"],
        0,
        "what was out before the move is with another worker"
    );
    assert_eq!(ids(&all), ["e1", "e2"]);
    ack(&client, "mail", &tokens(&all));
    seek(json!(recorded));
    // Both may have been recorded in one millisecond.
    until("e2 again", Duration::from_secs(20), || ids(&fetch(&client, "mail", 2, "1s")).contains(&"e2").then_some(()));
    seek(json!("latest"));
    assert!(fetch(&client, "mail", 5, "300ms").is_empty());
    client.post("/consumers/mail/seek", "{}").expect(422);
    client.post("/consumers/mail/seek", r#"{"from":"soon"}"#).expect(422);
    let beyond = client.post("/consumers/mail/seek", r#"{"from":1732280000000}"#).expect(422);
    assert!(beyond.text().contains("a time is a text"), "{beyond}");
}

#[test]
fn putting_it_again_changes_the_settings_and_what_workers_have_stays_theirs() {
    let server = Server::dev();
    let client = server.client();
    publish(&client, "e0", "o0");
    let body = json!({ "startFrom": "earliest", "ackWait": "20s" }).to_string();
    client.send("PUT", "/consumers/mail", &[], body.as_bytes()).expect(201);
    client.send("PUT", "/consumers/mail", &[], body.as_bytes()).expect(200);
    let made = client.get("/events?types=tidings.consumer.*").expect(200).json();
    assert_eq!(made["data"].as_array().unwrap().len(), 1, "nothing changed, so nothing is told");
    let message = fetched(&client, "mail", 1);
    assert_eq!(put(&client, "mail", &json!({ "ackWait": "40s" }))["ackWait"], "40s");
    assert!(fetch(&client, "mail", 1, "300ms").is_empty());
    assert_eq!(ack(&client, "mail", &tokens(&message))["acked"], 1);
    publish(&client, "e1", "o1");
    assert_eq!(ids(&fetched(&client, "mail", 1)), ["e1"]);
}

#[test]
fn a_consumer_that_is_removed_takes_its_dead_letters_and_its_place_with_it() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({ "maxRetries": 0 }));
    publish(&client, "e1", "o1");
    let message = fetched(&client, "mail", 1).remove(0);
    nack(&client, "mail", &message, None);
    shown(&client, "mail", |shown| shown["deadLetters"] == 1);
    client.delete("/consumers/mail").expect(200);
    client.get("/consumers/mail").expect(404);
    assert!(client.get("/dead-letters").expect(200).json()["data"].as_array().unwrap().is_empty());
    put(&client, "mail", &json!({}));
    assert!(fetch(&client, "mail", 1, "200ms").is_empty(), "a new one begins at the head");
    let stale = json!({ "tokens": [message["ackToken"]] }).to_string();
    client.post("/consumers/mail/ack", stale).expect(422);
}

#[test]
fn every_refusal_names_the_member_and_the_way_out() {
    let server = Server::dev();
    let client = server.client();
    put(&client, "mail", &json!({}));
    let put = |name: &str, body: &str| client.send("PUT", &format!("/consumers/{name}"), &[], body.as_bytes());
    for (answer, status, part) in [
        (put("ma.il", "{}"), 400, "letters, digits"),
        (put("x", r#"{"ackWait":"1ms"}"#), 422, "/ackWait: from 1s to 12h"),
        (put("x", r#"{"maxRetries":101}"#), 422, "/maxRetries"),
        (put("x", r#"{"retry":[]}"#), 422, "/retry"),
        (put("x", r#"{"shiny":1}"#), 422, "/shiny"),
        (put("x", r#"{"status":"paused"}"#), 422, "/status: `POST"),
        (client.get("/consumers/x"), 404, "PUT /consumers/{name}"),
        (client.post("/consumers/x/fetch", ""), 404, "consumer"),
        (client.post("/consumers/mail/fetch", r#"{"max":501}"#), 422, "/max: from 1 to 500"),
        (client.post("/consumers/mail/fetch", r#"{"wait":"21s"}"#), 422, "/wait: from 0s to 20s"),
        (client.post("/consumers/mail/ack", r#"{"tokens":[]}"#), 422, "/tokens: 1 to 1000"),
        (client.post("/consumers/mail/ack", r#"{"tokens":["x"]}"#), 422, "/tokens/0: not an `ackToken`"),
        (client.post("/consumers/mail/nack", r#"{"token":"x"}"#), 422, "/token: not an `ackToken`"),
    ] {
        let answer = answer.expect(status);
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{answer}");
    }
}

#[test]
fn a_key_works_on_the_consumers_of_its_tenant_and_its_channels_only() {
    let server = Server::guarded();
    let operator = server.operator();
    let scopes = "consumers:read,consumers:write,consumers:work";
    let key = |more: &[&str]| {
        let mut all = vec!["--tenant", "acme", "--scopes", scopes];
        all.extend(more);
        server.client().key(&server.make_key(&all).text)
    };
    let (whole, walled) = (key(&[]), key(&["--channels", "user:1"]));
    put(&whole, "all", &json!({}));
    put(&walled, "own", &json!({}));
    let acme = operator.tenant("acme");
    acme.publish(r#"{"eventId":"e1","eventType":"a.b","channels":["user:1"],"data":1}"#);
    acme.publish(r#"{"eventId":"e2","eventType":"a.b","channels":["user:2"],"data":1}"#);
    assert_eq!(ids(&fetched(&walled, "own", 1)), ["e1"]);
    assert!(fetch(&walled, "own", 5, "200ms").is_empty());
    assert_eq!(ids(&fetched(&whole, "all", 2)), ["e1", "e2"]);
    walled.post("/consumers/all/fetch", "").expect(404);
    assert_eq!(walled.get("/consumers").expect(200).json()["data"].as_array().unwrap().len(), 1);
    operator.tenant("other").post("/consumers/all/fetch", "").expect(404);
    let reader = server.client().key(&server.make_key(&["--tenant", "acme", "--scopes", "consumers:read"]).text);
    reader.post("/consumers/all/fetch", "").expect(403);
}
