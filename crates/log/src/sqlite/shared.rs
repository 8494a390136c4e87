//! What the threads of the engine know together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex, RwLock};
use rusqlite::Connection;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tokio::sync::watch;

use super::backfill::Backfill;
use super::group::{End, Group};
use super::measures::Meter;
use super::pool::Pool;
use super::queue::{Queue, Task, Work};
use super::run::Runs;
use super::seal::{SEAL_EVENTS_MAX, genesis};
use crate::event::{Event, Tenant};
use crate::index::TailIndex;
use crate::store::{Extent, Seal, Unavailable};
use crate::tail::Tail;

pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) queue: Queue,
    pub(crate) meter: Meter,
    pub(crate) tail: Tail,
    pub(crate) index: RwLock<TailIndex>,
    pub(crate) runs: Runs,
    /// Sorts, merges and frees what would hold up the writer.
    pub(crate) helper: Pool<Connection>,
    /// Makes the checkpoints that would hold up the writer.
    pub(crate) backfill: Pool<Backfill>,
    tenants: RwLock<Tenants>,
    sealer: Sealer,
    fence: watch::Sender<Option<Arc<str>>>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Tenants {
    by_name: HashMap<TenantName, Tenant>,
    states: HashMap<Tenant, TenantState>,
}

/// What is known of a tenant.
pub(crate) struct TenantState {
    pub(crate) name: TenantName,
    pub(crate) extent: Extent,
    pub(crate) recorded: Timestamp,
    pub(crate) sealed: Seal,
    pub(crate) eras: Vec<Era>,
}

/// A jump of the offsets.
#[derive(Clone, Copy)]
pub(crate) struct Era {
    pub(crate) first: Offset,
    pub(crate) previous: Offset,
}

#[derive(Default)]
struct Sealer {
    unsealed: Mutex<usize>,
    ready: Condvar,
    lost: AtomicBool,
}

