//! Delivers the log to subscriptions.
//!
//! A *shard* is a thread's part of the work: the slots that fall to it, and a runtime of its own. In it a *sweeper* for
//! each tenant follows the tail of the log, finds by an index who wants an event, and puts it into that lane's *inbox*. A
//! *lane* is a task that exists while its subscription has something to do: it sends, settles, commits. Who falls behind
//! reads from the log by itself until it has caught up with the sweeper.
//!
//! What is decided stands in `tidings_core::lane`; here is the shell that acts on it. A subscription that has nothing to
//! do costs an entry in memory and no row on disk: its cursor is that of its slot.

mod attempt;
mod entry;
mod ledger;
mod meter;
mod notice;
mod orders;
mod reading;
mod replay;
mod room;
mod runner;
mod shard;
mod shelf;
mod signals;
mod sweeper;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_core::circuit::Standing;
use tidings_core::filter::Filter;
use tidings_core::lane::{Changes, Settings};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{Document, Kind, Settle, walk};
use tidings_log::{CommitError, Store, Tenant, Unavailable, Write};
use tidings_sinks::Sink;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use orders::{Order, Outcome, Point, Word};
pub use replay::{Job, Only};
pub use room::ATTEMPTS_MAX;
use shard::Shard;

/// Slots that subscriptions are dealt to; a number that is kept on disk.
pub const SLOTS: u8 = 64;
/// Subscriptions read at once.
const PAGE: usize = 1_000;

/// What a subscription is to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscriber {
    /// A webhook; its id is that of the subscription.
    Webhook,
    /// A consumer, by its name.
    Consumer(Box<str>),
}

/// Who gets which events, and how.
pub struct Subscription {
    /// Unique in the log; names its progress.
    pub id: Box<str>,
    /// Whose events.
    pub tenant: Tenant,
    /// Which of them.
    pub filter: Arc<Filter>,
    /// The cursor, if the log keeps none of it.
    pub start: Offset,
    /// It was made just now: the log keeps nothing of it but its [`opening`].
    pub fresh: bool,
    /// What it asks of its lane.
    pub settings: Settings,
    /// What it is to people.
    pub subscriber: Subscriber,
    /// Whether what becomes of it is told by `tidings.*` events; those of notices are not.
    pub told: bool,
    /// The way to the subscriber.
    pub sink: Arc<dyn Sink>,
}

/// What is committed together with a new subscription: where it begins.
pub fn opening(id: &str, tenant: Tenant, start: Offset) -> Write {
    let changes = Changes { cursor: start, ..Changes::default() };
    Write::Settle(Settle { subscription: id.into(), tenant, changes, ..Settle::default() })
}

/// Time and chance.
#[derive(Clone, Copy)]
pub struct Env {
    /// The time.
    pub now: fn() -> Timestamp,
    /// Fills a buffer with chance.
    pub random: fn(&mut [u8]),
}

impl Env {
    /// Chance from 0 to 1.
    fn jitter(self) -> f64 {
        let mut random = [0; 4];
        (self.random)(&mut random);
        f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
    }
}

/// How a subscription stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Whether it is sent to, and how it fared lately.
    pub standing: Standing,
    /// Everything through here is settled but for what waits.
    pub cursor: Offset,
    /// How many events lie after the cursor, whether they match or not.
    pub lag: u64,
    /// Attempts being made.
    pub in_flight: usize,
    /// Deliveries under way or waiting, as far as they are known.
    pub pending: usize,
    /// Aggregates that wait for what becomes of a dead letter.
    pub parked: usize,
    /// Open dead letters.
    pub dead: u64,
}

/// What all subscriptions together have to do, without those that are paused or deactivated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Deliveries that are not made yet; of subscriptions that are behind, the events that they have not looked at count.
    pub queued: u64,
    /// The largest number of events between a cursor and the head.
    pub lag: u64,
    /// Open dead letters of all.
    pub dead: u64,
    /// Attempts being made.
    pub in_flight: u64,
    /// Subscriptions by state: active, paused, deactivated.
    pub states: [u64; 3],
    /// Attempts since the start: delivered, failed.
    pub attempts: [u64; 2],
    /// Lanes and sweepers that panicked since the start, and began again.
    pub panics: u64,
    /// Of the deliveries of the last minute: how many, and the milliseconds from record to success of all of them.
    pub recent: (u64, u64),
}

/// Runs the lanes of all subscriptions.
pub struct Dispatcher {
    shards: Vec<Arc<Shard>>,
}

