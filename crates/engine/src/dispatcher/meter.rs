//! Counts attempts, and how old events were when they were delivered.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidings_core::time::Timestamp;

/// Seconds that are looked back on.
const SECONDS: usize = 60;

#[derive(Default)]
pub(super) struct Meter {
    delivered: AtomicU64,
    failed: AtomicU64,
    panics: AtomicU64,
    seconds: Mutex<Vec<Second>>,
}

#[derive(Clone, Copy, Default)]
struct Second {
    number: i64,
    count: u64,
    millis: u64,
}

impl Meter {
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a delivery that a worker fetched: it says nothing of how fast deliveries are.
    pub(super) fn fetched(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a delivery of an event that was recorded at `recorded`.
    pub(super) fn delivered(&self, recorded: Timestamp, now: Timestamp) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let number = now.as_millis().div_euclid(1000);
        let mut seconds = self.seconds.lock();
        seconds.resize(SECONDS, Second::default());
        let place = usize::try_from(number.rem_euclid(60)).unwrap_or(0);
        if seconds[place].number != number {
            seconds[place] = Second { number, ..Second::default() };
        }
        seconds[place].count += 1;
        seconds[place].millis += u64::try_from(now.since(recorded).as_millis()).unwrap_or(u64::MAX);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Tasks that panicked.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(super) fn attempts(&self) -> [u64; 2] {
        [self.delivered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed)]
    }

    /// Deliveries of the last minute, and the milliseconds of all of them.
    pub(super) fn recent(&self, now: Timestamp) -> (u64, u64) {
        let since = now.as_millis().div_euclid(1000) - 60;
        let seconds = self.seconds.lock();
        let recent = seconds.iter().filter(|second| second.number > since);
        recent.fold((0, 0), |(count, millis), second| (count + second.count, millis + second.millis))
    }
}
