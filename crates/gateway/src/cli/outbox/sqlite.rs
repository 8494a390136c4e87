//! `tidings outbox` on a file of SQLite.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use tidings_sources::outbox::sqlite::{self, install};

use super::{InstallArguments, OK, StatusArguments, UninstallArguments, seconds, watch};

/// Whether a URL means one.
pub(super) fn is_meant(url: &str) -> bool {
    url.starts_with("sqlite:")
}

pub(super) fn install(url: &str, arguments: &InstallArguments) -> Result<u8> {
    if !arguments.roles.is_empty() || arguments.reader.is_some() {
        bail!("--role and --reader: SQLite has no roles; who may write the file may emit");
    }
    if arguments.print {
        print!("{}", install::script());
        return Ok(OK);
    }
    let made = install::install(&path(url)?)?;
    println!("{}", if made { "The outbox is made: table tidings_outbox." } else { "The outbox was there." });
    Ok(OK)
}

pub(super) fn uninstall(url: &str, arguments: &UninstallArguments) -> Result<u8> {
    if arguments.print {
        print!("{}", install::UNINSTALL);
        return Ok(OK);
    }
    install::uninstall(&path(url)?, arguments.lose_rows)?;
    println!("The outbox is gone.");
    Ok(OK)
}

pub(super) fn status(arguments: &StatusArguments) -> Result<u8> {
    let status = install::status(&path(&arguments.url)?)?;
    let watched = watch::watched(&arguments.url)?;
    if arguments.json {
        let told = json!({
            "reader": status.reader,
            "waiting": status.waiting,
            "oldestSeconds": status.oldest_seconds,
            "rows": status.rows,
            "watched": watch::told(&watched),
        });
        println!("{told}");
        return Ok(OK);
    }
    println!("read by              {}", status.reader.as_deref().unwrap_or("nobody yet"));
    println!("waiting              {}", status.waiting);
    println!("oldest of them       {}", seconds(status.oldest_seconds));
    println!("rows                 {}", status.rows);
    watch::print(&watched);
    Ok(OK)
}

pub(super) fn path(url: &str) -> Result<PathBuf> {
    sqlite::path(url).map_err(|error| anyhow!("--url: {error}"))
}
