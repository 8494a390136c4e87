//! Making an outbox in a file of SQLite, and taking it away.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::session::{READER_TABLE, connect, has_table, trouble};
use super::told;
use crate::outbox::ReadError;

/// The table that applications write to.
const TABLE: &str = include_str!("../../../../emit/sql/outbox-sqlite.sql");
/// The SQL that takes the outbox away.
pub const UNINSTALL: &str = "DROP TABLE IF EXISTS tidings_outbox_reader;\nDROP TABLE tidings_outbox;\n";

/// How an outbox stands, by its file's account.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The Tidings that reads it, if any did.
    pub reader: Option<String>,
    /// Rows that were not relayed when the reader last said how far it is; it does so every few seconds.
    pub waiting: i64,
    /// Seconds since the oldest of them was written.
    pub oldest_seconds: Option<f64>,
    /// Rows, with those that are relayed and not cleared away yet.
    pub rows: i64,
}

/// The SQL that makes the outbox.
pub fn script() -> String {
    format!("BEGIN;\n{TABLE}\n{READER_TABLE}COMMIT;\n")
}

/// Makes the outbox, if it is not there. Returns whether it was made.
pub fn install(path: &Path) -> Result<bool, ReadError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    let there = has_table(&write, "tidings_outbox")?;
    write.execute_batch(TABLE).map_err(told)?;
    write.execute_batch(READER_TABLE).map_err(told)?;
    write.commit().map_err(told)?;
    Ok(!there)
}

/// Takes the outbox away. Refuses while rows in it may not have been relayed, unless they are to be lost.
pub fn uninstall(path: &Path, lose_rows: bool) -> Result<(), ReadError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    let waiting = stands(&write)?.waiting;
    if waiting > 0 && !lose_rows {
        return Err(trouble(&format!("{waiting} rows may not have been relayed: wait for that, or take --lose-rows")));
    }
    write.execute_batch(UNINSTALL).map_err(told)?;
    write.commit().map_err(told)
}

/// How the outbox stands.
pub fn status(path: &Path) -> Result<Status, ReadError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let snapshot = connection.transaction().map_err(told)?;
    stands(&snapshot)
}

fn stands(connection: &Connection) -> Result<Status, ReadError> {
    if !has_table(connection, "tidings_outbox")? {
        return Err(trouble("there is no outbox here: make one with `tidings outbox install`"));
    }
    let known = if has_table(connection, "tidings_outbox_reader")? {
        let sql = "SELECT max(name), coalesce(max(relayed), 0) FROM tidings_outbox_reader";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
    } else {
        Ok((None, 0_i64))
    };
    let (reader, relayed) = known.map_err(told)?;
    let sql = "SELECT count(*) FILTER (WHERE id > ?1),
                      86400 * (julianday('now') - julianday(min(created_at) FILTER (WHERE id > ?1))), count(*)
               FROM tidings_outbox";
    let counted = connection.query_row(sql, [relayed], |row| {
        Ok(Status { reader, waiting: row.get(0)?, oldest_seconds: row.get(1)?, rows: row.get(2)? })
    });
    counted.map_err(told)
}
