//! What is wrong is told: an operation by an error, after which the connection stays; a frame by the code that closes it.

use serde_json::json;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::server::Server;
use crate::support::ws::Socket;

#[test]
fn a_message_that_is_wrong_is_refused_by_name_and_the_connection_stays() {
    let server = Server::dev();
    let mut socket = Socket::open(&server.client());
    let cases = [
        ("nonsense", 400, "malformed-json", ""),
        ("[1]", 400, "malformed-json", "object"),
        (r#"{"type":"ping","type":"ping"}"#, 400, "duplicate-key", "type"),
        (r#"{"type":"fly"}"#, 422, "invalid-body", "/type: subscribe,"),
        (r#"{"id":"a"}"#, 422, "invalid-body", "/type"),
        (r#"{"type":"ping","more":1}"#, 422, "invalid-body", "more"),
        (r#"{"type":"ping","ref":[]}"#, 422, "invalid-body", "/ref"),
        (r#"{"type":"subscribe"}"#, 422, "invalid-body", "id"),
        (r#"{"type":"subscribe","id":""}"#, 422, "invalid-body", "/id"),
        (r#"{"type":"subscribe","id":"a","types":["Order"]}"#, 422, "invalid-body", "/types/0"),
        (r#"{"type":"subscribe","id":"a","from":"soon"}"#, 422, "invalid-body", "/from"),
        (r#"{"type":"subscribe","id":"a","max":1}"#, 422, "invalid-body", "/max"),
        (r#"{"type":"subscribe","id":"a","consumer":"none"}"#, 404, "not-found", "consumer"),
        (r#"{"type":"subscribe","id":"a","consumer":"none","from":1}"#, 422, "invalid-body", "/consumer"),
        (r#"{"type":"unsubscribe","id":"a"}"#, 422, "invalid-body", "/id"),
        (r#"{"type":"ack","subscription":"a","tokens":["x"]}"#, 422, "invalid-body", "/subscription"),
        (r#"{"type":"publish"}"#, 422, "invalid-body", "/event"),
        (r#"{"type":"publish","event":[]}"#, 422, "invalid-body", "/event"),
        (r#"{"type":"publish","event":{}}"#, 422, "invalid-event", ""),
    ];
    for (text, status, slug, named) in cases {
        socket.0.send(Message::text(text)).unwrap();
        let told = socket.hear();
        let problem = &told["problem"];
        assert_eq!((&told["type"], &problem["status"]), (&json!("error"), &json!(status)), "{text}: {told}");
        assert_eq!(problem["type"], format!("/errors/{slug}"), "{text}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{text}: {told}");
    }
    // What a refusal is about is named, also when the message is wrong.
    let told = socket.ask(&json!({"type": "subscribe", "ref": "r", "id": "a", "types": 7}));
    assert_eq!((&told["ref"], &told["subscription"]), (&json!("r"), &json!("a")));
    assert_eq!(socket.ask(&json!({"type": "ping"})), json!({"type": "pong"}));
}

#[test]
fn a_name_is_given_once_and_subscriptions_are_limited() {
    let server = Server::dev();
    let mut socket = Socket::open(&server.client());
    for number in 0..64 {
        assert_eq!(socket.ask(&json!({"type": "subscribe", "id": format!("s{number}")}))["state"], "subscribed");
    }
    assert_eq!(socket.refused(&json!({"type": "subscribe", "id": "s64"})), (409, "conflict".to_owned()));
    socket.ask(&json!({"type": "unsubscribe", "id": "s0"}));
    assert_eq!(socket.ask(&json!({"type": "subscribe", "id": "s64"}))["state"], "subscribed");
    socket.ask(&json!({"type": "unsubscribe", "id": "s1"}));
    assert_eq!(socket.refused(&json!({"type": "subscribe", "id": "s64"})), (409, "conflict".to_owned()));
    server.client().publish(r#"{"eventType":"a.b","data":1}"#);
    let mut heard: Vec<_> = (0..63).map(|_| socket.hear()["subscription"].as_str().unwrap().to_owned()).collect();
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), 63);
}

/// A frame of a client: masked by zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn a_frame_that_is_wrong_closes_the_connection_and_says_how() {
    let server = Server::dev();
    let large = {
        // The head of a message of one byte more than may be: its bytes never come.
        let mut head = vec![0x81, 0xff];
        head.extend_from_slice(&65_537_u64.to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        head
    };
    let parts = {
        let mut parts = Vec::new();
        for first in [0x01, 0x00, 0x00] {
            parts.extend_from_slice(&[first, 0xfe, 0x75, 0x30, 0, 0, 0, 0]);
            parts.extend_from_slice(&vec![b'x'; 30_000]);
        }
        parts
    };
    let cases: [(&str, Vec<u8>, CloseCode); 9] = [
        ("not masked", vec![0x81, 1, b'x'], CloseCode::Protocol),
        ("a reserved bit", frame(0xc1, b"x"), CloseCode::Protocol),
        ("an unknown kind", frame(0x83, b"x"), CloseCode::Protocol),
        ("a continuation of nothing", frame(0x80, b"x"), CloseCode::Protocol),
        ("a ping in parts", frame(0x09, b"x"), CloseCode::Protocol),
        ("binary", frame(0x82, b"{}"), CloseCode::Unsupported),
        ("not UTF-8", frame(0x81, &[0xff]), CloseCode::Invalid),
        ("over 64 KiB", large, CloseCode::Size),
        ("over 64 KiB in parts", parts, CloseCode::Size),
    ];
    for (what, bytes, expected) in cases {
        let mut socket = Socket::open(&server.client());
        socket.0.get_mut().write(&bytes).unwrap();
        let (code, reason, _) = socket.closed();
        assert!(code == expected && !reason.is_empty(), "{what}: {code:?} {reason}");
    }
}

#[test]
fn the_largest_message_is_taken_in_one_frame_and_in_many() {
    let server = Server::dev();
    let mut socket = Socket::open(&server.client());
    let empty = json!({"type": "publish", "event": {"eventType": "a.b", "data": ""}}).to_string();
    let event = json!({"type": "publish", "event": {"eventType": "a.b", "data": "x".repeat(65_536 - empty.len())}});
    assert_eq!(event.to_string().len(), 65_536);
    assert_eq!(socket.ask(&event)["offset"], 1);
    let text = event.to_string();
    let pieces: Vec<_> = text.as_bytes().chunks(100).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let kind = u8::from(index == 0);
        let last = if index == pieces.len() - 1 { 0x80 } else { 0x00 };
        socket.0.get_mut().write(&frame(kind | last, piece)).unwrap();
        if index == 300 {
            // Control frames may stand between.
            socket.0.get_mut().write(&frame(0x89, b"there?")).unwrap();
        }
    }
    loop {
        match socket.0.read().unwrap() {
            Message::Pong(payload) => assert_eq!(&payload[..], b"there?"),
            Message::Text(text) => return assert!(text.contains("\"offset\":2"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_closes_is_answered_with_its_code() {
    let server = Server::dev();
    let mut socket = Socket::open(&server.client());
    socket.0.get_mut().write(&frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e'])).unwrap();
    assert_eq!(socket.closed().0, CloseCode::Normal);
}
