//! A run that is being written, a slice with each commit. It can be asked once its last row and its name are committed.

use std::sync::Arc;

use rusqlite::Connection;

use super::block::{Packed, Row};
use super::run::{self, Cover, Meta, Run};

pub(crate) struct Growing {
    pub(crate) number: u64,
    age: u64,
    pub(crate) level: u8,
    rows: Vec<Row>,
    /// Rows of `rows` that are committed, and those of the slice under way.
    done: usize,
    slice: usize,
    /// Bytes of the slice under way.
    bytes: usize,
    /// What the run is, once its last row is known.
    run: Option<Run>,
    complete: bool,
}

impl Growing {
    pub(crate) fn new(number: u64, age: u64, level: u8) -> Self {
        Self { number, age, level, rows: Vec::new(), done: 0, slice: 0, bytes: 0, run: None, complete: false }
    }

    /// Takes the next rows.
    pub(crate) fn extend(&mut self, rows: Vec<Row>) {
        self.rows.drain(..self.done);
        self.done = 0;
        self.rows.extend(rows);
    }

    /// Takes the end: there are no more rows.
    pub(crate) fn end(&mut self, packed: Packed, covers: Vec<Cover>) {
        let Packed { filter, keys, offsets } = packed;
        let meta = Meta { number: self.number, age: self.age, level: self.level, keys, offsets, covers };
        self.run = Some(Run { meta: Arc::new(meta), filter: Some(Arc::new(filter)) });
    }

    /// Rows that are not written yet.
    pub(crate) fn waiting(&self) -> usize {
        self.rows.len() - self.done
    }

    /// Whether a slice could be written.
    pub(crate) fn is_pending(&self) -> bool {
        self.waiting() > 0 || self.run.is_some()
    }

    /// Writes up to `rows_max` rows within the transaction under way; true if the run is complete with them.
    pub(crate) fn write(&mut self, connection: &Connection, rows_max: usize) -> rusqlite::Result<bool> {
        let end = self.rows.len().min(self.done.saturating_add(rows_max));
        self.bytes = 0;
        for row in &self.rows[self.done..end] {
            run::insert_row(connection, self.number, row)?;
            self.bytes += row.bytes.len();
        }
        self.slice = end - self.done;
        self.complete = end == self.rows.len() && self.run.is_some();
        if self.complete
            && let Some(run) = &self.run
            && run.meta.keys > 0
        {
            run::insert_run(connection, &run.meta)?;
        }
        Ok(self.complete)
    }

    /// The slice could not be committed: it comes again.
    pub(crate) fn failed(&mut self) {
        (self.slice, self.bytes, self.complete) = (0, 0, false);
    }

    /// The slice is on disk; how many bytes it had.
    pub(crate) fn committed(&mut self) -> usize {
        self.done += self.slice;
        self.slice = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Whether all of it is committed.
    pub(crate) fn is_finished(&self) -> bool {
        self.complete
    }

    /// The run, unless it came out empty.
    pub(crate) fn take_run(&mut self) -> Option<Run> {
        self.run.take().filter(|run| run.meta.keys > 0)
    }
}
