//! Publishing by HTTP: what queues while one request is under way goes with the next.

#[cfg(feature = "testing")]
mod record;
mod worker;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::batch::{Receipt, Refusal};
use super::client::Client;
use super::gateway::Gateway;
use crate::event::{Event, Invalid};
#[cfg(feature = "testing")]
pub use record::Record;
use worker::Worker;

/// Bounds of a publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublisherLimits {
    /// Events that wait or are under way at the most; who publishes more waits.
    pub queue_events: usize,
    /// Their bytes at the most. One event of any size is always taken.
    pub queue_bytes: usize,
    /// Events of a request at the most.
    pub batch_events: usize,
    /// Bytes of a request at the most; an event that is larger goes alone.
    pub batch_bytes: usize,
    /// For one request with its answer.
    pub timeout: Duration,
    /// How long events are tried again after the first failure in a row; then they fail with
    /// [`PublishError::Unavailable`].
    pub give_up_after: Duration,
}

impl Default for PublisherLimits {
    fn default() -> Self {
        Self {
            queue_events: 10_000,
            queue_bytes: 16 * 1024 * 1024,
            batch_events: 1_000,
            batch_bytes: 1024 * 1024,
            timeout: Duration::from_secs(30),
            give_up_after: Duration::from_mins(10),
        }
    }
}

/// The event is not known to be in the log.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PublishError {
    /// It breaks rules; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The gateway does not take it. Events before and after it are not touched by that.
    #[error("the gateway refused the event ({}): {}", .0.status, .0.detail)]
    Refused(Box<Refusal>),
    /// The gateway could not be reached, or said that it is overloaded, for as long as the limit says. The event may be in
    /// the log: publish it with the same id later, that is harmless.
    #[error("the gateway took no events for too long: {0}")]
    Unavailable(String),
    /// The publisher's runtime has ended.
    #[error("the publisher has ended")]
    Ended,
}

/// Publishes events in the order in which they were given to it, over one connection. Clones share it.
///
/// An event gets its id before it is sent, so that trying again never makes two of it. When the last clone is dropped,
/// what was taken is still sent, as long as the runtime lives; [`flush`](Self::flush) waits for that.
///
/// ```no_run
/// # use tidings_emit::{Event, Gateway, Publisher, PublishError};
/// # async fn publish() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::start(Gateway::new("http://127.0.0.1:8080")?);
/// let receipt = publisher.publish(Event::new("order.created", &42).aggregate("order_1")).await?;
/// println!("{} is number {}", receipt.event_id, receipt.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Queue {
        queue: mpsc::Sender<Job>,
        room: Arc<Semaphore>,
        queue_bytes: u32,
    },
    #[cfg(feature = "testing")]
    Record(Record),
}

/// What the worker is told.
#[derive(Debug)]
enum Job {
    Publish(Parcel),
    /// Says when all before it is settled.
    Flush(oneshot::Sender<()>),
}

/// An event under way.
#[derive(Debug)]
struct Parcel {
    /// Its JSON.
    text: Bytes,
    answer: oneshot::Sender<Result<Receipt, PublishError>>,
    _room: OwnedSemaphorePermit,
}

/// An event that was taken: resolves when the log has it, or when it is given up. It is sent also if this is dropped.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Receipt, PublishError>>);

impl Publisher {
    /// Starts one on the current tokio runtime. Panics outside of one.
    pub fn start(gateway: Gateway) -> Self {
        Self::with(gateway, PublisherLimits::default())
    }

    /// Starts one with other bounds.
    pub fn with(gateway: Gateway, limits: PublisherLimits) -> Self {
        let (queue, jobs) = mpsc::channel(limits.queue_events.max(1));
        let queue_bytes = u32::try_from(limits.queue_bytes).unwrap_or(u32::MAX).clamp(1, i32::MAX.cast_unsigned());
        let room = Arc::new(Semaphore::new(queue_bytes as usize));
        tokio::spawn(Worker::new(Client::new(gateway), limits).run(jobs));
        Self { way: Way::Queue { queue, room, queue_bytes } }
    }

    /// Publishes, and waits until the log has the event on disk.
    pub async fn publish(&self, event: Event) -> Result<Receipt, PublishError> {
        self.enqueue(event).await?.await
    }

    /// Waits for room only. What is enqueued one after the other is sent in that order.
    pub async fn enqueue(&self, event: Event) -> Result<Pending, PublishError> {
        let checked = event.checked()?;
        let (answer, pending) = oneshot::channel();
        match &self.way {
            Way::Queue { queue, room, queue_bytes } => {
                let bytes = u32::try_from(checked.text.len()).unwrap_or(u32::MAX).min(*queue_bytes);
                let held = Arc::clone(room).acquire_many_owned(bytes).await.map_err(|_| PublishError::Ended)?;
                let parcel = Parcel { text: checked.text, answer, _room: held };
                queue.send(Job::Publish(parcel)).await.map_err(|_| PublishError::Ended)?;
            }
            #[cfg(feature = "testing")]
            Way::Record(record) => record.note(&checked, answer),
        }
        Ok(Pending(pending))
    }

    /// Waits until everything that was enqueued before is settled.
    pub async fn flush(&self) {
        match &self.way {
            Way::Queue { queue, .. } => {
                let (answer, settled) = oneshot::channel();
                if queue.send(Job::Flush(answer)).await.is_ok() {
                    // An error: the publisher has ended, and nothing is under way.
                    let _ = settled.await;
                }
            }
            #[cfg(feature = "testing")]
            Way::Record(_) => {}
        }
    }
}

impl Future for Pending {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(PublishError::Ended)))
    }
}
