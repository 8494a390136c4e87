//! Blocks of the index on disk: entries, sorted and packed.
//!
//! An entry is a posting with the offsets under it. Within a block each is stored as its distance from the one before;
//! `seq` stands for the sequence number and is there for aggregates only, like the tag:
//!
//! ```text
//! CRC-32C of the rest, 4 bytes │ scope  key  [tag, 8 bytes]  count  first  distances…  [seq] │ the next entry …
//! ```
//!
//! All other numbers are varints, `first` zigzag. An aggregate without offsets is one that retention left nothing of: its
//! number goes on.

use rusqlite::types::Type;
use tidings_core::posting::{Kind, Posting};

use super::filter::Filter;

/// A block is one row, and with its key fits a page of the file.
pub(crate) const BLOCK_BYTES: usize = 3_968;
/// Offsets of one entry; a posting with more has several.
pub(crate) const OFFSETS_MAX: usize = 512;
const CHECKSUM_BYTES: usize = 4;

/// Where a row of a run belongs: scope, key, tag and first offset, big-endian. Pieces of the filter come after all blocks.
pub(crate) type Place = [u8; 32];

/// The place of the filter's first piece: no scope is that large.
pub(crate) const FILTER: Place = {
    let mut place = [0; 32];
    let mut at = 0;
    while at < 8 {
        place[at] = 0xff;
        at += 1;
    }
    place
};

pub(crate) fn place(posting: Posting, offset: u64) -> Place {
    let mut place = [0; 32];
    for (bytes, number) in place.chunks_exact_mut(8).zip([posting.scope, posting.key, posting.tag, offset]) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    place
}

/// A row of a run.
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) bytes: Vec<u8>,
}

/// The offsets under a posting, or some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) posting: Posting,
    /// Ascending.
    pub(crate) offsets: Vec<u64>,
    /// For an aggregate, its last sequence number; else 0.
    pub(crate) sequence: u64,
}

impl Default for Entry {
    fn default() -> Self {
        Self { posting: START, offsets: Vec::new(), sequence: 0 }
    }
}

/// What the first entry of a block is the distance from.
const START: Posting = Posting { scope: 0, key: 0, tag: 0 };

/// Packs entries, which come in order, into blocks.
pub(crate) struct Packer {
    rows: Vec<Row>,
    block: Vec<u8>,
    place: Place,
    scratch: Vec<u8>,
    previous: Option<(Posting, u64)>,
    filter: Filter,
    keys: u64,
    offsets: u64,
}

/// What there is in a run.
pub(crate) struct Packed {
    pub(crate) filter: Filter,
    pub(crate) keys: u64,
    pub(crate) offsets: u64,
}

impl Packer {
    /// For up to `keys` postings.
    pub(crate) fn new(keys: u64) -> Self {
        Self {
            rows: Vec::new(),
            block: Vec::with_capacity(BLOCK_BYTES),
            place: [0; 32],
            scratch: Vec::new(),
            previous: None,
            filter: Filter::with_room(keys),
            keys: 0,
            offsets: 0,
        }
    }

    /// Takes all that there is under a posting, or its next offsets.
    pub(crate) fn push(&mut self, posting: Posting, offsets: &[u64], sequence: u64) {
        if self.previous.is_none_or(|(previous, _)| previous != posting) {
            self.filter.insert(posting);
            self.keys += 1;
        }
        self.offsets += offsets.len() as u64;
        if offsets.is_empty() {
            self.entry(posting, offsets, sequence);
        }
        for some in offsets.chunks(OFFSETS_MAX) {
            self.entry(posting, some, sequence);
        }
    }

    fn entry(&mut self, posting: Posting, offsets: &[u64], sequence: u64) {
        self.scratch.clear();
        let (before, offset) = self.previous.filter(|_| !self.block.is_empty()).unwrap_or((START, 0));
        encode(&mut self.scratch, before, offset, posting, offsets, sequence);
        if self.block.len() + self.scratch.len() > BLOCK_BYTES && !self.block.is_empty() {
            self.close();
            self.scratch.clear();
            encode(&mut self.scratch, START, 0, posting, offsets, sequence);
        }
        if self.block.is_empty() {
            self.block.extend_from_slice(&[0; CHECKSUM_BYTES]);
            self.place = place(posting, offsets.first().copied().unwrap_or(0));
        }
        self.block.extend_from_slice(&self.scratch);
        self.previous = Some((posting, offsets.first().copied().unwrap_or(0)));
    }

