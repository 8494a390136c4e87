//! A subscription as its shard knows it, and the outside of its lane.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_core::circuit::{Repute, Standing, Status};
use tidings_core::offset::Offset;
use tidings_core::rate::Bucket;
use tidings_log::Event;
use tokio::sync::{Notify, mpsc, watch};

use super::orders::Ordered;
use super::{LaneStatus, Subscription, Totals};

/// Events put to a lane that it has not taken; then it reads from the log.
const INBOX_MAX: usize = 1_024;
/// The same, unless the last attempt succeeded: an event must not cost something for thousands that never answer.
const INBOX_UNPROVEN_MAX: usize = 16;

/// Events put to a lane that it has not taken.
pub(super) fn inbox_max(repute: Repute) -> usize {
    if repute == Repute::Proven { INBOX_MAX } else { INBOX_UNPROVEN_MAX }
}

/// A subscription.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and all go together in any way")]
pub(super) struct Entry {
    pub(super) subscription: Arc<Subscription>,
    pub(super) slot: u8,
    pub(super) standing: Standing,
    pub(super) dead: u64,
    /// The log keeps replays of it that are under way.
    pub(super) replays: bool,
    /// It was there when the process started, and has had no lane since.
    pub(super) loaded: bool,
    /// It is started again in the life of the process: how it stands is read from the log.
    pub(super) recall: bool,
    /// Nothing through here is put to it. While it has no lane and is active, it is settled through here, and through its
    /// tenant's place: at a start that may be behind, as the sweeper goes back for others.
    pub(super) since: Offset,
    /// Whether the log keeps a progress of its own for it, and the cursor in that.
    pub(super) own: bool,
    pub(super) committed: Offset,
    /// What its last lane left of its rate.
    pub(super) bucket: Option<Bucket>,
    pub(super) lane: Option<Box<Running>>,
    /// The lane ends to begin again with other settings.
    pub(super) renewed: bool,
}

/// The outside of a lane.
pub(super) struct Running {
    pub(super) told: watch::Sender<Told>,
    pub(super) orders: mpsc::UnboundedSender<Ordered>,
    pub(super) bell: Arc<Notify>,
    pub(super) inbox: VecDeque<Arc<Event>>,
    pub(super) inbox_max: usize,
    /// Whether the sweeper puts events into the inbox.
    pub(super) attached: bool,
    pub(super) live: Arc<Mutex<Live>>,
    /// Closes when the lane's task has ended, however it did.
    pub(super) ended: watch::Receiver<()>,
}

/// What a lane is told from outside; later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Run,
    /// Send nothing more, settle what is in flight, commit, end.
    Settle,
    /// Forget what is in flight, commit what is known, end.
    Cancel,
}

/// What a lane shows of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) standing: Option<Standing>,
    pub(super) cursor: Offset,
    /// Nothing through here needs more than a cursor.
    pub(super) clear: Offset,
    pub(super) seen: Offset,
    pub(super) own: bool,
    pub(super) attached: bool,
    pub(super) in_flight: usize,
    pub(super) pending: usize,
    pub(super) parked: usize,
}

/// What a lane leaves when it ends.
pub(super) struct End {
    pub(super) standing: Standing,
    pub(super) bucket: Option<Bucket>,
    pub(super) own: bool,
    /// The cursor in that, or the place where it began; beyond everything if it did not come to know it.
    pub(super) committed: Offset,
    pub(super) replays: bool,
    /// How it stands is still to be read.
    pub(super) recall: bool,
}

/// What waited for a lane.
#[derive(Default)]
pub(super) struct Drained {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) attached: bool,
    pub(super) empty: bool,
    /// Through here everything was put to it.
    pub(super) reached: Option<Offset>,
}

impl Running {
    pub(super) fn tell(&self, told: Told) {
        self.told.send_if_modified(|current| mem::replace(current, told.max(*current)) < told);
    }

    pub(super) async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }
}

impl Entry {
    /// Whether it has nothing to do, and follows its tenant's place.
    pub(super) fn is_idle(&self) -> bool {
        self.lane.is_none() && self.standing.is_active() && self.own
    }

    /// How far a slot may go at the most: a lane without a progress of its own begins at its slot's cursor after a crash, and
    /// rows that are not committed are not there then. Once a lane has one, it keeps it.
    pub(super) fn uncommitted(&self) -> Option<Offset> {
        let live = self.lane.as_ref()?.live.lock();
        (!live.own).then_some(live.clear)
    }

    pub(super) fn end(&mut self, end: End) {
        self.lane = None;
        (self.standing, self.own, self.committed) = (end.standing, end.own, end.committed);
        (self.bucket, self.replays, self.recall) = (end.bucket, end.replays, end.recall);
    }

    pub(super) fn status(&self, place: Offset, head: Offset) -> LaneStatus {
        let mut status = LaneStatus { standing: self.standing.clone(), dead: self.dead, ..LaneStatus::default() };
        match &self.lane {
            Some(lane) => {
                let live = lane.live.lock();
                status.standing = live.standing.clone().unwrap_or(status.standing);
                status.cursor = live.cursor;
                (status.in_flight, status.pending, status.parked) = (live.in_flight, live.pending, live.parked);
                status.pending += lane.inbox.len();
            }
            None if self.standing.is_active() => status.cursor = place.max(self.since),
            None => status.cursor = self.committed,
        }
        status.lag = head.0.saturating_sub(status.cursor.0);
        status
    }

    pub(super) fn add_to(&self, totals: &mut Totals, place: Offset, head: Offset) {
        totals.dead += self.dead;
        if self.lane.is_none() && self.standing.is_active() {
            totals.states[0] += 1;
            totals.lag = totals.lag.max(head.0.saturating_sub(place.max(self.since).0));
            return;
        }
        let status = self.status(place, head);
        let state = match status.standing.status {
            Status::Active => 0,
            Status::Paused { .. } => 1,
            Status::Deactivated { .. } => 2,
        };
        totals.states[state] += 1;
        totals.in_flight += status.in_flight as u64;
        if state > 0 {
            return;
        }
        totals.lag = totals.lag.max(status.lag);
        totals.queued += status.pending as u64;
        if let Some(lane) = &self.lane {
            let live = lane.live.lock();
            if !live.attached {
                totals.queued += head.0.saturating_sub(live.seen.0);
            }
        }
    }
}
