//! Worker queues: workers fetch, and say what became of it.
//!
//! A consumer is a subscription of the dispatcher whose sink is a *desk*: an attempt lies there until a worker fetches it,
//! and ends with the worker's word, or with its time. So order, retries, dead letters, pause and what a crash leaves are
//! those of every subscription. Who gets what is decided in `tidings_core::desk`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tidings_core::desk::{Desk, Token, consumer_number};
use tidings_core::event;
use tidings_core::offset::Offset;
use tidings_core::time::{Timestamp, format_duration};
use tidings_sinks::{Answer, Outcome, Parcel, Pending, Sink};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::dispatcher::Env;

/// A fetch is answered with no more events once they have so many bytes.
pub const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// The queue of one consumer.
pub struct Queue {
    number: u32,
    env: Env,
    state: Mutex<State>,
    /// Rings when something lies ready.
    arrived: Notify,
    /// Rings when the consumer is removed.
    closing: Notify,
    /// Rings when the next expiry of all desks may have come nearer.
    sooner: Arc<Notify>,
}

struct State {
    desk: Desk,
    held: HashMap<Offset, Held>,
    ack_wait: Duration,
    /// Who asks.
    waiting: usize,
    /// The consumer was removed.
    closed: bool,
    /// Wakes the lane: more may be laid.
    bell: Option<Arc<Notify>>,
}

/// What lies on the desk, or is out.
struct Held {
    envelope: Bytes,
    /// How much of it is the header.
    header_bytes: usize,
    replay: Option<Box<str>>,
    verdict: oneshot::Sender<Outcome>,
}

/// The consumer was removed: nothing comes of its queue any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A delivery for a worker.
#[derive(Clone, Debug)]
pub struct Message {
    /// Names it when the worker says what became of it.
    pub token: Token,
    /// The worker has time until then.
    pub until: Timestamp,
    /// The event's wire form.
    pub envelope: Bytes,
    /// The replay that it belongs to.
    pub replay: Option<Box<str>>,
}

impl Queue {
    fn new(id: &str, env: Env, sooner: Arc<Notify>, ack_wait: Duration) -> Self {
        let number = consumer_number(id);
        let (desk, held) = (Desk::new(number), HashMap::default());
        let state = State { desk, held, ack_wait, waiting: 0, closed: false, bell: None };
        Self { number, env, state: Mutex::new(state), arrived: Notify::new(), closing: Notify::new(), sooner }
    }

    /// Reads a token of this consumer.
    pub fn token(&self, text: &str) -> Option<Token> {
        Token::parse(text).filter(|token| token.consumer == self.number)
    }

    /// Up to `max` deliveries of [`FETCH_BYTES`] or little more as soon as there is one, nothing after `wait`; at once
    /// that the consumer is removed. Safe to drop while it waits.
    pub async fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<Message>, Closed> {
        let _asked = Asked::new(self, max);
        let (over, closed) = (sleep(wait), self.closed());
        tokio::pin!(over, closed);
        loop {
            // Before it looks: what comes in between rings for everybody, and a bell for all is not kept for who is late.
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let found = self.take(max);
            if !found.is_empty() {
                return Ok(found);
            }
            tokio::select! {
                biased;
                () = &mut closed => return Err(Closed),
                () = arrived => {}
                () = &mut over => return Ok(Vec::new()),
            }
        }
    }

    /// Resolves once the consumer is removed.
    pub async fn closed(&self) {
        // As in `fetch`.
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if !self.state.lock().closed {
            closing.await;
        }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.closing.notify_waiters();
    }

