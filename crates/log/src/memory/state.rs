//! What the disk has: a table for each sort of thing, and how reads see them.

use std::sync::Arc;

use tidings_core::chain::Hash;
use tidings_core::id::EventId;
use tidings_core::lane::Row;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::table::Table;
use crate::event::{Event, Tenant};
use crate::query::{Order, Page, Query};
use crate::store::{
    Appended, Attempt, Behind, DeadLetter, DeadQuery, DeadState, Document, Extent, Kind, Owner, Progress, Seal, Swept,
};

/// A tenant's log.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) name: TenantName,
    pub(super) extent: Extent,
    pub(super) recorded: Timestamp,
    /// The first offset of each era, and the last one before it.
    pub(super) eras: Vec<(Offset, Offset)>,
}

/// A seal with what it covers.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) seal: Seal,
    pub(super) previous: Hash,
    /// Empty once retention took the events.
    pub(super) leaves: Vec<u8>,
}

/// The answer to a request with a key.
#[derive(Clone)]
pub(super) struct Answered {
    pub(super) body: Hash,
    pub(super) at: Timestamp,
    pub(super) results: Vec<Appended>,
}

/// A subscription's cursor and acks; its rows stand beside it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) tenant: Tenant,
    pub(super) cursor: Offset,
    pub(super) acked: Vec<u8>,
}

/// Kind, id, owner: in the order of lists.
pub(super) type DocumentKey = (u8, Box<str>, Option<Tenant>);

pub(super) fn document_key(kind: Kind, owner: Owner, id: &str) -> DocumentKey {
    let owner = match owner {
        Owner::Operator => None,
        Owner::Tenant(tenant) => Some(tenant),
    };
    (kind as u8, id.into(), owner)
}

#[derive(Default)]
pub(super) struct State {
    pub(super) logs: Table<Tenant, Log>,
    pub(super) events: Table<(Tenant, Offset), Arc<Event>>,
    pub(super) ids: Table<(Tenant, Box<str>), Offset>,
    /// The last sequence number of each aggregate; outlives retention.
    pub(super) heads: Table<(Tenant, Box<str>), u64>,
    pub(super) requests: Table<Hash, Answered>,
    /// By the last offset.
    pub(super) seals: Table<(Tenant, Offset), Sealed>,
    pub(super) documents: Table<DocumentKey, Document>,
    pub(super) progress: Table<Box<str>, Place>,
    pub(super) rows: Table<(Box<str>, Offset), Row>,
    pub(super) swept: Table<(Tenant, u8), Offset>,
    pub(super) letters: Table<Box<str>, DeadLetter>,
    /// Events that retention took and a row or a dead letter still needs.
    pub(super) copies: Table<(Tenant, Offset), Arc<Event>>,
    /// By number, from 1.
    pub(super) attempts: Table<u64, (Tenant, Attempt)>,
}

impl State {
    pub(super) fn keep(&mut self) {
        self.logs.keep();
        self.events.keep();
        self.ids.keep();
        self.heads.keep();
        self.requests.keep();
        self.seals.keep();
        self.documents.keep();
        self.progress.keep();
        self.rows.keep();
        self.swept.keep();
        self.letters.keep();
        self.copies.keep();
        self.attempts.keep();
    }

    pub(super) fn undo(&mut self) {
        self.logs.undo();
        self.events.undo();
        self.ids.undo();
        self.heads.undo();
        self.requests.undo();
        self.seals.undo();
        self.documents.undo();
        self.progress.undo();
        self.rows.undo();
        self.swept.undo();
        self.letters.undo();
        self.copies.undo();
        self.attempts.undo();
    }

    pub(super) fn extent(&self, tenant: Tenant) -> Extent {
        self.logs.get(&tenant).map_or(Extent { first: Offset(1), ..Extent::default() }, |log| log.extent)
    }

    pub(super) fn page(&self, query: &Query) -> Page {
        let Extent { first, head, .. } = self.extent(query.tenant);
        let through = query.through.map_or(head, |through| through.min(head));
        let mut page = Page { events: Vec::new(), reached: query.after, more: false, first };
        if through <= query.after {
            return page;
        }
        let range = self.events.range((query.tenant, query.after.next())..=(query.tenant, through));
        let events: Box<dyn Iterator<Item = _>> = match query.order {
            Order::Ascending => Box::new(range),
            Order::Descending => Box::new(range.rev()),
        };
        for (_, event) in events {
            if page.events.len() == query.limit {
                page.more = true;
                return page;
            }
            page.reached = event.offset;
            if query.filter.matches(&event.subject) {
                page.events.push(Arc::clone(event));
            }
        }
        if query.order == Order::Ascending {
            page.reached = through;
        }
        page
    }

    pub(super) fn event(&self, tenant: Tenant, offset: Offset) -> Option<Arc<Event>> {
        self.events.get(&(tenant, offset)).or_else(|| self.copies.get(&(tenant, offset))).cloned()
    }

