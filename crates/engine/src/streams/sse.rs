//! Server-Sent Events: the frames (WHATWG HTML, section 9.2).

use std::fmt::Write as _;

use tidings_core::json;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::Record;

use super::guest::Ending;
use super::resume::Resume;

/// Appends the frame of one event: its id is the offset, its data one line of JSON.
///
/// Without `named` there is no `event:` line, so that `onmessage` sees everything.
pub fn event(out: &mut Vec<u8>, event: &Record<'_>, named: bool) {
    out.extend_from_slice(b"id: ");
    number(out, event.offset.0);
    if named {
        out.extend_from_slice(b"\nevent: ");
        out.extend_from_slice(event.event_type().as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    let [header, member, data, end] = event.envelope();
    out.extend_from_slice(header);
    out.extend_from_slice(member);
    // A line break in `data` is white space between tokens there: JSON strings cannot hold one, and headers have none.
    out.extend_from_slice(&json::compact(data));
    out.extend_from_slice(end);
    out.extend_from_slice(b"\n\n");
}

pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    let from = out.len();
    loop {
        out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[from..].reverse();
}

/// A heartbeat. On a filtered stream it carries the cursor past events that the filter drops; it dispatches nothing.
pub fn keepalive(cursor: Option<Offset>) -> String {
    match cursor {
        Some(cursor) => format!(":keepalive\nid: {cursor}\n\n"),
        None => ":keepalive\n\n".to_owned(),
    }
}

/// A heartbeat that scripts can see.
pub const PING: &str = "event: ping\ndata: {}\n\n";

/// The first block: the cursor, so that a client can resume before it got an event, and the time as in [`retry`].
pub fn hello(cursor: Offset, retry_millis: u64) -> String {
    format!("id: {cursor}\nretry: {retry_millis}\n\n")
}

/// How long a client waits before it comes back, in milliseconds.
pub fn retry(millis: u64) -> String {
    format!("retry: {millis}\n\n")
}

/// Says what a client that resumed misses.
pub fn resumed(resume: Resume) -> Option<String> {
    match resume {
        Resume::Whole => None,
        Resume::Gap(first) => Some(gap(first)),
        Resume::Reset(first) => Some(status(&[("replay", "\"reset\""), ("from", &first.to_string())])),
    }
}

/// Says that retention took what was to come next: the stream goes on with `first`.
pub fn gap(first: Offset) -> String {
    status(&[("replay", "\"gap\""), ("from", &first.to_string())])
}

/// Says that everything up to `through` was replayed and what follows is live.
pub fn complete(through: Offset) -> String {
    status(&[("replay", "\"complete\""), ("through", &through.to_string())])
}

/// Says when the stream will end because what opened it expires.
pub fn expiring(at: Timestamp) -> String {
    status(&[("expiring", &format!("\"{at}\""))])
}

/// The last words of a stream: when to come back, and why it ends.
pub fn closing(ending: Ending, retry_millis: u64) -> String {
    retry(retry_millis) + &status(&[("closing", &format!("\"{}\"", ending.name()))])
}

fn status(members: &[(&str, &str)]) -> String {
    let mut text = String::from("event: tidings.status\ndata: {");
    for (index, (name, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}\"{name}\":{value}");
    }
    text.push_str("}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_event_of_its_own() {
        let gap = resumed(Resume::Gap(Offset(7)));
        assert_eq!(gap.as_deref(), Some("event: tidings.status\ndata: {\"replay\":\"gap\",\"from\":7}\n\n"));
        assert_eq!(resumed(Resume::Whole), None);
        let last = "retry: 5\n\nevent: tidings.status\ndata: {\"closing\":\"drain\"}\n\n";
        assert_eq!(closing(Ending::Drain, 5), last);
    }

    #[test]
    fn a_heartbeat_moves_the_cursor_and_dispatches_nothing() {
        assert_eq!(keepalive(Some(Offset(9))), ":keepalive\nid: 9\n\n");
        assert!(!keepalive(None).contains("data:"));
    }

    #[test]
    fn numbers_are_written_as_digits() {
        for value in [0, 7, 10, 1_042, u64::MAX] {
            let mut out = b"x".to_vec();
            number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), format!("x{value}"));
        }
    }
}
