//! Tickets: what a browser opens a stream with.
//!
//! A ticket is sealed and says all itself, so one that is never used leaves nothing. Its first use is a document: from then
//! on it opens its stream again until it expires, also after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use foldhash::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::key::Scope;
use tidings_core::seal::SealingKey;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::streams::guest::{Ending, Pass};
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write};
use tidings_log::{CommitError, Tenant};

use super::audit::Actor;
use super::keys::{Keys, Principal};
use crate::clock;

/// How long a ticket that was used in time opens its stream.
pub(crate) const LIFETIME: Duration = Duration::from_hours(1);
/// In front of every ticket.
const PREFIX: &str = "tdt_";
/// What tickets are sealed for.
const PLACE: &str = "stream-ticket";
/// The longest text that is made, or looked at.
pub(crate) const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Documents read or removed at once.
const PAGE: usize = 1_000;

/// What a ticket says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// Unique.
    id: Box<str>,
    tenant: TenantName,
    /// Whose key made it; none: somebody at the machine.
    key: Option<Box<str>>,
    types: Vec<TypePattern>,
    channels: Vec<Channel>,
    aggregate: Option<AggregateId>,
    /// The walls of the key.
    confined: Option<Vec<Channel>>,
    /// Until when it is used for the first time.
    first_use_by: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// Why a ticket opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is none of ours, or its key is no more.
    Unknown,
    /// It was not used in time.
    Late,
    /// Its time is over.
    Expired,
}

/// All tickets that were used.
pub(crate) struct Tickets {
    sealing: SealingKey,
    used: Mutex<HashMap<Box<str>, Used>>,
}

struct Used {
    tenant: Tenant,
    expires_at: Timestamp,
    /// Counts the streams it opened: the newest wins.
    turns: Arc<AtomicU64>,
}

/// What is kept of a used ticket.
#[derive(Serialize, Deserialize)]
struct Record {
    expires_at: Timestamp,
}

/// The right to hold the one stream of a ticket.
pub(crate) struct Turn {
    turns: Arc<AtomicU64>,
    own: u64,
    expires_at: Timestamp,
}

impl Tickets {
    /// Reads the used ones.
    pub(crate) async fn load(sealing: SealingKey, store: &dyn Store) -> Result<Self> {
        let tickets = Self { sealing, used: Mutex::default() };
        let mut after = String::new();
        loop {
            let page = store.list(Kind::Ticket, None, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(tickets) };
            after = last.id.to_string();
            let mut used = tickets.used.lock();
            for document in page {
                let Record { expires_at } = serde_json::from_slice(&document.body)?;
                if let Owner::Tenant(tenant) = document.owner {
                    used.insert(document.id, Used { tenant, expires_at, turns: Arc::default() });
                }
            }
        }
    }

    /// Makes a ticket for what `filter` takes; `None` if its text would be longer than `bytes_max`.
    pub(crate) fn make(
        &self,
        tenant: TenantName,
        maker: &Principal,
        filter: Filter,
        ttl: Duration,
        now: Timestamp,
        bytes_max: usize,
    ) -> Option<(String, Timestamp)> {
        let end = now.plus(LIFETIME);
        let expires_at = maker.expires_at.map_or(end, |key| key.min(end));
        let key = match &maker.actor {
            Actor::Key(id) => Some(id.clone()),
            Actor::Operator | Actor::Development => None,
        };
        let id = format!("{:032x}", u128::from_be_bytes(clock::random()));
        let Filter { types, channels, aggregate, confined } = filter;
        let first_use_by = now.plus(ttl);
        let grant =
            Grant { id: id.into(), tenant, key, types, channels, aggregate, confined, first_use_by, expires_at };
        // A grant is plain data; writing it to memory cannot fail.
        let plain = serde_json::to_vec(&grant).unwrap_or_default();
        let sealed = self.sealing.seal(clock::random(), PLACE, &plain);
        let text = format!("{PREFIX}{}", for_url(&sealed));
        (text.len() <= bytes_max).then_some((text, expires_at))
    }

