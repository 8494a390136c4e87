//! Who is next where many wait: lines that are served in turn, so that nobody's thousand holds up another's one.

use std::collections::{HashMap, VecDeque};

use crate::event::Tenant;

/// Requests that wait for the readers; more are refused, to be sent again.
const REQUESTS_MAX: usize = 4_096;
/// And those of one tenant.
const REQUESTS_EACH_MAX: usize = 1_024;
/// What may wait of each other party. A subscription and a thread of streams ask for few things at a time, so this is
/// more than there can be of them.
const OTHERS_MAX: usize = 1 << 20;

/// Who asks the log for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Party {
    /// What runs by itself: it waits, however many are before it.
    #[default]
    Works,
    /// Streams: they wait too, in lines of their own.
    Streams,
    /// Requests: some wait, others are refused.
    Requests,
}

/// Where to wait: with what the same party asks about the same tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Line {
    pub(crate) party: Party,
    /// None: it is about no tenant, or nobody knows about which.
    pub(crate) tenant: Option<Tenant>,
}

/// All lines; the first of each has its turn when those of all others have had theirs.
#[derive(Debug)]
pub(crate) struct Turns<J> {
    lines: HashMap<Line, VecDeque<J>>,
    order: VecDeque<Line>,
    /// How many wait of each party.
    waiting: [usize; 3],
}

impl<J> Default for Turns<J> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), waiting: [0; 3] }
    }
}

impl<J> Turns<J> {
    /// Takes the last place in a line; false if too many wait.
    pub(crate) fn push(&mut self, line: Line, job: J) -> bool {
        let waiting = &mut self.waiting[line.party as usize];
        let (all_max, each_max) = match line.party {
            Party::Requests => (REQUESTS_MAX, REQUESTS_EACH_MAX),
            Party::Works | Party::Streams => (OTHERS_MAX, OTHERS_MAX),
        };
        let here = self.lines.get(&line).map_or(0, VecDeque::len);
        if *waiting >= all_max || here >= each_max {
            return false;
        }
        *waiting += 1;
        self.lines.entry(line).or_default().push_back(job);
        if here == 0 {
            self.order.push_back(line);
        }
        true
    }

    /// Who is next.
    pub(crate) fn pop(&mut self) -> Option<J> {
        let line = self.order.pop_front()?;
        let jobs = self.lines.get_mut(&line)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.lines.remove(&line);
        } else {
            self.order.push_back(line);
        }
        self.waiting[line.party as usize] -= 1;
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(party: Party, tenant: u32) -> Line {
        Line { party, tenant: Some(Tenant(tenant)) }
    }

    #[test]
    fn lines_are_served_in_turn_and_each_in_its_order() {
        let mut turns = Turns::default();
        let (many, few, requests) = (line(Party::Works, 1), line(Party::Works, 2), line(Party::Requests, 1));
        for job in [(many, 10), (many, 11), (many, 12), (few, 20), (requests, 30), (few, 21)] {
            assert!(turns.push(job.0, job.1));
        }
        assert_eq!(turns.pop(), Some(10));
        assert!(turns.push(line(Party::Streams, 1), 40));
        let rest: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(rest, [20, 30, 11, 40, 21, 12]);
        assert!(turns.lines.is_empty() && turns.order.is_empty() && turns.waiting == [0; 3]);
    }

    #[test]
    fn requests_are_bounded_for_each_tenant_and_in_all() {
        let mut turns = Turns::default();
        for tenant in 0..4 {
            let taken = (0..2_000).filter(|_| turns.push(line(Party::Requests, tenant), ())).count();
            assert_eq!(taken, REQUESTS_EACH_MAX);
        }
        assert!(!turns.push(line(Party::Requests, 9), ()));
        assert!((0..10_000).all(|_| turns.push(line(Party::Works, 0), ())));
        turns.pop();
        assert!(turns.push(line(Party::Requests, 9), ()));
    }
}
