//! The order of an aggregate's events, as a receiver sees it.

use std::collections::HashMap;
use std::mem;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

/// Aggregates that a guard remembers at least, unless told otherwise.
const AGGREGATES_MIN: usize = 50_000;

/// How an event stands to those of its aggregate that were processed before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Nothing is between.
    Next,
    /// The first one seen of an aggregate that began earlier: before the subscription, or before what is remembered.
    First,
    /// These were not seen: they come later, or this subscriber does not get their types.
    Gap {
        /// Sequence numbers between.
        missing: RangeInclusive<u64>,
    },
    /// A newer one was processed.
    Late {
        /// The newest sequence number that was.
        newest: u64,
    },
}

impl Order {
    /// How `sequence` stands to the newest number that was processed; none: none was.
    pub fn of(newest: Option<u64>, sequence: u64) -> Self {
        match newest {
            Some(newest) if sequence <= newest => Self::Late { newest },
            Some(newest) if sequence > newest + 1 => Self::Gap { missing: newest + 1..=sequence - 1 },
            None if sequence > 1 => Self::First,
            _ => Self::Next,
        }
    }

    /// Whether a newer one was processed.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Late { .. })
    }
}

/// Tells late events and gaps, in memory. It drops nothing: what to do is for the application to say.
///
/// Two steps: [`look`](Self::look) before the work, [`passed`](Self::passed) after it, so that an event whose work failed
/// is not late when it comes again. `order` of the database modules does both in the transaction of the work.
#[derive(Debug)]
pub struct SequenceGuard {
    kept: Mutex<Generations>,
}

/// Those that were used last are in `recent`; when it is full, it becomes `former`, and what was former is forgotten.
#[derive(Debug)]
struct Generations {
    recent: HashMap<String, u64>,
    former: HashMap<String, u64>,
    recent_max: usize,
}

impl Default for SequenceGuard {
    fn default() -> Self {
        Self::new(AGGREGATES_MIN)
    }
}

impl SequenceGuard {
    /// Remembers the `aggregates_min` that were used last, and at most twice as many.
    pub fn new(aggregates_min: usize) -> Self {
        let recent_max = aggregates_min.max(1);
        Self { kept: Mutex::new(Generations { recent: HashMap::new(), former: HashMap::new(), recent_max }) }
    }

    /// How the event stands to those that passed before.
    pub fn look(&self, aggregate: &str, sequence: u64) -> Order {
        let kept = self.kept.lock();
        Order::of(kept.newest(aggregate), sequence)
    }

    /// The event was processed. An older one than the newest changes nothing.
    pub fn passed(&self, aggregate: &str, sequence: u64) {
        let mut kept = self.kept.lock();
        let newest = kept.newest(aggregate).unwrap_or(0).max(sequence);
        if kept.recent.len() >= kept.recent_max && !kept.recent.contains_key(aggregate) {
            kept.former = mem::take(&mut kept.recent);
        }
        kept.recent.insert(aggregate.to_owned(), newest);
    }
}

impl Generations {
    fn newest(&self, aggregate: &str) -> Option<u64> {
        self.recent.get(aggregate).or_else(|| self.former.get(aggregate)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_and_gaps_are_told() {
        let cases = [
            (None, 1, Order::Next),
            (None, 7, Order::First),
            (Some(1), 2, Order::Next),
            (Some(1), 3, Order::Gap { missing: 2..=2 }),
            (Some(4), 9, Order::Gap { missing: 5..=8 }),
            (Some(4), 4, Order::Late { newest: 4 }),
            (Some(4), 1, Order::Late { newest: 4 }),
        ];
        for (newest, sequence, expected) in cases {
            assert_eq!(Order::of(newest, sequence), expected, "{newest:?} {sequence}");
        }
    }

    #[test]
    fn an_event_whose_work_failed_is_not_late_when_it_comes_again() {
        let guard = SequenceGuard::default();
        assert_eq!(guard.look("order_1", 1), Order::Next);
        assert_eq!(guard.look("order_1", 1), Order::Next);
        guard.passed("order_1", 1);
        assert!(guard.look("order_1", 1).is_late());
        guard.passed("order_1", 3);
        guard.passed("order_1", 2);
        assert_eq!(guard.look("order_1", 4), Order::Next);
    }

    #[test]
    fn what_a_guard_remembers_is_bounded_and_what_is_used_stays() {
        let guard = SequenceGuard::new(10);
        for number in 0..1_000 {
            guard.passed("used", number + 1);
            guard.passed(&format!("order_{number}"), 1);
        }
        assert_eq!(guard.look("used", 1_001), Order::Next);
        assert!(guard.look("order_999", 1).is_late());
        assert_eq!(guard.look("order_1", 2), Order::First);
        let kept = guard.kept.lock();
        assert!(kept.recent.len() + kept.former.len() <= 20);
    }
}
