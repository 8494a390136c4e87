//! What is different when workers come and fetch: see [`Pull`](super::Pull).

use std::time::Duration;

use super::item::Stage;
use super::{FETCHED_MAX, Lane, UNSETTLED_MAX};
use crate::offset::Offset;
use crate::retry::asked_for;
use crate::time::Timestamp;

/// What a lane makes of a worker's word for a delivery that is not out any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Nobody has it: the word counts, and it is settled.
    Counts,
    /// It was settled before.
    Settled,
    /// Somebody else has it, or will get it: the word comes too late.
    Stale,
}

impl Lane {
    /// Whether workers fetch from it.
    pub fn is_pulled(&self) -> bool {
        self.settings.pull.is_some()
    }

    pub(super) fn unsettled_max(&self) -> usize {
        if self.is_pulled() { FETCHED_MAX } else { UNSETTLED_MAX }
    }

    /// When a delivery that failed is due again: exactly when the worker said, else by the schedule, whose last step goes
    /// on for ever. `None`: it is exhausted.
    pub(super) fn due_again(
        &self,
        offset: Offset,
        ended: Timestamp,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Option<Timestamp> {
        let retries_max = self.settings.pull.map_or(0, |pull| pull.retries_max);
        let failed = self.items.get(&offset).map_or(0, |item| item.attempts) + 1;
        let after = match asked {
            Some(_) => asked_for(asked),
            None => self.settings.schedule.jittered(failed, jitter),
        };
        (failed <= retries_max).then(|| ended.plus(after))
    }

    /// Whether an attempt is being made.
    pub fn is_sending(&self, offset: Offset) -> bool {
        self.items.get(&offset).is_some_and(|item| item.stage == Stage::Sending)
    }

    /// Takes back all attempts that are under way: they count for nothing, and are due again at `until`.
    pub fn take_back(&mut self, until: Timestamp) {
        let sending = |(offset, item): (&Offset, &super::Item)| (item.stage == Stage::Sending).then_some(*offset);
        let offsets: Vec<_> = self.items.iter().filter_map(sending).collect();
        for offset in offsets {
            self.postpone(offset, until);
        }
    }

    /// Takes a worker's word that it is done with the delivery with number `attempt`, which is not out any more: its time
    /// was over, or the lane began again since. It counts as long as nobody else got the event, and nothing came in front
    /// of it: what follows a row is not settled before the row is.
    pub fn late(&mut self, offset: Offset, attempt: u32) -> Late {
        let Some(item) = self.items.get(&offset) else {
            let dropped = |chain: &super::Chain| {
                chain.dropped.is_some_and(|(after, through)| (after.next()..=through).contains(&offset))
            };
            let settled = self.acks.contains(offset) || offset <= self.cursor();
            return if settled && !self.chains.values().any(dropped) { Late::Settled } else { Late::Stale };
        };
        // A crash may have forgotten that it was sent.
        let meant = attempt == item.attempts || attempt == item.attempts + 1;
        let key = item.key;
        match item.stage {
            Stage::Queued | Stage::Waiting(_) if meant && self.is_first(offset) => {
                self.delivered(offset);
                self.promote_first(key);
                Late::Counts
            }
            Stage::Delivered | Stage::Followed => Late::Settled,
            _ => Late::Stale,
        }
    }
}
