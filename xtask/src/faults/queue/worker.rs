//! A worker of a consumer: fetches, notes what it processed, acknowledges, until it is killed.

use crate::faults::http::Client;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

const AGAIN: Duration = Duration::from_millis(50);

/// Whom to work for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The consumer.
    consumer: String,
    /// The server.
    address: SocketAddr,
    /// Gets a line for each message.
    done: PathBuf,
    /// Messages that it fetches at once.
    batch: u32,
}

/// Works until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut done = File::options().append(true).open(&options.done)?;
    let mut client = Client::new(options.address);
    let headers = ["Content-Type: application/json".to_owned()];
    let fetch = json!({ "max": options.batch, "wait": "1s" }).to_string();
    loop {
        let path = format!("/consumers/{}/fetch", options.consumer);
        let reply = client.post(&path, &headers, fetch.as_bytes());
        let Some(reply) = reply.ok().filter(|reply| reply.status == 200) else {
            sleep(AGAIN);
            continue;
        };
        let answer: Value = serde_json::from_slice(&reply.body)?;
        let messages = answer["messages"].as_array().context("no messages")?;
        let mut tokens = Vec::with_capacity(messages.len());
        for message in messages {
            let event = &message["event"];
            let key = event["aggregateId"].as_str().context("no aggregate")?;
            // One write, so that a kill leaves no half of a line.
            done.write_all(format!("{key} {}\n", event["sequenceNumber"]).as_bytes())?;
            tokens.push(&message["ackToken"]);
        }
        if !tokens.is_empty() {
            let path = format!("/consumers/{}/ack", options.consumer);
            // If that fails they come back to somebody.
            client.post(&path, &headers, json!({ "tokens": tokens }).to_string().as_bytes()).ok();
        }
    }
}
