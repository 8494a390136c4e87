//! The lane against a model: whatever happens, everything is delivered or dead, and in order.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::retry::Schedule;

const STEP_MS: i64 = 100;
const STEPS: u32 = 2;

fn settings(max_concurrency: usize, ordering: Ordering) -> Settings {
    let steps = vec![Duration::from_millis(STEP_MS.unsigned_abs()); STEPS as usize];
    Settings { schedule: Schedule::new(steps).unwrap(), max_concurrency, ordering }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "status 503".into(), answer: Answer::default(), retry_after: None }
}

const DELIVERED: Outcome = Outcome::Delivered(Answer { status: Some(200), text: None });

/// A lane with the events 1 to n of the given aggregates.
fn lane(max_concurrency: usize, keys: &[Option<u64>]) -> Lane {
    let mut lane = Lane::new(Offset(0), [], settings(max_concurrency, Ordering::Aggregate));
    for (key, offset) in keys.iter().zip(1..) {
        lane.offer(Offset(offset), *key);
    }
    lane
}

fn sent(lane: &mut Lane, now: i64) -> Vec<u64> {
    std::iter::from_fn(|| lane.next(at(now))).map(|send| send.offset.0).collect()
}

fn commit(lane: &mut Lane) -> Option<Changes> {
    let changes = lane.take_changes();
    lane.committed();
    changes
}

#[test]
fn only_the_aggregate_waits_for_its_own() {
    let mut lane = lane(16, &[Some(1), Some(1), Some(2), None, None]);
    assert_eq!(sent(&mut lane, 0), [1, 3, 4, 5]);
    lane.settle(Offset(1), DELIVERED, at(0), 0.0);
    assert_eq!(sent(&mut lane, 0), [2]);
}

#[test]
fn no_more_is_in_flight_than_may_be() {
    let mut lane = lane(2, &[None, None, None]);
    assert_eq!(sent(&mut lane, 0), [1, 2]);
    lane.settle(Offset(2), DELIVERED, at(0), 0.0);
    assert_eq!(sent(&mut lane, 0), [3]);
}

#[test]
fn without_ordering_everything_goes_at_once() {
    let mut lane = Lane::new(Offset(0), [], settings(16, Ordering::None));
    for offset in 1..=3 {
        lane.offer(Offset(offset), Some(1));
    }
    assert_eq!(sent(&mut lane, 0), [1, 2, 3]);
}

#[test]
fn the_cursor_passes_a_failure_and_what_waits_behind_it_with_rows() {
    let mut lane = lane(16, &[Some(1), Some(1), Some(2)]);
    assert_eq!(sent(&mut lane, 0), [1, 3]);
    lane.settle(Offset(1), retry(), at(0), 0.0);
    lane.settle(Offset(3), DELIVERED, at(0), 0.0);
    let changes = commit(&mut lane).unwrap();
    assert_eq!(changes.cursor, Offset(3));
    let rows: Vec<_> = changes.waiting.iter().map(|row| (row.offset.0, row.attempts, row.due.as_millis())).collect();
    assert_eq!(rows, [(1, 1, 100), (2, 0, 0)]);
    assert_eq!((lane.unsettled(), lane.waiting(), lane.due()), (0, 2, Some(at(100))));
    assert!(sent(&mut lane, 99).is_empty());
    assert_eq!(lane.next(at(100)), Some(Send { offset: Offset(1), attempt: 2 }));
    lane.settle(Offset(1), DELIVERED, at(100), 0.0);
    assert_eq!(sent(&mut lane, 100), [2]);
    lane.settle(Offset(2), DELIVERED, at(100), 0.0);
    assert_eq!(commit(&mut lane).unwrap().cleared, [Offset(1), Offset(2)]);
    assert_eq!((lane.unsettled(), lane.waiting(), commit(&mut lane)), (0, 0, None));
}

#[test]
fn a_success_costs_no_row_and_the_cursor_waits_for_the_answers_before_it() {
    let mut lane = lane(16, &[Some(1), None, Some(1)]);
    assert_eq!(sent(&mut lane, 0), [1, 2]);
    lane.settle(Offset(2), DELIVERED, at(0), 0.0);
    assert_eq!((commit(&mut lane), lane.cursor(), lane.unsettled()), (None, Offset(0), 3));
    lane.settle(Offset(1), DELIVERED, at(0), 0.0);
    let changes = Changes { cursor: Offset(2), waiting: vec![], cleared: vec![], dead: vec![] };
    assert_eq!((commit(&mut lane), lane.unsettled()), (Some(changes), 1));
}

#[test]
fn a_failure_is_committed_before_the_next_attempt() {
    let mut lane = lane(16, &[None]);
    assert_eq!(sent(&mut lane, 0), [1]);
    lane.settle(Offset(1), retry(), at(0), 0.0);
    assert_eq!((sent(&mut lane, 1000), lane.due()), (vec![], None));
    lane.take_changes().unwrap();
    assert!(sent(&mut lane, 1000).is_empty());
    lane.committed();
    assert_eq!(sent(&mut lane, 1000), [1]);
}

