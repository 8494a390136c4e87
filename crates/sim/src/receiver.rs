//! Subscribers that the simulation makes up, and what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::lane::{Answer, Outcome};
use tidings_core::time::Timestamp;
use tidings_sinks::{Parcel, Pending, Sink};
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::clock;
use crate::plant::Plant;
use crate::workers::Fetched;

/// How a subscriber behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It answers 200 within 20 ms.
    Well,
    /// It answers 200 within so many milliseconds.
    Slow(u64),
    /// It answers this status.
    Down(u16),
    /// It fails so often, of 100 times.
    Flapping(u64),
    /// It never answers; the attempt ends after its timeout.
    Hanging,
    /// It answers 429 and asks to be left alone for so long.
    Busy(Duration),
    /// It answers 410.
    Gone,
}

/// How long an attempt may take.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// What becomes of single events at a subscriber, whatever its mood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poison {
    /// One event in so many is answered with 500 always; 0: none.
    pub fails: u64,
    /// One event in so many is rejected; 0: none.
    pub rejected: u64,
    /// At one event in so many the process ends, whenever it is sent; 0: none.
    pub kills: u64,
    /// The event of this id is answered with 500 always.
    pub id: Option<&'static str>,
    /// At the event of this id the process ends.
    pub killer: Option<&'static str>,
}

/// One attempt as the subscriber saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whose.
    pub hook: usize,
    /// In which life of the process.
    pub life: u32,
    /// The id of the event.
    pub id: Box<str>,
    /// What was sent, header and data.
    pub body: Vec<u8>,
    /// As it said.
    pub attempt: u32,
    /// Whether it was marked as a replay.
    pub replay: bool,
    /// When it arrived.
    pub began: Timestamp,
    /// When it was answered, and how; nothing: it was cut off.
    pub ended: Option<(Timestamp, Outcome)>,
}

impl Seen {
    /// Whether the subscriber took it.
    pub fn is_delivered(&self) -> bool {
        matches!(self.ended, Some((_, Outcome::Delivered(_))))
    }
}

/// What all subscribers saw, in order.
#[derive(Default)]
pub struct Record {
    /// All attempts.
    pub seen: Vec<Seen>,
    /// What workers fetched.
    pub fetched: Vec<Fetched>,
    /// The life of the process that runs.
    pub life: u32,
    /// The process is being stopped.
    pub stopping: bool,
    /// From here on everybody is well.
    pub healed: bool,
    /// Print what is seen.
    pub verbose: bool,
    /// Rings when the process has to end.
    pub(crate) killed: Arc<Notify>,
    /// How often each subscriber saw each event.
    pub(crate) counts: BTreeMap<(usize, Box<str>), usize>,
}

/// A subscriber.
pub(crate) struct Receiver {
    pub(crate) hook: usize,
    pub(crate) name: Box<str>,
    pub(crate) seed: u64,
    /// Until when it behaves how; afterwards it is well.
    pub(crate) moods: Vec<(Timestamp, Mood)>,
    pub(crate) poison: Poison,
    pub(crate) plant: Option<Plant>,
    pub(crate) record: Arc<Mutex<Record>>,
}

impl Receiver {
    fn mood(&self, now: Timestamp) -> Mood {
        if self.record.lock().healed {
            return Mood::Well;
        }
        self.moods.iter().find(|(until, _)| now < *until).map_or(Mood::Well, |(_, mood)| *mood)
    }

    /// Whether the process ends at an event.
    fn kills(&self, id: &str) -> bool {
        let mut always = Chance::about(self.seed, &["killer", &self.name, id]);
        let chosen = is_ordinary(id) && self.poison.kills > 0 && always.once_in(self.poison.kills);
        chosen || self.poison.killer == Some(id)
    }

    /// How long it thinks, and what it answers.
    fn answer(&self, id: &str, times: usize) -> (Duration, Outcome) {
        let mut chance = Chance::about(self.seed, &[&self.name, id, &times.to_string()]);
        let mut always = Chance::about(self.seed, &["poison", &self.name, id]);
        let ordinary = is_ordinary(id);
        let quick = chance.millis(0..=20);
        if ordinary && self.poison.rejected > 0 && always.once_in(self.poison.rejected) {
            return (quick, Outcome::Reject { reason: "unwanted".into(), answer: status(400) });
        }
        let chosen = ordinary && self.poison.fails > 0 && always.once_in(self.poison.fails);
        if chosen || self.poison.id == Some(id) {
            return (quick, failed(500, None));
        }
        let well = Outcome::Delivered(status(200));
        match self.mood(clock::now()) {
            Mood::Slow(ms) => (chance.millis(ms / 4..=ms), well),
            Mood::Down(status) => (quick, failed(status, None)),
            Mood::Flapping(of_100) if chance.below(100) < of_100 => (quick, failed(503, None)),
            Mood::Well | Mood::Flapping(_) => (quick, well),
            Mood::Hanging => {
                let reason = "timeout".into();
                (TIMEOUT, Outcome::Retry { reason, answer: Answer::default(), retry_after: None })
            }
            Mood::Busy(span) => (quick, failed(429, Some(span))),
            Mood::Gone => (quick, Outcome::Gone { answer: status(410) }),
        }
    }

