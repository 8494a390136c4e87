//! What a lane has to commit: its changes, and the attempts made since the last commit.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::lane::{Changes, Outcome, Row};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{Attempt, Settle, Waiting};
use tidings_log::{CommitError, Pending, Store, Tenant, Write, Written};

use super::attempt::Answer;

/// The pauses between tries of a commit that fails, doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Ledger {
    store: Arc<dyn Store>,
    subscription: Box<str>,
    tenant: Tenant,
    /// As committed last.
    cursor: Offset,
    attempts: Vec<Attempt>,
    /// Until it is known to be committed.
    taken: Option<Settle>,
    pause: Duration,
}

impl Ledger {
    pub(super) fn new(store: Arc<dyn Store>, subscription: Box<str>, tenant: Tenant, cursor: Offset) -> Self {
        Self { store, subscription, tenant, cursor, attempts: Vec::new(), taken: None, pause: PAUSE_MIN }
    }

    /// Attempts that no commit has told yet.
    pub(super) fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Whether something taken is not yet committed.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    pub(super) fn note(&mut self, answer: &Answer, outcome: &Outcome, ended: Timestamp) {
        let (said, reason) = match outcome {
            Outcome::Delivered(said) => (said, None),
            Outcome::Retry { answer, reason, .. } | Outcome::Reject { answer, reason } => {
                (answer, Some(reason.clone()))
            }
            Outcome::Gone { answer } => (answer, Some("status 410".into())),
        };
        let status = said.status;
        self.attempts.push(Attempt {
            subscription: self.subscription.clone(),
            offset: answer.turn.offset,
            number: answer.turn.attempt,
            at: answer.at,
            latency_ms: u64::try_from(ended.since(answer.at).as_millis()).unwrap_or(u64::MAX),
            status,
            reason,
        });
    }

    /// Takes changes, or none if only attempts are to be told.
    pub(super) fn take(&mut self, changes: Option<Changes>) {
        let changes =
            changes.unwrap_or(Changes { cursor: self.cursor, waiting: vec![], cleared: vec![], dead: vec![] });
        self.taken = Some(Settle {
            subscription: self.subscription.clone(),
            tenant: self.tenant,
            cursor: changes.cursor,
            waiting: changes.waiting.into_iter().map(waiting).collect(),
            cleared: changes.cleared,
            dead: changes.dead.into_iter().map(waiting).collect(),
            attempts: mem::take(&mut self.attempts),
        });
    }

    /// Begins to commit what is taken.
    pub(super) fn commit(&self, now: Timestamp) -> Option<Pending<Result<Vec<Written>, CommitError>>> {
        // A copy: a commit that fails keeps what it was given.
        let settle = self.taken.clone()?;
        Some(self.store.commit(now, vec![Write::Settle(settle)]))
    }

    /// Notes that what was taken is committed; answers how many deliveries that gave up.
    pub(super) fn committed(&mut self) -> u64 {
        self.pause = PAUSE_MIN;
        let Some(settle) = self.taken.take() else { return 0 };
        self.cursor = settle.cursor;
        settle.dead.len() as u64
    }

    /// How long to wait before the next try.
    pub(super) fn failed(&mut self, error: &CommitError) -> Duration {
        if self.pause == PAUSE_MIN {
            tracing::warn!(subscription = &*self.subscription, %error, "outcomes wait to be committed");
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(PAUSE_MAX);
        pause
    }
}

fn waiting(row: Row) -> Waiting {
    Waiting { offset: row.offset, attempts: row.attempts, due: row.due, reason: row.reason }
}
