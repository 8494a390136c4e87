//! The history of deliveries: attempts, many in a row.

use rusqlite::params;
use tidings_core::offset::Offset;

use super::reader::{Read, Reader, unavailable};
use super::writer::Writer;
use crate::attempts::{self, ATTEMPTS_MAX};
use crate::event::Tenant;
use crate::store::{Attempt, Settle};

/// Offsets whose attempts are kept together, in bits.
const SPAN_BITS: u32 = 12;
/// A number of [`Reader::history`]: the row's, and the place in it.
const PLACE_BITS: u32 = ATTEMPTS_MAX.ilog2();
/// Rows that one trim removes, and spans that it looks at: about 5 ms.
const TRIM_ROWS: usize = 2_048;
const TRIM_SPANS: usize = 256;

pub(crate) const BY_EVENT: &str =
    "SELECT number FROM attempt WHERE tenant = ?1 AND span = ?2 AND first <= ?3 AND last >= ?3 ORDER BY number DESC";
const BY_NUMBER: &str = "SELECT subscription, attempts FROM attempt WHERE number = ?";
pub(crate) const BY_SUBSCRIPTION: &str =
    "SELECT number, attempts FROM attempt WHERE subscription = ? AND number <= ? ORDER BY number DESC";

fn span(offset: Offset) -> i64 {
    (offset.0 >> SPAN_BITS).cast_signed()
}

impl Writer {
    /// Writes the attempts of a commit; answers how many bytes that took.
    pub(crate) fn put_attempts(&self, settle: &Settle) -> rusqlite::Result<usize> {
        let mut attempts: Vec<&Attempt> = settle.attempts.iter().collect();
        attempts.sort_by_key(|attempt| span(attempt.offset));
        let sql = "INSERT INTO attempt (subscription, tenant, span, first, last, attempts) VALUES (?, ?, ?, ?, ?, ?)";
        let mut bytes = 0;
        for run in attempts.chunk_by(|a, b| span(a.offset) == span(b.offset)) {
            for piece in run.chunks(ATTEMPTS_MAX) {
                let blob = attempts::encode(piece);
                let offsets = piece.iter().map(|attempt| attempt.offset.0.cast_signed());
                self.connection.prepare_cached(sql)?.execute(params![
                    settle.subscription,
                    settle.tenant.0,
                    span(piece[0].offset),
                    offsets.clone().min(),
                    offsets.max(),
                    blob
                ])?;
                bytes += blob.len() + 128;
            }
        }
        Ok(bytes)
    }

    pub(crate) fn remove_history(&self, subscription: &str) -> rusqlite::Result<usize> {
        self.connection.prepare_cached("DELETE FROM attempt WHERE subscription = ?")?.execute([subscription])
    }

    /// Removes history of events that are gone, a slice at a time; answers whether there may be more. Spans stay whole
    /// while an event is left in them, or the copy of one.
    pub(crate) fn trim_history(&mut self, tenant: Tenant) -> rusqlite::Result<bool> {
        let gone = span(self.shared.end(tenant).extent.first);
        let mut from = self.history_walked.remove(&tenant).unwrap_or(0);
        let mut rows = TRIM_ROWS;
        for _ in 0..TRIM_SPANS {
            let Some(found) = self.next_span(tenant, from)?.filter(|span| *span < gone) else { return Ok(false) };
            from = found;
            if self.keeps_one_of(tenant, found)? {
                from += 1;
                continue;
            }
            rows = rows.saturating_sub(self.remove_span(tenant, found, rows)?);
            if rows == 0 {
                break;
            }
        }
        self.history_walked.insert(tenant, from);
        Ok(true)
    }

    fn next_span(&self, tenant: Tenant, from: i64) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT min(span) FROM attempt WHERE tenant = ? AND span >= ?")?
            .query_row(params![tenant.0, from], |row| row.get(0))
    }

    fn keeps_one_of(&self, tenant: Tenant, span: i64) -> rusqlite::Result<bool> {
        let (first, last) = (span << SPAN_BITS, ((span + 1) << SPAN_BITS) - 1);
        self.connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM kept_event WHERE tenant = ? AND offset BETWEEN ? AND ?)")?
            .query_row(params![tenant.0, first, last], |row| row.get(0))
    }

    fn remove_span(&self, tenant: Tenant, span: i64, rows: usize) -> rusqlite::Result<usize> {
        let sql = "DELETE FROM attempt WHERE number IN \
                   (SELECT number FROM attempt WHERE tenant = ? AND span = ? LIMIT ?)";
        self.connection.prepare_cached(sql)?.execute(params![tenant.0, span, rows.cast_signed()])
    }
}

impl Reader {
    pub(crate) fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Read<Vec<Attempt>> {
        let read = || {
            let _snapshot = self.connection.unchecked_transaction()?;
            let mut select = self.connection.prepare_cached(BY_EVENT)?;
            let mut numbers = select.query(params![tenant.0, span(offset), offset.0.cast_signed()])?;
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(number) = numbers.next()?
            {
                self.attempts_in(number.get(0)?, offset, &mut found)?;
            }
            found.truncate(limit);
            found.reverse();
            Ok(found)
        };
        read().map_err(|error| unavailable(&error))
    }

    /// The attempts of one event in one row, newest first.
    fn attempts_in(&self, number: i64, offset: Offset, found: &mut Vec<Attempt>) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(BY_NUMBER)?;
        let mut rows = select.query([number])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let records = decode(number, row.get_ref(1)?.as_blob()?);
        let subscription = row.get_ref(0)?.as_str()?;
        let of_event = records.iter().rev().filter(|record| record.offset == offset);
        found.extend(of_event.map(|record| record.attempt(subscription)));
        Ok(())
    }

    pub(crate) fn history(&self, subscription: &str, before: Option<u64>, limit: usize) -> Read<Vec<(u64, Attempt)>> {
        let before = before.unwrap_or(u64::MAX);
        let read = || {
            let mut found = Vec::new();
            let mut select = self.connection.prepare_cached(BY_SUBSCRIPTION)?;
            let mut rows = select.query(params![subscription, (before >> PLACE_BITS).cast_signed()])?;
            while found.len() < limit
                && let Some(row) = rows.next()?
            {
                let number = row.get::<_, i64>(0)?;
                let records = decode(number, row.get_ref(1)?.as_blob()?);
                let numbers = (0..).map(|place| number.cast_unsigned() << PLACE_BITS | place);
                let numbered = numbers.zip(&records).take_while(|(number, _)| *number < before);
                let newest_first: Vec<_> =
                    numbered.map(|(number, record)| (number, record.attempt(subscription))).collect();
                found.extend(newest_first.into_iter().rev());
            }
            found.truncate(limit);
            Ok(found)
        };
        read().map_err(|error| unavailable(&error))
    }
}

/// History is told as far as it can be read.
fn decode(number: i64, blob: &[u8]) -> Vec<attempts::Record<'_>> {
    attempts::decode(blob).unwrap_or_else(|| {
        tracing::warn!(number, "attempts cannot be read");
        Vec::new()
    })
}
