//! Which runs are joined, and when: so that a look-up asks few of them however long the log is.
//!
//! Eight runs of a level become one of the next. Each level has at most one merge, the lowest goes first, and its rows are
//! written in slices between commits; the last slice, the new run's name and the end of the old ones are one commit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use rusqlite::Connection;

use super::growing::Growing;
use super::merge::{Merger, Next, Step};
use super::run::{self, Meta, Run};
use super::turns::Line;
use super::writer::Writer;

/// Runs of a level that are joined.
const FAN_IN: usize = 8;
/// Rows of a slice: about 1 ms.
const SLICE_ROWS: usize = 32;
/// Rows of a slice when merges do not keep up.
const SLICE_ROWS_BEHIND: usize = 256;
/// Merges to this level and above, of a million events and more, rest between steps: nothing waits for them, and at full
/// speed one takes half a second of the processors from what goes on.
const LEVEL_RESTS: u8 = 2;
/// Until so many events have come: at 30 bytes an event a million are about 120 steps, so the merge is done before the next
/// million is there. Where events have more bytes in the index and it is not, runs gather until none rests.
const REST_EVENTS: u64 = 4_096;
/// What a moment without tasks counts for: so a merge comes to its end also when no events come.
const IDLE_EVENTS: u64 = 32;
/// With so many runs merges do not keep up, and none rests: there are seven of each level else.
const RUNS_BEHIND: usize = 64;
/// What removing a row writes, about: its page, and one beside it.
const REMOVED_BYTES: usize = 512;

#[derive(Default)]
pub(crate) struct Merging {
    /// One for each level that is being merged, the lowest first.
    active: Vec<Active>,
    /// Runs that nobody asks any more, or never did.
    doomed: Vec<Doomed>,
    /// Runs may have come together that should be one.
    look: bool,
    /// What the slice under way removed of the doomed run in this place.
    removed: Option<(usize, usize)>,
    /// Where the log was at the last look.
    position: u64,
}

struct Active {
    level: u8,
    inputs: Vec<Run>,
    growing: Growing,
    stage: Stage,
    /// Events until the next step.
    rest: u64,
}

impl Active {
    /// Whether it can take another step now.
    fn is_ready(&self) -> bool {
        self.rest == 0 && matches!(self.stage, Stage::Here(_))
    }
}

enum Stage {
    /// Can take another step, after a rest.
    Here(Box<Merger>),
    /// Takes one.
    Away(Receiver<rusqlite::Result<Step>>),
    /// Everything is read.
    Over,
}

struct Doomed {
    run: u64,
    /// Readers that took the list before the run left it.
    meta: Option<Arc<Meta>>,
}

impl Doomed {
    fn is_free(&self) -> bool {
        self.meta.as_ref().is_none_or(|meta| Arc::strong_count(meta) == 1)
    }
}

impl Merging {
    /// What start found: rows of runs that do not exist.
    pub(crate) fn new(orphans: Vec<u64>) -> Self {
        let doomed = orphans.into_iter().map(|run| Doomed { run, meta: None }).collect();
        Self { doomed, look: true, ..Self::default() }
    }

    /// Runs came, or events went.
    pub(crate) fn look(&mut self) {
        self.look = true;
    }

    /// Whether there is something to write.
    pub(crate) fn is_pending(&self) -> bool {
        let is_away = |merge: &Active| matches!(merge.stage, Stage::Away(_));
        self.look
            || self.active.iter().any(|merge| merge.growing.is_pending())
            || (self.active.iter().any(Active::is_ready) && !self.active.iter().any(is_away))
            || self.doomed.iter().any(Doomed::is_free)
    }

