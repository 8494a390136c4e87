//! The deliveries of one subscription, decided purely: what is sent next, what an outcome means, what is committed.
//!
//! The shell reads the log and [offers](Lane::offer) what matches, sends what [`Lane::next`] says, tells the outcome to
//! [`Lane::settle`], and commits [`Lane::take_changes`], confirming with [`Lane::committed`].
//!
//! # Laws
//!
//! 1. Everything through the cursor is delivered, dead, or has a row; a row commits with or before the cursor that
//!    passes it. So a lane that is rebuilt from what was committed loses nothing.
//! 2. What was sent and is not covered by a committed cursor or row is *unsettled*: at most [`UNSETTLED_MAX`]. Only that
//!    is sent twice after a crash.
//! 3. An event is not sent before its predecessors of the same aggregate are delivered, or dead *and committed so*:
//!    else a crash could bring the dead one back behind its successor.
//! 4. A failed attempt is committed, in a row, before the next one is sent: a crash forgets one attempt at the most.
//!
//! Circuit, rounds, parking and replay will stand beside this module and feed [`Lane::next`].

mod item;
mod terms;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::ops::Bound::{Excluded, Included};

use foldhash::HashMap;

use crate::offset::Offset;
use crate::time::Timestamp;
use item::{Item, Kept, Stage};
pub use terms::{Answer, Changes, Ordering, Outcome, Row, Send, Settings};

/// Most events sent whose outcome is not committed (product §0.4).
pub const UNSETTLED_MAX: usize = 256;
/// New events are taken up to here; the rest is for retries, which new events must not starve.
pub const WINDOW_MAX: usize = 224;
/// Most deliveries that wait beside the cursor; then it stops.
pub const ROWS_MAX: usize = 10_000;

/// The state of one subscription's deliveries.
#[derive(Debug)]
pub struct Lane {
    settings: Settings,
    /// As in the changes taken last.
    cursor: Offset,
    /// As in the changes committed last.
    committed: Offset,
    /// How far the log was offered or passed.
    seen: Offset,
    items: BTreeMap<Offset, Item>,
    /// The unsettled events of an aggregate, in order: the first may go.
    chains: HashMap<u64, VecDeque<Offset>>,
    /// What may go as soon as there is room.
    ready: BTreeSet<Offset>,
    /// What may go at its time.
    due: BTreeSet<(Timestamp, Offset)>,
    /// What the next changes must tell.
    changed: Vec<Offset>,
    /// What the changes tell that are being committed.
    under_way: Option<Vec<Offset>>,
    in_flight: usize,
    unsettled: usize,
    /// Items that have a row, or are about to.
    rows: usize,
}

