//! A log whose disk is full, slow, or cannot be read, whenever a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_log::store::{
    Attempt, Behind, DeadLetter, DeadQuery, Document, Extent, Kind, Owner, Progress, Seal, Swept,
};
use tidings_log::tail::Tail;
use tidings_log::{CommitError, Event, Page, Pending, Query, Store, Tenant, Unavailable, Write, Written};
use tokio::sync::watch;

pub(crate) struct Flaky {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) full: AtomicBool,
    /// Commits of progress fail while this says so.
    pub(crate) unsettled: AtomicBool,
    /// Reads wait while this says so.
    pub(crate) held: watch::Sender<bool>,
    /// Reads fail while this says so,
    pub(crate) broken: AtomicBool,
    /// and so many have.
    pub(crate) failures: AtomicUsize,
    /// So many commits of progress panic.
    pub(crate) panics: AtomicUsize,
    /// Commits of progress that were asked for.
    pub(crate) settles: AtomicUsize,
}

impl Flaky {
    pub(crate) fn over(store: &Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            full: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            held: watch::Sender::new(false),
            broken: AtomicBool::new(false),
            failures: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            settles: AtomicUsize::new(0),
        })
    }

    /// What is read, unless reads fail.
    fn unless_broken<T: Send + 'static>(
        &self,
        read: Pending<Result<T, Unavailable>>,
    ) -> Pending<Result<T, Unavailable>> {
        if !self.broken.load(Relaxed) {
            return read;
        }
        self.failures.fetch_add(1, Relaxed);
        Box::pin(async { Err(Unavailable::Trouble("planted".into())) })
    }

    /// Waits until so many reads have failed.
    pub(crate) async fn failed(&self, count: usize) {
        while self.failures.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Store for Flaky {
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>> {
        let settles = writes.iter().filter(|write| matches!(write, Write::Settle(_))).count();
        self.settles.fetch_add(settles, Relaxed);
        let panics = settles > 0 && self.panics.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        assert!(!panics, "planted");
        if self.full.load(Relaxed) || settles > 0 && self.unsettled.load(Relaxed) {
            return Box::pin(async { Err(Unavailable::Full.into()) });
        }
        self.store.commit(now, writes)
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
        let (mut held, store) = (self.held.subscribe(), Arc::clone(&self.store));
        self.unless_broken(Box::pin(async move {
            let free = held.wait_for(|held| !held).await.is_ok();
            assert!(free, "whoever holds reads lets them go");
            store.read(query).await
        }))
    }

    fn find(&self, tenant: Tenant, id: &EventId) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        self.store.find(tenant, id)
    }

    fn before(&self, tenant: Tenant, time: Timestamp) -> Pending<Result<Offset, Unavailable>> {
        self.store.before(tenant, time)
    }

    fn sealed(&self, tenant: Tenant) -> Option<Seal> {
        self.store.sealed(tenant)
    }

    fn get(&self, kind: Kind, owner: Owner, id: &str) -> Pending<Result<Option<Document>, Unavailable>> {
        self.store.get(kind, owner, id)
    }

    fn list(
        &self,
        kind: Kind,
        owner: Option<Owner>,
        after: &str,
        limit: usize,
    ) -> Pending<Result<Vec<Document>, Unavailable>> {
        self.unless_broken(self.store.list(kind, owner, after, limit))
    }

    fn progress(&self, subscription: &str) -> Pending<Result<Option<Progress>, Unavailable>> {
        self.store.progress(subscription)
    }

    fn event(&self, tenant: Tenant, offset: Offset) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        self.unless_broken(self.store.event(tenant, offset))
    }

    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Behind>, Unavailable>> {
        self.store.behind(after, limit)
    }

    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>> {
        self.store.swept()
    }

    fn history(
        &self,
        subscription: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<Result<Vec<(u64, Attempt)>, Unavailable>> {
        self.store.history(subscription, before, limit)
    }

    fn dead_letter(&self, tenant: Tenant, id: &str) -> Pending<Result<Option<DeadLetter>, Unavailable>> {
        self.store.dead_letter(tenant, id)
    }

    fn dead_letters(&self, query: DeadQuery) -> Pending<Result<Vec<DeadLetter>, Unavailable>> {
        self.store.dead_letters(query)
    }

    fn dead_counts(&self) -> Pending<Result<Vec<(Box<str>, u64)>, Unavailable>> {
        self.store.dead_counts()
    }

    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>> {
        self.store.attempts(tenant, offset, limit)
    }

    fn fenced(&self) -> Pending<String> {
        self.store.fenced()
    }

    fn close(&self) {
        self.store.close();
    }
}
