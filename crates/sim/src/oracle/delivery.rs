//! Nothing lost, nothing foreign, in order, the same bytes, and twice only what had to be.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::lane::{LOST, OnExhausted, Ordering, Outcome};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{DeadLetter, DeadState};

use super::attempts::UNSETTLED_MAX;
use super::{Case, ms};

pub(super) fn check(case: &mut Case<'_>) {
    bodies(case);
    lost(case);
    order(case);
    twice(case);
    letters(case);
}

fn bodies(case: &mut Case<'_>) {
    for seen in case.seen.clone() {
        let Some(event) = case.events.get(&*seen.id).copied() else {
            case.broken("I2", format!("{} was never published to its tenant", seen.id));
            continue;
        };
        let mut body = event.header().to_vec();
        body.extend_from_slice(event.bytes().unwrap_or(b"erased"));
        if body != seen.body {
            // The ids of two tenants are the same, what they say is not.
            let text = String::from_utf8_lossy(&seen.body).into_owned();
            let foreign = text.contains("{\"tenant\":") && !text.contains(&tenant_mark(case));
            let rule = if foreign { "I6" } else { "I5" };
            case.broken(rule, format!("attempt {} of {} has other bytes than the event", seen.attempt, seen.id));
        }
        if !case.wanted.contains_key(&event.offset) {
            case.broken("I2", format!("{} was not asked for", seen.id));
        }
    }
}

fn tenant_mark(case: &Case<'_>) -> String {
    format!("{{\"tenant\":{},", case.run.world.hooks[case.hook].tenant)
}

/// When an event was delivered first.
fn delivered(case: &Case<'_>) -> BTreeMap<Offset, Timestamp> {
    let mut delivered = BTreeMap::new();
    for seen in case.seen.iter().filter(|seen| seen.is_delivered()) {
        if let (Some(offset), Some((ended, _))) = (case.offset(seen), &seen.ended) {
            delivered.entry(offset).or_insert(*ended);
        }
    }
    delivered
}

fn lost(case: &mut Case<'_>) {
    if !case.run.world.drains {
        return;
    }
    let delivered = delivered(case);
    let dead: BTreeSet<Offset> = case.letters.iter().map(|letter| letter.offset).collect();
    let skipped = &case.run.kept[case.hook].standing;
    let is_lost =
        |offset: &Offset| !delivered.contains_key(offset) && !dead.contains(offset) && !skipped.has_skipped(*offset);
    let lost: Vec<_> = case.wanted.iter().filter(|(offset, _)| is_lost(offset)).map(|(_, event)| event).collect();
    let text: Vec<_> =
        lost.iter().map(|event| format!("{} (offset {})", event.subject.id.as_str(), event.offset)).collect();
    if !text.is_empty() {
        case.broken("I1", format!("lost: {}", text.join(", ")));
    }
    let left = &case.run.kept[case.hook];
    if !left.waiting.is_empty() {
        case.broken("I9", format!("in the end there are rows: {:?}", left.waiting));
    }
    if left.in_flight > 0 {
        case.broken("I9", format!("in the end {} attempts are in flight", left.in_flight));
    }
}

/// Before an attempt, all predecessors in its aggregate are settled.
fn order(case: &mut Case<'_>) {
    if case.settings.ordering == Ordering::None {
        return;
    }
    let delivered = delivered(case);
    let parks = case.settings.on_exhausted == OnExhausted::Park;
    let mut given_up: BTreeMap<Offset, Timestamp> = BTreeMap::new();
    let mut note = |offset: Offset, at: Timestamp| {
        let first = given_up.entry(offset).or_insert(at);
        *first = at.min(*first);
    };
    for letter in case.letters.iter().filter(|_| parks) {
        if let DeadState::Discarded { at, .. } = &letter.state {
            note(letter.offset, *at);
        }
    }
    // A letter tells the last time that a delivery was given up, the history the first.
    for (offset, _, ended) in ends(case).into_iter().filter(|_| !parks) {
        note(offset, ended);
    }
    let untold = case.replayed() && case.counts_before(case.run.lives.len());
    for letter in case.letters.iter().filter(|letter| !parks && (is_lost(letter) || untold)) {
        // What was sent again may have been given up before that, and nothing tells when.
        note(letter.offset, if untold { Timestamp::default() } else { letter.at });
    }
    let never = Timestamp::from_millis(i64::MAX);
    let settled = |offset: &Offset| {
        let found = [delivered.get(offset), given_up.get(offset)].into_iter().flatten().min();
        found.copied().unwrap_or(never)
    };
    // Of each event: when the last of its predecessors was settled, and which that is.
    let mut barriers: BTreeMap<Offset, (Timestamp, Offset)> = BTreeMap::new();
    let mut latest: BTreeMap<&str, (Timestamp, Offset)> = BTreeMap::new();
    let standing = &case.run.kept[case.hook].standing;
    for (offset, event) in &case.wanted {
        let Some(aggregate) = &event.subject.aggregate else { continue };
        let before = latest.entry(aggregate.as_str()).or_insert((Timestamp::from_millis(0), Offset(0)));
        barriers.insert(*offset, *before);
        if !standing.has_skipped(*offset) {
            *before = (*before).max((settled(offset), *offset));
        }
    }
    for seen in case.seen.clone().into_iter().filter(|seen| !seen.replay) {
        let Some(offset) = case.offset(seen) else { continue };
        let Some((barrier, before)) = barriers.get(&offset) else { continue };
        if seen.began < *barrier {
            let when = if *barrier == never { "never".to_owned() } else { format!("at {}", ms(*barrier)) };
            let text = format!(
                "offset {offset} is sent at {} before offset {before} of its aggregate is settled, {when}",
                ms(seen.began)
            );
            case.broken("I3", text);
        }
    }
}

