//! What waits for the writer.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tidings_core::time::Timestamp;

use super::seal::NewSeal;
use crate::answers::Asker;
use crate::store::{Unavailable, Write};

/// How much may wait; more is refused as `Busy`.
const BYTES_MAX: usize = 64 << 20;
/// How much one commit takes.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// What a write weighs beside its events.
const WRITE_BYTES: usize = 256;
/// What an attempt weighs beside its answer.
const ATTEMPT_BYTES: usize = 128;

/// Writes that commit together or not at all.
pub(crate) struct Unit {
    pub(crate) now: Timestamp,
    pub(crate) writes: Vec<Write>,
    pub(crate) asker: Asker,
}

/// Something for the writer to do.
pub(crate) enum Task {
    /// Somebody's commit.
    Unit(Unit),
    /// The sealer's.
    Seal(NewSeal),
}

/// What the writer finds when it looks.
pub(crate) enum Work {
    /// Tasks for one transaction.
    Tasks(Vec<Task>),
    /// Nothing came in time.
    Idle,
    /// The queue is closed and empty.
    Closed,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    tasks: Vec<(usize, Task)>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn push(&self, unit: Unit) {
        let weight = weight(&unit.writes);
        let state = self.state.lock();
        let refusal = if state.closed {
            Some(Unavailable::Trouble("the log is closed".into()))
        } else if state.bytes > 0 && state.bytes + weight > BYTES_MAX {
            Some(Unavailable::Busy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(state);
            unit.asker.refuse(refusal);
            return;
        }
        self.add(state, weight, Task::Unit(unit));
    }

    /// Seals are few and small: they are never refused.
    pub(crate) fn push_seal(&self, seal: NewSeal) {
        let weight = seal.leaves.len();
        self.add(self.state.lock(), weight, Task::Seal(seal));
    }

    fn add(&self, mut state: MutexGuard<'_, State>, weight: usize, task: Task) {
        state.bytes += weight;
        let was_empty = state.tasks.is_empty();
        state.tasks.push((weight, task));
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Takes what has queued, up to the size of one commit; waits at most `patience` for the first.
    pub(crate) fn take(&self, patience: Duration) -> Work {
        let mut state = self.state.lock();
        if state.tasks.is_empty() && !state.closed {
            self.filled.wait_for(&mut state, patience);
        }
        if state.tasks.is_empty() {
            return if state.closed { Work::Closed } else { Work::Idle };
        }
        let mut bytes = 0;
        let count = state
            .tasks
            .iter()
            .take_while(|(weight, _)| {
                let fits = bytes == 0 || bytes + weight <= GROUP_BYTES_MAX;
                bytes += weight;
                fits
            })
            .count();
        let rest = state.tasks.split_off(count);
        let taken = std::mem::replace(&mut state.tasks, rest);
        state.bytes -= taken.iter().map(|(weight, _)| weight).sum::<usize>();
        Work::Tasks(taken.into_iter().map(|(_, task)| task).collect())
    }

    /// How much waits: tasks, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.tasks.len(), state.bytes)
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

fn weight(writes: &[Write]) -> usize {
    writes
        .iter()
        .map(|write| match write {
            Write::Append(append) => append.events.iter().map(|e| e.encoded.weight() + WRITE_BYTES).sum(),
            Write::Put(document, _) => document.body.len() + WRITE_BYTES,
            Write::Settle(settle) => {
                let rows = settle.changes.rows.len() + settle.letters.len() + 1;
                let answers = settle.attempts.iter().flat_map(|attempt| &attempt.answer);
                rows * WRITE_BYTES
                    + settle.attempts.len() * ATTEMPT_BYTES
                    + answers.map(|text| text.len()).sum::<usize>()
            }
            Write::Sweep(sweep) => (sweep.current.len() + 1) * WRITE_BYTES,
            Write::Close(_, ids, _) => ids.len() * WRITE_BYTES,
            _ => WRITE_BYTES,
        })
        .sum::<usize>()
        .max(WRITE_BYTES)
}
