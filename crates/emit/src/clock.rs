//! The only place that asks for the time and for random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use tidings_core::id::{EventId, uuid_v7};
use tidings_core::time::Timestamp;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// `N` unpredictable bytes from the operating system.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
#[expect(clippy::expect_used, reason = "without the system's randomness ids would collide: stop")]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has no random numbers");
    bytes
}

/// A new id.
pub(crate) fn event_id() -> EventId {
    EventId::from_uuid(&uuid_v7(now(), random()))
}

/// The wall clock's time `span` ago, in milliseconds since 1970.
#[cfg(any(feature = "rusqlite", feature = "sqlx", feature = "tokio-postgres"))]
pub(crate) fn before(span: std::time::Duration) -> i64 {
    now().as_millis().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