    /// Up to `max` deliveries of those that lie ready, as in [`Queue::fetch`].
    pub fn take(&self, max: usize) -> Vec<Message> {
        let now = (self.env.now)();
        let mut state = self.state.lock();
        let State { desk, held, ack_wait, .. } = &mut *state;
        let before = desk.next_expiry();
        let random = self.env.random;
        let nonce = || {
            let mut bytes = [0; 8];
            random(&mut bytes);
            u64::from_be_bytes(bytes)
        };
        let message = |(token, until): (Token, Timestamp)| {
            let held = held.get(&token.offset)?;
            Some(Message { token, until, envelope: held.envelope.clone(), replay: held.replay.clone() })
        };
        let mut messages = Vec::new();
        let mut bytes = 0;
        while messages.len() < max && bytes < FETCH_BYTES {
            let Some(next) = desk.take(1, now, *ack_wait, nonce).pop() else { break };
            messages.extend(message(next));
            bytes += messages.last().map_or(0, |message| message.envelope.len());
        }
        if desk.next_expiry().is_some_and(|next| before.is_none_or(|before| next < before)) {
            self.sooner.notify_one();
        }
        if desk.has_ready() {
            self.arrived.notify_one();
        }
        messages
    }

    /// Takes a worker's word that it is done with a delivery; false if that is not out any more.
    pub fn done(&self, token: Token) -> bool {
        self.end(token, Outcome::Delivered(Answer::default()))
    }

    /// Takes a worker's word that it failed: it comes back after `after`, or when the schedule says.
    pub fn failed(&self, token: Token, reason: Box<str>, after: Option<Duration>) -> bool {
        self.end(token, Outcome::Retry { reason, answer: Answer::default(), retry_after: after })
    }

    fn end(&self, token: Token, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        let ended = state.desk.end(token);
        if ended && let Some(held) = state.held.remove(&token.offset) {
            // Its lane may have ended at this moment: then the order that follows tells.
            let _ = held.verdict.send(outcome);
        }
        ended
    }

    /// Gives the worker of a delivery another `wait` from now on, the consumer's own if nothing is said; until when, or
    /// `None` if it is not out any more.
    pub fn extend(&self, token: Token, wait: Option<Duration>) -> Option<Timestamp> {
        let mut state = self.state.lock();
        let until = (self.env.now)().plus(wait.unwrap_or(state.ack_wait));
        let extended = state.desk.extend(token, until);
        self.sooner.notify_one();
        extended.then_some(until)
    }

    /// Gives nothing out until it is told to go on.
    pub fn pause(&self, paused: bool) {
        let mut state = self.state.lock();
        state.desk.pause(paused);
        state.ring();
        drop(state);
        self.arrived.notify_waiters();
    }

    /// An event lost its data: whoever fetches it from now on does not see it.
    pub fn erase(&self, offset: Offset) {
        if let Some(held) = self.state.lock().held.get_mut(&offset) {
            held.envelope = event::envelope(&held.envelope[..held.header_bytes], None).into();
        }
    }

    /// Deliveries that workers have.
    pub fn out(&self) -> usize {
        self.state.lock().desk.out()
    }

    /// Takes back what workers did not answer in time; when to ask again.
    fn tick(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock();
        let over = state.desk.expire(now);
        if !over.is_empty() {
            let reason: Box<str> = format!("no answer within {}", format_duration(state.ack_wait)).into();
            for held in over.iter().filter_map(|offset| state.held.remove(offset)).collect::<Vec<_>>() {
                let (reason, answer) = (reason.clone(), Answer::default());
                // A lane that has ended knows already.
                let _ = held.verdict.send(Outcome::Retry { reason, answer, retry_after: Some(Duration::ZERO) });
            }
        }
        state.desk.next_expiry()
    }

    fn lay(&self, parcel: &Parcel<'_>) -> oneshot::Receiver<Outcome> {
        let (verdict, outcome) = oneshot::channel();
        let envelope = match parcel.envelope {
            Some(envelope) => envelope.clone(),
            None => event::envelope(parcel.header, parcel.data.map(|data| &data[..])).into(),
        };
        let held = Held { envelope, header_bytes: parcel.header.len(), replay: parcel.replay.map(Into::into), verdict };
        let mut state = self.state.lock();
        state.desk.lay(parcel.offset, parcel.attempt);
        state.held.insert(parcel.offset, held);
        drop(state);
        self.arrived.notify_one();
        outcome
    }
}

