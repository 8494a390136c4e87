//! An event as the log keeps it.

use std::borrow::Cow;
use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use tidings_core::chain::{self, Hash};
use tidings_core::event::{self, Encoded, Subject, Supplied};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

/// A tenant's number in this log. It never leaves the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u32);

/// A committed event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its place in the tenant's order.
    pub offset: Offset,
    /// When the log took it.
    pub recorded: Timestamp,
    /// What filters and lanes look at.
    pub subject: Subject,
    /// Its place in its aggregate.
    pub sequence: Option<u64>,
    /// Which fields the producer gave.
    pub supplied: Supplied,
    /// The wire form.
    pub(crate) envelope: Bytes,
    /// How much of it is the stored header.
    pub(crate) header_bytes: usize,
    /// What became of the payload.
    pub data: Data,
}

/// An event where the log has it, for who passes it on without an [`Event`] of it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its place in the tenant's order.
    pub offset: Offset,
    /// As [`Event::header`].
    pub header: &'a [u8],
    /// As [`Event::bytes`].
    pub data: Option<&'a [u8]>,
}

/// The payload of an event.
#[derive(Clone, Debug)]
pub enum Data {
    /// It is in the envelope as sent, byte for byte.
    Kept {
        /// Random, so that the digest in the chain cannot be guessed after an erasure.
        salt: [u8; 16],
    },
    /// Erased; what the chain needs is left.
    Erased {
        /// `SHA-256(salt ‖ data)`.
        digest: Hash,
    },
}

impl Event {
    /// The event that `encoded` becomes once the log has given it its place.
    pub(crate) fn commit(
        mut encoded: Encoded,
        tenant: Tenant,
        offset: Offset,
        recorded: Timestamp,
        sequence: Option<u64>,
    ) -> Arc<Self> {
        let (envelope, header_bytes) = encoded.take_envelope(sequence);
        Arc::new(Self {
            tenant,
            offset,
            recorded,
            subject: encoded.subject,
            sequence,
            supplied: encoded.supplied,
            envelope,
            header_bytes,
            data: Data::Kept { salt: encoded.salt },
        })
    }

    /// The stored header: the JSON envelope without `data` (see `tidings_core::event`).
    pub fn header(&self) -> &[u8] {
        &self.envelope[..self.header_bytes]
    }

    /// The payload, or `None` when it was erased.
    pub fn bytes(&self) -> Option<&[u8]> {
        matches!(self.data, Data::Kept { .. }).then(|| event::data_of(&self.envelope, self.header_bytes))
    }

    /// What of it is passed on.
    pub fn record(&self) -> Record<'_> {
        Record { offset: self.offset, header: self.header(), data: self.bytes() }
    }

    /// A part of the envelope, for whoever keeps it: what [`Event::header`] or [`Event::bytes`] gave.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.envelope.slice_ref(part)
    }

    /// The wire form `envelope`: one JSON object, encoded once.
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }

    /// Its leaf in the chain.
    pub fn leaf(&self) -> Hash {
        chain::leaf(self.offset, self.recorded, self.header(), &self.digest())
    }

    /// `SHA-256(salt ‖ data)`.
    fn digest(&self) -> Hash {
        match &self.data {
            Data::Kept { salt } => chain::data_digest(salt, self.bytes().unwrap_or_default()),
            Data::Erased { digest } => *digest,
        }
    }

    /// The same event without its payload.
    pub(crate) fn erased(&self) -> Self {
        let data = Data::Erased { digest: self.digest() };
        Self { data, envelope: event::envelope(self.header(), None).into(), ..self.clone() }
    }

    /// Bytes of memory that it holds, about.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.envelope.len() + 128
    }
}

impl<'a> Record<'a> {
    /// Its type; empty if the header is damaged.
    pub fn event_type(&self) -> Cow<'a, str> {
        event::type_of(self.header).unwrap_or_default()
    }

    /// The parts of its wire form, as [`Event::envelope`] has them; the third is the data.
    pub fn envelope(&self) -> [&'a [u8]; 4] {
        event::envelope_parts(self.header, self.data)
    }
}
