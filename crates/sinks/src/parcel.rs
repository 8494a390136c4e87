//! What a sink is given.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem;
use tidings_core::event::{EventType, Header};
use tidings_core::id::EventId;
use tidings_core::offset::Offset;

/// Where the name of a trace context stands in a header; prepared, for every attempt looks for it.
static TRACEPARENT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"traceparent\""));

/// One attempt of one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Id of the event, the same at every attempt.
    pub id: &'a EventId,
    /// Its place in the tenant's order.
    pub offset: Offset,
    /// What happened.
    pub event_type: &'a EventType,
    /// The stored header (see `tidings_core::event`).
    pub header: &'a Bytes,
    /// The payload; `None`: erased.
    pub data: Option<&'a Bytes>,
    /// The wire form `envelope`, if the event has it at hand: the same bytes as header and data would make.
    pub envelope: Option<&'a Bytes>,
    /// Counts from 1.
    pub attempt: u32,
    /// The replay that this delivery is part of.
    pub replay: Option<&'a str>,
}

impl Parcel<'_> {
    /// The W3C trace context that the producer gave, if any.
    pub fn traceparent(&self) -> Option<Box<str>> {
        // Most events have none, and then the header need not be parsed.
        TRACEPARENT.find(self.header)?;
        let header = Header::parse(self.header).ok()?;
        header.metadata.into_iter().find(|(name, _)| &**name == "traceparent").map(|(_, value)| value)
    }
}
