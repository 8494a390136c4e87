//! How many attempts are in flight at once, and whose turn it is when there is no more room.
//!
//! Subscribers whose last attempt succeeded have room of their own. All others share the rest, and that is given out at a
//! pace: thousands of endpoints that never answer are asked one after the other, so that neither their openings nor,
//! fifteen seconds later, their time-outs fall on one moment. Of those, who has failed at nothing yet comes first, and who
//! failed last never has all of the room. Who waits is asked tenant by tenant, so that a tenant with many webhooks does not
//! push the others aside.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::circuit::Repute;
use tidings_log::Tenant;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Most attempts in flight in a process. A quarter is for subscribers whose last attempt succeeded.
pub const ATTEMPTS_MAX: usize = 16_384;
/// Between two turns of those that are not known to answer.
const TURN: Duration = Duration::from_millis(10);
/// Attempts to them that a shard begins in a turn: a healthy webhook that is new among 10,000 that are dead waits for
/// seconds, and a turn's time-outs take a lane's thread less than a millisecond.
const TURN_ATTEMPTS: usize = 8;
/// Of the places that a turn gives, every so many goes to who failed last, if somebody waits.
const FAILING_SHARE: usize = 4;

/// The room of a shard.
#[derive(Clone)]
pub(super) struct Room(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Rings when turns begin.
    turns: Notify,
}

struct State {
    proven_free: usize,
    /// For all whose last attempt did not succeed.
    unproven_free: usize,
    /// Of these, for those whose last attempt failed.
    failing_free: usize,
    /// Who waits, by repute.
    queues: [Queue; 3],
    /// What the turn has left.
    turn_left: usize,
    /// Turns are being made.
    turning: bool,
}

/// Who waits, by tenant; the tenant in front is next.
#[derive(Default)]
struct Queue(VecDeque<(Tenant, VecDeque<Weak<Ticket>>)>);

/// A lane's place in the queue.
pub(super) struct Ticket {
    bell: Arc<Notify>,
    seat: Mutex<Seat>,
}

enum Seat {
    None,
    Waits(Repute),
    Given(Place),
}

/// One attempt's place; free again when dropped.
pub(super) struct Place {
    room: Room,
    repute: Repute,
}

impl Ticket {
    /// A ticket of whoever hears `bell`: it is rung when there is a place.
    pub(super) fn new(bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { bell, seat: Mutex::new(Seat::None) })
    }

    /// The place that was given meanwhile.
    pub(super) fn take(&self) -> Option<Place> {
        let mut seat = self.seat.lock();
        match mem::replace(&mut *seat, Seat::None) {
            Seat::Given(place) => Some(place),
            other => {
                *seat = other;
                None
            }
        }
    }
}

impl Room {
    /// Room for `places` attempts.
    pub(super) fn new(places: usize) -> Self {
        let unproven = (places * 3).div_ceil(4);
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                proven_free: places - unproven,
                unproven_free: unproven,
                failing_free: (unproven * 3).div_ceil(4),
                queues: Default::default(),
                turn_left: 0,
                turning: false,
            }),
            turns: Notify::new(),
        }))
    }

    /// Takes a place, or notes who is to have one.
    pub(super) fn enter(&self, tenant: Tenant, repute: Repute, ticket: &Arc<Ticket>) -> Option<Place> {
        let mut state = self.0.state.lock();
        if repute != Repute::Proven && !mem::replace(&mut state.turning, true) {
            state.turn_left = TURN_ATTEMPTS;
            self.0.turns.notify_one();
        }
        let in_turn = repute == Repute::Proven || (state.turn_left > 0 && state.queues[repute as usize].0.is_empty());
        if in_turn && state.seat(repute) {
            return Some(Place { room: self.clone(), repute });
        }
        state.queues[repute as usize].push(tenant, repute, ticket);
        None
    }

    /// Gives places at a pace, for ever.
    pub(super) async fn take_turns(self) {
        loop {
            self.0.turns.notified().await;
            loop {
                sleep(TURN).await;
                if !self.turn() {
                    break;
                }
            }
        }
    }

    /// Gives a turn's places to who waits; false if nobody came or waited since the last.
    fn turn(&self) -> bool {
        let mut given = Vec::new();
        let mut state = self.0.state.lock();
        let used = mem::replace(&mut state.turn_left, TURN_ATTEMPTS) < TURN_ATTEMPTS;
        for number in 1..=TURN_ATTEMPTS {
            let mut order = [Repute::New, Repute::Failing];
            if number.is_multiple_of(FAILING_SHARE) {
                order.reverse();
            }
            given.extend(order.into_iter().find_map(|repute| self.give(&mut state, repute)));
        }
        state.turning = used || !given.is_empty() || state.queues.iter().skip(1).any(|queue| !queue.0.is_empty());
        let goes_on = state.turning;
        drop(state);
        for ticket in &given {
            ticket.bell.notify_one();
        }
        goes_on
    }

    /// Gives a place to the next of a repute, if there is one. Whoever gets the ticket rings, with the state let go: a
    /// ticket that nobody else holds any more gives its place back.
    fn give(&self, state: &mut State, repute: Repute) -> Option<Arc<Ticket>> {
        if !state.has_seat(repute) {
            return None;
        }
        let ticket = state.queues[repute as usize].pop(repute)?;
        let _ = state.seat(repute);
        *ticket.seat.lock() = Seat::Given(Place { room: self.clone(), repute });
        Some(ticket)
    }
}

impl State {
    fn has_seat(&self, repute: Repute) -> bool {
        match repute {
            Repute::Proven => self.proven_free > 0,
            Repute::New => self.turn_left > 0 && self.unproven_free > 0,
            Repute::Failing => self.turn_left > 0 && self.failing_free > 0 && self.unproven_free > 0,
        }
    }

