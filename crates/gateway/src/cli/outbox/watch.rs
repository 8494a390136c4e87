//! `tidings outbox watch-table`: triggers that tell of changes to a table.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::{Value, json};
use tidings_sources::outbox::watch::{Watch, Watched};
use tidings_sources::outbox::{mysql, postgres, sqlite};

use super::{OK, URL, block_on};

#[derive(Args)]
pub(super) struct WatchArguments {
    /// The table, as its database calls it
    table: String,
    /// What a row is, as in order: it tells order.created, order.updated and order.deleted
    #[arg(long)]
    resource: String,
    /// Columns that tell rows apart, separated by commas [default: the primary key]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    key: Vec<String>,
    /// Columns that are not told, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    except: Vec<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(super) struct UnwatchArguments {
    /// The table, as its database calls it
    table: String,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
struct At {
    #[arg(long, help = URL, env = "TIDINGS_OUTBOX_URL", hide_env_values = true)]
    url: String,
    /// Print the SQL and change nothing; the columns are looked up all the same
    #[arg(long)]
    print: bool,
}

/// A database with an outbox.
enum Place {
    Postgres(Box<postgres::Config>),
    Sqlite(PathBuf),
    MySql(mysql::Opts),
}

impl Place {
    fn parse(url: &str) -> Result<Self> {
        Ok(if super::sqlite::is_meant(url) {
            Self::Sqlite(super::sqlite::path(url)?)
        } else if super::mysql::is_meant(url) {
            Self::MySql(super::mysql::opts(url)?)
        } else {
            Self::Postgres(Box::new(super::config(url)?))
        })
    }
}

pub(super) fn watch(arguments: &WatchArguments) -> Result<u8> {
    let WatchArguments { table, resource, key, except, at } = arguments;
    let watch =
        Watch::new(table.clone(), resource.clone(), key.clone(), except.clone()).map_err(|text| anyhow!(text))?;
    let place = Place::parse(&at.url)?;
    if at.print {
        let script = match &place {
            Place::Postgres(config) => block_on(async { Ok(postgres::watch::script(config, &watch).await?) })?,
            Place::Sqlite(path) => sqlite::watch::script(path, &watch)?,
            Place::MySql(opts) => block_on(async { Ok(mysql::watch::script(opts, &watch).await?) })?,
        };
        print!("{script}");
        return Ok(OK);
    }
    match &place {
        Place::Postgres(config) => block_on(async { Ok(postgres::watch::watch(config, &watch).await?) })?,
        Place::Sqlite(path) => sqlite::watch::watch(path, &watch)?,
        Place::MySql(opts) => block_on(async { Ok(mysql::watch::watch(opts, &watch).await?) })?,
    }
    println!("Changes to {table} are told as {resource}.created, {resource}.updated and {resource}.deleted.");
    Ok(OK)
}

pub(super) fn unwatch(arguments: &UnwatchArguments) -> Result<u8> {
    let UnwatchArguments { table, at } = arguments;
    let place = Place::parse(&at.url)?;
    if at.print {
        let script = match &place {
            Place::Postgres(config) => block_on(async { Ok(postgres::watch::unwatch_script(config, table).await?) })?,
            Place::Sqlite(_) => sqlite::watch::unwatch_script(table),
            Place::MySql(_) => mysql::watch::unwatch_script(table),
        };
        print!("{script}");
        return Ok(OK);
    }
    let was = match &place {
        Place::Postgres(config) => block_on(async { Ok(postgres::watch::unwatch(config, table).await?) })?,
        Place::Sqlite(path) => sqlite::watch::unwatch(path, table)?,
        Place::MySql(opts) => block_on(async { Ok(mysql::watch::unwatch(opts, table).await?) })?,
    };
    println!("{}", if was { "Changes to it are told no more." } else { "It was not watched." });
    Ok(OK)
}

/// The tables that are watched.
pub(super) fn watched(url: &str) -> Result<Vec<Watched>> {
    Ok(match Place::parse(url)? {
        Place::Postgres(config) => block_on(async { Ok(postgres::watch::watched(&config).await?) })?,
        Place::Sqlite(path) => sqlite::watch::watched(&path)?,
        Place::MySql(opts) => block_on(async { Ok(mysql::watch::watched(&opts).await?) })?,
    })
}

/// As `status --json` shows them.
pub(super) fn told(watched: &[Watched]) -> Vec<Value> {
    watched.iter().map(|Watched { table, resource }| json!({ "table": table, "resource": resource })).collect()
}

/// As `status` shows them.
pub(super) fn print(watched: &[Watched]) {
    for Watched { table, resource } in watched {
        println!("watches              {table} as {resource}");
    }
}
