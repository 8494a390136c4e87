//! Mail against a server of the test's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tidings_core::event::EventType;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HEADER: &str = r#"{"eventId":"e1","eventType":"tidings.webhook.deactivated","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/tidings","aggregateId":"wh_1","sequenceNumber":4"#;
const GOOD: &[(&str, &str)] = &[
    ("EHLO", "250-here\r\n250 AUTH PLAIN"),
    ("AUTH", "235 ok"),
    ("MAIL", "250 ok"),
    ("RCPT", "250 ok"),
    ("DATA", "354 go on"),
    (".", "250 queued"),
];

/// A server that answers each command as the list says, and ends; it tells what it heard.
async fn server(answers: Vec<(&'static str, &'static str)>) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut heard = String::new();
        stream.write_all(b"220 here\r\n").await.unwrap();
        let mut in_data = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return heard;
            }
            heard += &line;
            let command = line.split_whitespace().next().unwrap_or_default().to_owned();
            if in_data && command != "." {
                continue;
            }
            in_data = command == "DATA";
            let answer = answers.iter().find(|(known, _)| *known == command);
            let answer = answer.map_or("221 bye", |(_, answer)| answer);
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        }
    });
    (port, heard)
}

fn mail(port: u16, security: Security) -> Mail {
    let settings = Settings {
        host: "127.0.0.1".into(),
        port,
        security,
        ca_pem: None,
        login: Some(("user".into(), Zeroizing::new("secret".into()))),
        from: "Tidings <tidings@example.com>".into(),
        to: "ops@example.com".into(),
        timeout: Duration::from_secs(5),
    };
    Mail::new(settings, || NOW).unwrap()
}

async fn deliver(mail: &Mail, data: &'static [u8]) -> Outcome {
    let (id, header, data) = (EventId::parse("e1").unwrap(), Bytes::from(HEADER), Bytes::from(data));
    let event_type = EventType::parse("tidings.webhook.deactivated").unwrap();
    let parcel = Parcel {
        id: &id,
        offset: Offset(1),
        event_type: &event_type,
        header: &header,
        data: Some(&data),
        envelope: None,
        attempt: 1,
        replay: None,
    };
    mail.deliver(&[parcel]).await.pop().unwrap()
}

#[tokio::test]
async fn an_event_is_a_short_mail_in_plain_words() {
    let (port, heard) = server(GOOD.to_vec()).await;
    let outcome = deliver(&mail(port, Security::None), br#"{"reason":"status 410"}"#).await;
    assert_eq!(outcome, Outcome::Delivered(Answer { status: Some(250), text: Some("queued".into()) }));
    let heard = heard.await.unwrap();
    for line in [
        // "\0user\0secret" in base64.
        "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n",
        "MAIL FROM:<tidings@example.com>",
        "RCPT TO:<ops@example.com>",
        "From: Tidings <tidings@example.com>\r\n",
        "Subject: [Tidings] tidings.webhook.deactivated: wh_1\r\n",
        "Date: Fri, 15 Jan 2027 08:00:00 -0000\r\n",
        "Message-ID: <e1@tidings>\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n",
    ] {
        assert!(heard.contains(line), "{line} in {heard}");
    }
    let text = text(&heard);
    for line in ["When:   2026-11-22T10:15:30.123Z\r\n", "About:  wh_1\r\n", r#"{"reason":"status 410"}"#] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// The text of the mail that was heard.
fn text(heard: &str) -> String {
    let (_, body) = heard.split_once("\r\n\r\n").unwrap();
    let (body, _) = body.split_once("\r\n.\r\n").unwrap();
    assert!(body.lines().all(|line| line.len() <= 76), "{body}");
    String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap()
}

#[tokio::test]
async fn data_cannot_end_the_mail_or_add_a_header() {
    let (port, heard) = server(GOOD.to_vec()).await;
    let data = b"\"\r\n.\r\nMAIL FROM:<a@b>\r\n\"";
    assert!(matches!(deliver(&mail(port, Security::None), data).await, Outcome::Delivered(_)));
    let heard = heard.await.unwrap();
    assert_eq!(heard.matches("\r\n.\r\n").count(), 1, "{heard}");
    assert!(!heard.contains("<a@b>") && text(&heard).contains("MAIL FROM:<a@b>"), "{heard}");
}

#[tokio::test]
async fn a_refusal_of_the_mail_is_final_and_everything_else_is_not() {
    for (command, answer, rejected) in [
        ("RCPT", "550 nobody here", true),
        (".", "554 no", true),
        ("RCPT", "450 later", false),
        ("AUTH", "535 wrong", false),
        ("MAIL", "421 busy", false),
    ] {
        let mut answers = GOOD.to_vec();
        answers.iter_mut().find(|(known, _)| *known == command).unwrap().1 = answer;
        let (port, _heard) = server(answers).await;
        let outcome = deliver(&mail(port, Security::None), b"null").await;
        let code: u16 = answer[..3].parse().unwrap();
        let (reason, said) = match &outcome {
            Outcome::Reject { reason, answer } if rejected => (reason, answer),
            Outcome::Retry { reason, answer, .. } if !rejected => (reason, answer),
            other => panic!("{command} {answer}: {other:?}"),
        };
        assert_eq!((&**reason, said.status), (&*format!("status {code}"), Some(code)));
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_text_where_security_was_asked_for() {
    let (port, heard) = server(GOOD.to_vec()).await;
    let outcome = deliver(&mail(port, Security::StartTls), b"null").await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    assert!(!heard.await.unwrap().contains("AUTH"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_connect_and_one_that_is_silent_a_timeout() {
    let reason = |outcome| match outcome {
        Outcome::Retry { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(&*reason(deliver(&mail(1, Security::None), b"null").await), "connect");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut mail = mail(listener.local_addr().unwrap().port(), Security::None);
    mail.timeout = Duration::from_millis(100);
    assert_eq!(&*reason(deliver(&mail, b"null").await), "timeout");
}

#[test]
fn what_is_no_mail_address_is_refused() {
    for to in ["ops", "ops@", "ops@example.com\r\nBcc: a@b", ""] {
        let settings = Settings {
            host: "localhost".into(),
            port: 25,
            security: Security::None,
            ca_pem: None,
            login: None,
            from: "tidings@example.com".into(),
            to: to.into(),
            timeout: Duration::from_secs(1),
        };
        assert!(Mail::new(settings, || NOW).unwrap_err().contains("mail address"), "{to:?}");
    }
}
