//! The index on disk follows the log in slices, each short enough not to be felt by an append.
//!
//! A flush takes a frozen generation, which another thread sorts and packs into a run; its last slice commits together with
//! the mark `indexed_through`. A crash before that leaves rows of a run that does not exist; they are removed.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::block::{Packed, Packer, Row};
use super::growing::Growing;
use super::run::Cover;
use super::turns::Line;
use super::writer::Writer;
use crate::index::Generation;
use crate::store::REQUEST_KEPT;

/// A flush begins when so many events wait.
const EVENTS_TO_FLUSH: usize = 16_384;
/// With so many events outside the index, an append waits for it.
pub(crate) const EVENTS_MAX: usize = 65_536;
/// Blocks of a slice: less than 2 ms.
const SLICE_ROWS: usize = 64;
/// How soon to look whether the helper is done.
const HELPING: Duration = Duration::from_millis(5);
/// How often expired request keys are removed, and how many at once.
const SWEEP_MS: i64 = 10_000;
const SWEEP_ROWS: usize = 1_000;

#[derive(Default)]
pub(crate) struct Flush {
    sorting: Option<Receiver<Sorted>>,
    growing: Option<Growing>,
    /// The last position of the events in `growing`.
    through: u64,
    /// The last slice could not be committed.
    failed: bool,
}

struct Sorted {
    rows: Vec<Row>,
    packed: Packed,
    covers: Vec<Cover>,
    through: u64,
}

impl Sorted {
    fn of(frozen: &Generation) -> Self {
        let sorted = frozen.sorted();
        let mut blocks = Packer::new(sorted.len() as u64);
        for (posting, offsets, sequence) in sorted {
            blocks.push(posting, offsets, sequence);
        }
        let (rows, packed) = blocks.finish();
        Self { rows, packed, covers: frozen.covers(), through: frozen.through }
    }
}

impl Writer {
    /// Freezes what waits, if it is at least `events_min` events and no flush is under way.
    pub(crate) fn flush_begin(&mut self, events_min: usize) {
        if self.flush.sorting.is_some() || self.flush.growing.is_some() {
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
        let sort = move |_: &Connection| {
            // The writer may have ended; then nobody needs the rows.
            let _ = sender.send(Sorted::of(&frozen));
        };
        self.shared.helper.run(Line::default(), Box::new(sort));
    }

    /// Called after each commit: begins flushes, and makes appends wait when the index is too far behind.
    pub(crate) fn flush_pace(&mut self) {
        self.flush_begin(EVENTS_TO_FLUSH);
        let behind = self.shared.index.read().events() >= EVENTS_MAX;
        if behind && let Some(sorting) = self.flush.sorting.take() {
            let sorted = sorting.recv().ok().or_else(|| self.sort_here());
            self.flush_sorted(sorted);
        }
    }

    /// How long to wait for tasks while the index is behind: not at all, but for a moment while another thread is at work.
    pub(crate) fn index_wait(&self) -> Option<Duration> {
        if self.flush.failed {
            None
        } else if self.index_pending() {
            Some(Duration::ZERO)
        } else {
            let others_work = self.flush.sorting.is_some() || self.merging.is_waiting() || self.backfill.is_some();
            others_work.then_some(HELPING)
        }
    }

    /// Whether there is something to write to the index.
    pub(crate) fn index_pending(&self) -> bool {
        self.flush.growing.is_some() || self.merging.is_pending()
    }

    /// The helper had no room for the job.
    fn sort_here(&self) -> Option<Sorted> {
        let frozen = self.shared.index.read().frozen()?;
        Some(Sorted::of(&frozen))
    }

    fn flush_sorted(&mut self, sorted: Option<Sorted>) {
        let Some(Sorted { rows, packed, covers, through }) = sorted else { return };
        let number = self.take_run_number();
        let mut growing = Growing::new(number, number, 0);
        growing.extend(rows);
        growing.end(packed, covers);
        self.flush.growing = Some(growing);
        self.flush.through = through;
    }

    pub(crate) fn flush_receive(&mut self) {
        let Some(sorting) = &self.flush.sorting else { return };
        let sorted = match sorting.try_recv() {
            Ok(sorted) => Some(sorted),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => self.sort_here(),
        };
        self.flush.sorting = None;
        self.flush_sorted(sorted);
    }

    /// Writes the next rows of the index, within the transaction under way.
    pub(crate) fn index_slice(&mut self) -> rusqlite::Result<()> {
        self.sweep_requests()?;
        self.flush_receive();
        if let Some(growing) = &mut self.flush.growing {
            let behind = self.shared.index.read().events() >= EVENTS_MAX;
            if growing.write(&self.connection, if behind { usize::MAX } else { SLICE_ROWS })? {
                self.connection
                    .prepare_cached("UPDATE mark SET value = ? WHERE name = 'indexed_through'")?
                    .execute([self.flush.through.cast_signed()])?;
            }
        }
        self.merge_slice()
    }

    pub(crate) fn index_failed(&mut self) {
        self.flush.failed = true;
        if let Some(growing) = &mut self.flush.growing {
            growing.failed();
        }
        self.merging.failed();
    }

    /// The slice is on disk; after the last one the frozen generation is dropped.
    pub(crate) fn index_committed(&mut self) {
        self.flush.failed = false;
        if let Some(growing) = &mut self.flush.growing {
            let bytes = growing.committed();
            let finished = growing.is_finished().then(|| growing.take_run());
            self.wrote(bytes);
            if let Some(run) = finished {
                self.flush.growing = None;
                // Before the thaw: a reader that does not find the events in memory finds the run.
                self.shared.runs.replace(&[], run);
                self.flush_thaw();
                self.merging.look();
            }
        }
        self.merge_committed();
    }

    fn flush_thaw(&mut self) {
        let frozen = self.shared.index.write().thaw();
        // What was known of an aggregate before may be older than what leaves the tail now.
        for (aggregate, sequence) in frozen.iter().flat_map(|frozen| frozen.heads()) {
            self.heads.put(aggregate, sequence);
        }
        // Freeing a large map takes milliseconds: elsewhere.
        self.shared.helper.run(Line::default(), Box::new(move |_: &Connection| drop(frozen)));
    }

    fn sweep_requests(&mut self) -> rusqlite::Result<()> {
        if self.now.as_millis() - self.requests_swept.as_millis() < SWEEP_MS {
            return Ok(());
        }
        let kept = i64::try_from(REQUEST_KEPT.as_millis()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM request WHERE number < (SELECT min(number) FROM request) + ? AND at_ms < ?";
        let removed = self
            .connection
            .prepare_cached(sql)?
            .execute(params![SWEEP_ROWS.cast_signed(), self.now.as_millis() - kept])?;
        // With as many as one sweep takes there may be more: the next commit goes on.
        if removed < SWEEP_ROWS {
            self.requests_swept = self.now;
        }
        Ok(())
    }
}
