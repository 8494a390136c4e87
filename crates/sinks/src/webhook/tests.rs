//! Webhooks against a local receiver.

use std::sync::LazyLock;

use tidings_core::event::EventType;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::signature::verify_v1;
use tidings_egress::{Policy, Resolver, Trust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_999);
static HEADER: LazyLock<Bytes> = LazyLock::new(|| {
    Bytes::from_static(
        br#"{"eventId":"e1","eventType":"order.created","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/s","aggregateId":"o1","sequenceNumber":4,"metadata":{"traceparent":"00-0a-0b-01"}"#,
    )
});

fn secret(byte: u8) -> SigningSecret {
    SigningSecret::from_random([byte; 32])
}

fn webhook(url: &str, format: Format, secrets: Vec<SigningSecret>, keys: Vec<SecretKey>) -> Webhook {
    let policy = Policy::dev();
    let target = Target::parse(url, &policy).unwrap();
    let door = Door::new(policy, Resolver::system().unwrap(), Trust::new(None).unwrap());
    let headers = Headers::parse([("Authorization", "Bearer t")]).unwrap();
    let timeout = Duration::from_secs(5);
    let settings = Settings { target, secrets, keys, format, headers, timeout, keep_answers: true };
    Webhook::new(Arc::new(door), settings, || NOW)
}

/// Gives a receiver's answer to each request, and what it was sent: head and body.
async fn receiver(answers: Vec<&'static str>) -> (String, JoinHandle<Vec<(String, Vec<u8>)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let requests = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let mut body = vec![0; field(&head, "content-length").unwrap().parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            requests.push((head, body));
        }
        requests
    });
    (url, requests)
}

/// The only value of a header.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let values: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).filter(|(n, _)| *n == name).collect();
    assert!(values.len() <= 1, "{name} in {head}");
    values.first().map(|(_, value)| *value)
}

struct Given<'a> {
    data: Option<&'a Bytes>,
    envelope: Option<&'a Bytes>,
    attempt: u32,
    replay: Option<&'a str>,
}

