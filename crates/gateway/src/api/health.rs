//! Probes, and how deliveries fare.

use http::StatusCode;
use serde_json::json;
use tidings_sources::outbox::State;

use super::body::answer;
use super::call::Call;
use super::kinds;
use super::problem::Problem;
use super::routes::Answer;
use crate::app::{App, Phase};
use crate::clock;

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
    let outbox = OutboxHealth::of(&call.app);
    let thresholds = &call.app.settings.health;
    let (deliveries, millis) = totals.recent;
    let latency = millis.checked_div(deliveries).unwrap_or(0);
    let measures = [
        ("queueDepth", totals.queued, thresholds.queue_depth),
        ("deadLetterCount", totals.dead, thresholds.dead_letters),
        ("avgLatencyMs", latency, thresholds.latency_ms),
        ("consumerLag", totals.lag, thresholds.lag),
        ("outboxDelayMs", outbox.delay_ms, thresholds.outbox_delay_ms),
        ("outboxWalBytes", outbox.wal_bytes, thresholds.outbox_wal_bytes),
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
        "outboxDelayMs": outbox.delay_ms,
        "outboxWalBytes": outbox.wal_bytes,
        "inFlight": totals.in_flight,
        "withWorkers": call.app.consumers.totals().0,
        "subscriptions": { "active": active, "paused": paused, "deactivated": deactivated },
        "attempts": { "delivered": delivered, "failed": failed },
        "outboxes": { "reading": outbox.reading, "failing": outbox.failing, "quarantined": outbox.quarantined },
    });
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(answer(status, body.to_string()))
}

/// All outboxes together.
#[derive(Default)]
struct OutboxHealth {
    /// Of the one that is furthest behind.
    delay_ms: u64,
    /// Kept for the slot for which most is.
    wal_bytes: u64,
    reading: usize,
    failing: usize,
    quarantined: u64,
}

impl OutboxHealth {
    fn of(app: &App) -> Self {
        let now = clock::now();
        app.outboxes.iter().map(|outbox| outbox.meter.measures(now)).fold(Self::default(), |all, one| Self {
            delay_ms: all.delay_ms.max(u64::try_from(one.delay.as_millis()).unwrap_or(u64::MAX)),
            wal_bytes: all.wal_bytes.max(one.slot.map_or(0, |slot| slot.retained_bytes)),
            reading: all.reading + usize::from(one.state == State::Reading),
            failing: all.failing + usize::from(one.state != State::Reading),
            quarantined: all.quarantined + one.quarantined,
        })
    }
}
