//! The way to an endpoint: signed with what is good at the moment of the attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tidings_core::time::Timestamp;
use tidings_egress::Target;
use tidings_sinks::webhook::{Format, Headers, Settings, Webhook};
use tidings_sinks::{Answer, Outcome, Parcel, Pending, Sink};
use tokio::time::{Instant, sleep};

use super::means::Means;
use super::notify;
use super::record::Record;
use super::settings::Signature;
use crate::clock;

/// A way that was not used for so long is dropped: longer than its connections are kept.
const UNUSED_MAX: Duration = Duration::from_mins(1);

fn failed(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.into(), answer: Answer::default(), retry_after: None }
}

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
        let outcomes = parcels.iter().map(|_| failed("blocked address")).collect();
        Box::pin(async move { outcomes })
    }
}

/// A way that is made for the first attempt, and dropped when none was made for long: webhooks that want nothing of what
/// is published cost none.
struct Lazy {
    record: Arc<Record>,
    /// One that is notified; `None`: the webhook itself.
    target: Option<Box<str>>,
    means: Arc<Means>,
    made: Arc<Mutex<Option<Made>>>,
}

struct Made {
    sink: Arc<dyn Sink>,
    used: Instant,
}

/// The way to a webhook, or to one that it notifies; an error if what is kept cannot be opened.
pub(super) fn lazily(record: &Arc<Record>, target: Option<&str>, means: &Arc<Means>) -> Result<Arc<dyn Sink>> {
    let (record, means, target) = (Arc::clone(record), Arc::clone(means), target.map(Into::into));
    let lazy = Lazy { record, target, means, made: Arc::default() };
    // Told when it is saved or loaded, not with the first attempt.
    lazy.make()?;
    Ok(Arc::new(lazy))
}

impl Lazy {
    fn make(&self) -> Result<Arc<dyn Sink>> {
        match &self.target {
            Some(target) => notify::sink(&self.record, &self.means, target),
            None => Way::own(&self.record, &self.means).sink(&self.record, &self.means),
        }
    }

    fn sink(&self) -> Result<Arc<dyn Sink>> {
        let used = Instant::now();
        let mut made = self.made.lock();
        if let Some(made) = &mut *made {
            made.used = used;
            return Ok(Arc::clone(&made.sink));
        }
        let sink = self.make()?;
        *made = Some(Made { sink: Arc::clone(&sink), used });
        tokio::spawn(watch(Arc::downgrade(&self.made)));
        Ok(sink)
    }
}

/// Drops a way that nobody used for long.
async fn watch(made: Weak<Mutex<Option<Made>>>) {
    loop {
        sleep(UNUSED_MAX).await;
        let Some(made) = made.upgrade() else { return };
        let mut made = made.lock();
        if made.as_ref().is_none_or(|made| made.used.elapsed() >= UNUSED_MAX) {
            *made = None;
            return;
        }
    }
}

impl Sink for Lazy {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            match self.sink() {
                Ok(sink) => sink.deliver(parcels).await,
                Err(error) => {
                    // It could be opened when it was loaded.
                    tracing::error!(webhook = &*self.record.id, %error, "a webhook cannot be sent to");
                    parcels.iter().map(|_| failed("internal error")).collect()
                }
            }
        })
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
