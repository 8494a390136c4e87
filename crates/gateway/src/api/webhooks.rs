//! `/webhooks`: who is told by HTTP.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::offset::Offset;
use tidings_core::secret::SigningSecret;
use tidings_core::time::Timestamp;

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::page::{self, limit};
use super::problem::{Problem, internal};
use super::routes::Answer;
use crate::clock;
use crate::control::webhooks::{Record, Settings};

/// Webhooks of one tenant.
const WEBHOOKS_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct New {
    #[serde(default)]
    start_from: Option<Value>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(flatten)]
    settings: serde_json::Map<String, Value>,
}

pub(crate) async fn create(mut call: Call) -> Answer {
    if !call.app.settings.dev {
        let detail = "webhooks are taken by a development server only (`tidings serve --dev`), \
                      until the guarded door out exists; streams are there for production";
        return Err(Problem::new(&kinds::DEV_ONLY, detail));
    }
    let new: New = body::json(&mut call).await?;
    let settings: Settings = body::parse(Value::Object(new.settings))?;
    settings.check(&call.app.webhooks.policy()).map_err(body::faulty)?;
    call.check_types(&settings.event_types)?;
    let secret = match new.secret {
        None => SigningSecret::from_random(clock::random()),
        Some(text) => SigningSecret::parse(&text).map_err(|error| body::invalid(format!("/secret: {error}")))?,
    };
    let tenant = call.tenant().await?;
    if call.app.webhooks.count(&call.tenant) >= WEBHOOKS_MAX {
        return Err(Problem::new(&kinds::CONFLICT, format!("a tenant has at most {WEBHOOKS_MAX} webhooks")));
    }
    let start = start(&call, tenant, new.start_from).await?;
    let confined = call.principal.channels.clone();
    let owner = (tenant, call.tenant.clone());
    let record = call.app.webhooks.create(owner, settings, secret, start, confined, &call.principal.actor).await?;
    let mut shown = call.app.webhooks.listing(&record);
    shown["secret"] = clear(&call, &record)?.into();
    Ok(answer(StatusCode::CREATED, shown.to_string()))
}

/// `latest` (the default), `earliest`, an offset or a time; the webhook gets what comes after it.
async fn start(call: &Call, tenant: tidings_log::Tenant, from: Option<Value>) -> Result<Offset, Problem> {
    let invalid = || body::invalid("/startFrom: `latest`, `earliest`, an offset, or a time as in 2026-11-22T10:15:30Z");
    match from {
        None | Some(Value::Null) => Ok(call.app.store.extent(tenant).head),
        Some(Value::Number(number)) => number.as_u64().map(Offset).ok_or_else(invalid),
        Some(Value::String(text)) => match text.as_str() {
            "latest" => Ok(call.app.store.extent(tenant).head),
            "earliest" => Ok(Offset(call.app.store.extent(tenant).first.0.saturating_sub(1))),
            time => {
                let time = Timestamp::parse_rfc3339(time).ok_or_else(invalid)?;
                Ok(call.app.store.before(tenant, time).await?)
            }
        },
        Some(_) => Err(invalid()),
    }
}

pub(crate) async fn list(call: Call) -> Answer {
    let limit = limit(&call)?;
    let after = call.parameter("after").unwrap_or_default();
    let mut found = call.app.webhooks.list(&call.tenant, after, usize::MAX);
    found.retain(|record| call.principal.reaches(record.confined.as_deref()));
    let (page, next) = page::cut(&found, limit, |record| record.id.to_string());
    let items: Vec<_> = page.iter().map(|record| call.app.webhooks.listing(record).to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn one(call: Call) -> Answer {
    let record = find(&call)?;
    Ok(answer(StatusCode::OK, call.app.webhooks.listing(&record).to_string()))
}

pub(crate) async fn remove(call: Call) -> Answer {
    let record = find(&call)?;
    let tenant = (call.tenant().await?, &call.tenant);
    if call.app.webhooks.remove(tenant, &record.id, &call.principal.actor).await? {
        Ok(answer(StatusCode::OK, json!({ "id": record.id, "deleted": true }).to_string()))
    } else {
        Err(Problem::not_found("webhook"))
    }
}

pub(crate) async fn secret(call: Call) -> Answer {
    let record = find(&call)?;
    Ok(answer(StatusCode::OK, json!({ "id": record.id, "secret": clear(&call, &record)? }).to_string()))
}

fn clear(call: &Call, record: &Record) -> Result<String, Problem> {
    call.app.webhooks.secret(record).map_err(|error| internal(&error))
}

fn find(call: &Call) -> Result<std::sync::Arc<Record>, Problem> {
    let missing = || Problem::not_found("webhook");
    let record = call.app.webhooks.get(&call.tenant, &call.path_value()?).ok_or_else(missing)?;
    if call.principal.reaches(record.confined.as_deref()) { Ok(record) } else { Err(missing()) }
}
