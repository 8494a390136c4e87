//! The desk where the workers of a consumer fetch: who asks, what lies ready, what is out and until when.
//!
//! What lies there are attempts of a [`crate::lane`], which keeps the order and decides what is tried again. The desk
//! decides who gets them, and whose word about them counts.
//!
//! # Laws
//!
//! 1. A delivery is with one worker at the most; it comes back when its time is over, however many were told to take it.
//! 2. A worker's word counts as long as its delivery is out: the [`Token`] names it, and no other delivery has the same.
//! 3. What workers ask for bounds what lies there ([`Desk::capacity`]); nothing is laid for nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::offset::Offset;
use crate::time::Timestamp;

/// Bytes of a token before it becomes a text.
const TOKEN_BYTES: usize = 24;

/// Names one delivery to one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Of whose desk; a number that [`consumer_number`] makes.
    pub consumer: u32,
    /// Which event.
    pub offset: Offset,
    /// Counts from 1.
    pub attempt: u32,
    /// Chance, so that a delivery after a crash or a replay is another one.
    pub nonce: u64,
}

/// A short number for a consumer's id (FNV-1a): a token shown to another consumer is refused.
pub fn consumer_number(id: &str) -> u32 {
    id.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Token {
    /// The token as it is given to workers.
    pub fn to_text(self) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..4].copy_from_slice(&self.consumer.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[16..].copy_from_slice(&self.nonce.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let number = |from: usize, to: usize| bytes[from..to].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(Self {
            consumer: u32::try_from(number(0, 4)).ok()?,
            offset: Offset(number(4, 12)),
            attempt: u32::try_from(number(12, 16)).ok()?,
            nonce: number(16, 24),
        })
    }
}

/// A desk.
#[derive(Debug)]
pub struct Desk {
    consumer: u32,
    /// Deliveries that workers wait for.
    asked: usize,
    ready: VecDeque<Offset>,
    laid: BTreeMap<Offset, Laid>,
    /// Of what is out.
    deadlines: BTreeSet<(Timestamp, Offset)>,
    paused: bool,
}

#[derive(Debug)]
struct Laid {
    attempt: u32,
    out: Option<Out>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    nonce: u64,
    until: Timestamp,
}

impl Desk {
    /// An empty desk.
    pub fn new(consumer: u32) -> Self {
        Self {
            consumer,
            asked: 0,
            ready: VecDeque::new(),
            laid: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            paused: false,
        }
    }

    /// Notes that a worker waits for up to `count` deliveries.
    pub fn ask(&mut self, count: usize) {
        self.asked += count;
    }

    /// Notes that it waits no more.
    pub fn unask(&mut self, count: usize) {
        self.asked = self.asked.saturating_sub(count);
    }

    /// How many attempts may be under way: what is out, and what is asked for.
    pub fn capacity(&self) -> usize {
        if self.paused { 0 } else { self.asked + self.deadlines.len() }
    }

    /// Gives nothing out until it is told to go on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Lays an attempt ready.
    pub fn lay(&mut self, offset: Offset, attempt: u32) {
        self.remove(offset);
        self.laid.insert(offset, Laid { attempt, out: None });
        self.ready.push_back(offset);
    }

    /// Gives a worker up to `max` deliveries until `now + wait`.
    pub fn take(
        &mut self,
        max: usize,
        now: Timestamp,
        wait: Duration,
        mut nonce: impl FnMut() -> u64,
    ) -> Vec<(Token, Timestamp)> {
        let mut given = Vec::new();
        while !self.paused && given.len() < max {
            let Some(offset) = self.ready.pop_front() else { break };
            let Some(laid) = self.laid.get_mut(&offset) else { continue };
            let out = Out { nonce: nonce(), until: now.plus(wait) };
            laid.out = Some(out);
            self.deadlines.insert((out.until, offset));
            let token = Token { consumer: self.consumer, offset, attempt: laid.attempt, nonce: out.nonce };
            given.push((token, out.until));
        }
        given
    }

    /// Takes the word of a worker that is done with a delivery, well or not; false if that is not out any more.
    pub fn end(&mut self, token: Token) -> bool {
        let out = self.is_out(token).is_some();
        if out {
            self.remove(token.offset);
        }
        out
    }

    /// Gives the worker of a delivery time until `until`; false if that is not out any more.
    pub fn extend(&mut self, token: Token, until: Timestamp) -> bool {
        let Some(out) = self.is_out(token) else { return false };
        self.deadlines.remove(&(out.until, token.offset));
        self.deadlines.insert((until, token.offset));
        if let Some(laid) = self.laid.get_mut(&token.offset) {
            laid.out = Some(Out { until, ..out });
        }
        true
    }

    fn is_out(&self, token: Token) -> Option<Out> {
        let laid = self.laid.get(&token.offset).filter(|laid| laid.attempt == token.attempt)?;
        laid.out.filter(|out| out.nonce == token.nonce)
    }

    /// Takes away what is out and whose time is over at `now`.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Offset> {
        let mut over = Vec::new();
        while let Some(&(until, offset)) = self.deadlines.first()
            && until <= now
        {
            self.remove(offset);
            over.push(offset);
        }
        over
    }

    /// When [`Desk::expire`] should be asked again, if nothing else happens before.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Takes an attempt away: its lane has taken it back.
    pub fn remove(&mut self, offset: Offset) {
        match self.laid.remove(&offset).and_then(|laid| laid.out) {
            Some(out) => drop(self.deadlines.remove(&(out.until, offset))),
            None => self.ready.retain(|other| *other != offset),
        }
    }

    /// Whether something lies ready to be taken.
    pub fn has_ready(&self) -> bool {
        !self.paused && !self.ready.is_empty()
    }

    /// Deliveries that are out.
    pub fn out(&self) -> usize {
        self.deadlines.len()
    }
}

#[cfg(test)]
mod tests;
