//! The receiver's half: whether a delivery is ours, whether it was processed, and in which order.

mod envelope;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod sequence;
mod verify;

pub use envelope::Envelope;
pub use memory::MemoryInbox;
#[cfg(feature = "redis")]
pub use redis::RedisInbox;
pub use sequence::{Order, SequenceGuard};
pub use verify::{Delivery, Unverified, Verifier};

use std::time::Duration;

/// How long an id is remembered: the last step of the default retry schedule is a day, up to a tenth longer.
const KEPT: Duration = Duration::from_hours(48);

/// What became of an event that an inbox was asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Once<T> {
    /// It was new; the work is done, with this outcome.
    Done(T),
    /// It was processed before. Answer as if it were done now.
    Repeat,
    /// Another attempt of it is being processed: answer 503, and it comes again.
    Busy,
}

/// The work of an event was not done, or is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum OnceError<E> {
    /// What the work said. The event may come again, and will be new then.
    #[error(transparent)]
    Work(E),
    /// What the store of the inbox said; the work may have been done.
    #[error("the inbox cannot remember: {0}")]
    Inbox(#[source] Box<dyn std::error::Error + Send + Sync>),
}
