//! What one transaction is about to change, in memory: seen by later units of the same group, undone for a refused one.

use std::sync::Arc;

use foldhash::HashMap;
use tidings_core::chain::Hash;
use tidings_core::offset::Offset;
use tidings_core::posting::Posting;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::seal::NewSeal;
use crate::event::{Event, Tenant};
use crate::store::{Appended, Extent};

/// An event of the group, with what finds it again.
pub(crate) struct Fresh {
    pub(crate) position: u64,
    pub(crate) event: Arc<Event>,
    pub(crate) postings: Vec<Posting>,
    pub(crate) aggregate: Option<Posting>,
}

impl Fresh {
    /// Its aggregate with its sequence number.
    pub(crate) fn head(&self) -> Option<(Posting, u64)> {
        self.aggregate.zip(self.event.sequence)
    }
}

/// A kept answer to a request with a key.
#[derive(Clone)]
pub(crate) struct KeptAnswer {
    pub(crate) body: Hash,
    pub(crate) results: Vec<Appended>,
}

/// Where a tenant's log ends once the group is committed.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) extent: Extent,
    pub(crate) recorded: Timestamp,
}

#[derive(Default)]
pub(crate) struct Group {
    pub(crate) fresh: Vec<Fresh>,
    /// How many of `fresh` are in the table: they are written together, at the end or when a statement needs them.
    inserted: usize,
    /// Tenants made in this group.
    pub(crate) tenants: Vec<(Tenant, TenantName)>,
    pub(crate) seals: Vec<NewSeal>,
    pub(crate) erased: Vec<Arc<Event>>,
    pub(crate) eras: Vec<(Tenant, Offset, Offset)>,
    /// Tenants whose oldest events go, and the first that stays.
    pub(crate) trimmed: Vec<(Tenant, Offset)>,
    /// Events that something needed until now: copies of them may go, if nothing else does.
    pub(crate) released: Vec<(Tenant, Offset)>,
    ends: HashMap<Tenant, End>,
    heads: HashMap<Posting, u64>,
    /// Ids that producers gave: places in `fresh`.
    ids: HashMap<Posting, Vec<usize>>,
    requests: HashMap<Hash, KeptAnswer>,
    undo: Vec<Undo>,
}

enum Undo {
    End(Tenant, Option<End>),
    Head(Posting, Option<u64>),
    Id(Posting),
    Request(Hash),
}

/// A place to go back to.
pub(crate) struct Mark {
    undo: usize,
    fresh: usize,
    inserted: usize,
    tenants: usize,
    erased: usize,
    eras: usize,
    trimmed: usize,
}

impl Group {
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            undo: self.undo.len(),
            fresh: self.fresh.len(),
            inserted: self.inserted,
            tenants: self.tenants.len(),
            erased: self.erased.len(),
            eras: self.eras.len(),
            trimmed: self.trimmed.len(),
        }
    }

    pub(crate) fn back_to(&mut self, mark: &Mark) {
        while self.undo.len() > mark.undo {
            match self.undo.pop() {
                Some(Undo::End(tenant, before)) => restore(&mut self.ends, tenant, before),
                Some(Undo::Head(key, before)) => restore(&mut self.heads, key, before),
                Some(Undo::Id(posting)) => {
                    self.ids.entry(posting).and_modify(|places| {
                        places.pop();
                    });
                }
                Some(Undo::Request(key)) => {
                    self.requests.remove(&key);
                }
                None => break,
            }
        }
        self.fresh.truncate(mark.fresh);
        self.inserted = mark.inserted;
        self.tenants.truncate(mark.tenants);
        self.erased.truncate(mark.erased);
        self.eras.truncate(mark.eras);
        self.trimmed.truncate(mark.trimmed);
    }

    pub(crate) fn end(&self, tenant: Tenant) -> Option<End> {
        self.ends.get(&tenant).copied()
    }

    pub(crate) fn set_end(&mut self, tenant: Tenant, end: End) {
        let before = self.ends.insert(tenant, end);
        self.undo.push(Undo::End(tenant, before));
    }

    pub(crate) fn ends(&self) -> impl Iterator<Item = (Tenant, End)> + '_ {
        self.ends.iter().map(|(tenant, end)| (*tenant, *end))
    }

    pub(crate) fn head(&self, aggregate: Posting) -> Option<u64> {
        self.heads.get(&aggregate).copied()
    }

    pub(crate) fn push(&mut self, fresh: Fresh, id_given: bool) {
        if let Some((aggregate, sequence)) = fresh.head() {
            let before = self.heads.insert(aggregate, sequence);
            self.undo.push(Undo::Head(aggregate, before));
        }
        if id_given {
            let posting = fresh.postings[0];
            self.ids.entry(posting).or_default().push(self.fresh.len());
            self.undo.push(Undo::Id(posting));
        }
        self.fresh.push(fresh);
    }

    /// What is not in the table yet; it counts as written from here on.
    pub(crate) fn unwritten(&mut self) -> &[Fresh] {
        let from = std::mem::replace(&mut self.inserted, self.fresh.len());
        &self.fresh[from..]
    }

    /// Events of the group that may have the id behind `posting`.
    pub(crate) fn with_id(&self, posting: Posting) -> impl Iterator<Item = &Arc<Event>> {
        self.ids.get(&posting).into_iter().flatten().map(|place| &self.fresh[*place].event)
    }

    pub(crate) fn answer(&self, key: &Hash) -> Option<&KeptAnswer> {
        self.requests.get(key)
    }

    pub(crate) fn keep_answer(&mut self, key: Hash, answer: KeptAnswer) {
        self.requests.insert(key, answer);
        self.undo.push(Undo::Request(key));
    }
}

fn restore<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
