//! `tidings outbox` on MySQL and MariaDB.

use anyhow::{Result, anyhow};
use serde_json::json;
use tidings_sources::outbox::mysql::{self, install};

use super::{InstallArguments, OK, StatusArguments, UninstallArguments, block_on, has_password, seconds, watch};

/// Whether a URL means one.
pub(super) fn is_meant(url: &str) -> bool {
    url.starts_with("mysql:") || url.starts_with("mariadb:")
}

pub(super) fn install(url: &str, arguments: &InstallArguments) -> Result<u8> {
    let roles = arguments.roles();
    if arguments.print {
        print!("{}", install::script(&roles));
        return Ok(OK);
    }
    let opts = opts(url)?;
    let made = block_on(async { Ok(install::install(&opts, &roles).await?) })?;
    println!(
        "{}",
        if made { "The outbox is made: table tidings_outbox." } else { "The outbox was there; rights were given." }
    );
    Ok(OK)
}

pub(super) fn uninstall(url: &str, arguments: &UninstallArguments) -> Result<u8> {
    if arguments.print {
        print!("{}", install::UNINSTALL);
        return Ok(OK);
    }
    let opts = opts(url)?;
    block_on(async { Ok(install::uninstall(&opts, arguments.lose_rows).await?) })?;
    println!("The outbox is gone.");
    Ok(OK)
}

pub(super) fn status(arguments: &StatusArguments) -> Result<u8> {
    let opts = opts(&arguments.url)?;
    let status = block_on(async { Ok(install::status(&opts).await?) })?;
    let watched = watch::watched(&arguments.url)?;
    if arguments.json {
        let told = json!({
            "reader": status.reader,
            "waiting": status.waiting,
            "oldestSeconds": status.oldest_seconds,
            "watched": watch::told(&watched),
        });
        println!("{told}");
        return Ok(OK);
    }
    println!("read by              {}", status.reader.as_deref().unwrap_or("nobody yet"));
    println!("waiting              {}", status.waiting);
    println!("oldest of them       {}", seconds(status.oldest_seconds));
    watch::print(&watched);
    Ok(OK)
}

pub(super) fn opts(url: &str) -> Result<mysql::Opts> {
    // As the clients of MySQL take it; what stands in the URL wins.
    let password = std::env::var("MYSQL_PWD").ok().filter(|_| !has_password(url));
    mysql::opts(url, password.as_deref()).map_err(|error| anyhow!("--url: {error}"))
}
