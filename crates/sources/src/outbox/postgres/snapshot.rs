//! Which transactions somebody could see.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A `pg_snapshot`: transactions before `xmin` are over, those from `xmax` on had not begun, those in `running` ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Snapshot {
    pub(super) xmin: u64,
    pub(super) xmax: u64,
    pub(super) running: Vec<u64>,
}

impl Snapshot {
    /// The one that shows nothing.
    pub(super) fn nothing() -> Self {
        Self { xmin: 1, xmax: 1, running: Vec::new() }
    }

    /// Whether it shows what a transaction did, if that is committed.
    pub(super) fn shows(&self, transaction: u64) -> bool {
        transaction < self.xmax && !self.running.contains(&transaction)
    }

    /// The transactions that it does not show although they had begun, as the database takes them.
    pub(super) fn running_texts(&self) -> Vec<String> {
        self.running.iter().map(u64::to_string).collect()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.xmin, self.xmax, self.running_texts().join(","))
    }
}

impl FromStr for Snapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a snapshot");
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or_else(wrong);
        let (xmin, xmax, running) = (part()?, part()?, part()?);
        let number = |text: &str| text.parse().map_err(|_| wrong());
        let running = running.split(',').filter(|text| !text.is_empty()).map(number).collect::<Result<_, _>>()?;
        Ok(Self { xmin: number(xmin)?, xmax: number(xmax)?, running })
    }
}

impl TryFrom<String> for Snapshot {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Snapshot> for String {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_had_begun_and_does_not_run() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        assert_eq!([9, 10, 11, 14, 19, 20].map(|id| snapshot.shows(id)), [true, false, true, false, true, false]);
    }

    #[test]
    fn a_snapshot_is_read_and_written_as_the_database_does() {
        for text in ["1:1:", "725:725:", "10:20:10,14,15"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        for text in ["", "1:1", "a:1:", "1:1:x"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
