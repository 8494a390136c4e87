//! `/consumers`: queues that workers fetch from. Here: made, changed, paused, moved; [`work`] is what workers do.

pub(crate) mod work;

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidings_core::circuit::Status;
use tidings_engine::consumers::Queue;
use tidings_engine::dispatcher::{Order, Outcome, Point};

use super::body::{self, answer};
use super::call::Call;
use super::document::{self, Plain};
use super::kinds;
use super::page::{self, limit};
use super::problem::Problem;
use super::routes::Answer;
use super::webhooks::place;
use crate::control::consumers::{New, Record, Settings};

/// Consumers of one tenant.
const CONSUMERS_MAX: usize = 1_000;
const NAME_CHARS_MAX: usize = 64;

/// Members that are shown and not changed, and what is done in their place.
const FIXED: &[(&str, &str)] = &[
    ("name", "it is the one of the path"),
    ("createdAt", "it stays as it is"),
    ("status", "`POST /consumers/{name}/pause` and `resume` change it"),
];

/// Makes one, or gives the one that is there these settings: `startFrom` counts for a new one only.
pub(crate) async fn put(mut call: Call) -> Answer {
    let name = name(&call)?;
    let mut members: Map<String, Value> = body::json(&mut call).await?;
    if let Some((member, instead)) = FIXED.iter().find(|(member, _)| members.contains_key(*member)) {
        return Err(body::invalid(format!("/{member}: {instead}")));
    }
    let from = members.remove("startFrom").unwrap_or(Value::Null);
    let settings: Settings = body::parse(Value::Object(members))?;
    settings.check().map_err(body::faulty)?;
    call.check_types(&settings.event_types)?;
    let tenant = call.tenant().await?;
    let start = place(&call, tenant, "/startFrom", &from).await?;
    let consumers = &call.app.consumers;
    let _turn = consumers.turn.lock().await;
    if let Some((record, _)) = consumers.get(&call.tenant, &name) {
        if !call.principal.reaches(record.confined.as_deref()) {
            return Err(Problem::new(&kinds::CONFLICT, "this name is taken: choose another"));
        }
        let record = if record.settings == settings {
            record
        } else {
            consumers.change(tenant, &record, settings, &call.principal.actor).await?
        };
        return Ok(shown(&call, &record));
    }
    if consumers.count(&call.tenant) >= CONSUMERS_MAX {
        return Err(Problem::new(&kinds::CONFLICT, format!("a tenant has at most {CONSUMERS_MAX} consumers")));
    }
    let start = start.unwrap_or_else(|| call.app.store.extent(tenant).head);
    let new = New { name, settings, start, confined: call.principal.channels.clone() };
    let record = consumers.create((tenant, call.tenant.clone()), new, &call.principal.actor).await?;
    Ok(answer(StatusCode::CREATED, consumers.listing(&record).to_string()))
}

fn name(call: &Call) -> Result<Box<str>, Problem> {
    let name = call.path_value()?;
    if !is_name(&name) {
        let rule = format!("a consumer's name is 1 to {NAME_CHARS_MAX} letters, digits, `-` and `_`");
        return Err(Problem::parameter("name", rule));
    }
    Ok(name.into())
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits)
}