    /// What `text` says, if it opens a stream at `now`.
    pub(crate) fn read(&self, text: &str, keys: &Keys, now: Timestamp) -> Result<Grant, Refused> {
        let sealed = text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT_BYTES_MAX).ok_or(Refused::Unknown)?;
        let plain = self.sealing.open(PLACE, &from_url(sealed)).map_err(|_| Refused::Unknown)?;
        let grant: Grant = serde_json::from_slice(&plain).map_err(|_| Refused::Unknown)?;
        if matches!(keys.pass(&grant.actor()), Pass::Over(_)) {
            return Err(Refused::Unknown);
        }
        if grant.expires_at <= now {
            return Err(Refused::Expired);
        }
        if grant.first_use_by < now && !self.used.lock().contains_key(&grant.id) {
            return Err(Refused::Late);
        }
        Ok(grant)
    }

    /// The stream of a ticket is opened: whoever has it open loses it. The first use is kept before this answers.
    pub(crate) async fn open(&self, store: &dyn Store, tenant: Tenant, grant: &Grant) -> Result<Turn, CommitError> {
        let known = self.used.lock().get(&grant.id).map(|used| Arc::clone(&used.turns));
        let turns = if let Some(turns) = known {
            turns
        } else {
            let body = serde_json::to_vec(&Record { expires_at: grant.expires_at }).unwrap_or_default();
            let owner = Owner::Tenant(tenant);
            let document = Document { kind: Kind::Ticket, owner, id: grant.id.clone(), revision: 0, body };
            store.commit(clock::now(), vec![Write::Put(document, Expect::Any)]).await?;
            let fresh = || Used { tenant, expires_at: grant.expires_at, turns: Arc::default() };
            Arc::clone(&self.used.lock().entry(grant.id.clone()).or_insert_with(fresh).turns)
        };
        let own = turns.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Turn { turns, own, expires_at: grant.expires_at })
    }

    /// Forgets those whose time is over.
    pub(crate) async fn sweep(&self, store: &dyn Store, now: Timestamp) -> Result<(), CommitError> {
        loop {
            let over: Vec<(Box<str>, Tenant)> = {
                let used = self.used.lock();
                let over = used.iter().filter(|(_, used)| used.expires_at <= now);
                over.map(|(id, used)| (id.clone(), used.tenant)).take(PAGE).collect()
            };
            if over.is_empty() {
                return Ok(());
            }
            let remove =
                |(id, tenant): &(Box<str>, Tenant)| Write::Remove(Kind::Ticket, Owner::Tenant(*tenant), id.clone());
            store.commit(now, over.iter().map(remove).collect()).await?;
            let mut used = self.used.lock();
            for (id, _) in over {
                used.remove(&id);
            }
        }
    }
}

impl Grant {
    fn actor(&self) -> Actor {
        self.key.clone().map_or(Actor::Operator, Actor::Key)
    }

    /// Whoever comes with the ticket: it opens streams and nothing else.
    pub(crate) fn principal(&self) -> Principal {
        Principal {
            actor: self.actor(),
            tenant: Some(self.tenant.clone()),
            scopes: vec![Scope::StreamsRead],
            channels: self.confined.clone(),
            expires_at: Some(self.expires_at),
        }
    }

    /// The events it is for.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            types: self.types.clone(),
            channels: self.channels.clone(),
            aggregate: self.aggregate.clone(),
            confined: self.confined.clone(),
        }
    }
}

impl Turn {
    /// Whether the stream may go on, if its key allows it.
    pub(crate) fn pass(&self, key: Pass) -> Pass {
        if self.turns.load(Ordering::Acquire) != self.own {
            return Pass::Over(Ending::Replaced);
        }
        match key {
            Pass::Good(until) => Pass::Good(Some(until.map_or(self.expires_at, |until| until.min(self.expires_at)))),
            Pass::Over(ending) => Pass::Over(ending),
        }
    }
}

/// Sealed texts are base64 with a prefix; in a URL some of its characters mean something.
fn for_url(sealed: &str) -> String {
    sealed.replace('+', "-").replace('/', "_").replace(':', ".").replace('=', "~")
}

fn from_url(text: &str) -> String {
    text.replace('-', "+").replace('_', "/").replace('.', ":").replace('~', "=")
}
