//! Webhooks: made, listed, removed; each runs as a lane of the dispatcher.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane::Ordering;
use tidings_core::offset::Offset;
use tidings_core::retry::Schedule;
use tidings_core::seal::SealingKey;
use tidings_core::secret::SigningSecret;
use tidings_core::tenant::TenantName;
use tidings_core::time::{Timestamp, format_duration, parse_duration};
use tidings_egress::{Door, Policy, Target};
use tidings_engine::dispatcher::{Dispatcher, Subscription};
use tidings_log::store::{Attempt, Document, Expect, Kind, Owner, Store, Write};
use tidings_log::{CommitError, Event, Tenant};
use tidings_sinks::webhook::{Format, Headers, Webhook};

use super::audit::{self, Actor};
use super::{Fault, check_description};
use crate::clock;

/// Documents read at once when the registry is loaded.
const PAGE: usize = 1_000;
/// The longest time an endpoint may take, answer's body included.
const TIMEOUT_MAX: Duration = Duration::from_secs(20);
const CONCURRENCY_MAX: usize = 256;
const FILTER_ITEMS_MAX: usize = 100;

/// What a webhook is to be, as it is sent and kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) event_types: Vec<TypePattern>,
    #[serde(default)]
    pub(crate) channels: Vec<Channel>,
    #[serde(default)]
    pub(crate) aggregate_id: Option<AggregateId>,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(default)]
    pub(crate) ordering: Ordering,
    #[serde(default)]
    pub(crate) retry: Retry,
    #[serde(default = "timeout", with = "duration_text")]
    pub(crate) timeout: Duration,
    #[serde(default = "concurrency")]
    pub(crate) max_concurrency: usize,
}

/// When a failed delivery is tried again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Retry {
    #[serde(default)]
    pub(crate) schedule: Schedule,
}

fn timeout() -> Duration {
    Duration::from_secs(15)
}

fn concurrency() -> usize {
    16
}

mod duration_text {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

/// What is kept of a webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: Box<str>,
    pub(crate) tenant: TenantName,
    pub(crate) created_at: Timestamp,
    pub(crate) start: Offset,
    pub(crate) settings: Settings,
    /// The only channels it sees: those of the key that made it.
    pub(crate) confined: Option<Vec<Channel>>,
    /// The signing secret, sealed; the webhook's id is bound to it.
    secret: String,
}

/// All webhooks, in memory.
pub(crate) struct Webhooks {
    by_id: RwLock<HashMap<Box<str>, Arc<Record>>>,
    store: Arc<dyn Store>,
    sealing: SealingKey,
    dispatcher: Arc<Dispatcher>,
    door: Arc<Door>,
    keep_answers: bool,
}

impl Settings {
    /// What the types do not say yet.
    pub(crate) fn check(&self, policy: &Policy) -> Result<(), Fault> {
        Target::parse(&self.url, policy).map_err(|error| ("/url", error))?;
        check_description(&self.description)?;
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return Err(("/timeout", "from 1ms to 20s".to_owned()));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.max_concurrency) {
            return Err(("/maxConcurrency", format!("from 1 to {CONCURRENCY_MAX}")));
        }
        for (pointer, items) in [("/eventTypes", self.event_types.len()), ("/channels", self.channels.len())] {
            if items > FILTER_ITEMS_MAX {
                return Err((pointer, format!("at most {FILTER_ITEMS_MAX}")));
            }
        }
        Ok(())
    }
}

