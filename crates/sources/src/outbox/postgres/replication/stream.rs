//! A slot as it is read: one task takes what the server tells, another answers it.
//!
//! They are two because the first waits while what it has taken is not asked for, and a server that hears nothing for
//! `wal_sender_timeout` hangs up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::decode::{Decoder, Item};
use super::pgoutput;
use super::wire::{self, Frames, Out};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use crate::outbox::ReadError;
use crate::outbox::postgres::position::Place;
use crate::outbox::postgres::session::{trouble, within};

/// From one question to the next how far the server is, the first of which may come too early.
const ASK_FIRST: Duration = Duration::from_millis(1);
const ASK_LAST: Duration = Duration::from_millis(100);

/// Items, the place behind them, and whether more is there.
type Taken = (Vec<Item>, Place, bool);

/// What was told and is not taken yet.
#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Behind all that was told.
    reached: Place,
    ended: Option<ReadError>,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.items.len() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was told.
    told: Notify,
    /// Something was taken.
    taken: Notify,
    /// All before it is kept: the server may forget it.
    confirmed: AtomicU64,
    /// The server shall say how far it is.
    ask: AtomicBool,
    /// It is to be answered.
    answer: Notify,
}

/// Reads a slot until it is dropped.
pub(super) struct Stream {
    shared: Arc<Shared>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

impl Stream {
    /// `every`: how often the server hears something at least.
    pub(super) fn new(frames: Frames, out: Out, decoder: Decoder, every: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let (reads, answers) = (Arc::clone(&shared), Arc::clone(&shared));
        tasks.spawn(async move {
            let Err(error) = reads.read(frames, decoder).await;
            reads.end(error);
        });
        tasks.spawn(async move {
            let Err(error) = answers.answer(out, every).await;
            answers.end(error);
        });
        Self { shared, _tasks: tasks }
    }

    /// What comes next, the place behind it, and whether more is there. Nothing: all is told that was committed when this
    /// was asked; the server may be far behind what it keeps, so `client` asks how much that is.
    pub(super) async fn next(&self, client: &Client) -> Result<Taken, ReadError> {
        if let Some(found) = self.shared.take()? {
            return Ok(found);
        }
        let sql = "SELECT pg_current_wal_flush_lsn()";
        let flushed = u64::from(within(client.query_one(sql, &[])).await?.get::<_, PgLsn>(0));
        let mut pause = ASK_FIRST;
        loop {
            // Asked once a pause, however often the server says something meanwhile.
            let arrived = async {
                loop {
                    if let Some(found) = self.shared.arrived(flushed)? {
                        return Ok(found);
                    }
                    self.shared.told.notified().await;
                }
            };
            if let Ok(arrived) = timeout(pause, arrived).await {
                return arrived;
            }
            self.shared.ask.store(true, Ordering::Relaxed);
            self.shared.answer.notify_one();
            pause = (2 * pause).min(ASK_LAST);
        }
    }

    /// All that lies before this place is kept.
    pub(super) fn confirm(&self, place: Place) {
        self.shared.confirmed.fetch_max(place.commit, Ordering::Relaxed);
    }

    /// Resolves after `pause`, or when something is told.
    pub(super) async fn told(&self, pause: Duration) {
        // Either way it is looked at.
        let _ = timeout(pause, self.shared.told.notified()).await;
    }
}

impl Shared {
    /// What is there, or nothing once all up to a place in the write-ahead log was told.
    fn arrived(&self, flushed: u64) -> Result<Option<Taken>, ReadError> {
        let reached = self.queue.lock().reached;
        let nothing = (reached.commit >= flushed).then(|| (Vec::new(), reached, false));
        Ok(self.take()?.or(nothing))
    }

    fn take(&self) -> Result<Option<Taken>, ReadError> {
        let mut queue = self.queue.lock();
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BATCH_ROWS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(item) = queue.items.pop_front() else { break };
            bytes += item.weight();
            items.push(item);
        }
        queue.bytes -= bytes;
        let more = !queue.items.is_empty();
        let Some(last) = items.last() else { return queue.ended.clone().map_or(Ok(None), Err) };
        let place = if more { last.place } else { queue.reached };
        drop(queue);
        self.taken.notify_one();
        Ok(Some((items, place, more)))
    }

    async fn read(&self, mut frames: Frames, mut decoder: Decoder) -> Result<std::convert::Infallible, ReadError> {
        loop {
            match frames.next().await? {
                (b'd', body) => self.data(body, &mut decoder).await?,
                (b'E', body) => return Err(wire::fault(&body)),
                (b'c', _) => return Err(trouble("the server has ended the replication")),
                // Notices and parameters.
                _ => {}
            }
        }
    }

    async fn data(&self, mut body: Bytes, decoder: &mut Decoder) -> Result<(), ReadError> {
        let short = |_| trouble("a message from the slot ends too early");
        match body.try_get_u8().map_err(short)? {
            b'w' => {
                // Where it begins, where the server's log ends, the time there.
                let header = 3 * 8;
                if body.len() < header {
                    return Err(trouble("a message from the slot ends too early"));
                }
                let told = pgoutput::read(body.split_off(header)).map_err(ReadError::Trouble)?;
                if let Some((items, place)) = decoder.take(told).map_err(ReadError::Trouble)? {
                    self.put(items, place).await;
                }
            }
            b'k' => {
                let sent = body.try_get_u64().map_err(short)?;
                if decoder.is_between() {
                    self.put(Vec::new(), Place { commit: sent, within: 0 }).await;
                }
                // The last byte, behind the time there: whether it waits for an answer.
                if body.last() == Some(&1) {
                    self.answer.notify_one();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits for room before: so much and one transaction's part is held.
    async fn put(&self, items: Vec<Item>, place: Place) {
        while !items.is_empty() && self.queue.lock().is_full() {
            self.taken.notified().await;
        }
        let mut queue = self.queue.lock();
        queue.bytes += items.iter().map(Item::weight).sum::<usize>();
        queue.items.extend(items);
        queue.reached = queue.reached.max(place);
        drop(queue);
        self.told.notify_one();
    }

    async fn answer(&self, mut out: Out, every: Duration) -> Result<std::convert::Infallible, ReadError> {
        loop {
            tokio::select! {
                () = self.answer.notified() => {}
                () = sleep(every) => {}
            }
            let (confirmed, ask) = (self.confirmed.load(Ordering::Relaxed), self.ask.swap(false, Ordering::Relaxed));
            wire::confirm(&mut out, confirmed, ask).await?;
        }
    }

    fn end(&self, error: ReadError) {
        self.queue.lock().ended.get_or_insert(error);
        self.told.notify_one();
    }
}
