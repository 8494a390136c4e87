//! Postings in memory: where the events that are not indexed on disk yet are found.
//!
//! Two generations: `active` takes what is committed; when it is large, or the log is idle, it becomes `frozen`, is
//! written to disk in slices, and is dropped with the commit of the last one. A reader asks both and then the disk, in
//! this order, so that nothing falls between.

use std::collections::hash_map;
use std::sync::Arc;

use foldhash::HashMap;
use tidings_core::offset::Offset;
use tidings_core::posting::Posting;

use crate::event::Tenant;
use crate::sqlite::run::Cover;

/// One generation of postings and aggregate heads.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    postings: HashMap<Posting, Entry>,
    covers: HashMap<Tenant, Cover>,
    /// The last position it covers.
    pub(crate) through: u64,
    pub(crate) events: usize,
}

/// What is found under one posting.
#[derive(Debug)]
struct Entry {
    offsets: Offsets,
    /// For an aggregate, the sequence number of the last one; else 0.
    sequence: u64,
}

/// Ascending offsets; most keys have one.
#[derive(Debug)]
enum Offsets {
    One(u64),
    Many(Vec<u64>),
}

impl Offsets {
    fn push(&mut self, offset: u64) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, offset]),
            Self::Many(all) => all.push(offset),
        }
    }

    fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(offset) => std::slice::from_ref(offset),
            Self::Many(all) => all,
        }
    }
}

impl Generation {
    fn add(&mut self, tenant: Tenant, offset: Offset, postings: &[Posting], head: Option<(Posting, u64)>) {
        for posting in postings {
            let sequence = head.filter(|(aggregate, _)| aggregate == posting).map_or(0, |(_, sequence)| sequence);
            match self.postings.entry(*posting) {
                hash_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().offsets.push(offset.0);
                    entry.get_mut().sequence = sequence;
                }
                hash_map::Entry::Vacant(place) => {
                    place.insert(Entry { offsets: Offsets::One(offset.0), sequence });
                }
            }
        }
        let cover = self.covers.entry(tenant).or_insert(Cover { tenant, first: offset.0, last: offset.0 });
        cover.last = offset.0;
        self.events += 1;
    }

    /// Aggregates with their last sequence numbers.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Posting, u64)> + '_ {
        let heads = self.postings.iter().filter(|(_, entry)| entry.sequence > 0);
        heads.map(|(posting, entry)| (*posting, entry.sequence))
    }
}

/// What is committed and not indexed on disk yet.
#[derive(Debug, Default)]
pub(crate) struct TailIndex {
    active: Generation,
    frozen: Option<Arc<Generation>>,
}

impl TailIndex {
    /// Takes a committed event; `head` is its aggregate with its sequence number.
    pub(crate) fn add(
        &mut self,
        position: u64,
        (tenant, offset): (Tenant, Offset),
        postings: &[Posting],
        head: Option<(Posting, u64)>,
    ) {
        self.active.add(tenant, offset, postings, head);
        self.active.through = position;
    }

    /// The last sequence number of an aggregate.
    pub(crate) fn head(&self, aggregate: Posting) -> Option<u64> {
        let entry = self.active.postings.get(&aggregate);
        entry.or_else(|| self.frozen.as_ref()?.postings.get(&aggregate)).map(|entry| entry.sequence)
    }

    /// Offsets under `posting`, ascending.
    pub(crate) fn offsets(&self, posting: Posting) -> Vec<u64> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.postings.get(&posting));
        let active = self.active.postings.get(&posting);
        [frozen, active].into_iter().flatten().flat_map(|entry| entry.offsets.as_slice()).copied().collect()
    }

    /// Events not indexed on disk.
    pub(crate) fn events(&self) -> usize {
        self.active.events + self.frozen.as_ref().map_or(0, |frozen| frozen.events)
    }

    /// Events that wait for the next flush to begin.
    pub(crate) fn waiting(&self) -> usize {
        self.active.events
    }

    /// Begins a flush: what is active is frozen.
    pub(crate) fn freeze(&mut self) -> Arc<Generation> {
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// What a flush under way is writing.
    pub(crate) fn frozen(&self) -> Option<Arc<Generation>> {
        self.frozen.clone()
    }

    /// Ends a flush: what was frozen is on disk.
    pub(crate) fn thaw(&mut self) -> Option<Arc<Generation>> {
        self.frozen.take()
    }
}

impl Generation {
    /// What it has, in the order of the index on disk: postings, their offsets, sequence numbers.
    pub(crate) fn sorted(&self) -> Vec<(Posting, &[u64], u64)> {
        let entries = self.postings.iter();
        let mut sorted: Vec<_> =
            entries.map(|(posting, entry)| (*posting, entry.offsets.as_slice(), entry.sequence)).collect();
        sorted.sort_unstable_by_key(|(posting, ..)| *posting);
        sorted
    }

    /// The offsets it has of each tenant.
    pub(crate) fn covers(&self) -> Vec<Cover> {
        let mut covers: Vec<Cover> = self.covers.values().copied().collect();
        covers.sort_by_key(|cover| cover.tenant);
        covers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_frozen_and_active_postings_in_order() {
        let posting = Posting { scope: 8, key: 1, tag: 0 };
        let mut index = TailIndex::default();
        index.add(1, (Tenant(1), Offset(1)), &[posting], None);
        index.add(2, (Tenant(1), Offset(2)), &[posting], None);
        index.freeze();
        index.add(3, (Tenant(1), Offset(3)), &[posting], None);
        assert_eq!(index.offsets(posting), [1, 2, 3]);
        index.thaw();
        assert_eq!(index.offsets(posting), [3]);
    }
}
