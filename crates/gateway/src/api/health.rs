//! Probes, and how deliveries fare.

use http::StatusCode;
use serde_json::json;

use super::body::answer;
use super::call::Call;
use super::kinds;
use super::problem::Problem;
use super::routes::Answer;
use crate::app::Phase;

/// The process answers.
pub(crate) async fn live(_call: Call) -> Answer {
    Ok(answer(StatusCode::OK, r#"{"status":"live"}"#))
}

/// The server may be sent requests.
pub(crate) async fn ready(call: Call) -> Answer {
    match call.app.phase() {
        Phase::Ready => Ok(answer(StatusCode::OK, r#"{"status":"ready"}"#)),
        _ => Err(Problem::new(&kinds::NOT_READY, "the server is starting or stopping")),
    }
}

/// How deliveries fare, in totals: `503` when more waits than the settings allow.
pub(crate) async fn events(call: Call) -> Answer {
    let totals = call.app.dispatcher.totals();
    let thresholds = &call.app.settings.health;
    let (deliveries, millis) = totals.recent;
    let latency = millis.checked_div(deliveries).unwrap_or(0);
    let measures = [
        ("queueDepth", totals.queued, thresholds.queue_depth),
        ("deadLetterCount", totals.dead, thresholds.dead_letters),
        ("avgLatencyMs", latency, thresholds.latency_ms),
        ("consumerLag", totals.lag, thresholds.lag),
    ];
    let exceeded = measures.iter().filter(|(_, value, most)| most.is_some_and(|most| *value > most));
    let reasons: Vec<_> = exceeded.map(|(name, value, _)| format!("{name} is {value}")).collect();
    let [active, paused, deactivated] = totals.states;
    let [delivered, failed] = totals.attempts;
    let body = json!({
        "status": if reasons.is_empty() { "healthy" } else { "degraded" },
        "reasons": reasons,
        "queueDepth": totals.queued,
        "deadLetterCount": totals.dead,
        "avgLatencyMs": latency,
        "consumerLag": totals.lag,
        "inFlight": totals.in_flight,
        "subscriptions": { "active": active, "paused": paused, "deactivated": deactivated },
        "attempts": { "delivered": delivered, "failed": failed },
    });
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(answer(status, body.to_string()))
}
