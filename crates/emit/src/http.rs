//! Talking to a gateway: publishing, and working off a queue.

mod backoff;
mod batch;
mod client;
mod consumer;
mod gateway;
mod publisher;
#[cfg(feature = "tls")]
mod tls;

pub use batch::{Receipt, Refusal};
pub use consumer::{Consumer, ConsumerError, Message, Nack};
pub use gateway::Gateway;
#[cfg(feature = "testing")]
pub use publisher::Record;
pub use publisher::{Pending, PublishError, Publisher, PublisherLimits};