    /// Whether there will be something to write.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.active.is_empty() || !self.doomed.is_empty()
    }

    pub(crate) fn failed(&mut self) {
        self.active.iter_mut().for_each(|merge| merge.growing.failed());
        self.removed = None;
    }

    /// The writer had nothing to do for a moment.
    pub(crate) fn idled(&mut self) {
        self.rest(IDLE_EVENTS);
    }

    /// So many events came, or what counts as much.
    fn rest(&mut self, events: u64) {
        self.active.iter_mut().for_each(|merge| merge.rest = merge.rest.saturating_sub(events));
    }

    /// Takes what the helper has done; `position` is where the log is.
    pub(crate) fn receive(&mut self, position: u64) {
        let before = std::mem::replace(&mut self.position, position);
        self.rest(position.saturating_sub(before));
        let mut failed = None;
        for (place, merge) in self.active.iter_mut().enumerate() {
            let Stage::Away(receiver) = &merge.stage else { continue };
            match receiver.try_recv() {
                Ok(Ok(Step { rows, next })) => {
                    merge.growing.extend(rows);
                    merge.rest = if merge.growing.level < LEVEL_RESTS { 0 } else { REST_EVENTS };
                    merge.stage = match next {
                        Next::Step(merger) => Stage::Here(merger),
                        Next::End(packed, covers) => {
                            merge.growing.end(packed, covers);
                            Stage::Over
                        }
                    };
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "runs of the index cannot be merged");
                    failed = Some(place);
                }
                // The helper had no room for the job.
                Err(TryRecvError::Disconnected) => failed = Some(place),
                Err(TryRecvError::Empty) => {}
            }
        }
        if let Some(place) = failed {
            // Tried again when the next run comes.
            let merge = self.active.remove(place);
            self.doomed.push(Doomed { run: merge.growing.number, meta: None });
        }
    }
}

/// The runs to join next and the level of what they become. `gone`: retention took all of a run's events.
fn choose(runs: &[Run], is_merging: impl Fn(u8) -> bool, gone: impl Fn(&Meta) -> bool) -> Option<(Vec<Run>, u8)> {
    let level = |run: &Run| run.meta.level;
    for run in runs.iter().rev().filter(|run| !is_merging(level(run))) {
        let same: Vec<Run> = runs.iter().filter(|other| level(other) == level(run)).take(FAN_IN).cloned().collect();
        if same.len() == FAN_IN {
            return Some((same, level(run).saturating_add(1)));
        }
    }
    let gone = runs.iter().find(|run| run.meta.offsets > 0 && !is_merging(level(run)) && gone(&run.meta))?;
    Some((vec![gone.clone()], level(gone)))
}

impl Writer {
    /// Writes the next rows of a merge, or removes some of a run that is gone, within the transaction under way.
    pub(crate) fn merge_slice(&mut self) -> rusqlite::Result<()> {
        self.merging.receive(self.next_position);
        self.merge_begin();
        let behind = self.shared.runs.list().len() >= RUNS_BEHIND;
        if behind {
            self.merging.rest(u64::MAX);
        }
        self.merge_go_on();
        let rows = if behind { SLICE_ROWS_BEHIND } else { SLICE_ROWS };
        if let Some(merge) = self.merging.active.iter_mut().find(|merge| merge.growing.is_pending()) {
            if merge.growing.write(&self.connection, rows)? {
                for input in &merge.inputs {
                    run::remove_run(&self.connection, input.meta.number)?;
                }
            }
        } else if let Some(place) = self.merging.doomed.iter().position(Doomed::is_free) {
            let removed = run::remove_rows(&self.connection, self.merging.doomed[place].run, rows)?;
            self.merging.removed = Some((place, removed));
        }
        Ok(())
    }

    /// Begins merges that have become due.
    fn merge_begin(&mut self) {
        if !std::mem::take(&mut self.merging.look) {
            return;
        }
        let runs = self.shared.runs.list();
        loop {
            let active = &self.merging.active;
            let first = |tenant| self.shared.end(tenant).extent.first.0;
            let is_merging = |level| active.iter().any(|merge| merge.level == level);
            let gone = |run: &Meta| run.covers.iter().all(|cover| cover.last < first(cover.tenant));
            let Some((inputs, level)) = choose(&runs, is_merging, gone) else { return };
            let metas: Vec<_> = inputs.iter().map(|run| Arc::clone(&run.meta)).collect();
            let merger = Merger::new(&metas, first);
            let Some(newest) = metas.last() else { return };
            let growing = Growing::new(self.take_run_number(), newest.age, level);
            let (level, stage) = (newest.level, Stage::Here(Box::new(merger)));
            self.merging.active.push(Active { level, inputs, growing, stage, rest: 0 });
            self.merging.active.sort_by_key(|merge| merge.level);
        }
    }

