//! One attempt of one delivery.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tidings_core::lane::{Answer, Outcome, Send as Turn};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{Event, Pending, Store, Tenant, Unavailable};
use tidings_sinks::{Parcel, Sink};

use super::Env;
use super::room::Place;

/// How an attempt ended.
pub(super) struct Attempted {
    pub(super) turn: Turn,
    /// When it began.
    pub(super) at: Timestamp,
    /// Of which event; `None` if the log does not have it any more.
    pub(super) event: Option<Arc<Event>>,
    /// `Err`: it was not made, for the event could not be read.
    pub(super) outcome: Result<Outcome, Unavailable>,
}

/// Makes attempts for one subscription.
pub(super) struct Attempts {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Tenant,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) env: Env,
}

impl Attempts {
    /// Makes one; an event that is not held is read from the log. Who fetches needs no place.
    pub(super) fn make(&self, turn: Turn, held: Option<Arc<Event>>, place: Option<Place>) -> Pending<Attempted> {
        let (store, tenant, sink, now) = (Arc::clone(&self.store), self.tenant, Arc::clone(&self.sink), self.env.now);
        Box::pin(async move {
            let _place = place;
            let event = match held {
                Some(event) => Ok(Some(event)),
                None => read(&*store, tenant, turn.offset).await,
            };
            let at = now();
            let (event, outcome) = match event {
                Ok(Some(event)) => {
                    let outcome = deliver(&*sink, &event, &turn).await;
                    (Some(event), Ok(outcome))
                }
                // Never silently: what nobody can deliver any more is a dead letter that says why.
                Ok(None) => {
                    let reason = "removed by retention".into();
                    (None, Ok(Outcome::Reject { reason, answer: Answer::default() }))
                }
                Err(trouble) => (None, Err(trouble)),
            };
            Attempted { turn, at, event, outcome }
        })
    }
}

/// The event at an offset, from memory if it is there.
pub(super) async fn read(store: &dyn Store, tenant: Tenant, offset: Offset) -> Result<Option<Arc<Event>>, Unavailable> {
    let before = Offset(offset.0.saturating_sub(1));
    let recent = store.tail().after(tenant, before, 1).and_then(|mut events| events.pop());
    match recent.filter(|event| event.offset == offset) {
        Some(event) => Ok(Some(event)),
        None => store.event(tenant, offset).await,
    }
}

async fn deliver(sink: &dyn Sink, event: &Event, turn: &Turn) -> Outcome {
    let subject = &event.subject;
    let (header, data) = (event.share(event.header()), event.bytes().map(|data| event.share(data)));
    let parcel = Parcel {
        id: &subject.id,
        offset: event.offset,
        event_type: &subject.event_type,
        header: &header,
        data: data.as_ref(),
        envelope: Some(event.envelope()),
        attempt: turn.attempt,
        replay: turn.replay.as_deref(),
    };
    let parcels = [parcel];
    // A panic is a bug of one attempt; the others of its lane must not pay for it.
    let delivered = AssertUnwindSafe(async { sink.deliver(&parcels).await }).catch_unwind().await;
    let outcome = delivered.ok().and_then(|mut outcomes| outcomes.pop());
    outcome.unwrap_or_else(|| Outcome::Retry {
        reason: "internal error".into(),
        answer: Answer::default(),
        retry_after: None,
    })
}
