//! Retention: the oldest events of a tenant go. Their entries in the index lead nowhere then; merges leave them out.

use rusqlite::{OptionalExtension as _, params};
use tidings_core::offset::Offset;

use super::group::Group;
use super::writer::{Stop, Writer};
use crate::event::Tenant;
use crate::store::Written;

/// Events that one trim removes: about 5 ms.
const TRIM_ROWS: u64 = 512;

impl Writer {
    /// Removes the oldest events through the end of a seal, a slice at a time, and the history of those that are gone.
    pub(crate) fn trim(&mut self, group: &mut Group, tenant: Tenant, through: Offset) -> Result<Written, Stop> {
        // Events go slowly while there is much history to remove, so that it does not fall behind.
        let rows = if self.trim_history(tenant)? { TRIM_ROWS / 64 } else { TRIM_ROWS };
        let trimmed = self.trim_events(group, tenant, through, rows);
        self.kept_needed()?;
        self.trim_letters(tenant)?;
        trimmed
    }

    /// The last removed seal stays: the chain goes on from it. What is not indexed on disk yet stays too: the heads of its
    /// aggregates are known from nowhere else.
    fn trim_events(&mut self, group: &mut Group, tenant: Tenant, through: Offset, rows: u64) -> Result<Written, Stop> {
        let mut end = self.end(group, tenant);
        let boundary: Option<i64> = self
            .connection
            .prepare_cached("SELECT max(last) FROM seal WHERE tenant = ? AND last <= ?")?
            .query_row(params![tenant.0, through.0.cast_signed()], |row| row.get(0))?;
        let boundary = boundary.unwrap_or(0).cast_unsigned();
        if boundary < end.extent.first.0 {
            return Ok(Written::Trimmed(end.extent.first));
        }
        let until = boundary.min(end.extent.first.0 + rows - 1);
        self.keep_needed(tenant, until)?;
        let removed = self
            .connection
            .prepare_cached(
                "DELETE FROM event WHERE tenant = ? AND offset <= ? \
                 AND position <= (SELECT value FROM mark WHERE name = 'indexed_through')",
            )?
            .execute(params![tenant.0, until.cast_signed()])?;
        if removed == 0 {
            self.flush_begin(1);
            return Ok(Written::Trimmed(end.extent.first));
        }
        end.extent.first = self.first_event(tenant)?.unwrap_or(end.extent.head.next());
        let gone = end.extent.first.0 - 1;
        self.trim_seals(tenant, gone)?;
        self.connection
            .prepare_cached("UPDATE tenant SET first = ?, recorded_ms = ? WHERE number = ?")?
            .execute(params![end.extent.first.0.cast_signed(), end.recorded.as_millis(), tenant.0])?;
        group.set_end(tenant, end);
        group.trimmed.push((tenant, end.extent.first));
        Ok(Written::Trimmed(end.extent.first))
    }

    /// Dead letters that are closed go after their events, a slice at a time.
    fn trim_letters(&self, tenant: Tenant) -> rusqlite::Result<()> {
        let sql = "DELETE FROM dead_letter WHERE id IN \
                   (SELECT id FROM dead_letter WHERE tenant = ? AND offset < ? AND state > 0 LIMIT ?)";
        let first = self.shared.end(tenant).extent.first;
        self.connection.prepare_cached(sql)?.execute(params![
            tenant.0,
            first.0.cast_signed(),
            TRIM_ROWS.cast_signed()
        ])?;
        Ok(())
    }

    fn first_event(&self, tenant: Tenant) -> rusqlite::Result<Option<Offset>> {
        self.connection
            .prepare_cached("SELECT offset FROM event WHERE tenant = ? ORDER BY offset LIMIT 1")?
            .query_row([tenant.0], |row| Ok(Offset(row.get::<_, i64>(0)?.cast_unsigned())))
            .optional()
    }

    fn trim_seals(&self, tenant: Tenant, gone: u64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM seal WHERE tenant = ?1 AND last < (SELECT max(last) FROM seal WHERE tenant = ?1 AND last <= ?2)",
            )?
            .execute(params![tenant.0, gone.cast_signed()])?;
        self.connection
            .prepare_cached("UPDATE seal SET leaves = x'' WHERE tenant = ? AND last <= ? AND leaves <> x''")?
            .execute(params![tenant.0, gone.cast_signed()])?;
        Ok(())
    }
}
