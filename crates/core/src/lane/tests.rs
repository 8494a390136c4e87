//! A lane against a world of chance: whatever fails and whenever it crashes, the laws hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::circuit::Status;
use crate::retry::Schedule;

mod cases;
mod people;
mod pulled;
mod waiting;

/// A small generator: the seed tells the run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What a crash leaves.
#[derive(Clone, Debug, Default)]
struct Disk {
    cursor: Offset,
    acked: Vec<u8>,
    rows: BTreeMap<Offset, Row>,
    dead: BTreeSet<Offset>,
    standing: Standing,
}

impl Disk {
    fn take(&mut self, changes: &Changes) {
        assert!(changes.cursor >= self.cursor, "the cursor went back");
        self.cursor = changes.cursor;
        self.acked.clone_from(&changes.acked);
        for offset in changes.cleared.iter().copied().chain(changes.dead.iter().map(|dead| dead.offset)) {
            self.rows.remove(&offset);
        }
        self.dead.extend(changes.dead.iter().map(|dead| dead.offset));
        for row in &changes.rows {
            self.rows.insert(row.offset, row.clone());
        }
        if let Some(standing) = &changes.standing {
            self.standing = standing.clone();
        }
    }
}

struct World {
    chance: Chance,
    keys: Vec<Option<u64>>,
    settings: Settings,
    disk: Disk,
    lane: Lane,
    now: Timestamp,
    in_flight: Vec<Send>,
    taken: Option<Changes>,
    /// In the order of success.
    delivered: Vec<Offset>,
    /// Attempts that were answered, by event.
    answers: BTreeMap<Offset, u32>,
    /// What may come again: sent or answered, and not committed when it crashed.
    excused: BTreeMap<Offset, u32>,
    failing: BTreeSet<Offset>,
    crashes: bool,
    /// People do things to it.
    people: bool,
    /// Its settings keep order, and then do not.
    wavers: bool,
    /// What was sent again by order.
    revived: BTreeSet<Offset>,
    /// Answers that no commit has told.
    uncommitted: Vec<Offset>,
}

