//! An event that comes in parts, as from the columns of a row.

use bytes::Bytes;

use super::{CHANNELS_MAX, Channel, Draft, EventLimits, Fields};
use crate::json;
use crate::problem::{Rule, Violation};
use crate::time::Timestamp;

/// The fields of an event as they lie in a row, none of them judged yet.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// The producer's own id.
    pub id: Option<&'a str>,
    /// What happened.
    pub event_type: &'a str,
    /// Version of the type.
    pub version: Option<i64>,
    /// When it happened.
    pub timestamp: Option<Timestamp>,
    /// The service that says so.
    pub source: Option<&'a str>,
    /// What it is about.
    pub aggregate: Option<&'a str>,
    /// Whom it concerns.
    pub channels: &'a [String],
    /// A JSON object of strings.
    pub metadata: Option<&'a [u8]>,
    /// JSON, any.
    pub data: Bytes,
}

impl Draft {
    /// Judges the parts of an event by the rules that hold for one that was sent whole.
    ///
    /// Errors: all that is wrong with it; pointers are those of the event.
    pub fn from_parts(parts: &Parts<'_>, limits: &EventLimits) -> Result<Self, Vec<Violation>> {
        let mut fields = Fields::default();
        let id = parts.id.and_then(|text| fields.id("/eventId", text));
        let event_type = fields.event_type("/eventType", parts.event_type);
        let version = parts.version.and_then(|number| fields.version("/version", number.to_string().as_bytes()));
        let source = parts.source.and_then(|text| fields.source("/source", text));
        let aggregate = parts.aggregate.and_then(|text| fields.aggregate("/aggregateId", text));
        let channels = channels(&mut fields, parts.channels);
        let metadata = parts.metadata.filter(|raw| raw.trim_ascii() != b"null");
        let metadata = metadata.map_or_else(Vec::new, |raw| fields.metadata("/metadata", raw, limits));
        // Size first: what is too large need not be read.
        let data = fields.data("/data", parts.data.slice_ref(parts.data.trim_ascii()), limits);
        if let Some(Err(error)) = data.as_ref().map(|data| json::check(data, &limits.json)) {
            let message = format!("data is JSON: {}", error.message);
            fields.refuse(format!("/data{}", error.pointer), error.fault.into(), message);
        }
        let complete = event_type.zip(data).map(|(event_type, data)| Self {
            id,
            event_type,
            version,
            timestamp: parts.timestamp,
            source,
            aggregate,
            channels,
            metadata,
            data,
            expected_sequence: None,
        });
        fields.finish(complete)
    }
}

/// Each channel once.
fn channels(fields: &mut Fields, texts: &[String]) -> Vec<Channel> {
    if texts.len() > CHANNELS_MAX {
        let message = format!("an event has at most {CHANNELS_MAX} channels, this one names {}", texts.len());
        fields.refuse("/channels", Rule::TooLong, message);
        return Vec::new();
    }
    let mut channels = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Channel::parse(text) {
            Ok(channel) if channels.contains(&channel) => {}
            Ok(channel) => channels.push(channel),
            Err(message) => fields.refuse(format!("/channels/{index}"), Rule::Invalid, message),
        }
    }
    channels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_and_the_same_event_sent_whole_are_one() {
        let channels = ["user:1".to_owned(), "user:1".to_owned()];
        let parts = Parts {
            id: Some("a-1"),
            event_type: "order.created",
            version: Some(2),
            timestamp: Timestamp::parse_rfc3339("2026-11-22T10:15:30.123Z"),
            source: Some("/orders"),
            aggregate: Some("order_1"),
            channels: &channels,
            metadata: Some(br#"{"actor":"u"}"#),
            data: Bytes::from_static(b" {\"total\": 1.0} "),
        };
        let whole = br#"{"eventId":"a-1","eventType":"order.created","version":2,"timestamp":"2026-11-22T10:15:30.123Z",
            "source":"/orders","aggregateId":"order_1","channels":["user:1"],"metadata":{"actor":"u"},"data":{"total": 1.0}}"#;
        let limits = EventLimits::default();
        assert_eq!(Draft::from_parts(&parts, &limits), Draft::parse(&Bytes::from_static(whole), &limits));
    }

    #[test]
    fn everything_that_is_wrong_with_a_row_is_told() {
        let channels = [String::new()];
        let parts = Parts {
            id: Some("a.b"),
            event_type: "Order",
            version: Some(0),
            source: Some(" "),
            aggregate: Some(""),
            channels: &channels,
            metadata: Some(b"[1]"),
            data: Bytes::from_static(br#"{"a":1,"a":2}"#),
            ..Parts::default()
        };
        let found = Draft::from_parts(&parts, &EventLimits::default()).expect_err("all of it is wrong");
        let pointers: Vec<_> = found.iter().map(|violation| violation.pointer.as_str()).collect();
        let wanted =
            ["/eventId", "/eventType", "/version", "/source", "/aggregateId", "/channels/0", "/metadata", "/data/a"];
        assert_eq!(pointers, wanted, "{found:?}");
    }
}
