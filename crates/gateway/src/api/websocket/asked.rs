//! What the client of a WebSocket said: done in order, one message at a time. A fault of ours in one of them is told, and
//! ends none of the others.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use crate::api::problem::{Problem, internal};

/// What a client said and is not done yet.
#[derive(Default)]
pub(super) struct Asked(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    /// A task goes through them.
    running: bool,
}

impl Asked {
    /// Takes a message; whether somebody has to begin to [`Asked::answer`].
    pub(super) fn take(&self, message: Bytes) -> bool {
        let mut waiting = self.0.lock();
        waiting.messages.push_back(message);
        !std::mem::replace(&mut waiting.running, true)
    }

    /// Drops what is not begun.
    pub(super) fn forget(&self) {
        self.0.lock().messages.clear();
    }

    /// Has messages carried out until none is left, and tells what came of each.
    pub(super) async fn answer<T, F: Future<Output = Result<T, Problem>>>(
        &self,
        carry_out: impl Fn(Bytes) -> F,
        tell: impl Fn(&Bytes, Result<T, Problem>),
    ) {
        while let Some(message) = self.next() {
            let done = guarded(carry_out(message.clone())).await;
            tell(&message, done);
        }
    }

    fn next(&self) -> Option<Bytes> {
        let mut waiting = self.0.lock();
        let message = waiting.messages.pop_front();
        waiting.running = message.is_some();
        message
    }
}

/// What an operation comes to. One that panics is a fault of ours: whoever waits for it is told so.
pub(super) async fn guarded<T>(operation: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let done = AssertUnwindSafe(operation).catch_unwind().await;
    done.unwrap_or_else(|_| Err(internal(&"an operation of a WebSocket panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_of_ours_in_one_operation_is_told_and_ends_none_of_the_others() {
        let asked = Asked::default();
        let begins: Vec<_> = ["a", "fault", "b"].map(|said| asked.take(Bytes::from(said))).into();
        assert_eq!(begins, [true, false, false]);
        let told = Mutex::new(Vec::new());
        let carry_out = |said: Bytes| async move {
            assert_ne!(said, "fault", "planted");
            Ok(said)
        };
        let tell = |said: &Bytes, done: Result<Bytes, Problem>| {
            told.lock().push((said.clone(), done.map_err(|problem| problem.status().as_u16())));
        };
        asked.answer(carry_out, tell).await;
        let [a, fault, b] = ["a", "fault", "b"].map(Bytes::from);
        assert_eq!(told.into_inner(), [(a.clone(), Ok(a)), (fault, Err(500)), (b.clone(), Ok(b))]);
        assert!(asked.take(Bytes::from("c")), "whoever comes later is heard");
    }
}