    fn arrived(&self, parcel: &Parcel<'_>) -> (usize, usize) {
        let mut body = parcel.header.to_vec();
        body.extend_from_slice(parcel.data.map_or(&b"erased"[..], |data| data));
        if self.plant == Some(Plant::BodyReserialised) && parcel.attempt > 1 {
            body.push(b' ');
        }
        let mut record = self.record.lock();
        let id: Box<str> = parcel.id.as_str().into();
        let count = record.counts.entry((self.hook, id.clone())).or_default();
        *count += 1;
        let times = *count;
        let (life, hook) = (record.life, self.hook);
        let (attempt, replay, began) = (parcel.attempt, is_replay(parcel), clock::now());
        record.seen.push(Seen { hook, life, id, body, attempt, replay, began, ended: None });
        (record.seen.len() - 1, times)
    }
}

/// What is told of a failure must not fail for ever: it would tell of itself.
fn is_ordinary(id: &str) -> bool {
    id.len() < 16
}

fn is_replay(parcel: &Parcel<'_>) -> bool {
    parcel.replay.is_some()
}

fn status(status: u16) -> Answer {
    Answer { status: Some(status), text: None }
}

fn failed(code: u16, retry_after: Option<Duration>) -> Outcome {
    Outcome::Retry { reason: format!("status {code}").into(), answer: status(code), retry_after }
}

impl Sink for Receiver {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(parcels.len());
            for parcel in parcels {
                let (place, times) = self.arrived(parcel);
                if self.kills(parcel.id.as_str()) {
                    self.kill(place);
                    return std::future::pending().await;
                }
                let (thinks, outcome) = self.answer(parcel.id.as_str(), times);
                if !self.think(thinks).await {
                    // The lie of a process in a hurry: what was in flight counts as delivered.
                    outcomes.push(Outcome::Delivered(status(200)));
                    continue;
                }
                let mut record = self.record.lock();
                record.seen[place].ended = Some((clock::now(), outcome.clone()));
                if record.verbose {
                    println!("{}", trace(&self.name, &record.seen[place]));
                }
                drop(record);
                outcomes.push(self.told(outcome));
            }
            outcomes
        })
    }
}

impl Receiver {
    fn kill(&self, place: usize) {
        let record = self.record.lock();
        if record.verbose {
            println!("{}", trace(&self.name, &record.seen[place]));
        }
        record.killed.notify_one();
    }

    /// Lets time pass; answers whether all of it did.
    async fn think(&self, span: Duration) -> bool {
        if self.plant != Some(Plant::DropOnShutdown) {
            tokio::time::sleep(span).await;
            return true;
        }
        let mut left = span;
        while !left.is_zero() && !self.record.lock().stopping {
            let step = left.min(Duration::from_millis(5));
            tokio::time::sleep(step).await;
            left -= step;
        }
        left.is_zero()
    }

    /// What the dispatcher is told of an answer.
    fn told(&self, outcome: Outcome) -> Outcome {
        match (self.plant, outcome) {
            (Some(Plant::RetryAfterIgnored), Outcome::Retry { reason, answer, .. }) => {
                Outcome::Retry { reason, answer, retry_after: None }
            }
            (Some(Plant::CircuitNeverCloses), outcome) => {
                let record = self.record.lock();
                let mine = record.seen.iter().rev().filter(|seen| seen.hook == self.hook && seen.ended.is_some());
                let failures = mine.skip(1).take_while(|seen| !seen.is_delivered()).count();
                if failures >= 5 { failed(503, None) } else { outcome }
            }
            (_, outcome) => outcome,
        }
    }
}

fn trace(name: &str, seen: &Seen) -> String {
    let (ended, outcome) = match &seen.ended {
        Some((ended, outcome)) => {
            (ended.as_millis() - clock::START.as_millis(), outcome.reason().unwrap_or("delivered"))
        }
        None => (-1, "cut off"),
    };
    let began = seen.began.as_millis() - clock::START.as_millis();
    let replay = if seen.replay { " (replay)" } else { "" };
    format!("{began:>12} ms  {name} {} attempt {}{replay}: {outcome} at {ended}", seen.id, seen.attempt)
}
