//! `/webhooks`: who is told by HTTP.

pub(crate) mod deliveries;
pub(crate) mod orders;
pub(crate) mod replays;
pub(crate) mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};
use tidings_core::offset::Offset;
use tidings_core::secret::SigningSecret;
use tidings_core::time::Timestamp;
use tidings_log::Tenant;
use tokio::sync::OwnedMutexGuard;

use super::body::{self, answer};
use super::call::Call;
use super::document;
use super::kinds;
use super::page::{self, limit};
use super::problem::{Problem, internal};
use super::routes::Answer;
use crate::clock;
use crate::control::webhooks::{Draft, New, Record, Settings};

/// Webhooks of one tenant.
const WEBHOOKS_MAX: usize = 10_000;

/// Members that are shown and not changed, and what is done in their place.
const FIXED: &[(&str, &str)] = &[
    ("id", "it stays as it is"),
    ("createdAt", "it stays as it is"),
    ("startFrom", "it stays as it is: `POST /webhooks/{id}/activate` moves the cursor"),
    ("secret", "`POST /webhooks/{id}/rotate-secret` changes it"),
    ("status", "`POST /webhooks/{id}/pause`, `resume` and `activate` change it"),
];

pub(crate) async fn create(mut call: Call) -> Answer {
    let mut members: Map<String, Value> = body::json(&mut call).await?;
    let secret = match members.remove("secret") {
        None | Some(Value::Null) => SigningSecret::from_random(clock::random()),
        Some(text) => secrets::parse(&text)?,
    };
    let from = members.remove("startFrom").unwrap_or(Value::Null);
    let draft = draft(members)?;
    draft.check(&call.app.webhooks.means).map_err(body::faulty)?;
    call.check_types(&draft.settings.event_types)?;
    let tenant = call.tenant().await?;
    if call.app.webhooks.count(&call.tenant) >= WEBHOOKS_MAX {
        return Err(Problem::new(&kinds::CONFLICT, format!("a tenant has at most {WEBHOOKS_MAX} webhooks")));
    }
    let head = call.app.store.extent(tenant).head;
    let start = place(&call, tenant, "/startFrom", &from).await?.unwrap_or(head);
    let new = New { draft, secret, start, confined: call.principal.channels.clone() };
    let record = call.app.webhooks.create((tenant, call.tenant.clone()), new, &call.principal.actor).await?;
    let mut shown = call.app.webhooks.listing(&record);
    secrets::show(&call, &record, &mut shown)?;
    Ok(answer(StatusCode::CREATED, shown.to_string()))
}

/// What a webhook is to be, from its members.
fn draft(mut members: Map<String, Value>) -> Result<Draft, Problem> {
    let headers = match members.remove("headers") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        // The values are not to be told back, so the reader's own words are not used.
        Some(headers) => serde_json::from_value(headers)
            .map_err(|_| body::invalid("/headers: names, each with a text: {\"x-api-key\": \"…\"}")),
    };
    let headers = headers?;
    if let Some((name, instead)) = FIXED.iter().find(|(name, _)| members.contains_key(*name)) {
        return Err(body::invalid(format!("/{name}: {instead}")));
    }
    let settings: Settings = body::parse(Value::Object(members))?;
    Ok(Draft { settings, headers })
}

/// `latest`, `earliest`, an offset or a time, as the offset after which one goes on; `None`: nothing was said.
pub(crate) async fn place(call: &Call, tenant: Tenant, pointer: &str, from: &Value) -> Result<Option<Offset>, Problem> {
    let invalid =
        || body::invalid(format!("{pointer}: `latest`, `earliest`, an offset, or a time as in 2026-11-22T10:15:30Z"));
    let extent = call.app.store.extent(tenant);
    match from {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let offset = Offset(number.as_u64().ok_or_else(invalid)?);
            // Whoever means a time and sends milliseconds would wait for ever, and miss all until then.
            if offset > extent.head {
                let head = extent.head;
                return Err(body::invalid(format!(
                    "{pointer}: the log ends at offset {head}; a time is a text, as in 2026-11-22T10:15:30Z"
                )));
            }
            Ok(Some(offset))
        }
        Value::String(text) => match text.as_str() {
            "latest" => Ok(Some(extent.head)),
            "earliest" => Ok(Some(Offset(extent.first.0.saturating_sub(1)))),
            time => {
                let time = Timestamp::parse_rfc3339(time).ok_or_else(invalid)?;
                Ok(Some(call.app.store.before(tenant, time).await?))
            }
        },
        _ => Err(invalid()),
    }
}

