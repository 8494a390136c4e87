//! What is not right is refused with a problem that a person can act on, and leaves nothing.

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
    client.publish(r#"{"eventType":"order.created","eventId":"there","data":1}"#);
    let mut before = head(&client);
    let mut faults = Vec::new();
    for case in cases {
        let answer = send(&client, case);
        let after = head(&client);
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

#[test]
fn a_request_of_the_wrong_form_is_refused() {
    let good = r#"{"eventType":"order.created","data":1}"#;
    let post = |kind, names| Case::new("POST", "/events", kind, names);
    let long = "k".repeat(256);
    check(&[
        post(MEDIA, "text/plain").body("text/plain", good),
        post(MEDIA, "application/xml").body("application/xml", good),
        post(MEDIA, "form-urlencoded").body("application/x-www-form-urlencoded", good),
        post(MEDIA, "compressed").body(JSON, good).header("content-encoding", "gzip"),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", ""),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", "\"\""),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", &long),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", "sch\u{f6}n"),
        post(HEADER, "Tidings-Tenant").body(JSON, good).header("tidings-tenant", "Acme Prod"),
        post(HEADER, "Tidings-Tenant").body(JSON, good).header("tidings-tenant", ""),
        Case::new("POST", "/events?dry=1", PARAMETER, "dry").body(JSON, good),
        Case::new("POST", "/keys", MEDIA, "application/json").body("text/plain", "{}"),
        Case::new("POST", "/webhooks", MEDIA, "application/json").body("text/plain", "{}"),
        Case::new("GET", "/", MISSING, "openapi.json"),
        Case::new("GET", "/event", MISSING, "path"),
        Case::new("GET", "/events/", MISSING, ""),
        Case::new("GET", "//events", MISSING, "path"),
        Case::new("GET", "/events/../events", MISSING, ""),
        Case::new("PUT", "/events", METHOD, "GET").body(JSON, good),
        Case::new("PATCH", "/events", METHOD, "POST").body(JSON, good),
        Case::new("DELETE", "/events", METHOD, "POST"),
        Case::new("POST", "/events/stream", METHOD, "GET"),
        Case::new("OPTIONS", "/webhooks", METHOD, "GET"),
        Case::new("POST", "/events/there", METHOD, "GET").body(JSON, good),
        Case::new("BREW", "/events", METHOD, "GET"),
    ]);
}

