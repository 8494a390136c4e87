//! What the harness sends: events whose every byte follows from who sent them and their place, so that a reader can
//! tell a right one from a changed, doubled or invented one without keeping it.

use super::chance::Chance;
use serde::Deserialize;
use std::fmt::Write as _;

/// Which event: the `n`-th (from 1) of `key`. Each key has one sender, so `n` is the order of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Mark {
    /// The ordering key.
    pub key: u32,
    /// The place within the key.
    pub n: u32,
}

/// Where in which request an event travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the request in the ledger.
    pub request: u32,
    /// Position within the request, from 0.
    pub index: u32,
    /// Events in the request.
    pub of: u32,
}

/// One run of a fault: its tag is in every event, so that nothing foreign passes for ours.
#[derive(Debug, Clone)]
pub(super) struct Run {
    tag: String,
}

/// What a stored event says about itself in `data`.
#[derive(Debug, Deserialize)]
pub(super) struct Label {
    run: String,
    k: u32,
    n: u32,
    request: u32,
    index: u32,
    of: u32,
}

impl Label {
    /// The event it claims to be.
    pub(super) fn mark(&self) -> Mark {
        Mark { key: self.k, n: self.n }
    }

    /// The place it claims to have been sent in.
    pub(super) fn place(&self) -> Place {
        Place { request: self.request, index: self.index, of: self.of }
    }

    /// Whether it claims to be of `run`.
    pub(super) fn is_of(&self, run: &Run) -> bool {
        self.run == run.tag
    }
}

const TYPES: [&str; 4] = ["order.created", "order.shipped", "message.received", "invoice.line.added"];

impl Run {
    /// The run that belongs to `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { tag: format!("f{:010x}", Chance::new(seed).next() >> 24) }
    }

    /// Every eighth key has no aggregate: such events have no `sequenceNumber`, only an order.
    pub(super) fn aggregate(&self, key: u32) -> Option<String> {
        (key % 8 != 7).then(|| format!("{}-k{key}", self.tag))
    }

    /// The event type of a key.
    pub(super) fn event_type(key: u32) -> &'static str {
        TYPES[key as usize % TYPES.len()]
    }

    /// The id a producer that names its own events gives this one.
    pub(super) fn own_id(&self, mark: Mark) -> String {
        format!("{}-{}-{}", self.tag, mark.key, mark.n)
    }

    /// The key that makes a request repeatable.
    pub(super) fn idempotency_key(&self, request: u32) -> String {
        format!("{}-r{request}", self.tag)
    }

    /// Text that stands in the envelope of this event only.
    pub(super) fn envelope_marker(&self, mark: Mark) -> String {
        format!("{}.{}.{}.", self.tag, mark.key, mark.n)
    }

    /// The exact bytes of `data`: a number that a careless server would rewrite, and 16 to 400 bytes of filling.
    pub(super) fn data(&self, mark: Mark, place: Place) -> String {
        let mut chance = Chance::new((u64::from(mark.key) << 32) | u64::from(mark.n));
        let mut text = format!(
            r#"{{"run":"{}","k":{},"n":{},"request":{},"index":{},"of":{},"price":1.10,"fill":""#,
            self.tag, mark.key, mark.n, place.request, place.index, place.of
        );
        for _ in 0..=chance.below(24) {
            let _ = write!(text, "{:016x}", chance.next());
        }
        text.push_str(if chance.one_in(4) { "é\\u00e9\\n\"}" } else { "\"}" });
        text
    }

    /// The event as it is published, on one line.
    pub(super) fn envelope(&self, mark: Mark, place: Place, own_id: bool) -> String {
        let mut text = String::from("{");
        if own_id {
            let _ = write!(text, r#""eventId":"{}","#, self.own_id(mark));
        }
        if let Some(aggregate) = self.aggregate(mark.key) {
            let _ = write!(text, r#""aggregateId":"{aggregate}","#);
        }
        let _ = write!(
            text,
            r#""eventType":"{}","metadata":{{"mark":"{}"}},"data":{}}}"#,
            Self::event_type(mark.key),
            self.envelope_marker(mark),
            self.data(mark, place)
        );
        text
    }
}
