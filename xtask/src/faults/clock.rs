//! The two clocks of the harness: one to measure with, one to compare with what `strace -ttt` stamps.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is where the harness asks for the time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The wall clock since 1970: the one `strace -ttt` writes.
#[expect(clippy::disallowed_methods, reason = "this is where the harness asks for the time")]
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Reads `200ms`, `15s`, `5m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` does not start with a number"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("`{text}` needs a unit: ms, s or m")),
    }
}
