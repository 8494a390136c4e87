//! `/dead-letters`: deliveries that were given up; sent again, or given up for good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::event::EventType;
use tidings_core::key::Scope;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::{Order, Outcome};
use tidings_log::store::{DeadLetter, DeadQuery, DeadState};
use tidings_log::{Event, Tenant};

use super::body::{self, answer};
use super::call::Call;
use super::document::{self, Plain};
use super::events;
use super::kinds;
use super::page::{self, limit, time};
use super::problem::Problem;
use super::routes::Answer;
use super::webhooks::deliveries::shown;
use super::webhooks::orders::idle;
use crate::control::webhooks::owner;

/// Attempts that are shown of one.
const ATTEMPTS_MAX: usize = 1_000;
/// Read at once.
const PAGE: usize = 250;
/// Replayed or discarded by one request.
const BULK_MAX: usize = 10_000;
/// Ids in a filter.
const IDS_MAX: usize = 1_000;

/// Which dead letters.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    webhook: Option<Box<str>>,
    #[serde(default)]
    consumer: Option<Box<str>>,
    #[serde(default)]
    sink: Option<Box<str>>,
    #[serde(default, rename = "type")]
    event_type: Option<EventType>,
    #[serde(default)]
    since: Option<Timestamp>,
    #[serde(default)]
    ids: Option<Vec<Box<str>>>,
}

impl Filter {
    /// The one subscription that it names, if it names one; an error: nothing can match.
    fn subscription(&self, call: &Call) -> Result<Option<Box<str>>, Nobody> {
        match (&self.webhook, &self.consumer, &self.sink) {
            (webhook, None, None) => Ok(webhook.clone()),
            (None, Some(name), None) => match call.app.consumers.get(&call.tenant, name) {
                Some((consumer, _)) => Ok(Some(consumer.id.clone())),
                None => Err(Nobody),
            },
            // There are no sinks yet, and nobody is two subscribers.
            _ => Err(Nobody),
        }
    }

    /// The query for a page of open ones; `None`: nothing can match.
    fn query(&self, call: &Call, tenant: Tenant, before: Option<Box<str>>) -> Option<DeadQuery> {
        let subscription = self.subscription(call).ok()?;
        Some(DeadQuery {
            tenant,
            subscription,
            event_type: self.event_type.as_ref().map(|event_type| event_type.as_str().into()),
            since: self.since,
            open: true,
            before,
            limit: PAGE,
        })
    }
}

/// A filter names nobody.
struct Nobody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    filter: Filter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    filter: Filter,
    reason: Box<str>,
}

/// Those that are open, the newest first.
pub(crate) async fn list(call: Call) -> Answer {
    let limit = limit(&call)?;
    let event_type = call.parameter("type").map(EventType::parse).transpose();
    let filter = Filter {
        webhook: call.parameter("webhook").map(Into::into),
        consumer: call.parameter("consumer").map(Into::into),
        sink: call.parameter("sink").map(Into::into),
        event_type: event_type.map_err(|error| Problem::parameter("type", error))?,
        since: time(&call, "since")?,
        ids: None,
    };
    let mut before = page::after(&call, |text| page::is_id(text, "dl"))?.map(Into::into);
    let Some(tenant) = call.known_tenant() else { return Ok(page::render(&[], None)) };
    let mut found = Vec::new();
    while let Some(query) = filter.query(&call, tenant, before.take()).filter(|_| found.len() <= limit) {
        let page = call.app.store.dead_letters(query).await?;
        before = page.last().map(|letter| letter.id.clone()).filter(|_| page.len() == PAGE);
        found.extend(page.into_iter().filter(|letter| reaches(&call, letter)));
        if before.is_none() {
            break;
        }
    }
    let (page, next) = page::cut(&found, limit, |letter| letter.id.to_string());
    let mut items = Vec::with_capacity(page.len());
    for letter in page {
        let event = call.app.store.event(tenant, letter.offset).await?;
        items.push(listing(&call, letter, event.as_deref()).to_string().into_bytes());
    }
    Ok(page::render(&items, next))
}

