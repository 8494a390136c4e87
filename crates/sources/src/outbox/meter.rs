//! How a source fares, in numbers that anybody may read at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::time::Timestamp;

use super::postgres::replication::slot::{Slot, Watched};

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not reached yet since the start.
    Connecting = 0,
    /// It is read.
    Reading = 1,
    /// The last try failed; there will be others.
    Failing = 2,
    /// Its quarantine is full: it waits until somebody deals with that.
    Full = 3,
    /// Another Tidings reads it: it is left alone until the next start.
    Taken = 4,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connecting, Self::Reading, Self::Failing, Self::Full, Self::Taken];

    /// Its name in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Reading => "reading",
            Self::Failing => "failing",
            Self::Full => "full",
            Self::Taken => "taken",
        }
    }
}

/// Counts what a relay does.
#[derive(Debug, Default)]
pub struct Meter {
    state: AtomicU8,
    /// What was committed in the source before this time is in the log.
    fresh_ms: AtomicI64,
    polls: AtomicU64,
    rows: AtomicU64,
    rejected: AtomicU64,
    resets: AtomicU64,
    quarantined: AtomicU64,
    error: Mutex<Option<String>>,
    slot: Option<Arc<Watched>>,
}

/// A [`Meter`] at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measures {
    /// What it is doing.
    pub state: State,
    /// What was committed in the source longer ago than this is in the log.
    pub delay: Duration,
    /// How often it was asked.
    pub polls: u64,
    /// Rows that have become events.
    pub rows: u64,
    /// Rows that could not, since the start.
    pub rejected: u64,
    /// How often it was read from its beginning again.
    pub resets: u64,
    /// Rows in quarantine now: rejected, and waiting behind them.
    pub quarantined: u64,
    /// Why it fails, if it does.
    pub error: Option<String>,
    /// The slot that it is read by, if it is read by one and that was seen.
    pub slot: Option<Slot>,
}

impl Meter {
    /// Of a source that is read by this slot, if by any.
    pub(super) fn with(slot: Option<Arc<Watched>>) -> Self {
        Self { slot, ..Self::default() }
    }

    pub(super) fn started(&self, now: Timestamp) {
        self.fresh_ms.store(now.as_millis(), Ordering::Relaxed);
    }

    pub(super) fn fresh(&self, as_of: Timestamp) {
        self.fresh_ms.store(as_of.as_millis(), Ordering::Relaxed);
        self.set(State::Reading, None);
    }

    pub(super) fn set(&self, state: State, error: Option<String>) {
        self.state.store(state as u8, Ordering::Relaxed);
        *self.error.lock() = error;
    }

    pub(super) fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn relayed(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self, rows: usize) {
        self.rejected.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn quarantined(&self, rows: usize) {
        self.quarantined.store(rows as u64, Ordering::Relaxed);
    }

    /// How it fares at `now`.
    pub fn measures(&self, now: Timestamp) -> Measures {
        let state = State::ALL[usize::from(self.state.load(Ordering::Relaxed)).min(State::ALL.len() - 1)];
        Measures {
            state,
            delay: now.since(Timestamp::from_millis(self.fresh_ms.load(Ordering::Relaxed))),
            polls: self.polls.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
            error: self.error.lock().clone(),
            slot: self.slot.as_ref().and_then(|slot| slot.get()),
        }
    }
}
