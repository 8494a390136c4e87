//! `/quarantine`: rows of sources that have not become events; tried again, mended, or given up. `/outboxes`: how the
//! sources that are read fare.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_core::json as gate;
use tidings_core::time::Timestamp;
use tidings_log::store::{Document, Kind, Owner};
use tidings_sources::outbox::{Answered, Order, Quarantined};

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::page::{self, limit};
use super::problem::{Problem, internal};
use super::routes::Answer;
use crate::app::Outbox;
use crate::clock;
use crate::control::audit;

/// How the outboxes fare that belong to the caller: an operator sees all.
pub(crate) async fn outboxes(call: Call) -> Answer {
    let now = clock::now();
    let mine = |outbox: &&Outbox| call.principal.tenant.as_ref().is_none_or(|tenant| *tenant == outbox.tenant);
    let shown = call.app.outboxes.iter().filter(mine).map(|outbox| {
        let measures = outbox.meter.measures(now);
        let told = json!({
            "name": outbox.name,
            "tenant": outbox.tenant.as_str(),
            "state": measures.state.as_str(),
            "error": measures.error,
            "delayMs": u64::try_from(measures.delay.as_millis()).unwrap_or(u64::MAX),
            "rows": measures.rows,
            "rejected": measures.rejected,
            "quarantined": measures.quarantined,
            "polls": measures.polls,
            "resets": measures.resets,
            "slot": measures.slot.map(|slot| json!({
                "name": slot.name,
                "walStatus": slot.wal_status,
                "retainedBytes": slot.retained_bytes,
                "retainedBytesMax": slot.retained_bytes_max,
            })),
        });
        told.to_string().into_bytes()
    });
    Ok(page::render(&shown.collect::<Vec<_>>(), None))
}

/// Rows by source and number.
pub(crate) async fn list(call: Call) -> Answer {
    whole_tenant(&call)?;
    let limit = limit(&call)?;
    let after = page::after(&call, Quarantined::is_id)?.unwrap_or_default();
    let Some(tenant) = call.known_tenant() else { return Ok(page::render(&[], None)) };
    let prefix = call.parameter("source").map_or_else(String::new, |source| format!("{source}."));
    // Ids of other sources may come before all of this one.
    let after = after.max(&prefix);
    let documents = call.app.store.list(Kind::Quarantined, Some(Owner::Tenant(tenant)), after, limit + 1).await?;
    let found: Vec<_> = documents.into_iter().filter(|document| document.id.starts_with(&prefix)).collect();
    let (shown, next) = page::cut(&found, limit, |document| document.id.to_string());
    let items: Vec<_> = shown.iter().map(shown_of).collect::<Result<_, _>>()?;
    let items: Vec<_> = items.iter().map(|item| item.to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

/// One row, whole.
pub(crate) async fn one(call: Call) -> Answer {
    Ok(answer(StatusCode::OK, shown_of(&find(&call).await?)?.to_string()))
}

fn shown_of(document: &Document) -> Result<Value, Problem> {
    let kept = Quarantined::parse(document).map_err(|error| internal(&error))?;
    Ok(json!({
        "id": &*document.id,
        "source": kept.source,
        "row": kept.row.number,
        "state": if kept.faults.is_empty() { "waiting" } else { "rejected" },
        "at": Timestamp::from_millis(kept.at_ms),
        "faults": kept.faults,
        "eventId": kept.row.event_id,
        "eventType": kept.row.event_type,
        "version": kept.row.version,
        "timestamp": kept.row.timestamp,
        "eventSource": kept.row.source,
        "aggregateId": kept.row.aggregate_id,
        "channels": kept.row.channels,
        "metadata": kept.row.metadata.as_deref().map(String::from_utf8_lossy),
        "data": kept.row.data.as_deref().map(String::from_utf8_lossy),
    }))
}

/// Rows carry what their application said, whatever it was: who may see some channels only does not see them.
fn whole_tenant(call: &Call) -> Result<(), Problem> {
    match call.principal.channels {
        None => Ok(()),
        Some(_) => Err(Problem::new(&kinds::FORBIDDEN, "a key that is confined to channels does not reach quarantine")),
    }
}

async fn find(call: &Call) -> Result<Document, Problem> {
    whole_tenant(call)?;
    let missing = || Problem::not_found("row in quarantine");
    let tenant = call.known_tenant().ok_or_else(missing)?;
    let found = call.app.store.get(Kind::Quarantined, Owner::Tenant(tenant), &call.path_value()?).await?;
    found.ok_or_else(missing)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    /// Taken in place of the row.
    #[serde(default)]
    event: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    reason: String,
}

/// Tries a row again, or takes an event in its place.
pub(crate) async fn replay(mut call: Call) -> Answer {
    let document = find(&call).await?;
    let text = body::read(&mut call).await?;
    let Replay { event } = if text.is_empty() { Replay::default() } else { read(&call, &text)? };
    let instead = event.map(|event| Bytes::from(event.get().to_owned()));
    let what = json!({ "id": &*document.id, "mended": instead.is_some() });
    let told = ("tidings.source.replayed", what);
    give(&call, &document, (false, instead), told).await
}

/// The event stays as it was sent: numbers are never rewritten.
fn read(call: &Call, text: &[u8]) -> Result<Replay, Problem> {
    gate::check(text, &call.app.settings.event.json).map_err(|error| Problem::violations(&[(None, error.into())]))?;
    body::parse(&mut serde_json::Deserializer::from_slice(text))
}

/// Gives a row up, with a reason.
pub(crate) async fn discard(mut call: Call) -> Answer {
    let document = find(&call).await?;
    let Discard { reason } = body::json(&mut call).await?;
    body::check_reason(&reason)?;
    let told = ("tidings.source.discarded", json!({ "id": &*document.id, "reason": reason }));
    give(&call, &document, (true, None), told).await
}

async fn give(
    call: &Call,
    document: &Document,
    (discard, instead): (bool, Option<Bytes>),
    (event_type, what): (&'static str, Value),
) -> Answer {
    let kept = Quarantined::parse(document).map_err(|error| internal(&error))?;
    let outbox = call.app.outboxes.iter().find(|outbox| *outbox.name == *kept.source);
    let Some(outbox) = outbox.filter(|outbox| outbox.tenant == call.tenant) else {
        let detail =
            format!("the settings name no source `{}` any more: put it back, for its relay does this", kept.source);
        return Err(Problem::new(&kinds::CONFLICT, detail));
    };
    let told = audit::append(call.tenant().await?, event_type, &call.principal.actor, &what, clock::now())?;
    let order = Order { id: document.id.clone(), discard, instead, told: vec![told] };
    match outbox.orders.give(order).await {
        Answered::Done { released } => {
            Ok(answer(StatusCode::OK, json!({ "id": &*document.id, "released": released }).to_string()))
        }
        Answered::Unknown => Err(Problem::not_found("row in quarantine")),
        Answered::Waits { behind } => {
            let detail = format!("it waits behind {behind}, an earlier row of its aggregate: deal with that one");
            Err(Problem::new(&kinds::CONFLICT, detail))
        }
        Answered::StillWrong(violations) => {
            Err(Problem::violations(&violations.into_iter().map(|violation| (None, violation)).collect::<Vec<_>>()))
        }
        Answered::Unavailable(detail) => Err(Problem::new(&kinds::LOG_UNAVAILABLE, detail)),
    }
}
