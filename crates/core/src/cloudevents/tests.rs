//! Cases of the mapping, both ways.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::event::{AggregateId, Defaults, Draft, EventLimits, Header};
use crate::problem::{Rule, Violation};
use crate::time::Timestamp;

fn structured(event: &Value) -> Result<Draft, Vec<Violation>> {
    from_structured(&Bytes::from(event.to_string()), &EventLimits::default())
}

fn binary(headers: &[(&str, &str)], body: &'static [u8]) -> Result<Draft, Vec<Violation>> {
    from_binary(headers, &Bytes::from_static(body), &EventLimits::default())
}

fn stored(text: &'static str, sequence: Option<u64>) -> Header {
    let draft = Draft::parse(&Bytes::from_static(text.as_bytes()), &EventLimits::default()).unwrap();
    let defaults = Defaults { now: Timestamp::from_millis(0), source: "/default", random: [7; 26] };
    let (envelope, header) = draft.encode(&defaults).take_envelope(sequence);
    Header::parse(&envelope[..header]).unwrap()
}

/// The event `{specversion, id, source, type}` with `changes`; null takes away.
fn with(changes: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "e1", "source": "/s", "type": "a.b"});
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn faults(result: Result<Draft, Vec<Violation>>) -> Vec<(String, Rule)> {
    result.unwrap_err().into_iter().map(|violation| (violation.pointer, violation.rule)).collect()
}

#[test]
fn what_keeps_an_original_stands_once_whatever_came_under_its_name() {
    let event = with(&json!({"id": "a.b", "type": "order_Created", "originalid": "x", "originaltype": "y"}));
    let draft = structured(&event).unwrap();
    assert_eq!(metadata(&draft), [("originalid", "a.b"), ("originaltype", "order_Created")]);
    let defaults = Defaults { now: Timestamp::from_millis(0), source: "/s", random: [7; 26] };
    let (envelope, header) = draft.encode(&defaults).take_envelope(None);
    assert_eq!(Header::parse(&envelope[..header]).unwrap().metadata.len(), 2, "what is kept can be read");
}

fn metadata(draft: &Draft) -> Vec<(&str, &str)> {
    draft.metadata.iter().map(|(name, value)| (&**name, &**value)).collect()
}

const FULL: &str = r#"{"eventId":"evt_1","eventType":"order.shipped","version":2,"timestamp":"2026-11-22T10:15:30.123Z","source":"/orders-api",
 "aggregateId":"order ä","channels":["user:1"],"data":{"n":1.50},
 "metadata":{"correlationId":"c1","traceparent":"00-1","userAgent":"no extension","id":"neither","dataschema":"https://a.example/s"}}"#;

