//! A span of time as JSON: a text, `30s`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer};
use tidings_core::time::{format_duration, parse_duration};

pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*span))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}
