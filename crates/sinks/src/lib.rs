//! Ways out: how an event reaches a subscriber.
//!
//! [`Sink`] is the seam. A sink makes one attempt and says how it ended; when to try again, and what is dead, is decided
//! by `tidings_core::lane`.

pub mod mail;
mod parcel;
pub mod webhook;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use parcel::Parcel;
pub use tidings_core::lane::{Answer, Outcome};
use tokio::sync::Notify;

/// An answer that is under way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A subscriber that can be reached.
pub trait Sink: Send + Sync {
    /// Makes one attempt for each parcel. The outcomes are in the order of the parcels.
    ///
    /// Bounded in time by itself. Dropping the answer cancels the attempts: their outcomes are unknown then.
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>>;

    /// How many attempts may be under way. Only one whose workers come and fetch has a bound of its own.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// Is told the bell to ring when there is more capacity.
    fn listen(&self, _bell: &Arc<Notify>) {}
}
