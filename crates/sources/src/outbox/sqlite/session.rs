//! One connection to a file, and what is asked over it. It only reads; it writes once, to say who reads.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tidings_core::time::Timestamp;

use super::{LOCK, Position, told};
use crate::outbox::row::channels;
use crate::outbox::{Batch, ReadError, Row};

/// Rows in one batch, at most.
const BATCH_ROWS_MAX: u16 = 2_000;
/// Bytes of data in one batch, but for its last row.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) const READER_TABLE: &str = include_str!("reader.sql");

const ROWS: &str = "
SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
FROM tidings_outbox WHERE id > ?1 ORDER BY id LIMIT ?2";

pub(super) struct Session {
    connection: Connection,
    path: PathBuf,
    /// Which file it is, whatever its name.
    file: (u64, u64),
    name: Box<str>,
    /// The state of the file in which nothing lay behind this row.
    quiet: Option<(i64, i64)>,
}

impl Session {
    pub(super) fn open(path: &Path, name: &str, take: bool) -> Result<Self, ReadError> {
        // Before it is opened: if it is replaced in between, the next look tells.
        let file = file(path)?;
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        if !has_table(&connection, "tidings_outbox")? {
            return Err(trouble("there is no outbox here: make one with `tidings outbox install`"));
        }
        match reader(&connection)? {
            Some(reader) if reader == name => {}
            Some(reader) if !take => return Err(ReadError::taken(Some(&reader))),
            _ => claim(path, name)?,
        }
        Ok(Self { connection, path: path.to_owned(), file, name: name.into(), quiet: None })
    }

    /// Whether the last relayed row is still there.
    pub(super) fn holds(&self, position: &Position) -> Result<bool, ReadError> {
        let sql = "SELECT event_id FROM tidings_outbox WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        let found: Option<String> = statement.query_row([position.after], |row| row.get(0)).optional().map_err(told)?;
        Ok(position.after == 0 || found.as_ref() == Some(&position.event_id))
    }

    /// The next rows. Where nothing was committed since the last look, that costs a look at the file and at its header.
    pub(super) fn poll(&mut self, position: &Position) -> Result<Batch, ReadError> {
        if file(&self.path)? != self.file {
            return Err(trouble("the file was replaced"));
        }
        // Before the rows: what is committed in between makes it another one at the next look.
        let state = self.connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(told)?;
        if self.quiet == Some((state, position.after)) {
            return Ok(Batch { rows: Vec::new(), position: position.text(), more: false });
        }
        // One snapshot: these rows follow that row, and this Tidings reads them.
        let snapshot = self.connection.unchecked_transaction().map_err(told)?;
        if reader(&snapshot)?.as_deref() != Some(&*self.name) {
            return Err(ReadError::taken(None));
        }
        if !self.holds(position)? {
            return Err(trouble("its last relayed row is gone"));
        }
        let (rows, more) = rows(&snapshot, position.after).map_err(told)?;
        drop(snapshot);
        let last = rows.last().map(|row| Position {
            after: row.number.cast_signed(),
            event_id: row.event_id.clone().unwrap_or_default(),
        });
        self.quiet = last.is_none().then_some((state, position.after));
        let position = last.map_or_else(|| position.text(), |last| last.text());
        Ok(Batch { rows, position, more })
    }
}

/// The device and the inode.
fn file(path: &Path) -> Result<(u64, u64), ReadError> {
    let found = metadata(path).map_err(|error| trouble(&format!("{}: {error}", path.display())))?;
    Ok((found.dev(), found.ino()))
}

/// A connection to a file that is there.
pub(super) fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, ReadError> {
    let open = || {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(LOCK)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| trouble(&format!("{}: {error}", path.display())))
}

pub(super) fn has_table(connection: &Connection, name: &str) -> Result<bool, ReadError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    let mut statement = connection.prepare_cached(sql).map_err(told)?;
    statement.query_row([name], |row| row.get(0)).map_err(told)
}

/// Who reads, by the file's own account.
fn reader(connection: &Connection) -> Result<Option<String>, ReadError> {
    if !has_table(connection, "tidings_outbox_reader")? {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT name FROM tidings_outbox_reader").map_err(told)?;
    statement.query_row([], |row| row.get(0)).optional().map_err(told)
}

/// Has the file say that `name` reads it.
fn claim(path: &Path, name: &str) -> Result<(), ReadError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let write = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(told)?;
    write.execute_batch(READER_TABLE).map_err(told)?;
    let sql = "INSERT INTO tidings_outbox_reader (one, name, relayed) VALUES (1, ?1, 0)
               ON CONFLICT (one) DO UPDATE SET name = excluded.name";
    write.execute(sql, [name]).map_err(told)?;
    write.commit().map_err(told)
}

/// Rows behind a number, and whether there may be more.
fn rows(connection: &Connection, after: i64) -> Result<(Vec<Row>, bool), rusqlite::Error> {
    let mut statement = connection.prepare_cached(ROWS)?;
    let mut found = statement.query((after, BATCH_ROWS_MAX))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(next) = found.next()? {
        let row = row(next)?;
        bytes += row.data.as_ref().map_or(0, Bytes::len);
        rows.push(row);
        if bytes >= BATCH_BYTES_MAX {
            return Ok((rows, true));
        }
    }
    let more = rows.len() == usize::from(BATCH_ROWS_MAX);
    Ok((rows, more))
}

fn row(found: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    // Text of any encoding, and of any type in a table that somebody else made: no row may stop the others.
    let text = |column: usize| -> Result<Option<String>, rusqlite::Error> {
        Ok(match found.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
    };
    let json = |column: usize| -> Result<Option<Bytes>, rusqlite::Error> {
        Ok(match found.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Bytes::copy_from_slice(bytes)),
            _ => None,
        })
    };
    let (occurred, written) = (text(4)?, text(10)?);
    let time = |text: &str| Timestamp::parse_rfc3339(text);
    Ok(Row {
        number: found.get::<_, i64>(0)?.cast_unsigned(),
        event_id: text(1)?,
        event_type: text(2)?.unwrap_or_default(),
        version: found.get(3)?,
        timestamp: occurred.as_deref().map_or_else(|| written.as_deref().and_then(time), time),
        no_timestamp: occurred.filter(|text| time(text).is_none()),
        source: text(5)?,
        aggregate_id: text(6)?,
        channels: json(7)?.as_deref().map(channels).unwrap_or_default(),
        metadata: json(8)?,
        data: json(9)?,
        whole: false,
    })
}

pub(super) fn trouble(text: &str) -> ReadError {
    ReadError::Trouble(text.to_owned())
}
