//! Webhooks against a local receiver.

use std::sync::LazyLock;

use tidings_core::event::EventType;
use tidings_core::id::EventId;
use tidings_core::signature::verify_v1;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_999);
static HEADER: LazyLock<Bytes> = LazyLock::new(|| {
    Bytes::from_static(
        br#"{"eventId":"e1","eventType":"order.created","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/s","aggregateId":"o1","sequenceNumber":4,"metadata":{"traceparent":"00-0a-0b-01"}"#,
    )
});

fn webhook(format: Format) -> Webhook {
    let policy = Policy::dev();
    let target = Target::parse("http://127.0.0.1:1/hooks", &policy).unwrap();
    let door = Door::new(policy, Resolver::system().unwrap(), Trust::new(None).unwrap());
    let settings = Settings {
        target,
        secrets: vec![SigningSecret::from_random([7; 32])],
        keys: vec![],
        format,
        headers: Headers::default(),
        timeout: Duration::from_secs(1),
        keep_answers: true,
    };
    Webhook::new(Arc::new(door), settings, || NOW)
}

fn request(format: Format, data: Option<&Bytes>) -> (HeaderMap, String) {
    let id = EventId::parse("e1").unwrap();
    let event_type = EventType::parse("order.created").unwrap();
    let parcel = Parcel { id: &id, event_type: &event_type, header: &HEADER, data, attempt: 2 };
    let (headers, body) = webhook(format).request(&parcel, NOW).unwrap();
    let signature = headers[WEBHOOK_SIGNATURE].to_str().unwrap();
    assert!(verify_v1(&SigningSecret::from_random([7; 32]), "e1", 1_800_000_000, &body, signature));
    (headers, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn each_format_has_its_body_and_its_content_type() {
    let data = Bytes::from_static(b"[1.10]");
    let (headers, body) = request(Format::Envelope, Some(&data));
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert!(body.starts_with(r#"{"eventId":"e1","#) && body.ends_with(r#","data":[1.10]}"#), "{body}");

    let (headers, body) = request(Format::CloudEvents, Some(&data));
    assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json");
    assert!(body.contains(r#""specversion":"1.0""#) && body.ends_with(r#""data":[1.10]}"#), "{body}");

    let (headers, body) = request(Format::CloudEventsBinary, Some(&data));
    assert_eq!(
        (&headers[CONTENT_TYPE], &headers["ce-id"], &headers["ce-subject"]),
        (
            &HeaderValue::from_static("application/json"),
            &HeaderValue::from_static("e1"),
            &HeaderValue::from_static("o1"),
        )
    );
    assert_eq!(body, "[1.10]");
}

#[test]
fn the_headers_of_the_protocol_win_over_the_webhooks_own() {
    let (headers, _) = request(Format::Envelope, None);
    for (name, value) in [
        ("authorization", "Bearer t"),
        ("webhook-id", "e1"),
        ("webhook-timestamp", "1800000000"),
        ("tidings-event-type", "order.created"),
        ("tidings-attempt", "2"),
        ("traceparent", "00-0a-0b-01"),
    ] {
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
}

#[test]
fn erased_data_is_marked_in_every_format() {
    assert!(request(Format::Envelope, None).1.contains(r#""erased":true"#));
    assert!(request(Format::CloudEvents, None).1.contains(r#""erased":true"#));
    let (headers, body) = request(Format::CloudEventsBinary, None);
    assert_eq!((&headers["ce-erased"], &*body), (&HeaderValue::from_static("true"), ""));
}

#[test]
fn formats_have_the_names_of_the_contract() {
    for (format, name) in [
        (Format::Envelope, r#""envelope""#),
        (Format::CloudEvents, r#""cloudevents""#),
        (Format::CloudEventsBinary, r#""cloudevents-binary""#),
    ] {
        assert_eq!(serde_json::to_string(&format).unwrap(), name);
        assert_eq!(serde_json::from_str::<Format>(name).unwrap(), format);
    }
}

#[test]
fn only_a_2xx_is_success() {
    let judged = |status: u16| {
        let status = http::StatusCode::from_u16(status).unwrap();
        judge(&Response { status, retry_after: None, body_start: Bytes::new() }, NOW)
    };
    for status in [200, 201, 204, 299] {
        assert_eq!(judged(status), Outcome::Delivered { status: Some(status) });
    }
    for (status, reason) in
        [(301, "redirect"), (307, "redirect"), (404, "status 404"), (410, "status 410"), (503, "status 503")]
    {
        assert_eq!(judged(status), retry(reason.into(), Some(status), None));
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let cases = [
        ("120", Some(120_000)),
        ("Fri, 15 Jan 2027 08:00:02 GMT", Some(1001)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        ("-1", None),
        ("soon", None),
    ];
    for (text, millis) in cases {
        assert_eq!(retry_after(text, NOW), millis.map(Duration::from_millis), "{text}");
    }
}
