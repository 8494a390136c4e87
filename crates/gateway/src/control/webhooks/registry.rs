//! All webhooks: in memory, in the log, and as subscriptions of the dispatcher.

use std::sync::Arc;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::RwLock;
use serde_json::Value;
use tidings_core::event::Channel;
use tidings_core::offset::Offset;
use tidings_core::secret::SigningSecret;
use tidings_core::tenant::TenantName;
use tidings_engine::dispatcher::{Dispatcher, LaneStatus, Subscription, opening};
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write};
use tidings_log::{CommitError, Tenant};
use tokio::sync::Mutex;

use super::means::Means;
use super::record::Record;
use super::settings::Draft;
use super::sink::Way;
use super::{Verdict, notify, sample};
use crate::clock;
use crate::control::audit::{self, Actor};

/// Documents read at once when the registry is loaded.
const PAGE: usize = 1_000;

/// All webhooks, in memory.
pub(crate) struct Webhooks {
    by_id: RwLock<HashMap<Box<str>, Entry>>,
    pub(crate) store: Arc<dyn Store>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(crate) means: Means,
}

#[derive(Clone)]
struct Entry {
    record: Arc<Record>,
    /// Whoever changes it, or has it do something that takes time, waits here.
    turn: Arc<Mutex<()>>,
}

/// What a new webhook is to be.
pub(crate) struct New {
    pub(crate) draft: Draft,
    pub(crate) secret: SigningSecret,
    /// It gets what comes after this.
    pub(crate) start: Offset,
    pub(crate) confined: Option<Vec<Channel>>,
}

impl Webhooks {
    pub(crate) fn new(store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>, means: Means) -> Self {
        Self { by_id: RwLock::default(), store, dispatcher, means }
    }

    /// Reads all webhooks and starts their lanes.
    pub(crate) async fn load(&self) -> Result<()> {
        let mut after = String::new();
        loop {
            let page = self.store.list(Kind::Webhook, None, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.to_string();
            for document in page {
                let Owner::Tenant(tenant) = document.owner else { continue };
                match serde_json::from_slice::<Record>(&document.body) {
                    Ok(record) => self.install(tenant, Arc::new(record)),
                    // Its events wait on the log; the others must not.
                    Err(error) => tracing::error!(webhook = &*document.id, %error, "a webhook cannot be read"),
                }
            }
        }
    }

    /// Has a webhook run as it is in `record`, from now on.
    pub(super) fn install(&self, tenant: Tenant, record: Arc<Record>) {
        let head = self.store.extent(tenant).head;
        let mut by_id = self.by_id.write();
        if let Some(subscription) = told(&record.id, self.subscription(tenant, &record)) {
            self.dispatcher.start(subscription);
        }
        for (number, target) in notify::targets(&record, &self.means).into_iter().enumerate() {
            let subscription = notify::subscription((tenant, head), &record, &self.means, number, target);
            if let Some(subscription) = told(&notify::id(&record.id, number), subscription) {
                self.dispatcher.start(subscription);
            }
        }
        let turn = by_id.get(&record.id).map(|entry| Arc::clone(&entry.turn)).unwrap_or_default();
        by_id.insert(record.id.clone(), Entry { record, turn });
    }

    fn subscription(&self, tenant: Tenant, record: &Record) -> Result<Subscription> {
        Ok(Subscription {
            id: record.id.clone(),
            tenant,
            filter: record.filter(),
            start: record.start,
            settings: record.settings.lane(),
            told: true,
            sink: Way::own(record, &self.means).sink(record, &self.means)?,
        })
    }

    /// Makes a webhook.
    pub(crate) async fn create(
        &self,
        (tenant, name): (Tenant, TenantName),
        new: New,
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let now = clock::now();
        let New { draft, secret, start, confined } = new;
        let record = Record::new(&self.means, name, draft, &secret, start, confined, now);
        let mut writes = vec![put(tenant, &record, Expect::New), opening(&record.id, tenant, start)];
        let head = self.store.extent(tenant).head;
        let targets = 0..notify::targets(&record, &self.means).len();
        writes.extend(targets.map(|number| opening(&notify::id(&record.id, number), tenant, head)));
        writes.push(audit::append(tenant, "tidings.webhook.created", actor, &record.redacted(), now)?);
        self.store.commit(now, writes).await?;
        let record = Arc::new(record);
        self.install(tenant, Arc::clone(&record));
        Ok(record)
    }

    /// The only one that may change a webhook, until it drops what it got.
    pub(crate) fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        self.by_id.read().get(id).map(|entry| Arc::clone(&entry.turn)).unwrap_or_default()
    }

    pub(super) fn forget(&self, id: &str) {
        self.by_id.write().remove(id);
    }

    /// How many webhooks a tenant has.
    pub(crate) fn count(&self, tenant: &TenantName) -> usize {
        self.by_id.read().values().filter(|entry| entry.record.tenant == *tenant).count()
    }

    /// A webhook of `tenant`.
    pub(crate) fn get(&self, tenant: &TenantName, id: &str) -> Option<Arc<Record>> {
        let by_id = self.by_id.read();
        by_id.get(id).map(|entry| &entry.record).filter(|record| record.tenant == *tenant).cloned()
    }

    /// A tenant's webhooks after `after`, by id, which is by age.
    pub(crate) fn list(&self, tenant: &TenantName, after: &str) -> Vec<Arc<Record>> {
        let by_id = self.by_id.read();
        let records = by_id.values().map(|entry| &entry.record);
        let mut found: Vec<_> =
            records.filter(|record| record.tenant == *tenant && *record.id > *after).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// How a webhook stands; `None`: it cannot run.
    pub(crate) fn status(&self, id: &str) -> Option<LaneStatus> {
        self.dispatcher.status(id)
    }

    /// What is shown of a webhook.
    pub(crate) fn listing(&self, record: &Record) -> Value {
        record.listing(self.status(&record.id))
    }

    /// Sends a webhook a sample.
    pub(crate) async fn test(&self, record: &Record) -> Result<Verdict> {
        sample::send(record, &self.means).await
    }
}

/// What keeps a webhook.
pub(super) fn put(tenant: Tenant, record: &Record, expect: Expect) -> Write {
    let body = serde_json::to_vec(record).unwrap_or_default();
    let (kind, owner, id) = (Kind::Webhook, Owner::Tenant(tenant), record.id.clone());
    Write::Put(Document { kind, owner, id, revision: 0, body }, expect)
}

/// Its own faults do not end the server: they are told, and the events wait on the log.
fn told(id: &str, subscription: Result<Subscription>) -> Option<Subscription> {
    subscription.inspect_err(|error| tracing::error!(webhook = id, %error, "a webhook cannot run")).ok()
}
