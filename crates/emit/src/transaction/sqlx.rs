//! For `sqlx`, on PostgreSQL, MySQL, MariaDB and SQLite: the database is the transaction's.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use sqlx::query::Query;
use sqlx::{ColumnIndex, Database, Decode, Encode, Error, Executor, IntoArguments, Row as _, Transaction, Type};
use tidings_core::id::EventId;

use super::{EmitError, Row, newest, stored};
use crate::clock;
use crate::event::Event;
use crate::receive::Order;
use crate::sql::{Dialect, Statements};

/// As wide as the tables' column.
const SUBSCRIBER_BYTES_MAX: usize = 64;

/// A parameter.
#[derive(Debug)]
#[doc(hidden)]
pub enum Value {
    Text(Option<String>),
    Number(Option<i64>),
}

impl Value {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }
}

/// A database of sqlx that text and whole numbers go in and out of: all of them. Nobody has to implement it.
pub trait Engine: Database {
    #[doc(hidden)]
    fn run(
        tx: &mut Transaction<'_, Self>,
        sql: &'static str,
        values: Vec<Value>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The number in the first row.
    #[doc(hidden)]
    fn number(
        tx: &mut Transaction<'_, Self>,
        sql: &'static str,
        values: Vec<Value>,
    ) -> impl Future<Output = Result<Option<i64>, Error>> + Send;

    /// The texts of all rows.
    #[doc(hidden)]
    fn texts(
        tx: &mut Transaction<'_, Self>,
        sql: &'static str,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

impl<DB: Database> Engine for DB
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> Option<String>: Encode<'q, DB>,
    for<'q> Option<i64>: Encode<'q, DB>,
    for<'r> String: Decode<'r, DB> + Type<DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    async fn run(tx: &mut Transaction<'_, DB>, sql: &'static str, values: Vec<Value>) -> Result<(), Error> {
        bound::<DB>(sql, values).execute(&mut **tx).await.map(|_| ())
    }

    async fn number(tx: &mut Transaction<'_, DB>, sql: &'static str, values: Vec<Value>) -> Result<Option<i64>, Error> {
        let row = bound::<DB>(sql, values).fetch_optional(&mut **tx).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    async fn texts(tx: &mut Transaction<'_, DB>, sql: &'static str) -> Result<Vec<String>, Error> {
        let rows = bound::<DB>(sql, Vec::new()).fetch_all(&mut **tx).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }
}

fn bound<'q, DB: Database>(sql: &'static str, values: Vec<Value>) -> Query<'q, DB, DB::Arguments>
where
    Option<String>: Encode<'q, DB>,
    Option<i64>: Encode<'q, DB>,
    String: Type<DB>,
    i64: Type<DB>,
{
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    })
}

fn dialect<DB: Database>() -> Result<Dialect, Error> {
    match DB::NAME {
        "PostgreSQL" => Ok(Dialect::Postgres),
        "MySQL" => Ok(Dialect::MySql),
        "SQLite" => Ok(Dialect::Sqlite),
        other => Err(Error::Configuration(Box::new(Unknown(other)))),
    }
}

/// A database whose dialect is not known, such as sqlx's `Any`: take the transaction of the database itself.
#[derive(Debug)]
struct Unknown(&'static str);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no outbox for `{}`: take a transaction of PostgreSQL, MySQL or SQLite", self.0)
    }
}

impl std::error::Error for Unknown {}

fn statements<DB: Database>() -> Result<&'static Statements, Error> {
    dialect::<DB>().map(Dialect::statements)
}

/// Tells of an event, if and only if the transaction commits.
///
/// On PostgreSQL it calls `tidings.emit`, which `tidings outbox install` makes; elsewhere it inserts into the table of
/// [`crate::sql::OUTBOX_MYSQL`] or [`crate::sql::OUTBOX_SQLITE`].
pub async fn emit<DB: Engine>(tx: &mut Transaction<'_, DB>, event: Event) -> Result<EventId, EmitError<Error>> {
    let dialect = dialect::<DB>().map_err(EmitError::Database)?;
    let row = Row::of(event, dialect)?;
    let values = vec![
        Value::text(row.event_type),
        Value::text(row.data),
        Value::Text(row.aggregate_id),
        Value::Text(row.channels),
        Value::Number(row.version),
        Value::Text(row.metadata),
        Value::Text(row.source),
        Value::Text(row.occurred_at),
        Value::text(row.id.as_str()),
    ];
    DB::run(tx, dialect.statements().emit, values).await.map_err(EmitError::Database)?;
    Ok(row.id)
}

/// Whether the subscriber has not processed the event yet; call it first in the transaction of the work.
///
/// Another transaction with the same event waits for this one's end. The tables are [`crate::sql::INBOX`] or
/// [`crate::sql::INBOX_MYSQL`].
pub async fn first<DB: Engine>(tx: &mut Transaction<'_, DB>, subscriber: &str, id: &EventId) -> Result<bool, Error> {
    check(subscriber)?;
    let (insert, count) = statements::<DB>()?.first;
    let values = vec![Value::text(subscriber), Value::text(id.as_str()), Value::Number(Some(clock::now().as_millis()))];
    let rows = match count {
        None => DB::number(tx, insert, values).await?,
        Some(count) => {
            DB::run(tx, insert, values).await?;
            DB::number(tx, count, Vec::new()).await?
        }
    };
    Ok(rows == Some(1))
}

/// A longer name would be cut off by MySQL without a word, and two subscribers be one.
fn check(subscriber: &str) -> Result<(), Error> {
    if (1..=SUBSCRIBER_BYTES_MAX).contains(&subscriber.len()) && subscriber.is_ascii() {
        return Ok(());
    }
    let rule =
        format!("a subscriber's name has 1 to {SUBSCRIBER_BYTES_MAX} ASCII characters, and this is {subscriber:?}");
    Err(Error::InvalidArgument(rule))
}

/// How the event stands to those of its aggregate that the subscriber processed before; remembered with the work.
pub async fn order<DB: Engine>(
    tx: &mut Transaction<'_, DB>,
    subscriber: &str,
    aggregate: &str,
    sequence: u64,
) -> Result<Order, Error> {
    check(subscriber)?;
    let statements = statements::<DB>()?;
    let key = || vec![Value::text(subscriber), Value::text(aggregate)];
    DB::run(tx, statements.begin, key()).await?;
    let kept = DB::number(tx, statements.newest, key()).await?;
    let order = Order::of(newest(kept.unwrap_or(0)), sequence);
    if !order.is_late() {
        let mut values = vec![Value::Number(Some(stored(sequence)))];
        values.extend(key());
        DB::run(tx, statements.passed, values).await?;
    }
    Ok(order)
}

/// Forgets events that were processed longer ago than `kept`.
pub async fn forget<DB: Engine>(tx: &mut Transaction<'_, DB>, subscriber: &str, kept: Duration) -> Result<(), Error> {
    let values = vec![Value::text(subscriber), Value::Number(Some(clock::before(kept)))];
    DB::run(tx, statements::<DB>()?.forget, values).await
}

/// What stands in the outbox, this transaction's own rows too. On PostgreSQL it needs the right to read them.
#[cfg(feature = "testing")]
pub async fn emitted<DB: Engine>(tx: &mut Transaction<'_, DB>) -> Result<crate::testing::Emissions, Error> {
    DB::texts(tx, statements::<DB>()?.emitted).await.map(crate::testing::Emissions::read)
}
