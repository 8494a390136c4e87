//! One tenant's log from its first event to its last, along the seals.

use foldhash::HashMap;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tidings_core::chain::{self, GENESIS, Hash};
use tidings_core::event::{AggregateId, Header, Supplied};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::{Finding, FindingKind, Report, TenantReport};
use crate::event::Tenant;
use crate::sqlite::reader;

/// Events of one read transaction, about.
const SLICE_EVENTS: u64 = 4_096;
/// Through the index, which names the events, to the table: both must say the same.
const EVENTS: &str = "SELECT i.offset, e.tenant, e.offset, e.recorded_ms, e.checksum, e.salt, e.header, e.data, e.supplied \
                      FROM event AS i INDEXED BY event_by_offset CROSS JOIN event AS e ON e.position = i.position \
                      WHERE i.tenant = ? AND i.offset >= ? AND i.offset <= ? ORDER BY i.offset LIMIT ?";
const NEXT_SEAL: &str = "SELECT first, last, previous, hash, leaves FROM seal WHERE tenant = ? AND last > ? \
                         ORDER BY last LIMIT 1";

pub(super) struct Walk<'a> {
    connection: &'a Connection,
    tenant: Tenant,
    all: &'a mut Report,
    report: TenantReport,
    /// What retention kept, and the jumps, as of this transaction.
    first: u64,
    eras: Vec<Era>,
    /// The offset that comes next.
    next: u64,
    recorded_ms: i64,
    sealed: Hash,
    sequences: HashMap<AggregateId, u64>,
    /// Events that nobody can say the aggregate of: as many numbers may be missing elsewhere.
    unknown: u64,
}

struct Era {
    first: u64,
    previous: u64,
}

struct Seal {
    first: u64,
    last: u64,
    previous: Hash,
    hash: Hash,
    leaves: Vec<u8>,
}

impl Seal {
    /// The last offset that it can speak of, whatever its columns say.
    fn end(&self) -> u64 {
        self.last.min((self.first + (self.leaves.len() / 32) as u64).saturating_sub(1))
    }

