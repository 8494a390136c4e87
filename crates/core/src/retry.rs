//! When to try again: a schedule of delays, with jitter, and what `Retry-After` adds.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, format_duration, parse_duration};

/// The most that `Retry-After` may push an attempt away.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// The part of a delay that jitter adds at the most.
const JITTER: f64 = 0.1;

/// The delays between the attempts of a delivery: 1 to 64 steps of at least 100 ms. n steps make n + 1 attempts.
///
/// In JSON a list of spans, `["1m","5m"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Schedule(Arc<[Duration]>);

impl Schedule {
    /// Most steps.
    pub const STEPS_MAX: usize = 64;
    /// The shortest step.
    pub const STEP_MIN: Duration = Duration::from_millis(100);

    /// Checks the steps; the error says what is accepted.
    pub fn new(steps: Vec<Duration>) -> Result<Self, String> {
        if steps.is_empty() || steps.len() > Self::STEPS_MAX {
            return Err(format!("a schedule has 1 to {} steps, this one has {}", Self::STEPS_MAX, steps.len()));
        }
        if steps.iter().any(|step| *step < Self::STEP_MIN) {
            return Err(format!("a step of a schedule is at least {}", format_duration(Self::STEP_MIN)));
        }
        Ok(Self(steps.into()))
    }

    /// The steps.
    pub fn steps(&self) -> &[Duration] {
        &self.0
    }

    /// The longest that a due time can lie ahead: what a clock that was set back must not stretch.
    pub fn longest_wait(&self) -> Duration {
        let step = self.0.iter().max().copied().unwrap_or(Self::STEP_MIN);
        step.saturating_add(step / 10).max(RETRY_AFTER_MAX)
    }

    /// The step after round `round`, from 1; the last one goes on for ever.
    pub fn step(&self, round: u32) -> Duration {
        let place = usize::try_from(round.saturating_sub(1)).unwrap_or(usize::MAX);
        self.0.get(place).or(self.0.last()).copied().unwrap_or(Self::STEP_MIN)
    }

    /// That step and 0…10 % of it, as `jitter` goes from 0 to 1.
    pub fn jittered(&self, round: u32, jitter: f64) -> Duration {
        let step = self.step(round);
        step.saturating_add(step.mul_f64(JITTER * jitter.clamp(0.0, 1.0)))
    }

    /// When the next attempt is due after `attempts_made` of which the last failed at `failed_at`; `None`: exhausted.
    ///
    /// The delay is the step plus 0…10 % of it as `jitter` goes from 0 to 1, never less. `retry_after` only pushes
    /// later, by [`RETRY_AFTER_MAX`] at the most.
    pub fn due(
        &self,
        attempts_made: u32,
        failed_at: Timestamp,
        jitter: f64,
        retry_after: Option<Duration>,
    ) -> Option<Timestamp> {
        if usize::try_from(attempts_made).ok()? > self.0.len() {
            return None;
        }
        let delay = self.jittered(attempts_made, jitter);
        let asked = asked_for(retry_after);
        Some(failed_at.plus(delay.max(asked)))
    }
}

/// How long `Retry-After` asks to wait, within its bound.
pub fn asked_for(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)
}

impl Default for Schedule {
    /// Six attempts over 26.6 hours: `1m 5m 30m 2h 24h`.
    fn default() -> Self {
        Self([1, 5, 30, 120, 1440].map(|minutes| Duration::from_secs(60 * minutes)).into())
    }
}

impl TryFrom<Vec<String>> for Schedule {
    type Error = String;

    fn try_from(steps: Vec<String>) -> Result<Self, String> {
        Self::new(steps.iter().map(|step| parse_duration(step)).collect::<Result<_, _>>()?)
    }
}

impl From<Schedule> for Vec<String> {
    fn from(schedule: Schedule) -> Self {
        schedule.0.iter().map(|step| format_duration(*step)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Timestamp = Timestamp::from_millis(1_000_000);

    fn delay_ms(attempts: u32, jitter: f64, retry_after_s: Option<u64>) -> Option<u128> {
        let due = Schedule::default().due(attempts, FAILED, jitter, retry_after_s.map(Duration::from_secs));
        due.map(|due| due.since(FAILED).as_millis())
    }

    #[test]
    fn a_schedule_is_a_list_of_spans_in_json() {
        let text = r#"["1m","5m","30m","2h","1d"]"#;
        assert_eq!(serde_json::to_string(&Schedule::default()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Schedule>(text).unwrap(), Schedule::default());
        assert_eq!(serde_json::from_str::<Schedule>(&text.replace("1d", "24h")).unwrap(), Schedule::default());
    }

    #[test]
    fn schedules_without_steps_with_too_many_or_too_short_ones_are_refused() {
        let steps = |count: usize, ms: u64| Schedule::new(vec![Duration::from_millis(ms); count]);
        assert!(steps(1, 100).is_ok() && steps(64, 100).is_ok());
        assert!(steps(0, 100).is_err() && steps(65, 100).is_err() && steps(3, 99).is_err());
        assert!(serde_json::from_str::<Schedule>(r#"["soon"]"#).is_err());
    }

    #[test]
    fn each_failure_waits_its_step_and_up_to_a_tenth_more_never_less() {
        for (attempts, step) in [(1, 60_000), (2, 300_000), (3, 1_800_000), (4, 7_200_000), (5, 86_400_000)] {
            assert_eq!(delay_ms(attempts, 0.0, None), Some(step));
            assert_eq!(delay_ms(attempts, 1.0, None), Some(step + step / 10));
        }
        assert_eq!(delay_ms(6, 0.0, None), None);
    }

    #[test]
    fn retry_after_only_pushes_later_and_not_beyond_a_day() {
        assert_eq!(delay_ms(1, 0.0, Some(30)), Some(60_000));
        assert_eq!(delay_ms(1, 0.0, Some(90)), Some(90_000));
        assert_eq!(delay_ms(1, 0.0, Some(900_000)), Some(86_400_000));
        assert_eq!(delay_ms(6, 0.0, Some(90)), None);
    }
}
