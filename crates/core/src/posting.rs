//! Postings: the keys under which the log finds an event again.
//!
//! A posting is a key within a scope (tenant and kind). Keys may collide; whoever follows one checks the event it leads
//! to. Only those of aggregates are wide enough to stand for their value. They are part of the format on disk and never
//! change.

use sha2::{Digest, Sha256};

use crate::event::{EventType, Subject};
use crate::filter::TypePattern;

/// How many leading `resource.`-style prefixes of a type are posted; deeper patterns are found by the deepest of these.
pub const PREFIXES_MAX: usize = 8;

/// What a posting says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Its `eventId`.
    Id = 0,
    /// Its `aggregateId`.
    Aggregate = 1,
    /// Its exact type.
    Type = 2,
    /// A prefix of its type, with the dot at the end.
    Below = 3,
    /// One of its channels.
    Channel = 4,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Id, Self::Aggregate, Self::Type, Self::Below, Self::Channel];

    /// The scope of this kind of postings in a tenant.
    pub const fn scope(self, tenant: u32) -> u64 {
        (tenant as u64) << 3 | self as u64
    }
}

/// A key under which an event is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Posting {
    /// Tenant and kind in one number: `tenant << 3 | kind`.
    pub scope: u64,
    /// The hash of the value, or the upper half of a UUID, so that `UUIDv7` ids stay in order.
    pub key: u64,
    /// For aggregates 64 more bits of the hash, so that the posting is taken as unique; 0 for others.
    pub tag: u64,
}

impl Posting {
    /// The posting of `value` for `kind` in tenant number `tenant`.
    pub fn new(tenant: u32, kind: Kind, value: &str) -> Self {
        let (key, tag) = match kind {
            Kind::Id => (uuid_half(value).unwrap_or_else(|| half(&digest(value), 0)), 0),
            Kind::Aggregate => {
                let digest = digest(value);
                (half(&digest, 0), half(&digest, 8))
            }
            _ => (half(&digest(value), 0), 0),
        };
        Self { scope: kind.scope(tenant), key, tag }
    }

    /// The posting under which events that `pattern` matches are found, or `None` when only a scan finds them.
    pub fn of_pattern(tenant: u32, pattern: &TypePattern) -> Option<Self> {
        match pattern {
            TypePattern::Exact(name) => Some(Self::new(tenant, Kind::Type, name.as_str())),
            TypePattern::Below(prefix) => {
                let end = prefixes(prefix).last().unwrap_or(prefix.len());
                Some(Self::new(tenant, Kind::Below, &prefix[..end]))
            }
            TypePattern::All => None,
        }
    }
}

/// All postings of an event, its id's first, and that of its aggregate.
pub fn postings(tenant: u32, subject: &Subject) -> (Vec<Posting>, Option<Posting>) {
    let mut all = Vec::with_capacity(4 + subject.channels.len());
    all.push(Posting::new(tenant, Kind::Id, subject.id.as_str()));
    let aggregate = subject.aggregate.as_ref().map(|id| Posting::new(tenant, Kind::Aggregate, id.as_str()));
    all.extend(aggregate);
    all.push(Posting::new(tenant, Kind::Type, subject.event_type.as_str()));
    all.extend(below(tenant, &subject.event_type));
    all.extend(subject.channels.iter().map(|c| Posting::new(tenant, Kind::Channel, c.as_str())));
    (all, aggregate)
}

fn below(tenant: u32, event_type: &EventType) -> impl Iterator<Item = Posting> + '_ {
    prefixes(event_type.as_str()).map(move |end| Posting::new(tenant, Kind::Below, &event_type.as_str()[..end]))
}

fn prefixes(text: &str) -> impl DoubleEndedIterator<Item = usize> + '_ {
    let ends: Vec<usize> = memchr::memchr_iter(b'.', text.as_bytes()).map(|dot| dot + 1).take(PREFIXES_MAX).collect();
    ends.into_iter()
}

fn digest(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

/// Eight bytes of a digest.
fn half(digest: &[u8; 32], from: usize) -> u64 {
    digest[from..from + 8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
}

fn uuid_half(value: &str) -> Option<u64> {
    let bytes = value.as_bytes();
    if bytes.len() != 36 || bytes[8] != b'-' || bytes[13] != b'-' || bytes[18] != b'-' {
        return None;
    }
    let mut key = 0u64;
    for &byte in bytes[..18].iter().filter(|b| **b != b'-') {
        key = key << 4 | u64::from(char::from(byte).to_digit(16)?);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_uuids_keep_their_order() {
        let early = Posting::new(1, Kind::Id, "0192f3c1-8f4e-7c3a-9f10-1d2b3c4d5e6f");
        let late = Posting::new(1, Kind::Id, "0192f3c1-8f4f-7c3a-9f10-1d2b3c4d5e6f");
        assert_eq!(early.key, 0x0192_f3c1_8f4e_7c3a);
        assert!(early < late);
    }

    #[test]
    fn a_deep_pattern_is_found_by_its_deepest_posted_prefix() {
        let deep = "a.".repeat(20);
        let pattern = TypePattern::Below(deep.clone().into());
        let found = Posting::of_pattern(1, &pattern);
        assert_eq!(found, Some(Posting::new(1, Kind::Below, &deep[..2 * PREFIXES_MAX])));
    }
}
