//! What carries a WebSocket: TLS, a ticket that comes to its end, and clients that do not read.

use std::io::{Read as _, Write as _};

use super::*;
use crate::support::http::Answer;
use crate::support::tls::Tls;

#[test]
fn it_comes_over_tls() {
    let tls = Tls::new();
    let mut server = Server::with(true, &tls.settings());
    let client = server.client();
    let mut connection = tls.connect();
    connection.write_all(&client.request("GET", "/events/ws", &HANDSHAKE, None, b"")).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut socket = Socket::over(connection);
    // Both ways, more than a record of TLS holds at once.
    assert_eq!(socket.ask(&subscribe("a", &[], &Value::Null))["state"], "subscribed");
    let large = "x".repeat(60_000);
    let published = socket.ask(&json!({"type": "publish", "event": {"eventType": "a.b", "data": large}}));
    assert_eq!(published["offset"], 1);
    assert_eq!(socket.event()["event"]["data"], large);
    client.publish(&json!({"eventType": "a.b", "data": "y".repeat(200_000)}).to_string());
    assert_eq!(socket.event()["event"]["data"].as_str().unwrap().len(), 200_000);
    server.signal(Signal::TERM);
    let (code, _, told) = socket.closed();
    assert_eq!((code, &told[0]["closing"]), (CloseCode::Restart, &json!("drain")));
    assert!(server.ended(Duration::from_secs(20)).0.success());
}

/// The answer to a handshake that is refused.
#[track_caller]
fn refused(client: &Client, path: &str) -> Answer {
    let answer = client.send("GET", path, &HANDSHAKE, b"").expect(401);
    assert_eq!(answer.json()["type"], "/errors/invalid-ticket", "{answer}");
    answer
}

#[test]
fn a_ticket_that_has_expired_closes_it_and_opens_none() {
    let server = Server::guarded();
    let (operator, browser) = (server.operator(), server.client());
    // A ticket lives no longer than its key, and this one for some seconds.
    let first = operator.post("/keys", r#"{"tenant":"acme","scopes":["streams:read"]}"#).expect(201).json();
    let now = Timestamp::parse_rfc3339(first["createdAt"].as_str().unwrap()).unwrap();
    let expires = now.plus(Duration::from_secs(5)).to_string();
    let key = json!({"tenant": "acme", "scopes": ["streams:read"], "expiresAt": expires});
    let key = operator.post("/keys", key.to_string()).expect(201).json();
    let ticket = |key: &Value, wanted: Value| {
        let backend = browser.key(key["key"].as_str().unwrap());
        backend.post("/stream-tickets", wanted.to_string()).expect(201).json()
    };
    let (made, unused) = (ticket(&key, json!({})), ticket(&first, json!({"ttl": "1s"})));
    assert_eq!(made["expiresAt"], expires);
    let path = |ticket: &Value| ticket["socketUrl"].as_str().unwrap().to_owned();
    let mut socket = Socket::open_at(&browser, &path(&made));
    assert_eq!(socket.hear(), json!({"type": "status", "expiring": expires}));
    socket.ask(&json!({"type": "subscribe", "id": "a"}));
    let (code, _, told) = socket.closed();
    assert_eq!((code, &told.last().unwrap()["closing"]), (CloseCode::Library(4002), &json!("expired")));
    refused(&browser, &path(&made));
    // Nor does one that was not used in time.
    refused(&browser, &path(&unused));
}

/// Memory that the server has in use, in MiB.
fn memory(client: &Client) -> f64 {
    let metrics = client.get("/metrics").expect(200);
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().split(' ').next().unwrap().parse::<f64>().unwrap() / f64::from(1 << 20)
}

#[test]
fn clients_that_do_not_read_cost_no_memory() {
    const SOCKETS: usize = 40;
    let server = Server::dev();
    let client = server.client();
    let event = json!({ "eventType": "a.b", "data": "x".repeat(50_000) }).to_string();
    let batch = format!("[{}]", vec![event; 50].join(","));
    // First what the log itself keeps in memory of so much.
    (0..20).for_each(|_| drop(client.post("/events", &batch).expect(201)));
    let mut sockets: Vec<_> = (0..SOCKETS).map(|_| Socket::open(&client)).collect();
    for socket in &mut sockets {
        socket.ask(&subscribe("a", &[], &Value::Null));
    }
    let mut reads = Socket::open(&client);
    reads.ask(&subscribe("a", &[], &Value::Null));
    let before = memory(&client);
    (0..20).for_each(|_| drop(client.post("/events", &batch).expect(201)));
    // Who reads has all, so all was offered to the others too: 2 GB.
    for _ in 0..1_000 {
        reads.event();
    }
    // What the allocator keeps of what came and went is some tens of MiB.
    let grown = memory(&client) - before;
    assert!(grown < 200.0, "{grown} MiB");
    // And they still get what they are to get.
    for number in 1..=1_000 {
        assert_eq!(sockets[0].event()["offset"], 1_000 + number);
    }
}
