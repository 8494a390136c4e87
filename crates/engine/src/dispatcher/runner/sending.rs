//! What a lane sends, and what it makes of the answers.

use std::mem;

use memchr::memmem;
use tidings_core::lane::{self, About};
use tidings_core::time::Timestamp;
use tidings_log::{Event, Unavailable};

use super::super::attempt::Attempted;
use super::{READ_PAUSE, Runner};

impl Runner {
    pub(super) fn send(&mut self, now: Timestamp) {
        self.crowded = false;
        let erasures = self.shard.store.tail().erasures();
        if erasures != mem::replace(&mut self.erasures, erasures) {
            // Read again before they are sent.
            self.held.clear();
        }
        while self.lane.is_ready(now) {
            let Some(place) = self.place() else { return };
            let Some(turn) = self.lane.next(now) else { break };
            let held = self.held.remove(&turn.offset);
            self.signals.answers.push(self.attempts.make(turn, held, place));
        }
        // A place that is not needed any more is somebody else's.
        drop(self.ticket.take());
    }

    pub(super) fn settle(&mut self, mut attempted: Attempted) {
        let now = (self.shard.env.now)();
        let offset = attempted.turn.offset;
        match mem::replace(&mut attempted.outcome, Err(Unavailable::Busy)) {
            Ok(outcome) => {
                match (outcome.reason(), &attempted.event) {
                    (None, Some(_)) if self.lane.is_pulled() => self.shard.meter.fetched(),
                    (None, Some(event)) if attempted.turn.replay.is_none() => {
                        self.shard.meter.delivered(event.recorded, now);
                    }
                    (None, _) => {}
                    (Some(_), _) => self.shard.meter.failed(),
                }
                self.committing.ledger.note(&attempted, &outcome, now);
                let about = attempted.event.as_ref().map_or(About::Application, |event| self.about(event));
                let ended = lane::Attempted { offset, began: attempted.at, ended: now, about };
                let jitter = self.shard.env.jitter();
                self.lane.settle(ended, outcome, jitter);
            }
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %offset, %error, "an event cannot be read");
                self.lane.postpone(offset, now.plus(READ_PAUSE));
            }
        }
    }

    /// What an event is about, as its failure is judged: those that name this subscription would feed themselves.
    fn about(&self, event: &Event) -> About {
        if !event.subject.event_type.is_operational() {
            return About::Application;
        }
        let id = &*self.subscription.id;
        let names = |data: &[u8]| memmem::find(data, format!("\"{id}\"").as_bytes()).is_some();
        let own = event.subject.aggregate.as_ref().is_some_and(|about| about.as_str() == id);
        if own || event.bytes().is_some_and(names) { About::Itself } else { About::Operational }
    }
}
