//! Where a lane begins, and what it reads.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use foldhash::{HashMap, HashSet};
use tidings_core::circuit::Standing;
use tidings_core::filter::Filter;
use tidings_core::lane::{Acks, Follow, Lane, Row, RowState};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{DeadLetter, DeadState, Kind, Owner, Progress};
use tidings_log::{Event, Query, Store, Tenant, Unavailable};

use super::signals::{Followed, Letters, Replayed};
use super::{Subscription, attempt};

/// Events of one aggregate that are read again at once.
const FOLLOWERS: usize = 64;

/// Hashes aggregates to the keys of a lane. Who chooses ids that collide only makes his own events wait for each other.
pub(super) fn key(event: &Event) -> Option<u64> {
    event.subject.aggregate.as_ref().map(|aggregate| FixedState::with_seed(0x7469_6469_6e67_7321).hash_one(aggregate))
}

/// The lane as it was committed, and the events that were being sent when the process ended. `first`: it has not run since
/// the start, which forgets who succeeded last.
pub(super) async fn open(
    store: &dyn Store,
    subscription: &Subscription,
    known: Option<Standing>,
    (at, from, first): (Option<Offset>, Offset, bool),
    now: Timestamp,
) -> Result<(Lane, Vec<Arc<Event>>), Unavailable> {
    let standing = match known {
        Some(standing) => standing,
        None => standing(store, subscription).await?,
    };
    let begins = |cursor| Progress { cursor, ..Progress::default() };
    let kept = if at.is_none() { store.progress(&subscription.id).await? } else { None };
    let progress = kept.unwrap_or_else(|| begins(at.unwrap_or(from)));
    let Progress { cursor, acked, rows } = progress;
    // A clock that was set back must not stretch a step.
    let longest = subscription.settings.schedule.longest_wait();
    let latest = now.plus(longest);
    let mut keyed = Vec::with_capacity(rows.len());
    let mut in_doubt = Vec::new();
    for row in rows {
        let event = attempt::read(store, subscription.tenant, row.offset).await?;
        let key = event.as_deref().and_then(key);
        in_doubt.extend(event.filter(|_| row.state == RowState::Counted));
        keyed.push((Row { due: row.due.min(latest), ..row }, key));
    }
    let mut circuit = standing.circuit.clone().clamped(now, longest);
    if first && circuit.failures() == 0 {
        let last = store.history(&subscription.id, None, 1).await?;
        if last.first().is_some_and(|(_, attempt)| attempt.reason.is_none()) {
            circuit.trust();
        }
    }
    let standing = Standing { circuit, ..standing };
    let acks = Acks::from_bytes(cursor, &acked);
    Ok((Lane::new(subscription.settings.clone(), standing, cursor, acks, keyed, now), in_doubt))
}

/// How a subscription stands, as the log keeps it.
pub(super) async fn standing(store: &dyn Store, subscription: &Subscription) -> Result<Standing, Unavailable> {
    let kept = store.get(Kind::Standing, Owner::Tenant(subscription.tenant), &subscription.id).await?;
    Ok(kept.and_then(|document| serde_json::from_slice(&document.body).ok()).unwrap_or_default())
}

/// Those of `letters` that are open, with the keys of their events if `keyed`.
pub(super) async fn letters(
    store: Arc<dyn Store>,
    tenant: Tenant,
    mut letters: Vec<DeadLetter>,
    keyed: bool,
) -> Result<Letters, Unavailable> {
    let closed = closed(&*store, tenant, letters.iter().map(|letter| (letter.offset, &*letter.id))).await?;
    letters.retain(|letter| !closed.contains(&letter.offset));
    let mut keys = HashMap::default();
    for letter in letters.iter().filter(|_| keyed) {
        if let Some(event) = attempt::read(&*store, tenant, letter.offset).await? {
            keys.insert(letter.offset, key(&event));
        }
    }
    Ok((letters, keys))
}

/// A page for a replay that holds `letters`, by offset.
pub(super) async fn replayed(
    store: Arc<dyn Store>,
    query: Query,
    letters: Vec<(Offset, Box<str>)>,
) -> Result<Replayed, Unavailable> {
    let tenant = query.tenant;
    let page = store.read(query).await?;
    let of_event = |event: &Arc<Event>| {
        let place = letters.binary_search_by_key(&event.offset, |(offset, _)| *offset).ok()?;
        letters.get(place).map(|(offset, id)| (*offset, &**id))
    };
    let closed = closed(&*store, tenant, page.events.iter().filter_map(of_event)).await?;
    Ok((page, closed))
}

/// The events of those dead letters that are not open any more.
async fn closed(
    store: &dyn Store,
    tenant: Tenant,
    letters: impl Iterator<Item = (Offset, &str)>,
) -> Result<HashSet<Offset>, Unavailable> {
    let mut closed = HashSet::default();
    for (offset, id) in letters {
        if store.dead_letter(tenant, id).await?.is_none_or(|letter| letter.state != DeadState::Open) {
            closed.insert(offset);
        }
    }
    Ok(closed)
}

/// Reads again what waited for an event.
pub(super) async fn followers(
    store: Arc<dyn Store>,
    tenant: Tenant,
    filter: Filter,
    follow: Follow,
) -> Result<Followed, Unavailable> {
    let Some(event) = attempt::read(&*store, tenant, follow.of).await? else {
        tracing::error!(offset = follow.of.0, "an event that others wait for is gone");
        return Ok(Followed { reached: follow.through, ..Followed::default() });
    };
    let filter = Filter { aggregate: event.subject.aggregate.clone(), ..filter };
    let query = Query { filter, through: Some(follow.through), ..Query::after(tenant, follow.after, FOLLOWERS) };
    let page = store.read(query).await?;
    let reached = if page.more { page.reached } else { follow.through };
    let offsets = page.events.iter().map(|event| event.offset).collect();
    Ok(Followed { offsets, reached, first: page.first })
}
