//! Replays: events of the past are sent again beside live traffic, in order within themselves.
//!
//! A replay turns events into rows of the lane, a few at a time, in the commit that says how far it is. From there they
//! are deliveries like others: they wait for what is before them in their aggregate, they are tried again, and a crash
//! neither loses nor repeats them.

use foldhash::HashSet;
use serde::{Deserialize, Serialize};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_core::rate::{Bucket, Rate};
use tidings_core::time::Timestamp;
use tidings_log::store::{Document, Expect, Kind, Owner};
use tidings_log::{Tenant, Write};

/// Deliveries of a replay that are under way at once.
pub(super) const ROWS_MAX: usize = 32;

/// A replay to be made; kept as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// What it is called; sent along as `tidings-replay`.
    pub id: Box<str>,
    /// Whose.
    pub subscription: Box<str>,
    /// When it began.
    pub created_at: Timestamp,
    /// It is through with everything up to here.
    pub position: Offset,
    /// The last event that it may send.
    pub to: Offset,
    /// Only these; none given: every type that the subscription takes.
    pub event_types: Vec<TypePattern>,
    /// Only these, in order; none given: all between `position` and `to`.
    pub offsets: Vec<Offset>,
    /// Whether it sends what was delivered before.
    pub only: Only,
    /// Open dead letters in its range: offset and id. They count as undelivered, and are closed as they are sent.
    pub letters: Vec<(Offset, Box<str>)>,
    /// How many events it sends in a time, at the most.
    pub rate: Rate,
    /// Events sent so far.
    pub sent: u64,
}

/// Which events of a range a replay sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Only {
    /// Those that were given up or jumped over.
    #[default]
    Undelivered,
    /// Delivered ones too.
    All,
}

impl Job {
    /// What keeps it.
    pub fn put(&self, tenant: Tenant) -> Write {
        let (kind, owner) = (Kind::Replay, Owner::Tenant(tenant));
        let body = serde_json::to_vec(self).unwrap_or_default();
        Write::Put(Document { kind, owner, id: self.key(), revision: 0, body }, Expect::Any)
    }

    /// What forgets it.
    pub fn remove(&self, tenant: Tenant) -> Write {
        Write::Remove(Kind::Replay, Owner::Tenant(tenant), self.key())
    }

    /// The id of its document: those of a subscription stand together.
    fn key(&self) -> Box<str> {
        format!("{}/{}", self.subscription, self.id).into()
    }
}

/// A replay under way.
pub(super) struct Replay {
    pub(super) job: Job,
    bucket: Bucket,
}

impl Replay {
    pub(super) fn new(job: Job, now: Timestamp) -> Self {
        Self { bucket: Bucket::new(job.rate, now), job }
    }

    /// Whether it has looked at everything.
    pub(super) fn is_through(&self) -> bool {
        self.job.position >= self.job.to
    }

    /// The filter of what it reads, given that of the subscription.
    pub(super) fn filter(&self, filter: &Filter) -> Filter {
        // What the subscription does not take is sorted out when the events are there.
        match &self.job.event_types[..] {
            [] => filter.clone(),
            types => Filter { types: types.to_vec(), ..filter.clone() },
        }
    }

    /// Whether it sends an event; `skipped`: somebody jumped over it.
    pub(super) fn wants(&self, offset: Offset, skipped: bool) -> bool {
        (self.job.offsets.is_empty() || self.job.offsets.binary_search(&offset).is_ok())
            && (self.job.only == Only::All || skipped || self.letter(offset).is_some())
    }

    /// The open dead letter of an event.
    pub(super) fn letter(&self, offset: Offset) -> Option<&str> {
        let place = self.job.letters.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.job.letters.get(place).map(|(_, id)| &**id)
    }

    /// Notes that the dead letters of these events are closed.
    pub(super) fn forget(&mut self, closed: &HashSet<Offset>) {
        if !closed.is_empty() {
            self.job.letters.retain(|(offset, _)| !closed.contains(offset));
        }
    }

    /// When it may send the next event.
    pub(super) fn due(&mut self, now: Timestamp) -> Timestamp {
        self.bucket.next(now)
    }

    /// Counts an event.
    pub(super) fn count(&mut self) {
        self.bucket.take();
        self.job.sent += 1;
    }
}
