//! The deliveries of one subscription, decided purely: what is sent next, what an outcome means, what is committed.
//!
//! The shell reads the log and [offers](Lane::offer) what matches, sends what [`Lane::next`] says, tells the outcome to
//! [`Lane::settle`], reads again what [`Lane::follow`] asks for, and commits [`Lane::take_changes`], confirming with
//! [`Lane::committed`].
//!
//! # Laws
//!
//! 1. Everything through the cursor is delivered, dead, has a row, or follows a row of its aggregate that says so. A row
//!    commits with or before the cursor that passes it. So a lane that is rebuilt from what was committed loses nothing.
//! 2. What is settled above the cursor is committed as [`Acks`]. What was sent and whose outcome is not committed is
//!    *unsettled*: at most [`UNSETTLED_MAX`]. Only that is sent twice after a crash.
//! 3. An event is not sent before its predecessors of the same aggregate are delivered, or dead *and committed so*:
//!    else a crash could bring the dead one back behind its successor.
//! 4. A failed attempt is committed, in a row, before the next one is sent: a crash forgets one attempt at the most.
//! 5. A blocked aggregate costs one row, whatever is published to it.
//! 6. A [careful](Lane::be_careful) lane counts an attempt before it is made: an event at which the process ends uses its
//!    attempts up.

mod acks;
mod careful;
mod chain;
mod changes;
mod choice;
mod item;
mod pull;
mod settle;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

pub use acks::{ACKS_SPAN, Acks};
use chain::Chain;
use changes::Wrote;
pub use item::LOST;
use item::{Item, Stage};
pub use pull::Late;
pub use settle::{About, Attempted};
pub use terms::{
    Answer, Changes, Dead, Follow, Notice, OnExhausted, Ordering, Outcome, Pull, Row, RowState, Send, Settings,
};

use crate::circuit::Standing;
use crate::offset::Offset;
use crate::rate::Bucket;
use crate::time::Timestamp;

/// Most events sent whose outcome is not committed (product §0.4).
pub const UNSETTLED_MAX: usize = 256;
/// The same, of a subscription whose workers fetch.
pub const FETCHED_MAX: usize = 1_024;
/// Most events taken from the log that have neither an outcome nor a row.
pub const TAKEN_MAX: usize = 1_024;
/// The same, while the last attempt failed or none was made yet: thousands that never answer must not fill memory.
pub const TAKEN_UNPROVEN_MAX: usize = 16;
/// Most rows; then the cursor stops.
pub const ROWS_MAX: usize = 10_000;

/// The state of one subscription's deliveries.
#[derive(Debug)]
pub struct Lane {
    settings: Settings,
    standing: Standing,
    bucket: Option<Bucket>,
    /// As in the changes taken last.
    cursor: Offset,
    /// As in the changes committed last.
    committed: Offset,
    /// How far the log was offered or passed.
    seen: Offset,
    /// What is settled above the cursor and has left `items`.
    acks: Acks,
    items: BTreeMap<Offset, Item>,
    chains: HashMap<u64, Chain>,
    /// What may go as soon as there is room. What stands in the way may have come since.
    ready: BTreeSet<Offset>,
    /// What may go at its time.
    due: BTreeSet<(Timestamp, Offset)>,
    /// Counts attempts before they are made.
    careful: bool,
    /// Those that are counted and not made yet.
    counting: BTreeSet<Offset>,
    /// Whose followers are to be read again.
    follows: BTreeSet<Offset>,
    /// What the next changes must tell.
    changed: BTreeSet<Offset>,
    stood: bool,
    jump: Jump,
    notices: Vec<Notice>,
    /// What the changes tell that are being committed.
    under_way: Option<Vec<(Offset, Wrote)>>,
    in_flight: usize,
    /// Of those in flight, how many belong to replays.
    replaying: usize,
    unsettled: usize,
    /// Items that have a row, or are about to.
    rows: usize,
    parked: usize,
    /// Events that memory let go of, as far as it knows: a restart forgets the number.
    let_go: usize,
}

/// Whether the last jump of the cursor is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Made,
    UnderWay,
    Committed,
}

