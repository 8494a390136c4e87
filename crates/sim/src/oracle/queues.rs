//! What must hold for workers: what was acknowledged never comes back, nobody has what somebody else has, all in order.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::event::AggregateId;
use tidings_core::lane::Ordering;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::attempts::COMMITTED_WITHIN;
use super::{Case, ms};
use crate::disk::Trouble;
use crate::run::End;
use crate::workers::Fetched;

pub(super) fn check(case: &mut Case<'_>) {
    let fetched: Vec<_> = case.run.fetched.iter().filter(|fetched| fetched.hook == case.hook).collect();
    lost(case, &fetched);
    order(case, &fetched);
    let mut series: BTreeMap<Offset, Vec<&Fetched>> = BTreeMap::new();
    for one in &fetched {
        if !case.wanted.contains_key(&one.offset) {
            case.broken("I2", format!("offset {} was not asked for", one.offset));
        }
        series.entry(one.offset).or_default().push(one);
    }
    for series in series.values() {
        for (nth, one) in series.iter().enumerate() {
            again(case, one, &series[..nth]);
        }
    }
}

/// Everything is done, or dead, or was jumped over.
fn lost(case: &mut Case<'_>, fetched: &[&Fetched]) {
    if !case.run.world.drains {
        return;
    }
    let done: BTreeSet<_> = fetched.iter().filter(|one| one.done.is_some()).map(|one| one.offset).collect();
    let dead: BTreeSet<_> = case.letters.iter().map(|letter| letter.offset).collect();
    let kept = &case.run.kept[case.hook];
    let is_lost =
        |offset: &&Offset| !done.contains(offset) && !dead.contains(offset) && !kept.standing.has_skipped(**offset);
    let lost: Vec<_> = case.wanted.keys().filter(is_lost).map(ToString::to_string).collect();
    if !lost.is_empty() {
        case.broken("I1", format!("lost: offsets {}", lost.join(", ")));
    }
    if !kept.waiting.is_empty() {
        case.broken("I9", format!("in the end there are rows: {:?}", kept.waiting));
    }
}

/// Nobody gets an event before somebody was done with its predecessors.
fn order(case: &mut Case<'_>, fetched: &[&Fetched]) {
    if case.settings.ordering == Ordering::None {
        return;
    }
    let mut done: BTreeMap<Offset, Timestamp> = BTreeMap::new();
    for one in fetched {
        if let Some(at) = one.done {
            let first = done.entry(one.offset).or_insert(at);
            *first = at.min(*first);
        }
    }
    // Nothing tells when one was given up first.
    let dead: BTreeSet<_> = case.letters.iter().map(|letter| letter.offset).collect();
    let kept = &case.run.kept[case.hook].standing;
    let mut latest: BTreeMap<&str, (Timestamp, Offset)> = BTreeMap::new();
    let mut barriers: BTreeMap<Offset, (Timestamp, Offset)> = BTreeMap::new();
    for (offset, event) in &case.wanted {
        let Some(aggregate) = event.subject.aggregate.as_ref().map(AggregateId::as_str) else { continue };
        let before = latest.entry(aggregate).or_insert((Timestamp::default(), Offset(0)));
        barriers.insert(*offset, *before);
        if !dead.contains(offset) && !kept.has_skipped(*offset) {
            let settled = done.get(offset).copied().unwrap_or(Timestamp::from_millis(i64::MAX));
            *before = (*before).max((settled, *offset));
        }
    }
    for one in fetched.iter().filter(|one| !one.replay) {
        if let Some((barrier, before)) = barriers.get(&one.offset).filter(|(barrier, _)| one.at < *barrier) {
            let (at, barrier) = (ms(one.at), ms(*barrier));
            case.broken(
                "I3",
                format!("offset {} is fetched at {at}, before {before} is done, at {barrier}", one.offset),
            );
        }
    }
}

/// Whether a process that ended left word of what workers had: one that was cut off while the disk failed could not.
fn is_kept(case: &Case<'_>, life: u32) -> bool {
    let (end, at) = case.end(life);
    let failed = |trouble: &Trouble| trouble.from <= at && at <= trouble.until.plus(COMMITTED_WITHIN);
    let troubled = case.run.world.disk.troubles.iter().any(failed);
    end == End::Stopped || (end == End::Cancelled && !troubled)
}

/// One delivery after the earlier ones of the same event.
fn again(case: &mut Case<'_>, one: &Fetched, earlier: &[&Fetched]) {
    let id = case.wanted.get(&one.offset).map(|event| event.subject.id.as_str().to_owned()).unwrap_or_default();
    for before in earlier.iter().filter(|before| !one.replay && !before.replay) {
        let revived = case.revived(&id, before.at, one.at);
        if before.acked.is_some_and(|acked| acked < one.at) && !revived {
            let text = format!("offset {} is fetched at {} although it was acknowledged", one.offset, ms(one.at));
            case.broken("I4", text);
        }
        // The word of one who failed, or was done, gives it up.
        let given_up = [before.done, before.failed].into_iter().flatten().any(|at| at <= one.at);
        let promised = (before.life..one.life).all(|life| is_kept(case, life));
        if one.at < before.until && !given_up && promised {
            let text = format!(
                "offset {} is fetched at {}, somebody else has it from {} until {}",
                one.offset,
                ms(one.at),
                ms(before.at),
                ms(before.until)
            );
            case.broken("S6", text);
        }
    }
}
