//! The writes beside an append, one statement a method.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::posting::{Kind as PostingKind, Posting};
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::group::Group;
use super::reader;
use super::writer::{Stop, Writer};
use crate::event::{Data, Tenant};
use crate::store::{Document, Expect, Kind, Owner, Refusal, Write, Written};

/// What a write beside an append puts into the WAL, about: the pages of its table and of their indexes.
const WRITE_BYTES: usize = 4 * 4096;
/// The offsets of eras are multiples of this.
const ERA_BITS: u32 = 30;

impl Writer {
    pub(crate) fn write(&mut self, group: &mut Group, now: Timestamp, write: Write) -> Result<Written, Stop> {
        if !matches!(write, Write::Append(_)) {
            self.wrote(WRITE_BYTES);
        }
        match write {
            Write::Tenant(name) => self.add_tenant(group, name),
            Write::Append(append) => self.append(group, now, append),
            Write::Erase(tenant, id) => self.erase(group, tenant, &id),
            Write::Put(document, expect) => self.put(&document, expect),
            Write::Remove(kind, owner, id) => self.remove(kind, owner, &id),
            Write::Settle(settle) => self.settle(group, now, &settle),
            Write::Sweep(sweep) => self.sweep(group, &sweep),
            Write::Close(tenant, ids, state) => self.close_letters(group, tenant, &ids, &state),
            Write::Forget(subscription) => self.forget(group, &subscription),
            Write::Trim(tenant, through) => self.trim(group, tenant, through),
            Write::Era(tenant) => self.begin_era(group, now, tenant),
        }
    }

    fn add_tenant(&mut self, group: &mut Group, name: TenantName) -> Result<Written, Stop> {
        let made = group.tenants.iter().find(|(_, other)| *other == name).map(|(tenant, _)| *tenant);
        if let Some(tenant) = made.or_else(|| self.shared.tenant(&name)) {
            return Ok(Written::Tenant(tenant));
        }
        let number: u32 = self
            .connection
            .prepare_cached("INSERT INTO tenant (name, first, recorded_ms) VALUES (?, 1, 0) RETURNING number")?
            .query_row([name.as_str()], |row| row.get(0))?;
        group.tenants.push((Tenant(number), name));
        Ok(Written::Tenant(Tenant(number)))
    }

    fn erase(&mut self, group: &mut Group, tenant: Tenant, id: &EventId) -> Result<Written, Stop> {
        let posting = Posting::new(tenant.0, PostingKind::Id, id.as_str());
        let event = self.earlier(group, tenant, &posting, id.as_str())?;
        let copied = self.erase_kept(group, tenant, id)?;
        let Some(event) = event else {
            return copied.map(Written::Erased).ok_or(Stop::Refused(Refusal::NoSuchEvent));
        };
        let erased = event.erased();
        let Data::Erased { digest } = &erased.data else { return Ok(Written::Erased(event.offset)) };
        self.insert(group)?;
        // What is dropped must not linger in free pages.
        self.connection.pragma_update(None, "secure_delete", true)?;
        let changed = self
            .connection
            .prepare_cached("UPDATE event SET salt = ?, data = NULL, checksum = ? WHERE tenant = ? AND offset = ?")?
            .execute(params![
                digest,
                reader::checksum(erased.supplied, digest, erased.header(), None),
                tenant.0,
                event.offset.0.cast_signed()
            ]);
        self.connection.pragma_update(None, "secure_delete", "FAST")?;
        changed?;
        group.erased.push(Arc::new(erased));
        Ok(Written::Erased(event.offset))
    }

    fn put(&mut self, document: &Document, expect: Expect) -> Result<Written, Stop> {
        let (kind, owner) = (reader::kind_name(document.kind), reader::owner_number(document.owner));
        let current: Option<i64> = self
            .connection
            .prepare_cached("SELECT revision FROM document WHERE kind = ? AND owner = ? AND id = ?")?
            .query_row(params![kind, owner, document.id], |row| row.get(0))
            .optional()?;
        let current = current.unwrap_or(0).cast_unsigned();
        let holds = match expect {
            Expect::Any => true,
            Expect::New => current == 0,
            Expect::Revision(revision) => current == revision,
        };
        if !holds {
            return Err(Stop::Refused(Refusal::Revision));
        }
        let sql = "INSERT OR REPLACE INTO document (kind, owner, id, revision, body) VALUES (?, ?, ?, ?, ?)";
        let revision = current + 1;
        self.connection.prepare_cached(sql)?.execute(params![
            kind,
            owner,
            document.id,
            revision.cast_signed(),
            document.body
        ])?;
        Ok(Written::Put(revision))
    }

    fn remove(&mut self, kind: Kind, owner: Owner, id: &str) -> Result<Written, Stop> {
        let sql = "DELETE FROM document WHERE kind = ? AND owner = ? AND id = ?";
        self.connection.prepare_cached(sql)?.execute(params![
            reader::kind_name(kind),
            reader::owner_number(owner),
            id
        ])?;
        Ok(Written::Done)
    }

    fn begin_era(&mut self, group: &mut Group, now: Timestamp, tenant: Tenant) -> Result<Written, Stop> {
        let mut end = self.end(group, tenant);
        let previous = end.extent.head;
        if end.extent.era > previous {
            // Nothing came since the last era began: there is no new past to tell from.
            return Ok(Written::Done);
        }
        let first = Offset(((previous.0 >> ERA_BITS) + 1) << ERA_BITS);
        self.connection
            .prepare_cached("INSERT INTO era (tenant, first, previous, began_ms) VALUES (?, ?, ?, ?)")?
            .execute(params![tenant.0, first.0.cast_signed(), previous.0.cast_signed(), now.as_millis()])?;
        if end.extent.first > previous {
            end.extent.first = first;
        }
        end.extent.head = Offset(first.0 - 1);
        end.extent.era = first;
        group.set_end(tenant, end);
        group.eras.push((tenant, first, previous));
        Ok(Written::Done)
    }
}
