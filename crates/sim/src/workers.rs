//! Workers that the simulation makes up: they fetch, and say what became of it, late, or never.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_engine::consumers::{Message, Queue};
use tidings_engine::dispatcher::Word;

use crate::chance::Chance;
use crate::clock;
use crate::lanes::Lanes;
use crate::receiver::Record;

/// The longest that a fetch waits, and the same once everybody is healed.
const WAIT_MS_MAX: u64 = 5_000;
const WAIT_HEALED: Duration = Duration::from_secs(20);

/// Who works for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many there are.
    pub count: u64,
    /// How much each fetches at the most.
    pub max: u64,
    /// How long they may take.
    pub ack_wait: Duration,
}

/// One delivery as a worker had it.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whose.
    pub hook: usize,
    /// In which life of the process.
    pub life: u32,
    /// Which event.
    pub offset: Offset,
    /// Which attempt, as the token said.
    pub attempt: u32,
    /// Whether it was marked as a replay.
    pub replay: bool,
    /// When.
    pub at: Timestamp,
    /// How long it was promised to the worker.
    pub until: Timestamp,
    /// When the worker said that it is done,
    pub done: Option<Timestamp>,
    /// and when it was told that this is kept.
    pub acked: Option<Timestamp>,
    /// When it said that it failed, and was heard.
    pub failed: Option<Timestamp>,
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) hook: usize,
    pub(crate) name: Box<str>,
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) life: u32,
    pub(crate) workers: Workers,
    /// One event in so many fails always; 0: none.
    pub(crate) fails: u64,
    pub(crate) queue: Arc<Queue>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) record: Arc<Mutex<Record>>,
}

impl Worker {
    /// Works as long as it is polled.
    pub(crate) async fn run(self) {
        let worker = Arc::new(self);
        let names = ["worker", &worker.name, &worker.number.to_string(), &worker.life.to_string()];
        let mut chance = Chance::about(worker.seed, &names);
        loop {
            let healed = worker.record.lock().healed;
            let wait = if healed { WAIT_HEALED } else { chance.millis(1..=WAIT_MS_MAX) };
            let max = usize::try_from(chance.within(1..=worker.workers.max)).unwrap_or(1);
            let Ok(messages) = worker.queue.fetch(max, wait).await else { return };
            for message in messages {
                let chance = Chance::of(chance.number());
                tokio::spawn(Arc::clone(&worker).handle(message, chance, healed));
            }
        }
    }

    async fn handle(self: Arc<Self>, message: Message, mut chance: Chance, healed: bool) {
        let (token, wait) = (message.token, u64::try_from(self.workers.ack_wait.as_millis()).unwrap_or(u64::MAX));
        let place = self.fetched(&message);
        let mut always = Chance::about(self.seed, &["poison", &self.name, &token.offset.to_string()]);
        let poison = self.fails > 0 && always.once_in(self.fails);
        match if healed { 0 } else { chance.below(100) } {
            _ if poison => {
                tokio::time::sleep(chance.millis(0..=20)).await;
                self.fail(place, &message, None);
            }
            0..70 => {
                tokio::time::sleep(chance.millis(0..=if healed { 20 } else { wait / 2 })).await;
                self.done(place, &message).await;
            }
            70..80 => {
                tokio::time::sleep(chance.millis(0..=wait / 2)).await;
                let after = chance.once_in(2).then(|| Duration::from_millis(700 * chance.below(2)));
                self.fail(place, &message, after);
            }
            // Nothing is heard of it again.
            80..86 => {}
            86..93 => {
                tokio::time::sleep(chance.millis(wait..=wait * 2)).await;
                self.done(place, &message).await;
            }
            _ => {
                tokio::time::sleep(chance.millis(wait / 2..=wait)).await;
                if let Some(until) = self.queue.extend(token, None) {
                    self.record.lock().fetched[place].until = until;
                }
                tokio::time::sleep(chance.millis(wait / 2..=wait)).await;
                self.done(place, &message).await;
            }
        }
    }

    fn fetched(&self, message: &Message) -> usize {
        let mut record = self.record.lock();
        record.fetched.push(Fetched {
            hook: self.hook,
            life: self.life,
            offset: message.token.offset,
            attempt: message.token.attempt,
            replay: message.replay.is_some(),
            at: clock::now(),
            until: message.until,
            done: None,
            acked: None,
            failed: None,
        });
        record.fetched.len() - 1
    }

    fn fail(&self, place: usize, message: &Message, after: Option<Duration>) {
        let heard = self.queue.failed(message.token, "it failed".into(), after);
        self.record.lock().fetched[place].failed = heard.then(clock::now);
        self.trace(place);
    }

    async fn done(&self, place: usize, message: &Message) {
        let (offset, attempt) = (message.token.offset, message.token.attempt);
        self.record.lock().fetched[place].done = Some(clock::now());
        let was_out = self.queue.done(message.token);
        let kept = self.lanes.done(&self.name, Word { offset, attempt, was_out }).await;
        self.record.lock().fetched[place].acked = kept.then(clock::now);
        self.trace(place);
    }

    fn trace(&self, place: usize) {
        let record = self.record.lock();
        if record.verbose {
            println!("{:>12} ms  {} {:?}", crate::oracle::ms(clock::now()), self.name, record.fetched[place]);
        }
    }
}
