//! Reads: a connection of its own, short statements, pages.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tidings_core::event::{Supplied, envelope, subject_of, type_of};
use tidings_core::filter::Filter;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::connection::{OpenError, classify, open_reader};
use super::{Shared, search};
use crate::event::{Data, Event, Record, Tenant};
use crate::query::{Frame, Framed, Order, Page, Query};
use crate::store::{Appended, Document, Kind, Owner, Unavailable};

/// An owner's documents: an index scan.
pub(crate) const DOCUMENTS_OF: &str = "SELECT owner, id, revision, body FROM document \
     WHERE kind = ?1 AND owner = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
/// Those of all, which looks at each of the kind. Equal ids of several owners stay together, or the next page, which begins
/// after an id, would miss some.
const DOCUMENTS: &str = "SELECT owner, id, revision, body FROM document \
     WHERE kind = ?1 AND ?2 IS NULL AND id > ?3 AND id <= (SELECT max(id) FROM (SELECT id FROM document \
     WHERE kind = ?1 AND id > ?3 ORDER BY id LIMIT ?4)) ORDER BY id, owner";

/// The columns that [`event`] reads, in its order.
pub(crate) const EVENT_COLUMNS: &str = "offset, recorded_ms, supplied, checksum, salt, header, data";

pub(crate) struct Reader {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
}

pub(crate) type Read<T> = Result<T, Unavailable>;

pub(crate) fn unavailable(error: &rusqlite::Error) -> Unavailable {
    if let Some(offset) = damaged(error) {
        return Unavailable::Damaged(offset);
    }
    // What a reader meets does not fence the log: only the writer knows what is durable.
    match classify(error) {
        Unavailable::Fenced(text) => Unavailable::Trouble(text),
        milder => milder,
    }
}

/// Where the damaged event is that an error of [`event`] speaks of.
pub(crate) fn damaged(error: &rusqlite::Error) -> Option<Offset> {
    match error {
        rusqlite::Error::FromSqlConversionFailure(offset, _, cause) if cause.is::<Damaged>() => {
            Some(Offset(*offset as u64))
        }
        _ => None,
    }
}

impl Reader {
    pub(crate) fn open(path: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        Ok(Self { connection: open_reader(path)?, shared })
    }

    pub(crate) fn read(&self, query: &Query) -> Read<Page> {
        search::page(self, query).map_err(|error| unavailable(&error))
    }

    pub(crate) fn frame(&self, query: &Query, bytes_max: usize, frame: &Frame) -> Read<Framed> {
        search::frames(self, query, bytes_max, frame).map_err(|error| unavailable(&error))
    }

    pub(crate) fn find(&self, tenant: Tenant, id: &EventId) -> Read<Option<Arc<Event>>> {
        search::by_id(self, tenant, id).map_err(|error| unavailable(&error))
    }

    /// One event by its offset.
    pub(crate) fn event(&self, tenant: Tenant, offset: Offset) -> rusqlite::Result<Option<Arc<Event>>> {
        self.look(tenant, offset, |found| found.event())
    }

