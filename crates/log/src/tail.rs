//! The hot end of the log, shared in memory by everything that follows it.
//!
//! One ring for the process, bounded in bytes, holds the newest events; readers are a cursor and a waker. Who has fallen
//! behind the ring reads from disk until it has caught up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use tidings_core::offset::Offset;
use tokio::sync::watch;

use crate::event::{Event, Tenant};

/// How much the ring holds.
pub const RING_BYTES_MAX: usize = 16 << 20;

/// The newest events of every tenant.
#[derive(Debug, Default)]
pub struct Tail {
    rings: RwLock<HashMap<Tenant, Arc<Ring>>>,
    /// Whose events came in which order, so that the oldest of all leaves first.
    order: Mutex<VecDeque<Arc<Ring>>>,
    bytes: AtomicUsize,
    erasures: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    events: RwLock<Recent>,
    head: watch::Sender<Offset>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Everything after this offset is in `events`.
    after: Offset,
    events: VecDeque<Arc<Event>>,
}

impl Tail {
    /// Tells the tail where a tenant's log ends at start.
    pub(crate) fn open(&self, tenant: Tenant, head: Offset) {
        let ring = Ring {
            events: RwLock::new(Recent { after: head, events: VecDeque::new() }),
            head: watch::Sender::new(head),
        };
        self.rings.write().insert(tenant, Arc::new(ring));
    }

    /// Takes committed events, in order. They are readable at once; wakers are called by [`Tail::wake`].
    pub(crate) fn publish(&self, events: &[Arc<Event>]) {
        let mut order = self.order.lock();
        let mut bytes = self.bytes.load(Ordering::Relaxed);
        for run in events.chunk_by(|a, b| a.tenant == b.tenant) {
            let ring = self.ring(run[0].tenant);
            let mut recent = ring.events.write();
            for event in run {
                bytes += event.weight();
                recent.events.push_back(Arc::clone(event));
                order.push_back(Arc::clone(&ring));
            }
        }
        while bytes > RING_BYTES_MAX {
            let Some(ring) = order.pop_front() else { break };
            let mut recent = ring.events.write();
            if let Some(oldest) = recent.events.pop_front() {
                recent.after = oldest.offset;
                bytes -= oldest.weight().min(bytes);
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Wakes whoever waits for `tenant`.
    pub(crate) fn wake(&self, tenant: Tenant, head: Offset) {
        self.ring(tenant).head.send_replace(head);
    }

    /// Follows the head of a tenant's log: changes whenever events were committed.
    pub fn watch(&self, tenant: Tenant) -> watch::Receiver<Offset> {
        self.ring(tenant).head.subscribe()
    }

    /// Up to `limit` events after `after`, or `None` if the ring does not reach back that far.
    pub fn after(&self, tenant: Tenant, after: Offset, limit: usize) -> Option<Vec<Arc<Event>>> {
        let ring = self.rings.read().get(&tenant).cloned()?;
        let recent = ring.events.read();
        if after < recent.after {
            return None;
        }
        let start = recent.events.partition_point(|event| event.offset <= after);
        Some(recent.events.iter().skip(start).take(limit).cloned().collect())
    }

    /// One event, if the ring has it.
    pub(crate) fn get(&self, tenant: Tenant, offset: Offset) -> Option<Arc<Event>> {
        let ring = self.rings.read().get(&tenant).cloned()?;
        let recent = ring.events.read();
        let place = recent.events.binary_search_by_key(&offset, |event| event.offset).ok()?;
        recent.events.get(place).cloned()
    }

    /// How often data was erased since the start, of whatever age. Who keeps events looks at it before they leave: when it
    /// is another number they may have data that is not to be seen any more.
    pub fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// Puts `event`, whose data was erased, in the place of what the ring has at its offset.
    pub(crate) fn replace(&self, event: Arc<Event>) {
        self.erasures.fetch_add(1, Ordering::Release);
        // Held by whoever changes what the ring weighs.
        let _order = self.order.lock();
        let ring = self.ring(event.tenant);
        let mut recent = ring.events.write();
        if let Ok(place) = recent.events.binary_search_by_key(&event.offset, |event| event.offset) {
            self.bytes.fetch_add(event.weight(), Ordering::Relaxed);
            let replaced = std::mem::replace(&mut recent.events[place], event);
            self.bytes.fetch_sub(replaced.weight(), Ordering::Relaxed);
        }
    }

    /// Drops a tenant's events before `first`: retention took them.
    pub(crate) fn forget(&self, tenant: Tenant, first: Offset) {
        let mut order = self.order.lock();
        let ring = self.ring(tenant);
        let mut recent = ring.events.write();
        let count = recent.events.partition_point(|event| event.offset < first);
        let Some(last) = count.checked_sub(1).and_then(|last| recent.events.get(last)) else { return };
        recent.after = last.offset;
        let bytes: usize = recent.events.drain(..count).map(|event| event.weight()).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut left = count;
        order.retain(|other| {
            let dropped = left > 0 && Arc::ptr_eq(other, &ring);
            left -= usize::from(dropped);
            !dropped
        });
    }

    fn ring(&self, tenant: Tenant) -> Arc<Ring> {
        if let Some(ring) = self.rings.read().get(&tenant) {
            return Arc::clone(ring);
        }
        let mut rings = self.rings.write();
        let ring = rings
            .entry(tenant)
            .or_insert_with(|| Arc::new(Ring { events: RwLock::default(), head: watch::Sender::new(Offset(0)) }));
        Arc::clone(ring)
    }
}
