//! `tidings replay`: events of the past, sent to a webhook again.

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::OK;
use super::client::block_on;
use super::table::{Ask, escape};
use super::webhooks::place;

#[derive(Args)]
#[command(after_help = "Examples:
  tidings replay wh_01… --from earliest --dry-run
  tidings replay wh_01… --from 2026-11-22T00:00:00Z --types 'order.*' --only all
  tidings replay wh_01… --event order-7
  tidings replay wh_01… --list
  tidings replay wh_01… --cancel rp_01…")]
pub(crate) struct ReplayArguments {
    /// Id of the webhook, wh_…
    webhook: String,
    /// Ids of events, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "ID", conflicts_with_all = ["from", "to"])]
    event: Vec<String>,
    /// After which event to begin: earliest, an offset, or a time
    #[arg(long)]
    from: Option<String>,
    /// Through which event: latest, an offset, or a time
    #[arg(long)]
    to: Option<String>,
    /// Types, separated by commas, as in order.*,invoice.paid
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// undelivered (what was given up or skipped) or all
    #[arg(long)]
    only: Option<String>,
    /// How fast, as in 50/s
    #[arg(long)]
    rate: Option<String>,
    /// Only tell how many events that would be
    #[arg(long)]
    dry_run: bool,
    /// List replays that are under way
    #[arg(long, conflicts_with_all = ["event", "from", "cancel"])]
    list: bool,
    /// Cancel a replay by its id
    #[arg(long, value_name = "REPLAY", conflicts_with_all = ["event", "from"])]
    cancel: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

pub(crate) fn run(arguments: &ReplayArguments) -> Result<u8> {
    let (webhook, ask) = (format!("/webhooks/{}", escape(&arguments.webhook)), &arguments.ask);
    block_on(async {
        if arguments.list {
            let found = ask.list(&format!("{webhook}/replays"), usize::MAX).await?;
            ask.print_all(&found, &[("id", 36), ("createdAt", 24), ("position", 8), ("to", 8), ("sent", 0)]);
            return Ok(OK);
        }
        let answer = match &arguments.cancel {
            Some(id) => ask.once(Method::DELETE, &format!("{webhook}/replays/{}", escape(id)), None).await?,
            None => ask.once(Method::POST, &format!("{webhook}/replay"), Some(&wanted(arguments)?)).await?,
        };
        ask.print(&answer);
        Ok(OK)
    })
}

fn wanted(arguments: &ReplayArguments) -> Result<Value> {
    if arguments.event.is_empty() && arguments.from.is_none() {
        bail!("--from: say after which event to begin, or name events with --event");
    }
    let mut body = Map::new();
    body.insert("dryRun".to_owned(), arguments.dry_run.into());
    for (name, value) in [("from", &arguments.from), ("to", &arguments.to)] {
        body.extend(value.iter().map(|value| (name.to_owned(), place(value))));
    }
    for (name, value) in [("only", &arguments.only), ("rate", &arguments.rate)] {
        body.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
    }
    for (name, values) in [("eventIds", &arguments.event), ("eventTypes", &arguments.types)] {
        if !values.is_empty() {
            body.insert(name.to_owned(), json!(values));
        }
    }
    Ok(body.into())
}
