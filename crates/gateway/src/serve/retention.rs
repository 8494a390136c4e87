//! Removes what is older, or more, than the settings keep; a slice at a time, between other commits.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{CommitError, Store, Tenant, Write, Written};

use crate::clock;
use crate::config::Retention;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(30);
/// What others get between two slices.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs for ever; does nothing if everything is kept.
pub(crate) async fn run(store: Arc<dyn Store>, retention: Retention) {
    if retention.age.is_none() && retention.events_max.is_none() {
        return;
    }
    loop {
        for (tenant, name) in store.tenants() {
            match trim(&*store, tenant, retention, clock::now()).await {
                Ok(0) => {}
                Ok(events) => tracing::info!(tenant = %name, events, "retention removed events"),
                Err(error) => tracing::warn!(tenant = %name, %error, "retention waits"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Trims one tenant; returns how many offsets are gone.
async fn trim(store: &dyn Store, tenant: Tenant, retention: Retention, now: Timestamp) -> Result<u64, CommitError> {
    let before = store.extent(tenant);
    let mut through = Offset(0);
    if let Some(age) = retention.age {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        through = store.before(tenant, Timestamp::from_millis(now.as_millis().saturating_sub(age))).await?;
    }
    if let Some(max) = retention.events_max {
        through = through.max(Offset(before.head.0.saturating_sub(max)));
    }
    let mut first = before.first;
    while first <= through {
        let written = store.commit(now, vec![Write::Trim(tenant, through)]).await?;
        match written[..] {
            [Written::Trimmed(next)] if next > first => first = next,
            _ => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(first.0 - before.first.0)
}
