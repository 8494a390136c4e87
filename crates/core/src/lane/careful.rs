//! Attempts that are counted before they are made, so that an event at which the process ends uses them up.
//!
//! What was under way when the process ended has lost that attempt. It goes at once the first time: most such events are
//! innocent, the process was killed. If that was its second attempt, and the first was lost too, it goes within a second, by
//! chance, which parts it from its neighbours. After any other that follows a lost one it waits for the next step of the
//! schedule; and when its attempts are used up it is dead.

use std::mem;
use std::time::Duration;

use super::item::{Kept, LOST, Stage};
use super::{Lane, Send};
use crate::offset::Offset;
use crate::time::Timestamp;

/// Within this goes what lost its first two attempts.
const PARTED: Duration = Duration::from_secs(1);

impl Lane {
    /// Says whether every attempt is to be counted, in a row that is committed, before it is made. Those of events that
    /// lost one already are, whatever is said.
    pub fn be_careful(&mut self, careful: bool) {
        self.careful = careful;
    }

    /// Counts the attempt that is to be made with an event, if it must be and is not; answers whether it did.
    pub(super) fn count_first(&mut self, offset: Offset, now: Timestamp) -> bool {
        let Some(item) = self.items.get_mut(&offset) else { return false };
        if item.counted.is_some() || (!self.careful && item.lost == 0) {
            return false;
        }
        item.attempts += 1;
        item.counted = Some(now);
        item.stage = Stage::Waiting(now);
        self.tell(offset);
        self.counting.insert(offset);
        true
    }

    /// Takes back what is counted and not made: nothing more is sent for now.
    pub fn hold(&mut self) {
        for offset in mem::take(&mut self.counting) {
            let Some(item) = self.items.get_mut(&offset) else { continue };
            if item.counted.take().is_some() {
                item.attempts -= 1;
                item.kept = Kept::Dirty;
                self.changed.insert(offset);
            }
        }
    }

    /// What was under way when the process ended, and is restored as such. Each is to be [lost](Lane::lost).
    pub fn in_doubt(&self) -> Vec<Send> {
        let counted = self.items.iter().filter(|(_, item)| item.counted.is_some());
        let send = |(offset, item): (&Offset, &super::item::Item)| {
            let (offset, replay) = (*offset, item.replay.clone());
            Send { offset, attempt: item.made(), replay }
        };
        counted.map(send).collect()
    }

    /// Notes that an attempt was under way when the process ended: it counts as failed, but tells nothing of the
    /// subscriber. `jitter` is chance, from 0 to 1.
    pub fn lost(&mut self, offset: Offset, now: Timestamp, jitter: f64) {
        if !self.land(offset) {
            return;
        }
        let Some((made, lost)) = self.items.get(&offset).map(|item| (item.made(), item.lost)) else { return };
        let due = self.settings.schedule.due(made, now, jitter, None).map(|due| match (lost, made) {
            (1, _) => now,
            (_, 2) => due.min(now.plus(PARTED.mul_f64(jitter))),
            _ => due,
        });
        self.failed(offset, LOST.into(), due);
        let Some(item) = self.items.get_mut(&offset) else { return };
        item.lost = lost;
        let key = item.key;
        self.promote_first(key);
    }

    /// Restores an attempt that was under way.
    pub(super) fn under_way_again(&mut self, offset: Offset) {
        let Some(item) = self.items.get(&offset).filter(|item| item.stage == Stage::Sending) else { return };
        self.in_flight += 1;
        self.unsettled += 1;
        self.replaying += usize::from(item.replay.is_some());
        if let Some(chain) = item.key.and_then(|key| self.chains.get_mut(&key)) {
            chain.in_flight = true;
        }
    }
}
