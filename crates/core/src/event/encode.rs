//! From a draft to what the log keeps.

use bytes::{Buf as _, Bytes};

use super::{Draft, METADATA_MAX, Subject};
use crate::id::{EventId, uuid_v7};
use crate::json::quote;
use crate::time::Timestamp;
use crate::trace::TRACEPARENT;

/// What an event gets where its producer left it open.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// The timestamp, and the time in a made id.
    pub now: Timestamp,
    /// The source.
    pub source: &'a str,
    /// Chance: 10 bytes for the id, 16 for the salt.
    pub random: [u8; 26],
}

/// Which fields the producer supplied, as bits; stored, so a bit never changes its meaning.
///
/// `eventType` and `data` are always supplied and the id is what is looked up by, so none of them has a bit.
/// An empty list counts as not supplied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Supplied(pub u16);

impl Supplied {
    /// `version` was supplied.
    pub const VERSION: Self = Self(1);
    /// `timestamp` was supplied.
    pub const TIMESTAMP: Self = Self(1 << 1);
    /// `source` was supplied.
    pub const SOURCE: Self = Self(1 << 2);
    /// `aggregateId` was supplied.
    pub const AGGREGATE: Self = Self(1 << 3);
    /// `channels` were supplied.
    pub const CHANNELS: Self = Self(1 << 4);
    /// `metadata` was supplied.
    pub const METADATA: Self = Self(1 << 5);
    /// `traceparent` in the metadata is that of the request: a default, not content.
    pub const REQUEST_TRACE: Self = Self(1 << 6);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those bits of fields that make up the content.
    pub(super) const fn content(self) -> Self {
        Self(self.0 & !Self::REQUEST_TRACE.0)
    }

    fn of(draft: &Draft) -> Self {
        let bits = [
            (Self::VERSION, draft.version.is_some()),
            (Self::TIMESTAMP, draft.timestamp.is_some()),
            (Self::SOURCE, draft.source.is_some()),
            (Self::AGGREGATE, draft.aggregate.is_some()),
            (Self::CHANNELS, !draft.channels.is_empty()),
            (Self::METADATA, !draft.metadata.is_empty()),
        ];
        Self(bits.into_iter().filter(|(_, given)| *given).fold(0, |all, (bit, _)| all | bit.0))
    }
}

/// What a header has room for at first.
const HEAD_BYTES: usize = 320;
/// What stands before the data of an envelope.
pub(super) const DATA_MEMBER: &[u8] = b",\"data\":";
/// What stands before a sequence number, and the digits that it may have.
const SEQUENCE_MEMBER: &[u8] = b",\"sequenceNumber\":";
const DIGITS_MAX: usize = 20;

/// An event ready to append; only the sequence number is missing.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// What filters and lanes look at.
    pub subject: Subject,
    /// Whether the producer chose the id: then it may come again.
    pub id_given: bool,
    /// Append only if this is the aggregate's last number.
    pub expected_sequence: Option<u64>,
    /// Which fields the producer supplied.
    pub supplied: Supplied,
    /// Goes into the chain with the data, so that its digest tells nothing once the data is erased.
    pub salt: [u8; 16],
    /// Room for the sequence number, then the envelope without it. Who gives the number moves what stands before it to the
    /// left: no other memory is needed for the envelope then.
    wire: Vec<u8>,
    /// Where the envelope begins.
    begin: usize,
    /// Where `,"sequenceNumber":N` goes.
    splice: usize,
    /// Where the data begins.
    data: usize,
}

impl Draft {
    /// As [`Draft::encode`], with the `traceparent` of the request for an event that has none of its own.
    pub fn encode_traced(mut self, defaults: &Defaults<'_>, traceparent: &str) -> Encoded {
        let supplied = Supplied::of(&self);
        if self.metadata.len() >= METADATA_MAX || self.metadata.iter().any(|(name, _)| &**name == TRACEPARENT) {
            return self.encode(defaults);
        }
        self.metadata.push((TRACEPARENT.into(), traceparent.into()));
        Encoded { supplied: Supplied(supplied.0 | Supplied::REQUEST_TRACE.0), ..self.encode(defaults) }
    }

