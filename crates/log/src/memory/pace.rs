//! How long the disk takes, and which work it declines.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::Engine;
use crate::store::{CommitError, Unavailable, Write, Written};

/// Commits that may wait.
pub(super) const QUEUE_MAX: usize = 4_096;

/// What the disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To make durable what has queued.
    Commit,
    /// To read something.
    Read,
}

/// How one piece of work goes.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// How long until it takes effect: a crash before leaves nothing.
    pub before: Duration,
    /// Why it takes none, if so.
    pub declined: Option<Unavailable>,
    /// How long until the answer arrives: a crash before leaves what the asker does not know of.
    pub after: Duration,
}

impl Turn {
    /// Passes the time of the turn and does `work` in between, unless it is declined.
    pub(super) async fn pass<T>(self, work: impl FnOnce() -> Result<T, Unavailable>) -> Result<T, Unavailable> {
        pause(self.before).await;
        let done = match self.declined {
            Some(reason) => Err(reason),
            None => work(),
        };
        pause(self.after).await;
        done
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

/// Says how the next piece of work goes.
pub type Pace = Arc<dyn Fn(Work) -> Turn + Send + Sync>;

type Outcome = Result<Vec<Written>, CommitError>;

/// A commit that waits for its turn.
pub(super) struct Unit {
    now: Timestamp,
    writes: Vec<Write>,
    asker: oneshot::Sender<Outcome>,
}

impl Unit {
    pub(super) fn new(now: Timestamp, writes: Vec<Write>) -> (Self, oneshot::Receiver<Outcome>) {
        let (asker, answer) = oneshot::channel();
        (Self { now, writes, asker }, answer)
    }
}

/// Commits whatever has queued, one turn for all of it, until the store is dropped.
pub(super) async fn write(engine: Arc<Engine>, mut units: mpsc::Receiver<Unit>, pace: Pace) {
    let mut group = Vec::new();
    while units.recv_many(&mut group, QUEUE_MAX).await > 0 {
        let turn = pace(Work::Commit);
        let taken: Vec<Unit> = std::mem::take(&mut group);
        let (work, askers): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|unit| ((unit.now, unit.writes), unit.asker)).unzip();
        let outcomes = turn.pass(|| Ok(work.into_iter().map(|(now, writes)| engine.commit(now, writes)).collect()));
        let outcomes: Result<Vec<Outcome>, Unavailable> = outcomes.await;
        for (place, asker) in askers.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => outcomes[place].clone(),
                Err(reason) => Err(reason.clone().into()),
            };
            // The asker may have gone; what it asked for is kept all the same.
            let _ = asker.send(outcome);
        }
    }
}
