//! For tests of applications: what was emitted, and deliveries to send to a receiver.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tidings_core::secret::SigningSecret;
use tidings_core::signature::sign_v1;

use crate::clock;

/// An event that was emitted or published, and is not in a log yet: no defaults, no sequence number.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emission {
    /// Its id, given or made.
    pub event_id: String,
    /// What happened.
    pub event_type: String,
    /// Version of the type, if one was given.
    pub version: Option<u32>,
    /// The service that says so, if one was given.
    pub source: Option<String>,
    /// What it is about.
    pub aggregate_id: Option<String>,
    /// Whom it concerns.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Pairs such as `actor`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What there is to tell.
    pub data: Value,
}

/// Events in the order in which they were emitted or published; assertions panic and say what there is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Emissions(pub Vec<Emission>);

impl Emissions {
    pub(crate) fn read(texts: Vec<String>) -> Self {
        let read = |text: String| match serde_json::from_str(&text) {
            Ok(emission) => emission,
            Err(error) => panic!("a row of the outbox is no event: {error}: {text}"),
        };
        Self(texts.into_iter().map(read).collect())
    }

    /// The types, in order: `assert_eq!(emitted.types(), ["order.created"])`.
    pub fn types(&self) -> Vec<&str> {
        self.0.iter().map(|emission| emission.event_type.as_str()).collect()
    }

    /// The event of a type, of which there has to be one.
    #[track_caller]
    pub fn one(&self, event_type: &str) -> &Emission {
        match self.of(event_type)[..] {
            [emission] => emission,
            _ => panic!("not one `{event_type}`, but {:?}", self.types()),
        }
    }

    /// All of a type, in order.
    pub fn of(&self, event_type: &str) -> Vec<&Emission> {
        self.0.iter().filter(|emission| emission.event_type == event_type).collect()
    }
}

/// A request as the gateway sends it, signed with a secret, at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedRequest {
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The envelope.
    pub body: Vec<u8>,
}

impl SignedRequest {
    /// The first attempt to deliver an envelope, which has an `eventId`; `secret` as in [`crate::Verifier::new`].
    ///
    /// ```
    /// use tidings_emit::{Verifier, testing::SignedRequest};
    ///
    /// let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// let request = SignedRequest::new(secret, &serde_json::json!({
    ///     "eventId": "e1", "eventType": "order.created", "version": 1, "timestamp": "2026-11-22T10:15:30.123Z",
    ///     "source": "/orders", "aggregateId": "order_1", "sequenceNumber": 1, "data": {"total": 42}}));
    /// assert!(Verifier::new([secret]).unwrap().verify(|name| request.header(name), &request.body).is_ok());
    /// ```
    #[track_caller]
    pub fn new(secret: &str, envelope: &Value) -> Self {
        let secret = SigningSecret::parse(secret).unwrap_or_else(|error| panic!("{error}"));
        let Some(id) = envelope["eventId"].as_str() else { panic!("an envelope has an `eventId`: {envelope}") };
        let body = envelope.to_string().into_bytes();
        let seconds = clock::now().as_millis().div_euclid(1000);
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", sign_v1(&secret, id, seconds, &body)),
            ("tidings-attempt", "1".to_owned()),
        ];
        Self { headers, body }
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}
