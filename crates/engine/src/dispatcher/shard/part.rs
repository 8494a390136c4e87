//! A tenant's part of a shard.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::offset::Offset;
use tokio::sync::watch;

use super::State;
use crate::interest::Interest;

pub(super) struct Part {
    pub(super) interest: Interest,
    /// Through here every event was put to those who want it.
    pub(super) place: Offset,
    /// As committed, or being committed, by slot.
    pub(super) swept: BTreeMap<u8, Offset>,
    pub(super) sweeper: watch::Receiver<()>,
    /// How many subscriptions the slots have.
    pub(super) slots: BTreeMap<u8, usize>,
    /// Subscriptions with a lane, unless it is known to have a progress of its own: they bound how far their slots may go.
    pub(super) bound: BTreeSet<u32>,
    /// Those that have nothing to do, and still a progress of their own.
    pub(super) idle: BTreeSet<u32>,
}

impl Part {
    pub(super) fn new(place: Offset, swept: BTreeMap<u8, Offset>, sweeper: watch::Receiver<()>) -> Self {
        let (slots, bound, idle) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { interest: Interest::default(), place, swept, sweeper, slots, bound, idle }
    }
}

impl State {
    /// Notes what a sweep has to know of a subscription, whenever that may have changed: a sweep looks at nobody else.
    pub(super) fn track(&mut self, number: u32) {
        let Some(entry) = self.entries.get(&number) else { return };
        let Some(part) = self.parts.get_mut(&entry.subscription.tenant) else { return };
        mark(&mut part.bound, number, entry.lane.is_some());
        mark(&mut part.idle, number, entry.is_idle());
    }

    /// Counts a subscription of a slot.
    pub(super) fn count(&mut self, number: u32) {
        let Some(entry) = self.entries.get(&number) else { return };
        if let Some(part) = self.parts.get_mut(&entry.subscription.tenant) {
            *part.slots.entry(entry.slot).or_default() += 1;
        }
    }

    /// Forgets all of that.
    pub(super) fn untrack(&mut self, number: u32) {
        let Some(entry) = self.entries.get(&number) else { return };
        let Some(part) = self.parts.get_mut(&entry.subscription.tenant) else { return };
        part.bound.remove(&number);
        part.idle.remove(&number);
        if let Some(count) = part.slots.get_mut(&entry.slot) {
            *count -= 1;
            if *count == 0 {
                part.slots.remove(&entry.slot);
            }
        }
    }
}

fn mark(numbers: &mut BTreeSet<u32>, number: u32, belongs: bool) {
    if belongs {
        numbers.insert(number);
    } else {
        numbers.remove(&number);
    }
}
