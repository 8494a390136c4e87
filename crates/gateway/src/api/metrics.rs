//! `GET /metrics`: the server in numbers. No label comes from a request or from what is kept, so their number is fixed.

use std::sync::Arc;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use tidings_engine::dispatcher::Totals;
use tidings_log::sqlite::Measures as LogMeasures;
use tidings_sources::outbox::{Measures, State};

use super::call::Call;
use super::kinds;
use super::problem::{Problem, internal};
use super::routes::Answer;
use crate::app::App;
use crate::clock;
use crate::telemetry::exposition::{Exposition, MEDIA_TYPE};
use crate::telemetry::process;
use crate::telemetry::trace::Tracer;

/// The path of metrics, which the settings may open to everybody.
pub(crate) const PATH: &str = "/metrics";

pub(crate) async fn metrics(call: Call) -> Answer {
    if call.principal.tenant.is_some() {
        let detail = "metrics are of all tenants together: this takes a key of the operator";
        return Err(Problem::new(&kinds::FORBIDDEN, detail));
    }
    let app = Arc::clone(&call.app);
    // It looks at files, which may take a moment.
    let text = tokio::task::spawn_blocking(move || text(&app)).await.map_err(|error| internal(&error))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

fn text(app: &App) -> String {
    let mut text = Exposition::default();
    text.family("tidings_build", "info", "What runs.");
    text.sample("tidings_build", "_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    of_requests(&mut text, app);
    of_the_log(&mut text, &app.watch.measures());
    of_deliveries(&mut text, app.dispatcher.totals());
    of_outboxes(&mut text, app);
    let (out, waiting) = app.consumers.totals();
    text.gauge("tidings_consumer_messages_in_flight", "Messages that workers have.", out);
    text.gauge("tidings_consumer_fetches_waiting", "Fetches that wait for messages.", waiting);
    if let Some([exported, dropped]) = app.tracer.as_ref().map(Tracer::counts) {
        text.family("tidings_trace_spans", "counter", "Spans by what became of them.");
        text.sample("tidings_trace_spans", "_total", &[("outcome", "exported")], exported);
        text.sample("tidings_trace_spans", "_total", &[("outcome", "dropped")], dropped);
    }
    of_the_process(&mut text, app);
    text.finish()
}

fn of_requests(text: &mut Exposition, app: &App) {
    app.requests.expose(text);
    text.gauge("tidings_streams_open", "Event streams that are open.", app.seats.taken());
}

fn of_the_log(text: &mut Exposition, log: &LogMeasures) {
    text.counter("tidings_log_events", "Events appended.", log.events);
    text.family("tidings_log_commit_seconds", "histogram", "Time of a transaction, with its sync.");
    text.histogram("tidings_log_commit_seconds", &[], &log.transactions);
    let help = "Commits asked for: by the transactions, this is how many share a sync.";
    text.counter("tidings_log_commits_grouped", help, log.tasks);
    text.counter("tidings_log_commit_failures", "Transactions that failed.", log.failures);
    let (tasks, bytes) = log.queued;
    text.gauge("tidings_log_queue_commits", "Commits that wait for the writer.", tasks);
    text.gauge("tidings_log_queue_bytes", "Bytes that wait for the writer.", bytes);
    text.gauge("tidings_log_head_offsets", "The newest offsets of all tenants, added up.", log.heads);
    text.gauge("tidings_log_kept_events", "Events that are kept.", log.kept);
    text.gauge("tidings_log_size_bytes", "The files of the log.", log.file_bytes);
    text.gauge("tidings_log_free_bytes", "Free on the disk of the log.", log.free_bytes);
}

fn of_deliveries(text: &mut Exposition, totals: Totals) {
    text.family("tidings_delivery_attempts", "counter", "Attempts by how they ended.");
    for (outcome, count) in ["delivered", "failed"].into_iter().zip(totals.attempts) {
        text.sample("tidings_delivery_attempts", "_total", &[("outcome", outcome)], count);
    }
    let help = "Faults of ours: lanes that panicked and began again from what was committed.";
    text.counter("tidings_lane_panics", help, totals.panics);
    text.gauge("tidings_deliveries_in_flight", "Attempts being made.", totals.in_flight);
    text.gauge("tidings_deliveries_queued", "Deliveries that are not made yet.", totals.queued);
    let help = "The largest number of events between a cursor and the head.";
    text.gauge("tidings_delivery_lag_events", help, totals.lag);
    let (deliveries, millis) = totals.recent;
    let average = std::time::Duration::from_millis(millis.checked_div(deliveries).unwrap_or(0)).as_secs_f64();
    let help = "From record to delivery, the average of the last minute; 0 if there was none.";
    text.gauge("tidings_delivery_latency_seconds", help, average);
    text.gauge("tidings_dead_letters_open", "Open dead letters.", totals.dead);
    text.family("tidings_subscriptions", "gauge", "Subscriptions by state.");
    for (state, count) in ["active", "paused", "deactivated"].into_iter().zip(totals.states) {
        text.sample("tidings_subscriptions", "", &[("state", state)], count);
    }
}

/// A label names an outbox as the settings do, so the settings bound their number too.
fn of_outboxes(text: &mut Exposition, app: &App) {
    let now = clock::now();
    let all: Vec<_> = app.outboxes.iter().map(|outbox| (outbox.name.as_str(), outbox.meter.measures(now))).collect();
    if all.is_empty() {
        return;
    }
    let mut family = |name: &str, kind: &str, help: &str, of: fn(&Measures) -> f64| {
        text.family(name, kind, help);
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (outbox, measures) in &all {
            text.sample(name, suffix, &[("outbox", outbox)], of(measures));
        }
    };
    let help = "What was committed in the outbox longer ago than this is in the log.";
    family("tidings_outbox_delay_seconds", "gauge", help, |outbox| outbox.delay.as_secs_f64());
    let help = "1 while it is read, 0 while it cannot be.";
    family("tidings_outbox_reading", "gauge", help, |outbox| f64::from(u8::from(outbox.state == State::Reading)));
    family("tidings_outbox_rows", "counter", "Rows that became events.", |outbox| count(outbox.rows));
    family("tidings_outbox_rejected", "counter", "Rows that could not.", |outbox| count(outbox.rejected));
    let help = "Rows in quarantine, with those that wait behind them.";
    family("tidings_outbox_quarantined", "gauge", help, |outbox| count(outbox.quarantined));
    family("tidings_outbox_polls", "counter", "How often it was asked.", |outbox| count(outbox.polls));
    let help = "How often it was read from its beginning again, because it was restored or replaced.";
    family("tidings_outbox_resets", "counter", help, |outbox| count(outbox.resets));
    let help = "Bytes that the database keeps for its slot; 0 if it has none.";
    let kept = |outbox: &Measures| outbox.slot.as_ref().map_or(0.0, |slot| count(slot.retained_bytes));
    family("tidings_outbox_slot_retained_bytes", "gauge", help, kept);
}

/// A count as a sample.
#[expect(clippy::cast_precision_loss, reason = "whole up to 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}

fn of_the_process(text: &mut Exposition, app: &App) {
    let started = std::time::Duration::from_millis(app.started.as_millis().unsigned_abs()).as_secs_f64();
    text.gauge("process_start_time_seconds", "When the process started, since 1970.", started);
    if let Some(bytes) = process::resident_bytes() {
        text.gauge("process_resident_memory_bytes", "Memory in use.", bytes);
    }
    if let Some(count) = process::open_files() {
        text.gauge("process_open_fds", "Open file descriptors.", count);
    }
    if let Some(most) = process::files_max() {
        text.gauge("process_max_fds", "How many file descriptors may be open.", most);
    }
}
