//! The judge: what must hold after a simulation, whatever happened in it.
//!
//! - I1 nothing is lost: delivered, or a dead letter, or jumped over by order.
//! - I2 nothing is delivered that was not published, or not asked for.
//! - I3 an event is not sent before its predecessors of the same aggregate are settled.
//! - I4 only what was unsettled at the end of a process is sent twice, at most 256 events of a webhook.
//! - I5 every attempt has the same id and the same bytes. I6 no tenant sees another one's events.
//! - I7 offsets and numbers are dense, the chain is whole, what was acknowledged is there.
//! - I8 dead letters and what is told of them agree with the attempts.
//! - I9 in the end nothing waits. I10 every attempt is in the history, once, as it was.
//! - S1 no attempt is earlier than its schedule, and none is one too many. S2 an open circuit lets one probe through, at
//!   its time. S3 rounds and deactivation as the rules say. S4 bounds of concurrency and rate hold; paused is paused.
//!   S5 what a careful process counted before it made it is not made again.
//!   S6 what a worker has, nobody else gets before its time is over, unless the process dies.

mod attempts;
mod delivery;
mod log;
mod queues;
mod standing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::event::AggregateId;
use tidings_core::lane::Settings;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::Event;
use tidings_log::store::{Attempt, DeadLetter, DeadState};

use crate::receiver::Seen;
use crate::run::{End, Run};
use crate::world::Order;

/// Most characters of what is said of a violation.
const TEXT_MAX: usize = 400;

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// Of which webhook, if of one.
    pub hook: Option<usize>,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hook {
            Some(hook) => write!(f, "{} wh_{hook}: {}", self.rule, self.text),
            None => write!(f, "{}: {}", self.rule, self.text),
        }
    }
}

/// All that is known of one webhook in the end.
pub(crate) struct Case<'a> {
    pub(crate) run: &'a Run,
    pub(crate) hook: usize,
    pub(crate) settings: &'a Settings,
    /// Its tenant's events by id.
    pub(crate) events: BTreeMap<&'a str, &'a Arc<Event>>,
    /// Those that it is to get, by offset.
    pub(crate) wanted: BTreeMap<Offset, &'a Arc<Event>>,
    /// What its subscriber saw, in order.
    pub(crate) seen: Vec<&'a Seen>,
    /// The committed attempts in order, each with the life in which it was committed, and with what was seen of it.
    pub(crate) history: Vec<Told<'a>>,
    pub(crate) letters: &'a [DeadLetter],
    pub(crate) violations: Vec<Violation>,
}

/// An attempt of the history.
pub(crate) struct Told<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) life: u32,
    /// The place in `seen`.
    pub(crate) seen: Option<usize>,
}

/// Judges a run.
pub(crate) fn judge(run: &Run) -> Vec<Violation> {
    let mut violations = log::check(run);
    for hook in 0..run.world.hooks.len() {
        let mut case = Case::of(run, hook);
        if run.world.hooks[hook].workers.is_some() {
            queues::check(&mut case);
            violations.append(&mut case.violations);
            continue;
        }
        attempts::check(&mut case);
        delivery::check(&mut case);
        standing::check(&mut case);
        violations.append(&mut case.violations);
    }
    violations
}

