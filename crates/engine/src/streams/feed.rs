//! A cursor over one tenant's log that waits for what comes next.

use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_log::{Event, Query, Store, Tenant, Unavailable};
use tokio::sync::watch;

/// Events handed out at once.
const BATCH_EVENTS_MAX: usize = 256;

/// Follows the log for one stream.
pub struct Feed {
    store: Arc<dyn Store>,
    tenant: Tenant,
    filter: Filter,
    cursor: Offset,
    head: watch::Receiver<Offset>,
}

/// How a cursor that a client brings relates to what the log still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Everything after it is there.
    Whole,
    /// Retention took some of it: the first offset that is left.
    Gap(Offset),
    /// It belongs to a past that a restore replaced, or was never given out: where the log goes on.
    Reset(Offset),
}

/// Compares a client's cursor with the log.
pub fn resume(store: &dyn Store, tenant: Tenant, cursor: Offset) -> Resume {
    let extent = store.extent(tenant);
    if let Some(first) = store.replaced_by(tenant, cursor) {
        Resume::Reset(first)
    } else if cursor > extent.head {
        Resume::Reset(extent.head.next())
    } else if cursor.next() < extent.first {
        Resume::Gap(extent.first)
    } else {
        Resume::Whole
    }
}

impl Feed {
    /// A feed of what `filter` takes after `cursor`.
    pub fn new(store: Arc<dyn Store>, tenant: Tenant, filter: Filter, cursor: Offset) -> Self {
        let head = store.tail().watch(tenant);
        Self { store, tenant, filter, cursor, head }
    }

    /// Whose log it follows.
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// What can be had at once, from memory: nothing if the feed is at the head or behind the ring.
    pub fn ready(&mut self) -> Option<Vec<Arc<Event>>> {
        let events = self.store.tail().after(self.tenant, self.cursor, BATCH_EVENTS_MAX)?;
        self.cursor = events.last()?.offset;
        Some(events.into_iter().filter(|event| self.filter.matches(&event.subject)).collect())
    }

    /// The last offset that was looked at.
    pub fn cursor(&self) -> Offset {
        self.cursor
    }

    /// Whether the feed follows only a part of the log.
    pub fn is_filtered(&self) -> bool {
        self.filter != Filter::default()
    }

    /// The next events, in order; waits until something was committed after the cursor. Empty when only others came.
    /// Safe to drop while it waits.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Unavailable> {
        while self.store.extent(self.tenant).head <= self.cursor {
            if self.head.changed().await.is_err() {
                return Err(Unavailable::Trouble("the log is closed".into()));
            }
        }
        self.head.borrow_and_update();
        match self.ready() {
            Some(events) => Ok(events),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Vec<Arc<Event>>, Unavailable> {
        let query = Query { filter: self.filter.clone(), ..Query::after(self.tenant, self.cursor, BATCH_EVENTS_MAX) };
        let page = self.store.read(query).await?;
        self.cursor = page.reached.max(self.cursor);
        Ok(page.events)
    }
}
