//! Dead letters: deliveries given up, and what became of them.

use rusqlite::{OptionalExtension as _, Row, params};
use tidings_core::lane::Dead;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::group::Group;
use super::reader::{Read, Reader, unavailable};
use super::settle::delivery;
use super::writer::{Stop, Writer};
use crate::event::Tenant;
use crate::store::{DeadCounts, DeadLetter, DeadQuery, DeadState, Letter, Settle, Written};

const LETTER_COLUMNS: &str =
    "id, subscription, tenant, offset, event_type, attempts, reason, at_ms, state, closed_ms, closed_reason";
pub(crate) const COUNT_OPEN: &str =
    "SELECT subscription, count(*) FROM dead_letter WHERE state = 0 GROUP BY subscription";
/// Greater than every id.
const AFTER_ALL: &str = "\u{10ffff}";

impl Writer {
    /// Keeps a delivery given up. One that is open already is the same: it stays, and tells the newest attempt.
    pub(crate) fn put_letter(
        &self,
        now: Timestamp,
        settle: &Settle,
        dead: &Dead,
        letter: &Letter,
    ) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO dead_letter (id, subscription, tenant, offset, event_type, attempts, reason, at_ms, state) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) \
                   ON CONFLICT (subscription, offset) WHERE state = 0 DO UPDATE SET attempts = excluded.attempts, \
                   reason = excluded.reason, at_ms = excluded.at_ms \
                   ON CONFLICT (id) DO NOTHING";
        self.connection.prepare_cached(sql)?.execute(params![
            letter.id,
            settle.subscription,
            settle.tenant.0,
            dead.offset.0.cast_signed(),
            letter.event_type,
            dead.attempts,
            dead.reason,
            now.as_millis()
        ])
    }

    pub(crate) fn close_letters(
        &mut self,
        group: &mut Group,
        tenant: Tenant,
        ids: &[Box<str>],
        state: &DeadState,
    ) -> Result<Written, Stop> {
        let (number, at, reason) = match state {
            // Open ones stay open.
            DeadState::Open => return Ok(Written::Done),
            DeadState::Replayed { at } => (1, at, None),
            DeadState::Discarded { at, reason } => (2, at, Some(reason)),
        };
        let sql = "UPDATE dead_letter SET state = ?, closed_ms = ?, closed_reason = ? \
                   WHERE id = ? AND tenant = ? AND state = 0 RETURNING tenant, offset";
        let mut close = self.connection.prepare_cached(sql)?;
        for id in ids {
            let closed = close.query_row(params![number, at.as_millis(), reason, id, tenant.0], delivery).optional()?;
            group.released.extend(closed);
        }
        Ok(Written::Done)
    }

    pub(crate) fn remove_letters(&self, group: &mut Group, subscription: &str) -> rusqlite::Result<()> {
        let sql = "DELETE FROM dead_letter WHERE subscription = ? RETURNING tenant, offset";
        self.connection.prepare_cached(sql)?.query_map([subscription], delivery)?.try_for_each(|gone| {
            group.released.push(gone?);
            Ok(())
        })
    }
}

impl Reader {
    pub(crate) fn dead_letter(&self, tenant: Tenant, id: &str) -> Read<Option<DeadLetter>> {
        let sql = format!("SELECT {LETTER_COLUMNS} FROM dead_letter WHERE id = ? AND tenant = ?");
        let read = || self.connection.prepare_cached(&sql)?.query_row(params![id, tenant.0], dead_letter).optional();
        read().map_err(|error| unavailable(&error))
    }

    pub(crate) fn dead_letters(&self, query: &DeadQuery) -> Read<Vec<DeadLetter>> {
        let sql = select_letters(query.subscription.is_some(), query.open);
        let parameters = params![
            query.tenant.0,
            query.before.as_deref().unwrap_or(AFTER_ALL),
            query.event_type,
            query.since.map_or(i64::MIN, Timestamp::as_millis),
            i64::try_from(query.limit).unwrap_or(i64::MAX),
            query.subscription,
        ];
        let used = if query.subscription.is_some() { parameters } else { &parameters[..5] };
        let read = || {
            self.connection.prepare_cached(&sql)?.query_map(used, dead_letter)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| unavailable(&error))
    }

    pub(crate) fn dead_counts(&self) -> Read<DeadCounts> {
        let count = |row: &Row<'_>| Ok((row.get::<_, String>(0)?.into(), row.get::<_, i64>(1)?.cast_unsigned()));
        let read =
            || self.connection.prepare_cached(COUNT_OPEN)?.query_map([], count)?.collect::<rusqlite::Result<Vec<_>>>();
        read().map_err(|error| unavailable(&error))
    }
}

/// A page of a listing, by the index that has it in order.
pub(crate) fn select_letters(of_subscription: bool, open: bool) -> String {
    let index = match (of_subscription, open) {
        (true, _) => "dead_letter_by_subscription",
        (false, true) => "open_letter_by_tenant",
        (false, false) => "dead_letter_by_tenant",
    };
    let subscription = if of_subscription { "AND subscription = ?6" } else { "" };
    let open = if open { "AND state = 0" } else { "" };
    format!(
        "SELECT {LETTER_COLUMNS} FROM dead_letter INDEXED BY {index} WHERE tenant = ?1 AND id < ?2 {subscription} {open} \
         AND (?3 IS NULL OR event_type = ?3) AND at_ms >= ?4 ORDER BY id DESC LIMIT ?5"
    )
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let closed = || row.get(9).map(Timestamp::from_millis);
    Ok(DeadLetter {
        id: row.get::<_, String>(0)?.into(),
        subscription: row.get::<_, String>(1)?.into(),
        tenant: Tenant(row.get(2)?),
        offset: Offset(row.get::<_, i64>(3)?.cast_unsigned()),
        event_type: row.get::<_, String>(4)?.into(),
        attempts: row.get(5)?,
        reason: row.get::<_, String>(6)?.into(),
        at: Timestamp::from_millis(row.get(7)?),
        state: match row.get(8)? {
            1 => DeadState::Replayed { at: closed()? },
            2 => DeadState::Discarded { at: closed()?, reason: row.get::<_, String>(10)?.into() },
            _ => DeadState::Open,
        },
    })
}
