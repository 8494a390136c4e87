//! What a client is told: one JSON object a message, with its `type`.

use serde_json::{Map, Value, json};
use tidings_core::offset::Offset;
use tidings_engine::consumers::Message;
use tidings_engine::streams::resume::Resume;
use tidings_engine::streams::websocket;

use super::asks::About;
use crate::api::consumers::work;
use crate::api::problem::Problem;

/// A message of this type; about what, if that was said.
fn told(what: &str, about: &About) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("type".to_owned(), what.into());
    if !about.reference.is_null() {
        told.insert("ref".to_owned(), about.reference.clone());
    }
    told
}

/// Where a subscription stands.
pub(super) fn status(about: &About, members: Value) -> String {
    let mut told = told("status", about);
    told.insert("subscription".to_owned(), about.subscription().clone());
    if let Value::Object(members) = members {
        told.extend(members);
    }
    Value::Object(told).to_string()
}

/// It begins after `cursor`; then what a client that resumed misses.
pub(super) fn subscribed(about: &About, cursor: Offset, resume: Option<Resume>) -> Vec<String> {
    let mut words = vec![status(about, json!({ "state": "subscribed", "cursor": cursor }))];
    let missed = match resume {
        None | Some(Resume::Whole) => None,
        Some(Resume::Gap(first)) => Some(("gap", first)),
        Some(Resume::Reset(first)) => Some(("reset", first)),
    };
    words.extend(missed.map(|(what, from)| status(about, json!({ "replay": what, "from": from }))));
    words
}

/// What publishing was answered with.
pub(super) fn published(about: &About, answer: &[u8]) -> String {
    let mut told = told("published", about);
    if let Ok(Value::Object(numbers)) = serde_json::from_slice(answer) {
        told.extend(numbers);
    }
    Value::Object(told).to_string()
}

pub(super) fn pong(about: &About) -> String {
    Value::Object(told("pong", about)).to_string()
}

/// A refusal, and of what.
pub(super) fn error(about: &About, problem: Problem) -> String {
    let mut told = told("error", about);
    if !about.subscription().is_null() {
        told.insert("subscription".to_owned(), about.subscription().clone());
    }
    if let Some(millis) = problem.retry_after_millis() {
        told.insert("retryAfterMs".to_owned(), millis.into());
    }
    told.insert("problem".to_owned(), problem.into_json());
    Value::Object(told).to_string()
}

/// Appends the frame of a consumer's message: as in a fetch, with the subscription.
pub(super) fn delivery(frames: &mut Vec<u8>, subscription: &str, message: &Message) {
    let mut text = format!("{{\"type\":\"event\",\"subscription\":{},", json!(subscription)).into_bytes();
    let mut rest = Vec::with_capacity(message.envelope.len() + 200);
    work::render(&mut rest, message);
    text.extend_from_slice(&rest[1..]);
    websocket::text(frames, &text);
}
