//! `tidings outbox`: makes an outbox in an application's database, and takes it away.

mod mysql;
mod quarantine;
mod slot;
mod sqlite;
mod watch;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_sources::outbox::postgres::{self, install, replication};

use super::OK;
use super::client::block_on;
use crate::config::Mode;

/// What `--url` takes.
const URL: &str =
    "URL of the database, postgres://, mysql:// or sqlite://; its password may stand in PGPASSWORD or MYSQL_PWD";

#[derive(Args)]
pub(crate) struct OutboxArguments {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Subcommand)]
enum OutboxCommand {
    /// Make the outbox; again: only give rights and what --wake and --mode make
    #[command(after_help = "Examples:
  tidings outbox install --url postgres://owner@localhost/shop --role shop --reader tidings
  tidings outbox install --url sqlite:///var/lib/shop/app.db
  tidings outbox install --url mysql://root@localhost/shop --role shop --reader tidings
  tidings outbox install --role shop --reader tidings --print
  tidings outbox install --url postgres://owner@localhost/shop --mode replication")]
    Install(InstallArguments),
    /// Take the outbox away again
    #[command(after_help = "Example: tidings outbox uninstall --url postgres://owner@localhost/shop")]
    Uninstall(UninstallArguments),
    /// Show how the outbox stands
    #[command(after_help = "Example: tidings outbox status --url postgres://tidings@localhost/shop")]
    Status(StatusArguments),
    /// Have triggers tell of changes to a table, for applications that cannot be changed
    #[command(after_help = "Examples:
  tidings outbox watch-table orders --resource order --url postgres://owner@localhost/shop
  tidings outbox watch-table users --resource user --except password_hash --url sqlite:///var/lib/shop/app.db
  tidings outbox watch-table lines --resource order --key order_id --print --url mysql://root@localhost/shop")]
    WatchTable(watch::WatchArguments),
    /// Take those triggers away again
    #[command(after_help = "Example: tidings outbox unwatch-table orders --url postgres://owner@localhost/shop")]
    UnwatchTable(watch::UnwatchArguments),
    /// See rows that have not become events, try them again, or give them up; asks a running server
    Quarantine(quarantine::QuarantineArguments),
}

#[derive(Args)]
struct InstallArguments {
    #[arg(long, help = URL, env = "TIDINGS_OUTBOX_URL", hide_env_values = true, required_unless_present = "print")]
    url: Option<String>,
    /// Role, or account of MySQL as in shop@localhost, of an application, which may then emit; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Role or account that Tidings connects as, which may then read the outbox
    #[arg(long, value_name = "ROLE")]
    reader: Option<String>,
    /// Have PostgreSQL wake Tidings when an event is committed, instead of waiting to be asked; again: in an outbox that is
    /// there
    #[arg(long)]
    wake: bool,
    /// How PostgreSQL is read: replication makes a publication and a slot, polling takes them away again
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Print the SQL and change nothing
    #[arg(long)]
    print: bool,
}

impl InstallArguments {
    fn roles(&self) -> install::Roles {
        install::Roles { producers: self.roles.clone(), reader: self.reader.clone() }
    }

    /// What only PostgreSQL has.
    fn only_common(&self) -> Result<()> {
        if self.wake {
            bail!("--wake: only PostgreSQL can wake its reader; leave it out");
        }
        if self.mode == Some(Mode::Replication) {
            bail!("--mode replication: only for PostgreSQL; leave it out");
        }
        Ok(())
    }
}

