//! How far subscriptions are: their own progress, rows beside it, and the cursors of slots.

use rusqlite::{OptionalExtension as _, Row as SqlRow, params};
use tidings_core::lane::{Changes, Row, RowState};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::group::Group;
use super::reader::{Read, Reader, unavailable};
use super::writer::{Stop, Writer};
use crate::event::Tenant;
use crate::store::{Behind, Progress, Settle, Sweep, Swept, Unavailable, Written};

pub(crate) const BEHIND: &str = "SELECT subscription, tenant, cursor, length(acked) = 0 AND NOT EXISTS \
     (SELECT 1 FROM pending_row WHERE pending_row.subscription = progress.subscription) \
     FROM progress WHERE subscription > ? ORDER BY subscription LIMIT ?";

impl Writer {
    pub(crate) fn settle(&mut self, group: &mut Group, now: Timestamp, settle: &Settle) -> Result<Written, Stop> {
        let (subscription, tenant, changes) = (&*settle.subscription, settle.tenant, &settle.changes);
        if changes.dead.len() != settle.letters.len() {
            return Err(Stop::Declined(Unavailable::Trouble("each dead delivery needs a letter".into())));
        }
        self.put_progress(subscription, tenant, changes)?;
        for offset in changes.cleared.iter().chain(changes.dead.iter().map(|dead| &dead.offset)) {
            self.clear_row(group, subscription, tenant, *offset)?;
        }
        for row in changes.rows.iter().filter(|row| stays(changes, row)) {
            self.put_row(subscription, tenant, row)?;
            if row.state == RowState::Settled {
                group.released.push((tenant, row.offset));
            }
        }
        for (dead, letter) in changes.dead.iter().zip(&settle.letters) {
            self.put_letter(now, settle, dead, letter)?;
        }
        let history_bytes = self.put_attempts(settle)?;
        self.wrote(64 * changes.rows.len() + history_bytes);
        Ok(Written::Done)
    }

    fn put_progress(&self, subscription: &str, tenant: Tenant, changes: &Changes) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO progress (subscription, tenant, cursor, acked) VALUES (?, ?, ?, ?) \
                   ON CONFLICT (subscription) DO UPDATE SET tenant = excluded.tenant, cursor = excluded.cursor, \
                   acked = excluded.acked";
        self.connection.prepare_cached(sql)?.execute(params![
            subscription,
            tenant.0,
            changes.cursor.0.cast_signed(),
            changes.acked
        ])
    }

    fn put_row(&self, subscription: &str, tenant: Tenant, row: &Row) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO pending_row \
                   (subscription, offset, tenant, attempts, due_ms, reason, state, followers, replay) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
                   ON CONFLICT (subscription, offset) DO UPDATE SET attempts = excluded.attempts, \
                   due_ms = excluded.due_ms, reason = excluded.reason, state = excluded.state, \
                   followers = excluded.followers, replay = excluded.replay";
        self.connection.prepare_cached(sql)?.execute(params![
            subscription,
            row.offset.0.cast_signed(),
            tenant.0,
            row.attempts,
            row.due.as_millis(),
            row.reason,
            state_number(row.state),
            row.followers.map(|after| after.0.cast_signed()),
            row.replay
        ])
    }

    fn clear_row(&self, group: &mut Group, subscription: &str, tenant: Tenant, offset: Offset) -> rusqlite::Result<()> {
        let sql = "DELETE FROM pending_row WHERE subscription = ? AND offset = ?";
        if self.connection.prepare_cached(sql)?.execute(params![subscription, offset.0.cast_signed()])? > 0 {
            group.released.push((tenant, offset));
        }
        Ok(())
    }

    /// Moves a slot's cursor and takes away what its current subscriptions have. One that would go back does neither:
    /// whoever then followed the slot's cursor would skip what is between.
    pub(crate) fn sweep(&mut self, group: &mut Group, sweep: &Sweep) -> Result<Written, Stop> {
        let sql = "INSERT INTO swept (tenant, slot, through) VALUES (?, ?, ?) \
                   ON CONFLICT (tenant, slot) DO UPDATE SET through = excluded.through \
                   WHERE excluded.through >= through";
        let moved = self.connection.prepare_cached(sql)?.execute(params![
            sweep.tenant.0,
            sweep.slot,
            sweep.through.0.cast_signed()
        ])?;
        if moved > 0 {
            for subscription in &sweep.current {
                self.remove_progress(group, subscription)?;
            }
        }
        Ok(Written::Done)
    }

    fn remove_progress(&self, group: &mut Group, subscription: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM progress WHERE subscription = ?")?.execute([subscription])?;
        let sql = "DELETE FROM pending_row WHERE subscription = ? RETURNING tenant, offset";
        self.connection.prepare_cached(sql)?.query_map([subscription], delivery)?.try_for_each(|gone| {
            group.released.push(gone?);
            Ok(())
        })
    }

    pub(crate) fn forget(&mut self, group: &mut Group, subscription: &str) -> Result<Written, Stop> {
        self.remove_progress(group, subscription)?;
        self.remove_letters(group, subscription)?;
        self.remove_history(subscription)?;
        Ok(Written::Done)
    }
}

