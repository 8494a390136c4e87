//! The index on disk follows the log in slices, each short enough not to be felt by an append.
//!
//! A flush takes a frozen generation, sorted by another thread; its last slice commits together with the mark
//! `indexed_through`. A crash before that repeats it: rows replace themselves, with at least what they held.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use rusqlite::params;
use tidings_core::posting::Posting;

use super::writer::{Stop, Writer};
use crate::event::Tenant;
use crate::index::{GENERATION_BITS, Generation, PostingRow};
use crate::store::REQUEST_KEPT;

/// A flush begins when so many events wait.
const EVENTS_TO_FLUSH: usize = 16_384;
/// With so many events outside the index, an append waits for it.
pub(crate) const EVENTS_MAX: usize = 65_536;
/// Rows of a slice: about 2 ms.
const SLICE_ROWS: usize = 1_024;
/// What a row of a slice writes, about.
const ROW_BYTES: usize = 192;
/// Heads kept in memory beside those of the tail, in each of two generations.
const HEADS_MAX: usize = 196_608;
/// How soon to look whether the helper has sorted the rows.
const SORTING: Duration = Duration::from_millis(5);
/// How often expired request keys are removed, and how many at once.
const SWEEP_MS: i64 = 10_000;
const SWEEP_ROWS: i64 = 1_000;

#[derive(Default)]
pub(crate) struct Flush {
    sorting: Option<Receiver<Sorted>>,
    rows: Option<Sorted>,
    /// Rows of `rows` that are committed, and those of the slice under way.
    done: usize,
    slice: usize,
    /// The last slice could not be committed.
    failed: bool,
    /// The generations that have rows, once somebody asked.
    generations: Option<BTreeSet<u64>>,
}

struct Sorted {
    rows: Vec<PostingRow>,
    through: u64,
}

impl Sorted {
    fn of(frozen: &Generation) -> Self {
        Self { rows: frozen.rows(), through: frozen.through }
    }
}

impl Writer {
    /// Freezes what waits, if it is at least `events_min` events and no flush is under way.
    pub(crate) fn flush_begin(&mut self, events_min: usize) {
        if self.flush.sorting.is_some() || self.flush.rows.is_some() {
            return;
        }
        let mut index = self.shared.index.write();
        if index.waiting() < events_min {
            return;
        }
        let frozen = index.freeze();
        drop(index);
        let (sender, receiver) = channel();
        self.flush.sorting = Some(receiver);
        let sort = move |(): &()| {
            // The writer may have ended; then nobody needs the rows.
            let _ = sender.send(Sorted::of(&frozen));
        };
        self.shared.helper.run(Box::new(sort));
    }

    /// Called after each commit: begins flushes, and makes appends wait when the index is too far behind.
    pub(crate) fn flush_pace(&mut self) {
        self.flush_begin(EVENTS_TO_FLUSH);
        let behind = self.shared.index.read().events() >= EVENTS_MAX;
        if behind && let Some(sorting) = self.flush.sorting.take() {
            self.flush.rows = sorting.recv().ok().or_else(|| self.sort_here());
        }
    }

    /// How long to wait for tasks while a flush is under way: not at all, but for a moment while its rows are sorted.
    pub(crate) fn flush_wait(&self) -> Option<Duration> {
        match &self.flush {
            Flush { failed: true, .. } => None,
            Flush { rows: Some(_), .. } => Some(Duration::ZERO),
            Flush { sorting: Some(_), .. } => Some(SORTING),
            _ => None,
        }
    }

    /// The helper had no room for the job.
    fn sort_here(&self) -> Option<Sorted> {
        let frozen = self.shared.index.read().frozen()?;
        Some(Sorted::of(&frozen))
    }

    pub(crate) fn flush_receive(&mut self) {
        let Some(sorting) = &self.flush.sorting else { return };
        match sorting.try_recv() {
            Ok(rows) => {
                self.flush.rows = Some(rows);
                self.flush.sorting = None;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                self.flush.sorting = None;
                self.flush.rows = self.sort_here();
            }
        }
    }

    pub(crate) fn flush_pending(&self) -> bool {
        self.flush.rows.is_some()
    }

    /// Writes the next rows, within the transaction under way.
    pub(crate) fn flush_slice(&mut self) -> rusqlite::Result<()> {
        self.sweep_requests()?;
        self.flush_receive();
        self.flush.slice = 0;
        let Some(Sorted { rows, through }) = &self.flush.rows else { return Ok(()) };
        let behind = self.shared.index.read().events() >= EVENTS_MAX;
        let end = if behind { rows.len() } else { rows.len().min(self.flush.done + SLICE_ROWS) };
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO posting (generation, scope, key, tag, first, rest, sequence) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        for row in &rows[self.flush.done..end] {
            if let Some(generations) = &mut self.flush.generations {
                generations.insert(row.generation);
            }
            insert.execute(params![
                row.generation.cast_signed(),
                row.posting.scope.cast_signed(),
                row.posting.key.cast_signed(),
                row.posting.tag.cast_signed(),
                row.first.cast_signed(),
                row.rest,
                row.sequence.cast_signed(),
            ])?;
        }
        if end == rows.len() {
            self.connection
                .prepare_cached("UPDATE mark SET value = ? WHERE name = 'indexed_through'")?
                .execute([through.cast_signed()])?;
        }
        self.flush.slice = end - self.flush.done;
        Ok(())
    }

