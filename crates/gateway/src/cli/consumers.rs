//! `tidings consumers`: make, see, pause, move and remove the queues that workers fetch from.

use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::OK;
use super::client::block_on;
use super::table::{Ask, escape};
use super::webhooks::{object, place};

/// Consumers that are listed.
const LISTED_MAX: usize = 1_000;

#[derive(Args)]
pub(crate) struct ConsumersArguments {
    #[command(subcommand)]
    command: ConsumersCommand,
}

#[derive(Subcommand)]
enum ConsumersCommand {
    /// List all, with how far behind they are
    List(Ask),
    /// Show one
    Show(One),
    /// Make one, or give the one that is there these settings
    #[command(after_help = "Examples:
  tidings consumers put mailer --types 'order.*'
  tidings consumers put mailer --types 'order.*' --from earliest --with '{\"ackWait\": \"2m\"}'")]
    Put(PutArguments),
    /// Give nothing out until it is resumed; events wait
    Pause(One),
    /// End a pause
    Resume(One),
    /// Deliver everything after a place in the log (again)
    #[command(after_help = "Examples:
  tidings consumers seek mailer --from earliest
  tidings consumers seek mailer --from 2026-11-22T10:00:00Z")]
    Seek(SeekArguments),
    /// Remove one, with its dead letters
    Delete(One),
}

#[derive(Args)]
struct One {
    /// Its name
    name: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct PutArguments {
    #[command(flatten)]
    one: One,
    /// Types to get, separated by commas, as in order.*,invoice.paid
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Channels to get, separated by commas
    #[arg(long, value_delimiter = ',')]
    channels: Vec<String>,
    /// Where a new one begins: latest, earliest, an offset, or a time
    #[arg(long)]
    from: Option<String>,
    /// Other members, as a JSON object
    #[arg(long, value_name = "JSON")]
    with: Option<String>,
}

#[derive(Args)]
struct SeekArguments {
    #[command(flatten)]
    one: One,
    /// After which place: latest, earliest, an offset, or a time
    #[arg(long)]
    from: String,
}

pub(crate) fn run(arguments: &ConsumersArguments) -> Result<u8> {
    block_on(async {
        match &arguments.command {
            ConsumersCommand::List(ask) => {
                let found = ask.list("/consumers", LISTED_MAX).await?;
                let columns = [("name", 24), ("status", 8), ("lag", 8), ("inFlight", 6), ("deadLetters", 6)];
                ask.print_all(&found, &columns);
                Ok(OK)
            }
            ConsumersCommand::Show(one) => one.ask(Method::GET, "", None).await,
            ConsumersCommand::Put(arguments) => arguments.put().await,
            ConsumersCommand::Pause(one) => one.ask(Method::POST, "/pause", None).await,
            ConsumersCommand::Resume(one) => one.ask(Method::POST, "/resume", None).await,
            ConsumersCommand::Seek(arguments) => {
                let body = json!({ "from": place(&arguments.from) });
                arguments.one.ask(Method::POST, "/seek", Some(&body)).await
            }
            ConsumersCommand::Delete(one) => one.ask(Method::DELETE, "", None).await,
        }
    })
}

impl One {
    async fn ask(&self, method: Method, command: &str, body: Option<&Value>) -> Result<u8> {
        let path = format!("/consumers/{}{command}", escape(&self.name));
        let answer = self.ask.once(method, &path, body).await?;
        self.ask.print(&answer);
        Ok(OK)
    }
}

impl PutArguments {
    async fn put(&self) -> Result<u8> {
        let mut members = self.with.as_deref().map_or_else(|| Ok(Map::new()), object)?;
        for (name, values) in [("eventTypes", &self.types), ("channels", &self.channels)] {
            if !values.is_empty() {
                members.insert(name.to_owned(), values.clone().into());
            }
        }
        if let Some(from) = &self.from {
            members.insert("startFrom".to_owned(), place(from));
        }
        self.one.ask(Method::PUT, "", Some(&members.into())).await
    }
}