impl Lane {
    /// A lane that goes on from committed progress. With each row comes the key of its aggregate (see [`Lane::offer`]).
    pub fn new(cursor: Offset, rows: impl IntoIterator<Item = (Row, Option<u64>)>, settings: Settings) -> Self {
        let mut lane = Self {
            settings,
            cursor,
            committed: cursor,
            seen: cursor,
            items: BTreeMap::new(),
            chains: HashMap::default(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            changed: Vec::new(),
            under_way: None,
            in_flight: 0,
            unsettled: 0,
            rows: 0,
        };
        for (row, key) in rows {
            lane.insert(row.offset, Item::restored(&row, key));
        }
        let offsets: Vec<_> = lane.items.keys().copied().collect();
        for offset in offsets {
            lane.promote(offset);
        }
        lane
    }

    /// Takes an event to deliver. `key` is a hash of its aggregate: those of equal keys are sent in order.
    ///
    /// Answers whether it is new; what was passed before or has a row is not. Offer in offset order, and no more than
    /// [`Lane::wants`].
    pub fn offer(&mut self, offset: Offset, key: Option<u64>) -> bool {
        if offset <= self.seen {
            return false;
        }
        self.seen = offset;
        if self.items.contains_key(&offset) {
            return false;
        }
        self.insert(offset, Item::queued(key));
        self.promote(offset);
        true
    }

    /// Notes that through `offset` nothing else is to be delivered.
    pub fn pass(&mut self, offset: Offset) {
        self.seen = self.seen.max(offset);
    }

    /// How many more events it may be offered.
    pub fn wants(&self) -> usize {
        WINDOW_MAX.saturating_sub(self.unsettled).min(ROWS_MAX.saturating_sub(self.items.len()))
    }

    /// The next attempt to make, if there is one and there is room. Ask until it says no.
    pub fn next(&mut self, now: Timestamp) -> Option<Send> {
        while let Some(&(due, offset)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            self.ready.insert(offset);
        }
        while self.in_flight < self.settings.max_concurrency.max(1) {
            let offset = *self.ready.first()?;
            let covered = self.items.get(&offset).is_some_and(|item| !item.is_unsettled());
            if covered && self.unsettled >= UNSETTLED_MAX {
                return None;
            }
            self.ready.pop_first();
            if !self.is_first(offset) {
                continue;
            }
            let Some(item) = self.items.get_mut(&offset).filter(|item| item.may_go()) else { continue };
            item.stage = Stage::Sending;
            self.unsettled += usize::from(covered);
            self.in_flight += 1;
            return Some(Send { offset, attempt: item.attempts + 1 });
        }
        None
    }

    /// When [`Lane::next`] should be asked again, if nothing else happens before.
    pub fn due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes the outcome of an attempt that ended at `now`. `jitter` is chance, from 0 to 1.
    pub fn settle(&mut self, offset: Offset, outcome: Outcome, now: Timestamp, jitter: f64) {
        let Some(item) = self.items.get_mut(&offset).filter(|item| item.stage == Stage::Sending) else { return };
        self.in_flight -= 1;
        let (reason, due) = match outcome {
            Outcome::Delivered(_) => {
                item.stage = Stage::Delivered;
                let key = item.key;
                self.note_if_passed(offset);
                self.unchain(offset, key);
                return;
            }
            Outcome::Retry { reason, retry_after, .. } => {
                (reason, self.settings.schedule.due(item.attempts + 1, now, jitter, retry_after))
            }
            Outcome::Reject { reason, .. } => (reason, None),
            Outcome::Gone { .. } => {
                ("status 410".into(), self.settings.schedule.due(item.attempts + 1, now, jitter, None))
            }
        };
        item.attempts += 1;
        item.reason = reason;
        if let Some(due) = due {
            item.stage = Stage::Waiting(due);
            self.rows += usize::from(item.kept == Kept::No);
            item.kept = Kept::Dirty;
            self.changed.push(offset);
        } else {
            item.stage = Stage::Dead;
            self.note_if_passed(offset);
        }
    }

    /// Takes back an attempt that was not made, by no fault of the subscriber: it is not counted, and due at `until`.
    pub fn postpone(&mut self, offset: Offset, until: Timestamp) {
        let Some(item) = self.items.get_mut(&offset).filter(|item| item.stage == Stage::Sending) else { return };
        self.in_flight -= 1;
        item.stage = Stage::Waiting(until);
        if item.kept == Kept::No {
            self.rows += 1;
            item.kept = Kept::Dirty;
            self.changed.push(offset);
        }
        self.unsettled -= usize::from(!item.is_unsettled());
        self.promote(offset);
    }

    /// What is to be committed; nothing while earlier changes are, or when there is nothing new.
    ///
    /// Whoever takes them commits them, however often that takes, or drops the lane.
    pub fn take_changes(&mut self) -> Option<Changes> {
        if self.under_way.is_some() {
            return None;
        }
        self.advance();
        if self.changed.is_empty() && self.cursor == self.committed {
            return None;
        }
        let offsets = mem::take(&mut self.changed);
        let mut changes = Changes { cursor: self.cursor, waiting: Vec::new(), cleared: Vec::new(), dead: Vec::new() };
        for &offset in &offsets {
            let Some(item) = self.items.get_mut(&offset) else { continue };
            match item.stage {
                Stage::Delivered if item.kept == Kept::Yes => changes.cleared.push(offset),
                Stage::Delivered => {}
                Stage::Dead => changes.dead.push(item.row(offset)),
                Stage::Queued | Stage::Sending | Stage::Waiting(_) => {
                    item.kept = Kept::Writing;
                    changes.waiting.push(item.row(offset));
                }
            }
        }
        self.under_way = Some(offsets);
        Some(changes)
    }

    /// Notes that the changes taken last are committed.
    pub fn committed(&mut self) {
        let Some(offsets) = self.under_way.take() else { return };
        self.committed = self.cursor;
        for offset in offsets {
            let Some(item) = self.items.get_mut(&offset) else { continue };
            if item.kept == Kept::Writing {
                item.kept = Kept::Yes;
                self.unsettled -= usize::from(!item.is_unsettled());
                self.promote(offset);
            } else if matches!(item.stage, Stage::Delivered | Stage::Dead) {
                let (stage, key) = (item.stage, item.key);
                self.rows -= usize::from(item.kept == Kept::Yes);
                self.items.remove(&offset);
                self.unsettled -= 1;
                if stage == Stage::Dead {
                    self.unchain(offset, key);
                }
            }
        }
    }

    /// How far everything is settled but for rows, committed or not.
    pub fn cursor(&self) -> Offset {
        if self.unsettled == 0 { self.seen } else { self.cursor }
    }

    /// How far the log was offered or passed: where to read on.
    pub fn seen(&self) -> Offset {
        self.seen
    }

    /// By how much a commit would move the cursor, if everything is settled.
    pub fn uncommitted(&self) -> u64 {
        self.cursor().0.saturating_sub(self.committed.0)
    }

    /// How many attempts are being made.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many events are taken or sent and not covered by what is committed.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// How many deliveries wait beside the cursor, those included whose end is not committed yet.
    pub fn waiting(&self) -> usize {
        self.rows
    }

    /// Moves the cursor as far as the first law allows, and makes the rows that this takes.
    fn advance(&mut self) {
        // One slow answer must not hold the window: its delivery becomes a row before that is full.
        let crowded = self.unsettled >= WINDOW_MAX / 2;
        while let Some((&offset, item)) = self.items.range((Excluded(self.cursor), Included(self.seen))).next() {
            let done = matches!(item.stage, Stage::Delivered | Stage::Dead);
            if !done && item.kept == Kept::No {
                let passes = match item.stage {
                    Stage::Sending => crowded,
                    _ => self.waits_behind_row(offset, item),
                };
                if !passes {
                    self.cursor = self.cursor.max(Offset(offset.0 - 1));
                    return;
                }
                if let Some(item) = self.items.get_mut(&offset) {
                    self.rows += 1;
                    item.kept = Kept::Dirty;
                }
                self.changed.push(offset);
            } else if done {
                self.changed.push(offset);
            }
            self.cursor = offset;
        }
        self.cursor = self.cursor.max(self.seen);
    }

    fn waits_behind_row(&self, offset: Offset, item: &Item) -> bool {
        let first = item.key.and_then(|key| self.chains.get(&key)?.front()).filter(|first| **first < offset);
        let first = first.and_then(|first| self.items.get(first));
        first.is_some_and(|first| first.kept != Kept::No && first.stage != Stage::Dead)
    }

    /// What the cursor has passed it will not meet again.
    fn note_if_passed(&mut self, offset: Offset) {
        if offset <= self.cursor {
            self.changed.push(offset);
        }
    }

    fn insert(&mut self, offset: Offset, mut item: Item) {
        if self.settings.ordering == Ordering::None {
            item.key = None;
        }
        if let Some(key) = item.key {
            let chain = self.chains.entry(key).or_default();
            // Nearly always at the end; before a restored row that was above the cursor, else.
            chain.insert(chain.partition_point(|other| *other < offset), offset);
        }
        self.rows += usize::from(item.kept == Kept::Yes);
        self.unsettled += usize::from(item.is_unsettled());
        self.items.insert(offset, item);
    }

    fn is_first(&self, offset: Offset) -> bool {
        let chain = self.items.get(&offset).and_then(|item| self.chains.get(&item.key?));
        chain.is_none_or(|chain| chain.front() == Some(&offset))
    }

    /// Lets an event go, now or at its time, if nothing stands before it.
    fn promote(&mut self, offset: Offset) {
        let Some(item) = self.items.get(&offset).filter(|item| item.may_go()) else { return };
        let stage = item.stage;
        if !self.is_first(offset) {
            return;
        }
        if let Stage::Waiting(due) = stage {
            self.due.insert((due, offset));
        } else {
            self.ready.insert(offset);
        }
    }

    /// Takes an event out of its aggregate's way.
    fn unchain(&mut self, offset: Offset, key: Option<u64>) {
        let Some((key, chain)) = key.and_then(|key| Some((key, self.chains.get_mut(&key)?))) else { return };
        if let Ok(at) = chain.binary_search(&offset) {
            chain.remove(at);
        }
        match chain.front().copied() {
            Some(first) => self.promote(first),
            None => drop(self.chains.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests;
