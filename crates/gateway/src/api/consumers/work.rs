//! What workers do: fetch, acknowledge, refuse, ask for more time.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tidings_core::desk::Token;
use tidings_core::retry::RETRY_AFTER_MAX;
use tidings_core::time::{format_duration, parse_duration};
use tidings_engine::consumers::{Closed, Message, Queue};

use super::{find, missing};
use crate::api::body::{self, answer};
use crate::api::call::Call;
use crate::api::document;
use crate::api::problem::Problem;
use crate::api::routes::Answer;
use crate::app::Phase;
use crate::control::consumers::{ACK_WAIT_MAX, ACK_WAIT_MIN};

/// Messages of one fetch, and tokens of one answer.
pub(crate) const FETCH_MAX: usize = 500;
const FETCH_DEFAULT: usize = 100;
/// The longest that a fetch waits.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);
const TOKENS_MAX: usize = 1_000;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    #[serde(default)]
    max: Option<usize>,
    #[serde(default)]
    wait: Option<String>,
}

/// Answers as soon as there is something or the consumer is removed, with nothing when the time is over or the server
/// stops.
pub(crate) async fn fetch(mut call: Call) -> Answer {
    let (_, queue) = find(&call)?;
    let Fetch { max, wait } = document::optional(&mut call).await?;
    let max = max.unwrap_or(FETCH_DEFAULT);
    if !(1..=FETCH_MAX).contains(&max) {
        return Err(body::invalid(format!("/max: from 1 to {FETCH_MAX}")));
    }
    let wait = span("/wait", wait.as_deref(), (Duration::ZERO, WAIT_MAX))?.unwrap_or(WAIT_MAX);
    let mut phase = call.app.phase.clone();
    let messages = tokio::select! {
        messages = queue.fetch(max, wait) => messages.map_err(|Closed| missing())?,
        _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => Vec::new(),
    };
    Ok(answer(StatusCode::OK, rendered(&messages)))
}

fn rendered(messages: &[Message]) -> Vec<u8> {
    let bytes: usize = messages.iter().map(|message| message.envelope.len() + 200).sum();
    let mut text = Vec::with_capacity(bytes + 16);
    text.extend_from_slice(b"{\"messages\":[");
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        render(&mut text, message);
    }
    text.extend_from_slice(b"]}");
    text
}

/// One message: the event's bytes go through as they are.
pub(crate) fn render(text: &mut Vec<u8>, message: &Message) {
    let Message { token, until, envelope, replay } = message;
    let head = format!(
        "{{\"ackToken\":\"{}\",\"deliveryCount\":{},\"ackBy\":\"{until}\",\"offset\":{},\"replay\":{},\"event\":",
        token.to_text(),
        token.attempt,
        token.offset,
        json!(replay),
    );
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(envelope);
    text.push(b'}');
}

/// A span of time that a member holds, if it is there.
pub(crate) fn span(
    pointer: &str,
    text: Option<&str>,
    (min, max): (Duration, Duration),
) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let span = parse_duration(text).map_err(|error| body::invalid(format!("{pointer}: {error}")))?;
    if !(min..=max).contains(&span) {
        let (min, max) = (format_duration(min), format_duration(max));
        return Err(body::invalid(format!("{pointer}: from {min} to {max}")));
    }
    Ok(Some(span))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    tokens: Vec<Box<str>>,
}

/// Answers once it is durable: what is acknowledged never comes back.
pub(crate) async fn ack(mut call: Call) -> Answer {
    let (record, queue) = find(&call)?;
    let Ack { tokens } = body::json(&mut call).await?;
    let tokens = parsed(&queue, &tokens)?;
    let done = call.app.consumers.done(&record, &queue, &tokens).await?;
    let done = done.ok_or_else(|| Problem::not_found("consumer"))?;
    let stale: Vec<_> = tokens.iter().filter(|token| !done.contains(&token.offset)).collect();
    Ok(told("acked", tokens.len() - stale.len(), &stale))
}

pub(crate) fn parsed(queue: &Queue, tokens: &[Box<str>]) -> Result<Vec<Token>, Problem> {
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        return Err(body::invalid(format!("/tokens: 1 to {TOKENS_MAX} of them")));
    }
    let token = |(place, text)| {
        queue.token(text).ok_or_else(|| body::invalid(format!("/tokens/{place}: not an `ackToken` of this consumer")))
    };
    let parsed: Result<Vec<_>, _> = tokens.iter().map(|text| &**text).enumerate().map(token).collect();
    let mut parsed = parsed?;
    // Said twice it is one word.
    parsed.sort_unstable();
    parsed.dedup();
    Ok(parsed)
}

fn told(what: &str, count: usize, stale: &[&Token]) -> http::Response<axum::body::Body> {
    let stale: Vec<_> = stale.iter().map(|token| token.to_text()).collect();
    answer(StatusCode::OK, json!({ what: count, "stale": stale }).to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nack {
    token: Box<str>,
    #[serde(default)]
    delay: Option<String>,
    #[serde(default)]
    reason: Option<Box<str>>,
}

/// Gives a message back: it counts, and comes again after `delay`, or when the consumer's `retry` says.
pub(crate) async fn nack(mut call: Call) -> Answer {
    let (record, queue) = find(&call)?;
    let Nack { token, delay, reason } = body::json(&mut call).await?;
    let (token, delay, reason) = refusal(&queue, &token, delay.as_deref(), reason)?;
    let failed = queue.failed(token, reason, delay);
    if failed {
        call.app.consumers.committed(&record).await?;
    }
    let stale: Vec<_> = std::iter::once(&token).filter(|_| !failed).collect();
    Ok(told("nacked", usize::from(failed), &stale))
}

/// What a worker refuses, when it is to come back if it says so, and why.
pub(crate) fn refusal(
    queue: &Queue,
    token: &str,
    delay: Option<&str>,
    reason: Option<Box<str>>,
) -> Result<(Token, Option<Duration>, Box<str>), Problem> {
    let token = queue.token(token).ok_or_else(|| body::invalid("/token: not an `ackToken` of this consumer"))?;
    let delay = span("/delay", delay, (Duration::ZERO, RETRY_AFTER_MAX))?;
    let reason = reason.unwrap_or_else(|| "refused by a worker".into());
    body::check_reason(&reason)?;
    Ok((token, delay, reason))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extend {
    tokens: Vec<Box<str>>,
    #[serde(default)]
    wait: Option<String>,
}

/// Gives a worker more time for what it has, from now on.
pub(crate) async fn extend(mut call: Call) -> Answer {
    let (_, queue) = find(&call)?;
    let Extend { tokens, wait } = body::json(&mut call).await?;
    let wait = more_time(wait.as_deref())?;
    let tokens = parsed(&queue, &tokens)?;
    let stale: Vec<_> = tokens.iter().filter(|token| queue.extend(**token, wait).is_none()).collect();
    Ok(told("extended", tokens.len() - stale.len(), &stale))
}

/// How long a worker asks for, if it says so.
pub(crate) fn more_time(wait: Option<&str>) -> Result<Option<Duration>, Problem> {
    span("/wait", wait, (ACK_WAIT_MIN, ACK_WAIT_MAX))
}
