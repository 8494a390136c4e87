//! What a run of the index surely does not have, told from memory: a blocked Bloom filter.
//!
//! A key sets [`BITS_SET`] bits within one cache line. About one key in a hundred that a run does not have looks as if it
//! had it. Filters are stored beside their runs: how a key chooses its bits is part of the format on disk.

use tidings_core::posting::Posting;

/// Bits for each key.
const BITS_PER_KEY: usize = 10;
/// Bits that a key sets.
const BITS_SET: u32 = 6;
/// A filter of more lines than this can lose half of them.
const FEWEST_LINES: usize = 32;
/// A cache line.
const LINE_WORDS: usize = 8;
const LINE_BYTES: usize = LINE_WORDS * 8;

#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    lines: Vec<[u64; LINE_WORDS]>,
}

impl Filter {
    /// An empty filter with room for `keys`.
    pub(crate) fn with_room(keys: u64) -> Self {
        let lines = lines_for(keys);
        // A number that can be halved down to some 32 to 64, for `fit`.
        let halvings = lines.ilog2().saturating_sub(FEWEST_LINES.ilog2());
        Self { lines: vec![[0; LINE_WORDS]; (lines.div_ceil(1 << halvings)) << halvings] }
    }

    /// Gives up the room that `keys` do not need.
    pub(crate) fn fit(&mut self, keys: u64) {
        let wanted = lines_for(keys);
        // A key in line n of many is in line n / 2 of half as many.
        while self.lines.len() > FEWEST_LINES && self.lines.len().is_multiple_of(2) && self.lines.len() / 2 >= wanted {
            let halves = self.lines.chunks_exact(2);
            self.lines = halves.map(|pair| std::array::from_fn(|word| pair[0][word] | pair[1][word])).collect();
        }
    }

    pub(crate) fn insert(&mut self, posting: Posting) {
        let (line, bits) = self.place(posting);
        if let Some(line) = self.lines.get_mut(line) {
            for bit in bits {
                line[bit / 64] |= 1 << (bit % 64);
            }
        }
    }

    /// False if `posting` was never inserted.
    pub(crate) fn may_have(&self, posting: Posting) -> bool {
        let (line, mut bits) = self.place(posting);
        self.lines.get(line).is_none_or(|line| bits.all(|bit| line[bit / 64] & 1 << (bit % 64) != 0))
    }

    fn place(&self, posting: Posting) -> (usize, impl Iterator<Item = usize> + use<>) {
        let hash = mix(mix(posting.key ^ posting.scope.rotate_left(48)) ^ posting.tag);
        let line = (u128::from(hash) * self.lines.len() as u128) >> 64;
        let chosen = mix(hash);
        // Nine bits name one of 512.
        let bits = (0..BITS_SET).map(move |bit| usize::try_from(chosen >> (9 * bit) & 511).unwrap_or(0));
        (usize::try_from(line).unwrap_or(usize::MAX), bits)
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    /// Its bits, in pieces of at most `bytes_max`, which is a multiple of a cache line.
    pub(crate) fn pieces(&self, bytes_max: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let lines = self.lines.chunks((bytes_max / LINE_BYTES).max(1));
        lines.map(|lines| lines.iter().flatten().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Takes back what [`Filter::pieces`] gave, a piece at a time.
    pub(crate) fn extend(&mut self, piece: &[u8]) {
        self.lines.extend(piece.chunks_exact(LINE_BYTES).map(|line| {
            let mut words = [0; LINE_WORDS];
            for (word, bytes) in words.iter_mut().zip(line.chunks_exact(8)) {
                *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
            words
        }));
    }
}

fn lines_for(keys: u64) -> usize {
    let keys = usize::try_from(keys).unwrap_or(usize::MAX / BITS_PER_KEY);
    keys.saturating_mul(BITS_PER_KEY).div_ceil(LINE_BYTES * 8).max(1)
}

/// The finish of `SplitMix64`: every bit of the input moves every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn posting(number: u64) -> Posting {
        // Ids of one time are close together.
        Posting { scope: 8, key: 0x0192_f3c1_0000_7000 + number, tag: 0 }
    }

    #[test]
    fn what_is_in_it_is_never_denied_and_little_else_passes() {
        let mut filter = Filter::with_room(KEYS);
        (0..KEYS).for_each(|number| filter.insert(posting(number)));
        assert!((0..KEYS).all(|number| filter.may_have(posting(number))));
        let passed = (KEYS..11 * KEYS).filter(|number| filter.may_have(posting(*number))).count();
        assert!(passed < 10 * usize::try_from(KEYS).unwrap() / 50, "{passed} of {} pass", 10 * KEYS);
        let other_scope = (0..KEYS).filter(|number| filter.may_have(Posting { scope: 16, ..posting(*number) })).count();
        assert!(other_scope < usize::try_from(KEYS).unwrap() / 50, "{other_scope}");
    }

    #[test]
    fn what_was_made_too_large_shrinks_and_keeps_its_keys() {
        for keys in [1, 5, 1_000, 7_777, KEYS] {
            let mut filter = Filter::with_room(KEYS);
            (0..keys).for_each(|number| filter.insert(posting(number)));
            filter.fit(keys);
            assert!((0..keys).all(|number| filter.may_have(posting(number))));
            assert!(filter.bytes() <= (FEWEST_LINES * 2 * LINE_BYTES).max(lines_for(keys) * LINE_BYTES * 2), "{keys}");
            let passed = (KEYS..2 * KEYS).filter(|number| filter.may_have(posting(*number))).count();
            assert!(passed < usize::try_from(KEYS).unwrap() / 50, "{passed} pass of {keys}");
        }
    }

    #[test]
    fn it_survives_in_pieces() {
        let mut filter = Filter::with_room(KEYS);
        (0..KEYS).for_each(|number| filter.insert(posting(number)));
        let mut again = Filter::default();
        filter.pieces(3_968).for_each(|piece| again.extend(&piece));
        assert_eq!(again.lines, filter.lines);
    }
}
