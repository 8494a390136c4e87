//! An event as the log keeps it.

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
    /// The wire form; `header` and the data are slices of it.
    pub(crate) envelope: Bytes,
    /// The JSON envelope without `data` (see `tidings_core::event`).
    pub header: Bytes,
    /// What became of the payload.
    pub data: Data,
}

/// The payload of an event.
#[derive(Clone, Debug)]
pub enum Data {
    /// As sent, byte for byte, with the salt of its digest.
    Kept {
        /// The bytes.
        bytes: Bytes,
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
        encoded: Encoded,
        tenant: Tenant,
        offset: Offset,
        recorded: Timestamp,
        sequence: Option<u64>,
    ) -> Arc<Self> {
        let (envelope, header, bytes) = encode(&encoded.header(sequence), &encoded.data);
        Arc::new(Self {
            tenant,
            offset,
            recorded,
            subject: encoded.subject,
            sequence,
            supplied: encoded.supplied,
            envelope,
            header,
            data: Data::Kept { bytes, salt: encoded.salt },
        })
    }

    /// The payload, or `None` when it was erased.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Kept { bytes, .. } => Some(bytes),
            Data::Erased { .. } => None,
        }
    }

    /// The wire form `envelope`: one JSON object, encoded once.
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }

    /// Its leaf in the chain.
    pub fn leaf(&self) -> Hash {
        let digest = match &self.data {
            Data::Kept { bytes, salt } => chain::data_digest(salt, bytes),
            Data::Erased { digest } => *digest,
        };
        chain::leaf(self.offset, self.recorded, &self.header, &digest)
    }

    /// The same event without its payload.
    pub(crate) fn erased(&self) -> Self {
        let data = match &self.data {
            Data::Kept { bytes, salt } => Data::Erased { digest: chain::data_digest(salt, bytes) },
            erased @ Data::Erased { .. } => erased.clone(),
        };
        let envelope = event::envelope(&self.header, None).into();
        // The header must not keep the memory of the erased data alive.
        Self { data, envelope, header: Bytes::copy_from_slice(&self.header), ..self.clone() }
    }

    /// Bytes of memory that it holds, about.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.envelope.len() + 128
    }
}

/// Envelope, header and data in one piece of memory of their own: a request's body is not kept alive by its events.
pub(crate) fn encode(header: &[u8], data: &[u8]) -> (Bytes, Bytes, Bytes) {
    let envelope = Bytes::from(event::envelope(header, Some(data)));
    // `…header…,"data":…data…}`
    let (header, bytes) =
        (envelope.slice(..header.len()), envelope.slice(envelope.len() - 1 - data.len()..envelope.len() - 1));
    (envelope, header, bytes)
}
