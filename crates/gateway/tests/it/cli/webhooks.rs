//! Webhooks, dead letters and replays from the command line.

use super::*;
use crate::support::receiver::Receiver;

#[test]
fn a_webhook_is_run_from_the_command_line() {
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    let receiver = Receiver::answering(|post, _| if post.json()["data"] == "poison" { 500 } else { 200 });
    let target = receiver.url();
    let run = |arguments: &[&str]| server.run(&[arguments, &["--url", &url]].concat());
    let json =
        |arguments: &[&str]| -> Value { serde_json::from_str(&done(run(&[arguments, &["--json"]].concat()))).unwrap() };
    let made = json(&[
        "webhooks",
        "create",
        &target,
        "--types",
        "a.*,c.d",
        "--header",
        "x-api-key: k",
        "--with",
        "{\"retry\":{\"schedule\":[\"100ms\"]}}",
    ]);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["eventTypes"], &made["headers"]), (&json!(["a.*", "c.d"]), &json!({"x-api-key": null})));
    assert_eq!(json(&["webhooks", "list"])[0]["id"], id);
    assert!(done(run(&["webhooks", "list"])).contains("active"));
    assert!(done(run(&["webhooks", "show", id])).contains(&target));
    assert_eq!(json(&["webhooks", "update", id, "{\"timeout\":\"5s\"}"])["timeout"], "5s");
    assert_eq!(json(&["webhooks", "test", id])["status"], 200);
    assert_eq!(json(&["webhooks", "pause", id])["status"], "paused");
    assert_eq!(json(&["webhooks", "resume", id])["status"], "active");
    failed(&run(&["webhooks", "activate", id]), 1, "active");
    assert_ne!(json(&["webhooks", "rotate-secret", id, "--overlap", "1h"])["secret"], made["secret"]);
    server.client().publish(r#"{"eventId":"e1","eventType":"a.b","data":"poison"}"#);
    server.client().publish(r#"{"eventId":"e2","eventType":"a.b","data":"poison"}"#);
    let letters = until("dead letters", Duration::from_secs(10), || {
        Some(json(&["dlq", "list", "--webhook", id])).filter(|found| found.as_array().unwrap().len() == 2)
    });
    let letter = letters[0]["id"].as_str().unwrap();
    assert!(done(run(&["dlq", "list"])).contains("status 500"));
    assert_eq!(json(&["dlq", "show", letter])["event"]["data"], "poison");
    failed(&run(&["dlq", "replay"]), 1, "--all");
    failed(&run(&["dlq", "discard", letter]), 2, "--reason");
    assert_eq!(json(&["dlq", "discard", letter, "--reason", "seen"])["discarded"], 1);
    assert_eq!(json(&["dlq", "replay", "--webhook", id])["replayed"], 1);
    server.client().publish(r#"{"eventId":"e3","eventType":"a.b","data":"good"}"#);
    until("e3", Duration::from_secs(10), || {
        let told = json(&["replay", id, "--from", "earliest", "--only", "all", "--dry-run"]);
        (told["events"] == 3).then_some(())
    });
    let replay = json(&["replay", id, "--event", "e3", "--rate", "1/h"]);
    assert_eq!(replay["only"], "all");
    failed(&run(&["replay", id]), 1, "--from");
    let long = json(&["replay", id, "--from", "0", "--only", "all", "--rate", "1/h"]);
    let long = long["id"].as_str().unwrap();
    assert!(done(run(&["replay", id, "--list"])).contains(long));
    assert_eq!(json(&["replay", id, "--cancel", long])["id"], long);
    assert_eq!(json(&["webhooks", "delete", id])["deleted"], true);
    failed(&run(&["webhooks", "show", id]), 1, "webhook");
    failed(&run(&["webhooks", "create", "ftp://example.com"]), 1, "/url");
    for arguments in [&["webhooks", "create", "--help"][..], &["dlq", "replay", "--help"], &["replay", "--help"]] {
        assert!(done(server.run(arguments)).contains("Example"), "{arguments:?}");
    }
}
