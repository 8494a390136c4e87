//! Tickets, pages of other origins, and limits of streams: what browsers meet.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::problem::{problem, slug};
use crate::support::server::Server;
use crate::support::sse::Stream;
use crate::support::tls::Tls;
use crate::support::until;

fn ticket(client: &Client, wanted: &Value) -> Value {
    client.post("/stream-tickets", wanted.to_string()).expect(201).json()
}

fn url(ticket: &Value) -> String {
    ticket["url"].as_str().unwrap().to_owned()
}

/// The answer to a stream that is refused.
#[track_caller]
fn refused(client: &Client, path: &str, status: u16, slug: &str) -> Answer {
    let answer = client.get(path).expect(status);
    assert_eq!(answer.json()["type"], format!("/errors/{slug}"), "{answer}");
    // And the connection is closed, so that nobody waits.
    assert_eq!(answer.header("connection"), Some("close"));
    answer
}

/// A guarded server, a key for streams and one for everything.
fn guarded(more: &[&str]) -> (Server, Client, Client, String) {
    let server = Server::guarded();
    let key = server.make_key(&[&["--tenant", "acme", "--scopes", "streams:read"], more].concat());
    let backend = server.client().key(&key.text);
    let operator = server.operator().tenant("acme");
    (server, backend, operator, key.id)
}

