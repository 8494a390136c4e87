//! What is kept of a webhook, and what is shown of it.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidings_core::circuit::Status;
use tidings_core::event::Channel;
use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_core::secret::{SecretKey, SigningSecret};
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::LaneStatus;

use super::means::Means;
use super::settings::{Draft, Settings, Signature};
use crate::clock;

/// Secrets that were rotated out and still sign.
pub(crate) const FORMER_MAX: usize = 3;

/// What is kept of a webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: Box<str>,
    pub(crate) tenant: TenantName,
    pub(crate) created_at: Timestamp,
    pub(crate) start: Offset,
    pub(crate) settings: Settings,
    /// Names, and values, sealed.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The only channels it sees: those of the key that made it.
    pub(crate) confined: Option<Vec<Channel>>,
    /// The signing secret, sealed.
    secret: String,
    /// The key of `v1a`, sealed, once it was asked for.
    #[serde(default)]
    key: Option<String>,
    /// Those that were rotated out, the newest last.
    #[serde(default)]
    former: Vec<Former>,
    /// What a newer version kept.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

/// A secret that was rotated out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Former {
    secret: String,
    #[serde(default)]
    key: Option<String>,
    /// It signs until then.
    until: Timestamp,
}

/// What a webhook signs with.
pub(crate) struct Secrets {
    pub(crate) secret: SigningSecret,
    pub(crate) key: Option<SecretKey>,
    /// Until when; `None`: until it is rotated out.
    pub(crate) until: Option<Timestamp>,
}

impl Record {
    /// A new webhook.
    pub(super) fn new(
        means: &Means,
        tenant: TenantName,
        draft: Draft,
        secret: &SigningSecret,
        start: Offset,
        confined: Option<Vec<Channel>>,
        now: Timestamp,
    ) -> Self {
        let id: Box<str> = format!("wh_{}", tidings_core::id::uuid_v7(now, clock::random()).simple()).into();
        let sealed = means.seal(&id, "secret", &secret.expose());
        let mut record = Self {
            id,
            tenant,
            created_at: now,
            start,
            settings: draft.settings.clone(),
            headers: BTreeMap::new(),
            confined,
            secret: sealed,
            key: None,
            former: Vec::new(),
            newer: Map::new(),
        };
        record.set(means, draft);
        record
    }

    /// Gives it other settings.
    pub(super) fn set(&mut self, means: &Means, draft: Draft) {
        self.settings = draft.settings;
        let seal = |(name, value): (String, String)| {
            let sealed = means.seal(&self.id, &header_place(&name), &value);
            (name, sealed)
        };
        self.headers = draft.headers.into_iter().map(seal).collect();
        if self.settings.signs(Signature::V1a) && self.key.is_none() {
            self.key = Some(self.new_key(means));
        }
    }

    /// Rotates its secrets: what it has signs until `until`, if that is to come. False: too many sign already.
    pub(super) fn rotate(&mut self, means: &Means, secret: &SigningSecret, until: Timestamp, now: Timestamp) -> bool {
        self.former.retain(|former| former.until > now);
        if until > now {
            if self.former.len() == FORMER_MAX {
                return false;
            }
            self.former.push(Former { secret: self.secret.clone(), key: self.key.clone(), until });
        }
        self.secret = means.seal(&self.id, "secret", &secret.expose());
        if self.key.is_some() {
            self.key = Some(self.new_key(means));
        }
        true
    }

    fn new_key(&self, means: &Means) -> String {
        means.seal(&self.id, "key", &SecretKey::from_random(clock::random()).expose())
    }

    /// What it signs with at `now`, the current ones first.
    pub(crate) fn secrets(&self, means: &Means, now: Timestamp) -> Result<Vec<Secrets>> {
        let open = |secret: &str, key: Option<&String>, until| {
            let secret =
                SigningSecret::parse(&means.open(&self.id, "secret", secret)?).map_err(|error| anyhow!(error))?;
            let key = key.filter(|_| self.settings.signs(Signature::V1a));
            let key = key.map(|sealed| means.open(&self.id, "key", sealed)).transpose()?;
            let key = key.map(|text| SecretKey::parse(&text)).transpose().map_err(|error| anyhow!(error))?;
            Ok(Secrets { secret, key, until })
        };
        let former = self.former.iter().rev().filter(|former| former.until > now);
        std::iter::once(open(&self.secret, self.key.as_ref(), None))
            .chain(former.map(|former| open(&former.secret, former.key.as_ref(), Some(former.until))))
            .collect()
    }

    /// Its headers in clear.
    pub(super) fn headers(&self, means: &Means) -> Result<BTreeMap<String, String>> {
        let open = |(name, sealed): (&String, &String)| {
            let value = means.open(&self.id, &header_place(name), sealed)?;
            Ok((name.clone(), value.to_string()))
        };
        self.headers.iter().map(open).collect()
    }

    /// Which events it gets.
    pub(crate) fn filter(&self) -> Filter {
        self.settings.filter(self.confined.as_deref())
    }

    /// What may be shown of it.
    pub(crate) fn redacted(&self) -> Value {
        let mut shown = json!({ "id": self.id, "createdAt": self.created_at, "startFrom": self.start });
        if let (Value::Object(shown), Ok(Value::Object(settings))) = (&mut shown, serde_json::to_value(&self.settings))
        {
            shown.extend(settings);
        }
        shown["headers"] = self.headers.keys().map(|name| (name.clone(), Value::Null)).collect::<Map<_, _>>().into();
        shown
    }

    /// That, and how it stands.
    pub(super) fn listing(&self, lane: Option<LaneStatus>) -> Value {
        let mut shown = self.redacted();
        let runs = lane.is_some();
        let lane = lane.unwrap_or_default();
        let (since, reason) = match &lane.standing.status {
            Status::Active if runs => (None, None),
            Status::Active => (None, Some("it cannot run, the server's log says why")),
            Status::Paused { since } => (Some(*since), None),
            Status::Deactivated { since, reason } => (Some(*since), Some(&**reason)),
        };
        let circuit = &lane.standing.circuit;
        shown["status"] = lane.standing.status.name().into();
        shown["statusReason"] = reason.into();
        shown["since"] = json!(since.unwrap_or(self.created_at));
        shown["lag"] = lane.lag.into();
        shown["pending"] = lane.pending.into();
        shown["parked"] = lane.parked.into();
        shown["deadLetters"] = lane.dead.into();
        shown["circuit"] = json!({
            "state": if circuit.probe().is_some() { "open" } else { "closed" },
            "failures": circuit.failures(),
            "round": circuit.round(),
            "nextProbe": circuit.probe(),
        });
        shown
    }
}

fn header_place(name: &str) -> String {
    format!("header/{}", name.to_ascii_lowercase())
}
