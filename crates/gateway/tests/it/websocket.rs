//! The WebSocket: subscriptions, resume, publishing, who may open one, and how it ends.

mod broken;
mod carried;
mod work;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings_core::time::Timestamp;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::http::Client;
use crate::support::instant;
use crate::support::server::Server;
use crate::support::ws::{HANDSHAKE, Socket};

fn subscribe(id: &str, types: &[&str], from: &Value) -> Value {
    json!({"type": "subscribe", "id": id, "types": types, "from": from})
}

fn publish(client: &Client, event_type: &str, number: u64) -> u64 {
    let event = json!({"eventId": format!("e{number}"), "eventType": event_type, "data": number});
    client.publish(&event.to_string())["offset"].as_u64().unwrap()
}

#[test]
fn subscriptions_change_without_reconnecting() {
    let server = Server::dev();
    let client = server.client();
    let mut socket = Socket::open(&client);
    let told = socket.ask(&json!({"type": "subscribe", "id": "a", "types": ["order.*"], "ref": 1}));
    assert_eq!(told, json!({"type": "status", "ref": 1, "subscription": "a", "state": "subscribed", "cursor": 0}));
    let text =
        r#"{"eventId":"e1","eventType":"order.created","aggregateId":"o1","data": {"n":12345678901234567890.10} }"#;
    client.publish(text);
    let told = socket.hear();
    assert_eq!((&told["type"], &told["subscription"], &told["offset"]), (&json!("event"), &json!("a"), &json!(1)));
    assert_eq!((&told["event"]["eventId"], &told["event"]["sequenceNumber"]), (&json!("e1"), &json!(1)));
    assert_eq!(socket.ask(&subscribe("b", &["cart.*"], &Value::Null))["state"], "subscribed");
    publish(&client, "cart.closed", 2);
    let told = socket.hear();
    assert_eq!((&told["subscription"], &told["event"]["eventId"]), (&json!("b"), &json!("e2")));
    // Both want it, each gets it.
    assert_eq!(socket.ask(&subscribe("c", &[], &Value::Null))["state"], "subscribed");
    publish(&client, "cart.closed", 3);
    let mut both = [socket.hear(), socket.hear()].map(|told| told["subscription"].as_str().unwrap().to_owned());
    both.sort();
    assert_eq!(both, ["b", "c"]);
    let told = socket.ask(&json!({"type": "unsubscribe", "id": "c", "ref": "x"}));
    assert_eq!(told, json!({"type": "status", "ref": "x", "subscription": "c", "state": "unsubscribed"}));
    socket.ask(&json!({"type": "unsubscribe", "id": "b"}));
    publish(&client, "cart.closed", 4);
    publish(&client, "order.created", 5);
    assert_eq!(socket.hear()["event"]["eventId"], "e5");
    assert_eq!(socket.ask(&json!({"type": "ping", "ref": "p"})), json!({"type": "pong", "ref": "p"}));
}

