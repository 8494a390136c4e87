//! Sorted runs: the index on disk, written by flushes, joined by merges, asked by readers.
//!
//! Runs are ordered by age, and each covers offsets of a tenant that no other does. A run's blocks stay as long as somebody
//! has its [`Meta`]: whoever took the list of runs can follow it in as many statements as it needs.

use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::{Connection, params};
use tidings_core::posting::Posting;

use super::block::{Cursor, DamagedBlock, Entry, FILTER, Place, Row, checked, place};
use super::filter::Filter;
use crate::event::Tenant;
use crate::query::Order;

/// What the filters of all runs take in memory: enough for some ten million events. The largest runs go without first.
pub(crate) const FILTERS_BYTES_MAX: usize = 24 << 20;

/// What there is of a tenant in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) tenant: Tenant,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What is known of a run.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) number: u64,
    /// The number of the newest flush that is in it.
    pub(crate) age: u64,
    pub(crate) level: u8,
    /// Postings in it, and offsets under them. A run without offsets has nothing but the heads of aggregates.
    pub(crate) keys: u64,
    pub(crate) offsets: u64,
    /// By tenant.
    pub(crate) covers: Vec<Cover>,
}

impl Meta {
    pub(crate) fn cover(&self, tenant: Tenant) -> Option<Cover> {
        let at = self.covers.binary_search_by_key(&tenant, |cover| cover.tenant).ok()?;
        self.covers.get(at).copied()
    }
}

/// A run, and what memory has of it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) meta: Arc<Meta>,
    pub(crate) filter: Option<Arc<Filter>>,
}

impl Run {
    /// False if `posting` is surely not in the run.
    pub(crate) fn may_have(&self, posting: Posting) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_have(posting))
    }
}

/// All runs that can be asked, the oldest first.
#[derive(Default)]
pub(crate) struct Runs {
    list: RwLock<Arc<Vec<Run>>>,
}

impl Runs {
    pub(crate) fn list(&self) -> Arc<Vec<Run>> {
        Arc::clone(&self.list.read())
    }

    /// Adds runs in the place of those that they were merged from.
    pub(crate) fn replace(&self, merged: &[Run], come: impl IntoIterator<Item = Run>) {
        let mut runs: Vec<Run> = (*self.list()).clone();
        runs.retain(|other| merged.iter().all(|gone| gone.meta.number != other.meta.number));
        runs.extend(come);
        runs.sort_by_key(|run| run.meta.age);
        bound_filters(&mut runs);
        *self.list.write() = Arc::new(runs);
    }
}

/// The largest runs lose their filters until the others fit.
fn bound_filters(runs: &mut [Run]) {
    let bytes = |run: &Run| run.filter.as_ref().map_or(0, |filter| filter.bytes());
    while runs.iter().map(bytes).sum::<usize>() > FILTERS_BYTES_MAX {
        let Some(largest) = runs.iter_mut().max_by_key(|run| bytes(run)) else { return };
        largest.filter = None;
    }
}

/// Which of the offsets under a posting are asked for.
pub(crate) struct Range {
    /// Exclusive.
    pub(crate) after: u64,
    /// Inclusive.
    pub(crate) through: u64,
    pub(crate) order: Order,
    /// Not many more than so many are given.
    pub(crate) limit: usize,
}

impl Range {
    pub(crate) const ALL: Self = Self { after: 0, through: u64::MAX, order: Order::Ascending, limit: usize::MAX };
}

