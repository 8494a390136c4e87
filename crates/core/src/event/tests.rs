//! Cases of the event: what is taken, what is refused, and that what is kept is what was sent.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::problem::{Rule, VIOLATIONS_MAX};
use crate::time::Timestamp;

const NOW: &str = "2026-11-22T10:15:30.123Z";

pub(super) fn parse(text: &str) -> Result<Draft, Vec<crate::problem::Violation>> {
    Draft::parse(&Bytes::copy_from_slice(text.as_bytes()), &EventLimits::default())
}

pub(super) fn encode(text: &str) -> Encoded {
    let now = Timestamp::parse_rfc3339(NOW).unwrap();
    parse(text).unwrap().encode(&Defaults { now, source: "/default", random: [7; 26] })
}

/// The stored header of an event that got a number, or none.
pub(super) fn header(event: &Encoded, sequence: Option<u64>) -> Vec<u8> {
    let (whole, header_bytes) = event.clone().take_envelope(sequence);
    let (header, data) = whole.split_at(header_bytes);
    assert_eq!(data, [b",\"data\":", event.data(), b"}"].concat());
    header.to_vec()
}

/// Pointer and rule of all violations.
fn faults(text: &str) -> Vec<(String, Rule)> {
    parse(text).unwrap_err().into_iter().map(|violation| (violation.pointer, violation.rule)).collect()
}

const FULL: &str = r#"{"eventId":"evt_1","eventType":"order.shipped","version":2,"timestamp":"2026-11-22T11:15:30.123456+01:00",
 "source":"/orders-api","aggregateId":"order_\u00e4\"","channels":["user:u_17","team:ä","user:u_17"],
 "metadata":{"actor":"u_17","a\"b":"\u00fc\\"},"data": {"b":1.50, "a":[ ]} ,"expectedSequence":41}"#;

#[test]
fn a_header_has_all_members_in_their_order() {
    let event = encode(FULL);
    let stored = header(&event, Some(42));
    assert_eq!(
        String::from_utf8(envelope(&stored, Some(event.data()))).unwrap(),
        r#"{"eventId":"evt_1","eventType":"order.shipped","version":2,"timestamp":"2026-11-22T10:15:30.123Z","source":"/orders-api","aggregateId":"order_ä\"","sequenceNumber":42,"channels":["user:u_17","team:ä"],"metadata":{"actor":"u_17","a\"b":"ü\\"},"data":{"b":1.50, "a":[ ]}}"#
    );
    assert!(event.id_given);
    assert_eq!((event.expected_sequence, event.salt), (Some(41), [7; 16]));
    assert!(event.weight() > stored.len() + event.data().len());
}