#[test]
fn the_exhausted_and_the_rejected_are_dead_and_their_aggregate_goes_on_once_that_is_committed() {
    let mut lane = lane(16, &[Some(1), Some(1), Some(1)]);
    for attempt in 1..=STEPS + 1 {
        let now = at(i64::from(attempt) * 200);
        assert_eq!(lane.next(now), Some(Send { offset: Offset(1), attempt }));
        lane.settle(Offset(1), retry(), now, 0.0);
        assert_eq!(lane.next(now), None);
        let dead = commit(&mut lane).unwrap().dead;
        assert_eq!(dead.len(), usize::from(attempt > STEPS));
    }
    assert_eq!(sent(&mut lane, 1000), [2]);
    lane.settle(Offset(2), Outcome::Reject { reason: "too large".into(), answer: Answer::default() }, at(1000), 0.0);
    assert!(sent(&mut lane, 1000).is_empty());
    let dead = commit(&mut lane).unwrap().dead;
    assert_eq!((dead[0].attempts, &*dead[0].reason), (1, "too large"));
    assert_eq!(sent(&mut lane, 1000), [3]);
}

#[test]
fn restored_rows_go_on_with_their_counts_and_times_in_order() {
    let row = |offset, attempts, due| Row { offset: Offset(offset), attempts, due: at(due), reason: "timeout".into() };
    let rows = [(row(3, 2, 500), Some(1)), (row(5, 0, 0), Some(1)), (row(8, 1, 100), None)];
    let mut lane = Lane::new(Offset(6), rows, settings(16, Ordering::Aggregate));
    assert!(!lane.offer(Offset(6), None) && lane.offer(Offset(7), None));
    assert!(!lane.offer(Offset(8), None), "it has a row");
    assert_eq!(sent(&mut lane, 100), [7, 8]);
    assert_eq!(lane.next(at(500)), Some(Send { offset: Offset(3), attempt: 3 }));
    lane.settle(Offset(3), retry(), at(500), 0.0);
    assert_eq!(commit(&mut lane).unwrap().dead[0].offset, Offset(3));
    assert_eq!(lane.next(at(500)), Some(Send { offset: Offset(5), attempt: 1 }));
}

#[test]
fn one_slow_answer_does_not_hold_the_window() {
    let mut lane = lane(16, &[]);
    let mut offset = 0;
    for _ in 0..10 {
        for _ in 0..lane.wants() {
            offset += 1;
            lane.offer(Offset(offset), None);
        }
        while let Some(send) = lane.next(at(0)) {
            if send.offset != Offset(1) {
                lane.settle(send.offset, DELIVERED, at(0), 0.0);
            }
        }
        commit(&mut lane);
    }
    assert!(offset > 2000, "{offset}");
    lane.settle(Offset(1), DELIVERED, at(0), 0.0);
    assert_eq!(commit(&mut lane).unwrap().cleared, [Offset(1)]);
}

#[test]
fn an_attempt_that_was_not_made_is_not_counted() {
    let mut lane = lane(16, &[Some(1)]);
    assert_eq!(sent(&mut lane, 0), [1]);
    lane.postpone(Offset(1), at(50));
    commit(&mut lane);
    assert_eq!((lane.next(at(49)), lane.next(at(50))), (None, Some(Send { offset: Offset(1), attempt: 1 })));
}

#[test]
fn rows_are_bounded_and_the_cursor_stops_there() {
    let mut lane = lane(16, &[]);
    let mut offset = 0;
    while lane.wants() > 0 {
        for _ in 0..lane.wants() {
            offset += 1;
            lane.offer(Offset(offset), Some(1));
        }
        if let Some(send) = lane.next(at(0)) {
            lane.settle(send.offset, retry(), at(0), 0.0);
        }
        commit(&mut lane);
    }
    assert_eq!((lane.waiting(), lane.cursor()), (ROWS_MAX, Offset(ROWS_MAX as u64)));
}

/// What survives a crash, and the subscriber.
struct World {
    keys: Vec<Option<u64>>,
    settings: Settings,
    lane: Lane,
    cursor: Offset,
    rows: BTreeMap<Offset, Row>,
    dead: BTreeSet<Offset>,
    under_way: Option<Changes>,
    in_flight: Vec<Offset>,
    delivered: BTreeSet<Offset>,
    sends: BTreeMap<Offset, u32>,
    /// Since the last crash: what was open then was paid for then.
    delivered_since: BTreeSet<Offset>,
    crashes: u32,
    now: i64,
}

impl World {
    fn new(keys: Vec<Option<u64>>, settings: Settings) -> Self {
        Self {
            keys,
            lane: Lane::new(Offset(0), [], settings.clone()),
            settings,
            cursor: Offset(0),
            rows: BTreeMap::new(),
            dead: BTreeSet::new(),
            under_way: None,
            in_flight: Vec::new(),
            delivered: BTreeSet::new(),
            sends: BTreeMap::new(),
            delivered_since: BTreeSet::new(),
            crashes: 0,
            now: 0,
        }
    }

    fn key(&self, offset: Offset) -> Option<u64> {
        self.keys[usize::try_from(offset.0).unwrap() - 1]
    }

