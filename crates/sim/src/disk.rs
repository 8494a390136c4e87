//! The log under the dispatcher: commits and reads take time and fail, by chance of their own for each lane.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_log::memory::{MemoryDisk, MemoryStore};
use tidings_log::store::{
    Attempt, Behind, DeadLetter, DeadQuery, Document, Extent, Kind, Owner, Progress, Seal, Swept,
};
use tidings_log::tail::Tail;
use tidings_log::{CommitError, Event, Page, Pending, Query, Store, Tenant, Unavailable, Write, Written};

use tokio::sync::Notify;

use crate::chance::Chance;
use crate::clock;
use crate::plant::Plant;
use crate::planted;

/// When commits fail, and why.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// What is answered.
    pub reason: Unavailable,
    /// Of so many commits one fails.
    pub once_in: u64,
}

/// How the disk behaves.
#[derive(Clone, Debug, Default)]
pub struct Nature {
    /// The longest that a commit takes, usually.
    pub commit_ms: u64,
    /// The longest that a read takes, usually.
    pub read_ms: u64,
    /// When commits fail.
    pub troubles: Vec<Trouble>,
    /// Of so many reads one fails, until then; 0: none.
    pub reads_fail: (u64, Timestamp),
}

impl Nature {
    /// The longest that a read takes.
    pub(crate) fn longest_read(&self) -> Duration {
        Duration::from_millis(self.read_ms * SLOW + self.read_ms * SLOW / 4)
    }
}

/// All commits of a millisecond are known before the first takes effect.
const AT_LEAST: Duration = Duration::from_millis(1);
/// Now and then work takes so many times as long.
const SLOW: u64 = 40;

pub(crate) struct Disk {
    store: Arc<MemoryStore>,
    nature: Nature,
    seed: u64,
    life: u32,
    pub(crate) plant: Option<Plant>,
    lanes: Mutex<Vec<(Box<str>, Chance)>>,
    queue: Arc<Queue>,
}

/// Commits take effect in the order in which they were handed over. Those of one millisecond go by who hands them over, so
/// that it does not matter who ran first.
#[derive(Default)]
struct Queue {
    waiting: Mutex<BTreeSet<Turn>>,
    bell: Notify,
}

/// When a commit was handed over, by whom, and how many were before it.
type Turn = (Timestamp, String, u64);

impl Queue {
    fn enter(&self, whose: &str) -> Turn {
        let mut waiting = self.waiting.lock();
        let before = waiting.iter().map(|(_, _, number)| number + 1).max().unwrap_or(0);
        let turn = (clock::now(), whose.to_owned(), before);
        waiting.insert(turn.clone());
        turn
    }

    async fn first(&self, turn: &Turn) {
        loop {
            let rung = self.bell.notified();
            if self.waiting.lock().first() == Some(turn) {
                return;
            }
            rung.await;
        }
    }

    fn leave(&self, turn: &Turn) {
        self.waiting.lock().remove(turn);
        self.bell.notify_waiters();
    }
}

impl Disk {
    pub(crate) fn open(disk: &MemoryDisk, nature: Nature, seed: u64, life: u32, plant: Option<Plant>) -> Self {
        Self {
            store: Arc::new(MemoryStore::open(disk)),
            nature,
            seed,
            life,
            plant,
            lanes: Mutex::default(),
            queue: Arc::default(),
        }
    }

    /// Chance of whoever commits or reads.
    fn chance<T>(&self, whose: &str, ask: impl FnOnce(&mut Chance) -> T) -> T {
        let mut lanes = self.lanes.lock();
        if let Some((_, chance)) = lanes.iter_mut().find(|(name, _)| **name == *whose) {
            return ask(chance);
        }
        let mut chance = Chance::about(self.seed, &["disk", &self.life.to_string(), whose]);
        let answer = ask(&mut chance);
        lanes.push((whose.into(), chance));
        answer
    }

    /// How long a piece of work takes, before and after it is done.
    fn pace(chance: &mut Chance, longest_ms: u64) -> (Duration, Duration) {
        let longest = if chance.once_in(50) { longest_ms * SLOW } else { longest_ms };
        (chance.millis(0..=longest), chance.millis(0..=longest / 4))
    }

    fn trouble(&self, chance: &mut Chance) -> Option<Unavailable> {
        let now = clock::now();
        let trouble = self.nature.troubles.iter().find(|trouble| trouble.from <= now && now < trouble.until)?;
        chance.once_in(trouble.once_in).then(|| trouble.reason.clone())
    }

    fn slowly<T: Send + 'static>(&self, what: Pending<Result<T, Unavailable>>) -> Pending<Result<T, Unavailable>> {
        let lane = clock::lane().unwrap_or_default();
        let (once_in, until) = self.nature.reads_fail;
        let ((before, after), fails) = self.chance(&format!("read {lane}"), |chance| {
            (Self::pace(chance, self.nature.read_ms), once_in > 0 && clock::now() < until && chance.once_in(once_in))
        });
        Box::pin(async move {
            tokio::time::sleep(before).await;
            if fails {
                return Err(Unavailable::Busy);
            }
            let answer = what.await;
            tokio::time::sleep(after).await;
            answer
        })
    }
}