#[test]
fn what_is_left_out_is_filled_or_stays_out() {
    let event =
        encode(r#"{"data":null,"eventType":"order.created","channels":[],"metadata":{},"source":null,"eventId":null}"#);
    assert!(!event.id_given);
    assert_eq!(event.supplied, Supplied::default());
    assert_eq!(
        String::from_utf8(header(&event, None)).unwrap(),
        r#"{"eventId":"01a202c0-f64b-7707-8707-070707070707","eventType":"order.created","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/default""#
    );
    assert_eq!(header(&event, Some(1)), header(&event, None), "no aggregate, no number");
}

#[test]
fn data_is_a_slice_of_the_request() {
    let text = Bytes::from_static(b" {\"eventType\":\"a.b\",\"data\" :\n {\"n\": 1.0e0 } } ");
    let draft = Draft::parse(&text, &EventLimits::default()).unwrap();
    assert_eq!(&*draft.data, b"{\"n\": 1.0e0 }");
    assert!(text.as_ptr_range().contains(&draft.data.as_ptr()));
}

#[test]
fn a_header_read_back_says_what_was_sent() {
    let event = encode(FULL);
    let stored = header(&event, Some(42));
    let header = Header::parse(&stored).unwrap();
    assert_eq!(header.subject, event.subject);
    assert_eq!(header.subject.aggregate.as_ref().unwrap().as_str(), "order_ä\"");
    assert_eq!((header.version, header.sequence, &*header.source), (2, Some(42), "/orders-api"));
    assert_eq!(header.timestamp.to_string(), NOW);
    assert_eq!(header.metadata, [("actor".into(), "u_17".into()), ("a\"b".into(), "ü\\".into())]);
    assert_eq!(type_of(&stored).unwrap(), "order.shipped");
    assert_eq!(subject_of(&stored).unwrap(), (header.subject, Some(42)));
}

#[test]
fn a_header_written_by_a_newer_or_laxer_tidings_is_read() {
    let header = br#"{"eventId":"a.b","eventType":"Order","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"","region":{"x":[1]}"#;
    assert_eq!(Header::parse(header).unwrap().subject.event_type.as_str(), "Order");
    let elsewhere = br#"{"region":"eu","eventType":"a\u002eb","eventId":"e""#;
    assert_eq!(type_of(elsewhere).unwrap(), "a.b");
}

#[test]
fn a_damaged_header_is_told_never_guessed() {
    let whole = header(&encode(FULL), Some(42));
    let cases = [
        &b""[..],
        b"{",
        b"{}",
        b"[]",
        b"\xff",
        br#"{"eventId":"a""#,
        &whole[..whole.len() - 1],
        &whole[1..],
        &whole[..40],
    ];
    for damaged in cases {
        assert!(Header::parse(damaged).unwrap_err().starts_with("a stored header is damaged"));
    }
    for damaged in [&b"{\"eventId\":\"a\""[..], b"{\"eventId\":\"a\",\"eventType\":\"a.b"] {
        assert!(subject_of(damaged).is_err() && type_of(damaged).is_err());
    }
    assert!(subject_of(br#"{"eventId":"a","eventType":"a.b","sequenceNumber":"1""#).is_err());
}

#[test]
fn erased_data_shows_as_null_and_marked() {
    let header = header(&encode(r#"{"eventId":"e","eventType":"a.b","data":1}"#), None);
    let text: serde_json::Value = serde_json::from_slice(&envelope(&header, None)).unwrap();
    assert_eq!((&text["data"], &text["erased"]), (&json!(null), &json!(true)));
}

#[test]
fn each_fault_of_a_field_is_named_with_its_place() {
    let long = "x".repeat(300);
    let cases = [
        (r#"{"data":1}"#.to_owned(), "/eventType", Rule::Missing),
        (r#"{"eventType":null,"data":1}"#.into(), "/eventType", Rule::Missing),
        (r#"{"eventType":"a.b"}"#.into(), "/data", Rule::Missing),
        (r#"{"eventType":"order","data":1}"#.into(), "/eventType", Rule::Invalid),
        (r#"{"eventType":"Order.Created","data":1}"#.into(), "/eventType", Rule::Invalid),
        (r#"{"eventType":"order.2","data":1}"#.into(), "/eventType", Rule::Invalid),
        (r#"{"eventType":5,"data":1}"#.into(), "/eventType", Rule::WrongType),
        (format!(r#"{{"eventType":"a.{long}","data":1}}"#), "/eventType", Rule::TooLong),
        (r#"{"eventType":"tidings.key.created","data":1}"#.into(), "/eventType", Rule::Reserved),
        (r#"{"eventType":"a.b","data":1,"eventId":"a.b"}"#.into(), "/eventId", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"eventId":"ws"}"#.into(), "/eventId", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"eventId":"a\u0000"}"#.into(), "/eventId", Rule::Invalid),
        (format!(r#"{{"eventType":"a.b","data":1,"eventId":"{long}"}}"#), "/eventId", Rule::TooLong),
        (r#"{"eventType":"a.b","data":1,"eventId":{}}"#.into(), "/eventId", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"version":0}"#.into(), "/version", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"version":4294967296}"#.into(), "/version", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"version":1.0}"#.into(), "/version", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"version":-1}"#.into(), "/version", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"version":"1"}"#.into(), "/version", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"timestamp":"yesterday"}"#.into(), "/timestamp", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"timestamp":1795342530}"#.into(), "/timestamp", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"source":""}"#.into(), "/source", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"source":"a b"}"#.into(), "/source", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"aggregateId":""}"#.into(), "/aggregateId", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"aggregateId":"a\u0000b"}"#.into(), "/aggregateId", Rule::Invalid),
        (format!(r#"{{"eventType":"a.b","data":1,"aggregateId":"{long}"}}"#), "/aggregateId", Rule::TooLong),
        (r#"{"eventType":"a.b","data":1,"channels":"a"}"#.into(), "/channels", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"channels":["a",1]}"#.into(), "/channels/1", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"channels":["a","b\n"]}"#.into(), "/channels/1", Rule::Invalid),
        (format!(r#"{{"eventType":"a.b","data":1,"channels":["{long}"]}}"#), "/channels/0", Rule::TooLong),
        (
            r#"{"eventType":"a.b","data":1,"channels":["1","2","3","4","5","6","7","8","9"]}"#.into(),
            "/channels",
            Rule::TooLong,
        ),
        (r#"{"eventType":"a.b","data":1,"metadata":[]}"#.into(), "/metadata", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"metadata":{"a/b":1}}"#.into(), "/metadata/a~1b", Rule::WrongType),
        (r#"{"eventType":"a.b","data":1,"metadata":{"":"x"}}"#.into(), "/metadata/", Rule::Invalid),
        (r#"{"eventType":"a.b","data":1,"metadata":{"a":"x\r\ny"}}"#.into(), "/metadata/a", Rule::Invalid),
        (
            format!(r#"{{"eventType":"a.b","data":1,"metadata":{{"a":"{}"}}}}"#, long.repeat(10)),
            "/metadata/a",
            Rule::TooLong,
        ),
    ];
    check(&cases);
}

#[test]
fn each_fault_beyond_the_fields_is_named_with_its_place() {
    let cases = [
        (r#"{"eventType":"a.b","data":1,"expectedSequence":0}"#.into(), "/expectedSequence", Rule::Invalid),
        (
            r#"{"eventType":"a.b","data":1,"aggregateId":"a","expectedSequence":-1}"#.into(),
            "/expectedSequence",
            Rule::WrongType,
        ),
        (r#"{"eventType":"a.b","data":1,"sequenceNumber":1}"#.into(), "/sequenceNumber", Rule::Reserved),
        (r#"{"eventType":"a.b","data":1,"offset":1}"#.into(), "/offset", Rule::Reserved),
        (r#"{"eventType":"a.b","data":1,"recordedAt":null}"#.into(), "/recordedAt", Rule::Reserved),
        (r#"{"eventType":"a.b","data":1,"eventtype":1}"#.into(), "/eventtype", Rule::UnknownField),
        (r#"{"eventType":"a.b","data":{"x":1,"x":2}}"#.into(), "/data/x", Rule::DuplicateKey),
        (r#"{"eventType":"a.b","data":1,"event\u0054ype":"a.c"}"#.into(), "/eventType", Rule::DuplicateKey),
        (format!(r#"{{"eventType":"a.b","data":{}1{}}}"#, "[".repeat(64), "]".repeat(64)), "/data", Rule::TooDeep),
        (r#"{"eventType":"a.b","data":1"#.into(), "/data", Rule::Malformed),
        ("[]".into(), "", Rule::WrongType),
        ("null".into(), "", Rule::WrongType),
        (String::new(), "", Rule::Malformed),
    ];
    check(&cases);
}

/// Each text has one fault, at the pointer or below.
fn check(cases: &[(String, &str, Rule)]) {
    for (text, pointer, rule) in cases {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].0.starts_with(pointer) && found[0].1 == *rule, "{text}: {found:?}");
        assert!(!pointer.is_empty() || found[0].0.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn all_faults_of_an_event_are_told_at_once() {
    let found = faults(
        r#"{"eventId":"","eventType":"x","version":0,"timestamp":"","source":" ","aggregateId":7,"channels":[1,"",true],"metadata":{"a":null,"b":"c"},"extra":1,"offset":2}"#,
    );
    let pointers: Vec<&str> = found.iter().map(|(pointer, _)| &**pointer).collect();
    let expected = [
        "/extra",
        "/offset",
        "/eventId",
        "/eventType",
        "/version",
        "/timestamp",
        "/source",
        "/aggregateId",
        "/channels/0",
        "/channels/1",
        "/channels/2",
        "/metadata/a",
        "/data",
    ];
    assert_eq!(pointers, expected);
    let many: Vec<String> = (0..1000).map(|index| format!("\"x{index}\":0")).collect();
    assert_eq!(faults(&format!("{{{}}}", many.join(","))).len(), VIOLATIONS_MAX);
}

#[test]
fn messages_say_the_way_out() {
    let message = |text: &str| parse(text).unwrap_err().remove(0).message;
    assert!(message(r#"{"eventType":"a.b","data":1,"sequenceNumber":1}"#).contains("given by the log"));
    assert!(message(r#"{"eventType":"a.b","data":1,"eventId":"a.b"}"#).contains("no dot"));
    assert!(message(r#"{"eventType":"order","data":1}"#).contains("`order.created`"));
    assert!(message(r#"{"eventType":"a.b"}"#).contains("send null"));
}

#[test]
fn data_ends_at_its_limit_and_metadata_at_its_count() {
    let limits = EventLimits { data_bytes_max: 5, ..EventLimits::default() };
    let of = |text: &'static str| Draft::parse(&Bytes::from_static(text.as_bytes()), &limits);
    assert!(of(r#"{"eventType":"a.b","data": "abc" }"#).is_ok());
    assert_eq!(of(r#"{"eventType":"a.b","data":"abcd"}"#).unwrap_err()[0].rule, Rule::TooLarge);
    let metadata = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|index| format!("\"k{index}\":\"\"")).collect();
        format!(r#"{{"eventType":"a.b","data":1,"metadata":{{{}}}}}"#, pairs.join(","))
    };
    assert_eq!(parse(&metadata(METADATA_MAX)).unwrap().metadata.len(), METADATA_MAX);
    assert_eq!(faults(&metadata(METADATA_MAX + 1)), [("/metadata".into(), Rule::TooLong)]);
}

#[test]
fn names_may_be_written_with_escapes_and_data_may_hold_anything() {
    let draft = parse(r#"{"event\u0054ype":"a.b","d\u0061ta":"\u0000"}"#).unwrap();
    assert_eq!((draft.event_type.as_str(), &*draft.data), ("a.b", &br#""\u0000""#[..]));
}

#[test]
fn sources_are_uri_references() {
    for source in [
        "/orders-api",
        "orders",
        "https://a.example/x?y=1#z",
        "urn:acme:orders",
        "//host",
        "a/b:c",
        "%C3%A4",
        "http://[::1]/x",
        "?",
        "#f",
    ] {
        assert_eq!(parse_source(source).as_deref(), Ok(source));
    }
    for source in [
        "",
        " ",
        "a b",
        "ä",
        "a\\b",
        "<a>",
        "{a}",
        "a\"",
        "a^",
        "%",
        "%4",
        "%zz",
        "1a:b",
        ":a",
        "a#b#c",
        "[a]",
        "a\0",
        "a|b",
        &"x".repeat(513),
    ] {
        assert!(parse_source(source).is_err(), "{source}");
    }
}

proptest! {
    #[test]
    fn every_event_survives_the_log(
        id in proptest::option::of("[A-Za-z0-9_-]{1,60}"),
        event_type in "[a-s][a-z0-9_]{0,8}(\\.[a-z][a-z0-9_]{0,8}){1,3}",
        version in proptest::option::of(1..=u32::MAX),
        millis in proptest::option::of(-62_167_219_200_000..=253_402_300_799_999_i64),
        aggregate in proptest::option::of("[^\\p{Cc}]{1,40}"),
        channels in prop::collection::btree_set("[^\\p{Cc}]{1,20}", 0..=CHANNELS_MAX),
        metadata in prop::collection::btree_map("[^\\p{Cc}]{1,20}", "[^\\p{Cc}]{0,40}", 0..=METADATA_MAX),
        data in "\\PC{0,40}",
        sequence in 1..=u64::MAX,
    ) {
        prop_assume!(id.as_deref() != Some("ws") && id.as_deref() != Some("stream"));
        let timestamp = millis.map(|millis| Timestamp::from_millis(millis).to_string());
        let sent = json!({
            "eventId": id, "eventType": event_type, "version": version, "timestamp": timestamp, "aggregateId": aggregate,
            "channels": channels, "metadata": metadata, "data": {"text": data},
        });
        let event = encode(&sent.to_string());
        let bytes = header(&event, Some(sequence));
        let header = Header::parse(&bytes).unwrap();
        prop_assert_eq!(&header.subject, &event.subject);
        prop_assert_eq!(header.version, version.unwrap_or(1));
        prop_assert_eq!(header.sequence, aggregate.as_ref().map(|_| sequence));
        prop_assert_eq!(type_of(&bytes).unwrap(), event.subject.event_type.as_str());
        prop_assert_eq!(subject_of(&bytes).unwrap(), (event.subject.clone(), header.sequence));

        // Another parser reads the same out of the wire form, in which nothing is left of a null.
        let wire: serde_json::Value = serde_json::from_slice(&envelope(&bytes, Some(event.data()))).unwrap();
        prop_assert_eq!(&wire["eventType"], &sent["eventType"]);
        prop_assert_eq!(wire.get("aggregateId").cloned(), aggregate.map(|text| json!(text)));
        prop_assert_eq!(wire.get("channels").cloned(), (!channels.is_empty()).then(|| json!(channels)));
        prop_assert_eq!(wire.get("metadata").cloned(), (!metadata.is_empty()).then(|| json!(metadata)));
        prop_assert_eq!(&wire["data"], &sent["data"]);
        prop_assert!(same_content(&bytes, Some(event.data()), event.supplied, &event));
    }

    #[test]
    fn no_change_of_a_byte_makes_anything_panic(place: prop::sample::Index, byte: u8, other_place: prop::sample::Index, other: u8) {
        let mut text = FULL.as_bytes().to_vec();
        let (at, other_at) = (place.index(text.len()), other_place.index(text.len()));
        text[at] = byte;
        text[other_at] = other;
        let parsed = Draft::parse(&Bytes::from(text), &EventLimits::default());
        prop_assert!(parsed.is_ok() || parsed.is_err_and(|violations| !violations.is_empty()));
        let mut stored = header(&encode(FULL), Some(42));
        let at = place.index(stored.len());
        stored[at] = byte;
        let _ = (Header::parse(&stored), subject_of(&stored), type_of(&stored), Header::parse(&stored[..at]));
    }
}
