//! The last sequence numbers of aggregates: in memory for what is recent, else asked of the runs.

use foldhash::{HashMap, HashMapExt};
use tidings_core::posting::Posting;

use super::group::Group;
use super::run;
use super::writer::{Stop, Writer};

/// Heads kept in memory beside those of the tail, in each of two generations.
const HEADS_MAX: usize = 196_608;

/// Heads that left the tail or were read from disk; two generations, so that it is bounded and keeps what is used.
#[derive(Default)]
pub(crate) struct HeadCache {
    recent: HashMap<Posting, u64>,
    older: HashMap<Posting, u64>,
}

impl HeadCache {
    pub(crate) fn get(&mut self, aggregate: Posting) -> Option<u64> {
        if let Some(sequence) = self.recent.get(&aggregate) {
            return Some(*sequence);
        }
        let sequence = *self.older.get(&aggregate)?;
        self.put(aggregate, sequence);
        Some(sequence)
    }

    pub(crate) fn put(&mut self, aggregate: Posting, sequence: u64) {
        if self.recent.len() >= HEADS_MAX {
            self.older = std::mem::replace(&mut self.recent, HashMap::new());
        }
        self.recent.insert(aggregate, sequence);
    }

    /// Whether it is still filling, as after a start.
    fn has_room(&self) -> bool {
        self.older.is_empty() && self.recent.len() < HEADS_MAX / 8 * 7
    }
}

impl Writer {
    /// The last sequence number of an aggregate, 0 if it is new.
    pub(crate) fn aggregate_head(&mut self, group: &Group, key: Posting) -> Result<u64, Stop> {
        if let Some(sequence) = group.head(key) {
            return Ok(sequence);
        }
        if let Some(sequence) = self.shared.index.read().head(key) {
            return Ok(sequence);
        }
        if let Some(sequence) = self.heads.get(key) {
            return Ok(sequence);
        }
        let sequence = self.stored_head(key)?;
        self.heads.put(key, sequence);
        Ok(sequence)
    }

    /// What only the disk knows: the number in the newest run that has the aggregate.
    ///
    /// After a start nothing is known of any. So what else the block says is kept too, if no newer run may know better; what
    /// the tail knows is asked first anyway.
    fn stored_head(&mut self, aggregate: Posting) -> rusqlite::Result<u64> {
        let runs = self.shared.runs.list();
        for (place, run) in runs.iter().enumerate().rev().filter(|(_, run)| run.may_have(aggregate)) {
            let (newer, heads) = (&runs[place + 1..], &mut self.heads);
            let sequence = run::head(&self.connection, &run.meta, aggregate, |other, sequence| {
                if sequence > 0 && heads.has_room() && !newer.iter().any(|run| run.may_have(other)) {
                    heads.put(other, sequence);
                }
            })?;
            if let Some(sequence) = sequence {
                return Ok(sequence);
            }
        }
        Ok(0)
    }
}