pub(crate) async fn list(call: Call) -> Answer {
    let limit = limit(&call)?;
    let after = page::after(&call, |text| page::is_id(text, "wh"))?;
    let mut found = call.app.webhooks.list(&call.tenant, after.unwrap_or_default());
    found.retain(|record| call.principal.reaches(record.confined.as_deref()));
    let (page, next) = page::cut(&found, limit, |record| record.id.to_string());
    let items: Vec<_> = page.iter().map(|record| call.app.webhooks.listing(record).to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn one(call: Call) -> Answer {
    let record = find(&call)?;
    Ok(shown(&call, &record))
}

/// Changes what is named (RFC 7396): null puts a member back to its default, or takes a header away.
pub(crate) async fn change(mut call: Call) -> Answer {
    find(&call)?;
    let mut patch = document::patch(&mut call).await?;
    let (record, _turn) = turn(&call).await?;
    let before = call.app.webhooks.draft(&record).map_err(|error| internal(&error))?;
    let Ok(Value::Object(mut members)) = serde_json::to_value(&before.settings) else {
        return Err(internal(&"settings are no object"));
    };
    let mut headers: Map<_, _> =
        before.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    match patch.remove("headers") {
        None => {}
        Some(Value::Null) => headers.clear(),
        Some(Value::Object(patch)) => change_headers(&mut headers, patch),
        Some(_) => return Err(body::invalid("/headers: names, each with a text, or null to take it away")),
    }
    let never = patch.get("deactivateAfter") == Some(&Value::Null);
    document::merge(&mut members, patch);
    if never {
        // Here null is a value of its own.
        members.insert("deactivateAfter".to_owned(), Value::Null);
    }
    members.insert("headers".to_owned(), headers.into());
    let draft = draft(members)?;
    draft.check(&call.app.webhooks.means).map_err(body::faulty)?;
    // Whoever says where they go says who reads them.
    call.check_types(&draft.settings.event_types)?;
    let tenant = call.tenant().await?;
    let record = call.app.webhooks.change(tenant, &record, draft, &call.principal.actor).await?;
    Ok(shown(&call, &record))
}

/// Names of headers are the same whatever their case.
fn change_headers(headers: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        headers.retain(|known, _| !known.eq_ignore_ascii_case(&name));
        if !value.is_null() {
            headers.insert(name, value);
        }
    }
}

pub(crate) async fn remove(call: Call) -> Answer {
    let (record, _turn) = turn(&call).await?;
    let tenant = call.tenant().await?;
    call.app.webhooks.remove(tenant, &record, &call.principal.actor).await?;
    Ok(answer(StatusCode::OK, json!({ "id": record.id, "deleted": true }).to_string()))
}

fn shown(call: &Call, record: &Record) -> http::Response<axum::body::Body> {
    answer(StatusCode::OK, call.app.webhooks.listing(record).to_string())
}

/// The webhook that the path names, if the caller may know of it.
fn find(call: &Call) -> Result<Arc<Record>, Problem> {
    let record = call.app.webhooks.get(&call.tenant, &call.path_value()?);
    let record = record.filter(|record| call.principal.reaches(record.confined.as_deref()));
    record.ok_or_else(|| Problem::not_found("webhook"))
}

/// The webhook that the path names, and the right to change it.
async fn turn(call: &Call) -> Result<(Arc<Record>, OwnedMutexGuard<()>), Problem> {
    let turn = call.app.webhooks.turn(&*find(call)?).lock_owned().await;
    // It may have been changed or removed meanwhile.
    Ok((find(call)?, turn))
}
