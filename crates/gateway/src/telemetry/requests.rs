//! Requests in numbers: by route and class of status, both of a fixed set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tidings_log::meter::Histogram;

use super::exposition::Exposition;

/// Classes of status that answers have.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const TOTAL: &str = "tidings_http_requests";
const SECONDS: &str = "tidings_http_request_seconds";

/// The requests of a route.
pub(crate) struct RouteMeter {
    method: String,
    path: &'static str,
    classes: [AtomicU64; CLASSES.len()],
    latency: Histogram,
}

/// The requests of all routes.
#[derive(Default)]
pub(crate) struct Requests(Mutex<Vec<Arc<RouteMeter>>>);

impl RouteMeter {
    /// Counts an answer, and says so to who wants each.
    pub(crate) fn record(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.latency.record(took);
        // The template: what a client puts into a path or a query may be secret.
        tracing::debug!(method = self.method, route = self.path, status = status.as_u16(), ?took, "answered");
    }
}

impl Requests {
    /// The meter of a route: one, whoever asks.
    pub(crate) fn of(&self, method: &str, path: &'static str) -> Arc<RouteMeter> {
        let mut meters = self.0.lock();
        if let Some(meter) = meters.iter().find(|meter| meter.method == method && meter.path == path) {
            return Arc::clone(meter);
        }
        let (classes, latency) = Default::default();
        let meter = Arc::new(RouteMeter { method: method.to_owned(), path, classes, latency });
        meters.push(Arc::clone(&meter));
        meter
    }

    /// Writes those that were asked for.
    pub(crate) fn expose(&self, text: &mut Exposition) {
        let meters = self.0.lock().clone();
        let asked = || meters.iter().map(|meter| (meter, meter.latency.read())).filter(|(_, took)| took.count() > 0);
        text.family(TOTAL, "counter", "Requests answered, by route and class of status.");
        for (meter, _) in asked() {
            for class in [1, 3, 4] {
                let labels = [("method", &*meter.method), ("route", meter.path), ("status", CLASSES[class])];
                text.sample(TOTAL, "_total", &labels, meter.classes[class].load(Ordering::Relaxed));
            }
        }
        text.family(SECONDS, "histogram", "Time from a request's head to the head of its answer.");
        for (meter, took) in asked() {
            text.histogram(SECONDS, &[("method", &meter.method), ("route", meter.path)], &took);
        }
    }
}
