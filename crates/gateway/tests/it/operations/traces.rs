//! From the request to each attempt, in one trace.

use serde_json::{Value, json};

use crate::support::receiver::{Post, Receiver};
use crate::support::server::Server;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn spans(posts: &[Post]) -> Vec<Value> {
    let mut spans = Vec::new();
    for post in posts {
        let scopes = post.json()["resourceSpans"][0]["scopeSpans"].clone();
        spans.extend(scopes[0]["spans"].as_array().unwrap().clone());
    }
    spans
}

fn collected(collector: &Receiver, name: &str, count: usize) -> Vec<Value> {
    let named = |posts: &[Post]| spans(posts).into_iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    named(&collector.wait_for(&format!("{count} spans {name}"), |posts| named(posts).len() >= count))
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("no {key} in {span}"))["value"]
}

#[test]
fn a_trace_leads_from_the_publisher_over_the_commit_to_each_attempt() {
    let collector = Receiver::start();
    let server = Server::with(true, &format!("[telemetry]\notlp = \"http://{}\"\n", collector.address));
    let client = server.client();
    let receiver = Receiver::answering(|_, before| if before == 0 { 500 } else { 200 });
    let webhook = json!({"url": receiver.url(), "eventTypes": ["*"], "retry": {"schedule": ["100ms"]}});
    let webhook = client.post("/webhooks", webhook.to_string()).expect(201).json();
    let event = r#"{"eventId":"e1","eventType":"a.b","data":1}"#;
    client.with("traceparent", HEADER).publish(event);
    let attempts = collected(&collector, "deliver", 2);
    let request = collected(&collector, "POST /events", 1).remove(0);
    let commit = collected(&collector, "commit", 1).remove(0);
    assert_eq!((&request["traceId"], &request["parentSpanId"]), (&json!(TRACE), &json!("b7ad6b7169203331")));
    assert_eq!(request["kind"], 2);
    assert_eq!(attribute(&request, "http.response.status_code"), &json!({"intValue": "201"}));
    assert_eq!((&commit["traceId"], &commit["parentSpanId"]), (&json!(TRACE), &request["spanId"]));
    for (attempt, number) in attempts.iter().zip(["1", "2"]) {
        assert_eq!((&attempt["traceId"], &attempt["parentSpanId"]), (&json!(TRACE), &request["spanId"]));
        assert_eq!(attribute(attempt, "tidings.attempt"), &json!({"intValue": number}));
        assert_eq!(attribute(attempt, "tidings.webhook"), &json!({"stringValue": webhook["id"]}));
        assert_eq!(attribute(attempt, "tidings.event.id"), &json!({"stringValue": "e1"}));
        assert_eq!(attempt["status"]["code"] == 2, number == "1");
        let times = ["startTimeUnixNano", "endTimeUnixNano"].map(|name| attempt[name].as_str().unwrap().to_owned());
        assert!(times[0] <= times[1] && times[0].len() == 19, "{times:?}");
    }
    let own = format!("00-{TRACE}-{}-01", request["spanId"].as_str().unwrap());
    assert!(receiver.wait(2).iter().all(|post| post.header("traceparent") == own));
}

#[test]
fn without_a_header_the_trace_of_the_event_goes_on_or_one_begins() {
    let collector = Receiver::start();
    let server = Server::with(true, &format!("[telemetry]\notlp = \"http://{}\"\n", collector.address));
    let (client, receiver) = (server.client(), Receiver::start());
    let webhook = json!({"url": receiver.url(), "eventTypes": ["*"]});
    client.post("/webhooks", webhook.to_string()).expect(201);
    client.publish(&format!(r#"{{"eventType":"a.b","metadata":{{"traceparent":"{HEADER}"}},"data":1}}"#));
    assert_eq!(receiver.wait(1)[0].header("traceparent"), HEADER);
    let request = collected(&collector, "POST /events", 1).remove(0);
    let attempt = collected(&collector, "deliver", 1).remove(0);
    for span in [request, attempt] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!("b7ad6b7169203331")));
    }
    client.publish(r#"{"eventType":"a.b","data":2}"#);
    let request = collected(&collector, "POST /events", 2).remove(1);
    let attempt = collected(&collector, "deliver", 2).remove(1);
    assert_ne!(request["traceId"], TRACE);
    assert_eq!(request["parentSpanId"], Value::Null);
    assert_eq!((&attempt["traceId"], &attempt["parentSpanId"]), (&request["traceId"], &request["spanId"]));
}

#[test]
fn without_a_collector_the_header_goes_on_with_the_event_and_a_repeat_is_the_same_event() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    client.post("/webhooks", json!({"url": receiver.url(), "eventTypes": ["*"]}).to_string()).expect(201);
    let event = r#"{"eventId":"e1","eventType":"a.b","metadata":{"actor":"u"},"data":1}"#;
    let first = client.with("traceparent", HEADER).publish(event);
    let again = client.with("traceparent", &HEADER.replace("b7ad", "aaaa")).publish(event);
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(client.publish(event)["duplicate"], true);
    assert_eq!(receiver.wait(1)[0].header("traceparent"), HEADER);
    assert_eq!(client.get("/events/e1").expect(200).json()["metadata"]["traceparent"], HEADER);
    client.with("traceparent", "what is this").publish(r#"{"eventId":"e2","eventType":"a.b","data":1}"#);
    assert_eq!(client.get("/events/e2").expect(200).json()["metadata"], Value::Null);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let collector = Receiver::answering(|_, _| 503);
    let server = Server::with(true, &format!("[telemetry]\notlp = \"http://{}\"\n", collector.address));
    let client = server.client();
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    collector.wait(1);
    super::wait_for(&client, r#"tidings_trace_spans_total{outcome="dropped"}"#, 2.0);
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    collector.wait(2);
    super::wait_for(&client, r#"tidings_trace_spans_total{outcome="dropped"}"#, 4.0);
    assert_eq!(server.stderr().matches("does not take spans").count(), 1, "{}", server.stderr());
}
