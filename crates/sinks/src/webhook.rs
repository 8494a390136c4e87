//! Webhooks: Standard Webhooks 1.0 over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use jiff::fmt::rfc2822;
use serde::{Deserialize, Serialize};
use tidings_core::cloudevents::{to_binary_headers, to_structured};
use tidings_core::event::{self, Header};
use tidings_core::secret::SigningSecret;
use tidings_core::signature::sign_v1;
use tidings_core::time::Timestamp;
use tidings_egress::{Door, Response, Target};

use crate::{Outcome, Parcel, Pending, Sink};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const EVENT_TYPE: HeaderName = HeaderName::from_static("tidings-event-type");
const ATTEMPT: HeaderName = HeaderName::from_static("tidings-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("tidings/", env!("CARGO_PKG_VERSION")));

/// The wire form of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own.
    #[default]
    Envelope,
    /// `CloudEvents` 1.0, structured.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// `CloudEvents` 1.0, binary: attributes in `ce-` headers, the data as the body.
    #[serde(rename = "cloudevents-binary")]
    CloudEventsBinary,
}

/// What makes one webhook differ from another.
#[derive(Debug)]
pub struct Settings {
    /// Where it goes.
    pub target: Target,
    /// Signs it.
    pub secret: SigningSecret,
    /// Its wire form.
    pub format: Format,
    /// Sent along; the headers of the protocol win over them.
    pub headers: HeaderMap,
    /// For the whole attempt, the answer's body included.
    pub timeout: Duration,
}

/// A subscriber that is posted to.
pub struct Webhook {
    door: Arc<Door>,
    settings: Settings,
    now: fn() -> Timestamp,
}

impl Webhook {
    /// A webhook behind `door`; `now` dates its signatures.
    pub fn new(door: Arc<Door>, settings: Settings, now: fn() -> Timestamp) -> Self {
        Self { door, settings, now }
    }

    async fn attempt(&self, parcel: &Parcel<'_>) -> Outcome {
        let Some((headers, body)) = self.request(parcel, (self.now)()) else {
            // The subscriber would be asked to take what cannot be written; the log says which event is damaged.
            return retry("internal error".into(), None, None);
        };
        match self.door.post(&self.settings.target, headers, body, self.settings.timeout).await {
            Ok(response) => judge(&response, (self.now)()),
            Err(error) => retry(error.word().into(), None, None),
        }
    }

    /// Headers and body; `None` if the stored event cannot be read.
    fn request(&self, parcel: &Parcel<'_>, now: Timestamp) -> Option<(HeaderMap, Bytes)> {
        let mut headers = self.settings.headers.clone();
        headers.reserve(8);
        let (body, content_type) = self.body(parcel, &mut headers)?;
        let seconds = now.as_millis().div_euclid(1000);
        let signature = sign_v1(&self.settings.secret, parcel.id.as_str(), seconds, &body);
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(WEBHOOK_ID, value(parcel.id.as_str())?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_maybe_shared(Bytes::from(signature)).ok()?);
        headers.insert(EVENT_TYPE, value(parcel.event_type.as_str())?);
        headers.insert(ATTEMPT, HeaderValue::from(parcel.attempt));
        if let Some(traceparent) = parcel.traceparent().and_then(|text| value(&text)) {
            headers.insert(TRACEPARENT, traceparent);
        }
        Some((headers, body))
    }

    fn body(&self, parcel: &Parcel<'_>, headers: &mut HeaderMap) -> Option<(Bytes, HeaderValue)> {
        let data = parcel.data.map(|data| &data[..]);
        let json = HeaderValue::from_static("application/json");
        Some(match self.settings.format {
            Format::Envelope => (event::envelope(parcel.header, data).into(), json),
            Format::CloudEvents => {
                let body = to_structured(&Header::parse(parcel.header).ok()?, data);
                (body.into(), HeaderValue::from_static("application/cloudevents+json"))
            }
            Format::CloudEventsBinary => {
                for (name, text) in to_binary_headers(&Header::parse(parcel.header).ok()?) {
                    headers.insert(HeaderName::try_from(name).ok()?, value(&text)?);
                }
                if data.is_none() {
                    headers.insert(HeaderName::from_static("ce-erased"), HeaderValue::from_static("true"));
                }
                (parcel.data.cloned().unwrap_or_default(), json)
            }
        })
    }
}

impl Sink for Webhook {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(parcels.len());
            for parcel in parcels {
                outcomes.push(self.attempt(parcel).await);
            }
            outcomes
        })
    }
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// Success is a 2xx; everything else may be one later.
fn judge(response: &Response, now: Timestamp) -> Outcome {
    let status = response.status;
    if status.is_success() {
        return Outcome::Delivered { status: Some(status.as_u16()) };
    }
    let reason = if status.is_redirection() { "redirect".into() } else { format!("status {}", status.as_u16()) };
    let retry_after = response.retry_after.as_ref().and_then(|value| retry_after(value.to_str().ok()?, now));
    retry(reason.into(), Some(status.as_u16()), retry_after)
}

fn retry(reason: Box<str>, status: Option<u16>, retry_after: Option<Duration>) -> Outcome {
    Outcome::Retry { reason, status, retry_after }
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(date.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests;
