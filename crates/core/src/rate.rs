//! How often a subscriber may be sent to: a rate, and the bucket that keeps to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Most attempts in a time: in JSON a text, `50/s`, `600/m` or `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    attempts: u32,
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

impl Per {
    fn millis(self) -> u32 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }
}

impl Rate {
    /// The largest number before the slash.
    pub const ATTEMPTS_MAX: u32 = 100_000;

    /// Reads a rate; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("a rate is 1 to {} attempts in a second, minute or hour: `50/s`, `600/m`", Self::ATTEMPTS_MAX);
        let (attempts, per) = text.split_once('/').ok_or_else(wrong)?;
        let per = match per {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(wrong()),
        };
        let attempts = attempts.parse().map_err(|_| wrong())?;
        if !(1..=Self::ATTEMPTS_MAX).contains(&attempts) {
            return Err(wrong());
        }
        Ok(Self { attempts, per })
    }

    /// The time that one attempt uses up, in milliseconds.
    fn cost_ms(self) -> f64 {
        f64::from(self.per.millis()) / f64::from(self.attempts)
    }

    /// What may be used at once after a pause, in milliseconds: a second's worth, or one attempt.
    fn burst_ms(self) -> f64 {
        self.cost_ms().max(1_000.0)
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        let per = match rate.per {
            Per::Second => 's',
            Per::Minute => 'm',
            Per::Hour => 'h',
        };
        format!("{}/{per}", rate.attempts)
    }
}

/// Keeps to a rate: time fills it, attempts empty it.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Unused time, in milliseconds.
    saved_ms: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket at `now`.
    pub fn new(rate: Rate, now: Timestamp) -> Self {
        Self { rate, saved_ms: rate.burst_ms(), at: now }
    }

    /// The rate that it keeps to.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// When the next attempt may be made, `now` or later.
    pub fn next(&mut self, now: Timestamp) -> Timestamp {
        // A clock that was set back fills nothing, and must not stop the filling either.
        let passed = now.since(self.at).as_secs_f64() * 1_000.0;
        self.saved_ms = (self.saved_ms + passed).min(self.rate.burst_ms());
        self.at = now;
        let missing = self.rate.cost_ms() - self.saved_ms;
        // Rounding must not make an attempt wait for a moment that has come.
        if missing < 1e-6 {
            now
        } else {
            now.plus(Duration::from_secs_f64(missing / 1_000.0).max(Duration::from_millis(1)))
        }
    }

    /// Counts an attempt.
    pub fn take(&mut self) {
        self.saved_ms -= self.rate.cost_ms();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for text in ["1/s", "50/s", "600/m", "100000/h"] {
            assert_eq!(String::from(Rate::parse(text).unwrap()), text);
        }
        for text in ["", "50", "/s", "0/s", "-1/s", "100001/s", "5/d", "5 / s", "1.5/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_second_has_more_than_a_burst_and_its_own() {
        for (text, ceiling) in [("10/s", 20), ("600/m", 20), ("7/s", 14), ("1/s", 2)] {
            let mut bucket = Bucket::new(Rate::parse(text).unwrap(), Timestamp::from_millis(0));
            let mut made = Vec::new();
            for now in 0..20_000 {
                while bucket.next(Timestamp::from_millis(now)) <= Timestamp::from_millis(now) {
                    bucket.take();
                    made.push(now);
                }
            }
            for from in 0..19_000 {
                let count = made.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
                assert!(count <= ceiling, "{text}: {count} from {from} ms on");
            }
            let later = made.iter().filter(|at| **at >= 10_000).count();
            let wanted = 10 * ceiling / 2;
            assert!(later >= wanted - 1 && later <= wanted + 1, "{text}: {later} in ten seconds");
        }
    }

    #[test]
    fn slow_rates_wait_between_attempts() {
        let mut bucket = Bucket::new(Rate::parse("6/m").unwrap(), Timestamp::from_millis(0));
        assert_eq!(bucket.next(Timestamp::from_millis(0)).as_millis(), 0);
        bucket.take();
        assert_eq!(bucket.next(Timestamp::from_millis(4_000)).as_millis(), 10_000);
        assert_eq!(bucket.next(Timestamp::from_millis(10_000)).as_millis(), 10_000);
    }
}
