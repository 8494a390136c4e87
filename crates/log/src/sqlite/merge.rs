//! Joins runs into one, some blocks at a time, on the helper's thread.
//!
//! What retention took is left out; an aggregate of which nothing is left keeps an entry with its sequence number.

use std::collections::VecDeque;
use std::sync::Arc;

use rusqlite::Connection;
use tidings_core::posting::Posting;

use super::block::{Cursor, Entry, OFFSETS_MAX, Packed, Packer, Row};
use super::run::{self, Cover, Meta};
use crate::event::Tenant;

/// Blocks that a step gives, about, and that it reads at the most: a few milliseconds.
const STEP_ROWS: usize = 64;
const STEP_READS: usize = 128;
/// Blocks that are read of a run at once.
const READ_ROWS: u32 = 8;

/// A merge under way.
pub(crate) struct Merger {
    /// The oldest first.
    inputs: Vec<Input>,
    packer: Packer,
    covers: Vec<Cover>,
    /// The posting under way, and what is known of it so far.
    open: Option<Open>,
    reads: usize,
}

struct Open {
    posting: Posting,
    offsets: Vec<u64>,
    sequence: u64,
    /// Some of its offsets are packed.
    begun: bool,
}

/// What a step gives.
pub(crate) struct Step {
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Next,
}

pub(crate) enum Next {
    /// There is more.
    Step(Box<Merger>),
    /// That was all.
    End(Packed, Vec<Cover>),
}

impl Merger {
    /// `firsts` tells the oldest offset that is kept of each tenant: retention may go on, but not in the middle of a merge.
    pub(crate) fn new(runs: &[Arc<Meta>], firsts: impl Fn(Tenant) -> u64) -> Self {
        let keys = runs.iter().map(|run| run.keys).sum();
        Self {
            inputs: runs.iter().map(|run| Input::new(Arc::clone(run))).collect(),
            packer: Packer::new(keys),
            covers: joined(runs, firsts),
            open: None,
            reads: 0,
        }
    }

    /// Goes on for a few milliseconds.
    pub(crate) fn step(mut self: Box<Self>, connection: &Connection) -> rusqlite::Result<Step> {
        self.reads = 0;
        let mut rows = Vec::new();
        while rows.len() < STEP_ROWS && self.reads < STEP_READS {
            let Some(input) = self.least(connection)? else {
                self.close();
                let (last, packed) = self.packer.finish();
                rows.extend(last);
                return Ok(Step { rows, next: Next::End(packed, self.covers) });
            };
            self.take(input);
            rows.append(&mut self.packer.full());
        }
        Ok(Step { rows, next: Next::Step(self) })
    }

    /// The input whose entry comes next; of equal ones the oldest.
    fn least(&mut self, connection: &Connection) -> rusqlite::Result<Option<usize>> {
        let mut least: Option<(usize, Posting)> = None;
        for (place, input) in self.inputs.iter_mut().enumerate() {
            if !input.fill(connection, &mut self.reads)? {
                continue;
            }
            if least.is_none_or(|(_, posting)| input.entry.posting < posting) {
                least = Some((place, input.entry.posting));
            }
        }
        Ok(least.map(|(place, _)| place))
    }

    fn take(&mut self, input: usize) {
        let posting = self.inputs[input].entry.posting;
        if self.open.as_ref().is_none_or(|open| open.posting != posting) {
            self.close();
        }
        let entry = &mut self.inputs[input].entry;
        let tenant = u32::try_from(posting.scope >> 3).map_or(Tenant(u32::MAX), Tenant);
        let first =
            self.covers.binary_search_by_key(&tenant, |cover| cover.tenant).map_or(0, |at| self.covers[at].first);
        let open = self.open.get_or_insert(Open { posting, offsets: Vec::new(), sequence: 0, begun: false });
        open.offsets.extend(entry.offsets.iter().filter(|offset| **offset >= first));
        open.sequence = open.sequence.max(entry.sequence);
        let whole = open.offsets.len() - open.offsets.len() % OFFSETS_MAX;
        if whole > 0 {
            self.packer.push(posting, &open.offsets[..whole], open.sequence);
            open.offsets.drain(..whole);
            open.begun = true;
        }
        self.inputs[input].taken = true;
    }

    fn close(&mut self) {
        let Some(Open { posting, offsets, sequence, begun }) = self.open.take() else { return };
        if !offsets.is_empty() || (sequence > 0 && !begun) {
            self.packer.push(posting, &offsets, sequence);
        }
    }
}

/// What the runs cover together, of what is kept. A tenant of which nothing is kept stays: its aggregates are there.
fn joined(runs: &[Arc<Meta>], firsts: impl Fn(Tenant) -> u64) -> Vec<Cover> {
    let mut covers: Vec<Cover> = runs.iter().flat_map(|run| run.covers.iter().copied()).collect();
    covers.sort_by_key(|cover| (cover.tenant, cover.first));
    covers.dedup_by(|next, cover| {
        let same = next.tenant == cover.tenant;
        if same {
            cover.last = cover.last.max(next.last);
        }
        same
    });
    for cover in &mut covers {
        cover.first = cover.first.max(firsts(cover.tenant));
    }
    covers
}

/// A run that is read from its first entry to its last.
struct Input {
    run: Arc<Meta>,
    /// Blocks that were read; of the first one `left` bytes are to come.
    blocks: VecDeque<Row>,
    left: usize,
    after: Vec<u8>,
    over: bool,
    entry: Entry,
    /// `entry` is used up.
    taken: bool,
}

impl Input {
    fn new(run: Arc<Meta>) -> Self {
        let entry = Entry::default();
        Self { run, blocks: VecDeque::new(), left: 0, after: Vec::new(), over: false, entry, taken: true }
    }

    /// Makes sure that `entry` is the next one; false when there is none.
    fn fill(&mut self, connection: &Connection, reads: &mut usize) -> rusqlite::Result<bool> {
        if !self.taken {
            return Ok(true);
        }
        if self.left == 0 {
            self.blocks.pop_front();
            if self.blocks.is_empty() && !self.read(connection, reads)? {
                return Ok(false);
            }
        }
        let Some(block) = self.blocks.front() else { return Ok(false) };
        let mut cursor = if self.left == 0 {
            self.entry = Entry { offsets: std::mem::take(&mut self.entry.offsets), ..Entry::default() };
            Cursor::new(&block.bytes)?
        } else {
            Cursor::resume(&block.bytes[block.bytes.len() - self.left..], &self.entry)
        };
        let found = cursor.next(&mut self.entry)?;
        self.left = cursor.left();
        self.taken = !found;
        Ok(found)
    }

    fn read(&mut self, connection: &Connection, reads: &mut usize) -> rusqlite::Result<bool> {
        if self.over {
            return Ok(false);
        }
        let blocks = run::blocks(connection, self.run.number, &self.after, READ_ROWS)?;
        *reads += blocks.len();
        self.over = blocks.len() < READ_ROWS as usize;
        if let Some(last) = blocks.last() {
            self.after = last.place.to_vec();
        }
        self.blocks = blocks.into();
        Ok(!self.blocks.is_empty())
    }
}
