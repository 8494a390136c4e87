//! Making an outbox in a database, and taking it away.

use std::fmt::Write as _;

use tokio_postgres::Client;

use super::access::Config;
use super::session::{connect, told};
use crate::outbox::ReadError;

/// The SQL that makes the outbox.
pub const INSTALL: &str = include_str!("install.sql");
/// The SQL that has it wake its reader.
pub const WAKE: &str = include_str!("wake.sql");
/// The SQL that takes it away, with what depends on it.
pub const UNINSTALL: &str = "DROP SCHEMA tidings CASCADE;\n";

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Roles that emit events.
    pub producers: Vec<String>,
    /// The role that Tidings reads as.
    pub reader: Option<String>,
}

/// What is made beside the table.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// They get their rights.
    pub roles: Roles,
    /// Whether the database wakes the reader.
    pub wake: bool,
}

/// How an outbox stands, by its database's account.
#[derive(Clone, Debug)]
pub struct Status {
    /// Of the layout.
    pub layout: i32,
    /// Of this outbox: another one after it was made anew.
    pub install: String,
    /// The Tidings that reads it, if any did.
    pub reader: Option<String>,
    /// Rows that were not relayed when the reader last said how far it is; it does so every few seconds.
    pub waiting: i64,
    /// Seconds since the oldest of them was written.
    pub oldest_seconds: Option<f64>,
    /// Bytes of the table and its indexes.
    pub bytes: i64,
    /// Seconds since the half that is written to began.
    pub half_seconds: f64,
    /// Seconds since the oldest transaction that writes began; it holds back nothing but its own rows.
    pub longest_transaction_seconds: Option<f64>,
}

const STATUS: &str = "
SELECT s.layout, s.install, s.reader,
       (SELECT count(*) FROM tidings.outbox o
        WHERE txid >= pg_snapshot_xmax(s.relayed) OR txid = ANY (ARRAY(SELECT pg_snapshot_xip(s.relayed)))),
       (SELECT extract(epoch FROM clock_timestamp() - min(created_at))::double precision FROM tidings.outbox o
        WHERE txid >= pg_snapshot_xmax(s.relayed) OR txid = ANY (ARRAY(SELECT pg_snapshot_xip(s.relayed)))),
       (SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('tidings.outbox')),
       extract(epoch FROM clock_timestamp() - s.since)::double precision,
       (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::double precision FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL)
FROM tidings.state s";

impl Wanted {
    fn sql(&self) -> String {
        format!("{}{}", if self.wake { WAKE } else { "" }, self.roles.grants())
    }
}

impl Roles {
    /// The SQL that gives them their rights and no more.
    pub fn grants(&self) -> String {
        let mut sql = String::new();
        for role in &self.producers {
            let role = quoted(role);
            // Writing to a String cannot fail.
            let _ = writeln!(sql, "GRANT USAGE ON SCHEMA tidings TO {role};");
            let _ = writeln!(sql, "GRANT EXECUTE ON FUNCTION tidings.emit TO {role};");
        }
        if let Some(role) = self.reader.as_deref().map(quoted) {
            let _ = writeln!(sql, "GRANT USAGE ON SCHEMA tidings TO {role};");
            let _ = writeln!(sql, "GRANT SELECT ON tidings.outbox, tidings.state, tidings.witness TO {role};");
            let _ = writeln!(sql, "GRANT EXECUTE ON FUNCTION tidings.mark, tidings.turn TO {role};");
        }
        sql
    }
}

/// All of it, to be read and run by somebody else.
pub fn script(wanted: &Wanted) -> String {
    format!("BEGIN;\n{INSTALL}\n{}COMMIT;\n", wanted.sql())
}

/// Makes the outbox, if it is not there, and what is wanted beside. Returns whether it was made.
pub async fn install(config: &Config, wanted: &Wanted) -> Result<bool, ReadError> {
    let client = connect(config).await?;
    let there = there(&client).await?;
    let (install, additions) = (if there { "" } else { INSTALL }, wanted.sql());
    client.batch_execute(&format!("BEGIN;\n{install}\n{additions}COMMIT;\n")).await.map_err(|error| told(&error))?;
    Ok(!there)
}

/// Takes the outbox away. Refuses while rows in it may not have been relayed, unless they are to be lost.
pub async fn uninstall(config: &Config, lose_rows: bool) -> Result<(), ReadError> {
    let status = status(config).await?;
    if status.waiting > 0 && !lose_rows {
        return Err(ReadError::Trouble(format!(
            "{} rows may not have been relayed: wait for that, or take --lose-rows",
            status.waiting
        )));
    }
    let client = connect(config).await?;
    client.batch_execute(UNINSTALL).await.map_err(|error| told(&error))
}

/// How the outbox stands.
pub async fn status(config: &Config) -> Result<Status, ReadError> {
    let client = connect(config).await?;
    if !there(&client).await? {
        return Err(ReadError::Trouble("there is no outbox here: make one with `tidings outbox install`".to_owned()));
    }
    let row = client.query_one(STATUS, &[]).await.map_err(|error| told(&error))?;
    Ok(Status {
        layout: row.get(0),
        install: row.get(1),
        reader: row.get(2),
        waiting: row.get(3),
        oldest_seconds: row.get(4),
        bytes: row.get(5),
        half_seconds: row.get(6),
        longest_transaction_seconds: row.get(7),
    })
}

pub(super) async fn there(client: &Client) -> Result<bool, ReadError> {
    let sql = "SELECT to_regclass('tidings.state') IS NOT NULL";
    Ok(client.query_one(sql, &[]).await.map_err(|error| told(&error))?.get(0))
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_get_rights_by_their_quoted_names() {
        let roles = Roles { producers: vec!["sh\"op".to_owned()], reader: Some("tidings".to_owned()) };
        let sql = roles.grants();
        assert!(sql.contains("GRANT EXECUTE ON FUNCTION tidings.emit TO \"sh\"\"op\";"), "{sql}");
        assert!(!sql.contains("INSERT") && !sql.contains("tidings.emit TO \"tidings\""), "{sql}");
    }
}