impl Webhooks {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        sealing: SealingKey,
        dispatcher: Arc<Dispatcher>,
        door: Arc<Door>,
        keep_answers: bool,
    ) -> Self {
        Self { by_id: RwLock::default(), store, sealing, dispatcher, door, keep_answers }
    }

    /// Where webhooks may go.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.door.policy()
    }

    /// Reads all webhooks and starts their lanes.
    pub(crate) async fn load(&self) -> Result<()> {
        let mut after = String::new();
        loop {
            let page = self.store.list(Kind::Webhook, None, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.to_string();
            for document in page {
                let record: Record = serde_json::from_slice(&document.body)?;
                let Owner::Tenant(tenant) = document.owner else { continue };
                self.start(tenant, &record)?;
                self.by_id.write().insert(record.id.clone(), Arc::new(record));
            }
        }
    }

    fn start(&self, tenant: Tenant, record: &Record) -> Result<()> {
        let settings = &record.settings;
        let secret = SigningSecret::parse(&self.secret(record)?).map_err(anyhow::Error::msg)?;
        let sink_settings = tidings_sinks::webhook::Settings {
            target: Target::parse(&settings.url, &self.door.policy()).map_err(anyhow::Error::msg)?,
            secrets: vec![secret],
            keys: Vec::new(),
            format: settings.format,
            headers: Headers::default(),
            timeout: settings.timeout,
            keep_answers: self.keep_answers,
        };
        let sink = Webhook::new(Arc::clone(&self.door), sink_settings, clock::now);
        self.dispatcher.start(Subscription {
            id: record.id.clone(),
            tenant,
            filter: filter(record),
            start: record.start,
            schedule: settings.retry.schedule.clone(),
            max_concurrency: settings.max_concurrency,
            ordering: settings.ordering,
            sink: Arc::new(sink),
        });
        Ok(())
    }

    /// Makes a webhook that gets what comes after `start`; the second value is its secret.
    pub(crate) async fn create(
        &self,
        tenant: (Tenant, TenantName),
        settings: Settings,
        secret: SigningSecret,
        start: Offset,
        confined: Option<Vec<Channel>>,
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let now = clock::now();
        let (number, name) = tenant;
        let id: Box<str> = format!("wh_{}", tidings_core::id::uuid_v7(now, clock::random()).simple()).into();
        let sealed = self.sealing.seal(clock::random(), &aad(&id), secret.expose().as_bytes());
        let record = Record { id, tenant: name, created_at: now, start, settings, confined, secret: sealed };
        let body = serde_json::to_vec(&record).unwrap_or_default();
        let document =
            Document { kind: Kind::Webhook, owner: Owner::Tenant(number), id: record.id.clone(), revision: 0, body };
        let audit = audit::append(number, "tidings.webhook.created", actor, &redacted(&record), now)?;
        self.store.commit(now, vec![Write::Put(document, Expect::New), audit]).await?;
        let record = Arc::new(record);
        self.by_id.write().insert(record.id.clone(), Arc::clone(&record));
        if let Err(error) = self.start(number, &record) {
            tracing::error!(webhook = %record.id, %error, "a webhook cannot start");
        }
        Ok(record)
    }

    /// Removes a webhook of `tenant`; false if it has none of this id.
    pub(crate) async fn remove(
        &self,
        tenant: (Tenant, &TenantName),
        id: &str,
        actor: &Actor,
    ) -> Result<bool, CommitError> {
        let Some(record) = self.get(tenant.1, id) else { return Ok(false) };
        self.dispatcher.stop(id).await;
        let now = clock::now();
        let audit = audit::append(tenant.0, "tidings.webhook.deleted", actor, &redacted(&record), now)?;
        let writes =
            vec![Write::Remove(Kind::Webhook, Owner::Tenant(tenant.0), id.into()), Write::Forget(id.into()), audit];
        self.store.commit(now, writes).await?;
        self.by_id.write().remove(id);
        Ok(true)
    }

    /// How many webhooks a tenant has.
    pub(crate) fn count(&self, tenant: &TenantName) -> usize {
        self.by_id.read().values().filter(|record| record.tenant == *tenant).count()
    }

    /// A webhook of `tenant`.
    pub(crate) fn get(&self, tenant: &TenantName, id: &str) -> Option<Arc<Record>> {
        self.by_id.read().get(id).filter(|record| record.tenant == *tenant).cloned()
    }

    /// A tenant's webhooks after `after`, by id, which is by age.
    pub(crate) fn list(&self, tenant: &TenantName, after: &str, limit: usize) -> Vec<Arc<Record>> {
        let mut found: Vec<_> = self
            .by_id
            .read()
            .values()
            .filter(|record| record.tenant == *tenant && *record.id > *after)
            .cloned()
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.truncate(limit);
        found
    }

    /// The signing secret in clear.
    pub(crate) fn secret(&self, record: &Record) -> Result<String> {
        let plain = self.sealing.open(&aad(&record.id), &record.secret)?;
        Ok(String::from_utf8(plain.to_vec())?)
    }

    /// What became of one event at a webhook; `None` if it is not for it.
    pub(crate) fn delivery(record: &Record, event: &Event, attempts: &[Attempt]) -> Option<Value> {
        if event.offset <= record.start || !filter(record).matches(&event.subject) {
            return None;
        }
        let made: Vec<_> = attempts.iter().filter(|attempt| *attempt.subscription == *record.id).collect();
        let delivered = made.iter().any(|attempt| attempt.reason.is_none());
        let spent = made.len() > record.settings.retry.schedule.steps().len();
        let status = match (made.is_empty(), delivered, spent) {
            (_, true, _) => "delivered",
            (_, _, true) => "dead",
            (true, _, _) => "pending",
            (false, ..) => "retrying",
        };
        let reason = if delivered { None } else { made.last().and_then(|attempt| attempt.reason.clone()) };
        let attempts: Vec<_> = made
            .iter()
            .map(|attempt| {
                json!({
                    "number": attempt.number,
                    "at": attempt.at,
                    "latencyMs": attempt.latency_ms,
                    "status": attempt.status,
                    "reason": attempt.reason,
                })
            })
            .collect();
        Some(
            json!({ "webhook": record.id, "url": record.settings.url, "status": status, "reason": reason, "attempts": attempts }),
        )
    }

    /// What is shown of a webhook.
    pub(crate) fn listing(&self, record: &Record) -> Value {
        let mut shown = redacted(record);
        let head = self.store.tenant(&record.tenant).map_or(Offset(0), |tenant| self.store.extent(tenant).head);
        let lane = self.dispatcher.status(&record.id);
        let cursor = lane.as_ref().map_or(record.start, |lane| lane.cursor);
        shown["status"] = "active".into();
        shown["lag"] = head.0.saturating_sub(cursor.0).into();
        shown["waiting"] = lane.as_ref().map_or(0, |lane| lane.waiting).into();
        shown["deadLetters"] = lane.as_ref().map_or(0, |lane| lane.dead).into();
        shown
    }
}

fn filter(record: &Record) -> Filter {
    Filter {
        types: record.settings.event_types.clone(),
        channels: record.settings.channels.clone(),
        aggregate: record.settings.aggregate_id.clone(),
        confined: record.confined.clone(),
    }
}

fn aad(id: &str) -> String {
    format!("webhook/{id}/secret")
}

fn redacted(record: &Record) -> Value {
    let mut shown = json!({ "id": record.id, "createdAt": record.created_at, "startFrom": record.start });
    if let (Value::Object(shown), Ok(Value::Object(settings))) = (&mut shown, serde_json::to_value(&record.settings)) {
        shown.extend(settings);
    }
    shown
}
