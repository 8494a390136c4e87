//! One delivery as its lane sees it.

use super::{Row, RowState};
use crate::offset::Offset;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not sent yet, or, after a restart, not known to be.
    Queued,
    /// An attempt is in flight.
    Sending,
    /// The next attempt is due then.
    Waiting(Timestamp),
    /// The subscriber has it, or somebody gave it up.
    Delivered,
    /// Given up.
    Dead,
    /// Given up by somebody after it was parked: its dead letter is told already.
    Released,
    /// Given up, and its aggregate waits until somebody decides.
    Parked,
    /// Settled, but what follows it must be read from the log again.
    Followed,
}

/// Whether the delivery has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    No,
    /// It must get one, or another one than it has.
    Dirty,
    /// The row is in the changes under way.
    Writing,
    /// The row is committed as it should be.
    Yes,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: Option<u64>,
    pub(super) attempts: u32,
    pub(super) stage: Stage,
    pub(super) kept: Kept,
    /// It was sent, and how that ended is not committed.
    pub(super) unsettled: bool,
    /// Parked, and its dead letter is not told yet.
    pub(super) untold: bool,
    pub(super) reason: Box<str>,
    pub(super) replay: Option<Box<str>>,
    /// When the attempt was counted that is made, or about to be.
    pub(super) counted: Option<Timestamp>,
    /// Attempts in a row whose process ended before their outcome was known: none, one, or more.
    pub(super) lost: u8,
}

/// Why an attempt failed that was under way when the process ended.
pub const LOST: &str = "the process ended while it was sent";

impl Item {
    pub(super) fn queued(key: Option<u64>) -> Self {
        Self {
            key,
            attempts: 0,
            stage: Stage::Queued,
            kept: Kept::No,
            unsettled: false,
            untold: false,
            reason: Box::default(),
            replay: None,
            counted: None,
            lost: 0,
        }
    }

    /// To be sent again from the first attempt on, once its row is committed.
    pub(super) fn revived(key: Option<u64>, replay: Option<Box<str>>) -> Self {
        let stage = Stage::Waiting(Timestamp::from_millis(0));
        Self { stage, kept: Kept::Dirty, replay, ..Self::queued(key) }
    }

    pub(super) fn restored(row: Row, key: Option<u64>) -> Self {
        let stage = match row.state {
            // One that was taken back has its time.
            RowState::Waiting if row.attempts == 0 && row.replay.is_none() && row.due == Timestamp::default() => {
                Stage::Queued
            }
            RowState::Waiting => Stage::Waiting(row.due),
            RowState::Parked => Stage::Parked,
            RowState::Settled => Stage::Followed,
            // As it was, until the shell says that it is lost.
            RowState::Counted => Stage::Sending,
        };
        let counted = Some(row.due).filter(|_| row.state == RowState::Counted);
        let lost = if counted.is_some() { 1 + u8::from(&*row.reason == LOST) } else { 0 };
        let (attempts, reason, replay, unsettled) = (row.attempts, row.reason, row.replay, counted.is_some());
        Self { attempts, stage, kept: Kept::Yes, unsettled, reason, replay, counted, lost, ..Self::queued(key) }
    }

    /// Whether an attempt may be made, its aggregate and the time permitting: a failure must be committed first.
    pub(super) fn may_go(&self) -> bool {
        match self.stage {
            Stage::Queued => true,
            Stage::Waiting(_) => self.kept == Kept::Yes,
            _ => false,
        }
    }

    /// Attempts made, with the one under way if `counted` says so.
    pub(super) fn made(&self) -> u32 {
        self.attempts + u32::from(self.counted.is_none())
    }

    /// Whether nothing is left to do but to commit that.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Delivered | Stage::Dead | Stage::Released)
    }

    /// Its row.
    pub(super) fn row(&self, offset: Offset, followers: Option<Offset>) -> Row {
        let (state, due) = match self.stage {
            Stage::Parked => (RowState::Parked, Timestamp::default()),
            Stage::Followed => (RowState::Settled, Timestamp::default()),
            Stage::Waiting(_) | Stage::Sending if self.counted.is_some() => {
                (RowState::Counted, self.counted.unwrap_or_default())
            }
            Stage::Waiting(due) => (RowState::Waiting, due),
            _ => (RowState::Waiting, Timestamp::default()),
        };
        let reason = match self.stage {
            Stage::Queued => "waits for an earlier event of its aggregate".into(),
            Stage::Sending if self.counted.is_none() => "waits for an answer".into(),
            _ => self.reason.clone(),
        };
        Row { offset, attempts: self.attempts, due, reason, state, followers, replay: self.replay.clone() }
    }
}
