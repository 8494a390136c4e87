//! What a webhook is made of: the contract's example, changes, headers that are never shown.

use super::*;

#[test]
fn the_example_of_the_contract_is_taken_outside_of_development() {
    let smtp = "[smtp]\nhost = \"127.0.0.1\"\nsecurity = \"none\"\nfrom = \"tidings@example.com\"\n";
    let server = Server::with(false, smtp);
    let client = server.operator();
    let example = json!({
        "url": "https://example.com/hooks", "eventTypes": ["order.*"], "channels": [], "aggregateId": null,
        "filter": null, "description": "", "versions": {"order.created": 1}, "format": "envelope", "headers": {},
        "ordering": "aggregate", "startFrom": "latest",
        "retry": {"schedule": ["1m", "5m", "30m", "2h", "24h"], "onExhausted": "skip"}, "deactivateAfter": 5,
        "timeout": "15s", "maxConcurrency": 16, "rateLimit": null,
        "notify": ["https://example.com/alerts", "mailto:ops@example.com"],
    });
    let made = client.post("/webhooks", example.to_string()).expect(201).json();
    for (name, sent) in example.as_object().unwrap() {
        let shown = match name.as_str() {
            "startFrom" => continue,
            "retry" => json!({"schedule": ["1m", "5m", "30m", "2h", "1d"], "onExhausted": "skip"}),
            _ => sent.clone(),
        };
        assert_eq!(made[name], shown, "{name}");
    }
    assert_eq!((&made["status"], &made["statusReason"]), (&json!("active"), &Value::Null));
    assert_eq!(made["circuit"], json!({"state": "closed", "failures": 0, "round": 0, "nextProbe": null}));
    // What others could reach through the server is refused by the name of the field, here as in development.
    for url in [
        "http://example.com/hooks",
        "https://127.0.0.1/hooks",
        "https://10.0.0.1/hooks",
        "https://169.254.169.254/latest",
        "https://localhost/hooks",
        "https://[::1]/hooks",
        "https://example.com:22/hooks",
        "https://user:pass@example.com/hooks",
    ] {
        let refused = client.post("/webhooks", json!({ "url": url }).to_string()).expect(422);
        assert!(refused.json()["detail"].as_str().unwrap().starts_with("/url: "), "{url}: {refused}");
        let refused = client.post("/webhooks", json!({"url": "https://example.com/", "notify": [url]}).to_string());
        assert!(refused.expect(422).json()["detail"].as_str().unwrap().starts_with("/notify/0: "), "{url}");
    }
}

