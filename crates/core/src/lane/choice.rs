//! Which delivery is next.

use super::Lane;
use super::item::Item;
use crate::offset::Offset;

impl Lane {
    fn is_sendable(&self, offset: Offset) -> bool {
        self.items.get(&offset).is_some_and(Item::may_go) && self.is_first(offset)
    }

    /// The event that is next: one that is counted, if there is one.
    pub(super) fn choose(&mut self) -> Option<Offset> {
        if let Some(counted) = self.counting.iter().copied().find(|offset| self.is_sendable(*offset)) {
            return Some(counted);
        }
        let probes = self.standing.circuit.probe().is_some();
        // One that was sent again since may have come in front of one that is counted: that one waits, and takes no room.
        let counting = self.counting.iter().filter(|offset| self.is_first(**offset)).count();
        if self.in_flight + counting >= if probes { 1 } else { self.concurrency() } {
            return None;
        }
        if probes { self.probe() } else { self.oldest() }
    }

    /// The oldest event that may be sent. Others are promoted again once nothing stands in their way.
    fn oldest(&mut self) -> Option<Offset> {
        let replays_wait = self.replaying >= (self.concurrency() / 5).max(1);
        let mut after = Offset(0);
        while let Some(&offset) = self.ready.range(after..).next() {
            if !self.is_sendable(offset) {
                self.ready.remove(&offset);
            } else if replays_wait && self.items.get(&offset).is_some_and(|item| item.replay.is_some()) {
                // Live traffic has the rest of the room.
                after = offset.next();
            } else {
                return Some(offset);
            }
        }
        None
    }

    /// The event that a probe is made with: of those that may be sent the one with the fewest attempts, the oldest first.
    fn probe(&mut self) -> Option<Offset> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|offset| self.is_sendable(*offset));
        self.ready = ready;
        let attempts = |offset: &&Offset| self.items.get(offset).map_or(u32::MAX, |item| item.attempts);
        self.ready.iter().min_by_key(attempts).copied()
    }
}
