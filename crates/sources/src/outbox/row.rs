//! One row of an outbox, before anybody has judged it.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tidings_core::event::{Draft, EventLimits, Parts};
use tidings_core::id::EventId;
use tidings_core::problem::{Rule, Violation};
use tidings_core::time::Timestamp;

/// A row as it lies in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its number in the table: grows in the order in which rows of one aggregate were written.
    pub number: u64,
    /// The event's id.
    pub event_id: Option<String>,
    /// What happened.
    pub event_type: String,
    /// Version of the type.
    pub version: Option<i64>,
    /// When it happened: as the application says, else when the row was written.
    pub timestamp: Option<Timestamp>,
    /// When it happened, if the application says so in a text that is no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_timestamp: Option<String>,
    /// The service that says so.
    pub source: Option<String>,
    /// What it is about.
    pub aggregate_id: Option<String>,
    /// Whom it concerns.
    pub channels: Vec<String>,
    /// A JSON object of strings.
    #[serde(with = "text")]
    pub metadata: Option<Bytes>,
    /// JSON.
    #[serde(with = "text")]
    pub data: Option<Bytes>,
    /// Whether `data` is no event's data but a whole event, as it is published; the rest repeats what it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
}

impl Row {
    /// The event that the row is, or all that is wrong with it.
    pub fn draft(&self, limits: &EventLimits) -> Result<Draft, Vec<Violation>> {
        if self.whole {
            return self.whole_draft(limits);
        }
        let parts = Parts {
            id: self.event_id.as_deref(),
            event_type: &self.event_type,
            version: self.version,
            timestamp: self.timestamp,
            source: self.source.as_deref(),
            aggregate: self.aggregate_id.as_deref(),
            channels: &self.channels,
            metadata: self.metadata.as_deref(),
            data: self.data.clone().unwrap_or(Bytes::from_static(b"null")),
        };
        let draft = Draft::from_parts(&parts, limits);
        let Some(text) = &self.no_timestamp else { return draft };
        let message = format!("{text:?} is no time as RFC 3339 writes it, as in 2026-11-22T10:15:30Z");
        let mut violations = draft.err().unwrap_or_default();
        violations.push(Violation::new("/timestamp", Rule::Invalid, message));
        Err(violations)
    }
}

/// What is in a whole event of what a row needs to be told apart.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    event_id: Option<String>,
    event_type: Option<String>,
    aggregate_id: Option<String>,
}

impl Row {
    /// A whole event, as it is published. `id`: that of an event that has none.
    pub(super) fn of_whole(number: u64, id: String, timestamp: Timestamp, event: &[u8]) -> Self {
        // What is no event at all is put aside under no name.
        let names: Names = serde_json::from_slice(event).unwrap_or_default();
        Self {
            number,
            event_id: Some(names.event_id.unwrap_or(id)),
            event_type: names.event_type.unwrap_or_default(),
            timestamp: Some(timestamp),
            aggregate_id: names.aggregate_id,
            data: Some(Bytes::copy_from_slice(event)),
            whole: true,
            ..Self::default()
        }
    }

    fn whole_draft(&self, limits: &EventLimits) -> Result<Draft, Vec<Violation>> {
        let mut draft = Draft::parse(self.data.as_ref().unwrap_or(&Bytes::new()), limits)?;
        if draft.expected_sequence.is_some() {
            let message = "its transaction is committed, whatever the aggregate's last number is: leave it out";
            return Err(vec![Violation::new("/expectedSequence", Rule::Invalid, message)]);
        }
        if let (None, Some(id)) = (&draft.id, &self.event_id) {
            let invalid = |error| vec![Violation::new("/eventId", Rule::Invalid, error)];
            draft.id = Some(EventId::parse(id).map_err(invalid)?);
        }
        draft.timestamp = draft.timestamp.or(self.timestamp);
        Ok(draft)
    }
}

/// A JSON array of strings. What is none becomes an empty channel, which the gate refuses.
pub(super) fn channels(text: &[u8]) -> Vec<String> {
    let channel = |value: Value| match value {
        Value::String(channel) => channel,
        _ => String::new(),
    };
    serde_json::from_slice(text)
        .map_or_else(|_| vec![String::new()], |all: Vec<_>| all.into_iter().map(channel).collect())
}

/// Bytes as a string: what is put aside is shown to people, and may be anything but JSON.
mod text {
    use super::{Bytes, Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(String::from_utf8_lossy).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Bytes::from))
    }
}