impl State {
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

impl Sink for Queue {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        let outcomes = parcels.iter().map(|parcel| async move {
            let laid = OnDesk { consumer: self, offset: parcel.offset };
            let outcome = self.lay(parcel).await;
            drop(laid);
            // Only its own lane takes it away without a word, and does not wait for this then.
            outcome.unwrap_or_else(|_| Outcome::Retry {
                reason: "taken off the desk".into(),
                answer: Answer::default(),
                retry_after: Some(Duration::ZERO),
            })
        });
        Box::pin(join_all(outcomes))
    }

    fn capacity(&self) -> usize {
        self.state.lock().desk.capacity()
    }

    fn listen(&self, bell: &Arc<Notify>) {
        self.state.lock().bell = Some(Arc::clone(bell));
    }
}

/// An attempt that lies on the desk; it is taken away when its lane lets go of it.
struct OnDesk<'a> {
    consumer: &'a Queue,
    offset: Offset,
}

impl Drop for OnDesk<'_> {
    fn drop(&mut self) {
        let mut state = self.consumer.state.lock();
        if state.held.remove(&self.offset).is_some() {
            state.desk.remove(self.offset);
        }
    }
}

/// Somebody waits for deliveries.
struct Asked<'a> {
    queue: &'a Queue,
    count: usize,
}

impl<'a> Asked<'a> {
    fn new(queue: &'a Queue, count: usize) -> Self {
        let mut state = queue.state.lock();
        state.desk.ask(count);
        state.waiting += 1;
        state.ring();
        drop(state);
        Self { queue, count }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.desk.unask(self.count);
        state.waiting = state.waiting.saturating_sub(1);
    }
}

/// The queues of all consumers.
pub struct Queues {
    env: Env,
    by_id: RwLock<HashMap<Box<str>, Arc<Queue>>>,
    sooner: Arc<Notify>,
}

impl Queues {
    /// No queues.
    pub fn new(env: Env) -> Self {
        Self { env, by_id: RwLock::default(), sooner: Arc::default() }
    }

    /// The queue of a consumer, made if there is none; workers have `ack_wait` from now on.
    pub fn open(&self, id: &str, ack_wait: Duration) -> Arc<Queue> {
        let mut by_id = self.by_id.write();
        let made = || Arc::new(Queue::new(id, self.env, Arc::clone(&self.sooner), ack_wait));
        let consumer = by_id.entry(id.into()).or_insert_with(made);
        consumer.state.lock().ack_wait = ack_wait;
        Arc::clone(consumer)
    }

    /// The queue of a consumer.
    pub fn get(&self, id: &str) -> Option<Arc<Queue>> {
        self.by_id.read().get(id).cloned()
    }

    /// Takes a queue away; whoever waits for it is told.
    pub fn close(&self, id: &str) {
        let closed = self.by_id.write().remove(id);
        if let Some(queue) = closed {
            queue.close();
        }
    }

    /// Of all: deliveries that workers have, and fetches that wait.
    pub fn totals(&self) -> (u64, u64) {
        let by_id = self.by_id.read();
        by_id.values().fold((0, 0), |(out, waiting), queue| {
            let state = queue.state.lock();
            (out + state.desk.out() as u64, waiting + state.waiting as u64)
        })
    }

    /// Takes back what workers did not answer in time, as long as it is polled.
    pub async fn run(&self) {
        loop {
            let now = (self.env.now)();
            let next = self.by_id.read().values().filter_map(|consumer| consumer.tick(now)).min();
            match next {
                None => self.sooner.notified().await,
                Some(next) => tokio::select! {
                    () = sleep(next.since((self.env.now)())) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }
}