    /// Looks at the event at an offset, if there is one.
    pub(crate) fn look<T>(
        &self,
        tenant: Tenant,
        offset: Offset,
        look: impl FnOnce(Found<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        if let Some(event) = self.shared.tail.get(tenant, offset) {
            return look(Found::Recent(event)).map(Some);
        }
        let mut select = self.connection.prepare_cached(&select_events("tenant = ? AND offset = ?"))?;
        let mut rows = select.query(params![tenant.0, offset.0.cast_signed()])?;
        rows.next()?.map(|row| look(Found::Stored(Stored::of(tenant, row)?))).transpose()
    }

    /// The oldest offset that is kept of a tenant.
    pub(crate) fn first(&self, tenant: Tenant) -> rusqlite::Result<Offset> {
        self.connection
            .prepare_cached("SELECT first FROM tenant WHERE number = ?")?
            .query_row([tenant.0], |row| Ok(Offset(row.get::<_, i64>(0)?.cast_unsigned())))
    }

    /// All events between two offsets, exclusive and inclusive.
    pub(crate) fn scan(
        &self,
        tenant: Tenant,
        after: Offset,
        through: Offset,
        order: Order,
        mut visit: impl FnMut(Found<'_>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let direction = if order == Order::Ascending { "ASC" } else { "DESC" };
        let filter = format!("tenant = ? AND offset > ? AND offset <= ? ORDER BY offset {direction}");
        let mut select = self.connection.prepare_cached(&select_events(&filter))?;
        let mut rows = select.query(params![tenant.0, after.0.cast_signed(), through.0.cast_signed()])?;
        while let Some(row) = rows.next()? {
            if !visit(Found::Stored(Stored::of(tenant, row)?))? {
                break;
            }
        }
        Ok(())
    }

    /// By halves: `recorded_ms` never goes back.
    pub(crate) fn before(&self, tenant: Tenant, time: Timestamp) -> Read<Offset> {
        let extent = self.shared.end(tenant).extent;
        let (mut low, mut high) = (extent.first.0.saturating_sub(1), extent.head.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.next_recorded(tenant, middle).map_err(|error| unavailable(&error))? {
                // Offsets may jump: the event found may lie beyond the middle.
                Some((_, recorded)) if recorded < time.as_millis() => low = middle,
                _ => high = middle - 1,
            }
        }
        Ok(Offset(low))
    }

    fn next_recorded(&self, tenant: Tenant, from: u64) -> rusqlite::Result<Option<(i64, i64)>> {
        self.connection
            .prepare_cached(
                "SELECT offset, recorded_ms FROM event WHERE tenant = ? AND offset >= ? ORDER BY offset LIMIT 1",
            )?
            .query_row(params![tenant.0, from.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    pub(crate) fn get(&self, kind: Kind, owner: Owner, id: &str) -> Read<Option<Document>> {
        let sql = "SELECT owner, id, revision, body FROM document WHERE kind = ? AND owner = ? AND id = ?";
        let get = || {
            self.connection
                .prepare_cached(sql)?
                .query_row(params![kind_name(kind), owner_number(owner), id], |row| document(kind, row))
                .optional()
        };
        get().map_err(|error| unavailable(&error))
    }

    pub(crate) fn list(&self, kind: Kind, owner: Option<Owner>, after: &str, limit: usize) -> Read<Vec<Document>> {
        let sql = if owner.is_some() { DOCUMENTS_OF } else { DOCUMENTS };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let list = || {
            self.connection
                .prepare_cached(sql)?
                .query_map(params![kind_name(kind), owner.map(owner_number), after, limit], |row| document(kind, row))?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        list().map_err(|error| unavailable(&error))
    }
}

fn select_events(filter: &str) -> String {
    format!("SELECT {EVENT_COLUMNS} FROM event WHERE {filter}")
}

/// Guards what is served against what the disk has become: every column that an event is made of.
pub(crate) fn checksum(supplied: Supplied, salt: &[u8], header: &[u8], data: Option<&[u8]>) -> u32 {
    let columns = [&supplied.0.to_be_bytes()[..], salt, header, data.unwrap_or_default()];
    columns.into_iter().fold(0, crc32c::crc32c_append)
}

#[derive(Debug, thiserror::Error)]
#[error("damaged event")]
struct Damaged;

fn damage(offset: u64) -> rusqlite::Error {
    let place = usize::try_from(offset).unwrap_or(usize::MAX);
    rusqlite::Error::FromSqlConversionFailure(place, rusqlite::types::Type::Blob, Box::new(Damaged))
}

/// A row of [`EVENT_COLUMNS`] whose checksum holds.
pub(crate) struct Stored<'a> {
    tenant: Tenant,
    row: &'a Row<'a>,
    offset: u64,
    supplied: Supplied,
    salt: &'a [u8],
    header: &'a [u8],
    data: Option<&'a [u8]>,
}

impl<'a> Stored<'a> {
    pub(crate) fn of(tenant: Tenant, row: &'a Row<'_>) -> rusqlite::Result<Self> {
        let offset = row.get::<_, i64>(0)?.cast_unsigned();
        let (salt, header) = (row.get_ref(4)?.as_blob()?, row.get_ref(5)?.as_blob()?);
        let data = row.get_ref(6)?.as_blob_or_null()?;
        let supplied = Supplied(row.get(2).map_err(|_| damage(offset))?);
        if row.get::<_, i64>(3)? != i64::from(checksum(supplied, salt, header, data)) {
            return Err(damage(offset));
        }
        Ok(Self { tenant, row, offset, supplied, salt, header, data })
    }

    fn event(&self) -> rusqlite::Result<Arc<Event>> {
        let damaged = || damage(self.offset);
        let (subject, sequence) = subject_of(self.header).map_err(|_| damaged())?;
        let kept = match self.data {
            Some(_) => Data::Kept { salt: self.salt.try_into().map_err(|_| damaged())? },
            None => Data::Erased { digest: self.salt.try_into().map_err(|_| damaged())? },
        };
        Ok(Arc::new(Event {
            tenant: self.tenant,
            offset: Offset(self.offset),
            recorded: Timestamp::from_millis(self.row.get(1)?),
            subject,
            sequence,
            supplied: self.supplied,
            envelope: envelope(self.header, self.data).into(),
            header_bytes: self.header.len(),
            data: kept,
        }))
    }
}

/// An event from a row of [`EVENT_COLUMNS`].
pub(crate) fn event(tenant: Tenant, row: &Row<'_>) -> rusqlite::Result<Arc<Event>> {
    Stored::of(tenant, row)?.event()
}

/// An event where it was found.
pub(crate) enum Found<'a> {
    Stored(Stored<'a>),
    Recent(Arc<Event>),
}

impl Found<'_> {
    pub(crate) fn event(&self) -> rusqlite::Result<Arc<Event>> {
        match self {
            Self::Stored(stored) => stored.event(),
            Self::Recent(event) => Ok(Arc::clone(event)),
        }
    }

    pub(crate) fn record(&self) -> Record<'_> {
        match self {
            Self::Stored(stored) => Record { offset: Offset(stored.offset), header: stored.header, data: stored.data },
            Self::Recent(event) => event.record(),
        }
    }

    /// Whether a filter takes it; as little of it is read as that needs.
    pub(crate) fn is_taken(&self, filter: &Filter) -> rusqlite::Result<bool> {
        let stored = match self {
            Self::Stored(stored) => stored,
            Self::Recent(event) => return Ok(filter.matches(&event.subject)),
        };
        let taken = if filter.is_of_types() {
            type_of(stored.header).map(|name| filter.matches_type(&name))
        } else {
            subject_of(stored.header).map(|(subject, _)| filter.matches(&subject))
        };
        taken.map_err(|_| damage(stored.offset))
    }
}

fn document(kind: Kind, row: &Row<'_>) -> rusqlite::Result<Document> {
    let owner = match row.get::<_, u32>(0)? {
        0 => Owner::Operator,
        number => Owner::Tenant(Tenant(number)),
    };
    let revision = row.get::<_, i64>(2)?.cast_unsigned();
    Ok(Document { kind, owner, id: row.get::<_, String>(1)?.into(), revision, body: row.get(3)? })
}

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Key => "key",
        Kind::Webhook => "webhook",
        Kind::Consumer => "consumer",
        Kind::Standing => "standing",
        Kind::Replay => "replay",
        Kind::Ticket => "ticket",
        Kind::Setting => "setting",
        Kind::Position => "position",
        Kind::Quarantined => "quarantined",
    }
}

pub(crate) fn owner_number(owner: Owner) -> u32 {
    match owner {
        Owner::Operator => 0,
        Owner::Tenant(tenant) => tenant.0,
    }
}

/// A kept answer: for each event `id offset sequence duplicate`, a line each; a dash for no sequence.
pub(crate) fn encode_answer(results: &[Appended]) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(results.len() * 64);
    for result in results {
        let sequence = result.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {sequence} {}", result.id.as_str(), result.offset, u8::from(result.duplicate));
    }
    text.into_bytes()
}

pub(crate) fn answer(bytes: &[u8]) -> Option<Vec<Appended>> {
    std::str::from_utf8(bytes).ok()?.lines().map(appended).collect()
}

fn appended(line: &str) -> Option<Appended> {
    let mut words = line.split(' ');
    let id = EventId::parse(words.next()?).ok()?;
    let offset = Offset(words.next()?.parse().ok()?);
    let sequence = match words.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    Some(Appended { id, offset, sequence, duplicate: words.next()? == "1" })
}
