//! The unsettled events of one aggregate, in order: only the first may be sent.
//!
//! When the cursor passes an event that waits behind another one's row, memory lets go of it: the row of the first says
//! that there are *followers*, and they are read from the log again once it is settled. So a blocked aggregate costs one
//! row, however much is published to it.

use std::collections::VecDeque;

use super::item::{Item, Kept, Stage};
use super::{Follow, Lane, Ordering, Row, RowState};
use crate::offset::Offset;

#[derive(Debug, Default)]
pub(super) struct Chain {
    order: VecDeque<Offset>,
    /// Events that memory let go of: those of the aggregate after the first offset, through the second.
    pub(super) dropped: Option<(Offset, Offset)>,
    /// How many of those are known of.
    dropped_count: usize,
    /// One of it is being sent; there can be a smaller one that came later, by a replay.
    pub(super) in_flight: bool,
}

impl Lane {
    /// Whether the events of an aggregate wait for each other. If they did before the lane began, what waits behind a row
    /// is read again at once.
    pub(super) fn is_ordered(&self) -> bool {
        self.settings.ordering == Ordering::Aggregate
    }

    /// Takes a row that was committed.
    pub(super) fn restore(&mut self, row: Row, key: Option<u64>) {
        // What lies above the cursor is offered again.
        let followers = row.followers.filter(|after| *after < self.cursor);
        let (offset, settled) = (row.offset, row.state == RowState::Settled);
        self.parked += usize::from(row.state == RowState::Parked);
        let item = Item::restored(row, key);
        if followers.is_some() {
            self.enchain(offset, item);
        } else {
            self.insert(offset, item);
        }
        self.under_way_again(offset);
        if let Some(chain) = key.and_then(|key| self.chains.get_mut(&key))
            && let Some(after) = followers
        {
            // A row in whose front another one came since says what was dropped then.
            let told = chain.dropped.map(|(first, _)| first);
            chain.dropped = Some((told.map_or(after, |first| first.min(after)), self.cursor));
            let first = chain.order.front().copied().filter(|first| *first < offset);
            // While no order was kept, one before it may have got a row that does not say so: now that one must.
            if let Some(first) = first.filter(|_| told.is_none_or(|told| after < told)) {
                self.tell(first);
            }
        }
        if settled || (followers.is_some() && !self.is_ordered()) {
            self.follows.insert(offset);
        }
    }

    pub(super) fn insert(&mut self, offset: Offset, mut item: Item) {
        if !self.is_ordered() {
            item.key = None;
        }
        self.enchain(offset, item);
    }

    /// Takes an event and puts it into its aggregate, if it has a key.
    pub(super) fn enchain(&mut self, offset: Offset, item: Item) {
        if let Some(key) = item.key {
            let order = &mut self.chains.entry(key).or_default().order;
            // Nearly always at the end.
            order.insert(order.partition_point(|other| *other < offset), offset);
        }
        self.rows += usize::from(item.kept != Kept::No);
        self.items.insert(offset, item);
    }

    /// Whether nothing of its aggregate stands before it.
    pub(super) fn is_first(&self, offset: Offset) -> bool {
        let chain = self.items.get(&offset).and_then(|item| self.chains.get(&item.key?));
        chain.is_none_or(|chain| !chain.in_flight && chain.order.front() == Some(&offset))
    }