#[test]
fn a_stored_event_is_a_structured_cloudevent() {
    let text = to_structured(&stored(FULL, Some(42)), Some(br#"{"n":1.50}"#));
    assert_eq!(
        str::from_utf8(&text).unwrap(),
        r#"{"specversion":"1.0","id":"evt_1","source":"/orders-api","type":"order.shipped","time":"2026-11-22T10:15:30.123Z","subject":"order ä","partitionkey":"order ä","eventversion":"2","aggregateseq":"00000000000000000042","correlationid":"c1","traceparent":"00-1","dataschema":"https://a.example/s","datacontenttype":"application/json","data":{"n":1.50}}"#
    );
}

#[test]
fn without_an_aggregate_there_is_no_subject() {
    let header = stored(r#"{"eventId":"e","eventType":"a.b","data":null}"#, None);
    let event: Value = serde_json::from_slice(&to_structured(&header, Some(b"null"))).unwrap();
    for name in ["subject", "partitionkey", "aggregateseq", "erased"] {
        assert_eq!(event.get(name), None, "{name}");
    }
    assert_eq!(event["data"], json!(null));
}

#[test]
fn erased_data_is_left_out_and_marked() {
    let event: Value = serde_json::from_slice(&to_structured(&stored(FULL, Some(1)), None)).unwrap();
    assert_eq!((event.get("data"), &event["erased"]), (None, &json!(true)));
}

#[test]
fn binary_headers_are_percent_encoded() {
    let headers = to_binary_headers(&stored(FULL, Some(42)));
    let of = |name: &str| headers.iter().find(|(given, _)| given == name).map(|(_, value)| &**value);
    assert_eq!(of("ce-specversion"), Some("1.0"));
    assert_eq!(of("ce-subject"), Some("order%20%C3%A4"));
    assert_eq!(of("ce-aggregateseq"), Some("00000000000000000042"));
    assert_eq!(of("ce-useragent"), None);
    let quoted = stored(r#"{"eventType":"a.b","data":1,"aggregateId":"a\"b%c~!"}"#, None);
    assert!(to_binary_headers(&quoted).contains(&("ce-subject".into(), "a%22b%25c~!".into())));
    assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| byte.is_ascii_graphic())));
}

#[test]
fn what_goes_out_comes_in_again() {
    let header = stored(FULL, Some(42));
    let data = br#"{"n":1.50}"#;
    let by_text = from_structured(&Bytes::from(to_structured(&header, Some(data))), &EventLimits::default()).unwrap();
    let headers = to_binary_headers(&header);
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    headers.push(("content-type", "application/json; charset=utf-8"));
    let by_headers = binary(&headers, data).unwrap();
    assert_eq!(by_text, by_headers);
    assert_eq!(by_text.id.as_ref(), Some(&header.subject.id));
    assert_eq!(by_text.event_type, header.subject.event_type);
    assert_eq!(by_text.aggregate, header.subject.aggregate);
    assert_eq!(
        (by_text.version, by_text.timestamp, &by_text.source),
        (Some(2), Some(header.timestamp), &Some(header.source))
    );
    assert_eq!(&*by_text.data, data);
    assert_eq!(
        metadata(&by_text),
        [("correlationId", "c1"), ("traceparent", "00-1"), ("dataschema", "https://a.example/s")]
    );
}

#[test]
fn missing_data_is_null_and_extensions_become_metadata() {
    let draft = structured(&with(&json!({"count": 5, "flag": true, "none": null, "text": "x"}))).unwrap();
    assert_eq!(&*draft.data, b"null");
    assert_eq!(metadata(&draft), [("count", "5"), ("flag", "true"), ("text", "x")]);
    assert_eq!(draft.timestamp, None);
}

#[test]
fn a_foreign_id_is_made_one_of_ours_and_kept() {
    let draft = structured(&with(&json!({"id": "a.b/1"}))).unwrap();
    assert_eq!(draft.id.as_ref().unwrap().as_str(), "a518f9e7-eca7-5f3e-a45b-fd3f26939fb4");
    assert_eq!(metadata(&draft), [("originalid", "a.b/1")]);
    assert_eq!(structured(&with(&json!({"id": "a.b/1"}))).unwrap().id, draft.id);
    assert_ne!(structured(&with(&json!({"id": "a.b/1", "source": "/t"}))).unwrap().id, draft.id);
}

#[test]
fn a_foreign_type_is_snake_cased_and_kept() {
    let draft = structured(&with(&json!({"type": "com.example.OrderShipped"}))).unwrap();
    assert_eq!(draft.event_type.as_str(), "com.example.order_shipped");
    assert_eq!(metadata(&draft), [("originaltype", "com.example.OrderShipped")]);
}

#[test]
fn subject_or_partition_key_is_the_aggregate() {
    let cases = [
        (json!({"subject": "s"}), Some("s"), vec![]),
        (json!({"partitionkey": "p"}), Some("p"), vec![]),
        (json!({"subject": "s", "partitionkey": "s"}), Some("s"), vec![]),
        (json!({"subject": "s", "partitionkey": "p"}), Some("s"), vec![("partitionkey", "p")]),
        (json!({"subject": ""}), None, vec![]),
    ];
    for (changes, aggregate, kept) in cases {
        let draft = structured(&with(&changes)).unwrap();
        assert_eq!(draft.aggregate.as_ref().map(AggregateId::as_str), aggregate, "{changes}");
        assert_eq!(metadata(&draft), kept, "{changes}");
    }
}

#[test]
fn each_fault_of_a_structured_event_is_named() {
    let cases = [
        (json!({"specversion": null}), "/specversion", Rule::Missing),
        (json!({"specversion": "0.3"}), "/specversion", Rule::Invalid),
        (json!({"id": null}), "/id", Rule::Missing),
        (json!({"id": ""}), "/id", Rule::Missing),
        (json!({"source": null}), "/source", Rule::Missing),
        (json!({"source": "a b"}), "/source", Rule::Invalid),
        (json!({"type": null}), "/type", Rule::Missing),
        (json!({"type": "..."}), "/type", Rule::Invalid),
        (json!({"type": "Tidings.KeyCreated"}), "/type", Rule::Reserved),
        (json!({"time": "yesterday"}), "/time", Rule::Invalid),
        (json!({"time": 5}), "/time", Rule::WrongType),
        (json!({"subject": "x".repeat(300)}), "/subject", Rule::TooLong),
        (json!({"eventversion": "2.0"}), "/eventversion", Rule::WrongType),
        (json!({"eventversion": 0}), "/eventversion", Rule::Invalid),
        (json!({"data_base64": "AAAA"}), "/data_base64", Rule::Invalid),
        (json!({"datacontenttype": "text/xml", "data": "<a/>"}), "/datacontenttype", Rule::Invalid),
        (json!({"eventType": "a.b"}), "/eventType", Rule::UnknownField),
        (json!({"list": []}), "/list", Rule::WrongType),
        (json!({"fraction": 1.5}), "/fraction", Rule::WrongType),
        (json!({"note": "a\nb"}), "/note", Rule::Invalid),
        (json!({"data": "x".repeat(300_000)}), "/data", Rule::TooLarge),
    ];
    for (changes, pointer, rule) in cases {
        assert_eq!(faults(structured(&with(&changes))), [(pointer.to_owned(), rule)], "{changes:.80}");
    }
    assert_eq!(faults(structured(&json!([]))), [(String::new(), Rule::WrongType)]);
    let all = faults(structured(&json!({"specversion": "2", "Bad": 1, "time": ""})));
    assert_eq!(all.len(), 6, "{all:?}");
}

#[test]
fn binary_attributes_are_unquoted_and_decoded_once() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", " e1 "),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
        ("ce-subject", "order%20%C3%A4%2541"),
        ("ce-note", "\"a \\\"b\\\" %2\""),
        ("content-type", "application/vnd.acme+json"),
        ("user-agent", "ignored"),
    ];
    let draft = binary(&headers, b" {\"a\":1}\n").unwrap();
    assert_eq!(draft.id.as_ref().unwrap().as_str(), "e1");
    assert_eq!(draft.aggregate.as_ref().unwrap().as_str(), "order ä%41");
    assert_eq!(metadata(&draft), [("note", "a \"b\" %2")]);
    assert_eq!(&*draft.data, b"{\"a\":1}");
    assert_eq!(&*binary(&headers, b" ").unwrap().data, b"null");
}

