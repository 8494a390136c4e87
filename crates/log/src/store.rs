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
//! 10. **A dead letter keeps its event**: retention copies what an open dead letter, or a row that waits or is parked,
//!     still needs; an erasure reaches the copy too.
//! 11. **What one caller hands over in order is applied in that order**, whether or not it waits for the answers in
//!     between: [`Store::commit`] has the place when it returns, before its answer is polled. A commit that fails or is
//!     refused leaves a gap; those handed over after it are tried all the same.
//! 12. **A page is whole from [`Page::first`] on**: it lacks what retention had taken when it was read, and nothing else,
//!     also when retention goes on meanwhile.
//!
//! [`crate::conformance`] runs them on every engine.

mod deliveries;
mod walk;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::chain::Hash;
use tidings_core::event::Encoded;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::posting::Posting;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use crate::event::{Event, Tenant};
use crate::query::{Frame, Framed, Page, Query};
use crate::tail::Tail;
pub use deliveries::{
    Attempt, Behind, DeadCounts, DeadLetter, DeadQuery, DeadState, Letter, Progress, Settle, Sweep, Swept,
};
pub use walk::walk;

/// An answer that is under way.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long a request key and its answer are kept, at least.
pub const REQUEST_KEPT: Duration = Duration::from_hours(24);

/// An engine that keeps the log.
pub trait Store: Send + Sync {
    /// Commits `writes`, all or none, at `now`. The answers are in their order. Their place among other commits is that
    /// of this call (law 11); dropping what it gives back takes nothing back.
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

    /// A page of frames: of the events that [`Store::read`] finds, each as `frame` writes it; none more once there are
    /// `bytes_max`. For who passes events on: an engine need not make them.
    fn frame(&self, query: Query, bytes_max: usize, frame: Frame) -> Pending<Result<Framed, Unavailable>> {
        let page = self.read(query);
        Box::pin(async move {
            let page = page.await?;
            let framed = Framed::of(&page.events, page.reached, bytes_max, &frame);
            Ok(Framed { more: framed.more || page.more, first: page.first, ..framed })
        })
    }

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

    /// Up to `limit` subscriptions with names after `after` that have a progress of their own, in order.
    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Behind>, Unavailable>>;

    /// The cursors of all slots.
    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>>;

    /// Up to `limit` recent attempts of deliveries of one event, oldest first.
    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>>;

    /// Up to `limit` attempts of a subscription made before the one with number `before`, newest first, each with its
    /// number. Newest is what was committed last, and within a commit what stands last, but for attempts of events that
    /// lie far from each other.
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
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large ones are those that are written most")]
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
    /// Says what became of open dead letters; those that are not open stay as they are. What retention has taken of
    /// their events goes with them, unless a row needs it at the end of the commit.
    Close(Tenant, Vec<Box<str>>, DeadState),
    /// Forgets a subscription: its progress, its dead letters, its history.
    Forget(Box<str>),
    /// Removes the oldest events through an offset, at the granularity of seals. Their history goes too, later.
    Trim(Tenant, Offset),
    /// Starts an era: offsets jump, so that cursors of a lost past are noticed.
    Era(Tenant),
}

/// Events to append to one tenant, in order, all or none.
#[derive(Clone, Debug)]
pub struct Append {
    /// Whose.
    pub tenant: Tenant,
    /// The events.
    pub events: Vec<Prepared>,
    /// The producer's request key, if it gave one.
    pub request: Option<RequestKey>,
}

/// An event ready to append, with the keys under which it will be found.
#[derive(Clone, Debug)]
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
    /// A consumer: a queue that workers fetch from.
    Consumer,
    /// How a subscription stands (`tidings_core::circuit::Standing`); its id is the subscription's.
    Standing,
    /// A replay under way.
    Replay,
    /// A stream ticket that was used.
    Ticket,
    /// Something of the installation itself.
    Setting,
    /// How far a source has been read.
    Position,
    /// A row of a source that has not become an event.
    Quarantined,
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
