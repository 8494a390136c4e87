//! What became of events at a webhook: its deliveries by status, its attempts by age.

use std::collections::hash_map::Entry;

use foldhash::HashMap;
use serde_json::{Value, json};
use tidings_core::event::EventType;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_log::store::{Attempt, DeadLetter, DeadQuery, DeadState};
use tidings_log::{Event, Order, Query, Tenant};

use super::find;
use crate::api::call::Call;
use crate::api::page::{self, limit};
use crate::api::problem::Problem;
use crate::api::routes::Answer;
use crate::control::deliveries::{Book, Delivery, State};
use crate::control::webhooks::Record;

/// Events that one request looks at; a page may be short, its cursor says whether it is the last.
const LOOKED_AT_MAX: usize = 2_000;
const EVENTS_PAGE: usize = 250;

pub(crate) async fn list(call: Call) -> Answer {
    let record = find(&call)?;
    let limit = limit(&call)?;
    let status = call
        .parameter("status")
        .map(|text| State::parse(text).ok_or_else(|| Problem::parameter("status", State::NAMES)));
    let status = status.transpose()?;
    let tenant = call.tenant().await?;
    if status == Some(State::Dead) {
        return dead(&call, tenant, &record, limit).await;
    }
    let below = page::offset(&call, "after")?;
    let mut book = Book::of_webhook(&call.app.webhooks, tenant, &record).await?;
    let mut found = Found { items: Vec::new(), limit, status, looked_at: 0, next: None };
    if status == Some(State::Retrying) {
        let offsets: Vec<_> = book.retrying(below.unwrap_or(Offset(u64::MAX))).take(limit + 1).collect();
        for offset in offsets {
            if let Some(event) = call.app.store.event(tenant, offset).await? {
                found.take(&mut book, &event).await?;
            }
        }
        return Ok(found.page());
    }
    for (after, through) in ranges(&call, tenant, &book, status) {
        if found.is_full() {
            break;
        }
        let through = below.map_or(through, |below| through.min(Offset(below.0.saturating_sub(1))));
        scan(&call, tenant, &mut book, (after, through), &mut found).await?;
    }
    Ok(found.page())
}

/// Where deliveries of a status can be: exclusive starts and inclusive ends, the newest first.
fn ranges(call: &Call, tenant: Tenant, book: &Book, status: Option<State>) -> Vec<(Offset, Offset)> {
    let head = call.app.store.extent(tenant).head;
    let before = |offset: Offset| Offset(offset.0.saturating_sub(1));
    match status {
        Some(State::Pending) => vec![(book.oldest_row().min(book.cursor()), head)],
        Some(State::Parked) => book.first_parked().map(|first| (first, head)).into_iter().collect(),
        Some(State::Skipped) => book.skipped().into_iter().map(|(first, last)| (before(first), last)).collect(),
        _ => vec![(Offset(0), head)],
    }
}

/// What was found for a page.
struct Found {
    items: Vec<(Offset, Value)>,
    limit: usize,
    status: Option<State>,
    looked_at: usize,
    /// Where to go on, if not after the last item.
    next: Option<Offset>,
}

impl Found {
    fn is_full(&self) -> bool {
        self.items.len() > self.limit || self.next.is_some()
    }

    async fn take(&mut self, book: &mut Book, event: &Event) -> Result<(), Problem> {
        self.looked_at += 1;
        let Some(delivery) = book.delivery(event).await? else { return Ok(()) };
        if self.status.is_none_or(|status| status == delivery.state) {
            self.items.push((event.offset, summary(event, &delivery)));
        }
        Ok(())
    }

    fn page(self) -> http::Response<axum::body::Body> {
        let (page, next) = page::cut(&self.items, self.limit, |(offset, _)| offset.to_string());
        let items: Vec<_> = page.iter().map(|(_, item)| item.to_string().into_bytes()).collect();
        page::render(&items, next.or_else(|| self.next.map(|offset| offset.to_string())))
    }
}

