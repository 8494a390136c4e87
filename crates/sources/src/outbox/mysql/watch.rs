//! Triggers that tell of changes to tables.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use sha2::{Digest as _, Sha256};

use super::install::there;
use super::session::{connect, within};
use crate::outbox::ReadError;
use crate::outbox::watch::{Column, Watch, Watched, literal, resource_in};

/// What the names of triggers begin with; some of a digest of the table's name follows, for names are short here.
const PREFIX: &str = "tidings_watch_";
const TRIGGERS: [&str; 3] = ["insert", "update", "delete"];
/// A trigger keeps the mode that it was made in: backslashes mean themselves, and what is too long is cut and not refused.
const MODE: &str = "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'";

const COLUMNS: &str = "
SELECT c.column_name, coalesce(k.ordinal_position, 0), c.data_type, c.column_type,
       coalesce(c.datetime_precision, 0)
FROM information_schema.columns c LEFT JOIN information_schema.key_column_usage k
  ON k.constraint_name = 'PRIMARY' AND k.table_schema = c.table_schema AND k.table_name = c.table_name
  AND k.column_name = c.column_name
WHERE c.table_schema = database() AND c.table_name = ? ORDER BY c.ordinal_position";

const WATCHED: &str = "
SELECT event_object_table, action_statement FROM information_schema.triggers
WHERE trigger_schema = database() AND trigger_name LIKE 'tidings\\_watch\\_%\\_insert' ORDER BY 1";

/// A column, and what makes text of JSON of its values.
struct Typed {
    column: Column,
    /// With `{}` for the value.
    shown: &'static str,
}

/// The SQL that watches a table. Needs the database, for it looks the columns up.
pub async fn script(opts: &Opts, watch: &Watch) -> Result<String, ReadError> {
    let statements = sql(&mut connect(opts).await?, watch).await?;
    Ok(delimited(&statements))
}

/// Watches a table, or watches it otherwise than before.
pub async fn watch(opts: &Opts, watch: &Watch) -> Result<(), ReadError> {
    let mut connection = connect(opts).await?;
    for statement in sql(&mut connection, watch).await? {
        within(connection.query_drop(statement)).await?;
    }
    Ok(())
}

/// Watches a table no more; whether it was watched.
pub async fn unwatch(opts: &Opts, table: &str) -> Result<bool, ReadError> {
    let mut connection = connect(opts).await?;
    let was = watched_in(&mut connection).await?.iter().any(|watched| watched.table == table);
    for statement in drops(table) {
        within(connection.query_drop(statement)).await?;
    }
    Ok(was)
}

/// The SQL that watches a table no more.
pub fn unwatch_script(table: &str) -> String {
    delimited(&drops(table))
}

/// The tables that are watched.
pub async fn watched(opts: &Opts) -> Result<Vec<Watched>, ReadError> {
    watched_in(&mut connect(opts).await?).await
}

async fn watched_in(connection: &mut Conn) -> Result<Vec<Watched>, ReadError> {
    let found: Vec<(String, String)> = within(connection.query(WATCHED)).await?;
    Ok(found.into_iter().map(|(table, sql)| Watched { table, resource: resource_in(&sql) }).collect())
}