    fn close(&mut self) {
        let mut bytes = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        let checksum = crc32c::crc32c(&bytes[CHECKSUM_BYTES..]);
        bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.rows.push(Row { place: self.place, bytes });
    }

    /// The blocks that are full.
    pub(crate) fn full(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// The last rows, those of the filter among them. Without keys there are none: nobody removes the rows of a run
    /// that never was.
    pub(crate) fn finish(mut self) -> (Vec<Row>, Packed) {
        if self.keys == 0 {
            return (Vec::new(), Packed { filter: Filter::default(), keys: 0, offsets: 0 });
        }
        if !self.block.is_empty() {
            self.close();
        }
        let mut rows = std::mem::take(&mut self.rows);
        self.filter.fit(self.keys);
        for (number, bits) in (0_u64..).zip(self.filter.pieces(BLOCK_BYTES - CHECKSUM_BYTES)) {
            let mut place = FILTER;
            place[24..].copy_from_slice(&number.to_be_bytes());
            rows.push(Row { place, bytes: [&crc32c::crc32c(&bits).to_le_bytes()[..], &bits].concat() });
        }
        (rows, Packed { filter: self.filter, keys: self.keys, offsets: self.offsets })
    }
}

fn encode(out: &mut Vec<u8>, before: Posting, offset: u64, posting: Posting, offsets: &[u64], sequence: u64) {
    let scope = posting.scope - before.scope;
    number(out, scope);
    number(out, if scope == 0 { posting.key - before.key } else { posting.key });
    let aggregate = is_aggregate(posting.scope);
    if aggregate {
        out.extend_from_slice(&posting.tag.to_le_bytes());
    }
    number(out, offsets.len() as u64);
    if let Some(first) = offsets.first() {
        let distance = first.wrapping_sub(offset).cast_signed();
        number(out, ((distance << 1) ^ (distance >> 63)).cast_unsigned());
    }
    for pair in offsets.windows(2) {
        number(out, pair[1] - pair[0]);
    }
    if aggregate {
        number(out, sequence);
    }
}

fn is_aggregate(scope: u64) -> bool {
    scope & 7 == Kind::Aggregate as u64
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A block is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("a block of the index is damaged: run `tidings audit verify`")]
pub(crate) struct DamagedBlock;

impl From<DamagedBlock> for rusqlite::Error {
    fn from(damaged: DamagedBlock) -> Self {
        Self::FromSqlConversionFailure(0, Type::Blob, Box::new(damaged))
    }
}

/// Whether an error of SQLite speaks of a [`DamagedBlock`].
pub(crate) fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::FromSqlConversionFailure(_, _, cause) if cause.is::<DamagedBlock>())
}

/// What a row holds behind its checksum.
pub(crate) fn checked(row: &[u8]) -> Result<&[u8], DamagedBlock> {
    let (checksum, bytes) = row.split_first_chunk::<CHECKSUM_BYTES>().ok_or(DamagedBlock)?;
    if u32::from_le_bytes(*checksum) == crc32c::crc32c(bytes) { Ok(bytes) } else { Err(DamagedBlock) }
}

