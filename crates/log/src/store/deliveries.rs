//! What the log keeps of deliveries: how far subscriptions are, dead letters, attempts.

use tidings_core::lane::{Changes, Row};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use crate::event::Tenant;

/// A change of a subscription's progress. Rows for events that the cursor passes unsettled commit with it.
///
/// `changes.standing` and `changes.notices` are not the log's: whoever commits puts them into writes beside this one.
#[derive(Clone, Debug, Default)]
pub struct Settle {
    /// Whose.
    pub subscription: Box<str>,
    /// In which tenant.
    pub tenant: Tenant,
    /// Cursor, acks, rows.
    pub changes: Changes,
    /// What is kept of `changes.dead`, in its order: ids and types.
    pub letters: Vec<Letter>,
    /// Attempts made since the last commit.
    pub attempts: Vec<Attempt>,
}

/// What a dead letter is called, and what its event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Unique in the log; later ones are greater.
    pub id: Box<str>,
    /// The type of the event.
    pub event_type: Box<str>,
}

/// A slot's cursor, and who follows it from now on. The cursor never goes back: a sweep that would changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// In which tenant.
    pub tenant: Tenant,
    /// Which slot; a number that the dispatcher gives.
    pub slot: u8,
    /// Everything through here is settled for every subscription of the slot that has no progress of its own.
    pub through: Offset,
    /// Subscriptions that are settled through here: what they have of their own goes. Their dead letters stay.
    pub current: Vec<Box<str>>,
}

/// The cursor of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// In which tenant.
    pub tenant: Tenant,
    /// Which slot.
    pub slot: u8,
    /// How far it is.
    pub through: Offset,
}

/// What a subscription has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything through here is settled but for `rows`.
    pub cursor: Offset,
    /// What is settled above the cursor (see [`tidings_core::lane::Acks`]).
    pub acked: Vec<u8>,
    /// What waits, by offset.
    pub rows: Vec<Row>,
}

/// A subscription that has a progress of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its name.
    pub subscription: Box<str>,
    /// Whose events it gets.
    pub tenant: Tenant,
    /// Everything through here is settled but for rows.
    pub cursor: Offset,
    /// Nothing else is kept: nothing is settled above the cursor, and nothing waits.
    pub plain: bool,
}

/// A delivery given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it is called.
    pub id: Box<str>,
    /// Who did not get it.
    pub subscription: Box<str>,
    /// Whose event.
    pub tenant: Tenant,
    /// Which event.
    pub offset: Offset,
    /// Its type.
    pub event_type: Box<str>,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Box<str>,
    /// When it was given up.
    pub at: Timestamp,
    /// What became of it.
    pub state: DeadState,
}

/// What became of a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeadState {
    /// Nothing yet.
    #[default]
    Open,
    /// It was sent again; if that failed too, there is another one.
    Replayed {
        /// When.
        at: Timestamp,
    },
    /// Somebody gave it up for good.
    Discarded {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Box<str>,
    },
}

/// Which dead letters.
#[derive(Clone, Debug)]
pub struct DeadQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Of one subscription.
    pub subscription: Option<Box<str>>,
    /// Of one type of events.
    pub event_type: Option<Box<str>>,
    /// Given up then or later.
    pub since: Option<Timestamp>,
    /// Only those that are open.
    pub open: bool,
    /// Those with smaller ids: the next page.
    pub before: Option<Box<str>>,
    /// At most so many.
    pub limit: usize,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose.
    pub subscription: Box<str>,
    /// Which event.
    pub offset: Offset,
    /// Counts from 1; from 1 again in a replay.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why it failed; `None` for a success.
    pub reason: Option<Box<str>>,
    /// The beginning of the answer, if it was a text.
    pub answer: Option<Box<str>>,
    /// Whether it belongs to a replay.
    pub replay: bool,
}

/// Subscriptions, each with a number.
pub type DeadCounts = Vec<(Box<str>, u64)>;