async fn deliver(webhook: &Webhook, given: &Given<'_>) -> Outcome {
    let (id, event_type) = (EventId::parse("e1").unwrap(), EventType::parse("order.created").unwrap());
    let Given { data, envelope, attempt, replay } = *given;
    let parcel = Parcel {
        id: &id,
        offset: Offset(1),
        event_type: &event_type,
        header: &HEADER,
        data,
        envelope,
        attempt,
        replay,
    };
    webhook.deliver(&[parcel]).await.pop().unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

async fn sent(format: Format, data: Option<&Bytes>) -> (String, String) {
    let (url, requests) = receiver(vec![OK]).await;
    let webhook = webhook(&url, format, vec![secret(7)], vec![]);
    let outcome = deliver(&webhook, &Given { data, envelope: None, attempt: 2, replay: None }).await;
    assert_eq!(outcome, Outcome::Delivered(Answer { status: Some(200), text: None }));
    let (head, body) = requests.await.unwrap().pop().unwrap();
    let signature = field(&head, "webhook-signature").unwrap();
    assert!(verify_v1(&secret(7), "e1", 1_800_000_000, &body, signature));
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn each_format_has_its_body_and_its_content_type() {
    let data = Bytes::from_static(b"[1.10]");
    let (head, body) = sent(Format::Envelope, Some(&data)).await;
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    assert!(body.starts_with(r#"{"eventId":"e1","#) && body.ends_with(r#","data":[1.10]}"#), "{body}");

    let (head, body) = sent(Format::CloudEvents, Some(&data)).await;
    assert_eq!(field(&head, "content-type"), Some("application/cloudevents+json"));
    assert!(body.contains(r#""specversion":"1.0""#) && body.ends_with(r#""data":[1.10]}"#), "{body}");

    let (head, body) = sent(Format::CloudEventsBinary, Some(&data)).await;
    assert_eq!(
        (field(&head, "content-type"), field(&head, "ce-id"), field(&head, "ce-subject")),
        (Some("application/json"), Some("e1"), Some("o1"))
    );
    assert_eq!(body, "[1.10]");
}

#[tokio::test]
async fn each_header_is_there_once() {
    let (head, _) = sent(Format::Envelope, None).await;
    assert!(head.starts_with("POST /hooks HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("Authorization", "Bearer t"),
        ("accept-encoding", "identity"),
        ("user-agent", AGENT),
        ("webhook-id", "e1"),
        ("webhook-timestamp", "1800000000"),
        ("tidings-event-type", "order.created"),
        ("tidings-attempt", "2"),
        ("traceparent", "00-0a-0b-01"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{name}");
    }
    assert_eq!(field(&head, "tidings-replay"), None);
}

#[tokio::test]
async fn erased_data_is_marked_in_every_format() {
    assert!(sent(Format::Envelope, None).await.1.contains(r#""erased":true"#));
    assert!(sent(Format::CloudEvents, None).await.1.contains(r#""erased":true"#));
    let (head, body) = sent(Format::CloudEventsBinary, None).await;
    assert_eq!((field(&head, "ce-erased"), &*body), (Some("true"), ""));
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_the_same_bytes() {
    let data = Bytes::from_static(b"{ \"a\": 1.0 }");
    let envelope = Bytes::from(event::envelope(&HEADER, Some(&data)));
    for format in [Format::Envelope, Format::CloudEvents, Format::CloudEventsBinary] {
        let (url, requests) = receiver(vec!["HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", OK, OK]).await;
        let webhook = webhook(&url, format, vec![secret(7)], vec![]);
        for (attempt, envelope, replay) in
            [(1, None, None), (2, Some(&envelope), None), (1, Some(&envelope), Some("rp_9"))]
        {
            deliver(&webhook, &Given { data: Some(&data), envelope, attempt, replay }).await;
        }
        let requests = requests.await.unwrap();
        for (head, body) in &requests {
            assert_eq!((field(head, "webhook-id"), body), (Some("e1"), &requests[0].1));
        }
        let replays: Vec<_> = requests.iter().map(|(head, _)| field(head, "tidings-replay")).collect();
        assert_eq!(replays, [None, None, Some("rp_9")]);
    }
}

#[tokio::test]
async fn while_secrets_rotate_each_signs() {
    let key = SecretKey::from_random([3; 32]);
    let (url, requests) = receiver(vec![OK]).await;
    let webhook = webhook(&url, Format::Envelope, vec![secret(8), secret(7)], vec![key]);
    deliver(&webhook, &Given { data: None, envelope: None, attempt: 1, replay: None }).await;
    let (head, body) = requests.await.unwrap().pop().unwrap();
    let header = field(&head, "webhook-signature").unwrap();
    assert!(verify_v1(&secret(7), "e1", 1_800_000_000, &body, header));
    assert!(verify_v1(&secret(8), "e1", 1_800_000_000, &body, header));
    let versions: Vec<_> = header.split(' ').map(|signature| signature.split(',').next().unwrap()).collect();
    assert_eq!(versions, ["v1", "v1", "v1a"]);
}

#[tokio::test]
async fn an_outcome_tells_what_the_endpoint_said() {
    let refused = "HTTP/1.1 400 Bad\r\ncontent-type: text/plain\r\nretry-after: 3\r\ncontent-length: 5\r\n\r\nno!\n\n";
    let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
    let (url, _requests) = receiver(vec![refused, gone]).await;
    let webhook = webhook(&url, Format::Envelope, vec![secret(7)], vec![]);
    let given = Given { data: None, envelope: None, attempt: 1, replay: None };
    let answer = Answer { status: Some(400), text: Some("no!\n\n".into()) };
    let retry_after = Some(Duration::from_secs(3));
    assert_eq!(deliver(&webhook, &given).await, Outcome::Retry { reason: "status 400".into(), answer, retry_after });
    let answer = Answer { status: Some(410), text: None };
    assert_eq!(deliver(&webhook, &given).await, Outcome::Gone { answer });
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
