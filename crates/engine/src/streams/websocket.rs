//! WebSocket: the frames that a server sends (RFC 6455, section 5), and the words of Tidings in them.

use std::fmt::Write as _;

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::Record;

use super::guest::Ending;
use super::sse;

/// The longest head of a frame that is not masked.
pub const HEAD_BYTES_MAX: usize = 10;
/// What a client may send in one message.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Whole messages in one frame.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// A ping without payload.
pub(super) const PING: [u8; 2] = [0x89, 0];

/// Why a connection is closed (RFC 6455, section 7.4, and the registry of its codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u16,
    /// For people; at most 123 bytes.
    pub(super) reason: &'static str,
}

impl Close {
    pub(super) const BROKEN: Self = Self { code: 1002, reason: "a frame that breaks RFC 6455" };
    pub(super) const BINARY: Self = Self { code: 1003, reason: "binary messages are not taken: send text" };
    pub(super) const NOT_UTF8: Self = Self { code: 1007, reason: "a text that is not UTF-8" };
    pub(super) const SILENT: Self = Self { code: 1008, reason: "no answer to a ping: come back and resume by offset" };
    pub(super) const TOO_LARGE: Self = Self { code: 1009, reason: "a message has at most 64 KiB" };

    fn of(ending: Ending) -> Self {
        let (code, reason) = match ending {
            Ending::Drain => (1012, "the server stops: come back after retryAfterMs and resume by offset"),
            Ending::Unavailable => (1013, "the log cannot be read: come back after retryAfterMs"),
            Ending::Revoked => (4001, "the key was revoked: come back with another"),
            Ending::Expired => (4002, "the key or ticket has expired: come back with another"),
            Ending::Replaced => (4003, "the ticket opened another connection: one at a time"),
            Ending::Overloaded => (4004, "as many are open as may be: come back after retryAfterMs"),
        };
        Self { code, reason }
    }

    /// Appends the frame.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        head(out, CLOSE, self.reason.len() + 2);
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(self.reason.as_bytes());
    }
}

fn head(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a text message.
pub fn text(out: &mut Vec<u8>, message: &[u8]) {
    head(out, TEXT, message.len());
    out.extend_from_slice(message);
}

/// Appends a message that is no text.
pub(super) fn binary(out: &mut Vec<u8>, message: &[u8]) {
    head(out, BINARY, message.len());
    out.extend_from_slice(message);
}

/// Appends the part of an event's message that is the same for all subscriptions.
pub(super) fn tail(out: &mut Vec<u8>, event: &Record<'_>) {
    out.extend_from_slice(b",\"offset\":");
    sse::number(out, event.offset.0);
    out.extend_from_slice(b",\"event\":");
    for part in event.envelope() {
        out.extend_from_slice(part);
    }
    out.push(b'}');
}

/// Appends the message of an event whose `tail` is known, for a subscription whose name is quoted JSON.
pub(super) fn event(out: &mut Vec<u8>, subscription: &str, tail: &[u8]) {
    const BEGIN: &[u8] = b"{\"type\":\"event\",\"subscription\":";
    head(out, TEXT, BEGIN.len() + subscription.len() + tail.len());
    out.extend_from_slice(BEGIN);
    out.extend_from_slice(subscription.as_bytes());
    out.extend_from_slice(tail);
}

/// Says that everything up to `through` was replayed and what follows is live; the name is quoted JSON.
pub(super) fn complete(subscription: &str, through: Offset) -> Vec<u8> {
    status(format_args!("\"subscription\":{subscription},\"replay\":\"complete\",\"through\":{through}"))
}

/// Says that retention took what was to come next: the subscription goes on with `first`; the name is quoted JSON.
pub(super) fn gap(subscription: &str, first: Offset) -> Vec<u8> {
    status(format_args!("\"subscription\":{subscription},\"replay\":\"gap\",\"from\":{first}"))
}

/// Moves the cursor of a subscription past events that its filter drops; the name is quoted JSON.
pub(super) fn cursor(subscription: &str, through: Offset) -> Vec<u8> {
    status(format_args!("\"subscription\":{subscription},\"cursor\":{through}"))
}

/// Says when the connection will end because what opened it expires.
pub(super) fn expiring(at: Timestamp) -> Vec<u8> {
    status(format_args!("\"expiring\":\"{at}\""))
}

/// The last words of a connection: why it ends, when to come back, and the frame that closes it.
pub fn closing(ending: Ending, retry_millis: u64) -> Vec<u8> {
    let mut words = status(format_args!("\"closing\":\"{}\",\"retryAfterMs\":{retry_millis}", ending.name()));
    Close::of(ending).write(&mut words);
    words
}

fn status(members: std::fmt::Arguments<'_>) -> Vec<u8> {
    let mut message = String::from("{\"type\":\"status\",");
    // Writing to a String cannot fail.
    let _ = write!(message, "{members}}}");
    let mut frame = Vec::with_capacity(message.len() + HEAD_BYTES_MAX);
    text(&mut frame, message.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_the_length_in_as_few_bytes_as_may_be() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[TEXT, 0]),
            (125, &[TEXT, 125]),
            (126, &[TEXT, 126, 0, 126]),
            (65_535, &[TEXT, 126, 255, 255]),
            (65_536, &[TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (300_000, &[TEXT, 127, 0, 0, 0, 0, 0, 4, 147, 224]),
        ];
        for (length, expected) in cases {
            let mut out = Vec::new();
            text(&mut out, &vec![b'x'; length]);
            assert_eq!(&out[..expected.len()], expected);
            assert_eq!(out.len(), expected.len() + length);
        }
    }

    #[test]
    fn last_words_say_why_and_when_to_come_back_and_close() {
        let words = closing(Ending::Drain, 700);
        let message = br#"{"type":"status","closing":"drain","retryAfterMs":700}"#;
        assert_eq!(&words[2..2 + message.len()], message);
        assert_eq!(&words[2 + message.len()..][..4], &[CLOSE, 69, 0x03, 0xf4]);
        for ending in [Ending::Drain, Ending::Unavailable, Ending::Revoked, Ending::Expired, Ending::Replaced] {
            assert!(Close::of(ending).reason.len() <= 123, "a control frame has at most 125 bytes");
        }
    }
}
