//! What the tests stand on: a server, a client that sends exact bytes, a stream reader, a subscriber.

pub(crate) mod chance;
pub(crate) mod http;
pub(crate) mod problem;
pub(crate) mod receiver;
pub(crate) mod server;
pub(crate) mod smtp;
pub(crate) mod sse;
pub(crate) mod tls;
pub(crate) mod ws;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A clock for measuring spans.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Sets a flag when it goes, also by a failed assertion: threads that look at the flag do not outlive the test.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until `probe` gives something, at most for `within`.
pub(crate) fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = instant();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
