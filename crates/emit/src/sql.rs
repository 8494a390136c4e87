//! The tables, to be created once, and the statements of each dialect.
//!
//! On PostgreSQL the outbox is made by `tidings outbox install`; its function `tidings.emit` is what `emit` calls.

/// The outbox of a SQLite database.
pub const OUTBOX_SQLITE: &str = include_str!("../sql/outbox-sqlite.sql");
/// The outbox of a MySQL or MariaDB database.
pub const OUTBOX_MYSQL: &str = include_str!("../sql/outbox-mysql.sql");
/// Where a subscriber remembers what it processed: SQLite and PostgreSQL. Two tables and an index.
pub const INBOX: &str = include_str!("../sql/inbox.sql");
/// The same for MySQL and MariaDB. Two tables.
pub const INBOX_MYSQL: &str = include_str!("../sql/inbox-mysql.sql");

/// What is written where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "sqlx"), expect(dead_code, reason = "the other drivers have one dialect each"))]
pub(crate) enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

/// The statements; parameters in the same order in all dialects.
#[derive(Debug)]
pub(crate) struct Statements {
    /// `event_type, data, aggregate_id, channels, version, metadata, source, occurred_at, event_id`; all but version text.
    pub(crate) emit: &'static str,
    /// `subscriber, event_id, processed_ms`: gives a 1, or no row if it is there; else what gives the number of rows.
    pub(crate) first: (&'static str, Option<&'static str>),
    /// `subscriber, processed_ms`: those that are older.
    pub(crate) forget: &'static str,
    /// `subscriber, aggregate_id`: a row with 0, if there is none.
    pub(crate) begin: &'static str,
    /// `subscriber, aggregate_id`: locks, and gives the newest number.
    pub(crate) newest: &'static str,
    /// `sequence, subscriber, aggregate_id`.
    pub(crate) passed: &'static str,
    /// One text of JSON for each row of the outbox, in order.
    #[cfg(feature = "testing")]
    pub(crate) emitted: &'static str,
}

impl Dialect {
    pub(crate) fn statements(self) -> &'static Statements {
        match self {
            Self::Postgres => &POSTGRES,
            Self::MySql => &MYSQL,
            Self::Sqlite => &SQLITE,
        }
    }
}

const POSTGRES: Statements = Statements {
    emit: "SELECT tidings.emit($1, $2::text::json, aggregate_id => $3, \
           channels => ARRAY(SELECT json_array_elements_text($4::text::json)), version => $5::integer, \
           metadata => $6::text::json, source => $7, occurred_at => $8::text::timestamptz, event_id => $9)",
    first: (
        "INSERT INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING RETURNING 1::bigint",
        None,
    ),
    forget: "DELETE FROM tidings_inbox WHERE subscriber = $1 AND processed_ms < $2",
    begin: "INSERT INTO tidings_sequence (subscriber, aggregate_id, sequence) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING",
    newest: "SELECT sequence FROM tidings_sequence WHERE subscriber = $1 AND aggregate_id = $2 FOR UPDATE",
    passed: "UPDATE tidings_sequence SET sequence = $1 WHERE subscriber = $2 AND aggregate_id = $3",
    #[cfg(feature = "testing")]
    emitted: "SELECT json_build_object('eventId', event_id, 'eventType', event_type, 'version', version, \
              'source', source, 'aggregateId', aggregate_id, 'channels', coalesce(channels, '{}'), \
              'metadata', coalesce(metadata, '{}'), 'data', data)::text FROM tidings.outbox ORDER BY id",
};

const MYSQL: Statements = Statements {
    emit: "INSERT INTO tidings_outbox \
           (event_type, data, aggregate_id, channels, version, metadata, source, occurred_at, event_id) \
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    first: (
        "INSERT IGNORE INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES (?, ?, ?)",
        Some("SELECT row_count()"),
    ),
    forget: "DELETE FROM tidings_inbox WHERE subscriber = ? AND processed_ms < ?",
    begin: "INSERT IGNORE INTO tidings_sequence (subscriber, aggregate_id, sequence) VALUES (?, ?, 0)",
    newest: "SELECT sequence FROM tidings_sequence WHERE subscriber = ? AND aggregate_id = ? FOR UPDATE",
    passed: "UPDATE tidings_sequence SET sequence = ? WHERE subscriber = ? AND aggregate_id = ?",
    #[cfg(feature = "testing")]
    emitted: "SELECT CAST(json_object('eventId', event_id, 'eventType', event_type, 'version', version, \
              'source', source, 'aggregateId', aggregate_id, 'channels', json_extract(coalesce(channels, '[]'), '$'), \
              'metadata', json_extract(coalesce(metadata, '{}'), '$'), 'data', json_extract(data, '$')) AS CHAR) \
              FROM tidings_outbox ORDER BY id",
};

const SQLITE: Statements = Statements {
    emit: MYSQL.emit,
    first: (
        "INSERT INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES (?, ?, ?) \
         ON CONFLICT DO NOTHING RETURNING 1",
        None,
    ),
    forget: MYSQL.forget,
    begin: "INSERT INTO tidings_sequence (subscriber, aggregate_id, sequence) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
    // One writer at a time: the insert before it has taken the lock.
    newest: "SELECT sequence FROM tidings_sequence WHERE subscriber = ? AND aggregate_id = ?",
    passed: MYSQL.passed,
    #[cfg(feature = "testing")]
    emitted: "SELECT json_object('eventId', event_id, 'eventType', event_type, 'version', version, \
              'source', source, 'aggregateId', aggregate_id, 'channels', json(coalesce(channels, '[]')), \
              'metadata', json(coalesce(metadata, '{}')), 'data', json(data)) FROM tidings_outbox ORDER BY id",
};
