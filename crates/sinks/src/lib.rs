//! Ways out: how an event reaches a subscriber.
//!
//! [`Sink`] is the seam. A sink makes one attempt and says how it ended; when to try again, and what is dead, is decided
//! by `tidings_core::lane`.

pub mod mail;
mod parcel;
pub mod webhook;

use std::future::Future;
use std::pin::Pin;

pub use parcel::Parcel;
pub use tidings_core::lane::{Answer, Outcome};

/// An answer that is under way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A subscriber that can be reached.
pub trait Sink: Send + Sync {
    /// Makes one attempt for each parcel. The outcomes are in the order of the parcels.
    ///
    /// Bounded in time by itself. Dropping the answer cancels the attempts: their outcomes are unknown then.
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>>;
}