    fn offer(&mut self, most: usize) {
        for _ in 0..most.min(self.lane.wants()) {
            let next = self.lane.seen().next();
            if next.0 <= self.keys.len() as u64 {
                self.lane.offer(next, self.key(next));
            }
        }
    }

    fn send(&mut self) {
        while let Some(send) = self.lane.next(at(self.now)) {
            let sends = self.sends.entry(send.offset).or_default();
            *sends += 1;
            assert!(*sends <= STEPS + 1 + self.crashes, "attempts of {}", send.offset);
            assert!(!self.dead.contains(&send.offset), "{} is dead", send.offset);
            self.in_flight.push(send.offset);
        }
        assert!(self.in_flight.len() <= self.settings.max_concurrency);
        assert!(self.lane.unsettled() <= UNSETTLED_MAX && self.rows.len() <= ROWS_MAX);
    }

    fn settle(&mut self, pick: usize, kind: u8) {
        if self.in_flight.is_empty() {
            return;
        }
        let offset = self.in_flight.swap_remove(pick % self.in_flight.len());
        let outcome = match kind % 8 {
            0..4 => DELIVERED,
            4..7 => retry(),
            _ => Outcome::Reject { reason: "no".into(), answer: Answer::default() },
        };
        if outcome == DELIVERED {
            self.delivered_since.insert(offset);
        }
        if outcome == DELIVERED && self.delivered.insert(offset) && self.settings.ordering == Ordering::Aggregate {
            for before in
                (1..offset.0).map(Offset).filter(|o| self.key(*o).is_some() && self.key(*o) == self.key(offset))
            {
                assert!(self.delivered.contains(&before) || self.dead.contains(&before), "{before} after {offset}");
            }
        }
        self.lane.settle(offset, outcome, at(self.now), 0.5);
    }

    fn take(&mut self) {
        if let Some(changes) = self.lane.take_changes() {
            self.under_way = Some(changes);
        }
    }

    /// What the log does with the changes.
    fn keep(&mut self) {
        let Some(changes) = self.under_way.take() else { return };
        self.cursor = changes.cursor;
        self.rows.extend(changes.waiting.into_iter().map(|row| (row.offset, row)));
        for offset in changes.cleared {
            assert!(self.rows.remove(&offset).is_some(), "{offset} had no row");
        }
        for dead in changes.dead {
            self.rows.remove(&dead.offset);
            assert!(self.dead.insert(dead.offset), "{} died twice", dead.offset);
        }
    }

    fn commit(&mut self) {
        if self.under_way.is_some() {
            self.keep();
            self.lane.committed();
        }
    }

    fn crash(&mut self, committed: bool) {
        let unsettled = self.lane.unsettled();
        if committed {
            self.keep();
        }
        self.under_way = None;
        self.in_flight.clear();
        self.crashes += 1;
        let (cursor, rows) = (self.cursor, &self.rows);
        let open = |offset: &&Offset| **offset > cursor || rows.contains_key(offset);
        let duplicates = self.delivered_since.iter().filter(open).count();
        self.delivered_since.clear();
        assert!(duplicates <= unsettled, "{duplicates} duplicates of {unsettled} unsettled");
        let rows: Vec<_> = self.rows.values().map(|row| (row.clone(), self.key(row.offset))).collect();
        self.lane = Lane::new(self.cursor, rows, self.settings.clone());
    }

    fn step(&mut self, (what, pick): (u8, u8)) {
        match what {
            0..4 => self.offer(usize::from(pick)),
            4..8 => self.send(),
            8..24 => self.settle(usize::from(pick / 8), pick),
            24..27 => self.take(),
            27..30 => self.commit(),
            30 => self.now += i64::from(pick),
            _ => self.crash(pick % 2 == 0),
        }
    }

    fn is_done(&self) -> bool {
        self.cursor.0 == self.keys.len() as u64 && self.rows.is_empty()
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.is_done() {
                break;
            }
            self.offer(usize::MAX);
            self.send();
            while !self.in_flight.is_empty() {
                self.settle(0, 0);
            }
            self.take();
            self.commit();
            self.now += STEP_MS;
        }
        assert!(self.is_done(), "cursor {} of {}, rows {:?}", self.cursor, self.keys.len(), self.rows);
        for offset in (1..=self.keys.len() as u64).map(Offset) {
            assert!(self.delivered.contains(&offset) || self.dead.contains(&offset), "{offset} is lost");
        }
        assert_eq!((self.lane.unsettled(), self.lane.waiting(), self.lane.in_flight()), (0, 0, 0));
        assert!(self.lane.chains.is_empty() && self.lane.items.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn whatever_happens_all_is_delivered_or_dead_in_order_and_hardly_anything_twice(
        keys in prop::collection::vec(prop::option::of(0_u64..6), 1..500),
        max_concurrency in 1_usize..64,
        ordered in prop::bool::weighted(0.8),
        steps in prop::collection::vec((0_u8..32, any::<u8>()), 0..1500),
    ) {
        let ordering = if ordered { Ordering::Aggregate } else { Ordering::None };
        let mut world = World::new(keys, settings(max_concurrency, ordering));
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