#[derive(Args)]
struct UninstallArguments {
    #[arg(long, help = URL, env = "TIDINGS_OUTBOX_URL", hide_env_values = true, required_unless_present = "print")]
    url: Option<String>,
    /// Also if rows in it were not relayed
    #[arg(long)]
    lose_rows: bool,
    /// Print the SQL and change nothing
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct StatusArguments {
    #[arg(long, help = URL, env = "TIDINGS_OUTBOX_URL", hide_env_values = true)]
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &OutboxArguments) -> Result<u8> {
    match &arguments.command {
        OutboxCommand::Install(arguments) => install(arguments),
        OutboxCommand::Uninstall(arguments) => uninstall(arguments),
        OutboxCommand::Status(arguments) => status(arguments),
        OutboxCommand::WatchTable(arguments) => watch::watch(arguments),
        OutboxCommand::UnwatchTable(arguments) => watch::unwatch(arguments),
        OutboxCommand::Quarantine(arguments) => quarantine::run(arguments),
    }
}

fn install(arguments: &InstallArguments) -> Result<u8> {
    if let Some(url) = arguments.url.as_deref().filter(|url| sqlite::is_meant(url)) {
        arguments.only_common()?;
        return sqlite::install(url, arguments);
    }
    if let Some(url) = arguments.url.as_deref().filter(|url| mysql::is_meant(url)) {
        arguments.only_common()?;
        return mysql::install(url, arguments);
    }
    let wanted = install::Wanted { roles: arguments.roles(), wake: arguments.wake };
    let Some(url) = arguments.url.as_deref().filter(|_| !arguments.print) else {
        print!("{}", install::script(&wanted));
        if let Some(mode) = arguments.mode {
            slot::print(mode);
        }
        return Ok(OK);
    };
    let config = config(url)?;
    let made = block_on(async { Ok(install::install(&config, &wanted).await?) })?;
    println!(
        "{}",
        if made { "The outbox is made: schema tidings." } else { "The outbox was there; rights were given." }
    );
    if let Some(mode) = arguments.mode {
        slot::apply(&config, mode)?;
    }
    Ok(OK)
}

fn uninstall(arguments: &UninstallArguments) -> Result<u8> {
    if let Some(url) = arguments.url.as_deref().filter(|url| sqlite::is_meant(url)) {
        return sqlite::uninstall(url, arguments);
    }
    if let Some(url) = arguments.url.as_deref().filter(|url| mysql::is_meant(url)) {
        return mysql::uninstall(url, arguments);
    }
    let Some(url) = arguments.url.as_deref().filter(|_| !arguments.print) else {
        print!("{}", install::UNINSTALL);
        slot::print(Mode::Polling);
        return Ok(OK);
    };
    let config = config(url)?;
    block_on(async {
        install::uninstall(&config, arguments.lose_rows).await?;
        let gone = replication::slot::remove(&config).await;
        gone.context(
            "the outbox is gone, its slot and publication may be there: drop them with SQL, as --print shows",
        )?;
        Ok(())
    })?;
    println!("The outbox is gone.");
    Ok(OK)
}

fn status(arguments: &StatusArguments) -> Result<u8> {
    if sqlite::is_meant(&arguments.url) {
        return sqlite::status(arguments);
    }
    if mysql::is_meant(&arguments.url) {
        return mysql::status(arguments);
    }
    let config = config(&arguments.url)?;
    let (status, slot) =
        block_on(async { Ok((install::status(&config).await?, replication::slot::status(&config).await?)) })?;
    let watched = watch::watched(&arguments.url)?;
    let told = json!({
        "layout": status.layout,
        "install": status.install,
        "reader": status.reader,
        "waiting": status.waiting,
        "oldestSeconds": status.oldest_seconds,
        "bytes": status.bytes,
        "halfSeconds": status.half_seconds,
        "longestTransactionSeconds": status.longest_transaction_seconds,
        "watched": watch::told(&watched),
        "slot": slot.as_ref().map(slot::told),
    });
    if arguments.json {
        println!("{told}");
        return Ok(OK);
    }
    println!("layout               {}", status.layout);
    println!("read by              {}", status.reader.as_deref().unwrap_or("nobody yet"));
    println!("waiting              {}", status.waiting);
    println!("oldest of them       {}", seconds(status.oldest_seconds));
    println!("size                 {} bytes", status.bytes);
    println!("longest transaction  {}", seconds(status.longest_transaction_seconds));
    if let Some(slot) = &slot {
        slot::show(slot);
    }
    watch::print(&watched);
    Ok(OK)
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s"))
}

fn config(url: &str) -> Result<tidings_sources::outbox::postgres::Config> {
    // Both as psql takes them; a password in the URL wins.
    let password = std::env::var("PGPASSWORD").ok().filter(|_| !has_password(url));
    let authorities = std::env::var_os("PGSSLROOTCERT").filter(|_| url.contains("sslmode=verify-full"));
    let authorities = authorities.map(std::fs::read).transpose().context("PGSSLROOTCERT: cannot read that file")?;
    postgres::config(url, password.as_deref(), authorities.as_deref()).map_err(|error| anyhow!("--url: {error}"))
}

fn has_password(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.password().is_some())
}
