//! The sealer: follows each tenant's log and chains it, 1,024 events or one second at a time, off the ack path.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use rusqlite::params;
use tidings_core::chain::{self, GENESIS, Hash};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Shared;
use super::group::Group;
use super::reader::Reader;
use super::writer::Writer;
use crate::event::{Event, Tenant};
use crate::query::Query;
use crate::store::Seal;

/// Events of a full seal.
pub const SEAL_EVENTS_MAX: usize = 1_024;
/// How long an event waits for its seal at most.
pub(crate) const SEAL_AFTER: Duration = Duration::from_secs(1);

/// A seal that the writer is to store.
#[derive(Clone)]
pub(crate) struct NewSeal {
    pub(crate) tenant: Tenant,
    pub(crate) seal: Seal,
    pub(crate) previous: Hash,
    pub(crate) leaves: Vec<u8>,
}

/// Runs until the store closes.
pub(crate) fn run(shared: &Arc<Shared>, reader: &Reader) {
    let mut sealed: HashMap<Tenant, Seal> = HashMap::default();
    // Since when a tenant's events wait for a seal that is not full, in the time of the log: while others fill seals, the
    // quiet of a second never comes.
    let mut waiting: HashMap<Tenant, Timestamp> = HashMap::default();
    loop {
        let full = shared.wait_for_seals(SEAL_AFTER);
        let now = shared.newest_recorded();
        if shared.is_closed() {
            return;
        }
        if shared.seals_were_lost() {
            sealed.clear();
        }
        for tenant in shared.tenant_numbers() {
            let last = *sealed.entry(tenant).or_insert_with(|| shared.last_seal(tenant));
            let overdue = waiting.get(&tenant).is_some_and(|since| now.since(*since) >= SEAL_AFTER);
            match seal_tenant(shared, reader, tenant, last, full && !overdue) {
                Ok(newest) => {
                    sealed.insert(tenant, newest);
                    if newest.last == last.last {
                        waiting.entry(tenant).or_insert(now);
                    } else {
                        waiting.insert(tenant, now);
                    }
                    if newest.last >= shared.end(tenant).extent.head {
                        waiting.remove(&tenant);
                    }
                }
                Err(error) => tracing::warn!(tenant = tenant.0, %error, "sealing waits"),
            }
        }
    }
}

fn seal_tenant(
    shared: &Shared,
    reader: &Reader,
    tenant: Tenant,
    mut last: Seal,
    full_only: bool,
) -> Result<Seal, crate::store::Unavailable> {
    loop {
        let head = shared.end(tenant).extent.head;
        let unsealed = head.0.saturating_sub(last.last.0);
        if unsealed == 0 || (full_only && unsealed < SEAL_EVENTS_MAX as u64) || shared.is_closed() {
            return Ok(last);
        }
        let events = match shared.tail.after(tenant, last.last, SEAL_EVENTS_MAX) {
            Some(events) => events,
            None => reader.read(&Query::after(tenant, last.last, SEAL_EVENTS_MAX))?.events,
        };
        let run = one_era(&events);
        let Some(newest) = run.last() else { return Ok(last) };
        let leaves: Vec<u8> = run.iter().flat_map(|event| event.leaf()).collect();
        let (first, end) = (run[0].offset, newest.offset);
        let seal = Seal { first, last: end, hash: chain::seal(&last.hash, first, end, &leaves) };
        shared.queue.push_seal(NewSeal { tenant, seal, previous: last.hash, leaves });
        last = seal;
    }
}

/// A seal does not span a jump of the offsets.
fn one_era(events: &[Arc<Event>]) -> &[Arc<Event>] {
    events.chunk_by(|a, b| b.offset == a.offset.next()).next().unwrap_or_default()
}

/// The seal before a tenant's first.
pub(crate) fn genesis() -> Seal {
    Seal { first: Offset(0), last: Offset(0), hash: GENESIS }
}

impl Writer {
    /// Stores a seal if it follows the last one; one that does not was made before a commit failed, and is made again.
    pub(crate) fn seal(&mut self, group: &mut Group, new: NewSeal) -> rusqlite::Result<()> {
        let in_group = group.seals.iter().rev().find(|seal| seal.tenant == new.tenant).map(|seal| seal.seal);
        if in_group.unwrap_or_else(|| self.shared.last_seal(new.tenant)).hash != new.previous {
            self.shared.lose_seals();
            return Ok(());
        }
        let sql = "INSERT INTO seal (tenant, first, last, previous, hash, leaves) VALUES (?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(sql)?.execute(params![
            new.tenant.0,
            new.seal.first.0.cast_signed(),
            new.seal.last.0.cast_signed(),
            new.previous,
            new.seal.hash,
            new.leaves,
        ])?;
        self.wrote(new.leaves.len());
        group.seals.push(new);
        Ok(())
    }
}
