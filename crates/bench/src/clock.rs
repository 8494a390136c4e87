//! The one place of this crate that asks for the time: measuring is its trade.

#![expect(clippy::disallowed_methods, reason = "this is where the time is asked for")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time, for everything measured within one process.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970, for what is sent by one process and received by another on this machine.
pub(crate) fn wall_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// `count` things in `took`, as a rate; 0 when no time passed.
pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    let count = count as f64;
    count / took.as_secs_f64()
}
