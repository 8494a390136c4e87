//! The event: its names, what a producer may send, and how it is kept.
//!
//! A [`Draft`] is what came in, checked; [`Encoded`] is ready for the log, but for its number; [`Header`] is read back.
//! The `data` is never parsed into values and never rewritten: it travels as the bytes that were sent.

mod content;
mod draft;
mod encode;
mod fields;
mod header;
mod operational;
mod parts;

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::json;

pub use content::same_content;
pub use draft::Draft;
pub(crate) use draft::members;
pub use encode::{Defaults, Encoded, Supplied};
pub(crate) use fields::Fields;
pub use fields::parse_source;
pub use header::{Header, data_of, envelope, envelope_parts, subject_of, type_of};
pub use operational::Operational;
pub use parts::Parts;

/// Most channels of one event.
pub const CHANNELS_MAX: usize = 8;
/// Most metadata pairs of one event.
pub const METADATA_MAX: usize = 32;
/// Longest metadata name, in bytes.
pub const METADATA_NAME_BYTES_MAX: usize = 128;
/// Longest metadata value, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 2048;
/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 512;

/// Bounds of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventLimits {
    /// Largest `data`, in bytes as sent, without the white space around it.
    pub data_bytes_max: usize,
    /// Bounds of the whole JSON text.
    pub json: json::Limits,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { data_bytes_max: 256 * 1024, json: json::Limits::default() }
    }
}

/// What happened: `resource.action[.more]`, lower snake case parts joined by dots, at most 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct EventType(Box<str>);

impl EventType {
    /// Longest type, in bytes.
    pub const BYTES_MAX: usize = 128;
    /// What the types of operational events start with.
    pub const OPERATIONAL_PREFIX: &'static str = "tidings.";

    /// Checks a type; the error says what is accepted. Operational types pass: who may name them is decided elsewhere.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::BYTES_MAX {
            return Err(format!("an event type has at most {} characters", Self::BYTES_MAX));
        }
        if text.contains('.') && text.split('.').all(Self::is_part) {
            Ok(Self(text.into()))
        } else {
            Err("an event type is `resource.action`: two or more lower snake case parts joined by dots, as in `order.created`".into())
        }
    }

    /// Whether the type is one of Tidings' own, `tidings.*`.
    pub fn is_operational(&self) -> bool {
        self.0.starts_with(Self::OPERATIONAL_PREFIX)
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` can stand between the dots: `[a-z][a-z0-9_]*`.
    pub(crate) fn is_part(text: &str) -> bool {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    }
}

/// What the event is about: the key of ordering. 1–256 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct AggregateId(Box<str>);

impl AggregateId {
    /// Longest id, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Checks an id; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        plain_text("an aggregate id", text, Self::BYTES_MAX).map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whom the event concerns, for example `user:u_17`. 1–128 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Channel(Box<str>);

impl Channel {
    /// Longest channel, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Checks a channel; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        plain_text("a channel", text, Self::BYTES_MAX).map(Self)
    }

    /// The channel as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn plain_text(what: &str, text: &str, bytes_max: usize) -> Result<Box<str>, String> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("{what} has 1 to {bytes_max} bytes, this one has {}", text.len()));
    }
    if !is_printable(text) {
        return Err(format!("{what} has no control characters"));
    }
    Ok(text.into())
}

fn is_printable(text: &str) -> bool {
    // Nearly all text here is ASCII, which needs no decoding.
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(char::is_control)
}

/// What filters and lanes look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Id of the event.
    pub id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// What it is about.
    pub aggregate: Option<AggregateId>,
    /// Whom it concerns.
    pub channels: Vec<Channel>,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for EventType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for AggregateId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AggregateId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Channel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests;