impl<'a> Case<'a> {
    fn of(run: &'a Run, hook: usize) -> Self {
        let spec = &run.world.hooks[hook];
        let log = &run.logs[spec.tenant];
        let kept = &run.kept[hook];
        let wanted = log.iter().filter(|event| event.offset > kept.start && spec.filter.matches(&event.subject));
        let told = |(number, attempt): &'a (u64, Attempt)| {
            let life = run.lives.iter().position(|life| life.told[hook] >= *number).unwrap_or(run.lives.len());
            Told { attempt, life: u32::try_from(life).unwrap_or(u32::MAX), seen: None }
        };
        Self {
            run,
            hook,
            settings: &spec.settings,
            events: log.iter().map(|event| (event.subject.id.as_str(), event)).collect(),
            wanted: wanted.map(|event| (event.offset, event)).collect(),
            seen: run.seen.iter().filter(|seen| seen.hook == hook).collect(),
            history: kept.history.iter().map(told).collect(),
            letters: &kept.letters,
            violations: Vec::new(),
        }
    }

    pub(crate) fn broken(&mut self, rule: &'static str, mut text: String) {
        if let Some((cut, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(cut);
            text.push('…');
        }
        // One fault shows many times.
        if self.violations.len() < 20 {
            self.violations.push(Violation { rule, hook: Some(self.hook), text });
        }
    }

    pub(crate) fn offset(&self, seen: &Seen) -> Option<Offset> {
        self.events.get(&*seen.id).map(|event| event.offset)
    }

    /// Whether an event tells of this webhook itself: its failure is no round.
    pub(crate) fn is_own(&self, offset: Offset) -> bool {
        let hook = &*self.run.world.hooks[self.hook].name;
        let own = |event: &&Arc<Event>| {
            let about = event.subject.aggregate.as_ref().map(AggregateId::as_str);
            event.subject.event_type.is_operational() && about == Some(hook)
        };
        self.wanted.get(&offset).is_some_and(own)
    }

    /// How a life ended, and when.
    pub(crate) fn end(&self, life: u32) -> (End, Timestamp) {
        self.run
            .lives
            .get(life as usize)
            .map_or((End::Drained, Timestamp::from_millis(i64::MAX)), |life| (life.end, life.ended))
    }

    /// How long an event may be read between the decision to send it and the attempt.
    pub(crate) fn slack(&self) -> Duration {
        self.run.world.disk.longest_read()
    }

    /// Whether somebody may have had an event sent again between two moments: there is a dead letter, and an order.
    pub(crate) fn revived(&self, id: &str, from: Timestamp, until: Timestamp) -> bool {
        let Some(offset) = self.events.get(id).map(|event| event.offset) else { return false };
        let of_event = |letter: &&DeadLetter| letter.offset == offset;
        // What was discarded first is not sent again.
        let replayed = |letter: &DeadLetter| matches!(letter.state, DeadState::Replayed { .. });
        let is_replayed = self.letters.iter().filter(of_event).any(replayed);
        self.run.notes.iter().filter(|note| note.hook == self.hook).any(|note| {
            let within = note.asked <= until && note.done.is_none_or(|done| done >= from);
            let again = match note.order {
                Order::ReplayDead => is_replayed,
                _ => false,
            };
            within && again
        })
    }

    /// Whether somebody had events sent again for which there may be open letters.
    pub(crate) fn replayed(&self) -> bool {
        let mut orders = self.run.notes.iter().filter(|note| note.hook == self.hook).map(|note| note.order);
        orders.any(|order| matches!(order, Order::ReplayAll | Order::ReplayUndelivered))
    }

    /// Whether attempts of a life may count of which nothing else is known: they were counted before they were made, and
    /// it died before it knew how they ended, or even before it made them.
    pub(crate) fn may_be_counted(&self, life: u32) -> bool {
        // Those that were lost once are counted from then on.
        self.may_be_lost(life) && self.counts_before(life as usize + 1)
    }

    /// Whether one of the first so many lives was careful.
    pub(crate) fn counts_before(&self, count: usize) -> bool {
        self.run.lives.iter().take(count).any(|life| life.careful)
    }

    /// Of each attempt that was seen, whether it is in the history.
    pub(crate) fn told(&self) -> Vec<bool> {
        let mut told = vec![false; self.seen.len()];
        self.history.iter().filter_map(|told| told.seen).for_each(|place| told[place] = true);
        told
    }

    /// Whether what ended at `ended` in a life may be unknown to the next one.
    pub(crate) fn may_be_lost(&self, life: u32) -> bool {
        matches!(self.end(life).0, End::Crashed | End::Cancelled)
    }
}

/// Milliseconds since the beginning, for a person.
pub(crate) fn ms(at: Timestamp) -> i64 {
    at.as_millis() - crate::clock::START.as_millis()
}