    /// Has the helper take the next step of the lowest merge that has nothing more to write.
    fn merge_go_on(&mut self) {
        let active = &mut self.merging.active;
        if active.iter().any(|merge| matches!(merge.stage, Stage::Away(_))) {
            return;
        }
        let next = active.iter_mut().find(|merge| merge.is_ready() && merge.growing.waiting() <= SLICE_ROWS);
        let Some(merge) = next else { return };
        let (sender, receiver) = channel();
        if let Stage::Here(merger) = std::mem::replace(&mut merge.stage, Stage::Away(receiver)) {
            let step = move |connection: &Connection| {
                // The writer may have ended; then the merge begins anew at the next start.
                let _ = sender.send(merger.step(connection));
            };
            self.shared.helper.run(Line::default(), Box::new(step));
        }
    }

    /// The slice is on disk; with the last one the runs change places.
    pub(crate) fn merge_committed(&mut self) {
        let mut bytes = 0;
        let merging = &mut self.merging;
        for merge in &mut merging.active {
            bytes += merge.growing.committed();
            if merge.growing.is_finished() {
                let (inputs, run) = (std::mem::take(&mut merge.inputs), merge.growing.take_run());
                self.shared.runs.replace(&inputs, run);
                merging
                    .doomed
                    .extend(inputs.into_iter().map(|run| Doomed { run: run.meta.number, meta: Some(run.meta) }));
                merging.look = true;
            }
        }
        // A merge that is under way has something to merge.
        merging.active.retain(|merge| !merge.inputs.is_empty());
        if let Some((place, removed)) = merging.removed.take() {
            bytes += removed * REMOVED_BYTES;
            if removed == 0 {
                merging.doomed.remove(place);
            }
        }
        self.wrote(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(age: u64, level: u8) -> Run {
        let meta = Meta { number: age, age, level, keys: 1, offsets: 1, covers: Vec::new() };
        Run { meta: Arc::new(meta), filter: None }
    }

    fn chosen(runs: &[Run], merging: &[u8], gone: u64) -> Option<(Vec<u64>, u8)> {
        let choice = choose(runs, |level| merging.contains(&level), |run| run.age <= gone);
        choice.map(|(runs, level)| (runs.iter().map(|run| run.meta.age).collect(), level))
    }

    #[test]
    fn eight_of_a_level_become_one_of_the_next() {
        let mut runs: Vec<Run> = (1..=7).map(|age| run(age, 1)).chain((8..=14).map(|age| run(age, 0))).collect();
        assert_eq!(chosen(&runs, &[], 0), None);
        runs.extend([run(15, 0), run(16, 0)]);
        assert_eq!(chosen(&runs, &[], 0), Some(((8..=15).collect(), 1)));
        assert_eq!(chosen(&runs, &[0], 0), None);
        runs.insert(0, run(0, 1));
        assert_eq!(chosen(&runs, &[0], 0), Some(((0..=7).collect(), 2)));
    }

    #[test]
    fn a_run_without_events_keeps_its_level() {
        let runs = [run(1, 2), run(2, 1), run(3, 0)];
        assert_eq!(chosen(&runs, &[], 2), Some((vec![1], 2)));
        assert_eq!(chosen(&runs, &[2], 2), Some((vec![2], 1)));
        assert_eq!(chosen(&runs, &[1, 2], 2), None);
    }

    /// A merge to a level of which the helper has done a step.
    fn stepped(level: u8) -> Merging {
        let (sender, receiver) = channel();
        let next = Next::Step(Box::new(Merger::new(&[], |_| 0)));
        sender.send(Ok(Step { rows: Vec::new(), next })).unwrap();
        let growing = Growing::new(1, 1, level);
        let active = Active { level: level - 1, inputs: Vec::new(), growing, stage: Stage::Away(receiver), rest: 0 };
        Merging { active: vec![active], ..Merging::default() }
    }

    #[test]
    fn large_merges_rest_until_events_come_or_time_passes_and_small_ones_never() {
        let mut small = stepped(LEVEL_RESTS - 1);
        small.receive(0);
        assert!(small.is_pending());
        for (events, idle, looks) in [(0, true, REST_EVENTS / IDLE_EVENTS), (1_024, false, 4)] {
            let mut large = stepped(LEVEL_RESTS);
            large.receive(0);
            for look in 1..=looks {
                assert!(!large.is_pending() && large.is_waiting(), "{look}");
                if idle {
                    large.idled();
                }
                large.receive(look * events);
            }
            assert!(large.is_pending());
        }
    }
}
