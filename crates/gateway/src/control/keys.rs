//! API keys: made, listed, revoked, and looked up on every request.

use std::sync::Arc;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tidings_core::event::Channel;
use tidings_core::key::{ApiKey, Scope};
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::streams::guest::{Ending, Pass};
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write};

use super::audit::{self, Actor};
use super::{Fault, check_description};
use crate::clock;

/// Documents read at once when the registry is loaded.
const PAGE: usize = 1_000;
/// Channels that a key can be confined to.
const CHANNELS_MAX: usize = 100;

/// What is kept of a key. The secret itself is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) id: Box<str>,
    pub(crate) environment: Box<str>,
    /// Whose; `None` is an operator's.
    pub(crate) tenant: Option<TenantName>,
    pub(crate) scopes: Vec<Scope>,
    /// The only channels it sees; `None`: all.
    pub(crate) channels: Option<Vec<Channel>>,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    digest: [u8; 32],
}

/// What a new key is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewKey {
    /// Whose; an operator's if it has scope `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<TenantName>,
    pub(crate) scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<Vec<Channel>>,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
}

impl NewKey {
    /// What the types do not say.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Fault> {
        if self.scopes.is_empty() || self.scopes.len() > Scope::ALL.len() {
            return Err(("/scopes".into(), format!("name 1 to {} scopes", Scope::ALL.len())));
        }
        if self.scopes.contains(&Scope::Admin) && self.tenant.is_some() {
            return Err(("/tenant".into(), "an operator's key (scope `admin`) belongs to no tenant".to_owned()));
        }
        if self.channels.as_ref().is_some_and(|channels| channels.len() > CHANNELS_MAX) {
            return Err(("/channels".into(), format!("at most {CHANNELS_MAX}")));
        }
        check_description(&self.description)?;
        if self.expires_at.is_some_and(|expires| expires <= now) {
            return Err(("/expiresAt".into(), "a time to come".to_owned()));
        }
        Ok(())
    }
}

/// Who asks, and what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// For the audit trail.
    pub(crate) actor: Actor,
    /// Whose; `None` is an operator, who may name any tenant.
    pub(crate) tenant: Option<TenantName>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) channels: Option<Vec<Channel>>,
    /// What it makes does not outlive it.
    pub(crate) expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whoever is trusted without a key: the socket in the data folder, or anybody in `--dev`.
    pub(crate) fn operator(actor: Actor) -> Self {
        Self { actor, tenant: None, scopes: vec![Scope::Admin], channels: None, expires_at: None }
    }

    pub(crate) fn may(&self, wanted: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(wanted))
    }

    /// Whether it may know of what is confined to `channels`: one behind walls sees only what has no wider ones.
    pub(crate) fn reaches(&self, channels: Option<&[Channel]>) -> bool {
        let Some(walls) = &self.channels else { return true };
        channels.is_some_and(|channels| channels.iter().all(|channel| walls.contains(channel)))
    }
}

/// All keys, in memory.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_id: RwLock<HashMap<Box<str>, Arc<Record>>>,
}

