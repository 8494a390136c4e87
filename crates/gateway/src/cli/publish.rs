//! `tidings publish`.

use std::fmt::Write as _;
use std::io::BufRead as _;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Map, Value, value::RawValue};

use super::OK;
use super::client::{Client, Target, block_on};

/// Lines of standard input sent in one request.
const LINES_MAX: usize = 1_000;
/// Bytes sent in one request, a last line beyond them included: half of what a server takes by default.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;

#[derive(Args)]
#[command(after_help = "Examples:
  tidings publish order.created --data '{\"total\":42}' --aggregate order_1
  tidings publish - < events.ndjson")]
pub(crate) struct PublishArguments {
    /// Type of the event, or `-` for NDJSON on standard input
    event_type: String,
    /// Data of the event, as JSON; null without it
    #[arg(long)]
    data: Option<String>,
    /// What the event is about
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// Whom it concerns; may be repeated
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Id of the event, so that it can be sent again safely
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &PublishArguments) -> Result<u8> {
    block_on(async {
        let mut client = Client::connect(&arguments.target).await?;
        if arguments.event_type == "-" {
            lines(&mut client, arguments).await
        } else {
            one(&mut client, arguments).await
        }
    })
}

async fn one(client: &mut Client, arguments: &PublishArguments) -> Result<u8> {
    let answer = client.json(Method::POST, "/events", Some(("application/json", event(arguments)?))).await?;
    if arguments.json {
        println!("{answer}");
    } else {
        println!("{} is event {} of the log", answer["eventId"].as_str().unwrap_or_default(), answer["offset"]);
    }
    Ok(OK)
}

/// The event; its data goes out byte for byte as it was given.
fn event(arguments: &PublishArguments) -> Result<Bytes> {
    let data: &RawValue =
        serde_json::from_str(arguments.data.as_deref().unwrap_or("null")).context("--data is not JSON")?;
    let mut event = Map::new();
    event.insert("eventType".into(), arguments.event_type.as_str().into());
    if let Some(id) = &arguments.id {
        event.insert("eventId".into(), id.as_str().into());
    }
    if let Some(aggregate) = &arguments.aggregate {
        event.insert("aggregateId".into(), aggregate.as_str().into());
    }
    if !arguments.channels.is_empty() {
        event.insert("channels".into(), arguments.channels.clone().into());
    }
    let mut text = Value::Object(event).to_string();
    text.pop();
    // Writing to a String cannot fail.
    let _ = write!(text, ",\"data\":{}}}", data.get());
    Ok(text.into())
}

async fn lines(client: &mut Client, arguments: &PublishArguments) -> Result<u8> {
    let PublishArguments { data, aggregate, channels, id, .. } = arguments;
    if data.is_some() || aggregate.is_some() || id.is_some() || !channels.is_empty() {
        bail!("each line says all of its event: leave out --data, --aggregate, --channel and --id");
    }
    let mut sent = Sent::default();
    let (mut batch, mut lines) = (String::new(), 0);
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input is not UTF-8")?;
        if line.trim().is_empty() {
            continue;
        }
        batch.push_str(&line);
        batch.push('\n');
        lines += 1;
        if lines == LINES_MAX || batch.len() >= REQUEST_BYTES {
            sent.send(client, std::mem::take(&mut batch), std::mem::take(&mut lines)).await?;
            if !arguments.json {
                eprintln!("{} lines sent", sent.lines);
            }
        }
    }
    if lines > 0 {
        sent.send(client, batch, lines).await?;
    }
    if sent.lines == 0 {
        bail!("standard input holds no event: send one JSON object a line");
    }
    let Sent { accepted, duplicates, .. } = sent;
    if arguments.json {
        println!("{}", serde_json::json!({ "accepted": accepted, "duplicates": duplicates }));
    } else {
        println!("{accepted} accepted, {duplicates} were there before");
    }
    Ok(OK)
}

/// What the server has taken so far.
#[derive(Default)]
struct Sent {
    lines: usize,
    accepted: u64,
    duplicates: u64,
}

impl Sent {
    async fn send(&mut self, client: &mut Client, batch: String, lines: usize) -> Result<()> {
        let answer =
            client.json(Method::POST, "/events", Some(("application/x-ndjson", batch.into()))).await.with_context(
                || format!("events from line {} on; {} were accepted before", self.lines + 1, self.accepted),
            )?;
        self.lines += lines;
        self.accepted += answer["accepted"].as_u64().unwrap_or_default();
        self.duplicates += answer["duplicates"].as_u64().unwrap_or_default();
        Ok(())
    }
}
