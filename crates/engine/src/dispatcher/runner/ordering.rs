//! What a lane does when it is told to: pauses, activations, dead letters, replays.

use std::sync::Arc;

use foldhash::HashSet;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{DeadLetter, DeadState, Kind, Owner};
use tidings_log::{CommitError, Page, Query, Unavailable, Write};
use tokio::time::sleep;

use super::super::notice::Notices;
use super::super::orders::{Order, Ordered, Outcome, Point};
use super::super::replay::{Job, ROWS_MAX, Replay};
use super::super::shard::Shard;
use super::super::signals::{Letters, Replayed};
use super::super::{Subscription, reading};
use super::{READ_PAUSE, Runner};

/// Replays of one subscription.
const REPLAYS_MAX: usize = 16;

/// The replays that were under way when the lane ended.
pub(super) async fn replays(shard: &Shard, subscription: &Subscription) -> Result<Vec<Replay>, Unavailable> {
    let (owner, prefix) = (Owner::Tenant(subscription.tenant), format!("{}/", subscription.id));
    let documents = shard.store.list(Kind::Replay, Some(owner), &prefix, REPLAYS_MAX).await?;
    let jobs = documents.iter().filter(|document| document.id.starts_with(&prefix));
    let jobs = jobs.filter_map(|document| serde_json::from_slice::<Job>(&document.body).ok());
    Ok(jobs.map(|job| Replay::new(job, (shard.env.now)())).collect())
}

impl Runner {
    /// Carries out the order that is first, if it can be now; whether there is something to commit for it at once.
    pub(super) fn carry_out(&mut self, now: Timestamp) -> bool {
        let waits = match self.orders.front().map(|ordered| &ordered.order) {
            None => true,
            // Nothing may be in flight while the cursor is moved.
            Some(Order::Activate(_)) => {
                !self.lane.is_pulled() && self.lane.in_flight() > 0 && !self.lane.standing().is_active()
            }
            // Their outcomes are on the way.
            Some(Order::Done(words)) => words.iter().any(|word| word.was_out && self.lane.is_sending(word.offset)),
            Some(Order::Revive(_) | Order::Discard(..)) => {
                self.read_letters();
                true
            }
            Some(_) => false,
        };
        if waits {
            return !self.committing.beside.is_empty();
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
            Order::Activate(point) => self.activate(*point),
            Order::Replay(job) => self.begin_replay(job, now),
            Order::Cancel(id) => self.cancel_replay(id),
            Order::Done(words) => self.take_words(words),
            // They are carried out once it is known which letters are open.
            Order::Revive(_) | Order::Discard(..) => Outcome::Pointless,
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

    fn activate(&mut self, point: Point) -> Outcome {
        if self.lane.standing().is_active() {
            return Outcome::Pointless;
        }
        let to = match point {
            Point::Cursor => None,
            Point::Latest => Some(self.shard.store.extent(self.subscription.tenant).head),
            Point::After(offset) => Some(offset),
        };
        if let Some(to) = to {
            self.signals.page = None;
            self.signals.follow = None;
            self.held.clear();
            self.shard.detach(self.number);
            self.attached = false;
            if self.lane.is_pulled() {
                self.take_back((self.shard.env.now)());
            }
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

    /// Begins to read which dead letters of the first order are open, and of which aggregates they are.
    ///
    /// Who asked saw them open, but whoever was first has his way: a letter that was discarded is not sent again. So
    /// nothing that closes letters may be uncommitted when they are read, nor come until they are taken.
    fn read_letters(&mut self) {
        if self.signals.letters.is_some() || self.committing.is_closing() {
            return;
        }
        self.signals.replay = None;
        let (letters, keyed) = match self.orders.front().map(|ordered| &ordered.order) {
            Some(Order::Revive(letters)) => (letters.clone(), true),
            Some(Order::Discard(letters, _)) => (letters.clone(), false),
            _ => return,
        };
        let read = reading::letters(Arc::clone(&self.shard.store), self.subscription.tenant, letters, keyed);
        self.signals.letters = Some(Box::pin(read));
    }

    /// Sends the events of dead letters again, or gives them up, now that it is known which are open.
    pub(super) fn take_letters(&mut self, read: Result<Letters, Unavailable>) {
        let Some(ordered) = self.orders.pop_front() else { return };
        let (mut letters, keys) = match read {
            Ok(read) => read,
            Err(error) => {
                // Who asked may have gone.
                let _ = ordered.sender.send(Err(CommitError::Unavailable(error)));
                return;
            }
        };
        let at = (self.shard.env.now)();
        let state = if let Order::Discard(_, reason) = &ordered.order {
            for letter in &letters {
                // Most are not parked: then nothing waits for them.
                let _ = self.lane.release(letter.offset);
            }
            DeadState::Discarded { at, reason: reason.clone() }
        } else {
            let key = |letter: &DeadLetter| keys.get(&letter.offset).copied();
            letters.retain(|letter| key(letter).is_some_and(|key| self.lane.revive(letter.offset, key, None)));
            DeadState::Replayed { at }
        };
        if letters.is_empty() {
            let _ = ordered.sender.send(Ok(Outcome::Done(0)));
            return;
        }
        let outcome = self.close(&letters, state);
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
        let letters_wait = self.signals.letters.is_some() || self.committing.is_closing();
        if self.signals.replay.is_some() || letters_wait || !self.lane.standing().is_active() {
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
        let query = Query { filter, through: Some(replay.job.to), ..query };
        let (store, letters) = (Arc::clone(&self.shard.store), replay.job.letters.clone());
        self.signals.replay = Some(Box::pin(reading::replayed(store, query, letters)));
    }

    pub(super) fn take_replay(&mut self, page: Result<Replayed, Unavailable>) {
        let now = (self.shard.env.now)();
        let Some(replay) = self.replays.first_mut() else { return };
        let page = match page {
            Ok((page, closed)) => {
                replay.forget(&closed);
                page
            }
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %error, "a replay cannot read the log");
                let nothing = Page { more: true, reached: replay.job.position, ..Page::default() };
                self.signals.replay = Some(Box::pin(async move {
                    sleep(READ_PAUSE).await;
                    Ok((nothing, HashSet::default()))
                }));
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
        if reached <= replay.job.position {
            return;
        }
        replay.job.position = reached;
        self.committing.beside.writes.push(replay.job.put(self.subscription.tenant));
    }

    /// When the first replay may go on, if it waits for its rate.
    pub(super) fn replay_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        let replay = self.replays.first_mut()?;
        let waits = self.signals.replay.is_none() && !replay.is_through() && self.lane.standing().is_active();
        Some(replay.due(now)).filter(|due| waits && *due > now)
    }
}
