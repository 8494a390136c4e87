//! For `tokio-postgres`.

use std::time::Duration;

use tidings_core::id::EventId;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Transaction};

use super::{EmitError, Row, newest, stored};
use crate::clock;
use crate::event::Event;
use crate::receive::Order;
use crate::sql::{Dialect, Statements};

fn statements() -> &'static Statements {
    Dialect::Postgres.statements()
}

type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// Tells of an event, if and only if the transaction commits: one round trip to `tidings.emit`.
///
/// `tidings outbox install` makes the function.
pub async fn emit(tx: &Transaction<'_>, event: Event) -> Result<EventId, EmitError<Error>> {
    let row = Row::of(event, Dialect::Postgres)?;
    let id = row.id.as_str();
    let values: [Value<'_>; 9] = [
        (&row.event_type, Type::TEXT),
        (&row.data, Type::TEXT),
        (&row.aggregate_id, Type::TEXT),
        (&row.channels, Type::TEXT),
        (&row.version, Type::INT8),
        (&row.metadata, Type::TEXT),
        (&row.source, Type::TEXT),
        (&row.occurred_at, Type::TEXT),
        (&id, Type::TEXT),
    ];
    tx.query_typed(statements().emit, &values).await.map_err(EmitError::Database)?;
    Ok(row.id)
}

/// Whether the subscriber has not processed the event yet; call it first in the transaction of the work.
///
/// Another transaction with the same event waits for this one's end. The tables are [`crate::sql::INBOX`].
pub async fn first(tx: &Transaction<'_>, subscriber: &str, id: &EventId) -> Result<bool, Error> {
    let (id, now) = (id.as_str(), clock::now().as_millis());
    let values: [Value<'_>; 3] = [(&subscriber, Type::TEXT), (&id, Type::TEXT), (&now, Type::INT8)];
    Ok(tx.execute_typed(statements().first.0, &values).await? == 1)
}

/// How the event stands to those of its aggregate that the subscriber processed before; remembered with the work.
pub async fn order(tx: &Transaction<'_>, subscriber: &str, aggregate: &str, sequence: u64) -> Result<Order, Error> {
    let key: [Value<'_>; 2] = [(&subscriber, Type::TEXT), (&aggregate, Type::TEXT)];
    tx.execute_typed(statements().begin, &key).await?;
    let kept = tx.query_typed(statements().newest, &key).await?;
    let order = Order::of(newest(kept.first().map_or(Ok(0), |row| row.try_get(0))?), sequence);
    if !order.is_late() {
        let sequence = stored(sequence);
        let values: [Value<'_>; 3] = [(&sequence, Type::INT8), (&subscriber, Type::TEXT), (&aggregate, Type::TEXT)];
        tx.execute_typed(statements().passed, &values).await?;
    }
    Ok(order)
}

/// Forgets events that were processed longer ago than `kept`.
pub async fn forget(tx: &Transaction<'_>, subscriber: &str, kept: Duration) -> Result<(), Error> {
    let oldest = clock::before(kept);
    tx.execute_typed(statements().forget, &[(&subscriber, Type::TEXT), (&oldest, Type::INT8)]).await.map(|_| ())
}

/// What stands in the outbox, this transaction's own rows too. Needs the right to read it.
#[cfg(feature = "testing")]
pub async fn emitted(tx: &Transaction<'_>) -> Result<crate::testing::Emissions, Error> {
    let rows = tx.query_typed(statements().emitted, &[]).await?;
    let texts: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    texts.map(crate::testing::Emissions::read)
}
