//! Changes of webhooks: settings, secrets, orders, their end. Each commits together with what the audit trail tells.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tidings_core::secret::SigningSecret;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::{Order, Outcome, opening};
use tidings_log::store::{Expect, Kind, Owner, Write};
use tidings_log::{CommitError, Tenant};

use super::notify;
use super::record::Record;
use super::registry::{Webhooks, put};
use super::settings::Draft;
use crate::clock;
use crate::control::audit::{self, Actor};

impl Webhooks {
    /// A webhook's settings, with the headers in clear: what a change begins with.
    pub(crate) fn draft(&self, record: &Record) -> Result<Draft> {
        Ok(Draft { settings: record.settings.clone(), headers: record.headers(&self.means)? })
    }

    /// Gives a webhook other settings. The caller has its turn.
    pub(crate) async fn change(
        &self,
        tenant: Tenant,
        record: &Record,
        draft: Draft,
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let mut changed = record.clone();
        changed.set(&self.means, draft);
        let what = json!({ "id": record.id, "before": record.redacted(), "after": changed.redacted() });
        self.replace(tenant, record, changed, ("tidings.webhook.updated", what), actor).await
    }

    /// Gives a webhook another secret; `None`: too many sign already. The caller has its turn.
    pub(crate) async fn rotate(
        &self,
        tenant: Tenant,
        record: &Record,
        secret: &SigningSecret,
        until: Timestamp,
        actor: &Actor,
    ) -> Result<Option<Arc<Record>>, CommitError> {
        let mut changed = record.clone();
        if !changed.rotate(&self.means, secret, until, clock::now()) {
            return Ok(None);
        }
        let what = json!({ "id": record.id, "formerSignsUntil": until });
        self.replace(tenant, record, changed, ("tidings.webhook.secret_rotated", what), actor).await.map(Some)
    }

    async fn replace(
        &self,
        tenant: Tenant,
        before: &Record,
        after: Record,
        (event_type, what): (&'static str, Value),
        actor: &Actor,
    ) -> Result<Arc<Record>, CommitError> {
        let now = clock::now();
        let mut writes = vec![put(tenant, &after, Expect::Any)];
        let (old, new) = (notify::targets(before, &self.means), notify::targets(&after, &self.means));
        let head = self.store.extent(tenant).head;
        for number in 0..old.len().max(new.len()) {
            if old.get(number) == new.get(number) {
                continue;
            }
            // What was not told to one is not for another.
            let id = notify::id(&after.id, number);
            self.dispatcher.stop(&id).await;
            writes.extend(forgetting(tenant, &id));
            writes.extend(new.get(number).map(|_| opening(&id, tenant, head)));
        }
        writes.push(audit::append(tenant, event_type, actor, &what, now)?);
        let committed = self.store.commit(now, writes).await;
        let after = Arc::new(if committed.is_ok() { after } else { before.clone() });
        self.install(tenant, Arc::clone(&after), false);
        committed.map(|_| after)
    }

    /// Removes a webhook, after what is in flight has settled. The caller has its turn.
    pub(crate) async fn remove(&self, tenant: Tenant, record: &Arc<Record>, actor: &Actor) -> Result<(), CommitError> {
        let mut ids: Vec<Box<str>> = vec![record.id.clone()];
        ids.extend((0..notify::targets(record, &self.means).len()).map(|number| notify::id(&record.id, number)));
        for id in &ids {
            self.dispatcher.stop(id).await;
        }
        let removed = self.commit_removal(tenant, record, &ids, actor).await;
        match removed {
            Ok(()) => self.forget(record),
            Err(_) => self.install(tenant, Arc::clone(record), false),
        }
        removed
    }

    async fn commit_removal(
        &self,
        tenant: Tenant,
        record: &Record,
        ids: &[Box<str>],
        actor: &Actor,
    ) -> Result<(), CommitError> {
        let now = clock::now();
        let mut writes = vec![Write::Remove(Kind::Webhook, Owner::Tenant(tenant), record.id.clone())];
        writes.extend(ids.iter().flat_map(|id| forgetting(tenant, id)));
        writes.extend(self.replays(tenant, &record.id).await?.iter().map(|job| job.remove(tenant)));
        writes.push(audit::append(tenant, "tidings.webhook.deleted", actor, &record.redacted(), now)?);
        self.store.commit(now, writes).await.map(drop)
    }

    /// Has something done to a webhook or a target of it; `None`: it does not run.
    pub(crate) async fn order(
        &self,
        tenant: Tenant,
        subscription: &str,
        order: Order,
        (event_type, what): (&'static str, Value),
        actor: &Actor,
    ) -> Result<Option<Outcome>, CommitError> {
        let audit = audit::append(tenant, event_type, actor, &what, clock::now())?;
        self.dispatcher.order(subscription, order, vec![audit]).await.transpose()
    }
}

/// What takes away all that is kept of a subscription.
pub(crate) fn forgetting(tenant: Tenant, id: &str) -> [Write; 2] {
    [Write::Forget(id.into()), Write::Remove(Kind::Standing, Owner::Tenant(tenant), id.into())]
}
