//! What was sent and what was promised about it: written before the request leaves and when its answer is read, in a
//! process that no fault kills.

use super::event::{Mark, Place, Run};
use std::time::Duration;

/// How a request carries its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON object.
    Single,
    /// `application/x-ndjson`.
    Lines,
    /// One JSON array.
    Array,
}

/// What makes a repeated request harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Each event has the sender's own `eventId`.
    OwnIds,
    /// The request has an `Idempotency-Key`; the server names the events.
    IdempotencyKey,
}

/// What the server said about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Place in the log.
    pub offset: u64,
    /// Place in the aggregate, if it has one.
    pub sequence: Option<u64>,
    /// The server's name for it; `None` where the sender's own was confirmed.
    pub event_id: Option<Box<str>>,
}

/// An acknowledgement.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    /// Wall clock when the last byte of it was read.
    pub at: Duration,
    /// One for each event, in order.
    pub numbers: Vec<Numbers>,
}

/// A request, from before it was first sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Its number: its index in the ledger.
    pub no: u32,
    /// How it travels.
    pub shape: Shape,
    /// What makes it repeatable.
    pub naming: Naming,
    /// Its events, in order.
    pub marks: Vec<Mark>,
    /// The first acknowledgement; `None` is an unknown outcome.
    pub ack: Option<Ack>,
}

impl Request {
    /// The place of the event at `index`.
    pub(super) fn place(&self, index: usize) -> Place {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { request: self.no, index: small(index), of: small(self.marks.len()) }
    }

    /// The bytes that go out, the same at every repetition.
    pub(super) fn body(&self, run: &Run) -> Vec<u8> {
        let own = self.naming == Naming::OwnIds;
        let texts: Vec<String> =
            self.marks.iter().enumerate().map(|(i, &mark)| run.envelope(mark, self.place(i), own)).collect();
        match self.shape {
            Shape::Single => texts.concat(),
            Shape::Lines => texts.join("\n") + "\n",
            Shape::Array => format!("[{}]", texts.join(",")),
        }
        .into_bytes()
    }
}

/// Everything sent in one run.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    /// The run.
    pub run: Run,
    /// Every request, by number.
    pub requests: Vec<Request>,
    /// Answers that break the contract by themselves.
    pub violations: Vec<String>,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(run: Run) -> Self {
        Self { run, requests: Vec::new(), violations: Vec::new() }
    }

    /// Notes a request that is about to be sent for the first time.
    pub(super) fn plan(&mut self, shape: Shape, naming: Naming, marks: Vec<Mark>) -> Request {
        let no = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        let request = Request { no, shape, naming, marks, ack: None };
        self.requests.push(request.clone());
        request
    }

    /// Notes an acknowledgement. A second one of the same request must say the same as the first.
    pub(super) fn acked(&mut self, no: u32, ack: Ack) {
        let Some(request) = self.requests.get_mut(no as usize) else { return };
        match &request.ack {
            None => request.ack = Some(ack),
            Some(first) if first.numbers == ack.numbers => {}
            Some(first) => {
                let at = first.numbers.iter().zip(&ack.numbers).position(|(a, b)| a != b).unwrap_or(0);
                let (was, is) = (first.numbers.get(at), ack.numbers.get(at));
                self.violations.push(format!("request {no}, repeated, was answered {is:?} after {was:?} (event {at})"));
            }
        }
    }

    /// Events with an acknowledgement read before `cutoff`, or ever.
    pub(super) fn acked_events(&self, cutoff: Option<Duration>) -> u64 {
        let promised = |r: &&Request| r.ack.as_ref().is_some_and(|a| cutoff.is_none_or(|c| a.at < c));
        self.requests.iter().filter(promised).map(|r| r.marks.len() as u64).sum()
    }

    /// Requests whose outcome is not known.
    pub(super) fn unknown_requests(&self) -> usize {
        self.requests.iter().filter(|r| r.ack.is_none()).count()
    }
}