/// The offsets that a run has under a posting, within a range: ascending within a block, blocks in the order of the range.
pub(crate) fn offsets(
    connection: &Connection,
    run: &Meta,
    posting: Posting,
    range: &Range,
) -> rusqlite::Result<Vec<u64>> {
    let direction = if range.order == Order::Ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT entries FROM run_block WHERE run = ?1 AND place <= ?3 AND place >= coalesce((SELECT max(place) \
         FROM run_block WHERE run = ?1 AND place <= ?2), x'') ORDER BY place {direction}"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let (low, high) = (place(posting, range.after), place(posting, range.through));
    let mut rows = select.query(params![run.number.cast_signed(), low, high])?;
    let mut offsets = Vec::new();
    while offsets.len() < range.limit
        && let Some(row) = rows.next()?
    {
        let mut cursor = Cursor::new(row.get_ref(0)?.as_blob()?)?;
        let mut entry = Entry::default();
        while cursor.next(&mut entry)? && entry.posting <= posting {
            if entry.posting == posting {
                offsets
                    .extend(entry.offsets.iter().filter(|offset| **offset > range.after && **offset <= range.through));
            }
        }
    }
    Ok(offsets)
}

/// The last sequence number that a run has of an aggregate. `beside` is told those of others that its block has whole.
pub(crate) fn head(
    connection: &Connection,
    run: &Meta,
    aggregate: Posting,
    mut beside: impl FnMut(Posting, u64),
) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT entries FROM run_block WHERE run = ? AND place <= ? ORDER BY place DESC LIMIT 1";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params![run.number.cast_signed(), place(aggregate, u64::MAX)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut cursor = Cursor::new(row.get_ref(0)?.as_blob()?)?;
    let mut entry = Entry::default();
    let mut head = None;
    // The last one may go on in the next block.
    let mut previous: Option<(Posting, u64)> = None;
    while cursor.next(&mut entry)? {
        if entry.posting == aggregate {
            head = Some(entry.sequence);
        }
        if let Some((posting, sequence)) = previous.filter(|(posting, _)| *posting != entry.posting) {
            beside(posting, sequence);
        }
        previous = Some((entry.posting, entry.sequence));
    }
    Ok(head)
}

/// Up to `limit` blocks of a run after a place.
pub(crate) fn blocks(connection: &Connection, run: u64, after: &[u8], limit: u32) -> rusqlite::Result<Vec<Row>> {
    let sql = "SELECT place, entries FROM run_block WHERE run = ? AND place > ? AND place < ? ORDER BY place LIMIT ?";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map(params![run.cast_signed(), after, FILTER, limit], |row| {
        Ok(Row { place: row.get(0)?, bytes: row.get(1)? })
    })?;
    rows.collect()
}

pub(crate) fn insert_row(connection: &Connection, run: u64, row: &Row) -> rusqlite::Result<()> {
    let sql = "INSERT INTO run_block (run, place, entries) VALUES (?, ?, ?)";
    connection.prepare_cached(sql)?.execute(params![run.cast_signed(), row.place, row.bytes]).map(|_| ())
}

/// Removes up to `limit` rows of a run; how many there were.
pub(crate) fn remove_rows(connection: &Connection, run: u64, limit: usize) -> rusqlite::Result<usize> {
    let sql =
        "DELETE FROM run_block WHERE number IN (SELECT number FROM run_block WHERE run = ? ORDER BY place LIMIT ?)";
    connection.prepare_cached(sql)?.execute(params![run.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)])
}

/// Makes a run visible: all of its rows are there.
pub(crate) fn insert_run(connection: &Connection, run: &Meta) -> rusqlite::Result<()> {
    let sql = "INSERT INTO run (number, age, level, keys, offsets, covers) VALUES (?, ?, ?, ?, ?, ?)";
    let mut covers = Vec::with_capacity(run.covers.len() * 20);
    for cover in &run.covers {
        covers.extend_from_slice(&cover.tenant.0.to_be_bytes());
        covers.extend_from_slice(&cover.first.to_be_bytes());
        covers.extend_from_slice(&cover.last.to_be_bytes());
    }
    connection
        .prepare_cached(sql)?
        .execute(params![
            run.number.cast_signed(),
            run.age.cast_signed(),
            run.level,
            run.keys.cast_signed(),
            run.offsets.cast_signed(),
            covers
        ])
        .map(|_| ())
}

