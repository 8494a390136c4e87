//! How many attempts are in flight at once, and whose turn it is when there is no more room.
//!
//! Half of the room is for subscribers whose last attempt succeeded: thousands of endpoints that never answer cannot take
//! it. Who waits is asked again tenant by tenant, so that a tenant with many webhooks does not push the others aside.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use foldhash::HashSet;
use parking_lot::Mutex;
use tidings_log::Tenant;
use tokio::sync::Notify;

/// Most attempts in flight in a process.
pub const ATTEMPTS_MAX: usize = 4_096;

/// The room of a shard.
#[derive(Clone)]
pub(super) struct Room(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Of those in flight to subscribers that did not prove themselves, how many more may be.
    unproven_free: usize,
    proven: Queue,
    unproven: Queue,
}

/// Who waits, by tenant; the tenant in front is next.
#[derive(Default)]
struct Queue {
    tenants: VecDeque<(Tenant, VecDeque<Weak<Notify>>)>,
    /// The address of each that waits, so that nobody does twice: thousands ask again and again.
    waiting: HashSet<usize>,
}

/// One attempt's place; free again when dropped.
pub(super) struct Place {
    room: Room,
    proven: bool,
}

impl Room {
    /// Room for `places` attempts.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places,
            unproven_free: places.div_ceil(2),
            proven: Queue::default(),
            unproven: Queue::default(),
        })))
    }

    /// Takes a place, or notes whom to ask again when there is one.
    pub(super) fn enter(&self, tenant: Tenant, proven: bool, bell: &Arc<Notify>) -> Option<Place> {
        let mut state = self.0.lock();
        if state.free == 0 || (!proven && state.unproven_free == 0) {
            let queue = if proven { &mut state.proven } else { &mut state.unproven };
            queue.push(tenant, bell);
            return None;
        }
        state.free -= 1;
        state.unproven_free -= usize::from(!proven);
        Some(Place { room: self.clone(), proven })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.0.lock();
        state.free += 1;
        state.unproven_free += usize::from(!self.proven);
        if !state.proven.ring() && state.unproven_free > 0 {
            state.unproven.ring();
        }
    }
}

impl Queue {
    fn push(&mut self, tenant: Tenant, bell: &Arc<Notify>) {
        // As long as a weak one is kept here, no other can have its address.
        if !self.waiting.insert(Arc::as_ptr(bell).addr()) {
            return;
        }
        let bell = Arc::downgrade(bell);
        match self.tenants.iter_mut().find(|(other, _)| *other == tenant) {
            Some((_, waiting)) => waiting.push_back(bell),
            None => self.tenants.push_back((tenant, VecDeque::from([bell]))),
        }
    }

    /// Rings for the next who is still there; false if there is nobody.
    fn ring(&mut self) -> bool {
        while let Some((tenant, mut waiting)) = self.tenants.pop_front() {
            let bell = waiting.pop_front();
            if !waiting.is_empty() {
                self.tenants.push_back((tenant, waiting));
            }
            let Some(bell) = bell else { continue };
            self.waiting.remove(&bell.as_ptr().addr());
            if let Some(bell) = bell.upgrade() {
                bell.notify_one();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_never_succeeded_take_half_of_the_room_at_the_most() {
        let room = Room::new(4);
        let bell = Arc::new(Notify::new());
        let unproven: Vec<_> = (0..4).filter_map(|_| room.enter(Tenant(1), false, &bell)).collect();
        assert_eq!(unproven.len(), 2);
        let proven: Vec<_> = (0..4).filter_map(|_| room.enter(Tenant(2), true, &bell)).collect();
        assert_eq!(proven.len(), 2);
    }

    #[tokio::test]
    async fn tenants_take_turns_when_they_wait() {
        let room = Room::new(1);
        let bells: Vec<_> = (0..3).map(|_| Arc::new(Notify::new())).collect();
        let place = room.enter(Tenant(1), true, &bells[0]);
        for (tenant, bell) in [(1, &bells[0]), (1, &bells[1]), (2, &bells[2])] {
            assert!(room.enter(Tenant(tenant), true, bell).is_none());
        }
        drop(place);
        bells[0].notified().await;
        drop(room.enter(Tenant(1), true, &bells[0]));
        // The other tenant comes before the first one's second.
        bells[2].notified().await;
    }
}
