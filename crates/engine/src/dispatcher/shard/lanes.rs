//! What the lanes of a shard do to it: they take what waits for them, catch up, and end.

use std::collections::VecDeque;
use std::sync::Arc;

use tidings_core::circuit::Repute;
use tidings_core::offset::Offset;

use super::{Shard, State};
use crate::dispatcher::entry::{Drained, End, inbox_max};

impl Shard {
    /// What waits for a lane, up to `limit` events.
    pub(in crate::dispatcher) fn drain(&self, number: u32, limit: usize, repute: Repute) -> Drained {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else { return Drained::default() };
        let place = parts.get(&entry.subscription.tenant).map(|part| part.place);
        let Some(lane) = &mut entry.lane else { return Drained::default() };
        lane.inbox_max = inbox_max(repute);
        let count = limit.min(lane.inbox.len());
        let events = lane.inbox.drain(..count).collect();
        let empty = lane.inbox.is_empty();
        Drained { events, attached: lane.attached, empty, reached: place.filter(|_| lane.attached && empty) }
    }

    /// Has the sweeper put events to a lane again, if it has seen all that were put to others.
    pub(in crate::dispatcher) fn attach(&self, number: u32, seen: Offset) -> bool {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else { return false };
        if parts.get(&entry.subscription.tenant).is_none_or(|part| seen < part.place) {
            return false;
        }
        let Some(lane) = &mut entry.lane else { return false };
        lane.attached = true;
        // At a start the sweeper may have gone back for others, and the lane be behind its slot: it goes on where it is.
        entry.since = seen;
        state.interest(number, true);
        true
    }

    /// Has a lane read for itself: its cursor was moved.
    pub(in crate::dispatcher) fn detach(&self, number: u32) {
        let mut state = self.state.lock();
        if let Some(lane) = state.entries.get_mut(&number).and_then(|entry| entry.lane.as_mut()) {
            lane.attached = false;
            lane.inbox.clear();
        }
        state.interest(number, false);
    }

    /// Ends a lane that has nothing to do; false if something came meanwhile.
    pub(in crate::dispatcher) fn leave(&self, number: u32, end: End, quiet: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else { return true };
        let dormant = !end.standing.is_active();
        let Some(lane) = &entry.lane else { return true };
        if !quiet() || entry.renewed || (!dormant && (!lane.attached || !lane.inbox.is_empty())) {
            return false;
        }
        entry.end(end);
        if let Some(part) = parts.get(&entry.subscription.tenant).filter(|_| !dormant) {
            entry.since = entry.since.max(part.place);
        }
        if dormant {
            state.interest(number, false);
        }
        state.track(number);
        true
    }

    /// Notes that a lane was ended, or ended because it must.
    pub(in crate::dispatcher) fn finish(self: &Arc<Self>, number: u32, end: End) {
        let mut state = self.state.lock();
        if state.entries.get(&number).is_some_and(|entry| entry.renewed) {
            return self.succeed(&mut state, number, end);
        }
        if let Some(entry) = state.entries.get_mut(&number) {
            entry.end(end);
        }
        state.track(number);
    }

    /// Has a lane begin again that ended by a fault.
    pub(super) fn begin_again(self: &Arc<Self>, number: u32, end: End) {
        self.succeed(&mut self.state.lock(), number, end);
    }

    /// Has a lane take over from one that ended, unless nothing is to be sent.
    fn succeed(self: &Arc<Self>, state: &mut State, number: u32, end: End) {
        let Some(entry) = state.entries.get_mut(&number) else { return };
        let at = (!end.own).then_some(end.committed);
        entry.end(end);
        entry.renewed = false;
        if entry.standing.is_active() {
            self.spawn(state, number, at, VecDeque::new());
        } else {
            state.interest(number, false);
        }
        state.track(number);
    }

    pub(in crate::dispatcher) fn note_dead(&self, number: u32, more: u64, less: u64) {
        if let Some(entry) = self.state.lock().entries.get_mut(&number) {
            entry.dead = (entry.dead + more).saturating_sub(less);
        }
    }
}
