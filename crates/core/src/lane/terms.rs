//! What goes into a lane and comes out of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::offset::Offset;
use crate::retry::Schedule;
use crate::time::Timestamp;

/// Whether the events of an aggregate wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// They do.
    #[default]
    Aggregate,
    /// Everything is sent as it comes.
    None,
}

/// What a subscription asks of its lane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to try again.
    pub schedule: Schedule,
    /// Most attempts in flight; 0 counts as 1.
    pub max_concurrency: usize,
    /// Whether aggregates keep their order.
    pub ordering: Ordering,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The subscriber has it.
    Delivered(Answer),
    /// It does not, but may have it later.
    Retry {
        /// For a person: `timeout`, `status 503`.
        reason: Box<str>,
        /// What it said, if anything.
        answer: Answer,
        /// How long the subscriber asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It will never take this event.
    Reject {
        /// For a person.
        reason: Box<str>,
        /// What it said, if anything.
        answer: Answer,
    },
    /// The subscriber says that it is gone (410): it wants nothing more.
    Gone {
        /// What it said.
        answer: Answer,
    },
}

/// What a subscriber said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Of the answer, where the protocol has one.
    pub status: Option<u16>,
    /// How the answer begins, if it is text.
    pub text: Option<Box<str>>,
}

/// A delivery that is not settled although the cursor is, or may come to be, past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which event.
    pub offset: Offset,
    /// Attempts made; 0 for one that waits for an earlier event of its aggregate, or for its first answer.
    pub attempts: u32,
    /// When the next one is due.
    pub due: Timestamp,
    /// Why the last one failed, or what is waited for.
    pub reason: Box<str>,
}

/// An attempt to make now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    /// Of which event.
    pub offset: Offset,
    /// Counts from 1.
    pub attempt: u32,
}

/// What is to be committed, at once or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Everything through here is settled but for rows.
    pub cursor: Offset,
    /// Rows, new or changed.
    pub waiting: Vec<Row>,
    /// Rows that are done with.
    pub cleared: Vec<Offset>,
    /// Deliveries given up; their rows, if any, go.
    pub dead: Vec<Row>,
}