impl World {
    fn new(seed: u64, crashes: bool, pulled: bool, people: bool) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = 20 + chance.below(300);
        let keys: Vec<_> = (0..=count).map(|_| (!chance.one_in(5)).then_some(chance.0 % 7)).collect();
        let failing = (1..=count).filter(|_| chance.one_in(12)).map(Offset).collect();
        let steps = vec![Duration::from_secs(1); 1 + usize::try_from(chance.below(4)).unwrap()];
        let settings = Settings {
            schedule: Schedule::new(steps).unwrap(),
            max_concurrency: 1 + usize::try_from(chance.below(20)).unwrap(),
            ordering: if chance.one_in(6) { Ordering::None } else { Ordering::Aggregate },
            on_exhausted: if people && chance.one_in(2) { OnExhausted::Park } else { OnExhausted::Skip },
            deactivate_after: None,
            rate: None,
            pull: None,
        };
        let settings = if pulled { Settings { pull: Some(pull(&settings)), ..settings } } else { settings };
        let wavers = people && chance.one_in(3);
        let disk = Disk::default();
        let lane = reopened(&disk, &settings, &keys, Timestamp::from_millis(0));
        Self {
            chance,
            keys,
            settings,
            disk,
            lane,
            now: Timestamp::from_millis(0),
            in_flight: Vec::new(),
            taken: None,
            delivered: Vec::new(),
            answers: BTreeMap::new(),
            excused: BTreeMap::new(),
            failing,
            crashes,
            people,
            wavers,
            revived: BTreeSet::new(),
            uncommitted: Vec::new(),
        }
    }

    fn head(&self) -> u64 {
        self.keys.len() as u64 - 1
    }

    fn step(&mut self) {
        match self.chance.below(if self.crashes { 200 } else { 199 }) {
            0..40 => self.offer(),
            40..90 => self.send(),
            90..150 => self.answer(),
            150..170 => self.take(),
            170..190 => self.commit(),
            190..194 => self.follow(),
            194..196 if self.lane.is_pulled() => self.end_one_late(),
            196 if self.lane.is_pulled() && self.chance.one_in(4) => self.take_back(),
            194..197 if self.people => self.do_something(),
            194..199 => self.now = self.now.plus(Duration::from_millis(self.chance.below(2_000))),
            _ => self.crash(),
        }
    }

    fn offer(&mut self) {
        for _ in 0..self.chance.below(20) {
            let next = self.lane.seen().next();
            if next.0 > self.head() || self.lane.wants() == 0 {
                return;
            }
            if self.chance.below(40) == 0 {
                // Nothing is lost by reading slowly.
                return;
            }
            self.lane.offer(next, self.keys[usize::try_from(next.0).unwrap()]);
        }
    }

    fn send(&mut self) {
        for _ in 0..=self.chance.below(4) {
            let Some(send) = self.lane.next(self.now) else { return };
            let key = self.key(send.offset);
            assert!(
                key.is_none() || self.wavers || !self.in_flight.iter().any(|other| self.key(other.offset) == key),
                "two of an aggregate in flight"
            );
            self.in_flight.push(send);
        }
        assert!(self.lane.unsettled() <= if self.lane.is_pulled() { FETCHED_MAX } else { UNSETTLED_MAX });
    }

    fn key(&self, offset: Offset) -> Option<u64> {
        let ordered = self.wavers || self.settings.ordering == Ordering::Aggregate;
        self.keys[usize::try_from(offset.0).unwrap()].filter(|_| ordered)
    }

    fn answer(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let place = usize::try_from(self.chance.below(self.in_flight.len() as u64)).unwrap();
        let send = self.in_flight.swap_remove(place);
        if self.people && self.chance.one_in(20) {
            // Its event could not be read.
            return self.lane.postpone(send.offset, self.now.plus(Duration::from_secs(1)));
        }
        let fails = self.failing.contains(&send.offset) || self.chance.one_in(20);
        let outcome = if fails {
            Outcome::Retry { reason: "status 503".into(), answer: Answer::default(), retry_after: None }
        } else {
            Outcome::Delivered(Answer::default())
        };
        if !fails {
            self.delivered.push(send.offset);
        }
        *self.answers.entry(send.offset).or_default() += 1;
        self.uncommitted.push(send.offset);
        let attempted = Attempted { offset: send.offset, began: self.now, ended: self.now, about: About::default() };
        self.lane.settle(attempted, outcome, 0.0);
    }

    /// A worker says that it is done with what came back from it: its time was over.
    fn end_one_late(&mut self) {
        let offset = Offset(1 + self.chance.below(self.head()));
        let out = self.in_flight.iter().any(|send| send.offset == offset);
        let attempt = 1 + u32::try_from(self.chance.below(3)).unwrap();
        let word = self.lane.late(offset, attempt);
        assert!(!out || word == Late::Stale, "another worker has {offset}");
        if word == Late::Counts {
            self.delivered.push(offset);
            self.uncommitted.push(offset);
        }
    }

    /// The lane goes on with other settings: what is out may still be answered.
    fn take_back(&mut self) {
        self.lane.take_back(self.now);
        for send in self.in_flight.drain(..) {
            let word = self.lane.late(send.offset, send.attempt);
            // One that was sent again may have come in front of it.
            assert!(word == Late::Counts || self.people, "{word:?}");
            if word == Late::Counts {
                self.delivered.push(send.offset);
                self.uncommitted.push(send.offset);
            }
        }
    }

    fn take(&mut self) {
        if self.taken.is_none() {
            self.taken = self.lane.take_changes();
            if self.taken.is_some() {
                self.uncommitted.clear();
            }
        }
    }

    fn commit(&mut self) {
        if let Some(changes) = self.taken.take() {
            let before = self.disk.clone();
            self.disk.take(&changes);
            self.nothing_is_forgotten(&before, &changes);
            self.lane.committed();
        }
    }

    fn follow(&mut self) {
        let Some(follow) = self.lane.follow() else { return };
        if self.chance.one_in(4) {
            // It could not be read.
            return self.lane.followed(follow, &[], follow.after);
        }
        let key = self.key(follow.of).expect("only aggregates are followed");
        let limit = 1 + usize::try_from(self.chance.below(6)).unwrap();
        let after = (follow.after.0 + 1..=follow.through.0).map(Offset);
        let found: Vec<_> = after.filter(|offset| self.key(*offset) == Some(key)).take(limit).collect();
        let reached = if found.len() == limit { *found.last().unwrap() } else { follow.through };
        self.lane.followed(follow, &found, reached);
    }

    fn crash(&mut self) {
        // What is taken may be on disk or not.
        if let Some(changes) = self.taken.take()
            && self.chance.one_in(2)
        {
            self.disk.take(&changes);
        }
        for offset in self.in_flight.drain(..).map(|send| send.offset).chain(self.uncommitted.drain(..)) {
            *self.excused.entry(offset).or_default() += 1;
        }
        // What a commit that did not make it told is not committed either.
        let ended: BTreeSet<_> = self.answers.keys().chain(&self.delivered).copied().collect();
        for offset in ended {
            *self.excused.entry(offset).or_default() += u32::from(!self.is_told(offset));
        }
        self.waver();
        self.lane = reopened(&self.disk, &self.settings, &self.keys, self.now);
        self.lane.be_careful(self.chance.one_in(2));
    }

    /// Whether the disk says that an event needs no attempt for now.
    fn is_told(&self, offset: Offset) -> bool {
        let waits = |row: &Row| {
            let follows = row.followers.is_some_and(|after| offset > after && offset <= self.disk.cursor);
            (row.offset == offset && matches!(row.state, RowState::Waiting | RowState::Counted))
                || (follows && self.key(row.offset).is_some() && self.key(row.offset) == self.key(offset))
        };
        if self.disk.rows.values().any(waits) {
            return false;
        }
        offset <= self.disk.cursor || Acks::from_bytes(self.disk.cursor, &self.disk.acked).contains(offset)
    }

    fn drain(&mut self) {
        for _ in 0..100_000 {
            self.offer();
            self.send();
            while !self.in_flight.is_empty() {
                self.answer();
            }
            self.take();
            self.commit();
            self.follow();
            self.decide();
            self.now = self.now.plus(Duration::from_millis(250));
            if self.lane.is_current() && self.lane.seen().0 == self.head() {
                return;
            }
        }
        panic!("it never ends: {:?}", self.lane);
    }

    fn check(&self) {
        let first: Vec<_> = self.first_deliveries();
        for offset in (1..=self.head()).map(Offset) {
            let delivered = first.contains(&offset);
            let dead = self.disk.dead.contains(&offset);
            let skipped = self.disk.standing.has_skipped(offset);
            assert!(delivered || dead || skipped, "{offset} is lost");
            let attempts = self.answers.get(&offset).copied().unwrap_or(0);
            let most = u32::try_from(self.settings.schedule.steps().len()).unwrap() + 1;
            let excused = self.excused.get(&offset).copied().unwrap_or(0);
            // Who keeps no order settles what then waits for others, once order is kept.
            assert!(self.wavers || attempts <= most + excused, "{offset}: {attempts} attempts, {excused} excused");
            let times = self.delivered.iter().filter(|other| **other == offset).count();
            assert!(self.wavers || times <= 1 + excused as usize, "{offset} was delivered {times} times");
        }
        let mut last: BTreeMap<u64, Offset> = BTreeMap::new();
        for offset in first {
            let Some(key) = self.key(offset).filter(|_| !self.wavers && !self.revived.contains(&offset)) else {
                continue;
            };
            let before = last.insert(key, offset);
            assert!(before.is_none_or(|before| before < offset), "{offset} came after {before:?}");
        }
        assert!(self.disk.rows.is_empty(), "rows stay: {:?}", self.disk.rows);
        assert_eq!((self.lane.unsettled(), self.lane.rows(), self.lane.in_flight()), (0, 0, 0));
    }

    fn first_deliveries(&self) -> Vec<Offset> {
        let mut seen = BTreeSet::new();
        self.delivered.iter().copied().filter(|offset| seen.insert(*offset)).collect()
    }
}

