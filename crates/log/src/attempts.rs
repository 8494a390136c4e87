//! Attempts in few bytes: how history is kept.
//!
//! ```text
//! version  1 byte
//! texts    count, then for each its length and its bytes: reasons and answers, equal ones once
//! records  count, then for each: offset (distance to the last), number and whether it is of a replay, time (distance),
//!          latency, status + 1 or 0, reason and answer (place among the texts + 1, or 0)
//! ```
//!
//! All numbers are varints, seven bits a byte, the lowest first; distances may be negative (zigzag).

use foldhash::{HashMap, HashMapExt as _};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use crate::store::Attempt;

/// Most attempts in one piece.
pub(crate) const ATTEMPTS_MAX: usize = 1_024;
/// Each attempt has a reason and an answer at the most.
const TEXTS_MAX: usize = 2 * ATTEMPTS_MAX;
const VERSION: u8 = 1;

/// An attempt, but for whose it was.
#[derive(Debug)]
pub(crate) struct Record<'b> {
    pub(crate) offset: Offset,
    number: u32,
    replay: bool,
    at: Timestamp,
    latency_ms: u32,
    status: Option<u16>,
    reason: Option<&'b str>,
    answer: Option<&'b str>,
}

impl Record<'_> {
    pub(crate) fn attempt(&self, subscription: &str) -> Attempt {
        Attempt {
            subscription: subscription.into(),
            offset: self.offset,
            number: self.number,
            at: self.at,
            latency_ms: self.latency_ms,
            status: self.status,
            reason: self.reason.map(Into::into),
            answer: self.answer.map(Into::into),
            replay: self.replay,
        }
    }
}

/// Writes up to [`ATTEMPTS_MAX`] attempts.
pub(crate) fn encode(attempts: &[&Attempt]) -> Vec<u8> {
    let mut texts = Texts { places: HashMap::new(), bytes: Vec::new() };
    let mut records = Vec::with_capacity(16 * attempts.len());
    let (mut offset, mut at) = (0_u64, 0_i64);
    for attempt in attempts {
        put_signed(&mut records, attempt.offset.0.wrapping_sub(offset).cast_signed());
        put(&mut records, u64::from(attempt.number) << 1 | u64::from(attempt.replay));
        put_signed(&mut records, attempt.at.as_millis().wrapping_sub(at));
        put(&mut records, attempt.latency_ms.into());
        put(&mut records, attempt.status.map_or(0, |status| u64::from(status) + 1));
        put(&mut records, texts.place(attempt.reason.as_deref()));
        put(&mut records, texts.place(attempt.answer.as_deref()));
        (offset, at) = (attempt.offset.0, attempt.at.as_millis());
    }
    let mut bytes = Vec::with_capacity(8 + texts.bytes.len() + records.len());
    bytes.push(VERSION);
    put(&mut bytes, texts.places.len() as u64);
    bytes.extend(texts.bytes);
    put(&mut bytes, attempts.len() as u64);
    bytes.extend(records);
    bytes
}

struct Texts<'a> {
    places: HashMap<&'a str, u64>,
    bytes: Vec<u8>,
}

impl<'a> Texts<'a> {
    /// 0 for no text.
    fn place(&mut self, text: Option<&'a str>) -> u64 {
        let Some(text) = text else { return 0 };
        let next = self.places.len() as u64 + 1;
        *self.places.entry(text).or_insert_with(|| {
            put(&mut self.bytes, text.len() as u64);
            self.bytes.extend(text.as_bytes());
            next
        })
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, (number << 1 ^ number >> 63).cast_unsigned());
}

