//! Which rows are in the log and may still be in the table, as it is kept in the log.

use std::collections::BTreeSet;

use foldhash::HashSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::outbox::{ReadError, Row};

/// A row that was relayed: its number, and some of its event's id, for a table that was emptied or made anew gives the
/// same numbers to other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) event: u32,
}

/// What is in the log of what the table may show. Both by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Committed before the last batch: may be deleted.
    #[serde(with = "text")]
    pub(super) done: Vec<Mark>,
    /// The last batch. Who holds this position knows only in time whether that was committed.
    #[serde(with = "text")]
    pub(super) last: Vec<Mark>,
}

impl Mark {
    pub(super) fn new(id: u64, event_id: &[u8]) -> Self {
        let digest = Sha256::digest(event_id);
        Self { id, event: u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) }
    }

    pub(super) fn of(row: &Row) -> Self {
        Self::new(row.number, row.event_id.as_deref().unwrap_or_default().as_bytes())
    }

    /// What `CONCAT(id, ':', LEFT(SHA2(event_id, 256), 8))` gives for its row.
    pub(super) fn text(&self) -> String {
        format!("{}:{:08x}", self.id, self.event)
    }
}

impl Position {
    pub(super) fn parse(text: &str) -> Result<Self, ReadError> {
        serde_json::from_str(text).map_err(|error| ReadError::Trouble(format!("the kept position: {error}")))
    }

    pub(super) fn text(&self) -> Box<str> {
        // Two texts always have a JSON form.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    pub(super) fn len(&self) -> usize {
        self.done.len() + self.last.len()
    }

    pub(super) fn marks(&self) -> HashSet<Mark> {
        self.done.iter().chain(&self.last).copied().collect()
    }

    /// These are deleted, so the table shows them no more.
    pub(super) fn without(&mut self, deleted: &[Mark]) {
        if !deleted.is_empty() {
            let deleted: HashSet<_> = deleted.iter().collect();
            self.done.retain(|mark| !deleted.contains(mark));
        }
    }

    /// The position behind a batch that follows this one.
    pub(super) fn behind(self, batch: Vec<Mark>) -> Self {
        let done: BTreeSet<_> = self.done.into_iter().chain(self.last).collect();
        Self { done: done.into_iter().collect(), last: batch }
    }
}

/// Marks in few bytes: the step from the number before in hexadecimal digits, the event in eight more.
mod text {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Mark;

    /// Hexadecimal digits of an event.
    const EVENT_DIGITS: usize = 8;

    pub(super) fn serialize<S: Serializer>(marks: &[Mark], to: S) -> Result<S::Ok, S::Error> {
        let (mut text, mut before) = (String::with_capacity(12 * marks.len()), 0);
        for Mark { id, event } in marks {
            // Writing to a String cannot fail.
            let _ = write!(text, "{:x}{event:08x} ", id - before);
            before = *id;
        }
        to.serialize_str(text.trim_end())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Mark>, D::Error> {
        let text = String::deserialize(from)?;
        let mut before = 0_u64;
        let mark = |part: &str| {
            let (step, event) = part.split_at_checked(part.len().checked_sub(EVENT_DIGITS)?)?;
            let id = before.checked_add(u64::from_str_radix(step, 16).ok()?)?;
            before = id;
            Some(Mark { id, event: u32::from_str_radix(event, 16).ok()? })
        };
        let marks: Option<_> = text.split_ascii_whitespace().map(mark).collect();
        marks.ok_or_else(|| D::Error::custom("a mark that is none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(ids: &[u64]) -> Vec<Mark> {
        ids.iter().map(|id| Mark::new(*id, b"x")).collect()
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for (done, last) in [(&[][..], &[][..]), (&[1, 2, 300], &[1]), (&[], &[u64::MAX >> 1])] {
            let position = Position { done: marks(done), last: marks(last) };
            assert_eq!(Position::parse(&position.text()).unwrap(), position);
        }
        for text in [r#"{"done":"","last":"1234567"}"#, r#"{"done":"g00000000","last":""}"#, "1", ""] {
            assert!(Position::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_batch_may_be_deleted_once_another_lies_behind_it() {
        let position = Position { done: marks(&[4, 9]), last: marks(&[7, 12]) };
        let mut next = position.behind(marks(&[2]));
        assert_eq!(next, Position { done: marks(&[4, 7, 9, 12]), last: marks(&[2]) });
        next.without(&[Mark::new(4, b"x"), Mark::new(7, b"another"), Mark::new(2, b"x")]);
        assert_eq!(next, Position { done: marks(&[7, 9, 12]), last: marks(&[2]) });
    }

    #[test]
    fn a_mark_is_what_the_database_makes_of_its_row() {
        // echo -n x | sha256sum
        assert_eq!(Mark::new(7, b"x").text(), "7:2d711642");
    }
}