    fn leaf(&self, offset: u64) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.first)?).ok()? * 32;
        self.leaves.get(at..at + 32)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(connection: &'a Connection, tenant: Tenant, name: String, all: &'a mut Report) -> Self {
        Self {
            connection,
            tenant,
            all,
            report: TenantReport { name, ..TenantReport::default() },
            first: 1,
            eras: Vec::new(),
            next: 1,
            recorded_ms: i64::MIN,
            sealed: GENESIS,
            sequences: HashMap::default(),
            unknown: 0,
        }
    }

    pub(super) fn run(mut self, mut told: impl FnMut(u64)) -> TenantReport {
        loop {
            let more = self.slice().unwrap_or_else(|error| {
                self.note(
                    FindingKind::Page,
                    Some(self.next),
                    None,
                    format!("the log cannot be read on from here: {error}"),
                );
                false
            });
            told(self.report.events);
            if !more {
                break;
            }
        }
        self.report.head = self.eras.iter().map(|era| era.first - 1).fold(self.next - 1, u64::max);
        self.report.first = if self.report.events == 0 { self.report.head + 1 } else { self.first };
        self.report.head_hash = chain::hex(&self.sealed);
        self.report
    }

    /// Checks a slice in a transaction of its own; false after the last one.
    fn slice(&mut self) -> rusqlite::Result<bool> {
        let _transaction = self.connection.unchecked_transaction()?;
        self.look_around()?;
        let before = self.report.events;
        loop {
            let checked = self.report.events - before;
            if checked >= SLICE_EVENTS {
                return Ok(true);
            }
            let Some(seal) = self.next_seal()? else {
                let through = self.next.saturating_add(SLICE_EVENTS - 1);
                let sealed = self.report.events;
                self.events(i64::MAX.cast_unsigned(), Some(through), None);
                let found = self.report.events - sealed;
                self.report.unsealed += found;
                // Where nothing can be read nothing tells where the log ends.
                return Ok(found > 0 && self.next > through);
            };
            if seal.last <= self.report.sealed_through {
                let message = "the seals are not in order: the log cannot be followed from here".into();
                self.note(FindingKind::Page, Some(self.next), None, message);
                return Ok(false);
            }
            self.seal(&seal);
        }
    }

    /// Retention and eras may have gone on since the last transaction.
    fn look_around(&mut self) -> rusqlite::Result<()> {
        let mut first = self.connection.prepare_cached("SELECT first FROM tenant WHERE number = ?")?;
        self.first = first.query_row([self.tenant.0], unsigned)?.max(1);
        let mut eras =
            self.connection.prepare_cached("SELECT first, previous FROM era WHERE tenant = ? ORDER BY first")?;
        let era = |row: &Row<'_>| {
            Ok(Era { first: row.get::<_, i64>(0)?.cast_unsigned(), previous: row.get::<_, i64>(1)?.cast_unsigned() })
        };
        self.eras = eras.query_map([self.tenant.0], era)?.collect::<rusqlite::Result<_>>()?;
        if self.next < self.first {
            self.next = self.first;
            self.anchor()?;
            self.nothing_before()?;
        }
        Ok(())
    }

    /// The chain goes on from the last seal that retention removed the events of.
    fn anchor(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT last, hash FROM seal WHERE tenant = ? AND last < ? ORDER BY last DESC LIMIT 1";
        let mut select = self.connection.prepare_cached(sql)?;
        let key = params![self.tenant.0, self.first.cast_signed()];
        if let Some((last, hash)) = select.query_row(key, |row| Ok((unsigned(row)?, row.get(1)?))).optional()? {
            (self.report.sealed_through, self.sealed) = (last, hash);
        }
        Ok(())
    }

    /// What retention took is gone.
    fn nothing_before(&mut self) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached("SELECT min(offset) FROM event WHERE tenant = ?")?;
        let oldest = select.query_row([self.tenant.0], |row| row.get::<_, Option<i64>>(0))?;
        if let Some(oldest) = oldest.map(i64::cast_unsigned).filter(|oldest| *oldest < self.first) {
            let message = format!("retention is said to have taken it: {} is to be the first event", self.first);
            self.note(FindingKind::Place, Some(oldest), None, message);
        }
        Ok(())
    }

    fn next_seal(&self) -> rusqlite::Result<Option<Seal>> {
        let mut select = self.connection.prepare_cached(NEXT_SEAL)?;
        let after = self.report.sealed_through.cast_signed();
        select
            .query_row(params![self.tenant.0, after], |row| {
                Ok(Seal {
                    first: unsigned(row)?,
                    last: row.get::<_, i64>(1)?.cast_unsigned(),
                    previous: row.get(2)?,
                    hash: row.get(3)?,
                    leaves: row.get(4)?,
                })
            })
            .optional()
    }

    fn seal(&mut self, seal: &Seal) {
        let broken = self.broken(seal);
        if seal.first > self.next {
            // Nothing covers these.
            self.events(seal.first - 1, None, None);
        }
        let found = self.all.findings.len();
        self.events(seal.end(), None, Some(seal));
        if seal.first <= seal.last && self.next <= seal.end() {
            self.missing(seal.end() + 1);
        }
        if let Some(message) = broken {
            // A damaged seal, unless its events have said it already.
            let place = self.all.findings.get(found).and_then(|finding| finding.offset).unwrap_or(seal.first);
            self.note(FindingKind::Seal, Some(place), None, message);
        }
        self.report.sealed_through = seal.last;
        self.sealed = seal.hash;
    }

    /// What is wrong with a seal itself.
    fn broken(&self, seal: &Seal) -> Option<String> {
        let Seal { first, last, .. } = seal;
        if !self.follows(self.report.sealed_through + 1, *first) {
            let from = self.report.sealed_through + 1;
            return Some(format!("the seal of {first} to {last} stands where one from {from} belongs"));
        }
        if seal.previous != self.sealed {
            return Some(format!("the seal of {first} to {last} does not follow the one before it"));
        }
        let whole = last.checked_sub(*first).and_then(|n| n.checked_add(1)?.checked_mul(32));
        if whole != Some(seal.leaves.len() as u64) {
            return Some(format!("the seal of {first} to {last} has not a leaf for each event"));
        }
        let hash = chain::seal(&seal.previous, Offset(*first), Offset(*last), &seal.leaves);
        (hash != seal.hash).then(|| format!("the seal of {first} to {last} does not match its leaves"))
    }

    /// Whether `found` may come where `expected` is due: the same, or the start of an era.
    fn follows(&self, expected: u64, found: u64) -> bool {
        found == expected
            || self.eras.iter().any(|era| era.first == found && (era.previous + 1..=era.first).contains(&expected))
    }

    /// Checks what there is from the next offset through another; without a seal to cover it, at most a slice.
    fn events(&mut self, through: u64, slice: Option<u64>, seal: Option<&Seal>) {
        let limit = if slice.is_some() { SLICE_EVENTS.cast_signed() } else { -1 };
        if self.rows(through, limit, seal).is_ok() {
            return;
        }
        // A damaged page hides some of them: each is tried alone.
        let through = slice.map_or(through, |slice| slice.min(through)).min(self.next + SLICE_EVENTS);
        while self.next <= through {
            let offset = self.next;
            match self.rows(offset, 1, seal) {
                Err(error) => {
                    self.note(FindingKind::Page, Some(offset), None, format!("the event cannot be read: {error}"));
                    self.unknown += 1;
                    self.next = offset + 1;
                }
                Ok(()) if self.next > offset => {}
                Ok(()) if seal.is_some() => self.missing(offset + 1),
                Ok(()) => break,
            }
        }
    }

    fn rows(&mut self, through: u64, limit: i64, seal: Option<&Seal>) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut select = connection.prepare_cached(EVENTS)?;
        let range = params![self.tenant.0, self.next.cast_signed(), through.cast_signed(), limit];
        let mut rows = select.query(range)?;
        while let Some(row) = rows.next()? {
            let offset = unsigned(row)?;
            if offset < self.next {
                self.note(FindingKind::Page, Some(offset), None, "the index of the events is not in order".into());
                continue;
            }
            if !self.follows(self.next, offset) {
                self.missing(offset);
            }
            self.event(offset, row, seal)?;
            self.next = offset + 1;
        }
        Ok(())
    }

    fn missing(&mut self, until: u64) {
        let (first, last) = (self.next, until - 1);
        let message = if first == last {
            format!("event {first} is missing")
        } else {
            format!("events {first} to {last} are missing")
        };
        self.note(FindingKind::Missing, Some(first), None, message);
        self.unknown += until - first;
        self.next = until;
    }

    /// Checks one event; the first thing wrong with it is noted.
    fn event(&mut self, offset: u64, row: &Row<'_>, seal: Option<&Seal>) -> rusqlite::Result<()> {
        let place = (row.get::<_, i64>(1)?, row.get::<_, i64>(2)?.cast_unsigned());
        let recorded_ms: i64 = row.get(3)?;
        let checksum: i64 = row.get(4)?;
        let (salt, header) = (row.get_ref(5)?.as_blob()?, row.get_ref(6)?.as_blob()?);
        let data = row.get_ref(7)?.as_blob_or_null()?;
        self.report.events += 1;
        self.report.erased += u64::from(data.is_none());
        let parsed = Header::parse(header);
        let id = || parsed.as_ref().ok().map(|header| header.subject.id.to_string());
        if place != (i64::from(self.tenant.0), offset) {
            let message = format!("the index leads to event {} of tenant number {}", place.1, place.0);
            self.note(FindingKind::Place, Some(offset), id(), message);
            return Ok(());
        }
        let supplied = row.get(8).map(Supplied);
        let fits = supplied.is_ok_and(|supplied| checksum == i64::from(reader::checksum(supplied, salt, header, data)));
        if !fits {
            self.note(FindingKind::Checksum, Some(offset), id(), "the event does not match its checksum".into());
            self.unknown += 1;
            return Ok(());
        }
        if let Some(sealed) = seal.and_then(|seal| seal.leaf(offset))
            && leaf(offset, recorded_ms, salt, header, data).as_ref().is_none_or(|leaf| leaf != sealed)
        {
            self.note(FindingKind::Changed, Some(offset), id(), "the event is not what was sealed".into());
            return Ok(());
        }
        if recorded_ms < self.recorded_ms {
            let message = "the event was recorded before the one in front of it".into();
            self.note(FindingKind::Time, Some(offset), id(), message);
        }
        self.recorded_ms = recorded_ms;
        match &parsed {
            Ok(header) => self.sequence(offset, header),
            Err(error) => self.note(FindingKind::Header, Some(offset), None, error.clone()),
        }
        Ok(())
    }

    fn sequence(&mut self, offset: u64, header: &Header) {
        let (found, expected) = match (&header.subject.aggregate, header.sequence) {
            (None, None) => return,
            (None, Some(_)) | (Some(_), None) => (header.sequence, None),
            (Some(aggregate), Some(sequence)) => {
                let expected = if let Some(last) = self.sequences.get_mut(aggregate.as_str()) {
                    std::mem::replace(last, sequence).saturating_add(1)
                } else {
                    self.sequences.insert(aggregate.clone(), sequence);
                    // What retention took may have had the smaller ones.
                    if self.first > 1 { sequence.max(1) } else { 1 }
                };
                // A number that is missing may be that of an event that was noted already.
                let seen = sequence >= expected && sequence - expected <= self.unknown;
                (Some(sequence), Some(if seen { sequence } else { expected }))
            }
        };
        if found != expected {
            let said = |number: Option<u64>| number.map_or("none".to_owned(), |number| number.to_string());
            let message = format!("its sequence number is {}, expected was {}", said(found), said(expected));
            self.note(FindingKind::Sequence, Some(offset), Some(header.subject.id.to_string()), message);
        }
    }

    fn note(&mut self, kind: FindingKind, offset: Option<u64>, event_id: Option<String>, message: String) {
        self.all.note(Finding { tenant: Some(self.report.name.clone()), offset, event_id, kind, message });
    }
}

fn unsigned(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

/// The leaf of an event as it is stored, or `None` if its salt cannot be one.
fn leaf(offset: u64, recorded_ms: i64, salt: &[u8], header: &[u8], data: Option<&[u8]>) -> Option<Hash> {
    let digest = match data {
        Some(data) if salt.len() == 16 => chain::data_digest(salt, data),
        Some(_) => return None,
        None => salt.try_into().ok()?,
    };
    Some(chain::leaf(Offset(offset), Timestamp::from_millis(recorded_ms), header, &digest))
}
