//! A span for each attempt, in the trace of its event.

use std::sync::Arc;

use tidings_core::trace::Context;
use tidings_sinks::{Outcome, Parcel, Pending, Sink};

use super::means::Means;
use crate::telemetry::trace::{Attributes, Kind, Tracer};

/// A webhook whose attempts are traced.
struct Traced {
    webhook: Box<str>,
    sink: Arc<dyn Sink>,
    tracer: Tracer,
}

/// The same sink, traced if spans are exported.
pub(super) fn traced(webhook: &str, sink: Arc<dyn Sink>, means: &Means) -> Arc<dyn Sink> {
    match &means.tracer {
        Some(tracer) => Arc::new(Traced { webhook: webhook.into(), sink, tracer: tracer.clone() }),
        None => sink,
    }
}

impl Sink for Traced {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            let parent = |parcel: &Parcel<'_>| parcel.traceparent().and_then(|text| Context::parse(&text));
            let begun: Vec<_> = parcels.iter().map(|parcel| self.tracer.begin(parent(parcel))).collect();
            let outcomes = self.sink.deliver(parcels).await;
            for ((parcel, open), outcome) in parcels.iter().zip(begun).zip(&outcomes) {
                if let Some(open) = open {
                    let fault = outcome.reason().map(str::to_owned);
                    self.tracer.end(open, ("deliver", Kind::Client), self.attributes(parcel, outcome), fault);
                }
            }
            outcomes
        })
    }
}

impl Traced {
    fn attributes(&self, parcel: &Parcel<'_>, outcome: &Outcome) -> Attributes {
        let mut attributes = vec![
            ("tidings.webhook", (*self.webhook).into()),
            ("tidings.event.id", parcel.id.as_str().into()),
            ("tidings.event.type", parcel.event_type.as_str().into()),
            ("tidings.attempt", parcel.attempt.into()),
        ];
        attributes.extend(parcel.replay.map(|replay| ("tidings.replay", replay.into())));
        attributes.extend(outcome.answer().status.map(|status| ("http.response.status_code", status.into())));
        attributes
    }
}
