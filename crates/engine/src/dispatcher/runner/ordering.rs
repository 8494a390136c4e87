//! What a lane does when it is told to: pauses, activations, dead letters, replays.

use std::sync::Arc;

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{DeadLetter, DeadState, Kind, Owner};
use tidings_log::{CommitError, Page, Query, Unavailable, Write};

use super::super::notice::Notices;
use super::super::orders::{Order, Ordered, Outcome};
use super::super::replay::{Job, ROWS_MAX, Replay};
use super::super::shard::Shard;
use super::super::signals::Keys;
use super::super::{Subscription, reading};
use super::Runner;

/// Replays of one subscription.
const REPLAYS_MAX: usize = 16;

/// The replays that were under way when the lane ended.
pub(super) async fn replays(shard: &Shard, subscription: &Subscription) -> Vec<Replay> {
    let (owner, prefix) = (Owner::Tenant(subscription.tenant), format!("{}/", subscription.id));
    let documents = match shard.store.list(Kind::Replay, Some(owner), &prefix, REPLAYS_MAX).await {
        Ok(documents) => documents,
        Err(error) => {
            tracing::warn!(subscription = &*subscription.id, %error, "replays cannot be read");
            return Vec::new();
        }
    };
    let jobs = documents.iter().filter(|document| document.id.starts_with(&prefix));
    let jobs = jobs.filter_map(|document| serde_json::from_slice::<Job>(&document.body).ok());
    jobs.map(|job| Replay::new(job, (shard.env.now)())).collect()
}

impl Runner {
    /// Carries out the order that is first, if it can be now; whether there is something to commit for it at once.
    pub(super) fn carry_out(&mut self, now: Timestamp) -> bool {
        let Some(Ordered { order, .. }) = self.orders.front() else { return !self.committing.beside.is_empty() };
        match order {
            // Nothing may be in flight while the cursor is moved.
            Order::Activate(_) if self.lane.in_flight() > 0 && !self.lane.standing().is_active() => {
                return !self.committing.beside.is_empty();
            }
            // The aggregates of the events must be known first.
            Order::Revive(letters) if self.signals.keys.is_none() => {
                let offsets = letters.iter().map(|letter| letter.offset).collect();
                let keys = reading::keys(Arc::clone(&self.shard.store), self.subscription.tenant, offsets);
                self.signals.keys = Some(Box::pin(keys));
                return !self.committing.beside.is_empty();
            }
            Order::Revive(_) => return !self.committing.beside.is_empty(),
            _ => {}
        }
        let Some(ordered) = self.orders.pop_front() else { return false };
        let outcome = match &ordered.order {
            Order::Pause => {
                self.lane.pause(now);
                Outcome::Done(1)
            }
            Order::Resume => {
                self.lane.resume();
                self.behind = true;
                Outcome::Done(1)
            }
            Order::Activate(to) => self.activate(*to),
            Order::Discard(letters, reason) => {
                for letter in letters {
                    // Most are not parked: then nothing waits for them.
                    let _ = self.lane.release(letter.offset);
                }
                self.close(letters, DeadState::Discarded { at: now, reason: reason.clone() })
            }
            Order::Replay(job) => self.begin_replay(job, now),
            Order::Cancel(id) => self.cancel_replay(id),
            Order::Revive(_) => Outcome::Pointless,
        };
        self.answer_with_commit(ordered, outcome);
        true
    }

    fn answer_with_commit(&mut self, ordered: Ordered, outcome: Outcome) {
        if outcome == Outcome::Pointless {
            // Who asked may have gone.
            let _ = ordered.sender.send(Ok(outcome));
            return;
        }
        self.committing.beside.added.extend(ordered.writes);
        self.committing.beside.askers.push((ordered.sender, outcome));
    }

    fn activate(&mut self, to: Option<Offset>) -> Outcome {
        if self.lane.standing().is_active() {
            return Outcome::Pointless;
        }
        if let Some(to) = to {
            self.signals.page = None;
            self.signals.follow = None;
            self.held.clear();
            self.shard.detach(self.number);
            self.attached = false;
            if !self.lane.jump(to) {
                return Outcome::Pointless;
            }
        }
        self.lane.activate();
        self.behind = true;
        Outcome::Done(1)
    }

    fn close(&mut self, letters: &[DeadLetter], state: DeadState) -> Outcome {
        let ids = letters.iter().map(|letter| letter.id.clone()).collect();
        self.committing.beside.writes.push(Write::Close(self.subscription.tenant, ids, state));
        self.committing.beside.closed += letters.len() as u64;
        Outcome::Done(letters.len())
    }

