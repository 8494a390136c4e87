//! Reading the log: pages, single events, aggregates, deliveries, and erasing data.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tidings_core::event::AggregateId;
use tidings_core::filter::Filter;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_log::{Event, Order, Query, Tenant, Write, Written};

use super::body::answer;
use super::call::Call;
use super::kinds;
use super::page::{self, between, limit, order};
use super::problem::{Problem, internal};
use super::routes::Answer;
use super::webhooks::deliveries::shown;
use crate::clock;
use crate::control::audit;
use crate::control::deliveries::{Book, State};

pub(crate) async fn list(call: Call) -> Answer {
    let filter = call.filter()?;
    pages(&call, filter).await
}

pub(crate) async fn of_aggregate(call: Call) -> Answer {
    let aggregate =
        AggregateId::parse(&call.path_value()?).map_err(|error| Problem::parameter("aggregateId", error))?;
    let filter = Filter { aggregate: Some(aggregate), ..call.filter()? };
    pages(&call, filter).await
}

/// A page of events. `after` is the last offset the reader has seen, in the order that it reads.
async fn pages(call: &Call, filter: Filter) -> Answer {
    let (limit, order, after) = (limit(call)?, order(call)?, page::offset(call, "after")?);
    page::time(call, "since")?;
    page::time(call, "until")?;
    let Some(tenant) = call.known_tenant() else { return Ok(page::render(&[], None)) };
    let (mut from, mut through) = between(call, tenant).await?;
    match (order, after) {
        (Order::Ascending, Some(after)) => from = from.max(after),
        (Order::Descending, Some(after)) => {
            let below = Offset(after.0.saturating_sub(1));
            through = Some(through.map_or(below, |through| through.min(below)));
        }
        (_, None) => {}
    }
    let mut found: Vec<Arc<Event>> = Vec::new();
    let mut next = None;
    // A filter that takes few of many gets short pages from the log; the caller gets full ones.
    loop {
        let query = Query { tenant, filter: filter.clone(), after: from, through, order, limit: limit - found.len() };
        let page = call.app.store.read(query).await?;
        found.extend(page.events);
        if !page.more {
            break;
        }
        if found.len() == limit {
            next = found.last().map(|event| event.offset.to_string());
            break;
        }
        match order {
            Order::Ascending => from = page.reached,
            Order::Descending => through = Some(Offset(page.reached.0.saturating_sub(1))),
        }
    }
    let items: Vec<_> = found.iter().map(|event| render(event)).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn one(call: Call) -> Answer {
    let (_, event) = find(&call).await?;
    Ok(answer(StatusCode::OK, render(&event)))
}

/// What became of an event at each consumer and each webhook that it is for, by their ids.
pub(crate) async fn deliveries(call: Call) -> Answer {
    let limit = limit(&call)?;
    let after = page::after(&call, |text| page::is_id(text, "cns") || page::is_id(text, "wh"))?.unwrap_or_default();
    let (tenant, event) = find(&call).await?;
    let mut found = Vec::new();
    for consumer in call.app.consumers.list_by_id(&call.tenant, after) {
        if found.len() > limit {
            break;
        }
        if call.principal.reaches(consumer.confined.as_deref()) {
            let mut book = Book::of_consumer(&call.app.consumers, tenant, &consumer).await?;
            let who = json!({ "consumer": consumer.name });
            found.extend(told(&mut book, who, &event).await?.map(|told| (consumer.id.clone(), told)));
        }
    }
    // The ids of consumers begin with `cns_`, those of webhooks with `wh_`: they come later.
    for webhook in call.app.webhooks.list(&call.tenant, after) {
        if found.len() > limit {
            break;
        }
        if call.principal.reaches(webhook.confined.as_deref()) {
            let mut book = Book::of_webhook(&call.app.webhooks, tenant, &webhook).await?;
            let who = json!({ "webhook": webhook.id, "url": webhook.settings.url });
            found.extend(told(&mut book, who, &event).await?.map(|told| (webhook.id.clone(), told)));
        }
    }
    let (page, next) = page::cut(&found, limit, |(id, _)| id.to_string());
    let deliveries: Vec<_> = page.iter().map(|(_, delivery)| delivery).collect();
    let body = json!({ "eventId": event.subject.id, "data": deliveries, "nextCursor": next });
    Ok(answer(StatusCode::OK, body.to_string()))
}

/// What became of an event at a subscriber, with every attempt; `None`: it is not for it.
async fn told(book: &mut Book, mut who: Value, event: &Event) -> Result<Option<Value>, Problem> {
    let Some(delivery) = book.delivery(event).await? else { return Ok(None) };
    let letter = if delivery.state == State::Dead { book.letter(event).await? } else { None };
    who["status"] = json!(delivery.state);
    who["reason"] = json!(delivery.reason);
    who["nextAttemptAt"] = json!(delivery.due);
    who["deadLetter"] = json!(letter.map(|letter| letter.id));
    who["attempts"] = delivery.attempts.iter().map(shown).collect();
    Ok(Some(who))
}

pub(crate) async fn erase(call: Call) -> Answer {
    let (tenant, event) = find(&call).await?;
    if event.subject.event_type.is_operational() {
        // Whoever may erase personal data may not erase who changed what.
        let detail = "`tidings.*` events are the audit trail: their data stays";
        return Err(Problem::new(&kinds::FORBIDDEN, detail));
    }
    if event.bytes().is_none() {
        return Ok(erased(&event));
    }
    let now = clock::now();
    let what = json!({ "eventId": event.subject.id, "eventType": event.subject.event_type, "offset": event.offset });
    let audit = audit::append(tenant, "tidings.event.erased", &call.principal.actor, &what, now)?;
    let erase = Write::Erase(tenant, event.subject.id.clone());
    let written = call.app.store.commit(now, vec![erase, audit]).await?;
    match written.first() {
        Some(Written::Erased(offset)) => {
            call.app.consumers.erase(&call.tenant, *offset);
            Ok(erased(&event))
        }
        other => Err(internal(&format!("unexpected answer {other:?}"))),
    }
}

/// Erasing again changes nothing and answers the same.
fn erased(event: &Event) -> Response<Body> {
    let body = json!({ "eventId": event.subject.id, "offset": event.offset, "erased": true });
    answer(StatusCode::OK, body.to_string())
}

/// The event that the path names, if the caller may see it; what it may not see does not exist for it.
async fn find(call: &Call) -> Result<(Tenant, Arc<Event>), Problem> {
    let missing = || Problem::not_found("event");
    let id = EventId::parse(&call.path_value()?).map_err(|_| missing())?;
    let tenant = call.known_tenant().ok_or_else(missing)?;
    let event = call.app.store.find(tenant, &id).await?.ok_or_else(missing)?;
    let visible = Filter { confined: call.principal.channels.clone(), ..Filter::everything() };
    let operational = event.subject.event_type.is_operational();
    let allowed = !operational || call.principal.may(tidings_core::key::Scope::OpsRead);
    if visible.matches(&event.subject) && allowed { Ok((tenant, event)) } else { Err(missing()) }
}

/// The envelope with the numbers of the log.
pub(crate) fn render(event: &Event) -> Vec<u8> {
    let mut json = event.envelope().to_vec();
    json.pop();
    json.extend_from_slice(format!(",\"offset\":{},\"recordedAt\":\"{}\"}}", event.offset, event.recorded).as_bytes());
    json
}
