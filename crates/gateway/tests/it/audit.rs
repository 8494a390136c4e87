//! The log as proof: its head is signed, erased data is gone, damage is found.

use std::fs;
use std::time::Duration;

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::problem::{problem, slug};
use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::sse::Stream;
use crate::support::until;

/// The head, once it covers everything.
fn sealed(client: &Client) -> Value {
    until("a seal", Duration::from_secs(10), || {
        let head = client.get("/audit/head").expect(200).json();
        (head["sealedThrough"] == head["offset"]).then_some(head)
    })
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|place| u8::from_str_radix(&text[place * 2..][..2], 16).unwrap()).collect()
}

fn verifies(head: &Value, tenant: &str) -> bool {
    let statement =
        format!("tidings-audit-head/1\n{tenant}\n{}\n{}\n", head["sealedThrough"], head["hash"].as_str().unwrap());
    let key = VerifyingKey::from_bytes(&unhex(&head["publicKey"]).try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&unhex(&head["signature"])).unwrap();
    key.verify(statement.as_bytes(), &signature).is_ok()
}

/// Runs `audit verify`; exit code and report.
fn verify(server: &Server) -> (i32, Value) {
    let output = server.run(&["audit", "verify", "--json", "--data", server.data().to_str().unwrap()]);
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn the_head_of_the_chain_is_signed_by_the_same_key_for_ever() {
    let mut server = Server::dev();
    let client = server.client().tenant("acme");
    let empty = client.get("/audit/head").expect(200).json();
    assert_eq!((&empty["offset"], &empty["signature"]), (&Value::Null, &Value::Null));
    for number in 0..20 {
        client.publish(&format!(r#"{{"eventType":"a.b","data":{number}}}"#));
    }
    let head = sealed(&client);
    assert!(verifies(&head, "acme") && !verifies(&head, "other"));
    let mut forged = head.clone();
    forged["sealedThrough"] = 21.into();
    assert!(!verifies(&forged, "acme"));
    server.kill();
    server.start();
    let after = sealed(&client);
    assert_eq!((&after["hash"], &after["publicKey"]), (&head["hash"], &head["publicKey"]));
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    let next = sealed(&client);
    assert!(next["hash"] != head["hash"] && verifies(&next, "acme"));
}

#[test]
fn erased_data_is_gone_from_everywhere_and_the_chain_stays_whole() {
    let mut server = Server::dev();
    let client = server.client();
    let receiver = Receiver::start();
    let (personal, other) = ("Erika-Mustermann-CANARY", "somebody-else");
    client.publish(
        &json!({ "eventId": "e1", "eventType": "user.created", "aggregateId": "u1", "data": { "name": personal } })
            .to_string(),
    );
    client.publish(
        &json!({ "eventId": "e2", "eventType": "user.created", "aggregateId": "u1", "data": { "name": other } })
            .to_string(),
    );
    let before = sealed(&client);
    assert_eq!(
        client.delete("/events/e1/data").expect(200).json(),
        json!({ "eventId": "e1", "offset": 1, "erased": true })
    );
    let mut stream = Stream::open(&client, "/events/stream?from=earliest");
    let webhook = json!({ "url": receiver.url(), "startFrom": "earliest", "eventTypes": ["user.*"] });
    client.post("/webhooks", webhook.to_string()).expect(201);
    for path in ["/events", "/events?types=*,tidings.*", "/events/e1", "/events/e1/deliveries", "/aggregates/u1/events"]
    {
        let shown = client.get(path).expect(200);
        assert!(!shown.text().contains(personal), "{path}: {shown}");
    }
    let tombstone = client.get("/events/e1").expect(200).json();
    assert_eq!((&tombstone["erased"], &tombstone["data"]), (&json!(true), &Value::Null), "{tombstone}");
    assert_eq!((&tombstone["sequenceNumber"], &tombstone["offset"]), (&json!(1), &json!(1)));
    let streamed = stream.event();
    assert_eq!((streamed.id.as_deref(), &streamed.json()["data"]), (Some("1"), &Value::Null));
    for post in receiver.wait(2) {
        assert!(!String::from_utf8_lossy(&post.body).contains(personal));
    }
    // Who did it is told; once more changes nothing of it.
    let trail = client.get("/events?types=tidings.event.erased").expect(200).json();
    assert_eq!(trail["data"][0]["data"]["eventId"], "e1");
    assert_eq!(trail["data"][0]["metadata"]["actor"], "development");
    client.delete("/events/e1/data").expect(200);
    assert_eq!(client.get("/events/e1").expect(200).json(), tombstone);
    // The id is still taken: what was erased does not come back, whatever is sent, and is not there twice.
    let again =
        json!({ "eventId": "e1", "eventType": "user.created", "aggregateId": "u1", "data": { "name": personal } });
    assert_eq!(client.publish(&again.to_string())["duplicate"], true);
    let other_type =
        client.post("/events", r#"{"eventId":"e1","eventType":"user.deleted","aggregateId":"u1","data":2}"#);
    assert_eq!((other_type.status, slug(&problem(&other_type))), (409, "event-id-conflict"));
    assert_eq!(client.get("/events/e1").expect(200).json(), tombstone);
    let after = sealed(&client);
    assert!(verifies(&after, "default") && verifies(&before, "default"));
    assert_eq!(verify(&server).0, 0, "beside the running server");
    server.kill();
    let (code, report) = verify(&server);
    assert_eq!((code, &report["tenants"][0]["erased"]), (0, &json!(1)), "{report}");
    server.start();
    assert_eq!(client.get("/events/e1").expect(200).json(), tombstone);
    assert!(client.get("/events/e2").expect(200).text().contains(other));
    // What a folder keeps is what a thief of the disk finds.
    server.signal(rustix::process::Signal::TERM);
    server.ended(Duration::from_secs(10));
    for entry in fs::read_dir(server.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(personal.len()).any(|window| window == personal.as_bytes());
            assert!(!found, "{} still holds the data", path.display());
        }
    }
}

#[test]
fn the_audit_trail_itself_is_not_erased() {
    let server = Server::dev();
    let client = server.client();
    client.post("/keys", r#"{"scopes":["events:read"]}"#).expect(201);
    let trail = client.get("/events?types=tidings.*").expect(200).json();
    let id = trail["data"][0]["eventId"].as_str().unwrap();
    let refused = client.delete(&format!("/events/{id}/data"));
    assert_eq!((refused.status, slug(&problem(&refused))), (403, "forbidden"));
    assert_eq!(client.get("/events?types=tidings.*").expect(200).json(), trail);
}

#[test]
fn verify_tells_by_its_exit_code_whether_the_log_is_whole() {
    let mut server = Server::dev();
    let client = server.client();
    let events: Vec<_> =
        (0..2_000).map(|number| json!({ "eventType": "a.b", "data": format!("needle-{number:05}") })).collect();
    client.post("/events", json!(events).to_string()).expect(201);
    sealed(&client);
    server.signal(rustix::process::Signal::TERM);
    server.ended(Duration::from_secs(10));
    let (code, report) = verify(&server);
    assert_eq!((code, &report["findings"]), (0, &json!([])), "{report}");
    // One byte of one event on the disk.
    let log = server.data().join("log.db");
    let whole = fs::read(&log).unwrap();
    let place = whole.windows(12).position(|window| window == b"needle-00777").unwrap();
    let mut changed = whole.clone();
    changed[place + 11] = b'8';
    fs::write(&log, &changed).unwrap();
    let (code, report) = verify(&server);
    assert_eq!((code, &report["findings"][0]["offset"]), (1, &json!(778)), "{report}");
    let output = server.run(&["audit", "verify", "--data", server.data().to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("NOT whole") && told.contains("default offset 778"), "{told}");
    // It is not served either.
    server.start();
    let answer = client.get("/events?after=777&limit=1");
    assert_eq!((answer.status, slug(&answer.json())), (500, "damaged"));
    server.kill();
    fs::write(&log, &whole).unwrap();
    assert_eq!(verify(&server).0, 0);
    // What is not there is a failure, not a whole log.
    let output = server.run(&["audit", "verify", "--data", "/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"));
}
