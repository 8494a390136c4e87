//! `tidings dlq`: dead letters.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::OK;
use super::client::block_on;
use super::table::{Ask, escape};

#[derive(Args)]
pub(crate) struct DeadLettersArguments {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// List those that are open, the newest first
    #[command(after_help = "Example: tidings dlq list --webhook wh_01… --type order.created")]
    List(ListArguments),
    /// Show one with its event and every attempt
    Show(One),
    /// Send events again: of those named, or of all that match
    #[command(after_help = "Examples:
  tidings dlq replay dl_01…
  tidings dlq replay --webhook wh_01… --since 2026-11-22T00:00:00Z
  tidings dlq replay --all")]
    Replay(ManyArguments),
    /// Give up for good, with a reason
    #[command(after_help = "Example: tidings dlq discard dl_01… --reason 'sent by hand'")]
    Discard(DiscardArguments),
}

#[derive(Args)]
struct FilterArguments {
    /// Of this webhook
    #[arg(long)]
    webhook: Option<String>,
    /// Of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Given up then or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

#[derive(Args)]
struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How many at the most
    #[arg(long, default_value_t = 250)]
    limit: usize,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct One {
    /// Id of the dead letter, dl_…
    id: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct ManyArguments {
    /// Ids of dead letters, dl_…
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArguments,
    /// All of the tenant's
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct DiscardArguments {
    #[command(flatten)]
    many: ManyArguments,
    /// Why
    #[arg(long)]
    reason: String,
}

impl FilterArguments {
    fn members(&self) -> Vec<(&'static str, &str)> {
        let members = [("webhook", &self.webhook), ("type", &self.event_type), ("since", &self.since)];
        members.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

pub(crate) fn run(arguments: &DeadLettersArguments) -> Result<u8> {
    block_on(async {
        match &arguments.command {
            DeadLettersCommand::List(arguments) => list(arguments).await,
            DeadLettersCommand::Show(one) => {
                let shown = one.ask.once(Method::GET, &format!("/dead-letters/{}", escape(&one.id)), None).await?;
                one.ask.print(&shown);
                Ok(OK)
            }
            DeadLettersCommand::Replay(many) => many.send("/dead-letters/replay", None).await,
            DeadLettersCommand::Discard(arguments) => {
                arguments.many.send("/dead-letters/discard", Some(&arguments.reason)).await
            }
        }
    })
}

async fn list(arguments: &ListArguments) -> Result<u8> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(arguments.filter.members());
    let found = arguments.ask.list(&format!("/dead-letters?{}", query.finish()), arguments.limit).await?;
    let members = [
        ("id", 36),
        ("at", 24),
        ("webhook", 36),
        ("eventType", 24),
        ("eventId", 36),
        ("attemptCount", 3),
        ("reason", 0),
    ];
    arguments.ask.print_all(&found, &members);
    Ok(OK)
}

impl ManyArguments {
    /// Sends one request, which deals with thousands.
    async fn send(&self, path: &str, reason: Option<&str>) -> Result<u8> {
        let mut filter: Map<String, Value> =
            self.filter.members().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        if filter.is_empty() && self.ids.is_empty() && !self.all {
            bail!("name dead letters by id, by --webhook, --type and --since, or take --all");
        }
        if !self.ids.is_empty() {
            filter.insert("ids".to_owned(), self.ids.clone().into());
        }
        let mut body = json!({ "filter": filter });
        if let Some(reason) = reason {
            body["reason"] = reason.into();
        }
        let answer = self.ask.once(Method::POST, path, Some(&body)).await?;
        self.ask.print(&answer);
        if answer["more"] == true {
            eprintln!("There are more: run it again.");
        }
        Ok(OK)
    }
}