/// Reads attempts, in their order; `None` if they are damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut cursor = Cursor(bytes);
    if cursor.byte()? != VERSION {
        return None;
    }
    let texts = (0..cursor.count(TEXTS_MAX)?).map(|_| cursor.text()).collect::<Option<Vec<_>>>()?;
    let text = |place: u64| match place.checked_sub(1) {
        None => Some(None),
        Some(place) => texts.get(usize::try_from(place).ok()?).copied().map(Some),
    };
    let (mut offset, mut at) = (0_u64, 0_i64);
    let mut records = Vec::new();
    for _ in 0..cursor.count(ATTEMPTS_MAX)? {
        offset = offset.wrapping_add(cursor.signed()?.cast_unsigned());
        let number = cursor.number()?;
        at = at.wrapping_add(cursor.signed()?);
        records.push(Record {
            offset: Offset(offset),
            number: u32::try_from(number >> 1).ok()?,
            replay: number & 1 == 1,
            at: Timestamp::from_millis(at),
            latency_ms: u32::try_from(cursor.number()?).ok()?,
            status: cursor.number()?.checked_sub(1).map(u16::try_from).transpose().ok()?,
            reason: text(cursor.number()?)?,
            answer: text(cursor.number()?)?,
        });
    }
    cursor.0.is_empty().then_some(records)
}

/// What is left to read.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn count(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= most)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn attempt() -> impl Strategy<Value = Attempt> {
        let text = || option::of(prop_oneof!["status 503", "[a-zä\u{1f600}]{0,3}", ".{0,300}"].prop_map(String::into));
        let near = prop_oneof![1_i64..5_000, any::<i64>()];
        let place = (prop_oneof![1_u64..4_096, any::<u64>()], any::<u32>(), near, any::<u32>());
        (place, option::of(any::<u16>()), text(), text(), any::<bool>()).prop_map(
            |((offset, number, at, latency_ms), status, reason, answer, replay)| Attempt {
                subscription: "wh_1".into(),
                offset: Offset(offset),
                number,
                at: Timestamp::from_millis(at),
                latency_ms,
                status,
                reason,
                answer,
                replay,
            },
        )
    }

    fn encoded(attempts: &[Attempt]) -> Vec<u8> {
        encode(&attempts.iter().collect::<Vec<_>>())
    }

    fn decoded(bytes: &[u8]) -> Option<Vec<Attempt>> {
        decode(bytes).map(|records| records.iter().map(|record| record.attempt("wh_1")).collect())
    }

    fn delivered(offset: u64) -> Attempt {
        Attempt {
            subscription: "wh_1".into(),
            offset: Offset(offset),
            number: 1,
            at: Timestamp::from_millis(1_790_000_000_000 + (offset * 7).cast_signed()),
            latency_ms: 3,
            status: Some(200),
            reason: None,
            answer: Some("{\"ok\":true}".into()),
            replay: false,
        }
    }

    proptest! {
        #[test]
        fn attempts_survive_their_bytes(attempts in vec(attempt(), 0..40)) {
            prop_assert_eq!(decoded(&encoded(&attempts)), Some(attempts));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[VERSION][..], &bytes].concat());
        }

        #[test]
        fn no_damage_is_a_panic(
            attempts in vec(attempt(), 1..10),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encoded(&attempts);
            prop_assert_eq!(decoded(&bytes[..length.index(bytes.len())]), None, "cut short");
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_full_piece_of_deliveries_takes_nine_bytes_an_attempt() {
        let attempts: Vec<_> = (1..=1_024).map(delivered).collect();
        let bytes = encoded(&attempts);
        assert!(bytes.len() <= 9 * attempts.len(), "{}", bytes.len());
        assert_eq!(decoded(&bytes), Some(attempts));
    }

    #[test]
    fn what_promises_more_than_fits_is_damaged() {
        let mut texts = vec![VERSION];
        put(&mut texts, TEXTS_MAX as u64 + 1);
        let mut records = vec![VERSION, 0];
        put(&mut records, ATTEMPTS_MAX as u64 + 1);
        for mut bytes in [texts, records] {
            bytes.resize(100_000, 0);
            assert!(decode(&bytes).is_none());
        }
        assert!(decode(&[VERSION + 1, 0, 0]).is_none());
        assert!(decode(&[VERSION, 0, 0]).is_some());
    }
}
