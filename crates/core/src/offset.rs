//! An event's place in its tenant's order.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Place of an event in the order of its tenant: dense, from 1, in commit order.
///
/// 0 stands before the first event, which makes "everything after 0" the whole log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The place before the first event.
    pub const BEFORE_FIRST: Self = Self(0);

    /// The place right after this one; stays where it is at the end of the numbers.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Offset {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_one_and_stop_at_the_end() {
        assert_eq!(Offset::BEFORE_FIRST.next(), Offset(1));
        assert_eq!(Offset(u64::MAX).next(), Offset(u64::MAX));
    }

    #[test]
    fn an_offset_is_a_number_in_json_and_as_text() {
        assert_eq!(serde_json::to_string(&Offset(42)).unwrap(), "42");
        assert_eq!(serde_json::from_str::<Offset>("42").unwrap(), Offset(42));
        assert_eq!(Offset(42).to_string().parse::<Offset>().unwrap(), Offset(42));
        assert!("-1".parse::<Offset>().is_err());
    }
}