#[test]
fn a_parameter_that_is_not_known_or_not_right_is_refused_by_name() {
    let events = [
        ("typ=order.created", "typ"),
        ("TYPES=order.created", "TYPES"),
        ("types=order", "types"),
        ("types=order.*,", "types"),
        ("types=*.created", "types"),
        ("eventTypes=Order.created", "eventTypes"),
        ("types=a.b&types=a.c", "types"),
        ("channels=,", "channels"),
        ("channels=a%00", "channels"),
        ("aggregateId=a%00", "aggregateId"),
        ("aggregateId=%ff", "aggregateId"),
        ("since=yesterday", "since"),
        ("until=2026-01-01", "until"),
        ("since=5", "since"),
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=1.0", "after"),
        ("after=99999999999999999999", "after"),
        ("order=up", "order"),
        ("order=ASC", "order"),
        ("limit=0", "limit"),
        ("limit=251", "limit"),
        ("limit=1000000", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("cursor=5", "cursor"),
    ];
    let mut cases: Vec<_> =
        events.iter().map(|(query, names)| Case::new("GET", format!("/events?{query}"), PARAMETER, names)).collect();
    let others = [
        ("/aggregates/a/events?limit=251", "limit"),
        ("/aggregates/a/events?aggregateId=b", "aggregateId"),
        ("/aggregates/%ff/events", "path"),
        ("/aggregates/%zz/events", "path"),
        ("/aggregates/%00/events", "aggregateId"),
        ("/events/there?x=1", "x"),
        ("/events/there/deliveries?limit=5", "limit"),
        ("/audit/head?x=1", "x"),
        ("/events/stream?type=order.created", "type"),
        ("/events/stream?types=order", "types"),
        ("/events/stream?from=tomorrow", "from"),
        ("/events/stream?from=-1", "from"),
        ("/events/stream?lastEventId=abc", "lastEventId"),
        ("/events/stream?named=yes", "named"),
        ("/events/stream?ping=1", "ping"),
        ("/events/stream?since=2026-01-01T00:00:00Z", "since"),
        ("/webhooks?limit=251", "limit"),
        ("/webhooks?status=active", "status"),
        ("/keys?tenant=acme", "tenant"),
        ("/keys?limit=251", "limit"),
        ("/health/ready?verbose=1", "verbose"),
        ("/openapi.json?x=1", "x"),
    ];
    cases.extend(others.iter().map(|(path, names)| Case::new("GET", *path, PARAMETER, names)));
    check(&cases);
}

#[test]
fn what_is_not_there_is_not_found() {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let long = "a".repeat(2_000);
    let mut cases = Vec::new();
    for id in [unknown, "a.b", "%00", "%2e%2e", "there%20", long.as_str(), "ws"] {
        cases.push(Case::new("GET", format!("/events/{id}"), MISSING, "event"));
        cases.push(Case::new("GET", format!("/events/{id}/deliveries"), MISSING, "event"));
        cases.push(Case::new("DELETE", format!("/events/{id}/data"), MISSING, "event"));
    }
    for id in ["wh_0", "there", "%00"] {
        cases.push(Case::new("GET", format!("/webhooks/{id}"), MISSING, "webhook"));
        cases.push(Case::new("GET", format!("/webhooks/{id}/secret"), MISSING, "webhook"));
        cases.push(Case::new("DELETE", format!("/webhooks/{id}"), MISSING, "webhook"));
        cases.push(Case::new("DELETE", format!("/keys/{id}"), MISSING, "key"));
    }
    check(&cases);
}

#[test]
fn a_webhook_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let webhook = |body: &str, kind, names| Case::new("POST", "/webhooks", kind, names).body(JSON, body);
    let with =
        |member: &str, kind, names| webhook(&format!("{{\"url\":\"http://127.0.0.1:9/hooks\",{member}}}"), kind, names);
    let url = |url: &str| webhook(&json!({ "url": url }).to_string(), BODY, "/url");
    let long = format!("\"description\":{}", text_of(100_000));
    let types = format!("\"eventTypes\":{}", json!(vec!["a.b"; 101]));
    let steps = format!("\"retry\":{{\"schedule\":{}}}", json!(vec!["1s"; 65]));
    check(&[
        webhook("", MALFORMED, ""),
        webhook("[]", BODY, "object"),
        webhook(r#"["http://127.0.0.1:9/hooks"]"#, BODY, "object"),
        webhook("{}", BODY, "url"),
        webhook(r#"{"url":5}"#, BODY, "/url"),
        webhook(r#"{"url":null}"#, BODY, "/url"),
        url(""),
        url("/hooks"),
        url("ftp://example.com/"),
        url("http://user:pass@127.0.0.1/"),
        url("http://127.0.0.1/#part"),
        url("http://"),
        url("http://127.0.0.1:99999/"),
        url(&format!("http://127.0.0.1/{}", "a".repeat(2_048))),
        with("\"colour\":1", BODY, "colour"),
        with("\"url\":\"http://127.0.0.1/\"", DUPLICATE, "url"),
        with("\"eventTypes\":\"order.*\"", BODY, "/eventTypes"),
        with("\"eventTypes\":[\"order\"]", BODY, "/eventTypes/0"),
        with("\"eventTypes\":[\"a.b\",5]", BODY, "/eventTypes/1"),
        with(&types, BODY, "/eventTypes"),
        with("\"channels\":[\"\"]", BODY, "/channels/0"),
        with("\"aggregateId\":\"a\\u0000\"", BODY, "/aggregateId"),
        with("\"description\":5", BODY, "/description"),
        with(&long, BODY, "/description"),
        with("\"format\":\"xml\"", BODY, "/format"),
        with("\"ordering\":\"random\"", BODY, "/ordering"),
        with("\"retry\":5", BODY, "/retry"),
        with("\"retry\":{\"schedule\":[]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"schedule\":[\"50ms\"]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"schedule\":[\"soon\"]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"jitter\":1}", BODY, "/retry"),
        with(&steps, BODY, "/retry/schedule"),
        with("\"timeout\":15", BODY, "/timeout"),
        with("\"timeout\":\"0s\"", BODY, "/timeout"),
        with("\"timeout\":\"21s\"", BODY, "/timeout"),
        with("\"maxConcurrency\":0", BODY, "/maxConcurrency"),
        with("\"maxConcurrency\":257", BODY, "/maxConcurrency"),
        with("\"maxConcurrency\":-1", BODY, "/maxConcurrency"),
        with("\"startFrom\":\"tomorrow\"", BODY, "/startFrom"),
        with("\"startFrom\":-1", BODY, "/startFrom"),
        with("\"startFrom\":true", BODY, "/startFrom"),
        with("\"secret\":5", BODY, "/secret"),
        with("\"secret\":\"hunter2\"", BODY, "/secret"),
        with("\"secret\":\"whsec_AAAA\"", BODY, "/secret"),
    ]);
}

#[test]
fn a_key_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let key = |body: &str, kind, names| Case::new("POST", "/keys", kind, names).body(JSON, body);
    let with = |member: &str, names| key(&format!("{{\"scopes\":[\"events:read\"],{member}}}"), BODY, names);
    let long = format!("\"description\":{}", text_of(100_000));
    let many: Vec<_> = (0..1_001).map(|channel| format!("c:{channel}")).collect();
    check(&[
        key("", MALFORMED, ""),
        key("5", BODY, "object"),
        key(r#"["acme",["events:read"],null,"",null]"#, BODY, "object"),
        key("{}", BODY, "scopes"),
        key(r#"{"scopes":[]}"#, BODY, "/scopes"),
        key(r#"{"scopes":"events:read"}"#, BODY, "/scopes"),
        key(r#"{"scopes":["events:fly"]}"#, BODY, "/scopes/0"),
        key(r#"{"scopes":["events:read",5]}"#, BODY, "/scopes/1"),
        key(r#"{"scopes":["admin"],"tenant":"acme"}"#, BODY, "/tenant"),
        with("\"colour\":1", "colour"),
        with("\"secret\":\"mine\"", "secret"),
        with("\"tenant\":\"Acme Prod\"", "/tenant"),
        with("\"channels\":\"a\"", "/channels"),
        with("\"channels\":[\"\"]", "/channels/0"),
        with(&format!("\"channels\":{}", json!(many)), "/channels"),
        with("\"description\":5", "/description"),
        with(&long, "/description"),
        with("\"expiresAt\":5", "/expiresAt"),
        with("\"expiresAt\":\"never\"", "/expiresAt"),
        with("\"expiresAt\":\"2020-01-01T00:00:00Z\"", "/expiresAt"),
    ]);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_refusal_can_be_read() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    // Declared: refused by its head.
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON)];
    connection.write(&client.request("POST", "/events", &headers, Some(8 * 1024 * 1024 + 1), b"")).unwrap();
    assert_eq!(slug(&problem(&connection.answer().unwrap())), "payload-too-large");
    // Sent in one go by a client that reads the answer only then.
    let body = vec![b' '; 9 * 1024 * 1024];
    let answer = client.try_send("POST", "/events", &headers, &body).expect("the refusal arrives");
    assert_eq!(slug(&problem(&answer)), "payload-too-large");
    assert_eq!(head(&client), before);
}

#[test]
fn a_body_without_a_length_is_refused_while_it_streams_in() {
    let server = Server::dev();
    let client = server.client();
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON), ("transfer-encoding", "chunked")];
    connection.write(&client.request("POST", "/events", &headers, None, b"")).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    // 8 MiB is 128 of them; the body never ends.
    for _ in 0..129 {
        connection.write(&chunk).unwrap();
    }
    assert_eq!(slug(&problem(&connection.answer().unwrap())), "payload-too-large");
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_refused() {
    let server = Server::with(true, "[limits]\nbody_timeout = \"300ms\"\n");
    let client = server.client();
    let before = head(&client);
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON)];
    connection.write(&client.request("POST", "/events", &headers, Some(100), b"{\"eventType\"")).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(slug(&problem(&answer)), "request-timeout");
    assert_eq!(head(&client), before);
}

#[test]
fn a_body_that_breaks_off_leaves_no_event() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    let whole = r#"{"eventType":"order.created","data":1}"#;
    for (headers, length, body) in [
        (vec![("content-type", JSON)], Some(whole.len() + 5), whole.to_owned()),
        (vec![("transfer-encoding", "chunked")], None, format!("{:x}\r\n{whole}\r\n", whole.len())),
        (vec![("transfer-encoding", "chunked")], None, format!("{:x}\r\n{whole}\r\nXYZ\r\n", whole.len())),
    ] {
        let mut connection = client.connect().unwrap();
        connection.write(&client.request("POST", "/events", &headers, length, body.as_bytes())).unwrap();
        drop(connection);
    }
    // Whoever comes next is served, and sees nothing of it.
    assert_eq!(head(&client), before);
}

#[test]
fn requests_that_proxies_could_split_differently_are_refused() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    let smuggled =
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 38\r\n\r\n{\"eventType\":\"order.created\",\"data\":1}";
    for head_of in [
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost : x\r\ncontent-length: 0\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
    ] {
        let mut connection = client.connect().unwrap();
        connection.write(head_of.as_bytes()).unwrap();
        connection.write(smuggled.as_bytes()).ok();
        // An answer or a closed connection: no event either way.
        let status = connection.answer().map_or(400, |answer| answer.status);
        assert!((400..500).contains(&status), "{head_of:?}: {status}");
        assert_eq!(head(&client), before, "{head_of:?}");
    }
}

#[test]
fn whoever_comes_when_all_connections_are_taken_is_told_so() {
    let server = Server::with(true, "[limits]\nconnections = 2\n");
    let client = server.client();
    let mut held = Vec::new();
    let full = loop {
        let mut connection = client.connect().unwrap();
        connection.write(&client.request("GET", "/health/live", &[], None, b"")).unwrap();
        let answer = connection.answer().unwrap();
        if answer.status != 200 {
            break answer;
        }
        held.push(connection);
        assert!(held.len() < 10, "no limit");
    };
    assert_eq!(full.status, 503);
    assert_eq!(full.header("content-type"), Some("application/problem+json"));
    assert!(full.header("retry-after").is_some());
    assert_eq!(slug(&full.json()), "overloaded");
}

#[test]
fn a_stream_of_headers_without_end_is_cut_off() {
    let server = Server::dev();
    let mut connection = server.client().connect().unwrap();
    connection.write(b"GET /events HTTP/1.1\r\nhost: x\r\n").unwrap();
    let line = [b"x-".to_vec(), vec![b'a'; 1_000], b": b\r\n".to_vec()].concat();
    let mut sent = 0;
    while connection.write(&line).is_ok() {
        sent += line.len();
        assert!(sent < 16 * 1024 * 1024, "the server reads headers for ever");
    }
    // The server is there for others.
    std::io::stderr().flush().unwrap();
    server.client().get("/health/live").expect(200);
}
