//! How a subscription stands: rounds of failures, the circuit, slow start, deactivation.
//!
//! # Rules
//!
//! - The first failed attempt since the last success is round 1. A failed attempt that *starts* at least `step(r)` after
//!   the last counted one is round r + 1. So a thousand failures in a second are one round.
//! - [`OPEN_AFTER`] failed attempts in a row open the circuit. Then nothing is sent but one probe, `step(r)` after the
//!   last failure. A success closes it.
//! - After a success that closed it, and at start, attempts in flight grow by one with each success ([slow start]). Who is
//!   not known to answer gets one at a time: thousands that never answer hold one place each.
//!
//! [slow start]: Circuit::allowance

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::offset::Offset;
use crate::retry::Schedule;
use crate::time::Timestamp;

/// So many failed attempts in a row open the circuit.
pub const OPEN_AFTER: u32 = 5;
/// Attempts in flight before anything is known of a subscriber.
pub const ALLOWANCE_AT_START: usize = 1;
/// The same after a restart, to one that answered before it.
const ALLOWANCE_TRUSTED: usize = 4;

/// How a subscription stands; kept with its progress, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Whether it is sent to.
    pub status: Status,
    /// How it fared lately.
    #[serde(default)]
    pub circuit: Circuit,
    /// Events that somebody had it jump over: first and last, oldest first.
    #[serde(default)]
    pub skipped: Vec<(Offset, Offset)>,
}

impl Standing {
    /// Ranges kept; older ones are joined.
    const SKIPPED_MAX: usize = 64;

    /// Whether it is sent to.
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// Notes that events were jumped over.
    pub fn skip(&mut self, first: Offset, last: Offset) {
        self.skipped.push((first, last));
        if self.skipped.len() > Self::SKIPPED_MAX {
            let (_, through) = self.skipped.remove(1);
            self.skipped[0].1 = through.max(self.skipped[0].1);
        }
    }

    /// Whether somebody had it jump over an event.
    pub fn has_skipped(&self, offset: Offset) -> bool {
        self.skipped.iter().any(|(first, last)| (*first..=*last).contains(&offset))
    }
}

/// Whether a subscription is sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Status {
    /// It is.
    #[default]
    Active,
    /// Somebody paused it.
    Paused {
        /// When.
        since: Timestamp,
    },
    /// It failed too often, or said that it is gone.
    Deactivated {
        /// When.
        since: Timestamp,
        /// Why.
        reason: Box<str>,
    },
}

impl Status {
    /// Its name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused { .. } => "paused",
            Self::Deactivated { .. } => "deactivated",
        }
    }
}

/// What is known of a subscriber: whose attempts go first when there is no room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repute {
    /// Its last attempt succeeded.
    Proven,
    /// It has failed at nothing yet.
    New,
    /// Its last attempt failed.
    Failing,
}

/// Failures in a row, and what follows from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Circuit {
    /// Failed attempts since the last success.
    failures: u32,
    round: u32,
    /// When the attempt began that was counted as a round last.
    counted: Timestamp,
    /// When the next probe may be made; the circuit is open.
    probe: Option<Timestamp>,
    /// Somebody was told of these rounds.
    #[serde(default)]
    warned: bool,
    #[serde(skip, default = "allowance_at_start")]
    allowance: usize,
    /// The last attempt succeeded, since the start.
    #[serde(skip)]
    proven: bool,
}

fn allowance_at_start() -> usize {
    ALLOWANCE_AT_START
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            failures: 0,
            round: 0,
            counted: Timestamp::from_millis(0),
            probe: None,
            warned: false,
            allowance: ALLOWANCE_AT_START,
            proven: false,
        }
    }
}

impl Circuit {
    /// Failed attempts since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Rounds of failures since the last success.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// When the next probe may be made, if the circuit is open.
    pub fn probe(&self) -> Option<Timestamp> {
        self.probe
    }

    /// Whether somebody was told of the rounds since the last success: then its end is told too.
    pub fn is_warned(&self) -> bool {
        self.warned
    }

    /// Notes that somebody is told.
    pub fn warn(&mut self) {
        self.warned = true;
    }

    /// Whether the last attempt succeeded: it is not known to fail.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Takes it that the last attempt succeeded, as the history says: a restart forgets successes.
    pub fn trust(&mut self) {
        self.proven = true;
        self.allowance = self.allowance.max(ALLOWANCE_TRUSTED);
    }

    /// What is known of the subscriber.
    pub fn repute(&self) -> Repute {
        match (self.proven, self.failures) {
            (true, _) => Repute::Proven,
            (false, 0) => Repute::New,
            (false, _) => Repute::Failing,
        }
    }

    /// Most attempts in flight that the subscriber has earned.
    pub fn allowance(&self) -> usize {
        self.allowance
    }

    /// Counts a failed attempt; answers the round if it is a new one. The subscriber asks to be left alone for
    /// `at_least`; `jitter` is chance, from 0 to 1.
    pub fn failed(
        &mut self,
        (began, ended): (Timestamp, Timestamp),
        schedule: &Schedule,
        at_least: Duration,
        jitter: f64,
    ) -> Option<u32> {
        let new = self.round == 0 || began.since(self.counted) >= schedule.step(self.round);
        if new {
            self.round += 1;
            self.counted = began;
        }
        self.failed_beside(ended, schedule, at_least, jitter);
        new.then_some(self.round)
    }

