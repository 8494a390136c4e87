//! Where a lane begins, and what it reads.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::FixedState;
use tidings_core::circuit::Standing;
use tidings_core::filter::Filter;
use tidings_core::lane::{Acks, Follow, Lane, Row};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::Progress;
use tidings_log::{Event, Page, Pending, Query, Store, Tenant, Unavailable};

use super::{Subscription, attempt};

/// Events of one aggregate that are read again at once.
const FOLLOWERS: usize = 64;

/// Hashes aggregates to the keys of a lane. Who chooses ids that collide only makes his own events wait for each other.
pub(super) fn key(event: &Event) -> Option<u64> {
    event.subject.aggregate.as_ref().map(|aggregate| FixedState::with_seed(0x7469_6469_6e67_7321).hash_one(aggregate))
}

/// The lane as it was committed.
pub(super) async fn open(
    store: &dyn Store,
    subscription: &Subscription,
    standing: Standing,
    at: Option<Offset>,
    now: Timestamp,
) -> Result<Lane, Unavailable> {
    let begins = |cursor| Progress { cursor, ..Progress::default() };
    let kept = if at.is_none() { store.progress(&subscription.id).await? } else { None };
    let progress = kept.unwrap_or_else(|| begins(at.unwrap_or(subscription.start)));
    let Progress { cursor, acked, rows } = progress;
    // A clock that was set back must not stretch a step.
    let longest = subscription.settings.schedule.longest_wait();
    let latest = now.plus(longest);
    let mut keyed = Vec::with_capacity(rows.len());
    for row in rows {
        let event = attempt::read(store, subscription.tenant, row.offset).await?;
        keyed.push((Row { due: row.due.min(latest), ..row }, event.and_then(|event| key(&event))));
    }
    let circuit = standing.circuit.clone().clamped(now, longest);
    let standing = Standing { circuit, ..standing };
    let acks = Acks::from_bytes(cursor, &acked);
    Ok(Lane::new(subscription.settings.clone(), standing, cursor, acks, keyed, now))
}

/// The keys of events, for those that the log still has.
pub(super) async fn keys(
    store: Arc<dyn Store>,
    tenant: Tenant,
    offsets: Vec<Offset>,
) -> Result<HashMap<Offset, Option<u64>>, Unavailable> {
    let mut found = HashMap::default();
    for offset in offsets {
        if let Some(event) = attempt::read(&*store, tenant, offset).await? {
            found.insert(offset, key(&event));
        }
    }
    Ok(found)
}

/// Begins to read up to `limit` matching events after `after` from the disk.
pub(super) fn page(
    store: &dyn Store,
    tenant: Tenant,
    filter: &Filter,
    after: Offset,
    limit: usize,
) -> Pending<Result<Page, Unavailable>> {
    store.read(Query { filter: filter.clone(), ..Query::after(tenant, after, limit) })
}

/// Reads again what waited for an event: offsets, and how far it was read.
pub(super) async fn followers(
    store: Arc<dyn Store>,
    tenant: Tenant,
    filter: Filter,
    follow: Follow,
) -> Result<(Vec<Offset>, Offset), Unavailable> {
    let Some(first) = attempt::read(&*store, tenant, follow.of).await? else {
        tracing::error!(offset = follow.of.0, "an event that others wait for is gone");
        return Ok((Vec::new(), follow.through));
    };
    let filter = Filter { aggregate: first.subject.aggregate.clone(), ..filter };
    let query = Query { filter, through: Some(follow.through), ..Query::after(tenant, follow.after, FOLLOWERS) };
    let page = store.read(query).await?;
    let reached = if page.more { page.reached } else { follow.through };
    Ok((page.events.iter().map(|event| event.offset).collect(), reached))
}
