//! The seam to the log: reads, and one write.
//!
//! # Laws
//!
//! 1. **Acknowledged means durable.** [`Store::commit`] answers `Ok` only after everything in it is synced to disk.
//! 2. **A commit is atomic.** All of its writes are kept, or none; a refusal leaves nothing and disturbs no neighbour.
//! 3. **Offsets are dense** per tenant from 1, in commit order, but for the jump of an era. A reader that has seen offset
//!    n never later sees a smaller one appear.
//! 4. **Sequence numbers are dense** per aggregate from 1 and outlive retention.
//! 5. **`recorded` never goes back** within a tenant, whatever the clock does.
//! 6. **A repeated `eventId` makes no second event**: same content is answered with the first event's numbers, other
//!    content is refused. The same holds for a request key, whose first answer is kept for a day.
//! 7. **What was answered can be read**: a commit is visible to every reader before its answer leaves.
//! 8. **Nothing is committed after a failed sync.** The store is fenced; only a restart, which reads what the disk
//!    really has, ends that.
//! 9. **A subscription's cursor** is its own while it has a progress, else the one of its slot for its tenant, else that
//!    it was started with. A sweep that takes progress away and moves the slot's cursor is one commit.
//! 10. **A dead letter keeps its event**: retention copies what a dead letter or a row still needs; an erasure reaches
//!     the copy too.
//!
//! [`crate::conformance`] runs them on every engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::chain::Hash;
use tidings_core::event::Encoded;
use tidings_core::id::EventId;
use tidings_core::lane::{Changes, Row};
use tidings_core::offset::Offset;
use tidings_core::posting::Posting;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use crate::event::{Event, Tenant};
use crate::query::{Page, Query};
use crate::tail::Tail;

/// An answer that is under way.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Subscriptions, each with a number.
pub type DeadCounts = Vec<(Box<str>, u64)>;

/// How long a request key and its answer are kept, at least.
pub const REQUEST_KEPT: Duration = Duration::from_hours(24);

/// An engine that keeps the log.
pub trait Store: Send + Sync {
    /// Commits `writes`, all or none, at `now`. The answers are in their order.
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>>;

    /// The number of the tenant called `name`, if it has ever been written to.
    fn tenant(&self, name: &TenantName) -> Option<Tenant>;

    /// All tenants, by number.
    fn tenants(&self) -> Vec<(Tenant, TenantName)>;

    /// Where a tenant's log begins and ends.
    fn extent(&self, tenant: Tenant) -> Extent;

    /// If `cursor` belongs to a past that an era replaced (it lies in the jump before one): the era's first offset.
    fn replaced_by(&self, tenant: Tenant, cursor: Offset) -> Option<Offset>;

    /// The hot end of the log, in memory.
    fn tail(&self) -> &Tail;

    /// A page of events.
    fn read(&self, query: Query) -> Pending<Result<Page, Unavailable>>;

    /// The event at an offset: also after retention took it, while a dead letter or a row of a subscription needs it.
    fn event(&self, tenant: Tenant, offset: Offset) -> Pending<Result<Option<Arc<Event>>, Unavailable>>;

    /// The event called `id`.
    fn find(&self, tenant: Tenant, id: &EventId) -> Pending<Result<Option<Arc<Event>>, Unavailable>>;

    /// The largest offset recorded before `time`: an exclusive start for whoever wants everything since.
    fn before(&self, tenant: Tenant, time: Timestamp) -> Pending<Result<Offset, Unavailable>>;

    /// The newest seal of a tenant's chain.
    fn sealed(&self, tenant: Tenant) -> Option<Seal>;

    /// One document.
    fn get(&self, kind: Kind, owner: Owner, id: &str) -> Pending<Result<Option<Document>, Unavailable>>;

    /// Up to `limit` documents of a kind by id, those after `after`; of every owner if `owner` is `None`.
    fn list(
        &self,
        kind: Kind,
        owner: Option<Owner>,
        after: &str,
        limit: usize,
    ) -> Pending<Result<Vec<Document>, Unavailable>>;

    /// What a subscription has of its own, or `None` if its cursor is that of its slot (law 9).
    fn progress(&self, subscription: &str) -> Pending<Result<Option<Progress>, Unavailable>>;

    /// Up to `limit` names of subscriptions after `after` that have a progress of their own, in order.
    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Box<str>>, Unavailable>>;

    /// The cursors of all slots.
    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>>;

    /// Up to `limit` recent attempts of deliveries of one event, oldest first.
    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>>;

