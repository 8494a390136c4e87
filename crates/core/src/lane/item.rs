//! One delivery as its lane sees it.

use std::mem;

use super::Row;
use crate::offset::Offset;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not sent yet, or, after a restart, not known to be.
    Queued,
    /// An attempt is in flight.
    Sending,
    /// Failed; the next attempt is due then.
    Waiting(Timestamp),
    Delivered,
    Dead,
}

/// Whether the delivery has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    No,
    /// It must get one, or another one than it has.
    Dirty,
    /// The row is in the changes under way.
    Writing,
    /// The row is committed, as of the last failure.
    Yes,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: Option<u64>,
    pub(super) attempts: u32,
    pub(super) stage: Stage,
    pub(super) kept: Kept,
    pub(super) reason: Box<str>,
}

impl Item {
    pub(super) fn queued(key: Option<u64>) -> Self {
        Self { key, attempts: 0, stage: Stage::Queued, kept: Kept::No, reason: Box::default() }
    }

    pub(super) fn restored(row: &Row, key: Option<u64>) -> Self {
        let stage = if row.attempts == 0 { Stage::Queued } else { Stage::Waiting(row.due) };
        Self { key, attempts: row.attempts, stage, kept: Kept::Yes, reason: Box::default() }
    }

    /// Whether what is committed does not cover it.
    pub(super) fn is_unsettled(&self) -> bool {
        self.kept != Kept::Yes || !matches!(self.stage, Stage::Queued | Stage::Waiting(_))
    }

    /// Whether an attempt may be made, its aggregate and the time permitting (fourth law).
    pub(super) fn may_go(&self) -> bool {
        match self.stage {
            Stage::Queued => true,
            Stage::Waiting(_) => self.kept == Kept::Yes,
            Stage::Sending | Stage::Delivered | Stage::Dead => false,
        }
    }

    /// Its row. The reason goes with it: another row is only written after another failure.
    pub(super) fn row(&mut self, offset: Offset) -> Row {
        let due = match self.stage {
            Stage::Waiting(due) => due,
            // As soon as it can be.
            _ => Timestamp::from_millis(0),
        };
        let reason = match self.stage {
            Stage::Queued => "waits for an earlier event of its aggregate".into(),
            Stage::Sending => "waits for an answer".into(),
            _ => mem::take(&mut self.reason),
        };
        Row { offset, attempts: self.attempts, due, reason }
    }
}
