//! When a lane commits, and what follows from it.

use std::time::Duration;

use tidings_core::lane::{Row, RowState};
use tidings_core::time::Timestamp;
use tidings_log::{CommitError, Unavailable, Write, Written};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::entry::Told;
use super::super::ledger::Ledger;
use super::super::orders::Outcome;
use super::super::signals::Pace;
use super::{LINGER, Runner};

/// An answer is committed after this at the latest (20 ms, less what a timer may be late).
const SOON: Duration = Duration::from_millis(15);
/// A cursor that moved without an attempt is committed after this,
const LAZILY: Duration = Duration::from_secs(1);
/// or when it has moved so far.
const LAZY_OFFSETS_MAX: u64 = 4096;
/// Answers that are worth a commit at once.
const BATCH: usize = 64;

/// What is to be committed, and with it.
pub(super) struct Committing {
    pub(super) ledger: Ledger,
    /// Whether the log keeps a progress of its own for the subscription.
    pub(super) own: bool,
    /// What goes with the next commit.
    pub(super) beside: Beside,
    /// What went with the commit that is under way, or that failed and is tried again.
    taken: Beside,
}

/// What orders and replays add to a commit. The lane has it behind itself: it is tried until it is committed.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) writes: Vec<Write>,
    /// Those that came with orders, which others may contradict.
    pub(super) added: Vec<Write>,
    /// Dead letters that these close.
    pub(super) closed: u64,
    /// Who waits for it, with what they will be told.
    pub(super) askers: Vec<(oneshot::Sender<Result<Outcome, CommitError>>, Outcome)>,
}

impl Beside {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.added.is_empty() && self.askers.is_empty()
    }
}

impl Committing {
    pub(super) fn new(ledger: Ledger, own: bool) -> Self {
        Self { ledger, own, beside: Beside::default(), taken: Beside::default() }
    }

    /// Whether something that closes dead letters is not committed yet.
    pub(super) fn is_closing(&self) -> bool {
        self.beside.closed + self.taken.closed > 0
    }
}

impl Runner {
    /// Begins a commit if it is time for one.
    pub(super) fn flush(&mut self, now: Timestamp, fired: Option<Pace>) {
        if self.signals.commit.is_some() {
            return;
        }
        if self.committing.ledger.is_taken() {
            if fired == Some(Pace::Again) || self.told == Told::Cancel {
                self.commit(now);
            }
            return;
        }
        let pressing = self.carry_out(now);
        let ending = self.told > Told::Run && self.signals.answers.is_empty();
        let dormant = !self.lane.standing().is_active() && self.signals.answers.is_empty();
        let full = self.committing.ledger.attempts() >= BATCH || self.lane.uncommitted() >= LAZY_OFFSETS_MAX;
        if !pressing && !ending && !dormant && !full && fired.is_none() {
            return;
        }
        let changes = self.lane.take_changes();
        // Without a progress of its own it would begin at its slot's cursor, which it may not have reached, or have left.
        let unsaid = !self.committing.own && (ending || dormant || fired.is_some()) && !self.lane.is_current();
        if changes.is_none() && !pressing && !unsaid && self.committing.ledger.attempts() == 0 {
            return;
        }
        let waits = |row: &&Row| row.state != RowState::Counted;
        for row in changes.iter().flat_map(|changes| &changes.rows).filter(waits) {
            // It may wait for long: the log keeps the event, memory need not.
            self.held.remove(&row.offset);
        }
        if changes.is_some() {
            let seen = self.lane.seen();
            let cursor = changes.as_ref().map_or(seen, |changes| changes.cursor);
            if self.held.len() > self.lane.pending() {
                self.held.retain(|offset, _| *offset > cursor);
            }
        }
        self.committing.ledger.take(changes, now);
        self.committing.taken = std::mem::take(&mut self.committing.beside);
        self.commit(now);
    }

    fn commit(&mut self, now: Timestamp) {
        self.signals.flush = None;
        let Beside { writes, added, .. } = &self.committing.taken;
        // First what closes dead letters: an event that is given up again at this moment gets one that is open.
        let writes = writes.iter().cloned().chain(self.committing.ledger.writes(now)).chain(added.iter().cloned());
        let writes = writes.collect();
        self.signals.commit = Some(self.shard.store.commit(now, writes));
    }

    pub(super) fn committed(&mut self, result: Result<Vec<Written>, CommitError>) -> bool {
        let askers = std::mem::take(&mut self.committing.taken.askers);
        match result {
            Ok(_) => {
                let closed = std::mem::take(&mut self.committing.taken).closed;
                let dead = self.committing.ledger.committed();
                self.committing.own = true;
                self.lane.committed();
                if dead + closed > 0 {
                    self.shard.note_dead(self.number, dead, closed);
                }
                for (asker, outcome) in askers {
                    // Who asked may have gone.
                    let _ = asker.send(Ok(outcome));
                }
                true
            }
            Err(error) => {
                for (asker, _) in askers {
                    let _ = asker.send(Err(error.clone()));
                }
                if let CommitError::Unavailable(Unavailable::Fenced(reason)) = &error {
                    tracing::error!(subscription = &*self.subscription.id, %reason, "a lane ends: the log is fenced");
                    return false;
                }
                if matches!(error, CommitError::Refused(_)) {
                    self.committing.taken.added.clear();
                }
                let pause = self.committing.ledger.failed(&error);
                self.signals.flush = Some((Pace::Again, Box::pin(sleep(pause))));
                self.told < Told::Cancel
            }
        }
    }

    pub(super) fn committing_timer(&mut self) {
        if self.signals.commit.is_some() || self.committing.ledger.is_taken() {
            return;
        }
        let set = self.signals.flush.as_ref().map(|(pace, _)| *pace);
        let unsaid = !self.committing.own && !self.lane.is_current();
        let pace = match set {
            None | Some(Pace::Lazily) if self.committing.ledger.attempts() > 0 || self.lane.is_changed() => {
                Some((Pace::Soon, SOON))
            }
            None if self.lane.uncommitted() > 0 && self.committing.own || unsaid => Some((Pace::Lazily, LAZILY)),
            None if self.lane.is_current() => Some((Pace::Lazily, LINGER)),
            _ => None,
        };
        if let Some((pace, after)) = pace {
            self.signals.flush = Some((pace, Box::pin(sleep(after))));
        }
    }
}