    /// Up to `limit` attempts of a subscription made before the one with number `before`, newest first, each with its
    /// number.
    fn history(
        &self,
        subscription: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<Result<Vec<(u64, Attempt)>, Unavailable>>;

    /// One dead letter of a tenant.
    fn dead_letter(&self, tenant: Tenant, id: &str) -> Pending<Result<Option<DeadLetter>, Unavailable>>;

    /// Dead letters of a tenant, newest first.
    fn dead_letters(&self, query: DeadQuery) -> Pending<Result<Vec<DeadLetter>, Unavailable>>;

    /// How many open dead letters each subscription has, those that have none left out.
    fn dead_counts(&self) -> Pending<Result<DeadCounts, Unavailable>>;

    /// Resolves with the reason once the store is fenced (law 8). The process should end then.
    fn fenced(&self) -> Pending<String>;

    /// Ends the engine's threads after what is queued.
    fn close(&self);
}

/// One change.
#[derive(Debug)]
pub enum Write {
    /// Makes sure that a tenant exists.
    Tenant(TenantName),
    /// Appends events.
    Append(Append),
    /// Drops an event's payload, keeps its place and its leaf.
    Erase(Tenant, EventId),
    /// Creates or replaces a document.
    Put(Document, Expect),
    /// Removes a document; removing one that is not there is no fault.
    Remove(Kind, Owner, Box<str>),
    /// Moves a subscription's cursor and what stands beside it.
    Settle(Settle),
    /// Moves the cursor of a slot, which current subscriptions share.
    Sweep(Sweep),
    /// Says what became of open dead letters; those that are not open stay as they are.
    Close(Tenant, Vec<Box<str>>, DeadState),
    /// Forgets a subscription: its progress, its dead letters.
    Forget(Box<str>),
    /// Removes the oldest events through an offset, at the granularity of seals.
    Trim(Tenant, Offset),
    /// Starts an era: offsets jump, so that cursors of a lost past are noticed.
    Era(Tenant),
}

/// Events to append to one tenant, in order, all or none.
#[derive(Debug)]
pub struct Append {
    /// Whose.
    pub tenant: Tenant,
    /// The events.
    pub events: Vec<Prepared>,
    /// The producer's request key, if it gave one.
    pub request: Option<RequestKey>,
}

/// An event ready to append, with the keys under which it will be found.
#[derive(Debug)]
pub struct Prepared {
    /// The event.
    pub encoded: Encoded,
    /// Its postings.
    pub postings: Vec<Posting>,
    /// The posting of its aggregate.
    pub aggregate: Option<Posting>,
}

impl Prepared {
    /// Computes the keys of `encoded` for `tenant`.
    pub fn new(tenant: Tenant, encoded: Encoded) -> Self {
        let (postings, aggregate) = tidings_core::posting::postings(tenant.0, &encoded.subject);
        Self { encoded, postings, aggregate }
    }
}

/// A key by which a producer repeats a whole request (`Idempotency-Key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Digest of tenant, method, path and key.
    pub key: Hash,
    /// Digest of the body.
    pub body: Hash,
}

/// What became of one event of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its id.
    pub id: EventId,
    /// Its place in the tenant's order.
    pub offset: Offset,
    /// Its place in its aggregate.
    pub sequence: Option<u64>,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// The answer to one [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The tenant's number.
    Tenant(Tenant),
    /// What became of each event; `replayed` if this is the kept answer to an earlier request with the same key.
    Appended {
        /// In the order of the events.
        results: Vec<Appended>,
        /// Whether the answer is a kept one.
        replayed: bool,
    },
    /// The place of the event whose payload is gone now.
    Erased(Offset),
    /// The document's new revision.
    Put(u64),
    /// The first offset that is still kept.
    Trimmed(Offset),
    /// Done.
    Done,
}

/// Why a commit left nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It contradicts what is there.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// It could not be tried, or its fate is unknown.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a commit contradicts. `index` counts the events of its `Append`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The id belongs to an event with other content.
    IdTaken {
        /// Which event.
        index: usize,
    },
    /// `expectedSequence` is not the aggregate's last number.
    Sequence {
        /// Which event.
        index: usize,
        /// The aggregate's last number, 0 if it is new.
        current: u64,
    },
    /// The request key came with another body before.
    RequestKeyReused,
    /// There is no such event.
    NoSuchEvent,
    /// The document was changed or made by somebody else.
    Revision,
}

/// Why the store cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// More is queued than may wait.
    #[error("too much is waiting to be committed")]
    Busy,
    /// The disk is full. Heals by itself.
    #[error("the disk is full")]
    Full,
    /// A sync failed, or the file is damaged: see law 8.
    #[error("the log is fenced: {0}")]
    Fenced(Arc<str>),
    /// What was read does not match its checksum.
    #[error("damaged event at offset {0}: run `tidings audit verify`")]
    Damaged(Offset),
    /// Any other trouble; trying again may help.
    #[error("the log cannot be reached: {0}")]
    Trouble(Arc<str>),
}

