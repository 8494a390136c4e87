//! Events in transactions of the application's database, by driver: all have the same functions.
//!
//! `emit` writes the event's row: it is committed with the change or not at all. `first` and `order` are the receiver's
//! side: what was processed is remembered in the transaction of the work. `forget` drops what is old.

#[cfg(feature = "rusqlite")]
pub mod rusqlite;
#[cfg(feature = "sqlx")]
pub mod sqlx;
#[cfg(feature = "tokio-postgres")]
pub mod tokio_postgres;

use tidings_core::event::AggregateId;
use tidings_core::problem::{Rule, Violation};

use crate::event::{Checked, Event, Invalid};
use crate::sql::Dialect;

/// The event was not written. The transaction is as the database left it: roll it back after [`EmitError::Database`].
#[derive(Debug, thiserror::Error)]
pub enum EmitError<D> {
    /// The event breaks rules; nothing was sent to the database.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// What the database says.
    #[error("the outbox did not take the event: {0}")]
    Database(#[source] D),
}

/// A row of the outbox, in the order of the statement's parameters.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) event_type: String,
    pub(crate) data: String,
    pub(crate) aggregate_id: Option<String>,
    pub(crate) channels: Option<String>,
    pub(crate) version: Option<i64>,
    pub(crate) metadata: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) occurred_at: Option<String>,
    pub(crate) id: tidings_core::id::EventId,
}

impl Row {
    pub(crate) fn of(event: Event, dialect: Dialect) -> Result<Self, Invalid> {
        let Checked { id, draft, fields, .. } = event.checked()?;
        let refuse = |pointer, message: &str| Invalid(vec![Violation::new(pointer, Rule::Invalid, message)]);
        if draft.expected_sequence.is_some() {
            let message = "expectedSequence is for publishing by HTTP: in a transaction lock the row and compare";
            return Err(refuse("/expectedSequence", message));
        }
        if draft.version.is_some_and(|version| i32::try_from(version).is_err()) {
            return Err(refuse("/version", "version is a number of at most 31 bits in an outbox"));
        }
        let json = |empty: bool, text: Result<String, _>| if empty { None } else { text.ok() };
        let occurred_at = draft.timestamp.map(|time| match dialect {
            // DATETIME takes no zone; the column is UTC.
            Dialect::MySql => time.to_string().replace('T', " ").replace('Z', ""),
            Dialect::Postgres | Dialect::Sqlite => time.to_string(),
        });
        Ok(Self {
            event_type: draft.event_type.to_string(),
            data: String::from_utf8_lossy(&draft.data).into_owned(),
            aggregate_id: draft.aggregate.as_ref().map(AggregateId::to_string),
            channels: json(fields.channels.is_empty(), serde_json::to_string(&fields.channels)),
            version: draft.version.map(i64::from),
            metadata: json(fields.metadata.is_empty(), serde_json::to_string(&fields.metadata)),
            source: draft.source.map(String::from),
            occurred_at,
            id,
        })
    }
}

/// A sequence number as the tables keep it; 0: none.
pub(crate) fn newest(stored: i64) -> Option<u64> {
    u64::try_from(stored).ok().filter(|sequence| *sequence > 0)
}

/// For the table: sequence numbers stay far below.
pub(crate) fn stored(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
