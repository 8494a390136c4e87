//! What reads an outbox: the only part that knows the application's database.

use std::sync::Arc;
use std::time::Duration;

use super::postgres::replication::slot::Watched;
use super::row::Row;
use super::{mysql, postgres, sqlite};

/// Reads the outbox of one database.
///
/// Laws of every kind of reader:
///
/// 1. Each committed row comes in exactly one batch of the chain of positions that begins with `None`; a rolled-back one
///    in none.
/// 2. Of two transactions that touched an aggregate one after the other, the rows of the first come first, if they were
///    written while the aggregate was locked. Rows of one aggregate come by number.
/// 3. `poll` changes nothing: asked again with the same position, it gives at least the same rows, or fails until it is
///    opened again.
/// 4. Each row has an event id, and the same one whenever it is read: if a source is read from its beginning again, the log
///    recognises what it has.
/// 5. A position is text that only its own kind of reader understands. It may be thrown away between `poll` and commit.
///
/// And one of who asks: `poll` is asked with the position behind a batch at the earliest while that batch is committed, when
/// all before it are.
pub enum Reader {
    /// A PostgreSQL database, version 13 or later, the primary.
    Postgres(Box<postgres::Reader>),
    /// The same, version 14 or later, by logical replication.
    Replication(Box<postgres::replication::Reader>),
    /// A file of SQLite.
    Sqlite(Box<sqlite::Reader>),
    /// A MySQL or MariaDB database, the one that is written to.
    MySql(Box<mysql::Reader>),
}

/// What `poll` found.
#[derive(Debug, Default)]
pub struct Batch {
    /// The rows, in the order in which they become events.
    pub rows: Vec<Row>,
    /// The position behind them.
    pub position: Box<str>,
    /// Whether more is there already.
    pub more: bool,
}

/// The source as it was found.
#[derive(Debug)]
pub struct Opened {
    /// Where to go on.
    pub position: Box<str>,
    /// Why it is read from its beginning again although it was read before: it was restored or replaced. What is in the
    /// log already is recognised by its id.
    pub reset: Option<String>,
}

/// Why a source could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be reached, or is not what it has to be; trying again may help.
    #[error("{0}")]
    Trouble(String),
    /// Another reader has taken the source: trying again would only take it back.
    #[error("{0}")]
    Taken(String),
}

impl ReadError {
    /// Of a source that another reader has taken, by this name.
    pub(super) fn taken(by: Option<&str>) -> Self {
        let by = by.map(|name| format!(" ({name})")).unwrap_or_default();
        Self::Taken(format!("another Tidings{by} has begun to read this outbox: one reads it at a time"))
    }
}

impl Reader {
    /// Connects, and looks whether this is still the source that `position` belongs to. `take`: whoever reads it now
    /// has to stop.
    pub async fn open(&mut self, position: Option<&str>, take: bool) -> Result<Opened, ReadError> {
        match self {
            Self::Postgres(reader) => reader.open(position, take).await,
            Self::Replication(reader) => reader.open(position, take).await,
            Self::Sqlite(reader) => reader.open(position, take).await,
            Self::MySql(reader) => reader.open(position, take).await,
        }
    }

    /// Some of what was committed and lies behind `position`.
    pub async fn poll(&mut self, position: &str) -> Result<Batch, ReadError> {
        match self {
            Self::Postgres(reader) => reader.poll(position).await,
            Self::Replication(reader) => reader.poll(position).await,
            Self::Sqlite(reader) => reader.poll(position).await,
            Self::MySql(reader) => reader.poll(position).await,
        }
    }

    /// Clears rows away that lie before `position`, which is committed, if it is time for it. Returns the position to go
    /// on with, for it may hold what the clearing left as a mark.
    pub async fn clear(&mut self, position: &str) -> Result<Box<str>, ReadError> {
        match self {
            Self::Postgres(reader) => reader.clear(position).await,
            Self::Replication(reader) => reader.clear(position).await,
            Self::Sqlite(reader) => reader.clear(position),
            Self::MySql(reader) => reader.clear(position).await,
        }
    }

    /// Where it tells of its slot, if it has one.
    pub(super) fn slot(&self) -> Option<Arc<Watched>> {
        match self {
            Self::Replication(reader) => Some(reader.slot()),
            Self::Postgres(_) | Self::Sqlite(_) | Self::MySql(_) => None,
        }
    }

    /// Resolves when polling is worth while: after `pause`, or earlier if the database says so.
    pub async fn woken(&mut self, pause: Duration) {
        match self {
            Self::Postgres(reader) => reader.woken(pause).await,
            Self::Replication(reader) => reader.woken(pause).await,
            Self::Sqlite(reader) => reader.woken(pause).await,
            Self::MySql(reader) => reader.woken(pause).await,
        }
    }
}