    /// Counts a failed attempt that is no round, as [`Circuit::failed`] else.
    pub fn failed_beside(&mut self, ended: Timestamp, schedule: &Schedule, at_least: Duration, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.proven = false;
        self.allowance = (self.allowance / 2).max(1);
        if self.failures >= OPEN_AFTER {
            let probe = ended.plus(schedule.jittered(self.round, jitter).max(at_least));
            // Answers of attempts that began before it opened only push later.
            self.probe = Some(self.probe.map_or(probe, |earlier| earlier.max(probe)));
        }
    }

    /// Counts a success; answers the rounds of failures that it ends, if it ends some.
    pub fn succeeded(&mut self) -> Option<u32> {
        if self.failures == 0 {
            self.proven = true;
            self.allowance = self.allowance.saturating_add(1);
            return None;
        }
        let rounds = self.round;
        let allowance = if self.probe.is_some() { 1 } else { self.allowance + 1 };
        *self = Self { allowance, proven: true, ..Self::default() };
        Some(rounds)
    }

    /// A clock that was set back must not stretch a step.
    #[must_use]
    pub fn clamped(self, now: Timestamp, longest: Duration) -> Self {
        let probe = self.probe.map(|probe| probe.min(now.plus(longest)));
        Self { probe, counted: self.counted.min(now), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(minutes * MINUTE)
    }

    fn fail(circuit: &mut Circuit, minutes: i64) -> Option<u32> {
        circuit.failed((at(minutes), at(minutes)), &Schedule::default(), Duration::ZERO, 0.0)
    }

    #[test]
    fn failures_at_the_steps_of_the_schedule_are_a_round_each() {
        let mut circuit = Circuit::default();
        let rounds: Vec<_> = [0, 1, 6, 36, 156].into_iter().map(|minutes| fail(&mut circuit, minutes)).collect();
        assert_eq!(rounds, [Some(1), Some(2), Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn a_thousand_failures_in_a_second_are_one_round() {
        let mut circuit = Circuit::default();
        assert_eq!(fail(&mut circuit, 0), Some(1));
        assert!((0..1000).all(|_| fail(&mut circuit, 0).is_none()));
        assert_eq!((circuit.round(), circuit.failures()), (1, 1001));
    }

    #[test]
    fn the_fifth_failure_in_a_row_opens_the_circuit_until_a_success() {
        let mut circuit = Circuit::default();
        for _ in 0..4 {
            fail(&mut circuit, 0);
        }
        assert_eq!(circuit.probe(), None);
        fail(&mut circuit, 0);
        assert_eq!(circuit.probe(), Some(at(1)));
        fail(&mut circuit, 1);
        assert_eq!(circuit.probe(), Some(at(6)));
        assert_eq!(circuit.succeeded(), Some(2));
        assert_eq!((circuit.probe(), circuit.failures(), circuit.round(), circuit.allowance()), (None, 0, 0, 1));
    }

    #[test]
    fn a_probe_is_never_early_and_at_most_a_tenth_late() {
        for jitter in [0.0, 0.5, 1.0] {
            let mut circuit = Circuit::default();
            for _ in 0..5 {
                circuit.failed((at(0), at(0)), &Schedule::default(), Duration::ZERO, jitter);
            }
            let probe = circuit.probe().unwrap().as_millis();
            assert!((MINUTE..=MINUTE + MINUTE / 10).contains(&probe), "{probe}");
        }
    }

    #[test]
    fn a_subscriber_earns_attempts_one_by_one_and_loses_half_at_a_failure() {
        let mut circuit = Circuit::default();
        for _ in 0..15 {
            circuit.succeeded();
        }
        assert_eq!(circuit.allowance(), 16);
        fail(&mut circuit, 0);
        assert_eq!(circuit.allowance(), 8);
        circuit.succeeded();
        assert_eq!(circuit.allowance(), 9);
    }

    #[test]
    fn who_succeeded_last_is_trusted_until_it_fails() {
        let mut circuit = Circuit::default();
        assert_eq!((circuit.repute(), circuit.allowance()), (Repute::New, ALLOWANCE_AT_START));
        circuit.trust();
        assert_eq!((circuit.repute(), circuit.allowance()), (Repute::Proven, ALLOWANCE_TRUSTED));
        fail(&mut circuit, 0);
        assert_eq!(circuit.repute(), Repute::Failing);
    }

    #[test]
    fn a_standing_survives_its_json() {
        let mut standing = Standing::default();
        fail(&mut standing.circuit, 3);
        standing.status = Status::Deactivated { since: at(4), reason: "status 503".into() };
        let text = serde_json::to_string(&standing).unwrap();
        let read: Standing = serde_json::from_str(&text).unwrap();
        assert_eq!(read.status, standing.status);
        assert_eq!((read.circuit.round(), read.circuit.failures()), (1, 1));
    }
}