    pub(super) fn find(&self, tenant: Tenant, id: &EventId) -> Option<Arc<Event>> {
        let offset = *self.ids.get(&(tenant, id.as_str().into()))?;
        self.events.get(&(tenant, offset)).cloned()
    }

    pub(super) fn before(&self, tenant: Tenant, time: Timestamp) -> Offset {
        let first = self.extent(tenant).first;
        let log = self.events.range((tenant, Offset(0))..=(tenant, Offset(u64::MAX)));
        let earlier = log.rev().find(|(_, event)| event.recorded < time);
        earlier.map_or(Offset(first.0.saturating_sub(1)), |(_, event)| event.offset)
    }

    pub(super) fn sealed(&self, tenant: Tenant) -> Option<Seal> {
        let newest = self.seals.range((tenant, Offset(0))..=(tenant, Offset(u64::MAX))).next_back();
        newest.map(|(_, sealed)| sealed.seal)
    }

    pub(super) fn list(&self, kind: Kind, owner: Option<Owner>, after: &str, limit: usize) -> Vec<Document> {
        let all = self.documents.iter().map(|(_, document)| document);
        let mut found: Vec<&Document> = Vec::new();
        for document in all.filter(|document| document.kind == kind && &*document.id > after) {
            if owner.is_some_and(|owner| owner != document.owner) {
                continue;
            }
            // Equal ids of several owners are not torn apart: the next page begins after the id.
            if found.len() >= limit && found.last().is_none_or(|last| last.id != document.id) {
                break;
            }
            found.push(document);
        }
        found.into_iter().cloned().collect()
    }

    pub(super) fn progress(&self, subscription: &str) -> Option<Progress> {
        let place = self.progress.get(&subscription.into())?;
        let rows = self.rows_of(subscription).map(|(_, row)| row.clone()).collect();
        Some(Progress { cursor: place.cursor, acked: place.acked.clone(), rows })
    }

    pub(super) fn rows_of(&self, subscription: &str) -> impl Iterator<Item = (&(Box<str>, Offset), &Row)> {
        let name: Box<str> = subscription.into();
        self.rows.range((name.clone(), Offset(0))..=(name, Offset(u64::MAX)))
    }

    pub(super) fn behind(&self, after: &str, limit: usize) -> Vec<Behind> {
        let behind = |(name, place): (&str, &Place)| Behind {
            subscription: name.into(),
            tenant: place.tenant,
            cursor: place.cursor,
            plain: place.acked.is_empty() && self.rows_of(name).next().is_none(),
        };
        let named = self.progress.iter().map(|(name, place)| (&**name, place));
        named.filter(|(name, _)| *name > after).take(limit).map(behind).collect()
    }

    pub(super) fn swept(&self) -> Vec<Swept> {
        self.swept
            .iter()
            .map(|((tenant, slot), through)| Swept { tenant: *tenant, slot: *slot, through: *through })
            .collect()
    }

    pub(super) fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Vec<Attempt> {
        let all = self.attempts.iter().rev().map(|(_, attempt)| attempt);
        let newest = all.filter(|(whose, attempt)| *whose == tenant && attempt.offset == offset).take(limit);
        let mut found: Vec<_> = newest.map(|(_, attempt)| attempt.clone()).collect();
        found.reverse();
        found
    }

    pub(super) fn history(&self, subscription: &str, before: Option<u64>, limit: usize) -> Vec<(u64, Attempt)> {
        let older = self.attempts.range(..before.unwrap_or(u64::MAX)).rev();
        let of_it = older.filter(|(_, (_, attempt))| &*attempt.subscription == subscription);
        of_it.take(limit).map(|(number, (_, attempt))| (*number, attempt.clone())).collect()
    }

    pub(super) fn dead_letters(&self, query: &DeadQuery) -> Vec<DeadLetter> {
        let fits = |letter: &&DeadLetter| {
            letter.tenant == query.tenant
                && query.subscription.as_ref().is_none_or(|name| *name == letter.subscription)
                && query.event_type.as_ref().is_none_or(|name| *name == letter.event_type)
                && query.since.is_none_or(|since| letter.at >= since)
                && (!query.open || letter.state == DeadState::Open)
                && query.before.as_ref().is_none_or(|before| letter.id < *before)
        };
        self.letters.iter().rev().map(|(_, letter)| letter).filter(fits).take(query.limit).cloned().collect()
    }

    pub(super) fn dead_counts(&self) -> Vec<(Box<str>, u64)> {
        let mut counts = std::collections::BTreeMap::<Box<str>, u64>::new();
        for (_, letter) in self.letters.iter().filter(|(_, letter)| letter.state == DeadState::Open) {
            *counts.entry(letter.subscription.clone()).or_default() += 1;
        }
        counts.into_iter().collect()
    }
}