pub(crate) async fn list(call: Call) -> Answer {
    let limit = limit(&call)?;
    let after = page::after(&call, is_name)?;
    let mut found = call.app.consumers.list(&call.tenant, after.unwrap_or_default());
    found.retain(|record| call.principal.reaches(record.confined.as_deref()));
    let (page, next) = page::cut(&found, limit, |record| record.name.to_string());
    let items: Vec<_> = page.iter().map(|record| call.app.consumers.listing(record).to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn one(call: Call) -> Answer {
    let (record, _) = find(&call)?;
    Ok(shown(&call, &record))
}

pub(crate) async fn remove(call: Call) -> Answer {
    let tenant = call.tenant().await?;
    let _turn = call.app.consumers.turn.lock().await;
    let (record, _) = find(&call)?;
    call.app.consumers.remove(tenant, &record, &call.principal.actor).await?;
    Ok(answer(StatusCode::OK, json!({ "name": record.name, "deleted": true }).to_string()))
}

pub(crate) async fn pause(mut call: Call) -> Answer {
    let (record, _) = find(&call)?;
    let Plain {} = document::optional(&mut call).await?;
    if is_active(&call, &record) {
        tell(&call, &record, Order::Pause, "tidings.consumer.paused", json!({ "name": record.name })).await?;
    }
    Ok(shown(&call, &record))
}

pub(crate) async fn resume(mut call: Call) -> Answer {
    let (record, _) = find(&call)?;
    let Plain {} = document::optional(&mut call).await?;
    if !is_active(&call, &record) {
        tell(&call, &record, Order::Resume, "tidings.consumer.resumed", json!({ "name": record.name })).await?;
    }
    Ok(shown(&call, &record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    from: Value,
}

/// Moves the cursor: what lies after it is delivered (again), what it jumps over is recorded as skipped. What workers
/// have is taken back; their word counts until somebody else has it.
pub(crate) async fn seek(mut call: Call) -> Answer {
    let (record, _) = find(&call)?;
    let Seek { from } = body::json(&mut call).await?;
    let tenant = call.tenant().await?;
    let point = match place(&call, tenant, "/from", &from).await? {
        _ if from == "latest" => Point::Latest,
        Some(to) => Point::After(to),
        None => return Err(body::invalid("/from: `latest`, `earliest`, an offset, or a time")),
    };
    let _turn = call.app.consumers.turn.lock().await;
    let active = is_active(&call, &record);
    let what = json!({ "name": record.name, "from": from });
    if active {
        tell(&call, &record, Order::Pause, "tidings.consumer.paused", json!({ "name": record.name })).await?;
    }
    let moved = tell(&call, &record, Order::Activate(point), "tidings.consumer.moved", what).await;
    let named = json!({ "name": record.name });
    match &moved {
        Ok(()) if !active => tell(&call, &record, Order::Pause, "tidings.consumer.paused", named).await?,
        // It was paused for the move only.
        Err(_) if active => tell(&call, &record, Order::Resume, "tidings.consumer.resumed", named).await?,
        _ => {}
    }
    moved.map(|()| shown(&call, &record))
}

fn is_active(call: &Call, record: &Record) -> bool {
    call.app.consumers.status(&record.id).is_some_and(|lane| lane.standing.status == Status::Active)
}

async fn tell(
    call: &Call,
    record: &Record,
    order: Order,
    event_type: &'static str,
    what: Value,
) -> Result<(), Problem> {
    let tenant = call.tenant().await?;
    let told = call.app.consumers.order(tenant, record, order, (event_type, what), &call.principal.actor).await?;
    match told {
        Some(Outcome::Done(_) | Outcome::Settled(_)) => Ok(()),
        Some(Outcome::Pointless) => {
            Err(Problem::new(&kinds::CONFLICT, "it does not allow this as it stands: read it and try again"))
        }
        None => Err(Problem::not_found("consumer")),
    }
}

fn shown(call: &Call, record: &Record) -> http::Response<axum::body::Body> {
    answer(StatusCode::OK, call.app.consumers.listing(record).to_string())
}

/// The consumer that the path names, if the caller may know of it.
fn find(call: &Call) -> Result<(Arc<Record>, Arc<Queue>), Problem> {
    named(call, &call.path_value()?)
}

/// The consumer of this name, if the caller may know of it.
pub(crate) fn named(call: &Call, name: &str) -> Result<(Arc<Record>, Arc<Queue>), Problem> {
    let found = call.app.consumers.get(&call.tenant, name);
    let found = found.filter(|(record, _)| call.principal.reaches(record.confined.as_deref()));
    found.ok_or_else(missing)
}

/// There is no such consumer, or no more.
pub(crate) fn missing() -> Problem {
    Problem::not_found("consumer; `PUT /consumers/{name}` makes one")
}
