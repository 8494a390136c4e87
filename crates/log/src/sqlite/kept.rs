//! Copies of events that retention takes while a dead letter or a row of a subscription needs them.

use std::sync::Arc;

use rusqlite::params;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;

use super::group::Group;
use super::reader::{self, EVENT_COLUMNS, Read, Reader, unavailable};
use super::writer::{Stop, Writer};
use crate::event::{Data, Event, Tenant};

impl Writer {
    /// Copies what is still needed of the events through `until`, before they go.
    pub(crate) fn keep_needed(&mut self, tenant: Tenant, until: u64) -> Result<(), Stop> {
        let first = self.shared.end(tenant).extent.first;
        let needed = self.needed(tenant, first, Offset(until))?;
        if needed.is_empty() {
            return Ok(());
        }
        // A later erasure finds the copy, not what is left of the original in free pages.
        self.connection.pragma_update(None, "secure_delete", true)?;
        for offset in needed {
            match self.event_at(tenant, offset) {
                Ok(Some(event)) => self.keep(&event)?,
                Ok(None) => {}
                // It could not be delivered any more.
                Err(Stop::Declined(reason)) => tracing::warn!(%offset, %reason, "a dead letter loses its event"),
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// After a trim.
    pub(crate) fn kept_needed(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "secure_delete", "FAST")
    }

    fn needed(&self, tenant: Tenant, first: Offset, until: Offset) -> rusqlite::Result<Vec<Offset>> {
        let sql = "SELECT offset FROM dead_letter WHERE tenant = ?1 AND state = 0 AND offset BETWEEN ?2 AND ?3 \
                   UNION SELECT offset FROM pending_row WHERE tenant = ?1 AND offset BETWEEN ?2 AND ?3";
        self.connection
            .prepare_cached(sql)?
            .query_map(params![tenant.0, first.0.cast_signed(), until.0.cast_signed()], |row| {
                Ok(Offset(row.get::<_, i64>(0)?.cast_unsigned()))
            })?
            .collect()
    }

    fn keep(&mut self, event: &Event) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO kept_event \
                   (tenant, offset, id, recorded_ms, supplied, checksum, salt, header, data) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let salt = match &event.data {
            Data::Kept { salt } => &salt[..],
            Data::Erased { digest } => &digest[..],
        };
        self.connection.prepare_cached(sql)?.execute(params![
            event.tenant.0,
            event.offset.0.cast_signed(),
            event.subject.id.as_str(),
            event.recorded.as_millis(),
            event.supplied.0,
            reader::checksum(event.supplied, salt, event.header(), event.bytes()),
            salt,
            event.header(),
            event.bytes()
        ])?;
        self.wrote(event.weight());
        Ok(())
    }

    /// Drops the payload of the copies of the events called `id`; the place of the newest.
    pub(crate) fn erase_kept(
        &mut self,
        group: &mut Group,
        tenant: Tenant,
        id: &EventId,
    ) -> Result<Option<Offset>, Stop> {
        let copies = self.kept_called(tenant, id)?;
        for copy in &copies {
            let erased = copy.erased();
            let Data::Erased { digest } = &erased.data else { continue };
            self.connection.pragma_update(None, "secure_delete", true)?;
            let changed = self
                .connection
                .prepare_cached(
                    "UPDATE kept_event SET salt = ?, data = NULL, checksum = ? WHERE tenant = ? AND offset = ?",
                )?
                .execute(params![
                    digest,
                    reader::checksum(erased.supplied, digest, erased.header(), None),
                    tenant.0,
                    copy.offset.0.cast_signed()
                ]);
            self.connection.pragma_update(None, "secure_delete", "FAST")?;
            changed?;
            group.erased.push(Arc::new(erased));
        }
        Ok(copies.iter().map(|copy| copy.offset).max())
    }

    fn kept_called(&self, tenant: Tenant, id: &EventId) -> Result<Vec<Arc<Event>>, Stop> {
        let sql = format!("SELECT {EVENT_COLUMNS} FROM kept_event WHERE tenant = ? AND id = ?");
        let mut select = self.connection.prepare_cached(&sql)?;
        let copies = select.query_map(params![tenant.0, id.as_str()], |row| reader::event(tenant, row))?;
        copies.collect::<rusqlite::Result<_>>().map_err(Stop::from)
    }

    /// Drops the copies that nothing needs any more, at the end of a group: a later write of it may need one again.
    pub(crate) fn release(&self, group: &Group) -> rusqlite::Result<()> {
        if group.released.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM kept_event WHERE tenant = ?1 AND offset = ?2 \
                   AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE tenant = ?1 AND offset = ?2 AND state = 0) \
                   AND NOT EXISTS (SELECT 1 FROM pending_row WHERE tenant = ?1 AND offset = ?2)";
        let mut delete = self.connection.prepare_cached(sql)?;
        for (tenant, offset) in &group.released {
            delete.execute(params![tenant.0, offset.0.cast_signed()])?;
        }
        Ok(())
    }
}

impl Reader {
    /// One event by its offset, or the copy that is kept of it.
    pub(crate) fn event_or_copy(&self, tenant: Tenant, offset: Offset) -> Read<Option<Arc<Event>>> {
        let read = || {
            // A trim between the two looks must not hide it from both.
            let _snapshot = self.connection.unchecked_transaction()?;
            if let Some(event) = self.event(tenant, offset)? {
                return Ok(Some(event));
            }
            let sql = format!("SELECT {EVENT_COLUMNS} FROM kept_event WHERE tenant = ? AND offset = ?");
            let mut select = self.connection.prepare_cached(&sql)?;
            let mut rows = select.query(params![tenant.0, offset.0.cast_signed()])?;
            rows.next()?.map(|row| reader::event(tenant, row)).transpose()
        };
        read().map_err(|error| unavailable(&error))
    }
}
