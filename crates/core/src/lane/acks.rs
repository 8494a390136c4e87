//! What is settled above a cursor: a bitmap.

use std::collections::BTreeSet;

use crate::offset::Offset;

/// How far above the cursor something may be settled without a row.
pub const ACKS_SPAN: u64 = 4_096;

/// Offsets above a cursor that are settled; at most [`ACKS_SPAN`] above it.
///
/// In bytes: the bit `n` (the lowest of a byte first) stands for the offset `cursor + 1 + n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks(BTreeSet<Offset>);

impl Acks {
    /// Reads a bitmap.
    pub fn from_bytes(cursor: Offset, bytes: &[u8]) -> Self {
        let set = |(place, byte): (usize, &u8)| {
            let first = cursor.0 + 1 + 8 * place as u64;
            let byte = *byte;
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| Offset(first + bit))
        };
        Self(bytes.iter().enumerate().flat_map(set).collect())
    }

    /// Writes the bitmap, without zeros at its end.
    pub fn to_bytes(&self, cursor: Offset) -> Vec<u8> {
        let mut bytes = Vec::new();
        for offset in &self.0 {
            let Some(place) = offset.0.checked_sub(cursor.0 + 1).and_then(|place| usize::try_from(place).ok()) else {
                continue;
            };
            if bytes.len() <= place / 8 {
                bytes.resize(place / 8 + 1, 0);
            }
            bytes[place / 8] |= 1 << (place % 8);
        }
        bytes
    }

    /// Whether an offset is settled.
    pub fn contains(&self, offset: Offset) -> bool {
        self.0.contains(&offset)
    }

    /// Notes that an offset is settled.
    pub fn insert(&mut self, offset: Offset) {
        self.0.insert(offset);
    }

    /// The largest one.
    pub fn last(&self) -> Option<Offset> {
        self.0.last().copied()
    }

    /// Drops those that the cursor has passed.
    pub fn pass(&mut self, cursor: Offset) {
        while self.0.first().is_some_and(|first| *first <= cursor) {
            self.0.pop_first();
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_survive_their_bytes() {
        for offsets in [&[][..], &[11], &[12, 18, 19, 26], &[11, 10 + ACKS_SPAN]] {
            let mut acks = Acks::default();
            for offset in offsets {
                acks.insert(Offset(*offset));
            }
            let bytes = acks.to_bytes(Offset(10));
            assert!(bytes.len() as u64 <= ACKS_SPAN / 8 && bytes.last() != Some(&0));
            assert_eq!(Acks::from_bytes(Offset(10), &bytes), acks);
        }
    }

    #[test]
    fn what_the_cursor_passed_is_dropped() {
        let mut acks = Acks::from_bytes(Offset(0), &[0b1010_0001]);
        acks.pass(Offset(6));
        assert_eq!((acks.contains(Offset(1)), acks.contains(Offset(8)), acks.last()), (false, true, Some(Offset(8))));
        assert_eq!(acks.to_bytes(Offset(6)), [0b10]);
    }
}
