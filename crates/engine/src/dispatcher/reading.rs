//! Where a lane begins, and what it reads.

use std::hash::BuildHasher as _;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use tidings_core::filter::Filter;
use tidings_core::lane::{Lane, Row, Settings};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::query::PAGE_EVENTS_MAX;
use tidings_log::store::Progress;
use tidings_log::{Event, Pending, Query, Store, Tenant, Unavailable};

use super::Subscription;

/// Offsets that one read of the events of rows may span.
const SPAN_MAX: u64 = PAGE_EVENTS_MAX as u64;

/// Hashes aggregates to the keys of a lane.
#[derive(Default)]
pub(super) struct Keys(RandomState);

impl Keys {
    pub(super) fn of(&self, event: &Event) -> Option<u64> {
        event.subject.aggregate.as_ref().map(|aggregate| self.0.hash_one(aggregate))
    }
}

/// The lane as it was committed, and how many deliveries it has given up.
pub(super) async fn open(
    store: &dyn Store,
    subscription: &Subscription,
    keys: &Keys,
    now: Timestamp,
) -> Result<(Lane, u64), Unavailable> {
    let progress = store.progress(&subscription.id).await?;
    let Progress { cursor, waiting, dead } =
        progress.unwrap_or(Progress { cursor: subscription.start, waiting: Vec::new(), dead: 0 });
    // A clock that was set back must not stretch a step.
    let latest = now.plus(subscription.schedule.longest_wait());
    let rows: Vec<_> = waiting
        .into_iter()
        .map(|row| Row { offset: row.offset, attempts: row.attempts, due: row.due.min(latest), reason: row.reason })
        .collect();
    let known = aggregates(store, subscription.tenant, &rows, keys).await?;
    let settings = Settings {
        schedule: subscription.schedule.clone(),
        max_concurrency: subscription.max_concurrency,
        ordering: subscription.ordering,
    };
    let rows = rows.into_iter().map(|row| {
        let key = known.get(&row.offset).copied().flatten();
        (row, key)
    });
    Ok((Lane::new(cursor, rows, settings), dead))
}

/// The keys of the events of rows: the rows hold none, so that settling stays small.
async fn aggregates(
    store: &dyn Store,
    tenant: Tenant,
    rows: &[Row],
    keys: &Keys,
) -> Result<HashMap<Offset, Option<u64>>, Unavailable> {
    let mut known = HashMap::default();
    let mut left = rows;
    while let Some(first) = left.first() {
        let before = first.offset.0.saturating_sub(1);
        let (span, rest) = left.split_at(left.partition_point(|row| row.offset.0 - before <= SPAN_MAX));
        left = rest;
        let last = span.last().map(|row| row.offset);
        let page = store.read(Query { through: last, ..Query::after(tenant, Offset(before), PAGE_EVENTS_MAX) }).await?;
        for event in page.events {
            if span.binary_search_by_key(&event.offset, |row| row.offset).is_ok() {
                known.insert(event.offset, keys.of(&event));
            }
        }
    }
    Ok(known)
}

/// Begins to read up to `limit` matching events after `after` from the disk.
pub(super) fn page(
    store: &dyn Store,
    tenant: Tenant,
    filter: &Filter,
    after: Offset,
    limit: usize,
) -> Pending<Result<tidings_log::Page, Unavailable>> {
    store.read(Query { filter: filter.clone(), ..Query::after(tenant, after, limit) })
}