    /// Sends the events of dead letters again, now that it is known what they are about.
    pub(super) fn take_keys(&mut self, keys: Result<Keys, Unavailable>) {
        let Some(Ordered { order: Order::Revive(_), .. }) = self.orders.front() else { return };
        let Some(ordered) = self.orders.pop_front() else { return };
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => {
                let _ = ordered.sender.send(Err(CommitError::Unavailable(error)));
                return;
            }
        };
        let Order::Revive(letters) = &ordered.order else { return };
        let revived: Vec<_> = letters
            .iter()
            .filter(|letter| keys.get(&letter.offset).is_some_and(|key| self.lane.revive(letter.offset, *key, None)))
            .cloned()
            .collect();
        let at = (self.shard.env.now)();
        let outcome = self.close(&revived, DeadState::Replayed { at });
        self.answer_with_commit(ordered, outcome);
    }

    fn begin_replay(&mut self, job: &Job, now: Timestamp) -> Outcome {
        if self.replays.len() >= REPLAYS_MAX {
            return Outcome::Pointless;
        }
        // It never passes the live cursor.
        let job = Job { to: job.to.min(self.lane.cursor()), ..job.clone() };
        self.committing.beside.writes.push(job.put(self.subscription.tenant));
        self.replays.push(Replay::new(job, now));
        Outcome::Done(1)
    }

    fn cancel_replay(&mut self, id: &str) -> Outcome {
        let Some(place) = self.replays.iter().position(|replay| *replay.job.id == *id) else {
            return Outcome::Pointless;
        };
        if place == 0 {
            self.signals.replay = None;
        }
        let replay = self.replays.remove(place);
        self.lane.cancel(id);
        self.committing.beside.writes.push(replay.job.remove(self.subscription.tenant));
        Outcome::Done(1)
    }

    /// Begins to read what the first replay sends next; ends it when it is through.
    pub(super) fn feed(&mut self, now: Timestamp) {
        let Some(replay) = self.replays.first_mut() else { return };
        if self.signals.replay.is_some() || !self.lane.standing().is_active() {
            return;
        }
        let under_way = self.lane.replaying(&replay.job.id);
        if replay.is_through() {
            if under_way == 0 {
                let replay = self.replays.remove(0);
                let tenant = self.subscription.tenant;
                let mut notices = Notices::new(&self.subscription, self.shard.env, now);
                notices.replayed(&replay.job.id, replay.job.sent);
                self.committing.beside.writes.push(replay.job.remove(tenant));
                self.committing.beside.writes.extend(notices.write(tenant));
            }
            return;
        }
        if under_way >= ROWS_MAX || replay.due(now) > now {
            return;
        }
        let filter = replay.filter(&self.subscription.filter);
        let after = replay.job.position;
        let query = Query::after(self.subscription.tenant, after, ROWS_MAX - under_way);
        self.signals.replay = Some(self.shard.store.read(Query { filter, through: Some(replay.job.to), ..query }));
    }

    pub(super) fn take_replay(&mut self, page: Result<Page, Unavailable>) {
        let now = (self.shard.env.now)();
        let Some(replay) = self.replays.first_mut() else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %error, "a replay cannot read the log");
                return;
            }
        };
        let mut reached = if page.more { page.reached } else { replay.job.to };
        for event in page.events {
            let offset = event.offset;
            let skipped = self.lane.standing().has_skipped(offset);
            let taken = self.subscription.filter.matches(&event.subject) && replay.wants(offset, skipped);
            if !taken {
                continue;
            }
            if replay.due(now) > now {
                reached = Offset(offset.0 - 1);
                break;
            }
            if self.lane.revive(offset, reading::key(&event), Some(replay.job.id.clone())) {
                replay.count();
                if let Some(id) = replay.letter(offset) {
                    let state = DeadState::Replayed { at: now };
                    self.committing.beside.writes.push(Write::Close(self.subscription.tenant, vec![id.into()], state));
                    self.committing.beside.closed += 1;
                }
            }
        }
        replay.job.position = replay.job.position.max(reached);
        self.committing.beside.writes.push(replay.job.put(self.subscription.tenant));
    }

    /// When the first replay may go on, if it waits for its rate.
    pub(super) fn replay_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        let replay = self.replays.first_mut()?;
        let waits = self.signals.replay.is_none() && !replay.is_through() && self.lane.standing().is_active();
        Some(replay.due(now)).filter(|due| waits && *due > now)
    }
}
