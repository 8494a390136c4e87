//! What a client asks for: one JSON object a message, with its `type`.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::TypePattern;
use tidings_core::json;

use crate::api::body;
use crate::api::problem::Problem;

/// The operations, for whoever asks for another one.
const OPERATIONS: &str = "subscribe, unsubscribe, publish, ack, nack, extend or ping";
/// A `ref` or the id of a subscription.
const NAME_BYTES_MAX: usize = 64;

/// What a client asks for.
pub(super) enum Ask {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    /// The body of a request that publishes the same.
    Publish(Bytes),
    Ack(Named),
    Nack(Nack),
    Extend(Named),
    Ping,
}

/// What an answer is about: as far as it can be read, also of a message that is wrong.
#[derive(Default, Deserialize)]
pub(super) struct About {
    #[serde(rename = "type", default)]
    what: Value,
    #[serde(rename = "ref", default)]
    pub(super) reference: Value,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    subscription: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Subscribe {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
    pub(super) id: Box<str>,
    #[serde(default)]
    pub(super) types: Vec<TypePattern>,
    #[serde(default)]
    pub(super) channels: Vec<Channel>,
    #[serde(default)]
    pub(super) aggregate_id: Option<AggregateId>,
    #[serde(default)]
    pub(super) from: Value,
    /// Work for this consumer instead.
    #[serde(default)]
    pub(super) consumer: Option<Box<str>>,
    /// Messages of it that are not acknowledged yet.
    #[serde(default)]
    pub(super) max: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
    pub(super) id: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
    #[serde(rename = "event", default)]
    _event: Option<IgnoredAny>,
    #[serde(rename = "events", default)]
    _events: Option<IgnoredAny>,
}

/// What `ack` names, and `extend`, which may say how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
    pub(super) subscription: Box<str>,
    pub(super) tokens: Vec<Box<str>>,
    #[serde(default)]
    pub(super) wait: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nack {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
    pub(super) subscription: Box<str>,
    pub(super) token: Box<str>,
    #[serde(default)]
    pub(super) delay: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref", default)]
    _ref: IgnoredAny,
}

impl About {
    /// Reads what it can.
    pub(super) fn of(text: &[u8]) -> Self {
        let about: Self = serde_json::from_slice(text).unwrap_or_default();
        // What is echoed is not longer than it may be.
        let kept = |value: Value| if names(&value) { value } else { Value::Null };
        let [reference, id, subscription] = [about.reference, about.id, about.subscription].map(kept);
        Self { what: about.what, reference, id, subscription }
    }

    /// A subscription, about which nobody asked.
    pub(super) fn subscription_of(id: &str) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// The subscription that it names.
    pub(super) fn subscription(&self) -> &Value {
        if self.subscription.is_null() { &self.id } else { &self.subscription }
    }
}

/// Whether a value can be a `ref`: a short text or a number.
fn names(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= NAME_BYTES_MAX,
        Value::Number(number) => number.is_u64() || number.is_i64(),
        _ => false,
    }
}

/// Reads a message; a problem if it is none.
pub(super) fn read(text: &Bytes, about: &About, limits: &json::Limits) -> Result<Ask, Problem> {
    let (mut event, mut events, mut reference) = (None, None, None);
    json::object(text, limits, |name, value| match name {
        b"\"event\"" => event = Some(text.slice_ref(value)),
        b"\"events\"" => events = Some(text.slice_ref(value)),
        b"\"ref\"" => reference = Some(value),
        _ => {}
    })
    .map_err(|error| Problem::violations(&[(None, error.into())]))?;
    if reference.is_some_and(|given| given != b"null") && about.reference.is_null() {
        return Err(body::invalid(format!("/ref: a text of at most {NAME_BYTES_MAX} bytes, or a whole number")));
    }
    Ok(match about.what.as_str() {
        Some("subscribe") => Ask::Subscribe(subscribe(text)?),
        Some("unsubscribe") => Ask::Unsubscribe(parse(text)?),
        Some("publish") => {
            let _: Publish = parse(text)?;
            match (event, events) {
                (Some(event), None) if event.starts_with(b"{") => Ask::Publish(event),
                (None, Some(events)) if events.starts_with(b"[") => Ask::Publish(events),
                _ => return Err(body::invalid("/event: an object; or /events, an array of them, in its place")),
            }
        }
        Some("ack") => match parse::<Named>(text)? {
            Named { wait: Some(_), .. } => return Err(body::invalid("/wait: it belongs to `extend`")),
            named => Ask::Ack(named),
        },
        Some("nack") => Ask::Nack(parse(text)?),
        Some("extend") => Ask::Extend(parse(text)?),
        Some("ping") => {
            let _: Ping = parse(text)?;
            Ask::Ping
        }
        _ => return Err(body::invalid(format!("/type: {OPERATIONS}"))),
    })
}

fn subscribe(text: &Bytes) -> Result<Subscribe, Problem> {
    let ask: Subscribe = parse(text)?;
    if ask.id.is_empty() || ask.id.len() > NAME_BYTES_MAX || ask.id.chars().any(char::is_control) {
        return Err(body::invalid(format!("/id: 1 to {NAME_BYTES_MAX} bytes, no control characters")));
    }
    Ok(ask)
}

fn parse<T: DeserializeOwned>(text: &Bytes) -> Result<T, Problem> {
    body::parse(&mut serde_json::Deserializer::from_slice(text))
}
