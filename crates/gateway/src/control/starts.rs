//! When the server started, and whether it had stopped in order before: two starts in a short time after ends that nobody
//! wanted say that something it does ends it, and it may be a delivery.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tidings_core::time::Timestamp;
use tidings_log::store::{Document, Expect, Kind, Owner};
use tidings_log::{CommitError, Store, Write};

/// Two unclean starts within this time are suspicious.
const CLOSE: Duration = Duration::from_mins(1);
/// How long deliveries are careful then.
pub(crate) const CAREFUL: Duration = Duration::from_mins(1);
const KEY: &str = "last-start";

/// The last start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    at: Timestamp,
    /// The process before it had not stopped in order.
    unclean: bool,
    /// It stopped in order.
    stopped: bool,
}

/// Notes that the server starts; answers whether that is suspicious.
pub(crate) async fn begin(store: &dyn Store, now: Timestamp) -> Result<bool> {
    let document = store.get(Kind::Setting, Owner::Operator, KEY).await?;
    let last = document.and_then(|document| serde_json::from_slice::<Start>(&document.body).ok());
    let unclean = last.is_some_and(|last| !last.stopped);
    put(store, Start { at: now, unclean, stopped: false }, now).await?;
    Ok(last.is_some_and(|last| unclean && last.unclean && now.since(last.at) <= CLOSE))
}

/// Notes that it stopped in order.
pub(crate) async fn end(store: &dyn Store, now: Timestamp) {
    // One that cannot be noted looks like one that was not in order: that costs a minute of care at the most.
    if let Err(error) = put(store, Start { at: now, unclean: false, stopped: true }, now).await {
        tracing::warn!(%error, "the stop cannot be noted");
    }
}

async fn put(store: &dyn Store, start: Start, now: Timestamp) -> Result<(), CommitError> {
    let body = serde_json::to_vec(&start).unwrap_or_default();
    let document = Document { kind: Kind::Setting, owner: Owner::Operator, id: KEY.into(), revision: 0, body };
    store.commit(now, vec![Write::Put(document, Expect::Any)]).await.map(drop)
}