/// Makes a run invisible; its rows are removed in slices.
pub(crate) fn remove_run(connection: &Connection, run: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM run WHERE number = ?")?.execute([run.cast_signed()]).map(|_| ())
}

/// All runs, the oldest first.
pub(crate) fn runs(connection: &Connection) -> rusqlite::Result<Vec<Meta>> {
    let mut select = connection.prepare("SELECT number, age, level, keys, offsets, covers FROM run ORDER BY age")?;
    let rows = select.query_map([], |row| {
        let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        Ok(Meta {
            number: unsigned(0)?,
            age: unsigned(1)?,
            level: row.get(2)?,
            keys: unsigned(3)?,
            offsets: unsigned(4)?,
            covers: covers(row.get_ref(5)?.as_blob()?).ok_or(DamagedBlock)?,
        })
    })?;
    rows.collect()
}

fn covers(mut bytes: &[u8]) -> Option<Vec<Cover>> {
    let mut covers = Vec::with_capacity(bytes.len() / 20);
    while !bytes.is_empty() {
        let (tenant, left) = bytes.split_first_chunk::<4>()?;
        let (first, left) = left.split_first_chunk::<8>()?;
        let (last, left) = left.split_first_chunk::<8>()?;
        let (first, last) = (u64::from_be_bytes(*first), u64::from_be_bytes(*last));
        covers.push(Cover { tenant: Tenant(u32::from_be_bytes(*tenant)), first, last });
        bytes = left;
    }
    Some(covers)
}

/// The filter that is stored beside a run, if it takes no more than `bytes_max`.
pub(crate) fn filter(connection: &Connection, run: u64, bytes_max: usize) -> rusqlite::Result<Option<Filter>> {
    let sql = "SELECT entries FROM run_block WHERE run = ? AND place >= ? ORDER BY place";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params![run.cast_signed(), FILTER])?;
    let mut filter = Filter::default();
    while let Some(row) = rows.next()? {
        filter.extend(checked(row.get_ref(0)?.as_blob()?)?);
        if filter.bytes() > bytes_max {
            return Ok(None);
        }
    }
    Ok(Some(filter))
}

/// Reads all of a run, in one transaction: a merge may take it away meanwhile.
pub(crate) fn check(connection: &Connection, run: &Meta) -> rusqlite::Result<()> {
    let _transaction = connection.unchecked_transaction()?;
    let sql = "SELECT EXISTS (SELECT 1 FROM run WHERE number = ?)";
    if !connection.query_row(sql, [run.number.cast_signed()], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let sql = "SELECT place, entries FROM run_block WHERE run = ? ORDER BY place";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([run.number.cast_signed()])?;
    let (mut keys, mut offsets, mut previous) = (0, 0, None);
    while let Some(row) = rows.next()? {
        let (place, block): (Place, _) = (row.get(0)?, row.get_ref(1)?.as_blob()?);
        let mut entry = Entry::default();
        let mut cursor = Cursor::new(block)?;
        while place < FILTER && cursor.next(&mut entry)? {
            keys += u64::from(previous != Some(entry.posting));
            offsets += entry.offsets.len() as u64;
            previous = Some(entry.posting);
        }
    }
    if (keys, offsets) == (run.keys, run.offsets) { Ok(()) } else { Err(DamagedBlock.into()) }
}

/// The numbers under which there are rows, of runs that can be asked and others.
pub(crate) fn numbers(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let sql = "WITH RECURSIVE found (run) AS (SELECT min(run) FROM run_block UNION ALL \
               SELECT (SELECT min(run) FROM run_block AS b WHERE b.run > found.run) FROM found WHERE run IS NOT NULL) \
               SELECT run FROM found WHERE run IS NOT NULL";
    let mut select = connection.prepare(sql)?;
    select.query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?.collect()
}