impl Keys {
    /// Reads all keys.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let keys = Self::default();
        let mut after = String::new();
        loop {
            let page = store.list(Kind::Key, None, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(keys) };
            after = last.id.to_string();
            for document in page {
                let record: Record = serde_json::from_slice(&document.body)?;
                keys.by_id.write().insert(record.id.clone(), Arc::new(record));
            }
        }
    }

    /// Who holds `key`, if it is one of ours and still good at `now`.
    pub(crate) fn principal(&self, key: &str, now: Timestamp) -> Option<Principal> {
        let key = ApiKey::parse(key)?;
        let record = self.by_id.read().get(&key.id).cloned();
        // A digest is compared in any case, so that a wrong id takes as long as a wrong secret.
        let matches = key.matches(record.as_ref().map_or(&[0; 32], |record| &record.digest));
        let record = record.filter(|record| matches && record.environment == key.env)?;
        if record.expires_at.is_some_and(|expires| expires <= now) {
            return None;
        }
        Some(Principal {
            actor: Actor::Key(record.id.clone()),
            tenant: record.tenant.clone(),
            scopes: record.scopes.clone(),
            channels: record.channels.clone(),
            expires_at: record.expires_at,
        })
    }

    /// Whether what `actor` opened may go on.
    pub(crate) fn pass(&self, actor: &Actor) -> Pass {
        match actor {
            Actor::Key(id) => match self.by_id.read().get(id) {
                Some(record) => Pass::Good(record.expires_at),
                None => Pass::Over(Ending::Revoked),
            },
            Actor::Operator | Actor::Development => Pass::Good(None),
        }
    }

    /// Makes a key; the second value is the key itself, shown this once.
    pub(crate) async fn create(
        &self,
        store: &dyn Store,
        environment: &str,
        new: NewKey,
        actor: &Actor,
    ) -> Result<(Arc<Record>, String), tidings_log::CommitError> {
        let now = clock::now();
        let key = ApiKey::from_random(environment, clock::random());
        let record = Record {
            id: key.id.clone(),
            environment: environment.into(),
            tenant: new.tenant,
            scopes: new.scopes,
            channels: new.channels,
            description: new.description,
            created_at: now,
            expires_at: new.expires_at,
            digest: key.digest(),
        };
        let owner = owner(store, record.tenant.as_ref(), now).await?;
        let document = Document { kind: Kind::Key, owner, id: record.id.clone(), revision: 0, body: json(&record) };
        let audit =
            audit::event(store, record.tenant.as_ref(), "tidings.key.created", actor, &listing(&record), now).await?;
        store.commit(now, vec![Write::Put(document, Expect::New), audit]).await?;
        let record = Arc::new(record);
        self.by_id.write().insert(record.id.clone(), Arc::clone(&record));
        Ok((record, key.expose()))
    }

    /// Revokes a key; false if `tenant` has none of this id. It opens nothing from the answer on.
    pub(crate) async fn revoke(
        &self,
        store: &dyn Store,
        tenant: Option<&TenantName>,
        id: &str,
        actor: &Actor,
    ) -> Result<bool, tidings_log::CommitError> {
        let Some(record) = self.get(tenant, id) else { return Ok(false) };
        let now = clock::now();
        let owner = owner(store, tenant, now).await?;
        let audit = audit::event(store, tenant, "tidings.key.revoked", actor, &listing(&record), now).await?;
        store.commit(now, vec![Write::Remove(Kind::Key, owner, id.into()), audit]).await?;
        self.by_id.write().remove(id);
        Ok(true)
    }

    /// A key of a tenant, or of the operators'.
    pub(crate) fn get(&self, tenant: Option<&TenantName>, id: &str) -> Option<Arc<Record>> {
        self.by_id.read().get(id).filter(|record| record.tenant.as_ref() == tenant).cloned()
    }

    /// The keys of a tenant, or the operators', by id: those after `after`.
    pub(crate) fn list(&self, tenant: Option<&TenantName>, after: &str) -> Vec<Arc<Record>> {
        let by_id = self.by_id.read();
        let of_tenant = by_id.values().filter(|record| record.tenant.as_ref() == tenant && *record.id > *after);
        let mut found: Vec<_> = of_tenant.cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.read().is_empty()
    }
}

/// What may be shown of a key.
pub(crate) fn listing(record: &Record) -> serde_json::Value {
    serde_json::json!({
        "id": record.id,
        "prefix": format!("tdg_{}_{}", record.environment, record.id),
        "tenant": record.tenant,
        "scopes": record.scopes,
        "channels": record.channels,
        "description": record.description,
        "createdAt": record.created_at,
        "expiresAt": record.expires_at,
    })
}

/// The owner that a tenant's documents have; the tenant is made if it is new.
pub(crate) async fn owner(
    store: &dyn Store,
    tenant: Option<&TenantName>,
    now: Timestamp,
) -> Result<Owner, tidings_log::CommitError> {
    match tenant {
        None => Ok(Owner::Operator),
        Some(name) => Ok(Owner::Tenant(super::audit::tenant(store, name, now).await?)),
    }
}

fn json(record: &Record) -> Vec<u8> {
    // A record is plain data; writing it to memory cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}