/// Where a tenant's log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// The oldest event that is kept, or the one that comes next.
    pub first: Offset,
    /// The newest event, or the offset before the first.
    pub head: Offset,
    /// Where the present era began; cursors between the former era's end and here belong to a lost past.
    pub era: Offset,
}

/// A seal of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The first offset it covers.
    pub first: Offset,
    /// The last one.
    pub last: Offset,
    /// Its hash, which covers all before it.
    pub hash: Hash,
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An API key.
    Key,
    /// A webhook.
    Webhook,
    /// How a subscription stands (`tidings_core::circuit::Standing`); its id is the subscription's.
    Standing,
    /// A replay under way.
    Replay,
    /// Something of the installation itself.
    Setting,
}

/// Whose a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The operator's.
    Operator,
    /// A tenant's.
    Tenant(Tenant),
}

/// A registry entry: JSON that the log keeps and does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub kind: Kind,
    /// Whose.
    pub owner: Owner,
    /// Unique within kind and owner.
    pub id: Box<str>,
    /// Counts its changes from 1; ignored when written.
    pub revision: u64,
    /// The JSON text.
    pub body: Vec<u8>,
}

/// What must hold for a [`Write::Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The document is not there yet.
    New,
    /// Its revision is this one.
    Revision(u64),
}

/// A change of a subscription's progress. Rows for events that the cursor passes unsettled commit with it.
///
/// `changes.standing` and `changes.notices` are not the log's: whoever commits puts them into writes beside this one.
#[derive(Clone, Debug, Default)]
pub struct Settle {
    /// Whose.
    pub subscription: Box<str>,
    /// In which tenant.
    pub tenant: Tenant,
    /// Cursor, acks, rows.
    pub changes: Changes,
    /// What is kept of `changes.dead`, in its order: ids and types.
    pub letters: Vec<Letter>,
    /// Attempts made since the last commit.
    pub attempts: Vec<Attempt>,
}

/// What a dead letter is called, and what its event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Unique in the log; later ones are greater.
    pub id: Box<str>,
    /// The type of the event.
    pub event_type: Box<str>,
}

/// A slot's cursor, and who follows it from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// In which tenant.
    pub tenant: Tenant,
    /// Which slot; a number that the dispatcher gives.
    pub slot: u8,
    /// Everything through here is settled for every subscription of the slot that has no progress of its own.
    pub through: Offset,
    /// Subscriptions that are settled through here: what they have of their own goes. Their dead letters stay.
    pub current: Vec<Box<str>>,
}

/// The cursor of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// In which tenant.
    pub tenant: Tenant,
    /// Which slot.
    pub slot: u8,
    /// How far it is.
    pub through: Offset,
}

/// What a subscription has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything through here is settled but for `rows`.
    pub cursor: Offset,
    /// What is settled above the cursor (see [`tidings_core::lane::Acks`]).
    pub acked: Vec<u8>,
    /// What waits, by offset.
    pub rows: Vec<Row>,
}

/// A delivery given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it is called.
    pub id: Box<str>,
    /// Who did not get it.
    pub subscription: Box<str>,
    /// Whose event.
    pub tenant: Tenant,
    /// Which event.
    pub offset: Offset,
    /// Its type.
    pub event_type: Box<str>,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Box<str>,
    /// When it was given up.
    pub at: Timestamp,
    /// What became of it.
    pub state: DeadState,
}

/// What became of a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeadState {
    /// Nothing yet.
    #[default]
    Open,
    /// It was sent again; if that failed too, there is another one.
    Replayed {
        /// When.
        at: Timestamp,
    },
    /// Somebody gave it up for good.
    Discarded {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Box<str>,
    },
}

/// Which dead letters.
#[derive(Clone, Debug)]
pub struct DeadQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Of one subscription.
    pub subscription: Option<Box<str>>,
    /// Of one type of events.
    pub event_type: Option<Box<str>>,
    /// Given up then or later.
    pub since: Option<Timestamp>,
    /// Only those that are open.
    pub open: bool,
    /// Those with smaller ids: the next page.
    pub before: Option<Box<str>>,
    /// At most so many.
    pub limit: usize,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose.
    pub subscription: Box<str>,
    /// Which event.
    pub offset: Offset,
    /// Counts from 1; from 1 again in a replay.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why it failed; `None` for a success.
    pub reason: Option<Box<str>>,
    /// The beginning of the answer, if it was a text.
    pub answer: Option<Box<str>>,
    /// Whether it belongs to a replay.
    pub replay: bool,
}