async fn sql(connection: &mut Conn, watch: &Watch) -> Result<Vec<String>, ReadError> {
    there(connection).await?;
    let found: Vec<(String, i64, String, String, u64)> = within(connection.exec(COLUMNS, (&watch.table,))).await?;
    let typed: Vec<_> = found
        .into_iter()
        .map(|(name, in_key, kind, whole, precision)| Typed {
            column: Column { name, in_key },
            shown: shown(&kind, &whole, precision > 0),
        })
        .collect();
    let columns: Vec<_> = typed.iter().map(|typed| typed.column.clone()).collect();
    let key = watch.key_of(&columns)?;
    let table = quoted(&watch.table);
    let (was, now) = (row_told(watch, &typed, "OLD"), row_told(watch, &typed, "NEW"));
    let (was_key, now_key) = (aggregate(watch, &key, "OLD"), aggregate(watch, &key, "NEW"));
    let tell = |action: &str, key: &str, data: &str| {
        let event_type = literal(&format!("{}.{action}", watch.resource));
        format!("INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ({event_type}, {key}, {data});")
    };
    let trigger = |name: &str, body: &str| {
        format!("CREATE TRIGGER {} AFTER {name} ON {table} FOR EACH ROW {body}", trigger_of(&watch.table, name))
    };
    // Texts that differ in case only are different here, whatever their collation says.
    let update = format!(
        "BEGIN
  DECLARE tidings_was, tidings_now LONGTEXT CHARACTER SET utf8mb4;
  DECLARE tidings_was_key, tidings_now_key TEXT CHARACTER SET utf8mb4;
  SET tidings_was = {was}, tidings_now = {now}, tidings_was_key = {was_key}, tidings_now_key = {now_key};
  IF NOT CAST(tidings_was_key AS BINARY) <=> CAST(tidings_now_key AS BINARY) THEN
    {}
    {}
  ELSEIF CAST(tidings_was AS BINARY) <> CAST(tidings_now AS BINARY) THEN
    {}
  END IF;
END",
        tell("deleted", "tidings_was_key", "tidings_was"),
        tell("created", "tidings_now_key", "tidings_now"),
        tell("updated", "tidings_now_key", "concat('{\"before\":', tidings_was, ',\"after\":', tidings_now, '}')"),
    );
    let mut statements = vec![MODE.to_owned()];
    statements.extend(drops(&watch.table));
    statements.push(trigger("insert", tell("created", &now_key, &now).trim_end_matches(';')));
    statements.push(trigger("update", &update));
    statements.push(trigger("delete", tell("deleted", &was_key, &was).trim_end_matches(';')));
    Ok(statements)
}

/// What makes a value fit for JSON: numbers stay numbers, what is binary becomes hexadecimal digits, a TIMESTAMP is a moment
/// in UTC, a DATETIME has no zone.
fn shown(kind: &str, whole: &str, fraction: bool) -> &'static str {
    match kind {
        "timestamp" if fraction => {
            "date_format('1970-01-01' + INTERVAL unix_timestamp({}) SECOND, '%Y-%m-%dT%H:%i:%s.%fZ')"
        }
        "timestamp" => "date_format('1970-01-01' + INTERVAL unix_timestamp({}) SECOND, '%Y-%m-%dT%H:%i:%sZ')",
        "datetime" if fraction => "date_format({}, '%Y-%m-%dT%H:%i:%s.%f')",
        "datetime" => "date_format({}, '%Y-%m-%dT%H:%i:%s')",
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector" => "lower(hex({}))",
        "bit" => "{} + 0",
        "point" | "linestring" | "polygon" | "geometry" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => "st_astext({})",
        "json" => "json_extract({}, '$')",
        _ if whole.contains("zerofill") => "{} + 0",
        _ => "{}",
    }
}

fn row_told(watch: &Watch, columns: &[Typed], row: &str) -> String {
    let told = columns.iter().filter(|typed| watch.tells(&typed.column.name));
    let members: Vec<_> = told
        .map(|Typed { column, shown }| {
            let value = shown.replace("{}", &format!("{row}.{}", quoted(&column.name)));
            format!("{}, {value}", literal(&column.name))
        })
        .collect();
    format!("json_object({})", members.join(", "))
}

fn aggregate(watch: &Watch, key: &[String], row: &str) -> String {
    let parts = key.iter().map(|name| format!(", '_', {row}.{}", quoted(name)));
    format!("concat({}{})", literal(&watch.resource), parts.collect::<String>())
}

fn drops(table: &str) -> Vec<String> {
    TRIGGERS.iter().map(|trigger| format!("DROP TRIGGER IF EXISTS {}", trigger_of(table, trigger))).collect()
}

/// As the command line client takes statements that hold semicolons.
fn delimited(statements: &[String]) -> String {
    format!("DELIMITER $$\n{}$$\nDELIMITER ;\n", statements.join("$$\n"))
}

fn trigger_of(table: &str, name: &str) -> String {
    let digest = Sha256::digest(table.as_bytes());
    let some = digest[..6].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    quoted(&format!("{PREFIX}{some:012x}_{name}"))
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
