//! What the sweepers of a shard do to it: they put events to lanes, and move the cursors of slots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidings_core::offset::Offset;
use tidings_log::store::Sweep;
use tidings_log::{Event, Tenant};

use super::{Phase, Shard, State};
use crate::dispatcher::entry::INBOX_MAX;

/// Subscriptions that one sweep makes current.
const CURRENT_MAX: usize = 1_024;

impl Shard {
    /// Puts swept events to those who want them.
    pub(in crate::dispatcher) fn put(self: &Arc<Self>, tenant: Tenant, events: &[Arc<Event>]) {
        let mut state = self.state.lock();
        let mut found = Vec::new();
        let mut rung = Vec::new();
        for event in events {
            let Some(part) = state.parts.get(&tenant) else { return };
            part.interest.find(&event.subject, &mut found);
            for &number in &found {
                let Some(entry) = state.entries.get_mut(&number).filter(|entry| event.offset > entry.since) else {
                    continue;
                };
                match &mut entry.lane {
                    Some(lane) if lane.attached => {
                        // Who has not taken what was put before has heard the bell, or has no use for more now.
                        if lane.inbox.is_empty() {
                            rung.push(number);
                        }
                        lane.attached = lane.inbox.len() < INBOX_MAX;
                        if lane.attached {
                            lane.inbox.push_back(Arc::clone(event));
                        }
                    }
                    // It reads for itself until it has caught up.
                    Some(_) => {}
                    None => {
                        let at = Offset(event.offset.0 - 1);
                        self.spawn(&mut state, number, Some(at), VecDeque::from([Arc::clone(event)]));
                    }
                }
            }
        }
        if let (Some(part), Some(last)) = (state.parts.get_mut(&tenant), events.last()) {
            part.place = part.place.max(last.offset);
        }
        for lane in rung.iter().filter_map(|number| state.entries.get(number)?.lane.as_ref()) {
            lane.bell.notify_one();
        }
    }

    /// Moves a tenant's place over events that nobody is left to want.
    pub(in crate::dispatcher) fn pass(&self, tenant: Tenant, through: Offset) {
        if let Some(part) = self.state.lock().parts.get_mut(&tenant) {
            part.place = part.place.max(through);
        }
    }

    /// A tenant's place, and whether anybody wants events.
    pub(in crate::dispatcher) fn place(&self, tenant: Tenant) -> (Offset, bool) {
        let state = self.state.lock();
        state.parts.get(&tenant).map_or((Offset(0), false), |part| (part.place, !part.interest.is_empty()))
    }

    /// What a sweep has to commit for a tenant: a write for each slot that moved.
    pub(in crate::dispatcher) fn sweeps(&self, tenant: Tenant) -> Vec<Sweep> {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        // A shard that is shut has given its lanes away: they only look idle.
        let part = parts.get_mut(&tenant).filter(|_| *self.phase.borrow() != Phase::Shut);
        let Some(part) = part else { return Vec::new() };
        let mut through: BTreeMap<u8, Offset> = BTreeMap::new();
        for entry in entries.values().filter(|entry| entry.subscription.tenant == tenant) {
            let through = through.entry(entry.slot).or_insert(part.place);
            // What a lane without a row of its own has not settled, the slot must not pass.
            if let Some(cursor) = entry.uncommitted() {
                *through = cursor.min(*through);
            }
        }
        let mut sweeps: Vec<_> = through
            .into_iter()
            .map(|(slot, through)| Sweep { tenant, slot, through, current: Vec::new() })
            .filter(|sweep| part.swept.get(&sweep.slot).is_none_or(|before| *before < sweep.through))
            .collect();
        let mut left = CURRENT_MAX;
        for entry in entries.values_mut().filter(|entry| entry.subscription.tenant == tenant && entry.is_idle()) {
            let sweep = sweeps.iter_mut().find(|sweep| sweep.slot == entry.slot);
            let Some(sweep) = sweep.filter(|sweep| left > 0 && entry.committed <= sweep.through) else { continue };
            entry.own = false;
            entry.since = entry.since.max(sweep.through);
            sweep.current.push(entry.subscription.id.clone());
            left -= 1;
        }
        part.swept.extend(sweeps.iter().map(|sweep| (sweep.slot, sweep.through)));
        sweeps
    }

    /// Takes back what [`Shard::sweeps`] told: it could not be committed.
    pub(in crate::dispatcher) fn unswept(&self, tenant: Tenant, sweeps: &[Sweep]) {
        let mut state = self.state.lock();
        let State { entries, parts, by_id, .. } = &mut *state;
        for sweep in sweeps {
            if let Some(part) = parts.get_mut(&tenant) {
                part.swept.remove(&sweep.slot);
            }
            for entry in sweep.current.iter().filter_map(|id| by_id.get(id)) {
                if let Some(entry) = entries.get_mut(entry) {
                    entry.own = true;
                }
            }
        }
    }
}
