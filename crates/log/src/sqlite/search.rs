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

use super::reader::Reader;
use super::run::{self, Range};
use crate::event::{Event, Tenant};
use crate::query::{Order, Page, Query};

/// Events that one page looks at, at most: a filter that takes few of them gets a short page with `more`.
const CANDIDATES_MAX: usize = 10_000;

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
    let extent = reader.shared.end(query.tenant).extent;
    let through = query.through.map_or(extent.head, |through| through.min(extent.head));
    if through <= query.after {
        return Ok(Page { events: Vec::new(), reached: query.after, more: false });
    }
    match postings(query.tenant, &query.filter) {
        None => scan(reader, query, through),
        Some(postings) => follow(reader, query, through, &postings),
    }
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

/// Collects what a page takes until it is full or has looked at enough.
struct Collector<'a> {
    query: &'a Query,
    page: Page,
    seen: usize,
}

impl<'a> Collector<'a> {
    fn new(query: &'a Query) -> Self {
        Self { query, page: Page { events: Vec::new(), reached: query.after, more: false }, seen: 0 }
    }

    /// Looks at one event; false when the page can take no more.
    fn visit(&mut self, event: Arc<Event>) -> bool {
        if self.page.events.len() == self.query.limit || self.seen == CANDIDATES_MAX {
            self.page.more = true;
            return false;
        }
        self.seen += 1;
        self.page.reached = event.offset;
        if self.query.filter.matches(&event.subject) {
            self.page.events.push(event);
        }
        true
    }

    fn finish(mut self, through: Offset) -> Page {
        if !self.page.more && self.query.order == Order::Ascending {
            self.page.reached = through;
        }
        self.page
    }
}

fn scan(reader: &Reader, query: &Query, through: Offset) -> rusqlite::Result<Page> {
    let mut collector = Collector::new(query);
    reader.scan(query.tenant, query.after, through, query.order, |event| collector.visit(event))?;
    Ok(collector.finish(through))
}

fn follow(reader: &Reader, query: &Query, through: Offset, postings: &[Posting]) -> rusqlite::Result<Page> {
    let mut collector = Collector::new(query);
    let mut recent: BTreeSet<u64> = {
        let tail = reader.shared.index.read();
        let within = |offset: &u64| *offset > query.after.0 && *offset <= through.0;
        postings.iter().flat_map(|posting| tail.offsets(*posting)).filter(within).collect()
    };
    // After the tail: what it has given away meanwhile is in a run. What it has not given away yet may be in both.
    let list = reader.shared.runs.list();
    let mut covers: Vec<_> = list.iter().filter_map(|run| Some((run, run.meta.cover(query.tenant)?))).collect();
    if let Some((_, newest)) = covers.last() {
        recent = recent.split_off(&newest.last.saturating_add(1));
    }
    covers.retain(|(_, cover)| cover.last > query.after.0 && cover.first <= through.0);
    if query.order == Order::Descending {
        covers.reverse();
        if !visit_all(reader, query, &mut collector, std::mem::take(&mut recent))? {
            return Ok(collector.finish(through));
        }
    }
    // One more than a page looks at tells it that there is more.
    let range = Range { after: query.after.0, through: through.0, order: query.order, limit: CANDIDATES_MAX + 1 };
    for (run, _) in covers {
        let mut offsets = BTreeSet::new();
        for posting in postings.iter().filter(|posting| run.may_have(**posting)) {
            offsets.extend(run::offsets(&reader.connection, &run.meta, *posting, &range)?);
        }
        if !visit_all(reader, query, &mut collector, offsets)? {
            return Ok(collector.finish(through));
        }
    }
    visit_all(reader, query, &mut collector, recent)?;
    Ok(collector.finish(through))
}

fn visit_all(
    reader: &Reader,
    query: &Query,
    collector: &mut Collector<'_>,
    offsets: BTreeSet<u64>,
) -> rusqlite::Result<bool> {
    let mut visit = |offset: u64| -> rusqlite::Result<bool> {
        match reader.event(query.tenant, Offset(offset))? {
            Some(event) => Ok(collector.visit(event)),
            // Retention was faster.
            None => Ok(true),
        }
    };
    let ordered: Box<dyn Iterator<Item = u64>> = match query.order {
        Order::Ascending => Box::new(offsets.into_iter()),
        Order::Descending => Box::new(offsets.into_iter().rev()),
    };
    for offset in ordered {
        if !visit(offset)? {
            return Ok(false);
        }
    }
    Ok(true)
}
