//! What outcomes and people do to a lane.

use std::mem;
use std::time::Duration;

use super::item::{Item, Kept, Stage};
use super::{Acks, Jump, Lane, Notice, OnExhausted, Outcome};
use crate::circuit::Status;
use crate::offset::Offset;
use crate::retry::asked_for;
use crate::time::Timestamp;

/// What an event is about, as the failure of its delivery is judged: what is told of it must not feed itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum About {
    /// The application.
    #[default]
    Application,
    /// Tidings, but not this subscription: nobody is warned of it.
    Operational,
    /// This subscription: it is no round, and a deactivation by it is not told.
    Itself,
}

/// An attempt that was made.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// Of which event.
    pub offset: Offset,
    /// When it began.
    pub began: Timestamp,
    /// When its outcome was known.
    pub ended: Timestamp,
    /// What its event is about.
    pub about: About,
}

impl Lane {
    /// Takes the outcome of an attempt. `jitter` is chance, from 0 to 1.
    pub fn settle(&mut self, attempted: Attempted, outcome: Outcome, jitter: f64) {
        let offset = attempted.offset;
        if !self.land(offset) {
            return;
        }
        match outcome {
            Outcome::Delivered(_) => self.delivered(offset),
            Outcome::Retry { reason, retry_after, .. } if self.is_pulled() => {
                let due = self.due_again(offset, attempted.ended, retry_after, jitter);
                self.failed(offset, reason, due);
            }
            Outcome::Retry { reason, retry_after, .. } => {
                let at_least = asked_for(retry_after);
                let made = self.items.get(&offset).map_or(1, Item::made);
                let due = self.settings.schedule.due(made, attempted.ended, jitter, retry_after);
                self.circuit_failed(attempted, &reason, at_least, jitter);
                self.failed(offset, reason, due);
            }
            Outcome::Reject { reason, .. } => self.failed(offset, reason, None),
            Outcome::Gone { .. } => {
                let made = self.items.get(&offset).map_or(1, Item::made);
                let due = self.settings.schedule.due(made, attempted.ended, jitter, None);
                self.deactivate("status 410: the endpoint says that it is gone".into(), attempted);
                self.failed(offset, "status 410".into(), due);
            }
        }
        let key = self.items.get(&offset).and_then(|item| item.key);
        self.promote_first(key);
    }

    /// Takes back an attempt that was not made, by no fault of the subscriber: it is not counted, and due at `until`.
    pub fn postpone(&mut self, offset: Offset, until: Timestamp) {
        if !self.land(offset) {
            return;
        }
        let Some(item) = self.items.get_mut(&offset) else { return };
        item.attempts = item.made() - 1;
        item.counted = None;
        item.stage = Stage::Waiting(until);
        let key = item.key;
        self.tell(offset);
        // One that came in front of it by a replay waited for it.
        self.promote_first(key);
    }

    /// Ends an attempt; answers whether there was one.
    pub(super) fn land(&mut self, offset: Offset) -> bool {
        let Some(item) = self.items.get(&offset).filter(|item| item.stage == Stage::Sending) else { return false };
        if let Some(chain) = item.key.and_then(|key| self.chains.get_mut(&key)) {
            chain.in_flight = false;
        }
        self.replaying -= usize::from(item.replay.is_some());
        self.in_flight -= 1;
        true
    }

    pub(super) fn delivered(&mut self, offset: Offset) {
        let warned = self.standing.circuit.is_warned();
        if let Some(rounds) = self.standing.circuit.succeeded() {
            self.stood = true;
            if warned {
                self.notices.push(Notice::Recovered { rounds });
            }
        }
        let done = self.unchain(offset);
        let Some(item) = self.items.get_mut(&offset) else { return };
        if done {
            item.stage = Stage::Delivered;
            self.changed.insert(offset);
        } else {
            item.stage = Stage::Followed;
            self.tell(offset);
        }
    }

    pub(super) fn failed(&mut self, offset: Offset, reason: Box<str>, due: Option<Timestamp>) {
        let parks = self.settings.on_exhausted == OnExhausted::Park && self.is_ordered();
        let Some(item) = self.items.get_mut(&offset) else { return };
        item.attempts = item.made();
        (item.counted, item.lost) = (None, 0);
        item.reason = reason;
        self.changed.insert(offset);
        item.stage = match due {
            Some(due) => Stage::Waiting(due),
            None if parks && item.key.is_some() => Stage::Parked,
            None => Stage::Dead,
        };
        item.untold = item.stage == Stage::Parked;
        self.parked += usize::from(item.untold);
        if item.stage != Stage::Dead {
            self.tell(offset);
        }
    }

    fn circuit_failed(&mut self, attempted: Attempted, reason: &str, at_least: Duration, jitter: f64) {
        let (circuit, schedule) = (&mut self.standing.circuit, &self.settings.schedule);
        self.stood = true;
        if attempted.about == About::Itself {
            return circuit.failed_beside(attempted.ended, schedule, at_least, jitter);
        }
        let Some(round) = circuit.failed((attempted.began, attempted.ended), schedule, at_least, jitter) else {
            return;
        };
        if self.settings.deactivate_after.is_some_and(|after| round >= after) {
            let reason = format!("{round} rounds of failures, the last one: {reason}");
            self.deactivate(reason.into(), attempted);
        } else if round > 1 && attempted.about == About::Application {
            self.standing.circuit.warn();
            self.notices.push(Notice::Failing { round, reason: reason.into() });
        }
    }

