//! Finding events: by id, or a page of those that a filter takes.
//!
//! A filter with an aggregate, channels or types is answered from postings: first those in memory, then those on disk,
//! so that an event on its way from one to the other is seen at least once. The cost is that of what is found, not of
//! the history.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::params;
use tidings_core::filter::Filter;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::posting::{Kind, Posting};

use super::reader::{Reader, indexed};
use crate::event::{Event, Tenant};
use crate::index::{self, GENERATION_BITS};
use crate::query::{Order, Page, Query};

/// Events that one page looks at, at most: a filter that takes few of them gets a short page with `more`.
const CANDIDATES_MAX: usize = 10_000;

pub(crate) fn by_id(reader: &Reader, tenant: Tenant, id: &EventId) -> rusqlite::Result<Option<Arc<Event>>> {
    let posting = Posting::new(tenant.0, Kind::Id, id.as_str());
    let recent = reader.shared.index.read().offsets(posting);
    if let Some(event) = first_with_id(reader, tenant, id, recent)? {
        return Ok(Some(event));
    }
    for generation in reader.shared.generations(tenant) {
        let offsets = indexed(&reader.connection, generation, posting)?;
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
    let within = |offset: &u64| *offset > query.after.0 && *offset <= through.0;
    let recent: BTreeSet<u64> = {
        let tail = reader.shared.index.read();
        postings.iter().flat_map(|posting| tail.offsets(*posting)).filter(within).collect()
    };
    let mut generations = reader.shared.generations(query.tenant);
    if query.order == Order::Descending {
        generations.reverse();
    }
    let first = query.after.0 >> GENERATION_BITS;
    let last = through.0 >> GENERATION_BITS;
    for generation in generations.into_iter().filter(|generation| (first..=last).contains(generation)) {
        let low = generation << GENERATION_BITS;
        let high = low + (1 << GENERATION_BITS) - 1;
        let mut offsets: BTreeSet<u64> = recent.range(low..=high).copied().collect();
        for posting in postings {
            offsets.extend(stored(reader, generation, *posting, query, through)?);
        }
        if !visit_all(reader, query, &mut collector, offsets)? {
            return Ok(collector.finish(through));
        }
    }
    Ok(collector.finish(through))
}

/// The offsets that a generation on disk has for a page, as many as it may look at: rows ascend and do not overlap.
fn stored(
    reader: &Reader,
    generation: u64,
    posting: Posting,
    query: &Query,
    through: Offset,
) -> rusqlite::Result<Vec<u64>> {
    let direction = if query.order == Order::Ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT first, rest FROM posting WHERE generation = ?1 AND scope = ?2 AND key = ?3 AND tag = ?4 AND first <= ?6 \
         AND first >= coalesce((SELECT max(first) FROM posting WHERE generation = ?1 AND scope = ?2 AND key = ?3 AND tag = ?4 \
         AND first <= ?5), 0) ORDER BY first {direction}"
    );
    let mut select = reader.connection.prepare_cached(&sql)?;
    let mut rows = select.query(params![
        generation.cast_signed(),
        posting.scope.cast_signed(),
        posting.key.cast_signed(),
        posting.tag.cast_signed(),
        query.after.0.cast_signed(),
        through.0.cast_signed()
    ])?;
    let mut offsets = Vec::new();
    // One more than a page looks at tells it that there is more.
    while offsets.len() <= CANDIDATES_MAX
        && let Some(row) = rows.next()?
    {
        let run = index::decode(row.get::<_, i64>(0)?.cast_unsigned(), row.get_ref(1)?.as_blob()?);
        offsets.extend(run.into_iter().filter(|offset| *offset > query.after.0 && *offset <= through.0));
    }
    Ok(offsets)
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