impl Dispatcher {
    /// A dispatcher without subscriptions, a shard for each of `runtimes` (at least one): what runs for a shard runs there.
    ///
    /// It reads once what the log keeps of subscriptions. `attempts_max`: most attempts in flight, each an open file.
    pub async fn open(
        store: Arc<dyn Store>,
        env: Env,
        runtimes: Vec<Handle>,
        attempts_max: usize,
    ) -> Result<Self, Unavailable> {
        let count = runtimes.len();
        let places = attempts_max.min(ATTEMPTS_MAX).div_ceil(count);
        let shards: Vec<_> =
            runtimes.into_iter().map(|runtime| Shard::new(Arc::clone(&store), env, runtime, places)).collect();
        let dispatcher = Self { shards };
        for swept in store.swept().await? {
            dispatcher.shards[usize::from(swept.slot) % count].remember_swept(swept);
        }
        let mut after = String::new();
        loop {
            let page = store.behind(&after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.subscription.to_string();
            for behind in page {
                dispatcher.shard(&behind.subscription).remember_behind(behind);
            }
        }
        for (id, count) in store.dead_counts().await? {
            dispatcher.shard(&id).remember_dead(id, count);
        }
        let replay = |_, document: Document| {
            if let Some((id, _)) = document.id.split_once('/') {
                dispatcher.shard(id).remember_replay(id.into());
            }
        };
        walk(&*store, Kind::Replay, replay).await?;
        let standing = |_, Document { id, body, .. }: Document| match serde_json::from_slice(&body) {
            Ok(standing) => dispatcher.shard(&id).remember_standing(id, standing),
            Err(error) => tracing::error!(subscription = &*id, %error, "a standing cannot be read"),
        };
        walk(&*store, Kind::Standing, standing).await?;
        Ok(dispatcher)
    }

    /// Has every attempt counted, in a commit of its own, before it is made, until then: the process ended twice in a
    /// short time, and an event may be what it ended at.
    pub fn be_careful(&self, until: Timestamp) {
        self.shards.iter().for_each(|shard| shard.be_careful(until));
    }

    /// Begins to deliver what comes, once those subscriptions that are known are added.
    pub fn begin(&self) {
        self.shards.iter().for_each(|shard| shard.begin());
    }

    /// Adds a subscription, or gives one that runs other settings: what is in flight settles first. After
    /// [`Dispatcher::shutdown`] nothing starts.
    pub fn start(&self, subscription: Subscription) {
        let shard = self.shard(&subscription.id);
        shard.start(Arc::new(subscription));
    }

    /// Takes a subscription out after it has settled what is in flight and committed it.
    pub async fn stop(&self, id: &str) {
        self.shard(id).stop(id).await;
    }

    /// How a subscription stands, if there is one.
    pub fn status(&self, id: &str) -> Option<LaneStatus> {
        self.shard(id).status(id)
    }

    /// What all have to do.
    pub fn totals(&self) -> Totals {
        self.shards.iter().map(|shard| shard.totals()).fold(Totals::default(), Totals::and)
    }

    /// Has something done to a subscription, together with `writes` in one commit. `None`: there is none of this id.
    pub async fn order(&self, id: &str, order: Order, writes: Vec<Write>) -> Option<Result<Outcome, CommitError>> {
        let (sender, answer) = oneshot::channel();
        if !self.shard(id).order(id, orders::Ordered { order, writes, sender }) {
            return None;
        }
        let ended = || Err(Unavailable::Trouble("the dispatcher has ended".into()).into());
        Some(answer.await.unwrap_or_else(|_| ended()))
    }

    /// Ends everything. Nothing more is sent; what is in flight gets `patience`, then it is cancelled as unknown, not
    /// failed. Everything known is committed.
    pub async fn shutdown(&self, patience: Duration) {
        join_all(self.shards.iter().map(|shard| shard.shutdown(patience))).await;
    }

    fn shard(&self, id: &str) -> &Arc<Shard> {
        &self.shards[usize::from(slot(id)) % self.shards.len()]
    }
}

impl Totals {
    fn and(self, other: Self) -> Self {
        let add = |a: [u64; 2], b: [u64; 2]| [a[0] + b[0], a[1] + b[1]];
        Self {
            queued: self.queued + other.queued,
            lag: self.lag.max(other.lag),
            dead: self.dead + other.dead,
            in_flight: self.in_flight + other.in_flight,
            states: std::array::from_fn(|state| self.states[state] + other.states[state]),
            attempts: add(self.attempts, other.attempts),
            panics: self.panics + other.panics,
            recent: (self.recent.0 + other.recent.0, self.recent.1 + other.recent.1),
        }
    }
}

/// The slot of a subscription: FNV-1a of its id, so that it is the same after every start.
fn slot(id: &str) -> u8 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The remainder is less than SLOTS.
    u8::try_from((hash ^ (hash >> 32)) % u64::from(SLOTS)).unwrap_or(0)
}
