//! The circuit, rounds of failures, deactivation and pauses, against a model of the rules.

use std::time::Duration;

use tidings_core::lane::Outcome;
use tidings_core::retry::RETRY_AFTER_MAX;
use tidings_core::time::Timestamp;

use super::{Case, ms};
use crate::run::Note;
use crate::world::Order;

/// Failed attempts in a row that open the circuit.
const OPEN_AFTER: u32 = 5;

/// The rules of rounds and of the circuit, said once more.
#[derive(Clone, Debug, Default)]
struct Model {
    failures: u32,
    round: u32,
    /// When the attempt began that was counted last.
    counted: Timestamp,
    /// When a probe may be made, at the earliest.
    probe: Timestamp,
    deactivated: bool,
}

/// What the model is told.
#[derive(Clone, Debug)]
struct Fact {
    at: Timestamp,
    life: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The attempt that began then ended so; whether its event tells of the webhook itself.
    Ended(Timestamp, Outcome, bool),
    Activated,
}

impl Model {
    /// Answers whether this deactivates.
    fn take(&mut self, fact: &Fact, case: &Case<'_>) -> bool {
        match &fact.kind {
            Kind::Activated => *self = Self::default(),
            Kind::Ended(_, Outcome::Delivered(_), _) => {
                *self = Self { deactivated: self.deactivated, ..Self::default() }
            }
            Kind::Ended(_, Outcome::Reject { .. }, _) => {}
            Kind::Ended(_, Outcome::Gone { .. }, own) => {
                return !std::mem::replace(&mut self.deactivated, true) && !own;
            }
            Kind::Ended(began, Outcome::Retry { retry_after, .. }, own) => {
                let schedule = &case.settings.schedule;
                self.failures += 1;
                let round = !own && (self.round == 0 || began.since(self.counted) >= schedule.step(self.round));
                if round {
                    self.round += 1;
                    self.counted = *began;
                    if case.settings.deactivate_after.is_some_and(|after| self.round >= after) {
                        self.probe = self.next_probe(fact.at, *retry_after, case);
                        return !std::mem::replace(&mut self.deactivated, true);
                    }
                }
                self.probe = self.next_probe(fact.at, *retry_after, case);
            }
        }
        false
    }

    fn next_probe(&self, ended: Timestamp, retry_after: Option<Duration>, case: &Case<'_>) -> Timestamp {
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let probe = ended.plus(case.settings.schedule.step(self.round).max(asked));
        // Before it opens, only the last failure counts.
        if self.failures > OPEN_AFTER { self.probe.max(probe) } else { probe }
    }

    fn is_open(&self) -> bool {
        self.failures >= OPEN_AFTER
    }
}

pub(super) fn check(case: &mut Case<'_>) {
    pauses(case);
    let (facts, certain) = facts(case);
    if certain {
        deactivations(case, &facts);
    }
    circuit(case, &facts);
}

/// What the lane learned, in its order; and whether that order is certain.
fn facts(case: &Case<'_>) -> (Vec<Fact>, bool) {
    let mut facts = Vec::new();
    let mut certain = true;
    for told in &case.history {
        let Some((ended, outcome)) = told.seen.and_then(|place| case.seen[place].ended.clone()) else {
            certain = false;
            continue;
        };
        let life = told.seen.map_or(told.life, |place| case.seen[place].life);
        facts.push(Fact {
            at: ended,
            life,
            kind: Kind::Ended(told.attempt.at, outcome, case.is_own(told.attempt.offset)),
        });
    }
    let told = case.told();
    let forgotten = (0..told.len()).filter(|place| !told[*place]).filter_map(|place| {
        let seen = case.seen[place];
        let (ended, outcome) = seen.ended.clone()?;
        let own = case.offset(seen).is_some_and(|offset| case.is_own(offset));
        Some(Fact { at: ended, life: seen.life, kind: Kind::Ended(seen.began, outcome, own) })
    });
    let mut forgotten: Vec<_> = forgotten.collect();
    forgotten.sort_by_key(|fact| (fact.life, fact.at));
    facts.extend(forgotten);
    // Of one life, those that were told come first, in their order.
    facts.sort_by_key(|fact| fact.life);
    for note in case.run.notes.iter().filter(|note| note.hook == case.hook && activates(note)) {
        certain &= note.done.is_some();
        let never = Timestamp::from_millis(i64::MAX);
        let done = note.done.unwrap_or(never);
        certain &= !facts.iter().any(|fact| fact.life == note.life && note.asked <= fact.at && fact.at <= done);
        // It counts before it is confirmed.
        let place =
            facts.iter().position(|fact| (fact.life, fact.at) >= (note.life, note.asked)).unwrap_or(facts.len());
        facts.insert(place, Fact { at: note.asked, life: note.life, kind: Kind::Activated });
    }
    (facts, certain)
}