#[test]
fn an_event_is_sent_byte_for_byte() {
    let server = Server::dev();
    let client = server.client();
    let mut socket = Socket::open(&client);
    socket.ask(&subscribe("\"ü\\", &[], &Value::Null));
    client.publish("{\"eventId\":\"e1\",\"eventType\":\"a.b\",\"data\":{\n \"n\" : 1.10 }}");
    let tungstenite::Message::Text(text) = socket.0.read().unwrap() else { panic!("no text") };
    assert!(text.contains("\"data\":{\n \"n\" : 1.10 }}"), "{text}");
    assert!(
        text.starts_with(r#"{"type":"event","subscription":"\"ü\\","offset":1,"event":{"eventId":"e1","#),
        "{text}"
    );
}

#[test]
fn a_subscription_begins_where_it_says_and_is_told_when_it_has_what_was() {
    let server = Server::dev();
    let client = server.client();
    for number in 1..=10 {
        publish(&client, if number % 2 == 1 { "a.b" } else { "c.d" }, number);
    }
    let sixth = client.get("/events/e6").expect(200).json()["recordedAt"].clone();
    let since = client.get(&format!("/events?since={}&limit=1", sixth.as_str().unwrap())).json()["data"][0]["offset"]
        .as_u64()
        .unwrap();
    let mut socket = Socket::open(&client);
    for (number, (from, first)) in
        [(json!("earliest"), 1), (json!(4), 5), (json!(0), 1), (sixth, since)].iter().enumerate()
    {
        let id = format!("s{number}");
        assert_eq!(socket.ask(&subscribe(&id, &[], from))["cursor"], json!(first - 1));
        for offset in *first..=10 {
            let told = socket.hear();
            assert_eq!((&told["subscription"], &told["offset"]), (&json!(id), &json!(offset)), "{from}");
        }
        let complete = json!({"type": "status", "subscription": id, "replay": "complete", "through": 10});
        assert_eq!(socket.hear(), complete, "{from}");
        socket.ask(&json!({"type": "unsubscribe", "id": id}));
    }
    socket.ask(&subscribe("filtered", &["c.*"], &json!("earliest")));
    let found: Vec<_> = (0..5).map(|_| socket.hear()["offset"].as_u64().unwrap()).collect();
    assert_eq!(found, [2, 4, 6, 8, 10]);
    assert_eq!(socket.hear()["replay"], "complete");
    // An offset that was never given out.
    assert_eq!(socket.ask(&subscribe("ahead", &[], &json!(1_000)))["cursor"], 10);
    let told = socket.hear();
    assert_eq!(told, json!({"type": "status", "subscription": "ahead", "replay": "reset", "from": 11}));
    assert_eq!(socket.hear()["replay"], "complete");
}

#[test]
fn the_cursor_of_a_filtered_subscription_moves_past_what_it_does_not_get() {
    let server = Server::dev();
    let client = server.client();
    let mut socket = Socket::open(&client);
    socket.ask(&subscribe("a", &["a.*"], &Value::Null));
    socket.ask(&subscribe("all", &[], &Value::Null));
    let begun = instant();
    let last = publish(&client, "c.d", 1);
    assert_eq!(socket.event()["subscription"], "all");
    assert_eq!(socket.hear(), json!({"type": "status", "subscription": "a", "cursor": last}));
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
}

#[test]
fn events_are_published_over_it() {
    let server = Server::dev();
    let client = server.client();
    let mut socket = Socket::open(&client);
    let event = json!({"eventId": "e1", "eventType": "a.b", "aggregateId": "x", "data": 1});
    let told = socket.ask(&json!({"type": "publish", "ref": 7, "event": event}));
    let expected =
        json!({"type": "published", "ref": 7, "eventId": "e1", "offset": 1, "sequenceNumber": 1, "duplicate": false});
    assert_eq!(told, expected);
    assert_eq!(socket.ask(&json!({"type": "publish", "event": event}))["duplicate"], true);
    let told = socket.ask(&json!({"type": "publish", "events": [event, {"eventType": "a.b", "data": 2}]}));
    assert_eq!((&told["accepted"], &told["duplicates"]), (&json!(1), &json!(1)));
    let other = json!({"eventId": "e1", "eventType": "a.b", "data": "other"});
    let told = socket.ask(&json!({"type": "publish", "ref": "r", "event": other}));
    assert_eq!((&told["type"], &told["ref"], &told["problem"]["status"]), (&json!("error"), &json!("r"), &json!(409)));
    let told = socket.ask(&json!({"type": "publish", "event": {"eventType": "A", "data": 1}}));
    assert_eq!(told["problem"]["errors"][0]["pointer"], "/eventType");
    // Many at once are done in order, however many may wait.
    for number in 0..100 {
        socket.say(&json!({"type": "publish", "ref": number, "event": {"eventType": "a.b", "data": number}}));
    }
    for number in 0..100 {
        let told = socket.hear();
        assert_eq!((&told["ref"], &told["offset"]), (&json!(number), &json!(number + 3)));
    }
}

#[test]
fn a_key_sees_its_channels_and_does_what_its_scopes_say() {
    let server = Server::guarded();
    let operator = server.operator().tenant("acme");
    let key = server.make_key(&["--tenant", "acme", "--scopes", "streams:read", "--channels", "user:1"]);
    let mut socket = Socket::open(&server.client().key(&key.text));
    socket.ask(&json!({"type": "subscribe", "id": "a"}));
    operator.publish(r#"{"eventId":"e1","eventType":"a.b","channels":["user:2"],"data":1}"#);
    operator.publish(r#"{"eventId":"e2","eventType":"a.b","channels":["user:1"],"data":1}"#);
    assert_eq!(socket.hear()["event"]["eventId"], "e2");
    let told = socket.ask(&json!({"type": "publish", "ref": 1, "event": {"eventType": "a.b", "data": 1}}));
    assert_eq!((&told["problem"]["status"], &told["problem"]["scope"]), (&json!(403), &json!("events:write")));
    let told = socket.ask(&json!({"type": "subscribe", "id": "w", "consumer": "mail"}));
    assert_eq!((&told["subscription"], &told["problem"]["scope"]), (&json!("w"), &json!("consumers:work")));
    let told = socket.ask(&json!({"type": "subscribe", "id": "b", "channels": ["user:2"]}));
    assert_eq!((&told["problem"]["status"], &told["problem"]["channel"]), (&json!(403), &json!("user:2")));
    let told = socket.ask(&json!({"type": "subscribe", "id": "b", "types": ["tidings.*"]}));
    assert_eq!(told["problem"]["scope"], "ops:read");
    // It stays, and is closed with its key.
    operator.delete(&format!("/keys/{}", key.id)).expect(200);
    let begun = instant();
    let (code, _, told) = socket.closed();
    assert_eq!(code, CloseCode::Library(4001));
    assert_eq!(told.last().unwrap()["closing"], "revoked");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.client().send("GET", "/events/ws", &HANDSHAKE, b"").expect(401);
}

#[test]
fn a_ticket_opens_it_for_what_the_ticket_says() {
    let server = Server::guarded();
    let key = server.make_key(&["--tenant", "acme", "--scopes", "streams:read"]);
    let backend = server.client().key(&key.text);
    let operator = server.operator().tenant("acme");
    let wanted = json!({"types": ["order.*"], "channels": ["user:1"], "ttl": "30s"});
    let made = backend.post("/stream-tickets", wanted.to_string()).expect(201).json();
    let path = made["socketUrl"].as_str().unwrap();
    let mut socket = Socket::open_at(&server.client(), path);
    assert_eq!(socket.refused(&subscribe("a", &["user.*"], &Value::Null)), (422, "invalid-body".to_owned()));
    socket.ask(&json!({"type": "subscribe", "id": "a"}));
    operator.publish(r#"{"eventType":"order.created","channels":["user:2"],"data":1}"#);
    operator.publish(r#"{"eventType":"user.created","channels":["user:1"],"data":2}"#);
    operator.publish(r#"{"eventType":"order.created","channels":["user:1"],"data":3}"#);
    assert_eq!(socket.hear()["event"]["data"], 3);
    assert_eq!(socket.refused(&json!({"type": "publish", "event": {}})).0, 403);
    // It holds one connection, and the newest wins.
    let mut second = Socket::open_at(&server.client(), path);
    let (code, _, told) = socket.closed();
    assert_eq!((code, &told.last().unwrap()["closing"]), (CloseCode::Library(4003), &json!("replaced")));
    assert!(told.last().unwrap()["retryAfterMs"].as_u64() > Some(3_000_000));
    second.ask(&json!({"type": "subscribe", "id": "a", "from": 0}));
    assert_eq!(second.hear()["event"]["data"], 3);
    server.client().send("GET", "/events/ws?ticket=tdt_none", &HANDSHAKE, b"").expect(401);
}

#[test]
fn what_expires_is_told_before_and_closed() {
    let server = Server::guarded();
    let first = server.operator().post("/keys", r#"{"tenant":"acme","scopes":["streams:read"]}"#).expect(201).json();
    // Some seconds from now: within the minute in which it is told.
    let now = Timestamp::parse_rfc3339(first["createdAt"].as_str().unwrap()).unwrap();
    let expires = now.plus(Duration::from_secs(4)).to_string();
    let key = json!({"tenant": "acme", "scopes": ["streams:read"], "expiresAt": expires});
    let key = server.operator().post("/keys", key.to_string()).expect(201).json();
    let mut socket = Socket::open(&server.client().key(key["key"].as_str().unwrap()));
    assert_eq!(socket.hear(), json!({"type": "status", "expiring": expires}));
    let (code, _, told) = socket.closed();
    assert_eq!((code, &told[0]["closing"]), (CloseCode::Library(4002), &json!("expired")));
}

#[test]
fn a_handshake_that_is_none_is_refused_with_the_way_out() {
    let server = Server::with(true, "[cors]\norigins = [\"https://app.example.com\"]\n");
    let client = server.client();
    let refused = client.get("/events/ws").expect(426);
    assert_eq!((refused.header("sec-websocket-version"), refused.header("upgrade")), (Some("13"), Some("websocket")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("Upgrade: websocket"), "{refused}");
    let with = |changed: &[(&'static str, &'static str)]| {
        let kept = HANDSHAKE.into_iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        let headers: Vec<_> = kept.chain(changed.iter().copied()).filter(|(_, value)| !value.is_empty()).collect();
        client.send("GET", "/events/ws", &headers, b"")
    };
    assert_eq!(with(&[("sec-websocket-version", "8")]).expect(426).header("sec-websocket-version"), Some("13"));
    with(&[("sec-websocket-key", "")]).expect(400);
    with(&[("sec-websocket-key", "c2hvcnQ=")]).expect(400);
    with(&[("connection", "close")]).expect(426);
    with(&[("origin", "https://evil.example")]).expect(403);
    with(&[("origin", "null")]).expect(403);
    let own = format!("http://{}", server.address);
    for origin in ["https://app.example.com", own.as_str()] {
        let mut socket = Socket::open(&client.with("origin", origin));
        assert_eq!(socket.ask(&json!({"type": "ping"})), json!({"type": "pong"}));
    }
    let mut connection = client.connect().unwrap();
    let answer = Socket::shake(&client, &mut connection, "/events/ws").unwrap().expect(101);
    // The example of RFC 6455, section 1.3.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("connection"), Some("upgrade"));
}

#[test]
fn a_connection_that_served_requests_before_becomes_one_too() {
    let mut server = Server::dev();
    let client = server.client();
    let mut connection = client.connect().unwrap();
    connection.write(&client.request("GET", "/health/ready", &[], None, b"")).unwrap();
    connection.answer().unwrap().expect(200);
    assert_eq!(Socket::shake(&client, &mut connection, "/events/ws").unwrap().status, 101);
    let mut socket = Socket::over(connection);
    socket.ask(&subscribe("a", &[], &Value::Null));
    publish(&client, "a.b", 1);
    assert_eq!(socket.hear()["event"]["eventId"], "e1");
    server.signal(Signal::TERM);
    assert_eq!(socket.closed().0, CloseCode::Restart);
    assert!(server.ended(Duration::from_secs(10)).0.success());
}

#[test]
fn one_too_many_is_told_when_to_come_back_by_a_code_that_scripts_see() {
    let server = Server::with(true, "[limits]\nstreams = 1\n");
    let client = server.client();
    let held = Socket::open(&client);
    let (code, reason, told) = Socket::open(&client).closed();
    assert_eq!(code, CloseCode::Library(4004), "{reason}");
    assert_eq!(told[0]["closing"], "overloaded");
    assert!(told[0]["retryAfterMs"].as_u64() >= Some(5_000));
    drop(held);
}

#[test]
fn a_server_that_stops_tells_when_to_come_back() {
    let mut server = Server::dev();
    let client = server.client();
    let mut sockets: Vec<_> = (0..10).map(|_| Socket::open(&client)).collect();
    for socket in &mut sockets {
        socket.ask(&subscribe("a", &[], &Value::Null));
    }
    server.signal(Signal::TERM);
    let mut times = Vec::new();
    for socket in &mut sockets {
        let (code, reason, told) = socket.closed();
        assert!(code == CloseCode::Restart && reason.contains("come back"), "{code:?} {reason}");
        assert_eq!(told[0]["closing"], "drain");
        times.push(told[0]["retryAfterMs"].as_u64().unwrap());
    }
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 5, "spread: {times:?}");
    assert!(server.ended(Duration::from_secs(10)).0.success());
}

#[test]
fn a_client_that_resumes_by_offset_misses_and_repeats_nothing_over_kills() {
    let mut server = Server::dev();
    let (mut after, mut published) = (0, 0);
    let mut heard = Vec::new();
    for _ in 0..5 {
        for _ in 0..20 {
            published += 1;
            publish(&server.client(), "a.b", published);
        }
        let mut socket = Socket::open(&server.client());
        socket.ask(&subscribe("a", &[], &json!(after)));
        for _ in 0..10 {
            let event = socket.event();
            after = event["offset"].as_u64().unwrap();
            heard.push(event["event"]["data"].as_u64().unwrap());
        }
        server.kill();
        server.start();
    }
    assert_eq!(heard, (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_sleeps_is_not_buffered_for_and_gets_all_of_every_subscription() {
    let server = Server::dev();
    let client = server.client();
    let mut sleeping = Socket::open(&client);
    for id in ["a", "b", "c"] {
        sleeping.ask(&subscribe(id, &[], &Value::Null));
    }
    let event = json!({ "eventType": "a.b", "data": "x".repeat(50_000) }).to_string();
    let batch = format!("[{}]", vec![event; 50].join(","));
    for _ in 0..10 {
        client.post("/events", &batch).expect(201);
    }
    let mut next = [1, 1, 1];
    while next != [501, 501, 501] {
        let told = sleeping.event();
        let which = ["a", "b", "c"].iter().position(|id| told["subscription"] == *id).unwrap();
        assert_eq!(told["offset"], next[which]);
        next[which] += 1;
    }
    // In the middle of it operations are answered.
    assert_eq!(sleeping.ask(&json!({"type": "ping"}))["type"], "pong");
}
