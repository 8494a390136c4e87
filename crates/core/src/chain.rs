//! The hash chain over a tenant's events.
//!
//! A leaf covers everything that is kept of an event but lets `data` be erased: it takes only a salted digest of it.
//! A seal covers a run of leaves and the seal before it. Both are part of the format on disk.

use sha2::{Digest, Sha256};

use crate::offset::Offset;
use crate::time::Timestamp;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The seal before the first one.
pub const GENESIS: Hash = [0; 32];

/// The digest of `data` that outlives it. The salt keeps it from being guessed once both are erased.
pub fn data_digest(salt: &[u8], data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(data);
    hasher.finalize().into()
}

/// The leaf of one event: `SHA-256(offset ‖ recordedAt ‖ header ‖ SHA-256(salt ‖ data))`, integers as big endian u64.
pub fn leaf(offset: Offset, recorded: Timestamp, header: &[u8], data_digest: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(offset.0.to_be_bytes());
    hasher.update(recorded.as_millis().to_be_bytes());
    hasher.update(header);
    hasher.update(data_digest);
    hasher.finalize().into()
}

/// The seal over `leaves`, which follow `previous` without a gap and end at offset `last`.
pub fn seal(previous: &Hash, first: Offset, last: Offset, leaves: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(first.0.to_be_bytes());
    hasher.update(last.0.to_be_bytes());
    hasher.update(leaves);
    hasher.finalize().into()
}

/// A digest as lower case hexadecimal.
pub fn hex(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(hash.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
