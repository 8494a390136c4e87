//! Counts and times, cheap enough for every commit and request: relaxed atomics, no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of a histogram's buckets, in microseconds; one more bucket takes the rest.
pub const BOUNDS_MICROS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How long things took, by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

/// What a [`Histogram`] had counted at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many took at most the bound of the same place; the last counts all.
    pub cumulative: [u64; BOUNDS_MICROS.len() + 1],
    /// All of it together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn record(&self, took: Duration) {
        let micros = took.as_nanos().div_ceil(1_000);
        let bucket = BOUNDS_MICROS.partition_point(|bound| u128::from(*bound) < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn read(&self) -> Counted {
        let mut total = 0;
        let cumulative = std::array::from_fn(|bucket| {
            total += self.buckets[bucket].load(Ordering::Relaxed);
            total
        });
        Counted { cumulative, sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

impl Counted {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.cumulative[BOUNDS_MICROS.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.record(Duration::from_nanos(100_001));
        let counted = histogram.read();
        assert_eq!(counted.cumulative, [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6]);
        assert_eq!((counted.count(), counted.sum), (6, Duration::from_nanos(10_000_302_001)));
    }
}