impl Shared {
    pub(crate) fn new(folder: PathBuf, helper: Pool<Connection>, backfill: Pool<Backfill>) -> Self {
        Self {
            folder,
            queue: Queue::default(),
            meter: Meter::default(),
            tail: Tail::default(),
            index: RwLock::default(),
            runs: Runs::default(),
            helper,
            backfill,
            tenants: RwLock::default(),
            sealer: Sealer::default(),
            fence: watch::Sender::new(None),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn open_tenant(&self, tenant: Tenant, state: TenantState) {
        self.tail.open(tenant, state.extent.head);
        let mut tenants = self.tenants.write();
        tenants.by_name.insert(state.name.clone(), tenant);
        tenants.states.insert(tenant, state);
    }

    pub(crate) fn tenant(&self, name: &TenantName) -> Option<Tenant> {
        self.tenants.read().by_name.get(name).copied()
    }

    pub(crate) fn has_tenant(&self, tenant: Tenant) -> bool {
        self.tenants.read().states.contains_key(&tenant)
    }

    pub(crate) fn tenant_names(&self) -> Vec<(Tenant, TenantName)> {
        let tenants = self.tenants.read();
        let mut all: Vec<_> = tenants.states.iter().map(|(tenant, state)| (*tenant, state.name.clone())).collect();
        all.sort_by_key(|(tenant, _)| *tenant);
        all
    }

    pub(crate) fn tenant_numbers(&self) -> Vec<Tenant> {
        self.tenants.read().states.keys().copied().collect()
    }

    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.tenants.read().states.values().map(|state| state.extent).collect()
    }

    /// Where a tenant's log ends; a tenant that was never written to has nothing.
    pub(crate) fn end(&self, tenant: Tenant) -> End {
        let tenants = self.tenants.read();
        match tenants.states.get(&tenant) {
            Some(state) => End { extent: state.extent, recorded: state.recorded },
            None => End { extent: new_extent(), recorded: Timestamp::from_millis(0) },
        }
    }

    /// When the log took its newest event, whoever's.
    pub(crate) fn newest_recorded(&self) -> Timestamp {
        let tenants = self.tenants.read();
        tenants.states.values().map(|state| state.recorded).max().unwrap_or(Timestamp::from_millis(0))
    }

    pub(crate) fn last_seal(&self, tenant: Tenant) -> Seal {
        self.tenants.read().states.get(&tenant).map_or_else(genesis, |state| state.sealed)
    }

    pub(crate) fn replaced_by(&self, tenant: Tenant, cursor: Offset) -> Option<Offset> {
        let tenants = self.tenants.read();
        let eras = tenants.states.get(&tenant).map_or(&[][..], |state| &state.eras);
        eras.iter().find(|era| era.previous < cursor && cursor.next() < era.first).map(|era| era.first)
    }

    /// Takes what a committed group changed.
    pub(crate) fn apply(&self, group: &Group) {
        self.meter.committed(group.fresh.len());
        let mut tenants = self.tenants.write();
        for (tenant, name) in &group.tenants {
            let state = TenantState {
                name: name.clone(),
                extent: new_extent(),
                recorded: Timestamp::from_millis(0),
                sealed: genesis(),
                eras: Vec::new(),
            };
            tenants.by_name.insert(name.clone(), *tenant);
            tenants.states.insert(*tenant, state);
            self.tail.open(*tenant, Offset(0));
        }
        for (tenant, end) in group.ends() {
            if let Some(state) = tenants.states.get_mut(&tenant) {
                state.extent = end.extent;
                state.recorded = end.recorded;
            }
        }
        for (tenant, first, previous) in &group.eras {
            if let Some(state) = tenants.states.get_mut(tenant) {
                state.eras.push(Era { first: *first, previous: *previous });
            }
        }
        for new in &group.seals {
            if let Some(state) = tenants.states.get_mut(&new.tenant) {
                state.sealed = new.seal;
            }
        }
    }

    /// Wakes those who follow the log, and the sealer.
    pub(crate) fn wake(&self, events: &[Arc<Event>]) {
        let mut heads: Vec<(Tenant, Offset)> = Vec::new();
        for event in events {
            match heads.iter_mut().find(|(tenant, _)| *tenant == event.tenant) {
                Some((_, head)) => *head = event.offset,
                None => heads.push((event.tenant, event.offset)),
            }
        }
        for (tenant, head) in heads {
            self.tail.wake(tenant, head);
        }
        let mut unsealed = self.sealer.unsealed.lock();
        *unsealed += events.len();
        if *unsealed >= SEAL_EVENTS_MAX {
            self.sealer.ready.notify_one();
        }
    }

    /// Waits until a seal may be full; false once `patience` is over, when whatever there is should be sealed.
    pub(crate) fn wait_for_seals(&self, patience: Duration) -> bool {
        let mut unsealed = self.sealer.unsealed.lock();
        if *unsealed < SEAL_EVENTS_MAX && !self.is_closed() {
            self.sealer.ready.wait_for(&mut unsealed, patience);
        }
        let full = *unsealed >= SEAL_EVENTS_MAX;
        *unsealed = 0;
        full
    }

    pub(crate) fn lose_seals(&self) {
        self.sealer.lost.store(true, Ordering::Release);
    }

    pub(crate) fn seals_were_lost(&self) -> bool {
        self.sealer.lost.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn fence(&self, unavailable: &Unavailable) {
        let reason: Arc<str> = match unavailable {
            Unavailable::Fenced(reason) => Arc::clone(reason),
            other => other.to_string().into(),
        };
        let first =
            self.fence.send_if_modified(|fence| fence.is_none().then(|| *fence = Some(reason.clone())).is_some());
        if first {
            tracing::error!(%reason, "the log is fenced: nothing more is committed");
        }
        self.queue.close();
    }

    /// An error once the store is fenced.
    pub(crate) fn unfenced(&self) -> Result<(), Unavailable> {
        match &*self.fence.borrow() {
            Some(reason) => Err(Unavailable::Fenced(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    pub(crate) fn fenced_reason(&self) -> Unavailable {
        self.unfenced().err().unwrap_or_else(|| Unavailable::Trouble("the log is closed".into()))
    }

    /// Whatever is still queued gets an answer, not silence.
    pub(crate) fn refuse_queued(&self) {
        let reason = self.fenced_reason();
        while let Work::Tasks(tasks) = self.queue.take(Duration::ZERO) {
            for task in tasks {
                if let Task::Unit(unit) = task {
                    // The asker may have gone.
                    unit.asker.refuse(reason.clone());
                }
            }
        }
    }

    pub(crate) fn fence_watch(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.fence.subscribe()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.queue.close();
        // Under the lock, or the sealer could miss it on its way into the wait.
        let _unsealed = self.sealer.unsealed.lock();
        self.sealer.ready.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

fn new_extent() -> Extent {
    Extent { first: Offset(1), head: Offset(0), era: Offset(0) }
}
