//! Deliveries as they are listed: each status, page by page.

use super::*;

fn listed(client: &Client, id: &str, status: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let query = format!("status={status}&limit=2&after={after}");
        let page = client.get(&format!("/webhooks/{id}/deliveries?{query}")).expect(200).json();
        let items = page["data"].as_array().unwrap();
        assert!(items.len() <= 2);
        for item in items {
            assert!(status.is_empty() || item["status"] == status, "{item}");
            found.push(item["eventId"].as_str().unwrap().to_owned());
        }
        match page["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return found,
        }
    }
}

#[test]
fn every_delivery_is_listed_under_its_status_newest_first() {
    let mut server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|post, _| match post.json()["data"].as_str() {
        Some("dead") => 500,
        Some("later") => 503,
        _ => 200,
    });
    let settings = json!({ "url": receiver.url(), "retry": {"schedule": ["100ms", "1h"]}, "deactivateAfter": null });
    let (id, _) = create(&client, &settings);
    let publish = |event: &str, aggregate: &str, data: &str| {
        let event = json!({ "eventId": event, "eventType": "a.b", "aggregateId": aggregate, "data": data });
        client.publish(&event.to_string());
    };
    for number in 0..5 {
        publish(&format!("good{number}"), "g", "good");
    }
    publish("later0", "x", "later");
    publish("behind0", "x", "good");
    publish("behind1", "x", "good");
    let retrying = delivery(&client, "later0", &id, "retrying");
    assert_eq!(retrying["reason"], "status 503");
    assert!(retrying["nextAttemptAt"].is_string());
    // The second step lies an hour ahead.
    until("two attempts", Duration::from_secs(10), || {
        let told = delivery(&client, "later0", &id, "retrying");
        (told["attempts"].as_array().unwrap().len() == 2).then_some(())
    });
    delivery(&client, "good4", &id, "delivered");
    delivery(&client, "behind1", &id, "pending");
    for _ in 0..2 {
        assert_eq!(listed(&client, &id, "delivered"), ["good4", "good3", "good2", "good1", "good0"]);
        assert_eq!(listed(&client, &id, "retrying"), ["later0"]);
        assert_eq!(listed(&client, &id, "pending"), ["behind1", "behind0"]);
        assert_eq!(listed(&client, &id, "dead"), [""; 0]);
        let all = ["behind1", "behind0", "later0", "good4", "good3", "good2", "good1", "good0"];
        assert_eq!(listed(&client, &id, ""), all);
        server.kill();
        server.start();
    }
    let attempts = client.get(&format!("/webhooks/{id}/attempts?limit=250")).expect(200).json();
    let numbers: Vec<_> = attempts["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|attempt| attempt["eventId"] == "later0")
        .map(|attempt| attempt["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [2, 1]);
    // Other steps from now on: it dies, and what waited for it goes.
    client.post(&format!("/webhooks/{id}/pause"), "").expect(200);
    publish("new", "n", "good");
    delivery(&client, "new", &id, "pending");
    assert_eq!(listed(&client, &id, "pending"), ["new", "behind1", "behind0"]);
}

#[test]
fn what_an_event_became_is_told_by_webhook_page_by_page() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::saying("thank you", |_, _| 200));
    let mut made: Vec<_> = (0..5).map(|_| create(&client, &json!({ "url": receiver.url() })).0).collect();
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    for id in &made {
        let told = delivery(&client, "e1", id, "delivered");
        assert_eq!(told["attempts"][0]["answer"], "thank you");
    }
    made.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/events/e1/deliveries?limit=2&after={after}")).expect(200).json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|item| item["webhook"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, made);
}

#[test]
fn answers_are_not_kept_where_the_operator_says_so() {
    let server = Server::with(true, "[egress]\nkeep_answers = false\n");
    let (client, receiver) = (server.client(), Receiver::saying("inner secrets", |_, _| 200));
    let (id, _) = create(&client, &json!({ "url": receiver.url() }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    assert_eq!(delivery(&client, "e1", &id, "delivered")["attempts"][0]["answer"], Value::Null);
    let said = client.post(&format!("/webhooks/{id}/test"), "").expect(200).json();
    assert_eq!((&said["delivered"], &said["answer"]), (&json!(true), &Value::Null));
}

/// It was read before it was erased, and waits for its turn.
#[test]
fn what_was_erased_before_its_turn_is_sent_without_its_data() {
    let server = Server::dev();
    let client = server.client();
    let (receiver, attempts, let_go) = holding();
    create(&client, &json!({ "url": receiver.url(), "maxConcurrency": 1 }));
    let events = ["e1", "e2", "e3"].map(|id| json!({ "eventId": id, "eventType": "a.b", "data": {"secret": id} }));
    client.post("/events", json!(events).to_string()).expect(201);
    attempts.recv_timeout(Duration::from_secs(20)).unwrap();
    client.delete("/events/e2/data").expect(200);
    (0..3).for_each(|_| let_go.send(()).unwrap());
    let told = |post: &Post| (post.json()["eventId"].clone(), post.json()["data"].clone());
    let mut posts: Vec<_> = receiver.wait(3).iter().map(told).collect();
    posts.sort_by_key(|(id, _)| id.to_string());
    let secret = |id: &str| (json!(id), json!({ "secret": id }));
    assert_eq!(posts, [secret("e1"), (json!("e2"), Value::Null), secret("e3")]);
}
