//! All webhooks: in memory, in the log, and as subscriptions of the dispatcher.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::RwLock;
use serde_json::Value;
use tidings_core::event::Channel;
use tidings_core::offset::Offset;
use tidings_core::secret::SigningSecret;
use tidings_core::tenant::TenantName;
use tidings_engine::dispatcher::{Dispatcher, LaneStatus, Subscriber, Subscription, opening};
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write, walk};
use tidings_log::{CommitError, Tenant};
use tokio::sync::Mutex;

use super::means::Means;
use super::record::Record;
use super::settings::Draft;
use super::sink::lazily;
use super::traced::traced;
use super::{Verdict, notify, sample};
use crate::clock;
use crate::control::audit::{self, Actor};

/// All webhooks, in memory.
pub(crate) struct Webhooks {
    /// Of each tenant, by id, which is by age: what is asked of one tenant costs nothing for the others.
    by_tenant: RwLock<HashMap<TenantName, BTreeMap<Box<str>, Entry>>>,
    pub(crate) store: Arc<dyn Store>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(crate) means: Arc<Means>,
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
        Self { by_tenant: RwLock::default(), store, dispatcher, means: Arc::new(means) }
    }

    /// Reads all webhooks and starts their lanes.
    pub(crate) async fn load(&self) -> Result<()> {
        let load = |tenant, document: Document| match serde_json::from_slice::<Record>(&document.body) {
            Ok(record) => self.install(tenant, Arc::new(record), false),
            // Its events wait on the log; the others must not.
            Err(error) => tracing::error!(webhook = &*document.id, %error, "a webhook cannot be read"),
        };
        Ok(walk(&*self.store, Kind::Webhook, load).await?)
    }

    /// Has a webhook run as it is in `record`, from now on; `fresh`: it was made just now.
    pub(super) fn install(&self, tenant: Tenant, record: Arc<Record>, fresh: bool) {
        let head = self.store.extent(tenant).head;
        let mut by_tenant = self.by_tenant.write();
        if let Some(subscription) = told(&record.id, self.subscription(tenant, &record, fresh)) {
            self.dispatcher.start(subscription);
        }
        for (number, target) in notify::targets(&record, &self.means).into_iter().enumerate() {
            let subscription = notify::subscription((tenant, head), &record, &self.means, number, target);
            if let Some(subscription) = told(&notify::id(&record.id, number), subscription) {
                self.dispatcher.start(subscription);
            }
        }
        let of_tenant = by_tenant.entry(record.tenant.clone()).or_default();
        let turn = of_tenant.get(&record.id).map(|entry| Arc::clone(&entry.turn)).unwrap_or_default();
        of_tenant.insert(record.id.clone(), Entry { record, turn });
    }

    fn subscription(&self, tenant: Tenant, record: &Arc<Record>, fresh: bool) -> Result<Subscription> {
        Ok(Subscription {
            id: record.id.clone(),
            tenant,
            filter: record.filter().into(),
            start: record.start,
            fresh,
            settings: record.settings.lane(),
            subscriber: Subscriber::Webhook,
            told: true,
            sink: traced(&record.id, lazily(record, None, &self.means)?, &self.means),
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
        self.install(tenant, Arc::clone(&record), true);
        Ok(record)
    }

    /// The only one that may change a webhook, until it drops what it got.
    pub(crate) fn turn(&self, record: &Record) -> Arc<Mutex<()>> {
        let by_tenant = self.by_tenant.read();
        let entry = by_tenant.get(&record.tenant).and_then(|of_tenant| of_tenant.get(&record.id));
        entry.map(|entry| Arc::clone(&entry.turn)).unwrap_or_default()
    }

    pub(super) fn forget(&self, record: &Record) {
        let mut by_tenant = self.by_tenant.write();
        let Some(of_tenant) = by_tenant.get_mut(&record.tenant) else { return };
        of_tenant.remove(&record.id);
        if of_tenant.is_empty() {
            by_tenant.remove(&record.tenant);
        }
    }

    /// How many webhooks a tenant has.
    pub(crate) fn count(&self, tenant: &TenantName) -> usize {
        self.by_tenant.read().get(tenant).map_or(0, BTreeMap::len)
    }

    /// A webhook of `tenant`.
    pub(crate) fn get(&self, tenant: &TenantName, id: &str) -> Option<Arc<Record>> {
        self.by_tenant.read().get(tenant)?.get(id).map(|entry| Arc::clone(&entry.record))
    }

    /// A tenant's webhooks after `after`, by id, which is by age.
    pub(crate) fn list(&self, tenant: &TenantName, after: &str) -> Vec<Arc<Record>> {
        let by_tenant = self.by_tenant.read();
        let Some(of_tenant) = by_tenant.get(tenant) else { return Vec::new() };
        let found = of_tenant.range::<str, _>((Excluded(after), Unbounded));
        found.map(|(_, entry)| Arc::clone(&entry.record)).collect()
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
