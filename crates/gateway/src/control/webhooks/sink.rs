//! The way to an endpoint: signed with what is good at the moment of the attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tidings_core::time::Timestamp;
use tidings_egress::Target;
use tidings_sinks::webhook::{Format, Headers, Settings, Webhook};
use tidings_sinks::{Answer, Outcome, Parcel, Pending, Sink};

use super::means::Means;
use super::record::Record;
use super::settings::Signature;
use crate::clock;

/// One endpoint while secrets rotate: with each end of an overlap another signer takes over.
struct Rotating {
    /// Good until then, the earliest first.
    until: Vec<(Timestamp, Webhook)>,
    last: Webhook,
}

impl Sink for Rotating {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        let now = clock::now();
        let current = self.until.iter().find(|(until, _)| now < *until).map_or(&self.last, |(_, webhook)| webhook);
        current.deliver(parcels)
    }
}

/// An endpoint that the settings no longer allow: each attempt says so.
struct Denied;

impl Sink for Denied {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        let denied =
            || Outcome::Retry { reason: "blocked address".into(), answer: Answer::default(), retry_after: None };
        let outcomes = parcels.iter().map(|_| denied()).collect();
        Box::pin(async move { outcomes })
    }
}

/// What is sent where, on a webhook's behalf.
pub(super) struct Way<'a> {
    pub(super) url: &'a str,
    pub(super) format: Format,
    /// Whether its owner's headers go along.
    pub(super) headers: bool,
    pub(super) timeout: Duration,
    pub(super) keep_answers: bool,
}

impl<'a> Way<'a> {
    /// To the webhook itself.
    pub(super) fn own(record: &'a Record, means: &Means) -> Self {
        let settings = &record.settings;
        Self {
            url: &settings.url,
            format: settings.format,
            headers: true,
            timeout: settings.timeout,
            keep_answers: means.keep_answers,
        }
    }

    /// The sink; an error if what is kept cannot be opened.
    pub(super) fn sink(&self, record: &Record, means: &Means) -> Result<Arc<dyn Sink>> {
        let now = clock::now();
        let secrets = record.secrets(means, now)?;
        let headers = if self.headers { record.headers(means)? } else { BTreeMap::new() };
        let Ok(target) = Target::parse(self.url, &means.policy()) else { return Ok(Arc::new(Denied)) };
        let symmetric = record.settings.signs(Signature::V1);
        let webhook = |at: Timestamp| {
            let good = || secrets.iter().filter(|secrets| secrets.until.is_none_or(|until| at < until));
            let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let settings = Settings {
                target: target.clone(),
                secrets: good().filter(|_| symmetric).map(|secrets| secrets.secret.clone()).collect(),
                keys: good().filter_map(|secrets| secrets.key.clone()).collect(),
                format: self.format,
                // They were checked when they were saved; rules that grew stricter leave them out.
                headers: Headers::parse(pairs).unwrap_or_default(),
                timeout: self.timeout,
                keep_answers: self.keep_answers,
            };
            Webhook::new(Arc::clone(&means.door), settings, clock::now)
        };
        let mut ends: Vec<_> = secrets.iter().filter_map(|secrets| secrets.until).collect();
        ends.sort();
        let Some(last) = ends.last() else { return Ok(Arc::new(webhook(now))) };
        let mut began = now;
        let mut until = Vec::new();
        for end in &ends {
            until.push((*end, webhook(began)));
            began = *end;
        }
        Ok(Arc::new(Rotating { last: webhook(*last), until }))
    }
}
