//! `tidings outbox quarantine`: rows that have not become events.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::table::{Ask, escape};
use super::super::{FAILED, OK};
use super::block_on;

#[derive(Args)]
pub(super) struct QuarantineArguments {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Subcommand)]
enum QuarantineCommand {
    /// List rows, by source and number
    #[command(after_help = "Example: tidings outbox quarantine list --source shop")]
    List(ListArguments),
    /// Show one whole
    #[command(after_help = "Example: tidings outbox quarantine show shop.00000000000000000042-1f2e3d4c")]
    Show(ShowArguments),
    /// Try rows again, in order; those that wait behind them follow
    #[command(
        visible_alias = "retry",
        after_help = "Examples:
  tidings outbox quarantine replay shop.00000000000000000042-1f2e3d4c
  tidings outbox quarantine replay shop.00000000000000000042-1f2e3d4c --event '{\"eventType\":\"order.paid\",\"data\":1}'
  tidings outbox quarantine replay --all --source shop"
    )]
    Replay(ReplayArguments),
    /// Give rows up for good, with a reason; those that wait behind them follow
    #[command(
        after_help = "Example: tidings outbox quarantine discard shop.00000000000000000042-1f2e3d4c --reason 'a test'"
    )]
    Discard(DiscardArguments),
}

#[derive(Args)]
struct ListArguments {
    /// Of this outbox
    #[arg(long)]
    source: Option<String>,
    /// How many at the most
    #[arg(long, default_value_t = 250)]
    limit: usize,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct ShowArguments {
    /// Id of the row in quarantine
    id: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct ReplayArguments {
    /// Ids of rows in quarantine
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
    /// All that were rejected
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Of this outbox
    #[arg(long, requires = "all")]
    source: Option<String>,
    /// An event to take in place of the row, as it is published
    #[arg(long, value_name = "JSON", conflicts_with = "all")]
    event: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct DiscardArguments {
    /// Ids of rows in quarantine
    #[arg(required = true)]
    ids: Vec<String>,
    /// Why
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    ask: Ask,
}

pub(super) fn run(arguments: &QuarantineArguments) -> Result<u8> {
    block_on(async {
        match &arguments.command {
            QuarantineCommand::List(arguments) => list(arguments).await,
            QuarantineCommand::Show(ShowArguments { id, ask }) => {
                let shown = ask.once(Method::GET, &format!("/quarantine/{}", escape(id)), None).await?;
                ask.print(&shown);
                Ok(OK)
            }
            QuarantineCommand::Replay(arguments) => replay(arguments).await,
            QuarantineCommand::Discard(DiscardArguments { ids, reason, ask }) => {
                each(ask, ids, "discard", &json!({ "reason": reason }).to_string()).await
            }
        }
    })
}

async fn found(ask: &Ask, source: Option<&str>, count: usize) -> Result<Vec<Value>> {
    let query = source.map(|source| format!("?source={}", escape(source))).unwrap_or_default();
    ask.list(&format!("/quarantine{query}"), count).await
}

async fn list(arguments: &ListArguments) -> Result<u8> {
    let ask = &arguments.ask;
    let mut rows = found(ask, arguments.source.as_deref(), arguments.limit).await?;
    if !ask.json {
        for row in &mut rows {
            let fault = &row["faults"][0];
            let (pointer, message) = (fault["pointer"].as_str(), fault["message"].as_str());
            row["faults"] = pointer.zip(message).map(|(pointer, message)| format!("{pointer}: {message}")).into();
        }
    }
    let members = [("id", 44), ("at", 24), ("state", 8), ("eventType", 24), ("aggregateId", 24), ("faults", 0)];
    ask.print_all(&rows, &members);
    Ok(OK)
}

async fn replay(arguments: &ReplayArguments) -> Result<u8> {
    let ReplayArguments { ids, all, source, event, ask } = arguments;
    let body = match event {
        // Passed on as it is: numbers are never rewritten.
        Some(event) => {
            if ids.len() > 1 {
                bail!("--event takes the place of one row: name one");
            }
            let event: Box<RawValue> = serde_json::from_str(event).context("--event is not JSON")?;
            format!("{{\"event\":{event}}}")
        }
        None => String::new(),
    };
    if !all {
        return each(ask, ids, "replay", &body).await;
    }
    let rows = found(ask, source.as_deref(), usize::MAX).await?;
    let rejected = rows.iter().filter(|row| row["state"] == "rejected");
    let ids: Vec<_> = rejected.filter_map(|row| row["id"].as_str().map(str::to_owned)).collect();
    each(ask, &ids, "replay", &body).await
}

/// One after the other: what is refused does not keep the others from it.
async fn each(ask: &Ask, ids: &[String], action: &str, body: &str) -> Result<u8> {
    let mut code = OK;
    for id in ids {
        match ask.send(Method::POST, &format!("/quarantine/{}/{action}", escape(id)), body.to_owned()).await {
            Ok(answer) => ask.print(&answer),
            Err(error) => {
                eprintln!("{id}: {error:#}");
                code = FAILED;
            }
        }
    }
    Ok(code)
}
