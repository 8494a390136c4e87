//! Events by which Tidings tells what happened to itself: `tidings.*`, in a tenant's log like all others.

use bytes::Bytes;

use super::{AggregateId, Defaults, Draft, Encoded, EventType};
use crate::time::Timestamp;

/// Their source.
const SOURCE: &str = "/tidings";

/// What an operational event says.
#[derive(Clone, Debug)]
pub struct Operational<'a> {
    /// What happened, `tidings.*`.
    pub event_type: &'a str,
    /// What it happened to, if that orders such events.
    pub about: Option<&'a str>,
    /// Who did it.
    pub actor: Option<&'a str>,
    /// A JSON text.
    pub data: Bytes,
}

impl Operational<'_> {
    /// Encodes it; the error says which name is wrong. `random` as in [`Defaults`].
    pub fn encode(self, now: Timestamp, random: [u8; 26]) -> Result<Encoded, String> {
        let draft = Draft {
            id: None,
            event_type: EventType::parse(self.event_type)?,
            version: None,
            timestamp: None,
            source: None,
            aggregate: self.about.map(AggregateId::parse).transpose()?,
            channels: Vec::new(),
            metadata: self.actor.map(|actor| ("actor".into(), actor.into())).into_iter().collect(),
            data: self.data,
            expected_sequence: None,
        };
        Ok(draft.encode(&Defaults { now, source: SOURCE, random }))
    }
}
