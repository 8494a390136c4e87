//! The only place that asks for the time and for random numbers.

use std::cell::RefCell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidings_core::time::Timestamp;

/// Random bytes are taken from the system in pieces of this size.
const POOL_BYTES: usize = 4096;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// The wall clock, in nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn nanos() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock that measures how long something takes.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// `N` unpredictable bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// Fills `bytes` with unpredictable ones; asks the system for a pool at a time.
pub(crate) fn fill(bytes: &mut [u8]) {
    thread_local! {
        static POOL: RefCell<(Vec<u8>, usize)> = const { RefCell::new((Vec::new(), 0)) };
    }
    if bytes.len() > POOL_BYTES {
        return from_system(bytes);
    }
    POOL.with_borrow_mut(|(pool, used)| {
        if pool.len() - *used < bytes.len() {
            pool.resize(POOL_BYTES, 0);
            from_system(pool);
            *used = 0;
        }
        bytes.copy_from_slice(&pool[*used..*used + bytes.len()]);
        // What was handed out is not kept.
        pool[*used..*used + bytes.len()].fill(0);
        *used += bytes.len();
    });
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
#[expect(clippy::expect_used, reason = "without the system's randomness no key or secret is safe: stop")]
fn from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has no random numbers");
}
