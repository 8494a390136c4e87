//! How deliveries fare, in totals that need no key.

use std::time::Duration;

use serde_json::json;

use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::until;

#[test]
fn health_tells_totals_and_nothing_else_without_a_key() {
    let receiver = Receiver::answering(|post, _| if post.json()["data"] == "poison" { 500 } else { 200 });
    let settings = format!("[egress]\nhttp = true\nallow = [\"{}\"]\n", receiver.address);
    let server = Server::with(false, &settings);
    let client = server.operator();
    let fresh = server.client().get("/health/events").expect(200).json();
    assert_eq!(fresh["status"], "healthy");
    for member in ["queueDepth", "deadLetterCount", "avgLatencyMs", "consumerLag"] {
        assert_eq!(fresh[member], 0, "{member}");
    }
    let webhook = json!({ "url": receiver.url(), "retry": {"schedule": ["100ms"]}, "description": "canary" });
    client.post("/webhooks", webhook.to_string()).expect(201);
    client.publish(r#"{"eventType":"a.b","data":"good"}"#);
    client.publish(r#"{"eventType":"a.b","data":"poison"}"#);
    let told = until("a dead letter", Duration::from_secs(10), || {
        Some(server.client().get("/health/events").expect(200)).filter(|told| told.json()["deadLetterCount"] == 1)
    });
    let health = told.json();
    assert_eq!((&health["attempts"]["delivered"], &health["attempts"]["failed"]), (&json!(1), &json!(2)));
    assert_eq!(health["subscriptions"], json!({"active": 1, "paused": 0, "deactivated": 0}));
    assert!(health["avgLatencyMs"].is_u64());
    for hidden in ["canary", "wh_", "127.0.0.1", "a.b"] {
        assert!(!told.text().contains(hidden), "{told}");
    }
}

#[test]
fn health_is_degraded_above_the_thresholds_of_the_settings() {
    let server = Server::with(true, "[health]\nqueue_depth = 3\ndead_letters = 0\n");
    let client = server.client();
    let receiver = Receiver::answering(|_, _| 503);
    let webhook = json!({ "url": receiver.url(), "retry": {"schedule": ["1h"]}, "deactivateAfter": null });
    let id = client.post("/webhooks", webhook.to_string()).expect(201).json()["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        client.publish(r#"{"eventType":"a.b","data":1}"#);
    }
    until("three waiting", Duration::from_secs(10), || {
        Some(client.get("/health/events").expect(200)).filter(|told| told.json()["queueDepth"] == 3)
    });
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    let degraded = until("degraded", Duration::from_secs(10), || {
        Some(client.get("/health/events")).filter(|told| told.status == 503)
    });
    let told = degraded.json();
    assert_eq!((&told["status"], &told["queueDepth"]), (&json!("degraded"), &json!(4)));
    assert_eq!(told["reasons"], json!(["queueDepth is 4"]));
    assert_eq!(degraded.header("content-type"), Some("application/json"));
    // What is paused does not count.
    client.post(&format!("/webhooks/{id}/pause"), "").expect(200);
    let told = client.get("/health/events").expect(200).json();
    assert_eq!((&told["queueDepth"], &told["consumerLag"]), (&json!(0), &json!(0)));
}