/// The entries of a block, one after the other.
pub(crate) struct Cursor<'a> {
    left: &'a [u8],
    offset: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(block: &'a [u8]) -> Result<Self, DamagedBlock> {
        Ok(Self { left: checked(block)?, offset: 0 })
    }

    /// Goes on in a block that was checked: `left` is what [`Cursor::left`] said.
    pub(crate) fn resume(left: &'a [u8], previous: &Entry) -> Self {
        Self { left, offset: previous.offsets.first().copied().unwrap_or(0) }
    }

    /// How many bytes of the block are left.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Reads the next entry over the one before it, which it is told apart from; false after the last. The first one is
    /// read over `Entry::default()`.
    pub(crate) fn next(&mut self, entry: &mut Entry) -> Result<bool, DamagedBlock> {
        if self.left.is_empty() {
            return Ok(false);
        }
        let scope = self.number()?;
        let key = self.number()?;
        let posting = &mut entry.posting;
        posting.key = if scope == 0 { posting.key.checked_add(key).ok_or(DamagedBlock)? } else { key };
        posting.scope = posting.scope.checked_add(scope).ok_or(DamagedBlock)?;
        let aggregate = is_aggregate(posting.scope);
        posting.tag = 0;
        if aggregate {
            let (tag, left) = self.left.split_first_chunk::<8>().ok_or(DamagedBlock)?;
            (posting.tag, self.left) = (u64::from_le_bytes(*tag), left);
        }
        entry.offsets.clear();
        let count = self.number()?;
        let mut last = 0_u64;
        for place in 0..count {
            let number = self.number()?;
            last = if place == 0 {
                let distance = (number >> 1) ^ (number & 1).wrapping_neg();
                self.offset.wrapping_add(distance)
            } else {
                last.checked_add(number).ok_or(DamagedBlock)?
            };
            entry.offsets.push(last);
        }
        self.offset = entry.offsets.first().copied().unwrap_or(0);
        entry.sequence = if aggregate { self.number()? } else { 0 };
        Ok(true)
    }

    fn number(&mut self) -> Result<u64, DamagedBlock> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (&byte, left) = self.left.split_first().ok_or(DamagedBlock)?;
            self.left = left;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
            if shift > 63 {
                return Err(DamagedBlock);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(key: u64) -> Posting {
        Posting { scope: Kind::Aggregate.scope(1), key, tag: key.rotate_left(20) }
    }

    fn unpack(rows: &[Row]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for row in rows.iter().filter(|row| row.place < FILTER) {
            assert!(row.bytes.len() <= BLOCK_BYTES);
            let mut cursor = Cursor::new(&row.bytes).unwrap();
            let mut entry = Entry::default();
            let first = entries.len();
            while cursor.next(&mut entry).unwrap() {
                entries.push(entry.clone());
            }
            let first: &Entry = &entries[first];
            assert_eq!(row.place, place(first.posting, first.offsets.first().copied().unwrap_or(0)));
        }
        entries
    }

    #[test]
    fn entries_survive_in_order() {
        let mut entries = Vec::new();
        for number in 0..3_000_u64 {
            let id = Posting { scope: 8, key: number << 40, tag: 0 };
            entries.push(Entry { posting: id, offsets: vec![number ^ 0x555, (1 << 62) + number], sequence: 0 });
        }
        for number in 1..3_000_u64 {
            let posting = aggregate(number.wrapping_mul(0x0005_3a1f_9b2e_11d3));
            let offsets = if number % 7 == 0 { Vec::new() } else { vec![number] };
            entries.push(Entry { posting, offsets, sequence: number * 1_000 });
        }
        entries.push(Entry {
            posting: Posting { scope: 10, key: u64::MAX, tag: 0 },
            offsets: vec![u64::MAX],
            sequence: 0,
        });
        let mut blocks = Packer::new(entries.len() as u64);
        for entry in &entries {
            blocks.push(entry.posting, &entry.offsets, entry.sequence);
        }
        let (rows, packed) = blocks.finish();
        assert!(rows.len() > 10);
        assert!(rows.is_sorted_by_key(|row| row.place));
        assert_eq!((packed.keys, packed.offsets), (6_000, 6_000 + 2_999 - 2_999 / 7 + 1));
        assert_eq!(unpack(&rows), entries);
    }

    #[test]
    fn a_posting_with_many_offsets_has_several_entries() {
        let offsets: Vec<u64> = (0..5_000).map(|number| number * 300).collect();
        let mut packer = Packer::new(1);
        packer.push(aggregate(5), &offsets, 9);
        let entries = unpack(&packer.finish().0);
        assert_eq!(entries.len(), offsets.len().div_ceil(OFFSETS_MAX));
        assert!(entries.iter().all(|entry| entry.posting == aggregate(5) && entry.sequence == 9));
        assert!(entries.iter().flat_map(|entry| &entry.offsets).eq(&offsets));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut packer = Packer::new(1);
        packer.push(aggregate(5), &[1, 2, 3], 3);
        let block = packer.finish().0.remove(0).bytes;
        for bit in 0..block.len() * 8 {
            let mut block = block.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor::new(&block).is_err(), "bit {bit}");
        }
    }
}
