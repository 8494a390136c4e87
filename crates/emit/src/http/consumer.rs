//! A worker of a queue: fetches, works, and says what became of it.

mod words;

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use super::backoff::delay_now;
use super::client::{Answer, Client, NoAnswer};
use super::gateway::Gateway;
use crate::receive::Envelope;
use words::{Word, Words};

/// How long a fetch waits for something, and how much longer for its answer.
const FETCH_WAIT: &str = "20s";
const FETCH_LIMIT: Duration = Duration::from_secs(35);
/// Most messages that the gateway gives at once.
const FETCH_MAX: usize = 500;

/// A worker of the consumer (queue) of a name. Any number of them share one; events of one aggregate come one after the
/// other.
#[derive(Clone, Debug)]
pub struct Consumer {
    gateway: Gateway,
    name: String,
    concurrency: usize,
    extend_every: Duration,
}

/// An event that a queue gave to this worker.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    ack_token: String,
    /// How often it was given to a worker, with this time.
    pub delivery_count: u32,
    /// The event's place in the tenant's order.
    pub offset: u64,
    /// The replay that it is part of.
    pub replay: Option<String>,
    event: Box<RawValue>,
}

impl Message {
    /// The event, with its data as `T`.
    pub fn envelope<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<Envelope<T>> {
        Envelope::read(self.event.get().as_bytes())
    }
}

/// The work was not done: the event comes again, as long as the consumer's retries last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nack {
    reason: String,
    delay: Option<Duration>,
}

impl Nack {
    /// For a person, kept with the event's history: at most 1,024 bytes of it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), delay: None }
    }

    /// Not before that; else as the consumer's `retry` says.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }
}

/// The gateway does not let this worker work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the gateway refused ({status}): {detail}")]
pub struct ConsumerError {
    /// The HTTP status: 404, there is no such consumer; 401 or 403, the key is not enough.
    pub status: u16,
    /// What is wrong and the way out, for a person.
    pub detail: String,
}

#[derive(Deserialize)]
struct Fetched {
    messages: Vec<Message>,
}

impl Consumer {
    /// A worker that does eight at a time. The error says what a name may be.
    pub fn new(gateway: Gateway, name: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(format!("`{name}` is not the name of a consumer: letters, digits, `-`, `_` and `.`"));
        }
        Ok(Self { gateway, name: name.to_owned(), concurrency: 8, extend_every: Duration::from_secs(10) })
    }

    /// How many events are worked on at a time, from 1.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.clamp(1, FETCH_MAX);
        self
    }

    /// How often it asks for more time for what it works on: a third of the consumer's `ackWait`. 10 seconds, which is
    /// right for the default of 30, if nobody says.
    #[must_use]
    pub fn extend_every(mut self, every: Duration) -> Self {
        self.extend_every = every.max(Duration::from_millis(100));
        self
    }

    /// Works until `stop` is ready: then it fetches no more, ends what it has begun, and says so to the gateway.
    ///
    /// What `work` returns `Ok` for is acknowledged and never comes back, but for a crash in between. While the gateway is
    /// away it tries again. Errors: only what trying again does not mend.
    pub async fn run<W, F>(&self, work: W, stop: impl Future<Output = ()>) -> Result<(), ConsumerError>
    where
        W: Fn(Message) -> F,
        F: Future<Output = Result<(), Nack>>,
    {
        let (words, said) = Words::start(Client::new(self.gateway.clone()), self.name.clone());
        let ended = self.work(work, stop, &words).await;
        drop(words);
        // An error: the runtime ends.
        let _ = said.await;
        ended
    }

    async fn work<W, F>(&self, work: W, stop: impl Future<Output = ()>, words: &Words) -> Result<(), ConsumerError>
    where
        W: Fn(Message) -> F,
        F: Future<Output = Result<(), Nack>>,
    {
        let mut stop = pin!(stop);
        let mut stopping = false;
        let mut working = FuturesUnordered::new();
        let mut held: HashMap<u64, String> = HashMap::new();
        let mut number = 0;
        let mut extend = interval(self.extend_every);
        // The first tick would be at once: what was fetched just now needs no more time.
        extend.reset();
        let mut fetching = None;
        let mut resting = Some(Client::new(self.gateway.clone()));
        loop {
            if stopping {
                // What it may have been given comes back after `ackWait`.
                fetching = None;
                if working.is_empty() {
                    return Ok(());
                }
            } else if working.len() < self.concurrency
                && let Some(client) = resting.take()
            {
                fetching = Some(Box::pin(self.fetch(client, self.concurrency - working.len())));
            }
            tokio::select! {
                fetched = ready(&mut fetching), if fetching.is_some() => {
                    fetching = None;
                    let (client, messages) = fetched;
                    resting = Some(client);
                    for message in messages? {
                        number += 1;
                        held.insert(number, message.ack_token.clone());
                        let done = work(message);
                        working.push(async move { (number, done.await) });
                    }
                }
                Some((number, done)) = working.next(), if !working.is_empty() => {
                    if let Some(token) = held.remove(&number) {
                        words.say(Word::of(token, done)).await;
                    }
                }
                _ = extend.tick(), if !held.is_empty() => words.say(Word::Extend(held.values().cloned().collect())).await,
                () = &mut stop, if !stopping => stopping = true,
            }
        }
    }

    /// Fetches up to `max` messages, trying again as long as it takes. The client comes back with them.
    async fn fetch(&self, mut client: Client, max: usize) -> (Client, Result<Vec<Message>, ConsumerError>) {
        let body = Bytes::from(json!({"max": max, "wait": FETCH_WAIT}).to_string());
        let route = format!("/consumers/{}/fetch", self.name);
        let mut failures = 0;
        loop {
            let asked = match client.post(&route, body.clone(), FETCH_LIMIT).await {
                Ok(Answer { status: 200..=299, body, .. }) => match serde_json::from_slice::<Fetched>(&body) {
                    Ok(fetched) => return (client, Ok(fetched.messages)),
                    Err(_) => None,
                },
                Ok(Answer { status: 408 | 429 | 500..=599, retry_after, .. }) => retry_after,
                Ok(Answer { status, body, .. }) => return (client, Err(refusal(status, &body))),
                Err(NoAnswer(_)) => None,
            };
            failures += 1;
            sleep(delay_now(failures, asked)).await;
        }
    }
}

/// The pending fetch; only polled if there is one.
async fn ready<F: Future>(fetching: &mut Option<Pin<Box<F>>>) -> F::Output {
    match fetching {
        Some(fetch) => fetch.as_mut().await,
        None => std::future::pending().await,
    }
}

fn refusal(status: u16, body: &[u8]) -> ConsumerError {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the gateway gives no reason").to_owned();
    ConsumerError { status, detail }
}
