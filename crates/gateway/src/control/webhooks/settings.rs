//! What a webhook is to be: what its owner sends, and the rules for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tidings_core::event::{AggregateId, Channel, EventType};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane::{self, OnExhausted, Ordering};
use tidings_core::rate::Rate;
use tidings_core::retry::Schedule;
use tidings_egress::Target;
use tidings_sinks::webhook::{Format, Headers};

use super::means::Means;
use super::notify;
use crate::control::{Fault, check_description, duration_text};

/// The longest time an endpoint may take, answer's body included.
const TIMEOUT_MAX: Duration = Duration::from_secs(20);
const CONCURRENCY_MAX: usize = 256;
const FILTER_ITEMS_MAX: usize = 100;
const VERSIONS_MAX: usize = 100;
/// The round of failures that deactivates, unless the owner says another.
const DEACTIVATE_AFTER: u32 = 5;
const DEACTIVATE_AFTER_MAX: u32 = 1_000;

/// What a webhook is to be, as it is sent and kept, but for what is secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) event_types: Vec<TypePattern>,
    #[serde(default)]
    pub(crate) channels: Vec<Channel>,
    #[serde(default)]
    pub(crate) aggregate_id: Option<AggregateId>,
    #[serde(default)]
    filter: Option<Value>,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default, deserialize_with = "null_as_empty")]
    versions: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(default = "signatures")]
    pub(crate) signatures: Vec<Signature>,
    #[serde(default)]
    pub(crate) ordering: Ordering,
    #[serde(default)]
    pub(crate) retry: Retry,
    /// `None`: never.
    #[serde(default = "deactivate_after")]
    pub(crate) deactivate_after: Option<u32>,
    #[serde(default = "timeout", with = "duration_text")]
    pub(crate) timeout: Duration,
    #[serde(default = "concurrency")]
    pub(crate) max_concurrency: usize,
    #[serde(default)]
    pub(crate) rate_limit: Option<Rate>,
    #[serde(default)]
    pub(crate) notify: Vec<String>,
    /// What a newer version kept: an older one loads it and leaves it alone.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

/// When a failed delivery is tried again, and what follows the last attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retry {
    #[serde(default)]
    pub(crate) schedule: Schedule,
    #[serde(default)]
    pub(crate) on_exhausted: OnExhausted,
    #[serde(flatten)]
    newer: Map<String, Value>,
}

/// A way to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Signature {
    /// HMAC-SHA256.
    V1,
    /// Ed25519.
    V1a,
}

fn signatures() -> Vec<Signature> {
    vec![Signature::V1]
}

#[expect(clippy::unnecessary_wraps, reason = "the member is optional")]
fn deactivate_after() -> Option<u32> {
    Some(DEACTIVATE_AFTER)
}

fn timeout() -> Duration {
    Duration::from_secs(15)
}

fn concurrency() -> usize {
    16
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u32>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a webhook is to be, with its headers in clear.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) settings: Settings,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Draft {
    /// What the types do not say.
    pub(crate) fn check(&self, means: &Means) -> Result<(), Fault> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Headers::parse(headers).map_err(|error| fault("/headers", error))?;
        self.settings.check(means)
    }
}

impl Settings {
    fn check(&self, means: &Means) -> Result<(), Fault> {
        Target::parse(&self.url, &means.policy()).map_err(|error| fault("/url", error))?;
        check_description(&self.description)?;
        self.check_unbuilt()?;
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return Err(fault("/timeout", "from 1ms to 20s"));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.max_concurrency) {
            return Err(fault("/maxConcurrency", format!("from 1 to {CONCURRENCY_MAX}")));
        }
        if self.deactivate_after.is_some_and(|round| !(1..=DEACTIVATE_AFTER_MAX).contains(&round)) {
            return Err(fault("/deactivateAfter", format!("from 1 to {DEACTIVATE_AFTER_MAX}, or null for never")));
        }
        for (pointer, items) in [("/eventTypes", self.event_types.len()), ("/channels", self.channels.len())] {
            if items > FILTER_ITEMS_MAX {
                return Err(fault(pointer, format!("at most {FILTER_ITEMS_MAX}")));
            }
        }
        let distinct: BTreeSet<_> = self.signatures.iter().collect();
        if distinct.is_empty() || distinct.len() != self.signatures.len() {
            return Err(fault("/signatures", "`v1`, `v1a` or both, each once"));
        }
        notify::check(&self.notify, means)
    }

    /// Members that are in the contract and wait for schemas, and members that nobody knows.
    fn check_unbuilt(&self) -> Result<(), Fault> {
        if self.filter.is_some() {
            return Err(fault("/filter", "null: filters in CEL come with schemas"));
        }
        if self.versions.len() > VERSIONS_MAX {
            return Err(fault("/versions", format!("at most {VERSIONS_MAX}")));
        }
        for (name, version) in &self.versions {
            let pointer = format!("/versions/{}", name.replace('~', "~0").replace('/', "~1"));
            EventType::parse(name).map_err(|error| fault(pointer.clone(), error))?;
            if *version != 1 {
                return Err(fault(pointer, "1: other versions come with schemas"));
            }
        }
        let of = |prefix: &str, newer: &Map<String, Value>| newer.keys().next().map(|name| format!("{prefix}{name}"));
        match of("/", &self.newer).or_else(|| of("/retry/", &self.retry.newer)) {
            Some(pointer) => Err(fault(pointer, "a webhook has no such member")),
            None => Ok(()),
        }
    }

    /// Which events it wants, within walls.
    pub(crate) fn filter(&self, confined: Option<&[Channel]>) -> Filter {
        Filter {
            types: self.event_types.clone(),
            channels: self.channels.clone(),
            aggregate: self.aggregate_id.clone(),
            confined: confined.map(<[Channel]>::to_vec),
        }
    }

    /// What it asks of its lane.
    pub(super) fn lane(&self) -> lane::Settings {
        lane::Settings {
            schedule: self.retry.schedule.clone(),
            max_concurrency: self.max_concurrency,
            ordering: self.ordering,
            on_exhausted: self.retry.on_exhausted,
            deactivate_after: self.deactivate_after,
            rate: self.rate_limit,
            pull: None,
        }
    }

    pub(super) fn signs(&self, signature: Signature) -> bool {
        self.signatures.contains(&signature)
    }
}

fn fault(pointer: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Fault {
    (pointer.into(), message.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_newer_version_kept_is_loaded_and_written_back() {
        let kept = json!({"url": "https://example.com/", "shiny": {"a": 1}, "retry": {"schedule": ["1s"], "later": 5}});
        let settings: Settings = serde_json::from_value(kept).unwrap();
        let written = serde_json::to_value(&settings).unwrap();
        assert_eq!((&written["shiny"]["a"], &written["retry"]["later"]), (&json!(1), &json!(5)));
        assert!(settings.check_unbuilt().unwrap_err().0.contains("/shiny"));
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings: Settings = serde_json::from_value(json!({"url": "https://example.com/"})).unwrap();
        let expected = json!({
            "url": "https://example.com/", "eventTypes": [], "channels": [], "aggregateId": null, "filter": null,
            "description": "", "versions": {}, "format": "envelope", "signatures": ["v1"], "ordering": "aggregate",
            "retry": {"schedule": ["1m", "5m", "30m", "2h", "1d"], "onExhausted": "skip"}, "deactivateAfter": 5,
            "timeout": "15s", "maxConcurrency": 16, "rateLimit": null, "notify": [],
        });
        assert_eq!(serde_json::to_value(&settings).unwrap(), expected);
    }
}
