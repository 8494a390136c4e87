//! Tidings for applications: emit events in the transaction of the change that they tell of, publish them by HTTP, and
//! receive them safely.
//!
//! | what | where | feature |
//! | --- | --- | --- |
//! | [`Event`], what happened | here | |
//! | emit in a transaction; receive in one (`first`, `order`) | `sqlx`, `tokio_postgres`, `rusqlite` | of the same name |
//! | publish by HTTP: retried, batched, with a bound on what waits | `Publisher` | `http`; `tls` for https |
//! | [`Verifier`], whether a delivery is signed by Tidings; [`Envelope`], what it says | here | |
//! | [`MemoryInbox`], `RedisInbox`: process once | here | `redis` |
//! | [`SequenceGuard`]: late events and gaps are told | here | |
//! | work off a queue | `Consumer` | `http` |
//! | assert what was emitted, sign deliveries for a test | `testing` | `testing` |
//!
//! Rust 1.95 or newer.
//!
//! ```
//! # #[cfg(feature = "rusqlite")] {
//! use tidings_emit::{Event, rusqlite::emit};
//!
//! # let mut database = rusqlite::Connection::open_in_memory().unwrap();
//! # database.execute_batch(tidings_emit::sql::OUTBOX_SQLITE).unwrap();
//! # database.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER) STRICT").unwrap();
//! let tx = database.transaction().unwrap();
//! tx.execute("INSERT INTO orders VALUES ('order_1', 42)", []).unwrap();
//! emit(&tx, Event::new("order.created", &serde_json::json!({"total": 42})).aggregate("order_1")).unwrap();
//! tx.commit().unwrap(); // both, or neither
//! # }
//! ```

mod clock;
mod event;
#[cfg(feature = "http")]
mod http;
mod receive;
pub mod sql;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;

pub use event::{Event, Invalid};
#[cfg(all(feature = "http", feature = "testing"))]
pub use http::Record;
#[cfg(feature = "http")]
pub use http::{
    Consumer, ConsumerError, Gateway, Message, Nack, Pending, PublishError, Publisher, PublisherLimits, Receipt,
    Refusal,
};
#[cfg(feature = "redis")]
pub use receive::RedisInbox;
pub use receive::{Delivery, Envelope, MemoryInbox, Once, OnceError, Order, SequenceGuard, Unverified, Verifier};
pub use tidings_core::event::EventType;
pub use tidings_core::id::EventId;
pub use tidings_core::problem::{Rule, Violation};
pub use tidings_core::time::Timestamp;
pub use transaction::EmitError;
#[cfg(feature = "rusqlite")]
pub use transaction::rusqlite;
#[cfg(feature = "sqlx")]
pub use transaction::sqlx;
#[cfg(feature = "tokio-postgres")]
pub use transaction::tokio_postgres;
