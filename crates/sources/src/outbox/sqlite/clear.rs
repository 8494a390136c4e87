//! Clears relayed rows away, a few at a time: the application's own writers wait meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::time::sleep;

use super::session::connect;
use super::{Position, away};
use crate::outbox::ReadError;

/// Rows that go at once, at most.
const SLICE_ROWS_MAX: u16 = 200;
/// Bytes of data that go at once, but for the last row.
const SLICE_BYTES_MAX: i64 = 1024 * 1024;
/// Between two slices, so that a writer that waits gets its turn.
const SLICE_PAUSE: Duration = Duration::from_millis(2);

/// Clears away all rows before the one at `position`, which stays as a mark.
pub(super) async fn clear(path: PathBuf, name: Box<str>, position: Position) {
    if let Err(error) = slices(&path, &name, &position).await {
        // They are cleared when more rows have come.
        tracing::warn!(path = %path.display(), reason = %error, "relayed rows stay in the outbox for now");
    }
}

async fn slices(path: &Path, name: &str, position: &Position) -> Result<(), ReadError> {
    let path = path.to_owned();
    let opened = away((), move |()| {
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        soft(&connection).map_err(super::told)?;
        Ok(connection)
    });
    let mut connection = opened.await?.1?;
    loop {
        let (name, position) = (name.to_owned(), position.clone());
        let (back, more) = away(connection, move |connection| slice(connection, &name, &position)).await?;
        connection = back;
        match more {
            Ok(true) => sleep(SLICE_PAUSE).await,
            // Somebody writes for long: the next time will do.
            Err(rusqlite::Error::SqliteFailure(fault, _)) if fault.code == ErrorCode::DatabaseBusy => return Ok(()),
            other => return other.map(|_| ()).map_err(super::told),
        }
    }
}

/// Without a sync for each commit where that cannot damage the file: rows that come back are cleared again.
fn soft(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
    }
    Ok(())
}

/// Clears some away; whether there are more. None if another Tidings reads it now, or it is another history.
fn slice(connection: &mut Connection, name: &str, position: &Position) -> Result<bool, rusqlite::Error> {
    // Found before the lock is taken.
    let (last, more) = last(connection, position.after)?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "UPDATE tidings_outbox_reader SET relayed = ?1
               WHERE name = ?2 AND EXISTS (SELECT 1 FROM tidings_outbox WHERE id = ?1 AND event_id = ?3)";
    if write.execute(sql, (position.after, name, &position.event_id))? == 0 {
        return Ok(false);
    }
    write.execute("DELETE FROM tidings_outbox WHERE id BETWEEN 1 AND ?1", [last])?;
    write.commit()?;
    Ok(more)
}

/// The last row of a slice, 0 if there is none, and whether rows follow it.
fn last(connection: &Connection, after: i64) -> Result<(i64, bool), rusqlite::Error> {
    let sql = "SELECT id, octet_length(data) FROM tidings_outbox WHERE id BETWEEN 1 AND ?1 - 1 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query((after, SLICE_ROWS_MAX))?;
    let (mut last, mut rows, mut bytes) = (0, 0, 0);
    while let Some(row) = found.next()? {
        last = row.get(0)?;
        rows += 1;
        bytes += row.get::<_, i64>(1)?;
        if bytes >= SLICE_BYTES_MAX {
            break;
        }
    }
    Ok((last, rows == SLICE_ROWS_MAX || bytes >= SLICE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::install::install;

    #[test]
    fn rows_of_another_history_or_another_reader_are_never_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut file = Connection::open(&path).unwrap();
        install(&path).unwrap();
        file.execute_batch(
            "INSERT INTO tidings_outbox_reader VALUES (1, 'me', 0);
             INSERT INTO tidings_outbox (event_id, event_type, data) VALUES ('x', 'a.b', '1'), ('y', 'a.b', '2')",
        )
        .unwrap();
        let left = |file: &Connection| -> i64 {
            file.query_row("SELECT count(*) FROM tidings_outbox", [], |row| row.get(0)).unwrap()
        };
        for (name, event_id, expected) in [("me", "z", 2), ("another", "y", 2), ("me", "y", 1)] {
            let position = Position { after: 2, event_id: event_id.to_owned() };
            assert!(!slice(&mut file, name, &position).unwrap());
            assert_eq!(left(&file), expected, "{name} {event_id}");
        }
    }
}
