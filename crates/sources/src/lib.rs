//! Ways in that are not requests: somebody else's data, moved into the log.
//!
//! [`outbox`] relays the rows that applications write in their own transactions.

pub mod outbox;