    /// Takes a place, if there is one.
    fn seat(&mut self, repute: Repute) -> bool {
        let has = self.has_seat(repute);
        let one = usize::from(has);
        match repute {
            Repute::Proven => self.proven_free -= one,
            Repute::New | Repute::Failing => {
                self.unproven_free -= one;
                self.turn_left -= one;
                self.failing_free -= usize::from(has && repute == Repute::Failing);
            }
        }
        has
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.0.state.lock();
        match self.repute {
            Repute::Proven => state.proven_free += 1,
            Repute::New | Repute::Failing => {
                state.unproven_free += 1;
                state.failing_free += usize::from(self.repute == Repute::Failing);
            }
        }
        if self.repute == Repute::Proven
            && let Some(ticket) = self.room.give(&mut state, Repute::Proven)
        {
            drop(state);
            ticket.bell.notify_one();
        }
    }
}

impl Queue {
    /// Notes a ticket, unless it is noted: thousands ask again and again.
    fn push(&mut self, tenant: Tenant, repute: Repute, ticket: &Arc<Ticket>) {
        {
            let mut seat = ticket.seat.lock();
            if matches!(&*seat, Seat::Waits(noted) if *noted == repute) {
                return;
            }
            *seat = Seat::Waits(repute);
        }
        let ticket = Arc::downgrade(ticket);
        match self.0.iter_mut().find(|(other, _)| *other == tenant) {
            Some((_, waiting)) => waiting.push_back(ticket),
            None => self.0.push_back((tenant, VecDeque::from([ticket]))),
        }
    }

    /// The next that is still there, and waits here.
    fn pop(&mut self, repute: Repute) -> Option<Arc<Ticket>> {
        while let Some((tenant, mut waiting)) = self.0.pop_front() {
            let ticket = waiting.pop_front();
            if !waiting.is_empty() {
                self.0.push_back((tenant, waiting));
            }
            let ticket = ticket.and_then(|ticket| ticket.upgrade());
            let waits = |ticket: &Arc<Ticket>| matches!(&*ticket.seat.lock(), Seat::Waits(noted) if *noted == repute);
            if let Some(ticket) = ticket.filter(waits) {
                return Some(ticket);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(count: usize) -> Vec<Arc<Ticket>> {
        (0..count).map(|_| Ticket::new(Arc::default())).collect()
    }

    /// How many of `tickets` get a place at once.
    fn enter(room: &Room, repute: Repute, tickets: &[Arc<Ticket>]) -> Vec<Place> {
        tickets.iter().filter_map(|ticket| room.enter(Tenant(1), repute, ticket)).collect()
    }

    /// How many were given one since.
    fn given(tickets: &[Arc<Ticket>]) -> Vec<Place> {
        tickets.iter().filter_map(|ticket| ticket.take()).collect()
    }

    #[test]
    fn those_who_are_not_known_to_answer_leave_a_quarter_to_the_others() {
        let room = Room::new(4);
        let (new, proven) = (tickets(4), tickets(4));
        assert_eq!(enter(&room, Repute::New, &new).len(), 3);
        let places = enter(&room, Repute::Proven, &proven);
        assert_eq!(places.len(), 1);
        drop(places);
        assert_eq!(given(&proven).len(), 1);
    }

    #[test]
    fn those_who_failed_last_leave_room_for_the_new() {
        let room = Room::new(16);
        let (failing, new) = (tickets(16), tickets(16));
        let mut held = enter(&room, Repute::Failing, &failing);
        room.turn();
        held.extend(given(&failing));
        assert_eq!(held.len(), 9);
        room.turn();
        assert_eq!(given(&failing).len(), 0);
        assert_eq!(enter(&room, Repute::New, &new).len(), 3);
    }

    #[test]
    fn places_for_the_unproven_are_given_at_a_pace_and_the_new_come_first() {
        let room = Room::new(1_000);
        let (failing, new) = (tickets(100), tickets(100));
        let mut held = enter(&room, Repute::Failing, &failing);
        assert_eq!(held.len(), TURN_ATTEMPTS);
        assert!(enter(&room, Repute::New, &new).is_empty());
        assert!(room.turn());
        let (of_new, of_failing) = (given(&new), given(&failing));
        assert_eq!((of_new.len(), of_failing.len()), (6, 2));
        held.extend(of_new.into_iter().chain(of_failing));
        // Everybody comes to it, whoever came first.
        while room.turn() {
            held.extend(given(&new).into_iter().chain(given(&failing)));
        }
        assert_eq!(held.len(), 200);
        assert!(!room.turn());
    }

    #[test]
    fn a_ticket_that_is_thrown_away_gives_its_place_back() {
        let room = Room::new(4);
        let mut three = tickets(3);
        let held = enter(&room, Repute::New, &three);
        let late = tickets(1);
        assert!(enter(&room, Repute::New, &late).is_empty());
        drop(held);
        room.turn();
        drop(late);
        three.extend(tickets(1));
        assert_eq!(enter(&room, Repute::New, &three).len(), 3);
    }

    #[tokio::test]
    async fn tenants_take_turns_when_they_wait() {
        let room = Room::new(4);
        let tickets = tickets(3);
        let place = room.enter(Tenant(1), Repute::Proven, &tickets[0]);
        for (tenant, ticket) in [(1, &tickets[0]), (1, &tickets[1]), (2, &tickets[2])] {
            assert!(room.enter(Tenant(tenant), Repute::Proven, ticket).is_none());
        }
        drop(place);
        tickets[0].bell.notified().await;
        drop(tickets[0].take());
        // The other tenant comes before the first one's second.
        tickets[2].bell.notified().await;
    }
}
