//! A sample for an endpoint: signed and sent like an event, but not one of the log.

use anyhow::{Result, anyhow};
use serde_json::json;
use tidings_core::event::{Operational, data_of};
use tidings_core::lane::Outcome;
use tidings_core::offset::Offset;
use tidings_sinks::Parcel;
use tokio::time::Instant;

use super::means::Means;
use super::record::Record;
use super::sink::Way;
use crate::clock;

const TYPE: &str = "tidings.webhook.test";

/// What an endpoint said to a sample.
pub(crate) struct Verdict {
    pub(crate) event_id: String,
    pub(crate) outcome: Outcome,
    pub(crate) latency_ms: u64,
}

/// Sends a sample once.
pub(super) async fn send(record: &Record, means: &Means) -> Result<Verdict> {
    let now = clock::now();
    let data = json!({ "webhook": record.id, "message": "This is a test. It is not an event of the log." });
    let event = Operational { event_type: TYPE, about: Some(&record.id), actor: None, data: data.to_string().into() };
    let mut encoded = event.encode(now, clock::random()).map_err(|error| anyhow!(error))?;
    let (envelope, header_bytes) = encoded.take_envelope(None);
    let (header, data) = (envelope.slice(..header_bytes), envelope.slice_ref(data_of(&envelope, header_bytes)));
    let parcel = Parcel {
        id: &encoded.subject.id,
        offset: Offset::BEFORE_FIRST,
        event_type: &encoded.subject.event_type,
        header: &header,
        data: Some(&data),
        envelope: Some(&envelope),
        attempt: 1,
        replay: None,
    };
    let sink = Way::own(record, means).sink(record, means)?;
    let begun = Instant::now();
    let outcome = sink.deliver(&[parcel]).await.pop().ok_or_else(|| anyhow!("a sink without an outcome"))?;
    let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Verdict { event_id: encoded.subject.id.to_string(), outcome, latency_ms })
}
