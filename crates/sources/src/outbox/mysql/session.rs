//! One connection to a source, and what is asked over it.

use bytes::Bytes;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Value};
use tidings_core::time::Timestamp;
use tokio::time::timeout;

use super::position::Mark;
use super::{ANSWER, CONNECT};
use crate::outbox::row::channels;
use crate::outbox::{ReadError, Row};

/// The engines of the tables: only one of them has transactions that roll back.
const TABLES: &str = "
SELECT table_name, engine FROM information_schema.tables
WHERE table_schema = database() AND table_name IN ('tidings_outbox', 'tidings_outbox_reader')";

const READER: &str = "SELECT name FROM tidings_outbox_reader WHERE one = 1";

const CLAIM: &str =
    "INSERT INTO tidings_outbox_reader (one, name) VALUES (1, ?) ON DUPLICATE KEY UPDATE name = VALUES(name)";

pub(super) struct Session {
    connection: Conn,
}

/// What is to be known of a row before it is read whole.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) mark: Mark,
    /// Of its data.
    pub(super) bytes: u64,
}

impl Session {
    pub(super) async fn connect(opts: &Opts) -> Result<Self, ReadError> {
        let mut connection = connect(opts).await?;
        let tables: Vec<(String, Option<String>)> = within(connection.query(TABLES)).await?;
        if tables.len() < 2 {
            return Err(trouble("there is no outbox here: make one, or what it lacks, with `tidings outbox install`"));
        }
        if let Some((name, engine)) = tables.iter().find(|(_, engine)| engine.as_deref() != Some("InnoDB")) {
            let engine = engine.as_deref().unwrap_or("no");
            return Err(trouble(&format!("{name} has {engine} engine: only InnoDB rolls back with the application")));
        }
        Ok(Self { connection })
    }

    /// Who reads, by the database's own account.
    pub(super) async fn reader(&mut self) -> Result<Option<String>, ReadError> {
        within(self.connection.query_first(READER)).await
    }

    /// Has the database say that `name` reads.
    pub(super) async fn claim(&mut self, name: &str) -> Result<(), ReadError> {
        within(self.connection.exec_drop(CLAIM, (name,))).await
    }

    /// The first rows that are committed, by number, if `name` still reads.
    pub(super) async fn heads(&mut self, name: &str, count: usize) -> Result<Vec<Head>, ReadError> {
        // One statement is one snapshot: these rows are there, and this one reads them.
        let sql = format!(
            "(SELECT NULL, name, 0 FROM tidings_outbox_reader WHERE one = 1) UNION ALL
             (SELECT id, event_id, octet_length(data) FROM tidings_outbox WHERE id > 0 ORDER BY id LIMIT {count})"
        );
        let found: Vec<mysql_async::Row> = within(self.connection.query(sql)).await?;
        let (mut heads, mut reader) = (Vec::with_capacity(found.len()), None);
        for found in found {
            let mut values = texts(found);
            let mut next = || values.next().flatten();
            let (id, text, bytes) = (next(), next().unwrap_or_default(), next());
            match id {
                Some(id) => {
                    let bytes = bytes.as_deref().map_or(0, number);
                    heads.push(Head { mark: Mark::new(number(&id), &text), bytes });
                }
                None => reader = Some(text),
            }
        }
        if reader.as_deref() != Some(name.as_bytes()) {
            return Err(ReadError::taken(reader.as_deref().map(String::from_utf8_lossy).as_deref()));
        }
        heads.sort_unstable_by_key(|head| head.mark);
        Ok(heads)
    }

    /// These rows whole, by number. One that somebody has deleted meanwhile is not among them.
    pub(super) async fn rows(&mut self, heads: &[Head]) -> Result<Vec<Row>, ReadError> {
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let ids = listed(heads.iter().map(|head| head.mark.id.to_string()));
        let sql = format!(
            "SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data,
                    created_at
             FROM tidings_outbox WHERE id IN ({ids}) ORDER BY id"
        );
        let found: Vec<mysql_async::Row> = within(self.connection.query(sql)).await?;
        Ok(found.into_iter().map(row).collect())
    }
}

/// A connection that is set up.
pub(super) async fn connect(opts: &Opts) -> Result<Conn, ReadError> {
    let reached = timeout(CONNECT, Conn::new(opts.clone())).await;
    reached.map_err(|_| trouble("no connection in time"))?.map_err(|error| told(&error))
}

/// Parts of a list in SQL.
pub(super) fn listed(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

pub(super) async fn within<T>(question: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, ReadError> {
    let answered = timeout(ANSWER, question).await.map_err(|_| trouble("no answer in time"))?;
    answered.map_err(|error| told(&error))
}

/// What a person reads of a fault.
pub(super) fn told(error: &mysql_async::Error) -> ReadError {
    match error {
        mysql_async::Error::Server(fault) => ReadError::Trouble(format!("{} ({})", fault.message, fault.code)),
        other => ReadError::Trouble(other.to_string()),
    }
}

pub(super) fn trouble(text: &str) -> ReadError {
    ReadError::Trouble(text.to_owned())
}

/// The values of a row, which are texts where the statement was not prepared. Whatever they are, they do no harm.
fn texts(found: mysql_async::Row) -> impl Iterator<Item = Option<Vec<u8>>> {
    found.unwrap().into_iter().map(|value| match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn row(found: mysql_async::Row) -> Row {
    let mut values = texts(found);
    let mut bytes = || values.next().flatten();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let number = bytes().as_deref().map(number).unwrap_or_default();
    let event_id = bytes().map(text);
    let event_type = bytes().map(text).unwrap_or_default();
    let version = bytes().map(text).and_then(|text| text.parse().ok());
    let occurred = bytes().map(text);
    let source = bytes().map(text);
    let aggregate_id = bytes().map(text);
    let channels = bytes().as_deref().map(channels).unwrap_or_default();
    let (metadata, data) = (bytes().map(Bytes::from), bytes().map(Bytes::from));
    let written = bytes().map(text);
    Row {
        number,
        event_id,
        event_type,
        version,
        timestamp: occurred.as_deref().map_or_else(|| written.as_deref().and_then(time), time),
        no_timestamp: occurred.filter(|text| time(text).is_none()),
        source,
        aggregate_id,
        channels,
        metadata,
        data,
        whole: false,
    }
}

/// A DATETIME of UTC. One may be none, as 0000-00-00.
fn time(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(&format!("{}Z", text.replacen(' ', "T", 1)))
}