/// Who commits: a lane, or a publisher, or somebody else.
fn committer(writes: &[Write]) -> String {
    if matches!(writes.first(), Some(Write::Sweep(_))) {
        // A lane that begins after it was made must not be overtaken by it.
        return String::new();
    }
    let lane = writes.iter().find_map(|write| match write {
        Write::Settle(settle) => Some(settle.subscription.to_string()),
        _ => None,
    });
    lane.unwrap_or_else(|| match writes.first() {
        Some(Write::Append(append)) => format!("publisher {}", append.tenant.0),
        _ => "somebody".into(),
    })
}

impl Store for Disk {
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>> {
        let whose = committer(&writes);
        let ((before, after), trouble) =
            self.chance(&whose, |chance| (Self::pace(chance, self.nature.commit_ms), self.trouble(chance)));
        let acked = planted::acked(self.plant, &*self.store, &writes);
        let parts = planted::writes(self.plant, &*self.store, writes);
        let (store, queue, turn) = (Arc::clone(&self.store), Arc::clone(&self.queue), self.queue.enter(&whose));
        // What was handed over is committed, whatever becomes of who asked.
        let work = tokio::spawn(async move {
            tokio::time::sleep(before.max(AT_LEAST)).await;
            queue.first(&turn).await;
            if let Some(reason) = trouble {
                queue.leave(&turn);
                return Err(reason.into());
            }
            let mut answer = Ok(Vec::new());
            for (place, writes) in parts.into_iter().enumerate() {
                if place > 0 {
                    tokio::time::sleep(planted::GAP).await;
                }
                let written = store.commit(now, writes).await;
                answer = answer.and_then(|all: Vec<Written>| written.map(|more| [all, more].concat()));
            }
            queue.leave(&turn);
            tokio::time::sleep(after).await;
            answer
        });
        Box::pin(async move {
            match acked {
                Some(answer) => Ok(answer),
                None => work.await.unwrap_or_else(|_| Err(Unavailable::Trouble("the process ended".into()).into())),
            }
        })
    }

    fn tenant(&self, name: &TenantName) -> Option<Tenant> {
        self.store.tenant(name)
    }

    fn tenants(&self) -> Vec<(Tenant, TenantName)> {
        self.store.tenants()
    }

    fn extent(&self, tenant: Tenant) -> Extent {
        self.store.extent(tenant)
    }

    fn replaced_by(&self, tenant: Tenant, cursor: Offset) -> Option<Offset> {
        self.store.replaced_by(tenant, cursor)
    }

    fn tail(&self) -> &Tail {
        self.store.tail()
    }

    fn read(&self, query: Query) -> Pending<Result<Page, Unavailable>> {
        let store = Arc::clone(&self.store);
        self.slowly(Box::pin(async move { store.read(query).await }))
    }

    fn event(&self, tenant: Tenant, offset: Offset) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        self.slowly(self.store.event(tenant, offset))
    }

    fn find(&self, tenant: Tenant, id: &EventId) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        self.slowly(self.store.find(tenant, id))
    }

    fn before(&self, tenant: Tenant, time: Timestamp) -> Pending<Result<Offset, Unavailable>> {
        self.slowly(self.store.before(tenant, time))
    }

    fn sealed(&self, tenant: Tenant) -> Option<Seal> {
        self.store.sealed(tenant)
    }

    fn get(&self, kind: Kind, owner: Owner, id: &str) -> Pending<Result<Option<Document>, Unavailable>> {
        self.slowly(self.store.get(kind, owner, id))
    }

    fn list(
        &self,
        kind: Kind,
        owner: Option<Owner>,
        after: &str,
        limit: usize,
    ) -> Pending<Result<Vec<Document>, Unavailable>> {
        self.slowly(self.store.list(kind, owner, after, limit))
    }

    fn progress(&self, subscription: &str) -> Pending<Result<Option<Progress>, Unavailable>> {
        clock::bind(subscription);
        let (plant, progress) = (self.plant, self.store.progress(subscription));
        self.slowly(Box::pin(async move { Ok(planted::progress(plant, progress.await?)) }))
    }

    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Behind>, Unavailable>> {
        self.slowly(self.store.behind(after, limit))
    }

    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>> {
        self.slowly(self.store.swept())
    }

    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>> {
        self.slowly(self.store.attempts(tenant, offset, limit))
    }

    fn history(
        &self,
        subscription: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<Result<Vec<(u64, Attempt)>, Unavailable>> {
        self.slowly(self.store.history(subscription, before, limit))
    }

    fn dead_letter(&self, tenant: Tenant, id: &str) -> Pending<Result<Option<DeadLetter>, Unavailable>> {
        self.slowly(self.store.dead_letter(tenant, id))
    }

    fn dead_letters(&self, query: DeadQuery) -> Pending<Result<Vec<DeadLetter>, Unavailable>> {
        self.slowly(self.store.dead_letters(query))
    }

    fn dead_counts(&self) -> Pending<Result<Vec<(Box<str>, u64)>, Unavailable>> {
        self.slowly(self.store.dead_counts())
    }

    fn fenced(&self) -> Pending<String> {
        self.store.fenced()
    }

    fn close(&self) {
        self.store.close();
    }
}
