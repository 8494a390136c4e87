//! The log in memory, for simulations: nothing lasts longer than the [`MemoryDisk`] that it is opened on.
//!
//! What a crash leaves is what the disk has: drop the store, open another one on the same disk. A [`Pace`] decides how
//! long commits and reads take on tokio's clock and which of them fail, so that a seed repeats a run.

mod apply;
mod pace;
mod state;
mod table;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tokio::sync::mpsc;

use crate::event::{Event, Tenant};
use crate::query::{Page, Query};
use crate::store::{
    Attempt, Behind, CommitError, DeadLetter, DeadQuery, Document, Extent, Kind, Owner, Pending, Progress, Seal, Store,
    Swept, Unavailable, Write, Written,
};
use crate::tail::Tail;
use crate::verify::Report;
pub use pace::{Pace, Turn, Work};
use pace::{QUEUE_MAX, Unit};
use state::{State, document_key};

/// What is durable.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    /// Verifies what is on the disk.
    pub fn verify(&self) -> Report {
        verify::verify(&self.0.lock())
    }

    /// Plants a fault: an event is gone, and nothing was told. Who proves that logs are whole must notice.
    pub fn lose(&self, tenant: Tenant, offset: Offset) {
        let mut state = self.0.lock();
        state.events.remove(&(tenant, offset));
        state.keep();
    }
}

/// The log on a [`MemoryDisk`].
pub struct MemoryStore {
    engine: Arc<Engine>,
    /// Commits take their time in a task that waits here; none: they are made at once.
    queue: Option<mpsc::Sender<Unit>>,
    pace: Option<Pace>,
}

struct Engine {
    disk: MemoryDisk,
    tail: Tail,
    closed: AtomicBool,
}

impl Engine {
    /// Makes a commit durable, then visible.
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Result<Vec<Written>, CommitError> {
        // Held until all is visible: a reader of the tail never sees a later commit before an earlier one.
        let mut state = self.disk.0.lock();
        let (written, news) = state.commit(now, writes)?;
        for tenant in news.tenants {
            self.tail.open(tenant, Offset(0));
        }
        self.tail.publish(&news.events);
        for event in news.erased {
            self.tail.replace(event);
        }
        for (tenant, first) in news.trimmed {
            self.tail.forget(tenant, first);
        }
        drop(state);
        for run in news.events.chunk_by(|a, b| a.tenant == b.tenant) {
            self.tail.wake(run[0].tenant, run[run.len() - 1].offset);
        }
        Ok(written)
    }
}

impl MemoryStore {
    /// Opens what is on `disk`. Commits and reads are done as they are asked for.
    pub fn open(disk: &MemoryDisk) -> Self {
        let engine = Engine { disk: disk.clone(), tail: Tail::default(), closed: AtomicBool::new(false) };
        for (tenant, log) in disk.0.lock().logs.iter() {
            engine.tail.open(*tenant, log.extent.head);
        }
        Self { engine: Arc::new(engine), queue: None, pace: None }
    }

    /// Opens what is on `disk`; commits and reads take what `pace` says, in a task of the runtime that this is called on.
    pub fn open_paced(disk: &MemoryDisk, pace: Pace) -> Self {
        let store = Self::open(disk);
        let (queue, units) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(pace::write(Arc::clone(&store.engine), units, Arc::clone(&pace)));
        Self { queue: Some(queue), pace: Some(pace), ..store }
    }

    fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Pending<Result<T, Unavailable>> {
        if self.engine.closed.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(closed())));
        }
        let engine = Arc::clone(&self.engine);
        let turn = self.pace.as_ref().map(|pace| pace(Work::Read));
        Box::pin(async move {
            let Some(turn) = turn else { return Ok(read(&engine.disk.0.lock())) };
            turn.pass(|| Ok(read(&engine.disk.0.lock()))).await
        })
    }
}

fn closed() -> Unavailable {
    Unavailable::Trouble("the log is closed".into())
}

