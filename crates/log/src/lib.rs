//! The log: what happened, durable and in order, and everything else that must not be lost.
//!
//! [`Store`] is the seam and states the laws; [`sqlite`] is the embedded engine, [`memory`] the one for simulations;
//! [`conformance`] is the suite that every engine passes unchanged. The hot end of the log is shared in memory by [`tail`].

pub mod answers;
mod attempts;
pub mod conformance;
pub mod event;
mod index;
pub mod memory;
pub mod meter;
pub mod query;
pub mod sqlite;
pub mod store;
pub mod tail;
pub mod verify;

pub use event::{Event, Record, Tenant};
pub use query::{Frame, Framed, Order, Page, Query};
pub use store::{Append, Appended, CommitError, Pending, Refusal, Store, Unavailable, Write, Written};