#[test]
fn a_ticket_opens_the_stream_that_it_says_without_a_key() {
    let (server, backend, operator, _) = guarded(&[]);
    let browser = server.client();
    let made = ticket(&backend, &json!({"types": ["order.*"], "channels": ["user:1"], "ttl": "30s"}));
    let mut stream = Stream::open(&browser, &url(&made));
    operator.publish(r#"{"eventType":"order.created","channels":["user:2"],"data":1}"#);
    operator.publish(r#"{"eventType":"user.created","channels":["user:1"],"data":2}"#);
    operator.publish(r#"{"eventType":"order.created","channels":["user:1"],"data":3}"#);
    assert_eq!(stream.event().json()["data"], 3);
    // It says which events, and opens nothing else.
    let path = format!("{}&types=user.*", url(&made));
    assert_eq!(slug(&problem(&browser.get(&path).expect(400))), "invalid-parameter");
    let text = made["ticket"].as_str().unwrap();
    browser.get(&format!("/events?ticket={text}")).expect(401);
    browser.key(text).get("/events/stream").expect(401);
}

#[test]
fn a_ticket_opens_its_stream_again_until_it_expires_also_after_a_crash() {
    let (mut server, backend, operator, _) = guarded(&[]);
    let browser = server.client();
    let used = ticket(&backend, &json!({"types": ["a.b"], "ttl": "1s"}));
    let unused = ticket(&backend, &json!({"ttl": "1s"}));
    let mut stream = Stream::open(&browser, &url(&used));
    stream.next();
    let last = stream.last_id.clone();
    until("the end of its first use", Duration::from_secs(5), || {
        operator.publish(r#"{"eventType":"clock.tick","data":0}"#);
        let newest = operator.get("/events?order=desc&limit=1").json()["data"][0]["recordedAt"].clone();
        (newest.as_str() > unused["firstUseBy"].as_str()).then_some(())
    });
    refused(&browser, &url(&unused), 401, "invalid-ticket");
    server.kill();
    server.start();
    operator.publish(r#"{"eventType":"a.b","data":1}"#);
    assert_eq!(Stream::resume(&browser, &url(&used), &last).event().json()["data"], 1);
    refused(&browser, &url(&unused), 401, "invalid-ticket");
    refused(&browser, "/events/stream?ticket=tdt_none", 401, "invalid-ticket");
}

#[test]
fn a_ticket_holds_one_stream_and_the_newest_wins() {
    let (server, backend, _operator, _) = guarded(&[]);
    let made = ticket(&backend, &json!({}));
    let mut first = Stream::open(&server.client(), &url(&made));
    let mut second = Stream::open(&server.client(), &url(&made));
    let (took, blocks) = first.rest();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(blocks.last().unwrap().json(), json!({"closing": "replaced"}));
    // Or the two would take it from each other for ever.
    assert!(blocks.iter().any(|block| block.retry > Some(3_000_000)), "{blocks:?}");
    assert!(second.next().raw.starts_with("id:"));
}

#[test]
fn a_ticket_ends_with_its_key() {
    let (server, backend, operator, id) = guarded(&[]);
    let made = ticket(&backend, &json!({}));
    let mut stream = Stream::open(&server.client(), &url(&made));
    operator.delete(&format!("/keys/{id}")).expect(200);
    let (took, blocks) = stream.rest();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(blocks.last().unwrap().json(), json!({"closing": "revoked"}));
    refused(&server.client(), &url(&made), 401, "invalid-ticket");
}

#[test]
fn channels_of_others_are_refused_by_name() {
    let (server, backend, operator, _) = guarded(&["--channels", "user:1"]);
    for wanted in [json!({"channels": ["user:2"]}), json!({"channels": ["user:1", "user:2"]})] {
        let answer = backend.post("/stream-tickets", wanted.to_string()).expect(403);
        assert_eq!((slug(&answer.json()), &answer.json()["channel"]), ("forbidden", &json!("user:2")));
    }
    let answer = refused(&backend, "/events/stream?channels=user:2", 403, "forbidden");
    assert_eq!(answer.json()["channel"], "user:2");
    // Without a word a ticket has the walls of its key.
    let mut stream = Stream::open(&server.client(), &url(&ticket(&backend, &json!({}))));
    operator.publish(r#"{"eventType":"a.b","channels":["user:2"],"data":1}"#);
    operator.publish(r#"{"eventType":"a.b","channels":["user:1"],"data":2}"#);
    assert_eq!(stream.event().json()["data"], 2);
    for (wanted, named) in [(r#"{"ttl":"1h"}"#, "/ttl"), (r#"{"ttl":"soon"}"#, "/ttl"), (r#"{"for":1}"#, "for")] {
        let answer = backend.post("/stream-tickets", wanted).expect(422);
        assert!(answer.text().contains(named), "{answer}");
    }
    let answer = backend.post("/stream-tickets", r#"{"types":["tidings.*"]}"#).expect(403);
    assert_eq!(answer.json()["scope"], "ops:read");
}

/// A ticket holds what it opens: one that could not be read again is not made.
#[test]
fn a_ticket_that_would_be_too_long_is_refused_when_it_is_asked_for() {
    let (server, backend, _operator, _) = guarded(&[]);
    let named = |count: usize| (0..count).map(|n| format!("{}:{n:03}", "x".repeat(120))).collect::<Vec<_>>();
    let answer = backend.post("/stream-tickets", json!({ "channels": named(100) }).to_string()).expect(422);
    assert!(answer.text().contains("/channels"), "{answer}");
    let longest = json!({ "channels": named(40) });
    assert!(Stream::open(&server.client(), &url(&ticket(&backend, &longest))).next().raw.starts_with("id:"));
    let mut cookie = longest;
    cookie["cookie"] = json!(true);
    backend.post("/stream-tickets", cookie.to_string()).expect(422);
}

#[test]
fn a_cookie_brings_a_ticket_too() {
    let (server, backend, _operator, _) = guarded(&[]);
    let answer = backend.post("/stream-tickets", r#"{"cookie":true}"#).expect(201);
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["Path=/events", "HttpOnly", "SameSite=Strict", "Secure"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap();
    let browser = server.client().with("cookie", &format!("theme=dark; {pair}"));
    assert!(Stream::open(&browser, "/events/stream").next().raw.starts_with("id:"));
    // For streams alone.
    browser.get("/events").expect(401);
}

#[test]
fn pages_of_named_origins_read_answers_and_no_others() {
    let server = Server::with(true, "[cors]\norigins = [\"https://app.example.com\"]\n");
    let client = server.client();
    let from = |origin: &str| client.with("origin", origin);
    let named = from("https://app.example.com");
    let stream = Stream::open(&named, "/events/stream");
    let missing = [named.get("/none"), named.send("PUT", "/events", &[], b"").expect(405)];
    let refused = [named.get("/events/none"), named.get("/events/stream?x=1")];
    for head in [stream.head.clone(), named.get("/events")].into_iter().chain(missing).chain(refused) {
        assert!(head.header("access-control-expose-headers").unwrap().contains("retry-after"), "{head}");
        assert_eq!(head.header("access-control-allow-origin"), Some("https://app.example.com"), "{head}");
        assert_eq!(head.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(head.header("vary"), Some("origin"));
    }
    for other in ["https://app.example.com.evil.org", "http://app.example.com", "https://app.example.com:8443", "null"]
    {
        // Where no key is needed, such a page has nothing to say either.
        let answer = from(other).get("/events").expect(403);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{other}");
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    let asks = [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization")];
    let answer = named.send("OPTIONS", "/stream-tickets", &asks, b"").expect(204);
    assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    from("https://evil.org").send("OPTIONS", "/stream-tickets", &asks, b"").expect(405);
}

/// It needs no key, so a page that somebody opens in the same browser must not reach it, nor a name that leads to it.
#[test]
fn a_development_server_takes_nothing_from_pages_of_others() {
    let server = Server::dev();
    let client = server.client();
    let new = r#"{"scopes":["admin"]}"#;
    let answer = client.with("origin", "https://evil.org").send("POST", "/keys", &[], new.as_bytes()).expect(403);
    assert!(answer.text().contains("cors.origins"), "{answer}");
    for (host, status) in [("evil.example:80", 403), ("localhost", 200), ("[::1]:9", 200), ("127.0.0.1", 200)] {
        let mut connection = client.connect().unwrap();
        connection.write(format!("GET /keys HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.answer().unwrap().status, status, "{host}");
    }
    let own = "GET /keys HTTP/1.1\r\nhost: localhost:5\r\norigin: http://localhost:5\r\n\r\n";
    let mut connection = client.connect().unwrap();
    connection.write(own.as_bytes()).unwrap();
    assert_eq!(connection.answer().unwrap().status, 200, "a page of its own");
}

#[test]
fn streams_of_a_tenant_and_of_an_address_are_limited_each() {
    for limit in ["tenant_streams = 1", "address_streams = 1"] {
        let server = Server::with(true, &format!("[limits]\n{limit}\n"));
        let client = server.client();
        let held = Stream::open(&client, "/events/stream");
        let (_, blocks) = Stream::open(&client, "/events/stream").rest();
        assert_eq!(blocks[1].json(), json!({"closing": "overloaded"}), "{limit}");
        let other = Stream::open(&client.tenant("other"), "/events/stream").next();
        assert_eq!(other.raw.starts_with("id:"), limit.starts_with("tenant"), "{limit}");
        drop(held);
    }
}

#[test]
fn streams_come_over_tls_by_http_2_and_by_http_1() {
    let tls = Tls::new();
    let server = Server::with(true, &tls.settings());
    server.client().publish(r#"{"eventType":"a.b","data":"over TLS"}"#);
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = Command::new("curl")
            .args(["-sN", "--max-time", "3", "--write-out", "version %{http_version}", flag, "--cacert"])
            .arg(&tls.cert)
            .arg(format!("https://localhost:{}/events/stream?from=earliest", tls.port))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\"over TLS\"") && text.contains("\"replay\":\"complete\""), "{flag}: {text}");
        assert!(text.ends_with(&format!("version {version}")), "{flag}: {text}");
    }
}
