//! Whether an event that comes again under the same id says the same.

use super::{Channel, Encoded, Header, Supplied};
use crate::json;
use crate::trace::TRACEPARENT;

/// Whether a stored event and a new one have the same content: the same fields supplied, with equal values.
///
/// Defaults do not count, a `traceparent` that came with the request included. Data is compared as JSON ([`json::equal`]), channels and metadata without order, times to the
/// millisecond. Erased data (`None`) equals anything: what it was cannot be known any more. A damaged header equals nothing.
pub fn same_content(
    stored_header: &[u8],
    stored_data: Option<&[u8]>,
    stored_supplied: Supplied,
    new: &Encoded,
) -> bool {
    if stored_supplied.content() != new.supplied.content() {
        return false;
    }
    let (Ok(stored), Ok(given)) = (Header::parse(stored_header), Header::parse(new.header())) else {
        return false;
    };
    let supplied = |field| new.supplied.has(field);
    stored.subject.event_type == given.subject.event_type
        && stored.subject.aggregate == given.subject.aggregate
        && (!supplied(Supplied::VERSION) || stored.version == given.version)
        && (!supplied(Supplied::TIMESTAMP) || stored.timestamp == given.timestamp)
        && (!supplied(Supplied::SOURCE) || stored.source == given.source)
        && sorted(&stored.subject.channels) == sorted::<Channel>(&given.subject.channels)
        && metadata(&stored, stored_supplied) == metadata(&given, new.supplied)
        && stored_data.is_none_or(|data| json::equal(data, new.data()))
}

/// The pairs that the producer supplied.
fn metadata(header: &Header, supplied: Supplied) -> Vec<&(Box<str>, Box<str>)> {
    let mut pairs = sorted(&header.metadata);
    pairs.retain(|(name, _)| !(supplied.has(Supplied::REQUEST_TRACE) && &**name == TRACEPARENT));
    pairs
}

fn sorted<T: Ord>(items: &[T]) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Defaults;
    use crate::event::tests::{encode, header, parse};
    use crate::time::Timestamp;

    #[test]
    fn a_repeated_event_is_the_same_if_what_was_supplied_is() {
        let base = r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"}}"#;
        let cases = [
            (base, true),
            (
                r#"{"data":{"b":"\u00e4", "a":1},"metadata":{"l":"w","k":"v"},"channels":["d","c"],"aggregateId":"x","eventType":"a.b","eventId":"e"}"#,
                true,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"},"expectedSequence":0}"#,
                true,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1.0,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.c","aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"y","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"x"},"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","aggregateId":"x","channels":["c","d"],"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
            (
                r#"{"eventId":"e","eventType":"a.b","version":1,"aggregateId":"x","channels":["c","d"],"metadata":{"k":"v","l":"w"},"data":{"a":1,"b":"ä"}}"#,
                false,
            ),
        ];
        let stored = encode(base);
        let header = header(&stored, Some(9));
        for (text, same) in cases {
            assert_eq!(same_content(&header, Some(stored.data()), stored.supplied, &encode(text)), same, "{text}");
        }
        assert!(!same_content(b"{", Some(stored.data()), stored.supplied, &stored));
    }

    #[test]
    fn defaults_do_not_count_as_content() {
        let text = r#"{"eventId":"e","eventType":"a.b","data":1}"#;
        let stored = encode(text);
        let later = Defaults { now: Timestamp::from_millis(0), source: "/moved", random: [0; 26] };
        let again = parse(text).unwrap().encode(&later);
        assert!(same_content(stored.header(), Some(b"1"), stored.supplied, &again));
        let timed = |time: &str| {
            encode(&format!(r#"{{"eventId":"e","eventType":"a.b","data":1,"timestamp":"{time}","source":"/s"}}"#))
        };
        let stored = timed("2026-01-01T00:00:00.0004Z");
        let same = |new: &Encoded| same_content(stored.header(), Some(b"1"), stored.supplied, new);
        assert!(same(&timed("2026-01-01T01:00:00+01:00")));
        assert!(!same(&timed("2026-01-01T00:00:00.001Z")));
    }

    #[test]
    fn the_trace_of_the_request_does_not_count_as_content_and_one_of_the_event_does() {
        let defaults = Defaults { now: Timestamp::from_millis(0), source: "/s", random: [0; 26] };
        let traced = |text: &str, trace: &str| parse(text).unwrap().encode_traced(&defaults, trace);
        for metadata in ["", r#","metadata":{"k":"v"}"#] {
            let text = format!(r#"{{"eventId":"e","eventType":"a.b"{metadata},"data":1}}"#);
            let (first, second, plain) = (traced(&text, "t1"), traced(&text, "t2"), encode(&text));
            let stored = |event: &Encoded| str::from_utf8(event.header()).unwrap().to_owned();
            assert!(stored(&first).contains(r#""traceparent":"t1""#) && !stored(&plain).contains("traceparent"));
            for (old, new) in [(&first, &second), (&first, &plain), (&plain, &first)] {
                assert!(same_content(old.header(), Some(b"1"), old.supplied, new), "{text}");
            }
        }
        let own = r#"{"eventId":"e","eventType":"a.b","metadata":{"traceparent":"t1"},"data":1}"#;
        let (first, second) = (traced(own, "t2"), encode(&own.replace("t1", "t3")));
        assert!(str::from_utf8(first.header()).unwrap().contains(r#""traceparent":"t1""#));
        assert!(same_content(first.header(), Some(b"1"), first.supplied, &encode(own)));
        assert!(!same_content(first.header(), Some(b"1"), first.supplied, &second));
        let without = traced(r#"{"eventId":"e","eventType":"a.b","data":1}"#, "t1");
        assert!(!same_content(first.header(), Some(b"1"), first.supplied, &without));
    }

    #[test]
    fn erased_data_equals_anything() {
        let stored = encode(r#"{"eventId":"e","eventType":"a.b","data":1}"#);
        let other = encode(r#"{"eventId":"e","eventType":"a.b","data":2}"#);
        assert!(same_content(stored.header(), None, stored.supplied, &other));
        assert!(!same_content(stored.header(), Some(b"1"), stored.supplied, &other));
    }
}
