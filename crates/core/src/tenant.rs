//! A tenant: one application environment, the unit of isolation, order and scale.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a tenant: `[a-z0-9][a-z0-9_-]{0,62}`, for example `acme-prod`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TenantName(Box<str>);

impl TenantName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 63;

    /// Checks a name; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let first_fits = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let rest_fits = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if first_fits && rest_fits && text.len() <= Self::BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err("a tenant name has 1 to 63 lower-case letters, digits, `_` and `-`, the first a letter or digit".into())
        }
    }

    /// The tenant of `--dev` and of an operator who names none.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_a_path_and_a_header_are_taken() {
        for name in ["default", "acme-prod", "a", "0", "a_b", &"x".repeat(63)] {
            assert_eq!(TenantName::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(TenantName::default_tenant(), TenantName::parse("default").unwrap());
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "-a", "_a", "Acme", "a b", "a.b", "a/b", "ü", "a\0", &"x".repeat(64)] {
            assert!(TenantName::parse(name).is_err(), "{name}");
        }
        assert!(serde_json::from_str::<TenantName>("\"A\"").is_err());
    }
}
