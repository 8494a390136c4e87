//! An event that an application tells of, and its check against the rules of the envelope.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tidings_core::event::{Draft, EventLimits};
use tidings_core::id::EventId;
use tidings_core::problem::{Rule, Violation};
use tidings_core::time::Timestamp;

use crate::clock;

/// What happened, not yet told. Checked when it is emitted or published, by the rules of the gateway.
#[derive(Debug)]
#[must_use = "an event is told when it is emitted or published"]
pub struct Event {
    pub(crate) fields: Fields,
    data: Result<Box<RawValue>, String>,
}

/// The members of the envelope as they were given; absent ones are filled in by the gateway.
#[derive(Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_sequence: Option<u64>,
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(flatten)]
    fields: &'a Fields,
    data: &'a RawValue,
}

impl Event {
    /// An event of a type, such as `order.created`, with its data.
    pub fn new<T: Serialize + ?Sized>(event_type: impl Into<String>, data: &T) -> Self {
        let fields = Fields { event_type: event_type.into(), ..Fields::default() };
        Self { fields, data: to_raw_value(data).map_err(|error| error.to_string()) }
    }

    /// What it is about: the key of ordering. In a transaction, emit after the change: then the lock on the changed row
    /// orders the events as it orders the changes.
    pub fn aggregate(mut self, id: impl Into<String>) -> Self {
        self.fields.aggregate_id = Some(id.into());
        self
    }

    /// Whom it concerns, besides those who were named before.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.fields.channels.push(channel.into());
        self
    }

    /// A metadata pair, such as `actor` or `correlationId`; a name that was given before gets the new value.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.metadata.insert(name.into(), value.into());
        self
    }

    /// Version of the type, from 1.
    pub fn version(mut self, version: u32) -> Self {
        self.fields.version = Some(version);
        self
    }

    /// When it happened, if that is not now.
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.fields.timestamp = Some(timestamp);
        self
    }

    /// The service that says so, a URI reference such as `/orders-api`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.fields.source = Some(source.into());
        self
    }

    /// An id of your own, unique in the tenant. Without one it gets a `UUIDv7`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.fields.event_id = Some(id.into());
        self
    }

    /// Append only if this is the aggregate's last sequence number; 0: it is new. Only for publishing by HTTP: in a
    /// transaction the database decides.
    pub fn expected_sequence(mut self, last: u64) -> Self {
        self.fields.expected_sequence = Some(last);
        self
    }

    /// Checks it and gives it an id, if it has none.
    pub(crate) fn checked(mut self) -> Result<Checked, Invalid> {
        self.fields.event_id.get_or_insert_with(|| clock::event_id().as_str().to_owned());
        let refuse = |message| Invalid(vec![Violation::new("/data", Rule::Invalid, message)]);
        let data = self.data.map_err(|error| refuse(format!("data cannot be written as JSON: {error}")))?;
        let text = serde_json::to_vec(&Wire { fields: &self.fields, data: &data });
        let text = Bytes::from(text.map_err(|error| refuse(error.to_string()))?);
        let draft = Draft::parse(&text, &EventLimits::default()).map_err(Invalid)?;
        let Some(id) = draft.id.clone() else { unreachable!("the id was given above") };
        Ok(Checked { id, text, draft, fields: self.fields })
    }
}

/// An event that keeps the rules.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) id: EventId,
    /// The JSON to publish.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only publishing sends it whole"))]
    pub(crate) text: Bytes,
    pub(crate) draft: Draft,
    pub(crate) fields: Fields,
}

/// The event breaks rules of the envelope: all that is wrong with it. Nothing was sent or written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid(pub Vec<Violation>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event breaks a rule of the envelope")?;
        for (index, violation) in self.0.iter().enumerate() {
            write!(f, "{} {violation}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_it_was_given() {
        let data = serde_json::json!({"total": 42.50});
        let event = Event::new("order.created", &data).aggregate("order_1").channel("user:u_17").channel("shop:1");
        let event = event.metadata("actor", "u_16").metadata("actor", "u_17").version(2).source("/orders").id("o1");
        let checked = event.timestamp(Timestamp::from_millis(0)).checked().unwrap();
        assert_eq!(
            checked.text,
            r#"{"eventId":"o1","eventType":"order.created","version":2,"timestamp":"1970-01-01T00:00:00.000Z","source":"/orders","aggregateId":"order_1","channels":["user:u_17","shop:1"],"metadata":{"actor":"u_17"},"data":{"total":42.5}}"#
        );
    }

    #[test]
    fn an_event_without_an_id_gets_one_of_its_own() {
        let [one, two] = [(); 2].map(|()| Event::new("order.created", &()).checked().unwrap());
        assert_ne!(one.id, two.id);
        assert_eq!(one.draft.id, Some(one.id));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let wrong = Event::new("Created", &1).aggregate("").version(0).checked().err().unwrap();
        let pointers: Vec<&str> = wrong.0.iter().map(|violation| violation.pointer.as_str()).collect();
        assert_eq!(pointers, ["/eventType", "/version", "/aggregateId"]);
        assert!(wrong.to_string().contains("/version: "), "{wrong}");
        assert!(Event::new("tidings.webhook.created", &1).checked().is_err());
    }

    #[test]
    fn data_that_is_no_json_is_refused() {
        let wrong = Event::new("order.created", &BTreeMap::from([((1, 2), 3)])).checked().err().unwrap();
        assert_eq!(wrong.0[0].pointer, "/data");
    }
}
