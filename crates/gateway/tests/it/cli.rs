//! The command line as somebody types it.

mod consumers;
mod webhooks;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::Server;
use crate::support::until;

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn done(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn failed(output: &Output, code: i32, names: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(text(&output.stderr).contains(names), "{names:?} is not named: {output:?}");
}

#[test]
fn one_event_is_published_byte_for_byte() {
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    let more =
        ["--url", &url, "--aggregate", "o 1", "--channel", "user:1", "--channel", "user:2", "--id", "e1", "--json"];
    let output =
        server.run(&[&["publish", "order.created", "--data", "{ \"n\": 1.10, \"huge\":1e400 }"], &more[..]].concat());
    let answer: Value = serde_json::from_str(&done(output)).unwrap();
    assert_eq!(answer, json!({ "eventId": "e1", "offset": 1, "sequenceNumber": 1, "duplicate": false }));
    let shown = server.client().get("/events/e1").expect(200);
    assert!(shown.text().contains("\"data\":{ \"n\": 1.10, \"huge\":1e400 },"), "{shown}");
    assert!(shown.text().contains("\"channels\":[\"user:1\",\"user:2\"]"), "{shown}");
    assert!(done(server.run(&["publish", "a.b", "--url", &url])).contains("event 2"));
    failed(&server.run(&["publish", "a.b", "--data", "{", "--url", &url]), 1, "--data");
    failed(&server.run(&["publish", "Order", "--url", &url]), 1, "/eventType");
    failed(&server.run(&["publish", "a.b", "--url", "http://127.0.0.1:9"]), 1, "tidings serve");
    failed(&server.run(&["publish"]), 2, "EVENT_TYPE");
}

#[test]
fn lines_are_published_whatever_their_number_and_size() {
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    // More lines than one request takes at once, and more bytes.
    let large = "x".repeat(20_000);
    let lines: Vec<_> = (0..2_500)
        .map(|number| {
            let data = if number < 900 { large.as_str() } else { "small" };
            json!({ "eventId": format!("e{number}"), "eventType": "a.b", "aggregateId": "x", "data": data }).to_string()
        })
        .collect();
    let input = lines.join("\n");
    let published = done(server.run_with(&["publish", "-", "--json", "--url", &url], input.as_bytes()));
    assert_eq!(serde_json::from_str::<Value>(&published).unwrap(), json!({ "accepted": 2_500, "duplicates": 0 }));
    let last = server.client().get("/events/e2499").expect(200).json();
    assert_eq!((&last["offset"], &last["sequenceNumber"]), (&json!(2_500), &json!(2_500)), "in the order of the lines");
    let again = done(server.run_with(&["publish", "-", "--url", &url], input.as_bytes()));
    assert!(again.contains("0 accepted, 2500"), "{again}");
    failed(&server.run_with(&["publish", "-", "--url", &url], b"\n"), 1, "no event");
    let wrong =
        server.run_with(&["publish", "-", "--url", &url], b"{\"eventType\":\"a.b\",\"data\":1}\n{\"eventType\":5}\n");
    failed(&wrong, 1, "event 1 /eventType");
    assert_eq!(server.client().get("/audit/head").json()["offset"], 2_500);
}

#[test]
fn tail_prints_what_comes_and_ends_after_its_count() {
    let server = Server::dev();
    let client = server.client();
    let url = format!("http://{}", server.address);
    for number in 1..=5 {
        let event_type = if number % 2 == 1 { "a.b" } else { "c.d" };
        client.publish(&format!(r#"{{"eventId":"e{number}","eventType":"{event_type}","aggregateId":"x","channels":["u{number}"],"data":{number}.10}}"#));
    }
    let tail = |more: &[&str]| done(server.run(&[&["tail", "--url", &url, "--from", "earliest"], more].concat()));
    let printed = tail(&["--count", "5", "--json"]);
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|event| event["eventId"].as_str().unwrap()).collect::<Vec<_>>(),
        ["e1", "e2", "e3", "e4", "e5"]
    );
    assert!(printed.contains("\"data\":1.10}"));
    assert_eq!(tail(&["--count", "2", "--types", "c.*"]).lines().count(), 2);
    assert!(tail(&["--count", "1", "--channels", "u4"]).contains("4.10"));
    let human = tail(&["--count", "1"]);
    for part in ["1 ", "a.b", "x", "1.10"] {
        assert!(human.contains(part), "{human}");
    }
    // A number that no float holds is shown as well.
    client.publish(r#"{"eventType":"big.number","data":1e400}"#);
    let huge = tail(&["--count", "1", "--types", "big.number"]);
    assert!(huge.contains("big.number") && huge.contains("1e400"), "{huge}");
    failed(&server.run(&["tail", "--url", &url, "--types", "Order"]), 1, "types");
}

#[test]
fn tail_comes_back_where_it_was_when_the_server_does() {
    let mut server = Server::dev();
    let client = server.client();
    let url = format!("http://{}", server.address);
    let mut command = server.command(&["tail", "--url", &url, "--count", "4", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It began when it printed what was published after it.
    let mut probe = 0;
    let begun = std::thread::scope(|scope| {
        let first = scope.spawn(|| lines.next().unwrap().unwrap());
        until("a line", Duration::from_secs(10), || {
            probe += 1;
            client.publish(&format!(r#"{{"eventId":"p{probe}","eventType":"a.b","data":1}}"#));
            std::thread::sleep(Duration::from_millis(20));
            first.is_finished().then_some(())
        });
        first.join().unwrap()
    });
    let first: Value = serde_json::from_str(&begun).unwrap();
    let first: usize = first["eventId"].as_str().unwrap()[1..].parse().unwrap();
    // Twice the server goes away, and events come while nobody listens.
    while probe < first + 1 {
        probe += 1;
        client.publish(&format!(r#"{{"eventId":"p{probe}","eventType":"a.b","data":1}}"#));
    }
    for _ in 0..2 {
        server.kill();
        server.start();
        probe += 1;
        client.publish(&format!(r#"{{"eventId":"p{probe}","eventType":"a.b","data":1}}"#));
    }
    let rest: Vec<String> = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["eventId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(rest, (first + 1..first + 4).map(|number| format!("p{number}")).collect::<Vec<_>>());
    assert!(child.wait().unwrap().success());
}

#[test]
fn settings_that_are_not_right_are_refused_by_name() {
    let server = Server::prepared(false, "");
    let file = |text: &str| {
        std::fs::write(server.data().with_file_name("tidings.toml"), text).unwrap();
        server.run(&["config"])
    };
    failed(&file("lisen = \"127.0.0.1:1\"\n"), 1, "lisen");
    failed(&file("[limits]\nbody_byte = 1\n"), 1, "limits.body_byte");
    failed(&file("listen = 5\n"), 1, "listen");
    failed(&file("listen = [\n"), 1, "tidings.toml");
    failed(&file("[retention]\nage = \"1h\"\n"), 1, "retention.age");
    let shown = done(file("[limits]\nstreams = 5\n"));
    assert!(shown.contains("limits.streams") && shown.contains("tidings.toml"), "{shown}");
    let mut command = server.command(&["config", "--json"]);
    let shown = done(command.env("TIDINGS_LISTEN", "127.0.0.1:99").output().unwrap());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["listen"], json!({ "value": "127.0.0.1:99", "from": "TIDINGS_LISTEN" }));
    assert_eq!(shown["limits.streams"]["value"], "5");
    let mut command = server.command(&["config"]);
    failed(&command.env("TIDINGS_LISEN", "x").output().unwrap(), 1, "TIDINGS_LISEN");
}

#[test]
fn a_development_server_is_refused_on_an_address_that_others_reach() {
    let server = Server::prepared(true, "");
    for address in ["0.0.0.0:0", "[::]:0"] {
        failed(&server.run(&["serve", "--dev", "--listen", address]), 1, "loopback");
    }
    assert!(!server.data().exists());
}

#[test]
fn a_second_server_on_a_folder_is_told_which_folder_is_in_use() {
    let server = Server::dev();
    let data = server.data();
    let data = data.to_str().unwrap();
    let second = server.run(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data", data]);
    failed(&second, 1, data);
    assert!(text(&second.stderr).contains("in use"));
    // The first one is not disturbed: its socket is still there.
    server.make_key(&["--admin"]);
    server.client().publish(r#"{"eventType":"a.b","data":1}"#);
    let address = server.address.to_string();
    failed(&server.run(&["serve", "--dev", "--listen", &address, "--data", "elsewhere"]), 1, &address);
}

#[test]
fn a_development_server_says_loudly_what_it_is() {
    let server = Server::dev();
    let banner = until("the banner", Duration::from_secs(5), || {
        Some(server.stderr()).filter(|text| text.contains("order.created"))
    });
    assert!(banner.contains("DEVELOPMENT") && banner.contains(&server.address.to_string()), "{banner}");
    assert!(banner.contains(server.data().to_str().unwrap()), "{banner}");
}

#[test]
fn help_and_wrong_arguments_are_told_apart() {
    let server = Server::prepared(false, "");
    for arguments in [&["--help"][..], &["serve", "--help"], &["keys", "create", "--help"], &["--version"]] {
        assert!(!done(server.run(arguments)).is_empty(), "{arguments:?}");
    }
    for arguments in
        [&["fly"][..], &["serve", "--fly"], &["keys", "create"], &["keys", "revoke"], &["serve", "--listen", "x"]]
    {
        assert_eq!(server.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let mut lost = Vec::new();
    let mut command = server.command(&["keys", "list", "--data", "nowhere"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stderr.take().unwrap().read_to_end(&mut lost).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(text(&lost).contains("nowhere"));
}
