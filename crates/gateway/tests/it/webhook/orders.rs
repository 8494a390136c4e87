//! What a webhook is told to do: pause, resume, activate, test; and what it does by itself: deactivation.

use super::*;

fn status(client: &Client, id: &str) -> Value {
    client.get(&format!("/webhooks/{id}")).expect(200).json()
}

#[track_caller]
fn wait_for_status(client: &Client, id: &str, wanted: &str) -> Value {
    until(wanted, Duration::from_secs(30), || Some(status(client, id)).filter(|shown| shown["status"] == wanted))
}

fn batch(client: &Client, prefix: &str, count: usize) {
    let events: Vec<_> = (0..count)
        .map(|number| json!({ "eventId": format!("{prefix}{number}"), "eventType": "a.b", "aggregateId": format!("g{}", number % 3), "data": number }))
        .collect();
    client.post("/events", json!(events).to_string()).expect(201);
}

fn in_order(posts: &[Post]) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for post in posts.iter().filter(|post| post.status == 200) {
        let event = post.json();
        let sequence = event["sequenceNumber"].as_u64().unwrap();
        let before = last.insert(event["aggregateId"].as_str().unwrap().to_owned(), sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "{event}");
    }
}

#[test]
fn a_paused_webhook_gets_nothing_and_after_it_everything_in_order() {
    let mut server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, _) = create(&client, &json!({ "url": receiver.url() }));
    let mark = Receiver::start();
    let (other, _) = create(&client, &json!({ "url": mark.url() }));
    let paused = client.post(&format!("/webhooks/{id}/pause"), "").expect(200).json();
    assert_eq!((&paused["status"], &paused["statusReason"]), (&json!("paused"), &Value::Null));
    assert!(paused["since"].as_str() >= paused["createdAt"].as_str());
    client.post(&format!("/webhooks/{id}/pause"), "{}").expect(200);
    batch(&client, "e", 30);
    mark.wait(30);
    assert!(receiver.posts().is_empty());
    server.kill();
    server.start();
    assert_eq!(status(&client, &id)["status"], "paused");
    batch(&client, "f", 30);
    mark.wait_for("the rest", |posts| posts.iter().any(|post| post.header("webhook-id") == "f29"));
    delivery(&client, "f29", &other, "delivered");
    assert!(receiver.posts().is_empty());
    assert_eq!(delivery(&client, "e0", &id, "pending")["attempts"], json!([]));
    assert!(status(&client, &id)["lag"].as_u64().unwrap() >= 60);
    let health = client.get("/health/events").expect(200).json();
    assert_eq!((&health["queueDepth"], &health["subscriptions"]["paused"]), (&json!(0), &json!(1)));
    assert_eq!(client.post(&format!("/webhooks/{id}/resume"), "").expect(200).json()["status"], "active");
    client.post(&format!("/webhooks/{id}/resume"), "").expect(200);
    in_order(&receiver.wait(60));
    let types = "tidings.webhook.paused,tidings.webhook.resumed";
    let trail = client.get(&format!("/events?types={types}")).expect(200).json();
    let told: Vec<_> =
        trail["data"].as_array().unwrap().iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        ["tidings.webhook.paused", "tidings.webhook.resumed"],
        "said once each, not for what was so already"
    );
}

