//! Consumers: made, changed, removed; each is a queue that workers fetch from, and a subscription of the dispatcher.

mod record;
mod settings;

use std::sync::Arc;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tidings_core::desk::Token;
use tidings_core::event::Channel;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_engine::consumers::{Queue, Queues};
use tidings_engine::dispatcher::{
    Dispatcher, Env, LaneStatus, Order, Outcome, Subscriber, Subscription, Word, opening,
};
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write, walk};
use tidings_log::{CommitError, Tenant};
use tokio::sync::Mutex;

pub(crate) use record::Record;
pub(crate) use settings::{ACK_WAIT_MAX, ACK_WAIT_MIN, Settings};

use super::webhooks::forgetting;
use crate::clock;
use crate::control::audit::{self, Actor};

/// All consumers, in memory.
pub(crate) struct Consumers {
    known: RwLock<Known>,
    pub(super) store: Arc<dyn Store>,
    dispatcher: Arc<Dispatcher>,
    queues: Queues,
    /// Whoever makes, changes or removes one waits here for its turn.
    pub(crate) turn: Mutex<()>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<(TenantName, Box<str>), Entry>,
    by_id: HashMap<Box<str>, Arc<Record>>,
}

struct Entry {
    record: Arc<Record>,
    queue: Arc<Queue>,
}

/// What a new consumer is to be.
pub(crate) struct New {
    pub(crate) name: Box<str>,
    pub(crate) settings: Settings,
    /// It gets what comes after this.
    pub(crate) start: Offset,
    pub(crate) confined: Option<Vec<Channel>>,
}

impl Consumers {
    pub(crate) fn new(store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>, env: Env) -> Self {
        Self { known: RwLock::default(), store, dispatcher, queues: Queues::new(env), turn: Mutex::default() }
    }

    /// Reads all consumers and starts their lanes.
    pub(crate) async fn load(&self) -> Result<()> {
        let load = |tenant, document: Document| match serde_json::from_slice::<Record>(&document.body) {
            Ok(record) => self.install(tenant, Arc::new(record), false),
            // Its events wait on the log; the others must not.
            Err(error) => tracing::error!(consumer = &*document.id, %error, "a consumer cannot be read"),
        };
        Ok(walk(&*self.store, Kind::Consumer, load).await?)
    }

    /// Takes back what workers did not answer in time, as long as it is polled.
    pub(crate) async fn run(&self) {
        self.queues.run().await;
    }

    /// Has a consumer run as it is in `record`, from now on.
    fn install(&self, tenant: Tenant, record: Arc<Record>, fresh: bool) {
        let queue = self.queues.open(&record.id, record.settings.ack_wait);
        self.dispatcher.start(Subscription {
            id: record.id.clone(),
            tenant,
            filter: record.filter().into(),
            start: record.start,
            fresh,
            settings: record.settings.lane(),
            subscriber: Subscriber::Consumer(record.name.clone()),
            told: true,
            sink: Arc::<Queue>::clone(&queue),
        });
        queue.pause(!self.status(&record.id).unwrap_or_default().standing.is_active());
        let mut known = self.known.write();
        known.by_id.insert(record.id.clone(), Arc::clone(&record));
        known.by_name.insert((record.tenant.clone(), record.name.clone()), Entry { record, queue });
    }

    /// Makes a consumer. The caller has the turn.
    pub(crate) async fn create(
        &self,
        (tenant, of): (Tenant, TenantName),
        new: New,
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let now = clock::now();
        let record = Record::new((of, new.name), new.settings, new.start, new.confined, now);
        let writes = vec![
            put(tenant, &record, Expect::New),
            opening(&record.id, tenant, record.start),
            audit::append(tenant, "tidings.consumer.created", actor, &record.told(), now)?,
        ];
        self.store.commit(now, writes).await?;
        let record = Arc::new(record);
        self.install(tenant, Arc::clone(&record), true);
        Ok(record)
    }

    /// Gives a consumer other settings; what workers have stays theirs. The caller has the turn.
    pub(crate) async fn change(
        &self,
        tenant: Tenant,
        before: &Record,
        settings: Settings,
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let now = clock::now();
        let mut after = before.clone();
        after.settings = settings;
        let what = json!({ "name": after.name, "before": before.told(), "after": after.told() });
        let audit = audit::append(tenant, "tidings.consumer.updated", actor, &what, now)?;
        self.store.commit(now, vec![put(tenant, &after, Expect::Any), audit]).await?;
        let after = Arc::new(after);
        self.install(tenant, Arc::clone(&after), false);
        Ok(after)
    }

    /// Removes a consumer, and all that is kept of it. The caller has the turn.
    pub(crate) async fn remove(&self, tenant: Tenant, record: &Arc<Record>, actor: &Actor) -> Result<(), CommitError> {
        let now = clock::now();
        self.dispatcher.stop(&record.id).await;
        let mut writes = vec![Write::Remove(Kind::Consumer, Owner::Tenant(tenant), record.name.clone())];
        writes.extend(forgetting(tenant, &record.id));
        writes.push(audit::append(tenant, "tidings.consumer.deleted", actor, &record.told(), now)?);
        if let Err(error) = self.store.commit(now, writes).await {
            self.install(tenant, Arc::clone(record), false);
            return Err(error);
        }
        self.queues.close(&record.id);
        let mut known = self.known.write();
        known.by_id.remove(&record.id);
        known.by_name.remove(&(record.tenant.clone(), record.name.clone()));
        Ok(())
    }

