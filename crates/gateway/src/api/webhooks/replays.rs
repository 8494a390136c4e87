//! Replays: events of the past sent again, beside live traffic.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::filter::TypePattern;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::rate::Rate;
use tidings_engine::dispatcher::{Job, Only, Order, Outcome};
use tidings_log::Tenant;

use super::orders::idle;
use super::{find, place};
use crate::api::body::{self, answer};
use crate::api::call::Call;
use crate::api::problem::Problem;
use crate::api::routes::Answer;
use crate::api::{kinds, page};
use crate::clock;
use crate::control::replays::{self, LETTERS_MAX};
use crate::control::webhooks::Record;

/// Events that one replay may name.
const EVENT_IDS_MAX: usize = 1_000;
const TYPES_MAX: usize = 100;
const RATE: &str = "100/s";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    event_ids: Vec<EventId>,
    #[serde(default)]
    from: Value,
    #[serde(default)]
    to: Value,
    #[serde(default)]
    event_types: Vec<TypePattern>,
    #[serde(default)]
    only: Option<Only>,
    #[serde(default)]
    rate: Option<Rate>,
    #[serde(default)]
    dry_run: bool,
}

pub(crate) async fn create(mut call: Call) -> Answer {
    let record = find(&call)?;
    let wanted: Wanted = body::json(&mut call).await?;
    let tenant = call.tenant().await?;
    let dry_run = wanted.dry_run;
    let job = job(&call, tenant, &record, wanted).await?;
    if dry_run {
        let (events, all) = replays::count(&call.app.webhooks, tenant, &record, &job).await?;
        let shown = json!({ "dryRun": true, "events": events, "complete": all });
        return Ok(answer(StatusCode::OK, shown.to_string()));
    }
    let shown = replays::listing(&job);
    let what = ("tidings.replay.started", shown.clone());
    let order = Order::Replay(job);
    match call.app.webhooks.order(tenant, &record.id, order, what, &call.principal.actor).await? {
        Some(Outcome::Done(_)) => Ok(answer(StatusCode::CREATED, shown.to_string())),
        Some(Outcome::Pointless | Outcome::Settled(_)) => {
            let detail = "as many replays of this webhook are under way as may be: wait for one, or cancel it";
            Err(Problem::new(&kinds::CONFLICT, detail))
        }
        None => Err(idle()),
    }
}

async fn job(call: &Call, tenant: Tenant, record: &Record, wanted: Wanted) -> Result<Job, Problem> {
    if wanted.event_types.len() > TYPES_MAX {
        return Err(body::invalid(format!("/eventTypes: at most {TYPES_MAX}")));
    }
    call.check_types(&wanted.event_types)?;
    let named = !wanted.event_ids.is_empty();
    let from = place(call, tenant, "/from", &wanted.from).await?;
    let to = place(call, tenant, "/to", &wanted.to).await?;
    let head = call.app.store.extent(tenant).head;
    let offsets = if named { offsets(call, tenant, record, &wanted.event_ids).await? } else { Vec::new() };
    let (position, to) = match (offsets.first(), offsets.last(), from) {
        (Some(_), _, Some(_)) => return Err(body::invalid("/from: either `eventIds` or `from`, not both")),
        (Some(first), Some(last), None) if to.is_none() => (Offset(first.0 - 1), *last),
        (Some(_), ..) => return Err(body::invalid("/to: either `eventIds` or `from` and `to`, not both")),
        (None, _, None) => {
            return Err(body::invalid("/from: name the events by `eventIds`, or by `from` and perhaps `to`"));
        }
        (None, _, Some(from)) => (from, to.unwrap_or(head)),
    };
    let letters = replays::letters(&*call.app.store, tenant, &record.id, (position, to)).await?;
    let Some(mut letters) = letters else {
        let detail = format!("more than {LETTERS_MAX} dead letters are in this range: name a smaller one");
        return Err(Problem::new(&kinds::CONFLICT, detail));
    };
    letters.retain(|(offset, _)| offsets.is_empty() || offsets.binary_search(offset).is_ok());
    let now = clock::now();
    Ok(Job {
        id: replays::id(now, clock::random()),
        subscription: record.id.clone(),
        created_at: now,
        position,
        to,
        event_types: wanted.event_types,
        offsets,
        // Who names an event wants it sent.
        only: wanted.only.unwrap_or(if named { Only::All } else { Only::Undelivered }),
        letters,
        rate: match wanted.rate {
            Some(rate) => rate,
            None => Rate::parse(RATE).map_err(body::invalid)?,
        },
        sent: 0,
    })
}

/// Where the named events are, in order.
async fn offsets(call: &Call, tenant: Tenant, record: &Record, ids: &[EventId]) -> Result<Vec<Offset>, Problem> {
    if ids.len() > EVENT_IDS_MAX {
        return Err(body::invalid(format!("/eventIds: at most {EVENT_IDS_MAX}")));
    }
    let filter = record.filter();
    let mut offsets = Vec::with_capacity(ids.len());
    for (number, id) in ids.iter().enumerate() {
        let event = call.app.store.find(tenant, id).await?.filter(|event| filter.matches(&event.subject));
        let event = event.ok_or_else(|| body::invalid(format!("/eventIds/{number}: no event for this webhook")))?;
        offsets.push(event.offset);
    }
    offsets.sort();
    offsets.dedup();
    Ok(offsets)
}

pub(crate) async fn list(call: Call) -> Answer {
    let record = find(&call)?;
    let limit = page::limit(&call)?;
    let after = page::after(&call, |text| page::is_id(text, "rp"))?.unwrap_or_default();
    let tenant = call.tenant().await?;
    let mut found = call.app.webhooks.replays(tenant, &record.id).await?;
    found.retain(|job| *job.id > *after);
    let (page, next) = page::cut(&found, limit, |job| job.id.to_string());
    let items: Vec<_> = page.iter().map(|job| replays::listing(job).to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn cancel(call: Call) -> Answer {
    let record = find(&call)?;
    let id = call.path_value_of("replayId")?;
    let missing = || Problem::not_found("replay under way");
    let tenant = call.tenant().await?;
    let jobs = call.app.webhooks.replays(tenant, &record.id).await?;
    let job = jobs.iter().find(|job| *job.id == *id).ok_or_else(missing)?;
    let shown = replays::listing(job);
    let what = ("tidings.replay.cancelled", shown.clone());
    let order = Order::Cancel(job.id.clone());
    match call.app.webhooks.order(tenant, &record.id, order, what, &call.principal.actor).await? {
        Some(Outcome::Done(_)) => Ok(answer(StatusCode::OK, shown.to_string())),
        Some(Outcome::Pointless | Outcome::Settled(_)) => Err(missing()),
        None => Err(idle()),
    }
}
