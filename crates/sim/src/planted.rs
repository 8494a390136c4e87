//! What planted faults do to commits and to what is read at a start.

use std::time::Duration;

use tidings_core::lane::{Row, RowState};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{Appended, Progress, Settle};
use tidings_log::{Store, Write, Written};

use crate::plant::Plant;

/// Between the parts of a commit that is torn.
pub(crate) const GAP: Duration = Duration::from_millis(400);
/// How far a start goes back.
const BACK: u64 = 5;

/// The answer that leaves before anything is committed, if that is the fault.
pub(crate) fn acked(plant: Option<Plant>, store: &dyn Store, writes: &[Write]) -> Option<Vec<Written>> {
    let [Write::Append(append)] = writes else { return None };
    if plant != Some(Plant::AckBeforeCommit) {
        return None;
    }
    let head = store.extent(append.tenant).head.0;
    let guess = |(place, event): (u64, &tidings_log::store::Prepared)| Appended {
        id: event.encoded.subject.id.clone(),
        offset: Offset(head + 1 + place),
        sequence: None,
        duplicate: false,
    };
    Some(vec![Written::Appended { results: (0..).zip(&append.events).map(guess).collect(), replayed: false }])
}

/// What is committed in the place of `writes`, one after the other.
pub(crate) fn writes(plant: Option<Plant>, store: &dyn Store, mut writes: Vec<Write>) -> Vec<Vec<Write>> {
    match plant {
        Some(Plant::CursorBefore2xx) => {
            for settle in settles(&mut writes) {
                settle.changes.cursor = store.extent(settle.tenant).head;
                settle.changes.acked.clear();
            }
        }
        Some(Plant::HistoryDropped) => settles(&mut writes).for_each(|settle| settle.attempts.clear()),
        Some(Plant::CountForgotten) => settles(&mut writes).for_each(|settle| {
            for row in settle.changes.rows.iter_mut().filter(|row| row.state == RowState::Counted) {
                (row.state, row.attempts) = (RowState::Waiting, row.attempts - 1);
            }
        }),
        Some(Plant::PromiseForgotten) => settles(&mut writes).for_each(|settle| {
            let taken_back = |row: &&mut Row| row.state == RowState::Waiting && row.attempts == 0;
            settle.changes.rows.iter_mut().filter(taken_back).for_each(|row| row.due = Timestamp::default());
        }),
        Some(Plant::DeadLetterLost) => settles(&mut writes).for_each(|settle| {
            settle.changes.cleared.extend(settle.changes.dead.drain(..).map(|dead| dead.offset));
            settle.letters.clear();
        }),
        Some(Plant::DeactivationUntold) => {
            for write in &mut writes {
                if let Write::Append(append) = write {
                    append.events.retain(|event| !event.encoded.subject.event_type.as_str().ends_with(".deactivated"));
                }
            }
        }
        Some(Plant::BlockRowAfterCursor) => {
            let mut later = Vec::new();
            for settle in settles(&mut writes).filter(|settle| !settle.changes.rows.is_empty()) {
                let rows = std::mem::take(&mut settle.changes.rows);
                let (cursor, acked) = (settle.changes.cursor, settle.changes.acked.clone());
                let (subscription, tenant) = (settle.subscription.clone(), settle.tenant);
                let changes = tidings_core::lane::Changes { cursor, acked, rows, ..Default::default() };
                later.push(Write::Settle(Settle { subscription, tenant, changes, ..Settle::default() }));
            }
            return if later.is_empty() { vec![writes] } else { vec![writes, later] };
        }
        _ => {}
    }
    vec![writes]
}

fn settles(writes: &mut [Write]) -> impl Iterator<Item = &mut Settle> {
    writes.iter_mut().filter_map(|write| match write {
        Write::Settle(settle) => Some(settle),
        _ => None,
    })
}

/// What a lane is told of its progress.
pub(crate) fn progress(plant: Option<Plant>, progress: Option<Progress>) -> Option<Progress> {
    progress.map(|progress| match plant {
        Some(Plant::DuplicateOnResume) => {
            let cursor = Offset(progress.cursor.0.saturating_sub(BACK));
            Progress { cursor, acked: Vec::new(), ..progress }
        }
        _ => progress,
    })
}
