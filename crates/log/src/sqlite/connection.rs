//! Connections to the file, and what their errors mean.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::Synchronous;
use crate::store::Unavailable;

/// Marks the file as ours (`TIDN`).
pub(crate) const APPLICATION_ID: i32 = 0x5449_444e;
/// The newest layout that this build knows.
pub(crate) const LAYOUT: i32 = 1;
/// SQLite before 3.51.3 can damage a WAL under load.
const SQLITE_MIN: i32 = 3_051_003;

/// How long a statement waits for another process, `sqlite3` say, to let go.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const PAGE_BYTES: u32 = 4096;
const WRITER_CACHE_KIB: i32 = 16 * 1024;
const READER_CACHE_KIB: i32 = 2 * 1024;
const WAL_PIECE_BYTES: usize = 1 << 20;
const STATEMENTS_KEPT: usize = 128;
pub(crate) const LAYOUT_1: &str = include_str!("../../migrations/sqlite/0001_log.sql");

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file.
    #[error("cannot open {path}: {cause}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
    /// Another process has the folder open.
    #[error("{0} is in use by another process: stop it first, or choose another folder with --data")]
    InUse(String),
    /// Not a log of ours.
    #[error("{0} is not a Tidings log: choose another folder with --data")]
    Foreign(String),
    /// Written by a newer Tidings.
    #[error("the log has layout {found}, this build knows up to {LAYOUT}: use a newer Tidings")]
    TooNew {
        /// Its layout.
        found: i32,
    },
    /// The disk did not take what it was to keep.
    #[error("a sync failed while the log was opened ({0}): look after the disk, then start again")]
    Sync(rusqlite::Error),
    /// SQLite itself.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// What was read makes no sense.
    #[error("the log is damaged: {0}; `tidings audit verify` tells where")]
    Damaged(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error() {
            Some(cause) if is_sync(cause.extended_code) => Self::Sync(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// Makes the disk have what the page cache shows of the WAL.
///
/// After a failed sync Linux calls pages clean that never reached the disk. A restarted process would read them, build
/// on them, and lose all of it with the power. So what is there is written again, and synced, before anything is read.
pub(crate) fn rewrite_wal(path: &Path) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let file = match OpenOptions::new().read(true).write(true).open(Path::new(&name)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut piece = vec![0; WAL_PIECE_BYTES];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return file.sync_all();
        }
        file.write_all_at(&piece[..read], at)?;
        at += read as u64;
    }
}

/// A store that is fenced syncs nothing more, not even when it closes.
pub(crate) fn close_without_checkpoint(connection: &Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::warn!(%error, "closing may try to sync again");
    }
}

pub(crate) fn open_writer(path: &Path, synchronous: Synchronous) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::Damaged(format!("SQLite {} is too old", rusqlite::version())));
    }
    // One thread has it: its calls need no lock.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let application = application_id(&connection, path)?;
    let layout: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(OpenError::Foreign(path.display().to_string()));
    }
    if layout > LAYOUT {
        return Err(OpenError::TooNew { found: layout });
    }
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous.pragma())?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Pages that give rows away must not keep copies that an erasure would not find.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if layout < LAYOUT {
        let transaction = connection.transaction()?;
        transaction.execute_batch(LAYOUT_1)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Without this SQLite plans a kept statement anew whenever a bound value might change the plan: a tenth of an append.
fn keep_plans(connection: &Connection) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    keep_plans(&connection)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if application_id(&connection, path)? != APPLICATION_ID {
        return Err(OpenError::Foreign(path.display().to_string()));
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

fn application_id(connection: &Connection, path: &Path) -> Result<i32, OpenError> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::Foreign(path.display().to_string()),
            _ => error.into(),
        }
    })
}

/// What an error of SQLite means for the store.
pub(crate) fn classify(error: &rusqlite::Error) -> Unavailable {
    let text: Arc<str> = error.to_string().into();
    let Some(cause) = error.sqlite_error() else {
        return Unavailable::Trouble(text);
    };
    // The wal-index grows by a page that the disk must have, or a later access would kill the process.
    if cause.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return Unavailable::Full;
    }
    match cause.code {
        ErrorCode::DiskFull => Unavailable::Full,
        ErrorCode::SystemIoFailure if is_sync(cause.extended_code) => {
            Unavailable::Fenced(format!("a sync failed ({text})").into())
        }
        ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Unavailable::Fenced(text),
        _ => Unavailable::Trouble(text),
    }
}

fn is_sync(extended_code: i32) -> bool {
    extended_code == ffi::SQLITE_IOERR_FSYNC || extended_code == ffi::SQLITE_IOERR_DIR_FSYNC
}
