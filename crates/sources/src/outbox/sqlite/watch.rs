//! Triggers that tell of changes to tables.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde_json::Value;

use super::session::{connect, has_table, trouble};
use super::told;
use crate::outbox::ReadError;
use crate::outbox::watch::{Column, Watch, Watched, literal};

/// What the names of triggers begin with; the table's name follows.
const PREFIX: &str = "tidings_watch_";
const TRIGGERS: [&str; 4] = ["insert", "update", "rekey", "delete"];

/// The SQL that watches a table. Needs the file, for it looks the columns up.
pub fn script(path: &Path, watch: &Watch) -> Result<String, ReadError> {
    let sql = sql(&connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?, watch)?;
    Ok(format!("BEGIN;\n{sql}COMMIT;\n"))
}

/// Watches a table, or watches it otherwise than before.
pub fn watch(path: &Path, watch: &Watch) -> Result<(), ReadError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    write.execute_batch(&sql(&write, watch)?).map_err(told)?;
    write.commit().map_err(told)
}

/// Watches a table no more; whether it was watched.
pub fn unwatch(path: &Path, table: &str) -> Result<bool, ReadError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let was = watched_in(&connection)?.iter().any(|watched| watched.table.eq_ignore_ascii_case(table));
    connection.execute_batch(&format!("BEGIN IMMEDIATE;\n{}COMMIT;\n", unwatch_script(table))).map_err(told)?;
    Ok(was)
}

/// The SQL that watches a table no more.
pub fn unwatch_script(table: &str) -> String {
    TRIGGERS.map(|trigger| format!("DROP TRIGGER IF EXISTS {};\n", trigger_of(table, trigger))).concat()
}

/// The tables that are watched.
pub fn watched(path: &Path) -> Result<Vec<Watched>, ReadError> {
    watched_in(&connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

fn watched_in(connection: &Connection) -> Result<Vec<Watched>, ReadError> {
    let sql = "SELECT tbl_name, sql FROM sqlite_schema
               WHERE type = 'trigger' AND name = ?1 || tbl_name || '_insert' COLLATE NOCASE ORDER BY 1";
    let mut statement = connection.prepare(sql).map_err(told)?;
    let found = statement
        .query_map([PREFIX], |row| {
            let (table, sql): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(Watched { table, resource: crate::outbox::watch::resource_in(&sql) })
        })
        .map_err(told)?;
    found.collect::<Result<_, _>>().map_err(told)
}

fn sql(connection: &Connection, watch: &Watch) -> Result<String, ReadError> {
    if !has_table(connection, "tidings_outbox")? {
        return Err(trouble("there is no outbox here: make one with `tidings outbox install`"));
    }
    let columns = columns(connection, &watch.table).map_err(told)?;
    let key = watch.key_of(&columns)?;
    let Watch { table, resource, .. } = watch;
    let told = |row: &str| row_told(watch, &columns, row);
    let aggregate = |row: &str| aggregate(resource, &key, row);
    let tell = |action: &str, row: &str, data: &str| {
        format!(
            "  INSERT INTO tidings_outbox (event_type, aggregate_id, data)\n  VALUES ({}, {}, {data});\n",
            literal(&format!("{resource}.{action}")),
            aggregate(row)
        )
    };
    let trigger = |name: &str, event: &str, when: &str, body: &str| {
        format!(
            "CREATE TRIGGER {} AFTER {event} ON {}{when} BEGIN\n{body}END;\n",
            trigger_of(table, name),
            quoted(table)
        )
    };
    let (was, now) = (told("OLD"), told("NEW"));
    let same = format!(" WHEN {} IS {}\n  AND {was} IS NOT {now}", aggregate("OLD"), aggregate("NEW"));
    let rekeyed = format!(" WHEN {} IS NOT {}", aggregate("OLD"), aggregate("NEW"));
    let both = format!("'{{\"before\":' || {was} || ',\"after\":' || {now} || '}}'");
    let moved = tell("deleted", "OLD", &was) + &tell("created", "NEW", &now);
    Ok([
        unwatch_script(table),
        trigger("insert", "INSERT", "", &tell("created", "NEW", &now)),
        trigger("update", "UPDATE", &same, &tell("updated", "NEW", &both)),
        trigger("rekey", "UPDATE", &rekeyed, &moved),
        trigger("delete", "DELETE", "", &tell("deleted", "OLD", &was)),
    ]
    .concat())
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<Column>, rusqlite::Error> {
    // 1 are those that a virtual table hides; generated ones have 2 and 3.
    let mut statement =
        connection.prepare("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid")?;
    let found = statement.query_map([table], |row| Ok(Column { name: row.get(0)?, in_key: row.get(1)? }))?;
    found.collect()
}

/// A row as text of JSON. Blobs become hexadecimal digits: JSON has none.
fn row_told(watch: &Watch, columns: &[Column], row: &str) -> String {
    let told = columns.iter().filter(|column| watch.tells(&column.name));
    let members: Vec<_> = told
        .map(|column| {
            let value = format!("{row}.{}", quoted(&column.name));
            let name = literal(&format!("{}:", Value::from(column.name.as_str())));
            format!("{name} || json_quote(CASE typeof({value}) WHEN 'blob' THEN lower(hex({value})) ELSE {value} END)")
        })
        .collect();
    format!("('{{' || {} || '}}')", if members.is_empty() { "''".to_owned() } else { members.join(" || ',' || ") })
}

fn aggregate(resource: &str, key: &[String], row: &str) -> String {
    let parts = key.iter().map(|name| format!(" || '_' || {row}.{}", quoted(name)));
    format!("({}{})", literal(resource), parts.collect::<String>())
}

fn trigger_of(table: &str, name: &str) -> String {
    quoted(&format!("{PREFIX}{table}_{name}"))
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