/// More headers, the body, the pointer, the rule.
type Case = (&'static [(&'static str, &'static str)], &'static [u8], &'static str, Rule);

#[test]
fn each_fault_of_a_binary_event_is_named() {
    let base = [("ce-specversion", "1.0"), ("ce-id", "e1"), ("ce-source", "/s"), ("ce-type", "a.b")];
    let cases: [Case; 8] = [
        (&[("content-type", "text/plain")], b"1", "/content-type", Rule::Invalid),
        (&[("ce-id", "e2")], b"1", "/ce-id", Rule::DuplicateKey),
        (&[("ce-x", "1"), ("ce-x", "1")], b"1", "/ce-x", Rule::DuplicateKey),
        (&[("ce-x", "%ff")], b"1", "/ce-x", Rule::InvalidUtf8),
        (&[("ce-x", "a%0d%0ab")], b"1", "/ce-x", Rule::Invalid),
        (&[("ce-x-y", "1")], b"1", "/ce-x-y", Rule::UnknownField),
        (&[], b"{\"a\":{\"b\":1,\"b\":2}}", "/a/b", Rule::DuplicateKey),
        (&[], b"hello", "", Rule::Malformed),
    ];
    for (more, body, pointer, rule) in cases {
        let headers = [&base, more].concat();
        assert_eq!(faults(binary(&headers, body)), [(pointer.to_owned(), rule)], "{more:?}");
    }
    assert_eq!(faults(binary(&[], b"1")).len(), 4);
    let large = Bytes::from(vec![b'1'; 300_000]);
    assert_eq!(faults(from_binary(&base, &large, &EventLimits::default())), [(String::new(), Rule::TooLarge)]);
}
