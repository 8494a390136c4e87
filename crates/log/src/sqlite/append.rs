//! Sequencing: what an append becomes is decided in memory, and only then written.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use tidings_core::event::same_content;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::group::{End, Fresh, Group, KeptAnswer};
use super::reader::{self, EVENT_COLUMNS};
use super::run::{self, Range};
use super::writer::{Stop, Writer};
use crate::event::{Data, Event, Tenant};
use crate::store::{Append, Appended, Prepared, REQUEST_KEPT, Refusal, RequestKey, Unavailable, Written};

const INSERT: &str = "INSERT INTO event (position, tenant, offset, recorded_ms, supplied, checksum, salt, header, data) \
                      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";

impl Writer {
    pub(crate) fn append(&mut self, group: &mut Group, now: Timestamp, append: Append) -> Result<Written, Stop> {
        if self.disk_full {
            return Err(Stop::Declined(Unavailable::Full));
        }
        if let Some(request) = &append.request
            && let Some(kept) = self.kept_answer(group, request, now)?
        {
            if kept.body != request.body {
                return Err(Stop::Refused(Refusal::RequestKeyReused));
            }
            return Ok(Written::Appended { results: kept.results, replayed: true });
        }
        let known =
            self.shared.has_tenant(append.tenant) || group.tenants.iter().any(|(made, _)| *made == append.tenant);
        if !known {
            return Err(Stop::Declined(Unavailable::Trouble("there is no such tenant".into())));
        }
        let mut results = Vec::with_capacity(append.events.len());
        for (index, prepared) in append.events.into_iter().enumerate() {
            results.push(self.place(group, append.tenant, now, index, prepared)?);
        }
        if let Some(request) = &append.request {
            self.keep_answer(group, request, &results, now)?;
        }
        Ok(Written::Appended { results, replayed: false })
    }

    /// Gives one event its numbers, or finds that it has them already.
    fn place(
        &mut self,
        group: &mut Group,
        tenant: Tenant,
        now: Timestamp,
        index: usize,
        prepared: Prepared,
    ) -> Result<Appended, Stop> {
        let Prepared { encoded, postings, aggregate } = prepared;
        if encoded.id_given
            && let Some(earlier) = self.earlier(group, tenant, &postings[0], encoded.subject.id.as_str())?
        {
            if !same_content(earlier.header(), earlier.bytes(), earlier.supplied, &encoded) {
                return Err(Stop::Refused(Refusal::IdTaken { index }));
            }
            let id = earlier.subject.id.clone();
            return Ok(Appended { id, offset: earlier.offset, sequence: earlier.sequence, duplicate: true });
        }
        let sequence = match aggregate {
            None => None,
            Some(key) => {
                let current = self.aggregate_head(group, key)?;
                if encoded.expected_sequence.is_some_and(|expected| expected != current) {
                    return Err(Stop::Refused(Refusal::Sequence { index, current }));
                }
                Some(current + 1)
            }
        };
        let mut end = self.end(group, tenant);
        end.extent.head = end.extent.head.next();
        end.recorded = end.recorded.max(now);
        group.set_end(tenant, end);
        let id_given = encoded.id_given;
        let event = Event::commit(encoded, tenant, end.extent.head, end.recorded, sequence);
        let appended = Appended { id: event.subject.id.clone(), offset: event.offset, sequence, duplicate: false };
        let position = self.next_position;
        self.next_position += 1;
        group.push(Fresh { position, event, postings, aggregate }, id_given);
        Ok(appended)
    }

    pub(crate) fn end(&self, group: &Group, tenant: Tenant) -> End {
        group.end(tenant).unwrap_or_else(|| self.shared.end(tenant))
    }

    /// Writes the group's events that are not in the table yet.
    pub(crate) fn insert(&self, group: &mut Group) -> rusqlite::Result<()> {
        let fresh = group.unwritten();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut insert = self.connection.prepare_cached(INSERT)?;
        for Fresh { position, event, .. } in fresh {
            let (Data::Kept { salt }, Some(bytes)) = (&event.data, event.bytes()) else { continue };
            insert.execute(params![
                position.cast_signed(),
                event.tenant.0,
                event.offset.0.cast_signed(),
                event.recorded.as_millis(),
                event.supplied.0,
                reader::checksum(event.supplied, salt, event.header(), Some(bytes)),
                &salt[..],
                event.header(),
                bytes,
            ])?;
        }
        Ok(())
    }

    /// The event that has this id already: of this group, of the tail, or indexed on disk.
    pub(crate) fn earlier(
        &self,
        group: &Group,
        tenant: Tenant,
        posting: &tidings_core::posting::Posting,
        id: &str,
    ) -> Result<Option<Arc<Event>>, Stop> {
        if let Some(event) = group.with_id(*posting).find(|event| event.subject.id.as_str() == id) {
            return Ok(Some(Arc::clone(event)));
        }
        let recent = self.shared.index.read().offsets(*posting);
        for offset in recent {
            if let Some(event) = self.event_at(tenant, Offset(offset))?
                && event.subject.id.as_str() == id
            {
                return Ok(Some(event));
            }
        }
        for run in self.shared.runs.list().iter().rev().filter(|run| run.may_have(*posting)) {
            for offset in run::offsets(&self.connection, &run.meta, *posting, &Range::ALL)? {
                if let Some(event) = self.event_at(tenant, Offset(offset))?
                    && event.subject.id.as_str() == id
                {
                    return Ok(Some(event));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn event_at(&self, tenant: Tenant, offset: Offset) -> Result<Option<Arc<Event>>, Stop> {
        if let Some(event) = self.shared.tail.get(tenant, offset) {
            return Ok(Some(event));
        }
        let sql = format!("SELECT {EVENT_COLUMNS} FROM event WHERE tenant = ? AND offset = ?");
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query(params![tenant.0, offset.0.cast_signed()])?;
        match rows.next()? {
            Some(row) => reader::event(tenant, row).map(Some).map_err(Stop::from),
            None => Ok(None),
        }
    }

    fn kept_answer(&self, group: &Group, request: &RequestKey, now: Timestamp) -> Result<Option<KeptAnswer>, Stop> {
        if let Some(kept) = group.answer(&request.key) {
            return Ok(Some(kept.clone()));
        }
        let sql = "SELECT body, answer FROM request WHERE key = ? AND at_ms > ?";
        let kept_ms = i64::try_from(REQUEST_KEPT.as_millis()).unwrap_or(i64::MAX);
        let since = now.as_millis().saturating_sub(kept_ms);
        let row = self
            .connection
            .prepare_cached(sql)?
            .query_row(params![request.key, since], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let Some((body, answer)) = row else { return Ok(None) };
        let results =
            reader::answer(&answer).ok_or_else(|| Stop::Damaged("a kept answer cannot be read".to_owned()))?;
        Ok(Some(KeptAnswer { body, results }))
    }

    fn keep_answer(
        &self,
        group: &mut Group,
        request: &RequestKey,
        results: &[Appended],
        now: Timestamp,
    ) -> Result<(), Stop> {
        let sql = "INSERT OR REPLACE INTO request (key, body, at_ms, answer) VALUES (?, ?, ?, ?)";
        let answer = reader::encode_answer(results);
        self.connection.prepare_cached(sql)?.execute(params![request.key, request.body, now.as_millis(), answer])?;
        group.keep_answer(request.key, KeptAnswer { body: request.body, results: results.to_vec() });
        Ok(())
    }
}
