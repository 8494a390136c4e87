//! An event as a producer sent it.

use std::borrow::Cow;

use bytes::Bytes;

use super::{AggregateId, Channel, EventLimits, EventType, Fields};
use crate::id::EventId;
use crate::json;
use crate::problem::{Rule, Violation};
use crate::time::Timestamp;

/// An event as a producer sent it, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// The producer's own id; none: Tidings makes one.
    pub id: Option<EventId>,
    /// What happened.
    pub event_type: EventType,
    /// Version of the type, from 1.
    pub version: Option<u32>,
    /// When it happened, as the producer says.
    pub timestamp: Option<Timestamp>,
    /// The service that says so, a URI-reference.
    pub source: Option<Box<str>>,
    /// What it is about.
    pub aggregate: Option<AggregateId>,
    /// Whom it concerns; each once.
    pub channels: Vec<Channel>,
    /// Pairs in the order they were sent.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// JSON, byte for byte as sent, without the white space around it: a slice of the request.
    pub data: Bytes,
    /// Append only if this is the aggregate's last number.
    pub expected_sequence: Option<u64>,
}

impl Draft {
    /// Reads one event object.
    ///
    /// Errors: all that is wrong with it, not only the first, as long as it is JSON; pointers start at the event.
    pub fn parse(text: &Bytes, limits: &EventLimits) -> Result<Self, Vec<Violation>> {
        let mut form = Form::default();
        members(text, limits, |name, value| form.note(name, value))?;
        form.read(text, limits)
    }
}

/// Hands out the members of an event object; void after an error, as in [`json::object`].
pub(crate) fn members<'a>(
    text: &'a [u8],
    limits: &EventLimits,
    member: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), Vec<Violation>> {
    if text.trim_ascii_start().starts_with(b"{") {
        return json::object(text, &limits.json, member).map_err(|error| vec![error.into()]);
    }
    json::check(text, &limits.json).map_err(|error| vec![error.into()])?;
    Err(vec![Violation::new("", Rule::WrongType, "an event is a JSON object")])
}

/// The members of an event, raw, before they are judged.
#[derive(Default)]
struct Form<'a> {
    id: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    timestamp: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    aggregate: Option<&'a [u8]>,
    channels: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    expected_sequence: Option<&'a [u8]>,
    fields: Fields,
}

impl<'a> Form<'a> {
    fn note(&mut self, raw_name: &'a [u8], value: &'a [u8]) {
        let name = if raw_name.contains(&b'\\') {
            json::unquote(raw_name).map_or(Cow::Borrowed(raw_name), |name| Cow::Owned(name.into_owned().into_bytes()))
        } else {
            Cow::Borrowed(&raw_name[1..raw_name.len() - 1])
        };
        let slot = match &*name {
            b"eventId" => &mut self.id,
            b"eventType" => &mut self.event_type,
            b"version" => &mut self.version,
            b"timestamp" => &mut self.timestamp,
            b"source" => &mut self.source,
            b"aggregateId" => &mut self.aggregate,
            b"channels" => &mut self.channels,
            b"metadata" => &mut self.metadata,
            b"expectedSequence" => &mut self.expected_sequence,
            // A null here is the data; everywhere else it means that there is none.
            b"data" => {
                self.data = Some(value);
                return;
            }
            other => return self.refuse_member(other),
        };
        *slot = Some(value).filter(|value| *value != b"null");
    }

    #[cold]
    fn refuse_member(&mut self, name: &[u8]) {
        let mut pointer = String::new();
        json::push_step(&mut pointer, &String::from_utf8_lossy(name));
        match name {
            b"sequenceNumber" => {
                let message = "sequenceNumber is given by the log: leave it out, or send expectedSequence to append only after that number";
                self.fields.refuse(pointer, Rule::Reserved, message);
            }
            b"offset" | b"recordedAt" => {
                let message = format!("{} is given by the log: leave it out", String::from_utf8_lossy(name));
                self.fields.refuse(pointer, Rule::Reserved, message);
            }
            _ => {
                let message = "an event has no such member: put it into data or, as a string, into metadata";
                self.fields.refuse(pointer, Rule::UnknownField, message);
            }
        }
    }

    fn read(mut self, text: &Bytes, limits: &EventLimits) -> Result<Draft, Vec<Violation>> {
        let fields = &mut self.fields;
        let string =
            |fields: &mut Fields, pointer, raw: Option<&'a [u8]>| raw.and_then(|raw| fields.text(pointer, raw));
        let id = string(fields, "/eventId", self.id).and_then(|text| fields.id("/eventId", &text));
        let event_type =
            string(fields, "/eventType", self.event_type).and_then(|text| fields.event_type("/eventType", &text));
        let version = self.version.and_then(|raw| fields.version("/version", raw));
        let timestamp =
            string(fields, "/timestamp", self.timestamp).and_then(|text| fields.timestamp("/timestamp", &text));
        let source = string(fields, "/source", self.source).and_then(|text| fields.source("/source", &text));
        let aggregate =
            string(fields, "/aggregateId", self.aggregate).and_then(|text| fields.aggregate("/aggregateId", &text));
        let channels = self.channels.map_or_else(Vec::new, |raw| fields.channels("/channels", raw, limits));
        let metadata = self.metadata.map_or_else(Vec::new, |raw| fields.metadata("/metadata", raw, limits));
        let data = self.data.and_then(|raw| fields.data("/data", text.slice_ref(raw), limits));
        let expected_sequence = self.expected_sequence.and_then(|raw| fields.whole_number("/expectedSequence", raw));
        self.require();
        let complete = event_type.zip(data).map(|(event_type, data)| Draft {
            id,
            event_type,
            version,
            timestamp,
            source,
            aggregate,
            channels,
            metadata,
            data,
            expected_sequence,
        });
        self.fields.finish(complete)
    }

    fn require(&mut self) {
        if self.event_type.is_none() {
            self.fields.refuse(
                "/eventType",
                Rule::Missing,
                "eventType is required: what happened, as in `order.created`",
            );
        }
        if self.data.is_none() {
            self.fields.refuse("/data", Rule::Missing, "data is required: send null if there is nothing to tell");
        }
        if self.expected_sequence.is_some() && self.aggregate.is_none() {
            self.fields.refuse(
                "/expectedSequence",
                Rule::Invalid,
                "expectedSequence counts the events of an aggregate: name it in aggregateId",
            );
        }
    }
}
