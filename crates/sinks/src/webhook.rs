//! Webhooks: Standard Webhooks 1.0 over HTTP.

mod answer;
mod headers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_core::cloudevents::{to_binary_headers, to_structured};
use tidings_core::event::{self, Header};
use tidings_core::secret::{SecretKey, SigningSecret};
use tidings_core::signature::Signer;
use tidings_core::time::Timestamp;
use tidings_egress::{Door, Line, Lines, Target};

use crate::{Answer, Outcome, Parcel, Pending, Sink};
pub use headers::{HEADERS_MAX, Headers, VALUE_BYTES_MAX, check_header};

const AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));

/// Room for what differs from one request to the next, as it usually is.
const LINES_BYTES: usize = 512;

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
    /// Each signs (`v1`): more than one while they rotate.
    pub secrets: Vec<SigningSecret>,
    /// Each signs too (`v1a`).
    pub keys: Vec<SecretKey>,
    /// Its wire form.
    pub format: Format,
    /// Sent along.
    pub headers: Headers,
    /// For the whole attempt, the answer's body included.
    pub timeout: Duration,
    /// Whether the text of answers is kept: a person may read there what the endpoint can see.
    pub keep_answers: bool,
}

/// A subscriber that is posted to. Its connections are its own and live where it is used (see [`Line`]).
pub struct Webhook {
    line: Line,
    signer: Signer,
    format: Format,
    timeout: Duration,
    keep_answers: bool,
    now: fn() -> Timestamp,
}

impl Webhook {
    /// A webhook behind `door`; `now` dates its signatures.
    pub fn new(door: Arc<Door>, settings: Settings, now: fn() -> Timestamp) -> Self {
        let signer = Signer::new(&settings.secrets, &settings.keys);
        let Settings { target, format, headers, timeout, keep_answers, .. } = settings;
        let mut lines = Lines::default();
        let content_type = match format {
            Format::Envelope | Format::CloudEventsBinary => "application/json",
            Format::CloudEvents => "application/cloudevents+json",
        };
        let own = [("content-type", content_type), ("user-agent", AGENT)];
        for (name, value) in own.into_iter().chain(headers.iter()) {
            // What `Headers` holds is good.
            let _ = lines.push(name, value.as_bytes());
        }
        Self { line: Line::new(door, target, &lines), signer, format, timeout, keep_answers, now }
    }

    async fn attempt(&self, parcel: &Parcel<'_>) -> Outcome {
        let Some((lines, body)) = self.request(parcel, (self.now)()) else {
            // The subscriber would be asked to take what cannot be written; the log says which event is damaged.
            return failed("internal error");
        };
        match self.line.post(lines, &body, self.timeout).await {
            Ok(response) => answer::judge(&response, (self.now)(), self.keep_answers),
            Err(error) => failed(error.word()),
        }
    }

    /// What differs from one request to the next; `None` if the stored event cannot be read.
    fn request(&self, parcel: &Parcel<'_>, now: Timestamp) -> Option<(Lines, Bytes)> {
        let mut lines = Lines::with_capacity(LINES_BYTES);
        let body = self.body(parcel, &mut lines)?;
        let seconds = now.as_millis().div_euclid(1000);
        let signature = self.signer.sign(parcel.id.as_str(), seconds, &body);
        let all = lines.push("webhook-id", parcel.id.as_str().as_bytes())
            && lines.push("webhook-timestamp", seconds.to_string().as_bytes())
            && lines.push("webhook-signature", signature.as_bytes())
            && lines.push("tidings-event-type", parcel.event_type.as_str().as_bytes())
            && lines.push("tidings-attempt", parcel.attempt.to_string().as_bytes());
        if let Some(replay) = parcel.replay {
            let _ = lines.push("tidings-replay", replay.as_bytes());
        }
        if let Some(traceparent) = parcel.traceparent() {
            // What a producer gave need not fit into a header.
            let _ = lines.push("traceparent", traceparent.as_bytes());
        }
        all.then_some((lines, body))
    }

    /// The same bytes at every attempt.
    fn body(&self, parcel: &Parcel<'_>, lines: &mut Lines) -> Option<Bytes> {
        let data = parcel.data.map(|data| &data[..]);
        match (self.format, parcel.envelope) {
            (Format::Envelope, Some(envelope)) => Some(envelope.clone()),
            (Format::Envelope, None) => Some(event::envelope(parcel.header, data).into()),
            (Format::CloudEvents, _) => Some(to_structured(&Header::parse(parcel.header).ok()?, data).into()),
            (Format::CloudEventsBinary, _) => {
                for (name, text) in to_binary_headers(&Header::parse(parcel.header).ok()?) {
                    lines.push(&name, text.as_bytes()).then_some(())?;
                }
                if data.is_none() {
                    let _ = lines.push("ce-erased", b"true");
                }
                Some(parcel.data.cloned().unwrap_or_default())
            }
        }
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

fn failed(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.into(), answer: Answer::default(), retry_after: None }
}

#[cfg(test)]
mod tests;
