//! Start: what the file holds becomes what the writer knows. Only the tail that is not indexed yet is read.

use std::sync::Arc;

use rusqlite::{Connection, params};
use tidings_core::event::subject_of;
use tidings_core::offset::Offset;
use tidings_core::posting::postings;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::connection::OpenError;
use super::filter::Filter;
use super::run::{self, FILTERS_BYTES_MAX, Run};
use super::seal::genesis;
use super::{Era, Shared, TenantState};
use crate::event::Tenant;
use crate::store::{Extent, Seal};

/// What the writer goes on from.
pub(crate) struct Found {
    pub(crate) next_position: u64,
    pub(crate) next_run: u64,
    /// Runs that have rows and do not exist: a flush or a merge did not come to its end, or what it replaced is not gone.
    pub(crate) orphans: Vec<u64>,
}

/// Reads the tenants and the runs of the index, and replays the tail.
pub(crate) fn load(connection: &Connection, shared: &Shared) -> Result<Found, OpenError> {
    let mut tenants = connection.prepare("SELECT number, name, first, recorded_ms FROM tenant ORDER BY number")?;
    let rows = tenants.query_map([], |row| {
        Ok((
            row.get::<_, u32>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?.cast_unsigned(),
            row.get::<_, i64>(3)?,
        ))
    })?;
    for row in rows {
        let (number, name, first, recorded_ms) = row?;
        let name = TenantName::parse(&name).map_err(OpenError::Damaged)?;
        shared.open_tenant(Tenant(number), tenant(connection, Tenant(number), name, Offset(first), recorded_ms)?);
    }
    let indexed_through: i64 =
        connection.query_row("SELECT value FROM mark WHERE name = 'indexed_through'", [], |row| row.get(0))?;
    let last = replay(connection, shared, indexed_through)?;
    let runs = runs(connection)?;
    let numbers = run::numbers(connection)?;
    let is_run = |number: &u64| runs.iter().any(|run| run.meta.number == *number);
    let orphans = numbers.iter().copied().filter(|number| !is_run(number)).collect();
    let next_run = numbers.last().map_or(1, |last| last + 1);
    shared.runs.replace(&[], runs);
    Ok(Found { next_position: last.max(indexed_through.cast_unsigned()) + 1, next_run, orphans })
}

/// The runs, the newest with their filters, as many as memory has room for.
fn runs(connection: &Connection) -> Result<Vec<Run>, OpenError> {
    let mut room = FILTERS_BYTES_MAX;
    let mut runs = Vec::new();
    for meta in run::runs(connection)?.into_iter().rev() {
        let filter = match run::filter(connection, meta.number, room) {
            Ok(filter) => filter,
            Err(error) => {
                tracing::warn!(%error, run = meta.number, "a run of the index goes without its filter");
                None
            }
        };
        room -= filter.as_ref().map_or(0, Filter::bytes).min(room);
        runs.push(Run { meta: Arc::new(meta), filter: filter.map(Arc::new) });
    }
    Ok(runs)
}

fn tenant(
    connection: &Connection,
    tenant: Tenant,
    name: TenantName,
    first: Offset,
    recorded_ms: i64,
) -> Result<TenantState, OpenError> {
    let mut eras = connection.prepare_cached("SELECT first, previous FROM era WHERE tenant = ? ORDER BY first")?;
    let eras: Vec<Era> = eras
        .query_map([tenant.0], |row| {
            let (first, previous) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
            Ok(Era { first: Offset(first.cast_unsigned()), previous: Offset(previous.cast_unsigned()) })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let sql = "SELECT offset, recorded_ms FROM event WHERE tenant = ? ORDER BY offset DESC LIMIT 1";
    let mut newest = connection.prepare_cached(sql)?;
    let mut rows = newest.query([tenant.0])?;
    let newest = match rows.next()? {
        Some(row) => Some((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?)),
        None => None,
    };
    let era = eras.last().map_or(Offset(0), |era| era.first);
    let before_era = era.0.saturating_sub(1);
    let head = Offset(newest.map_or(first.0.saturating_sub(1), |(offset, _)| offset).max(before_era));
    let first = if newest.is_some() { first } else { head.next() };
    let recorded = Timestamp::from_millis(newest.map_or(recorded_ms, |(_, newest_ms)| newest_ms.max(recorded_ms)));
    let extent = Extent { first, head, era };
    Ok(TenantState { name, extent, recorded, sealed: sealed(connection, tenant)?, eras })
}

fn sealed(connection: &Connection, tenant: Tenant) -> rusqlite::Result<Seal> {
    let sql = "SELECT first, last, hash FROM seal WHERE tenant = ? ORDER BY last DESC LIMIT 1";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([tenant.0])?;
    let Some(row) = rows.next()? else { return Ok(genesis()) };
    Ok(Seal {
        first: Offset(row.get::<_, i64>(0)?.cast_unsigned()),
        last: Offset(row.get::<_, i64>(1)?.cast_unsigned()),
        hash: row.get(2)?,
    })
}

fn replay(connection: &Connection, shared: &Shared, indexed_through: i64) -> Result<u64, OpenError> {
    let sql = "SELECT position, tenant, offset, header FROM event WHERE position > ? ORDER BY position";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query(params![indexed_through])?;
    let mut index = shared.index.write();
    let mut last = 0;
    while let Some(row) = rows.next()? {
        last = row.get::<_, i64>(0)?.cast_unsigned();
        let (tenant, offset) = (Tenant(row.get(1)?), Offset(row.get::<_, i64>(2)?.cast_unsigned()));
        let (subject, sequence) = subject_of(row.get_ref(3)?.as_blob().unwrap_or_default())
            .map_err(|error| OpenError::Damaged(format!("event at position {last}: {error}")))?;
        let (postings, aggregate) = postings(tenant.0, &subject);
        index.add(last, (tenant, offset), &postings, aggregate.zip(sequence));
    }
    Ok(last)
}
