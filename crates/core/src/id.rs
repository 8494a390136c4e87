//! Event ids: made by Tidings as UUIDv7, or the producer's own.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::time::Timestamp;

/// Id of an event: 1–64 of `[A-Za-z0-9_-]`, unique in its tenant.
///
/// No dot, because the id is signed as `webhook-id` and Standard Webhooks joins the signed parts with dots;
/// not `stream` or `ws`, because those are routes below `/events`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct EventId(Box<str>);

impl EventId {
    /// Longest id, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Checks an id; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(format!("an event id has 1 to 64 characters, this one has {}", text.chars().count()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
            return Err(
                "an event id has only letters, digits, `_` and `-` (no dot: it is signed as `webhook-id`)".into()
            );
        }
        if matches!(text, "stream" | "ws") {
            return Err(format!("`{text}` is a route of the API and cannot be an event id: choose another"));
        }
        Ok(Self(text.into()))
    }

    /// The hyphenated lower-case form of a UUID.
    pub fn from_uuid(uuid: &Uuid) -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self((&*uuid.hyphenated().encode_lower(&mut buffer)).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id that was checked when it was written: rules that grow stricter must not make old events unreadable.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for EventId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, the rest from `random`.
///
/// Never an order: two nodes' clocks differ. A time before 1970 counts as 1970.
pub fn uuid_v7(now: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_producers_are_taken_as_they_are() {
        for id in ["a", "evt_1-B", "Stream", "streams", &"x".repeat(64), "0192f3c1-8f4e-7c3a-9f10-1d2b3c4d5e6f"] {
            assert_eq!(EventId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn ids_that_cannot_be_signed_or_routed_are_refused() {
        for id in ["", "a.b", "a b", "a/b", "ü", "a\0", "stream", "ws", &"x".repeat(65)] {
            assert!(EventId::parse(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_made_id_is_a_uuid_of_version_7_that_carries_the_time() {
        let now = Timestamp::parse_rfc3339("2026-11-22T10:15:30.123Z").unwrap();
        let uuid = uuid_v7(now, [0xff; 10]);
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(EventId::from_uuid(&uuid).as_str(), "01a202c0-f64b-7fff-bfff-ffffffffffff");
        assert_eq!(uuid_v7(Timestamp::from_millis(-1), [0; 10]), uuid_v7(Timestamp::from_millis(0), [0; 10]));
    }
}
