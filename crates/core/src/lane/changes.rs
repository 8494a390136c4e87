//! What a lane has committed.

use std::mem;
use std::ops::Bound::{Excluded, Included};

use super::item::{Item, Kept, Stage};
use super::{ACKS_SPAN, Changes, Dead, Jump, Lane};
use crate::offset::Offset;

/// What changes say of a delivery.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrote {
    /// Its row; whether that tells the outcome of the last attempt.
    Row { settles: bool },
    /// That it is delivered.
    Done,
    /// That it is dead; whether a row stays, for what follows.
    Dead { row: bool },
}

impl Lane {
    /// What is to be committed; nothing while earlier changes are, or when there is nothing new.
    ///
    /// Whoever takes them commits them, however often that takes, or drops the lane.
    pub fn take_changes(&mut self) -> Option<Changes> {
        if self.under_way.is_some() {
            return None;
        }
        self.advance();
        if self.changed.is_empty() && self.cursor == self.committed && !self.stood && self.notices.is_empty() {
            return None;
        }
        let mut changes = Changes { cursor: self.cursor, ..Changes::default() };
        let mut under_way = Vec::with_capacity(self.changed.len());
        for offset in mem::take(&mut self.changed) {
            if let Some(wrote) = self.write(offset, &mut changes) {
                under_way.push((offset, wrote));
            }
        }
        changes.acked = self.acks.to_bytes(self.cursor);
        if mem::take(&mut self.stood) {
            changes.standing = Some(self.standing.clone());
        }
        changes.notices = mem::take(&mut self.notices);
        self.under_way = Some(under_way);
        if self.jump == Jump::Made {
            self.jump = Jump::UnderWay;
        }
        Some(changes)
    }

    fn write(&mut self, offset: Offset, changes: &mut Changes) -> Option<Wrote> {
        let key = self.items.get(&offset)?.key;
        let followers = key.filter(|_| self.is_front(offset)).and_then(|key| self.followers(key));
        let item = self.items.get_mut(&offset)?;
        let above = offset > self.cursor;
        match item.stage {
            Stage::Delivered => {
                if item.kept != Kept::No {
                    changes.cleared.push(offset);
                }
                if above {
                    self.acks.insert(offset);
                }
                Some(Wrote::Done)
            }
            Stage::Dead | Stage::Released => {
                let row = followers.is_some();
                match item.stage {
                    Stage::Dead => changes.dead.push(dead(offset, item)),
                    _ if !row => changes.cleared.push(offset),
                    _ => {}
                }
                if row {
                    changes.rows.push(Item { stage: Stage::Followed, ..Item::queued(None) }.row(offset, followers));
                }
                if above {
                    self.acks.insert(offset);
                }
                Some(Wrote::Dead { row })
            }
            stage => {
                if item.kept == Kept::No {
                    return None;
                }
                if mem::take(&mut item.untold) {
                    changes.dead.push(dead(offset, item));
                }
                item.kept = Kept::Writing;
                changes.rows.push(item.row(offset, followers));
                Some(Wrote::Row { settles: item.unsettled && stage != Stage::Sending })
            }
        }
    }

    /// Notes that the changes taken last are committed.
    pub fn committed(&mut self) {
        let Some(under_way) = self.under_way.take() else { return };
        self.committed = self.cursor;
        if self.jump == Jump::UnderWay {
            self.jump = Jump::Committed;
        }
        for (offset, wrote) in under_way {
            match wrote {
                Wrote::Row { settles } => self.row_committed(offset, settles),
                Wrote::Done => self.remove(offset),
                Wrote::Dead { row } => self.dead_committed(offset, row),
            }
        }
    }

    fn row_committed(&mut self, offset: Offset, settles: bool) {
        let Some(item) = self.items.get_mut(&offset) else { return };
        // What is sent since then, as it waited only for its aggregate, is unsettled.
        if settles && mem::take(&mut item.unsettled) {
            self.unsettled -= 1;
        }
        if item.kept == Kept::Writing {
            item.kept = Kept::Yes;
            self.promote(offset);
        }
    }

    fn dead_committed(&mut self, offset: Offset, row: bool) {
        if !row {
            if self.unchain(offset) {
                // Nothing follows: then there is nothing to stay for.
                return self.remove(offset);
            }
            // One before it was given up with it, and had the row for what follows: now it needs one itself.
            self.changed.insert(offset);
        }
        let Some(item) = self.items.get_mut(&offset) else { return };
        self.unsettled -= usize::from(mem::take(&mut item.unsettled));
        self.rows += usize::from(item.kept == Kept::No);
        item.kept = if row { Kept::Yes } else { Kept::Dirty };
        item.stage = Stage::Followed;
        if !row {
            return;
        }
        self.let_pass(offset);
    }

    fn remove(&mut self, offset: Offset) {
        self.counting.remove(&offset);
        if let Some(item) = self.items.remove(&offset) {
            self.rows -= usize::from(item.kept != Kept::No);
            self.unsettled -= usize::from(item.unsettled);
        }
    }

    fn is_front(&self, offset: Offset) -> bool {
        let key = self.items.get(&offset).and_then(|item| item.key);
        key.is_some_and(|key| self.front(key) == Some(offset))
    }

    /// Moves the cursor as far as the first law allows, and makes the rows that this takes.
    pub(super) fn advance(&mut self) {
        let done = |offset: &&Offset| self.items.get(offset).is_some_and(Item::is_done);
        let top = self.changed.iter().rev().find(done).copied().max(self.acks.last());
        while let Some((&offset, item)) = self.items.range((Excluded(self.cursor), Included(self.seen))).next() {
            let passes = item.is_done() || item.kept != Kept::No || self.drop_behind_row(offset);
            if !passes {
                self.cursor = self.cursor.max(Offset(offset.0 - 1));
                // The bitmap is full: the oldest unsettled delivery becomes a row.
                if top.is_none_or(|top| top.0.saturating_sub(offset.0) < ACKS_SPAN) {
                    self.acks.pass(self.cursor);
                    return;
                }
                self.tell(offset);
            }
            self.cursor = offset;
        }
        self.cursor = self.cursor.max(self.seen);
        self.acks.pass(self.cursor);
    }
}

fn dead(offset: Offset, item: &Item) -> Dead {
    Dead { offset, attempts: item.attempts, reason: item.reason.clone() }
}
