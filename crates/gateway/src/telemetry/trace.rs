//! Spans: what caused what, and how long it took. Nobody begins one unless they are exported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings_core::trace::Context;

use crate::clock;

/// Spans that wait to be exported; what is over is dropped and counted.
const QUEUE_MAX: usize = 16_384;

/// Takes spans. Copies share one queue.
#[derive(Clone)]
pub(crate) struct Tracer(Arc<Shared>);

struct Shared {
    /// Of a hundred traces that begin here, so many are recorded.
    percent: u64,
    queue: Mutex<Vec<Span>>,
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// What a span is to those that it talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A span that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) context: Context,
    parent: Option<[u8; 8]>,
    began_nanos: u64,
}

/// What is told of a span: texts and numbers.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

/// A span that has ended.
pub(crate) struct Span {
    open: Open,
    ended_nanos: u64,
    name: &'static str,
    kind: Kind,
    attributes: Attributes,
    /// Why it failed.
    fault: Option<String>,
}

impl Tracer {
    pub(crate) fn new(percent: u64) -> Self {
        let (queue, exported, dropped) = Default::default();
        Self(Arc::new(Shared { percent, queue, exported, dropped }))
    }

    /// Begins a span under `parent`, or a trace. `None`: this one is not recorded.
    pub(crate) fn begin(&self, parent: Option<Context>) -> Option<Open> {
        let above = parent.unwrap_or_else(|| {
            let trace: [u8; 16] = clock::random();
            Context { trace, span: [0; 8], sampled: u64::from(trace[15]) * 100 < self.0.percent * 256 }
        });
        let context = Context { span: clock::random(), ..above };
        let parent = parent.map(|parent| parent.span);
        context.sampled.then(|| Open { context, parent, began_nanos: clock::nanos() })
    }

    pub(crate) fn end(
        &self,
        open: Open,
        (name, kind): (&'static str, Kind),
        attributes: Attributes,
        fault: Option<String>,
    ) {
        let span = Span { open, ended_nanos: clock::nanos(), name, kind, attributes, fault };
        let mut queue = self.0.queue.lock();
        if queue.len() < QUEUE_MAX {
            queue.push(span);
        } else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what waits.
    pub(super) fn take(&self) -> Vec<Span> {
        std::mem::take(&mut *self.0.queue.lock())
    }

    pub(super) fn note(&self, spans: usize, exported: bool) {
        let counter = if exported { &self.0.exported } else { &self.0.dropped };
        counter.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans since the start: exported, dropped.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [&self.0.exported, &self.0.dropped].map(|counter| counter.load(Ordering::Relaxed))
    }
}

impl Open {
    /// The same span, under another parent.
    pub(crate) fn under(self, parent: Context) -> Self {
        let context = Context { trace: parent.trace, ..self.context };
        Self { context, parent: Some(parent.span), ..self }
    }
}

impl Span {
    /// As OTLP writes it in JSON.
    pub(super) fn json(&self) -> Value {
        let Open { context, parent, began_nanos } = self.open;
        let attributes: Vec<_> = self.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
        let mut span = json!({
            "traceId": format!("{:032x}", u128::from_be_bytes(context.trace)),
            "spanId": hex(context.span),
            "flags": 1,
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": began_nanos.to_string(),
            "endTimeUnixNano": self.ended_nanos.max(began_nanos).to_string(),
            "attributes": attributes,
            "status": {},
        });
        if let Some(parent) = parent {
            span["parentSpanId"] = hex(parent).into();
        }
        if let Some(fault) = &self.fault {
            span["status"] = json!({"code": 2, "message": fault});
        }
        span
    }
}

pub(super) fn attribute(key: &str, value: &Value) -> Value {
    match value {
        // Numbers of 64 bits are texts in this JSON.
        Value::Number(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
        text => json!({"key": key, "value": {"stringValue": text}}),
    }
}

fn hex(span: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_is_not_recorded_elsewhere_is_not_recorded_here_and_shares_are_kept() {
        let quiet = Context { trace: [1; 16], span: [2; 8], sampled: false };
        let tracer = Tracer::new(100);
        assert!(tracer.begin(Some(quiet)).is_none());
        assert!(tracer.begin(None).is_some());
        assert!(Tracer::new(0).begin(None).is_none());
        assert!(Tracer::new(0).begin(Some(Context { sampled: true, ..quiet })).is_some());
    }

    #[test]
    fn spans_over_the_bound_are_dropped_and_counted() {
        let tracer = Tracer::new(100);
        for _ in 0..QUEUE_MAX + 3 {
            let open = tracer.begin(None).expect("all are recorded");
            tracer.end(open, ("commit", Kind::Internal), Vec::new(), None);
        }
        assert_eq!(tracer.counts(), [0, 3]);
        assert_eq!(tracer.take().len(), QUEUE_MAX);
    }
}