/// Whether a row stays that a commit brings: not if the same commit clears it, or gives it up without saying more.
fn stays(changes: &Changes, row: &Row) -> bool {
    let dead = || changes.dead.iter().any(|dead| dead.offset == row.offset);
    !changes.cleared.contains(&row.offset) && (row.state != RowState::Waiting || !dead())
}

/// The tenant and the offset of a delivery, from a row of just these.
pub(crate) fn delivery(row: &SqlRow<'_>) -> rusqlite::Result<(Tenant, Offset)> {
    Ok((Tenant(row.get(0)?), Offset(row.get::<_, i64>(1)?.cast_unsigned())))
}

impl Reader {
    pub(crate) fn progress(&self, subscription: &str) -> Read<Option<Progress>> {
        let read = || {
            // Cursor and rows are of one commit.
            let _snapshot = self.connection.unchecked_transaction()?;
            let sql = "SELECT cursor, acked FROM progress WHERE subscription = ?";
            let own: Option<(i64, Vec<u8>)> = self
                .connection
                .prepare_cached(sql)?
                .query_row([subscription], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((cursor, acked)) = own else { return Ok(None) };
            let sql = "SELECT offset, attempts, due_ms, reason, state, followers, replay FROM pending_row \
                       WHERE subscription = ? ORDER BY offset";
            let rows = self
                .connection
                .prepare_cached(sql)?
                .query_map([subscription], row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Some(Progress { cursor: Offset(cursor.cast_unsigned()), acked, rows }))
        };
        read().map_err(|error| unavailable(&error))
    }

    pub(crate) fn behind(&self, after: &str, limit: usize) -> Read<Vec<Behind>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let behind = |row: &SqlRow<'_>| {
            let (subscription, tenant) = (row.get::<_, String>(0)?.into(), Tenant(row.get(1)?));
            Ok(Behind {
                subscription,
                tenant,
                cursor: Offset(row.get::<_, i64>(2)?.cast_unsigned()),
                plain: row.get(3)?,
            })
        };
        let read = || {
            self.connection
                .prepare_cached(BEHIND)?
                .query_map(params![after, limit], behind)?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| unavailable(&error))
    }

    pub(crate) fn swept(&self) -> Read<Vec<Swept>> {
        let sql = "SELECT tenant, slot, through FROM swept ORDER BY tenant, slot";
        let swept = |row: &SqlRow<'_>| {
            let through = Offset(row.get::<_, i64>(2)?.cast_unsigned());
            Ok(Swept { tenant: Tenant(row.get(0)?), slot: row.get(1)?, through })
        };
        let read = || self.connection.prepare_cached(sql)?.query_map([], swept)?.collect::<rusqlite::Result<Vec<_>>>();
        read().map_err(|error| unavailable(&error))
    }
}

fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        offset: Offset(row.get::<_, i64>(0)?.cast_unsigned()),
        attempts: row.get(1)?,
        due: Timestamp::from_millis(row.get(2)?),
        reason: row.get::<_, String>(3)?.into(),
        state: match row.get(4)? {
            1 => RowState::Parked,
            2 => RowState::Settled,
            -1 => RowState::Counted,
            _ => RowState::Waiting,
        },
        followers: row.get::<_, Option<i64>>(5)?.map(|after| Offset(after.cast_unsigned())),
        replay: row.get::<_, Option<String>>(6)?.map(Into::into),
    })
}

fn state_number(state: RowState) -> i64 {
    match state {
        RowState::Waiting => 0,
        RowState::Parked => 1,
        RowState::Settled => 2,
        // Less than 2, as all that keep their events.
        RowState::Counted => -1,
    }
}