/// Whether the caller may know of a dead letter: as of the subscriber that it belongs to.
fn reaches(call: &Call, letter: &DeadLetter) -> bool {
    if let Some(consumer) = call.app.consumers.by_id(&call.tenant, &letter.subscription) {
        return call.principal.reaches(consumer.confined.as_deref());
    }
    let webhook = call.app.webhooks.get(&call.tenant, owner(&letter.subscription).0);
    webhook.is_some_and(|webhook| call.principal.reaches(webhook.confined.as_deref()))
}

fn listing(call: &Call, letter: &DeadLetter, event: Option<&Event>) -> Value {
    let consumer = call.app.consumers.by_id(&call.tenant, &letter.subscription);
    let (webhook, target) = owner(&letter.subscription);
    let webhook = Some(webhook).filter(|_| consumer.is_none());
    let record = webhook.and_then(|webhook| call.app.webhooks.get(&call.tenant, webhook));
    let (state, closed_at, closed_reason) = match &letter.state {
        DeadState::Open => ("open", None, None),
        DeadState::Replayed { at } => ("replayed", Some(*at), None),
        DeadState::Discarded { at, reason } => ("discarded", Some(*at), Some(&**reason)),
    };
    json!({
        "id": &*letter.id,
        "webhook": webhook,
        "consumer": consumer.map(|consumer| consumer.name.clone()),
        "notify": target,
        "url": record.filter(|_| target.is_none()).map(|record| record.settings.url.clone()),
        "eventId": event.map(|event| &event.subject.id),
        "eventType": &*letter.event_type,
        "aggregateId": event.and_then(|event| event.subject.aggregate.as_ref()),
        "offset": letter.offset,
        "attemptCount": letter.attempts,
        "reason": &*letter.reason,
        "at": letter.at,
        "state": state,
        "closedAt": closed_at,
        "closedReason": closed_reason,
    })
}

/// One, with its event and every attempt.
pub(crate) async fn one(call: Call) -> Answer {
    let (tenant, letter) = find(&call).await?;
    let event = call.app.store.event(tenant, letter.offset).await?;
    let attempts = call.app.store.attempts(tenant, letter.offset, ATTEMPTS_MAX).await?;
    let mut told = listing(&call, &letter, event.as_deref());
    let own = attempts.iter().filter(|attempt| attempt.subscription == letter.subscription);
    told["attempts"] = own.map(shown).collect();
    let visible =
        |event: &&Arc<Event>| !event.subject.event_type.is_operational() || call.principal.may(Scope::OpsRead);
    let mut text = told.to_string();
    text.pop();
    text.push_str(",\"event\":");
    match event.as_ref().filter(visible) {
        // As it is: numbers are never rewritten.
        Some(event) => text.push_str(&String::from_utf8_lossy(&events::render(event))),
        None => text.push_str("null"),
    }
    text.push('}');
    Ok(answer(StatusCode::OK, text))
}

/// The one that the path names, if the caller may know of it.
async fn find(call: &Call) -> Result<(Tenant, DeadLetter), Problem> {
    let missing = || Problem::not_found("dead letter");
    let tenant = call.known_tenant().ok_or_else(missing)?;
    let letter = call.app.store.dead_letter(tenant, &call.path_value()?).await?;
    let letter = letter.filter(|letter| reaches(call, letter)).ok_or_else(missing)?;
    Ok((tenant, letter))
}

/// Sends the event of one again, from its first attempt on.
pub(crate) async fn replay_one(mut call: Call) -> Answer {
    find(&call).await?;
    let Plain {} = document::optional(&mut call).await?;
    let (tenant, letter) = find(&call).await?;
    let conflict = |detail: &str| Problem::new(&kinds::CONFLICT, detail);
    if letter.state != DeadState::Open {
        return Err(conflict("this dead letter is closed: it was replayed or discarded before"));
    }
    let id = letter.id.clone();
    match order(&call, tenant, vec![letter], None).await? {
        None => Err(idle()),
        Some(0) => Err(conflict("its event is being sent, or is not kept any more")),
        Some(_) => Ok(answer(StatusCode::OK, json!({ "id": id, "replayed": true }).to_string())),
    }
}

/// Sends the events of many again, in their order.
pub(crate) async fn replay(mut call: Call) -> Answer {
    let Replay { filter } = body::json(&mut call).await?;
    let (replayed, more) = bulk(&call, &filter, None).await?;
    Ok(answer(StatusCode::OK, json!({ "replayed": replayed, "more": more }).to_string()))
}

