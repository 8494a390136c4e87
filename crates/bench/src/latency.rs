//! Latencies, kept whole as microseconds and summed up by rank.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every latency of a run, in microseconds; four bytes each.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

/// What a run's latencies were, in microseconds; all 0 when there were none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u32,
    pub(crate) p99: u32,
    pub(crate) p999: u32,
    pub(crate) max: u32,
}

impl Latencies {
    /// Adds one; what exceeds 71 minutes counts as 71 minutes.
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes over all of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sorts what there is and reads the ranks.
    pub(crate) fn percentiles(&mut self) -> Percentiles {
        self.0.sort_unstable();
        let Some(&max) = self.0.last() else {
            return Percentiles::default();
        };
        // The smallest value that at least `permille` of all do not exceed.
        let rank = |permille: usize| self.0[(self.0.len() * permille).div_ceil(1000).max(1) - 1];
        Percentiles { p50: rank(500), p99: rank(990), p999: rank(999), max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(values: impl IntoIterator<Item = u64>) -> Percentiles {
        let mut all = Latencies::default();
        for value in values {
            all.push(Duration::from_micros(value));
        }
        all.percentiles()
    }

    #[test]
    fn ranks_are_the_smallest_value_that_covers_the_share() {
        let of_a_thousand = percentiles((1..=1000).rev());
        assert_eq!(of_a_thousand, Percentiles { p50: 500, p99: 990, p999: 999, max: 1000 });
        assert_eq!(percentiles([7]).p50, 7);
        assert_eq!(percentiles([1, 2]).p99, 2);
        assert_eq!(percentiles([]), Percentiles::default());
    }
}
