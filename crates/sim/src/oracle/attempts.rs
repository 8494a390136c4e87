//! The history against what was seen, the numbers and the times of attempts, concurrency and rate.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::lane::Outcome;
use tidings_core::offset::Offset;
use tidings_core::retry::RETRY_AFTER_MAX;

use super::{Case, ms};
use crate::receiver::Seen;
use crate::run::CAREFUL;
use crate::world::Order;

/// An outcome is committed that soon after it is known, if the disk works: two commits, each as slow as it gets.
pub(super) const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// A life that is careful has not become so, or ceased to be, for so long.
const SURELY: Duration = Duration::from_secs(5);
/// What may be unsettled at a time.
pub(super) const UNSETTLED_MAX: usize = 256;

pub(super) fn check(case: &mut Case<'_>) {
    pair(case);
    lost(case);
    let told = case.told();
    let mut series: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
    for (place, seen) in case.seen.iter().enumerate() {
        series.entry(seen.id.clone()).or_default().push(place);
    }
    for places in series.values() {
        for (nth, place) in places.iter().enumerate() {
            number(case, *place, &places[..nth], &told);
        }
    }
    concurrency(case);
    rate(case);
}

/// Each attempt of the history was seen once, as it is told.
fn pair(case: &mut Case<'_>) {
    let mut unpaired: BTreeMap<(Offset, u32, i64, bool), Vec<usize>> = BTreeMap::new();
    for (place, seen) in case.seen.iter().enumerate().rev() {
        if let Some(offset) = case.offset(seen) {
            unpaired.entry((offset, seen.attempt, seen.began.as_millis(), seen.replay)).or_default().push(place);
        }
    }
    for told in 0..case.history.len() {
        let attempt = case.history[told].attempt;
        let key = (attempt.offset, attempt.number, attempt.at.as_millis(), attempt.replay);
        let place = unpaired.get_mut(&key).and_then(Vec::pop);
        case.history[told].seen = place;
        let agrees = place.and_then(|place| case.seen[place].ended.as_ref()).is_some_and(|(ended, outcome)| {
            ended.since(attempt.at).as_millis() == u128::from(attempt.latency_ms)
                && outcome.answer().status == attempt.status
                && outcome.reason() == attempt.reason.as_deref()
        });
        if !agrees {
            let seen = place.map(|place| &case.seen[place].ended);
            case.broken("I10", format!("the history tells {attempt:?}, but what was seen is {seen:?}"));
        }
    }
}

/// What was seen and is not in the history was forgotten by a process that died.
fn lost(case: &mut Case<'_>) {
    let told = case.told();
    let mut lost = BTreeMap::<u32, usize>::new();
    for place in (0..told.len()).filter(|place| !told[*place]) {
        let Seen { id, attempt, life, ended, .. } = case.seen[place];
        let (_, end) = case.end(*life);
        let Some((ended, _)) = ended else {
            if !case.may_be_lost(*life) {
                case.broken("I10", format!("attempt {attempt} of {id} was cut off although nobody was in a hurry"));
            }
            *lost.entry(*life).or_default() += 1;
            continue;
        };
        if !case.may_be_lost(*life) {
            case.broken("I10", format!("attempt {attempt} of {id} at {} is not in the history", ms(*ended)));
        }
        let troubled = case.run.world.disk.troubles.iter().any(|t| t.from <= end && t.until >= *ended);
        if !troubled && end.since(*ended) > COMMITTED_WITHIN {
            let text = format!("attempt {attempt} of {id} ended at {} and was lost at {}", ms(*ended), ms(end));
            case.broken("I10", text);
        }
        *lost.entry(*life).or_default() += 1;
    }
    for (life, count) in lost.into_iter().filter(|(_, count)| *count > UNSETTLED_MAX) {
        case.broken("I4", format!("{count} attempts were unsettled at the end of life {life}"));
    }
}

