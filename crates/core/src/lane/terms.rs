//! What goes into a lane and comes out of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::circuit::Standing;
use crate::offset::Offset;
use crate::rate::Rate;
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

/// What becomes of an aggregate when a delivery of one of its events is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// It goes on with the next event.
    #[default]
    Skip,
    /// Its later events wait on the log until the dead letter is delivered or discarded.
    Park,
}

/// What a subscription asks of its lane.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// When to try again.
    pub schedule: Schedule,
    /// Most attempts in flight; 0 counts as 1.
    pub max_concurrency: usize,
    /// Whether aggregates keep their order.
    pub ordering: Ordering,
    /// What becomes of an aggregate with a dead letter.
    pub on_exhausted: OnExhausted,
    /// The round of failures that deactivates; `None`: never.
    pub deactivate_after: Option<u32>,
    /// Most attempts in a time.
    pub rate: Option<Rate>,
    /// Its workers come and fetch, and the terms for that; `None`: it is sent to.
    pub pull: Option<Pull>,
}

/// The terms of a subscription whose workers fetch. They say themselves how much they take, and what one of them fails at
/// says nothing of the next event: there is no circuit, and no round that deactivates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Deliveries after the first one, before it is given up.
    pub retries_max: u32,
    /// How long a worker may take: what is out when the lane ends is not sent again before that.
    pub ack_wait: Duration,
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
        /// What it said.
        answer: Answer,
        /// How long the subscriber asks to be left alone; a worker that fetches says when exactly.
        retry_after: Option<Duration>,
    },
    /// It will never take this event.
    Reject {
        /// For a person.
        reason: Box<str>,
        /// What it said.
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
    /// The status, where the protocol has one and an answer came.
    pub status: Option<u16>,
    /// The beginning of a text.
    pub text: Option<Box<str>>,
}

impl Outcome {
    /// What the subscriber said.
    pub fn answer(&self) -> &Answer {
        match self {
            Self::Delivered(answer)
            | Self::Retry { answer, .. }
            | Self::Reject { answer, .. }
            | Self::Gone { answer } => answer,
        }
    }

    /// Why it failed; `None` for a success.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Delivered(_) => None,
            Self::Retry { reason, .. } | Self::Reject { reason, .. } => Some(reason),
            Self::Gone { .. } => Some("status 410"),
        }
    }
}

/// What a row says of its delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowState {
    /// It waits for an attempt.
    #[default]
    Waiting,
    /// It is dead, and its aggregate waits for what becomes of the dead letter.
    Parked,
    /// It is settled; only what follows it is not.
    Settled,
    /// An attempt was counted before it was made, and how that ended is not known. It was counted when it was `due`.
    Counted,
}

/// A delivery that is not settled although the cursor is, or may come to be, past it.
///
/// At most one for each aggregate whose events keep their order: what comes after it is read from the log again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Which event.
    pub offset: Offset,
    /// Attempts made.
    pub attempts: u32,
    /// When the next one is due.
    pub due: Timestamp,
    /// Why the last one failed, or what is waited for.
    pub reason: Box<str>,
    /// What is left to do.
    pub state: RowState,
    /// Events of its aggregate after this one, through the cursor, wait for it: none of them is settled.
    pub followers: Option<Offset>,
    /// The replay that it belongs to.
    pub replay: Option<Box<str>>,
}

/// An attempt to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Of which event.
    pub offset: Offset,
    /// Counts from 1.
    pub attempt: u32,
    /// The replay that it belongs to.
    pub replay: Option<Box<str>>,
}

/// Events of an aggregate to read from the log again: those after `after`, through `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The event that they waited for: it tells the aggregate.
    pub of: Offset,
    /// They come after this one.
    pub after: Offset,
    /// The last one that may be meant.
    pub through: Offset,
}

/// A delivery given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Which event.
    pub offset: Offset,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Box<str>,
}

/// What a person should hear of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A further round of failures, from the second on.
    Failing {
        /// Which round.
        round: u32,
        /// Why the last attempt failed.
        reason: Box<str>,
    },
    /// It works again.
    Recovered {
        /// After so many rounds of failures, at least two.
        rounds: u32,
    },
    /// Nothing more is sent until somebody activates it.
    Deactivated {
        /// Why.
        reason: Box<str>,
    },
    /// Retention removed events that were not delivered.
    Gap {
        /// The first one that is missing, at the earliest.
        first: Offset,
        /// The last one.
        last: Offset,
    },
}

/// What is to be committed, at once or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything through here is settled but for rows.
    pub cursor: Offset,
    /// What is settled above the cursor (see [`super::Acks`]).
    pub acked: Vec<u8>,
    /// Rows, new or changed.
    pub rows: Vec<Row>,
    /// Rows that are done with.
    pub cleared: Vec<Offset>,
    /// Deliveries given up; their rows, if any, go, unless they are parked.
    pub dead: Vec<Dead>,
    /// How the subscription stands, if that changed.
    pub standing: Option<Standing>,
    /// What is to be told with it.
    pub notices: Vec<Notice>,
}
