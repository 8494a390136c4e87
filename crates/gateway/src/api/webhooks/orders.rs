//! What a webhook is told to do: pause, resume, activate; and what it says to a sample.

use axum::body::Body;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::circuit::Status;
use tidings_engine::dispatcher::{Order, Outcome, Point};
use tidings_sinks::Outcome as Sent;

use super::{find, place, shown, turn};
use crate::api::body::answer;
use crate::api::call::Call;
use crate::api::document::{self, Plain};
use crate::api::kinds;
use crate::api::problem::{Problem, internal};
use crate::api::routes::Answer;
use crate::control::webhooks::Record;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    #[serde(default)]
    from: Value,
}

pub(crate) async fn pause(mut call: Call) -> Answer {
    let record = find(&call)?;
    let Plain {} = document::optional(&mut call).await?;
    match status(&call, &record) {
        // It is so already.
        Status::Paused { .. } => Ok(shown(&call, &record)),
        Status::Deactivated { .. } => Err(conflict("it is deactivated, so nothing is sent: `activate` ends that")),
        Status::Active => {
            tell(&call, &record, Order::Pause, "tidings.webhook.paused", json!({ "id": record.id })).await
        }
    }
}

pub(crate) async fn resume(mut call: Call) -> Answer {
    let record = find(&call)?;
    let Plain {} = document::optional(&mut call).await?;
    match status(&call, &record) {
        Status::Active => Ok(shown(&call, &record)),
        Status::Deactivated { .. } => Err(conflict("it is deactivated, not paused: `activate` ends that")),
        Status::Paused { .. } => {
            tell(&call, &record, Order::Resume, "tidings.webhook.resumed", json!({ "id": record.id })).await
        }
    }
}

/// Ends a pause or a deactivation; goes on at `from`, where it stood if nothing is said.
pub(crate) async fn activate(mut call: Call) -> Answer {
    let record = find(&call)?;
    let Activation { from } = document::optional(&mut call).await?;
    let tenant = call.tenant().await?;
    let point = match &from {
        Value::String(text) if text == "cursor" => Point::Cursor,
        Value::String(text) if text == "latest" => Point::Latest,
        _ => place(&call, tenant, "/from", &from).await?.map_or(Point::Cursor, Point::After),
    };
    if status(&call, &record) == Status::Active {
        return Err(conflict("it is active: pause it first to move its cursor"));
    }
    let from = match point {
        Point::Cursor => "cursor".into(),
        Point::Latest => "latest".into(),
        Point::After(offset) => json!(offset),
    };
    let what = json!({ "id": record.id, "from": from });
    tell(&call, &record, Order::Activate(point), "tidings.webhook.activated", what).await
}

fn status(call: &Call, record: &Record) -> Status {
    call.app.webhooks.status(&record.id).unwrap_or_default().standing.status
}

fn conflict(detail: &str) -> Problem {
    Problem::new(&kinds::CONFLICT, detail)
}

async fn tell(call: &Call, record: &Record, order: Order, event_type: &'static str, what: Value) -> Answer {
    let tenant = call.tenant().await?;
    let told = call.app.webhooks.order(tenant, &record.id, order, (event_type, what), &call.principal.actor).await?;
    match told {
        Some(Outcome::Done(_)) => Ok(shown(call, record)),
        Some(Outcome::Pointless | Outcome::Settled(_)) => {
            Err(conflict("it does not allow this as it stands: read it and try again"))
        }
        None => Err(idle()),
    }
}

/// It was removed a moment ago, or could not be started.
pub(crate) fn idle() -> Problem {
    conflict("it does not run: it is being removed, or the server's log says why")
}

/// Sends a sample that is not kept, and tells what the endpoint said.
pub(crate) async fn test(mut call: Call) -> Answer {
    find(&call)?;
    let Plain {} = document::optional(&mut call).await?;
    // One at a time: a sample is a request of ours to somebody else.
    let (record, _turn) = turn(&call).await?;
    let verdict = call.app.webhooks.test(&record).await.map_err(|error| internal(&error))?;
    Ok(said(&verdict.event_id, &verdict.outcome, verdict.latency_ms))
}

fn said(event_id: &str, outcome: &Sent, latency_ms: u64) -> Response<Body> {
    let said = outcome.answer();
    let body = json!({
        "eventId": event_id,
        "delivered": outcome.reason().is_none(),
        "status": said.status,
        "latencyMs": latency_ms,
        "reason": outcome.reason(),
        "answer": said.text,
    });
    answer(StatusCode::OK, body.to_string())
}
