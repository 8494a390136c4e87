//! Making an outbox in a database, and taking it away.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use super::session::{connect, trouble, within};
use crate::outbox::ReadError;
use crate::outbox::postgres::install::Roles;

/// The table that applications write to.
const TABLE: &str = include_str!("../../../../emit/sql/outbox-mysql.sql");
const READER_TABLE: &str = include_str!("reader.sql");
/// The SQL that takes the outbox away.
pub const UNINSTALL: &str = "DROP TABLE IF EXISTS tidings_outbox_reader;\nDROP TABLE tidings_outbox;\n";

/// How an outbox stands, by its database's account.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The Tidings that reads it, if any did.
    pub reader: Option<String>,
    /// Rows that are there. Those that were relayed are deleted within moments.
    pub waiting: u64,
    /// Seconds since the oldest of them was written.
    pub oldest_seconds: Option<f64>,
}

/// The SQL that gives accounts, each as `name` or `name@host`, their rights and no more.
fn grants(roles: &Roles) -> String {
    let mut sql = String::new();
    for producer in &roles.producers {
        // Writing to a String cannot fail.
        let _ = writeln!(sql, "GRANT INSERT ON tidings_outbox TO {};", account(producer));
    }
    if let Some(reader) = roles.reader.as_deref().map(account) {
        let _ = writeln!(sql, "GRANT SELECT, DELETE ON tidings_outbox TO {reader};");
        let _ = writeln!(sql, "GRANT SELECT, INSERT, UPDATE ON tidings_outbox_reader TO {reader};");
    }
    sql
}

/// All of it, to be read and run by somebody else.
pub fn script(roles: &Roles) -> String {
    format!("{TABLE}\n{READER_TABLE}\n{}", grants(roles))
}

/// Makes the outbox, if it is not there, and gives the accounts their rights. Returns whether it was made.
pub async fn install(opts: &Opts, roles: &Roles) -> Result<bool, ReadError> {
    let mut connection = connect(opts).await?;
    let there = has_table(&mut connection, "tidings_outbox").await?;
    for statement in script(roles).split(";\n").filter(|statement| !statement.trim().is_empty()) {
        within(connection.query_drop(statement)).await?;
    }
    Ok(!there)
}

/// Takes the outbox away. Refuses while rows in it may not have been relayed, unless they are to be lost.
pub async fn uninstall(opts: &Opts, lose_rows: bool) -> Result<(), ReadError> {
    let mut connection = connect(opts).await?;
    stands(&mut connection).await?;
    // So that nothing is written between the look and the end. Others wait, but not for long.
    within(connection.query_drop("SET SESSION lock_wait_timeout = 10")).await?;
    within(connection.query_drop("LOCK TABLES tidings_outbox WRITE, tidings_outbox_reader WRITE")).await?;
    let waiting = stands(&mut connection).await?.waiting;
    if waiting > 0 && !lose_rows {
        return Err(trouble(&format!("{waiting} rows may not have been relayed: wait for that, or take --lose-rows")));
    }
    within(connection.query_drop("DROP TABLE tidings_outbox_reader, tidings_outbox")).await
}

/// How the outbox stands.
pub async fn status(opts: &Opts) -> Result<Status, ReadError> {
    stands(&mut connect(opts).await?).await
}

/// Refuses where there is none.
pub(super) async fn there(connection: &mut Conn) -> Result<(), ReadError> {
    for table in ["tidings_outbox", "tidings_outbox_reader"] {
        if !has_table(connection, table).await? {
            return Err(trouble("there is no outbox here: make one with `tidings outbox install`"));
        }
    }
    Ok(())
}

async fn stands(connection: &mut Conn) -> Result<Status, ReadError> {
    there(connection).await?;
    let reader = within(connection.query_first("SELECT name FROM tidings_outbox_reader")).await?;
    let sql =
        "SELECT count(*), timestampdiff(MICROSECOND, min(created_at), utc_timestamp(6)) / 1e6 FROM tidings_outbox";
    let counted: Option<(u64, Option<f64>)> = within(connection.query_first(sql)).await?;
    let (waiting, oldest_seconds) = counted.unwrap_or_default();
    Ok(Status { reader, waiting, oldest_seconds })
}

async fn has_table(connection: &mut Conn, name: &str) -> Result<bool, ReadError> {
    let sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = database() AND table_name = ?";
    let found: Option<u8> = within(connection.exec_first(sql, (name,))).await?;
    Ok(found.is_some())
}

/// An account as SQL takes it, whatever is in it. Without a host it is one of any host, or a role.
fn account(name: &str) -> String {
    let quoted = |part: &str| format!("`{}`", part.replace('`', "``"));
    match name.rsplit_once('@') {
        Some((user, host)) => format!("{}@{}", quoted(user), quoted(host)),
        None => quoted(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_get_rights_by_their_quoted_names() {
        let roles = Roles { producers: vec!["sh`op@10.%".to_owned()], reader: Some("tidings".to_owned()) };
        let sql = grants(&roles);
        assert!(sql.contains("GRANT INSERT ON tidings_outbox TO `sh``op`@`10.%`;\n"), "{sql}");
        assert!(sql.contains("GRANT SELECT, DELETE ON tidings_outbox TO `tidings`;\n"), "{sql}");
        assert!(!script(&Roles::default()).contains("GRANT"));
    }
}