/// Gives many up for good: a mark, nothing is deleted.
pub(crate) async fn discard(mut call: Call) -> Answer {
    let Discard { filter, reason } = body::json(&mut call).await?;
    body::check_reason(&reason)?;
    let (discarded, more) = bulk(&call, &filter, Some(&reason)).await?;
    Ok(answer(StatusCode::OK, json!({ "discarded": discarded, "more": more }).to_string()))
}

/// Replays, or discards with a reason, what matches: the oldest first. How many, and whether there are more.
async fn bulk(call: &Call, filter: &Filter, reason: Option<&str>) -> Result<(usize, bool), Problem> {
    let Some(tenant) = call.known_tenant() else { return Ok((0, false)) };
    let (letters, more) = select(call, tenant, filter).await?;
    let mut by_subscription: BTreeMap<Box<str>, Vec<DeadLetter>> = BTreeMap::new();
    for letter in letters {
        by_subscription.entry(letter.subscription.clone()).or_default().push(letter);
    }
    let mut done = 0;
    for letters in by_subscription.into_values() {
        for chunk in letters.chunks(PAGE) {
            // One that does not run is left alone.
            done += order(call, tenant, chunk.to_vec(), reason).await?.unwrap_or(0);
        }
    }
    Ok((done, more))
}

/// The oldest that match, oldest first, and whether there are more.
async fn select(call: &Call, tenant: Tenant, filter: &Filter) -> Result<(VecDeque<DeadLetter>, bool), Problem> {
    let mut found = VecDeque::new();
    if let Some(ids) = &filter.ids {
        if ids.len() > IDS_MAX {
            return Err(body::invalid(format!("/filter/ids: at most {IDS_MAX}")));
        }
        for (number, id) in ids.iter().enumerate() {
            let letter = call.app.store.dead_letter(tenant, id).await?.filter(|letter| reaches(call, letter));
            let letter = letter.ok_or_else(|| body::invalid(format!("/filter/ids/{number}: no such dead letter")))?;
            if letter.state == DeadState::Open && fits(call, filter, &letter) {
                found.push_back(letter);
            }
        }
        found.make_contiguous().sort_by(|a, b| a.id.cmp(&b.id));
        return Ok((found, false));
    }
    let mut more = false;
    let mut before = None;
    while let Some(query) = filter.query(call, tenant, before.take()) {
        let page = call.app.store.dead_letters(query).await?;
        before = page.last().map(|letter| letter.id.clone()).filter(|_| page.len() == PAGE);
        for letter in page.into_iter().filter(|letter| reaches(call, letter)) {
            found.push_front(letter);
            if found.len() > BULK_MAX {
                found.pop_back();
                more = true;
            }
        }
        if before.is_none() {
            break;
        }
    }
    Ok((found, more))
}

fn fits(call: &Call, filter: &Filter, letter: &DeadLetter) -> bool {
    filter.subscription(call).is_ok_and(|named| named.is_none_or(|named| named == letter.subscription))
        && filter.event_type.as_ref().is_none_or(|event_type| event_type.as_str() == &*letter.event_type)
        && filter.since.is_none_or(|since| letter.at >= since)
}

/// Has dead letters of one subscriber sent again, or discarded; `None`: it does not run.
async fn order(
    call: &Call,
    tenant: Tenant,
    letters: Vec<DeadLetter>,
    reason: Option<&str>,
) -> Result<Option<usize>, Problem> {
    let Some(subscription) = letters.first().map(|letter| letter.subscription.clone()) else { return Ok(Some(0)) };
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    let subscriber = match call.app.consumers.by_id(&call.tenant, &subscription) {
        Some(consumer) => ("consumer", consumer.name.to_string()),
        None => ("webhook", owner(&subscription).0.to_owned()),
    };
    let what = json!({ subscriber.0: subscriber.1, "deadLetters": ids, "reason": reason });
    let (order, event_type) = match reason {
        None => (Order::Revive(letters), "tidings.dead_letter.replayed"),
        Some(reason) => (Order::Discard(letters, reason.into()), "tidings.dead_letter.discarded"),
    };
    let told = call.app.webhooks.order(tenant, &subscription, order, (event_type, what), &call.principal.actor).await?;
    Ok(told.map(|outcome| match outcome {
        Outcome::Done(count) => count,
        Outcome::Settled(_) | Outcome::Pointless => 0,
    }))
}
