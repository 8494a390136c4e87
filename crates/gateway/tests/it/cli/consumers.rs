//! Consumers from the command line.

use super::*;

#[test]
fn a_consumer_is_run_from_the_command_line() {
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    let run = |arguments: &[&str]| server.run(&[arguments, &["--url", &url]].concat());
    let json =
        |arguments: &[&str]| -> Value { serde_json::from_str(&done(run(&[arguments, &["--json"]].concat()))).unwrap() };
    let made = json(&["consumers", "put", "mail", "--types", "a.*", "--from", "0", "--with", "{\"ackWait\":\"5s\"}"]);
    assert_eq!((&made["eventTypes"], &made["ackWait"], &made["startFrom"]), (&json!(["a.*"]), &json!("5s"), &json!(0)));
    assert_eq!(json(&["consumers", "list"])[0]["name"], "mail");
    assert!(done(run(&["consumers", "list"])).contains("active"));
    assert_eq!(json(&["consumers", "pause", "mail"])["status"], "paused");
    assert_eq!(json(&["consumers", "resume", "mail"])["status"], "active");
    assert_eq!(json(&["consumers", "seek", "mail", "--from", "latest"])["status"], "active");
    assert!(done(run(&["consumers", "show", "mail"])).contains("deadLetters"));
    json(&["consumers", "delete", "mail"]);
    failed(&run(&["consumers", "show", "mail"]), 1, "consumer");
}
