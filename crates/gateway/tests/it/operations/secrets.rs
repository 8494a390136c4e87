//! Secrets that are planted, and looked for wherever the server says something.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::http::Answer;
use crate::support::problem::problem;
use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::until;

const HEADER: &str = "canaryheader8273";
const USER_INFO: &str = "canaryuserinfo5519";
const REQUEST_KEY: &str = "canaryrequestkey6631";
const WRONG_KEY: &str = "tdg_live_aaaaaaaa_canarywrongkey4402";
const DATA: &str = "canarydata9917";
const QUERY: &str = "canaryquery7734";

#[track_caller]
fn refused(answer: Answer) -> Answer {
    problem(&answer);
    answer
}

#[test]
fn no_secret_is_in_logs_metrics_spans_listings_or_problems() {
    let (collector, failing) = (Receiver::start(), Receiver::answering(|_, _| 500));
    let mut server = Server::prepared(false, "");
    server.set(&format!(
        "log_format = \"json\"\n[telemetry]\notlp = \"http://{}\"\n[egress]\nhttp = true\nallow = \"{}\"\n",
        collector.address, failing.address
    ));
    server.env("RUST_LOG", "trace");
    server.start();
    let key = server.make_key(&["--admin"]);
    let client = server.client().key(&key.text);
    let mut said = Vec::new();
    let webhook = json!({
        "url": format!("{}?token={QUERY}", failing.url()),
        "eventTypes": ["*"],
        "headers": {"x-token": HEADER},
        "retry": {"schedule": ["100ms"]},
    });
    let made = client.post("/webhooks", webhook.to_string()).expect(201).json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let path = format!("/webhooks/{id}");
    let user_info = json!({"url": format!("http://u:{USER_INFO}@{}/", failing.address), "eventTypes": ["*"]});
    said.push(refused(client.post("/webhooks", user_info.to_string())));
    let patched = client.send("PATCH", &path, &[], br#"{"headers":{"x-token":"bad canaryheader8273\n"}}"#);
    said.push(refused(patched));
    let keyed = client.with("idempotency-key", REQUEST_KEY);
    keyed.post("/events", format!(r#"{{"eventType":"a.b","data":"{DATA}"}}"#)).expect(201);
    said.push(refused(keyed.post("/events", r#"{"eventType":"a.b","data":2}"#)));
    said.push(refused(server.client().key(WRONG_KEY).get("/webhooks")));
    failing.wait(2);
    until("a dead letter", Duration::from_secs(20), || {
        let letters = client.get("/dead-letters").expect(200);
        (!letters.json()["data"].as_array().unwrap().is_empty()).then_some(())
    });
    said.push(client.post(&format!("{path}/test"), ""));
    for path in ["/webhooks", &path, "/dead-letters", "/keys", "/metrics", "/health/events", "/events?types=tidings.*"]
    {
        said.push(client.get(path).expect(200));
    }
    for part in ["attempts", "deliveries", "replays"] {
        said.push(client.get(&format!("{path}/{part}")).expect(200));
    }
    server.signal(Signal::TERM);
    server.ended(Duration::from_secs(30));
    let logs = server.stderr() + &server.stdout();
    assert!(logs.contains("\"answered\"") && logs.contains("/webhooks/{id}"), "the log tells of requests: {logs}");
    let spans: String = collector.posts().iter().map(|post| String::from_utf8_lossy(&post.body).into_owned()).collect();
    assert!(spans.contains("deliver"), "{spans}");
    let listed = said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let key_secret = key.text.rsplit('_').next().unwrap();
    let signing = secret.strip_prefix("whsec_").unwrap();
    let planted = [key_secret, signing, HEADER, USER_INFO, REQUEST_KEY, "canarywrongkey4402"];
    for canary in planted {
        for (place, text) in [("logs", &logs), ("spans", &spans), ("answers", &listed)] {
            assert!(!text.contains(canary), "{canary} is in the {place}");
        }
    }
    // Who reads webhooks or events sees these; who reads logs does not.
    for canary in [QUERY, DATA] {
        assert!(!logs.contains(canary) && !spans.contains(canary), "{canary} is in the logs or spans");
    }
}
