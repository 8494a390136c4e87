//! What the sweepers of a shard do to it: they put events to lanes, and move the cursors of slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tidings_core::offset::Offset;
use tidings_log::store::Sweep;
use tidings_log::{Event, Tenant};

use super::{Phase, Shard, State};

/// Subscriptions that one sweep makes current: a few milliseconds of the writer's time.
pub(in crate::dispatcher) const CURRENT_MAX: usize = 256;

impl Shard {
    /// Puts swept events to those who want them.
    pub(in crate::dispatcher) fn put(self: &Arc<Self>, tenant: Tenant, events: &[Arc<Event>]) {
        let mut state = self.state.lock();
        let mut found = Vec::new();
        let mut rung = Vec::new();
        let mut detached = Vec::new();
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
                        lane.attached = lane.inbox.len() < lane.inbox_max;
                        if lane.attached {
                            lane.inbox.push_back(Arc::clone(event));
                        } else {
                            detached.push(number);
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
        // Until they have caught up, no event costs anything for them.
        for number in detached {
            state.interest(number, false);
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

    /// Moves a tenant's place to where the log begins since retention removed events that were not looked at. Each whom
    /// that may concern reads for itself, and tells it.
    pub(in crate::dispatcher) fn miss(self: &Arc<Self>, tenant: Tenant, first: Offset) {
        tracing::warn!(tenant = tenant.0, first = first.0, "retention removed events that were not looked at");
        let through = Offset(first.0 - 1);
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(part) = parts.get_mut(&tenant) else { return };
        let place = part.place;
        part.place = place.max(through);
        let mut concerned = Vec::new();
        for (number, entry) in entries.iter_mut().filter(|(_, entry)| entry.subscription.tenant == tenant) {
            let settled = place.max(entry.since);
            match &mut entry.lane {
                Some(lane) => {
                    lane.attached = false;
                    lane.bell.notify_one();
                }
                None if entry.standing.is_active() && settled < through => concerned.push((*number, settled)),
                None => {}
            }
        }
        for (number, settled) in concerned {
            self.spawn(&mut state, number, Some(settled), VecDeque::new());
        }
    }

    /// A tenant's place, and whether anybody wants events.
    pub(in crate::dispatcher) fn place(&self, tenant: Tenant) -> (Offset, bool) {
        let state = self.state.lock();
        state.parts.get(&tenant).map_or((Offset(0), false), |part| (part.place, !part.interest.is_empty()))
    }

    /// What a sweep has to commit for a tenant: a write for each slot that moved, or whose subscriptions become current.
    pub(in crate::dispatcher) fn sweeps(&self, tenant: Tenant) -> Vec<Sweep> {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        // A shard that is shut has given its lanes away: they only look idle.
        let part = parts.get_mut(&tenant).filter(|_| *self.phase.borrow() != Phase::Shut);
        let Some(part) = part else { return Vec::new() };
        let mut through: BTreeMap<u8, Offset> = part.slots.keys().map(|slot| (*slot, part.place)).collect();
        // What a lane without a progress of its own has not settled, the slot must not pass. Thousands have one, that wait
        // for endpoints that never answer: they are looked at once.
        part.bound.retain(|number| {
            let Some(entry) = entries.get(number) else { return false };
            let Some(cursor) = entry.uncommitted() else { return false };
            if let Some(through) = through.get_mut(&entry.slot) {
                *through = cursor.min(*through);
            }
            true
        });
        // A slot never goes back.
        through.retain(|slot, through| part.swept.get(slot).is_none_or(|before| *before <= *through));
        let mut current: BTreeMap<u8, Vec<Box<str>>> = BTreeMap::new();
        let mut left = CURRENT_MAX;
        let mut taken = BTreeSet::new();
        for number in &part.idle {
            let Some(entry) = entries.get_mut(number).filter(|_| left > 0) else { break };
            let Some(through) = through.get(&entry.slot).filter(|through| entry.committed <= **through) else {
                continue;
            };
            entry.own = false;
            entry.since = entry.since.max(*through);
            current.entry(entry.slot).or_default().push(entry.subscription.id.clone());
            taken.insert(*number);
            left -= 1;
        }
        part.idle = &part.idle - &taken;
        let moved = |slot: &u8, through: &Offset| part.swept.get(slot).is_none_or(|before| before < through);
        let sweeps: Vec<_> = through
            .into_iter()
            .map(|(slot, through)| Sweep { tenant, slot, through, current: current.remove(&slot).unwrap_or_default() })
            .filter(|sweep| moved(&sweep.slot, &sweep.through) || !sweep.current.is_empty())
            .collect();
        part.swept.extend(sweeps.iter().map(|sweep| (sweep.slot, sweep.through)));
        sweeps
    }

    /// Whether some of a tenant's subscriptions have nothing to do, and still a progress of their own.
    pub(in crate::dispatcher) fn has_idle(&self, tenant: Tenant) -> bool {
        self.state.lock().parts.get(&tenant).is_some_and(|part| !part.idle.is_empty())
    }

    /// Takes back what [`Shard::sweeps`] told: it could not be committed.
    pub(in crate::dispatcher) fn unswept(&self, tenant: Tenant, sweeps: &[Sweep]) {
        let mut state = self.state.lock();
        for sweep in sweeps {
            if let Some(part) = state.parts.get_mut(&tenant) {
                part.swept.remove(&sweep.slot);
            }
            for id in &sweep.current {
                let Some(&number) = state.by_id.get(id) else { continue };
                if let Some(entry) = state.entries.get_mut(&number) {
                    entry.own = true;
                }
                state.track(number);
            }
        }
    }
}