    pub(crate) fn flush_failed(&mut self) {
        self.flush.slice = 0;
        self.flush.failed = true;
    }

    /// The slice is on disk; after the last one the frozen generation is dropped.
    pub(crate) fn flush_committed(&mut self) {
        self.flush.failed = false;
        let Some(Sorted { rows, .. }) = &self.flush.rows else { return };
        self.flush.done += self.flush.slice;
        let bytes = self.flush.slice * ROW_BYTES;
        if self.flush.done == rows.len() {
            let rows = self.flush.rows.take();
            self.flush.done = 0;
            let frozen = self.shared.index.write().thaw();
            // What was known of an aggregate before may be older than what leaves the tail now.
            for (aggregate, sequence) in frozen.iter().flat_map(|frozen| frozen.heads()) {
                self.heads.put(aggregate, sequence);
            }
            // Freeing a large map takes milliseconds: elsewhere.
            self.shared.helper.run(Box::new(move |(): &()| drop((frozen, rows))));
        }
        self.flush.slice = 0;
        self.wrote(bytes);
    }

    fn sweep_requests(&mut self) -> rusqlite::Result<()> {
        if self.now.as_millis() - self.requests_swept.as_millis() < SWEEP_MS {
            return Ok(());
        }
        self.requests_swept = self.now;
        let kept = i64::try_from(REQUEST_KEPT.as_millis()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM request WHERE number < (SELECT min(number) FROM request) + ? AND at_ms < ?";
        self.connection.prepare_cached(sql)?.execute([SWEEP_ROWS, self.now.as_millis() - kept])?;
        Ok(())
    }

    /// The last sequence number of an aggregate that only the disk knows: of its newest row, or left by retention. Its rows
    /// may outlive its events: generations are asked that the tenant has no event in any more.
    pub(crate) fn stored_head(&mut self, tenant: Tenant, aggregate: Posting) -> Result<u64, Stop> {
        self.find_generations()?;
        let newest_generation = self.shared.end(tenant).extent.head.0 >> GENERATION_BITS;
        let (scope, key, tag) =
            (aggregate.scope.cast_signed(), aggregate.key.cast_signed(), aggregate.tag.cast_signed());
        let sql = "SELECT sequence FROM posting WHERE generation = ? AND scope = ? AND key = ? AND tag = ? \
                   ORDER BY first DESC LIMIT 1";
        let mut newest = self.connection.prepare_cached(sql)?;
        let mut sequence: i64 = 0;
        let generations = self.flush.generations.iter().flatten().rev();
        for generation in generations.skip_while(|generation| **generation > newest_generation) {
            let mut rows = newest.query([generation.cast_signed(), scope, key, tag])?;
            if let Some(row) = rows.next()? {
                sequence = row.get(0)?;
                break;
            }
        }
        // What retention left may be newer than a row that it has not come to yet.
        let sql = "SELECT sequence FROM aggregate_head WHERE scope = ? AND key = ? AND tag = ?";
        let mut left = self.connection.prepare_cached(sql)?;
        let mut rows = left.query([scope, key, tag])?;
        if let Some(row) = rows.next()? {
            sequence = sequence.max(row.get(0)?);
        }
        Ok(sequence.cast_unsigned())
    }

    /// Learns once which generations have rows; flushes add theirs.
    fn find_generations(&mut self) -> rusqlite::Result<()> {
        if self.flush.generations.is_some() {
            return Ok(());
        }
        let sql = "WITH RECURSIVE found (generation) AS (SELECT max(generation) FROM posting UNION ALL \
                   SELECT (SELECT max(generation) FROM posting AS p WHERE p.generation < found.generation) \
                   FROM found WHERE generation IS NOT NULL) SELECT generation FROM found WHERE generation IS NOT NULL";
        let mut select = self.connection.prepare(sql)?;
        let found = select.query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?;
        self.flush.generations = Some(found.collect::<rusqlite::Result<_>>()?);
        Ok(())
    }
}

/// Heads that left the tail or were read from disk; two generations, so that it is bounded and keeps what is used.
#[derive(Default)]
pub(crate) struct HeadCache {
    recent: HashMap<Posting, u64>,
    older: HashMap<Posting, u64>,
}

impl HeadCache {
    pub(crate) fn get(&mut self, aggregate: Posting) -> Option<u64> {
        if let Some(sequence) = self.recent.get(&aggregate) {
            return Some(*sequence);
        }
        let sequence = *self.older.get(&aggregate)?;
        self.put(aggregate, sequence);
        Some(sequence)
    }

    pub(crate) fn put(&mut self, aggregate: Posting, sequence: u64) {
        if self.recent.len() >= HEADS_MAX {
            self.older = std::mem::replace(&mut self.recent, HashMap::new());
        }
        self.recent.insert(aggregate, sequence);
    }
}