#[test]
fn an_endpoint_that_keeps_failing_is_deactivated_and_gets_everything_when_it_is_activated() {
    let mut server = Server::dev();
    let client = server.client();
    let up = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::answering({
        let up = Arc::clone(&up);
        move |_, _| if up.load(Ordering::Relaxed) { 200 } else { 503 }
    });
    let settings = json!({ "url": receiver.url(), "retry": {"schedule": vec!["300ms"; 30]}, "deactivateAfter": 3 });
    let (id, _) = create(&client, &settings);
    batch(&client, "e", 12);
    let shown = wait_for_status(&client, &id, "deactivated");
    assert!(shown["statusReason"].as_str().unwrap().contains("status 503"), "{shown}");
    assert_eq!(shown["circuit"]["round"], 3);
    let told = until("it is told", Duration::from_secs(5), || {
        let trail = client.get("/events?types=tidings.webhook.deactivated").expect(200).json();
        trail["data"].get(0).cloned()
    });
    assert_eq!((&told["aggregateId"], &told["data"]["webhook"]), (&json!(id), &json!(id)));
    // Nothing more is sent, after a restart neither; nothing is lost.
    for command in ["pause", "resume"] {
        let refused = client.post(&format!("/webhooks/{id}/{command}"), "").expect(409);
        assert!(refused.json()["detail"].as_str().unwrap().contains("activate"), "{refused}");
    }
    server.kill();
    let sent = receiver.posts().len();
    server.start();
    batch(&client, "f", 12);
    assert_eq!(status(&client, &id)["status"], "deactivated");
    assert_eq!(receiver.posts().len(), sent);
    up.store(true, Ordering::Relaxed);
    let active = client.post(&format!("/webhooks/{id}/activate"), "").expect(200).json();
    assert_eq!((&active["status"], &active["statusReason"]), (&json!("active"), &Value::Null));
    let taken = |posts: &[Post]| posts.iter().filter(|post| post.status == 200).count();
    let posts = receiver.wait_for("all", |posts| taken(posts) == 24);
    in_order(&posts);
    delivery(&client, "f11", &id, "delivered");
    assert_eq!(status(&client, &id)["deadLetters"], 0);
}

