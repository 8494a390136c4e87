//! Finding events: by id, or a page of those that a filter takes.
//!
//! A filter with an aggregate, channels or types is answered from postings: first those in memory, then those on disk,
//! so that an event on its way from one to the other is seen at least once. The cost is that of what is found, not of
//! the history.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::posting::{Kind, Posting};

use super::reader::{Found, Reader};
use super::run::{self, Range};
use crate::event::{Event, Tenant};
use crate::query::{Frame, Framed, Order, Page, Query};

/// Events that one page looks at, at most: a filter that takes few of them gets a short page with `more`.
const CANDIDATES_MAX: usize = 10_000;

/// Room for frames at first.
const FRAMES_BYTES: usize = 512 * 1024;

pub(crate) fn by_id(reader: &Reader, tenant: Tenant, id: &EventId) -> rusqlite::Result<Option<Arc<Event>>> {
    let posting = Posting::new(tenant.0, Kind::Id, id.as_str());
    let recent = reader.shared.index.read().offsets(posting);
    if let Some(event) = first_with_id(reader, tenant, id, recent)? {
        return Ok(Some(event));
    }
    for run in reader.shared.runs.list().iter().rev().filter(|run| run.may_have(posting)) {
        let offsets = run::offsets(&reader.connection, &run.meta, posting, &Range::ALL)?;
        if let Some(event) = first_with_id(reader, tenant, id, offsets)? {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

fn first_with_id(
    reader: &Reader,
    tenant: Tenant,
    id: &EventId,
    offsets: Vec<u64>,
) -> rusqlite::Result<Option<Arc<Event>>> {
    for offset in offsets {
        if let Some(event) = reader.event(tenant, Offset(offset))?
            && event.subject.id == *id
        {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

pub(crate) fn page(reader: &Reader, query: &Query) -> rusqlite::Result<Page> {
    let mut events = Vec::new();
    let Reach { reached, more, first } = search(reader, query, |found| {
        let event = found.event()?;
        if query.filter.matches(&event.subject) {
            events.push(event);
        }
        Ok(events.len() < query.limit)
    })?;
    Ok(Page { events, reached, more, first })
}

pub(crate) fn frames(reader: &Reader, query: &Query, bytes_max: usize, frame: &Frame) -> rusqlite::Result<Framed> {
    let mut framed = Framed::default();
    framed.bytes.reserve(bytes_max.min(FRAMES_BYTES));
    let Reach { reached, more, first } = search(reader, query, |found| {
        if found.is_taken(&query.filter)? {
            framed.push(&found.record(), frame);
        }
        Ok(framed.ends.len() < query.limit && framed.bytes.len() < bytes_max)
    })?;
    if framed.bytes.len() < framed.bytes.capacity() / 2 {
        framed.bytes.shrink_to_fit();
    }
    Ok(Framed { reached, more, first, ..framed })
}

/// How far a search went, whether there may be more beyond, and where the log began.
struct Reach {
    reached: Offset,
    more: bool,
    first: Offset,
}

/// Shows `take` what a query may find, until it says that it has room for no more.
fn search(
    reader: &Reader,
    query: &Query,
    take: impl FnMut(Found<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<Reach> {
    let extent = reader.shared.end(query.tenant).extent;
    let through = query.through.map_or(extent.head, |through| through.min(extent.head));
    if through <= query.after {
        return Ok(Reach { reached: query.after, more: false, first: extent.first });
    }
    // One view of the file for all statements, from the first one on: retention takes nothing out of it.
    let _view = reader.connection.unchecked_transaction()?;
    let mut walk = Walk { take, room: true, seen: 0, reached: query.after, more: false };
    let first = match postings(query.tenant, &query.filter) {
        None => {
            let first = reader.first(query.tenant)?;
            reader.scan(query.tenant, query.after, through, query.order, |found| walk.visit(found))?;
            first
        }
        Some(postings) => follow(reader, query, through, &postings, &mut walk)?,
    };
    if !walk.more && query.order == Order::Ascending {
        walk.reached = through;
    }
    Ok(Reach { reached: walk.reached, more: walk.more, first })
}

/// The postings that lead to all events a filter takes; `None` if only a scan finds them.
fn postings(tenant: Tenant, filter: &Filter) -> Option<Vec<Posting>> {
    if let Some(aggregate) = &filter.aggregate {
        return Some(vec![Posting::new(tenant.0, Kind::Aggregate, aggregate.as_str())]);
    }
    let channels = match (&filter.channels[..], &filter.confined) {
        ([], None) => None,
        ([], Some(confined)) => Some(&confined[..]),
        (channels, _) => Some(channels),
    };
    if let Some(channels) = channels {
        return Some(channels.iter().map(|c| Posting::new(tenant.0, Kind::Channel, c.as_str())).collect());
    }
    if filter.types.is_empty() {
        return None;
    }
    filter.types.iter().map(|pattern| Posting::of_pattern(tenant.0, pattern)).collect()
}

/// Goes on until a page is full or has looked at enough.
struct Walk<F> {
    take: F,
    room: bool,
    seen: usize,
    reached: Offset,
    more: bool,
}

impl<F: FnMut(Found<'_>) -> rusqlite::Result<bool>> Walk<F> {
    /// Looks at one event; false when the page can take no more.
    fn visit(&mut self, found: Found<'_>) -> rusqlite::Result<bool> {
        if !self.room || self.seen == CANDIDATES_MAX {
            self.more = true;
            return Ok(false);
        }
        self.seen += 1;
        self.reached = found.record().offset;
        self.room = (self.take)(found)?;
        Ok(true)
    }
}

/// Looks at what the postings lead to; where the log begins.
fn follow<F: FnMut(Found<'_>) -> rusqlite::Result<bool>>(
    reader: &Reader,
    query: &Query,
    through: Offset,
    postings: &[Posting],
    walk: &mut Walk<F>,
) -> rusqlite::Result<Offset> {
    let mut recent: BTreeSet<u64> = {
        let tail = reader.shared.index.read();
        let within = |offset: &u64| *offset > query.after.0 && *offset <= through.0;
        postings.iter().flat_map(|posting| tail.offsets(*posting)).filter(within).collect()
    };
    // After the tail: what it has given away meanwhile is in a run. What it has not given away yet may be in both.
    let list = reader.shared.runs.list();
    // And after that the view: it has these runs. What retention took before it may be in memory for another moment.
    let first = reader.first(query.tenant)?;
    recent = recent.split_off(&first.0);
    let query = &Query { after: query.after.max(Offset(first.0.saturating_sub(1))), ..query.clone() };
    let mut covers: Vec<_> = list.iter().filter_map(|run| Some((run, run.meta.cover(query.tenant)?))).collect();
    if let Some((_, newest)) = covers.last() {
        recent = recent.split_off(&newest.last.saturating_add(1));
    }
    covers.retain(|(_, cover)| cover.last > query.after.0 && cover.first <= through.0);
    if query.order == Order::Descending {
        covers.reverse();
        if !visit_all(reader, query, walk, std::mem::take(&mut recent))? {
            return Ok(first);
        }
    }
    // One more than a page looks at tells it that there is more.
    let range = Range { after: query.after.0, through: through.0, order: query.order, limit: CANDIDATES_MAX + 1 };
    for (run, _) in covers {
        let mut offsets = BTreeSet::new();
        for posting in postings.iter().filter(|posting| run.may_have(**posting)) {
            offsets.extend(run::offsets(&reader.connection, &run.meta, *posting, &range)?);
        }
        if !visit_all(reader, query, walk, offsets)? {
            return Ok(first);
        }
    }
    visit_all(reader, query, walk, recent)?;
    Ok(first)
}

/// Looks at the events at some offsets; false when the page can take no more.
fn visit_all<F: FnMut(Found<'_>) -> rusqlite::Result<bool>>(
    reader: &Reader,
    query: &Query,
    walk: &mut Walk<F>,
    offsets: BTreeSet<u64>,
) -> rusqlite::Result<bool> {
    let ordered: Box<dyn Iterator<Item = u64>> = match query.order {
        Order::Ascending => Box::new(offsets.into_iter()),
        Order::Descending => Box::new(offsets.into_iter().rev()),
    };
    for offset in ordered {
        // What is not there any more: retention was faster.
        if reader.look(query.tenant, Offset(offset), |found| walk.visit(found))? == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}
