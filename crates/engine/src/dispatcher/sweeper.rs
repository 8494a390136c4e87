//! Follows the tail of a tenant's log for all subscriptions of a shard that are up to date.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::offset::Offset;
use tidings_log::{Query, Tenant, Write};
use tokio::time::{Instant, sleep, sleep_until};

use super::shard::{CURRENT_MAX, Phase, Shard};

/// Events put to lanes before something else gets its turn.
const CHUNK: usize = 256;
/// Between two commits of how far the slots are,
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// or, when that made as many subscriptions current as one may, until the next one does.
const COMMIT_AGAIN: Duration = Duration::from_millis(50);
/// After a read or a commit that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the shard is shut.
pub(super) async fn run(shard: &Arc<Shard>, tenant: Tenant) {
    let mut phase = shard.phase();
    if phase.wait_for(|phase| *phase > Phase::Loading).await.is_err() {
        return;
    }
    let mut head = shard.store.tail().watch(tenant);
    let mut commit_at = Instant::now() + COMMIT_EVERY;
    let mut committed = shard.place(tenant).0;
    loop {
        if *phase.borrow() == Phase::Shut {
            return;
        }
        head.borrow_and_update();
        let more = advance(shard, tenant).await;
        let place = shard.place(tenant).0;
        let waits = place > committed || shard.has_idle(tenant);
        if Instant::now() >= commit_at && waits {
            // First who heard the bell sends.
            tokio::task::yield_now().await;
            let pause;
            (committed, pause) = commit(shard, tenant, place, committed).await;
            commit_at = Instant::now() + pause;
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_err() { return },
            changed = head.changed() => if changed.is_err() { return },
            () = sleep_until(commit_at), if waits => {}
        }
    }
}

/// Puts the next events to those who want them; whether there may be more.
async fn advance(shard: &Arc<Shard>, tenant: Tenant) -> bool {
    let (place, wanted) = shard.place(tenant);
    let extent = shard.store.extent(tenant);
    if place >= extent.head {
        return false;
    }
    if !wanted {
        shard.pass(tenant, extent.head);
        return false;
    }
    if place.next() < extent.first {
        shard.miss(tenant, extent.first);
        return true;
    }
    if let Some(events) = shard.store.tail().after(tenant, place, CHUNK) {
        shard.put(tenant, &events);
        return events.len() == CHUNK;
    }
    match shard.store.read(Query::after(tenant, place, CHUNK)).await {
        Ok(page) => {
            if place.next() < page.first {
                shard.miss(tenant, page.first);
            }
            shard.put(tenant, &page.events);
            shard.pass(tenant, page.reached);
            page.reached > place
        }
        Err(error) => {
            tracing::warn!(tenant = tenant.0, %error, "the log cannot be read");
            sleep(PAUSE).await;
            true
        }
    }
}

/// Commits how far the slots are; answers how far that is known to be told, and how long the next one has time.
async fn commit(shard: &Shard, tenant: Tenant, place: Offset, committed: Offset) -> (Offset, Duration) {
    let sweeps = shard.sweeps(tenant);
    if sweeps.is_empty() {
        return (committed, COMMIT_EVERY);
    }
    let held_back = sweeps.iter().any(|sweep| sweep.through < place);
    let current: usize = sweeps.iter().map(|sweep| sweep.current.len()).sum();
    let pause = if current == CURRENT_MAX { COMMIT_AGAIN } else { COMMIT_EVERY };
    let writes = sweeps.iter().cloned().map(Write::Sweep).collect();
    match shard.store.commit((shard.env.now)(), writes).await {
        Ok(_) if held_back => (committed, pause),
        Ok(_) => (place, pause),
        Err(error) => {
            tracing::warn!(tenant = tenant.0, %error, "the cursors of slots wait to be committed");
            shard.unswept(tenant, &sweeps);
            (committed, COMMIT_EVERY)
        }
    }
}