    fn deactivate(&mut self, reason: Box<str>, attempted: Attempted) {
        // Whoever paused it does not want it active later than that: it stays deactivated until somebody activates it.
        if matches!(self.standing.status, Status::Deactivated { .. }) {
            return;
        }
        self.hold();
        self.standing.status = Status::Deactivated { since: attempted.ended, reason: reason.clone() };
        self.stood = true;
        if attempted.about != About::Itself {
            self.notices.push(Notice::Deactivated { reason });
        }
    }

    /// Sends nothing more until it is resumed.
    pub fn pause(&mut self, now: Timestamp) {
        if self.standing.is_active() {
            self.hold();
            self.standing.status = Status::Paused { since: now };
            self.stood = true;
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        if matches!(self.standing.status, Status::Paused { .. }) {
            self.standing.status = Status::Active;
            self.stood = true;
        }
    }

    /// Ends a pause or a deactivation; what failed before is forgiven, but attempts stay counted.
    pub fn activate(&mut self) {
        self.standing.status = Status::Active;
        self.standing.circuit = crate::circuit::Circuit::default();
        self.stood = true;
    }

    /// Moves the cursor. What is jumped over is recorded as skipped; what lies ahead again is sent again.
    ///
    /// Nothing may be in flight or under way: pause it first. False if that does not hold.
    pub fn jump(&mut self, to: Offset) -> bool {
        if self.in_flight > 0 || self.under_way.is_some() {
            return false;
        }
        // What was delivered a moment ago is not left out.
        self.advance();
        // Also a jump back leaves out what waits before it.
        let waits = self.items.iter().find(|(_, item)| !item.is_done()).map(|(offset, _)| *offset);
        let let_go = self.chains.values().filter_map(|chain| Some(chain.dropped?.0.next())).min();
        let first = [waits, let_go].into_iter().flatten().fold(self.cursor.next(), Offset::min);
        if first <= to {
            self.standing.skip(first, to);
        }
        let items = mem::take(&mut self.items);
        self.chains.clear();
        self.ready.clear();
        self.due.clear();
        self.counting.clear();
        self.follows.clear();
        (self.rows, self.unsettled, self.parked, self.let_go) = (0, 0, 0, 0);
        for (offset, item) in items {
            let written = item.kept != Kept::No;
            if offset > to && written && !item.is_done() && item.stage != Stage::Followed {
                // Written again: what followed it is offered again.
                self.parked += usize::from(item.stage == Stage::Parked);
                self.insert(offset, Item { kept: Kept::Dirty, unsettled: false, ..item });
                self.promote(offset);
                self.changed.insert(offset);
            } else if written || item.is_done() {
                // A dead letter that is not told yet is told; else nothing is left of it but its row.
                let untold = item.stage == Stage::Dead || item.untold;
                let stage = if untold { Stage::Dead } else { Stage::Delivered };
                self.insert(offset, Item { stage, key: None, unsettled: false, untold: false, ..item });
                self.changed.insert(offset);
            }
        }
        self.acks = Acks::default();
        self.cursor = to;
        self.seen = to;
        self.stood = true;
        self.jump = Jump::Made;
        true
    }

    /// Sends an event under the cursor again, counting from the first attempt; with [`Lane::take_changes`] its row is
    /// committed. False if it is still to be delivered anyway, or was not reached yet.
    pub fn revive(&mut self, offset: Offset, key: Option<u64>, replay: Option<Box<str>>) -> bool {
        if self.under_way.is_none() {
            self.advance();
        }
        if offset > self.cursor {
            return false;
        }
        if let Some(item) = self.items.get_mut(&offset) {
            if item.stage != Stage::Parked || item.untold {
                return false;
            }
            *item = Item { unsettled: item.unsettled, ..Item::revived(item.key, replay) };
            self.parked -= 1;
            self.changed.insert(offset);
            return true;
        }
        let dropped = key.and_then(|key| self.chains.get(&key)?.dropped);
        if dropped.is_some_and(|(after, through)| offset > after && offset <= through) {
            return false;
        }
        self.insert(offset, Item::revived(key, replay));
        self.changed.insert(offset);
        true
    }

    /// Gives up an event whose aggregate is parked for it: the next one goes on once that is committed. False if it is not
    /// parked.
    pub fn release(&mut self, offset: Offset) -> bool {
        if self.items.get(&offset).is_none_or(|item| item.stage != Stage::Parked || item.untold) {
            return false;
        }
        self.parked -= 1;
        if let Some(item) = self.items.get_mut(&offset) {
            item.stage = Stage::Released;
            self.changed.insert(offset);
        }
        true
    }

    /// Gives up what a replay has not sent yet; what is in flight ends as it does.
    pub fn cancel(&mut self, replay: &str) {
        let of_it = |item: &Item| item.replay.as_deref() == Some(replay) && matches!(item.stage, Stage::Waiting(_));
        let offsets: Vec<_> = self.items.iter().filter(|(_, item)| of_it(item)).map(|(offset, _)| *offset).collect();
        for offset in offsets {
            self.counting.remove(&offset);
            let done = self.unchain(offset);
            if let Some(item) = self.items.get_mut(&offset) {
                item.stage = if done { Stage::Delivered } else { Stage::Followed };
                item.kept = Kept::Dirty;
                self.changed.insert(offset);
            }
        }
    }
}