/// What was delivered comes again only if the process that knew it ended before it had committed that.
fn twice(case: &mut Case<'_>) {
    let mut known: BTreeMap<Offset, u32> = BTreeMap::new();
    for told in case.history.iter().filter(|told| told.attempt.reason.is_none() && !told.attempt.replay) {
        known.entry(told.attempt.offset).or_insert(told.life);
    }
    let mut delivered: BTreeMap<Offset, (u32, Timestamp)> = BTreeMap::new();
    let mut repeated: BTreeMap<(u32, u32), BTreeSet<Offset>> = BTreeMap::new();
    for seen in case.seen.clone().into_iter().filter(|seen| !seen.replay) {
        let Some(offset) = case.offset(seen) else { continue };
        if let Some(life) = delivered.get(&offset) {
            let (life, ended) = *life;
            if case.revived(&seen.id, ended, seen.began) {
                continue;
            }
            let committed = known.get(&offset).is_some_and(|known| *known < seen.life);
            if life == seen.life || committed {
                case.broken("I4", format!("{} is sent again at {} although that was settled", seen.id, ms(seen.began)));
            }
            repeated.entry((life, seen.life)).or_default().insert(offset);
        }
        if seen.is_delivered() {
            delivered.insert(offset, (seen.life, seen.began));
        }
    }
    for ((before, life), again) in repeated {
        if again.len() > UNSETTLED_MAX {
            case.broken("I4", format!("{} events come again in life {life}", again.len()));
        }
        if !(before..life).any(|life| case.may_be_lost(life)) {
            case.broken("I4", format!("{again:?} come again in life {life} without a crash"));
        }
    }
}

/// The attempts with which deliveries were given up: of which event, which number, and when they ended.
fn ends(case: &Case<'_>) -> Vec<(Offset, u32, Timestamp)> {
    let last = u32::try_from(case.settings.schedule.steps().len() + 1).unwrap_or(u32::MAX);
    let ends = case.history.iter().filter_map(|told| {
        let (ended, outcome) = case.seen[told.seen?].ended.as_ref()?;
        let rejected = matches!(outcome, Outcome::Reject { .. });
        let given_up = told.attempt.reason.is_some() && (rejected || told.attempt.number >= last);
        given_up.then_some((told.attempt.offset, told.attempt.number, *ended))
    });
    ends.collect()
}

/// Whether the last attempt was one whose process ended: only its letter tells of it.
fn is_lost(letter: &DeadLetter) -> bool {
    &*letter.reason == LOST
}

/// For each delivery that was given up there is a dead letter, and for each dead letter such a delivery.
fn letters(case: &mut Case<'_>) {
    let mut ends: BTreeMap<Offset, Vec<u32>> = BTreeMap::new();
    for (offset, number, _) in self::ends(case) {
        ends.entry(offset).or_default().push(number);
    }
    told(case, &ends);
    if case.letters.iter().any(is_lost) && !case.counts_before(case.run.lives.len()) {
        case.broken("I8", "a dead letter says that its process ended, and no attempt was counted".into());
    }
    let mut found: BTreeMap<Offset, Vec<u32>> = BTreeMap::new();
    for letter in case.letters.iter().filter(|letter| !is_lost(letter)) {
        found.entry(letter.offset).or_default().push(letter.attempts);
    }
    for offset in ends.keys().chain(found.keys()).copied().collect::<BTreeSet<_>>() {
        let (mut ends, mut found) =
            (ends.get(&offset).cloned().unwrap_or_default(), found.get(&offset).cloned().unwrap_or_default());
        ends.sort_unstable();
        found.sort_unstable();
        // Given up again while its letter is open, it has still one.
        let again = case.replayed();
        let told = !found.is_empty() || case.letters.iter().any(|letter| letter.offset == offset && is_lost(letter));
        let fits = ends == found || (again && told && found.iter().all(|attempts| ends.contains(attempts)));
        if !fits {
            let text = format!("offset {offset} was given up after {ends:?} attempts, its dead letters say {found:?}");
            case.broken("I8", text);
        }
    }
}

/// Each delivery that was given up is told, but not those of what is told.
fn told(case: &mut Case<'_>, ends: &BTreeMap<Offset, Vec<u32>>) {
    let ordinary =
        |offset: &&Offset| case.wanted.get(offset).is_some_and(|event| !event.subject.event_type.is_operational());
    let lost = case.letters.iter().filter(|letter| is_lost(letter) && ordinary(&&letter.offset)).count();
    let expected: usize = lost + ends.keys().filter(ordinary).map(|offset| ends[offset].len()).sum::<usize>();
    let told = case.run.told(case.hook, "tidings.delivery.dead_lettered").len();
    // One that was sent again and given up again has one letter, which may not tell of the attempt that was lost.
    let more = told > expected && case.replayed() && case.counts_before(case.run.lives.len());
    if told != expected && !more {
        case.broken("I8", format!("{expected} deliveries were given up, the log tells of {told}"));
    }
}