    /// Lets an event go, now or at its time, if nothing stands before it.
    pub(super) fn promote(&mut self, offset: Offset) {
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

    /// The first of an aggregate.
    pub(super) fn front(&self, key: u64) -> Option<Offset> {
        self.chains.get(&key)?.order.front().copied()
    }

    /// Lets the first of an aggregate go.
    pub(super) fn promote_first(&mut self, key: Option<u64>) {
        if let Some(first) = key.and_then(|key| self.front(key)) {
            self.promote(first);
        }
    }

    /// Takes a settled event out of its aggregate's way. If only followers are left that memory let go of, it stays, to
    /// be told by [`Lane::follow`]; answers whether it is done with.
    pub(super) fn unchain(&mut self, offset: Offset) -> bool {
        let Some(key) = self.items.get(&offset).and_then(|item| item.key) else { return true };
        let Some(chain) = self.chains.get_mut(&key) else { return true };
        if chain.order.len() == 1 && chain.order.front() == Some(&offset) && chain.dropped.is_some() {
            self.follows.insert(offset);
            return false;
        }
        if let Ok(at) = chain.order.binary_search(&offset) {
            chain.order.remove(at);
        }
        match chain.order.front().copied() {
            Some(first) => {
                self.keep_followers(key, first);
                self.promote(first);
            }
            None => drop(self.chains.remove(&key)),
        }
        true
    }

    /// The first of an aggregate carries what the log must know: its row is to be written (again).
    ///
    /// It needs one if it lies under the cursor, or if memory let go of what follows it.
    fn keep_followers(&mut self, key: u64, first: Offset) {
        let followers = self.followers(key).is_some();
        let under = first <= self.cursor;
        let kept = self.items.get(&first).is_some_and(|item| item.kept != Kept::No);
        if followers || (under && !kept) {
            self.tell(first);
        }
    }

    /// What a row of the first of an aggregate says: the offset after which others under the cursor, or dropped, wait.
    pub(super) fn followers(&self, key: u64) -> Option<Offset> {
        let chain = self.chains.get(&key)?;
        let first = *chain.order.front()?;
        let behind = chain.order.iter().skip(1);
        // Those with a row of their own speak for themselves.
        let covered = behind
            .take_while(|offset| **offset <= self.cursor)
            .find(|offset| self.items.get(offset).is_some_and(|item| item.kept == Kept::No));
        match (covered, chain.dropped) {
            (Some(covered), _) => Some(first.max(Offset(covered.0 - 1))),
            (None, Some((after, _))) => Some(after),
            (None, None) => None,
        }
    }

    /// Lets go of an event that waits behind a row, and of all that came after it; answers whether it did.
    pub(super) fn drop_behind_row(&mut self, offset: Offset) -> bool {
        let Some(key) = self.items.get(&offset).and_then(|item| item.key) else { return false };
        let Some(chain) = self.chains.get_mut(&key) else { return false };
        let Some(&first) = chain.order.front().filter(|first| **first < offset) else { return false };
        if self.items.get(&first).is_none_or(|item| item.kept == Kept::No || item.is_done()) {
            return false;
        }
        let at = chain.order.partition_point(|other| *other < offset);
        // What was sent before a replay came in front of it, or has a row of its own, is not let go of.
        let goes = |item: &Item| item.stage == Stage::Queued && item.kept == Kept::No;
        if !chain.order.iter().skip(at).all(|offset| self.items.get(offset).is_some_and(goes)) {
            return false;
        }
        let gone = chain.order.split_off(at);
        let last = gone.back().copied().unwrap_or(offset);
        // What was read again may be let go of again.
        let (after, through) = chain.dropped.unwrap_or((Offset(offset.0 - 1), last));
        chain.dropped = Some((after.min(Offset(offset.0 - 1)), through.max(last)));
        chain.dropped_count += gone.len();
        self.let_go += gone.len();
        for offset in gone {
            self.items.remove(&offset);
        }
        self.keep_followers(key, first);
        true
    }

    /// Takes an event that comes after some that memory let go of: so is this one. Answers whether it did.
    pub(super) fn drop_at_once(&mut self, offset: Offset, key: Option<u64>) -> bool {
        let Some(chain) = key.filter(|_| self.is_ordered()).and_then(|key| self.chains.get_mut(&key)) else {
            return false;
        };
        let Some((_, through)) = &mut chain.dropped else { return false };
        *through = offset;
        chain.dropped_count += 1;
        self.let_go += 1;
        true
    }

    /// Events to read from the log again, for [`Lane::followed`]; each is told once, and again if that has not reached
    /// them.
    pub fn follow(&mut self) -> Option<Follow> {
        if !self.is_ordered() && self.wants() == 0 {
            // Each gets a row of its own.
            return None;
        }
        while let Some(of) = self.follows.pop_first() {
            let chain = self.items.get(&of).and_then(|item| self.chains.get(&item.key?));
            if let Some((after, through)) = chain.and_then(|chain| chain.dropped) {
                return Some(Follow { of, after, through });
            }
            // All that follows lies above the cursor that was committed: it is offered.
            self.let_pass(of);
        }
        None
    }

    /// Takes what was read for `follow`: the first of those that match, in order, and how far the log was read.
    pub fn followed(&mut self, follow: Follow, offsets: &[Offset], reached: Offset) {
        let Some(key) = self.items.get(&follow.of).and_then(|item| item.key) else { return };
        let Some(chain) = self.chains.get_mut(&key) else { return };
        let Some((_, through)) = chain.dropped else { return };
        chain.dropped = (reached < through).then_some((reached, through));
        let back = if chain.dropped.is_some() { offsets.len().min(chain.dropped_count) } else { chain.dropped_count };
        chain.dropped_count -= back;
        self.let_go -= back;
        let more = chain.dropped.is_some();
        for &offset in offsets {
            if !self.items.contains_key(&offset) && !self.acks.contains(offset) {
                self.insert(offset, Item::queued(Some(key)));
                self.part(offset);
            }
        }
        if !self.is_ordered() {
            self.tell(follow.of);
            more.then(|| self.follows.insert(follow.of));
        }
        self.let_pass(follow.of);
    }

    /// Gives an event that waited a row of its own, and lets it go, if aggregates keep no order any more.
    fn part(&mut self, offset: Offset) {
        if !self.is_ordered() {
            self.tell(offset);
            self.promote(offset);
        }
    }

    /// Has the row of an event written, or written again.
    pub(super) fn tell(&mut self, offset: Offset) {
        let Some(item) = self.items.get_mut(&offset) else { return };
        self.rows += usize::from(item.kept == Kept::No);
        item.kept = Kept::Dirty;
        self.changed.insert(offset);
    }

    /// Takes one that is settled out of the way of what followed it, unless more is to be read.
    pub(super) fn let_pass(&mut self, offset: Offset) {
        if self.items.get(&offset).is_some_and(|item| item.stage == Stage::Followed)
            && self.unchain(offset)
            && let Some(item) = self.items.get_mut(&offset)
        {
            item.stage = Stage::Delivered;
            self.changed.insert(offset);
        }
    }
}
