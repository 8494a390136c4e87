//! What was processed already, remembered in this process.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::id::EventId;
use tidings_core::time::Timestamp;

use super::{KEPT, Once, OnceError};
use crate::clock;

/// Ids that are remembered, unless told otherwise.
const IDS_MAX: usize = 100_000;

/// Remembers in memory: for one process, until it ends. The oldest ids beyond its bound are forgotten.
///
/// ```
/// # use tidings_emit::{EventId, MemoryInbox, Once, OnceError};
/// # async fn receive(inbox: &MemoryInbox, id: &EventId) -> Result<u16, OnceError<String>> {
/// let outcome = inbox.once(id, || async { Ok::<_, String>("shipped") }).await?;
/// Ok(match outcome {
///     Once::Done(_) | Once::Repeat => 204,
///     Once::Busy => 503,
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryInbox {
    kept: Duration,
    ids_max: usize,
    ids: Mutex<Ids>,
}

#[derive(Default, Debug)]
struct Ids {
    done: HashSet<EventId>,
    claimed: HashSet<EventId>,
    by_age: VecDeque<(Timestamp, EventId)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    First,
    Repeat,
    Busy,
}

impl Default for MemoryInbox {
    fn default() -> Self {
        Self { kept: KEPT, ids_max: IDS_MAX, ids: Mutex::default() }
    }
}

impl MemoryInbox {
    /// Another time for which an id is remembered; 48 hours if nobody says.
    #[must_use]
    pub fn kept(mut self, kept: Duration) -> Self {
        self.kept = kept;
        self
    }

    /// Another bound of ids; 100,000 if nobody says.
    #[must_use]
    pub fn ids_max(mut self, ids_max: usize) -> Self {
        self.ids_max = ids_max;
        self
    }

    /// Does the work of an event, if that is new. If the work fails, or is dropped half way, the event may come again.
    pub async fn once<T, E, W, F>(&self, id: &EventId, work: W) -> Result<Once<T>, OnceError<E>>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<T, E>>,
    {
        match self.claim(id, clock::now()) {
            Claim::Repeat => return Ok(Once::Repeat),
            Claim::Busy => return Ok(Once::Busy),
            Claim::First => {}
        }
        let held = Held { inbox: self, id };
        let done = work().await.map_err(OnceError::Work)?;
        held.inbox.done(id, clock::now());
        Ok(Once::Done(done))
    }

    fn claim(&self, id: &EventId, now: Timestamp) -> Claim {
        let mut ids = self.ids.lock();
        while ids.by_age.front().is_some_and(|(at, _)| now.since(*at) > self.kept) {
            ids.forget_oldest();
        }
        if ids.done.contains(id) {
            Claim::Repeat
        } else if ids.claimed.insert(id.clone()) {
            Claim::First
        } else {
            Claim::Busy
        }
    }

    fn done(&self, id: &EventId, now: Timestamp) {
        let mut ids = self.ids.lock();
        while ids.by_age.len() >= self.ids_max.max(1) {
            ids.forget_oldest();
        }
        ids.done.insert(id.clone());
        ids.by_age.push_back((now, id.clone()));
    }
}

impl Ids {
    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_front() {
            self.done.remove(&id);
        }
    }
}

/// A claim, given back when it is dropped.
struct Held<'a> {
    inbox: &'a MemoryInbox,
    id: &'a EventId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.inbox.ids.lock().claimed.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn id(text: &str) -> EventId {
        EventId::parse(text).unwrap()
    }

    /// The inbox at a time, after the work of `text` was done at another.
    fn claim_after(inbox: &MemoryInbox, text: &str, done_ms: i64, now_ms: i64) -> Claim {
        let id = id(text);
        assert_eq!(inbox.claim(&id, Timestamp::from_millis(done_ms)), Claim::First);
        let held = Held { inbox, id: &id };
        inbox.done(&id, Timestamp::from_millis(done_ms));
        drop(held);
        inbox.claim(&id, Timestamp::from_millis(now_ms))
    }

    #[test]
    fn an_id_is_remembered_longer_than_the_longest_step_of_the_default_schedule() {
        let inbox = MemoryInbox::default();
        assert_eq!(claim_after(&inbox, "a", 0, DAY_MS * 11 / 10 + 20_000), Claim::Repeat);
        assert_eq!(claim_after(&inbox, "b", 0, 2 * DAY_MS + 1), Claim::First);
    }

    #[test]
    fn beyond_the_bound_the_oldest_ids_are_forgotten() {
        let inbox = MemoryInbox::default().ids_max(10);
        for number in 0..100 {
            assert_eq!(claim_after(&inbox, &format!("e{number}"), number, number), Claim::Repeat);
        }
        let ids = inbox.ids.lock();
        assert_eq!((ids.done.len(), ids.by_age.len(), ids.claimed.len()), (10, 10, 0));
        assert!(ids.done.contains(&id("e99")) && !ids.done.contains(&id("e89")));
    }

    #[test]
    fn the_second_of_two_at_a_time_is_told_to_come_again() {
        let inbox = MemoryInbox::default();
        let now = Timestamp::from_millis(0);
        assert_eq!(inbox.claim(&id("a"), now), Claim::First);
        assert_eq!(inbox.claim(&id("a"), now), Claim::Busy);
    }
}
