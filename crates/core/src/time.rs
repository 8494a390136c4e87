//! Points in time and spans of time, as text and back.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

const DAY_MS: i64 = 86_400_000;
/// 0000-01-01T00:00:00.000Z.
const FIRST_MS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `millis` after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 with any offset; converted to UTC, cut (not rounded) to milliseconds.
    ///
    /// Years 0000 to 9999 in UTC. A leap second counts as the second after it.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
        let [y3, y2, y1, y0, b'-', m1, m0, b'-', d1, d0, b'T' | b't', h1, h0, b':', n1, n0, b':', s1, s0] = *date_time
        else {
            return None;
        };
        let year = two(y3, y2)? * 100 + two(y1, y0)?;
        let (month, day) = (two(m1, m0)?, two(d1, d0)?);
        let (hour, minute, second) = (two(h1, h0)?, two(n1, n0)?, two(s1, s0)?);
        if day < 1 || day > days_in_month(year, month)? || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction_ms, zone) = fraction(rest)?;
        let offset_min = zone_minutes(zone)?;
        let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_min;
        let millis = (minutes * 60 + second) * 1000 + fraction_ms;
        (FIRST_MS..=LAST_MS).contains(&millis).then_some(Self(millis))
    }

    /// This time and `span` later; the end of the numbers if that is beyond them.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; zero if that is in fact later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds, `2026-11-22T10:15:30.123Z`.
    ///
    /// Times outside of the years 0000 to 9999 cannot be written so: they show as the nearest that can.
    pub fn to_ascii(self) -> [u8; 24] {
        let millis = self.0.clamp(FIRST_MS, LAST_MS);
        let (days, in_day) = (millis.div_euclid(DAY_MS), millis.rem_euclid(DAY_MS));
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put_two(&mut text, 0, year / 100);
        put_two(&mut text, 2, year % 100);
        put_two(&mut text, 5, month);
        put_two(&mut text, 8, day);
        put_two(&mut text, 11, in_day / 3_600_000);
        put_two(&mut text, 14, in_day / 60_000 % 60);
        put_two(&mut text, 17, in_day / 1000 % 60);
        text[20] = digit(in_day % 1000 / 100);
        put_two(&mut text, 21, in_day % 100);
        text
    }
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

fn digit(value: i64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

fn put_two(text: &mut [u8; 24], at: usize, value: i64) {
    text[at] = digit(value / 10);
    text[at + 1] = digit(value);
}

/// Milliseconds of `.123456` and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let place = |index: usize| digits[..count].get(index).map_or(0, |byte| i64::from(byte - b'0'));
    Some((place(0) * 100 + place(1) * 10 + place(2), &digits[count..]))
}

fn zone_minutes(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let (hours, minutes) = (two(h1, h0)?, two(m1, m0)?);
            let offset = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            Some(if sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => Some(29),
        2 => Some(28),
        _ => None,
    }
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_ascii()).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text)
            .ok_or_else(|| D::Error::custom("expected an RFC 3339 time such as 2026-11-22T10:15:30.123Z"))
    }
}

/// Reads `200ms`, `15s`, `5m`, `2h` or `1d`: a whole number and one unit. The error says what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, millis)| number.parse::<u64>().ok()?.checked_mul(*millis))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            "expected a whole number and a unit, ms, s, m, h or d, for example 200ms, 15s, 5m, 2h or 1d".into()
        })
}

/// The largest unit that says it exactly: `90s`, `2h`, `1d`. Parts below a millisecond are dropped.
pub fn format_duration(span: Duration) -> String {
    let millis = span.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    let exact = UNITS.iter().rev().find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)));
    exact.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / u128::from(*unit)))
}

/// Units by size, in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_3339_is_read_in_any_offset() {
        let cases = [
            ("2026-11-22T10:15:30.123Z", "2026-11-22T10:15:30.123Z"),
            ("2026-11-22T10:15:30Z", "2026-11-22T10:15:30.000Z"),
            ("2026-11-22t10:15:30z", "2026-11-22T10:15:30.000Z"),
            ("2026-11-22T10:15:30.1Z", "2026-11-22T10:15:30.100Z"),
            ("2026-11-22T10:15:30.123999999999Z", "2026-11-22T10:15:30.123Z"),
            ("2026-11-22T10:15:30+05:30", "2026-11-22T04:45:30.000Z"),
            ("2026-11-22T23:15:30.5-01:00", "2026-11-23T00:15:30.500Z"),
            ("2026-11-22T10:15:30-00:00", "2026-11-22T10:15:30.000Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ];
        for (text, utc) in cases {
            assert_eq!(Timestamp::parse_rfc3339(text).unwrap().to_string(), utc);
        }
    }

    #[test]
    fn other_spellings_of_time_are_refused() {
        let cases = [
            "",
            "2026-11-22",
            "2026-11-22T10:15Z",
            "2026-11-22T10:15:30",
            "2026-11-22 10:15:30Z",
            "2026-11-22T10:15:30.Z",
            "2026-13-22T10:15:30Z",
            "2026-00-22T10:15:30Z",
            "2026-11-31T10:15:30Z",
            "2026-02-29T10:15:30Z",
            "2026-11-00T10:15:30Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:30Z",
            "2026-11-22T10:15:61Z",
            "2026-11-22T10:15:30+0530",
            "2026-11-22T10:15:30+24:00",
            "2026-11-22T10:15:30Z ",
            "+2026-11-22T10:15:30Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2026-11-22T10:15:30,5Z",
            "２026-11-22T10:15:30Z",
            "1795342530",
        ];
        for text in cases {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_shown_as_its_ends() {
        assert_eq!(Timestamp::from_millis(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn sums_and_differences_stop_at_the_ends() {
        let time = Timestamp::from_millis(1000);
        assert_eq!(time.plus(Duration::from_secs(2)).as_millis(), 3000);
        assert_eq!(time.plus(Duration::MAX).as_millis(), i64::MAX);
        assert_eq!(time.plus(Duration::from_secs(2)).since(time), Duration::from_secs(2));
        assert_eq!(time.since(time.plus(Duration::from_secs(2))), Duration::ZERO);
    }

    #[test]
    fn a_timestamp_is_a_string_in_json() {
        let time = Timestamp::from_millis(1_795_342_530_123);
        assert_eq!(serde_json::to_string(&time).unwrap(), r#""2026-11-22T10:15:30.123Z""#);
        assert_eq!(serde_json::from_str::<Timestamp>(r#""2026-11-22T10:15:30.123Z""#).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("1").is_err());
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let cases =
            [("200ms", 200), ("15s", 15_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1h30m",
            "5min",
            "1S",
            "99999999999999999999s",
            "300000000000d",
            "١s",
        ] {
            assert!(parse_duration(text).unwrap_err().contains("200ms"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_time_and_agrees_with_jiff(millis in FIRST_MS..=LAST_MS) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time));
            let theirs = jiff::Timestamp::from_millisecond(millis.min(253_402_207_200_999)).unwrap();
            let ours = Timestamp::from_millis(theirs.as_millisecond());
            prop_assert_eq!(format!("{theirs:.3}"), ours.to_string());
        }

        #[test]
        fn durations_survive_their_text(millis in 0..=u64::from(u32::MAX)) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(span)), Ok(span));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = Timestamp::parse_rfc3339(&text);
            let _ = parse_duration(&text);
        }
    }
}