/// Looks at the events of a range, the newest first, until the page is full or enough were looked at.
async fn scan(
    call: &Call,
    tenant: Tenant,
    book: &mut Book,
    (after, mut through): (Offset, Offset),
    found: &mut Found,
) -> Result<(), Problem> {
    while through > after {
        let filter = book.filter().clone();
        let order = Order::Descending;
        let query = Query { tenant, filter, after, through: Some(through), order, limit: EVENTS_PAGE };
        let page = call.app.store.read(query).await?;
        for event in &page.events {
            found.take(book, event).await?;
            if found.items.len() > found.limit {
                return Ok(());
            }
            if found.looked_at >= LOOKED_AT_MAX {
                found.next = Some(event.offset);
                return Ok(());
            }
        }
        if !page.more {
            return Ok(());
        }
        through = Offset(page.reached.0.saturating_sub(1));
    }
    Ok(())
}

/// A delivery in a list.
fn summary(event: &Event, delivery: &Delivery) -> Value {
    json!({
        "eventId": event.subject.id,
        "eventType": event.subject.event_type,
        "aggregateId": event.subject.aggregate,
        "offset": event.offset,
        "status": delivery.state,
        "reason": delivery.reason,
        "attempts": delivery.attempts.len(),
        "lastAttemptAt": delivery.attempts.last().map(|attempt| attempt.at),
        "nextAttemptAt": delivery.due,
        "deadLetter": null,
    })
}

/// Those that were given up: dead letters, the newest first.
async fn dead(call: &Call, tenant: Tenant, record: &Record, limit: usize) -> Answer {
    let mut before = page::after(call, |text| page::is_id(text, "dl"))?.map(Into::into);
    let mut found: Vec<DeadLetter> = Vec::new();
    while found.len() <= limit {
        let query = DeadQuery {
            tenant,
            subscription: Some(record.id.clone()),
            event_type: None,
            since: None,
            open: false,
            before: before.take(),
            limit: limit + 1,
        };
        let page = call.app.store.dead_letters(query).await?;
        before = page.last().map(|letter| letter.id.clone());
        let last = page.len() <= limit;
        found.extend(page.into_iter().filter(|letter| !matches!(letter.state, DeadState::Replayed { .. })));
        if last {
            break;
        }
    }
    let (page, next) = page::cut(&found, limit, |letter| letter.id.to_string());
    let mut items = Vec::with_capacity(page.len());
    for letter in page {
        let event = call.app.store.event(tenant, letter.offset).await?;
        let item = json!({
            "eventId": event.as_ref().map(|event| &event.subject.id),
            "eventType": &*letter.event_type,
            "aggregateId": event.as_ref().and_then(|event| event.subject.aggregate.as_ref()),
            "offset": letter.offset,
            "status": State::Dead,
            "reason": &*letter.reason,
            "attempts": letter.attempts,
            "lastAttemptAt": letter.at,
            "nextAttemptAt": null,
            "deadLetter": &*letter.id,
        });
        items.push(item.to_string().into_bytes());
    }
    Ok(page::render(&items, next))
}

/// Every attempt, the newest first.
pub(crate) async fn attempts(call: Call) -> Answer {
    let record = find(&call)?;
    let limit = limit(&call)?;
    let before = page::after(&call, |text| page::whole_number(text).is_some())?.and_then(page::whole_number);
    let tenant = call.tenant().await?;
    let found = call.app.store.history(&record.id, before, limit + 1).await?;
    let (page, next) = page::cut(&found, limit, |(number, _)| number.to_string());
    let mut events: HashMap<Offset, Option<(EventId, EventType)>> = HashMap::default();
    let mut items = Vec::with_capacity(page.len());
    for (_, attempt) in page {
        if let Entry::Vacant(vacant) = events.entry(attempt.offset) {
            let event = call.app.store.event(tenant, attempt.offset).await?;
            vacant.insert(event.map(|event| (event.subject.id.clone(), event.subject.event_type.clone())));
        }
        let event = events.get(&attempt.offset).and_then(Option::as_ref);
        let mut item = shown(attempt);
        item["eventId"] = json!(event.map(|(id, _)| id));
        item["eventType"] = json!(event.map(|(_, event_type)| event_type.as_str()));
        item["offset"] = json!(attempt.offset);
        items.push(item.to_string().into_bytes());
    }
    Ok(page::render(&items, next))
}

/// One attempt.
pub(crate) fn shown(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "at": attempt.at,
        "latencyMs": attempt.latency_ms,
        "status": attempt.status,
        "reason": attempt.reason.as_deref(),
        "answer": attempt.answer.as_deref(),
        "replay": attempt.replay,
    })
}
