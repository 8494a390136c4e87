//! What processes leave on the disk.

use tidings_core::offset::Offset;
use tidings_log::memory::MemoryStore;
use tidings_log::store::{DeadQuery, Kind, Owner};
use tidings_log::{Query, Store, Tenant};

use crate::life::{runtime, tenant};
use crate::run::{Kept, Life, Outside, Run};
use crate::world::World;

/// For each webhook the number of the newest attempt in the history.
pub(crate) fn told(outside: &Outside, world: &World) -> Vec<u64> {
    let store = MemoryStore::open(&outside.disk);
    let newest = async |name: &str| store.history(name, None, 1).await.ok()?.first().map(|(number, _)| *number);
    runtime().block_on(async {
        let mut told = Vec::new();
        for hook in &world.hooks {
            told.push(newest(&hook.name).await.unwrap_or(0));
        }
        told
    })
}

/// Reads what the disk has in the end.
pub(crate) fn collect(outside: &Outside, world: &World, lives: Vec<Life>, finished: bool) -> Run {
    let store = MemoryStore::open(&outside.disk);
    let (logs, kept) = runtime().block_on(async {
        let mut logs = Vec::new();
        for place in 0..world.tenants {
            let all = store.read(Query::after(tenant(place), Offset(0), usize::MAX)).await;
            logs.push(all.map(|page| page.events).unwrap_or_default());
        }
        let mut kept = Vec::new();
        for hook in &world.hooks {
            kept.push(keep(&store, &hook.name, tenant(hook.tenant)).await);
        }
        (logs, kept)
    });
    let record = std::mem::take(&mut *outside.record.lock());
    Run {
        world: world.clone(),
        lives,
        seen: record.seen,
        fetched: record.fetched,
        notes: std::mem::take(&mut outside.notes.lock()),
        acked: std::mem::take(&mut outside.acked.lock()),
        logs,
        kept,
        verified: outside.disk.verify(),
        finished,
        violations: Vec::new(),
    }
}

async fn keep(store: &MemoryStore, name: &str, tenant: Tenant) -> Kept {
    let query = DeadQuery {
        tenant,
        subscription: Some(name.into()),
        event_type: None,
        since: None,
        open: false,
        before: None,
        limit: usize::MAX,
    };
    let mut letters = store.dead_letters(query).await.unwrap_or_default();
    letters.reverse();
    let mut history = store.history(name, None, usize::MAX).await.unwrap_or_default();
    history.reverse();
    let progress = store.progress(name).await.ok().flatten().unwrap_or_default();
    let standing = store.get(Kind::Standing, Owner::Tenant(tenant), name).await.ok().flatten();
    let standing = standing.and_then(|document| serde_json::from_slice(&document.body).ok()).unwrap_or_default();
    Kept { start: Offset(0), history, letters, waiting: progress.rows, standing, in_flight: 0 }
}