/// The number and the time of an attempt, after the earlier ones of the same event.
fn number(case: &mut Case<'_>, place: usize, earlier: &[usize], told: &[bool]) {
    let seen = case.seen[place];
    let most = u32::try_from(case.settings.schedule.steps().len() + 1).unwrap_or(u32::MAX);
    if seen.attempt > most {
        case.broken("S1", format!("attempt {} of {}: at most {most}", seen.attempt, seen.id));
    }
    let same_kind = earlier.iter().copied().filter(|place| case.seen[*place].replay == seen.replay);
    let same_kind: Vec<usize> = same_kind.collect();
    counted(case, seen, &same_kind);
    if seen.attempt == 1 {
        let same_life = same_kind.iter().rev().map(|place| case.seen[*place]);
        let mut same_life = same_life.filter(|other| other.life == seen.life && !seen.replay);
        let again = same_life.next().filter(|other| !case.revived(&seen.id, other.began, seen.began));
        if let Some(again) = again {
            let text = format!("{} counts from 1 again at {} after attempt {}", seen.id, ms(seen.began), again.attempt);
            case.broken("S1", text);
        }
        return;
    }
    let failed = |other: &Seen| other.attempt == seen.attempt - 1 && !other.is_delivered();
    let Some(place) = same_kind.into_iter().rev().find(|place| failed(case.seen[*place])) else {
        if !(0..seen.life).any(|life| case.may_be_counted(life)) {
            case.broken("S1", format!("attempt {} of {} has none before it", seen.attempt, seen.id));
        }
        return;
    };
    let before = case.seen[place];
    let anew = !told[place] || case.revived(&seen.id, before.began, seen.began);
    if anew && (before.life..seen.life).any(|life| case.may_be_counted(life)) {
        return;
    }
    let Some((ended, outcome)) = &before.ended else {
        case.broken("S1", format!("attempt {} of {}: the one before has not ended", seen.attempt, seen.id));
        return;
    };
    let step = case.settings.schedule.step(before.attempt);
    let asked = match outcome {
        Outcome::Retry { retry_after, .. } => retry_after.unwrap_or_default().min(RETRY_AFTER_MAX),
        _ => Duration::ZERO,
    };
    let due = ended.plus(step.max(asked));
    if seen.began < due {
        let text = format!("attempt {} of {} at {}, due at {}", seen.attempt, seen.id, ms(seen.began), ms(due));
        case.broken("S1", text);
    }
}

/// An attempt of a careful process counts, whatever becomes of that: no later process makes it again.
fn counted(case: &mut Case<'_>, seen: &Seen, earlier: &[usize]) {
    let careful = |other: &&Seen| {
        let life = &case.run.lives[other.life as usize];
        life.careful && other.began.plus(SURELY) < life.began.plus(CAREFUL)
    };
    let same = earlier.iter().map(|place| case.seen[*place]).filter(|other| other.attempt == seen.attempt);
    let again = same.filter(|other| other.life < seen.life && !seen.replay).find(careful);
    if let Some(before) = again.filter(|other| !case.revived(&seen.id, other.began, seen.began)) {
        let (first, again) = (ms(before.began), ms(seen.began));
        case.broken("S5", format!("attempt {} of {} is made at {first} and again at {again}", seen.attempt, seen.id));
    }
}

fn concurrency(case: &mut Case<'_>) {
    let most = case.settings.max_concurrency.max(1);
    for place in 0..case.seen.len() {
        let Seen { began, life, id, .. } = case.seen[place];
        let flying = case.seen[..place]
            .iter()
            .rev()
            .take(4 * UNSETTLED_MAX)
            .filter(|other| other.life == *life && other.ended.as_ref().is_none_or(|(ended, _)| ended > began));
        let flying: Vec<_> = flying.map(|other| other.id.clone()).collect();
        if flying.contains(id) {
            case.broken("S4", format!("{id} is sent twice at the same time, at {}", ms(*began)));
        }
        if flying.len() >= most {
            let text = format!("{} attempts in flight at {}, at most {most}", flying.len() + 1, ms(*began));
            case.broken("S4", text);
        }
    }
}

/// In no time there are more attempts than its own and a burst.
fn rate(case: &mut Case<'_>) {
    let Some(rate) = case.settings.rate.map(String::from) else { return };
    let Some((count, unit)) = rate.split_once('/') else { return };
    let unit_ms: u64 = match unit {
        "s" => 1_000,
        "m" => 60_000,
        _ => 3_600_000,
    };
    let count: u64 = count.parse().unwrap_or(1);
    for span_ms in [1_000, 10_000] {
        let slack_ms = u64::try_from(case.slack().as_millis()).unwrap_or(u64::MAX);
        let most = 1 + (1_000.max(unit_ms / count) + span_ms + slack_ms) * count / unit_ms;
        for (place, seen) in case.seen.iter().enumerate() {
            let until = seen.began.plus(Duration::from_millis(span_ms));
            let made = case.seen[place..].iter().take_while(|other| other.began < until && other.life == seen.life);
            let made = made.count() as u64;
            // Whoever starts anew starts with a full bucket.
            let anew = case.run.notes.iter().any(|note| {
                note.hook == case.hook && note.order == Order::Restart && note.asked >= seen.began && note.asked < until
            });
            if made > most && !anew {
                let text = format!("{made} attempts in {span_ms} ms from {} on, with {rate}", ms(seen.began));
                case.broken("S4", text);
                return;
            }
        }
    }
}