    /// Of all: deliveries that workers have, and fetches that wait.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.queues.totals()
    }

    /// How many consumers a tenant has.
    pub(crate) fn count(&self, tenant: &TenantName) -> usize {
        self.known.read().by_name.keys().filter(|(of, _)| of == tenant).count()
    }

    /// A consumer of `tenant`, and its queue.
    pub(crate) fn get(&self, tenant: &TenantName, name: &str) -> Option<(Arc<Record>, Arc<Queue>)> {
        let known = self.known.read();
        let entry = known.by_name.get(&(tenant.clone(), name.into()))?;
        Some((Arc::clone(&entry.record), Arc::clone(&entry.queue)))
    }

    /// The consumer of `tenant` whose subscription is called so.
    pub(crate) fn by_id(&self, tenant: &TenantName, id: &str) -> Option<Arc<Record>> {
        self.known.read().by_id.get(id).filter(|record| record.tenant == *tenant).cloned()
    }

    /// A tenant's consumers after `after`, by name.
    pub(crate) fn list(&self, tenant: &TenantName, after: &str) -> Vec<Arc<Record>> {
        self.sorted(tenant, after, |record| &record.name)
    }

    /// A tenant's consumers after `after`, by the ids of their subscriptions.
    pub(crate) fn list_by_id(&self, tenant: &TenantName, after: &str) -> Vec<Arc<Record>> {
        self.sorted(tenant, after, |record| &record.id)
    }

    fn sorted(&self, tenant: &TenantName, after: &str, key: fn(&Record) -> &str) -> Vec<Arc<Record>> {
        let known = self.known.read();
        let later = |record: &&Arc<Record>| record.tenant == *tenant && key(record) > after;
        let mut found: Vec<_> = known.by_id.values().filter(later).cloned().collect();
        found.sort_by(|a, b| key(a).cmp(key(b)));
        found
    }

    /// An event lost its data: it goes from the desks too.
    pub(crate) fn erase(&self, tenant: &TenantName, offset: Offset) {
        let known = self.known.read();
        let of_tenant = known.by_name.iter().filter(|((of, _), _)| of == tenant);
        of_tenant.for_each(|(_, entry)| entry.queue.erase(offset));
    }

    /// How a consumer stands; `None`: it does not run.
    pub(crate) fn status(&self, id: &str) -> Option<LaneStatus> {
        self.dispatcher.status(id)
    }

    /// What is shown of a consumer.
    pub(crate) fn listing(&self, record: &Record) -> Value {
        let out = self.queues.get(&record.id).map_or(0, |queue| queue.out());
        record.listing(self.status(&record.id), out)
    }

    /// Has something done to a consumer; `None`: it does not run.
    pub(crate) async fn order(
        &self,
        tenant: Tenant,
        record: &Record,
        order: Order,
        (event_type, what): (&'static str, Value),
        actor: &Actor,
    ) -> Result<Option<Outcome>, CommitError> {
        let audit = audit::append(tenant, event_type, actor, &what, clock::now())?;
        let told = self.dispatcher.order(&record.id, order, vec![audit]).await.transpose();
        if let Some(queue) = self.queues.get(&record.id) {
            queue.pause(!self.status(&record.id).unwrap_or_default().standing.is_active());
        }
        told
    }

    /// Takes workers' words that they are done, and answers once they are durable: those that count. `None`: it does not
    /// run.
    pub(crate) async fn done(
        &self,
        record: &Record,
        queue: &Queue,
        tokens: &[Token],
    ) -> Result<Option<Vec<Offset>>, CommitError> {
        let word = |token: &Token| {
            let (offset, attempt) = (token.offset, token.attempt);
            Word { offset, attempt, was_out: queue.done(*token) }
        };
        let words = tokens.iter().map(word).collect();
        let told = self.dispatcher.order(&record.id, Order::Done(words), Vec::new()).await.transpose()?;
        Ok(told.map(|outcome| match outcome {
            Outcome::Settled(offsets) => offsets,
            Outcome::Done(_) | Outcome::Pointless => Vec::new(),
        }))
    }

    /// Answers once what was said before is durable.
    pub(crate) async fn committed(&self, record: &Record) -> Result<(), CommitError> {
        self.dispatcher.order(&record.id, Order::Done(Vec::new()), Vec::new()).await.transpose().map(drop)
    }
}

/// What keeps a consumer.
fn put(tenant: Tenant, record: &Record, expect: Expect) -> Write {
    let body = serde_json::to_vec(record).unwrap_or_default();
    let (kind, owner, id) = (Kind::Consumer, Owner::Tenant(tenant), record.name.clone());
    Write::Put(Document { kind, owner, id, revision: 0, body }, expect)
}