/// As many as the rules say, and nothing is sent afterwards.
fn deactivations(case: &mut Case<'_>, facts: &[Fact]) {
    let committed = |fact: &&Fact| match &fact.kind {
        Kind::Activated => true,
        Kind::Ended(began, _, _) => {
            let told = case.history.iter().filter(|told| told.attempt.at == *began);
            told.filter_map(|told| told.seen)
                .any(|place| case.seen[place].ended.as_ref().is_some_and(|(at, _)| *at == fact.at))
        }
    };
    let mut model = Model::default();
    let mut expected = Vec::new();
    for fact in facts.iter().filter(committed) {
        if model.take(fact, case) {
            expected.push(fact.at);
        }
    }
    let told = case.run.told(case.hook, "tidings.webhook.deactivated");
    if told.len() != expected.len() {
        let expected: Vec<_> = expected.iter().map(|at| ms(*at)).collect();
        let told: Vec<_> = told.iter().map(|at| ms(*at)).collect();
        case.broken("S3", format!("it was to be deactivated at {expected:?}, the log tells of {told:?}"));
        return;
    }
    // The log may have heard of it late.
    for told in expected {
        let activated = case.run.notes.iter().filter(|note| note.hook == case.hook && activates(note));
        let until = activated.filter(|note| note.asked >= told).map(|note| note.asked).min();
        let known = told.plus(case.slack());
        let late = case.seen.iter().find(|seen| seen.began > known && until.is_none_or(|until| seen.began < until));
        if let Some(late) = late {
            let text = format!("{} is sent at {} although it was deactivated at {}", late.id, ms(late.began), ms(told));
            case.broken("S3", text);
        }
    }
}

/// When it is not known which failures an activation forgave: some ended while it waited for its turn. That ends with a
/// success.
fn unclear(case: &Case<'_>, facts: &[Fact]) -> Vec<(Timestamp, Timestamp)> {
    let never = Timestamp::from_millis(i64::MAX);
    let of_hook = case.run.notes.iter().filter(|note| note.hook == case.hook && activates(note));
    let unclear = of_hook.filter_map(|note| {
        let done = note.done.unwrap_or(never);
        let between = |fact: &&Fact| note.asked <= fact.at && fact.at <= done && matches!(fact.kind, Kind::Ended(..));
        facts.iter().find(between)?;
        let known = |fact: &&Fact| !case.may_be_lost(fact.life) || is_told(case, fact);
        let successes =
            facts.iter().filter(known).filter(|fact| matches!(fact.kind, Kind::Ended(_, Outcome::Delivered(_), _)));
        Some((note.asked, successes.map(|fact| fact.at).filter(|at| *at > done).min().unwrap_or(never)))
    });
    unclear.collect()
}

/// Attempts while the circuit is open.
fn circuit(case: &mut Case<'_>, facts: &[Fact]) {
    let unclear = unclear(case, facts);
    for place in 0..case.seen.len() {
        let seen = case.seen[place];
        if unclear.iter().any(|(from, until)| (*from..=*until).contains(&seen.began)) {
            continue;
        }
        let known = |fact: &&Fact, through: Timestamp| {
            let lived = fact.life < seen.life && (!case.may_be_lost(fact.life) || is_told(case, fact));
            lived || (fact.life == seen.life && fact.at <= through)
        };
        // What ended in the same millisecond, or while the event was read, may have been heard before or after.
        let earliest =
            Timestamp::from_millis(seen.began.as_millis() - i64::try_from(case.slack().as_millis()).unwrap_or(0) - 1);
        let between = facts.iter().map(|fact| fact.at).filter(|at| (earliest..seen.began).contains(at));
        let mut moments: Vec<_> = between.chain([earliest]).collect();
        moments.push(Timestamp::from_millis(seen.began.as_millis() - 1));
        let forbids = |through: Timestamp| {
            let mut model = Model::default();
            for fact in facts.iter().filter(|fact| known(fact, through)) {
                model.take(fact, case);
            }
            let flying = case.seen[..place].iter().rev().take(300).find(|other| {
                other.life == seen.life && other.ended.as_ref().is_none_or(|(ended, _)| *ended > seen.began)
            });
            let early = seen.began < model.probe;
            (model.is_open() && (early || flying.is_some()))
                .then(|| (model.clone(), flying.map(|other| other.id.clone())))
        };
        if let Some((model, flying)) = forbids(seen.began)
            && moments.into_iter().all(|moment| forbids(moment).is_some())
        {
            let text = format!(
                "{} is sent at {} while the circuit is open: {} failures, next probe at {}, in flight {flying:?}",
                seen.id,
                ms(seen.began),
                model.failures,
                ms(model.probe)
            );
            case.broken("S2", text);
        }
    }
}

fn is_told(case: &Case<'_>, fact: &Fact) -> bool {
    let Kind::Ended(began, _, _) = &fact.kind else { return true };
    let told = case.history.iter().filter(|told| told.attempt.at == *began).filter_map(|told| told.seen);
    told.into_iter().any(|place| {
        let seen = case.seen[place];
        seen.life == fact.life && seen.ended.as_ref().is_some_and(|(at, _)| *at == fact.at)
    })
}

/// Whether somebody may have activated it.
fn activates(note: &Note) -> bool {
    matches!(note.order, Order::Activate | Order::ActivateLatest) && !note.pointless
}

/// Between a pause that was confirmed and the next order nothing is sent.
fn pauses(case: &mut Case<'_>) {
    let notes: Vec<_> = case.run.notes.iter().filter(|note| note.hook == case.hook).collect();
    for note in notes.iter().filter(|note| note.order == Order::Pause) {
        let Some(done) = note.done else { continue };
        let ends = |order| matches!(order, Order::Resume | Order::Activate | Order::ActivateLatest);
        let until =
            notes.iter().filter(|other| ends(other.order) && other.done.is_none_or(|other| other >= note.asked));
        let until = until.map(|other| other.asked).min();
        let known = done.plus(case.slack());
        let late = case.seen.iter().find(|seen| seen.began > known && until.is_none_or(|until| seen.began < until));
        if let Some(late) = late {
            let text = format!("{} is sent at {} although it was paused at {}", late.id, ms(late.began), ms(done));
            case.broken("S4", text);
        }
    }
}