    /// Fills the defaults and writes the header.
    pub fn encode(self, defaults: &Defaults<'_>) -> Encoded {
        let supplied = Supplied::of(&self);
        let (for_id, salt) = split(defaults.random);
        let id_given = self.id.is_some();
        let id = self.id.unwrap_or_else(|| EventId::from_uuid(&uuid_v7(defaults.now, for_id)));
        let mut head = Vec::with_capacity(HEAD_BYTES);
        // Id, type and time are of characters that need no escape.
        head.extend_from_slice(b"{\"eventId\":\"");
        head.extend_from_slice(id.as_str().as_bytes());
        head.extend_from_slice(b"\",\"eventType\":\"");
        head.extend_from_slice(self.event_type.as_str().as_bytes());
        head.extend_from_slice(b"\",\"version\":");
        push_number(&mut head, u64::from(self.version.unwrap_or(1)));
        head.extend_from_slice(b",\"timestamp\":\"");
        head.extend_from_slice(&self.timestamp.unwrap_or(defaults.now).to_ascii());
        head.extend_from_slice(b"\",\"source\":");
        quote(&mut head, self.source.as_deref().unwrap_or(defaults.source));
        if let Some(aggregate) = &self.aggregate {
            head.extend_from_slice(b",\"aggregateId\":");
            quote(&mut head, aggregate.as_str());
        }
        let splice = head.len();
        for (index, channel) in self.channels.iter().enumerate() {
            head.extend_from_slice(if index == 0 { b",\"channels\":[" } else { b"," });
            quote(&mut head, channel.as_str());
        }
        if !self.channels.is_empty() {
            head.push(b']');
        }
        for (index, (name, value)) in self.metadata.iter().enumerate() {
            head.extend_from_slice(if index == 0 { b",\"metadata\":{" } else { b"," });
            quote(&mut head, name);
            head.push(b':');
            quote(&mut head, value);
        }
        if !self.metadata.is_empty() {
            head.push(b'}');
        }
        let subject = Subject { id, event_type: self.event_type, aggregate: self.aggregate, channels: self.channels };
        let begin = if subject.aggregate.is_some() { SEQUENCE_MEMBER.len() + DIGITS_MAX } else { 0 };
        let data = begin + head.len() + DATA_MEMBER.len();
        // Exactly as long as it becomes: so it is shared later without another piece of memory.
        let mut wire = Vec::with_capacity(data + self.data.len() + 1);
        wire.resize(begin, b' ');
        wire.extend_from_slice(&head);
        wire.extend_from_slice(DATA_MEMBER);
        wire.extend_from_slice(&self.data);
        wire.push(b'}');
        Encoded {
            subject,
            id_given,
            expected_sequence: self.expected_sequence,
            supplied,
            salt,
            wire,
            begin,
            splice: begin + splice,
            data,
        }
    }
}

fn split(random: [u8; 26]) -> ([u8; 10], [u8; 16]) {
    let mut for_id = [0; 10];
    let mut salt = [0; 16];
    for_id.copy_from_slice(&random[..10]);
    salt.copy_from_slice(&random[10..]);
    (for_id, salt)
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let (digits, from) = digits(number);
    out.extend_from_slice(&digits[from..]);
}

/// The decimal digits of a number, and where they begin.
fn digits(mut number: u64) -> ([u8; DIGITS_MAX], usize) {
    let mut digits = [0; DIGITS_MAX];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return (digits, from);
        }
    }
}

impl Encoded {
    /// The data, JSON as sent.
    pub fn data(&self) -> &[u8] {
        &self.wire[self.data..self.wire.len() - 1]
    }

    /// The header without a sequence number: the JSON envelope up to, not including, `,"data":`, and without the closing
    /// brace.
    pub fn header(&self) -> &[u8] {
        &self.wire[self.begin..self.data - DATA_MEMBER.len()]
    }

    /// Gives away the whole envelope, and how long the stored header in it is. It can be asked for once.
    ///
    /// The number is left out of an event without an aggregate, whatever is given.
    pub fn take_envelope(&mut self, sequence: Option<u64>) -> (Bytes, usize) {
        let mut wire = std::mem::take(&mut self.wire);
        let mut begin = self.begin;
        if let Some(sequence) = sequence.filter(|_| self.subject.aggregate.is_some()) {
            let (digits, from) = digits(sequence);
            let digits = &digits[from..];
            begin -= SEQUENCE_MEMBER.len() + digits.len();
            wire.copy_within(self.begin..self.splice, begin);
            let member = self.splice - SEQUENCE_MEMBER.len() - digits.len();
            wire[member..self.splice - digits.len()].copy_from_slice(SEQUENCE_MEMBER);
            wire[self.splice - digits.len()..self.splice].copy_from_slice(digits);
        }
        let mut envelope = Bytes::from(wire);
        envelope.advance(begin);
        (envelope, self.data - DATA_MEMBER.len() - begin)
    }

    /// Bytes of memory the event takes, about: for the bounds of queues.
    pub fn weight(&self) -> usize {
        // The texts of the subject also stand in the header.
        size_of::<Self>() + self.wire.len() + self.header().len()
    }
}