fn reopened(disk: &Disk, settings: &Settings, keys: &[Option<u64>], now: Timestamp) -> Lane {
    let rows = disk.rows.values().map(|row| (row.clone(), keys[usize::try_from(row.offset.0).unwrap()]));
    let acks = Acks::from_bytes(disk.cursor, &disk.acked);
    let standing = Standing { status: Status::Active, ..disk.standing.clone() };
    let mut lane = Lane::new(settings.clone(), standing, disk.cursor, acks, rows, now);
    for lost in lane.in_doubt() {
        lane.lost(lost.offset, now, 0.0);
    }
    lane
}

fn pull(settings: &Settings) -> Pull {
    Pull { retries_max: u32::try_from(settings.schedule.steps().len()).unwrap(), ack_wait: Duration::from_secs(30) }
}

fn run(seeds: std::ops::Range<u64>, crashes: bool, pulled: bool) {
    run_with(seeds, crashes, pulled, false);
}

fn run_with(seeds: std::ops::Range<u64>, crashes: bool, pulled: bool, people: bool) {
    for seed in seeds {
        let mut world = World::new(seed, crashes, pulled, people);
        for _ in 0..2_000 {
            world.step();
        }
        world.crashes = false;
        world.drain();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn everything_is_delivered_in_order_whatever_fails() {
    run(1..300, false, false);
}

#[test]
fn a_crash_at_any_moment_loses_nothing_and_repeats_only_what_was_unsettled() {
    run(1_000..1_600, true, false);
}

#[test]
fn what_workers_fetch_keeps_the_same_laws() {
    run(2_000..2_300, false, true);
    run(3_000..3_600, true, true);
}
