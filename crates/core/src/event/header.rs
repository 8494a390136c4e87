//! Headers read back from the log.

use std::borrow::Cow;

use super::encode::DATA_MEMBER;
use super::{AggregateId, Channel, EventType, Subject};
use crate::id::EventId;
use crate::json::{self, Limits, Scanner, unquote};
use crate::time::Timestamp;

/// A header read back from the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What filters and lanes look at.
    pub subject: Subject,
    /// Version of the type.
    pub version: u32,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who said so.
    pub source: Box<str>,
    /// Number in its aggregate.
    pub sequence: Option<u64>,
    /// Pairs in the order they were sent.
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

impl Header {
    /// Reads a stored header. Members it does not know are skipped: a newer Tidings may have written them.
    ///
    /// Errors: a sentence for the log; a header that cannot be read means a damaged file.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut subject = Parts::default();
        let (mut version, mut timestamp, mut source) = (None, None, None);
        let mut metadata = Vec::new();
        each_member(bytes, |name, raw| {
            match name {
                b"\"version\"" => version = Some(number(raw)?.try_into().ok()?),
                b"\"timestamp\"" => timestamp = Some(Timestamp::parse_rfc3339(&unquote(raw)?)?),
                b"\"source\"" => source = Some(unquote(raw)?.into()),
                b"\"metadata\"" => metadata = pairs(raw)?,
                _ => subject.member(name, raw)?,
            }
            Some(())
        })?;
        let (subject, sequence) = subject.whole()?;
        Ok(Self {
            subject,
            version: version.ok_or_else(|| missing("version"))?,
            timestamp: timestamp.ok_or_else(|| missing("timestamp"))?,
            source: source.ok_or_else(|| missing("source"))?,
            sequence,
            metadata,
        })
    }
}

/// Just the subject and the sequence number, for reads that filter. Errors as [`Header::parse`].
pub fn subject_of(header: &[u8]) -> Result<(Subject, Option<u64>), String> {
    let mut subject = Parts::default();
    each_member(header, |name, raw| subject.member(name, raw))?;
    subject.whole()
}

/// Just the type, for who passes events on: far less work, as it stands where [`Draft::encode`](super::Draft::encode)
/// puts it. Errors as [`Header::parse`], but what stands after it is not looked at.
pub fn type_of(header: &[u8]) -> Result<Cow<'_, str>, String> {
    // Neither an id nor a type has a character that needs an escape.
    let place = || {
        let id = header.strip_prefix(b"{\"eventId\":\"")?;
        let event_type = id.get(memchr::memchr(b'"', id)?..)?.strip_prefix(b"\",\"eventType\":\"")?;
        str::from_utf8(event_type.get(..memchr::memchr(b'"', event_type)?)?).ok()
    };
    match place() {
        Some(event_type) => Ok(event_type.into()),
        None => subject_of(header).map(|(subject, _)| subject.event_type.0.into_string().into()),
    }
}

/// The wire envelope of a stored header and its data; erased data (`None`) shows as null, marked.
pub fn envelope(header: &[u8], data: Option<&[u8]>) -> Vec<u8> {
    envelope_parts(header, data).concat()
}

/// The parts of [`envelope`], for who writes it elsewhere; the third is the data.
pub fn envelope_parts<'a>(header: &'a [u8], data: Option<&'a [u8]>) -> [&'a [u8]; 4] {
    [header, DATA_MEMBER, data.unwrap_or(b"null,\"erased\":true"), b"}"]
}

/// The data in an envelope that has it, behind a header of `header_bytes`.
pub fn data_of(envelope: &[u8], header_bytes: usize) -> &[u8] {
    &envelope[header_bytes + DATA_MEMBER.len()..envelope.len() - 1]
}

#[derive(Default)]
struct Parts {
    id: Option<EventId>,
    event_type: Option<EventType>,
    aggregate: Option<AggregateId>,
    channels: Vec<Channel>,
    sequence: Option<u64>,
}

impl Parts {
    /// Takes what was checked when it was written: rules that grow stricter must not make old events unreadable.
    fn member(&mut self, name: &[u8], raw: &[u8]) -> Option<()> {
        match name {
            b"\"eventId\"" => self.id = Some(EventId::stored(&unquote(raw)?)),
            b"\"eventType\"" => self.event_type = Some(EventType(unquote(raw)?.into())),
            b"\"aggregateId\"" => self.aggregate = Some(AggregateId(unquote(raw)?.into())),
            b"\"sequenceNumber\"" => self.sequence = Some(number(raw)?),
            b"\"channels\"" => self.channels = channels(raw)?,
            _ => {}
        }
        Some(())
    }

    fn whole(self) -> Result<(Subject, Option<u64>), String> {
        let id = self.id.ok_or_else(|| missing("eventId"))?;
        let event_type = self.event_type.ok_or_else(|| missing("eventType"))?;
        Ok((Subject { id, event_type, aggregate: self.aggregate, channels: self.channels }, self.sequence))
    }
}

#[cold]
fn missing(name: &str) -> String {
    format!("a stored header is damaged: it has no {name}")
}

/// Hands out the members of a header, which is an object without its closing brace.
fn each_member<'a>(header: &'a [u8], mut member: impl FnMut(&'a [u8], &'a [u8]) -> Option<()>) -> Result<(), String> {
    let damaged = |_| "a stored header is damaged: it is not JSON".to_owned();
    str::from_utf8(header).map_err(|_| "a stored header is damaged: it is not UTF-8")?;
    let limits = Limits::default();
    let mut scanner = Scanner::new(header, &limits);
    let mut opened = scanner.take(b'{');
    while opened {
        let name = scanner.name().map_err(damaged)?;
        let value = scanner.value().map_err(damaged)?;
        member(name, value).ok_or_else(|| {
            format!("a stored header is damaged: its {} makes no sense", String::from_utf8_lossy(name))
        })?;
        if scanner.peek().is_none() {
            return Ok(());
        }
        opened = scanner.take(b',');
    }
    Err("a stored header is damaged: it is no list of members".into())
}

fn number(raw: &[u8]) -> Option<u64> {
    str::from_utf8(raw).ok()?.parse().ok()
}

fn channels(raw: &[u8]) -> Option<Vec<Channel>> {
    let mut channels = Some(Vec::new());
    let read = json::array(raw, &Limits::default(), |element| match (&mut channels, unquote(element)) {
        (Some(channels), Some(channel)) => channels.push(Channel(channel.into())),
        _ => channels = None,
    });
    read.ok().and(channels)
}

fn pairs(raw: &[u8]) -> Option<Vec<(Box<str>, Box<str>)>> {
    let mut pairs = Some(Vec::new());
    let read = json::object(raw, &Limits::default(), |name, value| match (&mut pairs, unquote(name), unquote(value)) {
        (Some(pairs), Some(name), Some(value)) => pairs.push((name.into(), value.into())),
        _ => pairs = None,
    });
    read.ok().and(pairs)
}
