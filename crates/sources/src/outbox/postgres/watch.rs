//! Triggers that tell of changes to tables.

use serde_json::json;
use tokio_postgres::Client;

use super::access::Config;
use super::install::there;
use super::session::{connect, told};
use crate::outbox::ReadError;
use crate::outbox::watch::{Column, Watch, Watched, itself, literal};

/// What all triggers call.
const FUNCTIONS: &str = include_str!("watch.sql");

/// Other writers wait while a trigger is made or taken away, but not for long.
const LOCK: &str = "SET LOCAL lock_timeout = '10s';";

const COLUMNS: &str = "
SELECT a.attname::text, coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0)::bigint
FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Its name, quoted as far as it has to be, and with its schema.
const NAME: &str = "
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)";

/// Tables are called as the session would call them. Triggers of partitions come with those of their table.
const WATCHED: &str = "
SELECT t.tgrelid::regclass::text, t.tgargs FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'tidings' AND p.proname = 'watched' AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY 1";

/// The SQL that watches a table. Needs the database, for it looks the columns up.
pub async fn script(config: &Config, watch: &Watch) -> Result<String, ReadError> {
    sql(&connect(config).await?, watch).await
}

/// Watches a table, or watches it otherwise than before.
pub async fn watch(config: &Config, watch: &Watch) -> Result<(), ReadError> {
    let client = connect(config).await?;
    let sql = sql(&client, watch).await?;
    client.batch_execute(&sql).await.map_err(|error| told(&error))
}

/// Watches a table no more; whether it was watched.
pub async fn unwatch(config: &Config, table: &str) -> Result<bool, ReadError> {
    let client = connect(config).await?;
    let name = name(&client, table).await?;
    let was = watched_in(&client).await?;
    client
        .batch_execute(&format!("BEGIN;\n{LOCK}\n{}COMMIT;\n", drop_of(&name)))
        .await
        .map_err(|error| told(&error))?;
    Ok(was.len() > watched_in(&client).await?.len())
}

/// The SQL that watches a table no more.
pub async fn unwatch_script(config: &Config, table: &str) -> Result<String, ReadError> {
    Ok(drop_of(&name(&connect(config).await?, table).await?))
}

/// The tables that are watched.
pub async fn watched(config: &Config) -> Result<Vec<Watched>, ReadError> {
    watched_in(&connect(config).await?).await
}

async fn watched_in(client: &Client) -> Result<Vec<Watched>, ReadError> {
    let found = client.query(WATCHED, &[]).await.map_err(|error| told(&error))?;
    let watched = found.iter().map(|row| {
        // Each argument ends with a zero.
        let resource = row.get::<_, &[u8]>(1).split(|byte| *byte == 0).next().unwrap_or_default();
        Watched { table: row.get(0), resource: String::from_utf8_lossy(resource).into_owned() }
    });
    Ok(watched.collect())
}

async fn name(client: &Client, table: &str) -> Result<String, ReadError> {
    let found = client.query_opt(NAME, &[&table]).await.map_err(|error| told(&error))?;
    found.map(|row| row.get(0)).ok_or_else(|| ReadError::Trouble(format!("there is no table {table} here")))
}

async fn sql(client: &Client, watch: &Watch) -> Result<String, ReadError> {
    if !there(client).await? {
        return Err(ReadError::Trouble("there is no outbox here: make one with `tidings outbox install`".to_owned()));
    }
    let name = name(client, &watch.table).await?;
    if name.starts_with("tidings.") {
        return Err(ReadError::Trouble(itself(&watch.table)));
    }
    let found = client.query(COLUMNS, &[&watch.table]).await.map_err(|error| told(&error))?;
    let columns: Vec<_> = found.iter().map(|row| Column { name: row.get(0), in_key: row.get(1) }).collect();
    let key = watch.key_of(&columns)?;
    let arguments =
        [watch.resource.clone(), json!(key).to_string(), json!(watch.except).to_string()].map(|text| constant(&text));
    Ok(format!(
        "BEGIN;\n{LOCK}\n{FUNCTIONS}\n{}CREATE TRIGGER tidings_watch AFTER INSERT OR UPDATE OR DELETE ON {name}\n  \
         FOR EACH ROW EXECUTE FUNCTION tidings.watched({});\nCOMMIT;\n",
        drop_of(&name),
        arguments.join(", ")
    ))
}

fn drop_of(name: &str) -> String {
    format!("DROP TRIGGER IF EXISTS tidings_watch ON {name};\n")
}

/// A text as this database takes it, whatever its settings say of backslashes.
fn constant(text: &str) -> String {
    if text.contains('\\') { format!("E{}", literal(&text.replace('\\', "\\\\"))) } else { literal(text) }
}
