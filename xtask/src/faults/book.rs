//! What came to the webhooks of one run, and what was wrong with it: other bytes at a later attempt, a wrong signature,
//! an aggregate out of order, a delivery that was repeated.

use super::clock;
use super::event::{Label, Mark, Run};
use super::taker::Post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const TOLD_MAX: usize = 3;

/// What came to all webhooks.
#[derive(Debug)]
pub(super) struct Book {
    run: Run,
    hooks: Vec<Mutex<Hook>>,
}

/// What came to one.
#[derive(Debug)]
pub(super) struct Hook {
    secret: Vec<u8>,
    attempts_max: u32,
    seen: HashMap<Mark, Seen>,
    last_of_key: HashMap<u32, u32>,
    /// Every post.
    pub posts: u64,
    /// When something came that had been accepted, or whose attempt had come before, and what.
    pub repeats: Vec<(Instant, Mark)>,
    /// The next of the key came, and their last attempt did not: they must be dead.
    pub doubts: Vec<Mark>,
    faults: u64,
    told: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    /// Of the id and the body.
    print: u64,
    attempt: u32,
    accepted: bool,
}

/// A post that was understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Which event.
    pub mark: Mark,
    /// Which attempt.
    pub attempt: u32,
    print: u64,
}

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "eventId")]
    id: String,
    data: Box<RawValue>,
}

impl Book {
    /// A book of webhooks that sign with `secrets` and give a delivery up after `attempts_max` attempts.
    pub(super) fn new(run: Run, secrets: Vec<Vec<u8>>, attempts_max: u32) -> Self {
        let hooks = secrets.into_iter().map(|secret| Mutex::new(Hook::new(secret, attempts_max)));
        Self { run, hooks: hooks.collect() }
    }

    /// What came to a webhook.
    pub(super) fn hook(&self, number: usize) -> MutexGuard<'_, Hook> {
        self.hooks[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came to a webhook; `None` if it is not of this run.
    pub(super) fn arrive(&self, number: usize, post: &Post) -> Option<Arrival> {
        let (id, attempt) = (post.header("webhook-id"), post.header("tidings-attempt").parse().unwrap_or(0));
        let body = serde_json::from_slice::<Body>(&post.body).ok()?;
        let label = serde_json::from_str::<Label>(body.data.get()).ok().filter(|label| label.is_of(&self.run));
        let mut hook = self.hook(number);
        hook.posts += 1;
        let Some(label) = label else {
            hook.tell(|| format!("webhook {number} got what nobody sent: {id}"));
            return None;
        };
        let mark = label.mark();
        if body.data.get() != self.run.data(mark, label.place()) || body.id != id {
            hook.tell(|| format!("webhook {number} got {mark:?} altered, as {id}"));
        }
        if !is_signed(post, &hook.secret) {
            hook.tell(|| format!("webhook {number} got {mark:?} with a wrong signature"));
        }
        let mut hasher = DefaultHasher::new();
        (id, &post.body).hash(&mut hasher);
        let arrival = Arrival { mark, attempt, print: hasher.finish() };
        hook.note(number, arrival, self.run.aggregate(mark.key).is_some(), clock::now());
        Some(arrival)
    }

    /// Notes that a post is about to be answered with success.
    pub(super) fn accept(&self, number: usize, mark: Mark) {
        if let Some(seen) = self.hook(number).seen.get_mut(&mark) {
            seen.accepted = true;
        }
    }
}

impl Hook {
    fn new(secret: Vec<u8>, attempts_max: u32) -> Self {
        Self {
            secret,
            attempts_max,
            seen: HashMap::new(),
            last_of_key: HashMap::new(),
            posts: 0,
            repeats: Vec::new(),
            doubts: Vec::new(),
            faults: 0,
            told: Vec::new(),
        }
    }

    /// Whether an event was taken.
    pub(super) fn has_accepted(&self, mark: Mark) -> bool {
        self.seen.get(&mark).is_some_and(|seen| seen.accepted)
    }

    /// What was wrong: how often, and the first few.
    pub(super) fn words(&self) -> Vec<String> {
        let count = (self.faults > 0).then(|| format!("{} faults, the first:", self.faults));
        count.into_iter().chain(self.told.iter().cloned()).collect()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        self.faults += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what());
        }
    }

    fn note(&mut self, number: usize, arrival: Arrival, ordered: bool, now: Instant) {
        let Arrival { mark, attempt, print } = arrival;
        let Some(seen) = self.seen.get_mut(&mark) else {
            if ordered {
                self.check_order(number, mark);
            }
            self.seen.insert(mark, Seen { print, attempt, accepted: false });
            return;
        };
        if seen.accepted || attempt <= seen.attempt {
            self.repeats.push((now, mark));
        }
        seen.attempt = seen.attempt.max(attempt);
        if seen.print != print {
            self.tell(|| format!("webhook {number} got {mark:?} with another id or body at attempt {attempt}"));
        }
    }

    /// The first time that something comes, all before it of its key came, and the last of them is settled.
    fn check_order(&mut self, number: usize, mark: Mark) {
        let last = self.last_of_key.insert(mark.key, mark.n).unwrap_or(0);
        if mark.n != last + 1 {
            self.tell(|| format!("webhook {number} got {mark:?} after number {last}"));
        } else if last > 0 {
            let before = self.seen.get(&Mark { key: mark.key, n: last });
            match before.filter(|before| !before.accepted).map(|before| before.attempt) {
                // The last attempt is counted before it is made after two unclean starts, and a kill may come between.
                Some(attempt) if attempt + 1 == self.attempts_max => self.doubts.push(Mark { key: mark.key, n: last }),
                Some(attempt) if attempt < self.attempts_max => {
                    self.tell(|| format!("webhook {number} got {mark:?} while the one before it was not settled"));
                }
                _ => {}
            }
        }
    }
}

/// Standard Webhooks 1.0, `v1`; by itself, so that a fault of the server's own code shows.
fn is_signed(post: &Post, secret: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    mac.update(format!("{}.{}.", post.header("webhook-id"), post.header("webhook-timestamp")).as_bytes());
    mac.update(&post.body);
    post.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
