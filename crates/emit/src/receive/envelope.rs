//! What a delivery, a stream or a queue tells: the envelope, read.

use std::collections::BTreeMap;

use serde::Deserialize;
use tidings_core::id::EventId;

/// An event as the gateway sends it (format `envelope`), with its data as `T`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<T> {
    /// Id of the event.
    pub event_id: EventId,
    /// What happened, such as `order.created`.
    pub event_type: String,
    /// Version of the type.
    pub version: u32,
    /// When it happened, RFC 3339.
    pub timestamp: String,
    /// The service that says so.
    pub source: String,
    /// What it is about.
    pub aggregate_id: Option<String>,
    /// Place among the events of its aggregate, from 1.
    pub sequence_number: Option<u64>,
    /// Whom it concerns.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Pairs such as `actor`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What there is to tell.
    pub data: T,
}

impl<'de, T: Deserialize<'de>> Envelope<T> {
    /// Reads the body of a delivery.
    pub fn read(body: &'de [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_with_and_without_what_may_be_absent() {
        let whole = br#"{"eventId":"e1","eventType":"order.shipped","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/orders","aggregateId":"order_1","sequenceNumber":42,"channels":["user:u_17"],"metadata":{"actor":"u_17"},"data":{"total":42}}"#;
        let event = Envelope::<serde_json::Value>::read(whole).unwrap();
        assert_eq!((event.aggregate_id.as_deref(), event.sequence_number), (Some("order_1"), Some(42)));
        assert_eq!(event.data["total"], 42);
        let bare = br#"{"eventId":"e1","eventType":"a.b","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/","data":null,"later":1}"#;
        let event = Envelope::<()>::read(bare).unwrap();
        assert_eq!((event.aggregate_id, event.sequence_number), (None, None));
    }
}