impl Lane {
    /// A lane that goes on from what was committed. With each row comes the key of its aggregate (see [`Lane::offer`]).
    pub fn new(
        settings: Settings,
        standing: Standing,
        cursor: Offset,
        acks: Acks,
        rows: impl IntoIterator<Item = (Row, Option<u64>)>,
        now: Timestamp,
    ) -> Self {
        let mut lane = Self {
            bucket: settings.rate.map(|rate| Bucket::new(rate, now)),
            settings,
            standing,
            cursor,
            committed: cursor,
            seen: cursor,
            acks,
            items: BTreeMap::new(),
            chains: HashMap::default(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            careful: false,
            counting: BTreeSet::new(),
            follows: BTreeSet::new(),
            changed: BTreeSet::new(),
            stood: false,
            jump: Jump::Committed,
            notices: Vec::new(),
            under_way: None,
            in_flight: 0,
            replaying: 0,
            unsettled: 0,
            rows: 0,
            parked: 0,
            let_go: 0,
        };
        for (row, key) in rows {
            lane.restore(row, key);
        }
        let offsets: Vec<_> = lane.items.keys().copied().collect();
        for offset in offsets {
            lane.promote(offset);
        }
        lane
    }

    /// Takes an event to deliver. `key` is a hash of its aggregate: those of equal keys are sent in order.
    ///
    /// Answers whether it is new and will be sent from what the caller has of it. Offer in offset order, and no more than
    /// [`Lane::wants`].
    pub fn offer(&mut self, offset: Offset, key: Option<u64>) -> bool {
        if offset <= self.seen {
            return false;
        }
        self.seen = offset;
        if self.items.contains_key(&offset) || self.acks.contains(offset) || self.drop_at_once(offset, key) {
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

    /// Notes that retention took everything through `offset`: what of it was not seen is a gap.
    pub fn lose(&mut self, offset: Offset) {
        if offset > self.seen {
            self.miss(self.seen.next(), offset);
            self.seen = offset;
        }
    }

    /// Notes that retention took what of these is not delivered: they were not seen, or waited for another event.
    pub fn miss(&mut self, first: Offset, last: Offset) {
        self.notices.push(Notice::Gap { first, last });
    }

    /// How many more events it may be offered.
    pub fn wants(&self) -> usize {
        if !self.standing.is_active() {
            return 0;
        }
        self.takes().min(ROWS_MAX.saturating_sub(self.rows))
    }

    /// Whether it wants enough events for a read of the log to be worth while: a quarter of what it may take.
    pub fn is_hungry(&self) -> bool {
        self.wants() > 0 && self.takes() >= self.taken_max() / 4
    }

    fn taken_max(&self) -> usize {
        let proven = self.is_pulled() || self.standing.circuit.is_proven();
        if proven { TAKEN_MAX } else { TAKEN_UNPROVEN_MAX }
    }

    /// How many more events there is memory for.
    fn takes(&self) -> usize {
        self.taken_max().saturating_sub(self.items.len() - self.rows)
    }

    /// The next attempt to make, if there is one and there is room. Ask until it says no.
    pub fn next(&mut self, now: Timestamp) -> Option<Send> {
        while let Some(&(due, offset)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            self.ready.insert(offset);
        }
        if !self.has_room(now) {
            return None;
        }
        if self.bucket.as_mut().is_some_and(|bucket| bucket.next(now) > now) {
            return None;
        }
        let offset = loop {
            let offset = self.choose()?;
            self.ready.remove(&offset);
            if !self.count_first(offset, now) {
                break offset;
            }
        };
        self.counting.remove(&offset);
        let item = self.items.get_mut(&offset)?;
        item.stage = Stage::Sending;
        item.unsettled = true;
        if let Some(chain) = item.key.and_then(|key| self.chains.get_mut(&key)) {
            chain.in_flight = true;
        }
        self.unsettled += 1;
        self.in_flight += 1;
        self.replaying += usize::from(item.replay.is_some());
        if let Some(bucket) = &mut self.bucket {
            bucket.take();
        }
        Some(Send { offset, attempt: item.made(), replay: item.replay.clone() })
    }

    /// Whether nothing is sent: before a jump is committed, for a crash could bring back what was jumped over.
    fn is_held(&self) -> bool {
        !self.standing.is_active() || self.jump != Jump::Committed
    }

    fn has_room(&self, now: Timestamp) -> bool {
        if self.is_held() || self.unsettled >= self.unsettled_max() {
            return false;
        }
        match self.standing.circuit.probe() {
            Some(probe) => self.in_flight == 0 && probe <= now,
            None => self.in_flight < self.concurrency(),
        }
    }

    fn concurrency(&self) -> usize {
        if self.is_pulled() {
            return FETCHED_MAX;
        }
        self.settings.max_concurrency.min(self.standing.circuit.allowance()).max(1)
    }

    /// When [`Lane::next`] should be asked again, if nothing else happens before. Ask it until it says no first.
    pub fn wake_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.is_held() || self.unsettled >= self.unsettled_max() {
            return None;
        }
        let mut at = if self.ready.is_empty() { self.due.first()?.0 } else { now };
        match self.standing.circuit.probe() {
            Some(_) if self.in_flight > 0 => return None,
            Some(probe) => at = at.max(probe),
            None if self.in_flight >= self.concurrency() => return None,
            None => {}
        }
        Some(self.bucket.as_mut().map_or(at, |bucket| at.max(bucket.next(now))))
    }

    /// Whether an attempt may be made now.
    pub fn is_ready(&mut self, now: Timestamp) -> bool {
        self.wake_at(now).is_some_and(|at| at <= now)
    }

    /// How far everything is settled but for rows and what follows them, committed or not.
    pub fn cursor(&self) -> Offset {
        if self.items.len() == self.rows && self.unsettled == 0 { self.seen } else { self.cursor }
    }

    /// How far nothing is kept: no delivery through here is under way, has a row, or is to get one.
    pub fn clear(&self) -> Offset {
        let first = self.items.keys().next().map_or(self.seen, |first| Offset(first.0.saturating_sub(1)));
        first.min(self.seen)
    }

    /// What is settled above the cursor, as it was taken last (see [`Acks`]).
    pub fn acked(&self) -> Vec<u8> {
        self.acks.to_bytes(self.cursor)
    }

    /// How far the log was offered or passed: where to read on.
    pub fn seen(&self) -> Offset {
        self.seen
    }

    /// By how much a commit would move the cursor, if everything is settled.
    pub fn uncommitted(&self) -> u64 {
        self.cursor().0.saturating_sub(self.committed.0)
    }

    /// What is left of its rate.
    pub fn bucket(&self) -> Option<Bucket> {
        self.bucket
    }

    /// Goes on with what an earlier lane left of the rate.
    pub fn refill(&mut self, left: Bucket) {
        if self.settings.rate == Some(left.rate()) {
            self.bucket = Some(left);
        }
    }

    /// How the subscription stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// How many attempts are being made.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many events were sent and their outcome is not committed.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// How many deliveries are not settled, or not committed as such; what is parked is left out. What waits behind a row
    /// counts only since the lane was made.
    pub fn pending(&self) -> usize {
        self.items.len() - self.parked + self.let_go
    }

    /// How many deliveries of a replay are not settled yet.
    pub fn replaying(&self, replay: &str) -> usize {
        self.items.values().filter(|item| item.replay.as_deref() == Some(replay)).count()
    }

    /// How many aggregates are parked.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// How many rows it has, those included that are to be written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether there is more to commit than a cursor that moved: a delivery may wait for it.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty() || self.stood || !self.notices.is_empty()
    }

    /// Whether nothing is left to do or to commit through `seen`: it has nothing of its own.
    pub fn is_current(&self) -> bool {
        // What is settled beyond `seen` is not to be forgotten.
        let plain = self.items.is_empty() && self.acks.is_empty();
        plain && self.under_way.is_none() && self.notices.is_empty() && !self.stood
    }
}

#[cfg(test)]
mod tests;
