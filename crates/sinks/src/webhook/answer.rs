//! What an endpoint's answer means.

use std::time::Duration;

use jiff::fmt::rfc2822;
use tidings_core::time::Timestamp;
use tidings_egress::Response;

use crate::{Answer, Outcome};

/// How much of an answer's text is kept, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Success is a 2xx; 410 is the end; everything else may be a success later.
pub(super) fn judge(response: &Response, now: Timestamp, keep: bool) -> Outcome {
    let status = response.status;
    let answer = Answer { status: Some(status), text: if keep { text(response) } else { None } };
    let reason = match status {
        200..=299 => return Outcome::Delivered(answer),
        410 => return Outcome::Gone { answer },
        300..=399 => "redirect".into(),
        _ => format!("status {status}").into(),
    };
    let retry_after = response.retry_after.as_deref().and_then(|text| retry_after(text, now));
    Outcome::Retry { reason, answer, retry_after }
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(date.as_millisecond()).since(now))
}

/// How a text begins, without control characters but for line feeds and tabs; `None` for anything but text.
fn text(response: &Response) -> Option<Box<str>> {
    if response.body_start.is_empty() || !is_text(response.content_type.as_deref()?) {
        return None;
    }
    let start = &response.body_start[..response.body_start.len().min(TEXT_BYTES_MAX)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // Cut within a character; else it is no text.
        Err(error) if error.error_len().is_none() && start.len() == TEXT_BYTES_MAX => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text: String = text.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect();
    Some(text.into())
}

fn is_text(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.starts_with("text/")
        || matches!(&*media, "application/json" | "application/xml")
        || (media.starts_with("application/") && (media.ends_with("+json") || media.ends_with("+xml")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_999);

    fn said(content_type: &str, body: &[u8]) -> Option<Box<str>> {
        let content_type = Some(content_type.into());
        text(&Response { status: 500, content_type, body_start: body.to_vec(), ..Response::default() })
    }

    #[test]
    fn only_a_2xx_is_success_and_410_is_the_end() {
        let judged = |status: u16| judge(&Response { status, ..Response::default() }, NOW, true);
        let answer = |status| Answer { status: Some(status), text: None };
        for status in [200, 201, 204, 299] {
            assert_eq!(judged(status), Outcome::Delivered(answer(status)));
        }
        assert_eq!(judged(410), Outcome::Gone { answer: answer(410) });
        for (status, reason) in [(301, "redirect"), (307, "redirect"), (404, "status 404"), (503, "status 503")] {
            let expected = Outcome::Retry { reason: reason.into(), answer: answer(status), retry_after: None };
            assert_eq!(judged(status), expected);
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

    #[test]
    fn text_is_kept_and_nothing_else() {
        for content_type in [
            "text/plain",
            "TEXT/html; charset=utf-8",
            "application/json",
            "application/problem+json",
            "application/vnd.a+json; a=b",
            "application/xml",
            "application/atom+xml",
        ] {
            assert_eq!(said(content_type, b"no\n").as_deref(), Some("no\n"), "{content_type}");
        }
        for content_type in ["image/png", "application/octet-stream", "json", "application/jsonp", ""] {
            assert_eq!(said(content_type, b"no"), None, "{content_type}");
        }
        assert_eq!(said("text/plain", b""), None);
        assert_eq!(said("text/plain", b"\xff\xfe"), None, "not UTF-8");
        assert_eq!(said("text/plain", b"half \xc3"), None, "ends within a character");
    }

    #[test]
    fn text_is_cut_between_characters_and_loses_its_control_characters() {
        assert_eq!(said("text/plain", b"a\x1b[31mb\r\n\tc\0\x7f").as_deref(), Some("a[31mb\n\tc"));
        let long = "x".repeat(TEXT_BYTES_MAX - 1) + "é and more";
        assert_eq!(said("text/plain", long.as_bytes()).map(|text| text.len()), Some(TEXT_BYTES_MAX - 1));
        assert_eq!(said("text/plain", "x".repeat(9000).as_bytes()).map(|text| text.len()), Some(TEXT_BYTES_MAX));
    }

    #[test]
    fn text_is_not_kept_if_the_operator_says_so() {
        let response = Response {
            status: 200,
            content_type: Some("text/plain".into()),
            body_start: b"inner".to_vec(),
            ..Response::default()
        };
        let text = |keep| match judge(&response, NOW, keep) {
            Outcome::Delivered(answer) => answer.text,
            other => panic!("{other:?}"),
        };
        assert_eq!((text(true).as_deref(), text(false)), (Some("inner"), None));
    }
}
