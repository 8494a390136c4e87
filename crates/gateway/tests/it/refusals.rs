//! What is not right is refused with a problem that a person can act on, and leaves nothing.

mod requests;
mod webhooks;

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::problem::{self, problem, slug};
use crate::support::server::Server;

/// A request that has to be refused: status and slug of the problem, and what its text names.
struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    status: u16,
    slug: &'static str,
    names: &'static str,
}

impl Case {
    fn new(
        method: &'static str,
        path: impl Into<String>,
        (status, slug): (u16, &'static str),
        names: &'static str,
    ) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new(), status, slug, names }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        if media_type.is_empty() { self } else { self.header("content-type", media_type) }
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

const MALFORMED: (u16, &str) = (400, "malformed-json");
const COMPLEX: (u16, &str) = (400, "json-too-complex");
const DUPLICATE: (u16, &str) = (400, "duplicate-key");
const UTF8: (u16, &str) = (400, "invalid-utf8");
const EVENT: (u16, &str) = (422, "invalid-event");
const BODY: (u16, &str) = (422, "invalid-body");
const PARAMETER: (u16, &str) = (400, "invalid-parameter");
const HEADER: (u16, &str) = (400, "invalid-header");
const LARGE: (u16, &str) = (413, "payload-too-large");
const MEDIA: (u16, &str) = (415, "unsupported-media-type");
const MISSING: (u16, &str) = (404, "not-found");
const CONFLICT: (u16, &str) = (409, "conflict");
const METHOD: (u16, &str) = (405, "method-not-allowed");

fn head(client: &Client) -> Value {
    client.get("/audit/head").expect(200).json()["offset"].clone()
}

fn send(client: &Client, case: &Case) -> Answer {
    let headers: Vec<_> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    client.send(case.method, &case.path, &headers, &case.body)
}

fn check(cases: &[Case]) {
    let server = Server::dev();
    let client = server.client();
    check_on(&client, cases);
}

fn check_on(client: &Client, cases: &[Case]) {
    client.publish(r#"{"eventType":"order.created","eventId":"there","data":1}"#);
    let mut before = head(client);
    let mut faults = Vec::new();
    for case in cases {
        let answer = send(client, case);
        let after = head(client);
        let left = if after == before { Ok(()) } else { Err("left an event".to_owned()) };
        if let Err(fault) = judge(case, &answer).and(left) {
            let shown = String::from_utf8_lossy(&case.body[..case.body.len().min(200)]);
            let told: String = answer.to_string().chars().take(600).collect();
            faults.push(format!("{} {} {:?} {shown}: {fault}: {told}", case.method, case.path, case.headers));
        }
        before = after;
    }
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

fn judge(case: &Case, answer: &Answer) -> Result<(), String> {
    let problem = problem::read(answer)?;
    if (answer.status, slug(&problem)) != (case.status, case.slug) {
        return Err(format!("not {} {}", case.status, case.slug));
    }
    let told = format!("{} {}", problem["detail"], problem["errors"]);
    if told.contains(case.names) { Ok(()) } else { Err(format!("{:?} is not named", case.names)) }
}

fn event(body: impl Into<Vec<u8>>, kind: (u16, &'static str), names: &'static str) -> Case {
    Case::new("POST", "/events", kind, names).body(JSON, body)
}

/// An event whose `member` has this JSON text; everything else is right.
fn member(name: &str, json: &str, kind: (u16, &'static str), names: &'static str) -> Case {
    let mut text = String::from("{");
    for (known, good) in [("eventType", r#""order.created""#), ("data", "1")] {
        if known != name {
            text.extend([&json!(known).to_string(), ":", good, ","]);
        }
    }
    event(format!("{text}{}:{json}}}", json!(name)), kind, names)
}

fn text_of(length: usize) -> String {
    json!("x".repeat(length)).to_string()
}

#[test]
fn a_body_that_is_not_json_is_refused() {
    let bodies: [(&[u8], (u16, &str)); 15] = [
        (b"", MALFORMED),
        (b" \n", MALFORMED),
        (b"{", MALFORMED),
        (b"nul", MALFORMED),
        (b"{'eventType':'a.b','data':1}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":1,}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":01}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":NaN}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":1} x", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":\"\n\"}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":\"\0\"}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":1}\0", MALFORMED),
        (b"\xef\xbb\xbf{\"eventType\":\"a.b\",\"data\":1}", MALFORMED),
        (b"{\"eventType\":\"a.b\",\"data\":\"\\ud800\"}", MALFORMED),
        (b"[{\"eventType\":\"a.b\",\"data\":1}", MALFORMED),
    ];
    check(&bodies.map(|(body, kind)| event(body, kind, "")));
}

#[test]
fn json_that_readers_could_understand_differently_is_refused() {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let names: Vec<_> = (0..10_001).map(|name| format!("\"{name}\":0")).collect();
    check(&[
        event(&b"{\"eventType\":\"a.b\",\"data\":\"\xff\"}"[..], UTF8, "/data"),
        event(&b"{\"eventType\":\"a.b\",\"data\":\"\xc0\x80\"}"[..], UTF8, "/data"),
        event(&b"{\"eventType\":\"a.b\",\"data\":\"\xed\xa0\x80\"}"[..], UTF8, "/data"),
        event(r#"{"eventType":"a.b","data":1,"data":2}"#, DUPLICATE, "data"),
        event(r#"{"eventType":"a.b","data":{"a":[{"b":1,"b":2}]}}"#, DUPLICATE, "/data/a/0"),
        event(r#"{"eventType":"a.b","data":{"a":1,"\u0061":2}}"#, DUPLICATE, "/data"),
        event(r#"{"eventType":"a.b","event\u0054ype":"a.c","data":1}"#, DUPLICATE, "eventType"),
        member("data", &deep(64), COMPLEX, "/data"),
        member("data", &deep(100_000), COMPLEX, "/data"),
        event(deep(2_000_000), COMPLEX, ""),
        event("[".repeat(1_000_000), COMPLEX, ""),
        member("data", &format!("{{{}}}", names.join(",")), COMPLEX, "/data"),
    ]);
}

#[test]
fn an_event_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let nine: Vec<_> = (0..9).map(|channel| format!("c:{channel}")).collect();
    let pairs: serde_json::Map<_, _> = (0..33).map(|name| (format!("m{name}"), "x".into())).collect();
    check(&[
        event("42", EVENT, "object"),
        event("\"order.created\"", EVENT, "object"),
        event("null", EVENT, "object"),
        event("{}", EVENT, "/eventType"),
        event(r#"{"eventType":"a.b"}"#, EVENT, "/data"),
        event(r#"{"data":1}"#, EVENT, "/eventType"),
        event(r#"{"eventType":null,"data":1}"#, EVENT, "/eventType"),
        member("evenType", "1", EVENT, "/evenType"),
        member("a/b~c", "1", EVENT, "/a~1b~0c"),
        member("sequenceNumber", "1", EVENT, "/sequenceNumber"),
        member("offset", "1", EVENT, "/offset"),
        member("recordedAt", "\"2026-01-01T00:00:00Z\"", EVENT, "/recordedAt"),
        member("eventId", "5", EVENT, "/eventId"),
        member("eventId", "\"\"", EVENT, "/eventId"),
        member("eventId", "\"a.b\"", EVENT, "/eventId"),
        member("eventId", "\"a b\"", EVENT, "/eventId"),
        member("eventId", "\"\\u0000\"", EVENT, "/eventId"),
        member("eventId", "\"é\"", EVENT, "/eventId"),
        member("eventId", &text_of(65), EVENT, "/eventId"),
        member("eventId", "\"stream\"", EVENT, "/eventId"),
        member("eventId", "\"ws\"", EVENT, "/eventId"),
        member("eventType", "[]", EVENT, "/eventType"),
        member("eventType", "\"\"", EVENT, "/eventType"),
        member("eventType", "\"order\"", EVENT, "/eventType"),
        member("eventType", "\"Order.Created\"", EVENT, "/eventType"),
        member("eventType", "\"order..created\"", EVENT, "/eventType"),
        member("eventType", "\"order.*\"", EVENT, "/eventType"),
        member("eventType", "\"order.created\\u0000\"", EVENT, "/eventType"),
        member("eventType", "\"order.created\\n\"", EVENT, "/eventType"),
        member("eventType", "\"tidings.key.created\"", EVENT, "/eventType"),
        member("eventType", "\"\\u0074idings.key.created\"", EVENT, "/eventType"),
        member("eventType", &json!(format!("a.{}", "b".repeat(127))).to_string(), EVENT, "/eventType"),
        member("version", "\"1\"", EVENT, "/version"),
        member("version", "0", EVENT, "/version"),
        member("version", "-1", EVENT, "/version"),
        member("version", "1.0", EVENT, "/version"),
        member("version", "1e0", EVENT, "/version"),
        member("version", "4294967296", EVENT, "/version"),
        member("timestamp", "5", EVENT, "/timestamp"),
        member("timestamp", "\"yesterday\"", EVENT, "/timestamp"),
        member("timestamp", "\"2026-01-01T00:00:00\"", EVENT, "/timestamp"),
        member("timestamp", "\"2026-02-30T00:00:00Z\"", EVENT, "/timestamp"),
        member("source", "{}", EVENT, "/source"),
        member("source", "\"a b\"", EVENT, "/source"),
        member("source", "\"a\\u0000\"", EVENT, "/source"),
        member("source", &text_of(100_000), EVENT, "/source"),
        member("aggregateId", "5", EVENT, "/aggregateId"),
        member("aggregateId", "\"\"", EVENT, "/aggregateId"),
        member("aggregateId", "\"a\\u0000b\"", EVENT, "/aggregateId"),
        member("aggregateId", "\"a\\nb\"", EVENT, "/aggregateId"),
        member("aggregateId", &text_of(257), EVENT, "/aggregateId"),
        member("channels", "\"user:1\"", EVENT, "/channels"),
        member("channels", "{}", EVENT, "/channels"),
        member("channels", "[\"a\",5]", EVENT, "/channels/1"),
        member("channels", "[\"\"]", EVENT, "/channels/0"),
        member("channels", "[\"a\\u0000\"]", EVENT, "/channels/0"),
        member("channels", &format!("[{}]", text_of(129)), EVENT, "/channels/0"),
        member("channels", &json!(nine).to_string(), EVENT, "/channels"),
        member("metadata", "[]", EVENT, "/metadata"),
        member("metadata", "{\"a\":1}", EVENT, "/metadata/a"),
        member("metadata", "{\"\":\"x\"}", EVENT, "/metadata/"),
        member("metadata", "{\"a\":\"\\u0000\"}", EVENT, "/metadata/a"),
        member("metadata", "{\"a\":\"\\r\\nx: y\"}", EVENT, "/metadata/a"),
        member("metadata", &Value::Object(pairs).to_string(), EVENT, "/metadata"),
        member("metadata", &format!("{{\"a\":{}}}", text_of(100_000)), EVENT, "/metadata/a"),
        member("data", &text_of(256 * 1024 - 1), EVENT, "/data"),
        member("expectedSequence", "0", EVENT, "/expectedSequence"),
        member("expectedSequence", "-1", EVENT, "/expectedSequence"),
        member("expectedSequence", "\"0\"", EVENT, "/expectedSequence"),
        member("expectedSequence", "99999999999999999999", EVENT, "/expectedSequence"),
    ]);
}

#[test]
fn a_batch_with_one_bad_item_leaves_no_event() {
    let good = r#"{"eventType":"order.created","data":1}"#;
    let bad = r#"{"eventType":"Order","data":1}"#;
    let cloud = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","data":1}"#;
    let many = vec![good; 10_001];
    let sent =
        |media_type: &str, body: String, kind, names| Case::new("POST", "/events", kind, names).body(media_type, body);
    check(&[
        sent(JSON, format!("[{good},{bad},{good}]"), EVENT, "event 1 /eventType"),
        sent(JSON, format!("[{good},{good},{bad}]"), EVENT, "event 2 /eventType"),
        sent(JSON, format!("[{bad},{bad}]"), EVENT, "\"index\":1"),
        sent(JSON, format!("[{good},1]"), EVENT, "event 1"),
        sent(JSON, format!("[{good},[{good}]]"), EVENT, "event 1"),
        sent(JSON, format!("[{good},{{\"eventType\":\"a.b\",\"data\":{{\"a\":1,\"a\":2}}}}]"), DUPLICATE, "/1/data"),
        sent(JSON, "[]".into(), BODY, "event"),
        sent(JSON, format!("[{}]", many.join(",")), LARGE, "10000"),
        sent(NDJSON, format!("{good}\n{bad}\n"), EVENT, "event 1 /eventType"),
        sent(NDJSON, format!("{good}\n{{\n"), EVENT, "event 1"),
        sent(NDJSON, format!("{good} {good}"), EVENT, "event 0"),
        sent(NDJSON, "\n \n".into(), BODY, "event"),
        sent(NDJSON, many.join("\n"), LARGE, "10000"),
        sent(BATCH, format!("[{cloud},{{\"specversion\":\"1.0\"}}]"), EVENT, "\"index\":1"),
        sent(BATCH, cloud.into(), MALFORMED, "array"),
    ]);
}

#[test]
fn cloud_events_that_cannot_be_kept_are_refused() {
    let structured = |body: &str, kind, names| Case::new("POST", "/events", kind, names).body(STRUCTURED, body);
    let good = r#""specversion":"1.0","id":"1","source":"/s","type":"order.created""#;
    let binary = |attributes: &[(&str, &str)], body: &str, kind, names| {
        let case = Case::new("POST", "/events", kind, names).body(JSON, body);
        attributes.iter().fold(case, |case, (name, value)| case.header(name, value))
    };
    let all = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "order.created")];
    let with = |more: (&'static str, &'static str)| [all[0], all[1], all[2], all[3], more];
    check(&[
        structured("{", MALFORMED, ""),
        structured("[]", EVENT, ""),
        structured(r#"{"id":"1","source":"/s","type":"a.b"}"#, EVENT, "/specversion"),
        structured(r#"{"specversion":"0.3","id":"1","source":"/s","type":"a.b"}"#, EVENT, "/specversion"),
        structured(r#"{"specversion":"1.0","source":"/s","type":"a.b"}"#, EVENT, "/id"),
        structured(r#"{"specversion":"1.0","id":"1","type":"a.b"}"#, EVENT, "/source"),
        structured(r#"{"specversion":"1.0","id":"1","source":"/s"}"#, EVENT, "/type"),
        structured(r#"{"specversion":"1.0","id":"1","source":"/s","type":"tidings.x"}"#, EVENT, "/type"),
        structured(r#"{"specversion":"1.0","id":1,"source":"/s","type":"a.b"}"#, EVENT, "/id"),
        structured(&format!("{{{good},\"data_base64\":\"AA==\"}}"), EVENT, "/data_base64"),
        structured(
            &format!("{{{good},\"datacontenttype\":\"text/xml\",\"data\":\"<a/>\"}}"),
            EVENT,
            "/datacontenttype",
        ),
        structured(&format!("{{{good},\"time\":\"noon\"}}"), EVENT, "/time"),
        structured(&format!("{{{good},\"Upper\":\"x\"}}"), EVENT, "/Upper"),
        structured(&format!("{{{good},\"ext\":{{}}}}"), EVENT, "/ext"),
        structured(&format!("{{{good},{good}}}"), DUPLICATE, "specversion"),
        binary(&all[..3], "1", EVENT, "/ce-type"),
        binary(&[all[0], all[2], all[3]], "1", EVENT, "/ce-id"),
        binary(&with(("ce-id", "2")), "1", DUPLICATE, "/ce-id"),
        binary(&with(("ce-time", "noon")), "1", EVENT, "/ce-time"),
        binary(&with(("ce-subject", "%ff")), "1", UTF8, "/ce-subject"),
        binary(&with(("ce-subject", "caf\u{e9}")), "1", HEADER, "ce-subject"),
        binary(&all, "{", MALFORMED, ""),
    ]);
}
