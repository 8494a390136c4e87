//! `tidings webhooks`: make, see, change, test and remove webhooks.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use tidings_core::time::{format_duration, parse_duration};

use super::client::block_on;
use super::table::{Ask, escape};
use super::{FAILED, OK};

/// Webhooks that are listed.
const LISTED_MAX: usize = 10_000;

#[derive(Args)]
pub(crate) struct WebhooksArguments {
    #[command(subcommand)]
    command: WebhooksCommand,
}

#[derive(Subcommand)]
enum WebhooksCommand {
    /// List all, with how they stand
    List(Ask),
    /// Show one
    Show(One),
    /// Make one; its signing secret is shown
    #[command(after_help = "Examples:
  tidings webhooks create https://example.com/hooks --types 'order.*'
  tidings webhooks create https://example.com/hooks --header 'x-api-key: abc' --with '{\"deactivateAfter\": null}'")]
    Create(CreateArguments),
    /// Change what a JSON object names; null puts a member back to its default
    #[command(after_help = "Example: tidings webhooks update wh_01… '{\"timeout\": \"5s\"}'")]
    Update(UpdateArguments),
    /// Send nothing more until it is resumed; events wait
    Pause(One),
    /// End a pause
    Resume(One),
    /// End a deactivation, or a pause; go on where it stood, or elsewhere
    #[command(after_help = "Examples:
  tidings webhooks activate wh_01…
  tidings webhooks activate wh_01… --from latest")]
    Activate(ActivateArguments),
    /// Send a sample and print what the endpoint said; exit code 1 if it did not take it
    Test(One),
    /// Make another signing secret; the former one signs too for a while
    #[command(after_help = "Example: tidings webhooks rotate-secret wh_01… --overlap 48h")]
    RotateSecret(RotateArguments),
    /// Remove one
    Delete(One),
}

#[derive(Args)]
struct One {
    /// Id of the webhook, wh_…
    id: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct CreateArguments {
    /// Where events are sent
    to: String,
    /// Types to send, separated by commas, as in order.*,invoice.paid
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Channels to send, separated by commas
    #[arg(long, value_delimiter = ',')]
    channels: Vec<String>,
    /// A header to send along, as in 'x-api-key: abc'; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Whom to tell when it fails: https://… or mailto:…; may be repeated
    #[arg(long)]
    notify: Vec<String>,
    /// Where to begin: latest, earliest, an offset, or a time
    #[arg(long)]
    from: Option<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Other members, as a JSON object
    #[arg(long, value_name = "JSON")]
    with: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
struct UpdateArguments {
    #[command(flatten)]
    one: One,
    /// The members to change, as a JSON object
    #[arg(value_name = "JSON")]
    members: String,
}

#[derive(Args)]
struct ActivateArguments {
    #[command(flatten)]
    one: One,
    /// Where to go on: cursor (where it stood), latest, earliest, an offset, or a time
    #[arg(long, default_value = "cursor")]
    from: String,
}

#[derive(Args)]
struct RotateArguments {
    #[command(flatten)]
    one: One,
    /// How long the former secret signs too
    #[arg(long, value_parser = parse_duration, default_value = "24h")]
    overlap: Duration,
}

pub(crate) fn run(arguments: &WebhooksArguments) -> Result<u8> {
    block_on(async {
        match &arguments.command {
            WebhooksCommand::List(ask) => {
                let found = ask.list("/webhooks", LISTED_MAX).await?;
                ask.print_all(&found, &[("id", 36), ("status", 12), ("lag", 8), ("deadLetters", 6), ("url", 0)]);
                Ok(OK)
            }
            WebhooksCommand::Show(one) => one.ask(Method::GET, "", None).await,
            WebhooksCommand::Create(arguments) => create(arguments).await,
            WebhooksCommand::Update(arguments) => {
                let members = object(&arguments.members).context("the second argument")?;
                arguments.one.ask(Method::PATCH, "", Some(&members.into())).await
            }
            WebhooksCommand::Pause(one) => one.ask(Method::POST, "/pause", None).await,
            WebhooksCommand::Resume(one) => one.ask(Method::POST, "/resume", None).await,
            WebhooksCommand::Activate(arguments) => {
                let body = json!({ "from": place(&arguments.from) });
                arguments.one.ask(Method::POST, "/activate", Some(&body)).await
            }
            WebhooksCommand::Test(one) => test(one).await,
            WebhooksCommand::RotateSecret(arguments) => {
                let body = json!({ "overlap": format_duration(arguments.overlap) });
                arguments.one.ask(Method::POST, "/rotate-secret", Some(&body)).await
            }
            WebhooksCommand::Delete(one) => one.ask(Method::DELETE, "", None).await,
        }
    })
}

impl One {
    async fn ask(&self, method: Method, command: &str, body: Option<&Value>) -> Result<u8> {
        let path = format!("/webhooks/{}{command}", escape(&self.id));
        let answer = self.ask.once(method, &path, body).await?;
        self.ask.print(&answer);
        Ok(OK)
    }
}

async fn create(arguments: &CreateArguments) -> Result<u8> {
    let mut members = match &arguments.with {
        None => Map::new(),
        Some(text) => object(text).context("--with")?,
    };
    let mut told = vec![("url", arguments.to.clone().into())];
    for (name, values) in
        [("eventTypes", &arguments.types), ("channels", &arguments.channels), ("notify", &arguments.notify)]
    {
        if !values.is_empty() {
            told.push((name, values.clone().into()));
        }
    }
    if !arguments.header.is_empty() {
        let headers: Result<Map<_, _>> = arguments.header.iter().map(|header| name_and_value(header)).collect();
        told.push(("headers", headers?.into()));
    }
    if let Some(from) = &arguments.from {
        told.push(("startFrom", place(from)));
    }
    if let Some(description) = &arguments.description {
        told.push(("description", description.clone().into()));
    }
    for (name, value) in told {
        if members.insert(name.to_owned(), value).is_some() {
            bail!("--with has `{name}`, and so has an argument of its own: say it once");
        }
    }
    let made = arguments.ask.once(Method::POST, "/webhooks", Some(&members.into())).await?;
    if arguments.ask.json {
        println!("{made}");
    } else {
        println!("{}", made["id"].as_str().context("the server showed no id")?);
        eprintln!("It signs with {}", made["secret"].as_str().unwrap_or_default());
    }
    Ok(OK)
}

async fn test(one: &One) -> Result<u8> {
    let path = format!("/webhooks/{}/test", escape(&one.id));
    let said = one.ask.once(Method::POST, &path, None).await?;
    one.ask.print(&said);
    Ok(if said["delivered"] == true { OK } else { FAILED })
}

fn name_and_value(header: &str) -> Result<(String, Value)> {
    let Some((name, value)) = header.split_once(':') else { bail!("--header: write it as 'name: value'") };
    Ok((name.trim().to_owned(), value.trim().into()))
}

pub(super) fn object(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text).context("not JSON")? {
        Value::Object(members) => Ok(members),
        _ => bail!("not a JSON object"),
    }
}

/// A place in the log as the API takes it: an offset is a number.
pub(super) fn place(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}
