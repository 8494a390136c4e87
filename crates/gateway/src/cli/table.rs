//! Answers of the server in a terminal: JSON as it came, or lines for people.

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::Value;

use super::client::{Client, Target};

/// Where to ask, and how to print.
#[derive(Args, Debug, Clone)]
pub(crate) struct Ask {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

impl Ask {
    /// Asks once.
    pub(crate) async fn once(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.send(method, path, body.map(Value::to_string).unwrap_or_default()).await
    }

    /// Asks once, with a text of JSON or with nothing.
    pub(crate) async fn send(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let body = Some(body).filter(|body| !body.is_empty()).map(|body| ("application/json", Bytes::from(body)));
        Client::connect(&self.target).await?.json(method, path, body).await
    }

    /// Asks for all pages of a list, up to `count` entries.
    pub(crate) async fn list(&self, path: &str, count: usize) -> Result<Vec<Value>> {
        let mut client = Client::connect(&self.target).await?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let (mut shown, mut after) = (Vec::new(), String::new());
        while shown.len() < count {
            let page = client.json(Method::GET, &format!("{path}{joint}limit=250&after={after}"), None).await?;
            shown.extend(page["data"].as_array().into_iter().flatten().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => after = escape(next),
                None => break,
            }
        }
        shown.truncate(count);
        Ok(shown)
    }

    /// Prints entries: an array, or a line for each with the named members.
    pub(crate) fn print_all(&self, entries: &[Value], members: &[(&str, usize)]) {
        if self.json {
            println!("{}", Value::from(entries));
            return;
        }
        for entry in entries {
            let cells: Vec<_> =
                members.iter().map(|(name, width)| format!("{:<width$}", cell(&entry[*name]))).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }

    /// Prints one answer: as it came, or a line for each member.
    pub(crate) fn print(&self, answer: &Value) {
        match answer {
            Value::Object(members) if !self.json => {
                for (name, value) in members {
                    println!("{name:<16} {}", cell(value));
                }
            }
            _ => println!("{answer}"),
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A value as a part of a path or of a query.
pub(crate) fn escape(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
