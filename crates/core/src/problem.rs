//! What is wrong with a text a user sent: where, by which rule, and the way out.

use std::fmt;

use serde::Serialize;

use crate::json::{Fault, JsonError};

/// Most violations reported for one event: enough to fix a producer, never a flood.
pub const VIOLATIONS_MAX: usize = 64;

/// The rule that a text breaks. In JSON the name in snake case (`unknown_field`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Not JSON (RFC 8259).
    Malformed,
    /// Nested deeper than the limit.
    TooDeep,
    /// More member names than the limit.
    TooManyKeys,
    /// One object names a member twice.
    DuplicateKey,
    /// Not UTF-8.
    InvalidUtf8,
    /// A member that nothing reads.
    UnknownField,
    /// A required member is absent.
    Missing,
    /// Another JSON type than the member has.
    WrongType,
    /// The right type, but not a value the rule of the field allows.
    Invalid,
    /// More characters or elements than the field takes.
    TooLong,
    /// More bytes than the limit.
    TooLarge,
    /// A name or value that only Tidings gives.
    Reserved,
}

impl Rule {
    /// The name in snake case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
            Self::TooManyKeys => "too_many_keys",
            Self::DuplicateKey => "duplicate_key",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::UnknownField => "unknown_field",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
            Self::Invalid => "invalid",
            Self::TooLong => "too_long",
            Self::TooLarge => "too_large",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::Malformed,
            Fault::TooDeep => Self::TooDeep,
            Fault::TooManyKeys => Self::TooManyKeys,
            Fault::DuplicateKey => Self::DuplicateKey,
            Fault::InvalidUtf8 => Self::InvalidUtf8,
        }
    }
}

/// One thing that is wrong with a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// Where: an RFC 6901 JSON pointer, empty for the whole text.
    pub pointer: String,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong and the way out, for a person.
    pub message: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, rule: Rule, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), rule, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

impl From<JsonError> for Violation {
    fn from(error: JsonError) -> Self {
        Self { pointer: error.pointer, rule: error.fault.into(), message: error.message }
    }
}

/// Collects violations up to [`VIOLATIONS_MAX`].
#[derive(Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn add(&mut self, pointer: impl Into<String>, rule: Rule, message: impl Into<String>) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(Violation::new(pointer, rule, message));
        }
    }

    /// The value, if it fits; otherwise notes why not: `TooLong` beyond `bytes_max`, else `Invalid`.
    pub(crate) fn keep<T>(
        &mut self,
        pointer: &str,
        text: &str,
        bytes_max: usize,
        checked: Result<T, String>,
    ) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(message) => {
                let rule = if text.len() > bytes_max { Rule::TooLong } else { Rule::Invalid };
                self.add(pointer, rule, message);
                None
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_json_with_the_rule_in_snake_case() {
        let violation = Violation::new("/eventType", Rule::UnknownField, "No.");
        let json = serde_json::to_string(&violation).unwrap();
        assert_eq!(json, r#"{"pointer":"/eventType","rule":"unknown_field","message":"No."}"#);
        assert_eq!(violation.to_string(), "/eventType: No.");
    }

    #[test]
    fn violations_are_never_a_flood() {
        let mut violations = Violations::default();
        for _ in 0..10_000 {
            violations.add("", Rule::Invalid, "No.");
        }
        assert_eq!(violations.into_vec().len(), VIOLATIONS_MAX);
    }
}
