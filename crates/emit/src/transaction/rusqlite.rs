//! For `rusqlite`, 0.39 to 0.41. With sqlx's SQLite in the same application take 0.39: both then share one SQLite.

use std::time::Duration;

use rusqlite::{Error, OptionalExtension as _, Transaction, params};
use tidings_core::id::EventId;

use super::{EmitError, Row, newest, stored};
use crate::clock;
use crate::event::Event;
use crate::receive::Order;
use crate::sql::{Dialect, Statements};

fn statements() -> &'static Statements {
    Dialect::Sqlite.statements()
}

/// Tells of an event, if and only if the transaction commits. The table is [`crate::sql::OUTBOX_SQLITE`].
pub fn emit(tx: &Transaction<'_>, event: Event) -> Result<EventId, EmitError<Error>> {
    let row = Row::of(event, Dialect::Sqlite)?;
    let values = params![
        row.event_type,
        row.data,
        row.aggregate_id,
        row.channels,
        row.version,
        row.metadata,
        row.source,
        row.occurred_at,
        row.id.as_str(),
    ];
    tx.execute(statements().emit, values).map_err(EmitError::Database)?;
    Ok(row.id)
}

/// Whether the subscriber has not processed the event yet; call it first in the transaction of the work.
///
/// The tables are [`crate::sql::INBOX`].
pub fn first(tx: &Transaction<'_>, subscriber: &str, id: &EventId) -> Result<bool, Error> {
    let values = params![subscriber, id.as_str(), clock::now().as_millis()];
    Ok(tx.query_row(statements().first.0, values, |_| Ok(())).optional()?.is_some())
}

/// How the event stands to those of its aggregate that the subscriber processed before; remembered with the work.
pub fn order(tx: &Transaction<'_>, subscriber: &str, aggregate: &str, sequence: u64) -> Result<Order, Error> {
    tx.execute(statements().begin, params![subscriber, aggregate])?;
    let kept = tx.query_row(statements().newest, params![subscriber, aggregate], |row| row.get(0)).optional()?;
    let order = Order::of(newest(kept.unwrap_or(0)), sequence);
    if !order.is_late() {
        tx.execute(statements().passed, params![stored(sequence), subscriber, aggregate])?;
    }
    Ok(order)
}

/// Forgets events that were processed longer ago than `kept`.
pub fn forget(tx: &Transaction<'_>, subscriber: &str, kept: Duration) -> Result<(), Error> {
    tx.execute(statements().forget, params![subscriber, clock::before(kept)]).map(|_| ())
}

/// What stands in the outbox, this transaction's own rows too.
#[cfg(feature = "testing")]
pub fn emitted(tx: &Transaction<'_>) -> Result<crate::testing::Emissions, Error> {
    let mut statement = tx.prepare(statements().emitted)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.collect::<Result<Vec<_>, _>>().map(crate::testing::Emissions::read)
}
