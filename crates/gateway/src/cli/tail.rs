//! `tidings tail`: the event stream in a terminal; comes back where it was when the connection breaks.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::OK;
use super::client::{Client, Target, block_on};

const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "Examples:
  tidings tail
  tidings tail --types 'order.*' --from earliest --json")]
pub(crate) struct TailArguments {
    /// Types to print, separated by commas, as in order.*,invoice.paid
    #[arg(long)]
    types: Option<String>,
    /// Channels to print, separated by commas
    #[arg(long)]
    channels: Option<String>,
    /// Where to begin: latest, earliest, an offset, or a time
    #[arg(long, default_value = "latest")]
    from: String,
    /// End after so many events
    #[arg(long)]
    count: Option<u64>,
    /// Print whole events as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &TailArguments) -> Result<u8> {
    block_on(async {
        let mut last = None;
        let mut printed = 0;
        loop {
            let mut client = match Client::connect(&arguments.target).await {
                Ok(client) => client,
                Err(error) if last.is_none() => return Err(error),
                Err(_) => {
                    tokio::time::sleep(RECONNECT).await;
                    continue;
                }
            };
            if follow(&mut client, arguments, &mut last, &mut printed).await? {
                return Ok(OK);
            }
            last.get_or_insert_with(|| arguments.from.clone());
            eprintln!("the stream ended; coming back");
            tokio::time::sleep(RECONNECT).await;
        }
    })
}

/// Prints one stream until it ends; true if all that was asked for is printed.
async fn follow(
    client: &mut Client,
    arguments: &TailArguments,
    last: &mut Option<String>,
    printed: &mut u64,
) -> Result<bool> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("from", last.as_deref().unwrap_or(&arguments.from));
    for (name, value) in [("types", &arguments.types), ("channels", &arguments.channels)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let path = format!("/events/stream?{}", query.finish());
    let mut body = match client.send(Method::GET, &path, &[], None).await {
        Ok(answer) => answer.into_body(),
        // The server went away before it answered; a refusal is another error.
        Err(error) if error.is::<hyper::Error>() => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut buffer = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = buffer.drain(..end + 2).collect();
            if print(&String::from_utf8_lossy(&block), arguments.json, last) {
                *printed += 1;
            }
            if arguments.count.is_some_and(|count| *printed >= count) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What is printed of an event; its data as it is, because numbers are never rewritten.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    timestamp: &'a str,
    event_type: &'a str,
    #[serde(borrow)]
    aggregate_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Prints one block; true if it was an event.
fn print(block: &str, json: bool, last: &mut Option<String>) -> bool {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    if let Some(id) = field("id:") {
        *last = Some(id.to_owned());
    }
    let Some(data) = field("data:") else { return false };
    if field("event:") == Some("tidings.status") {
        eprintln!("{data}");
        return false;
    }
    if json {
        println!("{data}");
        return true;
    }
    let Shown { timestamp, event_type, aggregate_id, data } = serde_json::from_str(data).unwrap_or_default();
    let (offset, aggregate) = (last.as_deref().unwrap_or("-"), aggregate_id.unwrap_or("-".into()));
    println!("{offset:>8}  {timestamp}  {event_type:<28} {aggregate:<20} {}", data.map_or("-", RawValue::get));
    true
}