#[test]
fn an_endpoint_that_says_it_is_gone_is_deactivated_at_once() {
    let server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|_, _| 410);
    let (id, _) = create(&client, &json!({ "url": receiver.url() }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    assert!(wait_for_status(&client, &id, "deactivated")["statusReason"].as_str().unwrap().contains("410"));
    assert_eq!(receiver.posts().len(), 1);
}

#[test]
fn what_an_activation_jumps_over_is_told_as_skipped() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, _) = create(&client, &json!({ "url": receiver.url() }));
    client.publish(r#"{"eventId":"e0","eventType":"a.b","data":0}"#);
    receiver.wait(1);
    client.post(&format!("/webhooks/{id}/pause"), "").expect(200);
    for number in 1..=5 {
        client.publish(&format!(r#"{{"eventId":"e{number}","eventType":"a.b","aggregateId":"x","data":{number}}}"#));
    }
    let fourth = client.get("/events/e4").expect(200).json()["offset"].as_u64().unwrap();
    let from = json!({ "from": fourth }).to_string();
    client.post(&format!("/webhooks/{id}/activate"), from).expect(200);
    delivery(&client, "e5", &id, "delivered");
    for number in 1..=4 {
        delivery(&client, &format!("e{number}"), &id, "skipped");
    }
    let page = client.get(&format!("/webhooks/{id}/deliveries?status=skipped&limit=3")).expect(200).json();
    let ids: Vec<_> = page["data"].as_array().unwrap().iter().map(|item| item["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["e4", "e3", "e2"]);
    let next = page["nextCursor"].as_str().unwrap();
    let page = client.get(&format!("/webhooks/{id}/deliveries?status=skipped&limit=3&after={next}")).expect(200).json();
    assert_eq!((&page["data"][0]["eventId"], &page["nextCursor"]), (&json!("e1"), &Value::Null));
    let ids: Vec<_> = receiver.wait(2).iter().map(|post| post.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, ["e0", "e5"]);
    // A replay brings what was skipped.
    client.post(&format!("/webhooks/{id}/replay"), r#"{"from":"earliest"}"#).expect(201);
    let posts = receiver.wait(6);
    let replayed: Vec<_> = posts[2..].iter().map(|post| post.header("webhook-id").to_owned()).collect();
    assert_eq!(replayed, ["e1", "e2", "e3", "e4"]);
    delivery(&client, "e2", &id, "delivered");
}

#[test]
fn a_sample_is_signed_answered_and_not_an_event() {
    let server = Server::dev();
    let client = server.client();
    let receiver = Receiver::saying("no such order", |_, before| if before == 0 { 404 } else { 202 });
    let settings = json!({ "url": receiver.url(), "headers": {"x-api-key": "abc"}, "eventTypes": ["a.*"] });
    let (id, secret) = create(&client, &settings);
    let head = client.get("/audit/head").expect(200).json()["offset"].clone();
    client.post(&format!("/webhooks/{id}/pause"), "").expect(200);
    let said = client.post(&format!("/webhooks/{id}/test"), "").expect(200).json();
    assert_eq!((&said["delivered"], &said["status"]), (&json!(false), &json!(404)));
    assert_eq!((&said["reason"], &said["answer"]), (&json!("status 404"), &json!("no such order")));
    let said = client.post(&format!("/webhooks/{id}/test"), "{}").expect(200).json();
    assert_eq!((&said["delivered"], &said["status"], &said["reason"]), (&json!(true), &json!(202), &Value::Null));
    assert!(said["latencyMs"].is_u64());
    let post = receiver.wait(2).pop().unwrap();
    assert!(post.is_signed_with(&secret), "{post:?}");
    assert_eq!((post.header("tidings-event-type"), post.header("x-api-key")), ("tidings.webhook.test", "abc"));
    let event = post.json();
    assert_eq!((&event["eventType"], &event["eventId"]), (&json!("tidings.webhook.test"), &said["eventId"]));
    client.get(&format!("/events/{}", said["eventId"].as_str().unwrap())).expect(404);
    assert_eq!(client.get("/audit/head").expect(200).json()["offset"], head.as_u64().unwrap() + 1, "the pause alone");
    assert_eq!(client.get(&format!("/webhooks/{id}/attempts")).expect(200).json()["data"], json!([]));
    // An endpoint that is not there is told in a word.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (nobody, _) = create(&client, &json!({ "url": format!("http://{gone}/") }));
    let said = client.post(&format!("/webhooks/{nobody}/test"), "").expect(200).json();
    assert_eq!(
        (&said["delivered"], &said["status"], &said["reason"]),
        (&json!(false), &Value::Null, &json!("connect"))
    );
}

#[test]
fn commands_right_after_a_change_are_taken_while_attempts_are_under_way() {
    let server = Server::dev();
    let client = server.client();
    let receiver = Receiver::answering(|_, _| {
        std::thread::sleep(Duration::from_millis(700));
        200
    });
    let (id, _) = create(&client, &json!({ "url": receiver.url(), "maxConcurrency": 2 }));
    let path = format!("/webhooks/{id}");
    batch(&client, "e", 9);
    for (timeout, command, wanted) in [("5s", "pause", "paused"), ("6s", "resume", "active"), ("7s", "pause", "paused")]
    {
        let change = json!({ "timeout": timeout }).to_string();
        client.send("PATCH", &path, &[], change.as_bytes()).expect(200);
        let shown = client.post(&format!("{path}/{command}"), "").expect(200).json();
        assert_eq!((&shown["status"], &shown["timeout"]), (&json!(wanted), &json!(timeout)));
    }
    client.send("PATCH", &path, &[], br#"{"timeout":"8s"}"#).expect(200);
    client.post(&format!("{path}/activate"), r#"{"from":"cursor"}"#).expect(200);
    in_order(&receiver.wait_for("all", |posts| posts.len() >= 9));
    client.delete(&path).expect(200);
}

/// Removing it waits for its attempts, and whoever asked for it may not.
#[test]
fn who_hangs_up_while_a_webhook_is_removed_has_it_removed_all_the_same() {
    let server = Server::with(true, "[limits]\nconnections = 2\n");
    let client = server.client();
    let (held, attempts, let_go) = holding();
    let (id, _) = create(&client, &json!({ "url": held.url() }));
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    attempts.recv_timeout(Duration::from_secs(20)).unwrap();
    let (mut watching, mut impatient) = (client.connect().unwrap(), client.connect().unwrap());
    impatient.write(&client.request("DELETE", &format!("/webhooks/{id}"), &[], None, b"")).unwrap();
    until("its attempt to be waited for", Duration::from_secs(10), || {
        watching.write(&client.request("GET", "/health/events", &[], None, b"")).unwrap();
        let health = watching.answer().unwrap().json();
        (health["subscriptions"]["active"] == 0).then_some(())
    });
    drop(impatient);
    // There is room for this one once the server has seen that nobody waits any more.
    until("room", Duration::from_secs(10), || (client.get("/health/live").status == 200).then_some(()));
    let_go.send(()).unwrap();
    until("its end", Duration::from_secs(20), || (client.get(&format!("/webhooks/{id}")).status == 404).then_some(()));
}