#[test]
fn webhooks_run_on_a_guarded_server_and_come_back_with_it() {
    let receiver = Receiver::start();
    let settings = format!("[egress]\nhttp = true\nallow = [\"{}\"]\n", receiver.address);
    let mut server = Server::with(false, &settings);
    let client = server.operator();
    create(&client, &json!({ "url": receiver.url() }));
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    receiver.wait(1);
    server.kill();
    server.start();
    client.publish(r#"{"eventId":"e2","eventType":"a.b","data":1}"#);
    receiver.wait_for("e2", |posts| posts.iter().any(|post| post.header("webhook-id") == "e2"));
    // The operator closes the door: what was saved before goes nowhere, and says why.
    server.kill();
    server.set("");
    server.start();
    client.publish(r#"{"eventId":"e3","eventType":"a.b","data":1}"#);
    let told = until("e3 fails", Duration::from_secs(20), || {
        let told = client.get("/events/e3/deliveries").expect(200).json()["data"][0].clone();
        (told["status"] == "retrying").then_some(told)
    });
    assert_eq!(told["reason"], "blocked address");
}

#[test]
fn a_change_keeps_what_it_does_not_name_and_null_is_the_default() {
    let mut server = Server::dev();
    let client = server.client();
    let (first, second) = (Receiver::start(), Receiver::start());
    let settings = json!({
        "url": first.url(), "eventTypes": ["a.*"], "description": "first", "timeout": "3s", "deactivateAfter": 7,
        "headers": {"X-Keep": "kept", "X-Drop": "dropped", "X-Change": "before"}, "rateLimit": "50/s",
        "retry": {"schedule": ["1s"], "onExhausted": "park"},
    });
    let (id, secret) = create(&client, &settings);
    let path = format!("/webhooks/{id}");
    let patch = json!({
        "url": second.url(), "timeout": null, "deactivateAfter": null, "retry": {"onExhausted": null},
        "headers": {"x-drop": null, "x-change": "after", "X-New": "new"},
    });
    let headers = [("content-type", "application/merge-patch+json")];
    let changed = client.send("PATCH", &path, &headers, patch.to_string().as_bytes()).expect(200).json();
    assert_eq!((&changed["timeout"], &changed["deactivateAfter"]), (&json!("15s"), &Value::Null));
    assert_eq!((&changed["description"], &changed["rateLimit"]), (&json!("first"), &json!("50/s")));
    assert_eq!(changed["retry"], json!({"schedule": ["1s"], "onExhausted": "skip"}));
    assert_eq!(changed["headers"], json!({"X-Keep": null, "X-New": null, "x-change": null}));
    for round in 0..2 {
        assert_eq!(client.get(&path).expect(200).json()["url"], second.url());
        client.publish(r#"{"eventType":"a.b","data":1}"#);
        let post = second.wait(round + 1).pop().unwrap();
        assert!(post.is_signed_with(&secret));
        let sent = ["x-keep", "x-drop", "x-change", "x-new"].map(|name| post.header(name).to_owned());
        assert_eq!(sent, ["kept", "", "after", "new"]);
        server.kill();
        server.start();
    }
    assert!(first.posts().is_empty());
    let trail = client.get("/events?types=tidings.webhook.updated").expect(200).json();
    let what = &trail["data"][0]["data"];
    assert_eq!(
        (&what["id"], &what["before"]["timeout"], &what["after"]["timeout"]),
        (&json!(id), &json!("3s"), &json!("15s"))
    );
    assert_eq!((&what["before"]["url"], &what["after"]["url"]), (&json!(first.url()), &json!(second.url())));
}

#[test]
fn values_of_headers_and_secrets_are_shown_nowhere() {
    let mut server = Server::dev();
    let client = server.client();
    let receiver = Receiver::start();
    let (canary, other) = ("canary-header-0123456789", "canary-header-9876543210");
    let settings = json!({ "url": receiver.url(), "headers": {"x-api-key": canary}, "signatures": ["v1", "v1a"] });
    let (id, secret) = create(&client, &settings);
    client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    assert_eq!(receiver.wait(1)[0].header("x-api-key"), canary);
    let patch = json!({"headers": {"x-api-key": other}});
    client.send("PATCH", &format!("/webhooks/{id}"), &[], patch.to_string().as_bytes()).expect(200);
    client.post(&format!("/webhooks/{id}/rotate-secret"), "{}").expect(200);
    client.post(&format!("/webhooks/{id}/test"), "").expect(200);
    let bare = secret.strip_prefix("whsec_").unwrap();
    for path in [
        "/webhooks".to_owned(),
        format!("/webhooks/{id}"),
        format!("/webhooks/{id}/deliveries"),
        format!("/webhooks/{id}/attempts"),
        "/events?types=*,tidings.*".to_owned(),
        "/events/e1/deliveries".to_owned(),
        "/health/events".to_owned(),
    ] {
        let shown = client.get(&path).expect(200);
        for hidden in [canary, other, bare, "whsec_", "whsk_"] {
            assert!(!shown.text().contains(hidden), "{path} shows {hidden}: {shown}");
        }
    }
    assert_eq!(client.get("/webhooks").expect(200).json()["data"][0]["headers"], json!({"x-api-key": null}));
    server.signal(rustix::process::Signal::TERM);
    server.ended(Duration::from_secs(10));
    for hidden in [canary, other, bare] {
        assert!(!server.stderr().contains(hidden));
        for entry in std::fs::read_dir(server.data()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let found = bytes.windows(hidden.len()).any(|window| window == hidden.as_bytes());
            assert!(!found, "{} holds {hidden}", path.display());
        }
    }
}

#[test]
fn a_change_does_not_get_a_key_events_that_it_may_not_read() {
    let server = Server::dev();
    let all = "webhooks:read,webhooks:write,ops:read";
    let may = server.client().key(&server.make_key(&["--tenant", "acme", "--scopes", all]).text);
    let scopes = "webhooks:read,webhooks:write";
    let may_not = server.client().key(&server.make_key(&["--tenant", "acme", "--scopes", scopes]).text);
    let (id, _) = create(&may, &json!({ "url": "http://127.0.0.1:9/", "eventTypes": ["tidings.*"] }));
    for body in [r#"{"eventTypes":["tidings.*"]}"#, r#"{"url":"http://127.0.0.1:9/mine"}"#] {
        let refused = may_not.send("PATCH", &format!("/webhooks/{id}"), &[], body.as_bytes()).expect(403);
        assert_eq!(refused.json()["scope"], "ops:read");
    }
    may_not.send("PATCH", &format!("/webhooks/{id}"), &[], br#"{"eventTypes":["a.*"]}"#).expect(200);
}