impl Store for MemoryStore {
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>> {
        if self.engine.closed.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(closed().into())));
        }
        let Some(queue) = &self.queue else {
            return Box::pin(std::future::ready(self.engine.commit(now, writes)));
        };
        let (unit, answer) = Unit::new(now, writes);
        if queue.try_send(unit).is_err() {
            return Box::pin(std::future::ready(Err(Unavailable::Busy.into())));
        }
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed().into())) })
    }

    fn tenant(&self, name: &TenantName) -> Option<Tenant> {
        self.tenants().into_iter().find(|(_, other)| other == name).map(|(tenant, _)| tenant)
    }

    fn tenants(&self) -> Vec<(Tenant, TenantName)> {
        self.engine.disk.0.lock().logs.iter().map(|(tenant, log)| (*tenant, log.name.clone())).collect()
    }

    fn extent(&self, tenant: Tenant) -> Extent {
        self.engine.disk.0.lock().extent(tenant)
    }

    fn replaced_by(&self, tenant: Tenant, cursor: Offset) -> Option<Offset> {
        let state = self.engine.disk.0.lock();
        let eras = &state.logs.get(&tenant)?.eras;
        eras.iter().find(|(first, previous)| *previous < cursor && cursor.next() < *first).map(|(first, _)| *first)
    }

    fn tail(&self) -> &Tail {
        &self.engine.tail
    }

    fn read(&self, query: Query) -> Pending<Result<Page, Unavailable>> {
        self.ask(move |state| state.page(&query))
    }

    fn event(&self, tenant: Tenant, offset: Offset) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        self.ask(move |state| state.event(tenant, offset))
    }

    fn find(&self, tenant: Tenant, id: &EventId) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        let id = id.clone();
        self.ask(move |state| state.find(tenant, &id))
    }

    fn before(&self, tenant: Tenant, time: Timestamp) -> Pending<Result<Offset, Unavailable>> {
        self.ask(move |state| state.before(tenant, time))
    }

    fn sealed(&self, tenant: Tenant) -> Option<Seal> {
        self.engine.disk.0.lock().sealed(tenant)
    }

    fn get(&self, kind: Kind, owner: Owner, id: &str) -> Pending<Result<Option<Document>, Unavailable>> {
        let key = document_key(kind, owner, id);
        self.ask(move |state| state.documents.get(&key).cloned())
    }

    fn list(
        &self,
        kind: Kind,
        owner: Option<Owner>,
        after: &str,
        limit: usize,
    ) -> Pending<Result<Vec<Document>, Unavailable>> {
        let after = after.to_owned();
        self.ask(move |state| state.list(kind, owner, &after, limit))
    }

    fn progress(&self, subscription: &str) -> Pending<Result<Option<Progress>, Unavailable>> {
        let subscription = subscription.to_owned();
        self.ask(move |state| state.progress(&subscription))
    }

    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Behind>, Unavailable>> {
        let after = after.to_owned();
        self.ask(move |state| state.behind(&after, limit))
    }

    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>> {
        self.ask(State::swept)
    }

    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>> {
        self.ask(move |state| state.attempts(tenant, offset, limit))
    }

    fn history(
        &self,
        subscription: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<Result<Vec<(u64, Attempt)>, Unavailable>> {
        let subscription = subscription.to_owned();
        self.ask(move |state| state.history(&subscription, before, limit))
    }

    fn dead_letter(&self, tenant: Tenant, id: &str) -> Pending<Result<Option<DeadLetter>, Unavailable>> {
        let id = id.into();
        self.ask(move |state| state.letters.get(&id).filter(|letter| letter.tenant == tenant).cloned())
    }

    fn dead_letters(&self, query: DeadQuery) -> Pending<Result<Vec<DeadLetter>, Unavailable>> {
        self.ask(move |state| state.dead_letters(&query))
    }

    fn dead_counts(&self) -> Pending<Result<Vec<(Box<str>, u64)>, Unavailable>> {
        self.ask(State::dead_counts)
    }

    fn fenced(&self) -> Pending<String> {
        // Memory cannot fail to sync.
        Box::pin(std::future::pending())
    }

    fn close(&self) {
        self.engine.closed.store(true, Ordering::Relaxed);
    }
}
